/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the guest gives back while its writes are tracked. Its pages are zeros then, and what was sent of them
 * must not stay at the destination. What the kernel tells of it (shown by tests/platform/changes.c):
 *
 *   private memory, MADV_DONTNEED	takes the protection away with the page, so it counts as written for
 *			both kinds of tracking: the asynchronous one reports it, the one by faults looks for it
 *   shared memory, MADV_REMOVE	is no write to either kind, but the kernel tells (UFFD_F_EVENT_REMOVE), just
 *			before it is done: so what is told is sent again for a while, and once more in the pause
 *   shared memory, fallocate(PUNCH_HOLE)	nobody tells which range. The file has a hole then: it is looked
 *			for where inotify(7) has said that the file was changed, and always where the guest's
 *			open file raises nothing (memfd_create(2)'s own, from kernel 6.14 on). A page that was
 *			read again before the next look is no hole any more, and is missed: guests use MADV_REMOVE
 *   munmap(2)		/proc/PID/maps has a gap. Private memory is zeros there; the file of shared
 *			memory still has it
 *   mremap(2)		the kernel tells (UFFD_F_EVENT_REMAP): an error, for who writes to the new place is not seen
 *   MADV_FREE		needs nothing: either content is right until the next write, which is seen
 *
 * A guest's thread waits until the event of its change was read. The agent alone has the descriptor, so that its end
 * lets everybody go on (rule 8).
 *
 * The snapshot thread's, but for gone_read() and gone_covers().
 */
#ifndef DECANT_GONE_H
#define DECANT_GONE_H

#include <stdbool.h>
#include <stdint.h>

#include "engine.h"
#include "uffd/uffd.h"

/**
 * struct gone - of one guest that is tracked
 * @inotify:	-1 without
 * @wd:		of each block's file, owned; -1: it is looked at always
 * @told, @told_before: of each block, owned: pages that the guest said it gives back, now and some time ago
 * @since_us:	when @told was begun
 */
struct gone {
	int inotify;
	int *wd;
	struct bitmap *told, *told_before;
	uint32_t n;
	uint64_t since_us;
};

/** GONE_FEATURES - UFFD_F_* by which the kernel tells */
#define GONE_FEATURES (UFFD_F_EVENT_REMOVE | UFFD_F_EVENT_REMAP)

/**
 * gone_start() - from now on nothing that is given back goes unnoticed
 *
 * Return: 0 or -ENOMEM with @err filled
 */
int gone_start(struct gone *g, struct engine *e, struct error *err);
/**
 * gone_event() - what the kernel told, other than a fault
 *
 * Return: 0; -EFAULT with @err filled if a part of a block was moved
 */
int gone_event(struct gone *g, struct engine *e, const struct uffd_event *ev, struct error *err);
/**
 * gone_look() - pages that were sent as data and are empty now become pending
 * @last:	the guest is paused
 *
 * No run may be under way to a sender: it could be counted as data behind the look.
 *
 * Return: 0 or -errno with @err filled
 */
int gone_look(struct gone *g, struct engine *e, bool last, struct error *err);
/** gone_stop() - safe on a zeroed struct, after a failed start and twice */
void gone_stop(struct gone *g);

/**
 * gone_read() - read guest memory; what is not mapped any more is zeros; any thread
 *
 * Return: as gmem_read()
 */
int gone_read(const struct gmem *m, uint64_t off, void *buf, uint64_t len);
/** gone_covers() - Return: whether nothing is mapped in the guest at any of [off, off + len); any thread */
bool gone_covers(const struct gmem *m, uint64_t off, uint64_t len);

#endif
