/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Does a guest fit into what this host has? The decision alone: pure, so that it can be tested with any host.
 *
 * What is promised to guests that are arriving, and not filled yet, is gone for all others: a guest is admitted only
 * if it fits beside them. So whoever sends, and however many do, all that were admitted have their memory in the end,
 * as long as nobody else on the host takes it.
 */
#ifndef DECANT_FIT_H
#define DECANT_FIT_H

#include <stdint.h>
#include "host/cgroup.h"
#include "msg.h"
#include "util/error.h"

/**
 * struct fit_pool - huge pages of one size; counts are pages
 * @unused:	nobody has touched them, and those that the kernel may still add
 * @reserved:	of these the kernel keeps so many for mappings that stand
 * @promised:	to guests that are arriving, and not there yet
 *
 * A guest that is arriving maps its memory before it comes, and is then among @reserved, too; one whose pages were
 * there and were emptied (preallocated ones) is not, nor is one that was admitted a moment ago. Which of them are is
 * not told by the kernel, so the larger number counts. Where that is too little, because there are reservations of
 * others, a launched guest cannot map its memory: it ends before it has begun, and the source is told.
 */
struct fit_pool {
	uint64_t size;
	uint64_t unused;
	uint64_t reserved;
	uint64_t promised;
};

/**
 * struct fit_host - what this host has
 * @available:	bytes of memory without huge pages; UINT64_MAX if that is not known
 * @group:	the control group that has the least to spare of those that guests and what arrives for them are
 *		accounted to; its path is empty where none has a limit. The less of it and @available counts
 * @promised:	bytes that are promised to guests that are arriving, and not filled
 * @margin:	bytes that stay free; negative: so much more may be promised
 * @pools:	@npools sizes of huge pages
 */
struct fit_host {
	uint64_t available;
	struct cgroup_room group;
	uint64_t promised;
	int64_t margin;
	struct fit_pool pools[MSG_POOLS_MAX];
	unsigned int npools;
};

/** fit_memory() - Return: bytes that may still be promised */
uint64_t fit_memory(const struct fit_host *h);
/** fit_pages() - Return: huge pages that may still be promised */
uint64_t fit_pages(const struct fit_pool *p);
/**
 * fit_check() - may a guest of these blocks come?
 * @blocks:	@n of them, checked as BLOCK messages
 *
 * Return: 0, or -ENOMEM with @err filled (no-room)
 */
int fit_check(const struct fit_host *h, const struct msg_block *blocks, unsigned int n,
	      struct error *err);

/**
 * struct fit_files - the file system that holds files of a guest's memory: a tmpfs has a size of its own
 * @path:	where it is mounted
 * @unused:	bytes
 * @needs:	bytes that the guest will take there, beside what its files have already
 * @promised:	the same of all others that are arriving
 * @lent:	so much more may be promised (a negative margin)
 */
struct fit_files {
	const char *path;
	uint64_t unused;
	uint64_t needs;
	uint64_t promised;
	uint64_t lent;
};

/** fit_check_files() - is there room for the files? Return: 0, or -ENOMEM with @err filled (no-room) */
int fit_check_files(const struct fit_files *f, struct error *err);

#endif
