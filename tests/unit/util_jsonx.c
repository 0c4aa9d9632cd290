/* SPDX-License-Identifier: Apache-2.0 */
#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "util/cleanup.h"
#include "util/jsonx.h"

enum mode { MODE_HYBRID, MODE_POSTCOPY, MODE_PRECOPY };

static const char *const mode_names[] = {"hybrid", "postcopy", "precopy", NULL};

/**
 * struct config - one member of each kind
 */
struct config {
	char *name;
	char short_name[8];
	bool on;
	uint64_t big;
	uint16_t port;
	uint8_t small;
	int priority;
	enum mode mode;
	char **allow;
	json_t *vars;
	struct tls {
		char *ca;
		char *cert;
	} tls;
	int guests;
	char guest_names[64];
	int launchers;
	char launcher_names[64];
	bool any_null;
};

static int take_even(const json_t *v, const char *key, const struct jsonx_at *at, void *obj)
{
	struct config *c = obj;

	(void)v;
	(void)key;
	return c->small % 2 ? jsonx_bad(at, "must be even, but is %u", c->small) : 0;
}

static int take_guest(const json_t *v, const char *key, const struct jsonx_at *at, void *obj)
{
	static const struct jsonx_field fields[] = {
		{"name", JSONX_CHARS, .required = true, .min = 1, .size = 8},
	};
	struct config *c = obj;
	char name[8] = "";
	int r = jsonx_read(v, at, fields, ARRAY_SIZE(fields), name);

	if (r < 0)
		return r;
	cr_assert(eq(str, (char *)key, "guests"));
	c->guests++;
	strcat(c->guest_names, name);
	return 0;
}

static int take_launcher(const json_t *v, const char *key, const struct jsonx_at *at, void *obj)
{
	struct config *c = obj;

	if (!json_is_array(v))
		return jsonx_bad(at, "must be an array");
	c->launchers++;
	strcat(c->launcher_names, key);
	return 0;
}

static int take_any(const json_t *v, const char *key, const struct jsonx_at *at, void *obj)
{
	struct config *c = obj;

	(void)key;
	c->any_null = json_is_null(v);
	return c->any_null ? 0 : jsonx_bad(at, "must be null");
}

static const struct jsonx_field tls_fields[] = {
	{"ca", JSONX_STRING, .required = true, .min = 1, JSONX_INTO(struct tls, ca)},
	{"cert", JSONX_STRING, .required = true, .min = 1, JSONX_INTO(struct tls, cert)},
};

static const struct jsonx_field fields[] = {
	{"name", JSONX_STRING, .nullable = true, .max = 10, JSONX_INTO(struct config, name)},
	{"short", JSONX_CHARS, .min = 2, JSONX_INTO(struct config, short_name)},
	{"on", JSONX_BOOL, JSONX_INTO(struct config, on)},
	{"big", JSONX_UINT, JSONX_INTO(struct config, big)},
	{"port", JSONX_UINT, .min = 1, JSONX_INTO(struct config, port)},
	{"small", JSONX_UINT, .max = 100, .take = take_even, JSONX_INTO(struct config, small)},
	{"priority", JSONX_INT, .min = -1000, .max = 1000, JSONX_INTO(struct config, priority)},
	{"mode", JSONX_WORD, .words = mode_names, JSONX_INTO(struct config, mode)},
	{"allow", JSONX_STRINGS, .nullable = true, .min = 1, .max = 3,
	 JSONX_INTO(struct config, allow)},
	{"vars", JSONX_MAP, .nullable = true, .max = 2, JSONX_INTO(struct config, vars)},
	{"tls", JSONX_OBJECT, .required = true, .fields = tls_fields,
	 .n_fields = ARRAY_SIZE(tls_fields), JSONX_INTO(struct config, tls)},
	{"guests", JSONX_EACH, .max = 3, .take = take_guest},
	{"launchers", JSONX_MEMBERS, .max = 2, .take = take_launcher},
	{"any", JSONX_ANY, .take = take_any},
};

#define TLS "\"tls\": {\"ca\": \"a\", \"cert\": \"c\"}"

/* Read a text over @c. Return: what jsonx_read() returned */
static int read_text(const char *text, struct config *c, struct error *err)
{
	struct jsonx_at at = {.path = "", .code = "bad-test", .err = err};
	json_t *json = jsonx_parse(text, strlen(text), &at);
	int r;

	cr_assert(ne(ptr, json, NULL), "%s: %s", text, err->msg);
	r = jsonx_read(json, &at, fields, ARRAY_SIZE(fields), c);
	json_decref(json);
	return r;
}

