/* SPDX-License-Identifier: Apache-2.0 */
/*
 * SIGKILL of either agent at every fault point of a snapshot, of a restore and of a clone. The stored guest
 * runs on as if nothing had happened, and none of its writers stands for more than 100 ms; there is a whole
 * image or none; a copy that has not been let go is ended, and one that has gets every page.
 */
#include <dirent.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "lib/lab_kill.h"
#include "lib/lab_matrix.h"
#include "lib/lab_test.h"

TestSuite(kills_image, .timeout = 120);

/** enum image - is it there afterwards? */
enum image { NONE, WHOLE };

/* What is being done. */
#define SNAP    1u
#define RESTORE 2u
#define CLONE   4u

static const char *const modes[] = {"snapshot", "restore", "clone"};

/**
 * struct at - a point, and what a kill there means
 * @modes:	in which it is reached
 * @image:	what there is of it afterwards
 * @runs:	the copy has been let go
 * @quick:	this mode's row stands for the others
 * @nth:	time that it is reached; 0: the first
 * @hollow:	only by runs of zeros, which a guest that writes everywhere may not leave: half of it is empty
 */
struct at {
	enum faultpoint point;
	unsigned int modes;
	enum image image;
	bool runs;
	bool hollow;
	unsigned int quick;
	unsigned int nth;
};

#define AT(id, in, what, ...)                                                         \
	{                                                                             \
		.point = FAULTPOINT_##id, .modes = (in), .image = (what), __VA_ARGS__ \
	}

static const struct at points[] = {
	AT(JOB_JOURNALED, SNAP, NONE),
	AT(CONTROL_CONNECTED, SNAP, NONE),
	AT(DESCRIPTION_QUEUED, SNAP, NONE),
	AT(IMAGE_CREATED, SNAP, NONE),
	AT(PREPARED_RECEIVED, SNAP, NONE),
	AT(BULK_CONNECTED, SNAP, NONE),
	AT(TRIAL_UFFD_MADE, SNAP, NONE),
	AT(TRACKING_UFFD_MADE, SNAP, NONE),
	AT(TRACKING_STARTED, SNAP, NONE),
	AT(SAVE_PAUSED, SNAP, NONE),
	AT(SAVE_STATE_TAKEN, SNAP, NONE),
	AT(SAVE_PROTECTED, SNAP, NONE, .quick = SNAP),
	AT(SAVE_RESUMED, SNAP, NONE),
	AT(SAVE_STATE_QUEUED, SNAP, NONE),
	AT(SAVED_RUN_DUE, SNAP, NONE, .nth = 20, .quick = SNAP),
	AT(SAVE_ALL_SAVED, SNAP, NONE),
	AT(BARRIER_DUE, SNAP, NONE),
	AT(SAVE_COMPLETE_DUE, SNAP, NONE),
	AT(IMAGE_PAGES_WRITTEN, SNAP, NONE, .nth = 20),
	AT(IMAGE_STATE_WRITTEN, SNAP, NONE),
	AT(BARRIER_RECEIVED, SNAP, NONE),
	AT(IMAGE_DATA_SYNCED, SNAP, NONE),
	AT(IMAGE_HEADER_SYNCED, SNAP, NONE),
	AT(IMAGE_NAMED, SNAP, WHOLE, .quick = SNAP),
	AT(IMAGE_PART_REMOVED, SNAP | CLONE, WHOLE),
	AT(IMAGE_RECEIPT_QUEUED, SNAP, WHOLE),
	AT(RESTORE_BEGUN, RESTORE | CLONE, WHOLE),
	AT(GUEST_LAUNCHED, RESTORE, WHOLE),
	AT(GUEST_ATTACHED, RESTORE, WHOLE),
	AT(MEMORY_EMPTIED, RESTORE, WHOLE),
	AT(RESTORE_MAY_OWN_JOURNALED, RESTORE | CLONE, WHOLE),
	AT(MEMORY_GUARDED, RESTORE, WHOLE),
	AT(RESTORE_STATE_FED, RESTORE | CLONE, WHOLE),
	AT(STATE_LOADED, RESTORE, WHOLE),
	AT(RESTORE_READY, RESTORE | CLONE, WHOLE, .quick = RESTORE),
	AT(COMMIT_RECEIVED, RESTORE, WHOLE),
	AT(OWNER_MARKED, RESTORE | CLONE, WHOLE, .runs = true),
	AT(GUEST_LET_GO, RESTORE, WHOLE, .runs = true),
	AT(RESTORE_FILL_DUE, RESTORE | CLONE, WHOLE, .runs = true, .nth = 3, .quick = RESTORE),
	AT(PAGES_PLACED, RESTORE, WHOLE, .runs = true, .nth = 10),
	AT(PAGES_MARKED, RESTORE, WHOLE, .runs = true, .nth = 30),
	AT(ZEROS_MARKED, RESTORE, WHOLE, .runs = true, .hollow = true),
	AT(GUARD_LIFTED, RESTORE, WHOLE, .runs = true),
	AT(COMPLETED_JOURNALED, RESTORE, WHOLE, .runs = true),
	AT(KEPT_UFFD_CLOSED, RESTORE, WHOLE, .runs = true),
	AT(GUEST_FINISHED, RESTORE, WHOLE, .runs = true),
};

