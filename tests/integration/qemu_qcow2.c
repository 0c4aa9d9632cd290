/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Images in qcow2 have tables of their own, which QEMU keeps in memory and writes late: what the VM has written at
 * one host must be found at the other, also when it has gone there and back.
 */
#include <stdlib.h>
#include <string.h>

#include "lib/lab_test.h"
#include "lib/lab_vm.h"

TestSuite(qemu_qcow2, .timeout = 200);

static void disk_goes_on(struct lab_vm *vm, const struct lab_vm_state *before)
{
	struct lab_vm_state s;

	lab_until(vm->lab, 20000, (s = lab_vm_check(vm)).disk_reads > before->disk_reads + 8,
		  "it reads no more");
	lab_until(vm->lab, 20000, (s = lab_vm_check(vm)).disk_writes > before->disk_writes,
		  "it writes no more");
}

static void there_and_back(struct lab_vm_opts opts)
{
	struct lab *lab = lab_vm_lab();
	struct lab_host *a, *b;
	struct lab_vm *at[3];
	struct lab_guest g = {.lab = lab, .name = "vm"};
	struct lab_vm_state before;
	char *conf[2];

	opts.mb = 160;
	opts.rate = 500;
	opts.disk_mb = 32;
	opts.qcow2 = true;
	at[0] = lab_vm_start(lab, &opts);
	at[1] = lab_vm_twin(at[0], "b");
	at[2] = lab_vm_twin(at[0], "c");
	conf[0] = lab_vm_launcher(at[1]);
	conf[1] = lab_vm_launcher(at[2]);
	a = lab_host_start(lab, &(struct lab_host_opts){.name = "a", .dest_conf = conf[1]});
	b = lab_host_start(lab, &(struct lab_host_opts){.name = "b", .dest_conf = conf[0]});
	lab_vm_add(a, at[0]);
	lab_vm_do(at[0], opts.disk == LAB_VM_DISK_NONE ? "disk direct 2 1" : "disk buffered 2 1");
	lab_vm_do(at[0], "disk write");
	before = lab_vm_check(at[0]);
	for (int i = 0; i < 2; i++) {
		struct lab_move move = {.mode = i ? "postcopy" : "hybrid"};

		json_decref(lab_migrate(i ? b : a, i ? a : b, &g, &move));
		lab_vm_attach(at[i + 1], 0);
		before = lab_vm_goes_on(at[i + 1], &before);
		disk_goes_on(at[i + 1], &before);
		lab_until(lab, 5000, !lab_vm_alive(at[i]), "the source's QEMU has not ended");
		if (!i)
			lab_host_knows(b, "vm");
	}
	lab_vm_do(at[2], "disk stop");
	lab_vm_check(at[2]);
	for (int i = 0; i < 3; i++)
		lab_vm_quit(at[i]);
	free(conf[0]);
	free(conf[1]);
	lab_end(lab);
}

Test(qemu_qcow2, writeback)
{
	lab_test_long();
	there_and_back((struct lab_vm_opts){.disk = LAB_VM_DISK_WRITEBACK});
}

Test(qemu_qcow2, direct_io)
{
	lab_test_long();
	there_and_back((struct lab_vm_opts){.disk = LAB_VM_DISK_NONE});
}
