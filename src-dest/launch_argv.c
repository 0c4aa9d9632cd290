/* SPDX-License-Identifier: Apache-2.0 */
/* From a launcher's argv and the facts of an arriving guest to what is executed. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include "conf/conf_guest.h"
#include "launch.h"
#include "util/cleanup.h"

static const char *var_value(const struct launch_facts *f, const char *key, size_t len)
{
	for (size_t i = 0; i < f->nvars; i++)
		if (strlen(f->vars[i].key) == len && !memcmp(f->vars[i].key, key, len))
			return f->vars[i].value;
	return NULL;
}

/* "var:KEY" without the braces. */
static int value_of_var(const struct launch_facts *f, const char *key, size_t len, bool word_start,
			const char **ret, struct error *err)
{
	const char *v = var_value(f, key, len);

	if (!v)
		return error_set(err, -ENOENT, "launcher-var",
				 "launcher \"%s\" needs the variable \"%.*s\" and the guest has "
				 "none: add it to the guest's vars",
				 f->launcher, (int)len, key);
	if (!conf_guest_var_ok(v))
		return error_set(err, -EINVAL, "launcher-var",
				 "variable \"%.*s\" has a character that is not allowed in one",
				 (int)len, key);
	/* A value may not turn a word into an option of the program. */
	if (word_start && v[0] == '-')
		return error_set(err, -EINVAL, "launcher-var",
				 "variable \"%.*s\" begins with '-' and stands at the beginning of "
				 "a word of launcher \"%s\"",
				 (int)len, key, f->launcher);
	*ret = v;
	return 0;
}

static int value_of(const struct launch_facts *f, const char *name, size_t len, bool word_start,
		    const char **ret, struct error *err)
{
	const struct {
		const char *name;
		const char *value;
	} known[] = {
		{"name", f->name},       {"uuid", f->uuid},     {"memory_bytes", f->memory_bytes},
		{"run_dir", f->run_dir}, {"attach", f->attach}, {"qmp", f->qmp},
	};

	for (size_t i = 0; i < ARRAY_SIZE(known); i++) {
		if (known[i].value && strlen(known[i].name) == len &&
		    !memcmp(known[i].name, name, len)) {
			*ret = known[i].value;
			return 0;
		}
	}
	if (len > 4 && !memcmp(name, "var:", 4))
		return value_of_var(f, name + 4, len - 4, word_start, ret, err);
	return error_set(err, -EINVAL, "launcher-placeholder",
			 "launcher \"%s\" has the unknown placeholder {%.*s}: known are {name} "
			 "{uuid} {memory_bytes} {run_dir} {attach} {qmp} {var:KEY}",
			 f->launcher, (int)MIN(len, (size_t)64), name);
}

/* One word; everything that is not a {placeholder} stays as it is. */
static int fill_word(const char *word, const struct launch_facts *f, char **ret, struct error *err)
{
	CLEANUP_FREE char *out = NULL;
	size_t n = 0;
	FILE *s = open_memstream(&out, &n);
	int r = 0;

	if (!s)
		return error_set(err, -ENOMEM, NULL, "out of memory");
	for (const char *p = word; *p && !r;) {
		const char *end = *p == '{' ? strchr(p, '}') : NULL;
		const char *value = "";

		if (*p == '{' && !end) {
			r = error_set(err, -EINVAL, "launcher-placeholder",
				      "launcher \"%s\" has a '{' without '}'", f->launcher);
		} else if (end) {
			r = value_of(f, p + 1, (size_t)(end - p - 1), p == word, &value, err);
			if (!r)
				fputs(value, s);
			p = end + 1;
		} else {
			fputc(*p++, s);
		}
	}
	if (fclose(s) && !r)
		r = error_set(err, -ENOMEM, NULL, "out of memory");
	if (!r)
		*ret = steal_ptr(&out);
	return r;
}

void launch_argv_free(char **argv)
{
	for (size_t i = 0; argv && argv[i]; i++)
		free(argv[i]);
	free(argv);
}

int launch_argv(char *const *words, const struct launch_facts *f, char ***ret, struct error *err)
{
	size_t n = 0;
	char **out;
	int r = 0;

	while (words[n])
		n++;
	out = calloc(n + 1, sizeof(*out));
	if (!out)
		return error_set(err, -ENOMEM, NULL, "out of memory");
	for (size_t i = 0; i < n && !r; i++)
		r = fill_word(words[i], f, &out[i], err);
	if (r)
		launch_argv_free(out);
	else
		*ret = out;
	return r;
}

size_t launch_token(const uint8_t token[static MSG_TOKEN_LEN], char out[static LAUNCH_TOKEN_MAX])
{
	char *p = stpcpy(out, "DECANT_INCOMING=");

	for (size_t i = 0; i < MSG_TOKEN_LEN; i++, p += 2)
		snprintf(p, 3, "%02x", token[i]);
	return (size_t)(p - out);
}