/** struct image_row - one row; no pointers, Criterion copies it */
struct image_row {
	struct at at;
	unsigned int mode;
};

ParameterizedTestParameters(kills_image, at_every_point)
{
	static struct image_row rows[LAB_COUNT(points) * LAB_COUNT(modes)];
	size_t n = 0, seen = 0;

	for (size_t i = 0; i < LAB_COUNT(points); i++)
		for (unsigned int mode = 0; mode < LAB_COUNT(modes); mode++)
			if (points[i].modes >> mode & 1 &&
			    lab_matrix_pick(seen++, points[i].quick >> mode & 1))
				rows[n++] = (struct image_row){points[i], mode};
	return cr_make_param_array(struct image_row, rows, n);
}

/**
 * struct scene - a guest on @a that is stored on @b
 * @control:	a bystander, while the guest is tracked
 */
struct scene {
	struct lab *lab;
	struct lab_host *a, *b;
	struct lab_guest *g;
	struct lab_control *control;
};

#define MB 16
/* Threads that an agent has during a snapshot, about. */
#define THREADS 6

/* `decant snapshot` of the guest, as "half". 16 MiB at 160 Mbit/s take most of a second. */
static struct lab_proc *snapshot_begin(struct scene *s, bool start)
{
	return lab_decant_begin(s->a,
				(const char *const[]){"snapshot", s->g->name, "--to", s->b->to,
						      "--name", "half", "--bandwidth", "160Mbit",
						      "--wait", start ? "--start" : NULL, NULL});
}

static bool ended(struct scene *s)
{
	json_t *all = lab_get(s->lab, s->a->source_sock, "/v1/snapshots");
	json_t *job = json_array_get(json_object_get(all, "items"), 0);
	const char *phase = job ? lab_str(s->lab, job, "phase") : "none";
	bool is = !strcmp(phase, "failed") || !strcmp(phase, "completed");

	json_decref(all);
	return is;
}

static int dest_command(struct lab_host *b, const char *const args[])
{
	char program[LAB_PATH_MAX + 32], api[LAB_PATH_MAX + 16];
	const char *argv[16] = {program, "--api", api};
	size_t n = 3;

	snprintf(program, sizeof(program), "%s/decant-dest", b->lab->build);
	snprintf(api, sizeof(api), "unix:%s", b->dest_sock);
	for (size_t i = 0; args[i]; i++)
		argv[n++] = args[i];
	return lab_run(b->lab, b->ns, 60000, NULL, NULL, argv);
}

static void restore(struct scene *s)
{
	int status = dest_command(s->b, (const char *const[]){"restore", "half", "--wait", NULL});

	lab_check(s->lab, status == 0, "decant-dest restore: %d", status);
}

/* Return: how many files there are among the images whose name ends so */
static unsigned int files(struct scene *s, const char *suffix)
{
	DIR *d = opendir(lab_host_path(s->b, "state/images"));
	struct dirent *e;
	unsigned int n = 0;

	while (d && (e = readdir(d)))
		n += strlen(e->d_name) > strlen(suffix) &&
		     !strcmp(e->d_name + strlen(e->d_name) - strlen(suffix), suffix);
	if (d)
		closedir(d);
	return n;
}

