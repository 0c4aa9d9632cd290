/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/tls_pair.h"

#include <errno.h>
#include <netdb.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include "lib/tls_pki.h"

static void must(int ok, const char *what)
{
	if (ok)
		return;
	fprintf(stderr, "%s: %s\n", what, strerror(errno));
	abort();
}

int tls_pair_listen(const char *host, char port[static TLS_PAIR_PORT])
{
	struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICHOST}, *ai;
	struct sockaddr_storage ss;
	socklen_t len = sizeof(ss);
	int fd;

	must(!getaddrinfo(host, "0", &hints, &ai), "getaddrinfo");
	fd = socket(ai->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
	must(fd >= 0 && !bind(fd, ai->ai_addr, ai->ai_addrlen) && !listen(fd, 8), "listen");
	freeaddrinfo(ai);
	must(!getsockname(fd, (void *)&ss, &len), "getsockname");
	must(!getnameinfo((void *)&ss, len, NULL, 0, port, TLS_PAIR_PORT, NI_NUMERICSERV), "port");
	return fd;
}

void tls_pair_sockets(int fd[static 2])
{
	struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *ai;
	char port[TLS_PAIR_PORT];
	int listener = tls_pair_listen("127.0.0.1", port);

	must(!getaddrinfo("127.0.0.1", port, &hints, &ai), "getaddrinfo");
	fd[0] = socket(ai->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
	must(!connect(fd[0], ai->ai_addr, ai->ai_addrlen), "connect");
	freeaddrinfo(ai);
	fd[1] = accept(listener, NULL, NULL);
	must(fd[1] >= 0, "accept");
	close(listener);
}

void tls_pair_buffers(int fd)
{
	int small = 32768;

	setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &small, sizeof(small));
	setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &small, sizeof(small));
}

static void wait_for_either(const struct tls_pair *p)
{
	struct pollfd pfd[2] = {
		{.fd = p->client_ret == -EAGAIN ? tls_chan_fd(p->client) : -1,
		 .events = tls_chan_events(p->client)},
		{.fd = p->server_ret == -EAGAIN ? tls_chan_fd(p->server) : -1,
		 .events = tls_chan_events(p->server)},
	};

	must(poll(pfd, 2, 5000) > 0, "neither side of the handshake goes on");
}

void tls_pair_handshake(struct tls_pair *p, struct tls_ctx *client, struct tls_ctx *server,
			const char *host)
{
	int fd[2];

	memset(p, 0, sizeof(*p));
	tls_pair_sockets(fd);
	must(!tls_chan_connect(client, fd[0], host, &p->client), "tls_chan_connect");
	must(!tls_chan_accept(server, fd[1], &p->server), "tls_chan_accept");
	p->client_ret = p->server_ret = -EAGAIN;
	for (;;) {
		if (p->client_ret == -EAGAIN)
			p->client_ret = tls_chan_handshake(p->client, &p->client_err);
		if (p->server_ret == -EAGAIN)
			p->server_ret = tls_chan_handshake(p->server, &p->server_err);
		if (p->client_ret != -EAGAIN && p->server_ret != -EAGAIN)
			return;
		wait_for_either(p);
	}
}

void tls_pair_make(struct tls_pair *p, struct tls_ctx *client, struct tls_ctx *server)
{
	tls_pair_handshake(p, client, server, "localhost");
	if (p->client_ret || p->server_ret)
		fprintf(stderr, "%s / %s\n", p->client_err.msg, p->server_err.msg);
	must(!p->client_ret && !p->server_ret, "handshake");
}

void tls_pair_alike(struct tls_pair *p)
{
	struct tls_ctx *client = tls_pki_context(TLS_CLIENT, "ca", "host-a");
	struct tls_ctx *server = tls_pki_context(TLS_SERVER, "ca", "host-a");

	tls_pair_make(p, client, server);
	tls_ctx_unref(client); /* the connections hold their own references */
	tls_ctx_unref(server);
}

void tls_pair_free(struct tls_pair *p)
{
	tls_chan_free(p->client);
	tls_chan_free(p->server);
}
