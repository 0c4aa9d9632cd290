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
 * @point:	where
 * @modes:	in which it is reached
 * @fate:	of the guest
 * @quick:	modes whose rows, with the one agent killed, stand for the others
 * @nth:	time that it is reached; 0: the first
 * @before:	something else ends before, and is started again: by itself, at this point; 0: nothing does
 * @before_nth:	time that @before is reached
 * @dma:	the guest is not free of DMA
 */
struct at {
	enum faultpoint point;
	unsigned int modes;
	enum fate fate;
	unsigned int quick;
	unsigned int nth;
	enum faultpoint before;
	unsigned int before_nth;
	bool dma;
};

/* What rolls a migration back, and what has to be recovered. */
#define LOST_EARLY .before = FAULTPOINT_PAGES_WRITTEN, .before_nth = 5
#define LOST_LATE  .before = FAULTPOINT_STATE_LOADED
#define GAVE_UP    .before = FAULTPOINT_WRITTEN_COLLECTED
#define DEST_LOST  .before = FAULTPOINT_PAGES_MARKED, .before_nth = 50

#define AT(id, in, what, ...)                                                        \
	{                                                                            \
		.point = FAULTPOINT_##id, .modes = (in), .fate = (what), __VA_ARGS__ \
	}

static const struct at points[] = {
	AT(JOB_JOURNALED, HYB, STAYS),
	AT(SESSION_BEGUN, HYB, STAYS),
	AT(CONTROL_CONNECTED, HYB, STAYS),
	AT(HELLO_ANSWERED, HYB, STAYS),
	AT(DESCRIPTION_QUEUED, HYB, STAYS),
	AT(RECORD_BEGUN, HYB, STAYS),
	AT(GUEST_LAUNCHED, ALL, STAYS, .quick = POST),
	AT(GUEST_ATTACHED, HYB, STAYS),
	AT(IDENTITY_GIVEN, HYB, STAYS),
	AT(MEMORY_PREPARED, HYB, STAYS),
	AT(UFFD_MADE, HYB | POST, STAYS),
	AT(MEMORY_EMPTIED, ALL, STAYS),
	AT(PREPARED_RECEIVED, HYB, STAYS),
	AT(URGENT_CONNECTED, HYB | POST, STAYS),
	AT(BULK_CONNECTED, ALL, STAYS),
	AT(TRIAL_UFFD_MADE, PRE | HYB, STAYS),
	AT(TRACKING_UFFD_MADE, PRE | HYB, STAYS),
	AT(TRACKING_STARTED, ALL, STAYS, .quick = HYB),
	AT(FIRST_PAUSED, PRE | HYB, STAYS, .dma = true),
	AT(FIRST_PROTECTED, PRE | HYB, STAYS, .dma = true),
	AT(FIRST_RESUMED, PRE | HYB, STAYS, .dma = true),
	AT(PASS_BEGUN, PRE | HYB, STAYS),
	AT(RUN_DUE, PRE | HYB, STAYS, .nth = 5),
	AT(RUN_RECEIVED, PRE | HYB, STAYS, .nth = 5),
	AT(PAGES_WRITTEN, PRE | HYB, STAYS, .nth = 5),
	AT(BARRIER_DUE, ALL, STAYS),
	AT(BARRIER_RECEIVED, ALL, STAYS),
	AT(PASS_PLACED, PRE | HYB, STAYS),
	AT(WRITTEN_COLLECTED, PRE | HYB, STAYS),
	AT(CONVERGED, ALL, STAYS),
	AT(DISCARDS_MARKED, HYB, STAYS, .nth = 2),
	AT(DISCARDS_DONE, HYB, STAYS),
	AT(EARLY_DISCARDS_QUEUED, ALL, STAYS),
	AT(HAND_OVER_JOURNALED, ALL, STAYS, .quick = HYB),
	AT(INTENT_QUEUED, ALL, STAYS),
	AT(INTENT_RECEIVED, ALL, STAYS),
	AT(MAY_OWN_JOURNALED, ALL, STAYS),
	AT(INTENT_ACKNOWLEDGED, ALL, STAYS),
	AT(GUEST_PAUSED, ALL, STAYS, .quick = PRE),
	AT(LAST_WRITTEN_COLLECTED, ALL, STAYS),
	AT(LAST_SCAN_DONE, ALL, STAYS),
	AT(SWITCH_QUEUED, ALL, STAYS),
	AT(SWITCH_RECEIVED, ALL, STAYS),
	AT(DISCARDS_QUEUED, ALL, STAYS),
	AT(LISTEN_QUEUED, ALL, STAYS),
	AT(LISTEN_RECEIVED, ALL, STAYS),
	AT(MEMORY_GUARDED, ALL, STAYS),
	AT(LOAD_BEGUN, ALL, STAYS),
	AT(STATE_PIECE_QUEUED, ALL, STAYS),
	AT(STATE_PIECE_FED, ALL, STAYS, .quick = POST),
	AT(STATE_QUEUED, ALL, STAYS),
	AT(STATE_RECEIVED, ALL, STAYS),
	AT(STATE_LOADED, ALL, STAYS),
	AT(READY_QUEUED, ALL, STAYS),
	AT(READY_RECEIVED, ALL, STAYS),
	AT(COMMIT_QUEUED, ALL, STAYS, .quick = HYB),
	AT(COMMIT_SENT, ALL, EITHER),
	AT(COMMIT_RECEIVED, ALL, STAYS),
	AT(OWNER_MARKED, ALL, MOVES, .quick = HYB),
	AT(GUEST_LET_GO, ALL, MOVES),
	AT(RUNNING_SENT, ALL, MOVES),
	AT(RUNNING_RECEIVED, ALL, MOVES),
	AT(HOLES_QUEUED, HYB | POST, MOVES),
	AT(RUN_DUE, POST, MOVES, .nth = 5),
	AT(RUN_RECEIVED, POST, MOVES, .nth = 5),
	AT(REQUEST_DUE, POST, MOVES),
	AT(REQUEST_RECEIVED, POST, MOVES),
	AT(REQUEST_ANSWERED, POST, MOVES),
	AT(ANSWER_RECEIVED, POST, MOVES),
	AT(PAGES_PLACED, POST, MOVES, .quick = POST),
	AT(PAGES_PLACED, POST, MOVES, .nth = 200),
	AT(PAGES_MARKED, POST, MOVES, .nth = 20),
	AT(ZEROS_MARKED, POST, MOVES),
	AT(ZERO_FAULT_READ, POST, MOVES),
	AT(ALL_SENT, ALL, MOVES),
	AT(COMPLETE_QUEUED, ALL, MOVES),
	AT(COMPLETE_RECEIVED, ALL, MOVES),
	AT(GUARD_LIFTED, ALL, MOVES),
	AT(COMPLETED_JOURNALED, ALL, MOVES),
	AT(RECEIPT_QUEUED, ALL, MOVES),
	AT(KEPT_UFFD_CLOSED, ALL, MOVES),
	AT(GUEST_FINISHED, ALL, MOVES),
	AT(REGISTERED_THERE, HYB, MOVES),
	AT(REGISTERED_JOURNALED, HYB, MOVES),
	AT(GUEST_SENT_ON, HYB, MOVES),
	AT(RECEIPT_RECEIVED, ALL, MOVES),
	AT(RELEASE_JOURNALED, ALL, MOVES, .quick = HYB),
	AT(JOB_ENDED, ALL, MOVES),
	AT(GUEST_TOLD_TO_END, ALL, MOVES),

	AT(ROLLBACK_JOURNALED, PRE | HYB, STAYS, LOST_EARLY),
	AT(ABORT_AWAITED, PRE | HYB, STAYS, LOST_EARLY),
	AT(ROLLBACK_JOURNALED, ALL, STAYS, LOST_LATE),
	AT(ROLLBACK_RESUMED, ALL, STAYS, LOST_LATE),
	AT(ABORT_JOURNALED, PRE | HYB, STAYS, GAVE_UP),
	AT(EMPTY_GUEST_ENDED, PRE | HYB, STAYS, GAVE_UP),

	AT(HELD_JOURNALED, POST, MOVES, DEST_LOST),
	AT(QUERY_QUEUED, POST, MOVES, DEST_LOST),
	AT(ANSWER_TAKEN, POST, MOVES, DEST_LOST),
	AT(GUARDED_AGAIN, POST, MOVES, DEST_LOST),
	AT(MEMORY_TAKEN, POST, MOVES, DEST_LOST),
	AT(REVIVED, POST, MOVES, DEST_LOST),
	AT(RESUME_QUEUED, POST, MOVES, DEST_LOST),
	AT(RESUME_RECEIVED, POST, MOVES, DEST_LOST),
	AT(BITMAP_QUEUED, POST, MOVES, DEST_LOST),
	AT(BITMAP_RECEIVED, POST, MOVES, DEST_LOST),
	AT(CONTINUE_QUEUED, POST, MOVES, DEST_LOST),
	AT(CONTINUE_RECEIVED, POST, MOVES, .quick = POST, DEST_LOST),
};

