/* SPDX-License-Identifier: Apache-2.0 */
#include "conf/conf_hooks.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "conf/conf_common.h"
#include "util/cleanup.h"

#define NAME_MAX_BYTES 120

/* http[s]://HOST…: no blanks, and no password in what is logged. */
static int take_url(const json_t *value, const char *key, const struct jsonx_at *at, void *obj)
{
	const char *s = json_string_value(value), *host;

	(void)key;
	(void)obj;
	host = !strncmp(s, "http://", 7) ? s + 7 : !strncmp(s, "https://", 8) ? s + 8 : NULL;
	if (!host || !*host || strchr("/?#:", *host))
		return jsonx_bad(at, "\"%.80s\" is not http://HOST… or https://HOST…", s);
	for (const char *p = s; *p; p++)
		if (*p <= 0x20 || *p >= 0x7f)
			return jsonx_bad(at, "has a character that no URL may have");
	if (memchr(host, '@', strcspn(host, "/?#")))
		return jsonx_bad(at, "names a user: use secret_file, which signs what is sent");
	return 0;
}

static int take_exec(const json_t *value, const char *key, const struct jsonx_at *at, void *obj)
{
	const char *path = json_string_value(json_array_get(value, 0));

	(void)key;
	(void)obj;
	if (*path != '/')
		return jsonx_bad(at, "[0] \"%.80s\" is not an absolute path (no shell is used)",
				 path);
	return 0;
}

static int take_events(const json_t *value, const char *key, const struct jsonx_at *at, void *obj)
{
	json_t *s;
	size_t i;

	(void)key;
	(void)obj;
	json_array_foreach(value, i, s) {
		const char *p = json_string_value(s);

		if (!*p || p[strspn(p, "abcdefghijklmnopqrstuvwxyz-.*?")])
			return jsonx_bad(at,
					 "[%zu] \"%.80s\" is no pattern such as migration.*, "
					 "*.failed or completed",
					 i, p);
	}
	return 0;
}

static const char *const on_error_words[] = {"refuse", "allow", NULL};

static const struct jsonx_field fields[] = {
	{"name", JSONX_STRING, .min = 1, .max = NAME_MAX_BYTES, JSONX_INTO(struct conf_hook, name)},
	{"url", JSONX_STRING, .min = 1, .max = CONF_HOOK_URL_MAX, .take = take_url,
	 JSONX_INTO(struct conf_hook, url)},
	{"exec", JSONX_STRINGS, .min = 1, .max = 64, .take = take_exec,
	 JSONX_INTO(struct conf_hook, exec)},
	{"events", JSONX_STRINGS, .max = 64, .take = take_events,
	 JSONX_INTO(struct conf_hook, events)},
	{"secret_file", JSONX_STRING, .nullable = true, .min = 1,
	 JSONX_INTO(struct conf_hook, secret_file)},
	{"ca", JSONX_STRING, .nullable = true, .min = 1, JSONX_INTO(struct conf_hook, ca)},
	{"gate", JSONX_BOOL, JSONX_INTO(struct conf_hook, gate)},
	{"on_error", JSONX_WORD, .words = on_error_words, JSONX_INTO(struct conf_hook, on_error)},
	{"timeout_ms", JSONX_UINT, .min = 100, .max = 600000,
	 JSONX_INTO(struct conf_hook, timeout_ms)},
	{"attempts", JSONX_UINT, .min = 1, .max = 100, JSONX_INTO(struct conf_hook, attempts)},
	{"retry_ms", JSONX_UINT, .min = 10, .max = 60000, JSONX_INTO(struct conf_hook, retry_ms)},
};

static void hook_clear(struct conf_hook *h)
{
	jsonx_clear(fields, ARRAY_SIZE(fields), h);
}

/* What belongs together, and what does not. */
static int check(const json_t *value, const struct conf_hook *h, const struct jsonx_at *at,
		 bool gates)
{
	if (!h->url == !h->exec)
		return jsonx_bad(at, "must have one of url and exec");
	if (h->exec && (h->secret_file || h->ca))
		return jsonx_bad(at, "%s is for a hook with a url", h->ca ? "ca" : "secret_file");
	if (h->ca && strncmp(h->url, "https:", 6) != 0)
		return jsonx_bad(at, "ca is for a url that begins with https");
	if (h->gate && !gates)
		return jsonx_bad(at, "gate: only decant-source asks gates");
	if (!h->gate && json_object_get(value, "on_error"))
		return jsonx_bad(at, "on_error is for a hook with \"gate\": true");
	return 0;
}

