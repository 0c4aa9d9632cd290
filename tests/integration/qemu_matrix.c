/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Every mode, of VMs of every sort. The table is a covering one: each two values of its columns that can be had
 * together are in some row, its sizes go from 128 MiB to 4 GiB. The first
 * row is of every run, the others of `make test-full`.
 *
 * Each VM writes its memory all the time, reads and writes its disk, and answers a TCP client; it then verifies all
 * of it, and its kernel must have nothing to complain of.
 */
#include <stdlib.h>
#include <string.h>

#include "lib/lab_net.h"
#include "lib/lab_pace.h"
#include "lib/lab_test.h"

#define DEFAULT_ROWS 1
#define ADDRESS      "10.77.0.77"
#define HUGE_MB      2
/* A command takes a moment to the console and back. */
#define LEEWAY_NS 500000000u
#define APART_US  100000u

/**
 * struct row - a VM and how it is moved
 * @net:	virtio-net on a tap; each host is a network namespace then
 * @opts:	without its tap
 */
struct row {
	const char *mode, *tracking;
	bool net;
	struct lab_vm_opts opts;
};

#define FILE_    LAB_VM_FILE
#define MEMFD    LAB_VM_MEMFD
#define HUGE     LAB_VM_HUGE
#define NO_DISK  LAB_VM_NO_DISK
#define BUFFERED LAB_VM_DISK_WRITEBACK
#define DIRECT   LAB_VM_DISK_NONE

#define ROW(mode_, tracking_, machine_, smp_, mb_, fill_, backing_, disk_, net_, rng_, defaults_) \
	{                                                                                         \
		.mode = mode_, .tracking = tracking_, .net = net_, .opts = {                      \
			.machine = machine_,                                                      \
			.smp = smp_,                                                              \
			.mb = mb_,                                                                \
			.fill = fill_,                                                            \
			.backing = backing_,                                                      \
			.disk = disk_,                                                            \
			.disk_mb = 16,                                                            \
			.rng = rng_,                                                              \
			.defaults = defaults_,                                                    \
			.rate = 500,                                                              \
		}                                                                                 \
	}

static const struct row rows[] = {
	/*  mode        tracking  machine   CPUs MiB, filled backing disk    net rng defaults */
	ROW("hybrid", "faults", "q35", 2, 144, 0, FILE_, BUFFERED, 1, 1, 0),
	ROW("postcopy", "async", "q35", 3, 192, 0, HUGE, DIRECT, 0, 1, 0),
	ROW("precopy", "faults", "pc", 4, 256, 0, FILE_, NO_DISK, 1, 0, 1),
	ROW("hybrid", "faults", "microvm", 1, 128, 0, MEMFD, BUFFERED, 1, 1, 0),
	ROW("precopy", "async", "q35", 2, 1024, 512, MEMFD, BUFFERED, 1, 1, 0),
	ROW("hybrid", "async", "pc", 4, 512, 256, HUGE, BUFFERED, 0, 1, 1),
	ROW("postcopy", "faults", "q35", 1, 192, 0, HUGE, DIRECT, 1, 0, 1),
	ROW("postcopy", "async", "microvm", 2, 256, 0, FILE_, NO_DISK, 0, 1, 0),
	ROW("precopy", "faults", "pc", 3, 192, 0, MEMFD, DIRECT, 0, 1, 1),
	ROW("hybrid", "faults", "q35", 3, 384, 0, FILE_, BUFFERED, 1, 1, 0),
	ROW("postcopy", "async", "pc", 1, 128, 0, MEMFD, BUFFERED, 1, 0, 0),
	ROW("hybrid", "faults", "pc", 2, 192, 0, HUGE, DIRECT, 0, 0, 1),
	ROW("precopy", "faults", "microvm", 3, 160, 0, HUGE, NO_DISK, 1, 0, 0),
	ROW("postcopy", "faults", "q35", 4, 512, 0, FILE_, DIRECT, 1, 1, 0),
	ROW("precopy", "async", "pc", 1, 4096, 128, FILE_, NO_DISK, 0, 1, 0),
	ROW("postcopy", "faults", "microvm", 4, 512, 256, MEMFD, DIRECT, 1, 0, 0),
	ROW("hybrid", "async", "q35", 4, 1024, 256, MEMFD, NO_DISK, 0, 1, 0),
};

