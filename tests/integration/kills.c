/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An agent's end by SIGKILL, at any moment: no guest is handed zeros, no writer stays blocked,
 * nothing runs twice.
 *
 * Runs alone: it measures how long writers stand.
 */
#include <signal.h>
#include "lib/lab_test.h"

TestSuite(kills, .timeout = 120);

/* 64 MiB at 80 Mbit/s take six seconds: there is time to kill somebody. */
static struct lab_move slow(const char *mode, const char *tracking)
{
	return (struct lab_move){
		.mode = mode, .tracking = tracking, .args = {"--bandwidth", "80Mbit"}};
}

static void kill_source_in_precopy(const char *tracking)
{
	struct lab_host *a, *b;
	struct lab *lab = lab_test_pair(&a, &b);
	struct lab_guest *g = lab_guest_start(a, &(struct lab_guest_opts){.mb = 64, .threads = 3});
	struct lab_move move = slow("precopy", tracking);
	struct lab_proc *p = lab_migrate_begin(a, b, g, &move);

	lab_until(lab, 10000, lab_job_phase_is(a, "precopy"), "precopy was not reached");
	lab_until(lab, 10000, lab_guest_tracked(g), "nothing is tracked");
	lab_guest_kill_agent(g, a->source);
	lab_guest_verified(g);
	lab_proc_kill(lab, p);

	/* The destination waits for another session, until the new agent tells it that there will be none. */
	lab_host_source_start(a);
	lab_host_knows(a, g->name);
	lab_until(lab, 15000, lab_host_guests(b) == 0, "the empty guest stays at the destination");
	json_decref(lab_migrate(a, b, g, &(struct lab_move){.tracking = tracking}));
	lab_guest_arrived(g, b);
	lab_end(lab);
}

Test(kills, source_in_precopy_async)
{
	kill_source_in_precopy("async");
}

Test(kills, source_in_precopy_faults)
{
	kill_source_in_precopy("faults");
}

static void kill_dest_in_precopy(const char *tracking)
{
	struct lab_host *a, *b;
	struct lab *lab = lab_test_pair(&a, &b);
	struct lab_guest *g = lab_guest_start(a, &(struct lab_guest_opts){.mb = 64, .threads = 3});
	struct lab_move move = slow("hybrid", tracking);
	struct lab_proc *p = lab_migrate_begin(a, b, g, &move);

	move.exit = 1;
	move.phase = "failed";
	lab_until(lab, 10000, lab_job_phase_is(a, "precopy"), "precopy was not reached");
	lab_until(lab, 10000, lab_guest_tracked(g), "nothing is tracked");
	lab_guest_kill_agent(g, b->dest);
	lab_until(lab, 10000, lab_job_phase_is(a, "paused"),
		  "it does not wait for another session");
	lab_host_dest_start(b);
	/* A new agent has nothing of it. */
	json_decref(lab_migrate_end(a, p, &move));
	lab_guest_verified(g);
	lab_until(lab, 5000, !lab_guest_tracked(g), "it is still tracked");
	lab_until(lab, 15000, lab_host_guests(b) == 0, "the empty guest stays at the destination");
	json_decref(lab_migrate(a, b, g, &(struct lab_move){.tracking = tracking}));
	lab_guest_arrived(g, b);
	lab_end(lab);
}

Test(kills, dest_in_precopy_async)
{
	kill_dest_in_precopy("async");
}

Test(kills, dest_in_precopy_faults)
{
	kill_dest_in_precopy("faults");
}

/* Time for a guest that runs where it must not to be seen to do so. */
#define WATCH_MS 1500

/* At the source nothing runs; at the destination nothing wrong is ever read. */
static void stays_held(struct lab_guest *g, struct lab_host *from, struct lab_host *to)
{
	uint64_t end = lab_now_ms() + WATCH_MS, counter;

	lab_check(g->lab, lab_guest_pid(g, from), "its pages at the source are gone");
	lab_check(g->lab, lab_guest_pid(g, to), "it is gone at the destination");
	lab_guest_stands(g, from);
	counter = lab_guest_counter(g, from);
	while (lab_now_ms() < end) {
		lab_guest_unbroken(g, from, to);
		lab_check(g->lab, lab_guest_counter(g, from) == counter,
			  "the guest runs at the source, too");
		lab_nap();
	}
}

