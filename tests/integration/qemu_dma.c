/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Direct I/O of virtual machines: an unmodified QEMU whose disk is opened with cache=none reads without
 * pause into memory that its guest verifies, and goes from host to host meanwhile. decant finds that out by
 * itself, and no page is lost. The control is the same VM when its description answers for the disk
 * ("no_dma"), so that it is moved like any other: it must lose pages, or this shows nothing.
 *
 * Runs alone: a disk that is slow in another way loses none.
 */
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "lib/lab_test.h"
#include "lib/lab_vm.h"
#include "util/cleanup.h"

TestSuite(qemu_dma, .timeout = 900);

/*
 * The disk is slow, as one of a busy storage network is: reads are under way for long, so that they are met by
 * many scans. QEMU's storage daemon makes a file of it whose reads with O_DIRECT are written into pinned
 * pages by the kernel, as a device does.
 */
#define DAEMON      "/usr/bin/qemu-storage-daemon"
#define IOPS        "100"
#define READERS     "disk direct 8 10 48"
#define MOUNT_MS    10000
#define ROUNDS      12 /* of a full run */
#define FEW         4  /* where no more is asked than whether the way is chosen */
#define FUSE_MAGIC_ 0x65735546

/**
 * struct trip - a VM that goes between two hosts
 * @hosts:	it is at hosts[n % 2]
 * @rooms:	where it arrives at each of them; never attached themselves
 * @vm:		where it is
 * @disk:	the daemon behind its disk
 * @n:		journeys so far
 * @passes:	of all of them
 * @g:		stands for it where the lab wants a guest: its name
 */
struct trip {
	struct lab *lab;
	struct lab_host *hosts[2];
	struct lab_vm *rooms[2];
	struct lab_vm *vm;
	struct lab_proc *disk;
	unsigned int n;
	uint64_t passes;
	struct lab_guest g;
};

static struct lab_host *here(struct trip *t)
{
	return t->hosts[t->n % 2];
}

static json_t *entry(struct trip *t)
{
	return lab_get(t->lab, here(t)->source_sock, "/v1/guests/vm");
}

static const char *missing(struct lab *lab)
{
	const char *why = lab_vm_missing(lab);

	if (!why && access(DAEMON, X_OK))
		why = DAEMON " is not installed";
	if (!why && access("/dev/fuse", R_OK | W_OK))
		why = "/dev/fuse cannot be opened";
	/* Whatever becomes of this test, the mount goes with its processes. */
	if (!why && (unshare(CLONE_NEWNS) || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL)))
		why = "no mount namespace can be made";
	return why;
}

static bool is_mounted(const char *path)
{
	struct statfs fs;

	return !statfs(path, &fs) && fs.f_type == FUSE_MAGIC_;
}

/* From now on the image is a slow disk, for everybody. */
static void slow_down(struct trip *t)
{
	const char *image = t->vm->image;
	char file[LAB_PATH_MAX + 128], export[LAB_PATH_MAX + 128];
	const char *const argv[] = {DAEMON,
				    "--object",
				    "throttle-group,id=slow,x-iops-total=" IOPS,
				    "--blockdev",
				    file,
				    "--blockdev",
				    "throttle,node-name=disk,throttle-group=slow,file=file",
				    "--export",
				    export,
				    NULL};

	snprintf(file, sizeof(file), "file,node-name=file,filename=%s", image);
	snprintf(export, sizeof(export), "fuse,id=export,node-name=disk,writable=on,mountpoint=%s",
		 image);
	t->disk = lab_spawn(t->lab, NULL, "disk", argv);
	lab_until(t->lab, MOUNT_MS, is_mounted(image) || !lab_proc_alive(t->disk),
		  "%s is not mounted", image);
	lab_check(t->lab, lab_proc_alive(t->disk), "the storage daemon has ended");
}

