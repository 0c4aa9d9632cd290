/* SPDX-License-Identifier: Apache-2.0 */
/* Connections on the loop, against peers that dribble, flood, break the rules or fall silent. */
#include <fcntl.h>
#include <sys/socket.h>
#include "conn.h"
#include "proto_fixture.h"

#define GUARD_US 25000000ull
#define LARGE    (MSG_HEADER_LEN + MSG_BODY_MAX)

/**
 * struct fix - one connection on a loop, and its peer, which a thread drives
 * @stop_at:	messages after which the loop is to stop; 0: when closed
 * @on_message:	what a test does with a message; may free @c
 * @types, @numbers: of the messages that came (numbers of those that have one)
 */
struct fix {
	struct loop *loop;
	struct conn *c;
	struct tls_chan *peer;
	struct tls_chan *released;
	pthread_t thread;
	void (*peer_fn)(struct fix *f);
	void (*on_message)(struct fix *f, const struct msg *m);
	void (*on_established)(struct fix *f);
	void (*on_drained)(struct fix *f);
	unsigned int stop_at;
	unsigned int established, messages, closed, drained;
	unsigned int types[4096];
	uint64_t numbers[4096];
	uint64_t closed_us;
	struct error err;
	struct error peer_err;
	unsigned int peer_type;
	size_t peer_bytes;
};

static void on_established(struct conn *c, void *arg)
{
	struct fix *f = arg;

	cr_assert_eq(c, f->c);
	cr_assert_eq(f->messages + f->closed, 0);
	f->established++;
	if (f->on_established)
		f->on_established(f);
}

static void on_message(struct conn *c, const struct msg *m, void *arg)
{
	struct fix *f = arg;

	cr_assert_eq(c, f->c);
	cr_assert_eq(f->established, 1);
	cr_assert_eq(f->closed, 0);
	f->types[f->messages % 4096] = m->type;
	if (m->type == MSG_PING || m->type == MSG_PONG)
		f->numbers[f->messages % 4096] = m->number.value;
	f->messages++;
	if (f->on_message)
		f->on_message(f, m);
	if (f->stop_at && f->messages >= f->stop_at)
		loop_stop(f->loop);
}

static void on_closed(struct conn *c, const struct error *err, void *arg)
{
	struct fix *f = arg;

	cr_assert_eq(c, f->c);
	cr_assert_eq(f->closed, 0);
	cr_assert(error_is_set(err));
	cr_assert_eq(conn_send_simple(c, MSG_READY), -EPIPE);
	f->closed++;
	f->err = *err;
	f->closed_us = clock_us();
	conn_free(c);
	f->c = NULL;
	loop_stop(f->loop);
}

static void on_drained(struct conn *c, void *arg)
{
	struct fix *f = arg;

	cr_assert_eq(conn_queued(c), 0);
	f->drained++;
	if (f->on_drained)
		f->on_drained(f);
}

static const struct conn_ops ops = {on_established, on_message, on_closed, on_drained};

static void on_guard(void *arg)
{
	(void)arg;
	cr_assert_fail("the loop did not stop");
}

static void on_stop(void *arg)
{
	loop_stop(arg);
}

static void *peer_main(void *arg)
{
	struct fix *f = arg;

	f->peer_fn(f);
	return NULL;
}

/* The peer's handshake, as a source. */
static void *source_main(void *arg)
{
	struct fix *f = arg;
	struct error err = {0};

	if (tls_chan_handshake_wait(f->peer, -1, 10000000, &err) == 0)
		f->peer_fn(f);
	else
		f->peer_err = err;
	return NULL;
}

/* The connection under test is the destination's: it accepts. */
static void start_accepted(struct fix *f, enum msg_channel channel)
{
	struct tls_ctx *client = fixture_ctx(TLS_CLIENT), *server = fixture_ctx(TLS_SERVER);
	struct tls_chan *chan;
	int fd[2];

	tls_pair_sockets(fd);
	cr_assert_eq(tls_chan_connect(client, fd[0], "localhost", &f->peer), 0);
	cr_assert_eq(tls_chan_accept(server, fd[1], &chan), 0);
	tls_ctx_unref(client);
	tls_ctx_unref(server);
	f->loop = loop_new();
	f->c = conn_new(f->loop, chan, true, channel, &ops, f);
	cr_assert(f->c);
	if (f->peer_fn)
		cr_assert_eq(pthread_create(&f->thread, NULL, source_main, f), 0);
}

