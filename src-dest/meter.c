/* SPDX-License-Identifier: Apache-2.0 */
#include "meter.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "audit/audit.h"
#include "hooks/hooks_metrics.h"
#include "incoming_priv.h"
#include "listen.h"
#include "metrics/metrics.h"
#include "micro_priv.h"
#include "tls/tls_stats.h"
#include "util/cleanup.h"
#include "util/clock.h"

static const char *const outcomes[] = {"completed", "failed", "aborted"};

/* Codes of refusals; what a peer can make of them is bounded by this list. */
static const char *const reasons[] = {
	"tls-not-allowed",      "bad-token",   "version",
	"unexpected-message",   "bad-message", "limit-incoming",
	"too-many-connections", "guest-held",  "timeout",
	"migration-ended",      "guest-gone",  "other",
};

/* The same of guests that were not let in. */
static const char *const objections[] = {
	"no-room",          "limit-memory",   "guest-exists",  "guest-outdated", "no-launcher",
	"unknown-launcher", "wrong-driver",   "bad-name",      "page-size",      "host-postcopy",
	"no-postcopy",      "no-userfaultfd", "not-supported", "other",
};

/**
 * struct sums - of many guests
 * @faults, @requests: in post-copy
 * @received_bytes: of pages
 * @blocked_us:	for so long all of the vCPU threads of a guest waited at once
 */
struct sums {
	uint64_t faults;
	uint64_t requests;
	uint64_t received_bytes;
	uint64_t blocked_us;
};

/**
 * struct meter - what is counted where it ends
 * @begun, @ended: incoming guests, without micro-VMs
 * @refused:	connections, by reason; @objected: guests
 * @sums, @latency: of guests that have settled, or are gone
 */
struct meter {
	uint64_t begun;
	uint64_t ended[ARRAY_SIZE(outcomes)];
	uint64_t refused[ARRAY_SIZE(reasons)];
	uint64_t objected[ARRAY_SIZE(objections)];
	struct sums sums;
	struct hist latency;
};

static void add(struct sums *s, const struct place *p)
{
	struct blocktime_sums *b = p->blocktime ? calloc(1, sizeof(*b)) : NULL;

	s->faults += atomic_load(&p->faults);
	s->requests += atomic_load(&p->requests);
	if (b) {
		blocktime_read(p->blocktime, clock_us(), b);
		s->blocked_us += b->all_us;
	}
	free(b);
}

void meter_incoming_begun(struct dest *d)
{
	d->meter->begun++;
}

void meter_incoming_ended(const struct incoming *inc)
{
	struct meter *v = inc->d->meter;

	v->ended[metrics_index(incoming_view_phase(inc), outcomes, ARRAY_SIZE(outcomes))]++;
	v->sums.received_bytes += incoming_view_received(inc);
	if (!inc->placed)
		return;
	add(&v->sums, &inc->place);
	hist_merge(&v->latency, &inc->place.latency);
}

void meter_micro_ended(const struct micro *m)
{
	if (!m->placed)
		return;
	add(&m->d->meter->sums, &m->place);
	hist_merge(&m->d->meter->latency, &m->place.latency);
}

void meter_refused(struct dest *d, const char *code)
{
	d->meter->refused[metrics_index(code, reasons, ARRAY_SIZE(reasons))]++;
}

void meter_objected(struct dest *d, const char *code)
{
	d->meter->objected[metrics_index(code, objections, ARRAY_SIZE(objections))]++;
}

/* --- guests that arrive, each --- */

/**
 * struct view - of one guest, taken once for each text
 * @id, @guest, @phase, @kind: see GET /v1/incoming
 * @place:	NULL before there is one
 * @total, @came: bytes of memory; of pages that came
 */
struct view {
	const char *id, *guest, *phase, *kind;
	const struct place *place;
	uint64_t total, came;
};

/** struct column - a family that has one sample for each of them */
struct column {
	const char *name;
	enum metrics_kind kind;
	const char *help;
	double (*value)(const struct view *v);
};

static double memory_bytes(const struct view *v)
{
	return (double)v->total;
}

static double received_bytes(const struct view *v)
{
	return (double)v->came;
}

/* Of the guest's memory, not of what came. */
static double missing_bytes(const struct view *v)
{
	uint64_t sum = 0;

	for (unsigned int i = 0; v->place && i < v->place->n; i++) {
		const struct place_block *b = &v->place->blocks[i];

		sum += (b->npages - MIN(b->npages, atomic_load(&b->received))) * b->page_size;
	}
	return (double)sum;
}

