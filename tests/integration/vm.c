/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The tests' VM itself: it boots on every backing and machine type, its checkers find what they are there to
 * find, its devices and clocks work, and it goes on after QEMU has stopped it. What is built on it may lean on
 * that; nothing of decant runs here.
 */
#include "lib/lab_test.h"
#include "lib/lab_vm.h"

static struct lab *vm_lab(void)
{
	struct lab *lab = lab_new(lab_test_failed);
	const char *missing = lab_vm_missing(lab);

	if (missing) {
		char why[256];

		snprintf(why, sizeof(why), "%s", missing);
		lab_end(lab);
		cr_skip_test("%s", why);
	}
	return lab;
}

/* By its own monitor; the counter must not move while it stands, and must move afterwards. */
static struct lab_vm_state stop_and_go(struct lab_vm *vm, const struct lab_vm_state *before)
{
	struct lab_vm_state after;

	json_decref(lab_vm_qmp(vm, "stop", NULL));
	lab_check(vm->lab, lab_vm_status(vm, "paused"), "stopped");
	lab_check(vm->lab, !lab_vm_try(vm, 300, "hello"), "it answers while it stands");
	json_decref(lab_vm_qmp(vm, "cont", NULL));
	after = lab_vm_goes_on(vm, before);
	lab_until(vm->lab, 10000, (after = lab_vm_goes_on(vm, before)).counter > before->counter,
		  "it writes no more");
	return after;
}

/* Last thing to do with it: it is not clean any more. */
static void corruption_is_seen(struct lab_vm *vm)
{
	struct lab_vm_state s;

	lab_vm_do(vm, "rate 0");
	lab_vm_do(vm, "corrupt memory");
	s = lab_vm_state(vm);
	lab_check(vm->lab, s.bad == 1 && s.disk_bad == 0, "one bad page, %lu were found", s.bad);
	if (!s.disk_pages)
		return;
	lab_vm_do(vm, "disk stop");
	lab_vm_do(vm, "corrupt disk");
	s = lab_vm_state(vm);
	lab_check(vm->lab, s.disk_bad == 1, "one bad page from the disk, %lu were found",
		  s.disk_bad);
}

static void disk_is_read(struct lab_vm *vm, const char *how)
{
	struct lab_vm_state a, b;

	lab_vm_do(vm, how);
	a = lab_vm_check(vm);
	lab_until(vm->lab, 10000, (b = lab_vm_check(vm)).disk_reads > a.disk_reads + 10,
		  "it reads no more");
	lab_check(vm->lab, b.disk_pages == 512, "%lu pages", b.disk_pages);
}

Test(vm, boots_and_is_checked, .timeout = 120)
{
	struct lab *lab = vm_lab();
	struct lab_vm *vm = lab_vm_start(
		lab, &(struct lab_vm_opts){
			     .rate = 500, .disk = LAB_VM_DISK_NONE, .disk_mb = 8, .rng = true});
	struct lab_vm_state s = lab_vm_check(vm);

	fprintf(stderr, "booted in %lu ms, %lu pages\n", vm->boot_ms, s.pages);
	lab_check(lab, s.pages == 64 << 8, "64 MiB are written");
	disk_is_read(vm, "disk direct 2 1");
	s = stop_and_go(vm, &s);
	free(lab_vm_ask(vm, 10000, "rng"));
	corruption_is_seen(vm);
	lab_vm_end(vm);
	lab_end(lab);
}