/**
 * struct trip - a row while it is tried
 * @g:		stands for the VM where the lab wants a guest: its name
 * @client:	NULL without a network
 * @pace:	what the machine makes of anybody meanwhile
 */
struct trip {
	const struct row *row;
	struct lab *lab;
	struct lab_ns ns[2];
	struct lab_host *a, *b;
	struct lab_vm *vm, *twin;
	struct lab_guest g;
	struct lab_net_client *client;
	struct pace *pace;
};

static const char *backing_name(const struct lab_vm_opts *o)
{
	return o->backing == HUGE ? "huge" : o->backing == MEMFD ? "memfd" : "file";
}

static const char *disk_name(const struct lab_vm_opts *o)
{
	return o->disk == DIRECT ? "none" : o->disk == BUFFERED ? "writeback" : "-";
}

static void skip(struct trip *t, const char *why)
{
	lab_end(t->lab);
	cr_skip_test("%s", why);
}

static void need(struct trip *t)
{
	const struct lab_vm_opts *o = &t->row->opts;

	/* For both places, and what else of the machine takes some. */
	if (o->backing == HUGE && !lab_huge_pages(t->lab, o->mb / HUGE_MB * 2 + 4))
		skip(t, "so many huge pages cannot be had here");
	if (t->row->net &&
	    (!lab_ns_pair(t->lab, &t->ns[0], &t->ns[1]) || !lab_net_bridges(t->lab, t->ns)))
		skip(t, "no namespaces, bridges or taps here (root is needed, or a container "
			"forbids it)");
}

static void start_hosts(struct trip *t)
{
	char *launcher = lab_vm_launcher(t->twin);
	bool net = t->row->net;

	t->a = lab_host_start(t->lab, &(struct lab_host_opts){.name = "a",
							      .ns = net ? &t->ns[0] : NULL,
							      .address = net ? "10.77.0.1" : NULL});
	t->b = lab_host_start(t->lab, &(struct lab_host_opts){.name = "b",
							      .ns = net ? &t->ns[1] : NULL,
							      .address = net ? "10.77.0.2" : NULL,
							      .dest_conf = launcher});
	free(launcher);
}

static void load(struct trip *t)
{
	if (t->row->opts.disk) {
		lab_vm_do(t->vm,
			  t->row->opts.disk == DIRECT ? "disk direct 2 1" : "disk buffered 2 1");
		lab_vm_do(t->vm, "disk write");
	}
	if (t->row->net) {
		lab_vm_do(t->vm, "net up " ADDRESS);
		t->client = lab_net_client(t->lab, &t->ns[0], ADDRESS);
		lab_net_asks(t->client);
		lab_net_answers(t->client, 10000);
	}
	if (t->row->opts.rng)
		free(lab_vm_ask(t->vm, 10000, "rng"));
}

static void begin(struct trip *t, const struct row *row)
{
	struct lab_vm_opts opts = row->opts;

	*t = (struct trip){.row = row, .lab = lab_vm_lab()};
	t->g = (struct lab_guest){.lab = t->lab, .name = "vm"};
	need(t);
	opts.tap = row->net ? LAB_NET_TAP : NULL;
	opts.ns = row->net ? &t->ns[0] : NULL;
	t->vm = lab_vm_start(t->lab, &opts);
	t->twin = lab_vm_twin(t->vm, "b");
	start_hosts(t);
	lab_vm_add(t->a, t->vm);
	t->pace = pace_start();
	load(t);
}

static void end(struct trip *t)
{
	if (t->client)
		lab_net_client_end(t->client);
	pace_end(t->pace);
	lab_vm_quit(t->vm);
	lab_vm_quit(t->twin);
	lab_end(t->lab);
}

/* Its two clocks have gone on alike, and stood no longer than it did itself. */
static void clocks_went_on(struct trip *t, const struct lab_vm_state *before,
			   const struct lab_vm_state *after, double downtime_us)
{
	int64_t mono = (int64_t)(after->mono_ns - before->mono_ns);
	int64_t real = (int64_t)(after->real_ns - before->real_ns);
	/* At least: commands to it take their time to the console and back. */
	int64_t here = (int64_t)(after->asked_ns - before->heard_ns);

	/* They are read one after the other. */
	lab_soon(t->lab, t->pace, (uint64_t)llabs(mono - real) / 1000, APART_US,
		 "its monotonic clock and its real-time clock are apart");
	lab_check(t->lab, here - mono < (int64_t)(downtime_us * 1000) + LEEWAY_NS + here / 100,
		  "its clock stood: %ld ns have passed there, %ld here, %.0f us of them down", mono,
		  here, downtime_us);
}

