/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Snapshots of a QEMU that runs on, restored and cloned: the copy verifies all of its memory and goes on from
 * the instant at which it was taken.
 */
#include <signal.h>
#include <unistd.h>
#include "lib/lab_test.h"
#include "lib/lab_vm.h"

/**
 * struct world - two hosts, a VM on the first, its copy on the second
 */
struct world {
	struct lab *lab;
	struct lab_host *a, *b;
	struct lab_vm *vm, *copy;
};

static void begin(struct world *w)
{
	char *launcher;

	*w = (struct world){.lab = lab_vm_lab()};
	w->vm = lab_vm_start(w->lab, &(struct lab_vm_opts){.mb = 144, .rate = 1000});
	w->copy = lab_vm_twin(w->vm, "b");
	launcher = lab_vm_launcher(w->copy);
	w->a = lab_host_start(w->lab, &(struct lab_host_opts){.name = "a"});
	w->b = lab_host_start(w->lab, &(struct lab_host_opts){.name = "b", .dest_conf = launcher});
	free(launcher);
	lab_vm_add(w->a, w->vm);
}

static void quit(struct lab_vm *vm)
{
	if (lab_vm_alive(vm)) {
		json_decref(lab_vm_qmp_try(vm, "quit", NULL));
		lab_until(vm->lab, 10000, !lab_vm_alive(vm), "QEMU does not quit");
	}
	lab_vm_end(vm);
}

static void end(struct world *w)
{
	quit(w->vm);
	quit(w->copy);
	lab_end(w->lab);
}

static void snapshot(struct world *w, const char *name, const char *start)
{
	char *err;
	int status = lab_decant(w->a, 60000, NULL, &err,
				(const char *[]){"snapshot", "vm", "--to", w->b->to, "--name", name,
						 "--wait", start, NULL});

	lab_check(w->lab, status == 0, "snapshot: %d: %s", status, err);
	free(err);
}

/* Attach to the copy, which decant-source of its host knows by now. */
static void attach_copy(struct world *w)
{
	json_t *e;

	lab_host_knows(w->b, "vm");
	e = lab_get(w->lab, w->b->source_sock, "/v1/guests/vm");
	lab_vm_attach(w->copy, (pid_t)lab_num(w->lab, e, "pid"));
	json_decref(e);
}

Test(qemu_images, a_clone_and_its_model_both_go_on, .timeout = 120)
{
	struct lab_vm_state before, now;
	struct world w;

	begin(&w);
	before = lab_vm_check(w.vm);
	snapshot(&w, "clone", "--start");
	attach_copy(&w);
	lab_vm_goes_on(w.copy, &before);
	now = lab_vm_goes_on(w.vm, &before);
	lab_until(w.lab, 10000, lab_vm_goes_on(w.vm, &now).counter > now.counter,
		  "the model stands");
	end(&w);
}

Test(qemu_images, an_image_is_restored, .timeout = 120)
{
	struct lab_vm_state before;
	char *out, api[LAB_PATH_MAX + 16], program[LAB_PATH_MAX + 16];
	struct world w;
	int status;

	lab_test_long();
	begin(&w);
	before = lab_vm_check(w.vm);
	snapshot(&w, "monday", NULL);
	quit(w.vm);
	snprintf(api, sizeof(api), "unix:%s", w.b->dest_sock);
	snprintf(program, sizeof(program), "%s/decant-dest", w.lab->build);
	status = lab_run(
		w.lab, NULL, 60000, &out, NULL,
		(const char *[]){program, "--api", api, "restore", "monday", "--wait", NULL});
	lab_check(w.lab, status == 0, "restore: %d: %s", status, out);
	free(out);
	attach_copy(&w);
	lab_vm_goes_on(w.copy, &before);
	quit(w.copy);
	lab_end(w.lab);
}
