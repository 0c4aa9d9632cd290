/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Networks that fail at every phase, in every mode: packets that vanish, in both directions or in one, on all
 * channels or on one, a peer that answers by resets, a link that flaps, one that is slow. The guest
 * verifies every page where it is, runs in one place, and what is sent twice is bounded.
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "lib/lab_link.h"
#include "lib/lab_matrix.h"
#include "lib/lab_pace.h"
#include "lib/lab_test.h"

TestSuite(net_faults, .timeout = 400);

enum fault { RESET, HOLE, HALF_OUT, HALF_BACK, ONE_CHANNEL, FLAP, SLOW };
enum when { SETUP, PRECOPY, SWITCHOVER, POSTCOPY };

static const char *const fault_names[] = {
	"reset",
	"black hole",
	"half-open, to destination",
	"half-open, to source",
	"one channel",
	"flapping link",
	"1 Mbit/s",
};
static const char *const phases[] = {"setup", "precopy", "switchover", "postcopy"};
static const char *const modes[] = {"precopy", "hybrid", "postcopy"};

/** struct net_row - one row; no pointers, Criterion copies it */
struct net_row {
	enum fault fault;
	enum when when;
	unsigned int mode;
	bool quick;
};

#define PRE  0
#define HYB  1
#define POST 2

static const struct net_row rows[] = {
	{RESET, PRECOPY, PRE, false},       {RESET, PRECOPY, HYB, false},
	{RESET, POSTCOPY, HYB, false},      {RESET, POSTCOPY, POST, false},
	{RESET, SWITCHOVER, PRE, false},    {RESET, SWITCHOVER, HYB, false},
	{HOLE, SETUP, HYB, false},          {HOLE, PRECOPY, PRE, false},
	{HOLE, PRECOPY, HYB, false},        {HOLE, SWITCHOVER, HYB, false},
	{HOLE, SWITCHOVER, POST, false},    {HOLE, POSTCOPY, HYB, false},
	{HOLE, POSTCOPY, POST, true},       {HALF_OUT, PRECOPY, PRE, false},
	{HALF_OUT, PRECOPY, HYB, false},    {HALF_OUT, POSTCOPY, POST, false},
	{HALF_BACK, PRECOPY, PRE, false},   {HALF_BACK, PRECOPY, HYB, false},
	{HALF_BACK, POSTCOPY, POST, false}, {ONE_CHANNEL, PRECOPY, PRE, true},
	{ONE_CHANNEL, PRECOPY, HYB, false}, {ONE_CHANNEL, POSTCOPY, POST, false},
	{FLAP, PRECOPY, PRE, false},        {FLAP, PRECOPY, HYB, false},
	{FLAP, POSTCOPY, POST, false},      {SLOW, PRECOPY, PRE, false},
	{SLOW, PRECOPY, HYB, false},        {SLOW, POSTCOPY, POST, false},
};

ParameterizedTestParameters(net_faults, rows)
{
	static struct net_row picked[LAB_COUNT(rows)];
	size_t n = 0;

	for (size_t i = 0; i < LAB_COUNT(rows); i++)
		if (lab_matrix_pick(i, rows[i].quick))
			picked[n++] = rows[i];
	return cr_make_param_array(struct net_row, picked, n);
}

/**
 * struct scene - a migration over a wire that fails
 * @found_ms, @again_ms: behind the fault: until the source noticed, until it went on
 * @flaps:	how often the link was down
 */
struct scene {
	const struct net_row *r;
	struct lab *lab;
	struct lab_link link;
	struct lab_host *a, *b;
	struct lab_guest *g;
	struct lab_move move;
	struct lab_proc *p;
	uint64_t found_ms, again_ms;
	unsigned int flaps;
};

#define MB 32

static double job_num(struct scene *s, const char *path)
{
	json_t *job = lab_job_newest(s->a);
	double n = job ? lab_num(s->lab, job, path) : 0;

	json_decref(job);
	return n;
}

