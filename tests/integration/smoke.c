/* SPDX-License-Identifier: Apache-2.0 */
/* A little of everything: what `make test` also runs with instrumented agents. */
#include "lib/lab_test.h"
#include "lib/lab_wire.h"

TestSuite(smoke, .timeout = 240);

static void there_and_back(const char *mode, const char *tracking, enum lab_kind kind)
{
	struct lab_move move = {.mode = mode,
				.tracking = tracking,
				.args = {"--max-passes", "3", "--no-convergence", "stop"}};
	struct lab_host *a, *b;
	struct lab *lab = lab_test_pair(&a, &b);
	struct lab_guest *g =
		lab_guest_start(a, &(struct lab_guest_opts){.mb = 16, .kind = kind, .threads = 2});

	json_decref(lab_migrate(a, b, g, &move));
	lab_guest_arrived(g, b);
	lab_host_knows(b, g->name);
	json_decref(lab_migrate(b, a, g, &move));
	lab_guest_arrived(g, a);
	lab_end(lab);
}

Test(smoke, hybrid_async_memfd)
{
	there_and_back("hybrid", "async", LAB_MEMFD);
}

Test(smoke, hybrid_faults_anon)
{
	there_and_back("hybrid", "faults", LAB_ANON);
}

Test(smoke, postcopy_anon)
{
	there_and_back("postcopy", NULL, LAB_ANON);
}

Test(smoke, precopy_faults_memfd)
{
	there_and_back("precopy", "faults", LAB_MEMFD);
}

/* Ends that are none: cancelled, refused, cut off. */
Test(smoke, unhappy)
{
	struct lab_host *a, *b;
	struct lab *lab = lab_test_pair(&a, &b);
	struct lab_guest *g = lab_guest_start(a, &(struct lab_guest_opts){.mb = 32, .threads = 2});
	struct lab_move move = {.mode = "precopy",
				.args = {"--bandwidth", "40Mbit"},
				.exit = 1,
				.phase = "cancelled"};
	struct lab_proc *p = lab_migrate_begin(a, b, g, &move);
	json_t *job;

	lab_until(lab, 20000, lab_job_phase_is(a, "precopy"), "precopy was not reached");
	job = lab_job_newest(a);
	lab_check(lab,
		  lab_decant(a, 20000, NULL, NULL,
			     (const char *[]){"cancel", lab_str(lab, job, "id"), NULL}) == 0,
		  "cancel was refused");
	json_decref(job);
	json_decref(lab_migrate_end(a, p, &move));

	for (int i = 0; i < 20; i++) {
		struct lab_wire *w = lab_wire_open(b, &(struct lab_wire_opts){0});

		lab_check(lab, w, "a proper peer is not let in");
		lab_wire_send(w, "noise and more noise", (size_t)i);
		lab_wire_close(w);
	}
	lab_http(a->source_sock, "POST", "/v1/migrations", "{]", NULL);
	json_decref(lab_migrate(a, b, g, &(struct lab_move){0}));
	lab_guest_arrived(g, b);
	lab_end(lab);
}