/* A text that must be refused with exactly this message. */
static void check_refused(const char *text, const char *msg)
{
	struct config c = {0};
	struct error err = {0};

	cr_assert(eq(int, read_text(text, &c, &err), -EINVAL), "%s", text);
	cr_assert(eq(str, err.msg, (char *)msg));
	cr_assert(eq(str, err.code, "bad-test"));
	jsonx_clear(fields, ARRAY_SIZE(fields), &c);
}

Test(jsonx, every_kind_of_field)
{
	struct config c = {0};
	struct error err = {0};
	int r = read_text(
		"{\"name\": \"g\\u00e4st\", \"short\": \"1234567\", \"on\": true,"
		"\"big\": 9223372036854775807, \"port\": 65535, \"small\": 100,"
		"\"priority\": -1000, \"mode\": \"precopy\", \"allow\": [\"x\", \"y\"],"
		"\"vars\": {\"k\": \"v\"}, \"guests\": [{\"name\": \"a\"}, {\"name\": \"b\"}],"
		"\"launchers\": {\"l1\": [], \"l2\": []}, \"any\": null, " TLS "}",
		&c, &err);

	cr_assert(zero(int, r), "%s", err.msg);
	cr_assert(eq(str, c.name, "g\xc3\xa4st"));
	cr_assert(eq(str, c.short_name, "1234567"));
	cr_assert(c.on);
	cr_assert(eq(u64, c.big, INT64_MAX));
	cr_assert(eq(u16, c.port, 65535));
	cr_assert(eq(u8, c.small, 100));
	cr_assert(eq(int, c.priority, -1000));
	cr_assert(eq(int, (int)c.mode, MODE_PRECOPY));
	cr_assert(eq(str, c.allow[0], "x"));
	cr_assert(eq(str, c.allow[1], "y"));
	cr_assert(eq(ptr, c.allow[2], NULL));
	cr_assert(eq(str, (char *)json_string_value(json_object_get(c.vars, "k")), "v"));
	cr_assert(eq(str, c.tls.ca, "a"));
	cr_assert(eq(str, c.tls.cert, "c"));
	cr_assert(eq(str, c.guest_names, "ab"));
	cr_assert(eq(str, c.launcher_names, "l1l2"));
	cr_assert(c.any_null);
	jsonx_clear(fields, ARRAY_SIZE(fields), &c);
	cr_assert(not(c.name || c.allow || c.vars || c.tls.ca || c.tls.cert));
	jsonx_clear(fields, ARRAY_SIZE(fields), &c);
}

Test(jsonx, absent_members_keep_their_defaults)
{
	struct config c = {.name = strdup("default"), .port = 7400, .mode = MODE_POSTCOPY};
	struct error err = {0};

	cr_assert(zero(int, read_text("{" TLS "}", &c, &err)));
	cr_assert(eq(str, c.name, "default"));
	cr_assert(eq(u16, c.port, 7400));
	cr_assert(eq(int, (int)c.mode, MODE_POSTCOPY));
	/* Values take the place of older ones, null of those that may be null. */
	cr_assert(
		zero(int, read_text("{\"name\": \"x\", \"allow\": [\"a\"], \"vars\": {}, " TLS "}",
				    &c, &err)));
	cr_assert(eq(str, c.name, "x"));
	cr_assert(zero(int, read_text("{\"name\": null, \"allow\": null, \"vars\": null, " TLS "}",
				      &c, &err)));
	cr_assert(not(c.name || c.allow || c.vars));
	jsonx_clear(fields, ARRAY_SIZE(fields), &c);
}

Test(jsonx, unknown_keys_are_named)
{
	check_refused("{\"nam\": 1, " TLS "}", "nam: unknown key");
	check_refused("{\"tls\": {\"ca\": \"a\", \"cert\": \"c\", \"crt\": \"c\"}}",
		      "tls.crt: unknown key");
	check_refused("{\"guests\": [{\"name\": \"a\"}, {\"name\": \"b\", \"x\": 1}], " TLS "}",
		      "guests[1].x: unknown key");
	check_refused("{\"\": 1, " TLS "}", "unknown key");
}

