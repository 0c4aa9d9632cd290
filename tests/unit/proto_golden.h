/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Every message as PROTOCOL.md section 5 spells it, written out by hand: header, then field by field.
 * These bytes never change; what changes them is another version, which then has a vector of its own.
 */
#ifndef DECANT_TESTS_PROTO_GOLDEN_H
#define DECANT_TESTS_PROTO_GOLDEN_H

#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>
#include "msg.h"
#include "util/cleanup.h"

#define C (1u << MSG_CHANNEL_CONTROL)
#define U (1u << MSG_CHANNEL_URGENT)
#define B (1u << MSG_CHANNEL_BULK)
#define Q (1u << MSG_CHANNEL_QUERY)

/* Payload bytes that the length of golden PAGES counts and the vector leaves out. */
#define GOLDEN_PAYLOAD 8192u

static inline void fill_hello(struct msg *m)
{
	m->hello.version_min = 1;
	m->hello.version_max = 2;
	m->hello.capabilities = 0x8000000000000003;
	m->hello.kind = MSG_CHANNEL_BULK;
	m->hello.index = 5;
	for (uint8_t i = 0; i < 16; i++)
		m->hello.migration[i] = i;
	for (uint8_t i = 0; i < 32; i++)
		m->hello.token[i] = (uint8_t)(0x20 + i);
}

static inline void fill_hello_ack(struct msg *m)
{
	m->hello_ack.version = 1;
	m->hello_ack.capabilities = 3;
	for (uint8_t i = 0; i < 32; i++)
		m->hello_ack.token[i] = (uint8_t)(0x20 + i);
}

static inline void fill_error(struct msg *m)
{
	strcpy(m->error.code, "no-room");
	strcpy(m->error.message, "f\xc3\xbcnf G\xc3\xa4ste");
}

static inline void fill_number(struct msg *m)
{
	m->number.value = 0x0807060504030201;
}

static inline void fill_setup(struct msg *m)
{
	struct msg_setup *s = &m->setup;

	strcpy(s->name, "web-1");
	for (uint8_t i = 0; i < 16; i++)
		s->uuid[i] = (uint8_t)(0xa0 + i);
	s->generation = 4;
	strcpy(s->driver, "native");
	strcpy(s->launcher, "run_it");
	s->paused = true;
	s->may_postcopy = false;
	s->bulk_channels = 16;
	s->blocks = 2;
	s->nvars = 2;
	strcpy(s->vars[0].key, "port");
	strcpy(s->vars[0].value, "80 or so");
	strcpy(s->vars[1].key, "A.b");
}

static inline void fill_block(struct msg *m)
{
	m->block = (struct msg_block){.index = 1,
				      .name = "ram0",
				      .kind = MSG_BLOCK_HUGETLB,
				      .flags = MSG_BLOCK_NO_DMA,
				      .page_size = 0x200000,
				      .length = 0x100000000};
}

static inline void fill_store(struct msg *m)
{
	strcpy(m->store.name, "monday");
	m->store.start = true;
}

static inline void fill_facts(struct msg *m)
{
	m->facts.n = 2;
	strcpy(m->facts.facts[0].key, "machine");
	strcpy(m->facts.facts[0].value, "pc-1");
	strcpy(m->facts.facts[1].key, "cpus");
	strcpy(m->facts.facts[1].value, "2");
}

static inline void fill_none(struct msg *m)
{
	(void)m;
}

static inline void fill_switch(struct msg *m)
{
	m->switch_.pass = 0x04030201;
}

static inline void fill_discard(struct msg *m)
{
	m->discard.block = 3;
	m->discard.n = 2;
	m->discard.ranges[0] = (struct msg_range){0, 0x1000};
	m->discard.ranges[1] = (struct msg_range){0x7000, 0x3000};
}

static inline void fill_listen(struct msg *m)
{
	m->listen.postcopy = true;
}

