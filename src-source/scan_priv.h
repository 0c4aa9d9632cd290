/* SPDX-License-Identifier: Apache-2.0 */
/* What scan.c (the thread and its phases), scan_data.c (data and holes) and feed.c (keeping the senders fed) share. */
#ifndef DECANT_SCAN_PRIV_H
#define DECANT_SCAN_PRIV_H

#include "scan.h"

/** struct asked - a REQUEST, or what is left of it, and clock_us() when it came */
struct asked {
	struct msg_request q;
	uint64_t at_us;
};

/**
 * struct scan - the snapshot thread
 * @track, @ops, @uffd:	this thread's alone after scan_start()
 * @kick_fd:	eventfd: look again
 * @phase:	ordered by the loop
 * @switch_now:	ordered by an operator
 * @postcopy:	see scan_postcopy()
 * @lock, @requests, @nrequests: REQUESTs without urgent channel, oldest first
 * @cursor_block, @cursor_page: where the linear scan goes on
 * @ask, @turn:	its place in the host's budget; bytes that it may send at once
 * @hint_seen:	the last engine.hint that was followed
 * @barrier:	number of the last barrier
 * @saved, @saved_end: snapshots: pieces that no sender has room for yet
 * @slot, @slot_us: quarantine: the present slot of time (held.h) and when it began
 * @gate_us:	so long others were asked whether the guest may be paused
 * @batch:	snapshots: faults that are read at a time: each of them takes a copy of its page
 */
struct scan {
	struct engine *e;
	const struct track_ops *ops;
	struct track track;
	int uffd;
	int kick_fd;
	_Atomic int phase;
	_Atomic bool switch_now;
	_Atomic bool postcopy;
	pthread_mutex_t lock;
	struct asked requests[SCAN_REQUESTS_MAX];
	unsigned int nrequests;
	uint32_t cursor_block;
	uint64_t cursor_page;
	struct budget_ask ask;
	uint64_t turn;
	uint64_t hint_seen;
	uint32_t barrier;
	struct snap_piece *saved, *saved_end;
	unsigned int slot;
	uint64_t slot_us;
	uint64_t gate_us;
	unsigned int batch;
	pthread_t thread;
	bool joined;
};

/** scan_settle() - send what is pending until all of it is placed, or, with @break_early, scan_hurries(). Return: as feed_wait() */
int scan_settle(struct scan *s, bool break_early, struct error *err);
/** scan_collect() - what was written becomes pending. @since_us: clock_us() of the last time. Return: as feed_wait() */
int scan_collect(struct scan *s, uint64_t since_us, struct error *err);
/** scan_data_anon() - before tracking starts: what of anonymous memory holds data is pending. Return: 0, or -errno with @err filled */
int scan_data_anon(struct scan *s, struct error *err);
/** scan_data_first() - the first pass: all that holds data is pending, all else was sent as holes. Return: as feed_wait() */
int scan_data_first(struct scan *s, struct error *err);
/** scan_data_left() - post-copy: send the holes of what is pending of @block. Return: as feed_wait() */
int scan_data_left(struct scan *s, uint32_t block, struct error *err);
/** scan_hurries() - Return: whether the guest is to be paused whatever is left */
bool scan_hurries(const struct scan *s);
/** scan_gate() - ask whether the guest may be paused, and go on until it may; nothing if nobody is to be asked. Return: as feed_wait() */
int scan_gate(struct scan *s, struct error *err);

/**
 * feed_wait() - serve write faults and sleep until there may be something to do
 *
 * Return: 0, -ECANCELED when the thread has to end, or -errno with @err filled
 */
int feed_wait(struct scan *s, struct error *err);
/** feed_nap() - the same, at most @us microseconds */
int feed_nap(struct scan *s, uint64_t us, struct error *err);
/** feed_idle() - sleep until kicked, serving nothing. Return: 0, -ECANCELED, or -errno */
int feed_idle(struct scan *s);
/** feed_step() - serve requests and write faults without waiting. Return: as feed_wait() */
int feed_step(struct scan *s, struct error *err);
/** feed_roomiest() - Return: the sender whose queue has most room, NULL if none has */
struct sender *feed_roomiest(struct scan *s);
/** feed_hole() - send a zero run for [first, first + n); Return: as feed_wait() */
int feed_hole(struct scan *s, uint32_t block, uint64_t first, uint64_t n, struct error *err);
/**
 * feed_pending() - hand all pending pages to the senders
 * @break_early:	stop as soon as an operator wants the switchover
 *
 * Return: as feed_wait()
 */
int feed_pending(struct scan *s, bool break_early, struct error *err);
/** feed_barrier() - all senders: BARRIER, and wait for the answers. Return: as feed_wait() */
int feed_barrier(struct scan *s, struct error *err);

#endif
