/* SPDX-License-Identifier: Apache-2.0 */
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#include "soak/world.h"

/* Set by the handler of SIGINT and SIGTERM, which can reach nothing else. */
static volatile sig_atomic_t interrupted;

static void on_signal(int sig)
{
	interrupted = sig;
}

bool soak_interrupted(void)
{
	return interrupted;
}

struct lab_host *soak_other(struct soak_world *w, const struct lab_host *h)
{
	return w->hosts[h == w->hosts[0]];
}

unsigned int soak_index(struct soak_world *w, const struct lab_host *h)
{
	return h == w->hosts[1];
}

struct soak_guest *soak_moving(struct soak_world *w, struct soak_guest *g)
{
	for (g = g ? g + 1 : w->guests; g < w->guests + w->nguests; g++)
		if (w->plan.moving & 1u << (g - w->guests))
			return g;
	return NULL;
}

bool soak_world_zstd(struct soak_world *w)
{
	char *help = NULL;
	bool has;

	lab_decant(w->hosts[0], 5000, &help, NULL, (const char *[]){"migrate", "--help", NULL});
	has = help && strstr(help, "zstd");
	free(help);
	return has;
}

static void host_new(struct soak_world *w, unsigned int i)
{
	const char *name = i ? "b" : "a";
	char *conf = soak_guests_conf(w, i);

	w->hosts[i] =
		lab_host_start(w->lab, &(struct lab_host_opts){.name = name, .dest_conf = conf});
	free(conf);
	w->relays[i] = lab_relay_new(w->hosts[i]);
	w->relay_procs[i] = w->lab->procs[w->lab->n_procs - 1];
}

struct soak_world *soak_world_new(struct lab *lab, const struct soak_opts *o)
{
	struct sigaction sa = {.sa_handler = on_signal, .sa_flags = SA_RESETHAND};
	struct soak_world *w = calloc(1, sizeof(*w));

	sigaction(SIGINT, &sa, NULL);
	sigaction(SIGTERM, &sa, NULL);
	w->lab = lab;
	w->o = o;
	if (o->vm)
		soak_vm_new(w);
	host_new(w, 0);
	host_new(w, 1);
	soak_leaks_begin(w);
	soak_guests_start(w);
	return w;
}

void soak_world_free(struct soak_world *w)
{
	soak_vm_end(w);
	lab_relay_free(w->relays[0]);
	lab_relay_free(w->relays[1]);
	free(w);
}

/* --- between two rounds --- */

static bool is_needed(struct soak_world *w, const struct lab_proc *p)
{
	for (int i = 0; i < 2; i++)
		if (p == w->hosts[i]->source || p == w->hosts[i]->dest || p == w->relay_procs[i])
			return true;
	for (unsigned int i = 0; i < w->nguests; i++)
		if (p == w->guests[i].g->proc)
			return true;

	return p == soak_vm_proc(w);
}

/* Agents append to their logs: a log that is emptied holds what they say from now on. */
static void forget_log(struct lab *lab, const struct lab_proc *p, const char *which)
{
	char path[LAB_PATH_MAX + LAB_NAME_MAX + 16];

	snprintf(path, sizeof(path), "%s/%s.%s", lab->root, p->name, which);
	if (!p->pid)
		unlink(path);
	else if (truncate(path, 0) < 0)
		return; /* it has said nothing */
}

/* Guests whose agent was killed are our children now, and may have ended. */
static void reap(struct lab *lab)
{
	char *list = lab_read_file("/proc/thread-self/children"), *save = NULL;

	for (char *word = strtok_r(list, " \n", &save); word; word = strtok_r(NULL, " \n", &save)) {
		pid_t pid = atoi(word);
		bool ours = false;

		for (size_t i = 0; i < lab->n_procs; i++)
			ours |= lab->procs[i]->pid == pid;
		if (!ours)
			waitpid(pid, NULL, WNOHANG);
	}
	free(list);
}

void soak_world_sweep(struct soak_world *w)
{
	struct lab *lab = w->lab;
	size_t n = 0;

	reap(lab);
	for (size_t i = 0; i < lab->n_procs; i++) {
		struct lab_proc *p = lab->procs[i];

		lab_proc_alive(p);
		forget_log(lab, p, "out");
		forget_log(lab, p, "err");
		if (p->pid || is_needed(w, p))
			lab->procs[n++] = p;
		else
			free(p);
	}
	lab->n_procs = n;
}
