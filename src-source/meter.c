/* SPDX-License-Identifier: Apache-2.0 */
#include "meter.h"

#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "audit/audit.h"
#include "budget/budget.h"
#include "guests.h"
#include "hooks/hooks_metrics.h"
#include "metrics/metrics.h"
#include "migration_priv.h"
#include "sender.h"
#include "tls/tls_stats.h"
#include "urgent.h"
#include "util/cleanup.h"

/** enum job_kind - what a job does */
enum job_kind { JOB_MIGRATION, JOB_SNAPSHOT, JOB_KINDS };
/** enum outcome - how it ended */
enum outcome { OUT_COMPLETED, OUT_FAILED, OUT_CANCELLED, OUTCOMES };

static const char *const kinds[] = {"migration", "snapshot"};
static const char *const outcomes[] = {"completed", "failed", "cancelled"};

/* Codes of errors; what a peer can make of them is bounded by this list. */
static const char *const codes[] = {
	"no-room",        "limit-memory",       "limit-incoming",   "host-cordoned",
	"guest-exists",   "guest-outdated",     "unknown-launcher", "wrong-driver",
	"block-differs",  "page-size",          "host-postcopy",    "attach-timeout",
	"version",        "tls-unreachable",    "channel-lost",     "lost",
	"peer-lost",      "reconnect-timeout",  "agent-restarted",  "timeout",
	"not-started",    "no-acknowledgement", "digest-mismatch",  "receipt-mismatch",
	"not-converging", "gate-refused",       "guest-gone",       "guest-timeout",
	"guest-memory",   "tracking-refused",   "tracking-failed",  "other",
};

/**
 * struct sums - of many jobs; names as in migration_totals
 */
struct sums {
	uint64_t sent_bytes;
	uint64_t wire_bytes;
	uint64_t zero_pages;
	uint64_t requests;
	uint64_t passes;
};

/**
 * struct meter - what is counted where it ends
 * @begun, @ended: jobs
 * @sums:	of those that have ended
 * @downtime:	of completed migrations; @pause: that of snapshots
 * @failed:	jobs that have failed, by the code of their error
 * @stall, @service: of write faults and requests, in engines that are no more
 */
struct meter {
	uint64_t begun[JOB_KINDS];
	uint64_t ended[JOB_KINDS][OUTCOMES];
	uint64_t failed[ARRAY_SIZE(codes)];
	struct sums sums;
	struct hist downtime;
	struct hist pause;
	struct hist stall;
	struct hist service;
};

static enum job_kind kind_of(const struct migration *m)
{
	return m->snapshot ? JOB_SNAPSHOT : JOB_MIGRATION;
}

static void add(struct sums *s, const struct migration_totals *t)
{
	s->sent_bytes += t->sent_bytes;
	s->wire_bytes += t->wire_bytes;
	s->zero_pages += t->zero_pages;
	s->requests += t->requests;
	s->passes += t->passes;
}

void meter_engine_end(const struct migration *m)
{
	hist_merge(&m->src->meter->stall, &m->engine->stats.stall);
	hist_merge(&m->src->meter->service, &m->engine->stats.service);
}

void meter_job_begun(const struct migration *m)
{
	m->src->meter->begun[kind_of(m)]++;
}

void meter_job_ended(const struct migration *m)
{
	struct meter *v = m->src->meter;
	enum outcome how = m->state == MIG_COMPLETED   ? OUT_COMPLETED
			   : m->state == MIG_CANCELLED ? OUT_CANCELLED
						       : OUT_FAILED;

	v->ended[kind_of(m)][how]++;
	if (how == OUT_FAILED)
		v->failed[metrics_index(m->err.code, codes, ARRAY_SIZE(codes))]++;
	add(&v->sums, &m->totals);
	if (m->downtime_us && !m->downtime_most)
		hist_add(m->snapshot ? &v->pause : &v->downtime, m->downtime_us);
}

/* --- jobs under way, each --- */

/** struct view - of one job, taken once for each text */
struct view {
	const struct migration *m;
	struct migration_totals t;
};

