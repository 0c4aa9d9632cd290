/* SPDX-License-Identifier: Apache-2.0 */
/* The snapshot thread's inner loop: which run goes to which sender next. */
#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/eventfd.h>

#include "scan_priv.h"
#include "sender.h"
#include "snap.h"
#include "util/cleanup.h"
#include "util/clock.h"

static int service_faults(struct scan *s, struct error *err)
{
	int r;

	if (!s->ops)
		return 0;
	while ((r = s->ops->service(&s->track, err)) > 0)
		;
	return r;
}

static bool pop_request(struct scan *s, struct asked *ret)
{
	LOCK_SCOPE(&s->lock);
	if (!s->nrequests)
		return false;
	*ret = s->requests[0];
	memmove(s->requests, s->requests + 1, --s->nrequests * sizeof(s->requests[0]));
	return true;
}

static void unpop_request(struct scan *s, const struct asked *a)
{
	LOCK_SCOPE(&s->lock);
	/* Room is certain: this thread has just made it, and scan_request() leaves one place. */
	memmove(s->requests + 1, s->requests, s->nrequests++ * sizeof(s->requests[0]));
	s->requests[0] = *a;
}

/* Return: 0 once the run is first on a channel that stands, or -errno if there is none, or no room */
static int push_first(struct scan *s, const struct run *run)
{
	int r = -EPIPE;

	for (uint32_t i = 0; i < s->e->nsenders && r == -EPIPE; i++)
		r = runq_push_front(&s->e->senders[i]->queue, run);
	return r;
}

/* Without an urgent channel the pages asked for go to the front of bulk channel 0, or the first that stands. */
static void serve_requests(struct scan *s)
{
	struct asked a;

	while (pop_request(s, &a)) {
		struct msg_request *q = &a.q;
		struct engine_block *b = &s->e->blocks[q->block];
		uint64_t page = b->mem.block.page_size, first = q->offset / page;
		struct run run = {.kind = RUN_READ,
				  .block = q->block,
				  .pass = atomic_load(&s->e->pass),
				  .offset = q->offset,
				  .length = page,
				  .class = BUDGET_REQUEST,
				  .asked_us = a.at_us};

		if (bitmap_test_and_clear(&b->pending, first)) {
			if (push_first(s, &run) < 0) {
				bitmap_set(&b->pending, first);
				unpop_request(s, &a);
				return;
			}
			bitmap_set(&b->sent, first);
			engine_account(s->e, page);
		}
		if (q->length > page) {
			q->offset += page;
			q->length -= page;
			unpop_request(s, &a);
		}
	}
}

static int faults_fd(const struct scan *s)
{
	if (s->ops == &track_snapshot)
		return snap_poll_fd(s);
	return s->ops ? s->track.uffd : -1;
}

/* @us: UINT64_MAX for no limit */
int feed_nap(struct scan *s, uint64_t us, struct error *err)
{
	struct pollfd p[] = {
		{.fd = s->kick_fd, .events = POLLIN},
		{.fd = s->e->stop_fd, .events = POLLIN},
		{.fd = faults_fd(s), .events = POLLIN},
	};
	struct timespec ts = {.tv_sec = (time_t)(us / 1000000),
			      .tv_nsec = (long)(us % 1000000) * 1000};
	eventfd_t dummy;

	if (ppoll(p, ARRAY_SIZE(p), us == UINT64_MAX ? NULL : &ts, NULL) < 0 && errno != EINTR)
		return error_set(err, -errno, NULL, "poll: %s", strerror(errno));
	if (p[1].revents)
		return -ECANCELED;
	if (p[0].revents)
		eventfd_read(s->kick_fd, &dummy);
	if (p[2].revents & POLLERR)
		uffd_unblock(p[2].fd); /* of no use otherwise: reading tells */
	if (p[2].revents)
		s->track.quiet_us = clock_us();
	serve_requests(s);
	return service_faults(s, err);
}

int feed_idle(struct scan *s)
{
	struct pollfd p[] = {
		{.fd = s->kick_fd, .events = POLLIN},
		{.fd = s->e->stop_fd, .events = POLLIN},
	};
	eventfd_t dummy;

	if (poll(p, ARRAY_SIZE(p), -1) < 0 && errno != EINTR)
		return -errno;
	if (p[0].revents)
		eventfd_read(s->kick_fd, &dummy);
	return p[1].revents ? -ECANCELED : 0;
}

int feed_wait(struct scan *s, struct error *err)
{
	return feed_nap(s, UINT64_MAX, err);
}

