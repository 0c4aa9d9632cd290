/* SPDX-License-Identifier: Apache-2.0 */
#include "api_evac.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "evac.h"
#include "home.h"
#include "host/cordon.h"
#include "util/cleanup.h"
#include "util/clock.h"
#include "util/log.h"

static int status_of(int r)
{
	switch (r) {
	case -EBUSY:
	case -EALREADY:
		return 409;
	case -EINVAL:
	case -ERANGE:
		return 400;
	case -ENOTSUP:
		return 422;
	default:
		return 500;
	}
}

/* --- evacuations --- */

/** struct wanted - a body, taken apart; what it says of addresses borrows from it */
struct wanted {
	struct evac_wish wish;
	enum mig_mode mode;
	bool has_mode;
};

static int bad(struct error *err, const char *key, const char *what)
{
	return error_set(err, -EINVAL, "bad-value", "body.%s: %s is needed", key, what);
}

static int take_to(struct evac_wish *w, const json_t *v, struct error *err)
{
	size_t i;
	json_t *one;

	if (!json_array_size(v) || json_array_size(v) > EVAC_HOSTS_MAX)
		return error_set(err, -EINVAL, "bad-value",
				 "body.to: an array of 1 to %d addresses is needed",
				 EVAC_HOSTS_MAX);
	json_array_foreach(v, i, one) {
		if (!json_is_string(one))
			return bad(err, "to", "an array of strings");
		w->to[w->n_to++] = json_string_value(one);
	}
	return 0;
}

static int take_number(const json_t *v, const char *key, uint64_t min, uint64_t max, uint64_t *ret,
		       struct error *err)
{
	json_int_t n = json_integer_value(v);

	if (!json_is_integer(v) || n < 0 || (uint64_t)n < min || (uint64_t)n > max)
		return error_set(err, -EINVAL, "bad-value",
				 "body.%s: a whole number from %llu to %llu is needed", key,
				 (unsigned long long)min, (unsigned long long)max);
	*ret = (uint64_t)n;
	return 0;
}

static int take_member(struct wanted *v, const char *key, const json_t *value, struct error *err)
{
	struct evac_wish *w = &v->wish;
	uint64_t n = w->concurrency;
	int r = 0;

	if (!strcmp(key, "to"))
		return take_to(w, value, err);
	if (!strcmp(key, "concurrency")) {
		r = take_number(value, key, 1, EVAC_CONCURRENCY_MAX, &n, err);
		w->concurrency = (unsigned int)n;
	} else if (!strcmp(key, "bandwidth")) {
		r = take_number(value, key, 0, INT64_MAX, &w->bandwidth, err);
	} else if (!strcmp(key, "order")) {
		r = json_is_string(value)
			    ? evac_order_parse(json_string_value(value), &w->order, err)
			    : bad(err, key, "a string");
	} else if (!strcmp(key, "dry_run")) {
		w->dry_run = json_is_true(value);
		r = json_is_boolean(value) ? 0 : bad(err, key, "true or false");
	} else if (!strcmp(key, "mode")) {
		v->has_mode = true;
		r = json_is_string(value)
			    ? conf_options_mode_parse(json_string_value(value), &v->mode, err)
			    : bad(err, key, "a string");
	} else if (!strcmp(key, "options")) {
		r = conf_options_read(value, "options", &w->options, err);
	} else {
		r = error_set(err, -EINVAL, "unknown-key", "body: unknown key %s", key);
	}
	return r;
}

static int read_wish(const struct source *s, const json_t *body, struct evac_wish *ret,
		     struct error *err)
{
	struct wanted v = {.wish = {.concurrency = EVAC_CONCURRENCY, .options = s->conf.defaults}};
	const char *key;
	json_t *value;

	json_object_foreach((json_t *)body, key, value) {
		int r = take_member(&v, key, value, err);

		if (r < 0)
			return r;
	}
	if (!v.wish.n_to)
		return error_set(err, -EINVAL, "missing-key", "body.to is missing");
	if (v.has_mode)
		v.wish.options.mode = v.mode;
	*ret = v.wish;
	return 0;
}

static void reply_accepted(struct rest_req *req, const struct evac *e)
{
	char where[128];

	snprintf(where, sizeof(where), "/v1/evacuations/%s", evac_id(e));
	rest_add_header(req, "Location", where);
	rest_reply(req, 202, evac_json(e));
}

/* A client that never saw the answer asks again. Return: whether that was the answer */
static bool answer_repeat(struct rest_req *req, struct source *s, const struct evac_wish *w)
{
	const struct evac *e = w->key ? evac_find_key(s, w->key) : NULL;

	if (!e)
		return false;
	if (evac_asked_so(e, w->asked))
		reply_accepted(req, e);
	else
		rest_problemf(req, 422, "key-reused",
			      "this Idempotency-Key has made evacuation %s, which was asked for "
			      "otherwise",
			      evac_id(e));
	return true;
}

