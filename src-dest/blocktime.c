/* SPDX-License-Identifier: Apache-2.0 */
#include "blocktime.h"
#include <pthread.h>
#include <stdlib.h>
#include "util/cleanup.h"

/**
 * struct waiter - a thread that was named at some time
 * @named:	it is a vCPU thread now
 * @waits:	for @page, since @since_us; never while it is not @named
 * @total_us:	waits that have ended
 */
struct waiter {
	uint32_t tid;
	bool named;
	bool waits;
	uint64_t page;
	uint64_t since_us;
	uint64_t total_us;
};

/* Waits of threads without a name that are remembered. */
#define EARLY_MAX 64

/** struct early - a thread without a name waits for @page since @since_us; @tid 0: none */
struct early {
	uint32_t tid;
	uint64_t page;
	uint64_t since_us;
};

/**
 * struct blocktime - @lock protects all
 * @w, @n:	in the order in which they were named first
 * @named, @waiting: how many are
 * @all_since_us: when the last of them began to wait, while @all
 * @all_us:	time during which all waited, that has ended
 * @early, @next_early: a thread that names itself and touches a page can be heard in the other order: a
 *		ring, because most that are in it are never named
 */
struct blocktime {
	pthread_mutex_t lock;
	struct waiter w[BLOCKTIME_THREADS_MAX];
	unsigned int n;
	unsigned int named;
	unsigned int waiting;
	bool all;
	uint64_t all_since_us;
	uint64_t all_us;
	struct early early[EARLY_MAX];
	unsigned int next_early;
};

struct blocktime *blocktime_new(void)
{
	struct blocktime *bt = calloc(1, sizeof(*bt));

	if (bt)
		pthread_mutex_init(&bt->lock, NULL);
	return bt;
}

void blocktime_free(struct blocktime *bt)
{
	if (!bt)
		return;
	pthread_mutex_destroy(&bt->lock);
	free(bt);
}

/* A clock that was read by another thread a moment earlier must not make a time run backwards. */
static uint64_t elapsed(uint64_t since_us, uint64_t now_us)
{
	return now_us > since_us ? now_us - since_us : 0;
}

/* Somebody began or ended, came or went: do all of them wait now? */
static void look_at_all(struct blocktime *bt, uint64_t now_us)
{
	bool all = bt->named && bt->waiting == bt->named;

	if (all && !bt->all)
		bt->all_since_us = now_us;
	if (!all && bt->all)
		bt->all_us += elapsed(bt->all_since_us, now_us);
	bt->all = all;
}

static void stop_waiting(struct blocktime *bt, struct waiter *w, uint64_t now_us)
{
	if (!w->waits)
		return;
	w->waits = false;
	w->total_us += elapsed(w->since_us, now_us);
	bt->waiting--;
}

static struct waiter *find(struct blocktime *bt, uint32_t tid)
{
	for (unsigned int i = 0; i < bt->n; i++)
		if (bt->w[i].tid == tid)
			return &bt->w[i];
	return NULL;
}

static struct early *find_early(struct blocktime *bt, uint32_t tid)
{
	for (unsigned int i = 0; i < EARLY_MAX; i++)
		if (tid && bt->early[i].tid == tid)
			return &bt->early[i];
	return NULL;
}

static void remember(struct blocktime *bt, uint32_t tid, uint64_t page, uint64_t now_us)
{
	struct early *e = find_early(bt, tid);

	if (e && e->page == page)
		return;
	if (!e)
		e = &bt->early[bt->next_early++ % EARLY_MAX];
	*e = (struct early){.tid = tid, .page = page, .since_us = now_us};
}

/* It has a name now: what it waits for already counts from when it began. */
static void take_early(struct blocktime *bt, struct waiter *w)
{
	struct early *e = find_early(bt, w->tid);

	if (!e)
		return;
	w->waits = true;
	w->page = e->page;
	w->since_us = e->since_us;
	bt->waiting++;
	e->tid = 0;
}

static void name(struct blocktime *bt, struct waiter *w, bool on, uint64_t now_us)
{
	if (w->named == on)
		return;
	stop_waiting(bt, w, now_us);
	w->named = on;
	bt->named += on ? 1 : -1u;
	if (on)
		take_early(bt, w);
	look_at_all(bt, now_us);
}

void blocktime_name(struct blocktime *bt, uint32_t tid, bool on, uint64_t now_us)
{
	struct waiter *w;

	LOCK_SCOPE(&bt->lock);
	w = find(bt, tid);
	if (!w && on && bt->n < BLOCKTIME_THREADS_MAX) {
		w = &bt->w[bt->n++];
		w->tid = tid;
	}
	if (w)
		name(bt, w, on, now_us);
}

void blocktime_name_none(struct blocktime *bt, uint64_t now_us)
{
	LOCK_SCOPE(&bt->lock);
	for (unsigned int i = 0; i < bt->n; i++)
		name(bt, &bt->w[i], false, now_us);
}

void blocktime_begin(struct blocktime *bt, uint32_t tid, uint64_t page, uint64_t now_us)
{
	struct waiter *w;

	LOCK_SCOPE(&bt->lock);
	w = find(bt, tid);
	if (!w || !w->named) {
		remember(bt, tid, page, now_us);
		return;
	}
	if (w->waits && w->page == page)
		return;
	stop_waiting(bt, w, now_us);
	w->waits = true;
	w->page = page;
	w->since_us = now_us;
	bt->waiting++;
	look_at_all(bt, now_us);
}

void blocktime_undo(struct blocktime *bt, uint32_t tid, uint64_t page)
{
	struct waiter *w;
	struct early *e;

	LOCK_SCOPE(&bt->lock);
	e = find_early(bt, tid);
	if (e && e->page == page)
		e->tid = 0;
	w = find(bt, tid);
	if (!w || !w->waits || w->page != page)
		return;
	w->waits = false;
	bt->waiting--;
	/* That all of them waited is no more true than that this one did. */
	bt->all = false;
}

void blocktime_end(struct blocktime *bt, uint64_t page, uint64_t now_us)
{
	LOCK_SCOPE(&bt->lock);
	for (unsigned int i = 0; i < bt->n; i++)
		if (bt->w[i].waits && bt->w[i].page == page)
			stop_waiting(bt, &bt->w[i], now_us);
	for (unsigned int i = 0; i < EARLY_MAX; i++)
		if (bt->early[i].page == page)
			bt->early[i].tid = 0;
	look_at_all(bt, now_us);
}

void blocktime_read(struct blocktime *bt, uint64_t now_us, struct blocktime_sums *ret)
{
	LOCK_SCOPE(&bt->lock);
	ret->n = bt->n;
	ret->all_us = bt->all_us + (bt->all ? elapsed(bt->all_since_us, now_us) : 0);
	for (unsigned int i = 0; i < bt->n; i++) {
		const struct waiter *w = &bt->w[i];

		ret->thread_us[i] = w->total_us + (w->waits ? elapsed(w->since_us, now_us) : 0);
	}
}
