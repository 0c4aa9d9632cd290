/* SPDX-License-Identifier: Apache-2.0 */
#include "urgent.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "frame.h"
#include "lane.h"
#include "scan.h"
#include "sender.h"
#include "util/cleanup.h"
#include "util/clock.h"
#include "util/faultpoint.h"
#include "util/log.h"
#include "util/trace.h"

/** URGENT_NICE - the guest at the other end waits for this thread; bulk data can give way to it */
#define URGENT_NICE (-5)
/** URGENT_END_US - longest time for END, which nobody needs */
#define URGENT_END_US 100000ull

/**
 * struct urgent - the thread and its channel
 * @lane:	the channel
 * @why:	what it was lost of
 * @wire_bytes:	see urgent_wire_bytes()
 * @buf:	the thread's, for runs
 * @joined:	there is no thread
 */
struct urgent {
	struct engine *e;
	struct lane lane;
	struct error why;
	_Atomic uint64_t wire_bytes;
	uint8_t *buf;
	pthread_t thread;
	bool joined;
};

uint64_t urgent_wire_bytes(const struct urgent *u)
{
	return atomic_load(&u->wire_bytes);
}

/*
 * The destination asks for a page once in a session (P12), so that it cannot ask for more than there are.
 * Twice that, and somebody keeps this thread, which goes before others, busy for nothing.
 */
static int count_asked(struct engine *e, uint64_t pages, struct error *err)
{
	uint64_t asked = atomic_fetch_add(&e->asked, pages) + pages, all = 0;

	for (uint32_t i = 0; i < e->nblocks; i++)
		all += e->blocks[i].npages;
	if (asked <= 2 * all)
		return 0;
	return error_set(err, -EBADMSG, "too-many-requests",
			 "the destination has asked for %llu pages, and the guest has %llu",
			 (unsigned long long)asked, (unsigned long long)all);
}

int urgent_check(struct engine *e, const struct msg_request *q, struct error *err)
{
	const struct guest_block *b;

	if (!atomic_load(&e->postcopy))
		return error_set(err, -EBADMSG, "unexpected-message", "REQUEST before LISTEN");
	if (q->block >= e->nblocks)
		return error_set(err, -EBADMSG, "bad-message", "REQUEST for block %u of %u",
				 q->block, e->nblocks);
	b = &e->blocks[q->block].mem.block;
	if (!q->length || q->length > MSG_REQUEST_MAX || q->offset % b->page_size ||
	    q->length % b->page_size || q->length > b->length || q->offset > b->length - q->length)
		return error_set(err, -EBADMSG, "bad-message",
				 "REQUEST for bytes %#llx+%#llx, which block %s does not have",
				 (unsigned long long)q->offset, (unsigned long long)q->length,
				 b->name);
	return count_asked(e, q->length / b->page_size, err);
}

static int send_barrier(struct urgent *u, struct error *err)
{
	struct msg m = {.type = MSG_BARRIER,
			.barrier = {.pass = atomic_load(&u->e->pass),
				    .number = lane_mark(&u->lane, 0, clock_us())}};
	struct frame_io io = {.chan = u->lane.chan,
			      .channel = MSG_CHANNEL_URGENT,
			      .stop_fd = u->lane.stop_fd,
			      .timeout_us = ENGINE_IO_TIMEOUT_US};

	return frame_send(&io, &m, err);
}

static int send_page(struct urgent *u, uint32_t block, uint64_t i, struct error *err)
{
	struct engine *e = u->e;
	uint64_t page = e->blocks[block].mem.block.page_size;
	int r;

	/* The destination answers barriers as it answers pages: one that does not is of no use. */
	if (lane_full(&u->lane)) {
		bitmap_set_range(&e->blocks[block].pending, i, 1);
		return error_set(err, -ETIMEDOUT, "channel-lost",
				 "urgent channel: the destination answers no barrier");
	}
	lane_note(&u->lane, block, i, 1, page);
	r = engine_send_run(e, &u->lane, u->buf, atomic_load(&e->pass), block, i * page, page, err);
	if (!r && lane_due(&u->lane, clock_us()))
		r = send_barrier(u, err);
	return r;
}

