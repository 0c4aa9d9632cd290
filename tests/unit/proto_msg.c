/* SPDX-License-Identifier: Apache-2.0 */
/* Messages against the bytes of PROTOCOL.md: there and back, cut, padded, bent, at random. */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include "msg_text.h"
#include "proto_golden.h"
#include "util/cleanup.h"

/* --- there and back -------------------------------------------------------------------------- */

Test(proto_msg, golden)
{
	CLEANUP_FREE uint8_t *out = malloc(FRAME_MAX);

	for (size_t i = 0; i < GOLDEN_N; i++) {
		const struct golden *g = &golden[i];
		CLEANUP_FREE struct msg *m = msg_of(g), *back = calloc(1, sizeof(*back));
		uint8_t want[GOLDEN_MAX];
		size_t n = golden_bytes(g, want);
		struct error err = {0};

		cr_assert_eq(msg_encode(m, out, FRAME_MAX), (ssize_t)n, "%s",
			     msg_type_name(g->type));
		cr_assert_arr_eq(out, want, n, "%s", msg_type_name(g->type));
		/* What was there before must not shine through. */
		memset(back, 0xee, sizeof(*back));
		cr_assert_eq(decode_golden(g, want, n, back, &err), 0, "%s: %s",
			     msg_type_name(g->type), err.msg);
		cr_assert_eq(back->type, g->type);
		memset(out, 0, n);
		cr_assert_eq(msg_encode(back, out, FRAME_MAX), (ssize_t)n);
		cr_assert_arr_eq(out, want, n, "%s decoded", msg_type_name(g->type));
	}
}

/* Encoding that does not fit writes nothing behind the buffer and says so. */
Test(proto_msg, no_room)
{
	for (size_t i = 0; i < GOLDEN_N; i++) {
		CLEANUP_FREE struct msg *m = msg_of(&golden[i]);
		uint8_t want[GOLDEN_MAX];
		size_t n = golden_bytes(&golden[i], want);

		for (size_t cap = 0; cap < n; cap++) {
			uint8_t *out = malloc(cap + !cap);

			cr_assert_eq(msg_encode(m, out, cap), -ENOSPC);
			free(out);
		}
	}
}

/* The fields of a few, so that two errors that cancel each other out in the coding show. */
Test(proto_msg, fields)
{
	CLEANUP_FREE struct msg *m = calloc(1, sizeof(*m));
	uint8_t buf[GOLDEN_MAX];
	size_t n;

	n = golden_bytes(golden_of(MSG_SETUP), buf);
	cr_assert_eq(decode(buf, n, MSG_CHANNEL_CONTROL, true, m, NULL), 0);
	cr_assert_str_eq(m->setup.name, "web-1");
	cr_assert_str_eq(m->setup.driver, "native");
	cr_assert_str_eq(m->setup.launcher, "run_it");
	cr_assert_eq(m->setup.uuid[15], 0xaf);
	cr_assert_eq(m->setup.generation, 4);
	cr_assert(m->setup.paused && !m->setup.may_postcopy);
	cr_assert_eq(m->setup.bulk_channels, 16);
	cr_assert_eq(m->setup.blocks, 2);
	cr_assert_eq(m->setup.nvars, 2);
	cr_assert_str_eq(m->setup.vars[0].value, "80 or so");
	cr_assert_str_eq(m->setup.vars[1].key, "A.b");
	cr_assert_str_eq(m->setup.vars[1].value, "");
	n = golden_bytes(golden_of(MSG_NACK), buf);
	cr_assert_eq(decode(buf, n, MSG_CHANNEL_URGENT, false, m, NULL), 0);
	cr_assert_eq(m->nack.block, 2);
	cr_assert_eq(m->nack.pass, 3);
	cr_assert_eq(m->nack.offset, 0x5000);
	cr_assert_eq(m->nack.length, 0x40000);
	n = golden_bytes(golden_of(MSG_RECEIPT), buf);
	cr_assert_eq(decode(buf, n, MSG_CHANNEL_CONTROL, false, m, NULL), 0);
	cr_assert(m->receipt.digest_ok);
	cr_assert_eq(m->receipt.n, 1);
	cr_assert_eq(m->receipt.faults, 7);
	cr_assert_eq(m->receipt.requests, 6);
	cr_assert_eq(m->receipt.p50_us, 50);
	cr_assert_eq(m->receipt.p99_us, 99);
	cr_assert_eq(m->receipt.answered[6], 5);
	cr_assert_eq(m->receipt.answered[MSG_OCTAVES - 1], 0x0a0b0c0d);
	cr_assert_eq(m->receipt.pages[0], 0x10000);
	cr_assert(m->receipt.has_block_time);
	cr_assert_eq(m->receipt.all_blocked_us, 0x1122);
	cr_assert_eq(m->receipt.nthreads, 2);
	cr_assert_eq(m->receipt.blocked_us[0], 0x3344);
	cr_assert_eq(m->receipt.blocked_us[1], 0x0102030405060708);
}