static void add(struct trip *t, json_t *desc)
{
	char path[LAB_PATH_MAX + 16];

	snprintf(path, sizeof(path), "%s/vm.json", t->lab->root);
	lab_check(t->lab, json_dump_file(desc, path, 0) == 0, "%s: %m", path);
	json_decref(desc);
	lab_check(t->lab,
		  !lab_decant(here(t), 20000, NULL, NULL, (const char *[]){"add", path, NULL}),
		  "decant add");
}

/* @control: the operator answers for the disk; @full: of a full run only */
static struct trip *trip_new(const char *aio, bool control, bool full)
{
	static const char *const names[] = {"a", "b"};
	struct trip *t = calloc(1, sizeof(*t));
	struct lab *lab = lab_new(lab_test_failed);
	const char *why = missing(lab);

	if (!why && full && !lab->full)
		why = "this is part of a full run";
	if (why) {
		lab_end(lab);
		free(t);
		cr_skip_test("%s", why);
	}
	t->lab = lab;
	t->g.lab = lab;
	strcpy(t->g.name, "vm");
	t->vm = lab_vm_new(lab, &(struct lab_vm_opts){.mb = 224,
						      .fill = 16,
						      .rate = 500,
						      .smp = 2,
						      .backing = LAB_VM_MEMFD,
						      .disk = LAB_VM_DISK_NONE,
						      .aio = aio});
	slow_down(t);
	lab_vm_boot(t->vm);
	t->rooms[0] = lab_vm_twin(t->vm, "c");
	t->rooms[1] = lab_vm_twin(t->vm, "b");
	for (int i = 0; i < 2; i++) {
		char *conf = lab_vm_launcher(t->rooms[i]);

		t->hosts[i] = lab_host_start(
			lab, &(struct lab_host_opts){.name = names[i], .dest_conf = conf});
		free(conf);
	}
	add(t, json_pack("{s:s, s:s, s:s, s:s, s:{s:s*}}", "name", "vm", "driver", "qemu", "qmp",
			 t->vm->qmp, "launcher", "vm", "vars", "no_dma",
			 control ? t->vm->image : NULL));
	lab_vm_do(t->vm, READERS);
	return t;
}

/* The rooms have no connections of their own: they are let go like ones that never ran. */
static void trip_end(struct trip *t)
{
	lab_vm_quit(t->vm);
	lab_check(t->lab, !kill(t->disk->pid, SIGTERM), "the storage daemon is gone");
	lab_proc_wait(t->lab, t->disk, 5000);
	for (int i = 0; i < 2; i++)
		free(t->rooms[i]);
	lab_end(t->lab);
	free(t);
}

/* Another struct for each arrival, with connections of its own. */
static void arrive(struct trip *t)
{
	struct lab_vm *vm = malloc(sizeof(*vm));
	json_t *e;

	lab_vm_end(t->vm);
	t->n++;
	*vm = *t->rooms[t->n % 2];
	t->vm = vm;
	lab_host_knows(here(t), "vm");
	e = entry(t);
	lab_vm_attach(vm, (pid_t)lab_num(t->lab, e, "pid"));
	json_decref(e);
}

/* One journey. Return: the ended job, new reference */
static json_t *go(struct trip *t, const struct lab_move *move)
{
	struct lab_host *to = t->hosts[(t->n + 1) % 2];
	json_t *job = lab_migrate(here(t), to, &t->g, move);

	lab_until(t->lab, 5000, !lab_vm_alive(t->vm), "the source's QEMU has not ended");
	arrive(t);
	t->passes += (uint64_t)lab_num(t->lab, job, "memory.passes");
	return job;
}

/* Many passes, so that many scans fall among reads: none leaves so little that the VM may be stopped for it. */
#define QUARANTINE "--dma-quarantine-ms", "500"
#define STUBBORN   "--downtime-limit-ms", "1", "--max-passes", "12", "--no-convergence", "stop"

static const struct way {
	struct lab_move move;
	const char *way;
} ways[] = {
	{{.mode = "hybrid", .tracking = "async", .args = {STUBBORN}}, "ever-dirty"},
	{{.mode = "precopy", .tracking = "async", .args = {QUARANTINE, STUBBORN}}, "quarantine"},
};