/** struct kill_row - one row; no pointers, Criterion copies it */
struct kill_row {
	struct at at;
	unsigned int mode;
	bool both;
};

#define ROWS_MAX (LAB_COUNT(points) * LAB_COUNT(modes) * 2)

/* Both are killed in the last mode in which the point is reached. */
static bool is_row(const struct at *p, unsigned int mode, bool both)
{
	return p->modes >> mode & 1 && (!both || (!p->before && !(p->modes >> (mode + 1))));
}

static size_t gather(struct kill_row *rows)
{
	size_t n = 0, seen = 0;

	for (size_t i = 0; i < LAB_COUNT(points); i++)
		for (unsigned int mode = 0; mode < LAB_COUNT(modes); mode++)
			for (int both = 0; both < 2; both++)
				if (is_row(&points[i], mode, both) &&
				    lab_matrix_pick(seen++, !both && points[i].quick >> mode & 1))
					rows[n++] = (struct kill_row){points[i], mode, both};
	return n;
}

ParameterizedTestParameters(kills, at_every_point)
{
	static struct kill_row rows[ROWS_MAX];

	return cr_make_param_array(struct kill_row, rows, gather(rows));
}

/**
 * struct scene - a migration in which agents end
 * @control:	a bystander, in precopy: the guest's writers stand no longer than its writer
 * @first:	what its report at @b says first
 * @ran:	the guest was seen to run at @b, when its counter at @a was @stood_at
 */
