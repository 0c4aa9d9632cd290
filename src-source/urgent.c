/* SPDX-License-Identifier: Apache-2.0 */
#include "urgent.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "frame.h"
#include "scan.h"
#include "sender.h"
#include "util/cleanup.h"
#include "util/faultpoint.h"
#include "util/log.h"
#include "util/trace.h"

/** URGENT_NICE - the guest at the other end waits for this thread; bulk data can give way to it */
#define URGENT_NICE (-5)
/** URGENT_END_US - longest time for END, which nobody needs */
#define URGENT_END_US 100000ull

struct urgent {
	struct engine *e;
	struct tls_chan *chan;
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

/*
 * Each page is sent by whoever clears its pending bit. One that is claimed already is on its way on
 * another channel.
 */
static int answer(struct urgent *u, const struct msg_request *q, struct error *err)
{
	struct engine *e = u->e;
	struct engine_block *b;
	uint64_t page, first, n;
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
	for (uint64_t i = first; i < first + n && !r; i++)
		if (bitmap_test_and_clear(&b->pending, i))
			r = engine_send_run(e, u->chan, u->buf, atomic_load(&e->pass), q->block,
					    i * page, page, err);
	FAULTPOINT(REQUEST_ANSWERED);
	atomic_store(&e->urgent_busy, false);
	if (atomic_load(&e->waiting_urgent))
		scan_kick(e->scan);
	return r;
}

static int handle(struct urgent *u, const struct msg *m, struct error *err)
{
	switch (m->type) {
	case MSG_REQUEST:
		return answer(u, &m->request, err);
	case MSG_NACK:
		return engine_nack(u->e, &m->nack, err);
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
		{.fd = tls_chan_fd(u->chan), .events = events},
		{.fd = u->e->stop_fd, .events = POLLIN},
	};

	atomic_store(&u->wire_bytes, tls_chan_sent_bytes(u->chan));
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
		r = frame_reader_next(in, u->chan, &m, &payload, err);
		if (!r) {
			r = handle(u, m, err);
			/* Not to ask the socket in vain while the next fault is awaited. */
			if (!r && !tls_pending(u->chan))
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
	struct frame_io io = {.chan = u->chan,
			      .channel = MSG_CHANNEL_URGENT,
			      .stop_fd = -1,
			      .timeout_us = URGENT_END_US};
	struct msg m = {.type = MSG_END};
	struct error err = {0};

	if (frame_send(&io, &m, &err) < 0)
		log_debug("urgent channel: END was not sent: %s", err.msg);
}

static void *thread_main(void *arg)
{
	struct urgent *u = arg;
	struct frame_reader in = {0};
	struct error err = {0};
	int r;

	trace_thread_enter("urgent");
	setpriority(PRIO_PROCESS, 0,
		    URGENT_NICE); /* of this thread; without the right to it, no harm */
	r = frame_reader_init(&in, MSG_CHANNEL_URGENT, false);
	if (!r)
		r = serve(u, &in, &err);
	if (r == -ECANCELED && atomic_load(&u->e->done))
		send_end(u);
	atomic_store(&u->wire_bytes, tls_chan_sent_bytes(u->chan));
	if (r < 0 && r != -ECANCELED) {
		error_set(&err, r, "channel-lost", "urgent channel: %s", strerror(-r));
		engine_fail(u->e, !strcmp(err.code, "guest-memory") ? ENGINE_FAILED : ENGINE_LOST,
			    &err);
	}
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
		u->chan = chan;
		u->buf = aligned_alloc(4096, 4096 + ENGINE_RUN_MAX);
		r = u->buf ? pthread_create(&u->thread, NULL, thread_main, u) : ENOMEM;
	}
	if (r) {
		if (u)
			free(u->buf);
		free(u);
		return error_set(err, -r, NULL, "cannot start the urgent thread: %s", strerror(r));
	}
	e->urgent = u;
	return 0;
}

void urgent_join(struct urgent *u)
{
	if (!u || u->joined)
		return;
	pthread_join(u->thread, NULL);
	u->joined = true;
}

void urgent_free(struct urgent *u)
{
	if (!u)
		return;
	tls_chan_free(u->chan);
	free(u->buf);
	free(u);
}
