/* SPDX-License-Identifier: Apache-2.0 */
/* A migration as clients see it: the object of the contract. */
#include <string.h>

#include "held.h"
#include "hooks/hooks.h"
#include "migration_priv.h"
#include "rest/rest_events.h"
#include "sender.h"
#include "urgent.h"
#include "util/cleanup.h"
#include "util/clock.h"
#include "util/jsonout.h"

static void add_channel(struct migration_totals *t, const char *kind, uint64_t bytes, bool lost)
{
	t->channels[t->nchannels++] =
		(struct mig_channel){.kind = kind, .bytes = bytes, .lost = lost};
	t->wire_bytes += bytes;
}

static void channel_totals(const struct migration *m, struct migration_totals *t)
{
	const struct engine *e = m->engine;

	t->nchannels = 0;
	t->wire_bytes = t->wire_before + e->wire_gone;
	if (m->control)
		add_channel(t, "control", tls_chan_sent_bytes(conn_chan(m->control)), false);
	if (e->urgent)
		add_channel(t, "urgent", urgent_wire_bytes(e->urgent), false);
	else if (m->mend.urgent)
		add_channel(t, "urgent", 0, true);
	for (uint32_t i = 0; i < e->nsenders; i++)
		add_channel(t, "bulk", sender_wire_bytes(e->senders[i]),
			    atomic_load(&e->senders[i]->state) != SENDER_UP);
}

void mig_totals(const struct migration *m, struct migration_totals *t)
{
	struct engine *e = m->engine;

	if (!e)
		return;
	t->sent_bytes = atomic_load(&e->stats.sent_bytes);
	t->zero_pages = atomic_load(&e->stats.zero_pages);
	t->held_bytes = held_bytes(e);
	t->remaining_bytes = engine_pending_bytes(e) + t->held_bytes;
	t->dirty_rate = atomic_load(&e->stats.dirty_rate);
	t->rate = atomic_load(&e->stats.rate);
	t->requests = atomic_load(&e->stats.requests);
	t->passes = atomic_load(&e->stats.passes);
	channel_totals(m, t);
	if (e->recovered)
		return; /* nobody was tracked */
	t->stall_p50_us = hist_quantile(&e->stats.stall, 0.5);
	t->stall_p99_us = hist_quantile(&e->stats.stall, 0.99);
	t->stall_max_us = hist_quantile(&e->stats.stall, 1);
}

static json_t *memory_json(const struct migration_totals *t)
{
	return json_pack("{s:I, s:I, s:I, s:I, s:I, s:I, s:i}", "total_bytes",
			 (json_int_t)t->total_bytes, "sent_bytes", (json_int_t)t->sent_bytes,
			 "wire_bytes", (json_int_t)t->wire_bytes, "zero_pages",
			 (json_int_t)t->zero_pages, "remaining_bytes",
			 (json_int_t)t->remaining_bytes, "dirty_pages_per_s",
			 (json_int_t)t->dirty_rate, "passes", (int)t->passes);
}

static json_t *buckets_json(const struct msg_receipt *r)
{
	json_t *a = json_array();

	for (size_t i = 0; i < MSG_OCTAVES; i++)
		if (r->answered[i])
			json_array_append_new(
				a, json_pack("{s:I, s:I}", "le_us",
					     (json_int_t)(i + 1 < MSG_OCTAVES ? UINT64_C(1) << i
									      : r->max_us),
					     "count", (json_int_t)r->answered[i]));
	return a;
}

static json_t *block_time_json(const struct msg_receipt *r)
{
	json_t *threads;

	if (!r->has_block_time)
		return json_null();
	threads = json_array();
	for (uint32_t i = 0; threads && i < r->nthreads; i++)
		json_array_append_new(threads, json_integer((json_int_t)r->blocked_us[i]));
	return json_pack("{s:I, s:o}", "all_threads", (json_int_t)r->all_blocked_us, "threads",
			 threads);
}

/* Faults are counted where they happen: the destination reports them with its receipt. */
static json_t *postcopy_json(const struct migration *m, const struct migration_totals *t)
{
	const struct msg_receipt *r = &m->receipt;

	if (!m->has_receipt)
		return json_pack("{s:n, s:I, s:n, s:n}", "faults", "requests",
				 (json_int_t)t->requests, "latency_us", "block_time_us");
	return json_pack("{s:I, s:I, s:{s:I, s:I, s:I, s:I, s:o}, s:o}", "faults",
			 (json_int_t)r->faults, "requests", (json_int_t)r->requests, "latency_us",
			 "p50", (json_int_t)r->p50_us, "p90", (json_int_t)r->p90_us, "p99",
			 (json_int_t)r->p99_us, "max", (json_int_t)r->max_us, "buckets",
			 buckets_json(r), "block_time_us", block_time_json(r));
}