static inline void fill_state(struct msg *m)
{
	m->state = (struct msg_state){(const uint8_t *)"state", 5};
}

static inline void fill_state_end(struct msg *m)
{
	m->state_end = (struct msg_state_end){0x4000000, 0x1122334455667788};
}

static inline void fill_complete(struct msg *m)
{
	m->complete.runs = 9;
	m->complete.digest_sum = 0xfffefdfcfbfaf9f8;
	m->complete.n = 2;
	m->complete.pages[0] = 0x100;
	m->complete.pages[1] = 0x0200000000;
}

static inline void fill_receipt(struct msg *m)
{
	m->receipt.digest_ok = true;
	m->receipt.n = 1;
	m->receipt.faults = 7;
	m->receipt.requests = 6;
	m->receipt.p50_us = 50;
	m->receipt.p90_us = 90;
	m->receipt.p99_us = 99;
	m->receipt.max_us = 0x01020304;
	m->receipt.answered[6] = 5;
	m->receipt.answered[7] = 2;
	m->receipt.answered[MSG_OCTAVES - 1] = 0x0a0b0c0d;
	m->receipt.pages[0] = 0x10000;
	m->receipt.has_block_time = true;
	m->receipt.all_blocked_us = 0x1122;
	m->receipt.nthreads = 2;
	m->receipt.blocked_us[0] = 0x3344;
	m->receipt.blocked_us[1] = 0x0102030405060708;
}

static inline void fill_resume(struct msg *m)
{
	m->resume = (struct msg_resume){5, 16};
}

static inline void fill_received(struct msg *m)
{
	m->received.block = 3;
	m->received.n = 2;
	m->received.first = 0x01000040;
	m->received.words[0] = 0x8000000000000001;
	m->received.words[1] = 0x0807060504030201;
}

static inline void fill_resumed(struct msg *m)
{
	m->resumed.pass = 0x04030201;
}

static inline void fill_request(struct msg *m)
{
	m->request = (struct msg_request){255, 0x1234000, 0x200000};
}

static inline void fill_pages(struct msg *m)
{
	m->pages = (struct msg_pages){.block = 1,
				      .kind = MSG_PAGES_RAW,
				      .offset = 0x40000000,
				      .length = GOLDEN_PAYLOAD,
				      .pass = 3,
				      .digest = 0x1122334455667788};
}

static inline void fill_zero(struct msg *m)
{
	m->pages = (struct msg_pages){.block = 1, .length = 1ull << 46, .pass = 1};
}

static inline void fill_receipt_brief(struct msg *m)
{
	fill_receipt(m);
	m->receipt.brief = true;
	m->receipt.has_block_time = false;
	m->receipt.all_blocked_us = 0;
	m->receipt.nthreads = 0;
	memset(m->receipt.blocked_us, 0, sizeof(m->receipt.blocked_us));
}

static inline void fill_nack(struct msg *m)
{
	m->nack = (struct msg_nack){2, 3, 0x5000, 0x40000};
}

static inline void fill_barrier(struct msg *m)
{
	m->barrier = (struct msg_barrier){0x11, 0x12345678};
}

static inline void fill_drop(struct msg *m)
{
	m->drop = (struct msg_drop){MSG_CHANNEL_BULK, 15};
}

static inline void fill_answer(struct msg *m)
{
	m->answer.answer = MSG_ANSWER_COMPLETED;
}

static inline void fill_room(struct msg *m)
{
	struct msg_room *v = &m->room;

	v->flags = MSG_ROOM_CORDONED | MSG_ROOM_POSTCOPY;
	v->incoming = 3;
	v->yours = 2;
	v->limit = 16;
	v->per_source = 4;
	v->memory = 0x0807060504030201;
	v->memory_limit = 0x40000000;
	v->npools = 1;
	v->pools[0] = (struct msg_pool){0x200000, 0x0a0b};
	v->nlaunchers = 2;
	strcpy(v->launchers[0].name, "web-1");
	strcpy(v->launchers[0].driver, "qemu");
	v->launchers[0].usable = true;
	strcpy(v->launchers[1].name, "run_it");
	strcpy(v->launchers[1].driver, "native");
}

