/* SPDX-License-Identifier: Apache-2.0 */
/* Names, texts, errors from anywhere, and the list of a guest's blocks. */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "msg.h"
#include "msg_text.h"
#include "util/cleanup.h"

Test(proto_text, names)
{
	static const char *const good[] = {"a", "0", "Z9", "web-1", "a.b_c-d", "x..", "pc.ram"};
	static const char *const bad[] = {"",        ".",        "..",    "-a",  "_a",
					  ".hidden", "a b",      "a/b",   "a\n", "a\\",
					  "{pid}",   "\xc3\xa4", "a\x7f", "$a"};
	char full[4] = {'a', 'b', 'c', 'd'};

	for (size_t i = 0; i < ARRAY_SIZE(good); i++)
		cr_assert(msg_name_valid(good[i], 64), "%s", good[i]);
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		cr_assert_not(msg_name_valid(bad[i], 64), "%s", bad[i]);
	cr_assert_not(msg_name_valid(full, sizeof(full)), "it has no end");
}

/* Every byte as the second of a name, and as the first. */
Test(proto_text, every_byte_of_a_name)
{
	for (int c = 1; c < 256; c++) {
		char s[] = {'x', (char)c, 0}, first[] = {(char)c, 0};
		bool alnum =
			strchr("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789",
			       c) != NULL;

		cr_assert_eq(msg_name_valid(first, 8), alnum, "%d", c);
		cr_assert_eq(msg_name_valid(s, 8), alnum || strchr("._-", c), "%d", c);
	}
}

static const struct text {
	const char *s;
	bool valid;
	const char *copied;
} texts[] = {
	{"", true, ""},
	{"plain text ~", true, "plain text ~"},
	{"\xc3\xa4\xe2\x82\xac\xf0\x9f\x98\x80", true, "\xc3\xa4\xe2\x82\xac\xf0\x9f\x98\x80"},
	{"\xc2\xa0", true, "\xc2\xa0"}, /* U+00A0, the first behind the controls */
	{"\xc2\x9f", false, "??"},      /* U+009F, the last of them */
	{"\xc2\x80", false, "??"},
	{"tab\there", false, "tab?here"},
	{"\x7f", false, "?"},
	{"\x1b[31m", false, "?[31m"},
	{"\x80", false, "?"},
	{"\xc3", false, "?"}, /* cut off */
	{"\xc3(", false, "?("},
	{"\xc0\xaf", false, "??"}, /* overlong '/' */
	{"\xc1\xbf", false, "??"},
	{"\xe0\x80\xaf", false, "???"},
	{"\xe0\x9f\xbf", false, "???"},
	{"\xe0\xa0\x80", true, "\xe0\xa0\x80"},
	{"\xed\x9f\xbf", true, "\xed\x9f\xbf"},
	{"\xed\xa0\x80", false, "???"}, /* surrogate */
	{"\xed\xbf\xbf", false, "???"},
	{"\xee\x80\x80", true, "\xee\x80\x80"},
	{"\xf0\x8f\xbf\xbf", false, "????"},
	{"\xf0\x90\x80\x80", true, "\xf0\x90\x80\x80"},
	{"\xf4\x8f\xbf\xbf", true, "\xf4\x8f\xbf\xbf"},
	{"\xf4\x90\x80\x80", false, "????"}, /* beyond U+10FFFF */
	{"\xf5\x80\x80\x80", false, "????"},
	{"\xff\xfe", false, "??"},
	{"a\xe2\x82", false, "a??"},
};

Test(proto_text, texts)
{
	char out[64];

	for (size_t i = 0; i < ARRAY_SIZE(texts); i++) {
		cr_assert_eq(msg_text_valid(texts[i].s, 64), texts[i].valid, "%zu", i);
		msg_text_copy(out, sizeof(out), texts[i].s);
		cr_assert_str_eq(out, texts[i].copied, "%zu: %s", i, out);
		cr_assert(msg_text_valid(out, sizeof(out)));
	}
}

/* Cut where it is full, never within a character. */
Test(proto_text, copies_are_cut)
{
	char out[8];

	msg_text_copy(out, 4, "abcdef");
	cr_assert_str_eq(out, "abc");
	msg_text_copy(out, 4, "ab\xc3\xa4");
	cr_assert_str_eq(out, "ab");
	msg_text_copy(out, 5, "ab\xc3\xa4");
	cr_assert_str_eq(out, "ab\xc3\xa4");
	msg_text_copy(out, 1, "abc");
	cr_assert_str_eq(out, "");
}

