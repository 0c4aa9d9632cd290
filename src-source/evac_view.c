/* SPDX-License-Identifier: Apache-2.0 */
/* An evacuation as clients see it: the object of the contract. */
#include <string.h>

#include "evac_priv.h"
#include "util/cleanup.h"
#include "util/jsonout.h"

/* Bytes a second, where nothing was measured and no limit is set. */
#define RATE_ASSUMED 500000000ull

static json_t *number(uint64_t n)
{
	return json_integer((json_int_t)n);
}

static json_t *text_json(const char *s)
{
	return *s ? json_string(s) : json_null();
}

/* --- one guest --- */

/** struct moving - what is known of a migration under way; zeros without */
struct moving {
	bool is;
	struct mig_progress p;
};

static struct moving moving_of(const struct evac *e, const struct evac_item *it)
{
	struct moving v = {0};
	const struct migration *m = *it->migration ? migration_find(e->s, it->migration) : NULL;

	v.is = m && it->outcome == EVAC_MIGRATING;
	if (m)
		mig_progress(m, &v.p);
	return v;
}

static uint64_t left_of(const struct evac_item *it, const struct moving *v)
{
	if (it->outcome == EVAC_WAITING)
		return it->bytes;
	return v->is ? v->p.remaining : 0;
}

static json_t *guest_json(const struct evac *e, const struct evac_item *it)
{
	struct moving v = moving_of(e, it);
	const char *to = it->host >= 0 ? e->dests[it->host].to : "";

	return json_pack("{s:s, s:o, s:o, s:s, s:o, s:o, s:o, s:i, s:o, s:o, s:o, s:o}", "name",
			 it->name, "migration", text_json(it->migration), "to", text_json(to),
			 "outcome", evac_outcome_name(it->outcome), "phase",
			 v.is ? json_string(mig_state_phase(v.p.state)) : json_null(), "reason",
			 text_json(it->why.msg), "code", text_json(it->why.code), "turn",
			 (int)it->turn, "memory_bytes", number(it->bytes), "remaining_bytes",
			 number(left_of(it, &v)), "dirty_bytes_per_s",
			 it->dirty == EVAC_DIRTY_UNKNOWN ? json_null() : number(it->dirty),
			 "downtime_us", v.p.downtime_us ? number(v.p.downtime_us) : json_null());
}

/* By their turn: that is the plan. */
static json_t *guests_array(const struct evac *e)
{
	json_t *a = json_array();

	for (size_t turn = 0, done = 0; a && done < e->n; turn++)
		for (size_t i = 0; i < e->n; i++) {
			if (e->items[i]->turn != turn)
				continue;
			json_array_append_new(a, guest_json(e, e->items[i]));
			done++;
		}
	return a;
}

/* --- all of them --- */

/** struct sums - over all guests */
struct sums {
	uint64_t n[EVAC_OUTCOMES_];
	uint64_t bytes;
	uint64_t moved;
	uint64_t sent;
	uint64_t left;
	uint64_t rate;
};

static struct sums sum_up(const struct evac *e)
{
	struct sums s = {0};

	for (size_t i = 0; i < e->n; i++) {
		const struct evac_item *it = e->items[i];
		struct moving v = moving_of(e, it);

		s.n[it->outcome]++;
		s.bytes += it->bytes;
		s.moved += it->outcome == EVAC_MOVED ? it->bytes : 0;
		s.sent += MAX(it->sent, v.p.sent);
		s.left += left_of(it, &v);
		s.rate += v.is ? v.p.rate : 0;
	}
	return s;
}

/* What it will probably go at; where that is known from. */
static uint64_t expected_rate(const struct evac *e, const struct sums *s, const char **ret_from)
{
	uint64_t measured = s->rate ? s->rate : mig_measured_rate(e->s);

	*ret_from = "measured";
	if (e->wish.bandwidth && (!measured || e->wish.bandwidth < measured)) {
		*ret_from = "bandwidth";
		return e->wish.bandwidth;
	}
	if (measured)
		return measured;
	*ret_from = "assumed";
	return RATE_ASSUMED;
}

static json_t *totals_json(const struct evac *e)
{
	struct sums s = sum_up(e);
	const char *from;
	uint64_t rate = expected_rate(e, &s, &from);
	bool open = !evac_ended(e) || e->phase == EVAC_PLANNED;
	json_t *o =
		json_pack("{s:I, s:o, s:o, s:o, s:o, s:o, s:s, s:o}", "guests", (json_int_t)e->n,
			  "memory_bytes", number(s.bytes), "moved_bytes", number(s.moved),
			  "sent_bytes", number(s.sent), "remaining_bytes", number(s.left),
			  "rate_bytes_per_s", number(rate), "rate_from", from, "eta_s",
			  open ? json_real((double)s.left / (double)rate) : json_null());

	for (int i = 0; o && i < EVAC_OUTCOMES_; i++)
		json_object_set_new(o, evac_outcome_name((enum evac_outcome)i), number(s.n[i]));
	return o;
}

static json_t *dest_json(const struct evac_dest *d)
{
	const struct error *why = error_is_set(&d->refuses) ? &d->refuses : &d->note;

	return json_pack("{s:s, s:s, s:o, s:o, s:o, s:o}", "to", d->to, "state",
			 error_is_set(&d->refuses) ? "refuses"
			 : d->known                ? "known"
			 : error_is_set(&d->note)  ? "unknown"
						   : "not-asked",
			 "reason", jsonout_error(why), "memory_bytes",
			 d->known ? number(d->memory) : json_null(), "incoming",
			 d->known ? number(d->incoming) : json_null(), "incoming_limit",
			 d->known ? number(d->limit) : json_null());
}

static json_t *dests_json(const struct evac *e)
{
	json_t *a = json_array();

	for (unsigned int i = 0; a && i < e->wish.n_to; i++)
		json_array_append_new(a, dest_json(&e->dests[i]));
	return a;
}

/* Of this host's decant-dest: whether it obeys the cordon, and whom it has that we have not. */
static json_t *home_json(const struct evac *e)
{
	const struct home *h = &e->home;

	if (!e->home_us)
		return json_null();
	return json_pack("{s:s, s:o, s:i, s:i, s:i, s:i}", "state", home_state_name(h->state),
			 "reason", jsonout_error(&h->why), "arriving", (int)h->arriving, "held",
			 (int)h->held, "resident", (int)h->resident, "micro", (int)h->micro);
}

json_t *evac_json(const struct evac *e)
{
	json_t *o = json_pack("{s:s, s:s, s:b, s:s, s:i, s:o, s:o, s:o, s:o}", "id", e->id, "phase",
			      evac_phase_name(e->phase), "dry_run", e->wish.dry_run, "order",
			      evac_order_name(e->wish.order), "concurrency",
			      (int)e->wish.concurrency, "bandwidth", number(e->wish.bandwidth),
			      "error", jsonout_error(&e->err), "created_at",
			      jsonout_time(e->created_us), "ended_at", jsonout_time(e->ended_us));

	if (!o)
		return NULL;
	json_object_set_new(o, "destinations", dests_json(e));
	json_object_set_new(o, "home", home_json(e));
	json_object_set_new(o, "guests", guests_array(e));
	json_object_set_new(o, "totals", totals_json(e));
	json_object_set_new(o, "options", conf_options_json(&e->wish.options));
	return o;
}

json_t *evacs_json(const struct source *s)
{
	json_t *a = json_array();

	for (const struct evac *e = s->evacs; e; e = e->next)
		json_array_append_new(a, evac_json(e));
	return a;
}
