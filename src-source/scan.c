/* SPDX-License-Identifier: Apache-2.0 */
#include "scan.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "held.h"
#include "policy.h"
#include "scan_priv.h"
#include "snap.h"
#include "urgent.h"
#include "util/cleanup.h"
#include "util/clock.h"
#include "util/faultpoint.h"
#include "util/nudge.h"
#include "util/trace.h"

/* Passes that may be repeated because runs arrived with a wrong digest, before it is called a fault. */
#define REPEATS_MAX 16
/* Longest time between two looks at what was written while nothing can be sent. */
#define RELEASE_NAP_US 100000u

void scan_kick(struct scan *s)
{
	if (s)
		eventfd_write(s->kick_fd, 1);
}

void scan_order(struct scan *s, enum scan_phase phase)
{
	atomic_store(&s->phase, phase);
	scan_kick(s);
}

void scan_switch_now(struct scan *s)
{
	atomic_store(&s->switch_now, true);
	scan_kick(s);
}

bool scan_postcopy(const struct scan *s)
{
	return atomic_load(&s->postcopy);
}

int scan_request(struct scan *s, const struct msg_request *q, struct error *err)
{
	int r = urgent_check(s->e, q, err);

	if (r < 0)
		return r;
	pthread_mutex_lock(&s->lock);
	/* One place stays free for unpop_request(). */
	if (s->nrequests < SCAN_REQUESTS_MAX - 1)
		s->requests[s->nrequests++] = (struct asked){*q, clock_us()};
	else
		r = error_set(err, -ENOBUFS, "too-many-requests",
			      "more than %u pages asked for at a time", SCAN_REQUESTS_MAX - 1);
	pthread_mutex_unlock(&s->lock);
	trace_request(s->e->blocks[q->block].mem.block.name, q->offset, q->length);
	atomic_fetch_add(&s->e->stats.requests, 1);
	atomic_store(&s->e->hint, (((uint64_t)q->block << 48) |
				   q->offset / s->e->blocks[q->block].mem.block.page_size) +
					  1);
	scan_kick(s);
	return r;
}

/* --- phases --- */

static int start_tracking(struct scan *s, struct error *err)
{
	int r = scan_data_anon(s, err);

	if (!r)
		r = track_start(&s->track, s->ops, s->e, steal_fd(&s->uffd), err);
	return r;
}

/* Send what is pending until all of it is placed, with what was refused on the way. */
int scan_settle(struct scan *s, bool break_early, struct error *err)
{
	uint32_t losses = atomic_load(&s->e->losses), now;
	int r = 0;

	for (int i = 0; !r && i < REPEATS_MAX; i++) {
		r = feed_pending(s, break_early, err);
		if (!r)
			r = feed_barrier(s, err);
		if (!r && (!engine_pending_bytes(s->e) || (break_early && scan_hurries(s))))
			return 0;
		/* Pages of a lost channel are nobody's fault. */
		now = atomic_load(&s->e->losses);
		if (now != losses)
			i = 0;
		losses = now;
	}
	return r ? r
		 : error_set(err, -EBADMSG, "digest-mismatch",
			     "the destination keeps refusing pages because of their digests");
}

static void note_pass(struct engine *e, uint64_t bytes, uint64_t us)
{
	atomic_fetch_add(&e->stats.passes, 1);
	if (us && bytes)
		atomic_store(&e->stats.rate, (uint64_t)((double)bytes * 1e6 / (double)us));
}

int scan_collect(struct scan *s, uint64_t since_us, struct error *err)
{
	uint64_t now, pages = 0;
	int r = s->ops->collect(&s->track, err);

	if (r < 0)
		return r;
	now = clock_us();
	for (uint32_t i = 0; i < s->e->nblocks; i++)
		pages += bitmap_count(held_written(&s->e->blocks[i]));
	atomic_store(&s->e->stats.dirty_rate,
		     now > since_us ? pages * 1000000 / (now - since_us) : 0);
	return held_sort(s, err);
}

/* What is in quarantine will have to be sent before the switch; what is ever-dirty will not. */
static uint64_t remaining(const struct engine *e)
{
	return engine_pending_bytes(e) + (e->dma == DMA_QUARANTINE ? held_bytes(e) : 0);
}

static enum policy_out judge(struct scan *s, uint64_t begin, uint64_t before)
{
	uint64_t elapsed = clock_us() - begin;
	uint64_t apart = atomic_load(&s->e->interrupted_us) + s->gate_us;
	struct policy_in in = {
		.options = &s->e->options,
		.passes = atomic_load(&s->e->stats.passes),
		.elapsed_us = elapsed - MIN(elapsed, apart),
		.remaining = remaining(s->e),
		.pinned = s->e->dma == DMA_QUARANTINE ? held_pinned_bytes(s->e) : 0,
		.before = before,
		.rate = atomic_load(&s->e->stats.rate),
	};

	return policy_next(&in);
}

static int rest(struct scan *s, uint64_t us, struct error *err)
{
	uint64_t end = clock_us() + us, now;
	int r = 0;

	/* Every write fault that is served ends a nap. */
	while (!r && !atomic_load(&s->switch_now) && (now = clock_us()) < end)
		r = feed_nap(s, end - now, err);
	return r;
}

