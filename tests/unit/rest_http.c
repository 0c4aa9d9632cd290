/* SPDX-License-Identifier: Apache-2.0 */
#include "rest/http.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "util/cleanup.h"

static const char request[] = "POST /v1/things?a=b HTTP/1.1\r\n"
			      "Host: localhost\r\n"
			      "Content-Type: application/json\r\n"
			      "Connection: keep-alive, close\r\n"
			      "Expect: 100-continue\r\n"
			      "Content-Length: 12\r\n\r\n";
static const char response[] = "HTTP/1.1 200 OK\r\n"
			       "Content-Type: application/json\r\n"
			       "Content-Length: 12\r\n\r\n";

static ssize_t take(const char *text, size_t n, size_t max, char **ret)
{
	struct evbuffer *in = evbuffer_new();
	size_t scanned = 0;
	ssize_t r;

	evbuffer_add(in, text, n);
	r = http_head_take(in, max, &scanned, ret);
	evbuffer_free(in);
	return r;
}

Test(http, a_request_is_taken_apart)
{
	struct error err = {0};
	struct http_head h;
	char *text;
	ssize_t n = take(request, sizeof(request) - 1, 4096, &text);

	cr_assert(eq(long, n, (long)sizeof(request) - 1));
	cr_assert(eq(int, http_parse_request(&h, text, (size_t)n, &err), 0), "%s", err.msg);
	cr_expect(eq(str, h.method, "POST"));
	cr_expect(eq(str, h.target, "/v1/things?a=b"));
	cr_expect(eq(sz, h.n, 5));
	cr_expect(eq(u64, h.length, 12));
	cr_expect(h.expect);
	cr_expect(not(h.keep_alive));
	cr_expect(eq(str, (char *)http_head_get(&h, "CONTENT-type"), "application/json"));
	cr_expect(eq(ptr, (void *)http_head_get(&h, "Content"), NULL));
	http_head_clear(&h);
}

/* However it arrives, a head is complete at its last byte and not before. */
Test(http, a_head_may_come_in_any_pieces)
{
	for (size_t cut = 1; cut < sizeof(request) - 1; cut++) {
		struct evbuffer *in = evbuffer_new();
		size_t scanned = 0;
		char *text = NULL;

		evbuffer_add(in, request, cut);
		cr_assert(eq(long, http_head_take(in, 4096, &scanned, &text), 0), "%zu", cut);
		evbuffer_add(in, request + cut, sizeof(request) - 1 - cut);
		evbuffer_add(in, "rest", 4);
		cr_assert(eq(long, http_head_take(in, 4096, &scanned, &text),
			     (long)sizeof(request) - 1),
			  "%zu", cut);
		cr_assert(eq(str, text, (char *)request));
		cr_assert(eq(sz, evbuffer_get_length(in), 4));
		free(text);
		evbuffer_free(in);
	}
}

Test(http, a_head_is_bounded)
{
	char *text;

	cr_expect(eq(long, take(request, sizeof(request) - 1, sizeof(request) - 2, &text), -E2BIG));
	cr_expect(eq(long, take(request, 60, 50, &text), -E2BIG));
	cr_expect(eq(long, take(request, 50, 50, &text), 0));
}

/* Random damage: whatever comes of it, nothing is read or written out of bounds. */
Test(http, damaged_heads_do_no_harm)
{
	unsigned int seed = 1;
	size_t refused = 0, taken = 0;

	for (int round = 0; round < 100000; round++) {
		const char *good = round & 1 ? request : response;
		size_t n = strlen(good);
		char bytes[sizeof(request)];
		struct error err = {0};
		struct http_head h = {0};
		char *text;
		ssize_t len;

		memcpy(bytes, good, n + 1);
		for (int i = rand_r(&seed) % 4; i >= 0; i--)
			bytes[(size_t)rand_r(&seed) % n] =
				(char)(rand_r(&seed) % 3 ? rand_r(&seed)
							 : "\r\n: ,\0\x7f"[rand_r(&seed) % 7]);
		len = take(bytes, n, 4096, &text);
		if (len <= 0)
			continue;
		taken++;
		if (round & 1)
			refused += http_parse_request(&h, text, (size_t)len, &err) != 0;
		else
			refused += http_parse_response(&h, text, (size_t)len, &err) != 0;
		cr_assert(lt(sz, h.n, HTTP_FIELDS_MAX + 1));
		http_head_clear(&h);
	}
	cr_expect(gt(sz, refused, 10000));
	cr_expect(gt(sz, taken, refused));
}

Test(http, escapes_are_undone)
{
	static const struct {
		const char *in;
		bool plus;
		const char *out;
	} rows[] = {
		{"a%2fb%C3%a4+", false, "a/b\xc3\xa4+"},
		{"a+b%2B", true, "a b+"},
		{"", true, ""},
		{"%", false, NULL},
		{"%4", false, NULL},
		{"%4g", false, NULL},
		{"%g4", false, NULL},
		{"%00", false, NULL},
		{"%1f", false, NULL},
		{"%7f", false, NULL},
		{"a%0d%0ab", true, NULL},
	};

	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		CLEANUP_FREE char *s = strdup(rows[i].in);
		int r = http_decode(s, rows[i].plus);

		cr_expect(eq(int, r, rows[i].out ? 0 : -EINVAL), "%s", rows[i].in);
		if (rows[i].out)
			cr_expect(eq(str, s, (char *)rows[i].out));
	}
}

Test(http, encoding_is_the_inverse)
{
	char all[256];
	CLEANUP_FREE char *s = NULL;

	for (int i = 0; i < 127 - 32; i++)
		all[i] = (char)(i + 32);
	strcpy(all + 127 - 32, "\xc3\xa4");
	s = http_encode(all);
	cr_assert(eq(int, http_decode(s, false), 0));
	cr_expect(eq(str, s, all));
}
