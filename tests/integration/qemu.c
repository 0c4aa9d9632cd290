/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Unmodified QEMUs moved from outside, between two hosts with both agents. The VM verifies its memory; its
 * clocks and counters must go on.
 */
#include <signal.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "lib/lab_test.h"
#include "lib/lab_vm.h"

#define PLACES 4

/**
 * struct trip - two hosts and a VM that goes between them
 * @hosts:	it is at hosts[i % 2] after i journeys
 * @at:		the VM at each place: the first is where it was started; journey i leads to at[i]
 * @n:		journeys so far
 * @described:	to a decant-source
 * @g:		stands for it where the lab wants a guest: its name
 */
struct trip {
	struct lab *lab;
	struct lab_host *hosts[2];
	struct lab_vm *at[PLACES];
	unsigned int n;
	bool described;
	struct lab_guest g;
};

static struct lab *new_lab(void)
{
	struct lab *lab = lab_new(lab_test_failed);
	const char *missing = lab_vm_missing(lab);

	if (missing) {
		lab_end(lab);
		cr_skip_test("%s", missing);
	}
	return lab;
}

static struct lab_host *from(struct trip *t)
{
	return t->hosts[t->n % 2];
}

static struct lab_host *to(struct trip *t)
{
	return t->hosts[(t->n + 1) % 2];
}

static struct lab_vm *vm(struct trip *t)
{
	return t->at[t->n];
}

static void add_launcher(json_t *all, const char *name, json_t *argv, const char *const more[])
{
	for (; *more; more++)
		json_array_append_new(argv, json_string(*more));
	json_object_set_new(all, name, json_pack("{s:s, s:o}", "driver", "qemu", "argv", argv));
}

/* Another user's QEMU cannot make its socket in the agent's folder. */
static void set_qmp(json_t *all, const char *name, const struct lab_vm *v)
{
	if (v->opts.nobody)
		json_object_set_new(json_object_get(all, name), "qmp", json_string(v->qmp));
}

/* The machine type is the word behind "-machine", up to a comma. */
static json_t *other_machine(struct lab_vm *v)
{
	json_t *argv = lab_vm_argv(v, "{qmp}"), *word;
	size_t i;

	json_array_foreach(argv, i, word)
		if (!strncmp(json_string_value(word), "pc,", 3))
			json_string_set(word, "q35,memory-backend=ram0");
	return argv;
}

/* What tests give the VM besides, and no query tells of: the load finds out that it is missing. */
static json_t *without_second_serial(struct lab_vm *v)
{
	json_t *argv = lab_vm_argv(v, "{qmp}"), *word;
	size_t i;

	json_array_foreach(argv, i, word)
		if (!strcmp(json_string_value(word), "null")) {
			json_array_remove(argv, i);
			json_array_remove(argv, i - 1);
			break;
		}
	return argv;
}

/*
 * Launchers "vm1", "vm2"…: each starts one of the twins. The others start the first of them in ways
 * in which the VM cannot go on.
 */
static char *launchers(struct trip *t)
{
	static const char *const stopped[] = {"-S", NULL};
	static const char *const rng[] = {"-S", "-device", "virtio-rng-pci", NULL};
	static const char *const no_file[] = {"-S", "-drive", "file=/nowhere/disk.img,if=none",
					      NULL};
	json_t *all = json_object(), *conf;
	char name[8], *text;

	for (int i = 1; i < PLACES; i++) {
		snprintf(name, sizeof(name), "vm%d", i);
		add_launcher(all, name, lab_vm_argv(t->at[i], "{qmp}"), stopped);
		set_qmp(all, name, t->at[i]);
	}
	add_launcher(all, "machine", other_machine(t->at[1]), stopped);
	add_launcher(all, "running", lab_vm_argv(t->at[1], "{qmp}"), stopped + 1);
	add_launcher(all, "serial", without_second_serial(t->at[1]), stopped);
	add_launcher(all, "rng", lab_vm_argv(t->at[1], "{qmp}"), rng);
	add_launcher(all, "no-file", lab_vm_argv(t->at[1], "{qmp}"), no_file);
	conf = json_pack("{s:o}", "launchers", all);
	text = json_dumps(conf, 0);
	json_decref(conf);
	return text;
}