/**
 * struct golden - a message and its bytes
 * @channels:	on which it may travel
 * @hex:	blanks are for the reader
 */
struct golden {
	enum msg_type type;
	unsigned int channels;
	bool from_source;
	bool from_dest;
	void (*fill)(struct msg *m);
	const char *hex;
};

#define TOKEN "202122232425262728292a2b2c2d2e2f303132333435363738393a3b3c3d3e3f"

static const struct golden golden[] = {
	{MSG_HELLO, C | U | B | Q, true, false, fill_hello,
	 "44000000 0100 0000"
	 "44434e54 0100 0200 0300000000000080 02 05 0000"
	 "000102030405060708090a0b0c0d0e0f" TOKEN},
	{MSG_HELLO_ACK, C | U | B | Q, false, true, fill_hello_ack,
	 "30000000 0200 0000"
	 "0100 0000 00000000 0300000000000000" TOKEN},
	{MSG_ERROR, C | U | B | Q, true, true, fill_error,
	 "17000000 0300 0000"
	 "0700 6e6f2d726f6f6d"
	 "0c00 66c3bc6e66 20 47c3a4737465"},
	{MSG_PING, C, true, true, fill_number, "08000000 0400 0000 0102030405060708"},
	{MSG_PONG, C, true, true, fill_number, "08000000 0500 0000 0102030405060708"},
	{MSG_SETUP, C, true, false, fill_setup,
	 "50000000 1000 0000"
	 "0500 7765622d31"
	 "a0a1a2a3a4a5a6a7a8a9aaabacadaeaf"
	 "0400000000000000"
	 "0600 6e6174697665"
	 "0600 72756e5f6974"
	 "01 00 10 00 02000000 0200"
	 "0400 706f7274 0800 3830206f7220736f"
	 "0300 412e62 0000"},
	{MSG_BLOCK, C, true, false, fill_block,
	 "1e000000 1100 0000"
	 "01000000 0400 72616d30 02 000000 01000000 00002000 0000000001000000"},
	{MSG_PREPARED, C, false, true, fill_none, "00000000 1200 0000"},
	{MSG_INTENT, C, true, false, fill_number, "08000000 1300 0000 0102030405060708"},
	{MSG_INTENT_ACK, C, false, true, fill_none, "00000000 1400 0000"},
	{MSG_SWITCH, C, true, false, fill_switch, "04000000 1500 0000 01020304"},
	{MSG_DISCARD, C, true, false, fill_discard,
	 "28000000 1600 0000"
	 "03000000 02000000"
	 "0000000000000000 0010000000000000"
	 "0070000000000000 0030000000000000"},
	{MSG_LISTEN, C, true, false, fill_listen, "01000000 1700 0000 01"},
	{MSG_STATE, C, true, false, fill_state, "05000000 1800 0000 7374617465"},
	{MSG_STATE_END, C, true, false, fill_state_end,
	 "10000000 1900 0000 0000000400000000 8877665544332211"},
	{MSG_READY, C, false, true, fill_none, "00000000 1a00 0000"},
	{MSG_COMMIT, C, true, false, fill_number, "08000000 1b00 0000 0102030405060708"},
	{MSG_RUNNING, C, false, true, fill_number, "08000000 1c00 0000 0102030405060708"},
	{MSG_COMPLETE, C, true, false, fill_complete,
	 "28000000 1d00 0000"
	 "0900000000000000 f8f9fafbfcfdfeff 02000000 00000000"
	 "0001000000000000 0000000002000000"},
	{MSG_RECEIPT, C, false, true, fill_receipt,
	 "b0000000 1e00 0000"
	 "01 01 0000 01000000"
	 "0700000000000000 0600000000000000"
	 "32000000 5a000000 63000000 04030201"
	 "00000000 00000000 00000000 00000000 00000000 00000000 05000000 02000000"
	 "00000000 00000000 00000000 00000000 00000000 00000000 00000000 00000000"
	 "00000000 00000000 00000000 00000000 00000000 00000000 00000000 0d0c0b0a"
	 "2211000000000000 02000000 00000000"
	 "0000010000000000 4433000000000000 0807060504030201"},
	/* As version 1 has it. */
	{MSG_RECEIPT, C, false, true, fill_receipt_brief,
	 "90000000 1e00 0000"
	 "01 00 0000 01000000"
	 "0700000000000000 0600000000000000"
	 "32000000 5a000000 63000000 04030201"
	 "00000000 00000000 00000000 00000000 00000000 00000000 05000000 02000000"
	 "00000000 00000000 00000000 00000000 00000000 00000000 00000000 00000000"
	 "00000000 00000000 00000000 00000000 00000000 00000000 00000000 0d0c0b0a"
	 "0000010000000000"},
	{MSG_ABORT, C, true, false, fill_error,
	 "17000000 1f00 0000"
	 "0700 6e6f2d726f6f6d"
	 "0c00 66c3bc6e66 20 47c3a4737465"},
	{MSG_ABORTED, C, false, true, fill_none, "00000000 2000 0000"},
	{MSG_STORE, C, true, false, fill_store, "0c000000 2100 0000 0600 6d6f6e646179 01 000000"},
	{MSG_RESUME, C, true, false, fill_resume,
	 "10000000 2200 0000 0500000000000000 10 00000000000000"},
	{MSG_RECEIVED, C, false, true, fill_received,
	 "20000000 2300 0000"
	 "03000000 02000000 4000000100000000"
	 "0100000000000080 0102030405060708"},
	{MSG_RESUMED, C, false, true, fill_resumed, "08000000 2400 0000 01020304 00000000"},
	{MSG_CONTINUE, C, true, false, fill_none, "00000000 2500 0000"},
	{MSG_FACTS, C, true, false, fill_facts,
	 "1a000000 2600 0000 0200"
	 "0700 6d616368696e65 0400 70632d31"
	 "0400 63707573 0100 32"},
	{MSG_REQUEST, C | U, false, true, fill_request,
	 "18000000 2800 0000 ff000000 00000000 0040230100000000 0000200000000000"},
	{MSG_DROP, C, true, false, fill_drop, "08000000 2900 0000 02 0f 000000000000"},
	{MSG_DROPPED, C, false, true, fill_drop, "08000000 2a00 0000 02 0f 000000000000"},
	{MSG_PAGES, U | B, true, false, fill_pages,
	 "38200000 3000 0000"
	 "01000000 01 000000 0000004000000000 0020000000000000 03000000 00000000"
	 "8877665544332211 00000000000000000000000000000000"},
	{MSG_PAGES, U | B, true, false, fill_zero,
	 "38000000 3000 0000"
	 "01000000 00 000000 0000000000000000 0000000000400000 01000000 00000000"
	 "0000000000000000 00000000000000000000000000000000"},
	{MSG_NACK, U | B, false, true, fill_nack,
	 "18000000 3100 0000 02000000 03000000 0050000000000000 0000040000000000"},
	{MSG_BARRIER, U | B, true, false, fill_barrier, "08000000 3200 0000 11000000 78563412"},
	{MSG_BARRIER_ACK, U | B, false, true, fill_barrier, "08000000 3300 0000 11000000 78563412"},
	{MSG_END, U, true, false, fill_none, "00000000 3400 0000"},
	{MSG_QUERY, Q, true, false, fill_number, "08000000 4000 0000 0102030405060708"},
	{MSG_ANSWER, Q, false, true, fill_answer, "08000000 4100 0000 03 00000000000000"},
	{MSG_KEPT, Q, true, false, fill_number, "08000000 4200 0000 0102030405060708"},
	{MSG_PROBE, Q, true, false, fill_none, "00000000 4300 0000"},
	{MSG_ROOM, Q, false, true, fill_room,
	 "5b000000 4400 0000"
	 "05 000000 03000000 02000000 10000000 04000000 00000000"
	 "0102030405060708 0000004000000000"
	 "0100 0000200000000000 0b0a000000000000"
	 "0200 0500 7765622d31 0400 71656d75 01 0600 72756e5f6974 0600 6e6174697665 00"},
};

