/* SPDX-License-Identifier: Apache-2.0 */
#include "uffd/pagemap.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <unistd.h>
#include "util/cleanup.h"
#include "util/fdio.h"

/*
 * PAGEMAP_SCAN of linux/fs.h, kernel 6.7, which Debian 12's headers do not have yet: its
 * page_region, pm_scan_arg and flags.
 */
struct scan_run {
	uint64_t start;
	uint64_t end;
	uint64_t categories;
};

struct scan_arg {
	uint64_t size;
	uint64_t flags;
	uint64_t start;
	uint64_t end;
	uint64_t walk_end;
	uint64_t vec;
	uint64_t vec_len;
	uint64_t max_pages;
	uint64_t category_inverted;
	uint64_t category_mask;
	uint64_t category_anyof_mask;
	uint64_t return_mask;
};

#define SCAN_REQUEST       _IOWR('f', 16, struct scan_arg)
#define SCAN_WP_MATCHING   (UINT64_C(1) << 0)
#define SCAN_CHECK_WPASYNC (UINT64_C(1) << 1)

/* Runs of one system call; on the stack of the caller, 12 KiB. */
#define SCAN_RUNS 512

/** struct joiner - hands on runs, adjacent ones as one */
struct joiner {
	PAGEMAP_RUN_FN(fn);
	void *arg;
	uint64_t start;
	uint64_t end;
};

static void joiner_flush(struct joiner *j)
{
	if (j->end > j->start)
		j->fn(j->arg, j->start, j->end - j->start);
	j->start = j->end = 0;
}

static void joiner_add(struct joiner *j, uint64_t start, uint64_t end)
{
	if (start != j->end || j->end == j->start) {
		joiner_flush(j);
		j->start = start;
	}
	j->end = end;
}

int pagemap_open(pid_t pid)
{
	char path[64] = "/proc/self/pagemap";
	int fd;

	if (pid)
		snprintf(path, sizeof(path), "/proc/%d/pagemap", (int)pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	return fd < 0 ? -errno : fd;
}

/* One system call from @scan->start on. Return: number of runs or -errno */
static int scan_step(int fd, struct scan_arg *scan, struct scan_run *runs)
{
	int n;

	scan->walk_end = 0;
	/* Never repeated: what a failed call protected is not known. EINTR means a fatal signal. */
	n = ioctl(fd, SCAN_REQUEST, scan);
	if (n < 0)
		return -errno;
	/* Neither may happen; trusting it would loop for ever or read what was not written. */
	if (n > SCAN_RUNS || scan->walk_end <= scan->start || scan->walk_end > scan->end)
		return -EIO;
	for (int i = 0; i < n; i++)
		if (runs[i].end <= runs[i].start)
			return -EIO;
	return n;
}

int pagemap_scan(int fd, uint64_t start, uint64_t end, const struct pagemap_query *query,
		 PAGEMAP_RUN_FN(fn), void *arg)
{
	struct scan_run runs[SCAN_RUNS];
	struct joiner join = {.fn = fn, .arg = arg};
	struct scan_arg scan = {
		.size = sizeof(scan),
		.flags = query->protect ? SCAN_WP_MATCHING | SCAN_CHECK_WPASYNC : 0,
		.start = start,
		.end = end,
		.vec = (uint64_t)(uintptr_t)runs,
		.vec_len = SCAN_RUNS,
		.category_mask = query->all_of,
		.category_anyof_mask = query->any_of,
		.return_mask = query->all_of | query->any_of,
	};

	while (scan.start < end) {
		int n = scan_step(fd, &scan, runs);

		if (n < 0)
			return n;
		for (int i = 0; i < n; i++)
			joiner_add(&join, runs[i].start, runs[i].end);
		scan.start = scan.walk_end;
	}
	joiner_flush(&join);
	return 0;
}

/*
 * The page map of a process that has ended is empty, and an empty one has nothing written: without
 * this look the death of a guest would pass for the end of its writing.
 */
static int still_tracked(int fd, uint64_t start, uint64_t end)
{
	struct scan_run run;
	struct scan_arg scan = {
		.size = sizeof(scan),
		.start = end - MIN(end - start, (uint64_t)4096),
		.end = end,
		.vec = (uint64_t)(uintptr_t)&run,
		.vec_len = 1,
		.category_mask = PAGEMAP_WPALLOWED,
		.return_mask = PAGEMAP_WPALLOWED,
	};
	int n = ioctl(fd, SCAN_REQUEST, &scan);

	if (n < 0)
		return -errno;
	return n ? 0 : -ESRCH;
}

int pagemap_written(int fd, uint64_t start, uint64_t end, bool protect, PAGEMAP_RUN_FN(fn),
		    void *arg)
{
	const struct pagemap_query query = {.all_of = PAGEMAP_WRITTEN, .protect = protect};
	int r = pagemap_scan(fd, start, end, &query, fn, arg);

	return r == 0 && protect && end > start ? still_tracked(fd, start, end) : r;
}

/* Bit 57 of each word. */
static int unprotected_words(int fd, uint64_t start, uint64_t end, struct joiner *join)
{
	uint64_t size = (uint64_t)sysconf(_SC_PAGESIZE), words[512];

	for (uint64_t at = start; at < end;) {
		size_t n = MIN((end - at) / size, ARRAY_SIZE(words));
		int r = fdio_pread_full(fd, words, n * 8, at / size * 8);

		if (r)
			return r;
		for (size_t i = 0; i < n; i++, at += size)
			if (!(words[i] >> 57 & 1))
				joiner_add(join, at, at + size);
	}
	joiner_flush(join);
	return 0;
}

int pagemap_unprotected(int fd, uint64_t start, uint64_t end, PAGEMAP_RUN_FN(fn), void *arg)
{
	const struct pagemap_query query = {.all_of = PAGEMAP_WRITTEN};
	struct joiner join = {.fn = fn, .arg = arg};
	int r = pagemap_scan(fd, start, end, &query, fn, arg);

	return r == -ENOTTY ? unprotected_words(fd, start, end, &join) : r;
}

int pagemap_present(int fd, uint64_t start, uint64_t end, PAGEMAP_RUN_FN(fn), void *arg)
{
	const struct pagemap_query query = {.any_of = PAGEMAP_PRESENT | PAGEMAP_SWAPPED};

	return pagemap_scan(fd, start, end, &query, fn, arg);
}

/* Searching moves the position of a file description: take one of our own if we may. */
static int own_description(int fd)
{
	char path[64];

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	return open(path, O_RDONLY | O_CLOEXEC);
}

int pagemap_file_data(int fd, uint64_t len, PAGEMAP_RUN_FN(fn), void *arg)
{
	CLEANUP_CLOSE int own = own_description(fd);
	uint64_t at = 0;

	if (len > LLONG_MAX)
		return -EINVAL;
	if (own >= 0)
		fd = own;
	while (at < len) {
		off_t data = lseek(fd, (off_t)at, SEEK_DATA), hole;

		if (data < 0)
			return errno == ENXIO ? 0 : -errno;
		if ((uint64_t)data >= len)
			return 0;
		hole = lseek(fd, data, SEEK_HOLE);
		if (hole < 0 && errno == ENXIO) {
			/* Punched or cut off between the two questions. */
			at = (uint64_t)data;
			continue;
		}
		if (hole < 0)
			return -errno;
		at = MIN((uint64_t)hole, len);
		if (at > (uint64_t)data)
			fn(arg, (uint64_t)data, at - (uint64_t)data);
	}
	return 0;
}
