/* SPDX-License-Identifier: Apache-2.0 */
/* The REST interface of decant-source: its routes, and what is asked of the host itself. */
#include "api.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "api_evac.h"
#include "audit/audit_rest.h"
#include "bandwidth.h"
#include "host/cordon.h"
#include "host/host_probe.h"
#include "migration.h"
#include "rest/rest_doc.h"
#include "rest/rest_events.h"
#include "rest/rest_open.h"
#include "source.h"
#include "util/cleanup.h"
#include "util/clock.h"

int api_status(int r)
{
	switch (r) {
	case -ENOENT:
		return 404;
	case -EBUSY:
	case -EALREADY:
	case -EEXIST:
		return 409;
	case -EINVAL:
	case -ERANGE:
		return 400;
	case -EOPNOTSUPP:
		return 422;
	default:
		return 500;
	}
}

static void get_health(struct rest_req *req, void *ctx)
{
	const struct source *s = ctx;
	char since[CLOCK_TEXT_MAX];

	rest_reply(req, 200,
		   json_pack("{s:s, s:s, s:s, s:s, s:o}", "status", "ok", "agent", "source",
			     "version", DECANT_VERSION, "started_at",
			     clock_rfc3339(since, s->started_us), "you", rest_peer_json(req)));
}

static void get_host(struct rest_req *req, void *ctx)
{
	const struct source *s = ctx;
	char name[256] = "";
	json_t *o = host_probe_json(false);

	gethostname(name, sizeof(name) - 1);
	if (!o) {
		rest_problemf(req, 500, NULL, "out of memory");
		return;
	}
	json_object_set_new(o, "name", json_string(name));
	json_object_set_new(o, "agent", json_string("source"));
	json_object_set_new(o, "version", json_string(DECANT_VERSION));
	json_object_set_new(o, "attach", json_string(s->conf.agent.attach));
	json_object_set_new(o, "bandwidth", bandwidth_json(s));
	json_object_set_new(o, "cordoned", json_boolean(cordon_holds(s->conf.agent.cordon_file)));
	json_object_set_new(o, "cordon", api_cordon_json(s));
	rest_reply(req, 200, o);
}

static void get_events(struct rest_req *req, void *ctx)
{
	const struct source *s = ctx;

	rest_events_serve(s->events, req);
}

static void audit_answer(void *ctx, const struct rest_req *req, int status, const char *code,
			 const json_t *answer)
{
	const struct source *s = ctx;

	audit_request(s->audit, req, status, code, answer);
}

static const struct rest_route routes[] = {
	{"GET", "/v1/health", REST_READER, REST_BODY_NONE, get_health},
	{"GET", "/v1/host", REST_READER, REST_BODY_NONE, get_host},
	{"GET", "/v1/guests", REST_READER, REST_BODY_NONE, api_get_guests},
	{"POST", "/v1/guests", REST_OPERATOR, REST_BODY_OBJECT, api_post_guests},
	{"GET", "/v1/guests/{name}", REST_READER, REST_BODY_NONE, api_get_guest},
	{"DELETE", "/v1/guests/{name}", REST_OPERATOR, REST_BODY_NONE, api_delete_guest},
	{"GET", "/v1/migrations", REST_READER, REST_BODY_NONE, api_get_migrations},
	{"POST", "/v1/migrations", REST_OPERATOR, REST_BODY_OBJECT, api_post_migrations},
	{"GET", "/v1/migrations/{id}", REST_READER, REST_BODY_NONE, api_get_migration},
	{"POST", "/v1/migrations/{id}/cancel", REST_OPERATOR, REST_BODY_NONE, api_post_cancel},
	{"POST", "/v1/migrations/{id}/switchover", REST_OPERATOR, REST_BODY_NONE,
	 api_post_switchover},
	{"POST", "/v1/migrations/{id}/recover", REST_OPERATOR, REST_BODY_OBJECT, api_post_recover},
	{"POST", "/v1/migrations/{id}/resolve", REST_OPERATOR, REST_BODY_OBJECT, api_post_resolve},
	{"GET", "/v1/evacuations", REST_READER, REST_BODY_NONE, api_get_evacuations},
	{"POST", "/v1/evacuations", REST_OPERATOR, REST_BODY_OBJECT, api_post_evacuations},
	{"GET", "/v1/evacuations/{id}", REST_READER, REST_BODY_NONE, api_get_evacuation},
	{"POST", "/v1/evacuations/{id}/cancel", REST_OPERATOR, REST_BODY_NONE,
	 api_post_evacuation_cancel},
	{"GET", "/v1/snapshots", REST_READER, REST_BODY_NONE, api_get_snapshots},
	{"POST", "/v1/snapshots", REST_OPERATOR, REST_BODY_OBJECT, api_post_snapshots},
	{"GET", "/v1/snapshots/{id}", REST_READER, REST_BODY_NONE, api_get_snapshot},
	{"POST", "/v1/snapshots/{id}/cancel", REST_OPERATOR, REST_BODY_NONE,
	 api_post_snapshot_cancel},
	{"GET", "/v1/events", REST_READER, REST_DOCUMENT, get_events},
	{"GET", "/v1/host/bandwidth", REST_READER, REST_BODY_NONE, api_get_bandwidth},
	{"PUT", "/v1/host/bandwidth", REST_OPERATOR, REST_BODY_OBJECT, api_put_bandwidth},
	{"PUT", "/v1/host/cordon", REST_OPERATOR, REST_BODY_OBJECT, api_put_cordon},
	{"GET", "/metrics", REST_READER, REST_DOCUMENT, api_get_metrics},
	{"GET", "/openapi.json", REST_PUBLIC, REST_DOCUMENT, rest_doc_openapi},
	{"GET", "/", REST_PUBLIC, REST_DOCUMENT, rest_doc_page},
};

int api_listen(struct source *s, struct error *err)
{
	struct rest_open_spec spec = {
		.loop = s->loop,
		.routes = routes,
		.n = ARRAY_SIZE(routes),
		.conf = &s->conf.agent,
		.agent = "source",
		.answered = audit_answer,
		.ctx = s,
	};

	s->events = rest_events_new(s->loop, migrations_show, s);
	if (!s->events)
		return error_set(err, -ENOMEM, NULL, "out of memory");
	return rest_open(&spec, &s->rest, err);
}
