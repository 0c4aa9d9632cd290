/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What ends a job while its session is being made again ends it, and is not taken for another loss of the session:
 * a guest that writes faster than it can be sent is found out as soon as the first channel is there, with others
 * still to come.
 */
#include <stdlib.h>
#include <string.h>
#include "lib/lab_matrix.h"
#include "lib/lab_relay.h"
#include "lib/lab_test.h"

TestSuite(net_ends, .timeout = 120);

#define MB 32

static bool sent_some(struct lab_host *a)
{
	json_t *job = lab_job_newest(a);
	bool ret = job && lab_num(a->lab, job, "memory.sent_bytes") > 2 << 20;

	json_decref(job);
	return ret;
}

Test(net_ends, not_converging_between_two_channels)
{
	struct lab_row row = {.fault = "reset, slow to reconnect",
			      .phase = "precopy",
			      .mode = "precopy",
			      .driver = "native"};
	const struct lab_move move = {.mode = "precopy",
				      .args = {"--no-convergence", "fail", "--max-passes", "1",
					       "--downtime-limit-ms", "1", "--channels", "8",
					       "--bandwidth", "160Mbit"},
				      .exit = 1,
				      .phase = "failed",
				      .code = "not-converging",
				      .owner = "source",
				      .ms = 60000};
	struct lab *lab = lab_new(lab_test_failed);
	struct lab_host *a, *b;
	struct lab_relay *relay;
	struct lab_guest *g;
	struct lab_proc *p;

	lab_matrix_begin(&row);
	lab_fault_agents(lab);
	/* Each but the first eight; all of the memory takes less than that. */
	a = lab_host_start(lab, &(struct lab_host_opts){
					.name = "a", .source_fault = "bulk-connected:delay=400@9"});
	b = lab_host_start(lab, &(struct lab_host_opts){.name = "b"});
	relay = lab_relay_new(b);
	g = lab_guest_start(a, &(struct lab_guest_opts){.mb = MB, .threads = 2, .writes = 20000});
	p = lab_migrate_begin(a, b, g, &move);
	lab_until(lab, 20000, sent_some(a), "nothing is sent");
	lab_relay_cut(relay);
	json_decref(lab_migrate_end(a, p, &move));
	lab_guest_verified(g);
	lab_until(lab, 30000, lab_host_guests(b) == 0, "a guest that never ran stays there");
	lab_relay_free(relay);
	lab_end(lab);
	lab_matrix_end(&row, "stayed");
}