struct scene {
	struct lab *lab;
	struct lab_host *a, *b;
	struct lab_guest *g;
	struct lab_proc *p;
	struct lab_control *control;
	uint64_t first;
	uint64_t stood_at;
	bool ran;
};

#define MB 16

static struct lab_proc *agent_of(const struct scene *s, enum faultpoint p)
{
	return lab_faultpoint_at_source(p) ? s->a->source : s->b->dest;
}

/* What ends first ends once more if it is the same agent. */
static void end_before(struct scene *s, const struct at *at, char *then)
{
	bool source = lab_faultpoint_at_source(at->before);

	lab_fault_killed(s->lab, agent_of(s, at->before), 20000);
	if (source == lab_faultpoint_at_source(at->point)) {
		s->a->source_fault = source ? then : NULL;
		s->b->dest_fault = source ? NULL : then;
	}
	if (source)
		lab_host_source_start(s->a);
	else
		lab_host_dest_start(s->b);
}

/* Threads that an agent has, about. */
#define THREADS 5

/* In precopy nothing may keep a writer, whatever ends; by faults its every first write waits for the agent. */
static bool is_watched(const struct kill_row *r)
{
	return !strcmp(lab_faultpoint_phase(r->at.point), "precopy") && r->at.fate == STAYS &&
	       r->mode != 2;
}

static void watch(struct scene *s)
{
	s->control = lab_control_start(s->lab, THREADS);
	lab_guest_calm(s->g);
	lab_control_calm(s->control);
}

