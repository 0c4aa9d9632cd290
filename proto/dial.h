/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How a source opens a channel: connect, authenticate, HELLO, HELLO_ACK. In the background for the
 * loop, or blocking for a thread that has nothing else to do.
 */
#ifndef DECANT_PROTO_DIAL_H
#define DECANT_PROTO_DIAL_H

#include "msg.h"
#include "tls/tls_chan.h"
#include "util/loop.h"

struct dial;

/**
 * struct dial_to - where to
 * @ctx:	of role TLS_CLIENT
 * @host, @port: as in tls_dial()
 * @timeout_us:	for everything together
 */
struct dial_to {
	struct tls_ctx *ctx;
	const char *host;
	const char *port;
	uint64_t timeout_us;
};

/**
 * dial_fn - the end of a dial_start(), on the loop's thread
 * @chan:	the channel, owned by the callee; nothing behind HELLO_ACK was taken off it; NULL on
 *		failure
 * @ack:	what the destination answered, checked against the HELLO; NULL on failure
 * @err:	why it failed: the codes of tls_chan.h, or those that the destination sent by ERROR;
 *		empty on success
 *
 * The struct dial is gone when this is called; dial_cancel() must not be called any more.
 */
typedef void dial_fn(void *arg, struct tls_chan *chan, const struct msg_hello_ack *ack,
		     const struct error *err);

/**
 * dial_blocking() - open a channel; the calling thread waits
 * @hello:	its @kind says what the channel is
 * @stop_fd:	readable: ends with -ECANCELED; -1 for none
 * @ret:	new channel, for tls_chan_free()
 *
 * Return: 0; what tls_dial() returns; -EREMOTEIO the destination answered ERROR, whose code and
 * text are in @err; -EBADMSG it answered something that is none (also a version or capabilities
 * that were not offered)
 */
int dial_blocking(const struct dial_to *to, const struct msg_hello *hello, int stop_fd,
		  struct tls_chan **ret, struct msg_hello_ack *ret_ack, struct error *err);

/**
 * dial_start() - dial_blocking() on a short-lived thread of its own
 * @to, @hello:	copied; the context is referenced
 * @fn:		called once, unless cancelled, and never before this returns
 *
 * On the loop's thread. Return: for dial_cancel(), NULL if there is no memory or no thread
 */
struct dial *dial_start(struct loop *loop, const struct dial_to *to, const struct msg_hello *hello,
			dial_fn *fn, void *arg);
/**
 * dial_cancel() - @fn will not be called
 *
 * On the loop's thread; does not wait: the thread ends soon by itself (a resolver may keep it for
 * some seconds) and touches the loop no more, so that the loop may be freed. NULL is fine.
 */
void dial_cancel(struct dial *d);

#endif
