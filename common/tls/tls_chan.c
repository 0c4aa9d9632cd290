/* SPDX-License-Identifier: Apache-2.0 */
#include "tls/tls_priv.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <net/if.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <openssl/err.h>
#include <openssl/x509v3.h>
#include "util/cleanup.h"

/*
 * Records under one key, after which the sender takes a new one. AES-GCM allows 2^24.5 full records
 * (RFC 8446, 5.5), which a large host's migration would pass; OpenSSL leaves it to us. A new key
 * costs microseconds, so it comes every 4 GiB.
 */
#define REKEY_RECORDS (1u << 18)

/* Look at the stop descriptor after so many bytes or calls, though data never ceases to flow. */
#define STOP_CHECK_BYTES (1u << 20)
#define STOP_CHECK_CALL  (1u << 14)

static void peer_text(int fd, char *out, size_t cap)
{
	char host[INET6_ADDRSTRLEN + IF_NAMESIZE], port[8];
	struct sockaddr_storage ss;
	socklen_t len = sizeof(ss);
	const char *h = host;

	if (getpeername(fd, (void *)&ss, &len)) {
		snprintf(out, cap, "(gone)");
		return;
	}
	if (ss.ss_family == AF_UNIX || getnameinfo((void *)&ss, len, host, sizeof(host), port,
						   sizeof(port), NI_NUMERICHOST | NI_NUMERICSERV)) {
		snprintf(out, cap, "(local)");
		return;
	}
	if (!strncasecmp(h, "::ffff:", 7) && strchr(h, '.'))
		h += 7;
	snprintf(out, cap, strchr(h, ':') ? "[%s]:%s" : "%s:%s", h, port);
}

static int prepare_socket(int fd)
{
	int flags = fcntl(fd, F_GETFL), one = 1;

	if (flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK))
		return -errno;
	/* Fails on Unix sockets, which have nothing to delay. */
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	return 0;
}

static int chan_new(struct tls_ctx *ctx, int fd, struct tls_chan **ret)
{
	struct tls_chan *c = calloc(1, sizeof(*c));
	BIO *bio;

	if (!c)
		return -ENOMEM;
	c->wire.fd = -1; /* the caller's until we cannot fail any more */
	c->ctx = tls_ctx_ref(ctx);
	c->events = POLLIN;
	c->ssl = SSL_new(ctx->ssl);
	bio = c->ssl ? tls_wire_bio(ctx->bio, &c->wire) : NULL;
	if (!bio) {
		tls_chan_free(c);
		return -ENOMEM;
	}
	SSL_set_bio(c->ssl, bio, bio);
	SSL_set_app_data(c->ssl, c);
	if (ctx->role == TLS_SERVER)
		SSL_set_accept_state(c->ssl);
	else
		SSL_set_connect_state(c->ssl);
	peer_text(fd, c->peer, sizeof(c->peer));
	*ret = c;
	return 0;
}

int tls_chan_accept(struct tls_ctx *ctx, int fd, struct tls_chan **ret)
{
	struct tls_chan *c;
	int r;

	r = prepare_socket(fd);
	if (!r)
		r = chan_new(ctx, fd, &c);
	if (r)
		return r;
	c->wire.fd = fd;
	*ret = c;
	return 0;
}

/* "[2001:db8::1]" and "fe80::1%eth0" are addresses too; certificates have them bare. */
static char *bare_host(const char *host)
{
	size_t n = strlen(host);
	char *s;

	if (n > 2 && host[0] == '[' && host[n - 1] == ']')
		s = strndup(host + 1, n - 2);
	else
		s = strdup(host);
	if (s && strchr(s, ':'))
		s[strcspn(s, "%")] = '\0';
	else if (s && n > 1 && s[n - 1] == '.')
		s[n - 1] = '\0';
	return s;
}

/* What the certificate has to have. The name is also sent, so that the server can say more. */
static int expect_name(struct tls_chan *c, const char *host)
{
	X509_VERIFY_PARAM *param = SSL_get0_param(c->ssl);
	unsigned char ip[16];

	c->asked = bare_host(host);
	if (!c->asked)
		return -ENOMEM;
	if (inet_pton(AF_INET, c->asked, ip) == 1)
		return X509_VERIFY_PARAM_set1_ip(param, ip, 4) == 1 ? 0 : -ENOMEM;
	if (inet_pton(AF_INET6, c->asked, ip) == 1)
		return X509_VERIFY_PARAM_set1_ip(param, ip, 16) == 1 ? 0 : -ENOMEM;
	if (!*c->asked || strlen(c->asked) > TLSEXT_MAXLEN_host_name)
		return -EINVAL;
	X509_VERIFY_PARAM_set_hostflags(param, X509_CHECK_FLAG_NEVER_CHECK_SUBJECT |
						       X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS);
	if (X509_VERIFY_PARAM_set1_host(param, c->asked, 0) != 1 ||
	    SSL_set_tlsext_host_name(c->ssl, c->asked) != 1)
		return -ENOMEM;
	return 0;
}

