/* SPDX-License-Identifier: Apache-2.0 */
/*
 * In doubt with an unmodified QEMU: decant-dest ends around COMMIT and does not come back, and an operator decides
 * with `decant resolve`. Until then the VM stands, behind that it runs in one place with all of its memory, and a
 * destination that comes back after all is told.
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "lib/lab_matrix.h"
#include "lib/lab_relay.h"
#include "lib/lab_test.h"
#include "lib/lab_trip.h"

TestSuite(doubt_qemu, .timeout = 280);

/** enum decided - a case */
enum decided { KEEP_SOURCE, KEEP_DESTINATION, CONFLICT, DECIDED_COUNT_ };

static const struct {
	const char *fault, *mode;
	enum faultpoint point;
	bool quick;
} cases[] = {
	[KEEP_SOURCE] = {"destination gone for good", "hybrid", FAULTPOINT_COMMIT_RECEIVED, true},
	[KEEP_DESTINATION] = {"given up here", "precopy", FAULTPOINT_GUEST_LET_GO, false},
	[CONFLICT] = {"destination back, runs it", "precopy", FAULTPOINT_OWNER_MARKED, false},
};

ParameterizedTestParameters(doubt_qemu, resolved)
{
	static enum decided picked[DECIDED_COUNT_];
	size_t n = 0;

	for (size_t i = 0; i < DECIDED_COUNT_; i++)
		if (lab_matrix_pick(i, cases[i].quick))
			picked[n++] = (enum decided)i;
	return cr_make_param_array(enum decided, picked, n);
}

/** struct scene - one VM, whose destination's agent has ended */
struct scene {
	struct lab_trip t;
	struct lab_relay *relay;
	struct lab_host *a, *b;
	struct lab_vm_state before;
	char *note;
	char id[40];
};

static bool says(struct scene *s, const char *path, const char *text)
{
	json_t *m = lab_job_newest(s->a);
	const char *is = json_string_value(lab_at(m, path));
	bool r = is && !strcmp(is, text);

	json_decref(m);
	return r;
}

#define until_says(s, path, text) \
	lab_until((s)->t.lab, 40000, says(s, path, text), "the job's %s is not %s", path, text)

static int resolve(struct scene *s, const char *keep, char **ret_err)
{
	return lab_decant(
		s->a, 30000, NULL, ret_err,
		(const char *[]){"resolve", s->id, "--keep", keep, "--confirm", s->id, NULL});
}

static void resolved(struct scene *s, const char *keep)
{
	char *err = NULL;
	int r = resolve(s, keep, &err);

	lab_check(s->t.lab, r == 0, "resolve --keep %s: %d, %s", keep, r, err);
	free(err);
}

static void in_doubt(struct scene *s, enum decided which)
{
	const struct lab_move move = {.mode = cases[which].mode,
				      .args = {"--bandwidth", "400Mbit"}};
	char *fault = lab_fault(cases[which].point, "kill");
	struct lab_proc *p;
	json_t *job;

	kill(s->b->dest->pid, SIGTERM);
	lab_check(s->t.lab, lab_proc_wait(s->t.lab, s->b->dest, 10000) == 0, "its end");
	s->b->dest_fault = fault;
	lab_host_dest_start(s->b);
	s->before = lab_vm_check(lab_trip_vm(&s->t));
	p = lab_migrate_begin(s->a, s->b, &s->t.g, &move);
	lab_fault_killed(s->t.lab, s->b->dest, 60000);
	free(fault);
	until_says(s, "phase", "in-doubt");
	lab_proc_kill(s->t.lab, p);
	job = lab_job_newest(s->a);
	snprintf(s->id, sizeof(s->id), "%s", lab_str(s->t.lab, job, "id"));
	lab_check(s->t.lab, !strcmp(lab_str(s->t.lab, job, "owner"), "in-doubt"), "owner");
	json_decref(job);
	lab_check(s->t.lab, !lab_vm_status(lab_trip_vm(&s->t), "running"),
		  "it runs while nobody knows where it is");
}

static void begin(struct scene *s, enum decided which)
{
	*s = (struct scene){0};
	lab_trip_begin(&s->t, lab_vm_lab(), &(struct lab_vm_opts){.mb = 144, .rate = 300});
	lab_fault_agents(s->t.lab);
	s->a = lab_trip_from(&s->t);
	s->b = lab_trip_to(&s->t);
	s->relay = lab_relay_new(s->b);
	lab_host_knows(s->a, s->t.g.name);
	s->note = lab_vm_note(lab_trip_vm(&s->t));
	in_doubt(s, which);
}

static void end(struct scene *s)
{
	free(s->note);
	lab_relay_free(s->relay);
	lab_trip_end(&s->t);
}

