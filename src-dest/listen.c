/* SPDX-License-Identifier: Apache-2.0 */
#include "listen_priv.h"
#include <errno.h>
#include <event2/listener.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include "host/supervisor.h"
#include "util/cleanup.h"
#include "util/log.h"

/* After accept(2) has failed for want of descriptors. */
#define REST_US 200000

/* --- accepting --- */

static size_t address_of(const struct sockaddr *sa, uint8_t out[static 8])
{
	if (sa->sa_family == AF_INET6) {
		memcpy(out, &((const struct sockaddr_in6 *)sa)->sin6_addr, 8);
		return 8;
	}
	memcpy(out, &((const struct sockaddr_in *)sa)->sin_addr, 4);
	return 4;
}

/* Who floods loses its own oldest connection first; only then the oldest of all goes. */
static void make_room(struct listener *l, const uint8_t *addr, size_t alen)
{
	struct peer *oldest_of_it = NULL;
	unsigned int n = 0;

	for (struct peer *p = l->oldest; p; p = p->next) {
		if (p->alen != alen || memcmp(p->addr, addr, alen) != 0)
			continue;
		n++;
		oldest_of_it = oldest_of_it ? oldest_of_it : p;
	}
	if (n >= l->d->conf.limit_connections_per_address)
		listen_peer_make_way(oldest_of_it);
	else if (l->n_peers >= l->d->conf.limit_connections)
		listen_peer_make_way(l->oldest);
}

static void set_options(int fd)
{
	int one = 1, idle = 10, interval = 5, count = 3;

	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &one, sizeof(one));
	setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle, sizeof(idle));
	setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &interval, sizeof(interval));
	setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &count, sizeof(count));
}

static void on_accept(struct evconnlistener *s, evutil_socket_t fd, struct sockaddr *sa, int len,
		      void *arg)
{
	struct listener *l = arg;
	uint8_t addr[8];
	size_t alen = address_of(sa, addr);
	struct peer *p, **at;

	(void)s;
	(void)len;
	make_room(l, addr, alen);
	set_options(fd);
	p = listen_peer_new(l, fd);
	if (!p) {
		log_error("listen: out of memory");
		return;
	}
	memcpy(p->addr, addr, sizeof(addr));
	p->alen = alen;
	for (at = &l->oldest; *at;)
		at = &(*at)->next;
	*at = p;
	l->n_peers++;
}

static void on_rested(void *arg)
{
	struct listener *l = arg;

	event_free(l->rest);
	l->rest = NULL;
	for (unsigned int i = 0; i < l->n; i++)
		evconnlistener_enable(l->sockets[i]);
}

/* No descriptors left: the connection stays in the backlog, and would be told again at once. */
static void on_accept_error(struct evconnlistener *s, void *arg)
{
	struct listener *l = arg;

	(void)s;
	log_warn("listen: accept: %s", strerror(EVUTIL_SOCKET_ERROR()));
	if (l->rest)
		return;
	for (unsigned int i = 0; i < l->n; i++)
		evconnlistener_disable(l->sockets[i]);
	l->rest = loop_timer(l->d->loop, REST_US, on_rested, l);
}

/* --- opening --- */

/* Takes @fd over, whatever it returns. */
static int serve_socket(struct listener *l, int fd, struct error *err)
{
	struct evconnlistener *s =
		evconnlistener_new(loop_base(l->d->loop), on_accept, l,
				   LEV_OPT_CLOSE_ON_FREE | LEV_OPT_CLOSE_ON_EXEC, 128, fd);

	if (!s) {
		int r = error_set(err, -errno, "listen", "%s port %u: %s", l->d->conf.listen_host,
				  l->d->conf.listen_port, strerror(errno));

		close(fd);
		return r;
	}
	evconnlistener_set_error_cb(s, on_accept_error);
	l->sockets[l->n++] = s;
	return 0;
}

static int open_socket(struct listener *l, const struct addrinfo *ai, struct error *err)
{
	CLEANUP_CLOSE int fd =
		socket(ai->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, ai->ai_protocol);
	int one = 1;

	if (fd < 0)
		return error_set(err, -errno, "listen", "socket: %s", strerror(errno));
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	if (ai->ai_family == AF_INET6)
		setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &one, sizeof(one));
	if (bind(fd, ai->ai_addr, ai->ai_addrlen))
		return error_set(err, -errno, "listen", "%s port %u: %s", l->d->conf.listen_host,
				 l->d->conf.listen_port, strerror(errno));
	return serve_socket(l, steal_fd(&fd), err);
}

static int open_configured(struct listener *l, struct error *err)
{
	struct addrinfo hints = {.ai_flags = AI_PASSIVE, .ai_socktype = SOCK_STREAM}, *all = NULL;
	const struct conf_dest *conf = &l->d->conf;
	char port[8];
	int r;

	snprintf(port, sizeof(port), "%u", conf->listen_port);
	r = getaddrinfo(conf->listen_host, port, &hints, &all);
	if (r)
		return error_set(err, -EADDRNOTAVAIL, "listen", "%s: %s", conf->listen_host,
				 gai_strerror(r));
	for (struct addrinfo *ai = all; ai && !r && l->n < LISTEN_SOCKETS_MAX; ai = ai->ai_next)
		r = open_socket(l, ai, err);
	freeaddrinfo(all);
	return r;
}

/* Those of a .socket unit, if there is one: what is configured is then not opened. */
static int open_handed_over(struct listener *l, struct error *err)
{
	int *fds, n = supervisor_sockets(l->d->handed, &fds, err), r = MIN(n, 0);

	if (n > LISTEN_SOCKETS_MAX)
		r = error_set(err, -E2BIG, "listen",
			      "the service manager hands over %d sockets, at most %d are supported",
			      n, LISTEN_SOCKETS_MAX);
	for (int i = 0; i < n; i++) {
		evutil_make_socket_nonblocking(fds[i]);
		if (!r)
			r = serve_socket(l, fds[i], err);
		else
			close(fds[i]);
	}
	if (n > 0 && !r)
		log_info("listening at %d sockets of the service manager, not at %s port %u", n,
			 l->d->conf.listen_host, l->d->conf.listen_port);
	free(fds);
	return r;
}

int listen_new(struct dest *d, struct listener **ret, struct error *err)
{
	struct listener *l = calloc(1, sizeof(*l));
	int r;

	if (!l)
		return error_set(err, -ENOMEM, NULL, "out of memory");
	l->d = d;
	r = open_handed_over(l, err);
	if (!r && !l->n)
		r = open_configured(l, err);
	if (r) {
		listen_free(l);
		return r;
	}
	*ret = l;
	return 0;
}

unsigned int listen_waiting(const struct listener *l)
{
	return l ? l->n_peers : 0;
}

void listen_free(struct listener *l)
{
	if (!l)
		return;
	while (l->oldest)
		listen_peer_drop(l->oldest);
	for (unsigned int i = 0; i < l->n; i++)
		evconnlistener_free(l->sockets[i]);
	if (l->rest)
		event_free(l->rest);
	free(l);
}
