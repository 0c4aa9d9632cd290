/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `make demo-qemu`: two hosts on this machine, an unmodified QEMU whose guest writes and verifies its memory and its
 * disk, and the command that moves it. Its console is shown before and after: the same guest goes on. Ends with 0
 * only if it has verified every page at the destination. Environment: VM_MB (256), VM_CPUS (2), MODE (hybrid),
 * RATE (pages a second that each CPU writes; 2000).
 */
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include "demo/demo_lib.h"
#include "lib/lab_vm.h"

static struct lab_vm *boot(struct lab *lab)
{
	struct lab_vm_opts opts = {.name = "demo",
				   .mb = demo_number("VM_MB", 256, 128, 16384),
				   .smp = demo_number("VM_CPUS", 2, 1, 8),
				   .rate = demo_number("RATE", 2000, 0, 1000000),
				   .disk = LAB_VM_DISK_NONE};
	struct lab_vm *vm;

	printf("Booting Linux in QEMU: %u MiB, %u processors (emulated), a disk with cache=none.\n",
	       opts.mb, opts.smp);
	fflush(stdout);
	vm = lab_vm_start(lab, &opts);
	printf("It took %.1f s. ", (double)vm->boot_ms / 1000);
	printf("It writes %u pages a second with each processor, reads its disk by O_DIRECT, "
	       "writes to "
	       "it,\nand verifies all of that.\n",
	       opts.rate);
	lab_vm_do(vm, "disk direct 1 4");
	lab_vm_do(vm, "disk write");
	return vm;
}

/* What one sees who types this on the console. */
static void show_console(struct lab_vm *vm, const char *host, const char *cmd)
{
	char *answer = lab_vm_ask(vm, 60000, cmd);

	printf("console on host %s> %s\n    %s\n", host, cmd, answer);
	fflush(stdout);
	free(answer);
}

static void summary(struct lab *lab, json_t *job, const struct lab_vm_state *before,
		    const struct lab_vm_state *after)
{
	printf("\nmode      %s, writes tracked by %s, %.0f passes\n", lab_str(lab, job, "mode"),
	       lab_str(lab, job, "tracking.kind"), lab_num(lab, job, "memory.passes"));
	printf("sent      %.1f MiB of memory\n",
	       lab_num(lab, job, "memory.sent_bytes") / (1 << 20));
	printf("downtime  %.1f ms\n", lab_num(lab, job, "downtime_us") / 1000);
	printf("faults    %.0f\n", lab_num(lab, job, "postcopy.faults"));
	printf("guest     verified all %lu pages and %lu pages of its disk at the destination, "
	       "none bad; "
	       "its\n          counter went on from %lu to %lu, its kernel reports nothing\n",
	       after->pages, after->disk_pages, before->counter, after->counter);
}

int main(void)
{
	const char *how = demo_mode();
	struct lab_vm_state before, after;
	struct lab_vm *vm, *twin;
	struct lab_host *a, *b;
	struct lab *lab;
	char *launcher;
	json_t *job;

	signal(SIGPIPE, SIG_IGN);
	lab = lab_new(demo_failed);
	if (lab_vm_missing(lab))
		demo_failed(lab_vm_missing(lab));
	vm = boot(lab);
	twin = lab_vm_twin(vm, "b");
	launcher = lab_vm_launcher(twin);
	printf("Starting decant-source (host a) and decant-dest (host b) with throw-away "
	       "certificates.\n");
	a = lab_host_start(lab, &(struct lab_host_opts){.name = "a", .no_dest = true});
	b = lab_host_start(lab, &(struct lab_host_opts){.name = "b", .dest_conf = launcher});
	free(launcher);
	printf("\n$ decant add vm.json\n\n");
	lab_vm_add(a, vm);
	show_console(vm, "a", "check");
	show_console(vm, "a", "clock");
	before = lab_vm_check(vm);

	job = demo_migrate(a, b, vm->opts.name, how);
	lab_vm_attach(twin, 0);
	show_console(twin, "b", "check");
	show_console(twin, "b", "clock");
	after = lab_vm_goes_on(twin, &before);
	lab_until(lab, 10000, !lab_vm_alive(vm), "QEMU on host a has not ended");
	summary(lab, job, &before, &after);
	json_decref(job);
	lab_vm_quit(vm);
	lab_vm_quit(twin);
	lab_end(lab);
	printf("\nAll agents and QEMUs have ended.\n");
	return 0;
}
