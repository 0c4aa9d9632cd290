/* SPDX-License-Identifier: Apache-2.0 */
/* Connections on the loop, against peers that dribble, flood, break the rules or end. */
#include "lib/pace.h"
#include "proto_conn_fixture.h"

/* --- reading --------------------------------------------------------------------------------- */

static void peer_dribbles(struct fix *f)
{
	uint8_t buf[256];
	struct msg *hello = fixture_hello(MSG_CHANNEL_CONTROL), *p = ping(7);
	size_t n = fixture_encode(hello, buf, sizeof(buf));

	n += fixture_encode(p, buf + n, sizeof(buf) - n);
	for (size_t i = 0; i < n; i++)
		fixture_put(f->peer, buf + i, 1);
	free(hello);
	free(p);
}

Test(proto_conn, dribbled)
{
	struct fix f = {.peer_fn = peer_dribbles, .stop_at = 2};

	start_accepted(&f, MSG_CHANNEL_CONTROL);
	run(&f);
	cr_assert_eq(f.types[0], MSG_HELLO);
	cr_assert_eq(f.types[1], MSG_PING);
	cr_assert_eq(f.numbers[1], 7);
	finish(&f);
}

/* One record: after the first turn all the rest is inside TLS, and the socket stays silent. */
Test(proto_conn, many_in_one_record)
{
	struct fix f = {.peer_fn = peer_sends_many, .stop_at = MANY};

	start_accepted(&f, MSG_CHANNEL_CONTROL);
	run(&f);
	for (unsigned int i = 0; i < MANY; i++)
		cr_assert_eq(f.numbers[i], i);
	finish(&f);
}

static void peer_floods(struct fix *f)
{
	uint8_t buf[16384];
	size_t n = 0;

	while (n + 16 <= sizeof(buf)) {
		struct msg *p = ping(n);

		n += fixture_encode(p, buf + n, sizeof(buf) - n);
		free(p);
	}
	while (fixture_put(f->peer, buf, n) == 0)
		;
}

/* A peer that never stops to send has its turns, and so have timers. */
Test(proto_conn, flood_starves_nobody)
{
	struct fix f = {.peer_fn = peer_floods};
	struct pace *pace = pace_start();
	uint64_t begin;

	start_accepted(&f, MSG_CHANNEL_CONTROL);
	f.stop_at = 1000;
	run(&f);
	f.stop_at = 0;
	for (unsigned int i = 0; i < 20; i++) {
		begin = clock_us();
		run_for(&f, 10000);
		cr_assert(pace_soon(pace, clock_us() - begin, 500000));
	}
	pace_end(pace);
	cr_assert_gt(f.messages, 2000);
	finish(&f);
}

/* --- what may not be sent -------------------------------------------------------------------- */

static const struct bad {
	const char *what;
	enum msg_channel channel;
	uint8_t bytes[MSG_HEADER_LEN];
	const char *code;
	const char *says;
} bad[] = {
	{"huge", MSG_CHANNEL_CONTROL, {0xff, 0xff, 0xff, 0xff, 24, 0}, "bad-length", "STATE"},
	{"oversize STATE", MSG_CHANNEL_CONTROL, {1, 0, 1, 0, 24, 0}, "bad-length", "65537"},
	{"long PING", MSG_CHANNEL_CONTROL, {9, 0, 0, 0, 4, 0}, "bad-length", "PING"},
	{"unknown", MSG_CHANNEL_CONTROL, {0, 0, 0, 0, 99, 0}, "unknown-message", "99"},
	{"type 0", MSG_CHANNEL_CONTROL, {0, 0, 0, 0, 0, 0}, "unknown-message", "type 0"},
	{"flags", MSG_CHANNEL_CONTROL, {8, 0, 0, 0, 4, 0, 1, 0}, "bad-flags", "PING"},
	{"READY from a source",
	 MSG_CHANNEL_CONTROL,
	 {0, 0, 0, 0, 25 + 1, 0},
	 "unexpected-message",
	 "READY"},
	{"SETUP on bulk", MSG_CHANNEL_BULK, {60, 0, 0, 0, 16, 0}, "unexpected-message", "bulk"},
	{"PAGES on the loop",
	 MSG_CHANNEL_BULK,
	 {56, 0, 0, 0, 48, 0},
	 "unexpected-message",
	 "PAGES"},
};

static void peer_sends_bad(struct fix *f)
{
	const struct bad *b = &bad[f->peer_bytes];

	f->peer_bytes = 0;
	fixture_put(f->peer, b->bytes, sizeof(b->bytes));
	hear_error(f, b->channel, false);
}

