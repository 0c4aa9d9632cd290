/* SPDX-License-Identifier: Apache-2.0 */
/* One connection on a loop, and a peer that a thread drives. */
#ifndef DECANT_TESTS_PROTO_CONN_FIXTURE_H
#define DECANT_TESTS_PROTO_CONN_FIXTURE_H

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

static inline void on_established(struct conn *c, void *arg)
{
	struct fix *f = arg;

	cr_assert_eq(c, f->c);
	cr_assert_eq(f->messages + f->closed, 0);
	f->established++;
	if (f->on_established)
		f->on_established(f);
}

static inline void on_message(struct conn *c, const struct msg *m, void *arg)
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

static inline void on_closed(struct conn *c, const struct error *err, void *arg)
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

static inline void on_drained(struct conn *c, void *arg)
{
	struct fix *f = arg;

	cr_assert_eq(conn_queued(c), 0);
	f->drained++;
	if (f->on_drained)
		f->on_drained(f);
}

static const struct conn_ops ops = {on_established, on_message, on_closed, on_drained};

static inline void on_guard(void *arg)
{
	(void)arg;
	cr_assert_fail("the loop did not stop");
}

static inline void on_stop(void *arg)
{
	loop_stop(arg);
}

static inline void *peer_main(void *arg)
{
	struct fix *f = arg;

	f->peer_fn(f);
	return NULL;
}

/* The peer's handshake, as a source. */
static inline void *source_main(void *arg)
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
static inline void start_accepted(struct fix *f, enum msg_channel channel)
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
static inline void start_dialled(struct fix *f, enum msg_channel channel)
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

static inline void run(struct fix *f)
{
	struct event *guard = loop_timer(f->loop, GUARD_US, on_guard, NULL);

	cr_assert_eq(loop_run(f->loop), 0);
	event_free(guard);
}

static inline void run_for(struct fix *f, uint64_t us)
{
	struct event *stop = loop_timer(f->loop, us, on_stop, f->loop);

	run(f);
	event_free(stop);
}

static inline void finish(struct fix *f)
{
	conn_free(f->c);
	if (f->peer_fn)
		pthread_join(f->thread, NULL);
	tls_chan_free(f->peer);
	tls_chan_free(f->released);
	loop_free(f->loop);
}

static inline void put_msg(struct fix *f, struct msg *m)
{
	uint8_t *buf = malloc(LARGE);
	size_t n = fixture_encode(m, buf, LARGE);

	fixture_put(f->peer, buf, n);
	free(buf);
	free(m);
}

static inline struct msg *ping(uint64_t n)
{
	struct msg *m = fixture_msg(MSG_PING);

	m->number.value = n;
	return m;
}

/* Read what the connection under test sends until ERROR or the end. */
static inline void hear_error(struct fix *f, enum msg_channel channel, bool from_source)
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

#define MANY 1000

static inline void peer_sends_many(struct fix *f)
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

#endif
