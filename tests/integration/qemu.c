/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Unmodified QEMUs moved from outside, between two hosts with both agents. The VM verifies its memory; its
 * clocks and counters must go on.
 */
#include "lib/lab_test.h"
#include "lib/lab_vm.h"

#define PLACES 4

/**
 * struct trip - two hosts and a VM that goes between them
 * @hosts:	it is at hosts[i % 2] after i journeys
 * @at:		the VM at each place: the first is where it was started; journey i leads to at[i]
 * @n:		journeys so far
 * @g:		stands for it where the lab wants a guest: its name
 */
struct trip {
	struct lab *lab;
	struct lab_host *hosts[2];
	struct lab_vm *at[PLACES];
	unsigned int n;
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

/* Launchers "vm1", "vm2"…: each starts one of the twins. */
static char *launchers(struct trip *t)
{
	json_t *all = json_object(), *conf;
	char name[8], *text;

	for (int i = 1; i < PLACES; i++) {
		json_t *argv = lab_vm_argv(t->at[i], "{qmp}");

		json_array_append_new(argv, json_string("-S"));
		snprintf(name, sizeof(name), "vm%d", i);
		json_object_set_new(all, name,
				    json_pack("{s:s, s:o}", "driver", "qemu", "argv", argv));
	}
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

/* Describe it where it is, with the launcher of its next journey. */
static void describe(struct trip *t)
{
	json_t *desc = json_pack("{s:s, s:s}", "name", t->g.name, "driver", "qemu");
	char path[LAB_PATH_MAX + 16], launcher[8];

	snprintf(launcher, sizeof(launcher), "vm%u", t->n + 1);
	json_object_set_new(desc, "launcher", json_string(launcher));
	if (t->n) {
		json_t *e = entry(t, from(t));

		json_object_set(desc, "uuid", lab_at(e, "uuid"));
		json_object_set(desc, "qmp", lab_at(e, "qmp"));
		json_decref(e);
	} else {
		json_object_set_new(desc, "qmp", json_string(vm(t)->qmp));
	}
	snprintf(path, sizeof(path), "%s/vm.json", t->lab->root);
	lab_check(t->lab, json_dump_file(desc, path, 0) == 0, "%s: %m", path);
	json_decref(desc);
	lab_check(t->lab,
		  lab_decant(from(t), 20000, NULL, NULL, (const char *[]){"add", path, NULL}) == 0,
		  "decant add");
}

static void begin(struct trip *t, const struct lab_vm_opts *opts)
{
	static const char *const sides[PLACES] = {"a", "b", "c", "d"};
	char *conf;

	*t = (struct trip){.lab = new_lab()};
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

/* It has arrived: is it the same, and is there nothing of it where it was? */
static void arrived(struct trip *t, const struct lab_vm_state *before)
{
	struct lab_vm *old = vm(t);
	json_t *e;

	t->n++;
	lab_host_knows(from(t), t->g.name);
	e = entry(t, from(t));
	lab_check(t->lab, lab_num(t->lab, e, "generation") == t->n, "generation");
	lab_vm_attach(vm(t), (pid_t)lab_num(t->lab, e, "pid"));
	json_decref(e);
	lab_vm_goes_on(vm(t), before);
	lab_until(t->lab, 5000, !lab_vm_alive(old), "the source's QEMU has not ended");
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

	begin(&t, &(struct lab_vm_opts){
			  .mb = 160, .full_speed = true, .smp = 2, .backing = LAB_VM_MEMFD});
	move(&t, &(struct lab_move){.mode = "hybrid"});
	end(&t);
}