static void end_it(struct scene *s, struct lab_vm *there)
{
	kill(there->pid, SIGKILL);
	lab_until(s->t.lab, 10000, !lab_vm_alive(there), "it lives");
	lab_vm_detach(there);
	unlink(lab_host_path(s->b, "run/vm.qmp"));
}

/* The host went down with all that was on it: what its agent had launched, too, and its monitor in run_dir. */
static void end_there(struct scene *s)
{
	lab_vm_attach(s->t.at[1], 0);
	lab_check(s->t.lab, !lab_vm_status(s->t.at[1], "running"), "it has been let go there");
	end_it(s, s->t.at[1]);
}

static void runs_here(struct scene *s)
{
	struct lab_vm *vm = lab_trip_vm(&s->t);

	until_says(s, "phase", "failed");
	lab_check(s->t.lab, says(s, "owner", "source") && says(s, "error.code", "resolved"),
		  "the job's end");
	lab_until(s->t.lab, 20000, lab_vm_status(vm, "running"), "it does not run here");
	s->before = lab_vm_goes_on(vm, &s->before);
}

static void case_keep_source(struct scene *s)
{
	end_there(s);
	resolved(s, "source");
	runs_here(s);
	lab_check(s->t.lab, resolve(s, "destination", NULL) == 3, "it can be given up again");
	lab_vm_left_nothing(lab_trip_vm(&s->t), s->note);
	/* For ever was not so long. */
	lab_host_dest_start(s->b);
	until_says(s, "resolution.destination_said", "not-started");
	lab_check(s->t.lab, lab_host_guests(s->b) == 0, "a QEMU is there");
	lab_vm_goes_on(lab_trip_vm(&s->t), &s->before);
}

static void case_keep_destination(struct scene *s)
{
	struct lab_vm *old = lab_trip_vm(&s->t);

	resolved(s, "destination");
	until_says(s, "phase", "failed");
	lab_check(s->t.lab, says(s, "owner", "destination"), "owner");
	lab_until(s->t.lab, 20000, !lab_vm_alive(old), "the copy here lives");
	lab_check(s->t.lab, resolve(s, "source", NULL) == 3, "a copy that is gone can be kept");
	lab_host_dest_start(s->b);
	lab_trip_attach(&s->t);
	lab_until(s->t.lab, 20000, lab_vm_status(lab_trip_vm(&s->t), "running"),
		  "it does not run there");
	lab_vm_goes_on(lab_trip_vm(&s->t), &s->before);
}

static bool conflict(struct scene *s)
{
	json_t *m = lab_job_newest(s->a);
	bool is = json_is_true(lab_at(m, "resolution.conflict"));

	json_decref(m);
	return is;
}

static char state_of(pid_t pid)
{
	char path[64], *text, *at, state;

	snprintf(path, sizeof(path), "/proc/%d/stat", pid);
	text = lab_read_file(path);
	at = text ? strrchr(text, ')') : NULL;
	state = at && at[1] ? at[2] : 0;
	free(text);
	return state;
}

/* It owned the VM all the time, and lets it go when it comes back, before it can be told. */
static void case_conflict(struct scene *s)
{
	struct lab_vm *there = s->t.at[1];
	struct lab *lab = s->t.lab;
	pid_t pid;

	lab_relay_refuse(s->relay, true);
	lab_relay_cut(s->relay);
	resolved(s, "source");
	runs_here(s);
	lab_host_dest_start(s->b);
	lab_vm_attach(there, 0);
	pid = there->pid;
	lab_until(lab, 40000, lab_vm_status(there, "running"), "it is not let go there");
	lab_relay_refuse(s->relay, false);
	lab_until(lab, 40000, lab_proc_said(lab, s->b->dest, "CONFLICT: guest "),
		  "the destination is silent");
	lab_until(lab, 20000, conflict(s), "the job is silent");
	lab_until(lab, 10000, state_of(pid) == 'T', "the one there is not stopped");
	lab_vm_goes_on(lab_trip_vm(&s->t), &s->before);
	/* Which is for an operator to end. */
	end_it(s, there);
}

ParameterizedTest(enum decided *r, doubt_qemu, resolved)
{
	struct lab_row row = {.fault = cases[*r].fault,
			      .phase = "in-doubt",
			      .mode = cases[*r].mode,
			      .driver = "qemu"};
	struct scene s;

	lab_matrix_begin(&row);
	begin(&s, *r);
	if (*r == KEEP_SOURCE)
		case_keep_source(&s);
	else if (*r == KEEP_DESTINATION)
		case_keep_destination(&s);
	else
		case_conflict(&s);
	end(&s);
	lab_matrix_end(&row, "resolved");
}