static json_t *dma_json(const struct migration *m, const struct migration_totals *t)
{
	return json_pack(
		"{s:s, s:s, s:o, s:o, s:o, s:I}", "way", dma_way_name(m->dma), "why",
		dma_why(m->dma), "block", m->dma_block[0] ? json_string(m->dma_block) : json_null(),
		"device", m->dma_device[0] ? json_string(m->dma_device) : json_null(), "pause_us",
		m->first_pause_us ? json_integer((json_int_t)m->first_pause_us) : json_null(),
		"held_bytes", (json_int_t)t->held_bytes);
}

/* Since the session was lost: how often the destination was asked, and when it is asked again. */
static json_t *recovery_json(const struct migration *m)
{
	const struct mig_recover *a = &m->again;

	if (m->state != MIG_PAUSED && m->state != MIG_IN_DOUBT && m->state != MIG_RECOVERING &&
	    m->state != MIG_INTERRUPTED && m->state != MIG_REJOINING)
		return json_null();
	return json_pack("{s:o, s:I, s:o, s:o}", "why", jsonout_error(&a->why), "attempts",
			 (json_int_t)a->attempts, "next_attempt_at", jsonout_time(a->next_us),
			 "last_error", jsonout_error(&a->err));
}

static json_t *risk_json(const struct migration *m, enum mig_keep keep)
{
	char risk[sizeof(m->err.msg)];

	return mig_resolve_risk(m, keep, risk, sizeof(risk)) ? json_null() : json_string(risk);
}

/* Which decisions can be taken now, and what each of them risks; null where there is nothing to decide. */
static json_t *resolve_json(const struct migration *m)
{
	json_t *source = risk_json(m, MIG_KEEP_SOURCE);
	json_t *destination = risk_json(m, MIG_KEEP_DESTINATION);

	if (!json_is_null(source) || !json_is_null(destination))
		return json_pack("{s:o, s:o}", "source", source, "destination", destination);
	json_decref(source);
	json_decref(destination);
	return json_null();
}

/* What has been decided, and what the destination said when it was told. */
static json_t *resolution_json(const struct migration *m)
{
	static const char *const answers[] = {"unknown", "not-started", "running", "completed",
					      "gone"};
	const struct mig_resolve *v = &m->resolve;
	bool telling = mig_telling(m);
	bool conflict =
		v->told && (v->answer == MSG_ANSWER_RUNNING || v->answer == MSG_ANSWER_COMPLETED);

	if (!v->keep && !error_is_set(&v->err))
		return json_null();
	return json_pack("{s:o, s:o, s:s, s:o, s:b, s:I, s:o, s:o}", "keep",
			 v->keep ? json_string(mig_keep_name(v->keep)) : json_null(), "at",
			 jsonout_time(v->at_us), "state",
			 v->acting  ? "acting"
			 : !v->keep ? "failed"
			 : telling  ? "telling"
				    : "done",
			 "destination_said",
			 v->told ? json_string(answers[v->answer]) : json_null(), "conflict",
			 conflict, "attempts", telling ? (json_int_t)m->again.attempts : 0,
			 "next_attempt_at", telling ? jsonout_time(m->again.next_us) : json_null(),
			 "last_error", jsonout_error(telling ? &m->again.err : &v->err));
}

static json_t *channel_json(const struct mig_channel *c, uint64_t elapsed_us, const char *state)
{
	uint64_t rate = elapsed_us ? (uint64_t)((double)c->bytes * 1e6 / (double)elapsed_us) : 0;

	return json_pack("{s:s, s:I, s:I, s:s}", "kind", c->kind, "bytes", (json_int_t)c->bytes,
			 "rate_bytes_per_s", (json_int_t)rate, "state", state);
}

/* The clock may have been set back. */
static uint64_t elapsed_us(const struct migration *m)
{
	uint64_t now = m->ended_us ? m->ended_us : clock_wall_us();

	return now > m->created_us ? now - m->created_us : 0;
}

static json_t *channels_json(const struct migration *m, const struct migration_totals *t)
{
	uint64_t elapsed = elapsed_us(m);
	json_t *a = json_array();

	for (uint32_t i = 0; i < t->nchannels; i++)
		json_array_append_new(a, channel_json(&t->channels[i], elapsed,
						      !m->engine            ? "closed"
						      : t->channels[i].lost ? "lost"
									    : "open"));
	return a;
}

static json_t *eta_json(const struct migration *m, const struct migration_totals *t)
{
	if (mig_state_ended(m->state) || !t->rate || !m->engine)
		return json_null();
	return json_real((double)t->remaining_bytes / (double)t->rate);
}

