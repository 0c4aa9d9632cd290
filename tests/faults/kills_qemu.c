/* SPDX-License-Identifier: Apache-2.0 */
/*
 * SIGKILL of either agent, or of both, at fault points around the hand-over of a virtual machine, while it is
 * loaded, in post-copy and while it is stored. One boot serves many rows: while the VM stays it is killed around
 * again, and each journey that moves it leads to the other host. It is in one place in the end, all of its memory
 * verifies, and where a source dies that protects pages of a VM that runs, none of its writers stands for more than
 * 100 ms.
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "lib/lab_kill.h"
#include "lib/lab_matrix.h"
#include "lib/lab_test.h"
#include "lib/lab_trip.h"

TestSuite(kills_qemu, .timeout = 280);

/** enum other - what becomes of the agent that is not at the point */
enum other {
	LIVES,
	BACK_FIRST, /* it is killed at that moment, too, and started again before the one at the point */
	BACK_LAST,
};

/**
 * struct at - a point
 * @nth:	time that it is reached; 0: there is no point
 * @other:	the other agent
 */
struct at {
	enum faultpoint point;
	unsigned int nth;
	enum other other;
};

#define AT(id, n, ...)                                            \
	{                                                         \
		.point = FAULTPOINT_##id, .nth = (n), __VA_ARGS__ \
	}
#define BOTH(id, n, order) AT(id, n, .other = (order))

#define STAYS_MAX 12
/* Threads that an agent has meanwhile, about. */
#define THREADS 6

/**
 * struct journey - what is done with one boot
 * @mode:	of all its migrations, or "snapshot"
 * @tracking:	of writes; NULL: what the host can
 * @stays:	points before the hand-over
 * @moves:	behind it
 * @quick:	so many of each stand for the others
 */
struct journey {
	const char *mode;
	const char *tracking;
	struct at stays[STAYS_MAX];
	struct at moves[LAB_TRIP_PLACES - 1];
	unsigned int quick;
};

static struct lab_proc *agent(struct lab_trip *t, bool source)
{
	return source ? lab_trip_from(t)->source : lab_trip_to(t)->dest;
}

static void start(struct lab_trip *t, bool source, const char *fault)
{
	if (source) {
		lab_trip_from(t)->source_fault = fault;
		lab_host_source_start(lab_trip_from(t));
	} else {
		lab_trip_to(t)->dest_fault = fault;
		lab_host_dest_start(lab_trip_to(t));
	}
}

/* From now on the agent ends at this point. */
static void arm(struct lab_trip *t, const struct at *at)
{
	bool source = lab_faultpoint_at_source(at->point);
	char *fault = lab_fault_kill(at->point, at->nth);

	kill(agent(t, source)->pid, SIGTERM);
	lab_check(t->lab, lab_proc_wait(t->lab, agent(t, source), 10000) == 0,
		  "it does not end well");
	start(t, source, fault);
	lab_host_knows(lab_trip_from(t), t->g.name);
	free(fault);
}

static struct lab_proc *begin_job(struct lab_trip *t, const struct journey *j)
{
	const struct lab_move move = {
		.mode = j->mode, .tracking = j->tracking, .args = {"--bandwidth", "400Mbit"}};

	if (!strcmp(j->mode, "snapshot"))
		return lab_decant_begin(lab_trip_from(t),
					(const char *const[]){"snapshot", t->g.name, "--to",
							      lab_trip_to(t)->to, "--name", "half",
							      "--bandwidth", "400Mbit", "--wait",
							      NULL});
	return lab_migrate_begin(lab_trip_from(t), lab_trip_to(t), &t->g, &move);
}

/* Its kernel may have noticed that it stood for long. */
static void is_whole(struct lab_trip *t, const struct lab_vm_state *before)
{
	struct lab_vm_state now = lab_vm_state(lab_trip_vm(t));

	lab_check(t->lab, !now.bad && !now.gap && now.counter >= before->counter,
		  "%lu bad pages, gap %ld", now.bad, now.gap);
}

