/* SPDX-License-Identifier: Apache-2.0 */
#include "api.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "audit/audit_rest.h"
#include "api_image.h"
#include "history.h"
#include "host/host_probe.h"
#include "incoming.h"
#include "micro.h"
#include "host/cordon.h"
#include "overrule.h"
#include "rest/rest_doc.h"
#include "rest/rest_events.h"
#include "rest/rest_metrics.h"
#include "rest/rest_open.h"
#include "room.h"
#include "util/cleanup.h"
#include "util/clock.h"

static void get_health(struct rest_req *req, void *ctx)
{
	const struct dest *d = ctx;
	char since[CLOCK_TEXT_MAX];

	rest_reply(req, 200,
		   json_pack("{s:s, s:s, s:s, s:s, s:o}", "status", d->ending ? "ending" : "ok",
			     "agent", "dest", "version", DECANT_VERSION, "started_at",
			     clock_rfc3339(since, d->started_us), "you", rest_peer_json(req)));
}

static json_t *launchers_json(const struct dest *d)
{
	json_t *o = json_object();

	for (size_t i = 0; o && i < d->conf.n_launchers; i++)
		json_object_set_new(o, d->conf.launchers[i].name,
				    json_pack("{s:s}", "driver",
					      conf_guest_driver_name(d->conf.launchers[i].driver)));
	return o;
}

static void get_host(struct rest_req *req, void *ctx)
{
	const struct dest *d = ctx;
	json_t *o = host_probe_json(false);
	char name[256] = "";

	gethostname(name, sizeof(name) - 1);
	if (!o) {
		rest_problemf(req, 500, NULL, "out of memory");
		return;
	}
	json_object_set_new(o, "name", json_string(name));
	json_object_set_new(o, "agent", json_string("dest"));
	json_object_set_new(o, "version", json_string(DECANT_VERSION));
	json_object_set_new(o, "attach", json_string(d->conf.agent.attach));
	json_object_set_new(o, "launchers", launchers_json(d));
	json_object_set_new(o, "cordoned", json_boolean(cordon_holds(d->conf.agent.cordon_file)));
	json_object_set_new(o, "guests", room_guests_json(d));
	rest_reply(req, 200, o);
}

/* --- incoming --- */

/* One of an earlier life, of which nothing but its records is known. */
static json_t *from_records(const struct past *p)
{
	static const char *const phases[] = {
		[HISTORY_SETUP] = "unknown",   [HISTORY_MAY_OWN] = "unknown",
		[HISTORY_OWNER] = "held",      [HISTORY_COMPLETED] = "completed",
		[HISTORY_ABORTED] = "aborted", [HISTORY_GONE] = "failed",
	};
	const char *phase = p->same_boot || history_ended(p) ? phases[p->fate] : "unknown";
	char at[CLOCK_TEXT_MAX];
	json_int_t created = json_integer_value(json_object_get(p->facts, "created"));

	/* The host went down meanwhile, and the guest with it. */
	if (!p->same_boot && p->fate == HISTORY_OWNER)
		phase = "failed";
	return json_pack("{s:s, s:s, s:O, s:s, s:O, s:O, s:s, s:n, s:n, s:n, s:n, s:[], s:n}", "id",
			 p->id, "guest", p->name, "uuid", json_object_get(p->facts, "uuid"),
			 "phase", phase, "from", json_object_get(p->facts, "from"), "identity",
			 json_object_get(p->facts, "identity"), "created_at",
			 clock_rfc3339(at, (uint64_t)created), "ended_at", "error", "memory",
			 "postcopy", "channels", "digest_ok");
}

static json_t *past_json(const struct past *p)
{
	json_t *o = p->view ? json_loads(p->view, 0, NULL) : from_records(p);

	if (o && p->overruled)
		json_object_set_new(o, "error", overrule_json(p));
	return o;
}

static void get_incomings(struct rest_req *req, void *ctx)
{
	const struct dest *d = ctx;
	json_t *items = json_array();

	for (const struct incoming *inc = d->incomings; items && inc; inc = incoming_next(inc))
		json_array_append_new(items, incoming_view(inc));
	for (const struct micro *m = d->micros; items && m; m = micro_next(m))
		if (micro_find(d, micro_id(m)))
			json_array_append_new(items, micro_view(m));
	for (const struct past *p = history_first(d->history); items && p; p = p->next)
		if (!p->live)
			json_array_append_new(items, past_json(p));
	rest_reply_list(req, items, "id");
}

static void get_incoming(struct rest_req *req, void *ctx)
{
	struct dest *d = ctx;
	const char *id = rest_param(req, "id");
	uint8_t raw[UUID_LEN];
	const struct incoming *inc = uuid_parse(id, raw) ? NULL : incoming_find(d, raw);
	const struct micro *m = inc ? NULL : micro_find(d, id);
	const struct past *p = inc || m ? NULL : history_find(d->history, id);

	if (inc)
		rest_reply(req, 200, incoming_view(inc));
	else if (m)
		rest_reply(req, 200, micro_view(m));
	else if (p)
		rest_reply(req, 200, past_json(p));
	else
		rest_problemf(req, 404, "no-such-incoming", "no incoming migration has the id %s",
			      id);
}

static void get_metrics(struct rest_req *req, void *ctx)
{
	const struct dest *d = ctx;

	rest_metrics_reply(d->metrics, req);
}

static void get_events(struct rest_req *req, void *ctx)
{
	const struct dest *d = ctx;

	rest_events_serve(d->events, req);
}

static void audit_answer(void *ctx, const struct rest_req *req, int status, const char *code,
			 const json_t *answer)
{
	const struct dest *d = ctx;

	audit_request(d->audit, req, status, code, answer);
}

static const struct rest_route routes[] = {
	{"GET", "/v1/health", REST_READER, REST_BODY_NONE, get_health},
	{"GET", "/v1/host", REST_READER, REST_BODY_NONE, get_host},
	{"GET", "/v1/incoming", REST_READER, REST_BODY_NONE, get_incomings},
	{"GET", "/v1/incoming/{id}", REST_READER, REST_BODY_NONE, get_incoming},
	{"GET", "/v1/snapshots", REST_READER, REST_BODY_NONE, api_get_snapshots},
	{"POST", "/v1/snapshots", REST_OPERATOR, REST_BODY_OBJECT, api_post_snapshots},
	{"GET", "/v1/snapshots/{id}", REST_READER, REST_BODY_NONE, api_get_snapshot},
	{"POST", "/v1/snapshots/{id}/restore", REST_OPERATOR, REST_BODY_OBJECT, api_post_restore},
	{"POST", "/v1/snapshots/{id}/uffd", REST_OPERATOR, REST_BODY_OBJECT, api_post_uffd},
	{"GET", "/v1/events", REST_READER, REST_DOCUMENT, get_events},
	{"GET", "/metrics", REST_READER, REST_DOCUMENT, get_metrics},
	{"GET", "/openapi.json", REST_PUBLIC, REST_DOCUMENT, rest_doc_openapi},
	{"GET", "/", REST_PUBLIC, REST_DOCUMENT, rest_doc_page},
};

int api_listen(struct dest *d, struct error *err)
{
	struct rest_open_spec spec = {
		.loop = d->loop,
		.routes = routes,
		.n = ARRAY_SIZE(routes),
		.conf = &d->conf.agent,
		.agent = "dest",
		.answered = audit_answer,
		.ctx = d,
	};

	d->events = rest_events_new(d->loop, incoming_show, d);
	if (!d->events)
		return error_set(err, -ENOMEM, NULL, "out of memory");
	return rest_open(&spec, &d->rest, err);
}
