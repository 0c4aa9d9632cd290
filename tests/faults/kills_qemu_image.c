/* SPDX-License-Identifier: Apache-2.0 */
/*
 * SIGKILL of decant-dest while it starts a copy of a virtual machine out of an image, and of either agent, or of
 * both, in a clone. The VM that was stored runs on and knows nothing of it; a copy that had not been let go is
 * ended, and the image stays and can be restored; one that had been let go gets every page, and goes on.
 */
#include <dirent.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "lib/lab_matrix.h"
#include "lib/lab_micro.h"
#include "lib/lab_test.h"
#include "lib/lab_trip.h"

TestSuite(kills_qemu_image, .timeout = 280);

/**
 * struct at - a point, and what a kill there means
 * @nth:	time that it is reached; 0: there is no point
 * @runs:	the copy has been let go
 * @none:	there is no image either
 * @looked:	the host's decant-source, which knows the VM from a copy before, looks at it while there is no decant-dest
 * @both:	the source's agent is killed at that moment, too, or the destination's if the point is the source's
 */
struct at {
	enum faultpoint point;
	unsigned int nth;
	bool runs;
	bool none;
	bool looked;
	bool both;
};

#define AT(id, n, ...)                                            \
	{                                                         \
		.point = FAULTPOINT_##id, .nth = (n), __VA_ARGS__ \
	}

/* The copy is always the VM's first twin: what the launcher "vm1" of both hosts starts. */
struct scene {
	struct lab_trip t;
	struct lab_host *a, *b;
	struct lab_vm *vm, *copy;
	unsigned int images;
};

/* --- commands --- */

/* Return: `decant snapshot`, under way; @start: with a copy */
static struct lab_proc *snapshot_begin(struct scene *s, const char *name, bool start)
{
	return lab_decant_begin(s->a, (const char *const[]){"snapshot", s->t.g.name, "--to",
							    s->b->to, "--name", name, "--wait",
							    start ? "--start" : NULL, NULL});
}

static json_t *snapshot_newest(struct scene *s)
{
	json_t *all = lab_get(s->t.lab, s->a->source_sock, "/v1/snapshots");
	json_t *job = json_incref(json_array_get(json_object_get(all, "items"), 0));

	json_decref(all);
	return job;
}

static bool snapshot_ended(struct scene *s)
{
	json_t *job = snapshot_newest(s);
	const char *phase = job ? lab_str(s->t.lab, job, "phase") : "none";
	bool is = !strcmp(phase, "failed") || !strcmp(phase, "completed");

	json_decref(job);
	return is;
}

static void restore(struct scene *s, const char *name)
{
	char *err = NULL;
	int status = micro_command(s->b, NULL, &err,
				   (const char *const[]){"restore", name, "--wait", NULL});

	lab_check(s->t.lab, status == 0, "decant-dest restore: %d: %s", status, err);
	free(err);
}

static bool is_there(struct scene *s, const char *name, const char *suffix)
{
	char file[LAB_PATH_MAX];

	snprintf(file, sizeof(file), "state/images/%s.%s", name, suffix);
	return !access(lab_host_path(s->b, file), F_OK);
}

/* --- what is expected --- */

/* The stored VM: it runs, nobody has written to its memory, and no write of it was lost. */
static void unharmed(struct scene *s, struct lab_vm_state *state)
{
	struct lab_vm_state now;

	lab_until(s->t.lab, 10000, lab_vm_status(s->vm, "running"), "the stored VM does not run");
	now = lab_vm_state(s->vm);
	lab_check(s->t.lab, !now.bad && !now.gap && now.counter >= state->counter,
		  "the stored VM: %lu bad pages, gap %ld", now.bad, now.gap);
	*state = now;
}

static bool is_done(struct scene *s)
{
	json_t *in = lab_incoming_newest(s->b);
	bool done = in && !strcmp(lab_str(s->t.lab, in, "phase"), "completed");

	json_decref(in);
	return done;
}

