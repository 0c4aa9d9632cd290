/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What fails keeps the VM: a QEMU at the destination that refuses the state, dies or hangs, an operator who cancels,
 * agents that are killed, a guest that resets or ends itself in the middle.
 */
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "lib/lab_test.h"
#include "lib/lab_trip.h"

TestSuite(qemu_fails, .timeout = 240);

static bool hello(struct lab_trip *t)
{
	char *text = lab_vm_try(lab_trip_vm(t), 500, "hello");
	bool said = text && strstr(text, "cpus");

	free(text);
	return said;
}

/* The guest resets itself while it moves: that is no end. */
Test(qemu_fails, a_reset_and_an_end_in_the_middle)
{
	const struct lab_move slow = {.mode = "precopy", .args = {"--bandwidth", "300Mbit"}};
	const struct lab_move ends = {.exit = 1,
				      .phase = "failed",
				      .code = "guest-gone",
				      .args = {"--bandwidth", "100Mbit"}};
	struct lab_proc *p;
	struct lab_trip t;

	lab_test_long();
	lab_trip_begin(&t, lab_vm_lab(),
		       &(struct lab_vm_opts){.mb = 144, .rate = 500, .reboots = true});
	p = lab_migrate_begin(lab_trip_from(&t), lab_trip_to(&t), &t.g, &slow);
	lab_until(t.lab, 20000, lab_job_phase_is(lab_trip_from(&t), "precopy"), "no precopy");
	free(lab_vm_try(lab_trip_vm(&t), 1, "reboot"));
	json_decref(lab_migrate_end(lab_trip_from(&t), p, &slow));
	lab_trip_attach(&t);
	lab_until(t.lab, 90000, hello(&t), "it has not booted again");
	lab_vm_check(lab_trip_vm(&t));
	lab_trip_describe(&t);
	p = lab_migrate_begin(lab_trip_from(&t), lab_trip_to(&t), &t.g, &ends);
	lab_until(t.lab, 20000, lab_job_phase_is(lab_trip_from(&t), "precopy"), "no precopy");
	free(lab_vm_try(lab_trip_vm(&t), 1, "poweroff"));
	json_decref(lab_migrate_end(lab_trip_from(&t), p, &ends));
	lab_trip_end(&t);
}

/* --- the job fails --- */

/* The job ends as said; the VM goes on where it is, as if nothing had happened. */
static void fails(struct lab_trip *t, const struct lab_move *how, const char *says)
{
	struct lab_vm_state state = lab_vm_check(lab_trip_vm(t));
	char *before;
	json_t *job;

	before = lab_vm_note(lab_trip_vm(t));
	job = lab_migrate(lab_trip_from(t), lab_trip_to(t), &t->g, how);
	lab_check(t->lab, strstr(lab_str(t->lab, job, "error.message"), says) != NULL, "says %s",
		  lab_str(t->lab, job, "error.message"));
	fprintf(stderr, "%s\n", lab_str(t->lab, job, "error.message"));
	json_decref(job);
	lab_check(t->lab, lab_vm_status(lab_trip_vm(t), "running"), "it does not run");
	lab_vm_goes_on(lab_trip_vm(t), &state);
	lab_vm_left_nothing(lab_trip_vm(t), before);
	free(before);
	lab_until(t->lab, 5000, lab_host_guests(lab_trip_to(t)) == 0,
		  "a QEMU is left at the destination");
}

static const struct refusal {
	const char *launcher, *code, *says;
} refusals[] = {
	{"machine", "machine-differs", "machine is pc-i440fx"},
	{"running", "bad-launcher", "without -S"},
	{"rng", "machine-differs", "device.virtio-rng-pci is here and not at the source"},
	{"serial", "guest-gone", "Unknown savevm section or instance 'serial'"},
	{"no-file", "guest-gone", "Could not open '/nowhere/disk.img'"},
};

/* The process behind a monitor, as the kernel knows it. */
static pid_t qemu_at(struct lab_trip *t, struct lab_host *h)
{
	struct sockaddr_un sa = {.sun_family = AF_UNIX};
	struct ucred cred = {0};
	socklen_t len = sizeof(cred);
	int s = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	snprintf(sa.sun_path, sizeof(sa.sun_path), "%.90s/run/vm.qmp", h->dir);
	lab_check(t->lab, !connect(s, (struct sockaddr *)&sa, sizeof(sa)), "%s: %m", sa.sun_path);
	lab_check(t->lab, !getsockopt(s, SOL_SOCKET, SO_PEERCRED, &cred, &len), "who is it?");
	close(s);
	return cred.pid;
}

