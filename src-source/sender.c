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

/* @number: of who asked for it, 0 for the lane itself */
static int send_barrier(struct sender *s, uint32_t pass, uint32_t number, struct error *err)
{
	struct msg m = {
		.type = MSG_BARRIER,
		.barrier = {.pass = pass, .number = lane_mark(&s->lane, number, clock_us())}};
	struct frame_io io = {.chan = s->lane.chan,
			      .channel = MSG_CHANNEL_BULK,
			      .stop_fd = s->lane.stop_fd,
			      .timeout_us = ENGINE_IO_TIMEOUT_US};

	int r = frame_send(&io, &m, err);

	if (r < 0)
		return r;
	if (!number)
		return 0;
	atomic_store(&s->told_us, clock_us());
	atomic_store(&s->told, number);
	/* From now on it waits for an answer. */
	scan_kick(s->e->scan);
	return 0;
}

/* The bandwidth limit is kept here: nobody can ask for what is claimed meanwhile. */
static int send_saved(struct sender *s, const struct run *run, struct error *err)
{
	int r = engine_await_turn(s->e, &s->lane);

	FAULTPOINT(SAVED_RUN_DUE);
	engine_account(s->e, run->length);
	if (!r)
		s->lane.guess = engine_guess(s->e, run->class, s->lane.guess, run->length);
	if (!r)
		r = engine_send_saved(s->e, &s->lane, run->piece->frame, run->pass, run->block,
				      run->offset, run->length, err);
	snap_piece_free(s->e, run->piece);
	return r;
}

static int send_pages(struct sender *s, const struct run *run, struct error *err)
{
	uint64_t page = s->e->blocks[run->block].mem.block.page_size;
	int r;

	/* Before: what is under way when the channel breaks is open, too. */
	lane_note(&s->lane, run->block, run->offset / page, run->length / page, run->length);
	if (run->kind == RUN_HOLE)
		r = engine_send_hole(s->e, &s->lane, run->pass, run->block, run->offset,
				     run->length, err);
	else
		r = engine_send_run(s->e, &s->lane, s->buf, run->pass, run->block, run->offset,
				    run->length, err);
	if (!r && lane_due(&s->lane, clock_us()))
		r = send_barrier(s, run->pass, 0, err);
	return r;
}

static int send_one(struct sender *s, const struct run *run, struct error *err)
{
	switch (run->kind) {
	case RUN_BARRIER:
		FAULTPOINT(BARRIER_DUE);
		return send_barrier(s, run->pass, (uint32_t)run->offset, err);
	case RUN_SAVED:
		return send_saved(s, run, err);
	default:
		FAULTPOINT(RUN_DUE);
		return send_pages(s, run, err);
	}
}

static int send_run(struct sender *s, const struct run *run, struct error *err)
{
	int r;

	lane_begin(&s->lane, run->class, run->guess);
	r = send_one(s, run, err);
	lane_settle(&s->lane, s->e);
	if (!r && run->asked_us)
		hist_add(&s->e->stats.service, clock_us() - run->asked_us);
	return r;
}

/* It answers each barrier once, when it has been asked, and in their order. */
static int on_ack(struct sender *s, uint32_t wire, struct error *err)
{
	uint32_t told = atomic_load(&s->told), acked = atomic_load(&s->acked), number;
	int r = lane_acked(&s->lane, wire, &number, err);

	if (r < 0 || !number)
		return r;
	if (number != told || number == acked)
		return error_set(err, -EBADMSG, "bad-message",
				 "BARRIER_ACK %u on bulk channel %u, where %u was sent last and %u "
				 "answered",
				 number, s->index, told, acked);
	atomic_store(&s->acked, number);
	scan_kick(s->e->scan);
	return 0;
}

static int handle(struct sender *s, const struct msg *m, struct error *err)
{
	switch (m->type) {
	case MSG_NACK:
		return engine_nack(s->e, &m->nack, err);
	case MSG_BARRIER_ACK:
		return on_ack(s, m->barrier.number, err);
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
		r = frame_reader_next(in, s->lane.chan, &m, &payload, err);
		if (!r)
			r = handle(s, m, err);
	} while (!r);
	return r == -EAGAIN ? 0 : r;
}

static int idle(struct sender *s, struct error *err)
{
	struct pollfd p[] = {
		{.fd = lane_full(&s->lane) ? -1 : s->queue.work_fd, .events = POLLIN},
		{.fd = tls_chan_fd(s->lane.chan), .events = POLLIN},
		{.fd = s->lane.stop_fd, .events = POLLIN},
	};
	int ms, n;

	/* Nothing can be done until the destination answers a barrier. */
	ms = lane_full(&s->lane) ? (int)s->e->options.answer_timeout_ms : -1;
	n = tls_pending(s->lane.chan) ? 1 : poll(p, ARRAY_SIZE(p), ms);
	if (n < 0 && errno != EINTR)
		return -errno;
	if (!n)
		return error_set(err, -ETIMEDOUT, "no-acknowledgement",
				 "the destination has acknowledged nothing of %u runs on bulk "
				 "channel %u within %d ms (answer_timeout_ms): see the log of its "
				 "decant-dest",
				 s->lane.n, s->index, ms);
	return p[2].revents ? -ECANCELED : 0;
}

