/* SPDX-License-Identifier: Apache-2.0 */
/* The queues: what is told next, to whom, and what becomes of it. See hooks.h. */
#include "hooks/hooks.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "hooks/hooks_priv.h"
#include "util/cleanup.h"
#include "util/clock.h"
#include "util/log.h"

/* Longest pause between two attempts; also of what a server asks for. */
#define RETRY_MOST_US 60000000ull

/* --- one attempt --- */

bool hook_try_room(const struct hook *hook)
{
	return !hook->conf->exec || hook->hooks->execs < HOOKS_EXECS_MAX;
}

struct hook_try *hook_try(struct hook *hook, const char *body, size_t len, hook_done_fn *done,
			  void *arg, struct error *err)
{
	struct hook_try *t = hook->conf->exec ? hook_exec_try(hook, body, len, err)
					      : hook_http_try(hook, body, len, err);

	if (!t)
		return NULL;
	t->done = done;
	t->arg = arg;
	return t;
}

void hook_try_cancel(struct hook_try *t)
{
	if (t)
		t->ops->cancel(t);
}

/* --- the queue of a hook --- */

static void item_free(struct hook_item *it)
{
	hook_try_cancel(it->try);
	if (it->timer)
		event_free(it->timer);
	hook_event_unref(it->event);
	free(it);
}

/* The next one of its job moves up. */
static void item_remove(struct hook_item *it)
{
	struct hook *hook = it->hook;
	struct hook_item *next = it;

	while ((next = TAILQ_NEXT(next, link)))
		if (!strcmp(next->event->job, it->event->job)) {
			next->head = true;
			break;
		}
	TAILQ_REMOVE(&hook->items, it, link);
	hook->n_items--;
	item_free(it);
}

static bool first_of_job(const struct hook *hook, const char *job)
{
	const struct hook_item *it;

	TAILQ_FOREACH(it, &hook->items, link)
	if (!strcmp(it->event->job, job))
		return false;
	return true;
}

/* Takes over a reference to @e. */
static void queue(struct hook *hook, struct hook_event *e, bool spooled)
{
	const struct error full = {"queue-full", "too many events wait for this hook"};
	struct hook_item *it = hook->n_items < HOOKS_QUEUE ? calloc(1, sizeof(*it)) : NULL;

	if (!it) {
		hook->count.dropped++;
		hook->count.dead++;
		hook_spool_dead(hook->hooks, hook->conf->name, e, 0, &full);
		if (spooled)
			hook_spool_del(hook, e);
		hook_event_unref(e);
		return;
	}
	it->hook = hook;
	it->event = e;
	it->head = first_of_job(hook, e->job);
	TAILQ_INSERT_TAIL(&hook->items, it, link);
	hook->n_items++;
	if (!spooled)
		hook_spool_put(hook, e);
}

static void found(struct hook *hook, struct hook_event *e)
{
	queue(hook, e, true);
}

/* --- what becomes of an attempt --- */

/**
 * enum verdict - on an event
 * @TAKEN:	the hook has it
 * @AGAIN:	not now
 * @NEVER:	a further attempt would be answered the same
 */
enum verdict { TAKEN, AGAIN, NEVER };

static enum verdict judge(const struct hook *hook, const struct hook_answer *a)
{
	if (a->status < 0)
		return AGAIN;
	if (hook->conf->exec)
		return !a->status ? TAKEN : a->status == 75 ? AGAIN : NEVER;
	if (a->status >= 200 && a->status < 300)
		return TAKEN;
	return a->status >= 500 || a->status == 408 || a->status == 425 || a->status == 429 ? AGAIN
											    : NEVER;
}

/* Half of the pause is fixed, half is drawn: hosts that lost the same server do not come back together. */
static uint64_t pause_us(const struct hook_item *it, const struct hook_answer *a)
{
	uint64_t asked = MIN(a->retry_after_s, RETRY_MOST_US / 1000000) * 1000000, draw;
	uint64_t us = it->hook->conf->retry_ms * 1000ull;

	for (unsigned int i = 1; i < it->attempts && us < RETRY_MOST_US; i++)
		us *= 2;
	us = MIN(us, RETRY_MOST_US);
	fdio_random(&draw, sizeof(draw));
	us = us / 2 + draw % (us / 2 + 1);
	return a->has_retry_after ? MAX(us, asked) : us;
}