/*
 * All that is left is in quarantine: see what was written meanwhile, until something is let go. A slot of
 * time in which nothing is counts as a pass, so that a guest that writes everything again ends precopy.
 */
static int await_release(struct scan *s, uint64_t begin, enum policy_out *next, struct error *err)
{
	uint64_t left = engine_pending_bytes(s->e), slot_us = s->slot_us, start;
	int r = 0;

	while (!r && *next == POLICY_PASS && !left && !atomic_load(&s->switch_now)) {
		start = clock_us();
		r = rest(s, MIN(held_wait_us(s), RELEASE_NAP_US), err);
		if (!r)
			r = scan_collect(s, start, err);
		left = engine_pending_bytes(s->e);
		if (!left && s->slot_us != slot_us)
			note_pass(s->e, 0, 0);
		slot_us = s->slot_us;
		*next = judge(s, begin, left);
	}
	return r;
}

static int not_converging(const struct scan *s, struct error *err)
{
	bool held = s->e->dma == DMA_QUARANTINE && held_bytes(s->e);
	char why[128] = "";

	if (held)
		snprintf(why, sizeof(why),
			 ", %llu of them held because devices write there, %llu as "
			 "registered buffers",
			 (unsigned long long)held_bytes(s->e),
			 (unsigned long long)held_pinned_bytes(s->e));
	return error_set(err, -ETIME, "not-converging",
			 "the guest writes faster than its memory can be sent: %llu bytes are left "
			 "after %u passes%s; raise downtime_limit_ms%s or use --mode hybrid",
			 (unsigned long long)remaining(s->e), atomic_load(&s->e->stats.passes), why,
			 held ? ", lower dma_quarantine_ms if no I/O takes so long," : "");
}

static int passes(struct scan *s, uint64_t begin, enum policy_out *next, struct error *err)
{
	int r;

	do {
		uint64_t start = clock_us(), before = engine_pending_bytes(s->e);

		FAULTPOINT(PASS_BEGUN);
		*next = POLICY_SWITCH;
		r = scan_settle(s, true, err);
		if (r < 0 || atomic_load(&s->switch_now))
			return r;
		FAULTPOINT(PASS_PLACED);
		note_pass(s->e, before, clock_us() - start);
		atomic_fetch_add(&s->e->pass, 1);
		r = scan_collect(s, start, err);
		if (r < 0)
			return r;
		FAULTPOINT(WRITTEN_COLLECTED);
		*next = judge(s, begin, before);
		r = await_release(s, begin, next, err);
		if (r < 0 || atomic_load(&s->switch_now))
			return r;
	} while (*next == POLICY_PASS);
	return 0;
}

/* While others are asked whether the guest may be paused it writes on: policy is asked once more then. */
static int precopy(struct scan *s, struct error *err)
{
	uint64_t begin = clock_us();
	enum policy_out next;
	int r = scan_data_first(s, err);
	bool again;

	if (r < 0)
		return r;
	do {
		r = passes(s, begin, &next, err);
		if (r < 0)
			return r;
		if (!atomic_load(&s->switch_now) && next == POLICY_FAIL)
			return not_converging(s, err);
		if (next == POLICY_SWITCH_POSTCOPY)
			atomic_store(&s->postcopy, true);
		again = atomic_load(&s->e->gate) == ENGINE_GATE_SHUT && !atomic_load(&s->postcopy);
		r = scan_gate(s, err);
		again = again && !atomic_load(&s->switch_now) &&
			judge(s, begin, engine_pending_bytes(s->e)) != POLICY_SWITCH;
	} while (!r && again);
	return r;
}

/*
 * The guest is paused. What was written since the last collection joins what was not sent. With
 * post-copy to follow it stays pending; otherwise it is sent and placed now.
 */
static int final(struct scan *s, struct error *err)
{
	int r = 0;

	if (s->ops)
		r = s->ops->final(&s->track, err);
	else
		for (uint32_t i = 0; i < s->e->nblocks; i++)
			bitmap_set_range(&s->e->blocks[i].pending, 0, s->e->blocks[i].npages);
	if (r < 0)
		return r;
	FAULTPOINT(LAST_WRITTEN_COLLECTED);
	held_give_back(s->e);
	atomic_fetch_add(&s->e->pass, 1);
	if (!atomic_load(&s->postcopy))
		return scan_settle(s, false, err);
	r = feed_barrier(s, err);
	if (!r) {
		atomic_store(&s->e->postcopy, true);
		atomic_fetch_add(&s->e->pass, 1);
	}
	return r;
}

/* A page that the urgent thread claimed counts as sent only when its frame has been counted. */
static int await_urgent(struct scan *s, struct error *err)
{
	int r = 0;

	atomic_store(&s->e->waiting_urgent, true);
	while (!r && (atomic_load(&s->e->urgent_busy) || atomic_load(&s->e->urgent_lost)))
		r = feed_wait(s, err);
	atomic_store(&s->e->waiting_urgent, false);
	return r;
}

