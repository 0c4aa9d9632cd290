/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Snapshots of a QEMU that runs on: the image is the VM at one instant, it is restored and cloned as often
 * as one likes, and nothing of decant stays in QEMU's process.
 */
#include <poll.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "guest/qemu/inject.h"
#include "lib/lab_kill.h"
#include "lib/lab_pace.h"
#include "lib/lab_test.h"
#include "lib/lab_vm.h"

TestSuite(qemu_snap, .timeout = 150);

#define COPIES 3
/* A thread of QEMU's may stand for so long when something is injected. */
#define STOP_US 5000

/**
 * struct scene - a VM at host a, and launchers at both hosts
 * @vm:		where it was started
 * @copies:	what launcher "vmI" starts; the last one has a disk of its own
 * @untouched:	what QEMU's process had before decant knew of it
 * @attached:	and when it did: the connection to its monitor
 */
struct scene {
	struct lab *lab;
	struct lab_host *a, *b;
	struct lab_vm *vm;
	struct lab_vm *copies[COPIES];
	struct lab_guest g;
	char *untouched, *attached;
};

/* --- the scene --- */

/* The machine type is the word behind "-machine", up to a comma. */
static json_t *other_machine(struct lab_vm *vm)
{
	json_t *argv = lab_vm_argv(vm, "{qmp}"), *word;
	size_t i;

	json_array_foreach(argv, i, word)
		if (!strncmp(json_string_value(word), "pc,", 3))
			json_string_set(word, "q35,memory-backend=ram0");
	return argv;
}

static void add_launcher(json_t *all, const char *name, json_t *argv)
{
	json_array_append_new(argv, json_string("-S"));
	json_object_set_new(all, name, json_pack("{s:s, s:o}", "driver", "qemu", "argv", argv));
}

static char *launchers(struct scene *s)
{
	json_t *all = json_object(), *conf;
	char name[8], *text;

	for (int i = 0; i < COPIES; i++) {
		snprintf(name, sizeof(name), "vm%d", i);
		add_launcher(all, name, lab_vm_argv(s->copies[i], "{qmp}"));
	}
	add_launcher(all, "other", other_machine(s->copies[0]));
	conf = json_pack("{s:o}", "launchers", all);
	text = json_dumps(conf, 0);
	json_decref(conf);
	return text;
}

/* Its next copy is made by this launcher. */
static void describe(struct scene *s, const char *launcher)
{
	json_t *desc = json_pack("{s:s, s:s, s:s, s:s, s:s}", "name", s->g.name, "driver", "qemu",
				 "launcher", launcher, "qmp", s->vm->qmp, "disposal", "keep");
	char path[LAB_PATH_MAX + 16];

	if (s->attached) {
		json_t *e = lab_get(s->lab, s->a->source_sock, "/v1/guests/vm");

		json_object_set(desc, "uuid", lab_at(e, "uuid"));
		json_decref(e);
	}
	snprintf(path, sizeof(path), "%s/vm.json", s->lab->root);
	lab_check(s->lab, json_dump_file(desc, path, 0) == 0, "%s: %m", path);
	json_decref(desc);
	lab_check(s->lab,
		  lab_decant(s->a, 20000, NULL, NULL, (const char *[]){"add", path, NULL}) == 0,
		  "decant add");
}

/* Nothing is written to it in these tests: a copy is as good at any time. */
static void own_disk(struct lab_vm *copy)
{
	char image[LAB_PATH_MAX + 16];

	if (!copy->opts.disk)
		return;
	snprintf(image, sizeof(image), "%s/own.img", copy->dir);
	lab_check(copy->lab,
		  !lab_run(copy->lab, NULL, 20000, NULL, NULL,
			   (const char *const[]){"/bin/cp", copy->image, image, NULL}),
		  "copy %s", copy->image);
	memcpy(copy->image, image, sizeof(image));
}