static void on_pause_over(void *arg)
{
	struct hook_item *it = arg;

	event_free(steal_ptr(&it->timer));
	hooks_kick(it->hook->hooks);
}

static void failed(struct hook_item *it, const struct hook_answer *a, bool for_good)
{
	struct hook *hook = it->hook;
	uint64_t us = pause_us(it, a);

	hook->count.failed++;
	if (!hook->failing)
		log_warn("hook %s: %s", hook->conf->name, a->err.msg);
	hook->failing = true;
	if (!for_good && it->attempts < hook->conf->attempts) {
		it->timer = loop_timer(hook->hooks->loop, us, on_pause_over, it);
		return; /* without memory for a timer it is tried when something else is */
	}
	hook->count.dead++;
	hook_spool_dead(hook->hooks, hook->conf->name, it->event, it->attempts, &a->err);
	hook_spool_del(hook, it->event);
	item_remove(it);
}

static void taken(struct hook_item *it)
{
	struct hook *hook = it->hook;

	hook->count.delivered++;
	if (hook->failing)
		log_notice("hook %s: takes events again", hook->conf->name);
	hook->failing = false;
	log_debug("hook %s: has taken %s of %s", hook->conf->name, it->event->type, it->event->job);
	hook_spool_del(hook, it->event);
	item_remove(it);
}

static void on_answer(void *arg, const struct hook_answer *a)
{
	struct hook_item *it = arg;
	struct hook *hook = it->hook;
	enum verdict v = judge(hook, a);

	it->try = NULL;
	hook->running--;
	if (v == TAKEN)
		taken(it);
	else
		failed(it, a, v == NEVER);
	hooks_kick(hook->hooks);
}

/* --- what is begun --- */

static void begin(struct hook_item *it)
{
	struct hook *hook = it->hook;
	struct hook_answer a = {.status = -1};

	it->attempts++;
	it->try = hook_try(hook, it->event->body, it->event->len, on_answer, it, &a.err);
	if (it->try)
		hook->running++;
	else
		failed(it, &a, false);
}

static void pump_hook(struct hook *hook)
{
	struct hook_item *it = TAILQ_FIRST(&hook->items), *next;

	for (; it && hook->running < HOOKS_AT_ONCE && hook_try_room(hook); it = next) {
		next = TAILQ_NEXT(it, link);
		if (it->head && !it->try && !it->timer)
			begin(it);
	}
}

static void pump(evutil_socket_t fd, short what, void *arg)
{
	struct hooks *h = arg;

	(void)fd;
	(void)what;
	for (size_t i = 0; i < h->n && !h->ending; i++)
		pump_hook(&h->hook[i]);
}

/* By the loop, not at once: whoever emits an event may be in the middle of a step. */
void hooks_kick(struct hooks *h)
{
	if (!h->ending)
		event_active(h->pump, EV_TIMEOUT, 0);
}

/* --- what is told --- */

/* A gate is asked; it is told only what it names. */
static bool wants(const struct hook *hook, const char *type)
{
	if (hook->conf->gate && !hook->conf->events)
		return false;
	return hook_event_match(hook->conf->events, type);
}

bool hooks_wanted(const struct hooks *h, const char *type)
{
	char full[HOOKS_TYPE_MAX + 8];

	snprintf(full, sizeof(full), "decant.%s", type);
	for (size_t i = 0; h && i < h->n; i++)
		if (wants(&h->hook[i], full))
			return true;
	return false;
}