static double zero_bytes(const struct view *v)
{
	uint64_t sum = 0;

	for (unsigned int i = 0; v->place && i < v->place->n; i++) {
		const struct place_block *b = &v->place->blocks[i];

		sum += b->pages ? pages_count(b->pages, PAGES_ZERO) * b->page_size : 0;
	}
	return (double)sum;
}

static double faults(const struct view *v)
{
	return v->place ? (double)atomic_load(&v->place->faults) : 0;
}

static double requests(const struct view *v)
{
	return v->place ? (double)atomic_load(&v->place->requests) : 0;
}

static double outstanding(const struct view *v)
{
	return v->place ? (double)atomic_load(&v->place->outstanding) : 0;
}

static double latency_max(const struct view *v)
{
	return v->place ? (double)hist_quantile(&v->place->latency, 1) / 1e6 : 0;
}

static double blocked(const struct view *v)
{
	struct sums s = {0};

	if (v->place)
		add(&s, v->place);
	return (double)s.blocked_us / 1e6;
}

static const struct column columns[] = {
	{"decant_incoming_memory_bytes", METRICS_GAUGE, "Memory of a guest that arrives.",
	 memory_bytes},
	{"decant_incoming_received_bytes_total", METRICS_COUNTER,
	 "Bytes of pages that came, repeats included.", received_bytes},
	{"decant_incoming_missing_bytes", METRICS_GAUGE, "Memory that is not there yet.",
	 missing_bytes},
	{"decant_incoming_zero_bytes", METRICS_GAUGE, "Memory that is known to be zeros.",
	 zero_bytes},
	{"decant_incoming_faults_total", METRICS_COUNTER, "Faults of the guest on missing pages.",
	 faults},
	{"decant_incoming_requests_total", METRICS_COUNTER, "Pages asked for.", requests},
	{"decant_incoming_requests_outstanding", METRICS_GAUGE,
	 "Pages that were asked for and have not come.", outstanding},
	{"decant_incoming_fault_latency_max_seconds", METRICS_GAUGE,
	 "Longest time that a fault was not answered.", latency_max},
	{"decant_incoming_blocked_seconds_total", METRICS_COUNTER,
	 "For so long all of the guest's vCPU threads waited at once.", blocked},
};

static size_t take_views(const struct dest *d, struct view *v)
{
	size_t n = 0;

	for (const struct incoming *i = d->incomings; i && n < METRICS_JOBS_MAX;
	     i = incoming_next(i))
		v[n++] = (struct view){i->id_text,
				       i->setup ? i->setup->name : "",
				       incoming_view_phase(i),
				       i->store     ? "image"
				       : i->restore ? "restore"
						    : "migration",
				       i->placed ? &i->place : NULL,
				       i->total,
				       incoming_view_received(i)};
	for (const struct micro *m = d->micros; m && n < METRICS_JOBS_MAX; m = micro_next(m))
		v[n++] = (struct view){m->id_text,
				       m->image,
				       micro_state_name(m->state),
				       "micro-vm",
				       m->placed ? &m->place : NULL,
				       m->memory,
				       0};
	return n;
}

static void write_views(struct metrics *out, const struct view *v, size_t n)
{
	metrics_family(out, "decant_incoming_info", METRICS_GAUGE, "A guest that arrives.");
	for (size_t i = 0; i < n; i++)
		metrics_uint(out,
			     METRICS_LABELS({"job", v[i].id}, {"kind", v[i].kind},
					    {"guest", v[i].guest}, {"phase", v[i].phase}),
			     1);
	for (size_t c = 0; c < ARRAY_SIZE(columns); c++) {
		metrics_family(out, columns[c].name, columns[c].kind, columns[c].help);
		for (size_t i = 0; i < n; i++)
			metrics_real(out, METRICS_LABELS({"job", v[i].id}),
				     columns[c].value(&v[i]));
	}
}

/* --- all of them, and the host --- */

static void one(struct metrics *out, const char *name, enum metrics_kind kind, const char *help,
		uint64_t value)
{
	metrics_family(out, name, kind, help);
	metrics_uint(out, NULL, value);
}

