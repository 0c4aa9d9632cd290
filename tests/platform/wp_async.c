/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Asynchronous write tracking: WP_ASYNC and PAGEMAP_SCAN. Precopy leans on this: a write that no scan
 * reports is a page that arrives stale.
 */
#include "platform.h"

#include <pthread.h>

#define N       256
#define LEN     (N * PAGE)
#define WRITERS 3

static struct scan_run runs[N + 1];

static uint64_t features(void)
{
	return UFFD_FEATURE_PAGEFAULT_FLAG_WP | UFFD_FEATURE_WP_HUGETLBFS_SHMEM | WP_UNPOP |
	       WP_ASYNC;
}

static int track(const uint8_t *mem)
{
	int fd = uffd_new(features());

	must(uffd_reg(fd, mem, LEN, UFFDIO_REGISTER_MODE_WP) == 0);
	must(uffd_wp(fd, mem, LEN, true) == 0);
	return fd;
}

/* Is the page at @off, and nothing else, reported and protected again? */
static bool only(int map, const uint8_t *mem, uint64_t off)
{
	int n = scan(map, mem, LEN, true, SCAN_WRITTEN, 0, runs, N);

	return n == 1 && runs[0].start == addr_of(mem) + off && runs[0].end == runs[0].start + PAGE;
}

static void every_kind_of_write(const char *kind, int memfd)
{
	uint8_t *mem = memfd < 0 ? map_anon(LEN) : map_file(memfd, LEN), byte = 1;
	int map = map_of(getpid()), fd, zero = open("/dev/zero", O_RDONLY);
	struct iovec from = {&byte, 1}, to = {mem + 9 * PAGE, 1};

	mem[3 * PAGE] = 1;
	mem[200 * PAGE] = 1;
	fd = track(mem);
	fact(scan(map, mem, LEN, false, SCAN_WRITTEN, 0, runs, N) == 0,
	     "%s: after protecting nothing counts as written", kind);
	mem[3 * PAGE] = 2;
	fact(only(map, mem, 3 * PAGE), "%s: a write to a page that was there is seen", kind);
	mem[4 * PAGE] = 2;
	fact(only(map, mem, 4 * PAGE), "%s: a write to an unpopulated page is seen", kind);
	mem[3 * PAGE] = 3;
	fact(only(map, mem, 3 * PAGE), "%s: so is the next write, in the next round", kind);
	must(read(zero, mem + 7 * PAGE, 1) == 1);
	fact(only(map, mem, 7 * PAGE), "%s: a write by a system call (read(2)) is seen", kind);
	must(process_vm_writev(getpid(), &from, 1, &to, 1, 0) == 1);
	fact(only(map, mem, 9 * PAGE), "%s: a write by process_vm_writev is seen", kind);
	must(*(volatile uint8_t *)(mem + 20 * PAGE) == 0 &&
	     *(volatile uint8_t *)(mem + 3 * PAGE) == 3);
	fact(scan(map, mem, LEN, true, SCAN_WRITTEN, 0, runs, N) == 0, "%s: reading is no write",
	     kind);
	if (memfd < 0) {
		must(madvise(mem + 3 * PAGE, PAGE, MADV_DONTNEED) == 0);
		fact(only(map, mem, 3 * PAGE), "%s: a page that is given back counts as written",
		     kind);
	}
	close(fd);
	close(map);
	close(zero);
	munmap(mem, LEN);
}

static const char *seen(int map, const uint8_t *mem)
{
	return scan(map, mem, LEN, true, SCAN_WRITTEN, 0, runs, N) == 0 ? "NOT seen" : "seen";
}

/*
 * Who changes shared memory past the guest's own mapping is not seen. These are notes, not facts: a
 * kernel that does better one day breaks nothing.
 */
static void other_ways(void)
{
	int memfd = new_memfd(LEN), map = map_of(getpid()), fd;
	uint8_t *mem = map_file(memfd, LEN), *second = map_file(memfd, LEN), byte = 1;

	memset(mem, 1, LEN);
	fd = track(mem);
	second[PAGE] = 2;
	note("memfd: a write through another mapping is %s", seen(map, mem));
	must(pwrite(memfd, &byte, 1, 5 * PAGE) == 1);
	note("memfd: pwrite(2) is %s", seen(map, mem));
	must(punch(memfd, 7 * PAGE, PAGE) == 0);
	note("memfd: fallocate(PUNCH_HOLE) of a protected page is %s", seen(map, mem));
	must(*(volatile uint8_t *)(mem + 7 * PAGE) == 0);
	note("memfd: when it is read again, as zeros, it is %s", seen(map, mem));
	must(madvise(mem + 8 * PAGE, PAGE, MADV_REMOVE) == 0);
	note("memfd: madvise(MADV_REMOVE) of a protected page is %s", seen(map, mem));
	mem[9 * PAGE] = 3;
	must(punch(memfd, 9 * PAGE, PAGE) == 0);
	fact(only(map, mem, 9 * PAGE), "memfd: a page written since, then punched, is seen");
	close(fd);
	close(map);
	munmap(mem, LEN);
	munmap(second, LEN);
	close(memfd);
}

struct writers {
	pthread_t thread[WRITERS];
	uint8_t *mem;
	_Atomic bool stop;
	_Atomic int next;
};