/* The VM's entry at a host's decant-source; new reference. */
static json_t *entry(struct trip *t, struct lab_host *h)
{
	char path[LAB_NAME_MAX + 32];

	snprintf(path, sizeof(path), "/v1/guests/%s", t->g.name);
	return lab_get(t->lab, h->source_sock, path);
}

/* Describe it where it is, with this launcher. */
static void describe_for(struct trip *t, const char *launcher)
{
	json_t *desc = json_pack("{s:s, s:s, s:s}", "name", t->g.name, "driver", "qemu", "launcher",
				 launcher);
	char path[LAB_PATH_MAX + 16];

	if (t->described) {
		json_t *e = entry(t, from(t));

		json_object_set(desc, "uuid", lab_at(e, "uuid"));
		json_object_set(desc, "qmp", lab_at(e, "qmp"));
		json_decref(e);
	} else {
		json_object_set_new(desc, "qmp", json_string(vm(t)->qmp));
	}
	t->described = true;
	snprintf(path, sizeof(path), "%s/vm.json", t->lab->root);
	lab_check(t->lab, json_dump_file(desc, path, 0) == 0, "%s: %m", path);
	json_decref(desc);
	lab_check(t->lab,
		  lab_decant(from(t), 20000, NULL, NULL, (const char *[]){"add", path, NULL}) == 0,
		  "decant add");
}

/* The launcher of its next journey. */
static void describe(struct trip *t)
{
	char launcher[8];

	snprintf(launcher, sizeof(launcher), "vm%u", t->n + 1);
	describe_for(t, launcher);
}

static void begin_in(struct trip *t, struct lab *lab, const struct lab_vm_opts *opts)
{
	static const char *const sides[PLACES] = {"a", "b", "c", "d"};
	char *conf;

	*t = (struct trip){.lab = lab};
	t->g.lab = t->lab;
	strcpy(t->g.name, "vm");
	t->at[0] = lab_vm_start(t->lab, opts);
	for (int i = 1; i < PLACES; i++)
		t->at[i] = lab_vm_twin(t->at[0], sides[i]);
	conf = launchers(t);
	t->hosts[0] =
		lab_host_start(t->lab, &(struct lab_host_opts){.name = "a", .dest_conf = conf});
	t->hosts[1] =
		lab_host_start(t->lab, &(struct lab_host_opts){.name = "b", .dest_conf = conf});
	free(conf);
	describe(t);
}

static pid_t pid_of(struct trip *t)
{
	json_t *e = entry(t, from(t));
	pid_t pid = (pid_t)lab_num(t->lab, e, "pid");

	json_decref(e);
	return pid;
}

static bool hello(struct trip *t)
{
	char *text = lab_vm_try(vm(t), 500, "hello");
	bool said = text && strstr(text, "cpus");

	free(text);
	return said;
}

static void begin(struct trip *t, const struct lab_vm_opts *opts)
{
	begin_in(t, new_lab(), opts);
}

static void begin_huge(struct trip *t, unsigned int pages, const struct lab_vm_opts *opts)
{
	struct lab *lab = new_lab();

	if (!lab_huge_pages(lab, pages)) {
		lab_end(lab);
		cr_skip_test("%u huge pages cannot be had here", pages);
	}
	begin_in(t, lab, opts);
}

/* By its own hand, so that it removes its sockets. */
static void quit(struct lab_vm *v)
{
	if (lab_vm_alive(v)) {
		json_decref(lab_vm_qmp_try(v, "quit", NULL));
		lab_until(v->lab, 10000, !lab_vm_alive(v), "QEMU does not quit");
	}
	lab_vm_end(v);
}

static void end(struct trip *t)
{
	for (int i = 0; i < PLACES; i++)
		quit(t->at[i]);
	lab_end(t->lab);
}

