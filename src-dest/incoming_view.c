/* SPDX-License-Identifier: Apache-2.0 */
/* An incoming migration as the REST interface shows it. */
#include <string.h>
#include "incoming_priv.h"
#include "micro.h"
#include "rest/rest_events.h"
#include "util/cleanup.h"
#include "util/clock.h"
#include "util/jsonout.h"

static json_t *number(uint64_t n)
{
	return json_integer((json_int_t)n);
}

/* `end` says nothing to a client: how it ended does. */
const char *incoming_view_phase(const struct incoming *inc)
{
	if (inc->state != INC_END)
		return inc_state_name(inc->state);
	if (inc->end_event == INC_EV_ACCOUNTED || inc->end_event == INC_EV_STORED)
		return "completed";
	return inc->past && inc->past->fate == HISTORY_GONE ? "failed" : "aborted";
}

uint64_t incoming_view_received(const struct incoming *inc)
{
	uint64_t n = atomic_load(&inc->urgent_tally.bytes);

	for (unsigned int i = 0; i < MSG_CHANNELS_MAX; i++)
		if (inc->bulk[i])
			n += atomic_load(&receive_tally(inc->bulk[i])->bytes);
	return n + inc->closed_bytes;
}

json_t *incoming_view_memory(const struct place *p, uint64_t total, uint64_t came)
{
	uint64_t pages = 0, received = 0, zero = 0;

	for (unsigned int i = 0; i < p->n; i++) {
		const struct place_block *b = &p->blocks[i];

		pages += b->npages;
		received += atomic_load(&b->received);
		zero += b->pages ? pages_count(b->pages, PAGES_ZERO) : 0;
	}
	return json_pack("{s:o, s:o, s:o, s:o, s:o}", "total_bytes", number(total),
			 "received_pages", number(received), "missing_pages",
			 number(pages - received), "zero_pages", number(zero), "received_bytes",
			 number(came));
}

static json_t *buckets_json(const struct hist *h)
{
	json_t *a = json_array();

	for (size_t i = 0; a && i < HIST_BUCKETS; i++) {
		uint64_t n = __atomic_load_n(&h->count[i], __ATOMIC_RELAXED);

		if (n)
			json_array_append_new(a, json_pack("{s:o, s:o}", "le_us",
							   number(hist_bucket_le(i)), "count",
							   number(n)));
	}
	return a;
}

/* While it runs, waits under way included; null for a guest that names no vCPU threads. */
static json_t *block_time_json(const struct place *p)
{
	struct blocktime_sums s = {0};
	json_t *threads;

	if (!p->blocktime)
		return json_null();
	blocktime_read(p->blocktime, clock_us(), &s);
	threads = json_array();
	for (unsigned int i = 0; threads && i < s.n; i++)
		json_array_append_new(threads, number(s.thread_us[i]));
	return json_pack("{s:o, s:o}", "all_threads", number(s.all_us), "threads", threads);
}

json_t *incoming_view_postcopy(const struct place *p)
{
	const struct hist *h = &p->latency;

	return json_pack("{s:o, s:o, s:{s:o, s:o, s:o, s:o, s:o}, s:o}", "faults",
			 number(atomic_load(&p->faults)), "requests",
			 number(atomic_load(&p->requests)), "latency_us", "p50",
			 number(hist_quantile(h, 0.5)), "p90", number(hist_quantile(h, 0.9)), "p99",
			 number(hist_quantile(h, 0.99)), "max", number(hist_quantile(h, 1)),
			 "buckets", buckets_json(h), "block_time_us", block_time_json(p));
}

static void add_channel(const struct incoming *inc, json_t *a, const char *kind, uint64_t bytes,
			bool open)
{
	uint64_t end = inc->ended_us ? inc->ended_us : clock_wall_us();
	uint64_t us = end > inc->created_us ? end - inc->created_us : 1;

	json_array_append_new(a, json_pack("{s:s, s:o, s:o, s:s}", "kind", kind, "bytes",
					   number(bytes), "rate_bytes_per_s",
					   number((uint64_t)((double)bytes * 1e6 / (double)us)),
					   "state", open ? "open" : "closed"));
}

static json_t *channels_json(const struct incoming *inc)
{
	json_t *a = json_array();

	if (!a)
		return NULL;
	add_channel(inc, a, "control", 0, inc->control);
	if (inc->had_urgent)
		add_channel(inc, a, "urgent", atomic_load(&inc->urgent_tally.bytes),
			    inc->urgent || (inc->fault && inc->state != INC_HELD));
	for (unsigned int i = 0; i < MSG_CHANNELS_MAX; i++)
		if (inc->bulk[i])
			add_channel(inc, a, "bulk",
				    atomic_load(&receive_tally(inc->bulk[i])->bytes),
				    receive_open(inc->bulk[i]));
	return a;
}

/* The image that is written, or read; NULL for a migration. */
static const char *snapshot(const struct incoming *inc)
{
	return inc->store ? inc->store->name : inc->restore ? restore_name(inc->restore) : NULL;
}

/* It was told no, by whichever part of this host (parts.h): nothing had been started. */
static bool refused(const struct incoming *inc)
{
	return inc->state == INC_END && inc->stage == STAGE_ADMIT && !inc->store;
}

/* Before the action of the step: the phase knows how it ended only behind it. */
void incoming_publish(const struct incoming *inc, enum inc_state was)
{
	bool ran = was == INC_RUNNING || was == INC_HELD;
	const char *now = incoming_view_phase(inc);

	if (inc->state == INC_END && strcmp(now, "completed") != 0)
		now = ran ? "failed" : "aborted";
	rest_events_publish(inc->d->events, "incoming",
			    json_pack("{s:s, s:s, s:s, s:s, s:o}", "id", inc->id_text, "guest",
				      inc->setup ? inc->setup->name : "", "from", inc->from,
				      "phase", now, "error", jsonout_error(&inc->err)));
}

void incoming_show(struct rest_events *ev, void *arg)
{
	const struct dest *d = arg;

	for (const struct incoming *inc = d->incomings; inc; inc = inc->next)
		if (inc->state != INC_END)
			rest_events_show(ev, "progress", incoming_view(inc));
	for (const struct micro *m = d->micros; m; m = micro_next(m))
		if (micro_find(d, micro_id(m)))
			rest_events_show(ev, "progress", micro_view(m));
}

json_t *incoming_view(const struct incoming *inc)
{
	char uuid[UUID_TEXT_MAX] = "";
	json_t *memory = incoming_view_memory(&inc->place, inc->total, incoming_view_received(inc));

	if (inc->setup)
		uuid_text(inc->setup->uuid, uuid);
	return json_pack(
		"{s:s, s:s, s:s, s:s, s:s, s:s, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:b, s:s*}",
		"id", inc->id_text, "guest", inc->setup ? inc->setup->name : "", "uuid", uuid,
		"phase", incoming_view_phase(inc), "from", inc->from, "identity", inc->identity,
		"created_at", jsonout_time(inc->created_us), "ended_at",
		jsonout_time(inc->ended_us), "error", jsonout_error(&inc->err), "memory", memory,
		"postcopy", incoming_view_postcopy(&inc->place), "channels", channels_json(inc),
		"digest_ok", inc->receipt_ok < 0 ? json_null() : json_boolean(inc->receipt_ok),
		"refused", refused(inc), "snapshot", snapshot(inc));
}
