/* SPDX-License-Identifier: Apache-2.0 */
#include "msg.h"

#include <errno.h>
#include <string.h>
#include "msg_check.h"
#include "msg_codec.h"
#include "msg_text.h"
#include "util/cleanup.h"

#define C (1u << MSG_CHANNEL_CONTROL)
#define U (1u << MSG_CHANNEL_URGENT)
#define B (1u << MSG_CHANNEL_BULK)
#define Q (1u << MSG_CHANNEL_QUERY)

/* Fixed parts, strings counted as empty: what the least and the longest body of a type can be. */
#define STR(max)  (2 + (max)-1)
#define ERROR_MAX (STR(40) + STR(472))
#define SETUP_MIN (3 * STR(1) + 16 + 8 + 4 + 4 + 2)
#define SETUP_MAX                                                                           \
	(STR(MSG_NAME_MAX) + 16 + 8 + STR(MSG_DRIVER_MAX) + STR(MSG_NAME_MAX) + 4 + 4 + 2 + \
	 MSG_VARS_MAX * (STR(MSG_NAME_MAX) + STR(MSG_VALUE_MAX)))
#define FACTS_MAX (2 + MSG_FACTS_MAX * (STR(MSG_NAME_MAX) + STR(MSG_VALUE_MAX)))
#define ROOM_MIN  (4 + 4 * 4 + 4 + 8 + 8 + 2 + 2)
#define ROOM_MAX                              \
	(ROOM_MIN + MSG_POOLS_MAX * (8 + 8) + \
	 MSG_LAUNCHERS_MAX * (STR(MSG_NAME_MAX) + STR(MSG_DRIVER_MAX) + 1))
#define BLOCK_MIN        (4 + STR(1) + 4 + 4 + 4 + 8)
#define PAGES_FIXED_BODY (MSG_PAGES_FIXED - MSG_HEADER_LEN)

enum way {
	S_TO_D = 1,
	D_TO_S = 2,
	BOTH = S_TO_D | D_TO_S,
};

/**
 * struct kind - one row of PROTOCOL.md section 5
 * @name:	NULL: there is no such type
 * @min, @max:	bytes of a body
 * @channels:	bits of the channels on which it may travel
 * @way:	directions in which it may
 */
struct kind {
	const char *name;
	uint32_t min;
	uint32_t max;
	unsigned int channels;
	enum way way;
	msg_encode_fn *encode;
	msg_decode_fn *decode;
	msg_check_fn *check;
};