/* --- cut and padded -------------------------------------------------------------------------- */

Test(proto_msg, truncated_at_every_byte)
{
	CLEANUP_FREE struct msg *m = calloc(1, sizeof(*m));

	for (size_t i = 0; i < GOLDEN_N; i++) {
		const struct golden *g = &golden[i];
		uint8_t buf[GOLDEN_MAX];
		size_t n = golden_bytes(g, buf);

		for (size_t k = MSG_HEADER_LEN; k < n; k++) {
			struct error err = {0};
			int r;

			put_len(buf, k - MSG_HEADER_LEN);
			r = decode_golden(g, buf, k, m, &err);
			if (g->type == MSG_STATE && k > MSG_HEADER_LEN) {
				cr_assert_eq(r, 0, "a shorter STATE is one, too");
				continue;
			}
			cr_assert_eq(r, -EBADMSG, "%s of %zu", msg_type_name(g->type), k);
			cr_assert(!strcmp(err.code, "bad-length") ||
				  !strcmp(err.code, "bad-message"));
			cr_assert(strstr(err.msg, msg_type_name(g->type)), "%s", err.msg);
		}
	}
}

Test(proto_msg, trailing_byte)
{
	CLEANUP_FREE struct msg *m = calloc(1, sizeof(*m));

	for (size_t i = 0; i < GOLDEN_N; i++) {
		const struct golden *g = &golden[i];
		uint8_t buf[GOLDEN_MAX];
		size_t n = golden_bytes(g, buf);
		struct error err = {0};
		int r;

		put_len(buf, get_len(buf) + 1);
		buf[n] = 0;
		r = decode_golden(g, buf, n + 1, m, &err);
		cr_assert_eq(r, g->type == MSG_STATE ? 0 : -EBADMSG, "%s: %s",
			     msg_type_name(g->type), err.msg);
	}
}

/* --- headers --------------------------------------------------------------------------------- */

Test(proto_msg, length_extremes)
{
	static const uint32_t extreme[] = {0x7fffffff, 0x80000000,
					   0xffffffff, MSG_BODY_MAX + 1,
					   0xfffffff8, 56 + MSG_PAGES_RAW_MAX + 1};
	struct msg_header h;

	for (size_t i = 0; i < GOLDEN_N; i++) {
		const struct golden *g = &golden[i];
		uint8_t buf[GOLDEN_MAX];

		golden_bytes(g, buf);
		for (size_t j = 0; j < ARRAY_SIZE(extreme); j++) {
			struct error err = {0};

			if (g->type == MSG_PAGES && extreme[j] == MSG_BODY_MAX + 1)
				continue;
			put_len(buf, extreme[j]);
			cr_assert_eq(
				msg_header_decode(buf, golden_channel(g), g->from_source, &h, &err),
				-EBADMSG);
			cr_assert_str_eq(err.code, "bad-length");
		}
	}
}

Test(proto_msg, flags)
{
	struct msg_header h;

	for (size_t i = 0; i < GOLDEN_N; i++)
		for (int bit = 0; bit < 16; bit++) {
			struct error err = {0};
			uint8_t buf[GOLDEN_MAX];

			golden_bytes(&golden[i], buf);
			buf[6 + bit / 8] |= (uint8_t)(1 << bit % 8);
			cr_assert_eq(msg_header_decode(buf, golden_channel(&golden[i]),
						       golden[i].from_source, &h, &err),
				     -EBADMSG);
			cr_assert_str_eq(err.code, "bad-flags");
		}
}

static bool known(unsigned int type)
{
	for (size_t i = 0; i < GOLDEN_N; i++)
		if (golden[i].type == type)
			return true;
	return false;
}

Test(proto_msg, unknown_types)
{
	struct msg_header h;

	for (unsigned int type = 0; type < 65536; type++) {
		uint8_t buf[MSG_HEADER_LEN] = {8, 0, 0, 0, (uint8_t)type, (uint8_t)(type >> 8)};
		struct error err = {0};

		if (known(type)) {
			cr_assert_str_neq(msg_type_name(type), "?");
			continue;
		}
		cr_assert_str_eq(msg_type_name(type), "?");
		for (int channel = 0; channel < 4; channel++) {
			error_clear(&err);
			cr_assert_eq(msg_header_decode(buf, channel, true, &h, &err), -EBADMSG);
			cr_assert_str_eq(err.code, "unknown-message");
		}
	}
}

