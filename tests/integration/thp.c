/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Transparent huge pages (P8): a guest that really has them arrives whole in every mode; at the
 * destination its memory must not get any while pages are discarded and placed, and may again at the
 * end. All of it is seen from outside, in smaps.
 */
#include <stdlib.h>
#include <string.h>
#include "lib/lab_smaps.h"
#include "lib/lab_test.h"

TestSuite(thp, .timeout = 120);

#define MB 64u

/**
 * struct advice - KiB of a process, in mappings as large as its blocks are
 * @asked:	where huge pages are advised (VmFlags hg)
 * @never:	where they are forbidden (nh)
 * @huge:	in huge pages
 */
struct advice {
	unsigned long asked;
	unsigned long never;
	unsigned long huge;
};

/* The kernel forbids huge pages in the stacks of threads: those are smaller. */
static void count(void *arg, unsigned long kb, const char *line)
{
	struct advice *a = arg;

	if (!strncmp(line, "AnonHugePages:", 14))
		a->huge += strtoul(line + 14, NULL, 10);
	else if (kb < MB << 9 || strncmp(line, "VmFlags:", 8) != 0)
		return;
	else if (strstr(line, " hg"))
		a->asked += kb;
	else if (strstr(line, " nh"))
		a->never += kb;
}

static struct advice advice_of(pid_t pid)
{
	struct advice a = {0};

	lab_smaps(pid, count, &a);
	return a;
}

static bool is_off(struct lab_guest *g, struct lab_host *h)
{
	struct advice a = advice_of(lab_guest_pid(g, h));

	return a.never >= MB << 10 && !a.asked;
}

static bool is_on(struct lab_guest *g, struct lab_host *h)
{
	struct advice a = advice_of(lab_guest_pid(g, h));

	return a.asked >= MB << 10 && !a.never;
}

static void moves(enum lab_kind kind, const char *mode)
{
	struct lab_guest_opts opts = {
		.mb = MB, .kind = kind, .blocks = 2, .writes = 2000, .thp = true};
	struct lab_move move = {.mode = mode,
				.args = {"--bandwidth", "300Mbit", "--max-passes", "3",
					 "--no-convergence", "stop"}};
	const char *phase = !strcmp(mode, "precopy") ? "precopy" : "postcopy";
	struct lab_host *a, *b;
	struct lab *lab = lab_test_pair(&a, &b);
	struct lab_guest *g = lab_guest_start(a, &opts);
	struct lab_proc *p;
	bool off = false;

	lab_check(lab, is_on(g, a), "nothing is advised at the source");
	if (kind == LAB_ANON && !advice_of(lab_guest_pid(g, a)).huge) {
		lab_guest_end(g);
		lab_end(lab);
		cr_skip_test("this kernel gives no transparent huge pages");
	}
	p = lab_migrate_begin(a, b, g, &move);
	/* Looked at in a moment that was certainly in that phase. */
	lab_until(lab, 10000,
		  lab_job_phase_is(a, phase) && (off = is_off(g, b), lab_job_phase_is(a, phase)),
		  "%s was not reached", phase);
	lab_check(lab, off, "huge pages are not off while pages arrive");
	json_decref(lab_migrate_end(a, p, &move));
	lab_guest_arrived(g, b);
	lab_until(lab, 5000, is_on(g, b), "huge pages are not on again");
	lab_end(lab);
}

Test(thp, anonymous_precopy)
{
	lab_test_long();
	moves(LAB_ANON, "precopy");
}

Test(thp, anonymous_hybrid)
{
	moves(LAB_ANON, "hybrid");
}

Test(thp, anonymous_postcopy)
{
	moves(LAB_ANON, "postcopy");
}

/* Where shmem_enabled says "advise", it has huge pages, too. */
Test(thp, shared_hybrid)
{
	lab_test_long();
	moves(LAB_MEMFD, "hybrid");
}
