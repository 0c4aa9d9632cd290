/* SPDX-License-Identifier: Apache-2.0 */
#include "home.h"

#include <errno.h>
#include <stdlib.h>

#include "util/cleanup.h"

/* It answers at once, or it has other worries. */
#define ASK_TIMEOUT_MS 2000

/**
 * struct home_ask - a question under way
 * @call:	NULL if there is nobody to be asked
 * @timer:	then: the answer comes by itself
 */
struct home_ask {
	struct source *s;
	home_fn *fn;
	void *arg;
	struct rest_call *call;
	struct event *timer;
	struct home answer;
};

const char *home_state_name(enum home_state s)
{
	static const char *const names[] = {
		[HOME_NONE] = "none",
		[HOME_AWAY] = "unreachable",
		[HOME_UNSEEN] = "not-seen",
		[HOME_CORDONED] = "cordoned",
	};

	return names[s];
}

static unsigned int number(const json_t *o, const char *key)
{
	json_int_t n = json_integer_value(json_object_get(o, key));

	return n > 0 && n < 1000000 ? (unsigned int)n : 0;
}

static void take(struct home *h, const struct source *s, const json_t *o)
{
	const json_t *guests = json_object_get(o, "guests");

	h->arriving = number(guests, "arriving");
	h->held = number(guests, "held");
	h->resident = number(guests, "resident");
	h->micro = number(guests, "micro");
	h->state = json_is_true(json_object_get(o, "cordoned")) ? HOME_CORDONED : HOME_UNSEEN;
	if (h->state == HOME_UNSEEN)
		error_set(
			&h->why, -ENOENT, "cordon-not-seen",
			"decant-dest at %s does not see the cordon in %s: give both agents of this "
			"host the same cordon_file (or state_dir)",
			s->conf.dest_api, s->conf.agent.cordon_file);
}

static void tell(struct home_ask *own)
{
	CLEANUP_FREE struct home_ask *a = own;

	if (a->timer)
		event_free(a->timer);
	a->fn(a->arg, &a->answer);
}

static void on_timer(void *arg)
{
	tell(arg);
}

static void on_answer(void *arg, int ret, const struct rest_answer *r, const struct error *err)
{
	struct home_ask *a = arg;

	a->call = NULL;
	if (!ret && r->status == 200)
		take(&a->answer, a->s, r->json);
	else
		a->answer.why = ret ? *err : r->problem;
	tell(a);
}

struct home_ask *home_ask(struct source *s, home_fn *fn, void *arg)
{
	struct home_ask *a = calloc(1, sizeof(*a));

	if (!a)
		return NULL;
	*a = (struct home_ask){.s = s, .fn = fn, .arg = arg};
	a->answer.state = s->conf.dest_api ? HOME_AWAY : HOME_NONE;
	if (s->conf.dest_api &&
	    !rest_call_start(loop_base(s->loop),
			     &(struct rest_call_spec){.api = s->conf.dest_api,
						      .method = "GET",
						      .path = "/v1/host",
						      .timeout_ms = ASK_TIMEOUT_MS},
			     on_answer, a, &a->call, &a->answer.why))
		return a;
	a->timer = loop_timer(s->loop, 0, on_timer, a);
	if (a->timer)
		return a;
	free(a);
	return NULL;
}

void home_cancel(struct home_ask *a)
{
	if (!a)
		return;
	rest_call_cancel(a->call);
	if (a->timer)
		event_free(a->timer);
	free(a);
}