/* A writer waits for the agent alone where that protects pages: a snapshot's, or tracking's by faults. */
static bool protects(const struct journey *j)
{
	return !strcmp(j->mode, "snapshot") || (j->tracking && !strcmp(j->tracking, "faults"));
}

/* The agent is dead, and nobody has been started: whoever it let wait must have gone on by now. */
static void writers_go_on(struct lab_trip *t, struct lab_control *c, const struct lab_writers *w)
{
	lab_control_kill(c);
	if (lab_vm_status(lab_trip_vm(t), "running"))
		lab_control_check(t->lab, c, w->stall_us(w->arg), "the VM");
	lab_control_end(t->lab, c);
	w->end(w->arg);
}

static void kill_at(struct lab_trip *t, const struct journey *j, const struct at *at)
{
	struct lab_control *c = NULL;
	struct lab_writers w;
	struct lab_proc *p;

	if (protects(j) && lab_faultpoint_at_source(at->point)) {
		c = lab_control_start(t->lab, THREADS);
		w = lab_vm_writers(lab_trip_vm(t));
		w.calm(w.arg);
		lab_control_calm(c);
	}
	p = begin_job(t, j);
	lab_fault_killed(t->lab, agent(t, lab_faultpoint_at_source(at->point)), 60000);
	if (at->other)
		lab_proc_kill(t->lab, agent(t, !lab_faultpoint_at_source(at->point)));
	if (c)
		writers_go_on(t, c, &w);
	lab_proc_kill(t->lab, p);
}

static void kill_there(struct lab_trip *t, const struct journey *j, const struct at *at)
{
	arm(t, at);
	kill_at(t, j, at);
	if (at->other == BACK_FIRST)
		start(t, !lab_faultpoint_at_source(at->point), NULL);
	start(t, lab_faultpoint_at_source(at->point), NULL);
	if (at->other == BACK_LAST)
		start(t, !lab_faultpoint_at_source(at->point), NULL);
}

static bool job_is(struct lab_trip *t, const char *mode, const char *phase)
{
	struct lab_host *h = lab_trip_from(t);
	json_t *all, *job;
	bool is;

	if (strcmp(mode, "snapshot") != 0)
		return lab_job_phase_is(h, phase);
	all = lab_get(t->lab, h->source_sock, "/v1/snapshots");
	job = json_array_get(json_object_get(all, "items"), 0);
	is = job && !strcmp(lab_str(t->lab, job, "phase"), phase);
	json_decref(all);
	return is;
}

static void stays(struct lab_trip *t, const struct journey *j, const struct at *at,
		  const char *note)
{
	struct lab_vm_state before = lab_vm_state(lab_trip_vm(t));

	kill_there(t, j, at);
	lab_until(t->lab, 60000, job_is(t, j->mode, "failed"), "the job does not fail");
	lab_host_knows(lab_trip_from(t), t->g.name);
	lab_until(t->lab, 10000, lab_vm_status(lab_trip_vm(t), "running"), "it does not run");
	is_whole(t, &before);
	lab_until(t->lab, 15000, lab_host_guests(lab_trip_to(t)) == 0,
		  "a QEMU that never ran stays at the destination");
	lab_vm_left_nothing(lab_trip_vm(t), note);
}

static void moves(struct lab_trip *t, const struct journey *j, const struct at *at)
{
	struct lab_vm_state before = lab_vm_state(lab_trip_vm(t));

	kill_there(t, j, at);
	lab_until(t->lab, 90000, job_is(t, j->mode, "completed"), "it does not complete");
	lab_trip_came(t);
	is_whole(t, &before);
}

static void row(struct lab_trip *t, const struct journey *j, const struct at *at, const char *note)
{
	static const char *const others[] = {"", ", other back first", ", other back last"};
	char fault[128];
	struct lab_row row = {.fault = fault,
			      .phase = lab_faultpoint_phase(at->point),
			      .mode = j->mode,
			      .driver = "qemu"};

	snprintf(fault, sizeof(fault), "kill %s at %s%s%s%s",
		 at->other ? "both" : lab_faultpoint_agent(at->point),
		 lab_faultpoint_name(at->point), others[at->other], j->tracking ? ", " : "",
		 j->tracking ? j->tracking : "");
	lab_matrix_begin(&row);
	fprintf(stderr, "%s, %s\n", fault, j->mode);
	if (note)
		stays(t, j, at, note);
	else
		moves(t, j, at);
	lab_matrix_end(&row, note ? "stayed" : "moved");
}