/* The connection under test is the source's: it was dialled. */
static void start_dialled(struct fix *f, enum msg_channel channel)
{
	struct tls_pair p;

	fixture_pair(&p);
	f->peer = p.server;
	f->loop = loop_new();
	f->c = conn_new(f->loop, p.client, false, channel, &ops, f);
	cr_assert(f->c);
	if (f->peer_fn)
		cr_assert_eq(pthread_create(&f->thread, NULL, peer_main, f), 0);
}

static void run(struct fix *f)
{
	struct event *guard = loop_timer(f->loop, GUARD_US, on_guard, NULL);

	cr_assert_eq(loop_run(f->loop), 0);
	event_free(guard);
}

static void run_for(struct fix *f, uint64_t us)
{
	struct event *stop = loop_timer(f->loop, us, on_stop, f->loop);

	run(f);
	event_free(stop);
}

static void finish(struct fix *f)
{
	conn_free(f->c);
	if (f->peer_fn)
		pthread_join(f->thread, NULL);
	tls_chan_free(f->peer);
	tls_chan_free(f->released);
	loop_free(f->loop);
}

static void put_msg(struct fix *f, struct msg *m)
{
	uint8_t *buf = malloc(LARGE);
	size_t n = fixture_encode(m, buf, LARGE);

	fixture_put(f->peer, buf, n);
	free(buf);
	free(m);
}

static struct msg *ping(uint64_t n)
{
	struct msg *m = fixture_msg(MSG_PING);

	m->number.value = n;
	return m;
}

/* Read what the connection under test sends until ERROR or the end. */
static void hear_error(struct fix *f, enum msg_channel channel, bool from_source)
{
	struct frame_io io = {f->peer, channel, from_source, -1, 20000000};
	uint8_t *buf = malloc(MSG_BODY_MAX);
	struct msg *m = fixture_msg(0);
	struct msg_header h;

	while (frame_read_header(&io, &h, &f->peer_err) == 0 &&
	       frame_read_body(&io, &h, buf, m, &f->peer_err) == 0) {
		f->peer_type = m->type;
		f->peer_bytes += MSG_HEADER_LEN + h.length;
		if (m->type == MSG_ERROR) {
			memcpy(f->peer_err.code, m->error.code, sizeof(f->peer_err.code));
			memcpy(f->peer_err.msg, m->error.message, sizeof(f->peer_err.msg));
			break;
		}
	}
	free(buf);
	free(m);
}

/* --- reading ----------------------------------------------------------------------------------- */

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

#define MANY 1000

static void peer_sends_many(struct fix *f)
{
	uint8_t buf[MANY * 16];
	size_t n = 0;

	for (unsigned int i = 0; i < MANY; i++) {
		struct msg *p = ping(i);

		n += fixture_encode(p, buf + n, sizeof(buf) - n);
		free(p);
	}
	fixture_put(f->peer, buf, n);
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
	uint64_t begin;

	start_accepted(&f, MSG_CHANNEL_CONTROL);
	f.stop_at = 1000;
	run(&f);
	f.stop_at = 0;
	for (unsigned int i = 0; i < 20; i++) {
		begin = clock_us();
		run_for(&f, 10000);
		cr_assert_lt(clock_us() - begin, 500000);
	}
	cr_assert_gt(f.messages, 2000);
	finish(&f);
}

/* --- what may not be sent ---------------------------------------------------------------------- */

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

/* --- the end ------------------------------------------------------------------------------------ */

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

/* --- time --------------------------------------------------------------------------------------- */

static void frees_on_drained(struct fix *f)
{
	conn_free(steal_ptr(&f->c));
	loop_stop(f->loop);
}

static void frees_on_established(struct fix *f)
{
	conn_free(steal_ptr(&f->c));
	loop_stop(f->loop);
}

static void frees_on_message(struct fix *f, const struct msg *m)
{
	(void)m;
	conn_free(steal_ptr(&f->c));
}

static void closes_on_message(struct fix *f, const struct msg *m)
{
	(void)m;
	conn_close_when_sent(steal_ptr(&f->c));
}

static void peer_is_silent(struct fix *f)
{
	hear_error(f, MSG_CHANNEL_CONTROL, false);
}

Test(proto_conn, silence_after_the_handshake)
{
	struct fix f = {.peer_fn = peer_is_silent};
	uint64_t begin = clock_us();

	start_accepted(&f, MSG_CHANNEL_CONTROL);
	conn_set_timeout(f.c, 300000);
	run(&f);
	cr_assert_eq(f.established, 1);
	cr_assert_str_eq(f.err.code, "timeout");
	cr_assert_geq(f.closed_us - begin, 300000);
	cr_assert_lt(f.closed_us - begin, 3000000);
	finish(&f);
	cr_assert_str_eq(f.peer_err.code, "timeout");
}

