/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Memory that the host has, and that a guest could not have all the same: because of the limit of a control group, or of
 * the size of the file system that its memory is a file of. Both with real ones.
 */
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include "lib/lab_group.h"
#include "lib/lab_test.h"

TestSuite(room_places, .timeout = 150);

#define MIB(n) ((uint64_t)(n) << 20)

/* Refused, by a message that has each of these. */
static void refused(struct lab_host *a, struct lab_host *b, struct lab_guest *g,
		    const char *const says[])
{
	json_t *job = lab_migrate(
		a, b, g, &(struct lab_move){.exit = 3, .phase = "failed", .code = "no-room"});

	for (; *says; says++)
		lab_check(a->lab, strstr(lab_str(a->lab, job, "error.message"), *says),
			  "not \"%s\": %s", *says, lab_str(a->lab, job, "error.message"));
	json_decref(job);
}

static void in_a_group(bool v2)
{
	struct lab_group group = {0};
	struct lab_host *a, *b;
	struct lab_guest *g;
	struct lab *lab;
	char bytes[32], *out;

	if (!lab_group_make(&group, v2))
		cr_skip_test("this machine has no memory controller of cgroup version %d",
			     v2 ? 2 : 1);
	lab = lab_test_pair(&a, &b);
	g = lab_guest_start(a, &(struct lab_guest_opts){.mb = 256, .empty = true});
	lab_group_enter(lab, &group, b->dest->pid);
	snprintf(bytes, sizeof(bytes), "%lu", (unsigned long)(lab_group_usage(&group) + MIB(96)));
	lab_check(lab, lab_group_limit(&group, bytes), "no limit of %s", bytes);
	refused(a, b, g,
		(const char *const[]){"no room: needs 268435456 bytes, ", group.dir,
				      v2 ? "memory.max" : "memory.limit_in_bytes", NULL});
	/* A plan knows it, too. */
	lab_check(lab,
		  lab_decant(a, 10000, &out, NULL,
			     (const char *[]){"evacuate", "--dry-run", "--to", b->to, NULL}) == 1,
		  "it is planned");
	lab_check(lab, strstr(out, "MiB of memory left and 256 are needed"), "%s", out);
	free(out);
	lab_check(lab, lab_group_limit(&group, "-1"), "the limit stays");
	json_decref(lab_migrate(a, b, g, &(struct lab_move){0}));
	lab_guest_arrived(g, b);
	lab_group_out(&group, b->dest->pid);
	lab_group_leave(lab, &group, lab_guest_pid(g, b));
	lab_end(lab);
}

Test(room_places, a_group_of_version_1)
{
	in_a_group(false);
}

Test(room_places, a_group_of_version_2)
{
	in_a_group(true);
}

/* In namespaces of our own and of all that we start: it goes with the last of them. Return: false if it cannot be had */
static bool small_tmpfs(const char *at, const char *size)
{
	return !unshare(CLONE_NEWNS) && !mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) &&
	       !mkdir(at, 0755) && !mount("none", at, "tmpfs", 0, size);
}

Test(room_places, a_virtual_machine_in_a_small_tmpfs)
{
	struct lab *lab = lab_vm_lab();
	struct lab_guest g = {.lab = lab, .name = "vm"};
	char at[LAB_PATH_MAX], *conf;
	struct lab_vm_state before;
	struct lab_vm *vm, *twin;
	struct lab_host *a, *b;

	lab_check(lab, snprintf(at, sizeof(at), "%.200s/small", lab->root) > 0, "name");
	if (!small_tmpfs(at, "size=64m")) {
		lab_end(lab);
		cr_skip_test("no tmpfs can be mounted here");
	}
	vm = lab_vm_start(lab, &(struct lab_vm_opts){.mb = 144, .rate = 500});
	twin = lab_vm_twin(vm, "b");
	lab_check(lab, snprintf(twin->ram, sizeof(twin->ram), "%.220s/ram", at) > 0, "name");
	conf = lab_vm_launcher(twin);
	a = lab_host_start(lab, &(struct lab_host_opts){.name = "a"});
	b = lab_host_start(lab, &(struct lab_host_opts){.name = "b", .dest_conf = conf});
	free(conf);
	lab_vm_add(a, vm);
	refused(a, b, &g,
		(const char *const[]){at, "needs 150994944 bytes more there, 67108864 free",
				      "remount,size=", NULL});
	/* It goes on here, and there when there is room. */
	before = lab_vm_check(vm);
	lab_check(lab, !mount("none", at, NULL, MS_REMOUNT, "size=160m"), "remount: %m");
	json_decref(lab_migrate(a, b, &g, &(struct lab_move){0}));
	lab_vm_attach(twin, 0);
	lab_vm_goes_on(twin, &before);
	lab_vm_quit(vm);
	lab_vm_quit(twin);
	lab_end(lab);
}