/* All of its pages come, all of them are of one instant not before @before, and it can be ended. */
static void copy_goes_on(struct scene *s, const struct lab_vm_state *before)
{
	struct lab *lab = s->t.lab;
	struct lab_vm_state is;

	lab_vm_attach(s->copy, 0);
	lab_until(lab, 30000, lab_vm_status(s->copy, "running"), "the copy does not run");
	lab_until(lab, 60000, is_done(s), "its pages do not come");
	is = lab_vm_state(s->copy);
	lab_check(lab, !is.bad && !is.gap && is.counter >= before->counter,
		  "the copy: %lu bad pages, gap %ld, %lu writes after %lu", is.bad, is.gap,
		  is.counter, before->counter);
	json_decref(lab_vm_qmp_try(s->copy, "quit", NULL));
	lab_until(lab, 20000, !lab_vm_alive(s->copy) && !lab_host_guests(s->b),
		  "the copy does not end");
	lab_vm_detach(s->copy);
}

/* --- rows --- */

static void end_agent(struct scene *s, struct lab_proc *p)
{
	kill(p->pid, SIGTERM);
	lab_check(s->t.lab, lab_proc_wait(s->t.lab, p, 10000) == 0, "it does not end well");
}

static void arm(struct scene *s, const struct at *at)
{
	char *fault = lab_fault_kill(at->point, at->nth);

	if (lab_faultpoint_at_source(at->point)) {
		end_agent(s, s->a->source);
		s->a->source_fault = fault;
		lab_host_source_start(s->a);
		lab_host_knows(s->a, s->t.g.name);
	} else {
		end_agent(s, s->b->dest);
		s->b->dest_fault = fault;
		lab_host_dest_start(s->b);
	}
	free(fault);
}

static void back(struct scene *s)
{
	if (!lab_proc_alive(s->b->dest))
		lab_host_dest_start(s->b);
	if (!lab_proc_alive(s->a->source))
		lab_host_source_start(s->a);
	lab_host_knows(s->a, s->t.g.name);
}

static void killed(struct scene *s, const struct at *at)
{
	lab_fault_killed(s->t.lab, lab_faultpoint_at_source(at->point) ? s->a->source : s->b->dest,
			 60000);
	if (at->both)
		lab_proc_kill(s->t.lab,
			      lab_faultpoint_at_source(at->point) ? s->b->dest : s->a->source);
}

static void what_is_left(struct scene *s, const struct at *at, const char *name,
			 const struct lab_vm_state *before)
{
	if (at->runs)
		copy_goes_on(s, before);
	lab_until(s->t.lab, 20000, !lab_host_guests(s->b), "a copy that never ran stays");
	lab_until(s->t.lab, 15000, !is_there(s, name, "part"), "half an image stays");
	lab_check(s->t.lab, is_there(s, name, "image") == !at->none, "image %s", name);
}

/*
 * The monitor is free, and answers as long as the VM stands, which no missing page can hold up. Whoever has it keeps the
 * others out: it is left to those who come back.
 */
static void is_looked_at(struct scene *s)
{
	lab_until(s->t.lab, 20000,
		  lab_proc_said(s->t.lab, s->b->source, "is still being received by decant-dest"),
		  "the decant-source there does not look at it, or takes it");
}

static void restore_row(struct scene *s, const struct at *at, struct lab_vm_state *before)
{
	arm(s, at);
	/* It may be told that it was accepted, or that nobody answers any more. */
	micro_command(s->b, NULL, NULL, (const char *const[]){"restore", "stored", NULL});
	killed(s, at);
	if (at->looked)
		is_looked_at(s);
	back(s);
	what_is_left(s, at, "stored", before);
}

static void clone_row(struct scene *s, const struct at *at, struct lab_vm_state *before)
{
	struct lab_proc *p;
	char name[16];

	snprintf(name, sizeof(name), "clone-%u", s->images++);
	arm(s, at);
	p = snapshot_begin(s, name, true);
	killed(s, at);
	lab_proc_kill(s->t.lab, p);
	back(s);
	lab_until(s->t.lab, 60000, snapshot_ended(s), "the job does not come to an end");
	what_is_left(s, at, name, before);
	if (!at->none && !at->runs && s->t.lab->full) {
		restore(s, name);
		copy_goes_on(s, before);
	}
}

static void row(struct scene *s, const char *mode, const struct at *at, struct lab_vm_state *before)
{
	char fault[96];
	struct lab_row row = {.fault = fault,
			      .phase = lab_faultpoint_phase(at->point),
			      .mode = mode,
			      .driver = "qemu"};
	struct lab_vm_state stored = *before;

	snprintf(fault, sizeof(fault), "kill %s at %s%s",
		 at->both ? "both" : lab_faultpoint_agent(at->point),
		 lab_faultpoint_name(at->point), at->looked ? ", source there looks" : "");
	lab_matrix_begin(&row);
	fprintf(stderr, "%s, %s\n", fault, mode);
	if (!strcmp(mode, "restore"))
		restore_row(s, at, before);
	else
		clone_row(s, at, before);
	unharmed(s, &stored);
	lab_matrix_end(&row, at->none ? "none" : "whole");
}