Test(proto_conn, silence_before_the_handshake)
{
	struct fix f = {0};

	start_accepted(&f, MSG_CHANNEL_CONTROL);
	conn_set_timeout(f.c, 200000);
	run(&f);
	cr_assert_eq(f.established, 0);
	cr_assert_str_eq(f.err.code, "timeout");
	cr_assert(strstr(f.err.msg, "handshake"), "%s", f.err.msg);
	finish(&f);
}

/* The bound that every accepted connection has from the start. */
Test(proto_conn, hello_is_late)
{
	struct fix f = {.peer_fn = peer_is_silent};
	uint64_t begin = clock_us();

	start_accepted(&f, MSG_CHANNEL_CONTROL);
	run(&f);
	cr_assert_str_eq(f.err.code, "timeout");
	cr_assert_geq(f.closed_us - begin, MSG_HELLO_TIMEOUT_US);
	cr_assert_lt(f.closed_us - begin, MSG_HELLO_TIMEOUT_US + 4000000);
	finish(&f);
}

static void keeps_alive(struct fix *f)
{
	conn_keepalive(f->c);
	conn_set_timeout(f->c, 0);
}

/* PINGs come, but nobody answers. */
Test(proto_conn, lost_peer)
{
	struct fix f = {.peer_fn = peer_is_silent, .on_established = keeps_alive};
	uint64_t begin = clock_us();

	start_accepted(&f, MSG_CHANNEL_CONTROL);
	run(&f);
	cr_assert_str_eq(f.err.code, "peer-lost");
	cr_assert_geq(f.closed_us - begin, MSG_LOST_US);
	cr_assert_lt(f.closed_us - begin, MSG_LOST_US + 3000000);
	finish(&f);
	cr_assert_str_eq(f.peer_err.code, "peer-lost");
	/* Four or five PINGs came before it. */
	cr_assert_geq(f.peer_bytes, 4 * 16);
}

/* Two that have nothing to say keep each other alive, and hear nothing of it. */
Test(proto_conn, idle_peers_stay)
{
	struct fix a = {.on_established = keeps_alive}, b = {.on_established = keeps_alive};
	struct tls_pair p;

	fixture_pair(&p);
	a.loop = b.loop = loop_new();
	a.c = conn_new(a.loop, p.client, false, MSG_CHANNEL_CONTROL, &ops, &a);
	b.c = conn_new(b.loop, p.server, true, MSG_CHANNEL_CONTROL, &ops, &b);
	run_for(&a, MSG_LOST_US + 1500000);
	cr_assert(a.established && b.established);
	cr_assert_eq(a.messages + b.messages, 0);
	cr_assert_eq(a.closed + b.closed, 0);
	conn_free(b.c);
	finish(&a);
}

static void peer_never_ends_a_frame(struct fix *f)
{
	uint8_t head[MSG_HEADER_LEN] = {0x40, 0, 0, 0, MSG_STATE};

	fixture_put(f->peer, head, sizeof(head));
	for (int i = 0; i < 60 && fixture_put(f->peer, head, 1) == 0; i++)
		usleep(400000);
}

Test(proto_conn, dripping_peer_is_lost)
{
	struct fix f = {.peer_fn = peer_never_ends_a_frame, .on_established = keeps_alive};
	uint64_t begin = clock_us();

	start_accepted(&f, MSG_CHANNEL_CONTROL);
	run(&f);
	cr_assert_str_eq(f.err.code, "peer-lost");
	cr_assert(strstr(f.err.msg, "does not end"), "%s", f.err.msg);
	cr_assert_geq(f.closed_us - begin, 10000000);
	finish(&f);
}

/* --- hand-over, freeing ------------------------------------------------------------------------- */

static void peer_sends_pages(struct fix *f)
{
	uint8_t buf[128 + MSG_PAGES_FIXED + 8192] = {0};
	struct msg *m = fixture_hello(MSG_CHANNEL_BULK);
	struct msg_pages p = {.kind = MSG_PAGES_RAW, .length = 8192, .pass = 1};
	size_t n = fixture_encode(m, buf, sizeof(buf));

	memset(buf + n + MSG_PAGES_FIXED, 0x5a, 8192);
	cr_assert_eq(msg_pages_encode(&p, buf + n), MSG_PAGES_FIXED);
	fixture_put(f->peer, buf, n + MSG_PAGES_FIXED + 8192);
	free(m);
}

