/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The queue of runs in front of one bulk sender: the snapshot thread puts runs in, the sender takes
 * them out. Short on purpose: a page in the queue is claimed, so whoever asks for it waits for all
 * that stands before it.
 */
#ifndef DECANT_RUNQ_H
#define DECANT_RUNQ_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "budget/budget_queue.h"

/** RUNQ_MAX - runs in a queue at most; one more place is kept for runs that were asked for */
#define RUNQ_MAX 4

/**
 * enum run_kind - what the sender does with a run
 * @RUN_READ:	read the pages and send them, zeros as zero runs
 * @RUN_HOLE:	known to be empty: one zero run, nothing is read
 * @RUN_SAVED:	a snapshot's: the bytes are in @piece, which the sender frees
 * @RUN_BARRIER: send BARRIER number @offset
 */
enum run_kind {
	RUN_READ,
	RUN_HOLE,
	RUN_SAVED,
	RUN_BARRIER,
};

struct snap_piece;

/**
 * struct run - bytes [@offset, @offset + @length) of block @block, in pass @pass
 * @piece:	see RUN_SAVED
 * @class, @guess: who waits for it; bytes of the host's budget that it has
 * @asked_us:	clock_us() when the destination asked for it; 0 if it did not
 */
struct run {
	enum run_kind kind;
	uint32_t block;
	uint32_t pass;
	uint64_t offset;
	uint64_t length;
	struct snap_piece *piece;
	enum budget_class class;
	uint64_t guess;
	uint64_t asked_us;
};

/**
 * struct runq - any number of threads
 * @lock:	protects @ring, @head, @n, @closed
 * @closed:	nobody takes runs out: none is put in
 * @work_fd:	eventfd, readable while runs are queued
 */
struct runq {
	pthread_mutex_t lock;
	struct run ring[RUNQ_MAX + 1];
	unsigned int head;
	unsigned int n;
	bool closed;
	int work_fd;
};

/** runq_init() - Return: 0 or -errno */
int runq_init(struct runq *q);
/** runq_destroy() - runs still queued are dropped */
void runq_destroy(struct runq *q);
/** runq_close() - from now on no run is taken, or again */
void runq_close(struct runq *q, bool closed);
/** runq_push() - at the end; Return: 0, -EAGAIN if RUNQ_MAX are queued, -EPIPE if it is closed */
int runq_push(struct runq *q, const struct run *r);
/** runq_push_front() - before all others; Return: 0, -EAGAIN if even the extra place is taken, -EPIPE */
int runq_push_front(struct runq *q, const struct run *r);
/** runq_pop() - Return: whether there was one */
bool runq_pop(struct runq *q, struct run *ret);
/** runq_room() - Return: runs that runq_push() would take now (a hint to others than the only pusher) */
unsigned int runq_room(struct runq *q);

#endif
