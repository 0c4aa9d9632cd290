/* SPDX-License-Identifier: Apache-2.0 */
#include "engine.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "held.h"
#include "lane.h"
#include "scan.h"
#include "sender.h"
#include "urgent.h"
#include "util/cleanup.h"
#include "util/clock.h"
#include "util/fdio.h"
#include "util/loop.h"

static int block_open(struct engine_block *b, const struct guest *g, uint16_t index,
		      struct error *err)
{
	int r;

	b->theirs = -1;
	r = gmem_open(&b->mem, g, index, err);
	if (r < 0)
		return r;
	if (b->mem.block.kind == GUEST_BLOCK_MEMFD)
		b->theirs = fcntl(g->blocks[index].fd, F_DUPFD_CLOEXEC, 0);
	b->npages = b->mem.block.length / b->mem.block.page_size;
	if (bitmap_init(&b->pending, b->npages) < 0 || bitmap_init(&b->sent, b->npages) < 0 ||
	    bitmap_init(&b->dirty, b->npages) < 0)
		return error_set(err, -ENOMEM, NULL, "no memory for the bitmaps of block %s",
				 b->mem.block.name);
	return 0;
}

static void block_close(struct engine_block *b)
{
	fdio_close_apart(b->theirs);
	gmem_close(&b->mem);
	bitmap_free(&b->pending);
	bitmap_free(&b->sent);
	bitmap_free(&b->dirty);
	bitmap_free(&b->data);
	held_free(b->held);
	bitmap_free(&b->filled);
}

int engine_new(struct loop *loop, const struct guest *g, const struct mig_options *options,
	       struct budget *budget, engine_event_fn *on_event, void *arg, struct engine **ret,
	       struct error *err)
{
	struct engine *e = calloc(1, sizeof(*e));
	int r = 0;

	if (!e)
		return error_set(err, -ENOMEM, NULL, "out of memory");
	e->loop = loop;
	e->on_event = on_event;
	e->arg = arg;
	e->options = *options;
	e->budget = budget;
	pthread_mutex_init(&e->bucket_lock, NULL);
	pthread_mutex_init(&e->post_lock, NULL);
	atomic_store(&e->pass, 1);
	bucket_init(&e->bucket, options->bandwidth, clock_us());
	e->stop_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	e->blocks = calloc(g->nblocks ? g->nblocks : 1, sizeof(*e->blocks));
	if (e->stop_fd < 0 || !e->blocks)
		r = error_set(err, -ENOMEM, NULL, "no memory or descriptors for a migration");
	for (uint16_t i = 0; !r && i < g->nblocks; i++) {
		e->nblocks = i + 1u;
		r = block_open(&e->blocks[i], g, i, err);
	}
	if (r < 0) {
		engine_free(e);
		return r;
	}
	*ret = e;
	return 0;
}

bool engine_stopping(const struct engine *e)
{
	struct pollfd p = {.fd = e->stop_fd, .events = POLLIN};

	return poll(&p, 1, 0) > 0;
}

/* One event on its way to the loop; unlinked by whoever comes first, delivery or engine_stop(). */
struct engine_post {
	struct engine *e;
	struct engine_post *next;
	enum engine_event ev;
	struct error err;
};

static void deliver(void *arg)
{
	struct engine_post *p = arg;
	struct engine *e = p->e;

	if (e) {
		pthread_mutex_lock(&e->post_lock);
		for (struct engine_post **q = &e->posts; *q; q = &(*q)->next) {
			if (*q == p) {
				*q = p->next;
				break;
			}
		}
		pthread_mutex_unlock(&e->post_lock);
		e->on_event(e->arg, p->ev, &p->err);
	}
	free(p);
}

void engine_post(struct engine *e, enum engine_event ev, const struct error *err)
{
	struct engine_post *p = calloc(1, sizeof(*p));

	if (!p)
		return; /* the job then ends by its time limits */
	p->e = e;
	p->ev = ev;
	if (err)
		p->err = *err;
	LOCK_SCOPE(&e->post_lock);
	p->next = e->posts;
	e->posts = p;
	if (loop_post(e->loop, deliver, p) < 0) {
		e->posts = p->next;
		free(p);
	}
}

void engine_fail(struct engine *e, enum engine_event ev, const struct error *err)
{
	if (engine_stopping(e) || atomic_exchange(&e->failed, true))
		return;
	engine_post(e, ev, err);
}

void engine_stop(struct engine *e)
{
	eventfd_write(e->stop_fd, 1);
	for (uint32_t i = 0; i < e->nsenders; i++)
		sender_quit(e->senders[i]);
	urgent_quit(e->urgent);
	/* They kick each other: none is freed before all have ended. */
	scan_join(e->scan);
	for (uint32_t i = 0; i < e->nsenders; i++)
		sender_join(e->senders[i]);
	urgent_join(e->urgent);
	/* What the threads posted last still lies in the loop's queue: make it come to nothing. */
	LOCK_SCOPE(&e->post_lock);
	for (struct engine_post *p = e->posts; p; p = p->next)
		p->e = NULL;
	e->posts = NULL;
}

