/* SPDX-License-Identifier: Apache-2.0 */
/* The REST interface of decant-source. */
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "guests_qemu.h"
#include "guests_store.h"
#include "host/host_probe.h"
#include "migration.h"
#include "util/cleanup.h"
#include "util/clock.h"

static int status_of(int r)
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
		   json_pack("{s:s, s:s, s:s, s:s}", "status", "ok", "agent", "source", "version",
			     DECANT_VERSION, "started_at", clock_rfc3339(since, s->started_us)));
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
	json_object_set_new(o, "attach", json_string(s->conf.attach));
	rest_reply(req, 200, o);
}

/* --- guests --- */

static void get_guests(struct rest_req *req, void *ctx)
{
	struct source *s = ctx;
	json_t *a = json_array();

	for (const struct source_guest *g = s->guests; g; g = g->next)
		json_array_append_new(a, guests_json(g));
	rest_reply_list(req, a, "name");
}

static struct source_guest *guest_of(struct rest_req *req, struct source *s)
{
	struct source_guest *g = guests_find(s, rest_param(req, "name"));

	if (!g)
		rest_problemf(req, 404, "no-such-guest",
			      "no guest is named %s (decant guests lists them)",
			      rest_param(req, "name"));
	return g;
}

/** struct added - an answer that waits until it is known what the guest is */
struct added {
	struct source *s;
	struct rest_req *req;
	char name[CONF_NAME_MAX];
};

static void answer_added(void *arg)
{
	CLEANUP_FREE struct added *a = arg;
	struct source_guest *g = guests_find(a->s, a->name);

	if (g)
		rest_reply(a->req, 201, guests_json(g));
	else
		rest_problemf(a->req, 404, "no-such-guest", "guest %s was removed", a->name);
}

static void answer_when_known(struct rest_req *req, struct source *s, struct source_guest *g)
{
	/* One that has just arrived is still in decant-dest's hands: it leaves the monitor on our answer. */
	struct added *a = g->desc.generation ? NULL : calloc(1, sizeof(*a));

	if (!a) {
		rest_reply(req, 201, guests_json(g));
		return;
	}
	*a = (struct added){.s = s, .req = req};
	snprintf(a->name, sizeof(a->name), "%s", g->desc.name);
	guests_qemu_when_known(g, answer_added, a);
}

static void post_guests(struct rest_req *req, void *ctx)
{
	struct source *s = ctx;
	struct conf_guest desc;
	struct source_guest *g;
	struct error err = {0};
	char where[128];
	int r = conf_guest_read(rest_body(req), "body", &desc, &err);

	if (!r) {
		r = guests_add(s, &desc, &g, &err);
		conf_guest_clear(&desc);
	}
	if (!r) {
		g->stored = true;
		r = guests_store_save(s, &err);
	}
	if (r < 0) {
		rest_problem(req, r == -ENOTSUP ? 422 : status_of(r), &err);
		return;
	}
	snprintf(where, sizeof(where), "/v1/guests/%s", g->desc.name);
	rest_add_header(req, "Location", where);
	answer_when_known(req, s, g);
}

static void get_guest(struct rest_req *req, void *ctx)
{
	const struct source_guest *g = guest_of(req, ctx);

	if (g)
		rest_reply(req, 200, guests_json(g));
}

static void delete_guest(struct rest_req *req, void *ctx)
{
	struct source_guest *g = guest_of(req, ctx);
	struct error err = {0};
	int r;

	if (!g)
		return;
	r = guests_remove(g, &err);
	if (!r)
		r = guests_store_save(ctx, &err);
	if (r < 0)
		rest_problem(req, status_of(r), &err);
	else
		rest_reply(req, 204, NULL);
}

/* --- migrations --- */

static void get_migrations(struct rest_req *req, void *ctx)
{
	rest_reply_list(req, migrations_json(ctx, false), "id");
}

/*
 * guest, to: mandatory; mode, options: what the configuration's defaults do not say; name, start: of
 * snapshots, which have no mode.
 */
static int read_request(const struct source *s, const json_t *body, const char **ret_guest,
			const char **ret_to, struct mig_options *o, struct migration_image *image,
			struct error *err)
{
	const char *mode = NULL;
	json_t *options = NULL, *value;
	const char *key;

