/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Unmodified QEMUs moved from outside, between two hosts with both agents. The VM verifies its memory; its
 * clocks and counters must go on.
 */
#include "lib/lab_test.h"
#include "lib/lab_vm.h"

/**
 * struct pair - two hosts, a VM on the first and room for it on the second
 * @vm, @twin:	the VM at either place; @twin is attached once it has arrived
 * @g:		stands for it where the lab wants a guest: its name
 */
struct pair {
	struct lab *lab;
	struct lab_host *a, *b;
	struct lab_vm *vm, *twin;
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

/* Configuration of a decant-dest that starts @vm for guests whose launcher is "vm". */
static char *launcher_of(struct lab_vm *vm)
{
	json_t *argv = lab_vm_argv(vm, "{qmp}"), *conf;
	char *text;

	json_array_append_new(argv, json_string("-S"));
	conf = json_pack("{s:{s:{s:s, s:o}}}", "launchers", "vm", "driver", "qemu", "argv", argv);
	text = json_dumps(conf, 0);
	json_decref(conf);
	return text;
}

static void describe(struct pair *p, struct lab_host *h, struct lab_vm *vm)
{
	json_t *desc = json_pack("{s:s, s:s, s:s, s:s}", "name", p->g.name, "driver", "qemu", "qmp",
				 vm->qmp, "launcher", "vm");
	char path[LAB_PATH_MAX + 16];

	snprintf(path, sizeof(path), "%s/vm.json", p->lab->root);
	lab_check(p->lab, json_dump_file(desc, path, 0) == 0, "%s: %m", path);
	json_decref(desc);
	lab_check(p->lab,
		  lab_decant(h, 20000, NULL, NULL, (const char *[]){"add", path, NULL}) == 0,
		  "decant add");
}

static void begin(struct pair *p, const struct lab_vm_opts *opts)
{
	char *text, *back;

	*p = (struct pair){.lab = new_lab()};
	p->g.lab = p->lab;
	strcpy(p->g.name, "vm");
	p->vm = lab_vm_start(p->lab, opts);
	p->twin = lab_vm_twin(p->vm, "b");
	text = launcher_of(p->twin);
	back = NULL;
	p->a = lab_host_start(p->lab, &(struct lab_host_opts){.name = "a", .dest_conf = back});
	p->b = lab_host_start(p->lab, &(struct lab_host_opts){.name = "b", .dest_conf = text});
	free(text);
	describe(p, p->a, p->vm);
}

/* The VM's entry at a host's decant-source; new reference. */
static json_t *entry(struct pair *p, struct lab_host *h)
{
	char path[LAB_NAME_MAX + 32];

	snprintf(path, sizeof(path), "/v1/guests/%s", p->g.name);
	return lab_get(p->lab, h->source_sock, path);
}

/* By its own hand, so that it removes its sockets. */
static void quit(struct lab_vm *vm)
{
	if (lab_vm_alive(vm))
		json_decref(lab_vm_qmp_try(vm, "quit", NULL));
	lab_until(vm->lab, 10000, !lab_vm_alive(vm), "QEMU does not quit");
	lab_vm_end(vm);
}

static void end(struct pair *p)
{
	quit(p->vm);
	quit(p->twin);
	lab_end(p->lab);
}

static void move_and_check(struct pair *p, const struct lab_move *move)
{
	struct lab_vm_state before = lab_vm_check(p->vm);
	json_t *job = lab_migrate(p->a, p->b, &p->g, move), *e;

	fprintf(stderr, "%s: downtime %.0f us, %.0f bytes sent, %.0f faults\n", move->mode,
		lab_num(p->lab, job, "downtime_us"), lab_num(p->lab, job, "memory.sent_bytes"),
		lab_num(p->lab, job, "postcopy.faults"));
	json_decref(job);
	lab_host_knows(p->b, p->g.name);
	e = entry(p, p->b);
	lab_vm_attach(p->twin, (pid_t)lab_num(p->lab, e, "pid"));
	json_decref(e);
	lab_vm_goes_on(p->twin, &before);
	lab_until(p->lab, 5000, !lab_vm_alive(p->vm), "the source's QEMU has not ended");
}

Test(qemu, moves, .timeout = 120)
{
	struct pair p;

	begin(&p, &(struct lab_vm_opts){.mb = 160, .rate = 1000});
	move_and_check(&p, &(struct lab_move){.mode = "hybrid"});
	end(&p);
}
