/* SPDX-License-Identifier: Apache-2.0 */
/* The parts of stamp: stamp.c (options, callbacks), work.c (threads and pages), report.c. */
#ifndef DECANT_GUESTS_STAMP_H
#define DECANT_GUESTS_STAMP_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <time.h>

#include "guest/decant-guest.h"
#include "guests/stamp/page.h"

#define STAMP_BLOCKS_MAX  64
#define STAMP_THREADS_MAX 64
#define STAMP_VERIFIERS   2

/** struct latency - microseconds, in eighths of powers of two */
struct latency {
	uint64_t count[8 * 40];
	uint64_t n;
	uint64_t max_us;
};

/** struct bad - the first bad page, as it was found */
struct bad {
	uint64_t page, count, zero, got_page, got_count;
	char what[16];
};

/**
 * struct worker - a thread that touches blocks
 * @busy:	it may be inside a block: see step_begin()
 * @since_us:	when its step began, 0 outside of one
 * @schedstat:	of a writer that keeps a rate; 0 without
 * @queued_us:	what it said when the step began
 */
struct worker {
	struct stamp *s;
	pthread_t thread;
	unsigned int index;
	uint64_t rng;
	bool busy;
	uint64_t since_us;
	int schedstat;
	uint64_t queued_us;
	uint64_t from, to; /* verifiers: pages */
};

/** struct stamp - everything; fields are atomic or fixed once threads run, unless @lock is named */
struct stamp {
	struct decant_guest *guest;
	const char *name, *attach, *kind, *report;
	uint64_t bytes, writes, state_kb;
	unsigned int nblocks, threads;
	bool dma, thp, grow, rom, wish;
	uint8_t uuid[16];

	struct stamp_seed seed;
	uint64_t pages, per_block, used; /* writers use the first @used pages */
	uint8_t *block[STAMP_BLOCKS_MAX];
	uint32_t *counts;
	uint8_t *flags;

	uint64_t counter, arrivals, pauses, bad_pages, complaints;
	uint64_t counter_at_pause, counter_at_arrival, paused_wall_us, arrival_gap_us;
	int64_t counter_gap;
	uint64_t longest_stall_us, pause_began_us, longest_pause_us;
	uint64_t verifications, verified_pages;
	unsigned int verifying;
	bool verify_wanted, quit;
	struct latency faults;

	pthread_mutex_t lock;
	pthread_cond_t resumed;
	bool paused;          /* under @lock to sleep; atomic to look */
	struct bad first_bad; /* under @lock */
	struct worker worker[STAMP_THREADS_MAX + STAMP_VERIFIERS];
};

/* Flags of a page, kept beside its count. */
#define STAMP_LOCKED  1u
#define STAMP_TOUCHED 2u /* since this process exists */
#define STAMP_BAD     4u

#define stamp_get(x)    __atomic_load_n(&(x), __ATOMIC_SEQ_CST)
#define stamp_set(x, v) __atomic_store_n(&(x), v, __ATOMIC_SEQ_CST)
#define stamp_add(x, v) __atomic_add_fetch(&(x), v, __ATOMIC_SEQ_CST)

static inline uint64_t stamp_clock_us(clockid_t clock)
{
	struct timespec ts;

	clock_gettime(clock, &ts);
	return (uint64_t)ts.tv_sec * 1000000 + (uint64_t)ts.tv_nsec / 1000;
}

static inline uint64_t stamp_now_us(void)
{
	return stamp_clock_us(CLOCK_MONOTONIC);
}

/** stamp_raise() - keep the larger one */
static inline void stamp_raise(uint64_t *max, uint64_t v)
{
	uint64_t old = stamp_get(*max);

	while (v > old && !__atomic_compare_exchange_n(max, &old, v, false, __ATOMIC_SEQ_CST,
						       __ATOMIC_SEQ_CST))
		;
}

/* work.c */

/** work_page() - Return: where page @page is */
uint64_t *work_page(struct stamp *s, uint64_t page);
/** work_start_writer() - Return: 0 or -EAGAIN */
int work_start_writer(struct stamp *s, unsigned int i);
/** work_verify() - begin to look at every page, if that is wanted and not under way; main thread */
void work_verify(struct stamp *s);
/** work_wait_paused() - paused is set: wait until no thread is inside a page any more */
void work_wait_paused(struct stamp *s);

/* report.c */

/** report_write() - write the report anew; main thread. @ended: for the last time */
void report_write(struct stamp *s, bool ended);

#endif
