/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The socket under OpenSSL. A BIO of our own instead of OpenSSL's because that one raises SIGPIPE,
 * loses the errno, and cannot say that the peer's first byte was no TLS at all.
 */
#include "tls/tls_priv.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include <openssl/bio.h>
#include "util/cleanup.h"
#include "util/clock.h"

/* Content types that a peer's first record can have. */
#define RECORD_ALERT     21
#define RECORD_HANDSHAKE 22

/* What a peer may have sent while we were closing; more than that and it gets its reset. */
#define CLOSE_DRAIN_MAX (1 << 20)

static void hear_first(struct tls_wire *w, const char *buf, size_t n)
{
	unsigned char type = (unsigned char)buf[0];
	ssize_t more;

	w->heard = true;
	w->plain = type != RECORD_HANDSHAKE && type != RECORD_ALERT;
	if (!w->plain)
		return;
	/* OpenSSL asks for a record's header only; more of the text helps to know the program. */
	w->nfirst = MIN(n, sizeof(w->first));
	memcpy(w->first, buf, w->nfirst);
	more = recv(w->fd, w->first + w->nfirst, sizeof(w->first) - w->nfirst, MSG_DONTWAIT);
	if (more > 0)
		w->nfirst += (size_t)more;
}

static int wire_read(BIO *bio, char *buf, int n)
{
	struct tls_wire *w = BIO_get_data(bio);
	ssize_t r;

	BIO_clear_retry_flags(bio);
	if (w->budget-- <= 0) {
		BIO_set_retry_read(bio);
		return -1;
	}
	r = recv(w->fd, buf, (size_t)n, 0);
	if (r > 0) {
		if (!w->heard)
			hear_first(w, buf, (size_t)r);
		return w->plain ? -1 : (int)r;
	}
	if (r == 0)
		w->eof = true;
	else if (errno == EAGAIN || errno == EINTR)
		BIO_set_retry_read(bio);
	else
		w->err = errno;
	return (int)r;
}

static int wire_write(BIO *bio, const char *buf, int n)
{
	struct tls_wire *w = BIO_get_data(bio);
	ssize_t r = send(w->fd, buf, (size_t)n, MSG_NOSIGNAL);

	BIO_clear_retry_flags(bio);
	if (r >= 0) {
		w->sent += (uint64_t)r;
		return (int)r;
	}
	if (errno == EAGAIN || errno == EINTR)
		BIO_set_retry_write(bio);
	else
		w->err = errno;
	return -1;
}

static long wire_ctrl(BIO *bio, int cmd, long num, void *ptr)
{
	(void)bio, (void)num, (void)ptr;
	return cmd == BIO_CTRL_FLUSH; /* nothing is ever held back */
}

BIO_METHOD *tls_wire_method(void)
{
	BIO_METHOD *m = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "decant socket");

	if (!m)
		return NULL;
	BIO_meth_set_read(m, wire_read);
	BIO_meth_set_write(m, wire_write);
	BIO_meth_set_ctrl(m, wire_ctrl);
	return m;
}

BIO *tls_wire_bio(BIO_METHOD *method, struct tls_wire *w)
{
	BIO *bio = BIO_new(method);

	if (!bio)
		return NULL;
	BIO_set_data(bio, w);
	BIO_set_init(bio, 1);
	return bio;
}

/* Whatever it speaks, a line of text is the best guess; a browser or curl even shows it nicely. */
void tls_wire_answer_plain(const struct tls_wire *w, bool http)
{
	char text[256];
	int n = snprintf(text, sizeof(text),
			 "HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\n"
			 "Connection: close\r\n\r\nThis is a decant %s.\n",
			 http ? "REST port: it speaks HTTPS only, with TLS 1.3"
			      : "data port: it speaks TLS 1.3 only, with client certificates");

	(void)!send(w->fd, text, (size_t)n, MSG_NOSIGNAL | MSG_DONTWAIT);
}

void tls_wire_close(struct tls_wire *w)
{
	char sink[16384];
	ssize_t r;

	if (w->fd < 0)
		return;
	shutdown(w->fd, SHUT_WR);
	for (size_t got = 0; got < CLOSE_DRAIN_MAX; got += (size_t)r) {
		r = recv(w->fd, sink, sizeof(sink), MSG_DONTWAIT);
		if (r <= 0)
			break;
	}
	close(w->fd);
	w->fd = -1;
}

uint64_t tls_wire_deadline(uint64_t timeout_us)
{
	uint64_t now;

	if (timeout_us == TLS_FOREVER)
		return TLS_FOREVER;
	now = clock_us();
	return timeout_us < TLS_FOREVER - now ? now + timeout_us : TLS_FOREVER;
}

static struct timespec *time_left(uint64_t deadline, struct timespec *ts)
{
	uint64_t now, left;

	if (deadline == TLS_FOREVER)
		return NULL;
	now = clock_us();
	left = deadline > now ? deadline - now : 0;
	*ts = (struct timespec){.tv_sec = (time_t)(left / 1000000),
				.tv_nsec = (long)(left % 1000000) * 1000};
	return ts;
}

int tls_wire_wait(int fd, short events, int stop_fd, uint64_t deadline, struct error *err)
{
	struct pollfd p[2] = {{.fd = fd, .events = events}, {.fd = stop_fd, .events = POLLIN}};
	struct timespec ts;
	int r;

	/* poll(2) passes over negative descriptors. */
	do
		r = ppoll(p, 2, time_left(deadline, &ts), NULL);
	while (r < 0 && errno == EINTR);
	if (r < 0)
		return error_set(err, -errno, NULL, "poll: %s", strerror(errno));
	if (p[1].revents)
		return error_set(err, -ECANCELED, "cancelled", "stopped while waiting");
	if (p[0].revents)
		return 0;
	return error_set(err, -ETIMEDOUT, "tls-timeout", "no answer within the time allowed");
}
