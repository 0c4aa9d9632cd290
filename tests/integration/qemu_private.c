/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Virtual machines whose memory is shared with nobody, what "-m" alone gives: refused, unless the description asks
 * for the experiment. Then every mode, into shared and into private memory; the VM verifies each page.
 */
#include <stdlib.h>
#include <string.h>

#include "lib/lab_test.h"
#include "lib/lab_vm.h"

TestSuite(qemu_private, .timeout = 120);

#define MB 160
#define SHARED                                                                      \
	"-object", "memory-backend-memfd,id=pc.ram,size=160M,share=on", "-machine", \
		"memory-backend=pc.ram"

/**
 * struct trip - a VM that goes from one host to another
 * @twin:	where it arrives
 * @g:		stands for it where the lab wants a guest: its name
 */
struct trip {
	struct lab *lab;
	struct lab_host *a, *b;
	struct lab_vm *vm, *twin;
	struct lab_guest g;
};

static json_t *entry(struct trip *t)
{
	return lab_get(t->lab, t->a->source_sock, "/v1/guests/vm");
}

/* @word: value of the variable that asks for it; NULL without */
static void add(struct trip *t, const char *word)
{
	json_t *desc =
		json_pack("{s:s, s:s, s:s, s:s, s:{s:s*}}", "name", "vm", "driver", "qemu", "qmp",
			  t->vm->qmp, "launcher", "vm", "vars", "anonymous_memory", word);
	char path[LAB_PATH_MAX + 16];

	snprintf(path, sizeof(path), "%s/vm.json", t->vm->dir);
	lab_check(t->lab, json_dump_file(desc, path, 0) == 0, "%s: %m", path);
	json_decref(desc);
	lab_check(t->lab, !lab_decant(t->a, 20000, NULL, NULL, (const char *[]){"add", path, NULL}),
		  "decant add");
}

/* @into: words for the QEMU that receives it */
static struct trip *trip_new(const struct lab_vm_opts *opts, const char *const into[])
{
	struct trip *t = calloc(1, sizeof(*t));
	char *conf;

	t->lab = lab_vm_lab();
	t->g = (struct lab_guest){.lab = t->lab, .name = "vm"};
	t->vm = lab_vm_start(t->lab, opts);
	t->twin = lab_vm_twin(t->vm, "b");
	for (size_t i = 0; into[i]; i++)
		t->twin->opts.args[i] = into[i];
	conf = lab_vm_launcher(t->twin);
	t->a = lab_host_start(t->lab, &(struct lab_host_opts){.name = "a"});
	t->b = lab_host_start(t->lab, &(struct lab_host_opts){.name = "b", .dest_conf = conf});
	free(conf);
	return t;
}

static void trip_end(struct trip *t)
{
	lab_vm_quit(t->vm);
	lab_vm_quit(t->twin);
	lab_end(t->lab);
	free(t);
}

static void go(struct trip *t, const struct lab_move *move)
{
	struct lab_vm_state before = lab_vm_check(t->vm), after;
	json_t *job = lab_migrate(t->a, t->b, &t->g, move);

	lab_vm_attach(t->twin, 0);
	after = lab_vm_goes_on(t->twin, &before);
	lab_check(t->lab, after.counter > before.counter, "it has written nothing since");
	fprintf(stderr, "%s, %s: down for %.1f ms, %.0f faults, state and all\n", move->mode,
		move->tracking, lab_num(t->lab, job, "downtime_us") / 1000,
		lab_num(t->lab, job, "postcopy.faults"));
	json_decref(job);
	lab_until(t->lab, 5000, !lab_vm_alive(t->vm), "the source's QEMU has not ended");
}