static void releases(struct fix *f, const struct msg *m)
{
	uint8_t token = m->hello.token[0];

	cr_assert_eq(conn_send_simple(f->c, MSG_PREPARED), 0);
	cr_assert_null(conn_release(f->c), "something is queued");
	conn_set_ops(f->c, &ops, f);
	f->on_message = NULL;
	conn_pause(f->c, true);
	f->on_drained = NULL;
	cr_assert_eq(token, m->hello.token[0]);
}

/* What came behind the HELLO, in the same record, is for the next owner, to the byte. */
Test(proto_conn, released_between_frames)
{
	struct fix f = {.peer_fn = peer_sends_pages, .on_message = releases, .stop_at = 1};
	struct frame_io io = {.channel = MSG_CHANNEL_BULK,
			      .from_source = true,
			      .stop_fd = -1,
			      .timeout_us = 5000000};
	struct msg *m = fixture_msg(0);
	uint8_t buf[8192];
	struct msg_header h;

	start_accepted(&f, MSG_CHANNEL_BULK);
	run(&f);
	while (conn_queued(f.c))
		run_for(&f, 1000);
	cr_assert_eq(f.messages, 1, "paused");
	io.chan = f.released = conn_release(f.c);
	f.c = NULL;
	cr_assert(io.chan);
	cr_assert_eq(frame_read_header(&io, &h, NULL), 0);
	cr_assert_eq(h.type, MSG_PAGES);
	cr_assert_eq(frame_read_body(&io, &h, buf, m, NULL), 0);
	cr_assert_eq(m->pages.length, 8192);
	cr_assert_eq(frame_read_payload(&io, &m->pages, buf, NULL), 0);
	for (size_t i = 0; i < sizeof(buf); i++)
		cr_assert_eq(buf[i], 0x5a);
	free(m);
	finish(&f);
}

static void releases_at_once(struct fix *f, const struct msg *m)
{
	cr_assert_eq(m->type, MSG_HELLO);
	f->released = conn_release(steal_ptr(&f->c));
	cr_assert(f->released);
	cr_assert_eq(m->hello.kind, MSG_CHANNEL_BULK, "valid until we return");
}

Test(proto_conn, released_in_the_callback)
{
	struct fix f = {.peer_fn = peer_sends_pages, .on_message = releases_at_once, .stop_at = 1};
	uint8_t byte;

	start_accepted(&f, MSG_CHANNEL_BULK);
	run(&f);
	cr_assert_eq(f.messages, 1);
	cr_assert_eq(tls_read_full(f.released, &byte, 1, -1, 5000000, NULL), 0);
	finish(&f);
}

static void peer_cuts_a_frame(struct fix *f)
{
	fixture_put(f->peer, "\x08\0\0\0\x04\0\0\0abc", 11);
}

Test(proto_conn, not_released_in_a_frame)
{
	struct fix f = {.peer_fn = peer_cuts_a_frame};

	start_accepted(&f, MSG_CHANNEL_CONTROL);
	run_for(&f, 300000);
	cr_assert_eq(f.established, 1);
	cr_assert_null(conn_release(f.c));
	finish(&f);
}

Test(proto_conn, freed_in_callbacks)
{
	struct fix a = {.peer_fn = peer_sends_many, .on_message = frees_on_message, .stop_at = 1};
	struct fix b = {.peer_fn = peer_sends_many, .on_established = frees_on_established};
	struct fix c = {.peer_fn = peer_sends_many, .on_message = closes_on_message, .stop_at = 1};
	struct fix d = {.on_drained = frees_on_drained};

	start_accepted(&a, MSG_CHANNEL_CONTROL);
	run(&a);
	cr_assert_eq(a.messages, 1);
	finish(&a);
	start_accepted(&b, MSG_CHANNEL_CONTROL);
	run(&b);
	cr_assert_eq(b.messages, 0);
	finish(&b);
	start_accepted(&c, MSG_CHANNEL_CONTROL);
	run(&c);
	run_for(&c, 100000);
	cr_assert_eq(c.messages, 1);
	finish(&c);
	start_dialled(&d, MSG_CHANNEL_CONTROL);
	cr_assert_eq(conn_send_simple(d.c, MSG_READY), 0);
	run(&d);
	cr_assert_eq(d.drained, 1);
	finish(&d);
}

/* --- writing ------------------------------------------------------------------------------------ */

static void peer_hears(struct fix *f)
{
	hear_error(f, MSG_CHANNEL_CONTROL, true);
}

