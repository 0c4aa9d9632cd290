/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Memory runs out at the destination in the middle of post-copy: the guest's control group has no room for
 * the pages that come. A page that cannot be placed is not received (rule 2): the guest waits for it, or is
 * killed by the kernel, and then the job says so; the source keeps every page all the while (rule 3), and
 * when there is room again what waits goes on.
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "lib/lab_group.h"
#include "lib/lab_matrix.h"
#include "lib/lab_test.h"

TestSuite(memory, .timeout = 240);

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
	struct lab_group group = {0};
	struct lab_host *a, *b;
	struct lab *lab;
	struct lab_guest *g;
	struct lab_proc *p;
	const char *became;
	char bytes[32];
	pid_t pid;

	if (!lab_group_make(&group, r->v2))
		cr_skip_test("this machine has no memory controller of cgroup version %d",
			     r->v2 ? 2 : 1);
	if (!r->oom && !lab_group_spare(&group)) {
		rmdir(group.dir);
		cr_skip_test("cgroup version 2 cannot spare who has no memory");
	}
	lab_matrix_begin(&row);
	lab = lab_test_pair(&a, &b);
	/* So much that most of it is still to come when there is no room, though it asks for all. */
	g = lab_guest_start(a, &(struct lab_guest_opts){.mb = 96, .threads = 1, .writes = 500});
	p = lab_decant_begin(a, (const char *[]){"migrate", g->name, "--to", b->to, "--mode",
						 "postcopy", "--bandwidth", "40Mbit", NULL});
	lab_until(lab, 10000, lab_job_phase_is(a, "postcopy"), "it does not begin");
	lab_proc_wait(lab, p, 5000);
	pid = lab_guest_pid(g, b);
	lab_group_enter(lab, &group, pid);
	/* A little more than it has, and less than will come. */
	usleep(200000);
	snprintf(bytes, sizeof(bytes), "%lu", (unsigned long)lab_group_usage(&group) + (1 << 20));
	lab_check(lab, lab_group_limit(&group, bytes), "no limit of %s", bytes);
	if (r->oom) {
		became = killed(a, g);
	} else {
		usleep(3000000);
		lab_check(lab, lab_proc_alive(b->dest) && lab_proc_alive(a->source), "an agent");
		lab_check(lab, phase_in(a, "postcopy paused recovering"), "it does not wait");
		lab_check(lab, lab_guest_pid(g, a) > 0, "the source has let go");
		lab_check(lab, lab_group_limit(&group, "-1"), "the limit stays");
		lab_until(lab, 60000, all_here(a), "it does not go on");
		lab_guest_arrived(g, b);
		became = "waits, then moved";
	}
	lab_group_leave(lab, &group, lab_guest_pid(g, b));
	lab_end(lab);
	lab_matrix_end(&row, became);
}