/* Return: how many rows of @most are to be done now */
static size_t rows(const struct lab_trip *t, const struct journey *j, const struct at *all,
		   size_t most)
{
	size_t n = 0;

	while (n < most && all[n].nth && (t->lab->full || n < j->quick))
		n++;
	return n;
}

/* @i: its number among the journeys of this program */
static void go(size_t i, const struct journey *j)
{
	size_t nstays, nmoves;
	struct lab_trip t;
	char *note;

	if (!lab_matrix_pick(i, j->quick))
		cr_skip_test("DECANT_SLICE has other journeys");
	lab_trip_begin(&t, lab_vm_lab(), &(struct lab_vm_opts){.mb = 144, .rate = 300});
	lab_fault_agents(t.lab);
	lab_host_knows(lab_trip_from(&t), t.g.name);
	nstays = rows(&t, j, j->stays, LAB_COUNT(j->stays));
	nmoves = rows(&t, j, j->moves, LAB_COUNT(j->moves));
	note = lab_vm_note(lab_trip_vm(&t));
	for (size_t k = 0; k < nstays; k++)
		row(&t, j, &j->stays[k], note);
	free(note);
	for (size_t k = 0; k < nmoves; k++) {
		if (k)
			lab_trip_describe(&t);
		row(&t, j, &j->moves[k], NULL);
	}
	lab_trip_end(&t);
}

Test(kills_qemu, from_setup_to_the_pause)
{
	lab_test_long();
	go(0,
	   &(struct journey){
		   .mode = "postcopy",
		   .stays = {AT(GUEST_LAUNCHED, 1), AT(LAUNCH_JOURNALED, 1), AT(GUEST_ATTACHED, 1),
			     AT(UFFD_MADE, 1), AT(MEMORY_EMPTIED, 1), AT(HAND_OVER_JOURNALED, 1),
			     AT(MAY_OWN_JOURNALED, 1), AT(INTENT_ACKNOWLEDGED, 1),
			     AT(GUEST_PAUSED, 1), AT(LAST_SCAN_DONE, 1)},
		   .moves = {AT(OWNER_MARKED, 1), AT(PAGES_PLACED, 50), AT(RELEASE_JOURNALED, 1)}});
}

Test(kills_qemu, while_it_is_loaded)
{
	lab_test_long();
	go(1,
	   &(struct journey){
		   .mode = "postcopy",
		   .stays = {AT(MEMORY_GUARDED, 1), AT(LOAD_BEGUN, 1), AT(STATE_PIECE_QUEUED, 1),
			     AT(STATE_PIECE_FED, 1), AT(STATE_QUEUED, 1), AT(STATE_RECEIVED, 1)},
		   .moves = {AT(GUEST_LET_GO, 1), AT(REQUEST_ANSWERED, 20), AT(GUARD_LIFTED, 1)}});
}

Test(kills_qemu, around_the_commit)
{
	go(2, &(struct journey){.mode = "postcopy",
				.stays = {AT(STATE_PIECE_FED, 1), AT(STATE_PIPE_GIVEN, 1),
					  AT(STATE_LOADED, 1), AT(READY_QUEUED, 1),
					  AT(READY_RECEIVED, 1), AT(COMMIT_QUEUED, 1),
					  AT(COMMIT_RECEIVED, 1)},
				.moves = {AT(PAGES_MARKED, 500), AT(RUNNING_RECEIVED, 1),
					  AT(COMPLETED_JOURNALED, 1)},
				.quick = 1});
}

