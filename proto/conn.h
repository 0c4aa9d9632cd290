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

/**
 * CONN_QUEUE_MAX - bytes; conn_send() takes one more message as long as less than this is queued
 */
#define CONN_QUEUE_MAX (1u << 20)

struct conn;

/**
 * struct conn_ops - callbacks, on the loop's thread; each may call conn_free() or conn_release()
 * @established: the TLS handshake is done; for a channel that was dialled in the next turn of the
 *		loop. Nothing is read before.
 * @message:	a decoded message; @m is valid until the callback returns
 * @closed:	the connection is of no use any more: ended by the peer, broken, idle for too long,
 *		or it sent what may not be sent (then it was also told so by ERROR). @err says why,
 *		always filled. Called once; the owner then frees it, here or later.
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
 * An accepted connection starts with a timeout of MSG_HELLO_TIMEOUT_US for its handshake and its
 * first message. PAGES are refused: they belong to data threads.
 *
 * Return: NULL when out of memory
 */
struct conn *conn_new(struct loop *loop, struct tls_chan *chan, bool accepted,
		      enum msg_channel channel, const struct conn_ops *ops, void *arg);
/** conn_set_ops() - hand the connection to another owner */
void conn_set_ops(struct conn *c, const struct conn_ops *ops, void *arg);
/** conn_set_channel() - after HELLO said what this channel is */
void conn_set_channel(struct conn *c, enum msg_channel channel);
/**
 * conn_set_timeout() - bound on the time until the next message has arrived whole
 * @us:		from now; 0 = none
 *
 * Arms once: the next call of @message disarms it. The PINGs of a keep-alive don't. Passing it
 * ends the connection (code `timeout`).
 */
void conn_set_timeout(struct conn *c, uint64_t us);
/**
 * conn_keepalive() - from now on PING when idle for MSG_PING_IDLE_US, answer PINGs, and take a
 * peer that was silent for MSG_LOST_US as lost (code `peer-lost`), as one that begins a message
 * and needs more than 10 s for it
 *
 * PING and PONG are then not passed to @message. For control channels only.
 */
void conn_keepalive(struct conn *c);
/**
 * conn_pause() - stop or go on reading frames (back-pressure)
 *
 * Also within @message: no further one comes. The keep-alive does not take the peer's silence
 * amiss meanwhile. The loss of the connection is not noticed either, unless something is sent.
 */
void conn_pause(struct conn *c, bool paused);
/**
 * conn_send() - queue a message; it is written in the next turn of the loop
 *
 * Calls back nothing. Return: 0; -EINVAL as msg_encode(), or PAGES; -ENOBUFS CONN_QUEUE_MAX bytes
 * wait already; -ENOMEM; -EPIPE after closed
 */
int conn_send(struct conn *c, const struct msg *m);
/** conn_send_simple() - queue a message without a body (READY …); Return: as conn_send() */
int conn_send_simple(struct conn *c, enum msg_type type);
/**
 * conn_send_error() - queue ERROR (or ABORT) with the code and text of @err; Return: as
 * conn_send()
 */
int conn_send_error(struct conn *c, enum msg_type type, const struct error *err);
/** conn_silent_us() - Return: microseconds since the peer has said something last */
uint64_t conn_silent_us(const struct conn *c);
/** conn_queued() - Return: bytes not yet written (for back-pressure) */
size_t conn_queued(const struct conn *c);
/**
 * conn_close_when_sent() - free the connection once the peer's kernel has all that was queued, or
 * after 2 s
 *
 * No further callbacks; nothing is read any more. NULL is fine. The caller must not use it again.
 */
void conn_close_when_sent(struct conn *c);
/**
 * conn_release() - free the connection but keep its channel
 *
 * Only between frames (within @message always, as long as nothing is queued) and with the
 * handshake done. No byte behind the last frame was taken off the channel, but TLS may hold some:
 * read before you poll, or ask tls_pending().
 *
 * Return: the channel, owned by the caller; NULL if that does not hold or bytes are still queued
 * (nothing was done then)
 */
struct tls_chan *conn_release(struct conn *c);
/** conn_chan() - Return: the channel, for its peer's name and identity only */
struct tls_chan *conn_chan(struct conn *c);
/** conn_free() - close at once; also within any callback; NULL is fine */
void conn_free(struct conn *c);

#endif