int tls_chan_connect(struct tls_ctx *ctx, int fd, const char *host, struct tls_chan **ret)
{
	struct tls_chan *c;
	int r;

	r = prepare_socket(fd);
	if (!r)
		r = chan_new(ctx, fd, &c);
	if (r)
		return r;
	r = expect_name(c, host);
	if (r) {
		tls_chan_free(c);
		return r;
	}
	c->wire.fd = fd;
	*ret = c;
	return 0;
}

/* Before each call into OpenSSL. */
static void enter(struct tls_chan *c)
{
	ERR_clear_error();
	c->wire.budget = TLS_WIRE_BUDGET;
}

/* The error that killed the connection, for a caller that has its own struct error. */
static int tell(const struct tls_chan *c, struct error *err)
{
	return error_set(err, c->ret, c->why.code, "%s", c->why.msg);
}

static int die(struct tls_chan *c, int ret)
{
	c->dead = true;
	c->ret = ret;
	if (!c->done)
		tls_stats_count_refused(c->ctx, c->why.code);
	return ret;
}

/* After an OpenSSL call that did not succeed: wait for what, or why not? 0 is the peer's end. */
static int after(struct tls_chan *c, int r)
{
	int e = SSL_get_error(c->ssl, r);

	switch (e) {
	case SSL_ERROR_WANT_READ:
		c->events = POLLIN;
		return -EAGAIN;
	case SSL_ERROR_WANT_WRITE:
		c->events = POLLOUT;
		return -EAGAIN;
	case SSL_ERROR_ZERO_RETURN:
		if (c->done) {
			c->ended = true;
			return 0;
		}
		/* fall through */
	default:
		return die(c, tls_why(c, e));
	}
}

static int established(struct tls_chan *c)
{
	X509 *cert = SSL_get0_peer_certificate(c->ssl);
	int r = c->ctx->http ? 0 : tls_alpn_check(c->ssl, &c->why);

	if (r)
		return die(c, r);
	/* Only a client of REST may have none. */
	c->identity = cert ? tls_ident_of(cert) : c->ctx->http ? strdup("") : NULL;
	if (!c->identity)
		return die(c, error_set(&c->why, -ENOMEM, NULL, "no memory for the peer's names"));
	c->done = true;
	tls_stats_count_done(c->ctx);
	return 0;
}

int tls_chan_handshake(struct tls_chan *c, struct error *err)
{
	int r;

	if (c->done)
		return 0;
	if (c->dead)
		return tell(c, err);
	enter(c);
	r = SSL_do_handshake(c->ssl);
	r = r == 1 ? established(c) : after(c, r);
	if (r && r != -EAGAIN) {
		if (c->wire.plain && c->ctx->role == TLS_SERVER)
			tls_wire_answer_plain(&c->wire, c->ctx->http);
		tell(c, err);
	}
	return r;
}

int tls_chan_handshake_wait(struct tls_chan *c, int stop_fd, uint64_t timeout_us, struct error *err)
{
	uint64_t deadline = tls_wire_deadline(timeout_us);
	int r;

	while ((r = tls_chan_handshake(c, err)) == -EAGAIN) {
		r = tls_wire_wait(c->wire.fd, c->events, stop_fd, deadline, err);
		if (r) {
			error_prefix(err, "TLS handshake with %s", c->peer);
			return r;
		}
	}
	return r;
}

ssize_t tls_read(struct tls_chan *c, void *buf, size_t n)
{
	size_t got;
	int r;

	if (c->dead)
		return c->ret;
	if (c->ended)
		return 0;
	if (!c->done || !n)
		return -EINVAL;
	enter(c);
	r = SSL_read_ex(c->ssl, buf, n, &got);
	if (r == 1) {
		c->drained = false;
		return (ssize_t)got;
	}
	r = after(c, r);
	c->drained = r == -EAGAIN;
	return r;
}

/* Not while a record is half sent: OpenSSL has to finish that first. */
static void rekey_if_due(struct tls_chan *c)
{
	if (c->records < REKEY_RECORDS || c->wpending)
		return;
	if (SSL_key_update(c->ssl, SSL_KEY_UPDATE_NOT_REQUESTED) == 1)
		c->records = 0;
}

ssize_t tls_write(struct tls_chan *c, const void *buf, size_t n)
{
	size_t sent;
	int r;

	if (c->dead)
		return c->ret;
	if (!c->done || !n)
		return -EINVAL;
	enter(c);
	rekey_if_due(c);
	r = SSL_write_ex(c->ssl, buf, n, &sent);
	if (r == 1) {
		c->wpending = false;
		c->records++;
		return (ssize_t)sent;
	}
	r = after(c, r);
	c->wpending = r == -EAGAIN;
	/* 0: OpenSSL found the peer's end of TLS; there is nobody to write to. */
	return r ? r : -EPIPE;
}

bool tls_pending(const struct tls_chan *c)
{
	if (c->dead || c->ended)
		return false;
	return SSL_pending(c->ssl) > 0 || (!c->drained && SSL_has_pending(c->ssl));
}