#define ROWS_MAX 16

/**
 * struct session - the rows of one boot
 * @quick:	the first so many stand for the others
 */
struct session {
	const char *mode;
	unsigned int quick;
	struct at rows[ROWS_MAX];
};

/* @i: its number among those of this program */
static void go(size_t i, const struct session *what)
{
	struct lab_vm_state before;
	struct scene s = {0};

	if (!lab_matrix_pick(i, what->quick))
		cr_skip_test("DECANT_SLICE has others");
	lab_trip_begin(&s.t, lab_vm_lab(), &(struct lab_vm_opts){.mb = 144, .rate = 300});
	lab_fault_agents(s.t.lab);
	s.a = lab_trip_from(&s.t);
	s.b = lab_trip_to(&s.t);
	s.vm = s.t.at[0];
	s.copy = s.t.at[1];
	lab_host_knows(s.a, s.t.g.name);
	before = lab_vm_check(s.vm);
	if (!strcmp(what->mode, "restore"))
		lab_check(s.t.lab,
			  lab_proc_wait(s.t.lab, snapshot_begin(&s, "stored", false), 60000) == 0,
			  "the snapshot");
	for (size_t k = 0; k < ROWS_MAX && what->rows[k].nth; k++)
		if (s.t.lab->full || k < what->quick)
			row(&s, what->mode, &what->rows[k], &before);
	lab_trip_end(&s.t);
}

Test(kills_qemu_image, restore)
{
	go(0,
	   &(struct session){
		   .mode = "restore",
		   .quick = 3,
		   .rows = {AT(RESTORE_FILL_DUE, 3, .runs = true), AT(GUEST_LAUNCHED, 1),
			    AT(OWNER_MARKED, 1, .runs = true, .looked = true), AT(RESTORE_BEGUN, 1),
			    AT(LAUNCH_JOURNALED, 1), AT(GUEST_ATTACHED, 1), AT(UFFD_MADE, 1),
			    AT(MEMORY_EMPTIED, 1), AT(RESTORE_MAY_OWN_JOURNALED, 1),
			    AT(MEMORY_GUARDED, 1), AT(RESTORE_STATE_FED, 1), AT(STATE_LOADED, 1),
			    AT(RESTORE_READY, 1), AT(COMMIT_RECEIVED, 1)}});
}

Test(kills_qemu_image, restore_that_runs)
{
	lab_test_long();
	go(1,
	   &(struct session){
		   .mode = "restore",
		   .rows = {AT(OWNER_MARKED, 1, .runs = true), AT(GUEST_LET_GO, 1, .runs = true),
			    AT(PAGES_PLACED, 10, .runs = true), AT(PAGES_MARKED, 30, .runs = true),
			    AT(RESTORE_FILL_DUE, 20, .runs = true),
			    AT(OWNER_MARKED, 1, .runs = true, .both = true),
			    AT(GUARD_LIFTED, 1, .runs = true),
			    AT(COMPLETED_JOURNALED, 1, .runs = true),
			    AT(KEPT_UFFD_CLOSED, 1, .runs = true)}});
}

Test(kills_qemu_image, clone)
{
	lab_test_long();
	go(2, &(struct session){
		      .mode = "clone",
		      .rows = {AT(SAVED_RUN_DUE, 5, .none = true),
			       AT(SAVED_RUN_DUE, 5, .none = true, .both = true),
			       AT(IMAGE_PAGES_WRITTEN, 20, .none = true), AT(IMAGE_PART_REMOVED, 1),
			       AT(RESTORE_BEGUN, 1), AT(RESTORE_STATE_FED, 1),
			       AT(RESTORE_STATE_FED, 1, .both = true), AT(RESTORE_READY, 1)}});
}

Test(kills_qemu_image, clone_that_runs)
{
	lab_test_long();
	go(3, &(struct session){.mode = "clone",
				.rows = {AT(OWNER_MARKED, 1, .runs = true),
					 AT(RESTORE_FILL_DUE, 3, .runs = true),
					 AT(GUEST_LET_GO, 1, .runs = true, .both = true),
					 AT(PAGES_PLACED, 10, .runs = true, .both = true)}});
}