static int postcopy(struct scan *s, struct error *err)
{
	int r = 0;

	for (uint32_t i = 0; !r && i < s->e->nblocks; i++)
		r = scan_data_left(s, i, err);
	FAULTPOINT(HOLES_QUEUED);
	if (!r)
		r = scan_settle(s, false, err);
	return r ? r : await_urgent(s, err);
}

/* Phases only rise; a kick without a new one is for something else. */
static int await(struct scan *s, enum scan_phase phase, struct error *err)
{
	int r = 0;

	while (!r && atomic_load(&s->phase) < (int)phase)
		r = feed_wait(s, err);
	return r;
}

/* The guest is at the destination, or about to go there. */
static int run_postcopy(struct scan *s, struct error *err)
{
	int r = await(s, SCAN_POSTCOPY, err);
	uint32_t losses = 0;

	if (!r) {
		losses = atomic_load(&s->e->losses);
		if (atomic_load(&s->postcopy))
			r = postcopy(s, err);
	}
	if (r < 0)
		return r;
	engine_post(s->e, ENGINE_SENT, NULL);
	while (!r) {
		r = feed_wait(s, err);
		if (r || (!engine_pending_bytes(s->e) && atomic_load(&s->e->losses) == losses))
			continue;
		/* A run on the urgent channel was refused after all, or a channel was lost: the totals
		 * change once more. */
		losses = atomic_load(&s->e->losses);
		r = scan_settle(s, false, err);
		if (!r)
			r = await_urgent(s, err);
		if (!r)
			engine_post(s->e, ENGINE_SENT, NULL);
	}
	return r;
}

/* Most is protected already, so that this pause does not grow with the guest. */
static int protect_paused(struct scan *s, struct error *err)
{
	int r = await(s, SCAN_PROTECT, err);

	if (!r)
		r = s->ops->renew(&s->track, err);
	if (!r)
		r = held_begin(s, err);
	if (!r)
		engine_post(s->e, ENGINE_PROTECTED, NULL);
	return r;
}

static int run(struct scan *s, struct error *err)
{
	int r = s->ops ? start_tracking(s, err) : 0;

	if (r < 0)
		return r;
	engine_post(s->e, ENGINE_TRACKING, NULL);
	if (dma_holds(s->e->dma))
		r = protect_paused(s, err);
	if (!r)
		r = await(s, SCAN_PRECOPY, err);
	if (!r)
		r = s->ops ? precopy(s, err) : scan_gate(s, err);
	if (r < 0)
		return r;
	/* What is to be discarded there is named before the guest stops. */
	if (atomic_load(&s->postcopy))
		held_give_back(s->e);
	engine_post(s->e, ENGINE_CONVERGED, NULL);
	r = await(s, SCAN_FINAL, err);
	if (!r)
		r = final(s, err);
	if (r < 0)
		return r;
	engine_post(s->e, ENGINE_FINAL, NULL);
	return run_postcopy(s, err);
}

static void *thread_main(void *arg)
{
	struct scan *s = arg;
	struct error err = {0};
	int r;

	nudge_ready();
	trace_thread_enter("snapshot");
	r = s->ops == &track_snapshot ? snap_run(s, &err)
	    : s->e->recovered         ? run_postcopy(s, &err)
				      : run(s, &err);
	if (r < 0 && r != -ECANCELED) {
		error_set(&err, r, NULL, "snapshot thread: %s", strerror(-r));
		engine_fail(s->e, ENGINE_FAILED, &err);
	}
	track_stop(&s->track);
	trace_thread_exit("snapshot", r);
	return NULL;
}

int scan_start(struct engine *e, const struct track_ops *ops, int uffd, struct error *err)
{
	struct scan *s = calloc(1, sizeof(*s));
	int r = s ? 0 : ENOMEM;

	if (!r) {
		s->e = e;
		s->ops = ops;
		s->uffd = uffd;
		s->track = (struct track){.ops = ops, .e = e, .uffd = -1, .pagemap = -1};
		s->postcopy = e->options.mode != MIG_MODE_PRECOPY || e->recovered;
		pthread_mutex_init(&s->lock, NULL);
		s->kick_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
		r = s->kick_fd < 0 ? errno : 0;
	}
	if (!r) {
		e->scan = s; /* before the thread, which may kick itself through the engine */
		r = pthread_create(&s->thread, NULL, thread_main, s);
	}
	if (r) {
		e->scan = NULL;
		if (uffd >= 0)
			close(uffd);
		if (s && s->kick_fd >= 0)
			close(s->kick_fd);
		free(s);
		return error_set(err, -r, NULL, "cannot start the snapshot thread: %s",
				 strerror(r));
	}
	return 0;
}

void scan_join(struct scan *s)
{
	if (!s || s->joined)
		return;
	nudge_join(s->thread);
	s->joined = true;
}

void scan_free(struct scan *s)
{
	if (!s)
		return;
	snap_free(s);
	if (s->uffd >= 0)
		close(s->uffd);
	close(s->kick_fd);
	pthread_mutex_destroy(&s->lock);
	free(s);
}