static void check_way(const struct golden *g, enum msg_channel channel, bool from_source)
{
	bool allowed = g->channels & 1u << channel && (from_source ? g->from_source : g->from_dest);
	struct msg_header h;
	struct error err = {0};
	uint8_t buf[GOLDEN_MAX];
	int r;

	golden_bytes(g, buf);
	r = msg_header_decode(buf, channel, from_source, &h, &err);
	cr_assert_eq(r, allowed ? 0 : -EBADMSG, "%s from %d on %s", msg_type_name(g->type),
		     from_source, msg_channel_name(channel));
	if (allowed)
		return;
	cr_assert_str_eq(err.code, "unexpected-message");
	cr_assert(strstr(err.msg, msg_type_name(g->type)));
	cr_assert(strstr(err.msg, msg_channel_name(channel)));
}

Test(proto_msg, channels_and_directions)
{
	for (size_t i = 0; i < GOLDEN_N; i++)
		for (int channel = 0; channel < 4; channel++) {
			check_way(&golden[i], channel, true);
			check_way(&golden[i], channel, false);
		}
}

/* The vectors' idea of channels and directions is that of the table in PROTOCOL.md. */
Test(proto_msg, table_of_the_specification)
{
	CLEANUP_FCLOSE FILE *f = fopen("proto/PROTOCOL.md", "re");
	char line[1024], name[32], way[16], channels[32];
	unsigned int type, rows = 0;

	cr_assert(f, "run from the project's root");
	while (fgets(line, sizeof(line), f)) {
		unsigned int mask = 0;
		const struct golden *g;

		if (sscanf(line, "| %u | %31[A-Z_] | %15[^ ] | %31[^|] |", &type, name, way,
			   channels) != 4)
			continue;
		rows++;
		cr_assert_str_eq(msg_type_name(type), name);
		g = golden_of(type);
		for (const char *p = channels; *p; p++)
			mask |= *p == 'C' ? C : *p == 'U' ? U : *p == 'B' ? B : *p == 'q' ? Q : 0;
		if (!strncmp(channels, "all", 3))
			mask = C | U | B | Q;
		cr_assert_eq(g->channels, mask, "%s: %s", name, channels);
		cr_assert_eq(g->from_source, strcmp(way, "D→S") != 0, "%s", name);
		cr_assert_eq(g->from_dest, strcmp(way, "S→D") != 0, "%s", name);
	}
	cr_assert_eq(rows, GOLDEN_N - 2, "PAGES and RECEIPT have two vectors, all others one");
}

/* --- versions --------------------------------------------------------------------------------- */

Test(proto_msg, highest_version_of_both)
{
	cr_assert_eq(msg_version_common(1, 1), 1);
	cr_assert_eq(msg_version_common(1, MSG_VERSION), MSG_VERSION);
	cr_assert_eq(msg_version_common(1, 65535), MSG_VERSION);
	cr_assert_eq(msg_version_common(MSG_VERSION, MSG_VERSION + 7), MSG_VERSION);
	cr_assert_eq(msg_version_common(MSG_VERSION + 1, 65535), 0);
	cr_assert_eq(msg_version_common(0, 0), 0);
	cr_assert_eq(msg_version_common(2, 1), 0);
}

/* What version 1 calls a RECEIPT is taken, and can be said. */
Test(proto_msg, receipt_of_version_1)
{
	CLEANUP_FREE struct msg *m = calloc(1, sizeof(*m));
	uint8_t buf[GOLDEN_MAX], out[GOLDEN_MAX];
	const struct golden *g = golden_of(MSG_RECEIPT) + 1;
	size_t n = golden_bytes(g, buf);

	cr_assert_eq(g->fill, fill_receipt_brief);
	cr_assert_eq(decode(buf, n, MSG_CHANNEL_CONTROL, false, m, NULL), 0);
	cr_assert(m->receipt.brief && !m->receipt.has_block_time);
	cr_assert_eq(m->receipt.pages[0], 0x10000);
	m->receipt.has_block_time = true;
	cr_assert_eq(msg_encode(m, out, sizeof(out)), -EINVAL);
}

/* --- the largest ----------------------------------------------------------------------------- */

