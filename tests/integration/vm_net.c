/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The network of the tests' VM: two hosts with a bridge and a tap each, a client at one of them that stays
 * connected to the VM at the other. QEMU's own stop, cont, announce-self and hand-over (with the RAM in its
 * stream) are what a migration by decant is compared with.
 */
#include "lib/lab_net.h"
#include "lib/lab_test.h"

#define MAC "52:54:00:de:ca:01"

/* QEMU's own migration over the wire, of a stopped VM: nothing about speed. */
static void move_by_qemu(struct lab_vm *from, struct lab_vm *to)
{
	const char *uri = "tcp:10.77.0.2:7800";

	json_decref(lab_vm_qmp(to, "migrate-incoming", json_pack("{s:s}", "uri", uri)));
	json_decref(lab_vm_qmp(from, "stop", NULL));
	json_decref(lab_vm_qmp(from, "migrate", json_pack("{s:s}", "uri", uri)));
	lab_until(from->lab, 30000, lab_vm_status(from, "postmigrate"), "it is not sent");
	lab_until(from->lab, 30000, lab_vm_status(to, "paused"), "it is not loaded");
	json_decref(lab_vm_qmp(to, "cont", NULL));
}

Test(vm_net, client_stays_connected, .timeout = 120)
{
	struct lab *lab = lab_vm_lab();
	struct lab_net_client *c;
	struct lab_net_ear *ear;
	struct lab_vm *a, *b;
	struct lab_ns ns[2];

	if (!lab->full) {
		lab_end(lab);
		cr_skip_test("with --full; qemu_net takes the same network in every run");
	}
	if (!lab_ns_pair(lab, &ns[0], &ns[1]) || !lab_net_bridges(lab, ns)) {
		lab_end(lab);
		cr_skip_test("no namespaces, bridges or taps here (root is needed, or a container "
			     "forbids it)");
	}
	a = lab_vm_start(
		lab, &(struct lab_vm_opts){
			     .mb = 128, .fill = 4, .tap = LAB_NET_TAP, .mac = MAC, .ns = &ns[0]});
	lab_vm_do(a, "net up 10.77.0.77");
	c = lab_net_client(lab, &ns[1], "10.77.0.77");
	lab_net_asks(c);
	lab_net_answers(c, 10000);

	json_decref(lab_vm_qmp(a, "stop", NULL));
	lab_net_asks(c);
	ear = lab_net_listen(lab, &ns[0], MAC);
	json_decref(lab_vm_qmp(a, "cont", NULL));
	lab_net_answers(c, 10000);
	lab_check(lab, lab_net_heard(ear) == 0, "nobody announced anything yet");

	b = lab_vm_twin(a, "b");
	b->opts.ns = &ns[1];
	lab_vm_launch(b);
	move_by_qemu(a, b);
	lab_net_asks(c);
	lab_net_announced(ear, 10000);
	lab_net_answers(c, 20000);
	lab_check(lab, lab_vm_status(a, "postmigrate"), "the source stands");
	fprintf(stderr, "announced by %u ARP and %u RARP frames, longest answer %lu ms\n",
		ear->arps, ear->rarps, c->longest_us / 1000);
	lab_net_ear_end(ear);
	lab_net_client_end(c);
	lab_vm_end(a);
	lab_vm_end(b);
	lab_end(lab);
}