/**
 * struct column - a family that has one sample for each job
 * @kind:	METRICS_COUNTER or METRICS_GAUGE
 * @value:	of a job
 */
struct column {
	const char *name;
	enum metrics_kind kind;
	const char *help;
	double (*value)(const struct view *v);
};

static double memory_bytes(const struct view *v)
{
	return (double)v->t.total_bytes;
}

static double sent_bytes(const struct view *v)
{
	return (double)v->t.sent_bytes;
}

static double wire_bytes(const struct view *v)
{
	return (double)v->t.wire_bytes;
}

static double zero_pages(const struct view *v)
{
	return (double)v->t.zero_pages;
}

static double remaining_bytes(const struct view *v)
{
	return (double)v->t.remaining_bytes;
}

static double held_back(const struct view *v)
{
	return (double)v->t.held_bytes;
}

static double dirty_rate(const struct view *v)
{
	return (double)v->t.dirty_rate;
}

static double passes(const struct view *v)
{
	return (double)v->t.passes;
}

static double rate(const struct view *v)
{
	return (double)v->t.rate;
}

static double requests(const struct view *v)
{
	return (double)v->t.requests;
}

static double refused_runs(const struct view *v)
{
	return v->m->engine ? (double)atomic_load(&v->m->engine->stats.nacks) : 0;
}

static double lost_channels(const struct view *v)
{
	return v->m->engine ? (double)atomic_load(&v->m->engine->losses) : 0;
}

static double stall_max(const struct view *v)
{
	return (double)v->t.stall_max_us / 1e6;
}

static double downtime(const struct view *v)
{
	return (double)v->m->downtime_us / 1e6;
}

static double stopped_max(const struct view *v)
{
	return (double)v->m->injection.max_us / 1e6;
}

static double stops(const struct view *v)
{
	return (double)v->m->injection.stops;
}

static double attempts(const struct view *v)
{
	return v->m->again.attempts;
}

static double control_queue(const struct view *v)
{
	return v->m->control ? (double)conn_queued(v->m->control) : 0;
}

static double saved_queue(const struct view *v)
{
	return v->m->engine ? (double)atomic_load(&v->m->engine->saved_bytes) : 0;
}

static const struct column columns[] = {
	{"decant_job_memory_bytes", METRICS_GAUGE, "Guest memory to move.", memory_bytes},
	{"decant_job_sent_bytes_total", METRICS_COUNTER,
	 "Guest memory sent as data, repeats included.", sent_bytes},
	{"decant_job_wire_bytes_total", METRICS_COUNTER, "Bytes sent on all channels.", wire_bytes},
	{"decant_job_zero_pages_total", METRICS_COUNTER, "Pages sent as zeros, repeats included.",
	 zero_pages},
	{"decant_job_remaining_bytes", METRICS_GAUGE, "Guest memory unsent or dirty.",
	 remaining_bytes},
	{"decant_job_held_bytes", METRICS_GAUGE,
	 "Guest memory that may not be copied yet because devices write there.", held_back},
	{"decant_job_dirty_pages_per_second", METRICS_GAUGE,
	 "Pages a second that the guest has written, as of the last look.", dirty_rate},
	{"decant_job_passes_total", METRICS_COUNTER, "Passes of precopy done.", passes},
	{"decant_job_rate_bytes_per_second", METRICS_GAUGE,
	 "Guest memory a second in the last pass.", rate},
	{"decant_job_requests_total", METRICS_COUNTER, "Pages that the destination asked for.",
	 requests},
	{"decant_job_refused_runs_total", METRICS_COUNTER,
	 "Runs of pages that the destination refused for their digest.", refused_runs},
	{"decant_job_lost_channels_total", METRICS_COUNTER,
	 "Data channels that were lost while the session stood.", lost_channels},
	{"decant_job_write_stall_max_seconds", METRICS_GAUGE,
	 "Longest time that a writer of the guest waited for write tracking.", stall_max},
	{"decant_job_downtime_seconds", METRICS_GAUGE,
	 "How long the guest stood still for the switch; 0 as long as it has not.", downtime},
	{"decant_job_stops_total", METRICS_COUNTER,
	 "How often a thread of the guest was stopped from outside.", stops},
	{"decant_job_stop_max_seconds", METRICS_GAUGE, "Longest of these.", stopped_max},
	{"decant_job_recovery_attempts", METRICS_GAUGE, "Sessions tried since one was lost.",
	 attempts},
	{"decant_job_control_queue_bytes", METRICS_GAUGE, "Bytes queued on the control channel.",
	 control_queue},
	{"decant_job_saved_queue_bytes", METRICS_GAUGE,
	 "Of a snapshot: pages that were saved and are not sent.", saved_queue},
};