#define GOLDEN_N (sizeof(golden) / sizeof(golden[0]))
/* Longest of the vectors. */
#define GOLDEN_MAX 256

/* golden_bytes() - Return: length of the vector, header included */
static inline size_t golden_bytes(const struct golden *g, uint8_t out[static GOLDEN_MAX])
{
	size_t n = 0;

	memset(out, 0, GOLDEN_MAX);
	for (const char *p = g->hex; *p;) {
		static const char digits[] = "0123456789abcdef";

		if (*p == ' ') {
			p++;
			continue;
		}
		out[n++] = (uint8_t)((strchr(digits, p[0]) - digits) << 4 |
				     (strchr(digits, p[1]) - digits));
		p += 2;
	}
	return n;
}

/* golden_channel() - Return: one channel on which it may travel */
static inline enum msg_channel golden_channel(const struct golden *g)
{
	return (enum msg_channel)__builtin_ctz(g->channels);
}

#define FRAME_MAX (MSG_HEADER_LEN + MSG_BODY_MAX)

static inline struct msg *msg_of(const struct golden *g)
{
	struct msg *m = calloc(1, sizeof(*m));

	cr_assert(m);
	m->type = g->type;
	g->fill(m);
	return m;
}

static inline const struct golden *golden_of(enum msg_type type)
{
	for (size_t i = 0; i < GOLDEN_N; i++)
		if (golden[i].type == type)
			return &golden[i];
	cr_assert_fail("no vector of %d", type);
	return NULL;
}

