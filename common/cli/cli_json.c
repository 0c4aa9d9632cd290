/* SPDX-License-Identifier: Apache-2.0 */
/* JSON out as it is or in words, and parts of it by their path. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "cli/cli.h"

static const json_t *at(const json_t *o, const char *path)
{
	while (o && *path) {
		size_t n = strcspn(path, ".");

		o = json_object_getn(o, path, n);
		path += n + (path[n] == '.');
	}
	return o;
}

const char *cli_str(const json_t *o, const char *path)
{
	return json_string_value(at(o, path));
}

double cli_num(const json_t *o, const char *path, double dflt)
{
	const json_t *v = at(o, path);

	return json_is_number(v) ? json_number_value(v) : dflt;
}

int cli_print_json(const json_t *json)
{
	if (json_dumpf(json, stdout, JSON_INDENT(2) | JSON_ENCODE_ANY) < 0 || puts("") < 0)
		return cli_error(CLI_FAILED, "stdout", "cannot write");
	return CLI_OK;
}

static bool ends(const char *s, const char *tail)
{
	size_t n = strlen(s), m = strlen(tail);

	return n >= m && !strcmp(s + n - m, tail);
}

/* @path's last members say what the number is. Histograms' members ("latency_us.p50") say it one up. */
static void number(char *buf, size_t cap, const char *path, const json_t *v)
{
	char text[CLI_TEXT_MAX];
	double d = json_number_value(v);

	if (ends(path, "bytes_per_s"))
		snprintf(buf, cap, "%s", cli_rate(text, d));
	else if (ends(path, "bytes") || ends(path, "page_size") || ends(path, "length"))
		snprintf(buf, cap, "%s", cli_size(text, d));
	else if (ends(path, "_us") || strstr(path, "_us."))
		snprintf(buf, cap, "%s", cli_duration(text, d));
	else if (ends(path, "_s") && !ends(path, "per_s"))
		snprintf(buf, cap, "%s", cli_duration(text, d * 1e6));
	else if (json_is_integer(v))
		snprintf(buf, cap, "%" JSON_INTEGER_FORMAT, json_integer_value(v));
	else
		snprintf(buf, cap, "%.2f", d);
}

static void put(struct cli_table *t, const char *path, const json_t *v)
{
	char buf[CLI_TEXT_MAX + 32];
	const char *cells[2] = {path, buf};

	switch (json_typeof(v)) {
	case JSON_STRING:
		cells[1] = json_string_value(v);
		break;
	case JSON_INTEGER:
	case JSON_REAL:
		number(buf, sizeof(buf), path, v);
		break;
	case JSON_TRUE:
	case JSON_FALSE:
		cells[1] = json_is_true(v) ? "yes" : "no";
		break;
	default:
		cells[1] = NULL;
		break;
	}
	cli_table_row(t, cells);
}

static void walk(struct cli_table *t, const char *path, const json_t *v);

static void step(struct cli_table *t, const char *path, const char *key, const json_t *v)
{
	char *text;

	if (asprintf(&text, "%s%s%s", path, *path && *key != '[' ? "." : "", key) < 0)
		return;
	walk(t, text, v);
	free(text);
}

static void walk(struct cli_table *t, const char *path, const json_t *v)
{
	const char *key;
	json_t *item;
	size_t i;

	if (json_is_object(v) && json_object_size(v)) {
		json_object_foreach((json_t *)v, key, item)
			step(t, path, key, item);
	} else if (json_is_array(v) && json_array_size(v)) {
		/* The buckets of a histogram are for programs; its quantiles stand beside them. */
		if (ends(path, "buckets"))
			return;
		json_array_foreach(v, i, item) {
			char index[24];

			snprintf(index, sizeof(index), "[%zu]", i);
			step(t, path, index, item);
		}
	} else {
		put(t, path, v);
	}
}

int cli_print_object(const json_t *o)
{
	struct cli_table *t = cli_table_new(2, 0);

	if (t)
		walk(t, "", o);
	return cli_table_print(t);
}
