/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A QEMU with virtio-net is moved between two hosts that share nothing but a wire and their disks' folder, each with
 * a bridge and a tap. A TCP client that sits at the host which the VM leaves stays connected: frames for the VM must
 * take the wire from then on, which the bridge learns from the VM's announcement.
 */
#include "lib/lab_net.h"
#include "lib/lab_test.h"

#define MAC "52:54:00:de:ca:01"

/**
 * struct world - two hosts, a VM and its client
 * @g:	stands for the VM where the lab wants a guest: its name
 */
struct world {
	struct lab *lab;
	struct lab_ns ns[2];
	struct lab_host *a, *b;
	struct lab_vm *vm, *twin;
	struct lab_guest g;
	struct lab_net_client *client;
	struct lab_net_ear *ear;
};

static void begin(struct world *w)
{
	char *launcher;

	*w = (struct world){.lab = lab_vm_lab()};
	if (!lab_ns_pair(w->lab, &w->ns[0], &w->ns[1]) || !lab_net_bridges(w->lab, w->ns)) {
		lab_end(w->lab);
		cr_skip_test("no namespaces, bridges or taps here (root is needed, or a container "
			     "forbids it)");
	}
	w->g = (struct lab_guest){.lab = w->lab, .name = "vm"};
	/* QEMU announces what it has loaded, which is before the hand-over; here it is told not to. */
	w->vm = lab_vm_start(
		w->lab, &(struct lab_vm_opts){.mb = 128,
					      .fill = 16,
					      .rate = 500,
					      .tap = LAB_NET_TAP,
					      .mac = MAC,
					      .ns = &w->ns[0],
					      .args = {"-global", "migration.announce-rounds=0"}});
	w->twin = lab_vm_twin(w->vm, "b");
	launcher = lab_vm_launcher(w->twin);
	w->a = lab_host_start(
		w->lab,
		&(struct lab_host_opts){.name = "a", .ns = &w->ns[0], .address = "10.77.0.1"});
	w->b = lab_host_start(w->lab, &(struct lab_host_opts){.name = "b",
							      .ns = &w->ns[1],
							      .address = "10.77.0.2",
							      .dest_conf = launcher});
	free(launcher);
	lab_vm_add(w->a, w->vm);
	lab_vm_do(w->vm, "net up 10.77.0.77");
	w->client = lab_net_client(w->lab, &w->ns[0], "10.77.0.77");
	w->ear = lab_net_listen(w->lab, &w->ns[0], MAC);
}

static void end(struct world *w)
{
	lab_net_ear_end(w->ear);
	lab_net_client_end(w->client);
	lab_vm_quit(w->vm);
	lab_vm_quit(w->twin);
	lab_end(w->lab);
}

/* Line after line, until the command has ended. */
static void talk(struct world *w, struct lab_proc *p)
{
	while (lab_proc_alive(p)) {
		lab_net_asks(w->client);
		lab_net_answers(w->client, 20000);
	}
}

Test(qemu_net, client_stays_connected, .timeout = 120)
{
	const struct lab_move move = {.mode = "hybrid"};
	struct lab_vm_state before;
	struct lab_proc *p;
	struct world w;
	uint64_t asked;
	json_t *job;

	begin(&w);
	before = lab_vm_check(w.vm);
	lab_net_asks(w.client);
	lab_net_answers(w.client, 10000);
	p = lab_migrate_begin(w.a, w.b, &w.g, &move);
	talk(&w, p);
	asked = w.client->asked;
	job = lab_migrate_end(w.a, p, &move);
	lab_vm_attach(w.twin, 0);
	lab_vm_goes_on(w.twin, &before);
	for (int i = 0; i < 20; i++) {
		lab_net_asks(w.client);
		lab_net_answers(w.client, 10000);
	}
	lab_net_announced(w.ear, 5000);
	fprintf(stderr,
		"%lu lines during the migration, longest answer %lu ms, downtime %.1f ms; "
		"announced by %u ARP and %u RARP frames\n",
		asked, w.client->longest_us / 1000, lab_num(w.lab, job, "downtime_us") / 1000,
		w.ear->arps, w.ear->rarps);
	lab_check(w.lab, asked > 10, "it was not asked during the migration");
	json_decref(job);
	end(&w);
}
