/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Memory that changes underneath: what write tracking sees of pages that the guest gives back, and what
 * else tells. Precopy and snapshots lean on it: what is missed arrives as dead data.
 */
#include "platform.h"

/* More than one page table, at an address where whole ones are given back. */
#define TABLE (512 * PAGE)
#define LEN   (4 * TABLE)
#define WORDS (LEN / PAGE)

static struct scan_run runs[WORDS + 1];
static uint64_t words[WORDS];

static uint8_t *map_aligned(int memfd)
{
	uint8_t *p = map_anon(LEN + TABLE);

	p += TABLE - addr_of(p) % TABLE;
	must(mmap(p, LEN, PROT_READ | PROT_WRITE,
		  MAP_FIXED | (memfd < 0 ? MAP_PRIVATE | MAP_ANONYMOUS : MAP_SHARED), memfd,
		  0) == p);
	madvise(p, LEN, MADV_NOHUGEPAGE);
	return p;
}

static int track(const uint8_t *mem, uint64_t more)
{
	int fd = uffd_new(UFFD_FEATURE_PAGEFAULT_FLAG_WP | UFFD_FEATURE_WP_HUGETLBFS_SHMEM |
			  (uffd_known() & WP_UNPOP) | more);

	must(uffd_reg(fd, mem, LEN, UFFDIO_REGISTER_MODE_WP) == 0);
	must(uffd_wp(fd, mem, LEN, true) == 0);
	return fd;
}

/* Do the runs hold exactly [first, first + n)? */
static bool are(const uint8_t *mem, int got, uint64_t first, uint64_t n)
{
	uint64_t at = addr_of(mem) + first * PAGE;

	for (int i = 0; i < got; i++) {
		if (runs[i].start != at)
			return false;
		at = runs[i].end;
	}
	return at == addr_of(mem) + (first + n) * PAGE;
}

/* Bit 57 of the page map, as kernels before 6.7 tell it, is clear for exactly [first, first + n)? */
static bool words_are(const uint8_t *mem, uint64_t first, uint64_t n)
{
	int map = map_of(getpid());
	bool right = true;

	must(pread(map, words, sizeof(words), (off_t)(addr_of(mem) / PAGE * 8)) == sizeof(words));
	for (uint64_t i = 0; i < WORDS; i++)
		right = right && !(words[i] >> 57 & 1) == (i >= first && i < first + n);
	close(map);
	return right;
}

static void given_back(const char *kind, uint64_t more)
{
	static const struct {
		const char *what;
		uint64_t first, n;
	} part[] = {
		{"a page", 700, 1}, {"a page table and more", 500, 600}, {"all of it", 0, WORDS}};
	bool protect = more != 0;
	int map = map_of(getpid());

	for (size_t i = 0; i < 3; i++) {
		uint8_t *mem = map_aligned(-1);
		int fd, n;

		memset(mem, 1, LEN);
		fd = track(mem, more);
		must(madvise(mem + part[i].first * PAGE, part[i].n * PAGE, MADV_DONTNEED) == 0);
		fact(words_are(mem, part[i].first, part[i].n),
		     "%s: MADV_DONTNEED of %s takes its protection away, as the page map's bit 57 "
		     "says",
		     kind, part[i].what);
		n = scan(map, mem, LEN, false, SCAN_WRITTEN, 0, runs, WORDS);
		fact(n >= 0 && are(mem, n, part[i].first, part[i].n),
		     "%s: PAGEMAP_SCAN says that all of it is written, and nothing else", kind);
		if (protect) {
			n = scan(map, mem, LEN, true, SCAN_WRITTEN, 0, runs, WORDS);
			fact(n >= 0 && are(mem, n, part[i].first, part[i].n) &&
				     scan(map, mem, LEN, true, SCAN_WRITTEN, 0, runs, WORDS) == 0,
			     "%s: once", kind);
		}
		close(fd);
		munmap(mem, LEN);
	}
	close(map);
}

static void lazily_freed(void)
{
	uint8_t *mem = map_aligned(-1);
	int map = map_of(getpid()), fd, n;

	memset(mem, 1, LEN);
	fd = track(mem, WP_ASYNC);
	must(madvise(mem, 4 * PAGE, MADV_FREE) == 0);
	must(madvise(mem, 4 * PAGE, MADV_PAGEOUT) == 0 || errno == EINVAL);
	mem[PAGE] = 2;
	n = scan(map, mem, LEN, true, SCAN_WRITTEN, 0, runs, WORDS);
	fact(n > 0 && runs[0].start <= addr_of(mem) + PAGE && runs[0].end > addr_of(mem) + PAGE,
	     "a page that is written after MADV_FREE is seen");
	close(fd);
	close(map);
	munmap(mem, LEN);
}

/* Shared memory keeps its protection when it is given back; that it is empty tells its file only. */
static void punched(bool remove)
{
	const char *how = remove ? "MADV_REMOVE" : "fallocate(PUNCH_HOLE)";
	int memfd = new_memfd(LEN), map = map_of(getpid()), fd, n;
	uint8_t *mem = map_aligned(memfd);

	memset(mem, 1, LEN);
	fd = track(mem, WP_ASYNC);
	if (remove)
		must(madvise(mem + 500 * PAGE, 600 * PAGE, MADV_REMOVE) == 0);
	else
		must(punch(memfd, 500 * PAGE, 600 * PAGE) == 0);
	must(*(volatile uint8_t *)(mem + 600 * PAGE) == 0);
	note("%s: %s", how,
	     scan(map, mem, LEN, true, SCAN_WRITTEN, 0, runs, WORDS) ? "seen" : "NOT seen");
	mem[600 * PAGE] = 2;
	mem[601 * PAGE] = 2;
	n = scan(map, mem, LEN, true, SCAN_WRITTEN, 0, runs, WORDS);
	fact(n >= 0 && are(mem, n, 600, 2), "%s: a write behind it is seen", how);
	close(fd);
	close(map);
	munmap(mem, LEN);
	close(memfd);
}

static void forked(uint64_t more, const char *kind)
{
	int memfd = new_memfd(LEN), map = map_of(getpid()), fd, n;
	uint8_t *mem = map_aligned(memfd);
	uint64_t begin;
	pid_t pid;
	int status;

	memset(mem, 1, LEN);
	fd = track(mem, more);
	begin = now_us();
	pid = fork();
	if (!pid) {
		((volatile uint8_t *)mem)[3 * PAGE] = 9;
		_exit(0);
	}
	while (waitpid(pid, &status, WNOHANG) == 0 && now_us() - begin < 10000000)
		sleep_us(1000);
	if (!fact(now_us() - begin < 10000000,
		  "%s: a forked child writes to shared memory without waiting", kind))
		kill(pid, SIGKILL);
	n = scan(map, mem, LEN, false, SCAN_WRITTEN, 0, runs, WORDS);
	note("%s: what it has written is %s in its parent", kind, n ? "seen" : "NOT seen");
	close(fd);
	close(map);
	munmap(mem, LEN);
	close(memfd);
}

int main(void)
{
	given_back("faults", 0);
	forked(0, "faults");
	if (uffd_known() & WP_ASYNC) {
		given_back("async", WP_ASYNC);
		lazily_freed();
		punched(true);
		punched(false);
		forked(WP_ASYNC, "async");
	}
	return facts_end();
}