Test(jsonx, missing_keys_are_named)
{
	check_refused("{}", "tls: missing");
	check_refused("{\"tls\": {\"ca\": \"a\"}}", "tls.cert: missing");
	check_refused("{\"guests\": [{}], " TLS "}", "guests[0].name: missing");
}

Test(jsonx, wrong_types_are_named)
{
	check_refused("[]", "must be an object, not an array");
	check_refused("{\"tls\": \"x\"}", "tls: must be an object, not a string");
	check_refused("{\"tls\": null}", "tls: must be an object, not null");
	check_refused("{\"tls\": {\"ca\": 1, \"cert\": \"c\"}}",
		      "tls.ca: must be a string, not a number");
	check_refused("{\"name\": true, " TLS "}", "name: must be a string, not true or false");
	check_refused("{\"short\": {}, " TLS "}", "short: must be a string, not an object");
	check_refused("{\"on\": 1, " TLS "}", "on: must be true or false, not a number");
	check_refused("{\"on\": null, " TLS "}", "on: must be true or false, not null");
	check_refused("{\"port\": \"1\", " TLS "}", "port: must be a whole number, not a string");
	check_refused("{\"port\": 1.5, " TLS "}", "port: must be a whole number");
	check_refused("{\"port\": 1e3, " TLS "}", "port: must be a whole number");
	check_refused("{\"mode\": 1, " TLS "}", "mode: must be a string, not a number");
	check_refused("{\"allow\": \"x\", " TLS "}",
		      "allow: must be an array of strings, not a string");
	check_refused("{\"allow\": [\"x\", 1], " TLS "}",
		      "allow[1]: must be a string, not a number");
	check_refused("{\"vars\": [], " TLS "}",
		      "vars: must be an object of strings, not an array");
	check_refused("{\"vars\": {\"k\": 1}, " TLS "}", "vars.k: must be a string, not a number");
	check_refused("{\"guests\": {}, " TLS "}", "guests: must be an array, not an object");
	check_refused("{\"guests\": [1], " TLS "}", "guests[0]: must be an object, not a number");
	check_refused("{\"launchers\": [], " TLS "}", "launchers: must be an object, not an array");
	check_refused("{\"launchers\": {\"l\": 1}, " TLS "}", "launchers.l: must be an array");
	check_refused("{\"any\": 1, " TLS "}", "any: must be null");
}

Test(jsonx, values_out_of_range_are_named)
{
	check_refused("{\"port\": 0, " TLS "}", "port: must be from 1 to 65535, but is 0");
	check_refused("{\"port\": 65536, " TLS "}", "port: must be from 1 to 65535, but is 65536");
	check_refused("{\"big\": -1, " TLS "}",
		      "big: must be from 0 to 9223372036854775807, but is -1");
	check_refused("{\"small\": 101, " TLS "}", "small: must be from 0 to 100, but is 101");
	check_refused("{\"small\": 99, " TLS "}", "small: must be even, but is 99");
	check_refused("{\"priority\": -1001, " TLS "}",
		      "priority: must be from -1000 to 1000, but is -1001");
	check_refused("{\"name\": \"12345678901\", " TLS "}",
		      "name: must have 0 to 10 bytes, but has 11");
	check_refused("{\"short\": \"12345678\", " TLS "}",
		      "short: must have 2 to 7 bytes, but has 8");
	check_refused("{\"short\": \"1\", " TLS "}", "short: must have 2 to 7 bytes, but has 1");
	check_refused("{\"tls\": {\"ca\": \"\", \"cert\": \"c\"}}", "tls.ca: must not be empty");
	check_refused("{\"mode\": \"Hybrid\", " TLS "}",
		      "mode: \"Hybrid\" is not one of hybrid, postcopy, precopy");
	check_refused("{\"allow\": [], " TLS "}", "allow: must have at least 1 entry, but has 0");
	check_refused("{\"allow\": [\"1\", \"2\", \"3\", \"4\"], " TLS "}",
		      "allow: must have at most 3 entries, but has 4");
	check_refused("{\"vars\": {\"1\": \"\", \"2\": \"\", \"3\": \"\"}, " TLS "}",
		      "vars: must have at most 2 entries, but has 3");
	check_refused("{\"guests\": [0, 0, 0, 0], " TLS "}",
		      "guests: must have at most 3 entries, but has 4");
	check_refused("{\"launchers\": {\"1\": 1, \"2\": 1, \"3\": 1}, " TLS "}",
		      "launchers: must have at most 2 entries, but has 3");
}