static void write_columns(struct metrics *out, const struct view *v, size_t n)
{
	for (size_t c = 0; c < ARRAY_SIZE(columns); c++) {
		metrics_family(out, columns[c].name, columns[c].kind, columns[c].help);
		for (size_t i = 0; i < n; i++)
			metrics_real(out, METRICS_LABELS({"job", v[i].m->id}),
				     columns[c].value(&v[i]));
	}
}

static void write_infos(struct metrics *out, const struct view *v, size_t n)
{
	metrics_family(out, "decant_job_info", METRICS_GAUGE, "A job under way.");
	for (size_t i = 0; i < n; i++) {
		const struct migration *m = v[i].m;

		metrics_uint(out,
			     METRICS_LABELS({"job", m->id}, {"kind", kinds[kind_of(m)]},
					    {"guest", m->guest_name}, {"to", m->to},
					    {"mode", conf_options_mode_name(m->options.mode)},
					    {"phase", mig_state_phase(m->state)},
					    {"owner", mig_owner_name(m->state, m->committed)},
					    {"tracking", m->tracking}),
			     1);
	}
}

/** enum of_channel - what is said of each channel of each job */
enum of_channel { CHANNEL_BYTES, CHANNEL_UP, CHANNEL_QUEUE };

static void write_channel(struct metrics *out, const struct view *v, uint32_t i,
			  enum of_channel what)
{
	const struct mig_channel *c = &v->t.channels[i];
	const struct engine *e = v->m->engine;
	char index[16];
	uint32_t bulk = i - (v->t.nchannels - (e ? e->nsenders : 0));

	snprintf(index, sizeof(index), "%u", i);
	const struct metrics_label labels[] = {
		{"job", v->m->id}, {"channel", index}, {"kind", c->kind}, {NULL, NULL}};

	if (what == CHANNEL_BYTES)
		metrics_uint(out, labels, c->bytes);
	else if (what == CHANNEL_UP)
		metrics_uint(out, labels, e && !c->lost);
	else if (e && !strcmp(c->kind, "bulk") && bulk < e->nsenders)
		metrics_uint(out, labels, RUNQ_MAX - runq_room(&e->senders[bulk]->queue));
}

static void write_channels(struct metrics *out, const struct view *v, size_t n)
{
	static const struct {
		const char *name;
		enum metrics_kind kind;
		const char *help;
	} families[] = {
		[CHANNEL_BYTES] = {"decant_job_channel_sent_bytes_total", METRICS_COUNTER,
				   "Bytes sent on a channel; begins anew with each connection."},
		[CHANNEL_UP] = {"decant_job_channel_up", METRICS_GAUGE,
				"1 for a channel that stands, 0 for one that is lost."},
		[CHANNEL_QUEUE] = {"decant_job_channel_queue_runs", METRICS_GAUGE,
				   "Runs of pages that wait for a channel."},
	};

	for (size_t f = 0; f < ARRAY_SIZE(families); f++) {
		metrics_family(out, families[f].name, families[f].kind, families[f].help);
		for (size_t i = 0; i < n; i++)
			for (uint32_t c = 0; c < v[i].t.nchannels; c++)
				write_channel(out, &v[i], c, (enum of_channel)f);
	}
}

/* --- all of them, and the host --- */

