/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reading JSON objects by a table of fields: configuration files and REST bodies. Whatever does
 * not fit is refused by name, with the path to it ("tls.cert: missing").
 */
#ifndef DECANT_UTIL_JSONX_H
#define DECANT_UTIL_JSONX_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "util/error.h"

/**
 * struct jsonx_at - where we are in a document, for messages
 * @path:	"guests[2].vars", "" for the root of a configuration
 * @code:	of every error found here and below ("bad-option"); NULL is "bad-json"
 * @err:	where errors go
 */
struct jsonx_at {
	const char *path;
	const char *code;
	struct error *err;
};

/**
 * enum jsonx_type - what a member must be, and what it is kept in
 * @JSONX_STRING:	string of @min..@max bytes (@max 0: 4095) -> char *, for free()
 * @JSONX_CHARS:	string of at least @min bytes that fits -> char[@size] with a NUL
 * @JSONX_BOOL:		-> bool
 * @JSONX_UINT:		whole number in @min..@max (@max 0: what fits) -> unsigned of @size bytes
 * @JSONX_INT:		whole number in @min..@max -> signed of @size bytes
 * @JSONX_WORD:		one of @words -> its index, in an enum
 * @JSONX_STRINGS:	array of @min..@max strings (@max 0: 4096) -> char **, NULL at its end
 * @JSONX_MAP:		object of up to @max strings (@max 0: 4096) -> json_t *, a new reference
 * @JSONX_OBJECT:	object, read by @fields into the struct at the offset
 * @JSONX_EACH:		array of @min..@max (@max 0: 4096); @take gets each entry in turn
 * @JSONX_MEMBERS:	object of @min..@max members (@max 0: 4096); @take gets each in turn
 * @JSONX_ANY:		anything; @take checks it
 */
enum jsonx_type {
	JSONX_STRING,
	JSONX_CHARS,
	JSONX_BOOL,
	JSONX_UINT,
	JSONX_INT,
	JSONX_WORD,
	JSONX_STRINGS,
	JSONX_MAP,
	JSONX_OBJECT,
	JSONX_EACH,
	JSONX_MEMBERS,
	JSONX_ANY,
};

/**
 * jsonx_take_fn - a check or conversion of the reader's owner
 * @value:	borrowed; for JSONX_EACH and JSONX_MEMBERS one entry
 * @key:	name of the member
 * @at:		of the value, for jsonx_bad() or jsonx_read()
 * @obj:	the struct that is being filled
 *
 * Return: 0, or a negative errno with the error filled (jsonx_bad())
 */
typedef int jsonx_take_fn(const json_t *value, const char *key, const struct jsonx_at *at,
			  void *obj);

/**
 * struct jsonx_field - one member that an object may have
 * @key:	its name
 * @type:	see enum jsonx_type
 * @required:	its absence is an error
 * @nullable:	null is taken: it frees and clears a STRING, STRINGS or MAP, and leaves others alone
 * @offset:	of the member of the struct that is filled (JSONX_INTO())
 * @size:	bytes of that member (JSONX_INTO())
 * @min, @max:	see enum jsonx_type
 * @words:	of JSONX_WORD: the names in the order of the enum, NULL at the end
 * @fields, @n_fields: of JSONX_OBJECT
 * @take:	of JSONX_EACH, JSONX_MEMBERS and JSONX_ANY; for others an additional check, called
 *		after the value was stored. NULL if there is none
 */
struct jsonx_field {
	const char *key;
	enum jsonx_type type;
	bool required;
	bool nullable;
	size_t offset;
	size_t size;
	int64_t min;
	int64_t max;
	const char *const *words;
	const struct jsonx_field *fields;
	size_t n_fields;
	jsonx_take_fn *take;
};

/** JSONX_INTO() - the initialisers of a field that is kept in member @m of struct @s */
#define JSONX_INTO(s, m) .offset = offsetof(s, m), .size = sizeof(__typeof__(((s *)0)->m))

/**
 * jsonx_read() - fill a struct from a JSON object
 * @json:	refused if it is no object
 * @fields:	@n of them; any other key is refused
 * @obj:	zeroed or filled with defaults, which stay where the object has no such member
 *		(pointers must be on the heap: they are freed when a value takes their place)
 *
 * Return: 0; -EINVAL or -ENOMEM, or what a @take returned, with the error filled. After a failure
 * @obj holds some of the values: free them with jsonx_clear() all the same.
 */
int jsonx_read(const json_t *json, const struct jsonx_at *at, const struct jsonx_field *fields,
	       size_t n, void *obj);

/** jsonx_clear() - free and clear all STRING, STRINGS and MAP members, also of inner structs */
void jsonx_clear(const struct jsonx_field *fields, size_t n, void *obj);

/** jsonx_bad() - fill the error with "PATH: " and a message; Return: -EINVAL */
int jsonx_bad(const struct jsonx_at *at, const char *fmt, ...)
	__attribute__((format(printf, 2, 3)));

/** jsonx_strings_free() - free a JSONX_STRINGS; NULL is fine */
void jsonx_strings_free(char **strings);

/**
 * jsonx_parse() - text into JSON; a key that an object has twice is an error
 * @at:		path and code of an error, which tells line and column
 *
 * Return: new reference, NULL with the error filled
 */
json_t *jsonx_parse(const char *text, size_t n, const struct jsonx_at *at);

/**
 * jsonx_load() - the JSON in a file of at most @max bytes
 *
 * Return: 0 with a new reference in @ret; -errno with @err filled, which names the file
 */
int jsonx_load(const char *file, size_t max, json_t **ret, struct error *err);

/**
 * jsonx_rate() - a RATE as people write it: "5Gbit", "2.5Gbit", "800kbit", "64000" (bit)
 * @ret:	bytes per second
 *
 * Suffixes kbit, Mbit, Gbit or none, 1000-based, bits per second; "0" is 0. Return: 0, -EINVAL,
 * or -ERANGE if it is less than a byte a second or more than JSON can hold; with @err filled
 */
int jsonx_rate(const char *s, uint64_t *ret, struct error *err);

#endif