Test(proto_conn, bad_frames_are_named_to_both)
{
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		struct fix f = {.peer_fn = peer_sends_bad, .peer_bytes = i};

		start_accepted(&f, bad[i].channel);
		run(&f);
		cr_expect_str_eq(f.err.code, bad[i].code, "%s: %s: %s", bad[i].what, f.err.code,
				 f.err.msg);
		cr_expect(strstr(f.err.msg, bad[i].says), "%s: %s", bad[i].what, f.err.msg);
		cr_expect(strstr(f.err.msg, "127.0.0.1:"), "the peer is named: %s", f.err.msg);
		finish(&f);
		cr_expect_eq(f.peer_type, MSG_ERROR, "%s", bad[i].what);
		cr_expect_str_eq(f.peer_err.code, bad[i].code, "%s: %s", bad[i].what,
				 f.peer_err.msg);
		cr_expect(strstr(f.peer_err.msg, bad[i].says), "%s: %s", bad[i].what,
			  f.peer_err.msg);
	}
}

static void peer_sends_bad_body(struct fix *f)
{
	uint8_t buf[128];
	struct msg *m = fixture_hello(MSG_CHANNEL_CONTROL);
	size_t n = fixture_encode(m, buf, sizeof(buf));

	buf[8] ^= 1; /* the magic */
	fixture_put(f->peer, buf, n);
	hear_error(f, MSG_CHANNEL_CONTROL, false);
	free(m);
}

Test(proto_conn, bad_body_is_named)
{
	struct fix f = {.peer_fn = peer_sends_bad_body};

	start_accepted(&f, MSG_CHANNEL_CONTROL);
	run(&f);
	cr_expect_str_eq(f.err.code, "bad-message");
	cr_expect(strstr(f.err.msg, "magic"), "%s", f.err.msg);
	finish(&f);
	cr_expect_str_eq(f.peer_err.code, "bad-message");
}

/* --- the end --------------------------------------------------------------------------------- */

static void peer_ends(struct fix *f)
{
	put_msg(f, ping(1));
	tls_chan_free(steal_ptr(&f->peer));
}

Test(proto_conn, orderly_end)
{
	struct fix f = {.peer_fn = peer_ends};

	start_accepted(&f, MSG_CHANNEL_CONTROL);
	run(&f);
	cr_assert_eq(f.messages, 1);
	cr_assert_str_eq(f.err.code, "connection-closed");
	cr_assert_not(strstr(f.err.msg, "middle"), "%s", f.err.msg);
	finish(&f);
}

static void peer_ends_in_frame(struct fix *f)
{
	fixture_put(f->peer, "\x08\0\0\0\x04\0\0\0abc", 11);
	tls_chan_free(steal_ptr(&f->peer));
}

Test(proto_conn, end_in_a_frame)
{
	struct fix f = {.peer_fn = peer_ends_in_frame};

	start_accepted(&f, MSG_CHANNEL_CONTROL);
	run(&f);
	cr_assert_eq(f.messages, 0);
	cr_assert_str_eq(f.err.code, "connection-closed");
	cr_assert(strstr(f.err.msg, "middle"), "%s", f.err.msg);
	finish(&f);
}

static void peer_cuts(struct fix *f)
{
	put_msg(f, ping(1));
	shutdown(tls_chan_fd(f->peer), SHUT_RDWR);
}

Test(proto_conn, cut)
{
	struct fix f = {.peer_fn = peer_cuts};

	start_accepted(&f, MSG_CHANNEL_CONTROL);
	run(&f);
	cr_assert_eq(f.messages, 1);
	cr_assert_str_eq(f.err.code, "tls-closed", "%s: %s", f.err.code, f.err.msg);
	finish(&f);
}

/*
 * A destination that refuses sends ERROR and closes, with what we sent unread: its kernel resets
 * the connection, and our next write fails. The refusal must be heard all the same.
 */
Test(proto_conn, refusal_is_heard_before_the_write_fails)
{
	struct fix f = {.stop_at = 1};
	struct error why = {"refused", "no room for this guest"};
	struct frame_io io;
	struct msg *m = fixture_hello(MSG_CHANNEL_CONTROL);

	start_dialled(&f, MSG_CHANNEL_CONTROL);
	conn_send(f.c, m);
	run_for(&f, 50000);
	io = (struct frame_io){f.peer, MSG_CHANNEL_CONTROL, true, -1, 1000000};
	cr_assert_eq(frame_send_error(&io, &why, NULL), 0);
	tls_chan_free(steal_ptr(&f.peer));
	usleep(50000);
	m->type = MSG_STATE;
	m->state = (struct msg_state){.data = (const uint8_t *)m, .len = MSG_BODY_MAX / 2};
	for (int i = 0; i < 4; i++)
		conn_send(f.c, m);
	run(&f);
	cr_assert_eq(f.messages, 1, "%s: %s", f.err.code, f.err.msg);
	cr_assert_eq(f.types[0], MSG_ERROR);
	free(m);
	finish(&f);
}