static void write_counts(struct metrics *out, const struct dest *d)
{
	const struct meter *v = d->meter;
	uint64_t micros = 0;

	for (const struct micro *m = d->micros; m; m = micro_next(m))
		micros++;
	one(out, "decant_incoming", METRICS_GAUGE, "Guests that arrive, or are held.",
	    d->n_incomings);
	one(out, "decant_micro_vms", METRICS_GAUGE, "Micro-VMs that are served, or waited for.",
	    micros);
	one(out, "decant_incoming_begun_total", METRICS_COUNTER,
	    "Sessions and restores that were begun since the agent was started.", v->begun);
	metrics_family(out, "decant_incoming_ended_total", METRICS_COUNTER,
		       "Sessions and restores that have ended since the agent was started.");
	for (size_t i = 0; i < ARRAY_SIZE(outcomes); i++)
		metrics_uint(out, METRICS_LABELS({"outcome", outcomes[i]}), v->ended[i]);
	one(out, "decant_connections_waiting", METRICS_GAUGE,
	    "Connections that no session has yet.", listen_waiting(d->listener));
	metrics_family(out, "decant_connections_refused_total", METRICS_COUNTER,
		       "Connections that were refused behind their TLS handshake, by reason.");
	for (size_t i = 0; i < ARRAY_SIZE(reasons); i++)
		metrics_uint(out, METRICS_LABELS({"reason", reasons[i]}), v->refused[i]);
	metrics_family(out, "decant_incoming_refused_total", METRICS_COUNTER,
		       "Guests that were not admitted, by reason.");
	for (size_t i = 0; i < ARRAY_SIZE(objections); i++)
		metrics_uint(out, METRICS_LABELS({"reason", objections[i]}), v->objected[i]);
}

static void write_sums(struct metrics *out, const struct dest *d)
{
	struct sums s = d->meter->sums;
	struct hist *latency = malloc(sizeof(*latency));

	if (!latency)
		return;
	*latency = d->meter->latency;
	for (const struct incoming *i = d->incomings; i; i = incoming_next(i)) {
		s.received_bytes += incoming_view_received(i);
		if (i->placed) {
			add(&s, &i->place);
			hist_merge(latency, &i->place.latency);
		}
	}
	for (const struct micro *m = d->micros; m; m = micro_next(m)) {
		if (m->placed) {
			add(&s, &m->place);
			hist_merge(latency, &m->place.latency);
		}
	}
	one(out, "decant_memory_received_bytes_total", METRICS_COUNTER,
	    "Bytes of pages that came, of all guests.", s.received_bytes);
	one(out, "decant_faults_total", METRICS_COUNTER, "Faults on missing pages, of all guests.",
	    s.faults);
	one(out, "decant_pages_requested_total", METRICS_COUNTER, "Pages asked for, of all guests.",
	    s.requests);
	metrics_family(out, "decant_blocked_seconds_total", METRICS_COUNTER,
		       "For so long all vCPU threads of a guest waited at once, of all guests.");
	metrics_us(out, NULL, s.blocked_us);
	metrics_family(out, "decant_fault_latency_seconds", METRICS_HISTOGRAM,
		       "From a fault on a missing page to its answer, of all guests.");
	metrics_hist(out, NULL, latency);
	free(latency);
}

static void write_channel(struct metrics *out, const struct incoming *inc, const char *kind,
			  unsigned int i, const struct tally *t)
{
	char index[16];

	snprintf(index, sizeof(index), "%u", i);
	metrics_uint(out, METRICS_LABELS({"job", inc->id_text}, {"kind", kind}, {"channel", index}),
		     atomic_load(&t->bytes));
}

static void write_channels(struct metrics *out, const struct dest *d)
{
	unsigned int n = 0;

	metrics_family(out, "decant_incoming_channel_received_bytes_total", METRICS_COUNTER,
		       "Bytes of pages that came on a channel; of a bulk channel they begin anew "
		       "with each connection.");
	for (const struct incoming *inc = d->incomings; inc && n < METRICS_JOBS_MAX;
	     inc = incoming_next(inc), n++) {
		if (inc->had_urgent)
			write_channel(out, inc, "urgent", 0, &inc->urgent_tally);
		for (unsigned int i = 0; i < MSG_CHANNELS_MAX; i++)
			if (inc->bulk[i])
				write_channel(out, inc, "bulk", i, receive_tally(inc->bulk[i]));
	}
}

static void write_all(struct metrics *out, void *arg)
{
	struct dest *d = arg;
	struct view *v = calloc(METRICS_JOBS_MAX, sizeof(*v));

	if (!v)
		return;
	write_counts(out, d);
	write_sums(out, d);
	tls_stats_write(out, d->tls);
	hooks_metrics(out, d->hooks);
	metrics_family(out, "decant_audit_lost_total", METRICS_COUNTER,
		       "Lines of the audit that could not be written.");
	metrics_uint(out, NULL, audit_lost(d->audit));
	write_views(out, v, take_views(d, v));
	write_channels(out, d);
	free(v);
}

int meter_start(struct dest *d, struct error *err)
{
	d->meter = calloc(1, sizeof(*d->meter));
	return metrics_start("dest", d->meter, write_all, d, &d->metrics, err);
}

void meter_stop(struct dest *d)
{
	metrics_registry_free(steal_ptr(&d->metrics));
	free(steal_ptr(&d->meter));
}
