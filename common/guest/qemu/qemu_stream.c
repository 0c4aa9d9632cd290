/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The device state, by QEMU's own migration without its shared RAM (x-ignore-shared), through a pipe.
 * Nothing that QEMU does with its end can block the loop or fill the agent: what is saved is taken
 * in small pieces and only when wanted, what is loaded is buffered up to a bound.
 *
 * Rule 4: a QEMU that has loaded must not run by itself. It has the run state of the source, which
 * stood, and it was started with -S; that it really stands is looked at all the same, before the load
 * is called done. late-block-activate keeps it from taking the locks of disk images before it runs, so
 * that the source can go on if the hand-over is given up.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "guest/qemu/qemu_impl.h"
#include "guest/state_pipe.h"
#include "util/cleanup.h"
#include "util/clock.h"
#include "util/faultpoint.h"
#include "util/log.h"

#define CHUNK 65536
/* Between two questions how far QEMU is, in case its event was missed. */
#define TICK_US 20000

static void tick(struct qemu_op *op);

/* --- the pipe ------------------------------------------------------------------------------------ */

static void close_end(struct qemu_stream *s)
{
	if (s->event)
		event_free(s->event);
	s->event = NULL;
	if (s->fd >= 0)
		close(steal_fd(&s->fd));
}

bool qemu_stream_running(const struct qemu *v)
{
	return v->stream.migrating;
}

bool qemu_stream_heard(struct qemu *v, const char *status)
{
	static const char *const ends[] = {"completed", "failed", "cancelled", "none"};

	for (size_t i = 0; i < ARRAY_SIZE(ends); i++)
		if (!status || !strcmp(status, ends[i]))
			v->stream.migrating = false;
	return !v->stream.migrating;
}

void qemu_stream_over(struct qemu *v, const struct qemu_op *op)
{
	struct qemu_stream *s = &v->stream;

	if (s->op != op)
		return;
	s->op = NULL;
	close_end(s);
	if (s->buffer)
		evbuffer_free(s->buffer);
	s->buffer = NULL;
	if (s->file >= 0)
		close(steal_fd(&s->file));
	qemu_settings_restore(v);
}

/* QEMU takes what it is given by name; if it did not come to that, the name must not stay. */
static void forget_pipe(struct qemu *v)
{
	qemu_tell(v, "closefd", json_pack("{s:s}", "fdname", QEMU_STATE_FD));
}

static void fail(struct qemu_op *op, int ret, const struct error *err)
{
	forget_pipe(op->v);
	qemu_op_end(op, ret, err, -1);
}

static void failed_by_qemu(struct qemu_op *op, const json_t *info)
{
	const char *why = json_string_value(json_object_get(info, "error-desc"));

	qemu_op_failf(op, -EIO, "guest-state", "QEMU says: %s",
		      why ? why : "its migration has failed; its log tells more");
}

/* --- saving -------------------------------------------------------------------------------------- */

static void fail_save(struct qemu_op *op, int ret, const char *why)
{
	struct error err = {0};

	if (op->v->stream.migrating)
		qemu_tell(op->v, "migrate_cancel", NULL);
	error_set(&err, ret, NULL, "%s", why);
	qemu_op_end(op, ret, &err, -1);
}

static void on_saved(struct qemu_op *op, int ret, const json_t *result, const struct error *err)
{
	const char *status = json_string_value(json_object_get(result, "status"));
	struct qemu *v = op->v;

	if (ret < 0) {
		qemu_op_end(op, ret, err, -1);
	} else if (!qemu_stream_heard(v, status)) {
		if (qemu_op_later(op, TICK_US / 20, tick))
			fail_save(op, -ENOMEM, "out of memory");
	} else if (v->stream.given_up) {
		qemu_op_end(op, v->stream.given_up, NULL, -1);
	} else if (status && !strcmp(status, "completed")) {
		v->g.state_bytes = v->stream.total;
		qemu_op_end(op, 0, NULL, -1);
	} else {
		failed_by_qemu(op, result);
	}
}

