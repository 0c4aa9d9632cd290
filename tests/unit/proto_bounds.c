/* SPDX-License-Identifier: Apache-2.0 */
/* Fields that are out of their bounds, one at a time: refused by name, and never sent. */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "proto_golden.h"

/**
 * struct bend - @width bytes at @at (of the frame) become @value; the error names @field
 */
static const struct bend {
	enum msg_type type;
	size_t at;
	size_t width;
	uint64_t value;
	const char *field;
} bends[] = {
	{MSG_HELLO, 8, 1, 0x45, "magic"},
	{MSG_HELLO, 12, 2, 0, "version_min"},
	{MSG_HELLO, 12, 2, 3, "version_min"},
	{MSG_HELLO, 24, 1, 4, "kind"},
	{MSG_HELLO, 24, 1, 0xff, "kind"},
	{MSG_HELLO, 24, 1, 0, "index"}, /* control has one channel only */
	{MSG_HELLO, 24, 2, 0, "token"}, /* and no token yet */
	{MSG_HELLO, 24, 2, 3, "token"}, /* query never */
	{MSG_HELLO, 25, 1, 16, "index"},
	{MSG_HELLO, 26, 1, 1, "reserved"},
	{MSG_HELLO, 27, 1, 0x80, "reserved"},
	{MSG_HELLO_ACK, 8, 2, 0, "version"},
	{MSG_HELLO_ACK, 10, 1, 1, "reserved"},
	{MSG_HELLO_ACK, 11, 1, 1, "reserved"},
	{MSG_HELLO_ACK, 12, 1, 1, "reserved"},
	{MSG_HELLO_ACK, 15, 1, 0x80, "reserved"},
	{MSG_ERROR, 8, 2, 0, "message"}, /* no code; the rest is read as a message then */
	{MSG_ERROR, 8, 2, 0xffff, "code"},
	{MSG_ERROR, 8, 2, 40, "code"},
	{MSG_ERROR, 10, 1, ' ', "code"},
	{MSG_ERROR, 12, 1, 0, "code"},
	{MSG_ERROR, 17, 2, 0xffff, "message"},
	{MSG_ERROR, 17, 2, 472, "message"},
	{MSG_ERROR, 17, 2, 13, "message"},
	{MSG_ERROR, 19, 1, '\n', "message"},
	{MSG_ERROR, 19, 1, 0, "message"},
	{MSG_ERROR, 20, 1, 0x80, "message"},
	{MSG_ERROR, 21, 1, ' ', "message"},
	{MSG_RESUME, 8, 8, 0, "generation"},
	{MSG_RESUME, 16, 1, 0, "bulk_channels"},
	{MSG_RESUME, 16, 1, 17, "bulk_channels"},
	{MSG_RESUME, 17, 1, 1, "reserved"},
	{MSG_RECEIVED, 8, 4, 256, "block"},
	{MSG_RECEIVED, 12, 4, 0, "RECEIVED"}, /* its words are too many then */
	{MSG_RECEIVED, 12, 4, 8001, "words"},
	{MSG_RECEIVED, 16, 8, 0x3f, "first"},
	{MSG_RECEIVED, 16, 8, 1ull << 34, "first"},
	{MSG_DROP, 8, 1, 0, "kind"},
	{MSG_DROP, 8, 1, 3, "kind"},
	{MSG_DROP, 8, 1, 1, "index"}, /* there is one urgent channel only */
	{MSG_DROP, 9, 1, 16, "index"},
	{MSG_DROP, 15, 1, 1, "reserved"},
	{MSG_DROPPED, 8, 1, 0, "kind"},
	{MSG_RESUMED, 8, 4, 0, "pass"},
	{MSG_RESUMED, 12, 1, 1, "reserved"},
	{MSG_SETUP, 8, 2, 0, "SETUP"}, /* all behind it moves */
	{MSG_SETUP, 8, 2, 64, "name"},
	{MSG_SETUP, 8, 2, 0xffff, "name"},
	{MSG_SETUP, 10, 1, '-', "name"},
	{MSG_SETUP, 10, 1, '.', "name"},
	{MSG_SETUP, 12, 1, '/', "name"},
	{MSG_SETUP, 12, 1, '{', "name"},
	{MSG_SETUP, 31, 8, UINT64_MAX, "generation"},
	{MSG_SETUP, 39, 2, 16, "driver"},
	{MSG_SETUP, 41, 1, '_', "driver"},
	{MSG_SETUP, 47, 2, 0xffff, "launcher"},
	{MSG_SETUP, 50, 1, ' ', "launcher"},
	{MSG_SETUP, 55, 1, 2, "run_state"},
	{MSG_SETUP, 56, 1, 2, "may_postcopy"},
	{MSG_SETUP, 57, 1, 0, "bulk_channels"},
	{MSG_SETUP, 57, 1, 17, "bulk_channels"},
	{MSG_SETUP, 58, 1, 1, "reserved"},
	{MSG_SETUP, 59, 4, 257, "blocks"},
	{MSG_SETUP, 59, 4, 0xffffffff, "blocks"},
	{MSG_SETUP, 63, 2, 65, "vars"},
	{MSG_SETUP, 63, 2, 0xffff, "vars"},
	{MSG_SETUP, 63, 2, 3, "key of a var"},
	{MSG_SETUP, 65, 2, 64, "key of a var"},
	{MSG_SETUP, 67, 1, '=', "key of a var"},
	{MSG_SETUP, 71, 2, 256, "value of a var"},
	{MSG_SETUP, 71, 2, 0xffff, "value of a var"},
	{MSG_SETUP, 73, 1, 0x1b, "value of a var"},
	{MSG_SETUP, 73, 1, 0xc3, "value of a var"},
	{MSG_BLOCK, 8, 4, 256, "index"},
	{MSG_BLOCK, 12, 2, 64, "name"},
	{MSG_BLOCK, 15, 1, '\\', "name"},
	{MSG_BLOCK, 18, 1, 3, "kind"},
	{MSG_BLOCK, 19, 1, 1, "reserved"},
	{MSG_BLOCK, 21, 1, 1, "reserved"},
	{MSG_BLOCK, 22, 4, 4, "flags"},
	{MSG_BLOCK, 22, 4, 0x80000001, "flags"},
	{MSG_BLOCK, 26, 4, 0, "page_size"},
	{MSG_BLOCK, 26, 4, 2048, "page_size"},
	{MSG_BLOCK, 26, 4, 4097, "page_size"},
	{MSG_BLOCK, 26, 4, 12288, "page_size"},
	{MSG_BLOCK, 26, 4, 0x80000000, "page_size"},
	{MSG_BLOCK, 30, 8, 0, "length"},
	{MSG_BLOCK, 30, 8, 4096, "length"},
	{MSG_BLOCK, 30, 8, (1ull << 46) + 0x200000, "length"},
	{MSG_BLOCK, 30, 8, UINT64_MAX, "length"},
	{MSG_INTENT, 8, 8, 0, "generation"},
	{MSG_COMMIT, 8, 8, 0, "generation"},
	{MSG_RUNNING, 8, 8, 0, "generation"},
	{MSG_QUERY, 8, 8, 0, "generation"},
	{MSG_KEPT, 8, 8, 0, "generation"},
	{MSG_ROOM, 8, 1, 8, "flags"},
	{MSG_ROOM, 9, 1, 1, "reserved"},
	{MSG_ROOM, 11, 1, 1, "reserved"},
	{MSG_ROOM, 16, 4, 4, "yours"},
	{MSG_ROOM, 20, 4, 0, "limit"},
	{MSG_ROOM, 28, 1, 1, "reserved"},
	{MSG_ROOM, 48, 2, 9, "pools"},
	{MSG_ROOM, 48, 2, 0xffff, "pools"},
	{MSG_ROOM, 50, 8, 0x200001, "size of a pool"},
	{MSG_ROOM, 50, 8, 2048, "size of a pool"},
	{MSG_ROOM, 50, 8, 1ull << 41, "size of a pool"},
	{MSG_ROOM, 50, 8, 0, "size of a pool"},
	{MSG_ROOM, 58, 8, 1ull << 42, "free pages"},
	{MSG_ROOM, 66, 2, 257, "launchers"},
	{MSG_ROOM, 66, 2, 0xffff, "launchers"},
	{MSG_ROOM, 66, 2, 3, "launcher"},
	{MSG_ROOM, 68, 2, 64, "launcher"},
	{MSG_ROOM, 70, 1, '-', "launcher"},
	{MSG_ROOM, 75, 2, 16, "driver"},
	{MSG_ROOM, 77, 1, '/', "driver"},
	{MSG_ROOM, 81, 1, 2, "usable"},
	{MSG_SWITCH, 8, 4, 0, "pass"},
	{MSG_DISCARD, 8, 4, 256, "block"},
	{MSG_DISCARD, 12, 4, 0, "behind the end"},
	{MSG_DISCARD, 12, 4, 1, "behind the end"},
	{MSG_DISCARD, 12, 4, 3, "a range"},
	{MSG_DISCARD, 12, 4, 4001, "ranges"},
	{MSG_DISCARD, 12, 4, 0xffffffff, "ranges"},
	{MSG_DISCARD, 16, 8, 1, "a range"},
	{MSG_DISCARD, 24, 8, 0, "a range"},
	{MSG_DISCARD, 24, 8, 4095, "a range"},
	{MSG_DISCARD, 24, 8, (1ull << 46) + 4096, "a range"},
	{MSG_DISCARD, 32, 8, 0xfffffffffffff000, "a range"},
	{MSG_DISCARD, 40, 8, 0xfffffffffffff000, "a range"},
	{MSG_LISTEN, 8, 1, 2, "postcopy"},
	{MSG_STORE, 10, 1, '.', "name"},
	{MSG_STORE, 16, 1, 2, "start"},
	{MSG_STORE, 17, 1, 1, "reserved"},
	{MSG_STORE, 19, 1, 1, "reserved"},
	{MSG_FACTS, 8, 2, 201, "facts"},
	{MSG_FACTS, 12, 1, '/', "key"},
	{MSG_STATE_END, 8, 8, (64ull << 20) + 1, "length"},
	{MSG_STATE_END, 8, 8, UINT64_MAX, "length"},
	{MSG_COMPLETE, 24, 4, 257, "blocks"},
	{MSG_COMPLETE, 24, 4, 0xffffffff, "blocks"},
	{MSG_COMPLETE, 24, 4, 1, "behind the end"},
	{MSG_COMPLETE, 24, 4, 3, "pages of a block"},
	{MSG_COMPLETE, 28, 1, 1, "reserved"},
	{MSG_RECEIPT, 8, 1, 2, "digest_ok"},
	{MSG_RECEIPT, 9, 1, 2, "block_time"},
	{MSG_RECEIPT, 9, 1, 0, "block_time"},
	{MSG_RECEIPT, 10, 1, 1, "reserved"},
	{MSG_RECEIPT, 11, 1, 1, "reserved"},
	{MSG_RECEIPT, 12, 4, 0x20000001, "blocks"},
	{MSG_RECEIPT, 12, 4, 0, "behind the end"},
	{MSG_RECEIPT, 12, 4, 2, "block time of a thread"},
	{MSG_RECEIPT, 12, 4, 4, "pages of a block"},
	{MSG_RECEIPT, 12, 4, 5, "block_time"}, /* as long as one of version 1 */
	{MSG_RECEIPT, 152, 4, 257, "threads"},
	{MSG_RECEIPT, 152, 4, 1, "behind the end"},
	{MSG_RECEIPT, 152, 4, 3, "block time of a thread"},
	{MSG_RECEIPT, 156, 1, 1, "reserved"},
	{MSG_REQUEST, 8, 4, 256, "block"},
	{MSG_REQUEST, 12, 1, 1, "reserved"},
	{MSG_REQUEST, 16, 8, 0x800, "offset and length"},
	{MSG_REQUEST, 16, 8, 0xfffffffffffff000, "offset and length"},
	{MSG_REQUEST, 16, 8, 1ull << 46, "offset and length"},
	{MSG_REQUEST, 24, 8, 0, "offset and length"},
	{MSG_REQUEST, 24, 8, 0x201000, "offset and length"},
	{MSG_REQUEST, 24, 8, 100, "offset and length"},
	{MSG_PAGES, 8, 4, 256, "block"},
	{MSG_PAGES, 12, 1, 2, "kind"},
	{MSG_PAGES, 12, 1, 0, "digest"}, /* a zero run has none */
	{MSG_PAGES, 13, 1, 1, "reserved"},
	{MSG_PAGES, 15, 1, 1, "reserved"},
	{MSG_PAGES, 16, 8, 1, "offset and length"},
	{MSG_PAGES, 16, 8, 1ull << 46, "offset and length"},
	{MSG_PAGES, 16, 8, 0xffffffffffffe000, "offset and length"},
	{MSG_PAGES, 24, 8, 0, "offset and length"},
	{MSG_PAGES, 24, 8, 0x41000, "offset and length"},
	{MSG_PAGES, 24, 8, 0x1000, "payload"},
	{MSG_PAGES, 24, 8, 0x3000, "payload"},
	{MSG_PAGES, 32, 4, 0, "pass"},
	{MSG_PAGES, 36, 1, 1, "reserved"},
	{MSG_PAGES, 48, 1, 1, "reserved"},
	{MSG_PAGES, 63, 1, 1, "reserved"},
	{MSG_NACK, 8, 4, 256, "block"},
	{MSG_NACK, 12, 4, 0, "pass"},
	{MSG_NACK, 24, 8, 0x41000, "offset and length"},
	{MSG_BARRIER, 8, 4, 0, "pass"},
	{MSG_BARRIER_ACK, 8, 4, 0, "pass"},
	{MSG_ANSWER, 8, 1, 5, "answer"},
	{MSG_ANSWER, 9, 1, 1, "reserved"},
	{MSG_ANSWER, 15, 1, 1, "reserved"},
};