/* It has arrived: is there nothing of it where it was? */
static void came(struct trip *t)
{
	struct lab_vm *old = vm(t);
	json_t *e;

	t->n++;
	lab_host_knows(from(t), t->g.name);
	e = entry(t, from(t));
	lab_check(t->lab, lab_num(t->lab, e, "generation") == t->n, "generation");
	lab_check(t->lab, strncmp(lab_str(t->lab, e, "uuid"), "00000000-0000", 13) != 0, "uuid");
	json_decref(e);
	lab_vm_attach(vm(t), pid_of(t));
	lab_until(t->lab, 5000, !lab_vm_alive(old), "the source's QEMU has not ended");
}

/* And is it the same? */
static void arrived(struct trip *t, const struct lab_vm_state *before)
{
	came(t);
	lab_vm_goes_on(vm(t), before);
}

static void move(struct trip *t, const struct lab_move *how)
{
	struct lab_vm_state before = lab_vm_check(vm(t));
	json_t *job = lab_migrate(from(t), to(t), &t->g, how);

	fprintf(stderr, "%s: downtime %.0f us, %.0f bytes sent, %.0f faults\n", how->mode,
		lab_num(t->lab, job, "downtime_us"), lab_num(t->lab, job, "memory.sent_bytes"),
		lab_num(t->lab, job, "postcopy.faults"));
	if (!strcmp(how->mode, "precopy"))
		lab_check(t->lab, lab_num(t->lab, job, "postcopy.faults") == 0, "faults");
	else
		lab_check(t->lab, lab_num(t->lab, job, "postcopy.faults") > 0, "no fault at all");
	json_decref(job);
	arrived(t, &before);
}

/* One boot, three journeys: what has arrived leaves again. */
Test(qemu, every_mode, .timeout = 150)
{
	struct trip t;

	begin(&t, &(struct lab_vm_opts){.mb = 160, .rate = 1000});
	move(&t, &(struct lab_move){.mode = "hybrid", .tracking = "async"});
	describe(&t);
	move(&t, &(struct lab_move){.mode = "postcopy"});
	describe(&t);
	move(&t, &(struct lab_move){.mode = "precopy", .tracking = "faults"});
	end(&t);
}

Test(qemu, two_processors_at_full_speed_on_memfd, .timeout = 150)
{
	struct trip t;

	lab_test_long();
	begin(&t, &(struct lab_vm_opts){
			  .mb = 160, .full_speed = true, .smp = 2, .backing = LAB_VM_MEMFD});
	move(&t, &(struct lab_move){.mode = "hybrid"});
	end(&t);
}

/* Another user's, which may not make a userfaultfd for itself. */
Test(qemu, without_rights, .timeout = 150)
{
	struct trip t;

	lab_test_long();
	begin(&t, &(struct lab_vm_opts){.mb = 144, .rate = 500, .nobody = true});
	move(&t, &(struct lab_move){.mode = "hybrid", .tracking = "async"});
	describe(&t);
	move(&t, &(struct lab_move){.mode = "hybrid", .tracking = "faults"});
	end(&t);
}

Test(qemu, huge_pages, .timeout = 150)
{
	struct trip t;

	lab_test_long();
	begin_huge(&t, 72 * 2 + 4,
		   &(struct lab_vm_opts){.mb = 144, .rate = 500, .backing = LAB_VM_HUGE});
	move(&t, &(struct lab_move){.mode = "hybrid"});
	end(&t);
}

/* Reads with O_DIRECT go around tracking: the job says how it is safe all the same. */
Test(qemu, a_disk_with_direct_io, .timeout = 150)
{
	struct trip t;
	json_t *e;

	lab_test_long();
	begin(&t, &(struct lab_vm_opts){
			  .mb = 144, .rate = 500, .disk = LAB_VM_DISK_NONE, .disk_mb = 16});
	e = entry(&t, from(&t));
	lab_check(t.lab, strstr(lab_str(t.lab, e, "dma"), "direct I/O"), "dma");
	lab_check(t.lab,
		  json_is_false(json_object_get(json_array_get(lab_at(e, "blocks"), 0), "no_dma")),
		  "no_dma");
	json_decref(e);
	lab_vm_do(vm(&t), "disk direct 2 1");
	move(&t, &(struct lab_move){.mode = "hybrid"});
	lab_vm_check(vm(&t));
	describe(&t);
	move(&t, &(struct lab_move){.mode = "postcopy"});
	lab_vm_check(vm(&t));
	end(&t);
}