/* The destination cannot go on alone: the guest is held there, its pages stay where they are. */
Test(kills, source_in_postcopy)
{
	struct lab_host *a, *b;
	struct lab *lab = lab_test_pair(&a, &b);
	struct lab_guest *g = lab_guest_start(a, &(struct lab_guest_opts){.mb = 64, .threads = 2});
	struct lab_move move = slow("postcopy", NULL);
	struct lab_proc *p = lab_migrate_begin(a, b, g, &move);

	lab_until(lab, 10000, lab_job_phase_is(a, "postcopy"), "post-copy was not reached");
	lab_proc_kill(lab, a->source);
	lab_proc_kill(lab, p);
	stays_held(g, a, b);
	/* The pages are where they were, and a new agent goes on with them. */
	lab_host_source_start(a);
	lab_until(lab, 30000, lab_job_phase_is(a, "completed"), "the new agent does not recover");
	lab_guest_arrived(g, b);
	lab_end(lab);
}

Test(kills, dest_in_postcopy)
{
	struct lab_host *a, *b;
	struct lab *lab = lab_test_pair(&a, &b);
	struct lab_guest *g = lab_guest_start(a, &(struct lab_guest_opts){.mb = 64, .threads = 2});
	struct lab_move move = slow("postcopy", NULL);
	struct lab_proc *p = lab_migrate_begin(a, b, g, &move);
	json_t *job;

	lab_until(lab, 10000, lab_job_phase_is(a, "postcopy"), "post-copy was not reached");
	lab_proc_kill(lab, b->dest);
	stays_held(g, a, b);
	lab_until(lab, 10000, lab_job_phase_is(a, "paused") || lab_job_phase_is(a, "in-doubt"),
		  "the source goes on as if nothing had happened");
	job = lab_job_newest(a);
	lab_check(lab, strcmp(lab_str(lab, job, "owner"), "source"), "the source owns it again");
	/* What cannot be undone is refused. */
	lab_check(lab,
		  lab_decant(a, 10000, NULL, NULL,
			     (const char *[]){"cancel", lab_str(lab, job, "id"), NULL}) == 3,
		  "cancelled after the hand-over");
	json_decref(job);
	/* A new agent takes the guest over, and the source goes on. */
	lab_host_dest_start(b);
	json_decref(lab_migrate_end(a, p, &move));
	lab_guest_arrived(g, b);
	lab_end(lab);
}

/* Once nobody can need the states of its pages any more, an agent that starts removes them. */
Test(kills, dest_in_postcopy_and_the_guest)
{
	struct lab_host *a, *b;
	struct lab *lab = lab_test_pair(&a, &b);
	struct lab_guest *g = lab_guest_start(a, &(struct lab_guest_opts){.mb = 64, .threads = 2});
	struct lab_move move = slow("postcopy", NULL);
	struct lab_proc *p = lab_migrate_begin(a, b, g, &move);

	lab_until(lab, 10000, lab_job_phase_is(a, "postcopy"), "post-copy was not reached");
	lab_proc_kill(lab, b->dest);
	lab_proc_kill(lab, p);
	lab_guest_abandon(g);
	lab_host_dest_start(b);
	lab_until(lab, 5000, lab_proc_said(lab, b->dest, "has died"), "its death is not noticed");
	lab_end(lab);
}

/* The command outlives a restart of its agent for a while, and then says that it lost it. */
Test(kills, agent_unreachable)
{
	struct lab_host *a, *b;
	struct lab *lab = lab_test_pair(&a, &b);
	struct lab_guest *g = lab_guest_start(a, &(struct lab_guest_opts){.mb = 8});

	lab_proc_kill(lab, a->source);
	lab_check(lab,
		  lab_decant(a, 20000, NULL, NULL,
			     (const char *[]){"migrate", g->name, "--to", b->to, NULL}) == 4,
		  "not said that the agent cannot be reached");
	lab_guest_verified(g);
	lab_end(lab);
}
