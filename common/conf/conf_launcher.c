/* SPDX-License-Identifier: Apache-2.0 */
#include "conf/conf_launcher.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "conf/conf_common.h"
#include "util/cleanup.h"

static const char *const names[] = {"name", "uuid", "memory_bytes", "run_dir", "qmp", "attach"};

/* @s has @n bytes, with both braces. */
static bool known(const char *s, size_t n)
{
	char key[CONF_NAME_MAX + 4];

	if (n - 2 >= sizeof(key))
		return false;
	memcpy(key, s + 1, n - 2);
	key[n - 2] = '\0';
	if (!strncmp(key, "var:", 4))
		return conf_guest_name_ok(key + 4);
	for (size_t i = 0; i < ARRAY_SIZE(names); i++)
		if (!strcmp(names[i], key))
			return true;
	return false;
}

static int check_word(const char *word, size_t i, const struct jsonx_at *at)
{
	for (const char *s = strchr(word, '{'); s; s = strchr(s + 1, '{')) {
		size_t n = strcspn(s, "}");

		if (!s[n])
			return jsonx_bad(at, "[%zu] '{' without '}'", i);
		if (!known(s, n + 1))
			return jsonx_bad(at, "[%zu] unknown placeholder %.*s", i,
					 (int)MIN(n + 1, (size_t)80), s);
	}
	return 0;
}

/* What is {qmp} in the argv cannot have itself in it. */
static int take_qmp(const json_t *value, const char *key, const struct jsonx_at *at, void *obj)
{
	const char *s = json_string_value(value);

	(void)key;
	(void)obj;
	if (*s != '/' && strncmp(s, "{run_dir}/", 10) != 0)
		return jsonx_bad(at, "must be an absolute path");
	if (strstr(s, "{qmp}"))
		return jsonx_bad(at, "must not have {qmp} in it");
	return check_word(s, 0, at);
}

static int take_argv(const json_t *value, const char *key, const struct jsonx_at *at, void *obj)
{
	size_t i;
	json_t *word;

	(void)key;
	(void)obj;
	if (json_string_value(json_array_get(value, 0))[0] != '/')
		return jsonx_bad(at, "the program must be an absolute path");
	json_array_foreach(value, i, word) {
		int r = check_word(json_string_value(word), i, at);

		if (r < 0)
			return r;
	}
	return 0;
}

int conf_launcher_read(const json_t *json, const char *name, const struct jsonx_at *at,
		       struct conf_launcher *ret)
{
	const struct jsonx_field fields[] = {
		{"driver", JSONX_WORD, .required = true, .words = conf_guest_drivers(),
		 JSONX_INTO(struct conf_launcher, driver)},
		{"argv", JSONX_STRINGS, .required = true, .min = 1, .max = CONF_ARGV_MAX,
		 .take = take_argv, JSONX_INTO(struct conf_launcher, argv)},
		{"qmp", JSONX_STRING, .min = 1, .max = CONF_SOCKET_MAX, .take = take_qmp,
		 JSONX_INTO(struct conf_launcher, qmp)},
	};
	struct conf_launcher l = {0};
	int r;

	if (!conf_guest_name_ok(name))
		return jsonx_bad(at, "is no name of a launcher");
	snprintf(l.name, sizeof(l.name), "%s", name);
	r = jsonx_read(json, at, fields, ARRAY_SIZE(fields), &l);
	if (!r && l.qmp && l.driver != GUEST_DRIVER_QEMU)
		r = jsonx_bad(at, "qmp is for driver qemu only");
	if (r < 0) {
		conf_launcher_clear(&l);
		return r;
	}
	*ret = l;
	return 0;
}

void conf_launcher_clear(struct conf_launcher *l)
{
	jsonx_strings_free(l->argv);
	free(l->qmp);
	*l = (struct conf_launcher){0};
}