/* The guest resets itself while it moves: that is no end. */
Test(qemu, a_reset_and_an_end_in_the_middle, .timeout = 150)
{
	const struct lab_move slow = {.mode = "precopy", .args = {"--bandwidth", "300Mbit"}};
	const struct lab_move ends = {.exit = 1,
				      .phase = "failed",
				      .code = "guest-gone",
				      .args = {"--bandwidth", "100Mbit"}};
	struct lab_proc *p;
	struct trip t;

	lab_test_long();
	begin(&t, &(struct lab_vm_opts){.mb = 144, .rate = 500, .reboots = true});
	p = lab_migrate_begin(from(&t), to(&t), &t.g, &slow);
	lab_until(t.lab, 20000, lab_job_phase_is(from(&t), "precopy"), "no precopy");
	free(lab_vm_try(vm(&t), 1, "reboot"));
	json_decref(lab_migrate_end(from(&t), p, &slow));
	t.n++;
	lab_host_knows(from(&t), t.g.name);
	lab_vm_attach(vm(&t), pid_of(&t));
	lab_until(t.lab, 60000, hello(&t), "it has not booted again");
	lab_vm_check(vm(&t));
	describe(&t);
	p = lab_migrate_begin(from(&t), to(&t), &t.g, &ends);
	lab_until(t.lab, 20000, lab_job_phase_is(from(&t), "precopy"), "no precopy");
	free(lab_vm_try(vm(&t), 1, "poweroff"));
	json_decref(lab_migrate_end(from(&t), p, &ends));
	end(&t);
}

/* --- what fails keeps the VM --- */

#define NOTED_MAX 32768

/* What decant might leave in QEMU's process: descriptors, flags of its memory, threads, notes. */
static void note_process(struct trip *t, char *out)
{
	char cmd[1024];
	const char *const sh[] = {"/bin/sh", "-c", cmd, NULL};
	json_t *objects = lab_vm_qmp(vm(t), "qom-list", json_pack("{s:s}", "path", "/objects"));
	char *text, *names = json_dumps(objects, 0);

	snprintf(cmd, sizeof(cmd),
		 "cd /proc/%d && for f in fd/*; do echo $f $(readlink $f | tr -d 0-9); done | sort "
		 "&& "
		 "awk '/^[0-9a-f]+-/{r=$1\" \"$6} /^VmFlags/&&r~/decant-vm|memfd/{print r, $0}' "
		 "smaps",
		 vm(t)->pid);
	lab_check(t->lab, lab_run(t->lab, NULL, 10000, &text, NULL, sh) == 0, "%s", cmd);
	lab_check(t->lab, strstr(text, "VmFlags") != NULL, "%s", text);
	snprintf(out, NOTED_MAX, "%s%s", text, names);
	free(text);
	free(names);
	json_decref(objects);
}

static bool is_as_before(struct trip *t, const char *before)
{
	static char now[NOTED_MAX];

	note_process(t, now);
	return !strcmp(now, before);
}

static void left_nothing(struct trip *t, const char *before)
{
	static char now[NOTED_MAX];
	char state[16] = "";
	char path[64], *text;

	note_process(t, now);
	lab_check(t->lab, !strcmp(now, before), "before:\n%s\nnow:\n%s", before, now);
	snprintf(path, sizeof(path), "/proc/%d/status", vm(t)->pid);
	text = lab_read_file(path);
	lab_check(t->lab, text && strstr(text, "\nTracerPid:\t0\n"), "it is traced");
	sscanf(strstr(text, "\nState:"), "\nState: %15s", state);
	lab_check(t->lab, strchr("SRD", state[0]), "it is in state %s", state);
	free(text);
}