static void begin(struct scene *s, const struct lab_vm_opts *opts)
{
	static const char *const sides[COPIES] = {"b", "c", "d"};
	char *conf;

	*s = (struct scene){.lab = lab_vm_lab()};
	s->g.lab = s->lab;
	strcpy(s->g.name, "vm");
	s->vm = lab_vm_start(s->lab, opts);
	for (int i = 0; i < COPIES; i++)
		s->copies[i] = lab_vm_twin(s->vm, sides[i]);
	own_disk(s->copies[COPIES - 1]);
	conf = launchers(s);
	s->a = lab_host_start(s->lab, &(struct lab_host_opts){.name = "a", .dest_conf = conf});
	s->b = lab_host_start(s->lab, &(struct lab_host_opts){.name = "b", .dest_conf = conf});
	free(conf);
	s->untouched = lab_vm_note(s->vm);
	describe(s, "vm0");
	lab_host_knows(s->a, s->g.name);
	s->attached = lab_vm_note(s->vm);
}

static void end(struct scene *s)
{
	if (lab_vm_status(s->vm, "running")) {
		lab_check(s->lab,
			  !lab_decant(s->a, 10000, NULL, NULL,
				      (const char *[]){"remove", s->g.name, NULL}),
			  "decant remove");
		lab_vm_left_nothing(s->vm, s->untouched);
	}
	for (int i = 0; i < COPIES; i++)
		lab_vm_quit(s->copies[i]);
	lab_vm_quit(s->vm);
	free(s->untouched);
	free(s->attached);
	lab_end(s->lab);
}

/* --- how long its thread stands --- */

/**
 * struct control - the control: the same injection again and again into a process that sleeps, which tells what
 * it costs on this machine at this time
 * @longest_us:	that the sleeper stood
 * @n:		how often it did
 */
struct control {
	_Atomic uint64_t longest_us;
	_Atomic uint64_t n;
	struct lab_proc *proc;
};

static void control_main(struct control *p)
{
	struct error err = {0};
	struct inject in;
	int64_t got;
	pid_t sleeper;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	sleeper = fork();
	if (sleeper == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		for (;;)
			poll(NULL, 0, -1);
	}
	for (;; usleep(2000)) {
		uint64_t us;

		if (sleeper < 0 || inject_begin(&in, sleeper, &err))
			_exit(1);
		inject_call(&in, SYS_getppid, (uint64_t[6]){0}, &got);
		inject_call(&in, SYS_getppid, (uint64_t[6]){0}, &got);
		us = inject_end(&in);
		if (us > atomic_load(&p->longest_us))
			atomic_store(&p->longest_us, us);
		atomic_fetch_add(&p->n, 1);
	}
}

