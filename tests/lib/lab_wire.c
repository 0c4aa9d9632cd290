/* SPDX-License-Identifier: Apache-2.0 */
#include <arpa/inet.h>
#include <errno.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>
#include "lib/lab_wire.h"

struct lab_wire {
	SSL_CTX *ctx;
	SSL *ssl;
	int fd;
};

int lab_tcp_open(struct lab_host *h)
{
	struct sockaddr_in sin = {.sin_family = AF_INET, .sin_port = htons(h->port)};
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	inet_pton(AF_INET, h->address, &sin.sin_addr);
	lab_check(h->lab, fd >= 0 && connect(fd, (struct sockaddr *)&sin, sizeof(sin)) == 0,
		  "connect to %s: %m", h->to);
	return fd;
}

static void show_identity(struct lab *lab, SSL_CTX *ctx, const char *identity)
{
	char path[LAB_PATH_MAX + 64];

	snprintf(path, sizeof(path), "%s/%s.cert", lab->certs, identity);
	lab_check(lab, SSL_CTX_use_certificate_chain_file(ctx, path) == 1, "%s", path);
	snprintf(path, sizeof(path), "%s/%s.key", lab->certs, identity);
	lab_check(lab, SSL_CTX_use_PrivateKey_file(ctx, path, SSL_FILETYPE_PEM) == 1, "%s", path);
}

static void name_protocol(struct lab_wire *w, const char *alpn)
{
	unsigned char list[64];

	list[0] = (unsigned char)strlen(alpn);
	memcpy(list + 1, alpn, list[0]);
	SSL_set_alpn_protos(w->ssl, list, list[0] + 1u);
}

struct lab_wire *lab_wire_open(struct lab_host *h, const struct lab_wire_opts *opts)
{
	struct lab_wire *w = calloc(1, sizeof(*w));
	struct timeval tv = {.tv_sec = 10};

	w->fd = lab_tcp_open(h);
	/* OpenSSL blocks in read(2) and write(2): bound both. */
	setsockopt(w->fd, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof(tv));
	setsockopt(w->fd, SOL_SOCKET, SO_SNDTIMEO, &tv, sizeof(tv));
	w->ctx = SSL_CTX_new(TLS_client_method());
	if (opts->tls12)
		SSL_CTX_set_max_proto_version(w->ctx, TLS1_2_VERSION);
	if (!opts->identity || *opts->identity)
		show_identity(h->lab, w->ctx, opts->identity ? opts->identity : "host-a");
	w->ssl = SSL_new(w->ctx);
	name_protocol(w, opts->alpn ? opts->alpn : "decant/1");
	SSL_set_fd(w->ssl, w->fd);
	if (SSL_connect(w->ssl) == 1)
		return w;
	ERR_clear_error();
	lab_wire_close(w);
	return NULL;
}

bool lab_wire_send(struct lab_wire *w, const void *bytes, size_t n)
{
	bool sent = n == 0 || SSL_write(w->ssl, bytes, (int)n) == (int)n;

	ERR_clear_error();
	return sent;
}

static bool readable(struct lab_wire *w, uint64_t end)
{
	struct pollfd pfd = {.fd = w->fd, .events = POLLIN};
	uint64_t now = lab_now_ms();

	return SSL_pending(w->ssl) > 0 || (now < end && poll(&pfd, 1, (int)(end - now)) > 0);
}

/* Return: n; less at the end of the stream; -ETIMEDOUT */
static ssize_t read_exactly(struct lab_wire *w, uint8_t *buf, size_t n, uint64_t end)
{
	size_t have = 0;

	while (have < n) {
		int got;

		if (!readable(w, end))
			return -ETIMEDOUT;
		got = SSL_read(w->ssl, buf + have, (int)(n - have));
		ERR_clear_error();
		if (got <= 0)
			break;
		have += (size_t)got;
	}
	return (ssize_t)have;
}

ssize_t lab_wire_recv(struct lab_wire *w, uint8_t *buf, size_t cap, unsigned int ms)
{
	uint64_t end = lab_now_ms() + ms;
	ssize_t got = read_exactly(w, buf, 8, end);
	uint32_t body;

	if (got < 8)
		return got < 0 ? got : 0;
	body = (uint32_t)buf[0] | (uint32_t)buf[1] << 8 | (uint32_t)buf[2] << 16 |
	       (uint32_t)buf[3] << 24;
	if (body > cap - 8)
		return -EMSGSIZE;
	got = read_exactly(w, buf + 8, body, end);
	if (got < 0)
		return got;
	return got < (ssize_t)body ? 0 : got + 8;
}

void lab_wire_close(struct lab_wire *w)
{
	SSL_free(w->ssl);
	SSL_CTX_free(w->ctx);
	close(w->fd);
	free(w);
}