/*
 * Header and body of @n bytes in a buffer that is no byte longer than they, so that reading beyond
 * shows under AddressSanitizer. The payload of PAGES is counted by the header and not there.
 */
static inline int decode(const uint8_t *frame, size_t n, enum msg_channel channel, bool from_source,
			 struct msg *ret, struct error *err)
{
	CLEANUP_FREE uint8_t *body = NULL;
	struct msg_header h = {0};
	size_t len;
	int r = msg_header_decode(frame, channel, from_source, &h, err);

	if (r < 0)
		return r;
	len = h.type == MSG_PAGES ? MSG_PAGES_FIXED - MSG_HEADER_LEN : h.length;
	body = malloc(len + !len);
	cr_assert(body);
	memset(body, 0, len);
	memcpy(body, frame + MSG_HEADER_LEN, MIN(len, n - MSG_HEADER_LEN));
	r = msg_decode(&h, body, ret, err);
	if (!r && ret->type == MSG_STATE) {
		static uint8_t kept[MSG_BODY_MAX];

		cr_assert_eq(ret->state.data, body);
		memcpy(kept, body, len);
		ret->state.data = kept;
	}
	return r;
}

static inline int decode_golden(const struct golden *g, const uint8_t *frame, size_t n,
				struct msg *ret, struct error *err)
{
	return decode(frame, n, golden_channel(g), g->from_source, ret, err);
}

static inline void put_len(uint8_t *frame, uint64_t len)
{
	for (int i = 0; i < 4; i++)
		frame[i] = (uint8_t)(len >> (8 * i));
}

static inline uint32_t get_len(const uint8_t *frame)
{
	return frame[0] | frame[1] << 8 | frame[2] << 16 | (uint32_t)frame[3] << 24;
}

#endif
