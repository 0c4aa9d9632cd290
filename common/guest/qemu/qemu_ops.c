/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Pausing, resuming and the small ones.
 *
 * Which rules could be broken here: 4, were a guest let run that is held. Only guest_resume() sends
 * `cont`, and a pause that came too late, for a guest that then runs on where it is. 8: the note
 * "decant-hold" is in QEMU before it is stopped, and goes only once it runs: whoever connects after
 * this agent's end sees that the guest stands for a migration, and not by anybody else's wish.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "guest/qemu/qemu_impl.h"
#include "util/cleanup.h"
#include "util/clock.h"
#include "util/log.h"

/* A destination that dies still holds the locks of disk images for a moment. */
#define CONT_TRIES_US 5000000
#define CONT_AGAIN_US 100000
#define SAVE_AGAIN_US 2000

void qemu_ops_note_hold(struct qemu *v)
{
	qemu_tell(v, "object-add",
		  json_pack("{s:s, s:s, s:s}", "qom-type", "secret", "id", QEMU_HOLD, "data",
			    v->go_on ? "running" : "paused"));
}

/* --- pause -------------------------------------------------------------------------------------- */

/* It may still carry out what it was sent: what is sent now comes behind that. */
static void undo_pause(struct qemu *v)
{
	v->held = false;
	if (v->go_on)
		qemu_tell(v, "cont", NULL);
	qemu_tell(v, "object-del", json_pack("{s:s}", "id", QEMU_HOLD));
}

/* States in which nothing of the guest runs, and from which it can be gone on with elsewhere. */
static bool state_moves(const char *status)
{
	static const char *const good[] = {"paused",   "prelaunch", "io-error",
					   "watchdog", "debug",     "postmigrate"};

	for (size_t i = 0; status && i < ARRAY_SIZE(good); i++)
		if (!strcmp(status, good[i]))
			return true;
	return false;
}

static void on_status(struct qemu_op *op, int ret, const json_t *result, const struct error *err)
{
	const char *status = json_string_value(json_object_get(result, "status"));
	struct error why = {0};
	struct qemu *v = op->v;

	if (!ret) {
		ret = qemu_look_stands(v, &why);
		err = &why;
	}
	if (ret < 0) {
		undo_pause(v);
		qemu_op_end(op, ret, err, -1);
	} else if (!state_moves(status)) {
		undo_pause(v);
		qemu_op_failf(
			op, -EBUSY, "guest-state",
			"its state is \"%.32s\", in which it cannot be moved: reset or resume "
			"it first",
			status ? status : "unknown");
	} else {
		qemu_set_state(v, GUEST_PAUSED_MIGRATION);
		qemu_op_end(op, 0, NULL, -1);
	}
}

/* `stop` is answered when the block layer is drained: from here on no device writes for the guest. */
static void on_stopped(struct qemu_op *op, int ret, const json_t *result, const struct error *err)
{
	(void)result;
	if (ret < 0) {
		undo_pause(op->v);
		qemu_op_end(op, ret, err, -1);
		return;
	}
	qemu_op_go(op, "query-status", NULL, on_status);
}

static void on_held_already(struct qemu_op *op)
{
	qemu_op_end(op, 0, NULL, -1);
}

/* The note needs no answer of its own: QEMU carries out in order, and without it the stop still holds. */
int qemu_ops_pause(struct guest *g, uint32_t bound_ms, guest_done_fn *done, void *arg)
{
	struct qemu *v = qemu_of(g);
	struct qemu_op *op = qemu_op_new(v, done, arg);
	int r;

	if (!op)
		return qemu_op_refused(v);
	if (v->held)
		return qemu_op_later(op, 1, on_held_already) ? qemu_op_drop(op, -ENOMEM) : 0;
	v->held = true;
	v->go_on = g->run_state == GUEST_RUNNING;
	qemu_ops_note_hold(v);
	r = qemu_op_ask(op, "stop", NULL, -1, bound_ms, on_stopped);
	if (r < 0)
		undo_pause(v);
	return r < 0 ? qemu_op_drop(op, r) : 0;
}

/* --- resume ------------------------------------------------------------------------------------- */

static void announce(struct qemu *v)
{
	qemu_tell(v, "announce-self",
		  json_pack("{s:i, s:i, s:i, s:i}", "initial", 50, "max", 550, "rounds", 5, "step",
			    100));
}

static void resumed(struct qemu_op *op)
{
	struct qemu *v = op->v;
	bool arrived = v->arriving && v->go_on;

	qemu_tell(v, "object-del", json_pack("{s:s}", "id", QEMU_HOLD));
	v->held = v->arriving = v->resuming = false;
	qemu_settings_restore(v);
	if (arrived)
		announce(v);
	qemu_set_state(v, v->go_on ? GUEST_RUNNING : GUEST_PAUSED);
	qemu_op_end(op, 0, NULL, -1);
}

static void try_cont(struct qemu_op *op);

static void on_cont(struct qemu_op *op, int ret, const json_t *result, const struct error *err)
{
	struct qemu *v = op->v;

	(void)result;
	if (!ret) {
		resumed(op);
		return;
	}
	if (ret == -EREMOTEIO && clock_us() < op->until_us &&
	    !qemu_op_later(op, CONT_AGAIN_US, try_cont))
		return;
	v->resuming = false;
	if (ret == -EREMOTEIO && strstr(err->msg, " lock"))
		qemu_op_failf(
			op, ret, "disk-in-use",
			"%.160s: a disk image is open elsewhere, such as in the VM that this one "
			"is a copy of: end that one, or give this one an image of its own",
			err->msg);
	else
		qemu_op_end(op, ret, err, -1);
}