Test(qemu_private, moves_only_when_asked)
{
	static const char *const shared[] = {SHARED, NULL};
	struct trip *t = trip_new(&(struct lab_vm_opts){.mb = MB,
							.backing = LAB_VM_ANON,
							.rate = 1000,
							.disk = LAB_VM_DISK_WRITEBACK,
							.disk_mb = 8},
				  shared);
	char *out = NULL;
	json_t *e;

	add(t, NULL);
	e = entry(t);
	lab_check(t->lab, !strcmp(lab_str(t->lab, e, "problem.code"), "anonymous-memory"), "%s",
		  lab_str(t->lab, e, "problem.message"));
	json_decref(e);
	lab_check(t->lab,
		  !lab_decant(t->a, 20000, NULL, NULL, (const char *[]){"remove", "vm", NULL}),
		  "decant remove");
	/* One monitor, one client: the entry that was removed has to let go of it. */
	add(t, "experimental");
	lab_decant(t->a, 20000, &out, NULL, (const char *[]){"guests", NULL});
	lab_check(t->lab, strstr(out, "experimental"), "%s", out);
	free(out);
	lab_vm_do(t->vm, "disk buffered 2 1");
	go(t, &(struct lab_move){.mode = "hybrid", .tracking = "async"});
	trip_end(t);
}

/* Memory of a device that would be left behind is found before anything is moved. */
Test(qemu_private, names_what_would_be_left_behind)
{
	static const char *const shared[] = {SHARED, NULL};
	struct trip *t;
	json_t *e;

	lab_test_long();
	t = trip_new(&(struct lab_vm_opts){.mb = MB, .backing = LAB_VM_ANON, .defaults = true},
		     shared);
	add(t, "experimental");
	e = entry(t);
	lab_check(t->lab, !strcmp(lab_str(t->lab, e, "problem.code"), "device-memory"), "%s",
		  lab_str(t->lab, e, "problem.code"));
	lab_check(t->lab, strstr(lab_str(t->lab, e, "problem.message"), "vga.vram"), "%s",
		  lab_str(t->lab, e, "problem.message"));
	json_decref(e);
	trip_end(t);
}

/** struct way - a journey; @into: private memory there, too; @direct: with a disk that is read by direct I/O */
static const struct way {
	const char *mode, *tracking;
	bool into, direct;
} ways[] = {
	{"postcopy", "async", false, false}, {"precopy", "async", false, false},
	{"hybrid", "faults", false, false},  {"precopy", "faults", true, false},
	{"hybrid", "async", true, false},    {"postcopy", "async", true, false},
	{"hybrid", "async", false, true},    {"precopy", "async", true, true},
};

ParameterizedTestParameters(qemu_private, every_mode)
{
	/* Parameters are copied to another process, where pointers mean nothing: numbers. */
	static unsigned int numbers[LAB_COUNT(ways)];

	for (unsigned int i = 0; i < LAB_COUNT(ways); i++)
		numbers[i] = i;
	return cr_make_param_array(unsigned int, numbers, LAB_COUNT(ways));
}

ParameterizedTest(unsigned int *number, qemu_private, every_mode, .timeout = 240)
{
	static const char *const shared[] = {SHARED, NULL}, *const same[] = {NULL};
	const struct way *w = &ways[*number];
	struct lab_move move = {.mode = w->mode, .tracking = w->tracking};
	struct lab_vm_opts opts = {.mb = MB, .backing = LAB_VM_ANON, .rate = 1000, .smp = 2};
	struct trip *t;

	lab_test_long();
	if (w->direct) {
		opts.disk = LAB_VM_DISK_NONE;
		opts.disk_mb = 16;
	}
	if (!strcmp(w->mode, "precopy"))
		memcpy(move.args,
		       (const char *[]){"--max-passes", "6", "--no-convergence", "stop",
					"--dma-quarantine-ms", "2000"},
		       6 * sizeof(char *));
	t = trip_new(&opts, w->into ? same : shared);
	add(t, "experimental");
	if (w->direct)
		lab_vm_do(t->vm, "disk direct 2 1");
	go(t, &move);
	trip_end(t);
}