static void start(struct scene *s)
{
	char *fault = s->r->when == SWITCHOVER ? lab_fault(FAULTPOINT_COMMIT_QUEUED, "stop") : NULL;

	s->lab = lab_new(lab_test_failed);
	if (!lab_link_new(s->lab, &s->link)) {
		lab_end(s->lab);
		cr_skip_test("namespaces or nft cannot be had here");
	}
	if (fault)
		lab_fault_agents(s->lab);
	s->a = lab_host_start(s->lab, &(struct lab_host_opts){.name = "a",
							      .ns = &s->link.ns[0],
							      .address = s->link.address[0],
							      .source_fault = fault});
	s->b = lab_host_start(s->lab, &(struct lab_host_opts){.name = "b",
							      .ns = &s->link.ns[1],
							      .address = s->link.address[1]});
	free(fault);
	s->g = lab_guest_start(s->a,
			       &(struct lab_guest_opts){.mb = MB, .threads = 2, .writes = 30});
	s->move = (struct lab_move){.mode = modes[s->r->mode],
				    .ms = 300000,
				    .cut = true,
				    .args = {"--bandwidth", "80Mbit", "--channels", "3"}};
	/* What is asked for would be there before the loss of one channel is noticed. */
	if (s->r->fault == ONE_CHANNEL && s->r->mode == POST)
		s->move.args[1] = "24Mbit";
}

static bool under_way(struct scene *s)
{
	double sent = job_num(s, "memory.sent_bytes");

	if (s->r->when == PRECOPY)
		return lab_job_phase_is(s->a, "precopy") && sent > MB * 0.4 * (1 << 20);
	/* In hybrid mode little is left to be sent. */
	return lab_job_phase_is(s->a, "postcopy") &&
	       (s->r->mode != POST || sent > MB * 0.4 * (1 << 20));
}

static void reach(struct scene *s)
{
	if (s->r->when == SETUP)
		return;
	if (s->r->when == SWITCHOVER)
		lab_fault_stopped(s->lab, s->a->source, 30000);
	else
		lab_until(s->lab, 30000, under_way(s) || lab_job_phase_is(s->a, "completed"),
			  "the phase was not reached");
}

/* --- what is done to the wire, and what must be seen of it --- */

static bool noticed(struct scene *s)
{
	return lab_proc_said(s->lab, s->a->source, "is lost (") ||
	       lab_proc_said(s->lab, s->a->source, "the session is lost");
}

static bool again(struct scene *s)
{
	return lab_proc_said(s->lab, s->a->source, ": goes on with ") ||
	       lab_proc_said(s->lab, s->a->source, "stands again") ||
	       lab_job_phase_is(s->a, "completed");
}

static void hurt(struct scene *s)
{
	switch (s->r->fault) {
	case RESET:
		lab_link_reset(&s->link);
		break;
	case HALF_OUT:
		lab_link_drop(&s->link, 0);
		break;
	case HALF_BACK:
		lab_link_drop(&s->link, 1);
		break;
	case ONE_CHANNEL:
		lab_link_drop_one(&s->link);
		break;
	default:
		lab_link_drop(&s->link, 0);
		lab_link_drop(&s->link, 1);
	}
}

/* A dead peer, also of one channel of many, is noticed in this time. */
#define FOUND_MS 9000

/* Until it is noticed, and a second longer: no first attempt gets through. */
static void once(struct scene *s)
{
	struct pace *pace = pace_start();
	uint64_t since = lab_now_ms();

	hurt(s);
	lab_until(s->lab, 20000, noticed(s) || lab_job_phase_is(s->a, "completed"),
		  "the loss was not noticed");
	s->found_ms = lab_now_ms() - since;
	lab_brisk(s->lab, pace, s->found_ms * 1000, FOUND_MS * 1000, "the loss is noticed");
	pace_end(pace);
	if (s->r->fault != ONE_CHANNEL)
		for (uint64_t end = lab_now_ms() + 500; lab_now_ms() < end; lab_nap())
			;
	lab_link_heal(&s->link);
	since = lab_now_ms();
	lab_until(s->lab, 15000, again(s), "it does not go on");
	s->again_ms = lab_now_ms() - since;
}

/* Down for half a second to seven, up for as long as it takes to begin again. */
static void flap(struct scene *s)
{
	unsigned int seconds = s->lab->full ? 120 : 10, *k = &s->flaps;

	for (uint64_t end = lab_now_ms() + seconds * 1000;
	     lab_now_ms() < end && !lab_job_phase_is(s->a, "completed"); ++*k) {
		uint64_t down = lab_now_ms() + 500 + *k % 3 * 3300;

		hurt(s);
		while (lab_now_ms() < down)
			lab_nap();
		lab_link_heal(&s->link);
		for (uint64_t up = lab_now_ms() + 700; lab_now_ms() < up;)
			lab_nap();
	}
}

