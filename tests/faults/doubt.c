/* SPDX-License-Identifier: Apache-2.0 */
/*
 * In doubt: the connection is lost, or agents end, around COMMIT, and whichever side comes back first, asking
 * settles it. Always the guest runs in one place.
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "lib/doubt.h"
#include "lib/lab_test.h"

TestSuite(doubt, .timeout = 120);

/**
 * struct lost_row - the connection is lost at a point, and what comes of it
 * @restart:	the source's agent is killed, too, and started again
 */
struct lost_row {
	enum faultpoint point;
	unsigned int mode;
	bool restart;
	bool moves;
	bool quick;
};

static const char *const modes[] = {"precopy", "hybrid", "postcopy"};

#define LOST(point, moves, quick)                             \
	{FAULTPOINT_##point, 0, false, moves, false},         \
		{FAULTPOINT_##point, 1, false, moves, quick}, \
	{                                                     \
		FAULTPOINT_##point, 2, true, moves, false     \
	}

static struct lost_row lost_rows[] = {
	LOST(COMMIT_QUEUED, false, true),   LOST(COMMIT_SENT, true, false),
	LOST(COMMIT_RECEIVED, true, false), LOST(OWNER_MARKED, true, false),
	LOST(GUEST_LET_GO, true, false),    LOST(RUNNING_SENT, true, false),
};

ParameterizedTestParameters(doubt, lost)
{
	static struct lost_row picked[LAB_COUNT(lost_rows)];
	size_t n = 0;

	for (size_t i = 0; i < LAB_COUNT(lost_rows); i++)
		if (lab_matrix_pick(i, lost_rows[i].quick))
			picked[n++] = lost_rows[i];
	return cr_make_param_array(struct lost_row, picked, n);
}

/* As if nothing had happened: it can be moved again. */
static void goes_on_here(struct doubt *s)
{
	lab_host_knows(s->a, s->g->name);
	doubt_runs(s, s->a);
	lab_guest_verified(s->g);
	lab_until(s->lab, 15000, lab_host_guests(s->b) == 0,
		  "a guest that never ran stays at the destination");
}

static void moved(struct doubt *s)
{
	json_t *m = doubt_job(s);

	lab_check(s->lab, lab_num(s->lab, m, "downtime_us") > 0, "no downtime");
	lab_check(s->lab, !strcmp(lab_str(s->lab, m, "owner"), "destination"), "owner");
	json_decref(m);
	lab_guest_arrived(s->g, s->b);
}

ParameterizedTest(struct lost_row *r, doubt, lost)
{
	char fault[96];
	struct lab_row row = {
		.fault = fault, .phase = "switchover", .mode = modes[r->mode], .driver = "native"};
	bool source = lab_faultpoint_at_source(r->point);
	struct lab_proc *agent;
	struct doubt s;

	snprintf(fault, sizeof(fault), "connection lost at %s%s", lab_faultpoint_name(r->point),
		 r->restart ? ", source killed" : "");
	lab_matrix_begin(&row);
	s = doubt_begin(lab_new(lab_test_failed), &(struct doubt_setting){.mode = modes[r->mode],
									  .point = r->point,
									  .action = "stop"});
	agent = source ? s.a->source : s.b->dest;
	lab_fault_stopped(s.lab, agent, 20000);
	lab_relay_cut(s.relay);
	if (r->restart) {
		lab_proc_kill(s.lab, s.a->source);
		lab_host_source_start(s.a);
	}
	if (!r->restart || !source)
		kill(agent->pid, SIGCONT);
	lab_until(s.lab, 30000,
		  lab_job_phase_is(s.a, "failed") || lab_job_phase_is(s.a, "completed"),
		  "it does not come to an end");
	lab_check(s.lab, lab_job_phase_is(s.a, "completed") == r->moves, "where it is");
	if (r->moves)
		moved(&s);
	else
		goes_on_here(&s);
	doubt_end(&s);
	lab_matrix_end(&row, r->moves ? "moved" : "stayed");
}

/** struct back_row - both agents have ended, and one comes back long before the other */
struct back_row {
	enum faultpoint point;
	bool source_first;
	bool moves;
	bool quick;
};

static struct back_row back_rows[] = {
	{FAULTPOINT_COMMIT_RECEIVED, true, false, false},
	{FAULTPOINT_COMMIT_RECEIVED, false, false, false},
	{FAULTPOINT_OWNER_MARKED, true, true, true},
	{FAULTPOINT_OWNER_MARKED, false, true, false},
	{FAULTPOINT_GUEST_LET_GO, true, true, false},
	{FAULTPOINT_GUEST_LET_GO, false, true, false},
};

ParameterizedTestParameters(doubt, back)
{
	static struct back_row picked[LAB_COUNT(back_rows)];
	size_t n = 0;

	for (size_t i = 0; i < LAB_COUNT(back_rows); i++)
		if (lab_matrix_pick(i, back_rows[i].quick))
			picked[n++] = back_rows[i];
	return cr_make_param_array(struct back_row, picked, n);
}

ParameterizedTest(struct back_row *r, doubt, back)
{
	char fault[96];
	struct lab_row row = {
		.fault = fault, .phase = "switchover", .mode = "hybrid", .driver = "native"};
	struct doubt s;

	snprintf(fault, sizeof(fault), "both killed at %s, %s back first",
		 lab_faultpoint_name(r->point), r->source_first ? "source" : "dest");
	lab_matrix_begin(&row);
	s = doubt_begin(
		lab_new(lab_test_failed),
		&(struct doubt_setting){.mode = "hybrid", .point = r->point, .action = "kill"});
	lab_fault_killed(s.lab, s.b->dest, 20000);
	doubt_note_id(&s);
	lab_proc_kill(s.lab, s.a->source);
	if (r->source_first) {
		lab_host_source_start(s.a);
		doubt_attached(&s);
		doubt_said(&s, NULL);
		lab_host_dest_start(s.b);
	} else {
		lab_host_dest_start(s.b);
		if (r->moves)
			lab_until(s.lab, 10000, lab_guest_counter(s.g, s.b), "it says nothing");
		lab_host_source_start(s.a);
	}
	lab_until(s.lab, 30000,
		  lab_job_phase_is(s.a, "failed") || lab_job_phase_is(s.a, "completed"),
		  "it does not come to an end");
	lab_check(s.lab, lab_job_phase_is(s.a, "completed") == r->moves, "where it is");
	if (r->moves) {
		lab_check(s.lab, doubt_true(&s, "downtime_at_most"), "as if it had been measured");
		moved(&s);
	} else {
		goes_on_here(&s);
	}
	doubt_end(&s);
	lab_matrix_end(&row, r->moves ? "moved" : "stayed");
}
