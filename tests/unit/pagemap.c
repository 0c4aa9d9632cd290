/* SPDX-License-Identifier: Apache-2.0 */
#include "uffd/pagemap.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>
#include "uffd/uffd.h"
#include "util/cleanup.h"

enum { PAGE = 4096, RUNS = 4096 };

/** struct runs - what was reported */
struct runs {
	uint64_t start[RUNS];
	uint64_t len[RUNS];
	size_t n;
};

static void collect(void *arg, uint64_t start, uint64_t len)
{
	struct runs *r = arg;

	cr_assert_lt(r->n, RUNS);
	r->start[r->n] = start;
	r->len[r->n++] = len;
}

static uint64_t addr(const void *p)
{
	return (uint64_t)(uintptr_t)p;
}

static uint8_t *map_anon(size_t n)
{
	uint8_t *p =
		mmap(NULL, n * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	cr_assert_neq(p, MAP_FAILED);
	cr_assert_eq(madvise(p, n * PAGE, MADV_NOHUGEPAGE), 0);
	return p;
}

/* Registered and protected for asynchronous tracking. */
static int track(const uint8_t *p, size_t n)
{
	int fd = uffd_open(true, NULL);

	cr_assert_geq(fd, 0);
	if (uffd_api(fd, UFFD_F_WP_ASYNC | UFFD_F_WP_UNPOPULATED | UFFD_F_WP_HUGETLBFS_SHMEM, NULL,
		     NULL) < 0)
		cr_skip("this kernel has no asynchronous write tracking");
	cr_assert_eq(uffd_register(fd, addr(p), n * PAGE, UFFD_MODE_WP, NULL), 0);
	cr_assert_eq(uffd_writeprotect(fd, addr(p), n * PAGE, true), 0);
	return fd;
}

Test(pagemap, written_since_the_last_round)
{
	uint8_t *p = map_anon(16);
	int map = pagemap_open(0), fd = track(p, 16);
	struct runs r = {};

	cr_assert_geq(map, 0);
	p[3 * PAGE] = p[4 * PAGE] = p[9 * PAGE] = 1;
	cr_assert_eq(pagemap_written(map, addr(p), addr(p) + 16 * PAGE, false, collect, &r), 0);
	cr_assert_eq(r.n, 2);
	cr_assert(r.start[0] == addr(p) + 3 * PAGE && r.len[0] == 2 * PAGE);
	cr_assert(r.start[1] == addr(p) + 9 * PAGE && r.len[1] == PAGE);

	r.n = 0;
	cr_assert_eq(pagemap_written(map, addr(p), addr(p) + 16 * PAGE, true, collect, &r), 0);
	cr_assert_eq(r.n, 2, "looking alone began no new round");
	r.n = 0;
	p[9 * PAGE] = 2;
	cr_assert_eq(pagemap_written(map, addr(p), addr(p) + 16 * PAGE, true, collect, &r), 0);
	cr_assert(r.n == 1 && r.start[0] == addr(p) + 9 * PAGE);
	close(fd);
	close(map);
}

Test(pagemap, more_runs_than_one_call_holds)
{
	enum { N = 4000 };
	uint8_t *p = map_anon(N);
	int map = pagemap_open(0), fd = track(p, N);
	struct runs *r = calloc(1, sizeof(*r));

	for (int i = 0; i < N; i += 2)
		p[(size_t)i * PAGE] = 1;
	cr_assert_eq(pagemap_written(map, addr(p), addr(p) + N * PAGE, true, collect, r), 0);
	cr_assert_eq(r->n, N / 2);
	for (size_t i = 0; i < r->n; i++)
		cr_assert(r->start[i] == addr(p) + 2 * i * PAGE && r->len[i] == PAGE);
	r->n = 0;
	cr_assert_eq(pagemap_written(map, addr(p), addr(p) + N * PAGE, true, collect, r), 0);
	cr_assert_eq(r->n, 0, "all of them were protected again");
	free(r);
	close(fd);
	close(map);
}

Test(pagemap, protecting_needs_tracking)
{
	uint8_t *p = map_anon(4);
	int map = pagemap_open(0), fd = track(p, 2);
	struct runs r = {};

	memset(p, 1, 4 * PAGE);
	cr_assert_eq(pagemap_written(map, addr(p), addr(p) + 4 * PAGE, true, collect, &r), -EPERM);
	cr_assert_eq(pagemap_written(map, addr(p) + 1, addr(p) + PAGE, true, collect, &r), -EINVAL);
	cr_assert_eq(pagemap_written(fd, addr(p), addr(p) + PAGE, true, collect, &r), -EINVAL);
	close(fd);
	close(map);
	cr_assert_eq(pagemap_written(map, addr(p), addr(p) + PAGE, true, collect, &r), -EBADF);
}

Test(pagemap, end_of_the_guest_is_not_the_end_of_its_writing)
{
	uint8_t *p = map_anon(4), byte = 0;
	struct runs r = {};
	int go[2], map;
	pid_t child;

	cr_assert_eq(pipe(go), 0);
	child = fork();
	if (child == 0) {
		track(p, 4);
		if (write(go[1], "x", 1) == 1)
			pause();
		_exit(1);
	}
	map = pagemap_open(child);
	cr_assert_geq(map, 0);
	cr_assert_eq(read(go[0], &byte, 1), 1);
	cr_assert_eq(pagemap_written(map, addr(p), addr(p) + 4 * PAGE, true, collect, &r), 0);
	cr_assert_eq(kill(child, SIGKILL), 0);
	cr_assert_eq(waitpid(child, NULL, 0), child);
	cr_assert_eq(pagemap_written(map, addr(p), addr(p) + 4 * PAGE, true, collect, &r), -ESRCH);
	close(map);
}

Test(pagemap, present_pages_joined)
{
	uint8_t *p = map_anon(16);
	int map = pagemap_open(0);
	struct runs r = {};

	memset(p + 2 * PAGE, 1, 3 * PAGE);
	p[15 * PAGE] = 1;
	if (pagemap_present(map, addr(p), addr(p) + 16 * PAGE, collect, &r) == -ENOTTY)
		cr_skip("this kernel has no PAGEMAP_SCAN");
	cr_assert_eq(r.n, 2);
	cr_assert(r.start[0] == addr(p) + 2 * PAGE && r.len[0] == 3 * PAGE);
	cr_assert(r.start[1] == addr(p) + 15 * PAGE && r.len[1] == PAGE);
	r.n = 0;
	cr_assert_eq(madvise(p, 16 * PAGE, MADV_DONTNEED), 0);
	cr_assert_eq(pagemap_present(map, addr(p), addr(p) + 16 * PAGE, collect, &r), 0);
	cr_assert_eq(r.n, 0);
	cr_assert_eq(pagemap_present(map, addr(p), addr(p), collect, &r), 0, "an empty range");
	close(map);
}

Test(pagemap, pages_of_different_kinds_are_one_run)
{
	const struct pagemap_query query = {.any_of = PAGEMAP_PRESENT | PAGEMAP_PFNZERO};
	uint8_t *p = map_anon(6);
	int map = pagemap_open(0);
	struct runs r = {};
	uint8_t sum = 0;

	/* Written, only read (the kernel's zero page), written: regions of their own to the kernel. */
	p[PAGE] = p[3 * PAGE] = 1;
	sum = (uint8_t)(sum + *(volatile uint8_t *)(p + 2 * PAGE));
	cr_assert_eq(sum, 0);
	if (pagemap_scan(map, addr(p), addr(p) + 6 * PAGE, &query, collect, &r) == -ENOTTY)
		cr_skip("this kernel has no PAGEMAP_SCAN");
	cr_assert_eq(r.n, 1);
	cr_assert(r.start[0] == addr(p) + PAGE && r.len[0] == 3 * PAGE);
	close(map);
}

Test(pagemap, nobody_has_no_map)
{
	cr_assert_eq(pagemap_open(0x3fffffff), -ENOENT);
}

Test(pagemap, holes_of_a_file)
{
	int fd = memfd_create("t", MFD_CLOEXEC);
	struct runs r = {};

	cr_assert_eq(ftruncate(fd, 16 * PAGE), 0);
	cr_assert_eq(pagemap_file_data(fd, 16 * PAGE, collect, &r), 0);
	cr_assert_eq(r.n, 0, "a new file is one hole");
	cr_assert_eq(pwrite(fd, "x", 1, 0), 1);
	cr_assert_eq(pwrite(fd, "x", 1, 5 * PAGE + 17), 1);
	cr_assert_eq(pwrite(fd, "x", 1, 6 * PAGE), 1);
	cr_assert_eq(pwrite(fd, "x", 1, 15 * PAGE), 1);
	cr_assert_eq(lseek(fd, 77, SEEK_SET), 77);
	cr_assert_eq(pagemap_file_data(fd, 16 * PAGE, collect, &r), 0);
	cr_assert_eq(r.n, 3);
	cr_assert(r.start[0] == 0 && r.len[0] == PAGE);
	cr_assert(r.start[1] == 5 * PAGE && r.len[1] == 2 * PAGE);
	cr_assert(r.start[2] == 15 * PAGE && r.len[2] == PAGE);
	cr_assert_eq(lseek(fd, 0, SEEK_CUR), 77, "the shared position stays where it was");

	r.n = 0;
	cr_assert_eq(pagemap_file_data(fd, 6 * PAGE, collect, &r), 0);
	cr_assert(r.n == 2 && r.len[1] == PAGE, "nothing behind the length asked for");
	r.n = 0;
	cr_assert_eq(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 6 * PAGE), 0);
	cr_assert_eq(pagemap_file_data(fd, 1 << 30, collect, &r), 0, "longer than the file");
	cr_assert(r.n == 2 && r.start[0] == 6 * PAGE && r.start[1] == 15 * PAGE);
	cr_assert_eq(pagemap_file_data(fd, UINT64_MAX, collect, &r), -EINVAL);
	close(fd);
}
