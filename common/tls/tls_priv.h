/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of common/tls share; nobody else includes this. */
#ifndef DECANT_TLS_PRIV_H
#define DECANT_TLS_PRIV_H

#include <stdatomic.h>
#include <time.h>
#include <openssl/ssl.h>
#include "tls/tls_chan.h"
#include "tls/tls_ctx.h"

struct tls_stats;

/**
 * struct tls_ctx - see tls_ctx.h; read-only once made, except @refs
 * @refs:	references
 * @role:	which side
 * @http:	as in struct tls_files
 * @ssl:	OpenSSL's context, which is safe for SSL_new() from any thread
 * @bio:	the socket calls of struct tls_wire
 * @stats:	how handshakes ended; our reference
 * @ca, @cert, @crl:	names of the files, for messages; @crl may be NULL
 */
struct tls_ctx {
	atomic_uint refs;
	enum tls_role role;
	bool http;
	SSL_CTX *ssl;
	BIO_METHOD *bio;
	struct tls_stats *stats;
	char *ca;
	char *cert;
	char *crl;
};

/**
 * TLS_WIRE_BUDGET - receives that one call into OpenSSL may make
 *
 * OpenSSL reads on until it has data for us. A peer that sends key updates without end would keep it,
 * and us, there for ever. After this many it is told that nothing is there yet.
 */
#define TLS_WIRE_BUDGET 16

/** TLS_WIRE_FIRST - bytes kept of what a peer said that is not TLS */
#define TLS_WIRE_FIRST 32

/**
 * struct tls_wire - the socket under OpenSSL
 * @fd:		non-blocking stream socket
 * @err:	errno of the call that broke it, 0 if none did
 * @eof:	the peer sent FIN
 * @budget:	receives left to the present call
 * @heard:	something was received
 * @plain:	and it was not the beginning of a TLS record
 * @sent:	bytes that the socket has taken
 * @first, @nfirst:	what it was, for the message
 */
struct tls_wire {
	int fd;
	int err;
	bool eof;
	int budget;
	bool heard;
	bool plain;
	uint64_t sent;
	unsigned char first[TLS_WIRE_FIRST];
	size_t nfirst;
};

/**
 * struct tls_chan - see tls_chan.h
 * @ctx:	our reference
 * @ssl:	OpenSSL's connection; its app data is this struct
 * @wire:	the socket
 * @events:	what the last -EAGAIN waits for
 * @done:	the handshake is complete
 * @ended:	the peer's end of TLS was read
 * @dead:	no further I/O; @ret and @why say why
 * @ret:	-errno that every later call returns
 * @why:	the same for a person
 * @drained:	the last tls_read() said -EAGAIN: what OpenSSL holds is no whole record
 * @wpending:	the last tls_write() said -EAGAIN: a sealed record is half sent
 * @records:	records sealed under the present key
 * @unchecked:	reads and writes since the stop descriptor was looked at, see tls_read_full()
 * @asked:	name or address that the peer must have (client), NULL otherwise
 * @refused:	why a callback inside OpenSSL refused the peer, and @refused_ret its -errno
 * @peer:	address for people
 * @identity:	see tls_chan_identity(); allocated when the handshake is done
 */
struct tls_chan {
	struct tls_ctx *ctx;
	SSL *ssl;
	struct tls_wire wire;
	short events;
	bool done;
	bool ended;
	bool dead;
	int ret;
	struct error why;
	bool drained;
	bool wpending;
	uint32_t records;
	size_t unchecked;
	char *asked;
	struct error refused;
	int refused_ret;
	char peer[72];
	char *identity;
};

/* tls_wire.c */

/** tls_wire_method() - Return: new BIO_METHOD whose BIOs take a struct tls_wire as data, or NULL */
BIO_METHOD *tls_wire_method(void);
/** tls_wire_bio() - Return: new BIO over @w, which must outlive it, or NULL */
BIO *tls_wire_bio(BIO_METHOD *method, struct tls_wire *w);
/** tls_wire_answer_plain() - tell a client that does not speak TLS what this port is */
void tls_wire_answer_plain(const struct tls_wire *w, bool http);
/**
 * tls_wire_close() - close so that what was sent last arrives
 *
 * Closing a socket with unread data in it makes TCP reset the connection, and the reset overtakes
 * our last words (an alert, say): throw away what is there first.
 */
void tls_wire_close(struct tls_wire *w);
/** tls_wire_deadline() - Return: clock_us() value that is @timeout_us from now, TLS_FOREVER stays
 */
uint64_t tls_wire_deadline(uint64_t timeout_us);
/**
 * tls_wire_wait() - sleep until the socket has one of @events
 * @fd:		socket, or -1 to look at the others only
 * @deadline:	clock_us() value or TLS_FOREVER
 *
 * Return: 0, -ECANCELED, -ETIMEDOUT with @err filled, or -errno of poll
 */
int tls_wire_wait(int fd, short events, int stop_fd, uint64_t deadline, struct error *err);

/* tls_alpn.c */

/** tls_alpn_setup() - make contexts ask for TLS_ALPN (client), insist on it (server) */
int tls_alpn_setup(SSL_CTX *ssl, enum tls_role role);
/** tls_alpn_setup_http() - the same of "http/1.1", which nobody has to name */
int tls_alpn_setup_http(SSL_CTX *ssl, enum tls_role role);
/** tls_alpn_check() - after the handshake: was TLS_ALPN agreed? Return: 0 or -EPROTO with @err filled */
int tls_alpn_check(SSL *ssl, struct error *err);

/* tls_ident.c */

/** tls_ident_of() - Return: new text as of tls_chan_identity(), or NULL without memory */
char *tls_ident_of(const X509 *cert);

/* tls_why.c */

/** TLS_WHY_TIME - bytes of a time as tls_why_time() writes it */
#define TLS_WHY_TIME 32
/** tls_why_time() - "2026-01-31 12:00:00 UTC". Return: @buf */
const char *tls_why_time(const ASN1_TIME *t, char buf[static TLS_WHY_TIME]);
/** tls_why_verify() - SSL_CTX_set_verify() callback: keeps why the peer's certificate is refused */
int tls_why_verify(int ok, X509_STORE_CTX *store);
/**
 * tls_why() - put into words why the connection failed
 * @c:		connection whose last OpenSSL call failed on this thread
 * @ssl_error:	what SSL_get_error() said about it
 *
 * Return: the -errno that goes with it; @c's why is filled
 */
int tls_why(struct tls_chan *c, int ssl_error);

/* tls_stats.c */

struct tls_stats *tls_stats_new(void);
void tls_stats_unref(struct tls_stats *s);
/** tls_stats_count_done(), tls_stats_count_refused() - any thread. @code: of the error; unknown ones count as "other" */
void tls_stats_count_done(const struct tls_ctx *ctx);
void tls_stats_count_refused(const struct tls_ctx *ctx, const char *code);

/* tls_alert.c */

/** tls_alert_why() - put into words what the peer meant by an alert. Return: -errno, @err filled */
int tls_alert_why(struct tls_chan *c, int alert, struct error *err);

#endif