/* The end of the pipe: whether it is the end of the state, QEMU tells. */
static void settle_save(struct qemu_op *op)
{
	qemu_op_go(op, "query-migrate", NULL, on_saved);
}

static void on_save_readable(evutil_socket_t fd, short what, void *arg)
{
	struct qemu *v = arg;
	struct qemu_stream *s = &v->stream;
	uint8_t buf[CHUNK];
	ssize_t len;
	int r;

	(void)what;
	qemu_enter(v);
	len = read((int)fd, buf, sizeof(buf));
	if (len > 0) {
		s->total += (uint64_t)len;
		r = s->total > GUEST_STATE_MAX ? -EFBIG : s->chunk(s->op->arg, buf, (size_t)len);
		if (v->freed || !s->op)
			; /* the callback has ended it */
		else if (r < 0)
			fail_save(s->op, r,
				  r == -EFBIG ? "its state is larger than 64 MiB: video memory of "
						"that size is not supported"
					      : "not wanted any more");
		else if (r > 0)
			event_del(s->event);
	} else if (len == 0) {
		close_end(s);
		if (!s->op->asking)
			settle_save(s->op);
	} else if (errno != EAGAIN && errno != EINTR) {
		fail_save(s->op, -errno, strerror(errno));
	}
	qemu_leave(v);
}

static void on_migrate(struct qemu_op *op, int ret, const json_t *result, const struct error *err)
{
	(void)result;
	if (ret < 0) {
		op->v->stream.migrating = false;
		fail(op, ret, err);
	} else if (op->v->stream.fd < 0) {
		settle_save(op);
	} else if (qemu_op_later(op, TICK_US, tick)) {
		fail_save(op, -ENOMEM, "out of memory");
	}
}

static void on_save_pipe(struct qemu_op *op, int ret, const json_t *result, const struct error *err)
{
	(void)result;
	if (ret < 0 || op->v->stream.given_up) {
		fail(op, ret < 0 ? ret : op->v->stream.given_up, err);
		return;
	}
	FAULTPOINT(STATE_PIPE_GIVEN);
	op->v->stream.migrating = true;
	qemu_op_go(op, "migrate", json_pack("{s:s}", "uri", "fd:" QEMU_STATE_FD), on_migrate);
}

static int begin(struct qemu_op *op, int keep_end, event_callback_fn on_event, qemu_step_fn *step)
{
	struct qemu *v = op->v;
	struct qemu_stream *s = &v->stream;
	CLEANUP_CLOSE int theirs = -1;
	int r = state_pipe(keep_end, &s->fd, &theirs);

	if (r < 0)
		return r;
	op->until_us = clock_us() + QEMU_STATE_TIMEOUT_MS * 1000ull;
	s->event = event_new(loop_base(v->g.loop), s->fd,
			     keep_end ? EV_WRITE : EV_READ | EV_PERSIST, on_event, v);
	if (!s->event || (!keep_end && event_add(s->event, NULL)))
		return -ENOMEM;
	/* In order, and of these only the descriptor's answer is waited for. */
	qemu_settings_change(v, keep_end);
	return qemu_op_ask(op, "getfd", json_pack("{s:s}", "fdname", QEMU_STATE_FD), theirs,
			   QEMU_TIMEOUT_MS, step);
}

int qemu_stream_save(struct guest *g, guest_chunk_fn *chunk, guest_done_fn *done, void *arg)
{
	struct qemu *v = qemu_of(g);
	struct qemu_stream *s = &v->stream;
	struct qemu_op *op;
	int r;

	if (s->op || s->migrating)
		return -EBUSY;
	if (!v->held)
		return -EINVAL;
	op = qemu_op_new(v, done, arg);
	if (!op)
		return qemu_op_refused(v);
	*s = (struct qemu_stream){.op = op, .fd = -1, .file = -1, .chunk = chunk};
	r = qemu_private(v) ? qemu_private_save(op) : begin(op, 0, on_save_readable, on_save_pipe);
	return r < 0 ? qemu_op_drop(op, r) : 0;
}

