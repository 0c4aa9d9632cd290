/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Listeners: whom they let begin, and how many. Each has a bound of its own, so that a crowd that comes by
 * TCP never keeps those of this host from their Unix socket.
 */
#include "rest/rest_int.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include "util/cleanup.h"
#include "util/fdio.h"
#include "util/log.h"

/* Pause in accepting when descriptors ran out: the listener would spin. */
#define ACCEPT_PAUSE_US 100000
/* TLS connections beyond the limit that are told so; others are just closed. */
#define SURPLUS_MAX 16
#define BACKLOG     128

/* --- who is there --- */

/* Whom the socket's mode lets in may do everything. */
static void see_local(struct rest_peer *p, int fd)
{
	struct ucred u = {0};
	socklen_t len = sizeof(u);

	getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &u, &len);
	p->role = REST_OPERATOR;
	p->local = true;
	p->pid = u.pid;
	p->uid = u.uid;
	p->gid = u.gid;
	snprintf(p->name, sizeof(p->name), "uid:%u", p->uid);
	snprintf(p->who, sizeof(p->who), "%s (pid %d)", p->name, (int)p->pid);
}

/* "192.0.2.1", without the port: what connections are counted by */
static void host_text(const struct sockaddr *sa, char out[static INET6_ADDRSTRLEN])
{
	const struct sockaddr_in6 *in6 = (const void *)sa;
	const struct sockaddr_in *in = (const void *)sa;

	*out = '\0';
	if (sa->sa_family == AF_INET)
		inet_ntop(AF_INET, &in->sin_addr, out, INET6_ADDRSTRLEN);
	else if (IN6_IS_ADDR_V4MAPPED(&in6->sin6_addr))
		inet_ntop(AF_INET, &in6->sin6_addr.s6_addr[12], out, INET6_ADDRSTRLEN);
	else
		inet_ntop(AF_INET6, &in6->sin6_addr, out, INET6_ADDRSTRLEN);
}

static void see_remote(struct rest_peer *p, const struct sockaddr *sa)
{
	const struct sockaddr_in *in = (const void *)sa; /* the port is at the same place in both */
	char host[INET6_ADDRSTRLEN];

	host_text(sa, host);
	snprintf(p->address, sizeof(p->address), strchr(host, ':') ? "[%s]:%u" : "%s:%u", host,
		 ntohs(in->sin_port));
	snprintf(p->who, sizeof(p->who), "%s", p->address);
}

/* The address without its port. */
static size_t host_len(const char *address)
{
	const char *colon = strrchr(address, ':');

	return colon ? (size_t)(colon - address) : 0;
}

static unsigned int from_there(const struct rest_listener *l, const char *address)
{
	size_t len = host_len(address);
	const struct rest_conn *c;
	unsigned int n = 0;

	TAILQ_FOREACH(c, &l->server->conns, link)
	n += c->listener == l && host_len(c->socket_peer.address) == len &&
	     !memcmp(c->socket_peer.address, address, len);
	return n;
}

/* --- accepting --- */

/* No connection is made for it, so that a crowd of clients costs nothing. */
static void refuse_plain(int fd)
{
	static const char body[] =
		"{\"type\":\"about:blank\",\"title\":\"Too Many Requests\",\"status\":429,"
		"\"detail\":\"too many connections\",\"code\":\"too-many-connections\"}\n";
	char text[sizeof(body) + 240];
	int n = snprintf(text, sizeof(text),
			 "HTTP/1.1 429 %s\r\nContent-Type: application/problem+json\r\n"
			 "Content-Length: %zu\r\nConnection: close\r\nRetry-After: 1\r\n\r\n%s",
			 http_reason(429), sizeof(body) - 1, body);

	send(fd, text, (size_t)n, MSG_NOSIGNAL | MSG_DONTWAIT);
	close(fd);
}

static void accept_conn(struct evconnlistener *ev, evutil_socket_t fd, struct sockaddr *sa, int len,
			void *arg)
{
	struct rest_listener *l = arg;
	const struct rest_limits *max = &l->server->limits;
	struct rest_peer peer = {0};
	bool tcp = l->addr.kind != REST_UNIX, full = l->n_conns >= max->connections;
	int one = 1;

	(void)ev;
	(void)len;
	if (tcp) {
		see_remote(&peer, sa);
		full |= from_there(l, peer.address) >= max->per_address;
		setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
		setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &one, sizeof(one));
	} else {
		see_local(&peer, fd);
	}
	if (!full)
		rest_conn_new(l, fd, &peer, false);
	else if (l->addr.kind != REST_HTTPS)
		refuse_plain(fd);
	else if (l->n_conns < max->connections + SURPLUS_MAX)
		rest_conn_new(l, fd, &peer, true);
	else
		close(fd);
}

static void accept_resume(void *arg)
{
	struct rest_listener *l = arg;

	event_free(l->resume);
	l->resume = NULL;
	evconnlistener_enable(l->ev);
}