Test(jsonx, defaults_bound_what_has_no_bound_of_its_own)
{
	static const struct jsonx_field open_fields[] = {
		{"ca", JSONX_STRING, JSONX_INTO(struct tls, ca)},
	};
	struct error err = {0};
	struct jsonx_at at = {.path = "body", .err = &err};
	static char text[5000];
	struct tls t = {0};
	json_t *json;

	memset(text, 'x', sizeof(text) - 1);
	json = json_pack("{s:s%}", "ca", text, (size_t)4096);
	cr_assert(eq(int, jsonx_read(json, &at, open_fields, 1, &t), -EINVAL));
	cr_assert(eq(str, err.msg, "body.ca: must have 0 to 4095 bytes, but has 4096"));
	cr_assert(eq(str, err.code, "bad-json"));
	json_decref(json);
	json = json_pack("{s:s%}", "ca", text, (size_t)4095);
	cr_assert(zero(int, jsonx_read(json, &at, open_fields, 1, &t)));
	cr_assert(eq(sz, strlen(t.ca), 4095));
	json_decref(json);
	jsonx_clear(open_fields, 1, &t);
}

Test(jsonx, no_document_at_all)
{
	struct error err = {0};
	struct jsonx_at at = {.path = "body", .err = &err};
	struct config c = {0};

	cr_assert(eq(int, jsonx_read(NULL, &at, fields, ARRAY_SIZE(fields), &c), -EINVAL));
	cr_assert(eq(str, err.msg, "body: must be an object, not missing"));
}

/* A key of a client may be long and odd: the message stays a bounded, valid line. */
Test(jsonx, odd_keys_in_messages)
{
	struct config c = {0};
	struct error err = {0};
	char key[401], text[512];
	json_t *j;

	for (size_t i = 0; i < 400; i += 2)
		memcpy(key + i, "\xc3\xa4", 2);
	key[0] = 'a'; /* the clipping would fall into a character */
	key[1] = 'b';
	key[2] = 'c';
	key[3] = 'd';
	key[4] = 'e';
	memcpy(key + 5, "fgh", 3);
	key[400] = '\0';
	snprintf(text, sizeof(text), "{\"%s\": 1, " TLS "}", key);
	cr_assert(eq(int, read_text(text, &c, &err), -EINVAL));
	cr_assert(lt(sz, strlen(err.msg), 100));
	j = json_string(err.msg);
	cr_assert(ne(ptr, j, NULL));
	json_decref(j);
	error_clear(&err);
	cr_assert(eq(int, read_text("{\"a\\nb\": 1, " TLS "}", &c, &err), -EINVAL));
	cr_assert(eq(str, err.msg, "a b: unknown key"));
}

/* What was read before the failure is freed by jsonx_clear(); the leak checker would tell. */
Test(jsonx, failing_half_way_leaks_nothing)
{
	struct config c = {0};
	struct error err = {0};

	cr_assert(eq(int,
		     read_text("{\"name\": \"n\", \"allow\": [\"a\"], \"vars\": {\"k\": \"v\"},"
			       "\"tls\": {\"ca\": \"x\"}}",
			       &c, &err),
		     -EINVAL));
	cr_assert(eq(str, c.tls.ca, "x"));
	jsonx_clear(fields, ARRAY_SIZE(fields), &c);
	cr_assert(eq(ptr, c.tls.ca, NULL));
}

Test(jsonx, nul_inside_a_string)
{
	struct config c = {0};
	struct error err = {0};
	struct jsonx_at at = {.path = "", .err = &err};
	json_t *json = json_pack("{s:s%, s:{s:s, s:s}}", "name", "a\0b", (size_t)3, "tls", "ca",
				 "a", "cert", "c");

	cr_assert(eq(int, jsonx_read(json, &at, fields, ARRAY_SIZE(fields), &c), -EINVAL));
	cr_assert(eq(str, err.msg, "name: must not have a NUL inside"));
	json_decref(json);
	jsonx_clear(fields, ARRAY_SIZE(fields), &c);
}

