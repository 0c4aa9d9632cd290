/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A message connection on the event loop: frames in, frames out, over one tls_chan. It reads
 * exactly one frame ahead of nothing: a channel can be taken out (conn_release()) between two
 * frames and given to a data thread.
 */
#ifndef DECANT_PROTO_CONN_H
#define DECANT_PROTO_CONN_H

#include "msg.h"
#include "tls/tls_chan.h"
#include "util/loop.h"

struct conn;

/**
 * struct conn_ops - callbacks, on the loop's thread; each may call conn_free() or conn_release()
 * @established: the TLS handshake is done (at once for a channel that was dialled)
 * @message:	a decoded message; @m is valid until the callback returns
 * @closed:	the connection is of no use any more: ended by the peer, broken, idle for too long, or it
 *		sent what may not be sent. @err says why, always filled. Called once; the owner then frees it.
 * @drained:	everything queued by conn_send() has been written (may be NULL)
 */
struct conn_ops {
	void (*established)(struct conn *c, void *arg);
	void (*message)(struct conn *c, const struct msg *m, void *arg);
	void (*closed)(struct conn *c, const struct error *err, void *arg);
	void (*drained)(struct conn *c, void *arg);
};

/**
 * conn_new() - put a channel on the loop
 * @chan:	taken over, also on failure
 * @accepted:	its TLS handshake is still to be done, as server; messages then come from a source
 * @channel:	what the checks of msg_header_decode() take it for; see conn_set_channel()
 *
 * Return: NULL when out of memory
 */
struct conn *conn_new(struct loop *loop, struct tls_chan *chan, bool accepted, enum msg_channel channel,
		      const struct conn_ops *ops, void *arg);
/** conn_set_ops() - hand the connection to another owner */
void conn_set_ops(struct conn *c, const struct conn_ops *ops, void *arg);
/** conn_set_channel() - after HELLO said what this channel is */
void conn_set_channel(struct conn *c, enum msg_channel channel);
/**
 * conn_set_timeout() - bound on the whole time until the next frame has arrived whole
 * @us:		0 = none
 */
void conn_set_timeout(struct conn *c, uint64_t us);
/** conn_keepalive() - from now on PING when idle for MSG_PING_IDLE_US, answer PINGs, and take a peer that was silent for MSG_LOST_US as lost; PING and PONG are then not passed to @message */
void conn_keepalive(struct conn *c);
/** conn_pause() - stop or go on reading frames (back-pressure); the keep-alive does not take the peer's silence amiss meanwhile */
void conn_pause(struct conn *c, bool paused);
/** conn_send() - queue a message; Return: 0, -EINVAL as msg_encode(), -ENOMEM, -EPIPE after closed */
int conn_send(struct conn *c, const struct msg *m);
/** conn_send_simple() - queue a message without a body (READY …) */
int conn_send_simple(struct conn *c, enum msg_type type);
/** conn_send_error() - queue ERROR (or ABORT) with the code and text of @err */
int conn_send_error(struct conn *c, enum msg_type type, const struct error *err);
/** conn_queued() - Return: bytes not yet written (for back-pressure) */
size_t conn_queued(const struct conn *c);
/** conn_close_when_sent() - free the connection once all queued bytes are out, or after 2 s; no further callbacks. The caller must not use it again. */
void conn_close_when_sent(struct conn *c);
/** conn_release() - free the connection but keep its channel; only between frames with nothing queued. Return: the channel, owned by the caller; NULL if bytes are still queued (nothing was done then) */
struct tls_chan *conn_release(struct conn *c);
/** conn_chan() - Return: the channel, for its peer's name and identity only */
struct tls_chan *conn_chan(struct conn *c);
/** conn_free() - close at once; NULL is fine */
void conn_free(struct conn *c);

#endif
