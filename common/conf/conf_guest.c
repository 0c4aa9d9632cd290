/* SPDX-License-Identifier: Apache-2.0 */
#include "conf/conf_guest.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "conf/conf_common.h"
#include "util/cleanup.h"

static const char *const drivers[] = {
	[GUEST_DRIVER_NATIVE] = "native", [GUEST_DRIVER_QEMU] = "qemu", NULL};
static const char *const disposals[] = {
	[GUEST_DISPOSAL_QUIT] = "quit", [GUEST_DISPOSAL_KEEP] = "keep", NULL};

const char *const *conf_guest_drivers(void)
{
	return drivers;
}

const char *conf_guest_driver_name(enum guest_driver d)
{
	return drivers[d];
}

bool conf_guest_name_ok(const char *s)
{
	size_t n = strlen(s);

	if (!n || n >= CONF_NAME_MAX || !isascii(s[0]) || !isalnum((unsigned char)s[0]))
		return false;
	for (; *s; s++)
		if (!isascii(*s) || (!isalnum((unsigned char)*s) && !strchr("._-", *s)))
			return false;
	return true;
}

bool conf_guest_var_ok(const char *value)
{
	if (strlen(value) > CONF_VAR_VALUE_MAX)
		return false;
	for (; *value; value++)
		if (*value < 0x20 || *value >= 0x7f || strchr("\"'\\{}$`", *value))
			return false;
	return true;
}

static int take_name(const json_t *value, const char *key, const struct jsonx_at *at, void *obj)
{
	(void)key;
	(void)obj;
	if (conf_guest_name_ok(json_string_value(value)))
		return 0;
	return jsonx_bad(at,
			 "must be 1 to %d letters, digits and . _ -, the first a letter or digit",
			 CONF_NAME_MAX - 1);
}

static int take_uuid(const json_t *value, const char *key, const struct jsonx_at *at, void *obj)
{
	struct conf_guest *g = obj;
	char *u = g->uuid;

	(void)value;
	(void)key;
	for (int i = 0; i < 36; i++) {
		bool dash = i == 8 || i == 13 || i == 18 || i == 23;

		if (dash ? u[i] != '-' : !isxdigit((unsigned char)u[i]))
			return jsonx_bad(at, "is no UUID");
		u[i] = (char)tolower((unsigned char)u[i]);
	}
	return 0;
}

static int take_path(const json_t *value, const char *key, const struct jsonx_at *at, void *obj)
{
	(void)key;
	(void)obj;
	if (json_string_value(value)[0] == '/')
		return 0;
	return jsonx_bad(at, "must be an absolute path");
}

static int take_vars(const json_t *value, const char *key, const struct jsonx_at *at, void *obj)
{
	const char *name;
	json_t *v;

	(void)key;
	(void)obj;
	json_object_foreach((json_t *)value, name, v) {
		if (!conf_guest_name_ok(name))
			return jsonx_bad(at, "\"%.64s\" is no name of a variable", name);
		if (!conf_guest_var_ok(json_string_value(v)))
			return jsonx_bad(at,
					 "the value of %s must be up to %d characters of ASCII, "
					 "without quotes, \\, {}, $ and `",
					 name, CONF_VAR_VALUE_MAX);
	}
	return 0;
}

static const struct jsonx_field fields[] = {
	{"name", JSONX_CHARS, .required = true, .take = take_name,
	 JSONX_INTO(struct conf_guest, name)},
	{"driver", JSONX_WORD, .required = true, .words = drivers,
	 JSONX_INTO(struct conf_guest, driver)},
	{"uuid", JSONX_CHARS, .min = 36, .take = take_uuid, JSONX_INTO(struct conf_guest, uuid)},
	{"qmp", JSONX_STRING, .min = 1, .max = CONF_SOCKET_MAX, .take = take_path,
	 JSONX_INTO(struct conf_guest, qmp)},
	{"generation", JSONX_UINT, JSONX_INTO(struct conf_guest, generation)},
	{"launcher", JSONX_STRING, .nullable = true, .min = 1, .take = take_name,
	 JSONX_INTO(struct conf_guest, launcher)},
	{"vars", JSONX_MAP, .max = CONF_VARS_MAX, .take = take_vars,
	 JSONX_INTO(struct conf_guest, vars)},
	{"priority", JSONX_INT, .min = -1000, .max = 1000, JSONX_INTO(struct conf_guest, priority)},
	{"disposal", JSONX_WORD, .words = disposals, JSONX_INTO(struct conf_guest, disposal)},
};

static int check_whole(const struct conf_guest *g, const struct jsonx_at *at)
{
	if (g->driver == GUEST_DRIVER_QEMU && !g->qmp)
		return jsonx_bad(at, "driver qemu needs qmp, the path of a QMP socket");
	if (g->driver != GUEST_DRIVER_QEMU && (g->qmp || g->generation))
		return jsonx_bad(at, "%s is for driver qemu only", g->qmp ? "qmp" : "generation");
	return 0;
}

int conf_guest_read(const json_t *json, const char *where, struct conf_guest *ret,
		    struct error *err)
{
	struct jsonx_at at = {where, "bad-guest", err};
	struct conf_guest g = {.disposal = GUEST_DISPOSAL_QUIT};
	int r = jsonx_read(json, &at, fields, ARRAY_SIZE(fields), &g);

	if (!r)
		r = check_whole(&g, &at);
	if (!r && !g.vars && !(g.vars = json_object()))
		r = error_set(err, -ENOMEM, NULL, "out of memory");
	if (r < 0) {
		conf_guest_clear(&g);
		return r;
	}
	*ret = g;
	return 0;
}

json_t *conf_guest_json(const struct conf_guest *g)
{
	json_t *generation = g->generation ? json_integer((json_int_t)g->generation) : NULL;

	return json_pack("{s:s, s:s, s:s*, s:s*, s:o*, s:s*, s:o, s:i, s:s}", "name", g->name,
			 "driver", drivers[g->driver], "uuid", g->uuid[0] ? g->uuid : NULL, "qmp",
			 g->qmp, "generation", generation, "launcher", g->launcher, "vars",
			 json_deep_copy(g->vars), "priority", g->priority, "disposal",
			 disposals[g->disposal]);
}

int conf_guest_copy(const struct conf_guest *g, struct conf_guest *ret)
{
	struct conf_guest c = *g;

	c.qmp = g->qmp ? strdup(g->qmp) : NULL;
	c.launcher = g->launcher ? strdup(g->launcher) : NULL;
	c.vars = json_deep_copy(g->vars);
	if (!c.vars || !c.qmp != !g->qmp || !c.launcher != !g->launcher) {
		conf_guest_clear(&c);
		return -ENOMEM;
	}
	*ret = c;
	return 0;
}

void conf_guest_clear(struct conf_guest *g)
{
	jsonx_clear(fields, ARRAY_SIZE(fields), g);
	*g = (struct conf_guest){0};
}
