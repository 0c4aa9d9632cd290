/* SPDX-License-Identifier: Apache-2.0 */
/* Lists, page by page. */
#include "rest/rest_server.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#define LIST_LIMIT_DEFAULT 100
#define LIST_LIMIT_MAX     1000

static size_t list_limit(const struct rest_req *req)
{
	const char *s = rest_query(req, "limit");
	char *end;
	unsigned long v;

	if (!s)
		return LIST_LIMIT_DEFAULT;
	if (!isdigit((unsigned char)*s))
		return 0;
	v = strtoul(s, &end, 10);
	return *end || v > LIST_LIMIT_MAX ? 0 : v;
}

/* Return: index behind the item whose @key is @after, -1 if there is none */
static ssize_t list_start(const json_t *items, const char *key, const char *after)
{
	size_t i;
	json_t *item;

	json_array_foreach(items, i, item) {
		const char *s = json_string_value(json_object_get(item, key));

		if (s && !strcmp(s, after))
			return (ssize_t)i + 1;
	}
	return -1;
}

static json_t *list_page(const json_t *items, size_t start, size_t limit, const char *key)
{
	size_t n = json_array_size(items), end = limit < n - start ? start + limit : n;
	json_t *page = json_array(), *next = NULL;

	for (size_t i = start; i < end; i++)
		json_array_append(page, json_array_get(items, i));
	if (end < n)
		next = json_object_get(json_array_get(items, end - 1), key);
	return json_pack("{s:o, s:O?}", "items", page, "next", next);
}

void rest_reply_list(struct rest_req *req, json_t *items, const char *key)
{
	const char *after = rest_query(req, "after");
	size_t limit = list_limit(req);
	ssize_t start = after ? list_start(items, key, after) : 0;

	if (!limit)
		rest_problemf(req, 400, "bad-query", "limit: not a number from 1 to %d",
			      LIST_LIMIT_MAX);
	else if (start < 0)
		rest_problemf(req, 400, "bad-query", "after: no such item: %.80s", after);
	else
		rest_reply(req, 200, list_page(items, (size_t)start, limit, key));
	json_decref(items);
}