static void write_jobs(struct metrics *out, const struct source *s)
{
	static const enum mig_state shown[] = {
		MIG_QUEUED, MIG_SETUP,    MIG_PRECOPY, MIG_SWITCHOVER, MIG_POSTCOPY,
		MIG_PAUSED, MIG_IN_DOUBT, MIG_SAVING,  MIG_RECOVERING, MIG_CANCELLING,
	};
	unsigned int n[ARRAY_SIZE(shown)] = {0};

	for (const struct migration *m = s->migrations; m; m = m->next)
		for (size_t i = 0; i < ARRAY_SIZE(shown); i++)
			n[i] += !strcmp(mig_state_phase(m->state), mig_state_phase(shown[i]));
	metrics_family(out, "decant_jobs", METRICS_GAUGE, "Jobs under way, by phase.");
	for (size_t i = 0; i < ARRAY_SIZE(shown); i++)
		metrics_uint(out, METRICS_LABELS({"phase", mig_state_phase(shown[i])}), n[i]);
}

static void write_ends(struct metrics *out, const struct meter *v)
{
	metrics_family(out, "decant_jobs_begun_total", METRICS_COUNTER,
		       "Jobs that were begun since the agent was started.");
	for (size_t k = 0; k < JOB_KINDS; k++)
		metrics_uint(out, METRICS_LABELS({"kind", kinds[k]}), v->begun[k]);
	metrics_family(out, "decant_jobs_ended_total", METRICS_COUNTER,
		       "Jobs that have ended since the agent was started.");
	for (size_t k = 0; k < JOB_KINDS; k++)
		for (size_t o = 0; o < OUTCOMES; o++)
			metrics_uint(out,
				     METRICS_LABELS({"kind", kinds[k]}, {"outcome", outcomes[o]}),
				     v->ended[k][o]);
	metrics_family(out, "decant_jobs_failed_total", METRICS_COUNTER,
		       "Jobs that have failed since the agent was started, by the code of their "
		       "error.");
	for (size_t i = 0; i < ARRAY_SIZE(codes); i++)
		metrics_uint(out, METRICS_LABELS({"code", codes[i]}), v->failed[i]);
}

static void one(struct metrics *out, const char *name, const char *help, uint64_t value)
{
	metrics_family(out, name, METRICS_COUNTER, help);
	metrics_uint(out, NULL, value);
}

static void write_sums(struct metrics *out, const struct sums *v)
{
	one(out, "decant_memory_sent_bytes_total", "Guest memory sent as data by all jobs.",
	    v->sent_bytes);
	one(out, "decant_wire_sent_bytes_total", "Bytes sent on channels of all jobs.",
	    v->wire_bytes);
	one(out, "decant_zero_pages_sent_total", "Pages sent as zeros by all jobs.", v->zero_pages);
	one(out, "decant_pages_requested_total", "Pages that destinations asked for.", v->requests);
	one(out, "decant_passes_total", "Passes of precopy of all jobs.", v->passes);
}

/* Of engines that are no more, and of those that are; @at: of it in engine_stats */
static void write_engines(struct metrics *out, const struct source *s, const struct hist *gone,
			  size_t at)
{
	struct hist *all = malloc(sizeof(*all));

	if (!all)
		return;
	*all = *gone;
	for (const struct migration *m = s->migrations; m; m = m->next)
		if (m->engine)
			hist_merge(all,
				   (const struct hist *)((const char *)&m->engine->stats + at));
	metrics_hist(out, NULL, all);
	free(all);
}

static void write_hists(struct metrics *out, const struct source *s)
{
	metrics_family(out, "decant_downtime_seconds", METRICS_HISTOGRAM,
		       "How long guests stood still between the hosts.");
	metrics_hist(out, NULL, &s->meter->downtime);
	metrics_family(out, "decant_snapshot_pause_seconds", METRICS_HISTOGRAM,
		       "How long guests stood still for the instant of a snapshot.");
	metrics_hist(out, NULL, &s->meter->pause);
	metrics_family(out, "decant_write_stall_seconds", METRICS_HISTOGRAM,
		       "How long writers of guests waited for write tracking by faults.");
	write_engines(out, s, &s->meter->stall, offsetof(struct engine_stats, stall));
	metrics_family(out, "decant_request_service_seconds", METRICS_HISTOGRAM,
		       "From the coming of a request for pages until they were given to the "
		       "network.");
	write_engines(out, s, &s->meter->service, offsetof(struct engine_stats, service));
}

