/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A background snapshot: what the snapshot thread does instead of passes. All memory is protected
 * while the guest is paused; from then on each page is copied into this agent's memory before its
 * protection is removed, whether the linear scan or a writer comes to it first (W7). So the pages that
 * are sent are those of one instant (W12).
 *
 * Writers wait for a copy, not for the network: copies that are not sent yet lie in a pool of bounded
 * size. When that is full, writers wait until the network has made room. A page of 1 GiB is larger than
 * the pool: its writer waits until most of it has been sent.
 *
 * What devices write through memory pinned before is not stopped by protection: the guest has no I/O
 * under way when it is put on, and buffers that stay pinned (pins.h) are saved in the same pause. Memory
 * pinned later is saved first, because pinning is a write.
 */
#ifndef DECANT_SNAP_H
#define DECANT_SNAP_H

#include "scan.h"

/** SNAP_POOL - bytes of copies that are not sent yet: beyond it writers wait */
#define SNAP_POOL (32ull << 20)
/** SNAP_POOL_SCAN - beyond it the linear scan waits, so that writers find room */
#define SNAP_POOL_SCAN (SNAP_POOL / 2)
/** SNAP_PINNED_MAX - bytes of buffers registered for I/O: they are saved in the pause, into the pool */
#define SNAP_PINNED_MAX SNAP_POOL_SCAN

/**
 * struct snap_piece - a copy of guest memory on its way to a sender
 * @next:	in the thread's list
 * @block, @offset, @length: what it is a copy of
 * @frame:	room for a header, then the bytes
 */
struct snap_piece {
	struct snap_piece *next;
	uint32_t block;
	uint64_t offset;
	uint64_t length;
	uint8_t frame[];
};

/** track_snapshot - protects everything once, and answers a write fault by saving the page */
extern const struct track_ops track_snapshot;

/**
 * snap_run() - the thread's work: ENGINE_TRACKING when the blocks are registered; SCAN_FINAL (the guest
 * is paused) protects, then ENGINE_FINAL; ENGINE_SENT when every page was sent and its barrier answered
 *
 * Return: -ECANCELED when the thread has to end, or -errno with @err filled
 */
int snap_run(struct scan *s, struct error *err);
/**
 * snap_save() - copy claimed pages, then let their writers go
 * @first, @n:	pages, SNAP_PAGE_MAX bytes at most
 *
 * Return: 0 or -errno with @err filled
 */
int snap_save(struct scan *s, uint32_t block, uint64_t first, uint64_t n, struct error *err);
/** snap_poll_fd() - Return: the descriptor to wait on for write faults, -1 for none now */
int snap_poll_fd(const struct scan *s);
/** snap_piece_free() - it was sent, or never will be; any thread */
void snap_piece_free(struct engine *e, struct snap_piece *p);
/** snap_free() - drop what was not handed to senders; the thread has ended */
void snap_free(struct scan *s);

#endif
