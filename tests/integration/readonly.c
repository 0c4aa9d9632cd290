/* SPDX-License-Identifier: Apache-2.0 */
/* Blocks that do not change any more (W2): not tracked, sent once, mapped read-only on both hosts. */
#include <string.h>
#include "lib/lab_smaps.h"
#include "lib/lab_test.h"

TestSuite(readonly, .timeout = 120);

#define MB 32u

/**
 * struct maps - KiB of a guest, in mappings as large as a block
 * @fixed:	of them read-only
 * @tracked:	write-protected by a userfaultfd
 * @both:	which must not be
 */
struct maps {
	unsigned long fixed;
	unsigned long tracked;
	unsigned long both;
};

static void count(void *arg, unsigned long kb, const char *line)
{
	struct maps *m = arg;
	bool fixed, tracked;

	if (kb < MB << 9 || strncmp(line, "VmFlags:", 8) != 0)
		return;
	fixed = !strstr(line, " wr") && strstr(line, " rd");
	tracked = strstr(line, " uw");
	m->fixed += fixed ? kb : 0;
	m->tracked += tracked ? kb : 0;
	m->both += fixed && tracked ? kb : 0;
}

static struct maps maps_of(pid_t pid)
{
	struct maps m = {0};

	lab_smaps(pid, count, &m);
	return m;
}

static void moves(const char *mode, const char *tracking, enum lab_kind kind)
{
	struct lab_guest_opts opts = {
		.mb = MB, .kind = kind, .blocks = 2, .writes = 1000, .rom = true};
	struct lab_move move = {.mode = mode,
				.tracking = tracking,
				.args = {"--bandwidth", "200Mbit", "--max-passes", "3",
					 "--no-convergence", "stop"}};
	struct lab_host *a, *b;
	struct lab *lab = lab_test_pair(&a, &b);
	struct lab_guest *g = lab_guest_start(a, &opts);
	struct lab_proc *p = lab_migrate_begin(a, b, g, &move);
	struct maps m;

	if (strcmp(mode, "postcopy") != 0) {
		/* One look: at the next it may be over. */
		lab_until(lab, 10000, (m = maps_of(lab_guest_pid(g, a))).tracked,
			  "nothing is tracked");
		lab_check(lab, m.fixed == MB << 9 && m.tracked == MB << 9 && !m.both,
			  "%lu KiB read-only, %lu tracked, %lu both", m.fixed, m.tracked, m.both);
	}
	json_decref(lab_migrate_end(a, p, &move));
	lab_guest_arrived(g, b);
	m = maps_of(lab_guest_pid(g, b));
	lab_check(lab, m.fixed == MB << 9, "%lu KiB read-only at the destination", m.fixed);

	/* And on: it is attached with a mapping that is read-only by now. */
	lab_host_knows(b, g->name);
	lab_check(lab,
		  !lab_decant(b, 60000, NULL, NULL,
			      (const char *const[]){"snapshot", g->name, "--to", a->to, "--start",
						    "--name", "rom", "--wait", NULL}),
		  "decant snapshot --start");
	lab_guest_abandon(g);
	lab_end(lab);
}

Test(readonly, precopy_async)
{
	moves("precopy", "async", LAB_ANON);
}

Test(readonly, hybrid_faults)
{
	lab_test_long();
	moves("hybrid", "faults", LAB_MEMFD);
}

Test(readonly, postcopy)
{
	moves("postcopy", NULL, LAB_ANON);
}
