/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What others hear of what arrives here: the audit and hooks are told of each change of phase, by the one who sets the state
 * (incoming_event(), micro_event(), import.c), and when an agent that was started again has found what became of the
 * jobs of its earlier life. Some of these changes fall into the guest's pause: so little is told, and nothing is counted for it.
 */
#include <stdio.h>
#include <string.h>

#include "audit/audit.h"
#include "hooks/hooks.h"
#include "incoming_priv.h"
#include "micro_priv.h"
#include "util/clock.h"
#include "util/jsonout.h"

static void emit(struct dest *d, const char *kind, const char *phase, const char *id, json_t *data)
{
	char type[HOOKS_TYPE_MAX], job[HOOKS_JOB_MAX];

	snprintf(type, sizeof(type), "%s.%s", kind, phase);
	snprintf(job, sizeof(job), "incoming/%s", id);
	hooks_emit(d->hooks, type, job, data);
}

/* --- incoming migrations, images that are stored and restored --- */

static const char *kind(const struct incoming *inc)
{
	return inc->store ? "store" : inc->restore ? "restore" : "incoming";
}

/* As incoming_view() will say when the action of the step is done. */
static const char *phase(const struct incoming *inc, enum inc_state was)
{
	if (inc->state != INC_END)
		return inc_state_name(inc->state);
	if (inc->end_event == INC_EV_ACCOUNTED || inc->end_event == INC_EV_STORED)
		return "completed";
	return was == INC_RUNNING || was == INC_HELD ? "failed" : "aborted";
}

/* Return: what every line of the audit about it has; @more is put behind it, a reference that is taken over */
static json_t *about(const struct incoming *inc, json_t *more)
{
	char uuid[UUID_TEXT_MAX] = "";
	json_t *o;

	if (inc->setup)
		uuid_text(inc->setup->uuid, uuid);
	o = json_pack("{s:s, s:s, s:s, s:s, s:s, s:s}", "job", inc->id_text, "kind", kind(inc),
		      "guest", inc->setup ? inc->setup->name : "", "uuid", uuid, "from", inc->from,
		      "identity", inc->identity);
	if (o && more)
		json_object_update(o, more);
	json_decref(more);
	return o;
}

/* The guest runs here from now on. It stands still meanwhile: the line is on the disk with the next one that is. */
static void audit_owner(const struct incoming *inc)
{
	audit_note(inc->d->audit, "ownership",
		   about(inc, json_pack("{s:s, s:s, s:I}", "owner", "destination", "because",
					"commit", "generation",
					inc->past ? (json_int_t)inc->past->generation : 0)),
		   AUDIT_PLAIN);
}

static void audit_step(const struct incoming *inc, enum inc_state was, enum inc_event ev,
		       const char *now)
{
	struct audit *a = inc->d->audit;
	bool failed = error_is_set(&inc->err) && strcmp(now, "completed") != 0;

	if (was == INC_NONE && inc->state != INC_END)
		audit_note(a, "incoming-started", about(inc, NULL), AUDIT_PLAIN);
	if (ev == INC_EV_COMMIT)
		audit_owner(inc);
	if (inc->state == INC_END)
		audit_note(a, "incoming-ended",
			   about(inc, json_pack("{s:s, s:s*, s:s*, s:o}", "phase", now, "code",
						failed ? inc->err.code : NULL, "error",
						failed ? inc->err.msg : NULL, "digest_ok",
						ev == INC_EV_ACCOUNTED || ev == INC_EV_STORED
							? json_true()
							: json_null())),
			   AUDIT_SYNC);
}

/* @before: NULL if nobody knows it */
static void emit_step(const struct incoming *inc, const char *now, const char *before)
{
	char uuid[UUID_TEXT_MAX] = "", at[CLOCK_TEXT_MAX];

	if (!inc->d->hooks)
		return;
	if (inc->setup)
		uuid_text(inc->setup->uuid, uuid);
	emit(inc->d, kind(inc), now, inc->id_text,
	     json_pack("{s:s, s:s, s:s, s:s, s:s?, s:s, s:s, s:s, s:o, s:I}", "id", inc->id_text,
		       "guest", inc->setup ? inc->setup->name : "", "uuid", uuid, "phase", now,
		       "previous_phase", before, "from", inc->from, "identity", inc->identity,
		       "created_at", clock_rfc3339(at, inc->created_us), "error",
		       jsonout_error(&inc->err), "total_bytes", (json_int_t)inc->total));
}