void qemu_stream_save_more(struct guest *g)
{
	struct qemu_stream *s = &qemu_of(g)->stream;

	qemu_private_save_more(qemu_of(g));
	if (s->op && s->event)
		event_add(s->event, NULL);
}

static void give_up_save(struct qemu_op *op)
{
	fail_save(op, op->v->stream.given_up, "given up");
}

void qemu_stream_cancel_save(struct qemu *v, int ret)
{
	struct qemu_stream *s = &v->stream;

	if (!s->op || !s->chunk || s->given_up)
		return;
	s->given_up = ret;
	close_end(s);
	if (s->migrating)
		qemu_tell(v, "migrate_cancel", NULL);
	s->waits = false;
	if (!s->op->asking && qemu_op_later(s->op, 1, give_up_save))
		log_error("guest %s: out of memory", v->g.name);
}

/* --- loading ------------------------------------------------------------------------------------- */

static void on_standing(struct qemu_op *op, int ret, const json_t *result, const struct error *err)
{
	struct qemu *v = op->v;

	if (ret < 0) {
		qemu_op_end(op, ret, err, -1);
		return;
	}
	if (json_is_true(json_object_get(result, "running"))) {
		qemu_tell(v, "stop", NULL);
		qemu_op_failf(op, -EIO, "guest-state",
			      "it began to run by itself when it was loaded");
		return;
	}
	qemu_set_state(v, GUEST_PAUSED_MIGRATION);
	qemu_op_end(op, 0, NULL, -1);
}

/* Loaded, and all that came was taken: what follows its end, QEMU leaves in the pipe. */
static void settle_load(struct qemu_op *op)
{
	struct qemu_stream *s = &op->v->stream;

	if (s->loaded && s->ended && !op->asking)
		qemu_op_go(op, "query-status", NULL, on_standing);
}

static void on_loading(struct qemu_op *op, int ret, const json_t *result, const struct error *err)
{
	const char *status = json_string_value(json_object_get(result, "status"));
	struct qemu *v = op->v;

	if (ret < 0) {
		qemu_op_end(op, ret, err, -1);
		return;
	}
	if (status && !strcmp(status, "failed")) {
		failed_by_qemu(op, result);
		return;
	}
	if (status && !strcmp(status, "completed"))
		v->stream.loaded = true;
	if (v->stream.loaded && v->stream.ended)
		settle_load(op);
	else if (qemu_op_later(op, TICK_US, tick))
		qemu_op_end(op, -ENOMEM, NULL, -1);
}

static void finish_feed(struct qemu *v)
{
	struct qemu_stream *s = &v->stream;

	if (s->ended && s->buffer && !evbuffer_get_length(s->buffer))
		close_end(s);
}

static void on_load_writable(evutil_socket_t fd, short what, void *arg)
{
	struct qemu *v = arg;
	struct qemu_stream *s = &v->stream;
	int len = 0;

	(void)what;
	if (evbuffer_get_length(s->buffer))
		len = evbuffer_write(s->buffer, fd);
	if (len < 0 && errno != EAGAIN && errno != EINTR) {
		/* QEMU does not read on: it has all, or it has failed, which it tells. */
		evbuffer_drain(s->buffer, evbuffer_get_length(s->buffer));
		close_end(s);
	} else if (evbuffer_get_length(s->buffer)) {
		event_add(s->event, NULL);
	}
	finish_feed(v);
	if (s->want_room && evbuffer_get_length(s->buffer) <= QEMU_FEED_LOW) {
		s->want_room = false;
		qemu_enter(v);
		if (s->room)
			s->room(s->op->arg);
		qemu_leave(v);
	}
}