/* One channel may starve beside the others and be made again; the session stands, and something comes through. */
static void slow(struct scene *s)
{
	double before = job_num(s, "memory.sent_bytes");

	lab_link_slow(&s->link, 0, 1000);
	for (uint64_t end = lab_now_ms() + 20000; lab_now_ms() < end; lab_nap())
		lab_check(s->lab, !lab_proc_said(s->lab, s->a->source, "the session is lost"),
			  "a slow peer is taken for a dead one");
	lab_check(s->lab, job_num(s, "memory.sent_bytes") > before, "nothing comes through");
	lab_link_slow(&s->link, 0, 0);
}

/* --- outcomes --- */

/*
 * What is sent twice when the link is down once: what was sent in the last 100 ms on each channel, what the buffers on
 * the way held, and what the guest has written meanwhile. When it is down again and again: for each time
 */
#define AGAIN_MAX 20e6
#define FLAP_MAX  6e6

static const char *completes(struct scene *s, char *out, size_t cap)
{
	json_t *job = lab_migrate_end(s->a, s->p, &s->move);
	double sent = lab_num(s->lab, job, "memory.sent_bytes");
	double zero = lab_num(s->lab, job, "memory.zero_pages") * 4096;
	double more = sent + zero - lab_num(s->lab, job, "memory.total_bytes");

	json_decref(job);
	lab_guest_arrived(s->g, s->b);
	lab_check(s->lab, more < (s->flaps ? s->flaps * FLAP_MAX : AGAIN_MAX),
		  "%.0f bytes were sent twice, the link was down %u times", more, s->flaps);
	if (s->flaps)
		snprintf(out, cap, "moved; down %u times, again %.1f MB", s->flaps, more / 1e6);
	else
		snprintf(out, cap, "moved; found %lu ms, on %lu ms, again %.1f MB", s->found_ms,
			 s->again_ms, more / 1e6);
	return out;
}

/* COMMIT is queued and never gets out, or its answer never comes: who it is settles by itself. */
static const char *settles(struct scene *s)
{
	bool moved;

	lab_until(s->lab, 60000,
		  lab_job_phase_is(s->a, "failed") || lab_job_phase_is(s->a, "completed"),
		  "it does not settle");
	moved = lab_job_phase_is(s->a, "completed");
	lab_proc_wait(s->lab, s->p, 20000);
	if (moved) {
		lab_guest_arrived(s->g, s->b);
		return "moved";
	}
	lab_guest_verified(s->g);
	lab_until(s->lab, 20000, lab_host_guests(s->b) == 0, "a second guest stays");
	return "stayed";
}

static const char *fails_cleanly(struct scene *s)
{
	lab_until(s->lab, 30000, lab_job_phase_is(s->a, "failed"), "it does not fail");
	lab_proc_wait(s->lab, s->p, 10000);
	lab_link_heal(&s->link);
	lab_guest_verified(s->g);
	return "stayed";
}

static const char *play(struct scene *s, char *out, size_t cap)
{
	if (s->r->when == SETUP)
		hurt(s);
	s->p = lab_migrate_begin(s->a, s->b, s->g, &s->move);
	reach(s);
	if (s->r->when == SETUP)
		return fails_cleanly(s);
	if (s->r->when == SWITCHOVER) {
		hurt(s);
		kill(s->a->source->pid, SIGCONT);
		for (uint64_t end = lab_now_ms() + 7000; lab_now_ms() < end;)
			lab_nap();
		lab_link_heal(&s->link);
		return settles(s);
	}
	if (s->r->fault == FLAP)
		flap(s);
	else if (s->r->fault == SLOW)
		slow(s);
	else
		once(s);
	return completes(s, out, cap);
}

ParameterizedTest(struct net_row *r, net_faults, rows)
{
	struct lab_row row = {.fault = fault_names[r->fault],
			      .phase = phases[r->when],
			      .mode = modes[r->mode],
			      .driver = "native"};
	struct scene s = {.r = r};
	char text[128];
	const char *outcome;

	lab_matrix_begin(&row);
	start(&s);
	outcome = play(&s, text, sizeof(text));
	lab_end(s.lab);
	lab_matrix_end(&row, outcome);
}
