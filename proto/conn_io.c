/* SPDX-License-Identifier: Apache-2.0 */
#include "conn_priv.h"

#include <errno.h>
#include <event2/buffer.h>
#include <linux/sockios.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include "util/cleanup.h"
#include "util/clock.h"
#include "util/log.h"

/* One connection gets this much at a time, then the others have their turn. */
#define TURN_FRAMES 64
#define TURN_BYTES  (256u << 10)
/* A frame that has begun must end: 64 KiB at 6.5 KB/s. Under keep-alive only. */
#define FRAME_US    10000000ull
#define LINGER_TICK 10000ull

/* May the pump go on after a callback? */
static bool going(const struct conn *c)
{
	return !c->freed && c->phase != CONN_CLOSED;
}

/* Once, and nothing after it: the owner's conn_free() is all that is left. */
static void closed(struct conn *c, const struct error *err)
{
	if (c->phase == CONN_CLOSING) {
		log_debug("%s channel with %s: closed before all was sent: %s",
			  msg_channel_name(c->channel), tls_chan_peer(c->chan), err->msg);
		conn_free(c);
		return;
	}
	c->phase = CONN_CLOSED;
	conn_drop_events(c);
	if (c->ops->closed)
		c->ops->closed(c, err, c->arg);
}

/* Return: 0 all is out, -EAGAIN, or another -errno: the channel is dead. */
static int write_out(struct conn *c)
{
	c->out_wants = 0;
	while (conn_queued(c)) {
		size_t n = MIN(conn_queued(c), (size_t)TLS_RECORD_MAX);
		const uint8_t *p = evbuffer_pullup(c->out, (ev_ssize_t)n);
		ssize_t sent = p ? tls_write(c->chan, p, n) : -ENOMEM;

		if (sent == -EAGAIN)
			c->out_wants = tls_chan_events(c->chan);
		if (sent < 0)
			return (int)sent;
		evbuffer_drain(c->out, (size_t)sent);
	}
	return 0;
}

/* The peer broke the rules or is late: tell it, as far as that goes at once, and give up. */
static void reject(struct conn *c, struct error *err)
{
	CLEANUP_FREE struct msg *m = NULL;

	if (c->phase == CONN_OPEN && (m = calloc(1, sizeof(*m)))) {
		msg_error_fill(m, MSG_ERROR, err);
		if (!conn_queue(c, m))
			write_out(c);
	}
	error_prefix(err, "%s channel with %s", msg_channel_name(c->channel),
		     tls_chan_peer(c->chan));
	closed(c, err);
}

/* tls_read() or tls_write() failed for good, or reading came to the end. */
static void broken(struct conn *c, int r)
{
	const struct error *why = tls_chan_error(c->chan);
	struct error err = {0};

	if (error_is_set(why))
		err = *why;
	else if (r == -ENODATA || r == -EPIPE)
		error_set(&err, r, "connection-closed", "the peer ended the connection%s",
			  c->in_body || c->have ? " in the middle of a message" : "");
	else
		error_set(&err, r, NULL, "%s", strerror(-r));
	error_prefix(&err, "%s channel with %s", msg_channel_name(c->channel),
		     tls_chan_peer(c->chan));
	closed(c, &err);
}

/* Read until @want bytes are there, and none beyond. Return: 0, -EAGAIN, -ENODATA at the end. */
static int fill(struct conn *c, uint8_t *buf, size_t want)
{
	while (c->have < want) {
		ssize_t n = tls_read(c->chan, buf + c->have, want - c->have);

		if (n == -EAGAIN)
			c->in_wants = tls_chan_events(c->chan);
		if (n <= 0)
			return n ? (int)n : -ENODATA;
		c->last_in_us = clock_us();
		if (!c->in_body && !c->have)
			c->frame_us = c->last_in_us;
		c->have += (size_t)n;
	}
	return 0;
}

