/* SPDX-License-Identifier: Apache-2.0 */
/* An agent whose answers are written down here, and commands that are run against it. */
#ifndef DECANT_TESTS_CLI_FIXTURE_H
#define DECANT_TESTS_CLI_FIXTURE_H

#include <criterion/redirect.h>
#include <fcntl.h>
#include <sys/wait.h>
#include "cli/cli.h"
#include "unit/rest_fixture.h"
#include "util/cleanup.h"

#define ID "0123abcd-0000-4000-8000-000000000001"

/**
 * struct fake - the agent
 * @phases:	what a migration says when it is looked at, one after the other; the last stays
 * @looks:	how often that was
 * @posted:	body of the last POST
 * @orders:	paths of POSTs to a migration
 * @evacuates:	it lists an evacuation, too
 */
struct fake {
	struct fixture f;
	const char *const *phases;
	size_t looks;
	json_t *posted;
	char key[64];
	char orders[200];
	bool evacuates;
};

static inline json_t *migration(const char *id, const char *phase)
{
	json_t *err = strcmp(phase, "failed") != 0
			      ? json_null()
			      : json_pack("{s:s, s:s}", "code", "not-converging", "message",
					  "30 passes did not suffice");

	return json_pack(
		"{s:s, s:s, s:s, s:s, s:s, s:s, s:o, s:{s:I, s:I, s:I, s:i}, s:I, s:i, s:i}", "id",
		id, "guest", "demo", "to", "host-b:7400", "mode", "hybrid", "phase", phase, "owner",
		"source", "error", err, "memory", "total_bytes", (json_int_t)1 << 30,
		"remaining_bytes", (json_int_t)1 << 29, "sent_bytes", (json_int_t)3 << 29, "passes",
		2, "rate_bytes_per_s", (json_int_t)125000000, "eta_s", 4, "downtime_us", 12300);
}

static inline void get_migration(struct rest_req *req, void *ctx)
{
	struct fake *k = ctx;

	if (strcmp(rest_param(req, "id"), ID) != 0) {
		rest_problemf(req, 404, "no-such-migration", "no such migration");
		return;
	}
	rest_reply(req, 200, migration(ID, k->phases[k->looks]));
	k->looks += k->phases[k->looks + 1] != NULL;
}

static inline void get_migrations(struct rest_req *req, void *ctx)
{
	struct fake *k = ctx;
	json_t *items = json_array();

	json_array_append_new(items, migration(ID, k->phases[k->looks]));
	json_array_append_new(items, migration("0123abcd-0000-4000-8000-000000000002", "failed"));
	json_array_append_new(items,
			      migration("9999abcd-0000-4000-8000-000000000003", "cancelled"));
	k->looks += k->phases[k->looks + 1] != NULL;
	rest_reply_list(req, items, "id");
}

#define SNAPSHOT_ID "5a5a0000-0000-4000-8000-000000000004"

/* One snapshot, younger than the migrations, which have no time. */
static inline json_t *snapshot(const char *phase)
{
	json_t *o = migration(SNAPSHOT_ID, phase);

	json_object_del(o, "mode");
	json_object_del(o, "owner");
	json_object_set_new(o, "name", json_string("monday"));
	json_object_set_new(o, "created_at", json_string("2026-01-01T00:00:00Z"));
	return o;
}

static inline void get_snapshots(struct rest_req *req, void *ctx)
{
	json_t *items = json_array();

	(void)ctx;
	json_array_append_new(items, snapshot("completed"));
	rest_reply_list(req, items, "id");
}

static inline void get_snapshot(struct rest_req *req, void *ctx)
{
	(void)ctx;
	if (strcmp(rest_param(req, "id"), SNAPSHOT_ID) != 0)
		rest_problemf(req, 404, "no-such-snapshot", "no such snapshot");
	else
		rest_reply(req, 200, snapshot("completed"));
}

