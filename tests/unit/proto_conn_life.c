/* SPDX-License-Identifier: Apache-2.0 */
/* Connections on the loop: silence, hand-over, freeing in callbacks, bounded writing, closing. */
#include "proto_conn_fixture.h"

/* --- time ------------------------------------------------------------------------------------ */

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

static void peer_sends_one(struct fix *f)
{
	put_msg(f, ping(1));
	hear_error(f, MSG_CHANNEL_CONTROL, false);
}

/* It bounds the way to the next message, and no more. */
Test(proto_conn, timeout_ends_with_the_message)
{
	struct fix f = {.peer_fn = peer_sends_one, .stop_at = 1};

	start_accepted(&f, MSG_CHANNEL_CONTROL);
	conn_set_timeout(f.c, 400000);
	run(&f);
	cr_assert_eq(f.messages, 1);
	f.stop_at = 0;
	run_for(&f, 800000);
	cr_assert_eq(f.closed, 0);
	conn_set_timeout(f.c, 200000);
	run(&f);
	cr_assert_str_eq(f.err.code, "timeout");
	finish(&f);
}

static void keeps_alive_and_waits(struct fix *f)
{
	conn_keepalive(f->c);
	conn_set_timeout(f->c, 700000);
}

static void peer_pings(struct fix *f)
{
	for (int i = 0; i < 20; i++) {
		put_msg(f, ping(1));
		usleep(100000);
	}
	hear_error(f, MSG_CHANNEL_CONTROL, false);
}

/* A peer that is alive and does not answer is late all the same. */
Test(proto_conn, pings_do_not_end_a_timeout)
{
	struct fix f = {.peer_fn = peer_pings, .on_established = keeps_alive_and_waits};

	start_accepted(&f, MSG_CHANNEL_CONTROL);
	run(&f);
	cr_assert_str_eq(f.err.code, "timeout");
	cr_assert_eq(f.messages, 0);
	finish(&f);
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

/* --- hand-over, freeing ---------------------------------------------------------------------- */

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

/* --- writing --------------------------------------------------------------------------------- */

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