/* The job ends as said; the VM goes on where it is, as if nothing had happened. */
static void fails(struct trip *t, const struct lab_move *how, const char *says)
{
	static char before[NOTED_MAX];
	struct lab_vm_state state = lab_vm_check(vm(t));
	json_t *job;

	note_process(t, before);
	job = lab_migrate(from(t), to(t), &t->g, how);
	lab_check(t->lab, strstr(lab_str(t->lab, job, "error.message"), says) != NULL, "says %s",
		  lab_str(t->lab, job, "error.message"));
	fprintf(stderr, "%s\n", lab_str(t->lab, job, "error.message"));
	json_decref(job);
	lab_check(t->lab, lab_vm_status(vm(t), "running"), "it does not run");
	lab_vm_goes_on(vm(t), &state);
	left_nothing(t, before);
	lab_until(t->lab, 5000, lab_host_guests(to(t)) == 0, "a QEMU is left at the destination");
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
static pid_t qemu_at(struct trip *t, struct lab_host *h)
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

static struct lab_proc *until_postcopy(struct trip *t)
{
	const struct lab_move slow = {.args = {"--bandwidth", "80Mbit"}, .mode = "postcopy"};
	struct lab_proc *p = lab_migrate_begin(from(t), to(t), &t->g, &slow);

	lab_until(t->lab, 30000, lab_job_phase_is(from(t), "postcopy"), "no post-copy");
	return p;
}

/* Rule 4: it stands where it was, whoever looks for it there. */
static void stands(struct trip *t, unsigned int ms)
{
	for (uint64_t end = lab_now_ms() + ms; lab_now_ms() < end; usleep(20000))
		lab_check(t->lab, lab_vm_status(vm(t), "postmigrate"), "it goes on where it was");
}

/* What is missing stays in QEMU's memory, and a new agent goes on with it. */
static void source_is_killed_in_postcopy(struct trip *t)
{
	struct lab_vm_state state = lab_vm_check(vm(t)), now;
	struct lab_proc *p = until_postcopy(t);

	lab_proc_kill(t->lab, from(t)->source);
	lab_proc_kill(t->lab, p);
	stands(t, 500);
	lab_host_source_start(from(t));
	lab_until(t->lab, 30000, lab_job_phase_is(from(t), "completed"), "it is not recovered");
	came(t);
	/* Its kernel has noticed that it stood for long, and may say so. */
	now = lab_vm_state(vm(t));
	lab_check(t->lab, !now.bad && !now.gap && now.counter >= state.counter, "%lu bad, gap %ld",
		  now.bad, now.gap);
}

/* Agents that are killed in the middle: the VM does not notice, and what they left is tidied up by the next. */
Test(qemu, agents_are_killed, .timeout = 150)
{
	const struct lab_move slow = {
		.exit = 1, .phase = "failed", .args = {"--bandwidth", "200Mbit"}};
	static char before[NOTED_MAX];
	struct lab_vm_state state;
	struct lab_proc *p;
	struct trip t;

	lab_test_long();
	begin(&t, &(struct lab_vm_opts){.mb = 144, .rate = 500});
	state = lab_vm_check(vm(&t));
	note_process(&t, before);
	p = lab_migrate_begin(from(&t), to(&t), &t.g, &slow);
	lab_until(t.lab, 20000, lab_job_phase_is(from(&t), "precopy"), "no precopy");
	lab_proc_kill(t.lab, from(&t)->source);
	lab_vm_goes_on(vm(&t), &state);
	lab_host_source_start(from(&t));
	lab_proc_kill(t.lab, p);
	lab_until(t.lab, 10000, lab_host_guests(to(&t)) == 0, "a QEMU is left at the destination");
	lab_host_knows(from(&t), t.g.name);
	lab_until(t.lab, 5000, is_as_before(&t, before), "something is left in QEMU");
	p = lab_migrate_begin(from(&t), to(&t), &t.g, &slow);
	lab_until(t.lab, 20000, lab_job_phase_is(from(&t), "precopy"), "no precopy");
	lab_proc_kill(t.lab, to(&t)->dest);
	json_decref(lab_migrate_end(from(&t), p, &slow));
	lab_host_dest_start(to(&t));
	lab_until(t.lab, 10000, lab_host_guests(to(&t)) == 0, "a QEMU is left at the destination");
	left_nothing(&t, before);
	source_is_killed_in_postcopy(&t);
	end(&t);
}

/* It waits where it is, and a new agent goes on with it, whether it answers or not. */
Test(qemu, dest_is_killed_in_postcopy, .timeout = 150)
{
	struct lab_vm_state state, now;
	struct lab_proc *p;
	struct trip t;

	lab_test_long();
	begin(&t, &(struct lab_vm_opts){.mb = 144, .rate = 500});
	state = lab_vm_check(vm(&t));
	p = until_postcopy(&t);
	lab_proc_kill(t.lab, to(&t)->dest);
	stands(&t, 500);
	lab_check(t.lab, lab_host_guests(to(&t)) == 1, "it has ended where it is");
	lab_host_dest_start(to(&t));
	lab_until(t.lab, 30000, lab_job_phase_is(from(&t), "completed"), "it is not recovered");
	lab_check(t.lab, lab_proc_wait(t.lab, p, 10000) == 0, "the command");
	came(&t);
	now = lab_vm_state(vm(&t));
	lab_check(t.lab, !now.bad && !now.gap && now.counter >= state.counter, "%lu bad, gap %ld",
		  now.bad, now.gap);
	end(&t);
}

/** enum mishap - what happens in the middle of precopy */
enum mishap { DIES, HANGS, CANCELLED };

static void in_precopy(struct trip *t, enum mishap what, const struct lab_move *how,
		       const char *says)
{
	static char before[NOTED_MAX];
	struct lab_vm_state state = lab_vm_check(vm(t));
	struct lab_proc *p;
	json_t *job;

	note_process(t, before);
	p = lab_migrate_begin(from(t), to(t), &t->g, how);
	lab_until(t->lab, 20000, lab_job_phase_is(from(t), "precopy"), "no precopy");
	if (what == CANCELLED) {
		job = lab_job_newest(from(t));
		lab_decant(from(t), 10000, NULL, NULL,
			   (const char *[]){"cancel", lab_str(t->lab, job, "id"), NULL});
		json_decref(job);
	} else {
		kill(qemu_at(t, to(t)), what == DIES ? SIGKILL : SIGSTOP);
	}
	job = lab_migrate_end(from(t), p, how);
	if (says)
		lab_check(t->lab, strstr(lab_str(t->lab, job, "error.message"), says), "says %s",
			  lab_str(t->lab, job, "error.message"));
	json_decref(job);
	lab_check(t->lab, lab_vm_status(vm(t), "running"), "it does not run");
	lab_vm_goes_on(vm(t), &state);
	left_nothing(t, before);
	lab_until(t->lab, 5000, lab_host_guests(to(t)) == 0, "a QEMU is left at the destination");
}

Test(qemu, what_fails_keeps_the_vm, .timeout = 150)
{
	const struct lab_move dies = {.exit = 1,
				      .phase = "failed",
				      .code = "guest-gone",
				      .args = {"--bandwidth", "200Mbit"}};
	const struct lab_move hangs = {
		.exit = 1,
		.phase = "failed",
		.code = "timeout",
		.args = {"--bandwidth", "400Mbit", "--switchover-timeout-ms", "1500"}};
	const struct lab_move cancelled = {
		.exit = 1, .phase = "cancelled", .args = {"--bandwidth", "200Mbit"}};
	struct trip t;

	begin(&t, &(struct lab_vm_opts){.mb = 144,
					.rate = 500,
					.disk = LAB_VM_DISK_WRITEBACK,
					.disk_mb = 8,
					.args = {"-serial", "null"}});
	for (size_t i = 0; i < LAB_COUNT(refusals); i++) {
		describe_for(&t, refusals[i].launcher);
		fails(&t,
		      &(struct lab_move){.exit = 1, .phase = "failed", .code = refusals[i].code},
		      refusals[i].says);
	}
	describe(&t);
	in_precopy(&t, DIES, &dies, "has died");
	in_precopy(&t, CANCELLED, &cancelled, NULL);
	in_precopy(&t, HANGS, &hangs, NULL);
	move(&t, &(struct lab_move){.mode = "hybrid"});
	end(&t);
}