/* While data flows nobody polls, so a stop would go unseen. */
static int check_stop(struct tls_chan *c, size_t done, int stop_fd, struct error *err)
{
	int r;

	c->unchecked += MAX(done, STOP_CHECK_CALL);
	if (c->unchecked < STOP_CHECK_BYTES)
		return 0;
	c->unchecked = 0;
	r = tls_wire_wait(-1, 0, stop_fd, 0, NULL);
	if (r != -ECANCELED)
		return 0;
	return error_set(err, r, "cancelled", "stopped while data was flowing");
}

/* A deadline is made when there is something to wait for, which on a busy channel is never. */
static int wait_more(struct tls_chan *c, int stop_fd, uint64_t timeout_us, uint64_t *deadline,
		     const char *what, struct error *err)
{
	int r;

	if (!*deadline)
		*deadline = tls_wire_deadline(timeout_us);
	c->unchecked = 0;
	r = tls_wire_wait(c->wire.fd, c->events, stop_fd, *deadline, err);
	if (r)
		error_prefix(err, "%s %s", what, c->peer);
	return r;
}

static int read_ended(struct tls_chan *c, size_t done, struct error *err)
{
	if (!done)
		return error_set(err, -ENODATA, "tls-closed", "%s ended the connection", c->peer);
	return error_set(err, -ECONNRESET, "tls-closed",
			 "%s ended the connection in the middle of a message", c->peer);
}

int tls_read_full(struct tls_chan *c, void *buf, size_t n, int stop_fd, uint64_t timeout_us,
		  struct error *err)
{
	uint64_t deadline = 0;
	size_t done = 0;
	int r = 0;

	while (done < n && !r) {
		ssize_t got = tls_read(c, (char *)buf + done, n - done);

		if (got > 0) {
			done += (size_t)got;
			r = check_stop(c, (size_t)got, stop_fd, err);
		} else if (got == -EAGAIN) {
			r = wait_more(c, stop_fd, timeout_us, &deadline, "reading from", err);
		} else if (got == 0) {
			r = read_ended(c, done, err);
		} else {
			r = c->dead ? tell(c, err)
				    : error_set(err, (int)got, NULL, "reading from %s", c->peer);
		}
	}
	return r;
}

int tls_write_full(struct tls_chan *c, const void *buf, size_t n, int stop_fd, uint64_t timeout_us,
		   struct error *err)
{
	uint64_t deadline = 0;
	size_t done = 0;
	int r = 0;

	while (done < n && !r) {
		ssize_t sent = tls_write(c, (const char *)buf + done, n - done);

		if (sent > 0) {
			done += (size_t)sent;
			r = check_stop(c, (size_t)sent, stop_fd, err);
		} else if (sent == -EAGAIN) {
			r = wait_more(c, stop_fd, timeout_us, &deadline, "writing to", err);
		} else {
			r = c->dead ? tell(c, err)
				    : error_set(err, (int)sent, "tls-closed",
						"%s has ended the connection", c->peer);
		}
	}
	return r;
}

int tls_chan_fd(const struct tls_chan *c)
{
	return c->wire.fd;
}

/* Of a socket that is none of TCP's nothing is asked. */
void tls_chan_watch(struct tls_chan *c, uint64_t us)
{
	int fd = tls_chan_fd(c), one = 1, idle = 2, interval = 1;
	unsigned int limit_ms = (unsigned int)(us / 1000);
	int count = MAX((int)(us / 1000000) - idle, 1);

	setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &one, sizeof(one));
	setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle, sizeof(idle));
	setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &interval, sizeof(interval));
	setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &count, sizeof(count));
	setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &limit_ms, sizeof(limit_ms));
}

uint64_t tls_chan_sent_bytes(const struct tls_chan *c)
{
	return c->wire.sent;
}

short tls_chan_events(const struct tls_chan *c)
{
	return c->events;
}

const struct error *tls_chan_error(const struct tls_chan *c)
{
	return &c->why;
}

const char *tls_chan_peer(const struct tls_chan *c)
{
	return c->peer;
}

const char *tls_chan_identity(const struct tls_chan *c)
{
	return c->identity ? c->identity : "";
}

const char *tls_chan_cipher(const struct tls_chan *c)
{
	return c->done ? SSL_get_cipher_name(c->ssl) : "";
}

void tls_chan_finish(struct tls_chan *c)
{
	/* A half-sent record cannot be followed by anything, least of all by a proper end. */
	if (c->done && !c->dead && !c->wpending &&
	    !(SSL_get_shutdown(c->ssl) & SSL_SENT_SHUTDOWN)) {
		ERR_clear_error();
		SSL_shutdown(c->ssl);
	}
	ERR_clear_error();
}

void tls_chan_free(struct tls_chan *c)
{
	if (!c)
		return;
	tls_chan_finish(c);
	tls_wire_close(&c->wire);
	SSL_free(c->ssl);
	tls_ctx_unref(c->ctx);
	free(c->asked);
	free(c->identity);
	free(c);
}