void engine_free(struct engine *e)
{
	if (!e)
		return;
	if (e->stop_fd >= 0) {
		engine_stop(e);
		close(e->stop_fd);
	}
	scan_free(e->scan);
	for (uint32_t i = 0; i < e->nsenders; i++)
		sender_free(e->senders[i]);
	urgent_free(e->urgent);
	for (uint32_t i = 0; i < e->nblocks; i++)
		block_close(&e->blocks[i]);
	free(e->blocks);
	pthread_mutex_destroy(&e->bucket_lock);
	pthread_mutex_destroy(&e->post_lock);
	free(e);
}

void engine_set_bandwidth(struct engine *e, uint64_t rate)
{
	LOCK_SCOPE(&e->bucket_lock);
	bucket_init(&e->bucket, rate, clock_us());
}

void engine_account(struct engine *e, uint64_t bytes)
{
	LOCK_SCOPE(&e->bucket_lock);
	bucket_take(&e->bucket, bytes, clock_us());
}

static uint64_t debt_us(struct engine *e)
{
	LOCK_SCOPE(&e->bucket_lock);
	return bucket_take(&e->bucket, 0, clock_us());
}

uint64_t engine_turn(struct engine *e, struct budget_ask *ask, enum budget_class class)
{
	uint64_t us = debt_us(e);

	if (us || !e->budget)
		return us;
	return budget_turn(e->budget, ask, &e->flow, class, ENGINE_RUN_MAX);
}

void engine_unturn(struct engine *e, struct budget_ask *ask)
{
	if (e->budget)
		budget_leave(e->budget, ask);
}

int engine_await_turn(struct engine *e, struct lane *lane)
{
	struct pollfd p = {.fd = lane->stop_fd, .events = POLLIN};
	uint64_t us;

	while ((us = engine_turn(e, &lane->ask, lane->class))) {
		struct timespec ts = {.tv_sec = (time_t)(us / 1000000),
				      .tv_nsec = (long)(us % 1000000) * 1000};

		if (ppoll(&p, 1, &ts, NULL) > 0) {
			engine_unturn(e, &lane->ask);
			return -ECANCELED;
		}
	}
	lane->guess += ENGINE_RUN_MAX;
	return 0;
}

uint64_t engine_guess(struct engine *e, enum budget_class class, uint64_t guess, uint64_t better)
{
	if (e->budget)
		budget_guess(e->budget, &e->flow, class, guess, better);
	return better;
}

void engine_settle(struct engine *e, enum budget_class class, uint64_t guess, uint64_t sent)
{
	if (e->budget && class == BUDGET_REQUEST)
		budget_spend(e->budget, class, sent);
	else if (e->budget)
		budget_settle(e->budget, &e->flow, class, guess, sent);
}

uint64_t engine_pending_bytes(const struct engine *e)
{
	uint64_t sum = 0;

	for (uint32_t i = 0; i < e->nblocks; i++)
		sum += bitmap_count(&e->blocks[i].pending) * e->blocks[i].mem.block.page_size;
	return sum;
}

int engine_nack(struct engine *e, const struct msg_nack *n, struct error *err)
{
	struct engine_block *b;
	uint64_t page, unit;

	if (n->block >= e->nblocks)
		return error_set(err, -EBADMSG, "bad-message", "NACK names block %u of %u",
				 n->block, e->nblocks);
	b = &e->blocks[n->block];
	page = b->mem.block.page_size;
	/* That of a part asks for the whole page. */
	unit = MIN(page, (uint64_t)ENGINE_RUN_MAX);
	if (!n->length || n->offset % unit || n->length % unit || n->length > b->mem.block.length ||
	    n->offset > b->mem.block.length - n->length)
		return error_set(err, -EBADMSG, "bad-message", "NACK outside of block %s",
				 b->mem.block.name);
	/*
	 * What is refused is pending again at once, so that a pass would never end for who refuses all. TLS
	 * keeps data whole: that anything is damaged at all is rare.
	 */
	if (atomic_fetch_add(&e->stats.nacks, 1) >= ENGINE_NACKS_MAX)
		return error_set(
			err, -EBADMSG, "digest-mismatch",
			"the destination keeps refusing pages because of their digests: %u "
			"runs, the last one of block %s",
			ENGINE_NACKS_MAX, b->mem.block.name);
	/* Its writers went on long ago. */
	if (e->snapshot)
		return error_set(err, -EBADMSG, "digest-mismatch",
				 "a page of block %s arrived damaged, and what it held is gone",
				 b->mem.block.name);
	bitmap_set_range(&b->pending, n->offset / page, MAX(n->length / page, UINT64_C(1)));
	scan_kick(e->scan);
	return 0;
}
