/* SPDX-License-Identifier: Apache-2.0 */
#include "sender.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>

#include "frame.h"
#include "scan.h"
#include "snap.h"
#include "util/cleanup.h"
#include "util/clock.h"
#include "util/faultpoint.h"
#include "util/trace.h"

uint64_t sender_wire_bytes(const struct sender *s)
{
	return atomic_load(&s->wire_bytes);
}

static int send_barrier(struct sender *s, const struct run *run, struct error *err)
{
	struct msg m = {.type = MSG_BARRIER,
			.barrier = {.pass = run->pass, .number = (uint32_t)run->offset}};
	struct frame_io io = {.chan = s->chan,
			      .channel = MSG_CHANNEL_BULK,
			      .stop_fd = s->e->stop_fd,
			      .timeout_us = ENGINE_IO_TIMEOUT_US};

	int r = frame_send(&io, &m, err);

	if (r < 0)
		return r;
	atomic_store(&s->told_us, clock_us());
	atomic_store(&s->told, m.barrier.number);
	/* From now on it waits for an answer. */
	scan_kick(s->e->scan);
	return 0;
}

/* It answers each barrier once, when it has been asked. */
static int on_barrier_ack(struct sender *s, const struct msg_barrier *b, struct error *err)
{
	uint32_t told = atomic_load(&s->told), acked = atomic_load(&s->acked);

	if (b->number != told || b->number == acked)
		return error_set(err, -EBADMSG, "bad-message",
				 "BARRIER_ACK %u on bulk channel %u, where %u was sent last and %u "
				 "answered",
				 b->number, s->index, told, acked);
	atomic_store(&s->acked, b->number);
	scan_kick(s->e->scan);
	return 0;
}

/* The bandwidth limit is kept here: nobody can ask for what is claimed meanwhile. */
static int send_saved(struct sender *s, const struct run *run, struct error *err)
{
	int r = engine_await_budget(s->e);

	FAULTPOINT(SAVED_RUN_DUE);
	engine_account(s->e, run->length);
	if (!r)
		r = engine_send_saved(s->e, s->chan, run->piece->frame, run->pass, run->block,
				      run->offset, run->length, err);
	snap_piece_free(s->e, run->piece);
	return r;
}

static int send_run(struct sender *s, const struct run *run, struct error *err)
{
	switch (run->kind) {
	case RUN_BARRIER:
		FAULTPOINT(BARRIER_DUE);
		return send_barrier(s, run, err);
	case RUN_HOLE:
		return engine_send_hole(s->e, s->chan, run->pass, run->block, run->offset,
					run->length, err);
	case RUN_SAVED:
		return send_saved(s, run, err);
	case RUN_READ:
		FAULTPOINT(RUN_DUE);
		break;
	}
	return engine_send_run(s->e, s->chan, s->buf, run->pass, run->block, run->offset,
			       run->length, err);
}

static int handle(struct sender *s, const struct msg *m, struct error *err)
{
	switch (m->type) {
	case MSG_NACK:
		return engine_nack(s->e, &m->nack, err);
	case MSG_BARRIER_ACK:
		return on_barrier_ack(s, &m->barrier, err);
	case MSG_ERROR:
		return error_set(err, -EREMOTEIO, m->error.code,
				 "the destination ended bulk channel %u: %s", s->index,
				 m->error.message);
	default:
		return error_set(err, -EBADMSG, "unexpected-message", "%s on a bulk channel",
				 msg_type_name(m->type));
	}
}

/* Everything that the destination has said so far, without waiting. */
static int listen_once(struct sender *s, struct frame_reader *in, struct error *err)
{
	const uint8_t *payload;
	const struct msg *m;
	int r;

	do {
		r = frame_reader_next(in, s->chan, &m, &payload, err);
		if (!r)
			r = handle(s, m, err);
	} while (!r);
	return r == -EAGAIN ? 0 : r;
}

static int idle(struct sender *s)
{
	struct pollfd p[] = {
		{.fd = s->queue.work_fd, .events = POLLIN},
		{.fd = tls_chan_fd(s->chan), .events = POLLIN},
		{.fd = s->e->stop_fd, .events = POLLIN},
	};

	if (!tls_pending(s->chan) && poll(p, ARRAY_SIZE(p), -1) < 0 && errno != EINTR)
		return -errno;
	return p[2].revents ? -ECANCELED : 0;
}

static int serve(struct sender *s, struct frame_reader *in, struct error *err)
{
	struct run run;
	int r;

	while (!(r = listen_once(s, in, err))) {
		if (runq_pop(&s->queue, &run)) {
			scan_kick(s->e->scan);
			r = send_run(s, &run, err);
			atomic_store(&s->wire_bytes, tls_chan_sent_bytes(s->chan));
		} else {
			r = idle(s);
		}
		if (r < 0)
			break;
	}
	return r;
}

static void *thread_main(void *arg)
{
	struct sender *s = arg;
	struct frame_reader in = {0};
	struct error err = {0};
	int r;

	trace_thread_enter("bulk");
	r = frame_reader_init(&in, MSG_CHANNEL_BULK, false);
	if (!r)
		r = serve(s, &in, &err);
	/* What the kernel still had in its buffer after the last run has been sent by now. */
	atomic_store(&s->wire_bytes, tls_chan_sent_bytes(s->chan));
	if (r < 0 && r != -ECANCELED) {
		error_set(&err, r, "channel-lost", "bulk channel %u: %s", s->index, strerror(-r));
		engine_fail(s->e,
			    !strcmp(err.code, "guest-memory") ||
					    !strcmp(err.code, "digest-mismatch")
				    ? ENGINE_FAILED
				    : ENGINE_LOST,
			    &err);
	}
	frame_reader_free(&in);
	trace_thread_exit("bulk", r);
	return NULL;
}

int sender_start(struct engine *e, uint32_t index, struct tls_chan *chan, struct error *err)
{
	struct sender *s = calloc(1, sizeof(*s));
	int r = s ? runq_init(&s->queue) : -ENOMEM;

	if (r < 0) {
		free(s);
		return error_set(err, r, NULL, "cannot make bulk sender %u: %s", index,
				 strerror(-r));
	}
	s->e = e;
	s->index = index;
	s->chan = chan;
	s->buf = aligned_alloc(4096, 4096 + ENGINE_RUN_MAX);
	r = s->buf ? pthread_create(&s->thread, NULL, thread_main, s) : ENOMEM;
	if (r) {
		free(s->buf);
		runq_destroy(&s->queue);
		free(s);
		return error_set(err, -r, NULL, "cannot start bulk sender %u: %s", index,
				 strerror(r));
	}
	e->senders[e->nsenders++] = s;
	return 0;
}

void sender_join(struct sender *s)
{
	if (!s->joined)
		pthread_join(s->thread, NULL);
	s->joined = true;
}

void sender_free(struct sender *s)
{
	struct run run;

	while (runq_pop(&s->queue, &run))
		if (run.kind == RUN_SAVED)
			free(run.piece);
	tls_chan_free(s->chan);
	runq_destroy(&s->queue);
	free(s->buf);
	free(s);
}
