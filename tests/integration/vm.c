/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The tests' VM itself: it boots on every backing and machine type, its checkers find what they are there to
 * find, its devices and clocks work, and it goes on after QEMU has stopped it. What is built on it may lean on
 * that; nothing of decant runs here.
 */
#include <fcntl.h>
#include <unistd.h>
#include "lib/lab_test.h"

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

/* A record of the half that it writes, behind its back. */
static void overwrite_disk(struct lab_vm *vm)
{
	static const char other[4096] = "somebody else's";
	int fd = open(vm->image, O_WRONLY | O_CLOEXEC);

	lab_check(vm->lab, pwrite(fd, other, sizeof(other), 6 << 20) == sizeof(other), "%s: %m",
		  vm->image);
	close(fd);
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
	if (!s.disk_writes)
		return;
	overwrite_disk(vm);
	s = lab_vm_state(vm);
	lab_check(vm->lab, s.disk_bad == 2, "one bad record on the disk, %lu were found",
		  s.disk_bad - 1);
}

static void disk_is_read(struct lab_vm *vm, const char *how)
{
	struct lab_vm_state a, b;

	lab_vm_do(vm, how);
	a = lab_vm_check(vm);
	lab_until(vm->lab, 10000, (b = lab_vm_check(vm)).disk_reads > a.disk_reads,
		  "it reads no more");
	lab_check(vm->lab, b.disk_pages == 512, "%lu pages", b.disk_pages);
}

static void disk_is_written(struct lab_vm *vm)
{
	lab_vm_do(vm, "disk write");
	lab_until(vm->lab, 10000, lab_vm_check(vm).disk_writes > 0, "it writes nothing");
}

static void clocks_are_good(struct lab_vm *vm)
{
	unsigned long touches, p50, p99, max;
	unsigned int ticks = 0;
	char *text = lab_vm_ask(vm, 10000, "latency");

	lab_check(vm->lab,
		  sscanf(text, "touches %lu p50 %lu p99 %lu max %lu", &touches, &p50, &p99, &max) ==
			  4,
		  "latency: %s", text);
	lab_check(vm->lab, touches >= 1000 && p50 > 0 && p50 <= p99 && p99 <= max * 9 / 8, "%s",
		  text);
	free(text);
	lab_vm_do(vm, "beat on");
	lab_until(vm->lab, 5000, (ticks += lab_vm_beats(vm, 100)) >= 20, "it does not tick");
	lab_vm_do(vm, "beat off");
}

Test(vm, boots_and_is_checked, .timeout = 120)
{
	struct lab *lab = lab_vm_lab();
	struct lab_vm *vm = lab_vm_start(lab, &(struct lab_vm_opts){.mb = 128,
								    .rate = 500,
								    .disk = LAB_VM_DISK_NONE,
								    .disk_mb = 8,
								    .rng = true});
	struct lab_vm_state s = lab_vm_check(vm);

	fprintf(stderr, "booted in %lu ms, %lu pages\n", vm->boot_ms, s.pages);
	lab_check(lab, s.pages == 16 << 8, "16 MiB are written");
	disk_is_read(vm, "disk direct 1 2");
	disk_is_written(vm);
	clocks_are_good(vm);
	s = stop_and_go(vm, &s);
	free(lab_vm_ask(vm, 10000, "rng"));
	corruption_is_seen(vm);
	lab_vm_end(vm);
	lab_end(lab);
}

/* As the kernel says: another uid, no capability, a seccomp filter. */
static void has_no_rights(struct lab_vm *vm)
{
	char path[64], *text;

	snprintf(path, sizeof(path), "/proc/%d/status", vm->pid);
	text = lab_read_file(path);
	lab_check(vm->lab,
		  text && strstr(text, "\nUid:\t65534\t65534\t65534\t65534\n") &&
			  strstr(text, "\nCapPrm:\t0000000000000000\n") &&
			  strstr(text, "\nSeccomp:\t2\n"),
		  "%s", text);
	free(text);
}

/**
 * struct variant - one way in which a VM can be had
 * @huge:	2 MiB pages that it takes
 */
struct variant {
	char what[40];
	unsigned int huge;
	struct lab_vm_opts opts;
};

/* Of `make test-full`: a boot takes seconds. Other runs skip the first, and say so. */
static const struct variant variants[] = {
	{.what = "q35, memfd, 2 CPUs, no rights",
	 .opts = {.machine = "q35",
		  .mb = 128,
		  .backing = LAB_VM_MEMFD,
		  .smp = 2,
		  .nobody = true,
		  .disk = LAB_VM_DISK_WRITEBACK,
		  .disk_mb = 8,
		  .prealloc = true}},
	{.what = "microvm, file, devices",
	 .opts = {.machine = "microvm", .disk = LAB_VM_DISK_WRITEBACK, .disk_mb = 8, .rng = true}},
	{.what = "microvm, anonymous, 2 CPUs",
	 .opts = {.machine = "microvm", .backing = LAB_VM_ANON, .smp = 2}},
	{.what = "pc, huge pages",
	 .huge = 96,
	 .opts = {.backing = LAB_VM_HUGE, .disk = LAB_VM_DISK_NONE, .disk_mb = 8}},
	{.what = "q35, huge pages", .huge = 96, .opts = {.machine = "q35", .backing = LAB_VM_HUGE}},
	{.what = "pc, anonymous, all the default devices",
	 .opts = {.backing = LAB_VM_ANON, .defaults = true}},
	{.what = "pc, file, no rights", .opts = {.nobody = true, .rng = true}},
	{.what = "pc, memfd, 4 CPUs, 1 GiB, full speed",
	 .opts = {.backing = LAB_VM_MEMFD, .smp = 4, .mb = 1024, .full_speed = true}},
	{.what = "pc, file, 128 MiB", .opts = {.mb = 128}},
};

ParameterizedTestParameters(vm, variants)
{
	/* Parameters are copied to another process, where pointers mean nothing: numbers. */
	static unsigned int numbers[LAB_COUNT(variants)];
	const char *full = getenv("DECANT_FULL");

	for (unsigned int i = 0; i < LAB_COUNT(variants); i++)
		numbers[i] = i;
	return cr_make_param_array(unsigned int, numbers, full &&*full ? LAB_COUNT(variants) : 1);
}

ParameterizedTest(unsigned int *number, vm, variants, .timeout = 240)
{
	const struct variant *v = &variants[*number];
	struct lab_vm_state s;
	struct lab_vm *vm;
	struct lab *lab;

	lab_test_long();
	lab = lab_vm_lab();
	if (v->huge && !lab_huge_pages(lab, v->huge)) {
		lab_end(lab);
		cr_skip_test("%s: no huge pages can be had here", v->what);
	}
	vm = lab_vm_start(lab, &v->opts);
	if (v->opts.nobody)
		has_no_rights(vm);
	s = lab_vm_check(vm);
	fprintf(stderr, "%s: booted in %lu ms, %lu pages\n", v->what, vm->boot_ms, s.pages);
	lab_vm_do(vm, "rate 200");
	if (v->opts.disk)
		disk_is_read(vm, "disk buffered 2 1");
	stop_and_go(vm, &s);
	corruption_is_seen(vm);
	lab_vm_end(vm);
	lab_end(lab);
}