int feed_step(struct scan *s, struct error *err)
{
	if (engine_stopping(s->e))
		return -ECANCELED;
	serve_requests(s);
	return service_faults(s, err);
}

struct sender *feed_roomiest(struct scan *s)
{
	struct sender *best = NULL;
	unsigned int room = 0;

	for (uint32_t i = 0; i < s->e->nsenders; i++) {
		unsigned int n = runq_room(&s->e->senders[i]->queue);

		if (n > room) {
			room = n;
			best = s->e->senders[i];
		}
	}
	return best;
}

static int wait_room(struct scan *s, struct sender **ret, struct error *err)
{
	int r = feed_step(s, err);

	while (!r && !(*ret = feed_roomiest(s)))
		r = feed_wait(s, err);
	return r;
}

/* The guest stands still from its pause until it runs there; a snapshot's runs on at once. */
static enum budget_class class_now(const struct scan *s)
{
	bool stands = atomic_load(&s->phase) == SCAN_FINAL && !s->e->snapshot;

	return stands ? BUDGET_SWITCHOVER : BUDGET_BULK;
}

int feed_hole(struct scan *s, uint32_t block, uint64_t first, uint64_t n, struct error *err)
{
	struct engine_block *b = &s->e->blocks[block];
	uint64_t page = b->mem.block.page_size;
	struct run run = {.kind = RUN_HOLE,
			  .block = block,
			  .pass = atomic_load(&s->e->pass),
			  .offset = first * page,
			  .length = n * page,
			  .class = class_now(s)};
	struct sender *to = NULL;
	int r;

	do {
		r = wait_room(s, &to, err);
		if (r < 0)
			return r;
		bitmap_set_range(&b->sent, first, n);
		/* Its channel may have been lost meanwhile. */
	} while (runq_push(&to->queue, &run) < 0);
	return 0;
}

/* The guest asked for pages elsewhere: what lies behind them is likely to be wanted next. */
static void follow_hint(struct scan *s)
{
	uint64_t hint = atomic_load_explicit(&s->e->hint, memory_order_relaxed);

	if (hint == s->hint_seen)
		return;
	s->hint_seen = hint;
	s->cursor_block = (uint32_t)((hint - 1) >> 48);
	s->cursor_page = (hint - 1) & ((1ull << 48) - 1);
}

/* Claim the next run from the cursor on, around the end of all blocks. */
static uint64_t claim(struct scan *s, uint32_t *ret_block, uint64_t *ret_first)
{
	struct engine *e = s->e;

	for (uint32_t i = 0; i <= e->nblocks; i++) {
		struct engine_block *b = &e->blocks[s->cursor_block];
		uint64_t n = bitmap_claim_run(&b->pending, s->cursor_page,
					      MAX(ENGINE_RUN_MAX / b->mem.block.page_size, 1u),
					      ret_first);

		if (n) {
			*ret_block = s->cursor_block;
			s->cursor_page = *ret_first + n;
			return n;
		}
		s->cursor_block = (s->cursor_block + 1) % e->nblocks;
		s->cursor_page = 0;
	}
	return 0;
}

static int feed_one(struct scan *s, struct sender *to, uint32_t block, uint64_t first, uint64_t n,
		    struct error *err)
{
	struct engine_block *b = &s->e->blocks[block];
	uint64_t page = b->mem.block.page_size;
	struct run run = {.kind = RUN_READ,
			  .block = block,
			  .pass = atomic_load(&s->e->pass),
			  .offset = first * page,
			  .length = n * page,
			  .class = class_now(s)};
	int r = 0;

	if (s->ops && !atomic_load(&s->e->postcopy) && engine_tracked(b))
		r = s->ops->protect(&s->track, b, run.offset, run.length, err);
	if (r < 0)
		return r;
	bitmap_set_range(&b->sent, first, n);
	if (page <= ENGINE_PAGE_WHOLE) { /* larger ones: as their parts are sent */
		engine_account(s->e, run.length);
		run.guess = engine_guess(s->e, run.class, s->turn, run.length);
		s->turn = 0;
	}
	/* There is room: nobody else pushes behind the queue's end. But the channel may be lost. */
	if (runq_push(&to->queue, &run) < 0) {
		engine_settle(s->e, run.class, run.guess, 0);
		bitmap_set_range(&b->pending, first, n);
	}
	return 0;
}