static inline void post_migration(struct rest_req *req, void *ctx)
{
	struct fake *k = ctx;

	json_decref(k->posted);
	k->posted = json_deep_copy(rest_body(req));
	snprintf(k->key, sizeof(k->key), "%s", rest_header(req, "Idempotency-Key") ?: "");
	if (!strcmp(json_string_value(json_object_get(k->posted, "guest")), "ghost"))
		rest_problemf(req, 404, "no-such-guest", "no guest is named ghost");
	else if (!strcmp(json_string_value(json_object_get(k->posted, "guest")), "crash"))
		rest_problemf(req, 500, "enomem", "out of memory");
	else
		rest_reply(req, 202, migration(ID, "queued"));
}

static inline void post_order(struct rest_req *req, void *ctx)
{
	struct fake *k = ctx;

	snprintf(k->orders, sizeof(k->orders), "%s", rest_path(req));
	if (strcmp(rest_param(req, "id"), ID) != 0)
		rest_problemf(req, 409, "ended", "it has ended");
	else
		rest_reply(req, 202, migration(ID, "cancelling"));
}

static inline void post_snapshot_order(struct rest_req *req, void *ctx)
{
	struct fake *k = ctx;

	snprintf(k->orders, sizeof(k->orders), "%s", rest_path(req));
	rest_reply(req, 202, snapshot("cancelling"));
}

#define EVACUATION_ID "e7ac0000-0000-4000-8000-000000000005"

/* Of three guests one has left, one may, and one cannot; "held": it runs there without all of its pages. */
static inline json_t *evacuation(const char *phase)
{
	bool held = !strcmp(phase, "held");
	json_t *e = json_pack(
		"{s:s, s:s, s:o, s:s, s:[{s:s, s:n}, {s:s, s:{s:s}}], s:[{s:s, s:I, s:s, s:s, "
		"s:n}, {s:s, "
		"s:I, s:s, s:s, s:n}, {s:s, s:I, s:n, s:s, s:s, s:s}], s:{s:i, s:i, s:i, s:i, s:I, "
		"s:I, s:I, "
		"s:I, s:s, s:f}}",
		"id", EVACUATION_ID, "phase", held ? "running" : phase, "error",
		strcmp(phase, "failed") != 0 ? json_null()
					     : json_pack("{s:s, s:s}", "code", "partial", "message",
							 "1 of 3 guests are still here"),
		"created_at", "2026-01-02T00:00:00Z", "destinations", "to", "host-b:7400", "reason",
		"to", "host-c:7400", "reason", "message", "is cordoned and accepts no guests",
		"guests", "name", "web", "memory_bytes", (json_int_t)1 << 30, "to", "host-b:7400",
		"outcome", "moved", "reason", "name", "db", "memory_bytes", (json_int_t)1 << 30,
		"to", "host-b:7400", "outcome", "waiting", "reason", "name", "odd", "memory_bytes",
		(json_int_t)1 << 30, "to", "outcome", "unplaced", "reason", "it has no launcher",
		"code", "no-launcher", "totals", "guests", 3, "moved", 1, "migrating", 1,
		"unplaced", 1, "memory_bytes", (json_int_t)3 << 30, "remaining_bytes",
		(json_int_t)1 << 30, "sent_bytes", (json_int_t)2 << 30, "rate_bytes_per_s",
		(json_int_t)125000000, "rate_from", "measured", "eta_s", 8.6);

	if (held)
		json_object_update_new(
			json_array_get(json_object_get(e, "guests"), 1),
			json_pack("{s:s, s:s}", "outcome", "migrating", "phase", "paused"));
	return e;
}

static inline void get_evacuations(struct rest_req *req, void *ctx)
{
	const struct fake *k = ctx;
	json_t *items = json_array();

	if (k->evacuates)
		json_array_append_new(items, evacuation(k->phases[k->looks]));
	rest_reply_list(req, items, "id");
}

