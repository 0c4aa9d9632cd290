/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A guest that was moved by post-copy reads random pages that are missing, one at a time, and times
 * each read. In turns with it, during the same migration and so under the same bulk, two processes
 * make round trips over TLS of their own. A round's figure is a median of each, and their ratio.
 */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "bench/bare.h"
#include "bench/mover.h"

/* Turns: long enough for tens of trips on a busy machine, short enough for many turns. */
#define TURN_MS     100
#define SAMPLES_MAX (1u << 20)

/**
 * struct pool - samples of one round, microseconds
 */
struct pool {
	double *v;
	size_t n;
};

static void pool_add(struct pool *p, const uint32_t *ns, uint32_t n)
{
	for (uint32_t i = 0; i < n && p->n < SAMPLES_MAX; i++)
		p->v[p->n++] = ns[i] / 1e3;
}

/**
 * struct side - without or with bulk
 * @guest_mb, @options: of the migration
 */
struct side {
	const char *what;
	unsigned int guest_mb;
	const char *options;
	struct report_series *ratio;
	struct report_series *fault;
	struct report_series *fault_p99;
	struct report_series *trip;
};

static struct report_series *add(struct bench *b, const char *fmt, const char *what,
				 const char *unit, enum report_bound kind, double bound)
{
	char name[96];

	snprintf(name, sizeof(name), fmt, what);
	return report_add(&b->report, name, unit, kind, bound);
}

static void side_init(struct bench *b, struct side *s)
{
	s->ratio = add(b, "fault / TLS round trip of 4 KiB, p50, %s", s->what, "", REPORT_AT_MOST,
		       2.5);
	s->fault =
		add(b, "  fault as the guest sees it, p50, %s", s->what, "us", REPORT_NO_BOUND, 0);
	s->fault_p99 = add(b, "  the same, p99, %s", s->what, "us", REPORT_NO_BOUND, 0);
	s->trip = add(b, "  bare TLS round trip, p50, %s", s->what, "us", REPORT_NO_BOUND, 0);
}

/* The control file of the host where it will run: known before it is there. */
static struct pacer_control *there(struct mover_guest *g)
{
	return g->control[!g->at];
}

static void turns(struct mover_job *job, struct bare_rtt *rtt, struct pool *trips)
{
	struct pacer_control *c = there(job->g);
	const uint32_t *ns;

	while (!strcmp(mover_look(job), "postcopy") && !atomic_load(&c->spent)) {
		uint32_t n;

		atomic_store(&c->order, PACER_TOUCH);
		usleep(TURN_MS * 1000);
		atomic_store(&c->order, PACER_REST);
		n = bare_rtt_run(rtt, TURN_MS, &ns);
		/* What ran while the migration was at its end had no bulk beside it. */
		if (!strcmp(mover_look(job), "postcopy"))
			pool_add(trips, ns, n);
	}
	atomic_store(&c->order, PACER_TOUCH); /* so that the rest comes, too */
}

static void round_of(struct side *s, struct mover_guest *g, struct bare_rtt *rtt, bool counts)
{
	struct pool trips = {.v = malloc(SAMPLES_MAX * sizeof(double))};
	struct pool faults = {.v = malloc(SAMPLES_MAX * sizeof(double))};
	static struct mover_job job;
	struct pacer_control *c;
	double fault, trip;

	if (!trips.v || !faults.v)
		bench_die("out of memory");
	mover_order(g, PACER_REST, 0, 0);
	mover_begin(g, "postcopy", s->options, &job);
	mover_until(&job, "postcopy");
	turns(&job, rtt, &trips);
	mover_complete(&job);
	c = mover_here(g);
	pool_add(&faults, c->touch_ns, atomic_load(&c->touched));
	lab_check(g->b->lab, faults.n >= 100 && trips.n >= 100,
		  "%zu faults and %zu round trips are too few", faults.n, trips.n);
	fault = report_quantile(faults.v, faults.n, 0.5);
	trip = report_quantile(trips.v, trips.n, 0.5);
	bench_say("  %s: %zu faults, p50 %.0f us; %zu round trips, p50 %.0f us: %.2f%s", s->what,
		  faults.n, fault, trips.n, trip, fault / trip, counts ? "" : " (warming up)");
	if (counts) {
		report_value(s->ratio, fault / trip);
		report_value(s->fault, fault);
		report_value(s->fault_p99, report_quantile(faults.v, faults.n, 0.99));
		report_value(s->trip, trip);
	}
	free(trips.v);
	free(faults.v);
}

void bench_fault(struct bench *b)
{
	/* Without bulk the push is so slow that the guest asks for nearly all pages itself. */
	struct side sides[2] = {
		{.what = "no bulk", .guest_mb = 32, .options = "{\"bandwidth\":1000000}"},
		{.what = "under bulk", .guest_mb = 2048, .options = "{\"channels\":1}"}};
	static const char *const names[2] = {"fault", "fault-bulk"};
	struct bare_rtt *rtt = bare_rtt_open(b);

	for (size_t i = 0; i < 2; i++) {
		struct mover_guest *g = mover_guest_start(b, names[i], sides[i].guest_mb, "random");

		side_init(b, &sides[i]);
		for (unsigned int k = 0; k <= b->rounds; k++)
			round_of(&sides[i], g, rtt, k > 0);
		mover_guest_end(g);
	}
	bare_rtt_close(rtt);
}