/* Any error makes a message that can be sent. */
Test(proto_text, errors)
{
	static const char *const codes[] = {"", "no-room", "with space", "-dash", "\xff"};
	static const char *const want[] = {"error", "no-room", "error", "error", "error"};
	CLEANUP_FREE struct msg *m = calloc(1, sizeof(*m));
	struct error err;
	uint8_t out[1024];

	for (size_t i = 0; i < ARRAY_SIZE(codes); i++) {
		memset(&err, 0, sizeof(err));
		strcpy(err.code, codes[i]);
		memset(err.msg, 0xc3, sizeof(err.msg) - 1);
		msg_error_fill(m, MSG_ABORT, &err);
		cr_assert_eq(m->type, MSG_ABORT);
		cr_assert_str_eq(m->error.code, want[i]);
		cr_assert_eq(strlen(m->error.message), 471);
		cr_assert_gt(msg_encode(m, out, sizeof(out)), 471);
	}
}

/* --- blocks ---------------------------------------------------------------------------------- */

#define N 3

static void good_blocks(struct msg_block b[static N])
{
	for (uint32_t i = 0; i < N; i++) {
		b[i] = (struct msg_block){.index = i, .page_size = 4096, .length = 1 << 20};
		snprintf(b[i].name, sizeof(b[i].name), "block%u", i);
	}
	b[1].page_size = 1 << 30;
	b[1].kind = MSG_BLOCK_HUGETLB;
	b[1].length = 3ull << 30;
}

static void expect_bad(struct msg_block *b, size_t n, const char *says, const char *also)
{
	struct error err = {0};

	cr_expect_eq(msg_check_blocks(b, n, &err), -EBADMSG, "%s", says);
	cr_expect_str_eq(err.code, "bad-block");
	cr_expect(strstr(err.msg, says), "%s lacks %s", err.msg, says);
	cr_expect(strstr(err.msg, also), "%s lacks %s", err.msg, also);
	good_blocks(b);
}

Test(proto_text, blocks)
{
	struct msg_block b[N];

	good_blocks(b);
	cr_assert_eq(msg_check_blocks(b, N, NULL), 0);
	cr_assert_eq(msg_check_blocks(b, 0, NULL), 0);
	strcpy(b[2].name, "block0");
	expect_bad(b, N, "same name", "block0");
	b[1].index = 2;
	expect_bad(b, N, "index", "block1");
	b[0].page_size = 8191;
	expect_bad(b, N, "page_size", "block0");
	b[0].page_size = 1u << 31;
	b[0].length = 1ull << 32;
	expect_bad(b, N, "page_size", "2147483648");
	b[1].length += 4096;
	expect_bad(b, N, "length", "block1");
	b[1].length = 0;
	expect_bad(b, N, "length", "block1");
	b[2].length = UINT64_MAX - 4095;
	expect_bad(b, N, "length", "block2");
	b[2].kind = 9;
	expect_bad(b, N, "kind", "block2");
	b[2].flags = 0x10;
	expect_bad(b, N, "flags", "0x10");
	memset(b[2].name, 'a', sizeof(b[2].name));
	expect_bad(b, N, "name", "block 2");
	strcpy(b[2].name, "\x1b[2J");
	expect_bad(b, N, "name", "block 2 (?)");
}

/* Each is allowed, all together are too much; and the sum cannot wrap around. */
Test(proto_text, memory_of_all_blocks)
{
	CLEANUP_FREE struct msg_block *b = calloc(MSG_BLOCKS_MAX + 1, sizeof(*b));
	struct error err = {0};

	for (uint32_t i = 0; i <= MSG_BLOCKS_MAX; i++) {
		b[i] = (struct msg_block){
			.index = i, .page_size = 4096, .length = MSG_MEMORY_MAX / MSG_BLOCKS_MAX};
		snprintf(b[i].name, sizeof(b[i].name), "b%u", i);
	}
	cr_assert_eq(msg_check_blocks(b, MSG_BLOCKS_MAX, NULL), 0);
	cr_assert_eq(msg_check_blocks(b, MSG_BLOCKS_MAX + 1, &err), -EBADMSG);
	cr_assert(strstr(err.msg, "257"), "%s", err.msg);
	error_clear(&err);
	b[255].length += 4096;
	cr_assert_eq(msg_check_blocks(b, MSG_BLOCKS_MAX, &err), -EBADMSG);
	cr_assert(strstr(err.msg, "b255"), "%s", err.msg);
	for (uint32_t i = 0; i < MSG_BLOCKS_MAX; i++)
		b[i].length = MSG_MEMORY_MAX;
	cr_assert_eq(msg_check_blocks(b, MSG_BLOCKS_MAX, NULL), -EBADMSG);
}