static int begin_body(struct conn *c, struct error *err)
{
	uint8_t *p;
	int r = msg_header_decode(c->head, c->channel, c->from_source, &c->h, err);

	if (r < 0)
		return r;
	if (c->h.type == MSG_PAGES)
		return error_set(err, -EBADMSG, "unexpected-message",
				 "PAGES before the channel was taken up");
	if (!c->m)
		c->m = malloc(sizeof(*c->m));
	if (c->h.length > c->body_cap) {
		p = realloc(c->body, c->h.length);
		if (p) {
			c->body = p;
			c->body_cap = c->h.length;
		}
	}
	if (!c->m || c->h.length > c->body_cap)
		return error_set(err, -ENOMEM, NULL, "no memory for a message");
	c->in_body = true;
	c->have = 0;
	return 0;
}

/* Return: 0 @m is a whole message; -EAGAIN; with @err filled: the peer's fault; else: the end. */
static int read_frame(struct conn *c, struct error *err)
{
	int r;

	c->in_wants = 0;
	if (!c->in_body) {
		r = fill(c, c->head, sizeof(c->head));
		if (!r)
			r = begin_body(c, err);
		if (r < 0)
			return r;
	}
	r = fill(c, c->body, c->h.length);
	if (r < 0)
		return r;
	c->in_body = false;
	c->have = 0;
	return msg_decode(&c->h, c->body, c->m, err);
}

static void answer_ping(struct conn *c)
{
	struct error err = {0};
	int r;

	c->m->type = MSG_PONG;
	r = conn_send(c, c->m);
	if (r < 0) {
		error_set(&err, r, "overload", "too many PINGs, or none of our answers is read");
		reject(c, &err);
	}
}

static void dispatch(struct conn *c)
{
	if (c->keepalive && c->m->type == MSG_PING) {
		answer_ping(c);
	} else if (!c->keepalive || c->m->type != MSG_PONG) {
		event_del(c->deadline);
		if (c->ops->message)
			c->ops->message(c, c->m, c->arg);
	}
}

static void read_in(struct conn *c)
{
	size_t bytes = 0;

	for (unsigned int i = 0; i < TURN_FRAMES && bytes < TURN_BYTES; i++) {
		struct error err = {0};
		int r;

		if (!going(c) || c->phase != CONN_OPEN || c->paused)
			return;
		r = read_frame(c, &err);
		if (r == -EAGAIN)
			return;
		if (r < 0) {
			if (error_is_set(&err))
				reject(c, &err);
			else
				broken(c, r);
			return;
		}
		bytes += MSG_HEADER_LEN + c->h.length;
		dispatch(c);
	}
	/* More may wait inside TLS, where the socket does not show it. */
	if (going(c) && c->phase == CONN_OPEN && !c->paused)
		conn_kick(c);
}

static void set_event(struct event *ev, bool on, short what)
{
	if (on && !event_pending(ev, what, NULL))
		event_add(ev, NULL);
	else if (!on)
		event_del(ev);
}

void conn_wait(struct conn *c)
{
	short want = 0;

	if (c->phase == CONN_HANDSHAKE)
		want = tls_chan_events(c->chan);
	if (c->phase == CONN_OPEN && !c->paused)
		want |= c->in_wants;
	if (c->phase == CONN_OPEN || c->phase == CONN_CLOSING)
		want |= c->out_wants;
	set_event(c->ev_in, want & POLLIN, EV_READ);
	set_event(c->ev_out, want & POLLOUT, EV_WRITE);
}

static void handshake(struct conn *c)
{
	struct error err = {0};
	int r = tls_chan_handshake(c->chan, &err);

	if (!r)
		c->phase = CONN_NEW;
	else if (r != -EAGAIN)
		closed(c, &err);
}

static void write_pump(struct conn *c)
{
	int r = write_out(c);

	if (r == -EAGAIN)
		return;
	if (r < 0) {
		broken(c, r);
	} else if (c->phase == CONN_CLOSING) {
		conn_after(c->tick, 0);
	} else if (c->undrained) {
		c->undrained = false;
		if (c->ops->drained)
			c->ops->drained(c, c->arg);
	}
}

