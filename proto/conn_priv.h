/* SPDX-License-Identifier: Apache-2.0 */
/* What conn.c (the interface) and conn_io.c (the pump and the timers) share. */
#ifndef DECANT_PROTO_CONN_PRIV_H
#define DECANT_PROTO_CONN_PRIV_H

#include "conn.h"

/**
 * enum conn_phase - what may happen on a connection
 * @CONN_HANDSHAKE: TLS handshake as server; conn_send() only queues
 * @CONN_NEW:	ready, the owner has not been told yet
 * @CONN_OPEN:	frames in and out
 * @CONN_CLOSING: conn_close_when_sent(): frames out only, no owner any more
 * @CONN_CLOSED:	the owner was told; waits for conn_free()
 */
enum conn_phase { CONN_HANDSHAKE, CONN_NEW, CONN_OPEN, CONN_CLOSING, CONN_CLOSED };

/**
 * struct conn - all of it belongs to the loop's thread
 * @from_source: the peer is a source
 * @busy:	depth of our own functions that call back; memory is freed at 0 only
 * @freed:	conn_free() or conn_release() was called; only memory is left
 * @ev_in, @ev_out: socket readiness; @in_wants, @out_wants (POLLIN or POLLOUT, 0: not waiting) say
 *		what reading and writing wait for
 * @kick:	timer of 0: run the pump in the next turn of the loop
 * @deadline:	conn_set_timeout(), later the end of lingering
 * @tick:	keep-alive, later the look at the socket's queue
 * @head, @body, @body_cap: frame being read; @h is valid and @have counts the body if @in_body
 * @frame_us:	when its first byte came
 * @m:		the last message; large, so not there before the first one
 * @out:	what is to be written
 * @undrained:	something was queued since the last @drained
 * @last_in_us:	when bytes came last; @last_out_us: when a message was queued last
 */
struct conn {
	struct tls_chan *chan;
	enum msg_channel channel;
	bool from_source;
	enum conn_phase phase;
	const struct conn_ops *ops;
	void *arg;
	unsigned int busy;
	bool freed;
	bool paused;
	bool keepalive;
	struct event *ev_in, *ev_out, *kick, *deadline, *tick;
	short in_wants, out_wants;
	uint64_t timeout_us;
	uint8_t head[MSG_HEADER_LEN];
	struct msg_header h;
	bool in_body;
	size_t have;
	uint8_t *body;
	size_t body_cap;
	uint64_t frame_us;
	struct msg *m;
	struct evbuffer *out;
	bool undrained;
	uint64_t last_in_us, last_out_us;
	uint64_t pings;
};

/** conn_queue() - encode into @out, whatever is there. Return: as conn_send() */
int conn_queue(struct conn *c, const struct msg *m);
/** conn_after() - (re)start a timer */
void conn_after(struct event *ev, uint64_t us);
/** conn_kick() - run the pump in the next turn of the loop */
void conn_kick(struct conn *c);
/** conn_drop_events() - nothing happens to the connection by itself any more */
void conn_drop_events(struct conn *c);
/** conn_leave() - end of a function that began with @busy++ */
void conn_leave(struct conn *c);
/** conn_wait() - watch the socket for what is wanted now */
void conn_wait(struct conn *c);

/* Callbacks of libevent; @arg is the connection. */
void conn_on_io(evutil_socket_t fd, short what, void *arg);
void conn_on_deadline(evutil_socket_t fd, short what, void *arg);
void conn_on_tick(evutil_socket_t fd, short what, void *arg);

#endif