/* Each writer counts up 64-bit words of its own in every page, as fast as it can. */
static void *write_all(void *arg)
{
	struct writers *w = arg;
	int me = atomic_fetch_add(&w->next, 1);
	unsigned int seed = (unsigned int)me + 1;

	while (!w->stop) {
		uint64_t page = (uint64_t)rand_r(&seed) % N;

		((volatile uint64_t *)(w->mem + page * PAGE))[me * 8]++;
	}
	return NULL;
}

/* One precopy pass: scan and protect, then copy what was reported. Return: pages */
static uint64_t pass(int map, const uint8_t *mem, uint8_t *copy)
{
	int n = scan(map, mem, LEN, true, SCAN_WRITTEN, 0, runs, N);

	must(n >= 0);
	for (int i = 0; i < n; i++)
		memcpy(copy + (runs[i].start - addr_of(mem)),
		       (const void *)(uintptr_t)runs[i].start, runs[i].end - runs[i].start);
	return scan_pages(runs, n);
}

static void nothing_is_lost(const char *kind, int memfd)
{
	uint8_t *mem = memfd < 0 ? map_anon(LEN) : map_file(memfd, LEN), *copy = map_anon(LEN);
	struct writers w = {.mem = mem};
	int map = map_of(getpid()), fd, passes = 0;
	uint64_t pages = 0, end, sum = 0;

	memset(mem, 0, LEN);
	fd = track(mem);
	memcpy(copy, mem, LEN);
	for (int i = 0; i < WRITERS; i++)
		must(pthread_create(&w.thread[i], NULL, write_all, &w) == 0);
	end = now_us() + 1000000;
	while (now_us() < end) {
		pages += pass(map, mem, copy);
		passes++;
	}
	w.stop = true;
	for (int i = 0; i < WRITERS; i++)
		pthread_join(w.thread[i], NULL);
	pass(map, mem, copy);
	for (size_t i = 0; i < LEN / 8; i++)
		sum += ((uint64_t *)(void *)mem)[i];
	fact(!memcmp(mem, copy, LEN),
	     "%s: scan and protect is atomic: %d passes copied %llu pages under %llu writes, and "
	     "the "
	     "copy is the memory",
	     kind, passes, (unsigned long long)pages, (unsigned long long)sum);
	close(fd);
	close(map);
	munmap(mem, LEN);
	munmap(copy, LEN);
}

static void without_permission(void)
{
	uint8_t *mem = map_anon(LEN);
	int map = map_of(getpid());

	memset(mem, 1, LEN);
	fact(scan(map, mem, LEN, true, SCAN_WRITTEN, 0, runs, N) == -EPERM,
	     "protecting what is not tracked asynchronously is EPERM");
	fact(scan_pages(runs, scan(map, mem, LEN, false, SCAN_WRITTEN, 0, runs, N)) == N,
	     "memory that was never protected counts as written");
	close(map);
	munmap(mem, LEN);
}

static void markers(void)
{
	uint8_t *mem = map_anon(LEN);
	int map = map_of(getpid()), fd, n;

	mem[0] = 1;
	fd = track(mem);
	n = scan(map, mem, LEN, false, 0, SCAN_PRESENT | SCAN_SWAPPED, runs, N);
	must(n >= 0);
	fact(scan_pages(runs, n) == N, "protecting unpopulated anonymous pages makes them count as "
				       "swapped: ask which are there *before*");
	n = scan(map, mem, LEN, false, SCAN_PRESENT, 0, runs, N);
	fact(n == 1 && scan_pages(runs, n) == 1, "present alone is still right");
	close(fd);
	close(map);
	munmap(mem, LEN);
}

static void dead_guest(void)
{
	uint8_t *mem = map_anon(LEN);
	struct guest g = guest_start(mem, LEN, -1, features(), UFFDIO_REGISTER_MODE_WP);
	int map = map_of(g.pid), n;

	if (map < 0) {
		untried("page map of another process: %s", strerror(errno));
		guest_end(&g);
		return;
	}
	must(uffd_wp(g.uffd, mem, LEN, true) == 0);
	must(guest_ask(&g, OP_WRITE, 0, 1) == 0);
	must(scan(map, mem, LEN, false, SCAN_WRITTEN, 0, runs, N) == 1);
	kill(g.pid, SIGKILL);
	must(waitpid(g.pid, NULL, 0) == g.pid);
	n = scan(map, mem, LEN, true, SCAN_WRITTEN, 0, runs, N);
	fact(n == 0,
	     "the page map of a guest that is gone reports *nothing written*, not an error: "
	     "look at its pidfd");
	close(map);
	munmap(mem, LEN);
}

int main(void)
{
	int memfd = new_memfd(LEN);

	if ((uffd_known() & (WP_ASYNC | WP_UNPOP)) != (WP_ASYNC | WP_UNPOP)) {
		untried("WP_ASYNC: this kernel has none; tracking is by faults");
		return 77;
	}
	every_kind_of_write("anonymous", -1);
	every_kind_of_write("memfd", memfd);
	other_ways();
	nothing_is_lost("anonymous", -1);
	nothing_is_lost("memfd", memfd);
	without_permission();
	markers();
	dead_guest();
	return facts_end();
}
