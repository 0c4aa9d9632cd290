/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The bytes of one connection of REST, with or without TLS: what has come and what is to go are
 * buffers, and callbacks tell when something has happened to them. On the loop's thread only.
 *
 * Why not libevent's bufferevent_openssl: it lets OpenSSL read from the socket until it has data, so
 * that a client which sends key updates without end keeps the loop, and all migrations with it. Our own
 * channel (common/tls) bounds that, and knows who the client is.
 */
#ifndef DECANT_REST_IO_H
#define DECANT_REST_IO_H

#include <event2/buffer.h>
#include <event2/event.h>
#include <stdbool.h>
#include <stddef.h>
#include "tls/tls_chan.h"
#include "util/error.h"

struct rest_io;

/**
 * struct rest_io_ops - what is told; each of them may free the connection
 * @ready:	the TLS handshake is done (never called without TLS); NULL if that is of no interest
 * @input:	bytes have come, or the peer will send no more (rest_io_ended())
 * @written:	all that was to go has been given to the kernel
 * @lost:	the connection is of no more use; only rest_io_free() is left
 */
struct rest_io_ops {
	void (*ready)(void *arg);
	void (*input)(void *arg);
	void (*written)(void *arg);
	void (*lost)(void *arg, const struct error *why);
};

/**
 * rest_io_new() - serve a connected, non-blocking socket
 * @fd:		owned afterwards, also on failure; -1 if @tls is given
 * @tls:	of the same kind, NULL for none; its handshake may be still to be done
 * @max_in:	nothing is read while so many bytes are waiting in the input
 *
 * Return: NULL when out of memory
 */
struct rest_io *rest_io_new(struct event_base *base, int fd, struct tls_chan *tls, size_t max_in,
			    const struct rest_io_ops *ops, void *arg);
/** rest_io_free() - close; no callback follows; NULL is fine */
void rest_io_free(struct rest_io *io);

/** rest_io_in() - Return: what has come and was not taken yet */
struct evbuffer *rest_io_in(struct rest_io *io);
/** rest_io_out() - Return: what is to go; rest_io_send() after adding to it */
struct evbuffer *rest_io_out(struct rest_io *io);
/** rest_io_send() - write what is in the output, and read again if the input was full */
void rest_io_send(struct rest_io *io);
/** rest_io_ended() - Return: whether the peer will send no more */
bool rest_io_ended(const struct rest_io *io);
/** rest_io_hung_up() - Return: whether the peer is gone altogether, as far as the socket can tell */
bool rest_io_hung_up(const struct rest_io *io);
/** rest_io_finish() - say that nothing more will be written; reading goes on */
void rest_io_finish(struct rest_io *io);
/** rest_io_tls() - Return: the channel, NULL without TLS */
const struct tls_chan *rest_io_tls(const struct rest_io *io);

#endif
