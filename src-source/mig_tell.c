/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What others hear of a job: the audit and hooks are told of each change of its phase, and gates are asked before its guest is
 * paused. Called by the one who sets the state (mig_event()), and when a restarted agent has set it anew.
 *
 * Rules at stake: 4 and 8 are not touched by what a gate says or does not say: it is asked in precopy, where
 * the guest runs here and a failure is a rollback as any other; a session that is lost meanwhile changes
 * nothing about the question. 6: the question ends with precopy_timeout_s and the gates' timeout_ms, and with
 * cancel.
 */
#include <stdio.h>
#include <string.h>

#include "audit/audit.h"
#include "hooks/hooks.h"
#include "migration_priv.h"
#include "scan.h"
#include "util/cleanup.h"
#include "util/clock.h"
#include "util/log.h"

static const char *kind(const struct migration *m)
{
	return m->snapshot ? "snapshot" : "migration";
}

static void subject(const struct migration *m, char *out, size_t cap)
{
	snprintf(out, cap, "%ss/%s", kind(m), m->id);
}

static void emit(const struct migration *m, const char *before)
{
	char type[HOOKS_TYPE_MAX], job[HOOKS_JOB_MAX];
	json_t *data;

	snprintf(type, sizeof(type), "%s.%s", kind(m), mig_state_phase(m->state));
	if (!hooks_wanted(m->src->hooks, type))
		return;
	subject(m, job, sizeof(job));
	data = migration_json(m);
	if (data)
		json_object_set_new(data, "previous_phase",
				    before ? json_string(before) : json_null());
	/* A session that was lost on the way is no failure any more: the action that follows clears it. */
	if (data && (m->state == MIG_COMPLETED || m->state == MIG_CANCELLING))
		json_object_set_new(data, "error", json_null());
	hooks_emit(m->src->hooks, type, job, data);
}

/* --- the gates --- */

static bool before_pause(enum mig_state s)
{
	return s == MIG_PRECOPY || s == MIG_INTERRUPTED || s == MIG_REJOINING;
}

static void on_gate(void *arg, const struct error *why)
{
	struct migration *m = arg;

	m->gate = NULL;
	if (why) {
		mig_event(m, MIG_EV_ERROR, why);
		return;
	}
	log_info("migration %s of %s: all gates allow the switchover", m->id, m->guest_name);
	atomic_store(&m->engine->gate, ENGINE_GATE_OPEN);
	scan_kick(m->engine->scan);
}

void mig_gate_ask(struct migration *m)
{
	uint64_t limit = m->options.precopy_timeout_s * UINT64_C(1000000);
	uint64_t gone = clock_us() - m->precopy_us;
	char job[HOOKS_JOB_MAX];

	if (!before_pause(m->state))
		return;
	subject(m, job, sizeof(job));
	m->gate = hooks_gate_ask(m->src->hooks, "migration.gate", job, migration_json(m),
				 limit - MIN(gone, limit), on_gate, m);
	if (!m->gate)
		mig_fail(m, NULL, "out of memory");
}

void mig_gate_arm(struct migration *m)
{
	m->precopy_us = clock_us();
	if (!m->snapshot && hooks_gated(m->src->hooks))
		atomic_store(&m->engine->gate, ENGINE_GATE_SHUT);
}

/* --- the audit --- */

/* Return: what every line about the job has; @more is put behind it, a reference that is taken over */
static json_t *about(const struct migration *m, json_t *more)
{
	char uuid[UUID_TEXT_MAX];
	json_t *o = json_pack("{s:s, s:s, s:s, s:s, s:s}", "job", m->id, "kind", kind(m), "guest",
			      m->guest_name, "uuid", uuid_text(m->uuid, uuid), "to", m->to);

	if (o && more)
		json_object_update(o, more);
	json_decref(more);
	return o;
}