static inline void get_evacuation(struct rest_req *req, void *ctx)
{
	struct fake *k = ctx;

	if (strcmp(rest_param(req, "id"), EVACUATION_ID) != 0) {
		rest_problemf(req, 404, "no-such-evacuation", "no such evacuation");
		return;
	}
	rest_reply(req, 200, evacuation(k->phases[k->looks]));
	k->looks += k->phases[k->looks + 1] != NULL;
}

static inline void post_evacuation(struct rest_req *req, void *ctx)
{
	struct fake *k = ctx;

	json_decref(k->posted);
	k->posted = json_deep_copy(rest_body(req));
	rest_reply(req, 202, evacuation("planning"));
}

static inline void post_evacuation_order(struct rest_req *req, void *ctx)
{
	struct fake *k = ctx;

	snprintf(k->orders, sizeof(k->orders), "%s", rest_path(req));
	rest_reply(req, 202, evacuation("cancelling"));
}

static inline void put_cordon(struct rest_req *req, void *ctx)
{
	struct fake *k = ctx;

	json_decref(k->posted);
	k->posted = json_deep_copy(rest_body(req));
	rest_reply(req, 200,
		   json_pack("{s:O, s:{s:s, s:s}, s:{s:s, s:i}}", "cordoned",
			     json_object_get(rest_body(req), "cordoned"), "cordon", "since",
			     "2026-01-02T00:00:00Z", "by", "operator", "dest", "state", "cordoned",
			     "arriving", 2));
}

static inline void get_guests(struct rest_req *req, void *ctx)
{
	json_t *items = json_array();

	(void)ctx;
	for (int i = 0; i < 150; i++) {
		char name[16];

		snprintf(name, sizeof(name), "g%03d", i);
		json_array_append_new(items, json_pack("{s:s, s:s, s:s, s:i}", "name", name,
						       "driver", "native", "state", "running",
						       "memory_bytes", 1 << 20));
	}
	rest_reply_list(req, items, "name");
}

static inline void post_guest(struct rest_req *req, void *ctx)
{
	struct fake *k = ctx;

	json_decref(k->posted);
	k->posted = json_deep_copy(rest_body(req));
	rest_reply(req, 201, json_incref(k->posted));
}

static inline void get_guest(struct rest_req *req, void *ctx)
{
	(void)ctx;
	if (strcmp(rest_param(req, "name"), "a b") != 0)
		rest_problemf(req, 404, "no-such-guest", "no such guest");
	else
		rest_reply(req, 200, json_pack("{s:s}", "name", "a b"));
}

static inline void delete_guest(struct rest_req *req, void *ctx)
{
	(void)ctx;
	rest_reply(req, 204, NULL);
}

static inline void get_host(struct rest_req *req, void *ctx)
{
	(void)ctx;
	rest_reply(req, 200, json_pack("{s:s}", "version", "the agent's own"));
}

static inline void not_there(struct rest_req *req, void *ctx)
{
	(void)ctx;
	rest_problemf(req, 501, "not-supported", "not supported yet");
}

