/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What others hear of a job: hooks are told of each change of its phase, and gates are asked before its guest is
 * paused. Called by the one who sets the state (mig_event()), and when a restarted agent has set it anew.
 *
 * Rules at stake: 4 and 8 are not touched by what a gate says or does not say: it is asked in precopy, where
 * the guest runs here and a failure is a rollback as any other; a session that is lost meanwhile changes
 * nothing about the question. 6: the question ends with precopy_timeout_s and the gates' timeout_ms, and with
 * cancel.
 */
#include <stdio.h>
#include <string.h>

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

/* --- changes --- */

void mig_tell(struct migration *m, enum mig_state was)
{
	const char *before = mig_state_phase(was);

	if (mig_state_ended(m->state) && !m->ended_us)
		m->ended_us = clock_wall_us();
	if (!before_pause(m->state))
		hooks_gate_cancel(steal_ptr(&m->gate));
	if (strcmp(before, mig_state_phase(m->state)) != 0)
		emit(m, before);
}

/* What it was in when the agent ended nobody knows. */
void mig_tell_restarted(struct migration *m)
{
	if (mig_state_ended(m->state))
		m->ended_us = clock_wall_us();
	emit(m, NULL);
}