static void pump(struct conn *c)
{
	c->busy++;
	if (c->phase == CONN_HANDSHAKE)
		handshake(c);
	if (going(c) && c->phase == CONN_NEW) {
		c->phase = CONN_OPEN;
		c->last_in_us = clock_us();
		if (c->ops->established)
			c->ops->established(c, c->arg);
	}
	/* Reading comes first: a peer that refuses says why before it stops to listen. */
	if (going(c) && c->phase == CONN_OPEN)
		read_in(c);
	if (going(c) && c->phase != CONN_HANDSHAKE)
		write_pump(c);
	if (going(c))
		conn_wait(c);
	conn_leave(c);
}

void conn_on_io(evutil_socket_t fd, short what, void *arg)
{
	(void)fd;
	(void)what;
	pump(arg);
}

void conn_on_deadline(evutil_socket_t fd, short what, void *arg)
{
	struct conn *c = arg;
	struct error err = {0};

	(void)fd;
	(void)what;
	if (c->phase == CONN_CLOSING) {
		conn_free(c);
		return;
	}
	error_set(&err, -ETIMEDOUT, "timeout", "no %s came within %llu ms",
		  c->phase == CONN_HANDSHAKE ? "complete TLS handshake" : "complete message",
		  (unsigned long long)(c->timeout_us / 1000));
	c->busy++;
	reject(c, &err);
	conn_leave(c);
}

static bool is_reset(int fd)
{
	struct tcp_info info;
	socklen_t len = sizeof(info);

	return !getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &len) && info.tcpi_state == TCP_CLOSE;
}

/* All was handed to the kernel; when the peer's has taken it over, closing can lose nothing. */
static void linger(struct conn *c)
{
	int fd = tls_chan_fd(c->chan), unacked = 0;

	/* What a peer that has reset the connection did not take it never will. */
	if (is_reset(fd) || (!conn_queued(c) && (ioctl(fd, SIOCOUTQ, &unacked) || !unacked)))
		conn_free(c);
	else
		conn_after(c->tick, LINGER_TICK);
}

/* Is the peer silent for too long, or does it never end its frame? */
static bool is_lost(struct conn *c, uint64_t now, struct error *err)
{
	if (now >= c->last_in_us + MSG_LOST_US)
		return error_set(err, -ETIMEDOUT, "peer-lost", "nothing came for %llu ms",
				 (unsigned long long)(now - c->last_in_us) / 1000);
	if ((c->in_body || c->have) && now >= c->frame_us + FRAME_US)
		return error_set(err, -ETIMEDOUT, "peer-lost",
				 "a message began %llu ms ago and does not end",
				 (unsigned long long)(now - c->frame_us) / 1000);
	return false;
}

static void keep_alive(struct conn *c)
{
	struct error err = {0};
	uint64_t now = clock_us(), next;

	if (c->paused)
		c->last_in_us = c->frame_us = now;
	/* Perhaps it was us who slept, and the answers lie in the socket. */
	if (is_lost(c, now, NULL))
		read_in(c);
	if (!going(c) || c->phase != CONN_OPEN)
		return;
	now = clock_us();
	if (is_lost(c, now, &err)) {
		reject(c, &err);
		return;
	}
	if (now >= c->last_out_us + MSG_PING_IDLE_US) {
		CLEANUP_FREE struct msg *m = calloc(1, sizeof(*m));

		c->last_out_us = now; /* also if it cannot be queued: then enough is queued */
		if (m) {
			m->type = MSG_PING;
			m->number.value = ++c->pings;
			conn_send(c, m);
		}
	}
	next = MIN(c->last_out_us + MSG_PING_IDLE_US, c->last_in_us + MSG_LOST_US);
	if (c->in_body || c->have)
		next = MIN(next, c->frame_us + FRAME_US);
	conn_after(c->tick, next > now ? next - now : 0);
}

void conn_on_tick(evutil_socket_t fd, short what, void *arg)
{
	struct conn *c = arg;

	(void)fd;
	(void)what;
	c->busy++;
	if (c->phase == CONN_CLOSING)
		linger(c);
	else
		keep_alive(c);
	if (going(c))
		conn_wait(c);
	conn_leave(c);
}