static const struct rest_route routes[] = {
	{"GET", "/v1/migrations/{id}", REST_READER, REST_BODY_NONE, get_migration},
	{"GET", "/v1/migrations", REST_READER, REST_BODY_NONE, get_migrations},
	{"POST", "/v1/migrations", REST_OPERATOR, REST_BODY_OBJECT, post_migration},
	{"POST", "/v1/migrations/{id}/cancel", REST_OPERATOR, REST_BODY_NONE, post_order},
	{"POST", "/v1/migrations/{id}/switchover", REST_OPERATOR, REST_BODY_NONE, post_order},
	{"POST", "/v1/migrations/{id}/resolve", REST_OPERATOR, REST_BODY_OBJECT, post_order},
	{"GET", "/v1/snapshots", REST_READER, REST_BODY_NONE, get_snapshots},
	{"GET", "/v1/snapshots/{id}", REST_READER, REST_BODY_NONE, get_snapshot},
	{"POST", "/v1/snapshots/{id}/cancel", REST_OPERATOR, REST_BODY_NONE, post_snapshot_order},
	{"GET", "/v1/evacuations", REST_READER, REST_BODY_NONE, get_evacuations},
	{"POST", "/v1/evacuations", REST_OPERATOR, REST_BODY_OBJECT, post_evacuation},
	{"GET", "/v1/evacuations/{id}", REST_READER, REST_BODY_NONE, get_evacuation},
	{"POST", "/v1/evacuations/{id}/cancel", REST_OPERATOR, REST_BODY_NONE,
	 post_evacuation_order},
	{"PUT", "/v1/host/cordon", REST_OPERATOR, REST_BODY_OBJECT, put_cordon},
	{"GET", "/v1/guests", REST_READER, REST_BODY_NONE, get_guests},
	{"POST", "/v1/guests", REST_OPERATOR, REST_BODY_OBJECT, post_guest},
	{"GET", "/v1/guests/{name}", REST_READER, REST_BODY_NONE, get_guest},
	{"DELETE", "/v1/guests/{name}", REST_OPERATOR, REST_BODY_NONE, delete_guest},
	{"GET", "/v1/host", REST_READER, REST_BODY_NONE, get_host},
	{"GET", "/v1/incoming", REST_READER, REST_BODY_NONE, get_migrations},
	{"GET", "/v1/incoming/{id}", REST_READER, REST_BODY_NONE, not_there},
};

static const char *const done[] = {"completed", NULL};

static inline struct fake *start(const char *const *phases)
{
	struct fake *k = calloc(1, sizeof(*k));

	alarm(60); /* what hangs is ended by a signal */
	k->phases = phases;
	k->f.ctx = k;
	fixture_start(&k->f, routes, ARRAY_SIZE(routes));
	return k;
}

static inline void stop(struct fake *k)
{
	fixture_stop(&k->f);
	json_decref(k->posted);
	free(k);
}

/* What a command has left behind; for ran_free(). */
struct ran {
	int code;
	char *out;
	char *err;
	json_t *json;
};

static inline void ran_free(struct ran *r)
{
	free(r->out);
	free(r->err);
	json_decref(r->json);
}

static inline char *slurp(const char *dir, const char *name)
{
	char path[200];
	char *text = NULL;

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	cr_assert(ge(int, (int)fdio_read_file(path, 1 << 20, &text), 0));
	unlink(path);
	return text;
}

static inline void redirect(const char *dir, const char *name, int fd)
{
	char path[200];
	int f;

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	f = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
	if (f < 0 || dup2(f, fd) < 0)
		_exit(99);
	close(f);
}

/* "decant WORDS --api …" in a process of its own, as every command is one. */
static inline struct ran run_main(struct fake *k, int (*entry)(int, char **), const char *words)
{
	char text[500], *argv[40], *save = NULL;
	struct ran r = {0};
	int argc = 0, status;
	pid_t pid;

	snprintf(text, sizeof(text), "decant --api %s %s", k->f.api, words);
	for (char *w = strtok_r(text, " ", &save); w; w = strtok_r(NULL, " ", &save))
		argv[argc++] = strcmp(w, "%20") ? w : "a b";
	argv[argc] = NULL;
	fflush(NULL);
	pid = fork();
	if (!pid) {
		redirect(k->f.dir, "out", STDOUT_FILENO);
		redirect(k->f.dir, "err", STDERR_FILENO);
		status = entry(argc, argv);
		fflush(NULL);
		_exit(status);
	}
	cr_assert(eq(int, waitpid(pid, &status, 0), pid));
	r.code = WIFEXITED(status) ? WEXITSTATUS(status) : 100;
	r.out = slurp(k->f.dir, "out");
	r.err = slurp(k->f.dir, "err");
	r.json = json_loads(r.out, 0, NULL);
	return r;
}

#endif
