/* SPDX-License-Identifier: Apache-2.0 */
/*
 * SIGKILL of either agent, or of both, at every fault point of a migration, in every mode. What was killed
 * is started again with the same folders. Before the hand-over the guest goes on at the source and can be
 * moved anew; behind it the migration completes; in between it does one or the other by itself. Always it
 * runs in one place, has verified every page there, and nothing is left behind.
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "lib/lab_kill.h"
#include "lib/lab_matrix.h"
#include "lib/lab_test.h"

TestSuite(kills, .timeout = 120);

/** enum fate - what must become of the guest */
enum fate { STAYS, MOVES, EITHER };

/* Modes in which a point is reached. */
#define PRE  1u
#define HYB  2u
#define POST 4u
#define ALL  (PRE | HYB | POST)

static const char *const modes[] = {"precopy", "hybrid", "postcopy"};

/**
 * struct at - a point, and what a kill there means
 * @modes:	in which it is reached
 * @fate:	of the guest
 * @quick:	modes whose rows, with the one agent killed, stand for the others
 */
struct at {
	enum faultpoint point;
	unsigned int modes;
	enum fate fate;
	unsigned int quick;
};

static const struct at points[] = {
	{FAULTPOINT_COMMIT_QUEUED, ALL, STAYS, HYB},  {FAULTPOINT_COMMIT_SENT, ALL, EITHER, 0},
	{FAULTPOINT_COMMIT_RECEIVED, ALL, STAYS, 0},  {FAULTPOINT_OWNER_MARKED, ALL, MOVES, HYB},
	{FAULTPOINT_GUEST_LET_GO, ALL, MOVES, 0},     {FAULTPOINT_RUNNING_SENT, ALL, MOVES, 0},
	{FAULTPOINT_RUNNING_RECEIVED, ALL, MOVES, 0},
};

/** struct kill_row - one row; no pointers, Criterion copies it */
struct kill_row {
	enum faultpoint point;
	enum fate fate;
	unsigned int mode;
	bool both;
};

#define ROWS_MAX (LAB_COUNT(points) * LAB_COUNT(modes) * 2)

ParameterizedTestParameters(kills, at_every_point)
{
	static struct kill_row rows[ROWS_MAX];
	size_t n = 0, seen = 0;

	for (size_t i = 0; i < LAB_COUNT(points); i++)
		for (unsigned int mode = 0; mode < LAB_COUNT(modes); mode++)
			for (int both = 0; both < 2; both++) {
				const struct at *p = &points[i];

				if (p->modes >> mode & 1 &&
				    lab_matrix_pick(seen++, !both && p->quick >> mode & 1))
					rows[n++] =
						(struct kill_row){p->point, p->fate, mode, both};
			}
	return cr_make_param_array(struct kill_row, rows, n);
}

/**
 * struct scene - a migration in which agents end
 * @first:	what its report at @b says first
 * @ran:	the guest was seen to run at @b, when its counter at @a was @stood_at
 */
struct scene {
	struct lab *lab;
	struct lab_host *a, *b;
	struct lab_guest *g;
	struct lab_proc *p;
	uint64_t first;
	uint64_t stood_at;
	bool ran;
};

#define MB 16

/* 16 MiB at 160 Mbit/s take most of a second. */
static struct scene begin(const struct kill_row *r)
{
	bool source = !strcmp(lab_faultpoint_agent(r->point), "source");
	char *fault = lab_fault(r->point, "kill");
	struct scene s = {.lab = lab_new(lab_test_failed)};
	struct lab_move move = {.mode = modes[r->mode], .args = {"--bandwidth", "160Mbit"}};

	lab_fault_agents(s.lab);
	s.a = lab_host_start(
		s.lab, &(struct lab_host_opts){.name = "a", .source_fault = source ? fault : NULL});
	s.b = lab_host_start(
		s.lab, &(struct lab_host_opts){.name = "b", .dest_fault = source ? NULL : fault});
	free(fault);
	s.g = lab_guest_start(s.a, &(struct lab_guest_opts){.mb = MB, .threads = 2, .writes = 400});
	s.p = lab_migrate_begin(s.a, s.b, s.g, &move);
	lab_fault_killed(s.lab, source ? s.a->source : s.b->dest, 20000);
	if (r->both)
		lab_proc_kill(s.lab, source ? s.b->dest : s.a->source);
	return s;
}

/* It is right wherever it is, and once it runs at the destination it runs nowhere else. */
static void look(struct scene *s)
{
	uint64_t there = lab_guest_counter(s->g, s->b), here;

	lab_guest_unbroken(s->g, s->a, s->b);
	s->first = s->first ? s->first : there;
	if (!s->ran && there != s->first) {
		lab_guest_stands(s->g, s->a);
		s->stood_at = lab_guest_counter(s->g, s->a);
		s->ran = true;
	}
	here = lab_guest_counter(s->g, s->a);
	lab_check(s->lab, !s->ran || here == s->stood_at, "it runs in two places");
}

static void look_on(struct scene *s, unsigned int ms)
{
	for (uint64_t end = lab_now_ms() + ms; lab_now_ms() < end; lab_nap())
		look(s);
}

static void start_again(struct scene *s)
{
	if (!lab_proc_alive(s->a->source))
		lab_host_source_start(s->a);
	if (!lab_proc_alive(s->b->dest))
		lab_host_dest_start(s->b);
}

static bool settled(struct scene *s)
{
	look(s);
	return lab_job_phase_is(s->a, "failed") || lab_job_phase_is(s->a, "completed");
}

/* As if nothing had happened, and it can be moved. */
static void stayed(struct scene *s)
{
	lab_check(s->lab, !s->ran, "it has run at the destination");
	lab_host_knows(s->a, s->g->name);
	lab_guest_verified(s->g);
	lab_until(s->lab, 15000, lab_host_guests(s->b) == 0,
		  "a guest that never ran stays at the destination");
	json_decref(lab_migrate(s->a, s->b, s->g, &(struct lab_move){0}));
	lab_guest_arrived(s->g, s->b);
}

ParameterizedTest(struct kill_row *r, kills, at_every_point)
{
	char fault[96];
	struct lab_row row = {.fault = fault,
			      .phase = lab_faultpoint_phase(r->point),
			      .mode = modes[r->mode],
			      .driver = "native"};
	struct scene s;
	bool moved;

	snprintf(fault, sizeof(fault), "kill %s at %s",
		 r->both ? "both" : lab_faultpoint_agent(r->point), lab_faultpoint_name(r->point));
	lab_matrix_begin(&row);
	s = begin(r);
	look_on(&s, 200);
	start_again(&s);
	lab_until(s.lab, 30000, settled(&s), "it does not come to an end");
	moved = lab_job_phase_is(s.a, "completed");
	lab_check(s.lab, r->fate != STAYS || !moved, "it was moved");
	lab_check(s.lab, r->fate != MOVES || moved, "it was not moved");
	lab_proc_kill(s.lab, s.p);
	if (moved)
		lab_guest_arrived(s.g, s.b);
	else
		stayed(&s);
	lab_end(s.lab);
	lab_matrix_end(&row, moved ? "moved" : "stayed");
}
