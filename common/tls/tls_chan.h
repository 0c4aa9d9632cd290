/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One TLS connection over a non-blocking stream socket. It belongs to one thread at a time; the
 * whole connection may be handed to another thread (with a hand-over that orders memory: a lock, a
 * queue, pthread_create). Different connections share nothing but their context.
 *
 * Errors that a person reads have one of these codes:
 *
 *   tls-expired tls-not-yet-valid tls-revoked tls-unknown-ca tls-no-certificate tls-wrong-name
 *			either certificate was refused for that reason, by us or by the peer
 *   tls-crl		our revocation list is out of date, or lacks one for the authority
 *   tls-not-allowed	the peer is authentic and not on the allow list
 *   tls-plaintext	the peer does not speak TLS at all
 *   tls-version	the peer does not speak TLS 1.3
 *   tls-alpn		the peer speaks TLS 1.3 and something else than decant inside it
 *   tls-handshake	any other disagreement, in OpenSSL's words
 *   tls-closed		the connection ended without the end of TLS: reset, or cut
 *   tls-unreachable	no address of the name answers, or there is no such name
 *   tls-timeout	a deadline passed
 *   cancelled		the stop descriptor was readable
 *
 * A TLS 1.3 client has finished its handshake before the server has looked at the client's
 * certificate: a refusal reaches it at its first tls_read() or tls_write(), and tls_chan_error()
 *then says why.
 */
#ifndef DECANT_TLS_CHAN_H
#define DECANT_TLS_CHAN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include "tls/tls_ctx.h"
#include "util/error.h"

/** TLS_RECORD_MAX - bytes of data that one record carries; tls_read() gives at most so many */
#define TLS_RECORD_MAX 16384
/** TLS_FOREVER - a timeout that never comes */
#define TLS_FOREVER UINT64_MAX

struct tls_chan;

/**
 * tls_dial() - resolve, connect, authenticate; blocks the calling thread
 * @ctx:	of role TLS_CLIENT; the connection takes a reference
 * @host:	name, or IPv4/IPv6 literal (with or without brackets); the peer's certificate must
 *		carry it as a DNS name or as an IP address respectively
 * @port:	decimal
 * @timeout_us:	for everything together, TLS_FOREVER for none
 * @stop_fd:	the call ends when this becomes readable (it is not read); -1 for none
 * @ret:	connection with the handshake done, for tls_chan_free()
 * @err:	what went wrong
 *
 * All addresses of the name are tried, each a quarter of a second after the one before, and the
 * first that connects is taken.
 *
 * Return: 0; -ECANCELED; -ETIMEDOUT; -EACCES a certificate was refused; -EPROTO the peer speaks
 * something else; -errno of resolving or connecting
 */
int tls_dial(struct tls_ctx *ctx, const char *host, const char *port, uint64_t timeout_us,
	     int stop_fd, struct tls_chan **ret, struct error *err);

/**
 * tls_chan_accept() - wrap an accepted socket; no I/O happens yet
 * @ctx:	of role TLS_SERVER; the connection takes a reference
 * @fd:		connected stream socket; made non-blocking; owned by the connection on success
 * @ret:	for tls_chan_handshake() and tls_chan_free()
 *
 * Return: 0 or -errno (and @fd is still the caller's)
 */
int tls_chan_accept(struct tls_ctx *ctx, int fd, struct tls_chan **ret);

/**
 * tls_chan_connect() - the same for the client's side, of a socket that is connected already
 * @host:	as in tls_dial()
 */
int tls_chan_connect(struct tls_ctx *ctx, int fd, const char *host, struct tls_chan **ret);

/**
 * tls_chan_handshake() - go on with the handshake as far as is possible without waiting
 * @err:	why it failed
 *
 * The caller bounds the time: a peer may send one byte a minute.
 *
 * Return: 0 done; -EAGAIN call again when tls_chan_events() happen; -EACCES, -EPROTO, -ECONNRESET
 * or another -errno: it failed, and only tls_chan_free() is left
 */
int tls_chan_handshake(struct tls_chan *c, struct error *err);

/**
 * tls_chan_handshake_wait() - tls_chan_handshake() for a thread that may block
 * @timeout_us, @stop_fd:	as in tls_dial()
 *
 * Return: 0; -ECANCELED; -ETIMEDOUT; otherwise as tls_chan_handshake(), but never -EAGAIN
 */
int tls_chan_handshake_wait(struct tls_chan *c, int stop_fd, uint64_t timeout_us,
			    struct error *err);

/**
 * tls_read() - read what is there, straight into @buf
 *
 * Return: bytes (1 to TLS_RECORD_MAX); 0 the peer ended the connection properly; -EAGAIN nothing
 * there, wait for tls_chan_events(); other -errno: the connection is dead, see tls_chan_error()
 */
ssize_t tls_read(struct tls_chan *c, void *buf, size_t n);