Test(kills_qemu, hybrid)
{
	lab_test_long();
	go(3,
	   &(struct journey){
		   .mode = "hybrid",
		   .stays = {AT(TRACKING_UFFD_MADE, 1), AT(TRACKING_STARTED, 1), AT(RUN_DUE, 20),
			     AT(PAGES_WRITTEN, 20), AT(WRITTEN_COLLECTED, 1), AT(DISCARDS_DONE, 1),
			     AT(GUEST_PAUSED, 1), AT(STATE_LOADED, 1), AT(COMMIT_QUEUED, 1)},
		   .moves = {AT(OWNER_MARKED, 1), AT(ALL_SENT, 1), AT(GUEST_TOLD_TO_END, 1)}});
}

/* Precopy by faults, too: what the dead agent protected nobody else may go on protecting. */
Test(kills_qemu, hybrid_by_faults)
{
	lab_test_long();
	go(4, &(struct journey){.mode = "hybrid",
				.tracking = "faults",
				.stays = {AT(TRACKING_UFFD_MADE, 1), AT(TRACKING_STARTED, 1),
					  AT(RUN_DUE, 20), AT(BARRIER_DUE, 1),
					  AT(WRITTEN_COLLECTED, 1), AT(GUEST_PAUSED, 1),
					  AT(LAST_WRITTEN_COLLECTED, 1), AT(STATE_QUEUED, 1),
					  BOTH(RUN_DUE, 20, BACK_LAST)},
				.moves = {AT(OWNER_MARKED, 1), AT(HOLES_QUEUED, 1)}});
}

Test(kills_qemu, precopy)
{
	lab_test_long();
	go(5, &(struct journey){
		      .mode = "precopy",
		      .stays = {AT(GUEST_PAUSED, 1), AT(LAST_WRITTEN_COLLECTED, 1),
				AT(STATE_PIECE_FED, 1), AT(STATE_LOADED, 1), AT(READY_RECEIVED, 1)},
		      .moves = {AT(OWNER_MARKED, 1), AT(RECEIPT_QUEUED, 1), AT(JOB_ENDED, 1)}});
}

Test(kills_qemu, both)
{
	lab_test_long();
	go(6,
	   &(struct journey){
		   .mode = "hybrid",
		   .stays = {BOTH(GUEST_LAUNCHED, 1, BACK_LAST),
			     BOTH(PAGES_WRITTEN, 20, BACK_FIRST), BOTH(GUEST_PAUSED, 1, BACK_LAST),
			     BOTH(STATE_PIECE_FED, 1, BACK_FIRST), BOTH(STATE_LOADED, 1, BACK_LAST),
			     BOTH(READY_RECEIVED, 1, BACK_FIRST),
			     BOTH(COMMIT_RECEIVED, 1, BACK_FIRST),
			     BOTH(COMMIT_RECEIVED, 1, BACK_LAST)},
		   .moves = {BOTH(OWNER_MARKED, 1, BACK_FIRST), BOTH(GUEST_LET_GO, 1, BACK_LAST),
			     BOTH(PAGES_PLACED, 10, BACK_FIRST)}});
}

Test(kills_qemu, both_in_post_copy)
{
	lab_test_long();
	go(7, &(struct journey){
		      .mode = "postcopy",
		      .stays = {BOTH(LOAD_BEGUN, 1, BACK_LAST), BOTH(STATE_QUEUED, 1, BACK_FIRST)},
		      .moves = {BOTH(OWNER_MARKED, 1, BACK_LAST),
				BOTH(REQUEST_ANSWERED, 20, BACK_LAST),
				BOTH(PAGES_MARKED, 500, BACK_LAST)}});
}

Test(kills_qemu, while_it_is_stored)
{
	lab_test_long();
	go(8, &(struct journey){
		      .mode = "snapshot",
		      .stays = {AT(SAVE_PAUSED, 1), AT(SAVE_STATE_TAKEN, 1), AT(SAVE_PROTECTED, 1),
				AT(SAVE_RESUMED, 1), AT(SAVED_RUN_DUE, 5), AT(SAVED_RUN_DUE, 40),
				AT(SAVE_ALL_SAVED, 1), AT(IMAGE_PAGES_WRITTEN, 5),
				AT(IMAGE_HEADER_SYNCED, 1), BOTH(SAVED_RUN_DUE, 20, BACK_FIRST),
				BOTH(IMAGE_DATA_SYNCED, 1, BACK_LAST)}});
}