/* 16 MiB at 160 Mbit/s take most of a second. */
static struct scene begin(const struct kill_row *r)
{
	const struct at *at = &r->at;
	char *then = lab_fault_kill(at->point, at->nth),
	     *first = lab_fault_kill(at->before, at->before_nth);
	struct scene s = {.lab = lab_new(lab_test_failed)};
	struct lab_move move = {.mode = modes[r->mode],
				.tracking = is_watched(r) && !r->mode ? "faults" : NULL,
				.args = {"--bandwidth", "160Mbit"}};
	const char *faults[2] = {NULL, NULL};

	lab_fault_agents(s.lab);
	faults[lab_faultpoint_at_source(at->point)] = then;
	if (at->before)
		faults[lab_faultpoint_at_source(at->before)] = first;
	s.a = lab_host_start(s.lab,
			     &(struct lab_host_opts){.name = "a", .source_fault = faults[1]});
	s.b = lab_host_start(s.lab, &(struct lab_host_opts){.name = "b", .dest_fault = faults[0]});
	s.g = lab_guest_start(s.a, &(struct lab_guest_opts){
					   .mb = MB, .threads = 2, .writes = 400, .dma = at->dma});
	if (is_watched(r))
		watch(&s);
	s.p = lab_migrate_begin(s.a, s.b, s.g, &move);
	if (at->before)
		end_before(&s, at, then);
	lab_fault_killed(s.lab, agent_of(&s, at->point), 20000);
	if (s.control)
		lab_control_kill(s.control);
	if (r->both)
		lab_proc_kill(s.lab, lab_faultpoint_at_source(at->point) ? s.b->dest : s.a->source);
	free(then);
	free(first);
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
	lab_check(s->lab, !s->ran || here <= s->stood_at, "it runs in two places: %lu, %lu", here,
		  s->stood_at);
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
	if (s->control) {
		lab_control_check(s->lab, s->control, lab_guest_report(s->g).stall_us, "precopy");
		lab_control_end(s->lab, s->control);
	}
	lab_until(s->lab, 15000, lab_host_guests(s->b) == 0,
		  "a guest that never ran stays at the destination");
	json_decref(lab_migrate(s->a, s->b, s->g, &(struct lab_move){0}));
	lab_guest_arrived(s->g, s->b);
}

/* It has been handed on: to decant-source there, so that it can leave again. */
static void moved_on(struct scene *s)
{
	lab_guest_arrived(s->g, s->b);
	lab_host_knows(s->b, s->g->name);
}

static void name_fault(const struct kill_row *r, char *out, size_t n)
{
	const struct at *at = &r->at;
	int k = snprintf(out, n, "kill %s at %s",
			 r->both ? "both" : lab_faultpoint_agent(at->point),
			 lab_faultpoint_name(at->point));

	if (at->nth)
		k += snprintf(out + k, n - (size_t)k, "@%u", at->nth);
	if (at->before)
		snprintf(out + k, n - (size_t)k, " after %s", lab_faultpoint_name(at->before));
}

ParameterizedTest(struct kill_row *r, kills, at_every_point)
{
	char fault[128];
	struct lab_row row = {.fault = fault,
			      .phase = lab_faultpoint_phase(r->at.point),
			      .mode = modes[r->mode],
			      .driver = "native"};
	struct scene s;
	bool moved;

	name_fault(r, fault, sizeof(fault));
	lab_matrix_begin(&row);
	s = begin(r);
	look_on(&s, 200);
	start_again(&s);
	lab_until(s.lab, 30000, settled(&s), "it does not come to an end");
	moved = lab_job_phase_is(s.a, "completed");
	lab_check(s.lab, r->at.fate != STAYS || !moved, "it was moved");
	lab_check(s.lab, r->at.fate != MOVES || moved, "it was not moved");
	lab_proc_kill(s.lab, s.p);
	if (moved)
		moved_on(&s);
	else
		stayed(&s);
	lab_end(s.lab);
	lab_matrix_end(&row, moved ? "moved" : "stayed");
}
