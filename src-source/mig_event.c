/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The state machine of proto/state.h at work: the one setter of a migration's state, what its steps do, its
 * timer, and what counts as an error and what as a session that was lost.
 */
#include <errno.h>
#include <stdarg.h>
#include <string.h>

#include "migration_priv.h"
#include "scan.h"
#include "util/cleanup.h"
#include "util/clock.h"
#include "util/log.h"

static void act_precopy(struct migration *m)
{
	m->again.since_us = clock_us();
	mig_gate_arm(m);
	scan_order(m->engine->scan, SCAN_PRECOPY);
}

static void act_note(struct migration *m)
{
	log_debug("migration %s: noted in %s", m->id, mig_state_name(m->state));
}

typedef void action_fn(struct migration *m);

static action_fn *const actions[MIG_ACT_COUNT_] = {
	[MIG_ACT_SETUP] = mig_act_setup,
	[MIG_ACT_PRECOPY] = act_precopy,
	[MIG_ACT_SWITCHOVER] = mig_act_switchover,
	[MIG_ACT_COMMIT] = mig_act_commit,
	[MIG_ACT_POSTCOPY] = mig_act_postcopy,
	[MIG_ACT_RELEASE] = mig_act_release,
	[MIG_ACT_ROLLBACK] = mig_act_rollback,
	[MIG_ACT_ASK] = mig_act_ask,
	[MIG_ACT_HOLD] = mig_act_hold,
	[MIG_ACT_ABANDON] = mig_act_abandon,
	[MIG_ACT_NOTE] = act_note,
	[MIG_ACT_FINISH] = mig_act_finish,
	[MIG_ACT_SAVE] = mig_act_save,
	[MIG_ACT_RECOVER] = mig_act_recover,
	[MIG_ACT_RESUME] = mig_act_resume,
	[MIG_ACT_INTERRUPT] = mig_act_interrupt,
	[MIG_ACT_REJOIN] = mig_act_rejoin,
	[MIG_ACT_GO_ON] = mig_act_go_on,
};

/*
 * Behind COMMIT only this process has the pages that are missing: an error that another session may
 * be spared is no reason to give them up.
 */
static bool is_loss(const struct migration *m, const struct error *err)
{
	static const char *const final[] = {"guest-gone", "guest-memory", "receipt-mismatch"};
	/* The destination has given it up, or is not the one that it was; or nothing is to be moved any more. */
	static const char *const over[] = {
		"migration-ended", "unexpected-message", "bad-generation", "bad-message",
		"version",         "migration-exists",   "gate-refused"};

	/* The destination has heard nothing of us for too long. */
	if (m->state == MIG_PRECOPY)
		return err && !strcmp(err->code, "peer-lost");
	if (m->state != MIG_POSTCOPY && m->state != MIG_RECOVERING && m->state != MIG_REJOINING)
		return false;
	/* In precopy the engine stays from session to session: without its threads the next one would send nothing. */
	if (m->state == MIG_REJOINING && atomic_load(&m->engine->failed))
		return false;
	for (size_t i = 0; err && i < ARRAY_SIZE(final); i++)
		if (!strcmp(err->code, final[i]))
			return false;
	for (size_t i = 0; err && m->state == MIG_REJOINING && i < ARRAY_SIZE(over); i++)
		if (!strcmp(err->code, over[i]))
			return false;
	return true;
}

/* The first error counts, but of sessions that were lost the last one, and before them what ends the job. */
static void note_error(struct migration *m, const struct error *err)
{
	if (err && error_is_set(err) &&
	    (!error_is_set(&m->err) || m->state == MIG_PAUSED || m->state == MIG_INTERRUPTED ||
	     m->state == MIG_FAILED))
		m->err = *err;
}

void mig_event(struct migration *m, enum mig_event ev, const struct error *err)
{
	const struct mig_step *step;

	if (mig_state_ended(m->state))
		return; /* late echoes of what ended it */
	if (ev == MIG_EV_ERROR && is_loss(m, err))
		ev = MIG_EV_LOST;
	if (ev == MIG_EV_LOST && m->state == MIG_PRECOPY && mig_keeps(m))
		ev = MIG_EV_BROKEN;
	if (mig_state_apply(&m->state, ev, &step) < 0) {
		log_warn("migration %s: %s in state %s: %s", m->id, mig_event_name(ev),
			 mig_state_name(m->state), err ? err->msg : "ignored");
		return;
	}
	/* What ends it counts, not what had interrupted it. */
	if (err && step->next == MIG_FAILING &&
	    (step->state == MIG_INTERRUPTED || step->state == MIG_REJOINING))
		error_clear(&m->err);
	/* That the destination closes is what it was asked for. */
	if (m->state != MIG_CANCELLING || ev == MIG_EV_GONE)
		note_error(m, err);
	if (err && (step->next == MIG_IN_DOUBT || step->next == MIG_PAUSED))
		m->again.why = *err;
	if (step->state != step->next) {
		m->phase_us = clock_us();
		mig_publish(m);
		log_info("migration %s of %s: %s (%s)%s%s", m->id, m->guest_name,
			 mig_state_name(step->next), mig_event_name(ev),
			 err && err->msg[0] ? ": " : "", err ? err->msg : "");
		mig_tell(m, step->state, ev);
	}
	actions[step->action](m);
}

static void on_timeout(void *arg)
{
	struct migration *m = arg;
	struct error err = {0};

	event_free(steal_ptr(&m->timer));
	if (m->stage == MIG_STAGE_ABORT) {
		mig_on_aborted(m); /* the destination is not obliged to answer */
		return;
	}
	if (m->stage == MIG_STAGE_JOURNAL)
		error_set(&err, -ETIMEDOUT, "journal",
			  "the disk below %s has not taken a record within %llu s: look what keeps "
			  "it busy",
			  m->src->conf.agent.state_dir, MIG_JOURNAL_US / 1000000);
	if (m->stage == MIG_STAGE_PAUSE || m->stage == MIG_STAGE_STATE)
		error_set(&err, -ETIMEDOUT, "guest-timeout",
			  "guest %s has not %s within %u ms (switchover_timeout_ms)", m->guest_name,
			  m->stage == MIG_STAGE_PAUSE ? "paused" : "handed over its state",
			  m->options.switchover_timeout_ms);
	error_set(&err, -ETIMEDOUT, "timeout",
		  "%s has not answered in time in state %s: see the log of its decant-dest", m->to,
		  mig_state_name(m->state));
	mig_event(m, m->state == MIG_HANDOVER ? MIG_EV_LOST : MIG_EV_ERROR, &err);
}

void mig_timer(struct migration *m, uint64_t timeout_us)
{
	if (m->timer)
		event_free(steal_ptr(&m->timer));
	if (timeout_us)
		m->timer = loop_timer(m->src->loop, timeout_us, on_timeout, m);
}

void mig_stage(struct migration *m, enum mig_stage stage, uint64_t timeout_us)
{
	m->stage = stage;
	mig_timer(m, timeout_us);
}

void mig_fail(struct migration *m, const char *code, const char *fmt, ...)
{
	struct error err = {0};
	va_list ap;

	va_start(ap, fmt);
	error_setv(&err, -EIO, code, fmt, ap);
	va_end(ap);
	mig_event(m, MIG_EV_ERROR, &err);
}