void incoming_tell(struct incoming *inc, enum inc_state was, enum inc_event ev)
{
	const char *now = phase(inc, was);

	audit_step(inc, was, ev, now);
	emit_step(inc, now, inc_state_name(was));
}

/* --- what an earlier life has left --- */

void incoming_tell_again(const struct incoming *inc)
{
	emit_step(inc, inc_state_name(inc->state), NULL);
}

static const char *text_of(const struct past *p, const char *key)
{
	const char *s = json_string_value(json_object_get(p->facts, key));

	return s ? s : "";
}

/* "local" is no name that a certificate has. */
static const char *past_kind(const struct past *p)
{
	return !strcmp(text_of(p, "driver"), "uffd") ? "micro"
	       : !strcmp(p->identity, "local")       ? "restore"
						     : "incoming";
}

void incoming_tell_past(struct dest *d, const struct past *p, const char *now, const char *code,
			const char *why)
{
	json_int_t created = json_integer_value(json_object_get(p->facts, "created"));
	bool micro = !strcmp(past_kind(p), "micro");
	char at[CLOCK_TEXT_MAX];

	audit_note(d->audit, micro ? "micro-ended" : "incoming-ended",
		   json_pack("{s:s, s:s, s:s, s:s, s:s, s:s, s:s, s:s, s:s, s:n}", "job", p->id,
			     "kind", past_kind(p), "guest", p->name, "uuid", text_of(p, "uuid"),
			     "from", text_of(p, "from"), "identity", p->identity, "phase", now,
			     "code", code, "error", why, "digest_ok"),
		   AUDIT_SYNC);
	if (!d->hooks)
		return;
	emit(d, past_kind(p), now, p->id,
	     json_pack("{s:s, s:s, s:s, s:s, s:n, s:s, s:s, s:s, s:{s:s, s:s}}", "id", p->id,
		       "guest", p->name, "uuid", text_of(p, "uuid"), "phase", now, "previous_phase",
		       "from", text_of(p, "from"), "identity", p->identity, "created_at",
		       clock_rfc3339(at, (uint64_t)created), "error", "code", code, "message",
		       why));
}

void incoming_tell_aborted(struct dest *d)
{
	for (struct past *p = history_first(d->history); p; p = p->next) {
		if (p->untold)
			incoming_tell_past(
				d, p, "aborted", "agent-restarted",
				"decant-dest had ended before the guest was handed over");
		p->untold = false;
	}
}

/* --- micro-VMs --- */

static const char *micro_phase(const struct micro *m, enum micro_state was)
{
	if (m->state != MICRO_END)
		return micro_state_name(m->state);
	if (m->complete)
		return "completed";
	return was == MICRO_SERVING || was == MICRO_HELD ? "failed" : "aborted";
}

void micro_tell(const struct micro *m, enum micro_state was)
{
	const char *now = micro_phase(m, was);
	char at[CLOCK_TEXT_MAX];

	if (m->state == MICRO_SERVING || m->state == MICRO_END)
		audit_note(m->d->audit, m->state == MICRO_END ? "micro-ended" : "micro-started",
			   json_pack("{s:s, s:s, s:s, s:i, s:s*}", "job", m->id_text, "guest",
				     m->image, "phase", now, "peer_pid", (int)m->pid, "error",
				     error_is_set(&m->err) ? m->err.msg : NULL),
			   AUDIT_PLAIN);

	/* One that has every page and ends then has completed before. */
	if (!m->d->hooks || (m->state == MICRO_END && was == MICRO_COMPLETED))
		return;
	emit(m->d, "micro", now, m->id_text,
	     json_pack("{s:s, s:s, s:s, s:s, s:s, s:o, s:i}", "id", m->id_text, "guest", m->image,
		       "phase", now, "previous_phase", micro_state_name(was), "created_at",
		       clock_rfc3339(at, m->created_us), "error", jsonout_error(&m->err), "pid",
		       (int)m->pid));
}