/* Until the first pass has been measured, the average since precopy or post-copy began will do. */
static uint64_t rate(const struct migration *m, const struct migration_totals *t)
{
	uint64_t us = elapsed_us(m);

	return t->rate ? t->rate : us ? (uint64_t)((double)t->sent_bytes * 1e6 / (double)us) : 0;
}

/* What a snapshot has not, and what it has besides. */
static void as_snapshot(const struct migration *m, json_t *o)
{
	static const char *const without[] = {"mode",    "owner", "postcopy",
					      "resolve", "gate",  "resolution"};

	for (size_t i = 0; i < ARRAY_SIZE(without); i++)
		json_object_del(o, without[i]);
	json_object_set_new(o, "name", json_string(m->snap.name));
	json_object_set_new(o, "start", json_boolean(m->snap.start));
}

/* Some of the changes fall into the guest's pause: nothing is counted for them. */
void mig_publish(const struct migration *m)
{
	const char *kind = m->snapshot ? "snapshot" : "migration";

	rest_events_publish(m->src->events, kind,
			    json_pack("{s:s, s:s, s:s, s:s, s:s, s:o}", "id", m->id, "guest",
				      m->guest_name, "to", m->to, "phase",
				      mig_state_phase(m->state), "state_detail",
				      mig_state_name(m->state), "error", jsonout_error(&m->err)));
}

void migrations_show(struct rest_events *ev, void *arg)
{
	const struct source *s = arg;

	for (const struct migration *m = s->migrations; m; m = m->next)
		if (!mig_state_ended(m->state))
			rest_events_show(ev, "progress", migration_json(m));
}

json_t *migration_json(const struct migration *m)
{
	struct migration_totals t = m->totals;
	char uuid[UUID_TEXT_MAX];
	json_t *o;

	mig_totals(m, &t);
	t.rate = rate(m, &t);
	o = json_pack("{s:s, s:s, s:s, s:s, s:s, s:s, s:s, s:s, s:o, s:o, s:o}", "id", m->id,
		      "guest", m->guest_name, "uuid", uuid_text(m->uuid, uuid), "to", m->to, "mode",
		      conf_options_mode_name(m->options.mode), "phase", mig_state_phase(m->state),
		      "state_detail", mig_state_name(m->state), "owner",
		      mig_owner_name(m->state, m->committed), "error", jsonout_error(&m->err),
		      "created_at", jsonout_time(m->created_us), "ended_at",
		      jsonout_time(m->ended_us));
	if (!o)
		return NULL;
	json_object_set_new(o, "refused", json_boolean(m->refused));
	json_object_set_new(o, "recovery", recovery_json(m));
	json_object_set_new(o, "gate", hooks_gate_json(m->gate));
	json_object_set_new(o, "resolve", resolve_json(m));
	json_object_set_new(o, "resolution", resolution_json(m));
	json_object_set_new(o, "memory", memory_json(&t));
	json_object_set_new(o, "rate_bytes_per_s", json_integer((json_int_t)t.rate));
	json_object_set_new(o, "eta_s", eta_json(m, &t));
	json_object_set_new(o, "downtime_us",
			    m->downtime_us ? json_integer((json_int_t)m->downtime_us)
					   : json_null());
	json_object_set_new(o, "downtime_at_most", json_boolean(m->downtime_most));
	json_object_set_new(o, "postcopy", postcopy_json(m, &t));
	json_object_set_new(o, "tracking",
			    json_pack("{s:s, s:{s:I, s:I, s:I}}", "kind", m->tracking, "stall_us",
				      "p50", (json_int_t)t.stall_p50_us, "p99",
				      (json_int_t)t.stall_p99_us, "max",
				      (json_int_t)t.stall_max_us));
	json_object_set_new(o, "injection",
			    json_pack("{s:I, s:I}", "stops", (json_int_t)m->injection.stops,
				      "max_us", (json_int_t)m->injection.max_us));
	json_object_set_new(o, "dma", dma_json(m, &t));
	json_object_set_new(o, "channels", channels_json(m, &t));
	json_object_set_new(o, "digest_ok",
			    m->has_receipt ? json_boolean(m->receipt.digest_ok) : json_null());
	json_object_set_new(o, "options", conf_options_json(&m->options));
	if (m->snapshot)
		as_snapshot(m, o);
	return o;
}

json_t *migrations_json(const struct source *s, bool snapshots)
{
	json_t *a = json_array();

	for (const struct migration *m = s->migrations; m; m = m->next)
		if (m->snapshot == snapshots)
			json_array_append_new(a, migration_json(m));
	return a;
}
