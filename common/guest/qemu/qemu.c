/* SPDX-License-Identifier: Apache-2.0 */
#include "guest/qemu/qemu.h"

#include <errno.h>
#include <poll.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "guest/qemu/qemu_impl.h"
#include "util/cleanup.h"
#include "util/fdio.h"
#include "util/log.h"

static void report_gone(struct qemu *v, enum guest_gone how);

static void free_event(struct event **ev)
{
	if (*ev)
		event_free(*ev);
	*ev = NULL;
}

/* --- operations under way ----------------------------------------------------------------------- */

static void free_op(struct qemu_op *op)
{
	errand_drop(&op->errand);
	free_event(&op->timer);
	for (size_t i = 0; i < QEMU_LOOKS; i++)
		json_decref(op->got[i]);
	if (op->fd >= 0)
		close(op->fd);
	free(op->ranges);
	free(op);
}

int qemu_op_refused(const struct qemu *v)
{
	return v->lost ? -ECONNRESET : -ENOMEM;
}

struct qemu_op *qemu_op_new(struct qemu *v, guest_done_fn *done, void *arg)
{
	struct qemu_op *op = v->lost ? NULL : calloc(1, sizeof(*op));

	if (!op)
		return NULL;
	*op = (struct qemu_op){.next = v->ops, .v = v, .done = done, .arg = arg, .fd = -1};
	v->ops = op;
	return op;
}

static void unlink_op(struct qemu_op *op)
{
	struct qemu_op **at = &op->v->ops;

	while (*at != op)
		at = &(*at)->next;
	*at = op->next;
}

int qemu_op_drop(struct qemu_op *op, int ret)
{
	qemu_stream_over(op->v, op);
	unlink_op(op);
	free_op(op);
	return ret;
}

void qemu_op_end(struct qemu_op *op, int ret, const struct error *err, int fd)
{
	struct qemu *v = op->v;
	struct error why = {0};

	if (ret < 0) {
		if (err)
			why = *err;
		error_set(&why, ret, NULL, "%s", strerror(-ret));
		error_prefix(&why, "guest %s", v->g.name);
	}
	qemu_stream_over(v, op);
	unlink_op(op);
	qemu_enter(v);
	if (op->done && !v->freed)
		op->done(op->arg, ret, &why, fd);
	else if (fd >= 0)
		close(fd);
	free_op(op);
	qemu_leave(v);
}

void qemu_op_failf(struct qemu_op *op, int ret, const char *code, const char *fmt, ...)
{
	struct error err = {0};
	va_list ap;

	va_start(ap, fmt);
	error_setv(&err, ret, code, fmt, ap);
	va_end(ap);
	qemu_op_end(op, ret, &err, -1);
}

static void on_answer(void *arg, int ret, const json_t *result, const struct error *err)
{
	struct qemu_op *op = arg;

	op->asking = false;
	op->step(op, ret, result, err);
}

int qemu_op_ask(struct qemu_op *op, const char *command, json_t *args, int fd, unsigned int ms,
		qemu_step_fn *step)
{
	int r;

	if (!op->v->qmp) {
		json_decref(args);
		return -ECONNRESET;
	}
	r = qmp_ask(op->v->qmp, command, args, fd, ms, on_answer, op);
	if (!r) {
		op->step = step;
		op->asking = true;
	}
	return r;
}

void qemu_op_go(struct qemu_op *op, const char *command, json_t *args, qemu_step_fn *step)
{
	int r = qemu_op_ask(op, command, args, -1, QEMU_TIMEOUT_MS, step);

	if (r < 0)
		qemu_op_end(op, r, NULL, -1);
}

static void on_later(void *arg)
{
	struct qemu_op *op = arg;

	free_event(&op->timer);
	op->later(op);
}

int qemu_op_later(struct qemu_op *op, uint64_t us, void (*fn)(struct qemu_op *op))
{
	free_event(&op->timer);
	op->later = fn;
	op->timer = loop_timer(op->v->g.loop, us, on_later, op);
	return op->timer ? 0 : -ENOMEM;
}

static void on_told(void *arg, int ret, const json_t *result, const struct error *err)
{
	struct qemu *v = arg;

	(void)result;
	if (ret < 0 && ret != -ECONNRESET)
		log_debug("guest %s: %s", v->g.name, err->msg);
}

