/* SPDX-License-Identifier: Apache-2.0 */
#include "conf/conf_dest.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "conf/conf_launcher.h"
#include "util/cleanup.h"

static bool is_dns(const char *s)
{
	size_t label = 0;

	if (strlen(s) > 253)
		return false;
	for (; *s; s++) {
		if (*s == '.' ? !label : !isascii(*s) || (!isalnum((unsigned char)*s) && *s != '-'))
			return false;
		label = *s == '.' ? 0 : label + 1;
	}
	return label > 0;
}

static bool is_ip(const char *s)
{
	unsigned char buf[16];

	return inet_pton(AF_INET, s, buf) == 1 || inet_pton(AF_INET6, s, buf) == 1;
}

/* scheme ":" something, all of it printable ASCII without blanks */
static bool is_uri(const char *s)
{
	const char *colon = strchr(s, ':');

	if (!colon || !isascii(*s) || !isalpha((unsigned char)*s) || !colon[1])
		return false;
	for (const char *p = s; *p; p++)
		if (*p <= 0x20 || *p >= 0x7f ||
		    (p < colon && !isalnum((unsigned char)*p) && !strchr("+-.", *p)))
			return false;
	return true;
}

static bool allow_ok(const char *s)
{
	if (!strncmp(s, "DNS:", 4))
		return is_dns(s + 4);
	if (!strncmp(s, "IP:", 3))
		return is_ip(s + 3);
	return !strncmp(s, "URI:", 4) && is_uri(s + 4);
}

static int take_allow(const json_t *value, const char *key, const struct jsonx_at *at, void *obj)
{
	size_t i;
	json_t *s;

	(void)key;
	(void)obj;
	json_array_foreach(value, i, s)
		if (!allow_ok(json_string_value(s)))
			return jsonx_bad(at, "[%zu] \"%.80s\" is not DNS:name, IP:address or URI:…",
					 i, json_string_value(s));
	return 0;
}

static int take_port(const char *s, uint16_t *ret)
{
	unsigned long v;
	char *end;

	if (!isdigit((unsigned char)*s))
		return -EINVAL;
	v = strtoul(s, &end, 10);
	if (*end || !v || v > 65535)
		return -EINVAL;
	*ret = (uint16_t)v;
	return 0;
}

/* "HOST", "HOST:PORT", "[IPV6]" or "[IPV6]:PORT" */
static int take_listen(const json_t *value, const char *key, const struct jsonx_at *at, void *obj)
{
	const char *s = json_string_value(value), *host = s, *rest;
	struct conf_dest *c = obj;
	size_t len;

	(void)key;
	if (!s)
		return jsonx_bad(at, "must be a string");
	if (*s == '[') {
		host = s + 1;
		len = strcspn(host, "]");
		rest = host + len + (host[len] == ']');
	} else {
		len = strcspn(host, ":");
		rest = host + len;
	}
	c->listen_host = strndup(host, len);
	if (!c->listen_host)
		return error_set(at->err, -ENOMEM, NULL, "out of memory");
	if (*s == '[' ? host[len] != ']' || !strchr(c->listen_host, ':') || !is_ip(c->listen_host)
		      : !is_dns(c->listen_host))
		return jsonx_bad(at, "\"%.80s\" is not HOST:PORT or [IPV6]:PORT", s);
	if (*rest && (*rest != ':' || take_port(rest + 1, &c->listen_port) < 0))
		return jsonx_bad(at, "\"%.80s\" has no port from 1 to 65535", s);
	return 0;
}

static int take_launcher(const json_t *value, const char *key, const struct jsonx_at *at, void *obj)
{
	struct conf_dest *c = obj;
	struct conf_launcher l, *more;
	int r = conf_launcher_read(value, key, at, &l);

	if (r < 0)
		return r;
	more = realloc(c->launchers, (c->n_launchers + 1) * sizeof(*more));
	if (!more) {
		conf_launcher_clear(&l);
		return error_set(at->err, -ENOMEM, NULL, "out of memory");
	}
	more[c->n_launchers++] = l;
	c->launchers = more;
	return 0;
}

/* null: whoever has set that knows better than the kernel what will be free. */
static int take_margin(const json_t *value, const char *key, const struct jsonx_at *at, void *obj)
{
	struct conf_dest *c = obj;

	(void)key;
	c->check_room = !json_is_null(value);
	if (!c->check_room)
		return 0;
	if (!json_is_integer(value) || json_integer_value(value) > CONF_MARGIN_MAX ||
	    json_integer_value(value) < -CONF_MARGIN_MAX)
		return jsonx_bad(at, "must be null or a whole number of -2^46 to 2^46");
	c->margin_bytes = json_integer_value(value);
	return 0;
}