	*ret_guest = *ret_to = NULL;
	*o = s->conf.defaults;
	json_object_foreach((json_t *)body, key, value) {
		if (!strcmp(key, "guest"))
			*ret_guest = json_string_value(value);
		else if (!strcmp(key, "to"))
			*ret_to = json_string_value(value);
		else if (image && !strcmp(key, "name"))
			image->name = json_string_value(value);
		else if (image && !strcmp(key, "start") && json_is_boolean(value))
			image->start = json_is_true(value);
		else if (!image && !strcmp(key, "mode"))
			mode = json_string_value(value);
		else if (!strcmp(key, "options"))
			options = value;
		else
			return error_set(err, -EINVAL, "unknown-key", "body: unknown key %s", key);
		if (strcmp(key, "options") != 0 && strcmp(key, "start") != 0 &&
		    !json_is_string(value))
			return error_set(err, -EINVAL, "bad-value", "body.%s: a string is needed",
					 key);
	}
	if (!*ret_guest || !*ret_to)
		return error_set(err, -EINVAL, "missing-key", "body.%s is missing",
				 *ret_guest ? "to" : "guest");
	if (options) {
		int r = conf_options_read(options, "options", o, err);

		if (r < 0)
			return r == -ENOTSUP ? -EOPNOTSUPP : r;
	}
	return mode ? conf_options_mode_parse(mode, &o->mode, err) : 0;
}

static void reply_accepted(struct rest_req *req, const struct migration *m)
{
	char where[128];

	snprintf(where, sizeof(where), "/v1/%s/%s",
		 migration_is_snapshot(m) ? "snapshots" : "migrations", migration_id(m));
	rest_add_header(req, "Location", where);
	rest_reply(req, 202, migration_json(m));
}

/* A client that never saw the answer asks again: it gets the job that it has made already. */
static bool answer_repeat(struct rest_req *req, struct source *s, const char *key, const char *name,
			  const char *to, bool snapshot)
{
	const struct migration *m = key ? migration_find_key(s, key) : NULL;

	if (key && strlen(key) > 128)
		rest_problemf(req, 400, "bad-key", "Idempotency-Key is longer than 128 characters");
	else if (!m)
		return false;
	else if (!migration_is_for(m, name, to) || migration_is_snapshot(m) != snapshot)
		rest_problemf(req, 422, "key-reused",
			      "this Idempotency-Key has made job %s, which is another one",
			      migration_id(m));
	else
		reply_accepted(req, m);
	return true;
}

static void post_job(struct rest_req *req, void *ctx, struct migration_image *image)
{
	const char *key = rest_header(req, "Idempotency-Key");
	struct source *s = ctx;
	const char *name, *to;
	struct mig_options options;
	struct source_guest *g = NULL;
	struct migration *m;
	struct error err = {0};
	int r = read_request(s, rest_body(req), &name, &to, &options, image, &err);

	if (!r && answer_repeat(req, s, key, name, to, image))
		return;
	if (!r && !(g = guests_find(s, name)))
		r = error_set(&err, -ENOENT, "no-such-guest",
			      "no guest is named %s (decant guests lists them)", name);
	if (!r)
		r = migration_new(s, g, to, key, &options, image, &m, &err);
	if (r < 0) {
		rest_problem(req, status_of(r), &err);
		return;
	}
	reply_accepted(req, m);
}

static void post_migrations(struct rest_req *req, void *ctx)
{
	post_job(req, ctx, NULL);
}

/* --- snapshots --- */

static void get_snapshots(struct rest_req *req, void *ctx)
{
	rest_reply_list(req, migrations_json(ctx, true), "id");
}

static void post_snapshots(struct rest_req *req, void *ctx)
{
	struct migration_image image = {0};

	post_job(req, ctx, &image);
}

static struct migration *snapshot_of(struct rest_req *req, struct source *s)
{
	struct migration *m = migration_find(s, rest_param(req, "id"));

	if (m && migration_is_snapshot(m))
		return m;
	rest_problemf(req, 404, "no-such-snapshot", "no snapshot has the id %s",
		      rest_param(req, "id"));
	return NULL;
}

static void get_snapshot(struct rest_req *req, void *ctx)
{
	const struct migration *m = snapshot_of(req, ctx);

	if (m)
		rest_reply(req, 200, migration_json(m));
}

static struct migration *migration_of(struct rest_req *req, struct source *s)
{
	struct migration *m = migration_find(s, rest_param(req, "id"));

	if (m && !migration_is_snapshot(m))
		return m;
	rest_problemf(req, 404, "no-such-migration", "no migration has the id %s",
		      rest_param(req, "id"));
	return NULL;
}

static void get_migration(struct rest_req *req, void *ctx)
{
	const struct migration *m = migration_of(req, ctx);

	if (m)
		rest_reply(req, 200, migration_json(m));
}

static void order(struct rest_req *req, struct migration *m,
		  int (*fn)(struct migration *m, struct error *err))
{
	struct error err = {0};
	int r;

	if (!m)
		return;
	r = fn(m, &err);
	if (r < 0)
		rest_problem(req, status_of(r), &err);
	else
		rest_reply(req, 202, migration_json(m));
}

static void post_cancel(struct rest_req *req, void *ctx)
{
	order(req, migration_of(req, ctx), migration_cancel);
}

static void post_snapshot_cancel(struct rest_req *req, void *ctx)
{
	order(req, snapshot_of(req, ctx), migration_cancel);
}

static void post_switchover(struct rest_req *req, void *ctx)
{
	order(req, migration_of(req, ctx), migration_switchover);
}