static void accept_failed(struct evconnlistener *ev, void *arg)
{
	struct rest_listener *l = arg;

	log_debug("rest: accept: %s", strerror(errno));
	l->resume = loop_timer(l->server->loop, ACCEPT_PAUSE_US, accept_resume, l);
	if (l->resume)
		evconnlistener_disable(ev);
}

/* --- begin and end --- */

void rest_listener_free(struct rest_listener *l)
{
	struct stat st;

	if (l->resume)
		event_free(l->resume);
	if (l->ev) {
		if (*l->addr.path && !stat(l->addr.path, &st) && st.st_dev == l->dev &&
		    st.st_ino == l->ino)
			unlink(l->addr.path);
		evconnlistener_free(l->ev);
	}
	free(l);
}

static bool is_loopback(const struct sockaddr *sa)
{
	const struct sockaddr_in6 *in6 = (const void *)sa;
	const struct sockaddr_in *in = (const void *)sa;

	return sa->sa_family == AF_INET ? ntohl(in->sin_addr.s_addr) >> 24 == 127
					: IN6_IS_ADDR_LOOPBACK(&in6->sin6_addr);
}

static int bind_to(const struct addrinfo *ai, const char *where, struct error *err)
{
	CLEANUP_CLOSE int fd = socket(ai->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	int one = 1;

	if (fd < 0)
		return error_set(err, -errno, "listen", "%s: %s", where, strerror(errno));
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	if (bind(fd, ai->ai_addr, ai->ai_addrlen) < 0 || listen(fd, BACKLOG) < 0)
		return error_set(err, -errno, "listen", "cannot listen at %s: %s", where,
				 strerror(errno));
	return steal_fd(&fd);
}

static int tcp_listen(const struct rest_addr *a, const char *where, struct error *err)
{
	struct addrinfo hints = {.ai_socktype = SOCK_STREAM,
				 .ai_flags = AI_PASSIVE | AI_NUMERICSERV};
	struct addrinfo *list;
	int r = getaddrinfo(a->host, a->port, &hints, &list);

	if (r)
		return error_set(err, -EADDRNOTAVAIL, "listen", "%s: %s", where, gai_strerror(r));
	/* "localhost" is what the resolver makes of it. */
	if (a->kind == REST_HTTP && !is_loopback(list->ai_addr))
		r = error_set(err, -EINVAL, "bad-address", "%s: %s is no address of loopback",
			      where, a->host);
	else
		r = bind_to(list, where, err);
	freeaddrinfo(list);
	return r;
}

static int check_possible(const struct rest_server *s, const struct rest_addr *a, const char *where,
			  struct error *err)
{
	if (a->kind != REST_UNIX && !s->auth)
		return error_set(
			err, -EINVAL, "nobody-let-in",
			"%s: nobody could use it: neither api.token_file nor api.operators or "
			"api.readers is there",
			where);
	if (a->kind == REST_HTTPS && !s->tls)
		return error_set(err, -EINVAL, "no-certificate",
				 "%s: there is no certificate: tls or api.tls is needed", where);
	return 0;
}

static unsigned int port_of(int fd)
{
	struct sockaddr_in6 sa;
	socklen_t len = sizeof(sa);

	/* It is at the same place in both kinds. */
	return getsockname(fd, (struct sockaddr *)&sa, &len) < 0 ? 0 : ntohs(sa.sin6_port);
}

static int listener_start(struct rest_listener *l, int fd)
{
	struct stat st = {0};

	if (l->addr.kind != REST_UNIX)
		l->port = port_of(fd);
	else if (stat(l->addr.path, &st) < 0)
		return -errno;
	l->dev = st.st_dev;
	l->ino = st.st_ino;
	l->ev = evconnlistener_new(loop_base(l->server->loop), accept_conn, l,
				   LEV_OPT_CLOSE_ON_FREE | LEV_OPT_CLOSE_ON_EXEC, 0, fd);
	if (!l->ev)
		return -ENOMEM;
	evconnlistener_set_error_cb(l->ev, accept_failed);
	return 0;
}

int rest_server_listen(struct rest_server *s, const char *where, struct error *err)
{
	struct rest_listener *l;
	struct rest_addr a;
	int fd, r = rest_addr_parse(where, &a, err);

	if (!r)
		r = check_possible(s, &a, where, err);
	if (r < 0)
		return r;
	fd = a.kind == REST_UNIX ? fdio_unix_listen(a.path, SOCK_STREAM, 0660, err)
				 : tcp_listen(&a, where, err);
	if (fd < 0)
		return fd;
	l = calloc(1, sizeof(*l));
	if (l) {
		l->server = s;
		l->addr = a;
	}
	r = l ? listener_start(l, fd) : -ENOMEM;
	if (r < 0) {
		close(fd);
		if (l)
			rest_listener_free(l);
		return error_set(err, r, NULL, "%s: %s", where, strerror(-r));
	}
	TAILQ_INSERT_TAIL(&s->listeners, l, link);
	return 0;
}

unsigned int rest_server_port(const struct rest_server *s)
{
	const struct rest_listener *l;
	unsigned int port = 0;

	TAILQ_FOREACH(l, &s->listeners, link)
	port = l->port ? l->port : port;
	return port;
}