static void fill_largest(struct msg *m, enum msg_type type)
{
	struct msg_setup *s = &m->setup;

	memset(m, 0, sizeof(*m));
	m->type = type;
	if (type == MSG_DISCARD) {
		m->discard.n = MSG_DISCARD_MAX;
		for (uint32_t i = 0; i < MSG_DISCARD_MAX; i++)
			m->discard.ranges[i] = (struct msg_range){i * 8192ull, 4096};
	} else if (type == MSG_COMPLETE) {
		m->complete.n = MSG_BLOCKS_MAX;
		memset(m->complete.pages, 0xab, sizeof(m->complete.pages));
	} else if (type == MSG_RECEIPT) {
		m->receipt.n = MSG_BLOCKS_MAX;
		memset(m->receipt.pages, 0xab, sizeof(m->receipt.pages));
	} else if (type == MSG_RECEIVED) {
		m->received.n = MSG_RECEIVED_MAX;
		memset(m->received.words, 0xab, sizeof(m->received.words));
	} else {
		memset(s->name, 'n', MSG_NAME_MAX - 1);
		memset(s->driver, 'd', MSG_DRIVER_MAX - 1);
		memset(s->launcher, 'l', MSG_NAME_MAX - 1);
		s->bulk_channels = 1;
		s->nvars = MSG_VARS_MAX;
		for (unsigned int i = 0; i < MSG_VARS_MAX; i++) {
			memset(s->vars[i].key, 'k', MSG_NAME_MAX - 1);
			s->vars[i].key[i / 8] = 'A';
			s->vars[i].key[MSG_NAME_MAX - 2 - i % 8] = 'B';
			memset(s->vars[i].value, 'v', MSG_VALUE_MAX - 1);
		}
	}
}

Test(proto_msg, largest)
{
	static const enum msg_type types[] = {MSG_SETUP, MSG_DISCARD, MSG_COMPLETE, MSG_RECEIPT,
					      MSG_RECEIVED};
	CLEANUP_FREE struct msg *m = calloc(1, sizeof(*m)), *back = calloc(1, sizeof(*m));
	CLEANUP_FREE uint8_t *out = malloc(FRAME_MAX), *again = malloc(FRAME_MAX);

	for (size_t i = 0; i < ARRAY_SIZE(types); i++) {
		const struct golden *g = golden_of(types[i]);
		struct error err = {0};
		ssize_t n;

		fill_largest(m, types[i]);
		n = msg_encode(m, out, FRAME_MAX);
		cr_assert_gt(n, 0, "%s", msg_type_name(types[i]));
		cr_assert_eq(decode_golden(g, out, (size_t)n, back, &err), 0, "%s", err.msg);
		cr_assert_eq(msg_encode(back, again, FRAME_MAX), n);
		cr_assert_arr_eq(out, again, (size_t)n);
		put_len(out, (uint64_t)n - MSG_HEADER_LEN + 1);
		cr_assert_eq(decode_golden(g, out, (size_t)n, back, &err), -EBADMSG);
	}
}

/* --- at random ------------------------------------------------------------------------------- */

static uint64_t next_random(uint64_t *s)
{
	*s ^= *s << 13;
	*s ^= *s >> 7;
	*s ^= *s << 17;
	return *s;
}

/* A vector with a few bytes bent, sometimes of another length; or noise behind a valid header. */
static size_t mutate(const struct golden *g, uint8_t *buf, uint64_t *seed)
{
	size_t n = golden_bytes(g, buf);
	uint64_t what = next_random(seed) % 8;

	if (what == 0 && n > MSG_HEADER_LEN)
		for (size_t i = MSG_HEADER_LEN; i < n; i++)
			buf[i] = (uint8_t)next_random(seed);
	for (uint64_t i = 0; what && i < what && n > MSG_HEADER_LEN; i++) {
		size_t at = MSG_HEADER_LEN + next_random(seed) % (n - MSG_HEADER_LEN);

		buf[at] = next_random(seed) % 3 ? (uint8_t)next_random(seed) : 0;
	}
	if (next_random(seed) % 8 == 0) {
		n = MSG_HEADER_LEN + next_random(seed) % (GOLDEN_MAX - MSG_HEADER_LEN);
		put_len(buf, n - MSG_HEADER_LEN);
	}
	return n;
}

/* Whatever is taken says the same when it is sent again, byte by byte; all else is an error. */
Test(proto_msg, random_bytes)
{
	CLEANUP_FREE struct msg *m = calloc(1, sizeof(*m));
	CLEANUP_FREE uint8_t *out = malloc(FRAME_MAX);
	uint64_t seed = 0x5eed, taken = 0, refused = 0;

	for (unsigned int round = 0; round < 100000; round++) {
		const struct golden *g = &golden[next_random(&seed) % GOLDEN_N];
		uint8_t buf[GOLDEN_MAX] = {0};
		struct error err = {0};
		size_t n = mutate(g, buf, &seed);
		ssize_t len;

		if (decode_golden(g, buf, n, m, &err) < 0) {
			cr_assert(error_is_set(&err));
			cr_assert(msg_text_valid(err.msg, sizeof(err.msg)));
			refused++;
			continue;
		}
		taken++;
		len = msg_encode(m, out, FRAME_MAX);
		cr_assert_eq(len, (ssize_t)n, "round %u, %s", round, msg_type_name(g->type));
		cr_assert_arr_eq(out, buf, n, "round %u, %s", round, msg_type_name(g->type));
	}
	cr_assert_gt(taken, 10000, "%lu", taken);
	cr_assert_gt(refused, 10000, "%lu", refused);
}