#define KIND(type, min, max, channels, way, codec, check) \
	[MSG_##type] = {#type,                            \
			min,                              \
			max,                              \
			channels,                         \
			way,                              \
			msg_encode_##codec,               \
			msg_decode_##codec,               \
			msg_check_##check}

static const struct kind kinds[] = {
	KIND(HELLO, 68, 68, C | U | B | Q, S_TO_D, hello, hello),
	KIND(HELLO_ACK, 48, 48, C | U | B | Q, D_TO_S, hello_ack, hello_ack),
	KIND(ERROR, 4, ERROR_MAX, C | U | B | Q, BOTH, error, error),
	KIND(PING, 8, 8, C, BOTH, number, none),
	KIND(PONG, 8, 8, C, BOTH, number, none),
	KIND(SETUP, SETUP_MIN, SETUP_MAX, C, S_TO_D, setup, setup),
	KIND(BLOCK, BLOCK_MIN, BLOCK_MIN + MSG_NAME_MAX - 1, C, S_TO_D, block, block),
	KIND(PREPARED, 0, 0, C, D_TO_S, empty, none),
	KIND(INTENT, 8, 8, C, S_TO_D, number, generation),
	KIND(INTENT_ACK, 0, 0, C, D_TO_S, empty, none),
	KIND(SWITCH, 4, 4, C, S_TO_D, switch, switch),
	KIND(DISCARD, 8 + 16, 8 + 16 * MSG_DISCARD_MAX, C, S_TO_D, discard, discard),
	KIND(LISTEN, 1, 1, C, S_TO_D, listen, none),
	KIND(STATE, 1, MSG_BODY_MAX, C, S_TO_D, state, state),
	KIND(STATE_END, 16, 16, C, S_TO_D, state_end, state_end),
	KIND(READY, 0, 0, C, D_TO_S, empty, none),
	KIND(COMMIT, 8, 8, C, S_TO_D, number, generation),
	KIND(RUNNING, 8, 8, C, D_TO_S, number, generation),
	KIND(COMPLETE, 24, 24 + 8 * MSG_BLOCKS_MAX, C, S_TO_D, complete, complete),
	KIND(RECEIPT, 136, 152 + 8 * (MSG_BLOCKS_MAX + MSG_THREADS_MAX), C, D_TO_S, receipt,
	     receipt),
	KIND(ABORT, 4, ERROR_MAX, C, S_TO_D, error, error),
	KIND(ABORTED, 0, 0, C, D_TO_S, empty, none),
	KIND(STORE, STR(1) + 4, STR(MSG_NAME_MAX) + 4, C, S_TO_D, store, store),
	KIND(RESUME, 16, 16, C, S_TO_D, resume, resume),
	KIND(RECEIVED, 16 + 8, 16 + 8 * MSG_RECEIVED_MAX, C, D_TO_S, received, received),
	KIND(RESUMED, 8, 8, C, D_TO_S, resumed, resumed),
	KIND(CONTINUE, 0, 0, C, S_TO_D, empty, none),
	KIND(FACTS, 2, FACTS_MAX, C, S_TO_D, facts, facts),
	KIND(REQUEST, 24, 24, C | U, D_TO_S, request, request),
	KIND(DROP, 8, 8, C, S_TO_D, drop, drop),
	KIND(DROPPED, 8, 8, C, D_TO_S, drop, drop),
	KIND(PAGES, PAGES_FIXED_BODY, PAGES_FIXED_BODY + MSG_PAGES_RAW_MAX, U | B, S_TO_D, pages,
	     pages),
	KIND(NACK, 24, 24, U | B, D_TO_S, nack, nack),
	KIND(BARRIER, 8, 8, U | B, S_TO_D, barrier, barrier),
	KIND(BARRIER_ACK, 8, 8, U | B, D_TO_S, barrier, barrier),
	KIND(END, 0, 0, U, S_TO_D, empty, none),
	KIND(QUERY, 8, 8, Q, S_TO_D, number, generation),
	KIND(ANSWER, 8, 8, Q, D_TO_S, answer, answer),
	KIND(KEPT, 8, 8, Q, S_TO_D, number, generation),
	KIND(PROBE, 0, 0, Q, S_TO_D, empty, none),
	KIND(ROOM, ROOM_MIN, ROOM_MAX, Q, D_TO_S, room, room),
};

_Static_assert(SETUP_MAX <= MSG_BODY_MAX, "a full SETUP fits a frame");
_Static_assert(FACTS_MAX <= MSG_BODY_MAX, "all FACTS fit a frame");
_Static_assert(ROOM_MAX <= MSG_BODY_MAX, "a full ROOM fits a frame");
_Static_assert(8 + 16 * MSG_DISCARD_MAX <= MSG_BODY_MAX, "a full DISCARD fits a frame");
_Static_assert(16 + 8 * MSG_RECEIVED_MAX <= MSG_BODY_MAX, "a full RECEIVED fits a frame");

static const struct kind *kind_of(unsigned int type)
{
	return type < ARRAY_SIZE(kinds) && kinds[type].name ? &kinds[type] : NULL;
}

const char *msg_type_name(unsigned int type)
{
	const struct kind *k = kind_of(type);

	return k ? k->name : "?";
}

const char *msg_channel_name(enum msg_channel channel)
{
	static const char *const names[] = {"control", "urgent", "bulk", "query"};

	return (unsigned int)channel < ARRAY_SIZE(names) ? names[channel] : "?";
}

uint16_t msg_version_common(uint16_t min, uint16_t max)
{
	uint16_t best = MIN(max, (uint16_t)MSG_VERSION);

	return best >= min && best >= MSG_VERSION_OLDEST ? best : 0;
}

static uint32_t le32(const uint8_t *p)
{
	return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

static uint16_t le16(const uint8_t *p)
{
	return (uint16_t)(p[0] | p[1] << 8);
}

int msg_header_decode(const uint8_t in[static MSG_HEADER_LEN], enum msg_channel channel,
		      bool from_source, struct msg_header *ret, struct error *err)
{
	uint32_t length = le32(in);
	uint16_t type = le16(in + 4), flags = le16(in + 6);
	const struct kind *k = kind_of(type);

	if (!k)
		return error_set(err, -EBADMSG, "unknown-message",
				 "the peer sent a message of unknown type %u", type);
	if (flags)
		return error_set(err, -EBADMSG, "bad-flags",
				 "%s: flags are 0x%04x, must be 0 in this version", k->name, flags);
	if (!(k->way & (from_source ? S_TO_D : D_TO_S)) || !(k->channels & 1u << channel))
		return error_set(err, -EBADMSG, "unexpected-message",
				 "%s may not come from the %s on a %s channel", k->name,
				 from_source ? "source" : "destination", msg_channel_name(channel));
	if (length < k->min || length > k->max)
		return error_set(err, -EBADMSG, "bad-length",
				 "%s: the body has %u bytes, must have %u to %u", k->name, length,
				 k->min, k->max);
	ret->length = length;
	ret->type = type;
	return 0;
}

/* The payload of PAGES is no part of what is decoded, but the header's length counts it. */
static uint64_t payload_of(const struct msg *m)
{
	return m->type == MSG_PAGES && m->pages.kind == MSG_PAGES_RAW ? m->pages.length : 0;
}

int msg_decode(const struct msg_header *h, const uint8_t *body, struct msg *ret, struct error *err)
{
	const struct kind *k = kind_of(h->type);
	struct bytes_reader r = {.p = body, .len = h->length};
	const char *bad = NULL;

	if (!k || h->length < k->min || h->length > k->max)
		return error_set(err, -EBADMSG, "bad-message", "%s: %u bytes is no body of it",
				 msg_type_name(h->type), h->length);
	if (h->type == MSG_PAGES)
		r.len = PAGES_FIXED_BODY;
	ret->type = h->type;
	k->decode(&r, ret);
	if (bytes_end(&r) < 0)
		bad = r.what;
	if (!bad)
		bad = k->check(ret);
	if (!bad && r.len + payload_of(ret) != h->length)
		bad = "length (the payload differs)";
	if (bad)
		return error_set(err, -EBADMSG, "bad-message",
				 "%s of %u bytes: cut short or not as specified: %s", k->name,
				 h->length, bad);
	return 0;
}

static void put_header(uint8_t *out, uint64_t length, unsigned int type)
{
	struct bytes_writer w = {.p = out, .cap = MSG_HEADER_LEN};

	bytes_put_u32(&w, (uint32_t)length);
	bytes_put_u16(&w, (uint16_t)type);
	bytes_put_u16(&w, 0);
}

ssize_t msg_pages_encode(const struct msg_pages *p, uint8_t out[static MSG_PAGES_FIXED])
{
	struct bytes_writer w = {.p = out + MSG_HEADER_LEN, .cap = PAGES_FIXED_BODY};

	if (msg_check_one_pages(p))
		return -EINVAL;
	msg_encode_pages_part(&w, p);
	put_header(out, PAGES_FIXED_BODY + (p->kind == MSG_PAGES_RAW ? p->length : 0), MSG_PAGES);
	return MSG_PAGES_FIXED;
}

ssize_t msg_encode(const struct msg *m, uint8_t *out, size_t cap)
{
	const struct kind *k = kind_of(m->type);
	struct bytes_writer w = {.p = out, .cap = cap};

	if (!k || k->check(m))
		return -EINVAL;
	bytes_put_raw(&w, (const uint8_t[MSG_HEADER_LEN]){0}, MSG_HEADER_LEN);
	k->encode(&w, m);
	if (w.failed)
		return -ENOSPC;
	put_header(out, w.len - MSG_HEADER_LEN + payload_of(m), m->type);
	return (ssize_t)w.len;
}

void msg_error_fill(struct msg *ret, enum msg_type type, const struct error *err)
{
	ret->type = type;
	msg_text_copy(ret->error.code, sizeof(ret->error.code), err->code);
	if (!msg_name_valid(ret->error.code, sizeof(ret->error.code)))
		strcpy(ret->error.code, "error");
	msg_text_copy(ret->error.message, sizeof(ret->error.message), err->msg);
}

static int check_one(const struct msg_block *b, size_t i, const struct msg_block *first,
		     struct error *err)
{
	const char *bad = msg_check_one_block(b);

	if (bad)
		return error_set(err, -EBADMSG, "bad-block",
				 "block %zu (%.63s): %s is not allowed: page size %u, length %llu, "
				 "kind %u, flags 0x%x",
				 i, msg_text_valid(b->name, sizeof(b->name)) ? b->name : "?", bad,
				 b->page_size, (unsigned long long)b->length, b->kind, b->flags);
	if (b->index != i)
		return error_set(err, -EBADMSG, "bad-block",
				 "block %s: its index is %u, must be %zu", b->name, b->index, i);
	for (size_t j = 0; j < i; j++)
		if (!strcmp(first[j].name, b->name))
			return error_set(err, -EBADMSG, "bad-block",
					 "blocks %zu and %zu have the same name %s", j, i, b->name);
	return 0;
}

int msg_check_blocks(const struct msg_block *blocks, size_t n, struct error *err)
{
	uint64_t sum = 0;
	int r;

	if (n > MSG_BLOCKS_MAX)
		return error_set(err, -EBADMSG, "bad-block", "%zu blocks, at most %u are allowed",
				 n, MSG_BLOCKS_MAX);
	for (size_t i = 0; i < n; i++) {
		r = check_one(&blocks[i], i, blocks, err);
		if (r < 0)
			return r;
		sum += blocks[i].length; /* no overflow: 256 times 2^46 at most */
		if (sum > MSG_MEMORY_MAX)
			return error_set(err, -EBADMSG, "bad-block",
					 "block %s: with it the guest has more than %llu bytes",
					 blocks[i].name, (unsigned long long)MSG_MEMORY_MAX);
	}
	return 0;
}