/*
 * Each page is sent by whoever clears its pending bit. One that is claimed already is on its way on
 * another channel.
 */
static int answer(struct urgent *u, const struct msg_request *q, struct error *err)
{
	struct engine *e = u->e;
	struct engine_block *b;
	uint64_t page, first, n, began = clock_us();
	int r = urgent_check(e, q, err);

	if (r < 0)
		return r;
	b = &e->blocks[q->block];
	page = b->mem.block.page_size;
	first = q->offset / page;
	n = q->length / page;
	trace_request(b->mem.block.name, q->offset, q->length);
	atomic_fetch_add(&e->stats.requests, n);
	atomic_store(&e->hint, (((uint64_t)q->block << 48) | first) + 1);
	FAULTPOINT(REQUEST_RECEIVED);
	atomic_store(&e->urgent_busy, true);
	lane_begin(&u->lane, BUDGET_REQUEST, 0);
	for (uint64_t i = first; i < first + n && !r; i++)
		if (bitmap_test_and_clear(&b->pending, i))
			r = send_page(u, q->block, i, err);
	lane_settle(&u->lane, e);
	hist_add(&e->stats.service, clock_us() - began);
	FAULTPOINT(REQUEST_ANSWERED);
	atomic_store(&e->urgent_busy, false);
	if (atomic_load(&e->waiting_urgent))
		scan_kick(e->scan);
	return r;
}

static int handle(struct urgent *u, const struct msg *m, struct error *err)
{
	uint32_t number;

	switch (m->type) {
	case MSG_REQUEST:
		return answer(u, &m->request, err);
	case MSG_NACK:
		return engine_nack(u->e, &m->nack, err);
	case MSG_BARRIER_ACK:
		return lane_acked(&u->lane, m->barrier.number, &number, err);
	case MSG_ERROR:
		return error_set(err, -EREMOTEIO, m->error.code,
				 "the destination ended the urgent channel: %s", m->error.message);
	default:
		return error_set(err, -EBADMSG, "unexpected-message", "%s on the urgent channel",
				 msg_type_name(m->type));
	}
}

static int idle(struct urgent *u, short events)
{
	struct pollfd p[] = {
		{.fd = tls_chan_fd(u->lane.chan), .events = events},
		{.fd = u->lane.stop_fd, .events = POLLIN},
	};

	atomic_store(&u->wire_bytes, tls_chan_sent_bytes(u->lane.chan));
	if (poll(p, ARRAY_SIZE(p), -1) < 0 && errno != EINTR)
		return -errno;
	return p[1].revents ? -ECANCELED : 0;
}

static int serve(struct urgent *u, struct frame_reader *in, struct error *err)
{
	const uint8_t *payload;
	const struct msg *m;
	int r;

	do {
		r = frame_reader_next(in, u->lane.chan, &m, &payload, err);
		if (!r) {
			r = handle(u, m, err);
			/* Not to ask the socket in vain while the next fault is awaited. */
			if (!r && !tls_pending(u->lane.chan))
				r = idle(u, POLLIN);
		} else if (r == -EAGAIN) {
			r = idle(u, in->events);
		}
	} while (!r);
	return r;
}

/* P21: so that the destination can tell this end from a loss. It may have closed first. */
static void send_end(struct urgent *u)
{
	struct frame_io io = {.chan = u->lane.chan,
			      .channel = MSG_CHANNEL_URGENT,
			      .stop_fd = -1,
			      .timeout_us = URGENT_END_US};
	struct msg m = {.type = MSG_END};
	struct error err = {0};

	if (frame_send(&io, &m, &err) < 0)
		log_debug("urgent channel: END was not sent: %s", err.msg);
}