static void write_budget(struct metrics *out, struct budget *b)
{
	metrics_family(out, "decant_bandwidth_limit_bytes_per_second", METRICS_GAUGE,
		       "Limit of all that leaves this host; 0 for none.");
	metrics_uint(out, NULL, budget_rate(b));
	metrics_family(out, "decant_bandwidth_waiting", METRICS_GAUGE,
		       "Threads that wait for the limit.");
	metrics_uint(out, NULL, budget_waiting(b));
	metrics_family(out, "decant_bandwidth_sent_bytes_total", METRICS_COUNTER,
		       "Bytes of pages and states that have left, by class.");
	for (enum budget_class c = 0; c < BUDGET_CLASSES; c++)
		metrics_uint(out, METRICS_LABELS({"class", budget_class_name(c)}),
			     atomic_load(&b->sent[c]));
	metrics_family(out, "decant_bandwidth_wait_seconds_total", METRICS_COUNTER,
		       "How long threads have waited for the limit, summed up, by class.");
	for (enum budget_class c = 0; c < BUDGET_CLASSES; c++)
		metrics_us(out, METRICS_LABELS({"class", budget_class_name(c)}),
			   atomic_load(&b->waited_us[c]));
}

static void write_guests(struct metrics *out, const struct source *s)
{
	unsigned int here = 0, away = 0, left = 0;

	for (const struct source_guest *g = s->guests; g; g = g->next) {
		here += g->conn != NULL;
		left += !g->conn && g->handed_over;
		away += !g->conn && !g->handed_over;
	}
	metrics_family(out, "decant_guests", METRICS_GAUGE, "Guests that are known, by state.");
	metrics_uint(out, METRICS_LABELS({"state", "attached"}), here);
	metrics_uint(out, METRICS_LABELS({"state", "absent"}), away);
	metrics_uint(out, METRICS_LABELS({"state", "handed-over"}), left);
}

/* Return: how many are shown singly; all are in @sums */
static size_t take_views(const struct source *s, struct view *v, struct sums *sums)
{
	size_t n = 0;

	for (const struct migration *m = s->migrations; m; m = m->next) {
		struct migration_totals t = m->totals;

		if (!migration_busy(m))
			continue;
		mig_totals(m, &t);
		add(sums, &t);
		if (n < METRICS_JOBS_MAX)
			v[n++] = (struct view){m, t};
	}
	return n;
}

static void write_all(struct metrics *out, void *arg)
{
	struct source *s = arg;
	struct view *v = calloc(METRICS_JOBS_MAX, sizeof(*v));
	struct sums sums = s->meter->sums;
	size_t n;

	if (!v)
		return;
	n = take_views(s, v, &sums);
	write_guests(out, s);
	write_jobs(out, s);
	write_ends(out, s->meter);
	write_sums(out, &sums);
	write_hists(out, s);
	write_budget(out, s->budget);
	tls_stats_write(out, s->tls);
	hooks_metrics(out, s->hooks);
	metrics_family(out, "decant_audit_lost_total", METRICS_COUNTER,
		       "Lines of the audit that could not be written.");
	metrics_uint(out, NULL, audit_lost(s->audit));
	write_infos(out, v, n);
	write_columns(out, v, n);
	write_channels(out, v, n);
	free(v);
}

int meter_start(struct source *s, struct error *err)
{
	s->meter = calloc(1, sizeof(*s->meter));
	return metrics_start("source", s->meter, write_all, s, &s->metrics, err);
}

void meter_stop(struct source *s)
{
	metrics_registry_free(steal_ptr(&s->metrics));
	free(steal_ptr(&s->meter));
}