static bool any_pending(const struct scan *s)
{
	const struct engine *e = s->e;

	for (uint32_t i = 0; i < e->nblocks; i++) {
		const struct engine_block *b = &e->blocks[(s->cursor_block + i) % e->nblocks];

		if (bitmap_next_set(&b->pending, i ? 0 : s->cursor_page) < b->npages)
			return true;
	}
	return bitmap_next_set(&e->blocks[s->cursor_block].pending, 0) <
	       e->blocks[s->cursor_block].npages;
}

/*
 * The bandwidth limits are waited for before a run is claimed: whoever asks for a page that is claimed
 * waits for all that stands before it. Return: 1 after waiting, 0, or as feed_wait()
 */
static int throttle(struct scan *s, struct error *err)
{
	uint64_t us = s->turn ? 0 : engine_turn(s->e, &s->ask, class_now(s));
	int r;

	if (!us) {
		s->turn = ENGINE_RUN_MAX;
		return 0;
	}
	if (!any_pending(s))
		return 0;
	r = feed_nap(s, us, err);
	return r < 0 ? r : 1;
}

static int feed_all(struct scan *s, bool break_early, struct error *err)
{
	struct sender *to = NULL;
	uint64_t first, n;
	uint32_t block;
	int r;

	if (!s->e->nblocks)
		return 0;
	for (;;) {
		if (break_early && scan_hurries(s))
			return 0;
		r = throttle(s, err);
		if (r > 0)
			continue;
		if (!r)
			r = wait_room(s, &to, err);
		if (r < 0)
			return r;
		follow_hint(s);
		n = claim(s, &block, &first);
		if (!n)
			return 0;
		r = feed_one(s, to, block, first, n, err);
		if (r < 0)
			return r;
	}
}

int feed_pending(struct scan *s, bool break_early, struct error *err)
{
	int r = feed_all(s, break_early, err);

	/* Whatever it was that ended it: others may have what is not wanted any more. */
	engine_unturn(s->e, &s->ask);
	if (s->turn)
		engine_settle(s->e, class_now(s), s->turn, 0);
	s->turn = 0;
	return r;
}

/*
 * A destination that takes all and never says that it is placed would be waited for, for ever. A channel that is
 * lost needs no answer, but its end (@gone): what was open on it is pending by then, and nothing of it is
 * placed any more.
 */
static int await_ack(struct scan *s, const struct sender *to, uint32_t gone, struct error *err)
{
	uint64_t limit = (uint64_t)s->e->options.answer_timeout_ms * 1000, waited;
	int r = 0;

	while (!r && atomic_load(&to->acked) != s->barrier && atomic_load(&to->gone) == gone) {
		if (atomic_load(&to->told) != s->barrier ||
		    atomic_load(&to->state) == SENDER_LOST) {
			r = feed_wait(s, err);
			continue;
		}
		waited = clock_us() - atomic_load(&to->told_us);
		if (waited >= limit)
			return error_set(
				err, -ETIMEDOUT, "no-acknowledgement",
				"the destination has not acknowledged what it was sent on "
				"bulk channel %u within %u ms (answer_timeout_ms): see the "
				"log of its decant-dest",
				to->index, s->e->options.answer_timeout_ms);
		r = feed_nap(s, limit - waited, err);
	}
	return r;
}

/* Return: 0; 1 if there is nothing to wait for; or as feed_wait(). @ret_gone: see sender.gone */
static int push_barrier(struct scan *s, struct sender *to, const struct run *run,
			uint32_t *ret_gone, struct error *err)
{
	int r;

	for (;;) {
		*ret_gone = atomic_load(&to->gone);
		r = runq_push(&to->queue, run);
		if (r == -EPIPE)
			return atomic_load(&to->state) != SENDER_LOST;
		if (!r)
			return 0;
		r = feed_wait(s, err);
		if (r < 0)
			return r;
	}
}

int feed_barrier(struct scan *s, struct error *err)
{
	struct run run = {.kind = RUN_BARRIER,
			  .pass = atomic_load(&s->e->pass),
			  .offset = ++s->barrier,
			  .class = BUDGET_BULK};
	uint32_t gone[MSG_CHANNELS_MAX];
	bool wait[MSG_CHANNELS_MAX];
	int r = feed_step(s, err);

	for (uint32_t i = 0; r >= 0 && i < s->e->nsenders; i++) {
		r = push_barrier(s, s->e->senders[i], &run, &gone[i], err);
		wait[i] = !r;
	}
	for (uint32_t i = 0; r >= 0 && i < s->e->nsenders; i++)
		if (wait[i])
			r = await_ack(s, s->e->senders[i], gone[i], err);
	return MIN(r, 0);
}
