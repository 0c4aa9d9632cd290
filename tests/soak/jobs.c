/* SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>
#include <string.h>
#include "lib/lab_job.h"
#include "soak/world.h"

/* Longer than a busy machine takes to send what precopy has left. */
#define SWITCH_MS 20000

static json_t *request(struct soak_world *w, struct soak_guest *g, const char *to)
{
	const struct soak_move *m = &w->plan.moves[g - w->guests];
	json_t *options = json_pack("{s:s, s:s, s:i, s:b, s:i, s:i, s:i, s:i}", "tracking",
				    m->tracking, "no_convergence", m->no_convergence, "channels",
				    (int)m->channels, "urgent", m->urgent, "max_passes",
				    (int)m->max_passes, "downtime_limit_ms", (int)m->downtime_ms,
				    "precopy_timeout_s", 5, "switchover_timeout_ms", SWITCH_MS);

	if (m->last_ms)
		json_object_set_new(options, "bandwidth",
				    json_integer((json_int_t)(g->bytes * 1000 / m->last_ms)));
	if (m->compression)
		json_object_set_new(options, "compression", json_string(m->compression));
	return json_pack("{s:s, s:s, s:s, s:o}", "guest", g->g->name, "to", to ? to : g->to->to,
			 "mode", m->mode, "options", options);
}

int soak_job_post(struct soak_world *w, struct soak_guest *g, const char *to, const char *key,
		  char **ret_body)
{
	json_t *o = request(w, g, to);
	char *body = json_dumps(o, 0), *text;
	int n = asprintf(&text,
			 "POST /v1/migrations HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
			 "Content-Type: application/json\r\n%s%s%sContent-Length: %zu\r\n\r\n%s",
			 key ? "Idempotency-Key: " : "", key ? key : "", key ? "\r\n" : "",
			 strlen(body), body);
	int status = lab_http_raw(g->from->source_sock, text, (size_t)n, ret_body);

	free(text);
	free(body);
	json_decref(o);
	return status;
}

static void take_id(struct soak_world *w, struct soak_guest *g, const char *body)
{
	json_t *o = json_loads(body, 0, NULL);

	lab_check(w->lab, o, "not JSON: %s", body);
	snprintf(g->id, sizeof(g->id), "%s", lab_str(w->lab, o, "id"));
	json_decref(o);
}

/* A client that has lost its answer asks again with its key, one that does not know what it has done without. */
static void twice(struct soak_world *w, struct soak_guest *g, const char *key)
{
	char *body = NULL, first[64];
	int status;

	memcpy(first, g->id, sizeof(first));
	status = soak_job_post(w, g, NULL, key, &body);
	lab_check(w->lab, status == 202, "asked again: %d: %s", status, body);
	take_id(w, g, body);
	lab_check(w->lab, !strcmp(first, g->id), "it is another job");
	free(body);
	body = NULL;
	status = soak_job_post(w, g, NULL, NULL, &body);
	lab_check(w->lab, status == 409, "moved twice at a time: %d: %s", status, body);
	free(body);
}

void soak_job_begin(struct soak_world *w, struct soak_guest *g, const char *to)
{
	char *body = NULL, key[96];
	int status;

	snprintf(key, sizeof(key), "%lx-%u-%s", w->plan.seed, w->jobs, g->g->name);
	g->seen = false;
	status = soak_job_post(w, g, to, key, &body);
	lab_check(w->lab, status == 202, "migration of %s: %d: %s", g->g->name, status,
		  body ? body : "");
	take_id(w, g, body);
	free(body);
	w->jobs++;
	if (w->plan.fault == SOAK_TWICE)
		twice(w, g, key);
}

json_t *soak_job_get(struct soak_world *w, struct soak_guest *g)
{
	char path[96], *body = NULL;
	json_t *o = NULL;
	int status;

	snprintf(path, sizeof(path), "/v1/migrations/%s", g->id);
	status = lab_http(g->from->source_sock, "GET", path, NULL, &body);
	lab_check(w->lab, status < 0 || status == 200, "job %s of %s: %d: %s", g->id, g->g->name,
		  status, body ? body : "");
	if (status == 200) {
		o = json_loads(body, 0, NULL);
		lab_check(w->lab, o, "not JSON: %s", body);
		g->seen |= !strcmp(lab_str(w->lab, o, "owner"), "destination");
	}
	free(body);
	return o;
}

int soak_job_order(struct soak_guest *g, const char *what)
{
	char path[128];

	snprintf(path, sizeof(path), "/v1/migrations/%s/%s", g->id, what);
	return lab_http(g->from->source_sock, "POST", path, "{}", NULL);
}

static enum soak_when when_of(const char *phase)
{
	if (!strcmp(phase, "queued") || !strcmp(phase, "setup"))
		return SOAK_SETUP;
	if (!strcmp(phase, "precopy"))
		return SOAK_PRECOPY;
	return !strcmp(phase, "switchover") ? SOAK_SWITCH : SOAK_POSTCOPY;
}

bool soak_job_reached(struct soak_world *w, struct soak_guest *g, enum soak_when when)
{
	json_t *o = soak_job_get(w, g);
	bool reached = o && when_of(lab_str(w->lab, o, "phase")) >= when;

	json_decref(o);
	return reached;
}

bool soak_job_ended(struct soak_world *w, struct soak_guest *g)
{
	json_t *o = soak_job_get(w, g), *error = o ? lab_at(o, "error") : NULL;
	bool ended = o && json_is_string(lab_at(o, "ended_at"));

	if (ended) {
		snprintf(g->phase, sizeof(g->phase), "%s", lab_str(w->lab, o, "phase"));
		snprintf(g->code, sizeof(g->code), "%s",
			 json_is_object(error) ? lab_str(w->lab, error, "code") : "");
	}
	json_decref(o);
	return ended;
}