static bool name_taken(const struct conf_hooks *c, const char *name)
{
	for (size_t i = 0; i < c->n; i++)
		if (!strcmp(c->hooks[i].name, name))
			return true;
	return false;
}

/* What a URL asks for may be secret; what it is of is not. */
static int make_name(const struct conf_hooks *c, struct conf_hook *h)
{
	const char *of = h->url ? h->url : h->exec[0];
	int len = (int)MIN(h->url ? strcspn(of, "?#") : strlen(of), (size_t)NAME_MAX_BYTES - 4);
	char name[NAME_MAX_BYTES + 1];

	snprintf(name, sizeof(name), "%.*s", len, of);
	for (unsigned int i = 2; name_taken(c, name); i++)
		snprintf(name, sizeof(name), "%.*s#%u", len, of, i);
	return conf_default(&h->name, name);
}

struct reading {
	struct conf_hooks hooks;
	bool gates;
};

static int take_hook(const json_t *value, const char *key, const struct jsonx_at *at, void *obj)
{
	struct reading *rd = obj;
	struct conf_hook h = {.timeout_ms = CONF_HOOK_TIMEOUT_DEFAULT,
			      .attempts = CONF_HOOK_ATTEMPTS_DEFAULT,
			      .retry_ms = CONF_HOOK_RETRY_DEFAULT},
			 *more;
	int r = jsonx_read(value, at, fields, ARRAY_SIZE(fields), &h);

	(void)key;
	if (!r)
		r = check(value, &h, at, rd->gates);
	if (!r && h.name && name_taken(&rd->hooks, h.name))
		r = jsonx_bad(at, "name: \"%s\" is there twice", h.name);
	if (!r && !h.name && make_name(&rd->hooks, &h))
		r = error_set(at->err, -ENOMEM, NULL, "out of memory");
	more = r ? NULL : realloc(rd->hooks.hooks, (rd->hooks.n + 1) * sizeof(*more));
	if (!more) {
		hook_clear(&h);
		return r ? r : error_set(at->err, -ENOMEM, NULL, "out of memory");
	}
	more[rd->hooks.n++] = h;
	rd->hooks.hooks = more;
	return 0;
}

int conf_hooks_read(const json_t *value, const struct jsonx_at *at, bool gates,
		    struct conf_hooks *ret)
{
	struct reading rd = {.gates = gates};
	int r = 0;
	size_t i;
	json_t *v;

	if (json_is_null(value))
		return 0;
	if (!json_is_array(value))
		return jsonx_bad(at, "must be an array");
	if (json_array_size(value) > CONF_HOOKS_MAX)
		return jsonx_bad(at, "more than %d hooks", CONF_HOOKS_MAX);
	json_array_foreach(value, i, v) {
		char path[64];
		struct jsonx_at each = {path, at->code, at->err};

		snprintf(path, sizeof(path), "%s[%zu]", at->path, i);
		r = take_hook(v, NULL, &each, &rd);
		if (r < 0) {
			conf_hooks_clear(&rd.hooks);
			return r;
		}
	}
	*ret = rd.hooks;
	return 0;
}

int conf_hooks_credentials(struct conf_hooks *c, struct error *err)
{
	int r = 0;

	for (size_t i = 0; !r && i < c->n; i++) {
		char in[32];

		snprintf(in, sizeof(in), "hooks[%zu]", i);
		r = conf_credential(&c->hooks[i].secret_file, in, "secret_file", err);
		if (!r)
			r = conf_credential(&c->hooks[i].ca, in, "ca", err);
	}
	return r;
}

void conf_hooks_clear(struct conf_hooks *c)
{
	for (size_t i = 0; i < c->n; i++)
		hook_clear(&c->hooks[i]);
	free(c->hooks);
	*c = (struct conf_hooks){0};
}