/* Fill the queue; @return how many messages went in. */
static unsigned int fill(struct fix *f)
{
	struct msg *m = fixture_msg(MSG_STATE);
	uint8_t *data = calloc(1, MSG_BODY_MAX);
	unsigned int n = 0;

	m->state = (struct msg_state){.data = data, .len = MSG_BODY_MAX};
	while (conn_send(f->c, m) == 0)
		n++;
	cr_assert_eq(conn_send(f->c, m), -ENOBUFS);
	cr_assert_geq(conn_queued(f->c), CONN_QUEUE_MAX);
	cr_assert_leq(conn_queued(f->c), CONN_QUEUE_MAX + LARGE);
	free(data);
	free(m);
	return n;
}

static void stops_on_drained(struct fix *f)
{
	loop_stop(f->loop);
}

Test(proto_conn, bounded_queue)
{
	struct fix f = {.on_drained = stops_on_drained, .peer_fn = peer_hears};
	unsigned int n;

	start_dialled(&f, MSG_CHANNEL_CONTROL);
	n = fill(&f);
	run(&f);
	cr_assert_eq(f.drained, 1);
	cr_assert_eq(f.closed, 0);
	conn_free(steal_ptr(&f.c));
	finish(&f);
	cr_assert_eq(f.peer_bytes, (size_t)n * LARGE);
}

static void peer_sends_and_hears(struct fix *f)
{
	put_msg(f, ping(1)); /* lies unread when the other side closes */
	usleep(100000);
	hear_error(f, MSG_CHANNEL_CONTROL, true);
}

/* All that was queued, and the ERROR behind it, arrive before the end does. */
Test(proto_conn, close_when_sent)
{
	struct fix f = {.peer_fn = peer_sends_and_hears};
	struct error why = {"some-code", "g\xc3\xbcnstig \xff\n"};
	unsigned int n;

	start_dialled(&f, MSG_CHANNEL_CONTROL);
	conn_pause(f.c, true);
	n = fill(&f);
	run_for(&f, 50000);
	cr_assert_eq(conn_send_error(f.c, MSG_ERROR, &why), 0);
	conn_close_when_sent(steal_ptr(&f.c));
	run_for(&f, 1500000);
	cr_assert_eq(f.closed + f.messages, 0);
	finish(&f);
	cr_assert_eq(f.peer_type, MSG_ERROR);
	cr_assert_gt(f.peer_bytes, (size_t)n * LARGE);
	cr_assert_str_eq(f.peer_err.code, "some-code");
	cr_assert_str_eq(f.peer_err.msg, "g\xc3\xbcnstig ??");
}

/* A peer that does not read holds the connection for 2 s, and no longer. */
Test(proto_conn, close_does_not_wait_for_ever)
{
	struct fix f = {0};
	int fd;

	start_dialled(&f, MSG_CHANNEL_CONTROL);
	tls_pair_buffers(tls_chan_fd(f.peer));
	fill(&f);
	fd = tls_chan_fd(conn_chan(f.c));
	conn_close_when_sent(steal_ptr(&f.c));
	run_for(&f, 1000000);
	cr_assert_neq(fcntl(fd, F_GETFD), -1, "still there");
	run_for(&f, 1500000);
	cr_assert_eq(fcntl(fd, F_GETFD), -1, "gone");
	finish(&f);
}

static void pauses(struct fix *f, const struct msg *m)
{
	(void)m;
	conn_pause(f->c, true);
}

Test(proto_conn, paused)
{
	struct fix f = {.peer_fn = peer_sends_many, .on_message = pauses};

	start_accepted(&f, MSG_CHANNEL_CONTROL);
	run_for(&f, 200000);
	cr_assert_eq(f.messages, 1);
	conn_pause(f.c, false);
	run_for(&f, 100000);
	cr_assert_eq(f.messages, 2);
	f.on_message = NULL;
	f.stop_at = MANY;
	conn_pause(f.c, false);
	run(&f);
	cr_assert_eq(f.messages, MANY);
	finish(&f);
}

Test(proto_conn, refuses_to_send)
{
	struct fix f = {0};
	struct msg *m = fixture_msg(MSG_PAGES);

	start_dialled(&f, MSG_CHANNEL_BULK);
	m->pages = (struct msg_pages){.length = 4096, .pass = 1};
	cr_assert_eq(conn_send(f.c, m), -EINVAL);
	m->type = MSG_SWITCH;
	m->switch_.pass = 0;
	cr_assert_eq(conn_send(f.c, m), -EINVAL);
	cr_assert_eq(conn_queued(f.c), 0);
	free(m);
	finish(&f);
}
