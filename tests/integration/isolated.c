/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The two hosts share nothing but a wire: network, mount and PID namespaces of their own, with their
 * own /dev/shm and run directories. Then no page can arrive by any way but TCP, and the bytes that
 * the kernel counted at the interface must be those that the migration says it sent.
 */
#include "lib/lab_test.h"

static char modes[][16] = {"hybrid", "postcopy", "precopy"};

ParameterizedTestParameters(isolated, bytes_agree)
{
	return cr_make_param_array(char[16], modes, LAB_COUNT(modes));
}

ParameterizedTest(char (*mode)[16], isolated, bytes_agree, .timeout = 120)
{
	struct lab_ns ns[2];
	struct lab_host *a, *b;
	struct lab_guest *g;
	struct lab *lab;
	uint64_t counted;
	double wire;
	json_t *job;

	lab = lab_new(lab_test_failed);
	if (!lab_ns_pair(lab, &ns[0], &ns[1])) {
		lab_end(lab);
		cr_skip_test("namespaces cannot be made here (root is needed, or a container "
			     "forbids it)");
	}
	a = lab_host_start(
		lab, &(struct lab_host_opts){.name = "a", .ns = &ns[0], .address = "10.77.0.1"});
	b = lab_host_start(
		lab, &(struct lab_host_opts){.name = "b", .ns = &ns[1], .address = "10.77.0.2"});
	g = lab_guest_start(a, &(struct lab_guest_opts){.mb = 64, .threads = 2, .writes = 5000});

	counted = lab_ns_sent(lab, &ns[0]);
	job = lab_migrate(a, b, g, &(struct lab_move){.mode = *mode});
	counted = lab_ns_sent(lab, &ns[0]) - counted;
	lab_guest_arrived(g, b);

	/* Frames and TCP add headers, the control channel and handshakes their bytes. */
	wire = lab_num(lab, job, "memory.wire_bytes");
	lab_check(lab, (double)counted >= wire, "%lu bytes counted, %.0f reported", counted, wire);
	lab_check(lab, (double)counted <= wire * 1.05 + (256 << 10),
		  "%lu bytes counted, only %.0f reported", counted, wire);
	/* A tenth of the pages are zeros. */
	lab_check(lab, wire >= 54 << 20, "so much data, but only %.0f bytes went", wire);
	json_decref(job);
	lab_end(lab);
}
