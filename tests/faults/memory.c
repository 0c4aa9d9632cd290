/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Memory runs out at the destination in the middle of post-copy: the guest's control group has no room for
 * the pages that come. A page that cannot be placed is not received (rule 2): the guest waits for it, or is
 * killed by the kernel, and then the job says so; the source keeps every page all the while (rule 3), and
 * when there is room again what waits goes on.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "lib/lab_matrix.h"
#include "lib/lab_test.h"

TestSuite(memory, .timeout = 240);

/**
 * struct group - a control group of the memory controller
 * @v2:	its version
 */
struct group {
	char dir[128];
	bool v2;
};

struct memory_row {
	bool v2;
	bool oom;
};

ParameterizedTestParameters(memory, runs_out)
{
	static struct memory_row rows[4];
	size_t n = 0, seen = 0;

	for (int v2 = 0; v2 < 2; v2++)
		for (int oom = 0; oom < 2; oom++)
			if (lab_matrix_pick(seen++, !oom))
				rows[n++] = (struct memory_row){v2, oom};
	return cr_make_param_array(struct memory_row, rows, n);
}

static bool put(const struct group *g, const char *file, const char *text)
{
	char path[192];
	int fd;
	bool ok;

	snprintf(path, sizeof(path), "%s/%s", g->dir, file);
	fd = open(path, O_WRONLY | O_CLOEXEC);
	ok = fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text);
	if (fd >= 0)
		close(fd);
	return ok;
}

static bool exists(const char *path)
{
	return access(path, F_OK) == 0;
}

/* Return: false if this machine has no memory controller of that version */
static bool group_make(struct group *g, bool v2)
{
	static const char *const roots2[] = {"/sys/fs/cgroup", "/sys/fs/cgroup/unified"};
	char path[192];

	g->v2 = v2;
	if (!v2) {
		snprintf(g->dir, sizeof(g->dir), "/sys/fs/cgroup/memory/decant-test.%d", getpid());
		return exists("/sys/fs/cgroup/memory/memory.limit_in_bytes") &&
		       !mkdir(g->dir, 0755);
	}
	for (size_t i = 0; i < LAB_COUNT(roots2); i++) {
		char *has;
		bool memory;

		snprintf(path, sizeof(path), "%s/cgroup.controllers", roots2[i]);
		has = lab_read_file(path);
		memory = has && strstr(has, "memory");
		free(has);
		if (!memory)
			continue;
		snprintf(g->dir, sizeof(g->dir), "%s", roots2[i]);
		if (!put(g, "cgroup.subtree_control", "+memory"))
			return false;
		snprintf(g->dir, sizeof(g->dir), "%s/decant-test.%d", roots2[i], getpid());
		return !mkdir(g->dir, 0755);
	}
	return false;
}

static bool limit(const struct group *g, const char *bytes)
{
	if (!g->v2)
		return put(g, "memory.limit_in_bytes", bytes);
	return put(g, "memory.max", strcmp(bytes, "-1") ? bytes : "max");
}

static uint64_t usage(const struct group *g)
{
	char path[192], *text;
	uint64_t n;

	snprintf(path, sizeof(path), "%s/%s", g->dir,
		 g->v2 ? "memory.current" : "memory.usage_in_bytes");
	text = lab_read_file(path);
	n = text ? strtoull(text, NULL, 10) : 0;
	free(text);
	return n;
}

/* Nobody is killed in it: who needs memory waits, or is refused. Only version 1 has that. */
static bool spare(const struct group *g)
{
	return !g->v2 && put(g, "memory.oom_control", "1");
}

static void enter(struct lab *lab, const struct group *g, pid_t pid)
{
	char text[16];

	snprintf(text, sizeof(text), "%d", pid);
	lab_check(lab, pid > 0 && put(g, "cgroup.procs", text), "%s: %m", g->dir);
}

