/* SPDX-License-Identifier: Apache-2.0 */
#include "util/jsonx.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "util/cleanup.h"
#include "util/fdio.h"
#include "util/text.h"

/* Longest path in a message; what is longer loses its end. */
#define PATH_MAX_LEN 256
/* Most bytes of a foreign key or string in a message. */
#define QUOTE_MAX   64
#define STRING_MAX  4095
#define ENTRIES_MAX 4096

static int bad(const struct jsonx_at *at, int ret, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

static int badv(const struct jsonx_at *at, int ret, const char *fmt, va_list ap)
{
	char what[320];

	vsnprintf(what, sizeof(what), fmt, ap);
	return error_set(at->err, ret, at->code ? at->code : "bad-json", "%s%s%s", at->path,
			 at->path[0] ? ": " : "", what);
}

static int bad(const struct jsonx_at *at, int ret, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	badv(at, ret, fmt, ap);
	va_end(ap);
	return ret;
}

int jsonx_bad(const struct jsonx_at *at, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	badv(at, -EINVAL, fmt, ap);
	va_end(ap);
	return -EINVAL;
}

static int no_memory(const struct jsonx_at *at)
{
	return error_set(at->err, -ENOMEM, NULL, "%s: out of memory", at->path);
}

/**
 * struct step - a place one level further down
 * @at:		its path is @path
 * @path:	of the outer place, and this step
 */
struct step {
	struct jsonx_at at;
	char path[PATH_MAX_LEN];
};

/* Quoted, clipped parts of a path come from whoever wrote the document. */
static const struct jsonx_at *at_key(struct step *s, const struct jsonx_at *up, const char *key)
{
	s->at = *up;
	s->at.path = s->path;
	snprintf(s->path, sizeof(s->path), "%s%s%.*s", up->path, up->path[0] ? "." : "",
		 (int)text_clip(key, QUOTE_MAX), key);
	return &s->at;
}

static const struct jsonx_at *at_index(struct step *s, const struct jsonx_at *up, size_t i)
{
	s->at = *up;
	s->at.path = s->path;
	snprintf(s->path, sizeof(s->path), "%s[%zu]", up->path, i);
	return &s->at;
}

static const char *type_name(const json_t *v)
{
	if (!v)
		return "missing";
	switch (json_typeof(v)) {
	case JSON_OBJECT:
		return "an object";
	case JSON_ARRAY:
		return "an array";
	case JSON_STRING:
		return "a string";
	case JSON_INTEGER:
	case JSON_REAL:
		return "a number";
	case JSON_TRUE:
	case JSON_FALSE:
		return "true or false";
	default:
		return "null";
	}
}

static int wrong_type(const struct jsonx_at *at, const char *wanted, const json_t *v)
{
	return bad(at, -EINVAL, "must be %s, not %s", wanted, type_name(v));
}

/* A string without NULs inside, of @min to @max bytes. */
static int check_string(const json_t *v, const struct jsonx_at *at, int64_t min, int64_t max)
{
	int64_t n;

	if (!json_is_string(v))
		return wrong_type(at, "a string", v);
	n = (int64_t)json_string_length(v);
	if (strlen(json_string_value(v)) != (size_t)n)
		return bad(at, -EINVAL, "must not have a NUL inside");
	if (!n && min == 1)
		return bad(at, -EINVAL, "must not be empty");
	if (n < min || n > max)
		return bad(at, -EINVAL,
			   "must have %" PRId64 " to %" PRId64 " bytes, but has %" PRId64, min, max,
			   n);
	return 0;
}

static int check_count(const struct jsonx_at *at, const struct jsonx_field *f, size_t n)
{
	int64_t max = f->max ? f->max : ENTRIES_MAX;

	if ((int64_t)n < f->min)
		return bad(at, -EINVAL, "must have at least %" PRId64 " %s, but has %zu", f->min,
			   f->min == 1 ? "entry" : "entries", n);
	if ((int64_t)n > max)
		return bad(at, -EINVAL, "must have at most %" PRId64 " %s, but has %zu", max,
			   max == 1 ? "entry" : "entries", n);
	return 0;
}

static int read_string(const struct jsonx_field *f, const json_t *v, const struct jsonx_at *at,
		       void *out)
{
	char **p = out, *copy;
	int r = check_string(v, at, f->min, f->max ? f->max : STRING_MAX);

	if (r < 0)
		return r;
	copy = strdup(json_string_value(v));
	if (!copy)
		return no_memory(at);
	free(*p);
	*p = copy;
	return 0;
}

static int read_chars(const struct jsonx_field *f, const json_t *v, const struct jsonx_at *at,
		      void *out)
{
	int r = check_string(v, at, f->min, (int64_t)f->size - 1);

	if (r < 0)
		return r;
	memset(out, 0, f->size);
	memcpy(out, json_string_value(v), json_string_length(v));
	return 0;
}

static int read_bool(const struct jsonx_field *f, const json_t *v, const struct jsonx_at *at,
		     void *out)
{
	(void)f;
	if (!json_is_boolean(v))
		return wrong_type(at, "true or false", v);
	*(bool *)out = json_is_true(v);
	return 0;
}

/* Two's complement makes one store do for signed and unsigned. */
static void store_number(void *out, size_t size, int64_t n)
{
	switch (size) {
	case 1:
		*(uint8_t *)out = (uint8_t)n;
		break;
	case 2:
		*(uint16_t *)out = (uint16_t)n;
		break;
	case 4:
		*(uint32_t *)out = (uint32_t)n;
		break;
	default:
		*(uint64_t *)out = (uint64_t)n;
	}
}

static int read_number(const struct jsonx_field *f, const json_t *v, const struct jsonx_at *at,
		       void *out)
{
	int64_t max = f->max, n;

	if (f->type == JSONX_UINT && !max)
		max = f->size >= 8 ? INT64_MAX : (INT64_C(1) << (8 * f->size)) - 1;
	if (!json_is_integer(v) && !json_is_real(v))
		return wrong_type(at, "a whole number", v);
	n = json_integer_value(v);
	if (json_is_real(v))
		return bad(at, -EINVAL, "must be a whole number");
	if (n < f->min || n > max)
		return bad(at, -EINVAL, "must be from %" PRId64 " to %" PRId64 ", but is %" PRId64,
			   f->min, max, n);
	store_number(out, f->size, n);
	return 0;
}

static int read_word(const struct jsonx_field *f, const json_t *v, const struct jsonx_at *at,
		     void *out)
{
	const char *s = json_string_value(v);
	char all[160] = "";
	size_t len = 0;

	if (!s)
		return wrong_type(at, "a string", v);
	for (int i = 0; f->words[i]; i++) {
		if (!strcmp(f->words[i], s)) {
			store_number(out, f->size, i);
			return 0;
		}
		if (len < sizeof(all))
			len += (size_t)snprintf(all + len, sizeof(all) - len, "%s%s", i ? ", " : "",
						f->words[i]);
	}
	return bad(at, -EINVAL, "\"%.*s\" is not one of %s", (int)text_clip(s, QUOTE_MAX), s, all);
}

static int read_strings(const struct jsonx_field *f, const json_t *v, const struct jsonx_at *at,
			void *out)
{
	char ***p = out, **made;
	size_t n = json_array_size(v);
	struct step s;
	int r = 0;

	if (!json_is_array(v))
		return wrong_type(at, "an array of strings", v);
	if (check_count(at, f, n) < 0)
		return -EINVAL;
	made = calloc(n + 1, sizeof(*made));
	if (!made)
		return no_memory(at);
	for (size_t i = 0; !r && i < n; i++) {
		const json_t *entry = json_array_get(v, i);

		r = check_string(entry, at_index(&s, at, i), 0, STRING_MAX);
		if (!r && !(made[i] = strdup(json_string_value(entry))))
			r = no_memory(at);
	}
	if (r < 0) {
		jsonx_strings_free(made);
		return r;
	}
	jsonx_strings_free(*p);
	*p = made;
	return 0;
}

static int read_map(const struct jsonx_field *f, const json_t *v, const struct jsonx_at *at,
		    void *out)
{
	json_t **p = out, *copy, *entry;
	const char *key;
	struct step s;
	int r;

	if (!json_is_object(v))
		return wrong_type(at, "an object of strings", v);
	if (check_count(at, f, json_object_size(v)) < 0)
		return -EINVAL;
	json_object_foreach((json_t *)v, key, entry) {
		r = check_string(entry, at_key(&s, at, key), 0, STRING_MAX);
		if (r < 0)
			return r;
	}
	/* A copy: the document may be changed by its owner, what was checked must not be. */
	copy = json_deep_copy(v);
	if (!copy)
		return no_memory(at);
	json_decref(*p);
	*p = copy;
	return 0;
}

static int read_object(const struct jsonx_field *f, const json_t *v, const struct jsonx_at *at,
		       void *out)
{
	return jsonx_read(v, at, f->fields, f->n_fields, out);
}

static int take_each(const struct jsonx_field *f, const json_t *v, const struct jsonx_at *at,
		     void *obj)
{
	struct step s;
	int r = 0;

	if (!json_is_array(v))
		return wrong_type(at, "an array", v);
	if (check_count(at, f, json_array_size(v)) < 0)
		return -EINVAL;
	for (size_t i = 0; !r && i < json_array_size(v); i++)
		r = f->take(json_array_get(v, i), f->key, at_index(&s, at, i), obj);
	return r;
}

static int take_members(const struct jsonx_field *f, const json_t *v, const struct jsonx_at *at,
			void *obj)
{
	const char *key;
	json_t *entry;
	struct step s;
	int r;

	if (!json_is_object(v))
		return wrong_type(at, "an object", v);
	if (check_count(at, f, json_object_size(v)) < 0)
		return -EINVAL;
	json_object_foreach((json_t *)v, key, entry) {
		r = f->take(entry, key, at_key(&s, at, key), obj);
		if (r < 0)
			return r;
	}
	return 0;
}

typedef int read_fn(const struct jsonx_field *f, const json_t *v, const struct jsonx_at *at,
		    void *out);

/* Readers of values that are kept at the field's offset; the other types have a @take. */
static read_fn *const readers[] = {
	[JSONX_STRING] = read_string,   [JSONX_CHARS] = read_chars, [JSONX_BOOL] = read_bool,
	[JSONX_UINT] = read_number,     [JSONX_INT] = read_number,  [JSONX_WORD] = read_word,
	[JSONX_STRINGS] = read_strings, [JSONX_MAP] = read_map,     [JSONX_OBJECT] = read_object,
};

static void clear_field(const struct jsonx_field *f, void *out)
{
	if (f->type == JSONX_STRING) {
		free(*(char **)out);
		*(char **)out = NULL;
	} else if (f->type == JSONX_STRINGS) {
		jsonx_strings_free(*(char ***)out);
		*(char ***)out = NULL;
	} else if (f->type == JSONX_MAP) {
		json_decref(*(json_t **)out);
		*(json_t **)out = NULL;
	} else if (f->type == JSONX_OBJECT) {
		jsonx_clear(f->fields, f->n_fields, out);
	}
}

static int read_field(const struct jsonx_field *f, const json_t *v, const struct jsonx_at *at,
		      void *obj)
{
	void *out = (char *)obj + f->offset;
	int r;

	if (json_is_null(v) && f->nullable) {
		if (f->type != JSONX_OBJECT)
			clear_field(f, out);
		return 0;
	}
	if (f->type == JSONX_EACH)
		return take_each(f, v, at, obj);
	if (f->type == JSONX_MEMBERS)
		return take_members(f, v, at, obj);
	r = f->type == JSONX_ANY ? 0 : readers[f->type](f, v, at, out);
	if (!r && f->take)
		r = f->take(v, f->key, at, obj);
	return r;
}

static const struct jsonx_field *find(const struct jsonx_field *fields, size_t n, const char *key)
{
	for (size_t i = 0; i < n; i++)
		if (!strcmp(fields[i].key, key))
			return &fields[i];
	return NULL;
}

int jsonx_read(const json_t *json, const struct jsonx_at *at, const struct jsonx_field *fields,
	       size_t n, void *obj)
{
	const json_t *v;
	const char *key;
	json_t *unused;
	struct step s;
	int r = 0;

	if (!json_is_object(json))
		return wrong_type(at, "an object", json);
	json_object_foreach((json_t *)json, key, unused)
		if (!find(fields, n, key))
			return bad(at_key(&s, at, key), -EINVAL, "unknown key");
	for (size_t i = 0; !r && i < n; i++) {
		v = json_object_get(json, fields[i].key);
		if (v)
			r = read_field(&fields[i], v, at_key(&s, at, fields[i].key), obj);
		else if (fields[i].required)
			r = bad(at_key(&s, at, fields[i].key), -EINVAL, "missing");
	}
	return r;
}

void jsonx_clear(const struct jsonx_field *fields, size_t n, void *obj)
{
	for (size_t i = 0; i < n; i++)
		clear_field(&fields[i], (char *)obj + fields[i].offset);
}

void jsonx_strings_free(char **strings)
{
	for (char **s = strings; s && *s; s++)
		free(*s);
	free(strings);
}

json_t *jsonx_parse(const char *text, size_t n, const struct jsonx_at *at)
{
	json_error_t e;
	json_t *json = json_loadb(text, n, JSON_REJECT_DUPLICATES, &e);

	if (!json)
		bad(at, -EINVAL, "line %d, column %d: %s", e.line, e.column, e.text);
	return json;
}

int jsonx_load(const char *file, size_t max, json_t **ret, struct error *err)
{
	struct jsonx_at at = {.path = file, .err = err};
	CLEANUP_FREE char *text = NULL;
	ssize_t n = fdio_read_file(file, max, &text);
	json_t *json;

	if (n < 0)
		return error_set(err, (int)n, NULL, "%s: %s", file, strerror((int)-n));
	json = jsonx_parse(text, (size_t)n, &at);
	if (!json)
		return -EINVAL;
	*ret = json;
	return 0;
}

/* Fraction digits that count; a bit of a Gbit has as many. */
#define FRACTION_DIGITS 9

/*
 * "12.5" as billionths. Return: what is behind the number, NULL if it is none or beyond all rates
 */
static const char *parse_decimal(const char *s, unsigned __int128 *ret)
{
	unsigned __int128 v = 0;
	int digits = 0, fraction = 0;

	for (; *s >= '0' && *s <= '9'; s++, digits++)
		v = v * 10 + (unsigned int)(*s - '0');
	if (!digits || digits > 20)
		return NULL;
	if (*s == '.') {
		for (s++; *s >= '0' && *s <= '9' && fraction < FRACTION_DIGITS; s++, fraction++)
			v = v * 10 + (unsigned int)(*s - '0');
		if (!fraction)
			return NULL;
	}
	for (; fraction < FRACTION_DIGITS; fraction++)
		v *= 10;
	*ret = v;
	return s;
}

int jsonx_rate(const char *s, uint64_t *ret, struct error *err)
{
	static const struct {
		const char *suffix;
		uint64_t bits;
	} units[] = {{"", 1}, {"kbit", 1000}, {"Mbit", 1000000}, {"Gbit", 1000000000}};
	unsigned __int128 billionths, bytes;
	const char *rest = parse_decimal(s, &billionths);

	for (size_t i = 0; rest && i < ARRAY_SIZE(units); i++) {
		if (strcmp(rest, units[i].suffix) != 0)
			continue;
		bytes = billionths * units[i].bits / 8 / 1000000000;
		if (bytes > INT64_MAX || (billionths && !bytes))
			return error_set(err, -ERANGE, "bad-rate", "rate \"%.*s\": too %s",
					 (int)text_clip(s, QUOTE_MAX), s,
					 bytes ? "large" : "small");
		*ret = (uint64_t)bytes;
		return 0;
	}
	return error_set(err, -EINVAL, "bad-rate",
			 "rate \"%.*s\": want a number with kbit, Mbit or Gbit (bits per second)",
			 (int)text_clip(s, QUOTE_MAX), s);
}
