/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Gates: all are asked at once; one that refuses decides, one that delays is asked again, until all have
 * allowed. A gate that has allowed is not asked twice. What one of them is asked ends with its timeout_ms,
 * and what delays ends with the limit: so an answer comes, whatever the gates do.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "hooks/hooks_priv.h"
#include "util/cleanup.h"
#include "util/clock.h"
#include "util/log.h"

/* Pause before a gate that delays is asked again, if it names none; and the bounds of what it may name. */
#define DELAY_US       5000000ull
#define DELAY_LEAST_US 1000000ull
#define DELAY_MOST_US  60000000ull
/* Until a command can be started, when too many run. */
#define NO_ROOM_US 200000ull

enum gate_state { GATE_ASKING, GATE_WAITING, GATE_ALLOWED };

/**
 * struct gate_one - one gate
 * @try:	in state asking
 * @timer:	in state waiting: until it is asked
 * @next_us:	clock_wall_us() of that
 * @reason:	why it delays
 */
struct gate_one {
	struct hooks_gate *g;
	struct hook *hook;
	enum gate_state state;
	struct hook_try *try;
	struct event *timer;
	uint64_t next_us;
	char reason[256];
};

/**
 * struct hooks_gate - a question
 * @event:	what is asked
 * @limit_at_us: clock_us() until which gates may delay
 * @since_us:	clock_wall_us() of the question
 * @over:	posted: @fn is called next
 * @why:	filled: refused
 * @one, @n:	those who are asked
 */
struct hooks_gate {
	struct hooks *hooks;
	struct hook_event *event;
	uint64_t limit_at_us;
	uint64_t since_us;
	hooks_gate_fn *fn;
	void *arg;
	struct event *over;
	struct error why;
	size_t n;
	struct gate_one one[];
};

static void no_timer(struct event **ev)
{
	if (*ev)
		event_free(steal_ptr(ev));
}

static void stop(struct hooks_gate *g)
{
	for (size_t i = 0; i < g->n; i++) {
		hook_try_cancel(steal_ptr(&g->one[i].try));
		no_timer(&g->one[i].timer);
	}
}

void hooks_gate_cancel(struct hooks_gate *g)
{
	if (!g)
		return;
	stop(g);
	no_timer(&g->over);
	hook_event_unref(g->event);
	free(g);
}

static void on_over(void *arg)
{
	struct hooks_gate *g = arg;
	struct error why = g->why;
	hooks_gate_fn *fn = g->fn;
	void *to = g->arg;

	hooks_gate_cancel(g);
	fn(to, error_is_set(&why) ? &why : NULL);
}

static void finish(struct hooks_gate *g)
{
	stop(g);
	if (!g->over)
		g->over = loop_timer(g->hooks->loop, 1, on_over, g);
	if (!g->over)
		log_error("hooks: out of memory: a gate's answer is lost");
}

/* --- answers --- */

static void allowed(struct gate_one *o)
{
	struct hooks_gate *g = o->g;

	o->state = GATE_ALLOWED;
	o->hook->count.allowed++;
	for (size_t i = 0; i < g->n; i++)
		if (g->one[i].state != GATE_ALLOWED)
			return;
	finish(g);
}

static void refused(struct gate_one *o, const char *reason)
{
	o->hook->count.refused++;
	error_set(&o->g->why, -EPERM, "gate-refused", "gate %s refuses%s%s", o->hook->conf->name,
		  *reason ? ": " : "", reason);
	finish(o->g);
}

static void no_answer(struct gate_one *o, const struct error *err)
{
	bool allow = o->hook->conf->on_error == CONF_HOOK_ALLOW;

	o->hook->count.errors++;
	log_warn("gate %s: no answer about %s, which %s (on_error): %s", o->hook->conf->name,
		 o->g->event->job, allow ? "allows" : "refuses", err->msg);
	if (allow) {
		allowed(o);
		return;
	}
	error_set(&o->g->why, -EPERM, "gate-refused",
		  "gate %s has given no answer, which refuses (on_error): %.300s",
		  o->hook->conf->name, err->msg);
	finish(o->g);
}

static void ask(struct gate_one *o);

static void on_delay_over(void *arg)
{
	struct gate_one *o = arg;

	no_timer(&o->timer);
	ask(o);
}

static void wait_for(struct gate_one *o, uint64_t us)
{
	o->state = GATE_WAITING;
	o->next_us = clock_wall_us() + us;
	o->timer = loop_timer(o->g->hooks->loop, us, on_delay_over, o);
	if (!o->timer)
		refused(o, "out of memory");
}