void qemu_tell(struct qemu *v, const char *command, json_t *args)
{
	if (v->qmp)
		qmp_ask(v->qmp, command, args, -1, QEMU_TIMEOUT_MS, on_told, v);
	else
		json_decref(args);
}

/* --- life --------------------------------------------------------------------------------------- */

static void destroy(struct qemu *v)
{
	free_event(&v->ev_pidfd);
	free_event(&v->death);
	qmp_free(v->qmp);
	while (v->ops) {
		struct qemu_op *op = v->ops;

		v->ops = op->next;
		qemu_stream_over(v, op);
		free_op(op);
	}
	for (size_t i = 0; i < v->g.nblocks; i++)
		fdio_close_apart(v->g.blocks[i].fd);
	if (v->g.pidfd >= 0)
		close(v->g.pidfd);
	json_decref(v->g.facts);
	json_decref(v->old_settings);
	free(v->g.blocks);
	free(v->advised);
	free(v->path);
	free(v->no_dma);
	free(v);
}

void qemu_enter(struct qemu *v)
{
	v->depth++;
}

bool qemu_leave(struct qemu *v)
{
	if (--v->depth || !v->freed)
		return !v->freed;
	destroy(v);
	return false;
}

void qemu_free(struct guest *g)
{
	struct qemu *v = qemu_of(g);

	if (v->depth)
		v->freed = true;
	else
		destroy(v);
}

void qemu_set_state(struct qemu *v, enum guest_run_state s)
{
	if (v->g.run_state == s)
		return;
	v->g.run_state = s;
	qemu_enter(v);
	if (v->g.on_state && !v->freed)
		v->g.on_state(v->g.arg, &v->g);
	qemu_leave(v);
}

/* --- the end ------------------------------------------------------------------------------------ */

static bool process_ended(const struct qemu *v)
{
	struct pollfd p = {.fd = v->g.pidfd, .events = POLLIN};

	return v->g.pidfd >= 0 && poll(&p, 1, 0) > 0;
}

static void report_gone(struct qemu *v, enum guest_gone how)
{
	if (v->reported)
		return;
	v->reported = true;
	free_event(&v->ev_pidfd);
	free_event(&v->death);
	qemu_enter(v);
	if (v->g.on_gone && !v->freed)
		v->g.on_gone(v->g.arg, &v->g, how);
	qemu_leave(v);
}

static void on_death_timeout(void *arg)
{
	struct qemu *v = arg;

	report_gone(v, process_ended(v) ? GUEST_GONE_DEAD : GUEST_GONE_DISCONNECTED);
}

/* Those that wait for an answer were told by the monitor; these wait for something else. */
static void end_ops(struct qemu *v, const struct error *why)
{
	while (v->ops && !v->freed)
		qemu_op_end(v->ops, -ECONNRESET, why, -1);
}

static void lose(struct qemu *v, const struct error *why)
{
	struct error err = {0};

	v->lost = true;
	qemu_enter(v);
	error_set(&err, -ECONNRESET, "guest-lost", "guest %s: %s", v->g.name, why->msg);
	end_ops(v, &err);
	if (!qemu_leave(v))
		return;
	if (process_ended(v)) {
		report_gone(v, GUEST_GONE_DEAD);
		return;
	}
	if (!v->death)
		v->death = loop_timer(v->g.loop, QEMU_DEATH_MS * 1000, on_death_timeout, v);
	if (!v->death)
		report_gone(v, GUEST_GONE_DISCONNECTED);
}

static void on_closed(void *arg, const struct error *why)
{
	struct qemu *v = arg;

	if (v->attach) {
		qemu_attach_failed(v->attach, why);
		return;
	}
	log_info("guest %s: %s", v->g.name, why->msg);
	lose(v, why);
}

static void on_pidfd(evutil_socket_t fd, short what, void *arg)
{
	struct qemu *v = arg;
	struct error err = {0};

	(void)fd;
	(void)what;
	error_set(&err, -ESRCH, "guest-gone", "process %d has ended", (int)v->g.pid);
	if (v->attach) {
		qemu_attach_failed(v->attach, &err);
		return;
	}
	qemu_enter(v);
	if (!v->lost) {
		qmp_free(steal_ptr(&v->qmp));
		lose(v, &err);
	}
	if (!v->freed)
		report_gone(v, GUEST_GONE_DEAD);
	qemu_leave(v);
}