Test(proto_bounds, bounds)
{
	CLEANUP_FREE struct msg *m = calloc(1, sizeof(*m));

	for (size_t i = 0; i < ARRAY_SIZE(bends); i++) {
		const struct bend *b = &bends[i];
		const struct golden *g = golden_of(b->type);
		struct error err = {0};
		uint8_t buf[GOLDEN_MAX];
		size_t n = golden_bytes(g, buf);

		for (size_t k = 0; k < b->width; k++)
			buf[b->at + k] = (uint8_t)(b->value >> (8 * k));
		cr_assert_eq(decode_golden(g, buf, n, m, &err), -EBADMSG, "%zu: %s at %zu", i,
			     msg_type_name(b->type), b->at);
		cr_assert_str_eq(err.code, "bad-message");
		cr_assert(strstr(err.msg, msg_type_name(b->type)), "%s", err.msg);
		cr_assert(strstr(err.msg, b->field), "%zu: %s at %zu: %s", i,
			  msg_type_name(b->type), b->at, err.msg);
	}
}

/* A zero run whose header counts a payload, and a var that is there twice. */
Test(proto_bounds, two_fields_that_disagree)
{
	CLEANUP_FREE struct msg *m = msg_of(golden_of(MSG_SETUP));
	CLEANUP_FREE uint8_t *out = malloc(FRAME_MAX);
	struct error err = {0};
	uint8_t buf[GOLDEN_MAX];

	for (size_t i = 0; i < GOLDEN_N; i++) {
		if (golden[i].fill != fill_zero)
			continue;
		golden_bytes(&golden[i], buf);
		put_len(buf, 56 + 4096);
		cr_assert_eq(decode(buf, 64, MSG_CHANNEL_BULK, true, m, &err), -EBADMSG);
		cr_assert(strstr(err.msg, "payload"));
	}
	free(m);
	m = msg_of(golden_of(MSG_SETUP));
	strcpy(m->setup.vars[1].key, "port");
	cr_assert_eq(msg_encode(m, out, FRAME_MAX), -EINVAL);
}

