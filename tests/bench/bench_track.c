/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How fast a guest writes at full speed: left alone, and while a precopy is under way with either
 * kind of tracking. The precopy is slow, so that it does not take the processor that the guest
 * writes with, and is cancelled in the end. Whole pages, and single words: a write that tracking
 * stops is then compared with next to nothing.
 */
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include "bench/mover.h"

#define GUEST_MB  256
#define WINDOW_US 1000000
/* After the first protection, which takes a moment of its own. */
#define SETTLE_US 300000
/* A pass of all memory in 2 s. */
#define OPTIONS "{\"bandwidth\":134217728,\"tracking\":\"%s\",\"downtime_limit_ms\":1}"

static double writes_per_s(struct mover_guest *g)
{
	struct pacer_control *c = mover_here(g);
	uint64_t before = atomic_load(&c->writes);
	double began = bench_now();

	usleep(WINDOW_US);
	return (double)(atomic_load(&c->writes) - before) / (bench_now() - began);
}

static double tracked(struct mover_guest *g, const char *kind)
{
	static struct mover_job job;
	char options[128];
	double rate;

	snprintf(options, sizeof(options), OPTIONS, kind);
	mover_begin(g, "precopy", options, &job);
	mover_until(&job, "precopy");
	usleep(SETTLE_US);
	rate = writes_per_s(g);
	lab_check(g->b->lab, !strcmp(mover_look(&job), "precopy"), "precopy is over already");
	mover_cancel(&job);
	return rate;
}

/**
 * struct load - what is written
 * @alone, @ratio: series; @ratio for each kind
 */
struct load {
	const char *what;
	unsigned int bytes;
	struct report_series *alone;
	struct report_series *ratio[2];
};

static const char *const kinds[2] = {"async", "faults"};

static void load_init(struct bench *b, struct load *l)
{
	char name[96];

	snprintf(name, sizeof(name), "writes of a %s without migration", l->what);
	l->alone = report_add(&b->report, name, "1000/s", REPORT_NO_BOUND, 0);
	for (size_t k = 0; k < 2; k++) {
		snprintf(name, sizeof(name), "  tracked by %s / without", kinds[k]);
		l->ratio[k] = report_add(&b->report, name, "", REPORT_NO_BOUND, 0);
	}
}

static void load_round(struct load *l, struct mover_guest *g, bool counts)
{
	double alone, with[2];

	mover_order(g, PACER_WRITE, 0, l->bytes);
	usleep(SETTLE_US);
	alone = writes_per_s(g);
	for (size_t k = 0; k < 2; k++)
		with[k] = tracked(g, kinds[k]);
	bench_say("  writes of a %s: %.0f/s; async %.2f, faults %.2f%s", l->what, alone,
		  with[0] / alone, with[1] / alone, counts ? "" : " (warming up)");
	if (!counts)
		return;
	report_value(l->alone, alone / 1000);
	for (size_t k = 0; k < 2; k++)
		report_value(l->ratio[k], with[k] / alone);
}

void bench_track(struct bench *b)
{
	struct load loads[2] = {{.what = "page", .bytes = PACER_PAGE},
				{.what = "word", .bytes = 8}};
	struct mover_guest *g = mover_guest_start(b, "track", GUEST_MB, "random");

	for (size_t i = 0; i < 2; i++)
		load_init(b, &loads[i]);
	for (unsigned int k = 0; k <= b->rounds; k++)
		for (size_t i = 0; i < 2; i++)
			load_round(&loads[i], g, k > 0);
	mover_order(g, PACER_REST, 0, 0);
	mover_guest_end(g);
}
