/* SPDX-License-Identifier: Apache-2.0 */
/* Guests and journeys that are not the usual ones. */
#include <string.h>
#include "lib/lab_test.h"

TestSuite(shapes, .timeout = 240);

Test(shapes, two_gibibytes)
{
	struct lab_host *a, *b;
	struct lab *lab = lab_test_pair(&a, &b);
	struct lab_guest *g = lab_guest_start(
		a, &(struct lab_guest_opts){.mb = 2048, .threads = 2, .writes = 2000});

	json_decref(lab_migrate(a, b, g, &(struct lab_move){.ms = 120000}));
	lab_guest_arrived(g, b);
	lab_end(lab);
}

/* Memory that was never touched is holes: it must arrive as such, not as gigabytes of zeros. */
Test(shapes, empty)
{
	struct lab_host *a, *b;
	struct lab *lab = lab_test_pair(&a, &b);
	struct lab_guest *g =
		lab_guest_start(a, &(struct lab_guest_opts){.mb = 256, .empty = true});
	json_t *job = lab_migrate(a, b, g, &(struct lab_move){0});

	lab_check(lab, lab_num(lab, job, "memory.sent_bytes") < 1 << 20, "%.0f bytes were sent",
		  lab_num(lab, job, "memory.sent_bytes"));
	lab_check(lab, lab_num(lab, job, "memory.wire_bytes") < 4 << 20, "%.0f bytes on the wire",
		  lab_num(lab, job, "memory.wire_bytes"));
	json_decref(job);
	lab_guest_arrived(g, b);
	lab_end(lab);
}

/* Pages go from data to zeros and back while they are sent: old data must not shine through. */
static void data_zeros_data(const char *mode, enum lab_kind kind)
{
	struct lab_host *a, *b;
	struct lab *lab = lab_test_pair(&a, &b);
	struct lab_guest *g = lab_guest_start(
		a, &(struct lab_guest_opts){.mb = 32, .kind = kind, .threads = 2, .zeros = 50});
	json_t *job = lab_migrate(
		a, b, g,
		&(struct lab_move){.mode = mode,
				   .args = {"--max-passes", "5", "--no-convergence", "stop"}});

	lab_check(lab, lab_num(lab, job, "memory.zero_pages") > 0, "no page of zeros was seen");
	json_decref(job);
	lab_guest_arrived(g, b);
	lab_end(lab);
}

Test(shapes, data_zeros_data_precopy_memfd)
{
	data_zeros_data("precopy", LAB_MEMFD);
}

Test(shapes, data_zeros_data_hybrid_anon)
{
	data_zeros_data("hybrid", LAB_ANON);
}

Test(shapes, paused_arrives_paused)
{
	struct lab_host *a, *b;
	struct lab *lab = lab_test_pair(&a, &b);
	struct lab_guest *g =
		lab_guest_start(a, &(struct lab_guest_opts){.mb = 32, .paused = true});
	uint64_t counter = lab_guest_report(g).counter;

	json_decref(lab_migrate(a, b, g, &(struct lab_move){0}));
	lab_guest_arrived_paused(g, b);
	lab_check(lab, lab_guest_report(g).counter == counter, "it ran");
	lab_guest_toggle_pause(g);
	lab_guest_verified(g);
	lab_end(lab);
}

Test(shapes, there_and_back)
{
	struct lab_host *a, *b;
	struct lab *lab = lab_test_pair(&a, &b);
	struct lab_guest *g = lab_guest_start(a, &(struct lab_guest_opts){.mb = 32});

	json_decref(lab_migrate(a, b, g, &(struct lab_move){0}));
	lab_guest_arrived(g, b);
	lab_host_knows(b, g->name);
	json_decref(lab_migrate(b, a, g, &(struct lab_move){.mode = "postcopy"}));
	lab_guest_arrived(g, a);
	lab_host_knows(a, g->name);
	json_decref(lab_migrate(a, b, g, &(struct lab_move){0}));
	lab_guest_arrived(g, b);
	lab_end(lab);
}

/* --- ends that are none --- */

