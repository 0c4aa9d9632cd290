/* SPDX-License-Identifier: Apache-2.0 */
#include "conf/conf_source.h"

#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "budget/budget.h"
#include "util/cleanup.h"

/* Take over @g, or free it. */
static int add_guest(struct conf_source *c, struct conf_guest *g, const char *where,
		     struct error *err)
{
	struct conf_guest *more;
	int r = 0;

	for (size_t i = 0; !r && i < c->n_guests; i++)
		if (!strcmp(c->guests[i].name, g->name))
			r = error_set(err, -EINVAL, "bad-guest", "%s.name: \"%s\" is there twice",
				      where, g->name);
	if (!r && c->n_guests == CONF_GUESTS_MAX)
		r = error_set(err, -EINVAL, "bad-guest", "%s: more than %d guests", where,
			      CONF_GUESTS_MAX);
	more = r ? NULL : realloc(c->guests, (c->n_guests + 1) * sizeof(*more));
	if (!more) {
		conf_guest_clear(g);
		return r ? r : error_set(err, -ENOMEM, NULL, "out of memory");
	}
	more[c->n_guests++] = *g;
	c->guests = more;
	return 0;
}

static int take_guest(const json_t *value, const char *key, const struct jsonx_at *at, void *obj)
{
	struct conf_guest g;
	int r = conf_guest_read(value, at->path, &g, at->err);

	(void)key;
	return r < 0 ? r : add_guest(obj, &g, at->path, at->err);
}

static int take_defaults(const json_t *value, const char *key, const struct jsonx_at *at, void *obj)
{
	struct conf_source *c = obj;

	(void)key;
	return conf_options_read(value, at->path, &c->defaults, at->err);
}

static int take_hooks(const json_t *value, const char *key, const struct jsonx_at *at, void *obj)
{
	struct conf_source *c = obj;

	(void)key;
	return conf_hooks_read(value, at, true, &c->agent.hooks);
}

static const struct jsonx_field fields[] = {
	CONF_AGENT_FIELDS(struct conf_source),
	{"dest_api", JSONX_STRING, .nullable = true, .take = conf_take_api,
	 JSONX_INTO(struct conf_source, dest_api)},
	{"guests", JSONX_EACH, .max = CONF_GUESTS_MAX, .take = take_guest},
	{"guests_dir", JSONX_STRING, .nullable = true, .min = 1,
	 JSONX_INTO(struct conf_source, guests_dir)},
	{"defaults", JSONX_ANY, .take = take_defaults},
	{"bandwidth", JSONX_UINT, .max = BUDGET_RATE_MAX,
	 JSONX_INTO(struct conf_source, bandwidth)},
	{"hooks", JSONX_ANY, .take = take_hooks},
};

static int is_guest_file(const struct dirent *d)
{
	size_t n = strlen(d->d_name);

	return d->d_name[0] != '.' && n > 5 && !strcmp(d->d_name + n - 5, ".json");
}

static int read_guest_file(struct conf_source *c, const char *name, struct error *err)
{
	CLEANUP_FREE char *path = NULL;
	struct conf_guest g;
	json_t *json;
	int r;

	if (asprintf(&path, "%s/%s", c->guests_dir, name) < 0) {
		path = NULL;
		return error_set(err, -ENOMEM, NULL, "out of memory");
	}
	r = jsonx_load(path, CONF_FILE_MAX, &json, err);
	if (r < 0)
		return r;
	r = conf_guest_read(json, path, &g, err);
	json_decref(json);
	return r < 0 ? r : add_guest(c, &g, path, err);
}

static int read_guests_dir(struct conf_source *c, struct error *err)
{
	struct dirent **names;
	int n, r = 0;

	if (!c->guests_dir)
		return 0;
	n = scandir(c->guests_dir, &names, is_guest_file, alphasort);
	if (n < 0)
		return error_set(err, -errno, NULL, "guests_dir: %s: %s", c->guests_dir,
				 strerror(errno));
	for (int i = 0; i < n; i++) {
		if (!r)
			r = read_guest_file(c, names[i]->d_name, err);
		free(names[i]);
	}
	free(names);
	return r;
}

static int defaults(struct conf_source *c, struct error *err)
{
	int r = conf_agent_defaults(&c->agent, "source", err);

	conf_options_defaults(&c->defaults);
	if (!r && conf_default(&c->dest_api, "unix:/run/decant/dest.sock") < 0)
		r = error_set(err, -ENOMEM, NULL, "out of memory");
	return r;
}

int conf_source_read(const json_t *json, struct conf_source *ret, struct error *err)
{
	struct jsonx_at at = {"", "bad-config", err};
	struct conf_source c = {0};
	int r = defaults(&c, err);

	if (!r)
		r = jsonx_read(json, &at, fields, ARRAY_SIZE(fields), &c);
	if (!r)
		r = read_guests_dir(&c, err);
	if (!r)
		r = conf_agent_check(&c.agent, err);
	if (r < 0) {
		conf_source_clear(&c);
		return r;
	}
	*ret = c;
	return 0;
}

int conf_source_load(const char *file, struct conf_source *ret, struct error *err)
{
	json_t *json;
	int r = jsonx_load(file, CONF_FILE_MAX, &json, err);

	if (r < 0)
		return r;
	r = conf_source_read(json, ret, err);
	json_decref(json);
	if (!r) {
		r = conf_agent_credentials(&ret->agent, err);
		if (r < 0)
			conf_source_clear(ret);
	}
	if (r < 0)
		error_prefix(err, "%s", file);
	return r;
}

void conf_source_clear(struct conf_source *c)
{
	for (size_t i = 0; i < c->n_guests; i++)
		conf_guest_clear(&c->guests[i]);
	free(c->guests);
	conf_hooks_clear(&c->agent.hooks);
	jsonx_clear(fields, ARRAY_SIZE(fields), c);
	*c = (struct conf_source){0};
}