int qemu_watch_process(struct qemu *v)
{
	v->ev_pidfd = event_new(loop_base(v->g.loop), v->g.pidfd, EV_READ, on_pidfd, v);
	return !v->ev_pidfd || event_add(v->ev_pidfd, NULL) ? -ENOMEM : 0;
}

void qemu_leave_monitor(struct qemu *v)
{
	struct error err = {0};

	error_set(&err, -ECONNRESET, "moved", "it is another agent's now");
	qmp_free(steal_ptr(&v->qmp));
	qemu_enter(v);
	if (!v->lost) {
		v->lost = true;
		end_ops(v, &err);
	}
	if (!v->freed)
		report_gone(v, process_ended(v) ? GUEST_GONE_DEAD : GUEST_GONE_DISCONNECTED);
	qemu_leave(v);
}

/* --- events ------------------------------------------------------------------------------------- */

static void on_ready(void *arg)
{
	struct qemu *v = arg;

	if (v->attach)
		qemu_attach_ready(v->attach);
}

/*
 * Rule 4: a guest that is held here may be running, or about to run, elsewhere. Whoever lets it run by
 * another monitor does not know that.
 */
static void on_foreign_resume(struct qemu *v)
{
	log_error("guest %s is held for a migration and was resumed by another client of QEMU's: "
		  "it is stopped again",
		  v->g.name);
	qemu_tell(v, "stop", NULL);
}

static void on_event(void *arg, const char *name, const json_t *data)
{
	const char *status = json_string_value(json_object_get(data, "status"));
	struct qemu *v = arg;

	if (v->attach)
		return;
	if (!strcmp(name, "MIGRATION") && status)
		qemu_stream_event(v, status);
	else if (!strcmp(name, "RESUME") && v->held && !v->resuming)
		on_foreign_resume(v);
	else if (!strcmp(name, "RESUME") && !v->held)
		qemu_set_state(v, GUEST_RUNNING);
	else if (!strcmp(name, "STOP") && !v->held && v->g.run_state == GUEST_RUNNING)
		qemu_set_state(v, GUEST_PAUSED);
}

static const struct qmp_ops monitor_ops = {on_ready, on_event, on_closed};

int qemu_connect(struct qemu *v, struct error *err)
{
	return qmp_open(v->g.loop, v->path, &monitor_ops, v, &v->qmp, err);
}

struct qemu *qemu_new(struct loop *loop, const struct qemu_spec *spec)
{
	struct qemu *v = calloc(1, sizeof(*v));

	if (!v)
		return NULL;
	v->g.ops = &qemu_ops;
	v->g.driver = "qemu";
	v->g.loop = loop;
	v->g.pidfd = v->kept_fd = v->stream.fd = v->stream.file = -1;
	v->anonymous = spec->anonymous && !strcmp(spec->anonymous, QEMU_EXPERIMENTAL);
	v->g.generation = spec->generation;
	strncpy(v->g.name, spec->name, sizeof(v->g.name) - 1);
	if (spec->uuid)
		memcpy(v->g.uuid, spec->uuid, sizeof(v->g.uuid));
	v->path = strdup(spec->path);
	v->no_dma = spec->no_dma ? strdup(spec->no_dma) : NULL;
	if (v->path && !v->no_dma == !spec->no_dma)
		return v;
	free(v->path);
	free(v);
	return NULL;
}

const struct guest_ops qemu_ops = {
	.look = qemu_look_again,
	.pause = qemu_ops_pause,
	.resume = qemu_ops_resume,
	.save = qemu_stream_save,
	.save_more = qemu_stream_save_more,
	.load = qemu_stream_load,
	.load_feed = qemu_stream_load_feed,
	.load_end = qemu_stream_load_end,
	.uffd = qemu_uffd_make,
	.uffd_again = qemu_uffd_again,
	.uffd_close = qemu_uffd_close,
	.punch = qemu_private_punch,
	.prepare = qemu_uffd_prepare,
	.finish = qemu_uffd_finish,
	.set_identity = qemu_ops_set_identity,
	.move = qemu_ops_move,
	.quit = qemu_ops_quit,
	.free = qemu_free,
};