static struct scene begin(const struct image_row *r, char *fault)
{
	struct scene s = {.lab = lab_new(lab_test_failed)};
	bool source = lab_faultpoint_at_source(r->at.point);

	lab_fault_agents(s.lab);
	s.a = lab_host_start(
		s.lab, &(struct lab_host_opts){.name = "a", .source_fault = source ? fault : NULL});
	/* A restore is of an image that is there. */
	s.b = lab_host_start(
		s.lab, &(struct lab_host_opts){
			       .name = "b",
			       .dest_fault = source || 1u << r->mode == RESTORE ? NULL : fault});
	s.g = lab_guest_start(
		s.a,
		&(struct lab_guest_opts){
			.mb = MB, .threads = 2, .writes = 400, .keep = true, .grow = r->at.hollow});
	/* Behind the snapshot nobody holds up its writers. */
	if (1u << r->mode == SNAP) {
		s.control = lab_control_start(s.lab, THREADS);
		lab_guest_calm(s.g);
		lab_control_calm(s.control);
	}
	return s;
}

/* Until the agent is dead. */
static void do_it(struct scene *s, const struct image_row *r, char *fault)
{
	struct lab_proc *p = snapshot_begin(s, 1u << r->mode == CLONE);
	struct lab_proc *agent = lab_faultpoint_at_source(r->at.point) ? s->a->source : s->b->dest;

	if (1u << r->mode == RESTORE) {
		lab_check(s->lab, lab_proc_wait(s->lab, p, 20000) == 0, "the snapshot");
		kill(s->b->dest->pid, SIGTERM);
		lab_check(s->lab, lab_proc_wait(s->lab, s->b->dest, 10000) == 0, "its end");
		s->b->dest_fault = fault;
		lab_host_dest_start(s->b);
		agent = s->b->dest;
		dest_command(s->b, (const char *const[]){"restore", "half", NULL});
	}
	lab_fault_killed(s->lab, agent, 20000);
	if (s->control)
		lab_control_kill(s->control);
	lab_proc_kill(s->lab, p);
}

/* The stored guest has noticed nothing. */
static void runs_on(struct scene *s)
{
	lab_guest_verified(s->g);
	if (!s->control)
		return;
	lab_control_check(s->lab, s->control, lab_guest_report(s->g).stall_us, "the stored guest");
	lab_control_end(s->lab, s->control);
}

ParameterizedTest(struct image_row *r, kills_image, at_every_point)
{
	char fault[96], *order;
	struct lab_row row = {.fault = fault,
			      .phase = lab_faultpoint_phase(r->at.point),
			      .mode = modes[r->mode],
			      .driver = "native"};
	struct scene s;

	snprintf(fault, sizeof(fault), "kill %s at %s", lab_faultpoint_agent(r->at.point),
		 lab_faultpoint_name(r->at.point));
	order = lab_fault_kill(r->at.point, r->at.nth);
	lab_matrix_begin(&row);
	s = begin(r, order);
	do_it(&s, r, order);
	free(order);
	if (!lab_proc_alive(s.a->source))
		lab_host_source_start(s.a);
	if (!lab_proc_alive(s.b->dest))
		lab_host_dest_start(s.b);
	runs_on(&s);
	lab_until(s.lab, 20000, ended(&s), "the job does not come to an end");
	lab_until(s.lab, 15000, !files(&s, ".part"), "half an image stays");
	lab_check(s.lab, files(&s, ".image") == (r->at.image == WHOLE), "%u images",
		  files(&s, ".image"));
	lab_host_knows(s.a, s.g->name);
	if (r->at.image == NONE)
		lab_check(s.lab, lab_proc_wait(s.lab, snapshot_begin(&s, false), 20000) == 0,
			  "the next snapshot");
	if (!r->at.runs) {
		lab_until(s.lab, 15000, lab_host_guests(s.b) == 0, "a copy that never ran stays");
		restore(&s);
	}
	lab_guest_arrived(s.g, s.b);
	lab_end(s.lab);
	lab_matrix_end(&row, r->at.image == WHOLE ? "whole" : "none");
}
