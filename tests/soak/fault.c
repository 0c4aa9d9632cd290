/* SPDX-License-Identifier: Apache-2.0 */
/* Nothing here waits for what the fault does to a migration: that is the round's to see. */
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include "lib/lab_job.h"
#include "soak/world.h"

#define STOP_MS 15000
/* Of what a relay that only lets things through now and then holds and passes. */
#define DELAY_MS 150
/* The destination says no more words before RUNNING. */
#define WORDS 7

static void nap(unsigned int ms)
{
	nanosleep(&(struct timespec){.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000L}, NULL);
}

static struct soak_guest *first(struct soak_world *w)
{
	return &w->guests[w->plan.first];
}

static struct lab_relay *relay(struct soak_world *w)
{
	return w->relays[soak_index(w, first(w)->to)];
}

static struct lab_proc *relay_proc(struct soak_world *w)
{
	return w->relay_procs[soak_index(w, first(w)->to)];
}

/* --- agents --- */

static void end_agent(struct soak_world *w, struct lab_proc *p)
{
	int status;

	kill(p->pid, SIGTERM);
	status = lab_proc_wait(w->lab, p, STOP_MS);
	lab_check(w->lab, status == 0, "%s ended with %d after SIGTERM", p->name, status);
}

static void kill_agents(struct soak_world *w, bool source, bool dest)
{
	struct lab_host *from = first(w)->from, *to = first(w)->to;

	if (source)
		kill(from->source->pid, SIGKILL);
	if (dest)
		kill(to->dest->pid, SIGKILL);
	if (source)
		lab_proc_kill(w->lab, from->source);
	if (dest)
		lab_proc_kill(w->lab, to->dest);
	nap(w->plan.for_ms);
	/* Either may be back first. */
	if (source && w->plan.which % 2)
		lab_host_source_start(from);
	if (dest)
		lab_host_dest_start(to);
	if (source && w->plan.which % 2 == 0)
		lab_host_source_start(from);
}

static void restart_agent(struct soak_world *w, bool source)
{
	struct lab_host *h = source ? first(w)->from : first(w)->to;

	end_agent(w, source ? h->source : h->dest);
	nap(w->plan.for_ms);
	if (source)
		lab_host_source_start(h);
	else
		lab_host_dest_start(h);
}

static void stop_process(struct soak_world *w, struct lab_proc *p, unsigned int ms)
{
	lab_check(w->lab, p->pid && kill(p->pid, SIGSTOP) == 0, "%s cannot be stopped", p->name);
	nap(ms);
	kill(p->pid, SIGCONT);
}

/* --- network --- */

static void flap(struct soak_world *w)
{
	lab_relay_flap(relay(w), 20 + 4 * w->plan.which);
	nap(w->plan.for_ms);
	lab_relay_flap(relay(w), 0);
}

static void delay(struct soak_world *w)
{
	uint64_t end = lab_now_ms() + w->plan.for_ms;

	while (lab_now_ms() < end) {
		stop_process(w, relay_proc(w), DELAY_MS);
		nap(DELAY_MS / 10);
	}
}

/* --- clients --- */

static void order(struct soak_world *w, const char *what)
{
	int status = soak_job_order(first(w), what);

	/* It may have ended, or gone too far. */
	lab_check(w->lab, status == 202 || status == 409, "%s: status %d", what, status);
}

/* Another one is stored if there is one, else the moved one: that is refused. */
static struct soak_guest *stored(struct soak_world *w)
{
	for (unsigned int i = 0; i < w->nguests; i++)
		if (!(w->plan.moving & 1u << i))
			return &w->guests[i];
	return NULL;
}

static void image_name(struct soak_world *w, char *out, size_t n)
{
	snprintf(out, n, "round-%u", w->plan.round);
}