Test(jsonx, parse_errors_say_where)
{
	struct error err = {0};
	struct jsonx_at at = {.path = "body", .code = "bad-request", .err = &err};
	const char *twice = "{\"a\": 1,\n \"a\": 2}";

	cr_assert(eq(ptr, jsonx_parse("{\"a\": }", 7, &at), NULL));
	cr_assert(eq(str, err.code, "bad-request"));
	cr_assert(zero(int, strncmp(err.msg, "body: line 1, column ", 21)), "%s", err.msg);
	error_clear(&err);
	cr_assert(eq(ptr, jsonx_parse(twice, strlen(twice), &at), NULL));
	cr_assert(zero(int, strncmp(err.msg, "body: line 2, column ", 21)), "%s", err.msg);
	error_clear(&err);
	cr_assert(eq(ptr, jsonx_parse("", 0, &at), NULL));
	cr_assert(error_is_set(&err));
	error_clear(&err);
	cr_assert(eq(ptr, jsonx_parse("{} x", 4, &at), NULL));
	cr_assert(error_is_set(&err));
}

Test(jsonx, load)
{
	const char *tmp = getenv("TMPDIR");
	struct error err = {0};
	json_t *json = NULL;
	char path[64];
	int fd;

	snprintf(path, sizeof(path), "%s/jsonx-XXXXXX", tmp ? tmp : "/tmp");
	fd = mkstemp(path);

	cr_assert(eq(long, write(fd, "{\"a\": 1}", 8), 8));
	cr_assert(zero(int, jsonx_load(path, 8, &json, &err)), "%s", err.msg);
	cr_assert(eq(sz, json_object_size(json), 1));
	json_decref(json);
	json = NULL;
	cr_assert(eq(int, jsonx_load(path, 7, &json, &err), -EFBIG));
	cr_assert(ne(ptr, strstr(err.msg, path), NULL));
	error_clear(&err);
	cr_assert(zero(int, ftruncate(fd, 5)));
	cr_assert(eq(int, jsonx_load(path, 8, &json, &err), -EINVAL));
	cr_assert(zero(int, strncmp(err.msg, path, strlen(path))), "%s", err.msg);
	error_clear(&err);
	unlink(path);
	cr_assert(eq(int, jsonx_load(path, 8, &json, &err), -ENOENT));
	cr_assert(eq(ptr, json, NULL));
	close(fd);
}

Test(jsonx, rates)
{
	static const struct {
		const char *s;
		uint64_t want;
	} good[] = {
		{"0", 0},
		{"0Gbit", 0},
		{"8", 1},
		{"64000", 8000},
		{"1kbit", 125},
		{"800kbit", 100000},
		{"100Mbit", 12500000},
		{"5Gbit", 625000000},
		{"2.5Gbit", 312500000},
		{"0.008kbit", 1},
		{"0.000000008Gbit", 1},
		{"15.9", 1},
		{"73786976294Gbit", 9223372036750000000},
	};
	static const char *const bad[] = {
		"",        "kbit",  "-1",   "+1",    "1 Gbit", " 1Gbit",           "1Gbit ",
		"1gbit",   "1GBit", "1Gib", "1G",    "1bit",   ".5Gbit",           "5.Gbit",
		"1,5Mbit", "1e3",   "0x10", "1.5.5", "nan",    "1.0000000001Gbit",
	};
	static const char *const out[] = {"7", "0.007kbit", "0.1", "73786976295Gbit",
					  "99999999999999999999Gbit"};
	struct error err;
	uint64_t got;

	for (size_t i = 0; i < ARRAY_SIZE(good); i++) {
		err = (struct error){0};
		cr_assert(zero(int, jsonx_rate(good[i].s, &got, &err)), "%s: %s", good[i].s,
			  err.msg);
		cr_assert(eq(u64, got, good[i].want), "%s", good[i].s);
	}
	got = 77;
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		err = (struct error){0};
		cr_assert(eq(int, jsonx_rate(bad[i], &got, &err), -EINVAL), "%s", bad[i]);
		cr_assert(eq(str, err.code, "bad-rate"));
	}
	for (size_t i = 0; i < ARRAY_SIZE(out); i++) {
		err = (struct error){0};
		cr_assert(eq(int, jsonx_rate(out[i], &got, &err), -ERANGE), "%s", out[i]);
		cr_assert(ne(ptr, strstr(err.msg, out[i]), NULL));
	}
	cr_assert(eq(int, jsonx_rate("111111111111111111111111111111111111111111", &got, &err),
		     -EINVAL));
	cr_assert(eq(u64, got, 77));
}