static void devices_go_on(struct trip *t, const struct lab_vm_state *before)
{
	struct lab_vm_state s;

	for (int i = 0; t->client && i < 5; i++) {
		lab_net_asks(t->client);
		lab_net_answers(t->client, 10000);
	}
	if (t->row->opts.rng)
		free(lab_vm_ask(t->twin, 10000, "rng"));
	if (!t->row->opts.disk)
		return;
	lab_until(t->lab, 20000, (s = lab_vm_check(t->twin)).disk_reads > before->disk_reads + 8,
		  "it reads no more");
	lab_until(t->lab, 20000, (s = lab_vm_check(t->twin)).disk_writes > before->disk_writes,
		  "it writes no more");
	lab_vm_do(t->twin, "disk stop");
	lab_vm_check(t->twin);
}

static void print_row(struct trip *t, json_t *job, const struct lab_vm_state *after)
{
	const struct lab_vm_opts *o = &t->row->opts;

	fprintf(stderr,
		"mode     track  machine CPUs  MiB backing disk      net rng defaults |"
		" downtime ms  MiB sent  faults  longest tick ms\n"
		"%-8s %-6s %-7s %4u %4u %-7s %-9s %3u %3u %8u |%12.1f %9.1f %7.0f %16.1f\n",
		t->row->mode, t->row->tracking, o->machine, o->smp, o->mb, backing_name(o),
		disk_name(o), t->row->net, o->rng, o->defaults,
		lab_num(t->lab, job, "downtime_us") / 1000,
		lab_num(t->lab, job, "memory.sent_bytes") / (1 << 20),
		lab_num(t->lab, job, "postcopy.faults"), (double)after->step_ns / 1000000);
}

static void arrived(struct trip *t, json_t *job, const struct lab_vm_state *before)
{
	bool precopy = !strcmp(t->row->mode, "precopy");
	struct lab_vm_state after;

	lab_vm_attach(t->twin, 0);
	after = lab_vm_goes_on(t->twin, before);
	print_row(t, job, &after);
	clocks_went_on(t, before, &after, lab_num(t->lab, job, "downtime_us"));
	lab_check(t->lab, (lab_num(t->lab, job, "postcopy.faults") > 0) == !precopy,
		  "faults in mode %s", t->row->mode);
	lab_check(t->lab, after.counter > before->counter, "it has written nothing since");
	devices_go_on(t, &after);
	lab_until(t->lab, 5000, !lab_vm_alive(t->vm), "the source's QEMU has not ended");
}

ParameterizedTestParameters(qemu_matrix, arrives)
{
	/* Parameters are copied to another process, where pointers mean nothing: numbers. */
	static unsigned int numbers[LAB_COUNT(rows)];
	const char *full = getenv("DECANT_FULL");

	for (unsigned int i = 0; i < LAB_COUNT(rows); i++)
		numbers[i] = i;
	return cr_make_param_array(unsigned int, numbers,
				   full &&*full ? LAB_COUNT(rows) : DEFAULT_ROWS);
}

ParameterizedTest(unsigned int *number, qemu_matrix, arrives, .timeout = 240)
{
	const struct row *row = &rows[*number];
	struct lab_move move = {
		.mode = row->mode, .tracking = row->tracking, .huge = row->opts.backing == HUGE};
	struct lab_vm_state before;
	struct trip t;
	json_t *job;

	/* No I/O of this disk takes so long. */
	if (!strcmp(row->mode, "precopy"))
		memcpy(move.args,
		       (const char *[]){"--max-passes", "6", "--no-convergence", "stop",
					"--dma-quarantine-ms", "2000"},
		       6 * sizeof(char *));
	begin(&t, row);
	before = lab_vm_check(t.vm);
	job = lab_migrate(t.a, t.b, &t.g, &move);
	arrived(&t, job, &before);
	json_decref(job);
	end(&t);
}
