/* SPDX-License-Identifier: Apache-2.0 */
#include "conf/conf_launcher.h"

#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include "util/cleanup.h"

static const char *const names[] = {"name", "uuid", "memory_bytes", "run_dir", "qmp", "attach"};

/*
 * Length of the placeholder that starts at @s, with its braces; 0 if none does. Only a word in
 * braces is one, so that JSON in an argument ('{"driver":"raw"}') needs no escapes.
 */
static size_t placeholder(const char *s)
{
	size_t n = 1;

	if (*s != '{' || !isalpha((unsigned char)s[1]))
		return 0;
	while (isalnum((unsigned char)s[n]) || (s[n] && strchr("_:.-", s[n])))
		n++;
	return s[n] == '}' ? n + 1 : 0;
}

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

static int take_argv(const json_t *value, const char *key, const struct jsonx_at *at, void *obj)
{
	size_t i, n;
	json_t *word;

	(void)key;
	(void)obj;
	if (json_string_value(json_array_get(value, 0))[0] != '/')
		return jsonx_bad(at, "the program must be an absolute path");
	json_array_foreach(value, i, word)
	{
		for (const char *s = json_string_value(word); *s; s += n ? n : 1) {
			n = placeholder(s);
			if (n && !known(s, n))
				return jsonx_bad(at, "[%zu] unknown placeholder %.*s", i,
						 (int)MIN(n, (size_t)80), s);
		}
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
	};
	struct conf_launcher l = {0};
	int r;

	if (!conf_guest_name_ok(name))
		return jsonx_bad(at, "is no name of a launcher");
	snprintf(l.name, sizeof(l.name), "%s", name);
	r = jsonx_read(json, at, fields, ARRAY_SIZE(fields), &l);
	if (r < 0) {
		conf_launcher_clear(&l);
		return r;
	}
	*ret = l;
	return 0;
}

/* Return: the value of the placeholder {@key}, NULL if this guest has none */
static const char *value_of(const struct conf_launch *with, const char *key, char *number,
			    size_t cap)
{
	const char *const values[] = {with->name,    with->uuid, number,
				      with->run_dir, with->qmp,  with->attach};

	snprintf(number, cap, "%" PRIu64, with->memory_bytes);
	if (!strncmp(key, "var:", 4))
		return json_string_value(json_object_get(with->vars, key + 4));
	for (size_t i = 0; i < ARRAY_SIZE(names); i++)
		if (!strcmp(names[i], key))
			return values[i];
	return NULL;
}

static int put_value(FILE *out, const char *s, size_t n, const struct conf_launch *with,
		     struct error *err)
{
	char key[CONF_NAME_MAX + 4], number[24];
	const char *value;

	snprintf(key, sizeof(key), "%.*s", (int)n - 2, s + 1);
	value = value_of(with, key, number, sizeof(number));
	if (!value)
		return error_set(err, -ENOENT, "bad-launcher", "the guest has no value for {%s}",
				 key);
	if (!conf_guest_var_ok(value))
		return error_set(err, -EINVAL, "bad-launcher",
				 "the value of {%s} has characters that "
				 "are not allowed",
				 key);
	fputs(value, out);
	return 0;
}

static int fill_word(const char *word, const struct conf_launch *with, char **ret,
		     struct error *err)
{
	size_t len, n;
	char *text = NULL;
	FILE *out = open_memstream(&text, &len);
	int r = 0;

	if (!out)
		return error_set(err, -ENOMEM, NULL, "out of memory");
	for (const char *s = word; !r && *s; s += n ? n : 1) {
		n = placeholder(s);
		if (n)
			r = put_value(out, s, n, with, err);
		else
			fputc(*s, out);
	}
	if (fclose(out) && !r)
		r = error_set(err, -ENOMEM, NULL, "out of memory");
	if (r < 0)
		free(text);
	else
		*ret = text;
	return r;
}

int conf_launcher_argv(const struct conf_launcher *l, const struct conf_launch *with, char ***ret,
		       struct error *err)
{
	char **argv = calloc(CONF_ARGV_MAX + 1, sizeof(*argv));
	int r = argv ? 0 : error_set(err, -ENOMEM, NULL, "out of memory");

	for (size_t i = 0; !r && l->argv[i]; i++)
		r = fill_word(l->argv[i], with, &argv[i], err);
	if (r < 0) {
		error_prefix(err, "launcher %s", l->name);
		jsonx_strings_free(argv);
		return r;
	}
	*ret = argv;
	return 0;
}

void conf_launcher_clear(struct conf_launcher *l)
{
	jsonx_strings_free(l->argv);
	*l = (struct conf_launcher){0};
}