/* The last question is asked when the limit is there; a gate that delays then has refused. */
static void delayed(struct gate_one *o, uint64_t us, const char *reason)
{
	uint64_t now = clock_us(), left = o->g->limit_at_us - MIN(now, o->g->limit_at_us);

	o->hook->count.delayed++;
	snprintf(o->reason, sizeof(o->reason), "%s", reason);
	if (!left) {
		o->hook->count.refused++;
		error_set(&o->g->why, -EPERM, "gate-refused",
			  "gate %s has delayed for too long (precopy_timeout_s)%s%s",
			  o->hook->conf->name, *reason ? ": " : "", reason);
		finish(o->g);
		return;
	}
	log_info("gate %s delays %s: %s", o->hook->conf->name, o->g->event->job, reason);
	us = MAX(us, (uint64_t)DELAY_LEAST_US);
	us = MIN(us, (uint64_t)DELAY_MOST_US);
	wait_for(o, MIN(us, left));
}

static void judge_exec(struct gate_one *o, const struct hook_answer *a)
{
	if (a->status == 0)
		allowed(o);
	else if (a->status == 75)
		delayed(o, DELAY_US, a->err.msg);
	else
		refused(o, a->err.msg);
}

/* {"decision": "allow|delay|refuse", "reason", "retry_after_s"}; what else is in it is not looked at. */
static void judge_json(struct gate_one *o, const struct hook_answer *a)
{
	json_t *j = json_loadb(a->body, a->len, 0, NULL);
	const char *decision = json_string_value(json_object_get(j, "decision"));
	const char *reason = json_string_value(json_object_get(j, "reason"));
	json_int_t after = json_integer_value(json_object_get(j, "retry_after_s"));
	struct error err = {0};

	reason = reason ? reason : "";
	if (decision && !strcmp(decision, "allow")) {
		allowed(o);
	} else if (decision && !strcmp(decision, "refuse")) {
		refused(o, reason);
	} else if (decision && !strcmp(decision, "delay")) {
		after = MIN(after, (json_int_t)3600);
		delayed(o, after > 0 ? (uint64_t)after * 1000000 : DELAY_US, reason);
	} else {
		error_set(&err, -EBADMSG, "hook-answer",
			  "its answer has no \"decision\" that is allow, delay or refuse");
		no_answer(o, &err);
	}
	json_decref(j);
}

static void on_answer(void *arg, const struct hook_answer *a)
{
	struct gate_one *o = arg;

	o->try = NULL;
	if (a->status < 0)
		no_answer(o, &a->err);
	else if (o->hook->conf->exec)
		judge_exec(o, a);
	else if (a->status == 200)
		judge_json(o, a);
	else if (a->status == 503 && a->has_retry_after)
		delayed(o, MIN(a->retry_after_s, 3600ull) * 1000000, a->err.msg);
	else
		no_answer(o, &a->err);
}

/* --- questions --- */

static void ask(struct gate_one *o)
{
	struct hook_event *e = o->g->event;
	struct error err = {0};

	if (!hook_try_room(o->hook) && clock_us() < o->g->limit_at_us) {
		wait_for(o, NO_ROOM_US);
		return;
	}
	o->state = GATE_ASKING;
	o->hook->count.asked++;
	o->try = hook_try(o->hook, e->body, e->len, on_answer, o, &err);
	if (!o->try)
		no_answer(o, &err);
}

bool hooks_gated(const struct hooks *h)
{
	for (size_t i = 0; h && i < h->n; i++)
		if (h->hook[i].conf->gate)
			return true;
	return false;
}

struct hooks_gate *hooks_gate_ask(struct hooks *h, const char *type, const char *job, json_t *data,
				  uint64_t limit_us, hooks_gate_fn *fn, void *arg)
{
	struct hooks_gate *g = calloc(1, sizeof(*g) + h->n * sizeof(g->one[0]));

	if (g)
		g->event = hook_event_new(h, type, job, data);
	json_decref(data);
	if (!g || !g->event) {
		free(g);
		return NULL;
	}
	g->hooks = h;
	g->fn = fn;
	g->arg = arg;
	g->since_us = clock_wall_us();
	g->limit_at_us = clock_us() + limit_us;
	for (size_t i = 0; i < h->n; i++)
		if (h->hook[i].conf->gate)
			g->one[g->n++] = (struct gate_one){.g = g, .hook = &h->hook[i]};
	for (size_t i = 0; i < g->n && !g->over; i++)
		ask(&g->one[i]);
	return g;
}

json_t *hooks_gate_json(const struct hooks_gate *g)
{
	char at[CLOCK_TEXT_MAX];

	for (size_t i = 0; g && i < g->n; i++) {
		const struct gate_one *o = &g->one[i];
		json_t *next = NULL;

		if (o->state == GATE_ALLOWED)
			continue;
		if (o->state == GATE_WAITING)
			next = json_string(clock_rfc3339(at, o->next_us));
		return json_pack("{s:s, s:s, s:s, s:s, s:o}", "hook", o->hook->conf->name, "state",
				 o->state == GATE_WAITING ? "delayed" : "asked", "reason",
				 o->reason, "since", clock_rfc3339(at, g->since_us),
				 "next_attempt_at", next ? next : json_null());
	}
	return json_null();
}