/* A sync is for what the guest does not stand still for. */
static void audit_owner(const struct migration *m, enum mig_state was, enum mig_event ev)
{
	const char *before = mig_owner_name(was, m->committed);
	const char *now = mig_owner_name(m->state, m->committed);

	if (m->snapshot || !strcmp(before, now))
		return;
	audit_note(m->src->audit, "ownership",
		   about(m, json_pack("{s:s, s:s, s:s, s:I}", "owner", now, "owner_before", before,
				      "because", mig_event_name(ev), "generation",
				      (json_int_t)m->generation)),
		   m->state == MIG_HANDOVER ? AUDIT_PLAIN : AUDIT_SYNC);
}

static void audit_end(const struct migration *m)
{
	const struct error *e = m->state == MIG_FAILED ? &m->err : NULL;
	struct migration_totals t = m->totals;

	mig_totals(m, &t);
	audit_note(m->src->audit,
		   m->state == MIG_COMPLETED && !m->snapshot ? "released" : "job-ended",
		   about(m, json_pack("{s:s, s:s, s:s*, s:s*, s:o, s:I, s:o}", "phase",
				      mig_state_phase(m->state), "owner",
				      mig_owner_name(m->state, m->committed), "code",
				      e ? e->code : NULL, "error", e ? e->msg : NULL, "digest_ok",
				      m->has_receipt ? json_boolean(m->receipt.digest_ok)
						     : json_null(),
				      "sent_bytes", (json_int_t)t.sent_bytes, "downtime_us",
				      m->downtime_us ? json_integer((json_int_t)m->downtime_us)
						     : json_null())),
		   AUDIT_SYNC);
}

static void audit_step(const struct migration *m, enum mig_state was, enum mig_event ev)
{
	if (ev == MIG_EV_START)
		audit_note(m->src->audit, "job-started",
			   about(m, json_pack("{s:s, s:I}", "mode",
					      conf_options_mode_name(m->options.mode), "generation",
					      (json_int_t)m->generation)),
			   AUDIT_PLAIN);
	audit_owner(m, was, ev);
	if (mig_state_ended(m->state))
		audit_end(m);
}

void mig_tell_resolved(const struct migration *m, enum mig_keep keep)
{
	audit_note(m->src->audit, "resolved",
		   about(m, json_pack("{s:s, s:s}", "keep", mig_keep_name(keep), "owner_before",
				      mig_owner_name(m->state, m->committed))),
		   AUDIT_SYNC);
}

void mig_tell_kept(const struct migration *m)
{
	audit_note(m->src->audit, "ownership",
		   about(m, json_pack("{s:s, s:s, s:s, s:I}", "owner", "source", "owner_before",
				      "destination", "because", "keep-source", "generation",
				      (json_int_t)m->generation)),
		   AUDIT_SYNC);
}

/* What ran there as well is a conflict: two copies of the guest have run. */
void mig_tell_told(const struct migration *m)
{
	enum msg_answer a = m->resolve.answer;

	audit_note(m->src->audit, "resolution-told",
		   about(m, json_pack("{s:b}", "conflict",
				      a == MSG_ANSWER_RUNNING || a == MSG_ANSWER_COMPLETED)),
		   AUDIT_SYNC);
}

/* --- changes --- */

void mig_tell(struct migration *m, enum mig_state was, enum mig_event ev)
{
	const char *before = mig_state_phase(was);

	if (mig_state_ended(m->state) && !m->ended_us)
		m->ended_us = clock_wall_us();
	if (!before_pause(m->state))
		hooks_gate_cancel(steal_ptr(&m->gate));
	audit_step(m, was, ev);
	if (strcmp(before, mig_state_phase(m->state)) != 0)
		emit(m, before);
}

/* What it was in when the agent ended nobody knows. */
void mig_tell_restarted(struct migration *m)
{
	if (mig_state_ended(m->state))
		m->ended_us = clock_wall_us();
	audit_note(m->src->audit, "job-restarted",
		   about(m, json_pack("{s:s, s:s}", "phase", mig_state_phase(m->state), "owner",
				      mig_owner_name(m->state, m->committed))),
		   AUDIT_PLAIN);
	if (mig_state_ended(m->state))
		audit_end(m);
	emit(m, NULL);
}
