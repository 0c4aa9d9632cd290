/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Transparent huge pages against discards. They are off for a block while discards matter, and every
 * discarded page is verified to be a hole.
 */
#include "platform.h"

#include <sys/mount.h>

#define HUGE (2ul << 20)

static uint64_t huge_kb(const void *p, const char *field)
{
	FILE *f = fopen("/proc/self/smaps", "r");
	char line[256];
	unsigned long start = 0, end, kb = 0, v;
	bool mine = false;

	must(f);
	while (fgets(line, sizeof(line), f)) {
		if (sscanf(line, "%lx-%lx ", &start, &end) == 2 && strchr(line, '-') < line + 17)
			mine = addr_of(p) >= start && addr_of(p) < end;
		else if (mine && !strncmp(line, field, strlen(field)) &&
			 sscanf(line + strlen(field), ": %lu kB", &v) == 1)
			kb = v;
	}
	fclose(f);
	return kb;
}

/* An aligned huge page inside a mapping of twice the size. */
static uint8_t *aligned(uint8_t *mem)
{
	return (uint8_t *)(uintptr_t)((addr_of(mem) + HUGE - 1) & ~(HUGE - 1));
}

static void anonymous(void)
{
	uint8_t *raw =
		mmap(NULL, 2 * HUGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	uint8_t *mem = aligned(raw);
	int map = map_of(getpid()), n;
	struct scan_run runs[8];

	must(raw != MAP_FAILED && madvise(raw, 2 * HUGE, MADV_HUGEPAGE) == 0);
	memset(mem, 1, HUGE);
	if (!huge_kb(mem, "AnonHugePages")) {
		untried("anonymous: no transparent huge page was given");
		munmap(raw, 2 * HUGE);
		close(map);
		return;
	}
	must(madvise(mem + 5 * PAGE, PAGE, MADV_DONTNEED) == 0);
	n = scan(map, mem, HUGE, false, 0, SCAN_PRESENT | SCAN_SWAPPED, runs, 8);
	if (n == -ENOTTY)
		untried("anonymous: this kernel has no PAGEMAP_SCAN");
	else
		fact(scan_pages(runs, n) == HUGE / PAGE - 1,
		     "anonymous: MADV_DONTNEED takes one small page out of a huge one");
	fact(mem[5 * PAGE] == 0 && mem[4 * PAGE] == 1, "anonymous: only that one");
	munmap(raw, 2 * HUGE);
	close(map);
}

static void anonymous_refilled(void)
{
	uint8_t *raw =
		mmap(NULL, 2 * HUGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	uint8_t *mem = aligned(raw);
	int map = map_of(getpid()), n;
	struct scan_run runs[8];

	must(raw != MAP_FAILED && madvise(raw, 2 * HUGE, MADV_HUGEPAGE) == 0);
	must(madvise(mem, HUGE, MADV_DONTNEED) == 0);
	mem[0] = 1;
	n = scan(map, mem, HUGE, false, 0, SCAN_PRESENT | SCAN_SWAPPED, runs, 8);
	if (n == -ENOTTY || !huge_kb(mem, "AnonHugePages"))
		untried("anonymous: one write fills a huge page");
	else
		fact(scan_pages(runs, n) == HUGE / PAGE,
		     "anonymous: with huge pages one write fills 512 pages: holes vanish");
	must(madvise(mem, HUGE, MADV_DONTNEED) == 0 && madvise(mem, HUGE, MADV_NOHUGEPAGE) == 0);
	mem[0] = 1;
	n = scan(map, mem, HUGE, false, 0, SCAN_PRESENT | SCAN_SWAPPED, runs, 8);
	if (n == -ENOTTY)
		untried("anonymous: this kernel has no PAGEMAP_SCAN");
	else
		fact(scan_pages(runs, n) == 1, "anonymous: with MADV_NOHUGEPAGE just the one");
	munmap(raw, 2 * HUGE);
	close(map);
}

/* Collapsing may not bring pages back that are registered as missing. */
static void collapse(void)
{
	uint8_t *raw =
		mmap(NULL, 2 * HUGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	uint8_t *mem = aligned(raw);
	int fd = uffd_new(0), r;

	must(raw != MAP_FAILED);
	memset(mem, 1, HUGE / 2);
	must(uffd_reg(fd, raw, 2 * HUGE, UFFDIO_REGISTER_MODE_MISSING) == 0);
	r = madvise(mem, HUGE, 25 /* MADV_COLLAPSE, kernel 6.1 */) < 0 ? errno : 0;
	fact(r != 0, "anonymous: a registered range with missing pages is not collapsed (%s)",
	     strerrorname_np(r));
	close(fd);
	munmap(raw, 2 * HUGE);
}

/* A file on a tmpfs of our own that gives huge pages, in a mount namespace that ends with us. */
static int huge_file(void)
{
	static const char at[] = "/dev/shm";
	int fd;

	if (unshare(CLONE_NEWNS) < 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 ||
	    mount("proof", at, "tmpfs", 0, "huge=always,size=64m") < 0)
		return new_memfd(2 * HUGE);
	fd = open(at, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
	must(fd >= 0 && ftruncate(fd, 2 * HUGE) == 0);
	return fd;
}

static void shared(bool pinned)
{
	int fd = huge_file(), pipes[2];
	uint8_t *where = mmap(NULL, 4 * HUGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0), *mem;
	struct iovec one;

	must(where != MAP_FAILED && pipe(pipes) == 0);
	mem = mmap(aligned(where), 2 * HUGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd, 0);
	must(mem != MAP_FAILED);
	madvise(mem, 2 * HUGE, MADV_HUGEPAGE);
	memset(mem, 1, 2 * HUGE);
	if (!huge_kb(mem, "ShmemPmdMapped")) {
		untried("memfd%s: no transparent huge page was given "
			"(needs root, or shmem_enabled=advise)",
			pinned ? ", pinned" : "");
		goto out;
	}
	one = (struct iovec){mem + 7 * PAGE, PAGE};
	if (pinned)
		must(vmsplice(pipes[1], &one, 1, 0) == (ssize_t)PAGE);
	must(punch(fd, 5 * PAGE, PAGE) == 0);
	if (!pinned) {
		fact(is_hole(fd, 5 * PAGE),
		     "memfd: punching splits a huge page; the page is a hole");
	} else {
		fact(mem[5 * PAGE] == 0,
		     "memfd: punching a huge page that somebody holds zeroes it");
		note("memfd: in such a page the punched part is %s",
		     is_hole(fd, 5 * PAGE) ? "a hole" : "NOT a hole: it would never fault");
	}
	fact(mem[4 * PAGE] == 1 && mem[6 * PAGE] == 1, "memfd: its neighbours keep their content");
out:
	munmap(where, 4 * HUGE);
	close(pipes[0]);
	close(pipes[1]);
	close(fd);
}

int main(void)
{
	anonymous();
	anonymous_refilled();
	collapse();
	shared(false);
	shared(true);
	return facts_end();
}