void api_post_evacuations(struct rest_req *req, void *ctx)
{
	struct source *s = ctx;
	struct evac_wish w;
	struct error err = {0};
	struct evac *e;
	int r = read_wish(s, rest_body(req), &w, &err);

	w.key = rest_header(req, "Idempotency-Key");
	w.asked = rest_request_digest(req);
	if (!r && answer_repeat(req, s, &w))
		return;
	if (!r)
		r = evac_new(s, &w, &e, &err);
	if (r < 0)
		rest_problem(req, status_of(r), &err);
	else
		reply_accepted(req, e);
}

void api_get_evacuations(struct rest_req *req, void *ctx)
{
	rest_reply_list(req, evacs_json(ctx), "id");
}

static struct evac *evac_of(struct rest_req *req, struct source *s)
{
	struct evac *e = evac_find(s, rest_param(req, "id"));

	if (!e)
		rest_problemf(req, 404, "no-such-evacuation", "no evacuation has the id %s",
			      rest_param(req, "id"));
	return e;
}

void api_get_evacuation(struct rest_req *req, void *ctx)
{
	const struct evac *e = evac_of(req, ctx);

	if (e)
		rest_reply(req, 200, evac_json(e));
}

void api_post_evacuation_cancel(struct rest_req *req, void *ctx)
{
	struct evac *e = evac_of(req, ctx);
	struct error err = {0};
	int r;

	if (!e)
		return;
	r = evac_cancel(e, &err);
	if (r < 0)
		rest_problem(req, status_of(r), &err);
	else
		rest_reply(req, 202, evac_json(e));
}

/* --- the cordon --- */

json_t *api_cordon_json(const struct source *s)
{
	char at[CLOCK_TEXT_MAX];
	struct cordon c;

	if (!cordon_read(s->conf.agent.cordon_file, &c))
		return json_null();
	return json_pack("{s:o, s:o}", "since",
			 c.since_us ? json_string(clock_rfc3339(at, c.since_us)) : json_null(),
			 "by", *c.by ? json_string(c.by) : json_null());
}

/* The order is on the disk; what decant-dest of this host makes of it is said with the answer. */
static void answer_cordon(struct rest_req *req, struct source *s, const struct home *h)
{
	json_t *o = json_pack(
		"{s:b, s:o, s:o}", "cordoned", cordon_holds(s->conf.agent.cordon_file), "cordon",
		api_cordon_json(s), "dest",
		h ? json_pack("{s:s, s:o, s:i, s:i}", "state", home_state_name(h->state), "reason",
			      error_is_set(&h->why) ? json_string(h->why.msg) : json_null(),
			      "arriving", (int)h->arriving, "held", (int)h->held)
		  : json_null());

	rest_reply(req, 200, o);
}

/** struct ordered - an answer that waits for decant-dest's word */
struct ordered {
	struct source *s;
	struct rest_req *req;
};

static void on_home(void *arg, const struct home *h)
{
	CLEANUP_FREE struct ordered *o = arg;

	if (h->state == HOME_UNSEEN)
		rest_problem(o->req, 409, &h->why);
	else
		answer_cordon(o->req, o->s, h);
}

static int order_cordon(struct source *s, bool on, struct error *err)
{
	struct cordon c = {.since_us = clock_wall_us(), .by = "operator"};
	const struct evac *e = evac_active(s);

	if (!on && e)
		return error_set(err, -EBUSY, "evacuation-running",
				 "evacuation %s is under way: decant cancel %s comes first",
				 evac_id(e), evac_id(e));
	log_notice("the host is %s", on ? "cordoned" : "not cordoned any more");
	return on ? cordon_set(s->conf.agent.cordon_file, &c, err)
		  : cordon_lift(s->conf.agent.cordon_file, err);
}

void api_put_cordon(struct rest_req *req, void *ctx)
{
	struct source *s = ctx;
	struct ordered *o;
	struct error err = {0};
	const char *key;
	json_t *value;
	bool on = true;
	int r = 0;

	json_object_foreach((json_t *)rest_body(req), key, value) {
		if (strcmp(key, "cordoned") != 0)
			r = error_set(&err, -EINVAL, "unknown-key", "body: unknown key %s", key);
		else if (!json_is_boolean(value))
			r = error_set(&err, -EINVAL, "bad-value",
				      "body.cordoned: true or false is needed");
		on = json_is_true(value);
	}
	if (!r)
		r = order_cordon(s, on, &err);
	if (r < 0) {
		rest_problem(req, status_of(r), &err);
		return;
	}
	o = on ? calloc(1, sizeof(*o)) : NULL;
	if (o)
		*o = (struct ordered){.s = s, .req = req};
	if (o && home_ask(s, on_home, o))
		return;
	free(o);
	answer_cordon(req, s, NULL);
}
