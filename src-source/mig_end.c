/* SPDX-License-Identifier: Apache-2.0 */
/* How a migration ends: rolled back, held, abandoned, released. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "hooks/hooks.h"
#include "meter.h"
#include "migration_priv.h"
#include "util/cleanup.h"
#include "util/clock.h"
#include "util/faultpoint.h"
#include "util/log.h"
#include "util/trace.h"

/*
 * A guest that attached itself while its job was being rolled back was not there to be resumed, and belonged to the job
 * when it was welcomed: nobody holds it now, and nobody else would let it go on.
 */
static void let_guest_go(struct migration *m)
{
	struct source_guest *sg = m->guest;

	migration_forget_guest(sg);
	if (sg->conn && !sg->welcome && sg->conn->run_state == GUEST_PAUSED_MIGRATION)
		migration_guest_welcomed(sg);
}

void mig_act_finish(struct migration *m)
{
	m->stage = MIG_STAGE_NONE;
	mig_close(m);
	XXH3_freeState(steal_ptr(&m->sw.hash));
	mig_snap_free(m);
	if (!m->ended_us)
		m->ended_us = clock_wall_us();
	m->totals.remaining_bytes = m->state == MIG_COMPLETED ? 0 : m->totals.remaining_bytes;
	m->totals.held_bytes = 0;
	meter_job_ended(m);
	mig_journal_end(m);
	if (!mig_releasing(m))
		mig_journal_shut(m);
	if (m->guest && !m->committed)
		let_guest_go(m);
	if (mig_telling(m))
		mig_act_ask(m);
	mig_farewell_later(m);
}

/* --- rollback: the guest goes on here --- */

static bool rolling_back(const struct migration *m, enum mig_stage stage)
{
	return (m->state == MIG_CANCELLING || m->state == MIG_FAILING) && m->stage == stage;
}

void mig_on_aborted(struct migration *m)
{
	if (rolling_back(m, MIG_STAGE_ABORT))
		mig_event(m, MIG_EV_ROLLED_BACK, NULL);
}

static void await_aborted(struct migration *m)
{
	mig_stage(m, MIG_STAGE_ABORT, MIG_ABORT_US);
	FAULTPOINT(ABORT_AWAITED);
	/* KEPT will tell it. */
	if (!m->control && m->resolve.keep)
		mig_on_aborted(m);
	else if (!m->control)
		mig_farewell(m);
}

static void untrack(struct migration *m)
{
	mig_stage(m, MIG_STAGE_UNTRACK, 0);
	if (m->engine) {
		engine_stop(m->engine);
		mig_totals(m, &m->totals);
		meter_engine_end(m);
		engine_free(steal_ptr(&m->engine));
	}
	await_aborted(m);
}

static void on_resumed(void *arg, int ret, const struct error *err, int fd)
{
	struct migration *m = arg;

	(void)fd;
	FAULTPOINT(ROLLBACK_RESUMED);
	if (!rolling_back(m, MIG_STAGE_RESUME))
		return;
	if (ret < 0)
		log_error("migration %s: guest %s could not be resumed: %s", m->id, m->guest_name,
			  err->msg);
	else
		trace_resume("guest", m->guest_name);
	m->held = false;
	untrack(m);
}

static void rollback_noted(struct migration *m, const struct error *why)
{
	struct guest *g = mig_conn(m);
	struct error err = {0};

	if (!rolling_back(m, MIG_STAGE_JOURNAL))
		return;
	if (why)
		log_error("migration %s: %s", m->id, why->msg);
	FAULTPOINT(ROLLBACK_JOURNALED);
	error_set(&err, -ECANCELED, "cancelled", "cancelled at the source");
	if (m->control)
		conn_send_error(m->control, MSG_ABORT, error_is_set(&m->err) ? &m->err : &err);
	mig_stage(m, MIG_STAGE_RESUME, 0);
	if (!g || (!m->pause_us && !m->held) || guest_resume(g, on_resumed, m) < 0)
		untrack(m);
}

/*
 * Rule 4: this is reached before COMMIT was sent, or after the destination answered not-started; it
 * cannot run the guest any more. A guest that is not attached now is resumed when it attaches again
 * (migration_guest_attached()), because the journal says that nothing holds it.
 */
void mig_act_rollback(struct migration *m)
{
	struct error err = {0};

	m->committed = false;
	/* A session that was lost and is not wanted any more is no failure. */
	if (m->state == MIG_CANCELLING)
		error_clear(&m->err);
	/* Whoever waits for a page to be saved must go on before the guest can be asked for anything. */
	if (m->snapshot && m->engine)
		engine_stop(m->engine);
	if (m->dial)
		dial_cancel(steal_ptr(&m->dial));
	mig_mend_stop(m);
	mig_stage(m, MIG_STAGE_JOURNAL, 0);
	if (mig_journal_then(m, "rolled-back", rollback_noted, &err) < 0)
		rollback_noted(m, &err);
}