static void leave(struct lab *lab, struct group *g, pid_t pid)
{
	struct group root = *g;
	char text[16];

	*strrchr(root.dir, '/') = '\0';
	snprintf(text, sizeof(text), "%d", pid);
	if (pid)
		put(&root, "cgroup.procs", text);
	lab_until(lab, 10000, rmdir(g->dir) == 0 || errno == ENOENT, "%s: %m", g->dir);
}

static bool phase_in(struct lab_host *a, const char *phases)
{
	json_t *job = lab_job_newest(a);
	bool in = job && strstr(phases, lab_str(a->lab, job, "phase"));

	json_decref(job);
	return in;
}

static bool all_here(struct lab_host *a)
{
	return lab_job_phase_is(a, "completed");
}

/* The kernel kills the guest: the job says so and whose it is, and the source's copy stays as it is. */
static const char *killed(struct lab_host *a, struct lab_guest *g)
{
	json_t *job;

	lab_until(a->lab, 30000, lab_job_phase_is(a, "failed"), "the job does not say so");
	job = lab_job_newest(a);
	lab_check(a->lab, !strcmp(lab_str(a->lab, job, "error.code"), "guest-gone"), "%s",
		  lab_str(a->lab, job, "error.message"));
	lab_check(a->lab, !strcmp(lab_str(a->lab, job, "owner"), "destination"), "owner is %s",
		  lab_str(a->lab, job, "owner"));
	json_decref(job);
	lab_check(a->lab, lab_guest_pid(g, a), "the source's copy is gone");
	lab_guest_abandon(g);
	return "killed, and said so";
}

ParameterizedTest(struct memory_row *r, memory, runs_out)
{
	struct lab_row row = {.fault = r->oom  ? r->v2 ? "memory group v2 full, guest killed"
						       : "memory group v1 full, guest killed"
				       : r->v2 ? "memory group v2 full"
					       : "memory group v1 full",
			      .phase = "postcopy",
			      .mode = "postcopy",
			      .driver = "native"};
	struct group group = {0};
	struct lab_host *a, *b;
	struct lab *lab;
	struct lab_guest *g;
	struct lab_proc *p;
	const char *became;
	char bytes[32];
	pid_t pid;

	if (!group_make(&group, r->v2))
		cr_skip_test("this machine has no memory controller of cgroup version %d",
			     r->v2 ? 2 : 1);
	if (!r->oom && !spare(&group)) {
		rmdir(group.dir);
		cr_skip_test("cgroup version 2 cannot spare who has no memory");
	}
	lab_matrix_begin(&row);
	lab = lab_test_pair(&a, &b);
	g = lab_guest_start(a, &(struct lab_guest_opts){.mb = 32, .threads = 1, .writes = 500});
	p = lab_decant_begin(a, (const char *[]){"migrate", g->name, "--to", b->to, "--mode",
						 "postcopy", "--bandwidth", "40Mbit", NULL});
	lab_until(lab, 10000, lab_job_phase_is(a, "postcopy"), "it does not begin");
	lab_proc_wait(lab, p, 5000);
	pid = lab_guest_pid(g, b);
	enter(lab, &group, pid);
	/* A little more than it has, and less than will come. */
	usleep(200000);
	snprintf(bytes, sizeof(bytes), "%lu", (unsigned long)usage(&group) + (1 << 20));
	lab_check(lab, limit(&group, bytes), "no limit of %s", bytes);
	if (r->oom) {
		became = killed(a, g);
	} else {
		usleep(3000000);
		lab_check(lab, lab_proc_alive(b->dest) && lab_proc_alive(a->source), "an agent");
		lab_check(lab, phase_in(a, "postcopy paused recovering"), "it does not wait");
		lab_check(lab, lab_guest_pid(g, a) > 0, "the source has let go");
		lab_check(lab, limit(&group, "-1"), "the limit stays");
		lab_until(lab, 60000, all_here(a), "it does not go on");
		lab_guest_arrived(g, b);
		became = "waits, then moved";
	}
	leave(lab, &group, lab_guest_pid(g, b));
	lab_end(lab);
	lab_matrix_end(&row, became);
}