static void failed(struct urgent *u, int r)
{
	struct engine *e = u->e;
	bool memory;

	error_set(&u->why, r, "channel-lost", "urgent channel: %s", strerror(-r));
	memory = !strcmp(u->why.code, "guest-memory");
	if (memory || (e->mend && (r == -EBADMSG || r == -EREMOTEIO))) {
		engine_fail(e, ENGINE_FAILED, &u->why);
	} else if (!e->mend) {
		engine_fail(e, ENGINE_LOST, &u->why);
	} else {
		atomic_store(&e->urgent_lost, true);
		engine_post(e, ENGINE_CHANNEL, &u->why);
	}
}

static void *thread_main(void *arg)
{
	struct urgent *u = arg;
	struct frame_reader in = {0};
	int r;

	trace_thread_enter("urgent");
	setpriority(PRIO_PROCESS, 0,
		    URGENT_NICE); /* of this thread; without the right to it, no harm */
	r = frame_reader_init(&in, MSG_CHANNEL_URGENT, false);
	if (!r)
		r = serve(u, &in, &u->why);
	if (r == -ECANCELED && atomic_load(&u->e->done))
		send_end(u);
	atomic_store(&u->wire_bytes, tls_chan_sent_bytes(u->lane.chan));
	if (r < 0 && r != -ECANCELED)
		failed(u, r);
	frame_reader_free(&in);
	trace_thread_exit("urgent", r);
	return NULL;
}

int urgent_start(struct engine *e, struct tls_chan *chan, struct error *err)
{
	struct urgent *u = calloc(1, sizeof(*u));
	int r = u ? 0 : ENOMEM;

	if (!r) {
		u->e = e;
		u->buf = aligned_alloc(4096, 4096 + ENGINE_RUN_MAX);
		r = -lane_init(&u->lane, e->mend);
	}
	if (!r)
		lane_take(&u->lane, chan);
	if (!r)
		r = u->buf ? pthread_create(&u->thread, NULL, thread_main, u) : ENOMEM;
	if (r) {
		if (u) {
			u->lane.chan = NULL; /* the caller's again */
			u->joined = true;
		}
		urgent_free(u);
		return error_set(err, -r, NULL, "cannot start the urgent thread: %s", strerror(r));
	}
	e->urgent = u;
	return 0;
}

void urgent_quit(struct urgent *u)
{
	if (u)
		lane_quit(&u->lane);
}

void urgent_join(struct urgent *u)
{
	if (!u || u->joined)
		return;
	pthread_join(u->thread, NULL);
	u->joined = true;
}

const struct error *urgent_why(const struct urgent *u)
{
	return &u->why;
}

bool urgent_open(const struct urgent *u)
{
	return u && !atomic_load(&u->e->urgent_lost);
}

bool urgent_silent(struct urgent *u)
{
	return urgent_open(u) && lane_silent(&u->lane);
}

void urgent_break(struct urgent *u, const struct error *why)
{
	urgent_quit(u);
	urgent_join(u);
	if (!error_is_set(&u->why))
		u->why = *why;
	atomic_store(&u->e->urgent_lost, true);
}

void urgent_give_up(struct urgent *u)
{
	struct engine *e = u->e;

	atomic_store(&e->urgent_lost, true);
	urgent_quit(u);
	urgent_join(u);
	e->wire_gone += urgent_wire_bytes(u);
	lane_give_up(&u->lane, e);
	atomic_fetch_add(&e->losses, 1);
	e->urgent = NULL;
	urgent_free(u);
	scan_kick(e->scan);
}

void urgent_gone(struct engine *e)
{
	atomic_store(&e->urgent_lost, false);
	scan_kick(e->scan);
}

void urgent_free(struct urgent *u)
{
	if (!u)
		return;
	lane_clear(&u->lane);
	free(u->buf);
	free(u);
}
