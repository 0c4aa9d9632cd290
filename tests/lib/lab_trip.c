/* SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>
#include <string.h>
#include "lib/lab_trip.h"

#define END_MS 5000

struct lab_host *lab_trip_from(struct lab_trip *t)
{
	return t->hosts[t->n % 2];
}

struct lab_host *lab_trip_to(struct lab_trip *t)
{
	return t->hosts[(t->n + 1) % 2];
}

struct lab_vm *lab_trip_vm(struct lab_trip *t)
{
	return t->at[t->n];
}

/* --- launchers --- */

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

static char *launchers(struct lab_trip *t)
{
	static const char *const stopped[] = {"-S", NULL};
	static const char *const rng[] = {"-S", "-device", "virtio-rng-pci", NULL};
	static const char *const no_file[] = {"-S", "-drive", "file=/nowhere/disk.img,if=none",
					      NULL};
	json_t *all = json_object(), *conf;
	char name[16], *text;

	for (int i = 1; i < LAB_TRIP_PLACES; i++) {
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

/* --- describing --- */

json_t *lab_trip_entry(struct lab_trip *t, struct lab_host *h)
{
	char path[LAB_NAME_MAX + 32];

	snprintf(path, sizeof(path), "/v1/guests/%s", t->g.name);
	return lab_get(t->lab, h->source_sock, path);
}

void lab_trip_describe_for(struct lab_trip *t, const char *launcher)
{
	json_t *desc = json_pack("{s:s, s:s, s:s}", "name", t->g.name, "driver", "qemu", "launcher",
				 launcher);
	char path[LAB_PATH_MAX + 16];

	if (t->described) {
		json_t *e = lab_trip_entry(t, lab_trip_from(t));

		json_object_set(desc, "uuid", lab_at(e, "uuid"));
		json_object_set(desc, "qmp", lab_at(e, "qmp"));
		json_decref(e);
	} else {
		json_object_set_new(desc, "qmp", json_string(lab_trip_vm(t)->qmp));
	}
	t->described = true;
	snprintf(path, sizeof(path), "%s/vm.json", t->lab->root);
	lab_check(t->lab, json_dump_file(desc, path, 0) == 0, "%s: %m", path);
	json_decref(desc);
	lab_check(t->lab,
		  lab_decant(lab_trip_from(t), 20000, NULL, NULL,
			     (const char *[]){"add", path, NULL}) == 0,
		  "decant add");
}

void lab_trip_describe(struct lab_trip *t)
{
	char launcher[8];

	snprintf(launcher, sizeof(launcher), "vm%u", t->n + 1);
	lab_trip_describe_for(t, launcher);
}

/* --- life --- */

void lab_trip_begin(struct lab_trip *t, struct lab *lab, const struct lab_vm_opts *opts)
{
	static const char *const sides[LAB_TRIP_PLACES] = {"a", "b", "c", "d"};
	char *conf;

	*t = (struct lab_trip){.lab = lab};
	t->g.lab = t->lab;
	strcpy(t->g.name, "vm");
	t->at[0] = lab_vm_start(t->lab, opts);
	for (int i = 1; i < LAB_TRIP_PLACES; i++)
		t->at[i] = lab_vm_twin(t->at[0], sides[i]);
	conf = launchers(t);
	t->hosts[0] =
		lab_host_start(t->lab, &(struct lab_host_opts){.name = "a", .dest_conf = conf});
	t->hosts[1] =
		lab_host_start(t->lab, &(struct lab_host_opts){.name = "b", .dest_conf = conf});
	free(conf);
	lab_trip_describe(t);
}

void lab_trip_end(struct lab_trip *t)
{
	for (int i = 0; i < LAB_TRIP_PLACES; i++)
		lab_vm_quit(t->at[i]);
	lab_end(t->lab);
}

/* --- journeys --- */

static pid_t pid_of(struct lab_trip *t)
{
	json_t *e = lab_trip_entry(t, lab_trip_from(t));
	pid_t pid = (pid_t)lab_num(t->lab, e, "pid");

	json_decref(e);
	return pid;
}

void lab_trip_attach(struct lab_trip *t)
{
	t->n++;
	lab_host_knows(lab_trip_from(t), t->g.name);
	lab_vm_attach(lab_trip_vm(t), pid_of(t));
}

void lab_trip_came(struct lab_trip *t)
{
	struct lab_vm *old = lab_trip_vm(t);
	json_t *e;

	lab_trip_attach(t);
	e = lab_trip_entry(t, lab_trip_from(t));
	lab_check(t->lab, lab_num(t->lab, e, "generation") == t->n, "generation");
	lab_check(t->lab, strncmp(lab_str(t->lab, e, "uuid"), "00000000-0000", 13) != 0, "uuid");
	json_decref(e);
	lab_until(t->lab, END_MS, !lab_vm_alive(old), "the source's QEMU has not ended");
}

void lab_trip_move(struct lab_trip *t, const struct lab_move *how)
{
	struct lab_vm_state before = lab_vm_check(lab_trip_vm(t));
	json_t *job = lab_migrate(lab_trip_from(t), lab_trip_to(t), &t->g, how);

	fprintf(stderr, "%s: downtime %.0f us, %.0f bytes sent, %.0f faults\n", how->mode,
		lab_num(t->lab, job, "downtime_us"), lab_num(t->lab, job, "memory.sent_bytes"),
		lab_num(t->lab, job, "postcopy.faults"));
	if (!strcmp(how->mode, "precopy"))
		lab_check(t->lab, lab_num(t->lab, job, "postcopy.faults") == 0, "faults");
	else
		lab_check(t->lab, lab_num(t->lab, job, "postcopy.faults") > 0, "no fault at all");
	json_decref(job);
	lab_trip_came(t);
	lab_vm_goes_on(lab_trip_vm(t), &before);
}
