/* SPDX-License-Identifier: Apache-2.0 */
/*
 * SIGKILL of decant-dest at every fault point while it serves a micro-VM out of an image. The micro-VM waits where a
 * page is missing, sees none that is wrong and no zeros in the place of one, and the next life of the agent goes on.
 * Where the agent ends before it has written down whom it serves nobody can go on: the next life ends the
 * micro-VM, which has seen no page yet, and the next one is served.
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "lib/lab_matrix.h"
#include "lib/lab_micro.h"
#include "lib/lab_test.h"

TestSuite(kills_micro, .timeout = 120);

#define MB (1ul << 20)

/**
 * struct at - a point, and what a kill there means; no pointers, Criterion copies it
 * @nth:	time that it is reached
 * @served:	it is known whom the agent serves
 * @quick:	it stands for the others
 */
struct at {
	enum faultpoint point;
	unsigned int nth;
	bool served;
	bool quick;
};

#define AT(id, n, is_served, is_quick)                                                           \
	{                                                                                        \
		.point = FAULTPOINT_##id, .nth = (n), .served = (is_served), .quick = (is_quick) \
	}

static const struct at points[] = {
	AT(MICRO_CONNECTED, 1, false, false),   AT(MICRO_REGIONS_NOTED, 1, false, true),
	AT(MICRO_OWNER_MARKED, 1, true, true),  AT(ZERO_FAULT_READ, 3, true, false),
	AT(PAGES_PLACED, 1, true, false),       AT(PAGES_PLACED, 300, true, false),
	AT(PAGES_MARKED, 50, true, true),       AT(ZEROS_MARKED, 2, true, false),
	AT(MICRO_GUARD_LIFTED, 1, true, false), AT(MICRO_COMPLETED_JOURNALED, 1, true, false),
};

ParameterizedTestParameters(kills_micro, at_every_point)
{
	static struct at picked[LAB_COUNT(points)];
	size_t n = 0;

	for (size_t i = 0; i < LAB_COUNT(points); i++)
		if (lab_matrix_pick(i, points[i].quick))
			picked[n++] = points[i];
	return cr_make_param_array(struct at, picked, n);
}

/* Page states and regions of one that is over. */
static bool states_left(struct lab_host *b)
{
	char *left = lab_host_run_dir(b);
	bool any = strstr(left, "pages.") != NULL;

	free(left);
	return any;
}

static void goes_on(struct lab_host *b, struct lab_proc *p, const char *id)
{
	micro_ok(b, p);
	lab_until(b->lab, 20000, micro_phase_is(b, id, "completed"), "it has not all pages");
	lab_until(b->lab, 10000, !states_left(b), "page states stay");
	lab_proc_kill(b->lab, p);
}

/*
 * It does not wait for ever; and no page of it was ever made up. One that was about to say its handshake may have
 * noticed by itself that nobody hears it.
 */
static void is_ended(struct lab_host *b, struct lab_proc *p, const char *id, bool said)
{
	lab_until(b->lab, 10000, micro_phase_is(b, id, "aborted"), "its record does not say so");
	lab_until(b->lab, 10000, !states_left(b), "page states stay");
	lab_until(b->lab, 10000, !lab_proc_alive(p), "it waits for nobody");
	lab_check(b->lab, p->status == 128 + SIGKILL || (!said && p->status == 1),
		  "it has ended with %d", p->status);
	lab_check(b->lab, !micro_said(b, p, "touched"), "it has seen a page");
}

static void next_is_served(struct lab_host *b)
{
	char *id = micro_uffd(b, "vm", "vm.sock");
	struct lab_proc *p = micro_start(b, "next", "vm.sock", "memory", NULL);

	micro_ok(b, p);
	micro_end(b, p, id, "completed");
	free(id);
}

ParameterizedTest(struct at *at, kills_micro, at_every_point)
{
	static const char *const options[] = {"regions=3", "threads=3", "before=5", "after=7",
					      NULL};
	char fault[96], *order, *id;
	struct lab_row row = {.fault = fault,
			      .phase = lab_faultpoint_phase(at->point),
			      .mode = "micro-VM",
			      .driver = "uffd"};
	struct lab *lab = lab_new(lab_test_failed);
	struct lab_host *b;
	struct lab_proc *p;

	snprintf(fault, sizeof(fault), "kill dest at %s@%u", lab_faultpoint_name(at->point),
		 at->nth);
	order = lab_fault_kill(at->point, at->nth);
	lab_matrix_begin(&row);
	lab_fault_agents(lab);
	b = lab_host_start(
		lab, &(struct lab_host_opts){.name = "b", .no_source = true, .dest_fault = order});
	free(order);
	micro_memory(b, "memory", 16 * MB);
	micro_import(b, "memory", "vm");
	id = micro_uffd(b, "vm", "vm.sock");
	p = micro_start(b, "vm", "vm.sock", "memory", options);
	lab_fault_killed(lab, b->dest, 30000);
	lab_host_dest_start(b);
	if (at->served)
		goes_on(b, p, id);
	else
		is_ended(b, p, id, at->point != FAULTPOINT_MICRO_CONNECTED);
	next_is_served(b);
	free(id);
	lab_end(lab);
	lab_matrix_end(&row, at->served ? "served" : "ended");
}