static const struct jsonx_field limits[] = {
	{"incoming", JSONX_UINT, .min = 1, .max = 1000,
	 JSONX_INTO(struct conf_dest, limit_incoming)},
	{"incoming_per_source", JSONX_UINT, .max = 1000,
	 JSONX_INTO(struct conf_dest, limit_incoming_per_source)},
	{"connections", JSONX_UINT, .min = 1, .max = 10000,
	 JSONX_INTO(struct conf_dest, limit_connections)},
	{"connections_per_address", JSONX_UINT, .min = 1, .max = 10000,
	 JSONX_INTO(struct conf_dest, limit_connections_per_address)},
	{"interrupted_s", JSONX_UINT, .max = 86400,
	 JSONX_INTO(struct conf_dest, limit_interrupted_s)},
	{"memory_bytes", JSONX_UINT, JSONX_INTO(struct conf_dest, limit_memory_bytes)},
	{"margin_bytes", JSONX_ANY, .take = take_margin},
};

static int take_limits(const json_t *value, const char *key, const struct jsonx_at *at, void *obj)
{
	(void)key;
	return jsonx_read(value, at, limits, ARRAY_SIZE(limits), obj);
}

static int take_hooks(const json_t *value, const char *key, const struct jsonx_at *at, void *obj)
{
	struct conf_dest *c = obj;

	(void)key;
	return conf_hooks_read(value, at, false, &c->agent.hooks);
}

static const struct jsonx_field fields[] = {
	{"listen", JSONX_ANY, .required = true, .take = take_listen},
	{"allow", JSONX_STRINGS, .max = CONF_ALLOW_MAX, .take = take_allow,
	 JSONX_INTO(struct conf_dest, allow)},
	CONF_AGENT_FIELDS(struct conf_dest),
	{"source_api", JSONX_STRING, .nullable = true, .take = conf_take_api,
	 JSONX_INTO(struct conf_dest, source_api)},
	{"limits", JSONX_ANY, .take = take_limits},
	{"launchers", JSONX_MEMBERS, .max = CONF_LAUNCHERS_MAX, .take = take_launcher},
	{"hooks", JSONX_ANY, .take = take_hooks},
};

static int defaults(struct conf_dest *c, struct error *err)
{
	int r = conf_agent_defaults(&c->agent, "dest", err);

	if (!r && conf_default(&c->source_api, "unix:/run/decant/source.sock") < 0)
		r = error_set(err, -ENOMEM, NULL, "out of memory");
	c->listen_port = CONF_DEFAULT_PORT;
	c->limit_incoming = CONF_INCOMING_DEFAULT;
	c->limit_connections = CONF_CONNECTIONS_DEFAULT;
	c->limit_connections_per_address = CONF_CONNECTIONS_PER_ADDRESS_DEFAULT;
	c->limit_interrupted_s = CONF_INTERRUPTED_DEFAULT;
	c->check_room = true;
	return r;
}

int conf_dest_read(const json_t *json, struct conf_dest *ret, struct error *err)
{
	struct jsonx_at at = {"", "bad-config", err};
	struct conf_dest c = {0};
	int r = defaults(&c, err);

	if (!r)
		r = jsonx_read(json, &at, fields, ARRAY_SIZE(fields), &c);
	if (!r)
		r = conf_agent_check(&c.agent, err);
	if (r < 0) {
		conf_dest_clear(&c);
		return r;
	}
	c.n_allow = conf_count(c.allow);
	*ret = c;
	return 0;
}

int conf_dest_load(const char *file, struct conf_dest *ret, struct error *err)
{
	json_t *json;
	int r = jsonx_load(file, CONF_FILE_MAX, &json, err);

	if (r < 0)
		return r;
	r = conf_dest_read(json, ret, err);
	json_decref(json);
	if (!r) {
		r = conf_agent_credentials(&ret->agent, err);
		if (r < 0)
			conf_dest_clear(ret);
	}
	if (r < 0)
		error_prefix(err, "%s", file);
	return r;
}

void conf_dest_clear(struct conf_dest *c)
{
	for (size_t i = 0; i < c->n_launchers; i++)
		conf_launcher_clear(&c->launchers[i]);
	free(c->launchers);
	free(c->listen_host);
	conf_hooks_clear(&c->agent.hooks);
	jsonx_clear(fields, ARRAY_SIZE(fields), c);
	*c = (struct conf_dest){0};
}

const struct conf_launcher *conf_dest_launcher(const struct conf_dest *c, const char *name)
{
	for (size_t i = 0; i < c->n_launchers; i++)
		if (!strcmp(c->launchers[i].name, name))
			return &c->launchers[i];
	return NULL;
}