static struct control *control_start(struct lab *lab)
{
	struct control *p =
		mmap(NULL, sizeof(*p), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	pid_t pid;

	lab_check(lab, p != MAP_FAILED, "no memory for the control");
	fflush(NULL);
	pid = fork();
	if (pid == 0)
		control_main(p);
	p->proc = lab_lend(lab, "control", pid);
	lab_until(lab, 10000, atomic_load(&p->n) > 10, "the control does not run");
	return p;
}

/* 5 ms, or what this machine makes of the same elsewhere, and of anybody whom it does not run. */
static void stood_briefly(struct scene *s, struct control *p, struct pace *pace)
{
	json_t *e = lab_get(s->lab, s->a->source_sock, "/v1/guests/vm");
	uint64_t us = (uint64_t)lab_num(s->lab, e, "stopped_us");
	uint64_t usual = atomic_load(&p->longest_us);

	fprintf(stderr, "QEMU's thread stood for %lu us at most, the control's for %lu us of %lu\n",
		us, usual, atomic_load(&p->n));
	lab_check(s->lab, us > 0, "QEMU's thread has never stood");
	lab_soon(s->lab, pace, us, usual > STOP_US ? usual : STOP_US, "QEMU's thread stood");
	pace_end(pace);
	json_decref(e);
	lab_proc_kill(s->lab, p->proc);
	munmap(p, sizeof(*p));
}

/* --- commands --- */

static struct lab_proc *snapshot_begin(struct scene *s, const char *name, const char *bandwidth)
{
	return lab_decant_begin(s->a, (const char *const[]){"snapshot", s->g.name, "--to", s->b->to,
							    "--name", name, "--bandwidth",
							    bandwidth, "--wait", NULL});
}

/* @start: NULL or "--start". Return: the job, completed; new reference */
static json_t *snapshot(struct scene *s, const char *name, const char *start)
{
	char *out = NULL, *err = NULL;
	int status = lab_decant(s->a, 60000, &out, &err,
				(const char *[]){"snapshot", s->g.name, "--to", s->b->to, "--name",
						 name, "--wait", "--json", start, NULL});
	json_t *job = json_loads(out, 0, NULL);

	lab_check(s->lab, status == 0, "decant snapshot: %d: %s", status, err);
	fprintf(stderr, "%s: pause %.0f us, longest stall %.0f us, %.0f bytes\n", name,
		lab_num(s->lab, job, "downtime_us"), lab_num(s->lab, job, "tracking.stall_us.max"),
		lab_num(s->lab, job, "memory.sent_bytes"));
	lab_check(s->lab, !strcmp(lab_str(s->lab, job, "tracking.kind"), "faults"), "tracking");
	free(out);
	free(err);
	return job;
}

/* Return: the ended incoming, new reference; NULL if refused */
static json_t *restore(struct scene *s, const char *name, int exit)
{
	char program[LAB_PATH_MAX + 32], api[LAB_PATH_MAX + 16], *out = NULL, *err = NULL;
	const char *argv[] = {program, "--api", api, "restore", name, "--wait", "--json", NULL};
	json_t *in;
	int status;

	snprintf(program, sizeof(program), "%s/decant-dest", s->lab->build);
	snprintf(api, sizeof(api), "unix:%s", s->b->dest_sock);
	status = lab_run(s->lab, NULL, 60000, &out, &err, argv);
	in = json_loads(out, 0, NULL);
	lab_check(s->lab, status == exit, "decant-dest restore: %d, not %d: %s %s", status, exit,
		  out, err);
	free(out);
	free(err);
	return in;
}

static json_t *newest(struct scene *s)
{
	json_t *all = lab_get(s->lab, s->a->source_sock, "/v1/snapshots");
	json_t *job = json_incref(json_array_get(json_object_get(all, "items"), 0));

	json_decref(all);
	return job;
}

static bool phase_is(struct scene *s, const char *phase)
{
	json_t *job = newest(s);
	bool is = job && !strcmp(lab_str(s->lab, job, "phase"), phase);

	json_decref(job);
	return is;
}

static bool sends(struct scene *s)
{
	json_t *job = newest(s);
	bool does = job && !strcmp(lab_str(s->lab, job, "phase"), "saving") &&
		    lab_num(s->lab, job, "memory.sent_bytes") > 1 << 20;

	json_decref(job);
	return does;
}

static bool nothing_stored(struct scene *s)
{
	char path[LAB_PATH_MAX + 64], *out = NULL;
	bool none;

	snprintf(path, sizeof(path), "%s/state/images", s->b->dir);
	lab_run(s->lab, NULL, 5000, &out, NULL, (const char *const[]){"/bin/ls", "-A", path, NULL});
	none = out && !*out;
	free(out);
	return none;
}

/* --- what is expected --- */

/* The original runs on, verifies, and nothing of decant is in its process. */
static struct lab_vm_state unharmed(struct scene *s, const struct lab_vm_state *before)
{
	lab_check(s->lab, lab_vm_status(s->vm, "running"), "it does not run");
	lab_vm_left_nothing(s->vm, s->attached);
	return lab_vm_goes_on(s->vm, before);
}

/*
 * The copy is the VM as it was at one instant after @before: every page verifies against the counts that
 * it keeps of them elsewhere in its memory, and their sum is that of all writes.
 */
static void is_copy(struct scene *s, struct lab_vm *copy, const struct lab_vm_state *before)
{
	struct lab_vm_state is;

	lab_vm_attach(copy, 0);
	lab_until(s->lab, 20000, lab_vm_status(copy, "running"), "the copy does not run");
	lab_vm_do(copy, "rate 0");
	is = lab_vm_check(copy);
	lab_check(s->lab, is.pages == before->pages && is.counter >= before->counter,
		  "the copy's count is %lu, it was %lu before", is.counter, before->counter);
	fprintf(stderr, "the copy: %lu writes; before %lu\n", is.counter, before->counter);
}

static void end_copy(struct scene *s, struct lab_vm *copy)
{
	json_decref(lab_vm_qmp_try(copy, "quit", NULL));
	lab_until(s->lab, 10000, !lab_vm_alive(copy) && lab_host_guests(s->b) == 0,
		  "the copy does not end");
}

/* --- tests --- */

/* Out of image @name, beside the original. */
static void restored(struct scene *s, const char *name, struct lab_vm *copy,
		     const struct lab_vm_state *before)
{
	json_t *in = restore(s, name, 0);

	lab_check(s->lab, lab_num(s->lab, in, "postcopy.faults") > 0, "nothing was served lazily");
	json_decref(in);
	is_copy(s, copy, before);
	end_copy(s, copy);
}

/* Two images, and each is of its own instant; then the original leaves, and its QEMU is kept. */
Test(qemu_snap, instants_of_a_vm)
{
	struct lab_vm_state first, second, third;
	struct control *control;
	struct pace *pace;
	struct scene s;

	begin(&s, &(struct lab_vm_opts){.mb = 160, .rate = 2000, .smp = 2});
	control = control_start(s.lab);
	pace = pace_start();
	first = lab_vm_check(s.vm);
	json_decref(snapshot(&s, "monday", NULL));
	second = unharmed(&s, &first);
	describe(&s, "vm1");
	json_decref(snapshot(&s, "tuesday", NULL));
	third = unharmed(&s, &second);
	if (s.lab->full)
		restored(&s, "monday", s.copies[0], &first);
	restored(&s, "tuesday", s.copies[1], &second);
	third = unharmed(&s, &third);
	describe(&s, "vm2");
	json_decref(lab_migrate(s.a, s.b, &s.g, &(struct lab_move){.mode = "hybrid"}));
	lab_vm_attach(s.copies[2], 0);
	lab_vm_goes_on(s.copies[2], &third);
	lab_vm_left_nothing(s.vm, s.attached);
	stood_briefly(&s, control, pace);
	end(&s);
}

/* It ends as said, and nothing of it stays. */
static void not_restored(struct scene *s, const char *name, const char *code, const char *says)
{
	json_t *in = restore(s, name, 1);

	fprintf(stderr, "%s\n", lab_str(s->lab, in, "error.message"));
	lab_check(s->lab, !strcmp(lab_str(s->lab, in, "error.code"), code), "code %s",
		  lab_str(s->lab, in, "error.code"));
	lab_check(s->lab, strstr(lab_str(s->lab, in, "error.message"), says), "says %s",
		  lab_str(s->lab, in, "error.message"));
	lab_check(s->lab, !json_is_null(lab_at(in, "ended_at")), "it has not ended: %s",
		  lab_str(s->lab, in, "phase"));
	lab_until(s->lab, 5000, lab_host_guests(s->b) == 0, "a QEMU is left");
	json_decref(in);
}

/* A clone, and a disk that only one of the two may write to. */
Test(qemu_snap, clone_beside_the_original)
{
	struct lab_vm_state before;
	struct scene s;

	lab_test_long();
	begin(&s, &(struct lab_vm_opts){
			  .mb = 144, .rate = 1000, .disk = LAB_VM_DISK_WRITEBACK, .disk_mb = 8});
	lab_vm_do(s.vm, "disk buffered 1 1");
	before = lab_vm_check(s.vm);
	describe(&s, "other");
	json_decref(snapshot(&s, "other", NULL));
	not_restored(&s, "other", "machine-differs", "machine is pc-i440fx");
	describe(&s, "vm0");
	json_decref(snapshot(&s, "locked", NULL));
	not_restored(&s, "locked", "disk-in-use", "an image of its own");
	describe(&s, "vm2");
	before = unharmed(&s, &before);
	json_decref(snapshot(&s, "own-disk", "--start"));
	is_copy(&s, s.copies[2], &before);
	unharmed(&s, &before);
	end_copy(&s, s.copies[2]);
	end(&s);
}

/* --- in the middle --- */

/*
 * Of a snapshot this agent alone holds the userfaultfd: with a copy left in QEMU by the injection, the
 * processor of the VM would stand at its next write until that process ends.
 */
Test(qemu_snap, source_killed_in_the_middle)
{
	struct lab_vm_state before;
	struct lab_writers writers;
	struct lab_proc *p;
	struct scene s;

	lab_test_long();
	begin(&s, &(struct lab_vm_opts){.mb = 144, .rate = 5000});
	before = lab_vm_check(s.vm);
	p = snapshot_begin(&s, "half", "80Mbit");
	lab_until(s.lab, 10000, sends(&s), "nothing is saved");
	writers = lab_vm_writers(s.vm);
	lab_kill_agent(s.lab, s.a->source, &writers);
	lab_proc_kill(s.lab, p);
	lab_until(s.lab, 15000, nothing_stored(&s), "half an image stays");
	lab_vm_left_nothing(s.vm, s.untouched);
	before = lab_vm_goes_on(s.vm, &before);

	/* Afterwards all goes on. */
	lab_host_source_start(s.a);
	lab_host_knows(s.a, s.g.name);
	lab_check(s.lab, phase_is(&s, "failed"), "the job that was cut off is not failed");
	json_decref(snapshot(&s, "half", NULL));
	unharmed(&s, &before);
	end(&s);
}

static void cancel_in_the_middle(struct scene *s)
{
	struct lab_proc *p = snapshot_begin(s, "half", "80Mbit");
	char id[64];
	json_t *job;

	lab_until(s->lab, 10000, sends(s), "nothing is saved");
	job = newest(s);
	snprintf(id, sizeof(id), "%s", lab_str(s->lab, job, "id"));
	json_decref(job);
	lab_check(s->lab,
		  !lab_decant(s->a, 10000, NULL, NULL, (const char *const[]){"cancel", id, NULL}),
		  "decant cancel");
	lab_check(s->lab, lab_proc_wait(s->lab, p, 20000) == 1, "the command ended with %d",
		  p->status);
	lab_check(s->lab, phase_is(s, "cancelled"), "the job is not cancelled");
	lab_until(s->lab, 5000, nothing_stored(s), "half an image stays");
}

/* A migration that is cancelled, a snapshot that is, and then one of each that is not. */
Test(qemu_snap, between_migrations)
{
	const struct lab_move cancelled = {
		.exit = 1, .phase = "cancelled", .args = {"--bandwidth", "200Mbit"}};
	struct lab_vm_state before;
	struct lab_proc *p;
	struct scene s;
	json_t *job;

	lab_test_long();
	begin(&s, &(struct lab_vm_opts){.mb = 144, .rate = 2000, .disk = LAB_VM_DISK_NONE});
	lab_vm_do(s.vm, "disk direct 1 2");
	before = lab_vm_check(s.vm);
	p = lab_migrate_begin(s.a, s.b, &s.g, &cancelled);
	lab_until(s.lab, 20000, lab_job_phase_is(s.a, "precopy"), "no precopy");
	job = lab_job_newest(s.a);
	lab_decant(s.a, 10000, NULL, NULL,
		   (const char *[]){"cancel", lab_str(s.lab, job, "id"), NULL});
	json_decref(job);
	json_decref(lab_migrate_end(s.a, p, &cancelled));
	before = unharmed(&s, &before);
	cancel_in_the_middle(&s);
	before = unharmed(&s, &before);
	json_decref(snapshot(&s, "monday", NULL));
	before = unharmed(&s, &before);
	json_decref(lab_migrate(s.a, s.b, &s.g, &(struct lab_move){.mode = "hybrid"}));
	lab_vm_attach(s.copies[0], 0);
	lab_vm_goes_on(s.copies[0], &before);
	end(&s);
}