static struct lab_proc *until_postcopy(struct lab_trip *t)
{
	const struct lab_move slow = {.args = {"--bandwidth", "80Mbit"}, .mode = "postcopy"};
	struct lab_proc *p = lab_migrate_begin(lab_trip_from(t), lab_trip_to(t), &t->g, &slow);

	lab_until(t->lab, 30000, lab_job_phase_is(lab_trip_from(t), "postcopy"), "no post-copy");
	return p;
}

/* Rule 4: it stands where it was, whoever looks for it there. */
static void stands(struct lab_trip *t, unsigned int ms)
{
	for (uint64_t end = lab_now_ms() + ms; lab_now_ms() < end; usleep(20000))
		lab_check(t->lab, lab_vm_status(lab_trip_vm(t), "postmigrate"),
			  "it goes on where it was");
}

/* What is missing stays in QEMU's memory, and a new agent goes on with it. */
static void source_is_killed_in_postcopy(struct lab_trip *t)
{
	struct lab_vm_state state = lab_vm_check(lab_trip_vm(t)), now;
	struct lab_proc *p = until_postcopy(t);

	lab_proc_kill(t->lab, lab_trip_from(t)->source);
	lab_proc_kill(t->lab, p);
	stands(t, 500);
	lab_host_source_start(lab_trip_from(t));
	lab_until(t->lab, 30000, lab_job_phase_is(lab_trip_from(t), "completed"),
		  "it is not recovered");
	lab_trip_came(t);
	/* Its kernel has noticed that it stood for long, and may say so. */
	now = lab_vm_state(lab_trip_vm(t));
	lab_check(t->lab, !now.bad && !now.gap && now.counter >= state.counter, "%lu bad, gap %ld",
		  now.bad, now.gap);
}

/* Agents that are killed in the middle: the VM does not notice, and what they left is tidied up by the next. */
Test(qemu_fails, agents_are_killed)
{
	const struct lab_move slow = {
		.exit = 1, .phase = "failed", .args = {"--bandwidth", "200Mbit"}};
	struct lab_vm_state state;
	struct lab_proc *p;
	struct lab_trip t;
	char *before;

	lab_test_long();
	lab_trip_begin(&t, lab_vm_lab(), &(struct lab_vm_opts){.mb = 144, .rate = 500});
	state = lab_vm_check(lab_trip_vm(&t));
	before = lab_vm_note(lab_trip_vm(&t));
	p = lab_migrate_begin(lab_trip_from(&t), lab_trip_to(&t), &t.g, &slow);
	lab_until(t.lab, 20000, lab_job_phase_is(lab_trip_from(&t), "precopy"), "no precopy");
	lab_proc_kill(t.lab, lab_trip_from(&t)->source);
	lab_vm_goes_on(lab_trip_vm(&t), &state);
	lab_host_source_start(lab_trip_from(&t));
	lab_proc_kill(t.lab, p);
	lab_until(t.lab, 10000, lab_host_guests(lab_trip_to(&t)) == 0,
		  "a QEMU is left at the destination");
	lab_host_knows(lab_trip_from(&t), t.g.name);
	lab_vm_left_nothing(lab_trip_vm(&t), before);
	p = lab_migrate_begin(lab_trip_from(&t), lab_trip_to(&t), &t.g, &slow);
	lab_until(t.lab, 20000, lab_job_phase_is(lab_trip_from(&t), "precopy"), "no precopy");
	lab_proc_kill(t.lab, lab_trip_to(&t)->dest);
	/* The job waits for a session until there is nobody to have one with about this guest. */
	lab_host_dest_start(lab_trip_to(&t));
	json_decref(lab_migrate_end(lab_trip_from(&t), p, &slow));
	lab_until(t.lab, 10000, lab_host_guests(lab_trip_to(&t)) == 0,
		  "a QEMU is left at the destination");
	lab_vm_left_nothing(lab_trip_vm(&t), before);
	free(before);
	source_is_killed_in_postcopy(&t);
	lab_trip_end(&t);
}

