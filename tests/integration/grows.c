/* SPDX-License-Identifier: Apache-2.0 */
/* Blocks that grow (W14): made as large as they can become, and begun to be used in the middle of a move. */
#include <stdlib.h>
#include <string.h>
#include "lib/lab_test.h"

TestSuite(grows, .timeout = 120);

/*
 * 64 MiB at 120 Mbit/s: there is time to grow. In post-copy it also asks for pages, as fast as it can:
 * there must be more of them.
 */
static void grows(const char *mode, const char *phase, const char *tracking, enum lab_kind kind)
{
	struct lab_guest_opts opts = {.mb = strcmp(phase, "postcopy") ? 64 : 128,
				      .kind = kind,
				      .blocks = 2,
				      .writes = 1000,
				      .grow = true};
	struct lab_move move = {.mode = mode,
				.tracking = tracking,
				.args = {"--bandwidth", "120Mbit", "--max-passes", "3",
					 "--no-convergence", "stop"}};
	struct lab_host *a, *b;
	struct lab *lab = lab_test_pair(&a, &b);
	struct lab_guest *g = lab_guest_start(a, &opts);
	struct lab_proc *p = lab_migrate_begin(a, b, g, &move);
	struct lab_report r;

	lab_until(lab, 10000, lab_job_phase_is(a, phase), "%s was not reached", phase);
	if (!strcmp(phase, "precopy"))
		lab_until(lab, 10000, lab_guest_tracked(g), "nothing is tracked");
	lab_guest_grow(g, !strcmp(phase, "precopy") ? a : b);
	lab_check(lab, lab_job_phase_is(a, phase), "it grew too late");
	json_decref(lab_migrate_end(a, p, &move));
	lab_guest_arrived(g, b);
	r = lab_guest_report(g);
	lab_check(lab, r.grown > 0, "it has shrunk on the way");
	lab_end(lab);
}

Test(grows, in_precopy_async)
{
	grows("precopy", "precopy", "async", LAB_ANON);
}

Test(grows, in_precopy_faults)
{
	grows("hybrid", "precopy", "faults", LAB_MEMFD);
}

Test(grows, in_postcopy)
{
	grows("postcopy", "postcopy", NULL, LAB_ANON);
}