static void post_recover(struct rest_req *req, void *ctx)
{
	struct migration *m = migration_of(req, ctx);
	const char *key, *to = NULL;
	struct error err = {0};
	json_t *value;
	int r = 0;

	if (!m)
		return;
	json_object_foreach((json_t *)rest_body(req), key, value) {
		if (strcmp(key, "to") != 0)
			r = error_set(&err, -EINVAL, "unknown-key", "body: unknown key %s", key);
		else if (!json_is_string(value))
			r = error_set(&err, -EINVAL, "bad-value", "body.to: a string is needed");
		else
			to = json_string_value(value);
	}
	if (!r)
		r = migration_recover(m, to, &err);
	if (r < 0)
		rest_problem(req, status_of(r), &err);
	else
		rest_reply(req, 202, migration_json(m));
}

/* keep: mandatory; confirm: the id of the migration, without which it is only said what is risked. */
static void post_resolve(struct rest_req *req, void *ctx)
{
	struct migration *m = migration_of(req, ctx);
	const char *key, *confirm = NULL;
	enum mig_keep keep = MIG_KEEP_NONE;
	struct error err = {0};
	json_t *value;
	int r = 0;

	if (!m)
		return;
	json_object_foreach((json_t *)rest_body(req), key, value) {
		if (!strcmp(key, "keep") && !mig_keep_parse(json_string_value(value), &keep))
			continue;
		if (!strcmp(key, "confirm") && json_is_string(value))
			confirm = json_string_value(value);
		else if (!strcmp(key, "keep") || !strcmp(key, "confirm"))
			r = error_set(&err, -EINVAL, "bad-value", "body.%s: %s is needed", key,
				      *key == 'k' ? "source or destination" : "a string");
		else
			r = error_set(&err, -EINVAL, "unknown-key", "body: unknown key %s", key);
	}
	if (!r && !keep)
		r = error_set(&err, -EINVAL, "missing-key", "body.keep is missing");
	if (!r)
		r = migration_resolve(m, keep, confirm, &err);
	if (r < 0)
		rest_problem(req, status_of(r), &err);
	else
		rest_reply(req, 202, migration_json(m));
}

static void not_supported(struct rest_req *req, void *ctx)
{
	(void)ctx;
	rest_problemf(req, 501, "not-supported", "%s %s is not supported yet", rest_method(req),
		      rest_path(req));
}

static const struct rest_route routes[] = {
	{"GET", "/v1/health", REST_BODY_NONE, get_health},
	{"GET", "/v1/host", REST_BODY_NONE, get_host},
	{"GET", "/v1/guests", REST_BODY_NONE, get_guests},
	{"POST", "/v1/guests", REST_BODY_OBJECT, post_guests},
	{"GET", "/v1/guests/{name}", REST_BODY_NONE, get_guest},
	{"DELETE", "/v1/guests/{name}", REST_BODY_NONE, delete_guest},
	{"GET", "/v1/migrations", REST_BODY_NONE, get_migrations},
	{"POST", "/v1/migrations", REST_BODY_OBJECT, post_migrations},
	{"GET", "/v1/migrations/{id}", REST_BODY_NONE, get_migration},
	{"POST", "/v1/migrations/{id}/cancel", REST_BODY_NONE, post_cancel},
	{"POST", "/v1/migrations/{id}/switchover", REST_BODY_NONE, post_switchover},
	{"POST", "/v1/migrations/{id}/recover", REST_BODY_OBJECT, post_recover},
	{"POST", "/v1/migrations/{id}/resolve", REST_BODY_OBJECT, post_resolve},
	{"GET", "/v1/evacuations", REST_BODY_NONE, not_supported},
	{"POST", "/v1/evacuations", REST_BODY_OBJECT, not_supported},
	{"GET", "/v1/snapshots", REST_BODY_NONE, get_snapshots},
	{"POST", "/v1/snapshots", REST_BODY_OBJECT, post_snapshots},
	{"GET", "/v1/snapshots/{id}", REST_BODY_NONE, get_snapshot},
	{"POST", "/v1/snapshots/{id}/cancel", REST_BODY_NONE, post_snapshot_cancel},
	{"GET", "/v1/events", REST_BODY_NONE, not_supported},
	{"PUT", "/v1/host/cordon", REST_BODY_OBJECT, not_supported},
	{"GET", "/metrics", REST_BODY_NONE, not_supported},
	{"GET", "/openapi.json", REST_BODY_NONE, not_supported},
	{"GET", "/", REST_BODY_NONE, not_supported},
};

int api_listen(struct source *s, struct error *err)
{
	int r = 0;

	s->rest = rest_server_new(s->loop, routes, ARRAY_SIZE(routes), NULL, s);
	if (!s->rest)
		return error_set(err, -ENOMEM, NULL, "out of memory");
	for (size_t i = 0; !r && i < s->conf.api.n; i++)
		r = rest_server_listen(s->rest, s->conf.api.listen[i], err);
	return r;
}
