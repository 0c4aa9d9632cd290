/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What an agent needs runs out: room under its journal, descriptors, its run directory, time on a processor.
 * Whatever was not journaled is not done; the guest runs in one place, has verified every page there, and
 * when the resource is back the migration has come to an end or can be begun anew.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>
#include "lib/lab_matrix.h"
#include "lib/lab_pace.h"
#include "lib/lab_preload.h"
#include "lib/lab_test.h"

TestSuite(resources, .timeout = 240);

#define PAGE 4096

static const char *const agents[] = {"source", "dest", "both"};

/* --- a guest that moves --- */

/** struct scene - hosts, a guest, and its migration */
struct scene {
	struct lab *lab;
	struct lab_host *a, *b;
	struct lab_guest *g;
	struct lab_proc *move;
};

/* It asks for all of its pages when it has arrived: to be met in post-copy it has many. */
#define POSTCOPY_MB 64

static struct lab_guest *guest(struct lab_host *a, unsigned int mb)
{
	return lab_guest_start(a, &(struct lab_guest_opts){.mb = mb, .threads = 1, .writes = 3000});
}

static struct lab_proc *move(struct scene *s, const char *mode, const char *rate)
{
	return lab_decant_begin(s->a, (const char *[]){"migrate", s->g->name, "--to", s->b->to,
						       "--mode", mode, "--wait", "--json",
						       "--bandwidth", rate, NULL});
}

static bool ended(struct lab_host *a)
{
	return lab_job_phase_is(a, "completed") || lab_job_phase_is(a, "failed") ||
	       lab_job_phase_is(a, "cancelled");
}

/*
 * All is back: what is under way comes to an end by itself. Return: what became of it; a guest that stayed
 * has been moved meanwhile
 */
static const char *comes_right(struct scene *s, bool any_job)
{
	bool moved;

	if (any_job)
		lab_until(s->lab, 60000, ended(s->a), "the migration does not end");
	moved = any_job && lab_job_phase_is(s->a, "completed");
	if (!moved) {
		lab_host_knows(s->a, s->g->name);
		lab_guest_verified(s->g);
		lab_until(s->lab, 15000, lab_host_guests(s->b) == 0,
			  "a guest stays at the destination");
		json_decref(lab_migrate(s->a, s->b, s->g, &(struct lab_move){0}));
	}
	lab_guest_arrived(s->g, s->b);
	return moved ? "moved" : "stayed, moved anew";
}

static bool has_job(struct lab_host *a)
{
	json_t *job = lab_job_newest(a);
	bool has = job;

	json_decref(job);
	return has;
}

/* --- the disk is full --- */

/**
 * struct full_row - no pointers, Criterion copies it
 * @agent:	index of agents[], whose disk it is
 * @pages:	of 4 KiB that are left on it
 */
struct full_row {
	unsigned int agent;
	unsigned int pages;
};

ParameterizedTestParameters(resources, disk_full)
{
	static struct full_row rows[16];
	size_t n = 0, seen = 0;

	for (unsigned int agent = 0; agent < 2; agent++)
		for (unsigned int pages = 0; pages < 7; pages++)
			if (lab_matrix_pick(seen++, pages == agent + 1))
				rows[n++] = (struct full_row){agent, pages};
	return cr_make_param_array(struct full_row, rows, n);
}

/* Return: path of what fills it up but for @pages */
static char *fill(struct lab_host *h, unsigned int pages)
{
	char *path = NULL;
	struct statvfs v;
	int fd;

	if (asprintf(&path, "%s/state/ballast", h->dir) < 0)
		abort();
	fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
	lab_check(h->lab, fd >= 0 && !fstatvfs(fd, &v), "%s: %m", path);
	lab_check(h->lab, v.f_bavail > pages, "%s is too small", path);
	lab_check(h->lab, !posix_fallocate(fd, 0, (off_t)(v.f_bavail - pages) * PAGE), "%s", path);
	close(fd);
	return path;
}

