/* SPDX-License-Identifier: Apache-2.0 */
/* REST: migrations and snapshots. */
#include <errno.h>
#include <string.h>

#include "api.h"
#include "guests.h"
#include "migration.h"
#include "util/cleanup.h"

/* --- migrations --- */

void api_get_migrations(struct rest_req *req, void *ctx)
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
static bool answer_repeat(struct rest_req *req, struct source *s,
			  const struct migration_asked *asked)
{
	const struct migration *m = migration_find_key(s, asked->key);

	if (!m)
		return false;
	if (migration_asked_so(m, asked->digest))
		reply_accepted(req, m);
	else
		rest_problemf(req, 422, "key-reused",
			      "this Idempotency-Key has made job %s, which is another one",
			      migration_id(m));
	return true;
}

static void post_job(struct rest_req *req, void *ctx, struct migration_image *image)
{
	const char *key = rest_header(req, "Idempotency-Key");
	const struct migration_asked asked = {key, rest_request_digest(req)};
	struct source *s = ctx;
	const char *name, *to;
	struct mig_options options;
	struct source_guest *g = NULL;
	struct migration *m;
	struct error err = {0};
	int r = read_request(s, rest_body(req), &name, &to, &options, image, &err);

	if (!r && key && answer_repeat(req, s, &asked))
		return;
	if (!r && !(g = guests_find(s, name)))
		r = error_set(&err, -ENOENT, "no-such-guest",
			      "no guest is named %s (decant guests lists them)", name);
	if (!r)
		r = migration_new(s, g, to, key ? &asked : NULL, &options, image, &m, &err);
	if (r < 0) {
		rest_problem(req, api_status(r), &err);
		return;
	}
	reply_accepted(req, m);
}

void api_post_migrations(struct rest_req *req, void *ctx)
{
	post_job(req, ctx, NULL);
}

/* --- snapshots --- */

void api_get_snapshots(struct rest_req *req, void *ctx)
{
	rest_reply_list(req, migrations_json(ctx, true), "id");
}

void api_post_snapshots(struct rest_req *req, void *ctx)
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

void api_get_snapshot(struct rest_req *req, void *ctx)
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

void api_get_migration(struct rest_req *req, void *ctx)
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
		rest_problem(req, api_status(r), &err);
	else
		rest_reply(req, 202, migration_json(m));
}

void api_post_cancel(struct rest_req *req, void *ctx)
{
	order(req, migration_of(req, ctx), migration_cancel);
}

void api_post_snapshot_cancel(struct rest_req *req, void *ctx)
{
	order(req, snapshot_of(req, ctx), migration_cancel);
}

void api_post_switchover(struct rest_req *req, void *ctx)
{
	order(req, migration_of(req, ctx), migration_switchover);
}

void api_post_recover(struct rest_req *req, void *ctx)
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
		rest_problem(req, api_status(r), &err);
	else
		rest_reply(req, 202, migration_json(m));
}

/* keep: mandatory; confirm: the id of the migration, without which it is only said what is risked. */
void api_post_resolve(struct rest_req *req, void *ctx)
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
		rest_problem(req, api_status(r), &err);
	else
		rest_reply(req, 202, migration_json(m));
}
