/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>
#include <time.h>
#include "lib/lab_job.h"
#include "soak/world.h"

#define REACH_MS 30000
#define END_MS   90000
#define LEFT_MS  20000

/* Where nobody listens: the discard port. */
#define NOWHERE "127.0.0.1:9"

static void say(struct soak_world *w)
{
	if (w->o->quiet)
		return;
	fprintf(stderr, "    ");
	for (struct soak_guest *g = soak_moving(w, NULL); g; g = soak_moving(w, g))
		fprintf(stderr, " %s %s%s%s", g->g->name, g->phase, *g->code ? " " : "", g->code);
	fputc('\n', stderr);
}

static bool all_ended(struct soak_world *w)
{
	for (struct soak_guest *g = soak_moving(w, NULL); g; g = soak_moving(w, g))
		if (!soak_job_ended(w, g))
			return false;
	return true;
}

static const char *who_has_not(struct soak_world *w)
{
	for (struct soak_guest *g = soak_moving(w, NULL); g; g = soak_moving(w, g))
		if (!soak_job_ended(w, g))
			return g->g->name;
	return "nobody";
}

static void await_ends(struct soak_world *w)
{
	lab_until(w->lab, END_MS, all_ended(w), "the migration of %s does not end", who_has_not(w));
}

/* Whoever is refused goes on where he is, and may be moved at once. */
static void be_refused(struct soak_world *w)
{
	for (struct soak_guest *g = soak_moving(w, NULL); g; g = soak_moving(w, g))
		soak_job_begin(w, g, NOWHERE);
	await_ends(w);
	for (struct soak_guest *g = soak_moving(w, NULL); g; g = soak_moving(w, g)) {
		lab_check(w->lab, !strcmp(g->phase, "failed"), "%s: %s where nobody listens",
			  g->g->name, g->phase);
		w->ends[1]++;
	}
}

static void begin(struct soak_world *w)
{
	for (struct soak_guest *g = soak_moving(w, NULL); g; g = soak_moving(w, g)) {
		g->from = g->g->at;
		g->to = soak_other(w, g->from);
		lab_host_knows(g->from, g->g->name);
	}
	if (w->plan.fault == SOAK_REFUSED)
		be_refused(w);
	soak_fault_before(w);
	for (struct soak_guest *g = soak_moving(w, NULL); g; g = soak_moving(w, g))
		soak_job_begin(w, g, NULL);
}

static void await_moment(struct soak_world *w)
{
	struct soak_guest *g = &w->guests[w->plan.first];

	lab_until(w->lab, REACH_MS, soak_job_reached(w, g, w->plan.when),
		  "its migration goes nowhere");
	nanosleep(&(struct timespec){.tv_sec = w->plan.delay_ms / 1000,
				     .tv_nsec = w->plan.delay_ms % 1000 * 1000000L},
		  NULL);
	/* Notes whether it was too late to go back. */
	for (struct soak_guest *any = soak_moving(w, NULL); any; any = soak_moving(w, any))
		json_decref(soak_job_get(w, any));
}

static void judge(struct soak_world *w, struct soak_guest *g)
{
	json_t *o = soak_job_get(w, g);
	bool completed = !strcmp(g->phase, "completed");

	lab_check(w->lab, o, "the agent of %s does not answer", g->from->name);
	lab_check(w->lab,
		  !strcmp(lab_str(w->lab, o, "owner"), completed ? "destination" : "source"),
		  "%s: %s, and the owner is %s", g->g->name, g->phase, lab_str(w->lab, o, "owner"));
	lab_check(w->lab, completed || !g->seen, "%s: %s (%s) behind the point of no return",
		  g->g->name, g->phase, g->code);
	lab_check(w->lab, strcmp(g->phase, "cancelled") != 0 || !*g->code, "%s: cancelled, and %s",
		  g->g->name, g->code);
	/* A receipt that was lost is known of by asking: null. */
	if (completed)
		lab_check(w->lab,
			  json_is_true(lab_at(o, "digest_ok")) ||
				  (soak_fault_loses(w->plan.fault) &&
				   json_is_null(lab_at(o, "digest_ok"))),
			  "%s: digest_ok", g->g->name);
	json_decref(o);
	w->ends[completed ? 0 : !strcmp(g->phase, "failed") ? 1 : 2]++;
}

/* Where it is not, nothing of it is left. */
static void settle(struct soak_world *w, struct soak_guest *g)
{
	if (!strcmp(g->phase, "completed"))
		g->kind->arrived(w, g, g->to);
	else
		g->kind->stayed(w, g);
	lab_until(w->lab, LEFT_MS, !g->kind->pid(w, g, soak_other(w, g->g->at)), "%s is at %s, too",
		  g->g->name, soak_other(w, g->g->at)->name);
	lab_host_knows(g->g->at, g->g->name);
}

/* What a fault has kept from moving moves now, without one: as it was to, but whatever it writes. */
static void again(struct soak_world *w)
{
	w->plan.fault = SOAK_NONE;
	for (struct soak_guest *g = soak_moving(w, NULL); g; g = soak_moving(w, g)) {
		struct soak_move *m = &w->plan.moves[g - w->guests];

		if (!strcmp(g->phase, "completed"))
			w->plan.moving &= ~(1u << (g - w->guests));
		m->no_convergence = "postcopy";
		m->last_ms = 0;
	}
	for (struct soak_guest *g = soak_moving(w, NULL); g; g = soak_moving(w, g))
		soak_job_begin(w, g, NULL);
	await_ends(w);
	for (struct soak_guest *g = soak_moving(w, NULL); g; g = soak_moving(w, g)) {
		lab_check(w->lab, !strcmp(g->phase, "completed"), "%s: %s (%s) without a fault",
			  g->g->name, g->phase, g->code);
		judge(w, g);
	}
	for (struct soak_guest *g = soak_moving(w, NULL); g; g = soak_moving(w, g))
		settle(w, g);
}

void soak_round(struct soak_world *w)
{
	begin(w);
	await_moment(w);
	soak_fault_do(w);
	await_ends(w);
	for (struct soak_guest *g = soak_moving(w, NULL); g; g = soak_moving(w, g))
		judge(w, g);
	say(w);
	for (struct soak_guest *g = soak_moving(w, NULL); g; g = soak_moving(w, g))
		settle(w, g);
	soak_fault_over(w);
	again(w);
	soak_leaks_check(w);
}
