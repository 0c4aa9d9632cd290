/* SPDX-License-Identifier: Apache-2.0 */
/* The network under an unmodified QEMU: what tests/faults/net.c does to a native guest, as far as the driver can matter. */
#include <stdlib.h>
#include <string.h>
#include "lib/lab_matrix.h"
#include "lib/lab_relay.h"
#include "lib/lab_test.h"
#include "lib/lab_trip.h"

TestSuite(net_qemu, .timeout = 400);

/**
 * struct net_row - one row; no pointers, Criterion copies it
 * @hole:	bytes vanish and nobody is told, else connections are reset
 * @postcopy:	when, and the mode
 */
struct net_row {
	bool hole;
	bool postcopy;
	bool quick;
};

static const struct net_row rows[] = {
	{false, false, true}, {false, true, false}, {true, false, false}, {true, true, false}};

ParameterizedTestParameters(net_qemu, rows)
{
	static struct net_row picked[LAB_COUNT(rows)];
	size_t n = 0;

	for (size_t i = 0; i < LAB_COUNT(rows); i++)
		if (lab_matrix_pick(i, rows[i].quick))
			picked[n++] = rows[i];
	return cr_make_param_array(struct net_row, picked, n);
}

static bool sent_some(struct lab_trip *t, const char *phase)
{
	json_t *job = lab_job_newest(t->hosts[0]);
	bool ret = job && lab_num(t->lab, job, "memory.sent_bytes") > 16 << 20 &&
		   !strcmp(lab_str(t->lab, job, "phase"), phase);

	json_decref(job);
	return ret;
}

ParameterizedTest(struct net_row *r, net_qemu, rows)
{
	struct lab_row row = {.fault = r->hole ? "black hole" : "reset",
			      .phase = r->postcopy ? "postcopy" : "precopy",
			      .mode = r->postcopy ? "postcopy" : "hybrid",
			      .driver = "qemu"};
	struct lab_move move = {
		.mode = row.mode, .ms = 180000, .cut = true, .args = {"--bandwidth", "80Mbit"}};
	struct lab *lab = lab_vm_lab();
	struct lab_vm_state before;
	struct lab_relay *relay;
	struct lab_proc *p;
	struct lab_trip t;

	lab_matrix_begin(&row);
	lab_trip_begin(&t, lab, &(struct lab_vm_opts){.mb = 160, .rate = 200});
	relay = lab_relay_new(t.hosts[1]);
	before = lab_vm_check(lab_trip_vm(&t));
	p = lab_migrate_begin(t.hosts[0], t.hosts[1], &t.g, &move);
	lab_until(lab, 60000, sent_some(&t, row.phase), "nothing was sent in %s", row.phase);
	if (r->hole)
		lab_relay_swallow(relay);
	else
		lab_relay_cut(relay);
	lab_until(lab, 20000, lab_proc_said(lab, t.hosts[0]->source, ": goes on with "),
		  "no session was made again");
	json_decref(lab_migrate_end(t.hosts[0], p, &move));
	lab_trip_came(&t);
	lab_vm_goes_on(lab_trip_vm(&t), &before);
	lab_relay_free(relay);
	lab_trip_end(&t);
	lab_matrix_end(&row, "moved");
}
