/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Block time (P18): for each vCPU thread of an arriving guest, how long it waited for pages in all; and
 * for how long all of them waited at once, which is when the guest stood still.
 *
 * A function of what it is told, and of the clock that comes with it: it knows neither pages nor
 * kernel. A thread waits for one page at a time; one page can free several threads; and a page can
 * arrive while the fault that wants it is being read: then the beginning is undone, not ended.
 *
 * Any thread: each call holds the lock for a walk over the threads. Times are microseconds of clock_us().
 */
#ifndef DECANT_BLOCKTIME_H
#define DECANT_BLOCKTIME_H

#include <stdbool.h>
#include <stdint.h>

/** BLOCKTIME_THREADS_MAX - threads that are told apart; further ones are not measured */
#define BLOCKTIME_THREADS_MAX 256

struct blocktime;

/**
 * struct blocktime_sums - what it came to
 * @all_us:	for so long all vCPU threads waited at once
 * @n:		threads that were ever named
 * @thread_us:	for each, in the order in which they were named, how long it waited
 */
struct blocktime_sums {
	uint64_t all_us;
	unsigned int n;
	uint64_t thread_us[BLOCKTIME_THREADS_MAX];
};

/** blocktime_new() - Return: NULL when out of memory */
struct blocktime *blocktime_new(void);
/** blocktime_free() - NULL is fine */
void blocktime_free(struct blocktime *bt);

/** blocktime_name() - thread @tid is a vCPU thread from now on, or no longer; what it has waited is kept */
void blocktime_name(struct blocktime *bt, uint32_t tid, bool on, uint64_t now_us);
/** blocktime_name_none() - no thread is one any more, until they are named again */
void blocktime_name_none(struct blocktime *bt, uint64_t now_us);

/**
 * blocktime_begin() - a thread waits for a page
 * @page:	any number that stands for it
 *
 * A thread that is not named does not count, until it is: then from here on. One that was known to wait for another page has got that,
 * unnoticed: it counts until now.
 */
void blocktime_begin(struct blocktime *bt, uint32_t tid, uint64_t page, uint64_t now_us);
/** blocktime_undo() - it does not wait: the page was there before. As if it had not begun */
void blocktime_undo(struct blocktime *bt, uint32_t tid, uint64_t page);
/** blocktime_end() - the page is there: whoever waits for it goes on */
void blocktime_end(struct blocktime *bt, uint64_t page, uint64_t now_us);

/** blocktime_read() - what it came to, waits under way included */
void blocktime_read(struct blocktime *bt, uint64_t now_us, struct blocktime_sums *ret);

#endif
