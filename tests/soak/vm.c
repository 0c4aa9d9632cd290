/* SPDX-License-Identifier: Apache-2.0 */
/* A QEMU among the guests: the tests' VM, which writes and verifies its own memory. */
#include <ctype.h>
#include <dirent.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "soak/world.h"

#define LAUNCH_MS 20000

/**
 * struct soak_vm - one VM at its places
 * @born:	where the test has booted it, on the first host
 * @at:		where each host's launcher starts it
 * @now:	of these, where it is
 * @state:	what it said of itself last
 */
struct soak_vm {
	struct lab_vm *born;
	struct lab_vm *at[2];
	struct lab_vm *now;
	struct lab_vm_state state;
};

void soak_vm_new(struct soak_world *w)
{
	const char *missing = lab_vm_missing(w->lab);
	struct soak_vm *v = calloc(1, sizeof(*v));

	lab_check(w->lab, !missing, "%s", missing);
	v->born = lab_vm_new(
		w->lab, &(struct lab_vm_opts){.mb = 144, .rate = 500, .backing = LAB_VM_MEMFD});
	v->at[0] = lab_vm_twin(v->born, "back");
	v->at[1] = lab_vm_twin(v->born, "b");
	v->now = v->born;
	w->vm = v;
}

json_t *soak_vm_launcher(struct soak_world *w, unsigned int host)
{
	char *text = lab_vm_launcher(w->vm->at[host]);
	json_t *conf = json_loads(text, 0, NULL), *launcher;

	launcher = json_incref(json_object_get(json_object_get(conf, "launchers"), "vm"));
	json_decref(conf);
	free(text);
	return launcher;
}

/* --- its processes --- */

/* Every place has sockets of its own, whose folder stands in the arguments. */
static bool is_at(const char *pid, const char *dir)
{
	char path[64], *args;
	bool is = false;

	snprintf(path, sizeof(path), "/proc/%.20s/cmdline", pid);
	args = lab_read_file(path);
	if (args && strstr(args, "qemu"))
		for (char *at = args; *at && !is; at += strlen(at) + 1)
			is = strstr(at, dir) != NULL;
	free(args);
	return is;
}

static pid_t process_at(const char *vm_dir)
{
	char dir[LAB_PATH_MAX + 2];
	DIR *d = opendir("/proc");
	struct dirent *e;
	pid_t pid = 0;

	snprintf(dir, sizeof(dir), "%s/", vm_dir);
	while (!pid && (e = readdir(d)))
		if (isdigit((unsigned char)e->d_name[0]) && is_at(e->d_name, dir))
			pid = atoi(e->d_name);
	closedir(d);
	return pid;
}

static pid_t vm_pid(struct soak_world *w, struct soak_guest *g, struct lab_host *h)
{
	unsigned int i = soak_index(w, h);
	pid_t pid = process_at(w->vm->at[i]->dir);

	(void)g;
	return !pid && i == 0 ? process_at(w->vm->born->dir) : pid;
}

/* --- moving --- */

const struct lab_proc *soak_vm_proc(struct soak_world *w)
{
	return w->vm ? w->vm->born->proc : NULL;
}

static void vm_stayed(struct soak_world *w, struct soak_guest *g)
{
	(void)g;
	w->vm->state = lab_vm_goes_on(w->vm->now, &w->vm->state);
}

static void vm_arrived(struct soak_world *w, struct soak_guest *g, struct lab_host *h)
{
	struct lab_host *from = g->g->at;

	lab_until(w->lab, LAUNCH_MS, !vm_pid(w, g, from), "its QEMU at %s lives on", from->name);
	lab_vm_detach(w->vm->now);
	g->g->at = h;
	w->vm->now = w->vm->at[soak_index(w, h)];
	lab_vm_attach(w->vm->now, vm_pid(w, g, h));
	vm_stayed(w, g);
}

static const struct soak_kind vm_kind = {vm_arrived, vm_stayed, vm_pid};

void soak_vm_start(struct soak_world *w)
{
	struct soak_guest *g = &w->guests[w->nguests++];

	g->kind = &vm_kind;
	g->g = calloc(1, sizeof(*g->g));
	g->g->lab = w->lab;
	g->g->at = w->hosts[0];
	snprintf(g->g->name, sizeof(g->g->name), "vm");
	g->bytes = UINT64_C(144) << 20;
	g->files = 1;
	lab_vm_boot(w->vm->born);
	w->vm->state = lab_vm_check(w->vm->born);
	lab_vm_add(w->hosts[0], w->vm->born);
	lab_host_knows(w->hosts[0], "vm");
}

void soak_vm_end(struct soak_world *w)
{
	struct soak_vm *v = w->vm;
	struct lab_vm *now = v ? v->now : NULL;

	if (!v)
		return;
	/* Which removes its sockets. */
	lab_vm_quit(now);
	if (now != v->born)
		lab_vm_end(v->born);
	for (unsigned int i = 0; i < 2; i++)
		if (now != v->at[i])
			lab_vm_end(v->at[i]);
	free(w->guests[0].g);
	free(v);
}