ParameterizedTest(struct full_row *r, resources, disk_full)
{
	char fault[64];
	struct lab_row row = {.fault = fault, .phase = "all", .mode = "hybrid", .driver = "native"};
	struct scene s = {.lab = lab_new(lab_test_failed)};
	struct lab_host *h;
	const char *became;
	char *ballast;

	snprintf(fault, sizeof(fault), "disk of %s full but for %u pages", agents[r->agent],
		 r->pages);
	lab_matrix_begin(&row);
	s.a = lab_host_new(s.lab, &(struct lab_host_opts){.name = "a"});
	s.b = lab_host_new(s.lab, &(struct lab_host_opts){.name = "b"});
	h = r->agent ? s.b : s.a;
	if (!lab_small_state(h, 512)) {
		lab_end(s.lab);
		cr_skip_test("no small file system can be mounted here");
	}
	lab_host_source_start(s.a);
	lab_host_dest_start(s.a);
	lab_host_source_start(s.b);
	lab_host_dest_start(s.b);
	s.g = guest(s.a, 16);
	ballast = fill(h, r->pages);
	s.move = move(&s, "hybrid", "200Mbit");
	/* It has failed by then, or waits for room, or had enough of it. */
	for (int i = 0; i < 300 && lab_proc_alive(s.move); i++)
		usleep(10000);
	if (!lab_proc_alive(s.move) && s.move->status) {
		char *said = lab_proc_text(s.lab, s.move, "out");
		char *err = lab_proc_text(s.lab, s.move, "err");

		lab_check(s.lab, strstr(said, "No space left") || strstr(err, "No space left"),
			  "it does not say why: %s %s", said, err);
		free(said);
		free(err);
	}
	lab_check(s.lab, lab_proc_alive(s.a->source) && lab_proc_alive(s.b->dest),
		  "an agent ended");
	unlink(ballast);
	free(ballast);
	became = comes_right(&s, has_job(s.a));
	lab_end(s.lab);
	lab_matrix_end(&row, became);
}

/* --- no descriptors are left --- */

struct fds_row {
	unsigned int agent;
	unsigned int left;
};

ParameterizedTestParameters(resources, descriptors)
{
	static const unsigned int left[] = {0, 1, 2, 3, 4, 5, 6, 8, 10, 12, 14, 16, 20, 24, 32};
	static struct fds_row rows[2 * LAB_COUNT(left)];
	size_t n = 0, seen = 0;

	for (unsigned int agent = 0; agent < 2; agent++)
		for (size_t i = 0; i < LAB_COUNT(left); i++)
			if (lab_matrix_pick(seen++, left[i] == 4))
				rows[n++] = (struct fds_row){agent, left[i]};
	return cr_make_param_array(struct fds_row, rows, n);
}

/* The limit counts numbers, which are given out from below. */
static struct rlimit leave_fds(struct lab *lab, struct lab_proc *p, unsigned int left)
{
	struct rlimit old, few;

	lab_check(lab, !prlimit(p->pid, RLIMIT_NOFILE, NULL, &old), "prlimit: %m");
	few = (struct rlimit){lab_usage(lab, p->pid).fds + left, old.rlim_max};
	lab_check(lab, !prlimit(p->pid, RLIMIT_NOFILE, &few, NULL), "prlimit: %m");
	return old;
}

ParameterizedTest(struct fds_row *r, resources, descriptors)
{
	char fault[64];
	struct lab_row row = {.fault = fault, .phase = "all", .mode = "hybrid", .driver = "native"};
	struct scene s = {0};
	struct lab_proc *p;
	struct rlimit old;
	const char *became;

	snprintf(fault, sizeof(fault), "%u descriptors left to %s", r->left, agents[r->agent]);
	lab_matrix_begin(&row);
	s.lab = lab_test_pair(&s.a, &s.b);
	s.g = guest(s.a, 16);
	p = r->agent ? s.b->dest : s.a->source;
	old = leave_fds(s.lab, p, r->left);
	s.move = move(&s, "hybrid", "200Mbit");
	for (int i = 0; i < 250 && lab_proc_alive(s.move); i++)
		usleep(10000);
	lab_check(s.lab, lab_proc_alive(p), "it has ended");
	prlimit(p->pid, RLIMIT_NOFILE, &old, NULL);
	/* The command waits for an agent that does not take connections. */
	lab_proc_wait(s.lab, s.move, 60000);
	became = comes_right(&s, has_job(s.a));
	lab_end(s.lab);
	lab_matrix_end(&row, became);
}

/* --- an agent stands --- */

/**
 * struct stop_row
 * @agent:	index of agents[]
 * @mode:	index of stop_modes[]; the phase in which it stands is that of the mode's pages
 * @faults:	writes are tracked by faults
 */
struct stop_row {
	unsigned int agent;
	unsigned int mode;
	bool faults;
};

static const char *const stop_modes[] = {"precopy", "postcopy"};

ParameterizedTestParameters(resources, stopped)
{
	static struct stop_row rows[16];
	size_t n = 0, seen = 0;

	for (unsigned int agent = 0; agent < 3; agent++)
		for (unsigned int mode = 0; mode < 2; mode++)
			if (lab_matrix_pick(seen++, agent == 1 && mode == 1))
				rows[n++] = (struct stop_row){agent, mode, false};
	/* It is the source that tracks. */
	if (lab_matrix_pick(seen++, false))
		rows[n++] = (struct stop_row){0, 0, true};
	return cr_make_param_array(struct stop_row, rows, n);
}