static void cancel_in_precopy(const char *tracking)
{
	struct lab_host *a, *b;
	struct lab *lab = lab_test_pair(&a, &b);
	struct lab_guest *g = lab_guest_start(a, &(struct lab_guest_opts){.mb = 64, .threads = 3});
	/* So slow that it cannot be over before it is cancelled. */
	struct lab_move move = {.mode = "precopy",
				.tracking = tracking,
				.args = {"--bandwidth", "80Mbit"},
				.exit = 1,
				.phase = "cancelled"};
	struct lab_proc *p = lab_migrate_begin(a, b, g, &move);
	json_t *job, *status;
	char *out;

	lab_until(lab, 10000, lab_job_phase_is(a, "precopy"), "precopy was not reached");
	job = lab_job_newest(a);
	lab_until(lab, 10000, lab_guest_tracked(g), "nothing is tracked");
	lab_check(lab,
		  lab_decant(a, 10000, NULL, NULL,
			     (const char *[]){"cancel", lab_str(lab, job, "id"), NULL}) == 0,
		  "cancel was refused");
	json_decref(lab_migrate_end(a, p, &move));

	/* The guest goes on here, nothing tracks it any more, and status says what became of it. */
	lab_guest_verified(g);
	lab_until(lab, 5000, !lab_guest_tracked(g), "it is still tracked");
	lab_check(lab,
		  lab_decant(a, 10000, &out, NULL,
			     (const char *[]){"status", lab_str(lab, job, "id"), "--json", NULL}) ==
			  0,
		  "status");
	status = json_loads(out, 0, NULL);
	lab_check(lab, !strcmp(lab_str(lab, status, "phase"), "cancelled"), "%s", out);
	/* A second cancel comes too late. */
	lab_check(lab,
		  lab_decant(a, 10000, NULL, NULL,
			     (const char *[]){"cancel", lab_str(lab, job, "id"), NULL}) == 3,
		  "an ended job was cancelled");
	free(out);
	json_decref(status);
	json_decref(job);

	/* And it can still be moved. */
	json_decref(lab_migrate(a, b, g, &(struct lab_move){0}));
	lab_guest_arrived(g, b);
	lab_end(lab);
}

Test(shapes, cancel_async)
{
	cancel_in_precopy("async");
}

Test(shapes, cancel_faults)
{
	cancel_in_precopy("faults");
}

Test(shapes, does_not_converge)
{
	struct lab_host *a, *b;
	struct lab *lab = lab_test_pair(&a, &b);
	struct lab_guest *g = lab_guest_start(a, &(struct lab_guest_opts){.mb = 64, .threads = 3});

	json_decref(
		lab_migrate(a, b, g,
			    &(struct lab_move){.mode = "precopy",
					       .args = {"--max-passes", "3", "--downtime-limit-ms",
							"1", "--bandwidth", "800Mbit"},
					       .exit = 1,
					       .phase = "failed",
					       .code = "not-converging"}));
	lab_guest_verified(g);
	/* Asked for, the same ends in post-copy. */
	json_decref(
		lab_migrate(a, b, g,
			    &(struct lab_move){.mode = "precopy",
					       .args = {"--max-passes", "3", "--downtime-limit-ms",
							"1", "--no-convergence", "postcopy"}}));
	lab_guest_arrived(g, b);
	lab_end(lab);
}

/* The operator need not wait for the policy. */
Test(shapes, switchover_on_request)
{
	struct lab_host *a, *b;
	struct lab *lab = lab_test_pair(&a, &b);
	struct lab_guest *g = lab_guest_start(a, &(struct lab_guest_opts){.mb = 64, .threads = 2});
	struct lab_move move = {.mode = "hybrid", .args = {"--bandwidth", "80Mbit"}};
	struct lab_proc *p = lab_migrate_begin(a, b, g, &move);
	json_t *job;

	lab_until(lab, 10000, lab_job_phase_is(a, "precopy"), "precopy was not reached");
	job = lab_job_newest(a);
	lab_check(lab,
		  lab_decant(a, 10000, NULL, NULL,
			     (const char *[]){"switchover", lab_str(lab, job, "id"), NULL}) == 0,
		  "switchover was refused");
	json_decref(job);
	json_decref(lab_migrate_end(a, p, &move));
	lab_guest_arrived(g, b);
	lab_end(lab);
}

