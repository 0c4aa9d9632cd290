/* SPDX-License-Identifier: Apache-2.0 */
/*
 * SIGKILL of either agent at fault points around the hand-over of a virtual machine, while it is loaded, in
 * post-copy and while it is stored. One boot serves many rows: while the VM stays it is killed around again,
 * and each journey that moves it leads to the other host.
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "lib/lab_matrix.h"
#include "lib/lab_test.h"
#include "lib/lab_trip.h"

TestSuite(kills_qemu, .timeout = 280);

/**
 * struct at - a point
 * @nth:	time that it is reached; 0: the first
 */
struct at {
	enum faultpoint point;
	unsigned int nth;
};

#define AT(id, n)                                    \
	{                                            \
		.point = FAULTPOINT_##id, .nth = (n) \
	}

#define STAYS_MAX 12

/**
 * struct journey - what is done with one boot
 * @mode:	of all its migrations, or "snapshot"
 * @stays:	points before the hand-over, up to one of nth 0
 * @moves:	behind it
 */
struct journey {
	const char *mode;
	struct at stays[STAYS_MAX];
	struct at moves[LAB_TRIP_PLACES - 1];
};

static bool at_source(const struct at *at)
{
	return !strcmp(lab_faultpoint_agent(at->point), "source");
}

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
	bool source = at_source(at);
	char action[16], *fault;

	snprintf(action, sizeof(action), "kill@%u", at->nth);
	fault = lab_fault(at->point, action);
	kill(agent(t, source)->pid, SIGTERM);
	lab_check(t->lab, lab_proc_wait(t->lab, agent(t, source), 10000) == 0,
		  "it does not end well");
	start(t, source, fault);
	lab_host_knows(lab_trip_from(t), t->g.name);
	free(fault);
}

static struct lab_proc *begin_job(struct lab_trip *t, const char *mode)
{
	const struct lab_move move = {.mode = mode, .args = {"--bandwidth", "400Mbit"}};

	if (!strcmp(mode, "snapshot"))
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

static void kill_there(struct lab_trip *t, const char *mode, const struct at *at)
{
	struct lab_proc *p;

	arm(t, at);
	p = begin_job(t, mode);
	lab_fault_killed(t->lab, agent(t, at_source(at)), 40000);
	start(t, at_source(at), NULL);
	lab_proc_kill(t->lab, p);
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

static void stays(struct lab_trip *t, const char *mode, const struct at *at, const char *note)
{
	struct lab_vm_state before = lab_vm_state(lab_trip_vm(t));

	kill_there(t, mode, at);
	lab_until(t->lab, 30000, job_is(t, mode, "failed"), "the job does not fail");
	lab_host_knows(lab_trip_from(t), t->g.name);
	lab_until(t->lab, 10000, lab_vm_status(lab_trip_vm(t), "running"), "it does not run");
	is_whole(t, &before);
	lab_until(t->lab, 15000, lab_host_guests(lab_trip_to(t)) == 0,
		  "a QEMU that never ran stays at the destination");
	lab_vm_left_nothing(lab_trip_vm(t), note);
}

static void moves(struct lab_trip *t, const char *mode, const struct at *at)
{
	struct lab_vm_state before = lab_vm_state(lab_trip_vm(t));

	kill_there(t, mode, at);
	lab_until(t->lab, 40000, job_is(t, mode, "completed"), "it does not complete");
	lab_trip_came(t);
	is_whole(t, &before);
}

static void row(struct lab_trip *t, const struct journey *j, const struct at *at, const char *note)
{
	char fault[96];
	struct lab_row row = {.fault = fault,
			      .phase = lab_faultpoint_phase(at->point),
			      .mode = j->mode,
			      .driver = "qemu"};

	snprintf(fault, sizeof(fault), "kill %s at %s", lab_faultpoint_agent(at->point),
		 lab_faultpoint_name(at->point));
	lab_matrix_begin(&row);
	fprintf(stderr, "%s, %s\n", fault, j->mode);
	if (note)
		stays(t, j->mode, at, note);
	else
		moves(t, j->mode, at);
	lab_matrix_end(&row, note ? "stayed" : "moved");
}

/* @i: its number among the journeys of this program */
static void go(size_t i, const struct journey *j)
{
	struct lab_trip t;
	char *note;

	if (!lab_matrix_pick(i, false))
		cr_skip_test("DECANT_SLICE has other journeys");
	lab_trip_begin(&t, lab_vm_lab(), &(struct lab_vm_opts){.mb = 144, .rate = 300});
	lab_fault_agents(t.lab);
	lab_host_knows(lab_trip_from(&t), t.g.name);
	note = lab_vm_note(lab_trip_vm(&t));
	for (size_t k = 0; k < LAB_COUNT(j->stays) && j->stays[k].nth; k++)
		row(&t, j, &j->stays[k], note);
	free(note);
	for (size_t k = 0; k < LAB_COUNT(j->moves) && j->moves[k].nth; k++) {
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
		   .stays = {AT(GUEST_LAUNCHED, 1), AT(GUEST_ATTACHED, 1), AT(UFFD_MADE, 1),
			     AT(MEMORY_EMPTIED, 1), AT(HAND_OVER_JOURNALED, 1),
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
	lab_test_long();
	go(2, &(struct journey){.mode = "postcopy",
				.stays = {AT(STATE_LOADED, 1), AT(READY_QUEUED, 1),
					  AT(READY_RECEIVED, 1), AT(COMMIT_QUEUED, 1),
					  AT(COMMIT_RECEIVED, 1)},
				.moves = {AT(RUNNING_RECEIVED, 1), AT(PAGES_MARKED, 500),
					  AT(COMPLETED_JOURNALED, 1)}});
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

Test(kills_qemu, precopy)
{
	lab_test_long();
	go(4, &(struct journey){
		      .mode = "precopy",
		      .stays = {AT(GUEST_PAUSED, 1), AT(LAST_WRITTEN_COLLECTED, 1),
				AT(STATE_PIECE_FED, 1), AT(STATE_LOADED, 1), AT(READY_RECEIVED, 1)},
		      .moves = {AT(OWNER_MARKED, 1), AT(RECEIPT_QUEUED, 1), AT(JOB_ENDED, 1)}});
}

Test(kills_qemu, while_it_is_stored)
{
	lab_test_long();
	go(5, &(struct journey){.mode = "snapshot",
				.stays = {AT(SAVE_PAUSED, 1), AT(SAVE_STATE_TAKEN, 1),
					  AT(SAVE_PROTECTED, 1), AT(SAVE_RESUMED, 1),
					  AT(SAVED_RUN_DUE, 5), AT(IMAGE_PAGES_WRITTEN, 5)}});
}