/**
 * tls_write() - write as much as goes without waiting
 * @n:		more than 0
 *
 * After -EAGAIN the same bytes must be offered again before any others (from any address, and at
 * least as many): OpenSSL has sealed the first of them into a record already.
 *
 * Return: bytes (a whole record, or all); -EAGAIN wait for tls_chan_events(); other -errno: the
 * connection is dead, see tls_chan_error()
 */
ssize_t tls_write(struct tls_chan *c, const void *buf, size_t n);

/**
 * tls_pending() - whether tls_read() may have something without the socket being readable
 *
 * Ask before sleeping in poll(2), or read until -EAGAIN; otherwise data sits here unseen.
 */
bool tls_pending(const struct tls_chan *c);

/**
 * tls_read_full() - read exactly @n bytes; for threads that may block
 * @stop_fd:	as in tls_dial(); also seen within 1 MiB while data keeps flowing
 * @timeout_us:	for all @n bytes; 0 does not wait
 * @err:	why it failed
 *
 * Return: 0; -ENODATA the peer ended the connection properly before the first byte; -ECANCELED;
 * -ETIMEDOUT; -ECONNRESET the connection ended in the middle; other -errno. What was read of the @n
 * bytes is lost on failure.
 */
int tls_read_full(struct tls_chan *c, void *buf, size_t n, int stop_fd, uint64_t timeout_us,
		  struct error *err);

/**
 * tls_write_full() - write exactly @n bytes; for threads that may block
 *
 * Parameters and Return as tls_read_full(), without -ENODATA. After a failure the connection is of
 * no more use for writing: how much was sent is not known.
 */
int tls_write_full(struct tls_chan *c, const void *buf, size_t n, int stop_fd, uint64_t timeout_us,
		   struct error *err);

/** tls_chan_fd() - Return: the socket, to poll; it stays the connection's */
int tls_chan_fd(const struct tls_chan *c);

/**
 * TLS_WATCH_US - a peer that is silent for so long, or takes nothing, is lost; for tls_chan_watch(). Several
 * connections over one slow link starve each other for some seconds at a time
 */
#define TLS_WATCH_US 15000000ull
/**
 * tls_chan_watch() - have the kernel see to it that the peer is there, also when nothing is sent
 * @us:		what is sent and not acknowledged for so long, and a peer that answers no probe for
 *		so long, end the connection
 */
void tls_chan_watch(struct tls_chan *c, uint64_t us);

/** tls_chan_sent_bytes() - Return: bytes that were given to the socket: TLS included, TCP not */
uint64_t tls_chan_sent_bytes(const struct tls_chan *c);

/** tls_chan_events() - Return: POLLIN or POLLOUT, what the last -EAGAIN waits for */
short tls_chan_events(const struct tls_chan *c);

/** tls_chan_error() - Return: why the connection is dead; empty while it is not */
const struct error *tls_chan_error(const struct tls_chan *c);

/** tls_chan_peer() - Return: printable address of the peer, "192.0.2.1:7400" or
 * "[2001:db8::1]:7400" */
const char *tls_chan_peer(const struct tls_chan *c);

/**
 * tls_chan_identity() - who the peer's certificate says it is
 *
 * Return: all subject alternative names in one canonical text, sorted: "DNS:host-a, IP:192.0.2.1".
 * Two connections of one host have equal texts also when its certificate was renewed in between;
 * compare with strcmp(). A certificate without any gives "subject:" and its distinguished name.
 * Before the handshake is done, and of a client of REST that has no certificate: "".
 */
const char *tls_chan_identity(const struct tls_chan *c);

/** tls_chan_cipher() - Return: name of the cipher suite in use, "" before the handshake is done */
const char *tls_chan_cipher(const struct tls_chan *c);

/** tls_chan_finish() - say that nothing more will be written, if that goes without waiting; reading goes on */
void tls_chan_finish(struct tls_chan *c);

/**
 * tls_chan_free() - end the connection
 *
 * Sends the end of TLS if that goes without waiting, closes the socket. NULL is nothing.
 */
void tls_chan_free(struct tls_chan *c);

/**
 * tls_allow_check() - is this peer one of those that are let in?
 * @allow:	entries "DNS:host-a" (any case, no wildcards), "IP:192.0.2.1", "URI:spiffe://…"
 * @n:		how many; with 0 nobody is let in
 * @c:		connection with the handshake done
 * @err:	names what the peer's certificate has, code "tls-not-allowed"
 *
 * Return: 0 when one of the certificate's subject alternative names is listed, -EACCES otherwise
 */
int tls_allow_check(const char *const *allow, size_t n, const struct tls_chan *c,
		    struct error *err);

/**
 * tls_allow_valid() - can this entry match at all? For checking a configuration
 *
 * Return: 0, or -EINVAL with @err saying what is wrong with it
 */
int tls_allow_valid(const char *entry, struct error *err);

#endif