/* Memory that a device may write to is moved in every mode; how, is said (see direct.c for the proof). */
Test(shapes, not_declared_free_of_dma)
{
	static const struct {
		struct lab_move move;
		const char *way;
	} all[] = {
		{{.mode = "hybrid"}, "ever-dirty"},
		{{.mode = "postcopy"}, "postcopy"},
		{{.mode = "precopy",
		  .args = {"--dma-quarantine-ms", "500", "--max-passes", "2", "--no-convergence",
			   "stop"}},
		 "quarantine"},
	};
	struct lab_host *h[2];
	struct lab *lab = lab_test_pair(&h[0], &h[1]);
	struct lab_guest *g =
		lab_guest_start(h[0], &(struct lab_guest_opts){.mb = 16, .dma = true});

	for (size_t i = 0; i < LAB_COUNT(all); i++) {
		json_t *job = lab_migrate(h[i % 2], h[(i + 1) % 2], g, &all[i].move);

		lab_check(lab, !strcmp(lab_str(lab, job, "dma.way"), all[i].way), "by %s",
			  lab_str(lab, job, "dma.way"));
		json_decref(job);
		lab_guest_arrived(g, h[(i + 1) % 2]);
		lab_host_knows(h[(i + 1) % 2], g->name);
	}
	lab_end(lab);
}

/* Without a connection of its own for urgent pages they take the other way. */
Test(shapes, without_urgent_channel)
{
	struct lab_host *a, *b;
	struct lab *lab = lab_test_pair(&a, &b);
	struct lab_guest *g = lab_guest_start(a, &(struct lab_guest_opts){.mb = 64, .threads = 2});
	json_t *job = lab_migrate(a, b, g,
				  &(struct lab_move){.mode = "postcopy", .args = {"--no-urgent"}}),
	       *channel;
	size_t i;

	json_array_foreach(lab_at(job, "channels"), i, channel)
		lab_check(lab, strcmp(lab_str(lab, channel, "kind"), "urgent"), "there is one");
	json_decref(job);
	lab_guest_arrived(g, b);
	lab_end(lab);
}

Test(shapes, four_channels)
{
	struct lab_host *a, *b;
	struct lab *lab = lab_test_pair(&a, &b);
	struct lab_guest *g = lab_guest_start(a, &(struct lab_guest_opts){.mb = 64, .threads = 2});

	json_decref(lab_migrate(a, b, g, &(struct lab_move){.args = {"--channels", "4"}}));
	lab_guest_arrived(g, b);
	lab_end(lab);
}

/* Disposal "keep": it stays, paused, and cannot be run again by moving it. */
Test(shapes, kept_at_the_source)
{
	struct lab_host *a, *b;
	struct lab *lab = lab_test_pair(&a, &b);
	struct lab_guest *g = lab_guest_start(a, &(struct lab_guest_opts){.mb = 16, .keep = true});

	json_decref(lab_migrate(a, b, g, &(struct lab_move){0}));
	lab_guest_arrived(g, b);
	lab_check(lab, lab_proc_alive(g->proc), "the kept one has ended");
	lab_check(lab,
		  lab_decant(a, 10000, NULL, NULL,
			     (const char *[]){"migrate", g->name, "--to", b->to, NULL}) == 3,
		  "a guest that was handed over was moved again");
	lab_proc_kill(lab, g->proc);
	lab_end(lab);
}

/* Pages of 2 MiB: put together from frames, placed whole. */
static void huge_pages(const char *mode)
{
	struct lab_host *a, *b;
	struct lab *lab = lab_test_pair(&a, &b);
	struct lab_guest *g;

	if (!lab_huge_pages(lab, 32)) {
		lab_end(lab);
		cr_skip_test("32 huge pages cannot be reserved");
	}
	g = lab_guest_start(a, &(struct lab_guest_opts){.mb = 32, .kind = LAB_HUGE, .writes = 500});
	json_decref(lab_migrate(
		a, b, g,
		&(struct lab_move){.mode = mode,
				   .args = {"--max-passes", "3", "--no-convergence", "stop"}}));
	lab_guest_arrived(g, b);
	lab_end(lab);
}

Test(shapes, huge_pages_hybrid)
{
	huge_pages("hybrid");
}

Test(shapes, huge_pages_precopy)
{
	huge_pages("precopy");
}