void hooks_emit(struct hooks *h, const char *type, const char *job, json_t *data)
{
	struct hook_event *e =
		data && hooks_wanted(h, type) ? hook_event_new(h, type, job, data) : NULL;

	if (h && !e && hooks_wanted(h, type))
		log_error("hooks: out of memory: %s of %s is told nobody", type, job);
	json_decref(data);
	if (!e)
		return;
	for (size_t i = 0; i < h->n; i++) {
		if (!wants(&h->hook[i], e->type))
			continue;
		e->refs++;
		queue(&h->hook[i], e, false);
	}
	hook_event_unref(e);
	hooks_kick(h);
}

/* --- life --- */

static void set_origin(struct hooks *h)
{
	char host[256] = "";

	gethostname(host, sizeof(host) - 1);
	for (char *p = host; *p; p++)
		if (!strchr("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-", *p))
			*p = '-';
	snprintf(h->origin, sizeof(h->origin), "//%s/decant-%s", *host ? host : "localhost",
		 h->agent);
}

static int set_up(struct hooks *h, const struct conf_hooks *conf, struct error *err)
{
	int r = 0;

	for (size_t i = 0; i < conf->n; i++) {
		h->hook[i].hooks = h;
		h->hook[i].conf = &conf->hooks[i];
		h->hook[i].count.name = conf->hooks[i].name;
		TAILQ_INIT(&h->hook[i].items);
		h->n++;
	}
	for (size_t i = 0; !r && i < h->n; i++)
		if (h->hook[i].conf->url && !h->http)
			r = hook_http_new(h->loop, &h->http, err);
	h->pump = event_new(loop_base(h->loop), -1, 0, pump, h);
	if (!r && !h->pump)
		r = error_set(err, -ENOMEM, NULL, "out of memory");
	return r ? r : hooks_reload(h, err);
}

int hooks_new(struct loop *loop, const struct conf_hooks *conf, const char *agent,
	      const char *state_dir, struct hooks **ret, struct error *err)
{
	struct hooks *h;
	int r;

	*ret = NULL;
	if (!conf->n)
		return 0;
	h = calloc(1, sizeof(*h));
	if (h)
		h->hook = calloc(conf->n, sizeof(*h->hook));
	if (!h || !h->hook) {
		free(h);
		return error_set(err, -ENOMEM, NULL, "out of memory");
	}
	h->loop = loop;
	h->agent = agent;
	set_origin(h);
	r = set_up(h, conf, err);
	if (!r)
		r = hook_spool_open(h, state_dir, found, err);
	if (r < 0) {
		hooks_free(h);
		return r;
	}
	hooks_kick(h);
	*ret = h;
	return 0;
}

void hooks_free(struct hooks *h)
{
	struct hook_item *it;

	if (!h)
		return;
	h->ending = true;
	for (size_t i = 0; i < h->n; i++) {
		while ((it = TAILQ_FIRST(&h->hook[i].items))) {
			TAILQ_REMOVE(&h->hook[i].items, it, link);
			item_free(it);
		}
		explicit_bzero(h->hook[i].secret, sizeof(h->hook[i].secret));
		free(h->hook[i].dir);
	}
	hook_exec_forget(h);
	hook_http_free(h->http);
	if (h->pump)
		event_free(h->pump);
	free(h->hook);
	free(h->dir);
	free(h->dead_path);
	free(h);
}

int hooks_reload(struct hooks *h, struct error *err)
{
	int r = 0;

	for (size_t i = 0; h && i < h->n; i++) {
		struct error one = {0};
		int bad = hook_secret_load(&h->hook[i], &one);

		if (!bad)
			bad = hook_http_ca(&h->hook[i], &one);
		if (bad)
			error_prefix(&one, "hook %s", h->hook[i].conf->name);
		if (bad && !r)
			r = error_set(err, bad, one.code, "%s", one.msg);
	}
	return r;
}

size_t hooks_counts(const struct hooks *h, struct hooks_count *ret, size_t n)
{
	for (size_t i = 0; h && i < h->n && i < n; i++) {
		ret[i] = h->hook[i].count;
		ret[i].waiting = h->hook[i].n_items;
	}
	return h ? h->n : 0;
}
