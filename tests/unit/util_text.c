/* SPDX-License-Identifier: Apache-2.0 */
#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <errno.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include "util/error.h"
#include "util/text.h"

static const char *cleaned(const char *s)
{
	static char buf[64];

	strcpy(buf, s);
	text_clean(buf);
	return buf;
}

Test(text, good_text_stays)
{
	cr_assert(eq(str, (char *)cleaned(""), ""));
	cr_assert(eq(str, (char *)cleaned("a/b: ~ \xc3\xa4 \xe2\x82\xac \xf0\x9f\x98\x80"),
		     "a/b: ~ \xc3\xa4 \xe2\x82\xac \xf0\x9f\x98\x80"));
	cr_assert(eq(str, (char *)cleaned("\xf4\x8f\xbf\xbf"), "\xf4\x8f\xbf\xbf"));
}

Test(text, control_characters_become_blanks)
{
	cr_assert(eq(str, (char *)cleaned("a\nb\rc\x1b[2J\x7f"), "a b c [2J "));
	/* U+009B starts a sequence on some terminals as ESC [ does. */
	cr_assert(eq(str,
		     (char *)cleaned("a\xc2\x9b"
				     "31m"),
		     "a  31m"));
}

Test(text, what_is_not_utf8_becomes_a_question_mark)
{
	cr_assert(eq(str, (char *)cleaned("a\xff\x80z"), "a??z"));
	cr_assert(eq(str, (char *)cleaned("cut \xe2\x82"), "cut ??"));
	cr_assert(eq(str, (char *)cleaned("\xc0\x8a"), "??"));           /* overlong newline */
	cr_assert(eq(str, (char *)cleaned("\xed\xa0\x80"), "???"));      /* surrogate */
	cr_assert(eq(str, (char *)cleaned("\xf4\x90\x80\x80"), "????")); /* beyond Unicode */
	cr_assert(eq(str, (char *)cleaned("\xf8\x88\x80\x80\x80"), "?????"));
}

/* Whatever the bytes are, JSON takes the result, which has the same length. */
Test(text, all_pairs_and_random_bytes_become_json)
{
	unsigned int seed = 1;
	char s[16];

	for (int i = 0; i < 200000; i++) {
		json_t *j;
		size_t n;

		for (size_t k = 0; k < sizeof(s) - 1; k++)
			s[k] = (char)(1 + rand_r(&seed) % 255);
		if (i < 65536) {
			s[0] = (char)(i & 0xff ? i & 0xff : 1);
			s[1] = (char)(i >> 8 ? i >> 8 : 1);
		}
		s[sizeof(s) - 1] = '\0';
		n = strlen(s);
		text_clean(s);
		cr_assert(eq(sz, strlen(s), n));
		j = json_string(s);
		cr_assert(ne(ptr, j, NULL));
		json_decref(j);
	}
}

Test(text, clip_keeps_characters_whole)
{
	const char *s = "a\xc3\xa4\xe2\x82\xac";

	cr_assert(eq(sz, text_clip(s, 100), 6));
	cr_assert(eq(sz, text_clip(s, 6), 6));
	cr_assert(eq(sz, text_clip(s, 5), 3));
	cr_assert(eq(sz, text_clip(s, 4), 3));
	cr_assert(eq(sz, text_clip(s, 3), 3));
	cr_assert(eq(sz, text_clip(s, 2), 1));
	cr_assert(eq(sz, text_clip(s, 0), 0));
	cr_assert(eq(sz, text_clip("", 3), 0));
}

Test(error, first_cause_wins)
{
	struct error e = {0};

	cr_assert(not(error_is_set(&e)));
	cr_assert(eq(int, error_set(&e, -ENOENT, NULL, "a: %d", 1), -ENOENT));
	cr_assert(eq(int, error_set(&e, -EIO, "other", "b"), -EIO));
	cr_assert(error_is_set(&e));
	cr_assert(eq(str, e.code, "enoent"));
	cr_assert(eq(str, e.msg, "a: 1"));
	error_prefix(&e, "guest %s", "x");
	cr_assert(eq(str, e.msg, "guest x: a: 1"));
	error_clear(&e);
	cr_assert(not(error_is_set(&e)));
	error_prefix(&e, "nothing");
	cr_assert(eq(str, e.msg, ""));
	cr_assert(eq(int, error_set(NULL, -EIO, NULL, "nobody asks"), -EIO));
	error_clear(NULL);
}

Test(error, long_and_foreign_text_stays_one_valid_line)
{
	struct error e = {0};
	char long_text[1000], prefix[400];
	json_t *j;

	/* Two-byte characters, so that a cut falls into the middle of one. */
	for (size_t i = 0; i < sizeof(long_text) - 1; i += 2)
		memcpy(long_text + i, "\xc3\xa4", 2);
	long_text[998] = '\0';
	memset(prefix, 'p', sizeof(prefix) - 1);
	prefix[sizeof(prefix) - 1] = '\0';
	error_set(&e, -EIO, "bad", "x%s\nforged", long_text);
	error_prefix(&e, "%s", prefix);
	cr_assert(eq(ptr, strchr(e.msg, '\n'), NULL));
	j = json_string(e.msg);
	cr_assert(ne(ptr, j, NULL));
	json_decref(j);
}
