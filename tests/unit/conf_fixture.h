/* SPDX-License-Identifier: Apache-2.0 */
/* Configurations that are right but for one thing. */
#ifndef DECANT_TESTS_CONF_FIXTURE_H
#define DECANT_TESTS_CONF_FIXTURE_H

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>
#include "util/cleanup.h"
#include "util/error.h"

/**
 * struct wrong - one mistake
 * @member:	JSON of a member that is put over the good configuration: "\"a\": 1"
 * @ret:	what reading must return
 * @word:	what the message must hold
 */
struct wrong {
	const char *member;
	int ret;
	const char *word;
};

static inline int has(const char *text, const char *word)
{
	return text && strstr(text, word);
}

/* A JSON object with the members of @good and then of @member; null in @member takes it away. */
static inline json_t *conf_with(const char *good, const char *member)
{
	json_t *json = json_loads(good, 0, NULL), *more, *v;
	char text[4096];
	const char *key;

	snprintf(text, sizeof(text), "{%s}", member);
	more = json_loads(text, 0, NULL);
	cr_assert(ne(ptr, json, NULL), "%s", good);
	cr_assert(ne(ptr, more, NULL), "%s", text);
	json_object_foreach(more, key, v) {
		if (json_is_null(v))
			json_object_del(json, key);
		else
			json_object_set(json, key, v);
	}
	json_decref(more);
	return json;
}

/* Is every byte what it was before? (Not a comparison of values: the struct was never filled.) */
static inline int untouched(const void *p, size_t n)
{
	const unsigned char *bytes = p;
	size_t i = 0;

	while (i < n && bytes[i] == 0x5a)
		i++;
	return i == n;
}

/* Each mistake is refused with its code and word, and leaves the output alone. */
#define CONF_EXPECT_WRONG(rows, good, type, read)                                                  \
	do {                                                                                       \
		for (size_t i_ = 0; i_ < ARRAY_SIZE(rows); i_++) {                                 \
			json_t *json_ = conf_with(good, (rows)[i_].member);                        \
			struct error err_ = {0};                                                   \
			type out_;                                                                 \
                                                                                                   \
			memset(&out_, 0x5a, sizeof(out_));                                         \
			cr_expect(eq(int, read(json_, &out_, &err_), (rows)[i_].ret), "%s",        \
				  (rows)[i_].member);                                              \
			cr_expect(has(err_.msg, (rows)[i_].word), "%s: \"%s\"", (rows)[i_].member, \
				  err_.msg);                                                       \
			cr_expect(untouched(&out_, sizeof(out_)), "%s", (rows)[i_].member);        \
			json_decref(json_);                                                        \
		}                                                                                  \
	} while (0)

#endif