static void snapshot(struct soak_world *w)
{
	struct soak_guest *g = stored(w), *busy = first(w);
	struct lab_host *to = soak_other(w, g ? g->g->at : busy->g->at);
	char name[32], *body, *answer = NULL;
	int status;

	image_name(w, name, sizeof(name));
	if (asprintf(&body, "{\"guest\": \"%s\", \"to\": \"%s\", \"name\": \"%s\"}",
		     g ? g->g->name : busy->g->name, to->to, name) < 0)
		abort();
	status = lab_http((g ? g->g->at : busy->from)->source_sock, "POST", "/v1/snapshots", body,
			  &answer);
	lab_check(w->lab, status == 202 || (!g && status == 409), "snapshot: %d: %s", status,
		  answer ? answer : "");
	w->snapshots += status == 202;
	free(body);
	free(answer);
}

static bool snapshot_ended(struct soak_world *w, struct lab_host *from, const char *name)
{
	json_t *list = lab_get(w->lab, from->source_sock, "/v1/snapshots"), *o;
	bool ended = true;
	size_t i;

	json_array_foreach(lab_at(list, "items"), i, o) {
		if (strcmp(lab_str(w->lab, o, "name"), name) != 0)
			continue;
		ended = json_is_string(lab_at(o, "ended_at"));
		lab_check(w->lab, !ended || !strcmp(lab_str(w->lab, o, "phase"), "completed"),
			  "snapshot: %s: %s", lab_str(w->lab, o, "phase"),
			  json_is_object(lab_at(o, "error")) ? lab_str(w->lab, o, "error.message")
							     : "");
	}
	json_decref(list);
	return ended;
}

/* Image and all: hundreds of them would fill the disk. */
static void snapshot_over(struct soak_world *w)
{
	char name[32], path[LAB_PATH_MAX + 96];
	struct soak_guest *g = stored(w);

	if (!g)
		return;
	image_name(w, name, sizeof(name));
	lab_until(w->lab, 60000, snapshot_ended(w, g->g->at, name), "the snapshot does not end");
	snprintf(path, sizeof(path), "%s/state/images/%s.image", soak_other(w, g->g->at)->dir,
		 name);
	lab_check(w->lab, unlink(path) == 0, "%s: %m", path);
}

/* --- all --- */

void soak_fault_before(struct soak_world *w)
{
	if (w->plan.fault == SOAK_CUT_WORD)
		lab_relay_cut_before(relay(w), 1 + w->plan.which % WORDS);
}

void soak_fault_do(struct soak_world *w)
{
	struct soak_plan *p = &w->plan;

	switch (p->fault) {
	case SOAK_KILL_SOURCE:
	case SOAK_KILL_DEST:
	case SOAK_KILL_BOTH:
		kill_agents(w, p->fault != SOAK_KILL_DEST, p->fault != SOAK_KILL_SOURCE);
		break;
	case SOAK_RESTART_SOURCE:
	case SOAK_RESTART_DEST:
		restart_agent(w, p->fault == SOAK_RESTART_SOURCE);
		break;
	case SOAK_STOP_SOURCE:
		stop_process(w, first(w)->from->source, p->for_ms);
		break;
	case SOAK_STOP_DEST:
		stop_process(w, first(w)->to->dest, p->for_ms);
		break;
	case SOAK_CUT:
		lab_relay_cut(relay(w));
		break;
	case SOAK_CUT_ONE:
		if (lab_relay_open(relay(w)))
			lab_relay_cut_one(relay(w), p->which % lab_relay_open(relay(w)));
		break;
	case SOAK_FLAP:
		flap(w);
		break;
	case SOAK_BLACK_HOLE:
		stop_process(w, relay_proc(w), p->for_ms);
		break;
	case SOAK_DELAY:
		delay(w);
		break;
	case SOAK_CANCEL:
		order(w, "cancel");
		break;
	case SOAK_SWITCHOVER:
		order(w, "switchover");
		break;
	case SOAK_SNAPSHOT:
		snapshot(w);
		break;
	case SOAK_NONE:
	case SOAK_CUT_WORD:
	case SOAK_REFUSED:
	case SOAK_TWICE:
	case SOAK_FAULTS:
		break;
	}
}

void soak_fault_over(struct soak_world *w)
{
	if (w->plan.fault == SOAK_SNAPSHOT)
		snapshot_over(w);
	/* One that nobody has run into. */
	if (w->plan.fault == SOAK_CUT_WORD)
		lab_relay_cut_before(relay(w), 0);
}