static void stop_agents(struct scene *s, const struct stop_row *r, int sig)
{
	if (r->agent != 1)
		kill(s->a->source->pid, sig);
	if (r->agent != 0)
		kill(s->b->dest->pid, sig);
}

ParameterizedTest(struct stop_row *r, resources, stopped)
{
	const char *full = getenv("DECANT_FULL");
	/* Longer than a peer may be silent (5 s). */
	unsigned int seconds = full && *full ? 60 : 7;
	char fault[64];
	struct lab_row row = {.fault = fault,
			      .phase = stop_modes[r->mode],
			      .mode = stop_modes[r->mode],
			      .driver = "native"};
	struct scene s = {0};
	const char *became;
	struct pace *pace;
	uint64_t stall;

	snprintf(fault, sizeof(fault), "%s stands for %u s%s", agents[r->agent], seconds,
		 r->faults ? ", writes by faults" : "");
	lab_matrix_begin(&row);
	s.lab = lab_test_pair(&s.a, &s.b);
	s.g = guest(s.a, r->mode ? POSTCOPY_MB : 16);
	s.move = lab_decant_begin(
		s.a, (const char *[]){"migrate", s.g->name, "--to", s.b->to, "--mode",
				      stop_modes[r->mode], "--bandwidth", "32Mbit", "--tracking",
				      r->faults ? "faults" : "auto", "--no-convergence", "stop",
				      "--max-passes", "4", NULL});
	lab_until(s.lab, 10000, lab_job_phase_is(s.a, stop_modes[r->mode]), "it does not begin");
	usleep(300000);
	pace = pace_start();
	if (!r->mode)
		lab_guest_calm(s.g);
	stop_agents(&s, r, SIGSTOP);
	usleep(seconds * 1000000);
	stall = lab_guest_report(s.g).stall_us;
	stop_agents(&s, r, SIGCONT);
	/*
	 * Tracked without faults nobody waits for the agent. Tracked by faults its writers do, as long as it
	 * stands; none for longer.
	 */
	if (!r->mode && !r->faults)
		lab_soon(s.lab, pace, stall, 1000000, "a writer stood");
	pace_end(pace);
	became = comes_right(&s, true);
	lab_check(s.lab, !r->mode || !strcmp(became, "moved"), "behind the hand-over: %s", became);
	lab_end(s.lab);
	lab_matrix_end(&row, became);
}

/* --- the run directory is gone --- */

struct gone_row {
	unsigned int agent;
};

ParameterizedTestParameters(resources, run_dir_gone)
{
	static struct gone_row rows[3];
	size_t n = 0;

	for (unsigned int agent = 0; agent < 3; agent++)
		if (lab_matrix_pick(agent, agent == 2))
			rows[n++] = (struct gone_row){agent};
	return cr_make_param_array(struct gone_row, rows, n);
}

static void remove_run(struct lab_host *h)
{
	char path[LAB_PATH_MAX + 16];

	snprintf(path, sizeof(path), "%s/run", h->dir);
	lab_run(h->lab, NULL, 5000, NULL, NULL, (const char *[]){"/bin/rm", "-rf", path, NULL});
}

/* Taken away in post-copy; the page states live on in the agent that has them open. */
ParameterizedTest(struct gone_row *r, resources, run_dir_gone)
{
	char fault[64];
	struct lab_row row = {
		.fault = fault, .phase = "postcopy", .mode = "postcopy", .driver = "native"};
	struct scene s = {0};
	const char *became;

	snprintf(fault, sizeof(fault), "run directory of %s removed", agents[r->agent]);
	lab_matrix_begin(&row);
	s.lab = lab_test_pair(&s.a, &s.b);
	s.g = guest(s.a, POSTCOPY_MB);
	s.move = move(&s, "postcopy", "32Mbit");
	lab_until(s.lab, 10000, lab_job_phase_is(s.a, "postcopy"), "it does not begin");
	if (r->agent != 1)
		remove_run(s.a);
	if (r->agent != 0)
		remove_run(s.b);
	became = comes_right(&s, true);
	lab_check(s.lab, !strcmp(became, "moved"), "%s", became);
	/* And the next lives of the agents make it anew. */
	lab_proc_kill(s.lab, s.a->source);
	lab_proc_kill(s.lab, s.b->dest);
	lab_proc_kill(s.lab, s.b->source);
	lab_host_source_start(s.a);
	lab_host_dest_start(s.b);
	lab_host_source_start(s.b);
	lab_host_knows(s.b, s.g->name);
	json_decref(lab_migrate(s.b, s.a, s.g, &(struct lab_move){0}));
	lab_guest_arrived(s.g, s.a);
	lab_end(s.lab);
	lab_matrix_end(&row, became);
}