static void says_why(struct trip *t, json_t *job, const struct way *w)
{
	json_t *e = entry(t);

	lab_check(t->lab, !strcmp(lab_str(t->lab, job, "dma.way"), w->way), "moved by %s",
		  lab_str(t->lab, job, "dma.way"));
	lab_check(t->lab, strstr(lab_str(t->lab, job, "dma.device"), t->vm->image), "device: %s",
		  lab_str(t->lab, job, "dma.device"));
	lab_check(t->lab, lab_num(t->lab, job, "dma.pause_us") > 0, "it was not paused first");
	lab_check(t->lab, strstr(lab_str(t->lab, e, "dma.why"), t->vm->image), "entry: %s",
		  lab_str(t->lab, e, "dma.why"));
	json_decref(e);
}

static void nothing_lost(const char *aio, bool full, unsigned int rounds)
{
	struct trip *t = trip_new(aio, false, full);
	struct lab_vm_state s = {0};
	double pause = 0;

	rounds = t->lab->full ? rounds : 1;
	for (unsigned int i = 0; i < rounds * LAB_COUNT(ways); i++) {
		const struct way *w = &ways[i % LAB_COUNT(ways)];
		json_t *job = go(t, &w->move);

		says_why(t, job, w);
		pause = MAX(pause, lab_num(t->lab, job, "dma.pause_us"));
		json_decref(job);
		s = lab_vm_check(t->vm);
	}
	lab_check(t->lab, s.disk_reads > 300, "the guest does not read");
	fprintf(stderr,
		"aio=%s: %u journeys, %lu passes, %lu reads into %lu pages, nothing lost; longest "
		"first pause %.0f ms\n",
		aio, t->n, t->passes, s.disk_reads, s.disk_pages, pause / 1000);
	trip_end(t);
}

Test(qemu_dma, threads)
{
	nothing_lost("threads", false, ROUNDS);
}

Test(qemu_dma, native)
{
	nothing_lost("native", true, FEW);
}

Test(qemu_dma, io_uring)
{
	nothing_lost("io_uring", true, FEW);
}

/* --- the control --- */

static void something_lost(const char *aio)
{
	struct trip *t = trip_new(aio, true, true);
	struct lab_vm_state s = {0};
	unsigned int losing[LAB_COUNT(ways)] = {0}, tries = LAB_COUNT(ways) * ROUNDS;
	uint64_t lost[LAB_COUNT(ways)] = {0}, passes[LAB_COUNT(ways)] = {0}, bad = 0;

	for (unsigned int i = 0; i < tries; i++) {
		json_t *job = go(t, &ways[i % LAB_COUNT(ways)].move);

		lab_check(t->lab, !strcmp(lab_str(t->lab, job, "dma.way"), "none"), "moved by %s",
			  lab_str(t->lab, job, "dma.way"));
		passes[i % LAB_COUNT(ways)] += (uint64_t)lab_num(t->lab, job, "memory.passes");
		json_decref(job);
		s = lab_vm_state(t->vm);
		losing[i % LAB_COUNT(ways)] += s.disk_bad > bad;
		lost[i % LAB_COUNT(ways)] += s.disk_bad - bad;
		bad = s.disk_bad;
	}
	for (size_t k = 0; k < LAB_COUNT(ways); k++)
		fprintf(stderr,
			"aio=%s, control, %s: %lu pages lost in %u of %u journeys, %lu passes\n",
			aio, ways[k].move.mode, lost[k], losing[k], ROUNDS, passes[k]);
	for (size_t k = 0; k < LAB_COUNT(ways); k++)
		lab_check(t->lab, lost[k] > 0,
			  "THE CONTROL LOST NOTHING in mode %s: that the others lose nothing shows "
			  "nothing",
			  ways[k].move.mode);
	trip_end(t);
}

Test(qemu_dma, control_threads)
{
	something_lost("threads");
}