static void try_cont(struct qemu_op *op)
{
	qemu_op_go(op, "cont", NULL, on_cont);
}

/*
 * Were it let run while QEMU is still saving, the end of that would stop it again, for good.
 */
static void wait_for_save(struct qemu_op *op);

static void on_migration(struct qemu_op *op, int ret, const json_t *result, const struct error *err)
{
	const char *status = json_string_value(json_object_get(result, "status"));

	if (ret < 0)
		qemu_op_end(op, ret, err, -1);
	else if (qemu_stream_heard(op->v, status))
		try_cont(op);
	else if (clock_us() > op->until_us || qemu_op_later(op, SAVE_AGAIN_US, wait_for_save))
		qemu_op_failf(op, -ETIMEDOUT, "monitor-timeout",
			      "QEMU does not give up saving its state");
}

static void wait_for_save(struct qemu_op *op)
{
	qemu_op_go(op, "query-migrate", NULL, on_migration);
}

static void begin_resume(struct qemu_op *op)
{
	struct qemu *v = op->v;

	if (!v->held) {
		qemu_op_end(op, 0, NULL, -1);
		return;
	}
	if (!v->go_on) {
		resumed(op);
		return;
	}
	v->resuming = true;
	wait_for_save(op);
}

int qemu_ops_resume(struct guest *g, guest_done_fn *done, void *arg)
{
	struct qemu *v = qemu_of(g);
	struct qemu_op *op = qemu_op_new(v, done, arg);
	int r;

	if (!op)
		return qemu_op_refused(v);
	op->until_us = clock_us() + CONT_TRIES_US;
	qemu_stream_cancel_save(v, -ECANCELED);
	/* What has no command to wait for must not be done before this returns. */
	if (!v->held || !v->go_on || qemu_stream_running(v))
		return qemu_op_later(op, 1, begin_resume) ? qemu_op_drop(op, -ENOMEM) : 0;
	v->resuming = true;
	r = qemu_op_ask(op, "cont", NULL, -1, QEMU_TIMEOUT_MS, on_cont);
	if (r < 0)
		v->resuming = false;
	return r < 0 ? qemu_op_drop(op, r) : 0;
}

/* --- the small ones ----------------------------------------------------------------------------- */

/* Whoever else connects, in the time in which there is no agent, must leave it alone. */
static void note_arriving(struct qemu *v)
{
	qemu_tell(v, "object-add",
		  json_pack("{s:s, s:s, s:s}", "qom-type", "secret", "id", QEMU_ARRIVING, "data",
			    "decant-dest"));
	v->g.arriving = true;
}

/* Who it is is the agent's own knowledge: QEMU need not know. */
static void set_identity(struct qemu_op *op)
{
	memcpy(op->v->g.uuid, op->uuid, sizeof(op->uuid));
	op->v->g.generation = op->generation;
	note_arriving(op->v);
	qemu_op_end(op, 0, NULL, -1);
}

int qemu_ops_set_identity(struct guest *g, const uint8_t uuid[GUEST_UUID_LEN], uint64_t generation,
			  guest_done_fn *done, void *arg)
{
	struct qemu *v = qemu_of(g);
	struct qemu_op *op = qemu_op_new(v, done, arg);

	if (!op)
		return qemu_op_refused(v);
	memcpy(op->uuid, uuid, sizeof(op->uuid));
	op->generation = generation;
	return qemu_op_later(op, 1, set_identity) ? qemu_op_drop(op, -ENOMEM) : 0;
}

static void leave_monitor(struct qemu_op *op)
{
	struct qemu *v = op->v;

	qemu_enter(v);
	qemu_op_end(op, 0, NULL, -1);
	if (!v->freed)
		qemu_leave_monitor(v);
	qemu_leave(v);
}

/* The monitor serves one client: the other agent connects as soon as this one has left. */
int qemu_ops_move(struct guest *g, const char *path, guest_done_fn *done, void *arg)
{
	struct qemu *v = qemu_of(g);
	struct qemu_op *op = qemu_op_new(v, done, arg);

	(void)path;
	if (!op)
		return qemu_op_refused(v);
	return qemu_op_later(op, 1, leave_monitor) ? qemu_op_drop(op, -ENOMEM) : 0;
}

/* Its end may be seen before its answer. */
static void on_quit(struct qemu_op *op, int ret, const json_t *result, const struct error *err)
{
	(void)result;
	qemu_op_end(op, ret == -ECONNRESET ? 0 : ret, err, -1);
}

int qemu_ops_quit(struct guest *g, guest_done_fn *done, void *arg)
{
	struct qemu *v = qemu_of(g);
	struct qemu_op *op = qemu_op_new(v, done, arg);
	int r;

	if (!op)
		return qemu_op_refused(v);
	r = qemu_op_ask(op, "quit", NULL, -1, QEMU_TIMEOUT_MS, on_quit);
	return r < 0 ? qemu_op_drop(op, r) : 0;
}
