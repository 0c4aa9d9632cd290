/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The coder of the wire protocol: a byte that says which channel and way, then frames. Whatever
 * decodes must encode to the very bytes that came: else two versions of one message would exist, and
 * what one side checked would not be what the other meant.
 */
#include <string.h>
#include "fuzz/lib/fuzz.h"
#include "msg.h"
#include "msg_text.h"

#define FRAMES_MAX 300

static void check_again(const struct msg *m, const uint8_t *head, const uint8_t *body, size_t n)
{
	static uint8_t out[MSG_HEADER_LEN + MSG_BODY_MAX];
	ssize_t len = msg_encode(m, out, sizeof(out));

	FUZZ_CHECK(len == (ssize_t)(MSG_HEADER_LEN + n));
	FUZZ_CHECK(!memcmp(out, head, MSG_HEADER_LEN));
	FUZZ_CHECK(!n || !memcmp(out + MSG_HEADER_LEN, body, n));
}

/* Return: whether another frame may follow */
static bool one(struct fuzz_in *in, enum msg_channel channel, bool from_source, struct msg *m)
{
	struct fuzz_in head = fuzz_take(in, MSG_HEADER_LEN), body;
	struct error err = {0};
	struct msg_header h;
	uint8_t *copy;
	size_t n;

	if (head.n < MSG_HEADER_LEN)
		return false;
	if (msg_header_decode(head.p, channel, from_source, &h, &err)) {
		FUZZ_CHECK(error_is_set(&err) && msg_text_valid(err.msg, sizeof(err.msg)));
		return false;
	}
	n = h.type == MSG_PAGES ? MSG_PAGES_FIXED - MSG_HEADER_LEN : h.length;
	body = fuzz_take(in, n);
	if (body.n < n)
		return false;
	copy = fuzz_copy(body);
	m->type = 0;
	if (!msg_decode(&h, copy, m, &err))
		check_again(m, head.p, copy, n);
	else
		FUZZ_CHECK(error_is_set(&err) && msg_text_valid(err.msg, sizeof(err.msg)));
	free(copy);
	return true;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct fuzz_in in = fuzz_begin(data, size);
	struct msg_block *blocks = calloc(FRAMES_MAX, sizeof(*blocks));
	struct msg *m = calloc(1, sizeof(*m));
	uint8_t how = fuzz_u8(&in);
	struct error err = {0};
	size_t n = 0;

	for (int i = 0; i < FRAMES_MAX; i++) {
		if (!one(&in, how & 3, how & 4, m))
			break;
		if (m->type == MSG_BLOCK)
			blocks[n++] = m->block;
	}
	msg_check_blocks(blocks, n, &err);
	free(blocks);
	free(m);
	return 0;
}