/* --- behind the point of no return --- */

/*
 * The guest lives at the destination; its missing pages stay here, in the paused process. A session
 * that stood is made again at once; one that did not is left to the back-off.
 */
void mig_act_hold(struct migration *m)
{
	bool stood = m->again.since_us && clock_us() - m->again.since_us >= MIG_STEADY_US;
	struct error err = {0};

	trace_pause("session", m->guest_name);
	m->stage = MIG_STAGE_NONE;
	m->again.since_us = 0;
	mig_close(m);
	if (!m->again.noted && mig_journal_note(m, "held", &err) < 0)
		log_error("migration %s: %s", m->id, err.msg);
	FAULTPOINT(HELD_JOURNALED);
	m->again.noted = true;
	log_warn("migration %s of %s: the session is lost; the guest waits at %s for pages that "
		 "only this process has",
		 m->id, m->guest_name, m->to);
	if (stood)
		mig_act_ask(m);
	else
		mig_ask_later(m, &m->err);
}

void mig_act_abandon(struct migration *m)
{
	log_error("migration %s of %s failed behind the point of no return; the guest belongs to "
		  "%s, its copy here stays paused",
		  m->id, m->guest_name, m->to);
	mig_act_finish(m);
}

static void on_quit(void *arg, int ret, const struct error *err, int fd)
{
	struct migration *m = arg;

	(void)fd;
	FAULTPOINT(GUEST_TOLD_TO_END);
	if (ret < 0)
		log_warn("migration %s: guest %s was not told to end: %s", m->id, m->guest_name,
			 err->msg);
}

/* Nobody needs its pages any more. */
void mig_dispose(struct migration *m)
{
	struct guest *g = mig_conn(m);

	if (g && m->guest->desc.disposal == GUEST_DISPOSAL_QUIT)
		guest_quit(g, on_quit, m);
}

static void release_noted(struct migration *m, const struct error *why)
{
	if (why)
		log_error("migration %s: %s", m->id, why->msg);
	mig_journal_shut(m);
	FAULTPOINT(RELEASE_JOURNALED);
	mig_dispose(m);
}

/*
 * Rule 3: only the receipt brings a job here. A VM that was not found yet since this agent was started
 * is still looked for, to be told to end; none is before the record is on the disk.
 */
void mig_act_release(struct migration *m)
{
	struct guest *g = mig_conn(m);
	struct error err = {0};
	int r;

	error_clear(&m->err); /* a connection that was lost on the way is no failure any more */
	r = mig_journal_then(m, "completed", release_noted, &err);
	if (m->guest)
		m->guest->handed_over = g || m->guest->desc.driver != GUEST_DRIVER_QEMU;
	if (m->engine)
		atomic_store(&m->engine->done, true);
	mig_act_finish(m);
	FAULTPOINT(JOB_ENDED);
	if (r < 0)
		release_noted(m, &err);
}

/* --- long afterwards --- */

/* The guest has been here again since, and another job knows of it. */
static bool superseded(const struct source *s, const struct migration *m)
{
	for (const struct migration *n = s->migrations; n; n = n->next)
		if (n->generation > m->generation && !memcmp(n->uuid, m->uuid, sizeof(n->uuid)))
			return true;
	return false;
}

/*
 * What may have handed over a guest is remembered until the guest was here again, or its copy has ended: rule
 * 4 leans on it.
 */
static bool needed(const struct source *s, const struct migration *m)
{
	if (migration_busy(m) || mig_telling(m) || m->resolve.acting || mig_releasing(m))
		return true;
	return m->committed && !m->left && (m->guest || !superseded(s, m));
}

void mig_destroy(struct migration *m)
{
	hooks_gate_cancel(m->gate);
	mig_close(m);
	mig_journal_shut(m);
	XXH3_freeState(m->sw.hash);
	mig_snap_free(m);
	if (m->guest)
		m->guest->migration = NULL;
	free(m);
}

void mig_prune(struct source *s)
{
	struct migration **p = &s->migrations;
	unsigned int ended = 0;

	while (*p) {
		struct migration *m = *p;

		if ((!migration_busy(m) && ++ended <= SOURCE_JOBS_MAX) || needed(s, m)) {
			p = &m->next;
			continue;
		}
		*p = m->next;
		mig_journal_remove(m);
		mig_destroy(m);
	}
}