static int serve(struct sender *s, struct frame_reader *in, struct error *err)
{
	struct run run;
	int r;

	while (!(r = listen_once(s, in, err))) {
		if (!lane_full(&s->lane) && runq_pop(&s->queue, &run)) {
			scan_kick(s->e->scan);
			r = send_run(s, &run, err);
			atomic_store(&s->wire_bytes, tls_chan_sent_bytes(s->lane.chan));
		} else {
			r = idle(s, err);
		}
		if (r < 0)
			break;
	}
	return r;
}

/* What the peer may not send, and what is not the channel's fault, another channel does not help. */
static bool is_loss(const struct sender *s, int r)
{
	static const char *const other[] = {"guest-memory", "digest-mismatch",
					    "no-acknowledgement"};

	for (size_t i = 0; i < ARRAY_SIZE(other); i++)
		if (!strcmp(s->why.code, other[i]))
			return false;
	return !s->e->mend || (r != -EBADMSG && r != -EREMOTEIO);
}

static void failed(struct sender *s, int r)
{
	struct engine *e = s->e;

	error_set(&s->why, r, "channel-lost", "bulk channel %u: %s", s->index, strerror(-r));
	if (!is_loss(s, r)) {
		engine_fail(e, ENGINE_FAILED, &s->why);
	} else if (!e->mend) {
		engine_fail(e, ENGINE_LOST, &s->why);
	} else {
		atomic_store(&s->state, SENDER_LOST);
		runq_close(&s->queue, true);
		engine_post(e, ENGINE_CHANNEL, &s->why);
	}
}

static void *thread_main(void *arg)
{
	struct sender *s = arg;
	struct frame_reader in = {0};
	int r;

	trace_thread_enter("bulk");
	r = frame_reader_init(&in, MSG_CHANNEL_BULK, false);
	if (!r)
		r = serve(s, &in, &s->why);
	/* What the kernel still had in its buffer after the last run has been sent by now. */
	atomic_store(&s->wire_bytes, tls_chan_sent_bytes(s->lane.chan));
	if (r < 0 && r != -ECANCELED)
		failed(s, r);
	frame_reader_free(&in);
	trace_thread_exit("bulk", r);
	return NULL;
}

static int start_thread(struct sender *s, struct tls_chan *chan)
{
	int r;

	lane_take(&s->lane, chan);
	s->since_us = clock_us();
	r = pthread_create(&s->thread, NULL, thread_main, s);
	if (r)
		s->lane.chan = NULL; /* the caller's again */
	s->joined = r;
	return -r;
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
	s->joined = true;
	s->buf = aligned_alloc(4096, 4096 + ENGINE_RUN_MAX);
	r = lane_init(&s->lane, e->mend);
	if (!r)
		r = s->buf ? start_thread(s, chan) : -ENOMEM;
	if (r) {
		sender_free(s);
		return error_set(err, r, NULL, "cannot start bulk sender %u: %s", index,
				 strerror(-r));
	}
	e->senders[e->nsenders++] = s;
	return 0;
}

int sender_again(struct sender *s, struct tls_chan *chan, struct error *err)
{
	int r;

	error_clear(&s->why);
	/* Before there is a thread, which may lose it again at once. */
	runq_close(&s->queue, false);
	atomic_store(&s->state, SENDER_UP);
	s->given_up = false;
	r = start_thread(s, chan);
	if (r) {
		sender_give_up(s);
		sender_gone(s);
		return error_set(err, r, NULL, "cannot start bulk sender %u: %s", s->index,
				 strerror(-r));
	}
	scan_kick(s->e->scan);
	return 0;
}

void sender_quit(struct sender *s)
{
	lane_quit(&s->lane);
}

void sender_join(struct sender *s)
{
	if (!s->joined)
		pthread_join(s->thread, NULL);
	s->joined = true;
}

bool sender_silent(struct sender *s)
{
	return atomic_load(&s->state) == SENDER_UP && lane_silent(&s->lane);
}

void sender_break(struct sender *s, const struct error *why)
{
	sender_quit(s);
	sender_join(s);
	if (!error_is_set(&s->why))
		s->why = *why;
	atomic_store(&s->state, SENDER_LOST);
	runq_close(&s->queue, true);
}

/* What was queued and not begun is pending again like what is open. Barriers are asked for anew. */
void sender_give_up(struct sender *s)
{
	struct engine *e = s->e;
	struct run run;

	if (s->given_up)
		return;
	s->given_up = true;
	atomic_store(&s->state, SENDER_LOST);
	runq_close(&s->queue, true);
	sender_quit(s);
	sender_join(s);
	e->wire_gone += atomic_exchange(&s->wire_bytes, 0);
	while (runq_pop(&s->queue, &run)) {
		uint64_t page = e->blocks[run.block].mem.block.page_size;

		engine_settle(e, run.class, run.guess, 0);
		if (run.kind != RUN_BARRIER)
			bitmap_set_range(&e->blocks[run.block].pending, run.offset / page,
					 run.length / page);
	}
	lane_give_up(&s->lane, e);
	atomic_fetch_add(&e->losses, 1);
	scan_kick(e->scan);
}

void sender_gone(struct sender *s)
{
	atomic_store(&s->state, SENDER_DOWN);
	atomic_fetch_add(&s->gone, 1);
	scan_kick(s->e->scan);
}

void sender_free(struct sender *s)
{
	struct run run;

	while (runq_pop(&s->queue, &run)) {
		engine_settle(s->e, run.class, run.guess, 0);
		if (run.kind == RUN_SAVED)
			free(run.piece);
	}
	lane_clear(&s->lane);
	runq_destroy(&s->queue);
	free(s->buf);
	free(s);
}