static void on_incoming(struct qemu_op *op, int ret, const json_t *result, const struct error *err)
{
	(void)result;
	if (ret < 0)
		fail(op, ret, err);
	else if (qemu_op_later(op, TICK_US, tick))
		qemu_op_end(op, -ENOMEM, NULL, -1);
}

static void on_load_pipe(struct qemu_op *op, int ret, const json_t *result, const struct error *err)
{
	(void)result;
	if (ret < 0) {
		qemu_op_end(op, ret, err, -1);
		return;
	}
	qemu_op_go(op, "migrate-incoming", json_pack("{s:s}", "uri", "fd:" QEMU_STATE_FD),
		   on_incoming);
}

int qemu_stream_load(struct guest *g, bool paused, guest_room_fn *room, guest_done_fn *done,
		     void *arg)
{
	struct qemu *v = qemu_of(g);
	struct qemu_stream *s = &v->stream;
	struct qemu_op *op;
	int r;

	if (s->op)
		return -EBUSY;
	if (g->run_state != GUEST_INCOMING)
		return -EINVAL;
	op = qemu_op_new(v, done, arg);
	if (!op)
		return qemu_op_refused(v);
	*s = (struct qemu_stream){
		.op = op, .fd = -1, .file = -1, .room = room, .buffer = evbuffer_new()};
	v->held = v->arriving = true;
	v->go_on = !paused;
	qemu_ops_note_hold(v);
	r = s->buffer ? begin(op, 1, on_load_writable, on_load_pipe) : -ENOMEM;
	return r < 0 ? qemu_op_drop(op, r) : 0;
}

int qemu_stream_load_feed(struct guest *g, const void *p, size_t len)
{
	struct qemu_stream *s = &qemu_of(g)->stream;

	if (!s->op || !s->buffer || s->ended)
		return -EINVAL;
	if (len > GUEST_STATE_MAX - s->total)
		return -EFBIG;
	if (evbuffer_get_length(s->buffer) >= QEMU_FEED_HIGH) {
		s->want_room = true;
		return -EAGAIN;
	}
	if (s->fd >= 0 && (evbuffer_add(s->buffer, p, len) || event_add(s->event, NULL)))
		return -ENOMEM;
	s->total += len;
	return 0;
}

int qemu_stream_load_end(struct guest *g)
{
	struct qemu *v = qemu_of(g);
	struct qemu_stream *s = &v->stream;

	if (!s->op || !s->buffer || s->ended)
		return -EINVAL;
	s->ended = true;
	finish_feed(v);
	if (s->loaded && !s->op->asking && qemu_op_later(s->op, 1, settle_load))
		return -ENOMEM;
	return 0;
}

/* --- both ---------------------------------------------------------------------------------------- */

static void tick(struct qemu_op *op)
{
	struct qemu_stream *s = &op->v->stream;

	if (clock_us() > op->until_us) {
		if (s->chunk)
			fail_save(op, -ETIMEDOUT, "QEMU does not get done with it");
		else
			qemu_op_failf(op, -ETIMEDOUT, "guest-state",
				      "QEMU does not get done with it");
	} else if (s->given_up) {
		give_up_save(op);
	} else if (op->asking || (s->chunk && s->fd >= 0)) {
		if (qemu_op_later(op, TICK_US, tick))
			qemu_op_end(op, -ENOMEM, NULL, -1);
	} else if (s->chunk) {
		settle_save(op);
	} else {
		qemu_op_go(op, "query-migrate", NULL, on_loading);
	}
}

void qemu_stream_event(struct qemu *v, const char *status)
{
	struct qemu_stream *s = &v->stream;

	qemu_stream_heard(v, status);
	if (!s->op || s->chunk || s->op->asking)
		return;
	if (!strcmp(status, "completed")) {
		s->loaded = true;
		settle_load(s->op);
	} else if (!strcmp(status, "failed")) {
		qemu_op_go(s->op, "query-migrate", NULL, on_loading);
	}
}
