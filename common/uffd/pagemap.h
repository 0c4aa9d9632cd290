/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which pages of a guest were written (PAGEMAP_SCAN, kernel 6.7), which are there, and where a file
 * has holes. Nothing here touches guest memory: a page that is not there stays so.
 *
 * Runs are reported in ascending order, adjacent ones joined.
 */
#ifndef DECANT_UFFD_PAGEMAP_H
#define DECANT_UFFD_PAGEMAP_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

/**
 * pagemap_run_fn - told of one run
 * @arg:	as given
 * @start:	address in the guest; offset in the file for pagemap_file_data()
 * @len:	bytes, never 0
 */
#define PAGEMAP_RUN_FN(name) void (*name)(void *arg, uint64_t start, uint64_t len)

/* Categories of pages: the kernel's PAGE_IS_* values. */
#define PAGEMAP_WPALLOWED (UINT64_C(1) << 0)
#define PAGEMAP_WRITTEN   (UINT64_C(1) << 1)
#define PAGEMAP_FILE      (UINT64_C(1) << 2)
#define PAGEMAP_PRESENT   (UINT64_C(1) << 3)
#define PAGEMAP_SWAPPED   (UINT64_C(1) << 4)
#define PAGEMAP_PFNZERO   (UINT64_C(1) << 5)
#define PAGEMAP_HUGE      (UINT64_C(1) << 6)

/**
 * struct pagemap_query - what pagemap_scan() looks for
 * @all_of:	PAGEMAP_* that a page must have
 * @any_of:	PAGEMAP_* of which it must have one; 0: none asked for
 * @protect:	write-protect again what is reported, atomically with the look at it: each write is
 *		seen by this scan or by the next, none is lost. Needs a range that is registered
 *with UFFD_MODE_WP on a descriptor that has UFFD_F_WP_ASYNC
 */
struct pagemap_query {
	uint64_t all_of;
	uint64_t any_of;
	bool protect;
};

/** pagemap_open() - @pid's page map, O_CLOEXEC; 0 is the caller. Return: descriptor or -errno */
int pagemap_open(pid_t pid);

/**
 * pagemap_scan() - report runs of pages of [start, end) that match
 * @start, @end: addresses in the guest, multiples of its page size
 *
 * A process that has ended has an empty page map: that is no error here (watch its pidfd).
 *
 * Return: 0; -ENOTTY before kernel 6.7; -EPERM with @protect where the range is not tracked
 * asynchronously; or another -errno. After an error of a protecting scan take the whole of
 * [start, end) for written: some of it may be protected and not reported.
 */
int pagemap_scan(int fd, uint64_t start, uint64_t end, const struct pagemap_query *query,
		 PAGEMAP_RUN_FN(fn), void *arg);

/**
 * pagemap_written() - report what was written since it was protected last
 * @protect:	begin a new round (see struct pagemap_query); false only looks
 *
 * Asks for nothing but the kernel's "written": with further categories some kernels lose pages that
 * were given back with MADV_DONTNEED. Pages never protected count as written.
 *
 * Seen are writes through the guest's own mapping, by its threads and by system calls. Not seen, on
 * shared memory, are: write(2) and fallocate(2) on the file and madvise(MADV_REMOVE) (a protected page
 * that is punched out stays "not written", even when it is then read again, as zeros), writes through
 * other mappings, and DMA. tests/platform/file_events.c shows what tells of the first three.
 *
 * Return: as pagemap_scan(); with @protect -ESRCH if the guest is gone, or its end of the range is no
 * longer mapped and tracked
 */
int pagemap_written(int fd, uint64_t start, uint64_t end, bool protect, PAGEMAP_RUN_FN(fn),
		    void *arg);

/**
 * pagemap_unprotected() - report what is not write-protected, of either kind; nothing is changed
 *
 * Private memory that was given back is not protected any more. What is not mapped may be reported.
 * Before kernel 6.7 (5.13 is needed) a word is read for each page.
 *
 * Return: as pagemap_scan(), but for -ENOTTY
 */
int pagemap_unprotected(int fd, uint64_t start, uint64_t end, PAGEMAP_RUN_FN(fn), void *arg);

/**
 * pagemap_present() - report what is in memory or in swap (for private anonymous memory)
 *
 * For files ask pagemap_file_data(): a page of a file may be there without being mapped. A page
 * that was unpopulated when it was write-protected counts as there.
 *
 * Return: as pagemap_scan()
 */
int pagemap_present(int fd, uint64_t start, uint64_t end, PAGEMAP_RUN_FN(fn), void *arg);

/**
 * pagemap_file_data() - report the parts of [0, len) of a file that are not holes
 * @fd:		of tmpfs or a memfd; on hugetlbfs, which knows no holes, all is data
 *
 * A page that fallocate(2) reserved and nobody touched counts as a hole here, but does not fault and
 * refuses UFFDIO_COPY with EEXIST. So to empty a file punch all of it, not only what is reported.
 *
 * Works on a file description of its own where /proc lets it, so that the position of a descriptor
 * shared with the guest does not move.
 *
 * Return: 0 or -errno
 */
int pagemap_file_data(int fd, uint64_t len, PAGEMAP_RUN_FN(fn), void *arg);

#endif