/* It waits where it is, and a new agent goes on with it, whether it answers or not. */
Test(qemu_fails, dest_is_killed_in_postcopy)
{
	struct lab_vm_state state, now;
	struct lab_proc *p;
	struct lab_trip t;

	lab_test_long();
	lab_trip_begin(&t, lab_vm_lab(), &(struct lab_vm_opts){.mb = 144, .rate = 500});
	state = lab_vm_check(lab_trip_vm(&t));
	p = until_postcopy(&t);
	lab_proc_kill(t.lab, lab_trip_to(&t)->dest);
	stands(&t, 500);
	lab_check(t.lab, lab_host_guests(lab_trip_to(&t)) == 1, "it has ended where it is");
	lab_host_dest_start(lab_trip_to(&t));
	lab_until(t.lab, 30000, lab_job_phase_is(lab_trip_from(&t), "completed"),
		  "it is not recovered");
	lab_check(t.lab, lab_proc_wait(t.lab, p, 10000) == 0, "the command");
	lab_trip_came(&t);
	now = lab_vm_state(lab_trip_vm(&t));
	lab_check(t.lab, !now.bad && !now.gap && now.counter >= state.counter, "%lu bad, gap %ld",
		  now.bad, now.gap);
	lab_trip_end(&t);
}

/** enum mishap - what happens in the middle of precopy */
enum mishap { DIES, HANGS, CANCELLED };

static void in_precopy(struct lab_trip *t, enum mishap what, const struct lab_move *how,
		       const char *says)
{
	struct lab_vm_state state = lab_vm_check(lab_trip_vm(t));
	struct lab_proc *p;
	char *before;
	json_t *job;

	before = lab_vm_note(lab_trip_vm(t));
	p = lab_migrate_begin(lab_trip_from(t), lab_trip_to(t), &t->g, how);
	lab_until(t->lab, 20000, lab_job_phase_is(lab_trip_from(t), "precopy"), "no precopy");
	if (what == CANCELLED) {
		job = lab_job_newest(lab_trip_from(t));
		lab_decant(lab_trip_from(t), 10000, NULL, NULL,
			   (const char *[]){"cancel", lab_str(t->lab, job, "id"), NULL});
		json_decref(job);
	} else {
		kill(qemu_at(t, lab_trip_to(t)), what == DIES ? SIGKILL : SIGSTOP);
	}
	job = lab_migrate_end(lab_trip_from(t), p, how);
	if (says)
		lab_check(t->lab, strstr(lab_str(t->lab, job, "error.message"), says), "says %s",
			  lab_str(t->lab, job, "error.message"));
	json_decref(job);
	lab_check(t->lab, lab_vm_status(lab_trip_vm(t), "running"), "it does not run");
	lab_vm_goes_on(lab_trip_vm(t), &state);
	lab_vm_left_nothing(lab_trip_vm(t), before);
	free(before);
	lab_until(t->lab, 5000, lab_host_guests(lab_trip_to(t)) == 0,
		  "a QEMU is left at the destination");
}

Test(qemu_fails, what_fails_keeps_the_vm)
{
	const struct lab_move dies = {.exit = 1,
				      .phase = "failed",
				      .code = "guest-gone",
				      .args = {"--bandwidth", "200Mbit"}};
	const struct lab_move hangs = {
		.exit = 1,
		.phase = "failed",
		.code = "timeout",
		.args = {"--bandwidth", "200Mbit", "--switchover-timeout-ms", "1500"}};
	const struct lab_move cancelled = {
		.exit = 1, .phase = "cancelled", .args = {"--bandwidth", "200Mbit"}};
	struct lab_trip t;

	lab_trip_begin(&t, lab_vm_lab(),
		       &(struct lab_vm_opts){.mb = 144,
					     .rate = 500,
					     .disk = LAB_VM_DISK_WRITEBACK,
					     .disk_mb = 8,
					     .args = {"-serial", "null"}});
	for (size_t i = 0; i < LAB_COUNT(refusals); i++) {
		lab_trip_describe_for(&t, refusals[i].launcher);
		fails(&t,
		      &(struct lab_move){.exit = strcmp(refusals[i].code, "guest-gone") ? 3 : 1,
					 .phase = "failed",
					 .code = refusals[i].code},
		      refusals[i].says);
	}
	lab_trip_describe(&t);
	in_precopy(&t, DIES, &dies, "has died");
	in_precopy(&t, CANCELLED, &cancelled, NULL);
	in_precopy(&t, HANGS, &hangs, NULL);
	lab_trip_move(&t, &(struct lab_move){.mode = "hybrid"});
	lab_trip_end(&t);
}
