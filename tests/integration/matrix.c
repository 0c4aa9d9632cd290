/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Every mode, by each kind of tracking, of each kind of memory, under writes at full speed. The
 * guest then verifies every page at the destination.
 */
#include "lib/lab_test.h"

struct combination {
	char mode[12]; /* no pointers: Criterion copies it to another process */
	char tracking[8];
	enum lab_kind kind;
};

static struct combination combinations[] = {
	{"hybrid", "async", LAB_MEMFD},    {"hybrid", "async", LAB_ANON},
	{"hybrid", "faults", LAB_MEMFD},   {"hybrid", "faults", LAB_ANON},
	{"postcopy", "async", LAB_MEMFD},  {"postcopy", "async", LAB_ANON},
	{"postcopy", "faults", LAB_MEMFD}, {"postcopy", "faults", LAB_ANON},
	{"precopy", "async", LAB_MEMFD},   {"precopy", "async", LAB_ANON},
	{"precopy", "faults", LAB_MEMFD},  {"precopy", "faults", LAB_ANON},
};

ParameterizedTestParameters(matrix, full_speed)
{
	return cr_make_param_array(struct combination, combinations, LAB_COUNT(combinations));
}

ParameterizedTest(struct combination *c, matrix, full_speed, .timeout = 240)
{
	struct lab_host *a, *b;
	struct lab *lab = lab_test_pair(&a, &b);
	struct lab_guest *g = lab_guest_start(
		a, &(struct lab_guest_opts){.mb = 48, .kind = c->kind, .threads = 3});
	struct lab_move move = {.mode = c->mode, .tracking = c->tracking};
	bool precopy = !strcmp(c->mode, "precopy");
	json_t *job;

	/* Nothing converges against writers at full speed: end it after some passes. */
	if (precopy)
		memcpy(move.args, (const char *[]){"--max-passes", "4", "--no-convergence", "stop"},
		       4 * sizeof(char *));
	job = lab_migrate(a, b, g, &move);
	lab_guest_arrived(g, b);
	if (!strcmp(c->mode, "postcopy"))
		lab_check(lab, lab_num(lab, job, "postcopy.faults") > 0, "no fault at all");
	else
		lab_check(lab, lab_num(lab, job, "memory.passes") >= 1, "no pass at all");
	if (precopy)
		lab_check(lab, lab_num(lab, job, "postcopy.faults") == 0, "faults after a precopy");
	json_decref(job);
	lab_end(lab);
}