/* What would be refused is not sent. */
Test(proto_bounds, encode_checks)
{
	CLEANUP_FREE uint8_t *out = malloc(FRAME_MAX);
	CLEANUP_FREE struct msg *m = calloc(1, sizeof(*m));

	m->type = 99;
	cr_assert_eq(msg_encode(m, out, FRAME_MAX), -EINVAL);
	m->type = 0;
	cr_assert_eq(msg_encode(m, out, FRAME_MAX), -EINVAL);
	m->type = MSG_SWITCH;
	cr_assert_eq(msg_encode(m, out, FRAME_MAX), -EINVAL);
	m->type = MSG_STATE;
	cr_assert_eq(msg_encode(m, out, FRAME_MAX), -EINVAL);
	m->state = (struct msg_state){out, MSG_BODY_MAX + 1};
	cr_assert_eq(msg_encode(m, out, FRAME_MAX), -EINVAL);
	m->type = MSG_ERROR;
	memset(&m->error, 'a', sizeof(m->error)); /* no NUL */
	cr_assert_eq(msg_encode(m, out, FRAME_MAX), -EINVAL);
	m->error.code[39] = 0;
	cr_assert_eq(msg_encode(m, out, FRAME_MAX), -EINVAL);
	m->error.message[471] = 0;
	cr_assert_eq(msg_encode(m, out, FRAME_MAX), 8 + 2 + 39 + 2 + 471);
	m->type = MSG_DISCARD;
	m->discard.block = 0;
	m->discard.n = MSG_DISCARD_MAX + 1;
	cr_assert_eq(msg_encode(m, out, FRAME_MAX), -EINVAL);
	m->type = MSG_RECEIPT;
	memset(&m->receipt, 0, sizeof(m->receipt));
	m->receipt.n = MSG_BLOCKS_MAX + 1;
	cr_assert_eq(msg_encode(m, out, FRAME_MAX), -EINVAL);
	m->receipt.n = MSG_BLOCKS_MAX;
	m->receipt.nthreads = MSG_THREADS_MAX;
	cr_assert_eq(msg_encode(m, out, FRAME_MAX), -EINVAL, "threads without block time");
	m->receipt.has_block_time = true;
	cr_assert_eq(msg_encode(m, out, FRAME_MAX), 8 + 152 + 8 * (256 + 256));
	m->receipt.nthreads = MSG_THREADS_MAX + 1;
	cr_assert_eq(msg_encode(m, out, FRAME_MAX), -EINVAL);
}
