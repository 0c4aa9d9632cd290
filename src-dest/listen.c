// SPDX-License-Identifier: Apache-2.0
#include "listen.h"
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
#include "audit/audit.h"
#include "conn.h"
#include "host/supervisor.h"
#include "incoming.h"
#include "meter.h"
#include "overrule.h"
#include "room.h"
#include "util/cleanup.h"
#include "util/log.h"
#include "util/text.h"

/* Addresses that a name may stand for. */
#define SOCKETS_MAX 8
/* After accept(2) has failed for want of descriptors. */
#define REST_US 200000

/**
 * struct peer - a connection that no session has yet
 * @l:		where it came in
 * @conn:	owned
 * @addr:	of the other end, without its port: of IPv6 the network, because a host has all of it
 * @alen:	bytes of @addr
 * @kind, @index, @migration: of its HELLO, once HELLO_ACK is on its way
 * @answered:	HELLO_ACK was sent: it joins its session when that is out
 * @hello:	what it said
 * @version:	agreed on
 * @query:	it may ask
 * @again:	it may RESUME its migration, by @token
 * @next:	younger
 */
struct peer {
	struct listener *l;
	struct conn *conn;
	uint8_t addr[8];
	size_t alen;
	struct msg_hello hello;
	uint16_t version;
	bool answered;
	bool query;
	bool again;
	uint8_t token[MSG_TOKEN_LEN];
	struct peer *next;
};

/**
 * struct listener - see listen.h
 * @sockets:	@n of them
 * @oldest:	peers, in the order in which they came
 * @n_peers:	how many
 * @rest:	accepting goes on after this
 */
struct listener {
	struct dest *d;
	struct evconnlistener *sockets[SOCKETS_MAX];
	unsigned int n;
	struct peer *oldest;
	unsigned int n_peers;
	struct event *rest;
};

/* --- peers --- */

static void peer_unlink(struct peer *p)
{
	struct peer **at = &p->l->oldest;

	while (*at != p)
		at = &(*at)->next;
	*at = p->next;
	p->l->n_peers--;
}

/* Its connection has another owner, or none. */
static void peer_gone(struct peer *p)
{
	peer_unlink(p);
	free(p);
}

static void peer_drop(struct peer *p)
{
	conn_free(p->conn);
	peer_gone(p);
}

static void peer_make_way(struct peer *p)
{
	meter_refused(p->l->d, "too-many-connections");
	peer_drop(p);
}

static void audit_refused(const struct peer *p, const struct error *why)
{
	const struct tls_chan *chan = conn_chan(p->conn);
	const char *identity = tls_chan_identity(chan);

	audit_note(p->l->d->audit, "peer-refused",
		   json_pack("{s:s, s:s*, s:s, s:s}", "address", tls_chan_peer(chan), "identity",
			     identity && *identity ? identity : NULL, "code", why->code, "error",
			     why->msg),
		   AUDIT_REFUSED);
}

static void peer_refuse(struct peer *p, const struct error *why)
{
	audit_refused(p, why);
	log_notice("connection from %s (%s) refused: %s", tls_chan_peer(conn_chan(p->conn)),
		   tls_chan_identity(conn_chan(p->conn)), why->msg);
	meter_refused(p->l->d, why->code);
	conn_send_error(p->conn, MSG_ERROR, why);
	dest_close(p->l->d, p->conn);
	peer_gone(p);
}

/* --- HELLO --- */

static uint64_t capabilities(const struct dest *d, uint64_t theirs)
{
	uint64_t ours = MSG_CAP_URGENT | MSG_CAP_SNAPSHOT | MSG_CAP_MEND | MSG_CAP_RESOLVE |
			MSG_CAP_ROOM | (d->conf.limit_interrupted_s ? MSG_CAP_KEEP : 0);

	if (!d->caps_ret && !uffd_caps_postcopy(&d->caps, NULL))
		ours |= MSG_CAP_POSTCOPY;
	return ours & theirs;
}

static int answer_hello(struct peer *p, uint64_t caps, struct error *err)
{
	struct msg *m = calloc(1, sizeof(*m));
	int r;

	if (!m)
		return error_set(err, -ENOMEM, NULL, "out of memory");
	m->type = MSG_HELLO_ACK;
	m->hello_ack = (struct msg_hello_ack){.version = p->version, .capabilities = caps};
	if (p->again)
		memcpy(m->hello_ack.token, p->token, MSG_TOKEN_LEN);
	r = conn_send(p->conn, m);
	explicit_bzero(m, sizeof(*m));
	free(m);
	return r ? error_set(err, r, NULL, "HELLO_ACK: %s", strerror(-r)) : 0;
}

/* The channel leaves the loop once HELLO_ACK is out: see on_drained(). */
static int hello_data(struct peer *p, struct error *err)
{
	struct incoming *inc = incoming_find(p->l->d, p->hello.migration);
	int r;

	if (!inc)
		return error_set(err, -EACCES, "bad-token",
				 "the token is not that of this migration");
	r = incoming_may_join(inc, &p->hello, tls_chan_identity(conn_chan(p->conn)), err);
	if (r)
		return r;
	if (p->version != incoming_version(inc))
		return error_set(err, -EPROTO, "version",
				 "a channel of version %u of the protocol for a session of version "
				 "%u",
				 p->version, incoming_version(inc));
	p->answered = true;
	return answer_hello(p, incoming_capabilities(inc), err);
}

/* No incoming is behind it: what does its record say? Return: 0 if there is none, or it is not theirs */
static int check_past(const struct peer *p, struct error *err)
{
	char id[UUID_TEXT_MAX];
	const struct past *past = history_find(p->l->d->history, uuid_text(p->hello.migration, id));

	if (!past || strcmp(past->identity, tls_chan_identity(conn_chan(p->conn))) != 0)
		return 0;
	switch (past->fate) {
	case HISTORY_GONE:
		return error_set(err, -ESRCH, "guest-gone", "guest %s has died here", past->name);
	case HISTORY_OWNER:
		return error_set(
			err, -EBUSY, "guest-held",
			"guest %s has not been taken over yet since this agent was started "
			"again: try again; if it stays so, the agent's log says why",
			past->name);
	default:
		return error_set(err, -EEXIST, "migration-ended",
				 "this migration of guest %s has ended here", past->name);
	}
}

static int hello_control(struct peer *p, struct error *err)
{
	struct dest *d = p->l->d;
	struct incoming *inc = incoming_find(d, p->hello.migration);
	uint64_t caps = capabilities(d, p->hello.capabilities);
	int r;

	if (!inc) {
		r = check_past(p, err);
		if (!r)
			r = incoming_open(d, p->conn, &p->hello, caps, err);
		if (!r)
			peer_gone(p);
		return r;
	}
	r = incoming_may_resume(inc, tls_chan_identity(conn_chan(p->conn)), p->token, err);
	if (r)
		return r;
	p->again = true;
	conn_set_timeout(p->conn, MSG_HELLO_TIMEOUT_US);
	return answer_hello(p, caps, err);
}

static int on_resume(struct peer *p, const struct msg_resume *m, struct error *err)
{
	struct dest *d = p->l->d;
	struct incoming *inc = incoming_find(d, p->hello.migration);
	int r = -ENOENT;

	if (inc)
		r = incoming_resume(inc, p->conn, &p->hello, p->token, m,
				    capabilities(d, p->hello.capabilities), err);
	else
		error_set(err, r, "migration-ended", "the migration has ended here");
	if (!r)
		peer_gone(p);
	return r;
}

static int hello_query(struct peer *p, struct error *err)
{
	p->query = true;
	conn_set_channel(p->conn, MSG_CHANNEL_QUERY);
	conn_set_timeout(p->conn, MSG_HELLO_TIMEOUT_US);
	return answer_hello(p, capabilities(p->l->d, p->hello.capabilities), err);
}

static int on_hello(struct peer *p, const struct msg_hello *h, struct error *err)
{
	p->version = msg_version_common(h->version_min, h->version_max);
	if (!p->version)
		return error_set(
			err, -EPROTO, "version",
			"the source speaks versions %u to %u of the protocol, this side %d to %d: "
			"bring the older of the two agents up to date",
			h->version_min, h->version_max, MSG_VERSION_OLDEST, MSG_VERSION);
	p->hello = *h;
	switch (h->kind) {
	case MSG_CHANNEL_CONTROL:
		return hello_control(p, err);
	case MSG_CHANNEL_QUERY:
		return hello_query(p, err);
	default:
		return hello_data(p, err);
	}
}

/* --- QUERY, KEPT --- */

static enum msg_answer ask(struct dest *d, const struct msg_hello *h, const char *identity,
			   uint64_t generation)
{
	struct incoming *inc = incoming_find(d, h->migration);
	char id[UUID_TEXT_MAX];
	struct past *p;

	if (inc)
		return incoming_query(inc, identity, generation);
	p = history_find(d->history, uuid_text(h->migration, id));
	if (p)
		history_settle(d->history, p);
	return p ? history_answer(p, identity, generation) : MSG_ANSWER_UNKNOWN;
}

static void on_query(struct peer *p, bool kept, uint64_t generation)
{
	static const char *const words[] = {"unknown", "not-started", "running", "completed",
					    "gone"};
	const char *identity = tls_chan_identity(conn_chan(p->conn));
	struct msg *m = calloc(1, sizeof(*m));
	char id[UUID_TEXT_MAX];

	if (m) {
		m->type = MSG_ANSWER;
		m->answer.answer =
			(uint8_t)(kept ? overrule(p->l->d, p->hello.migration, identity, generation)
				       : ask(p->l->d, &p->hello, identity, generation));
		log_notice("%s %s migration %s, generation %llu: %s", identity,
			   kept ? "has kept the guest of" : "asks about",
			   uuid_text(p->hello.migration, id), (unsigned long long)generation,
			   words[m->answer.answer]);
		conn_send(p->conn, m);
		free(m);
	}
	dest_close(p->l->d, p->conn);
	peer_gone(p);
}

/* --- PROBE --- */

static void on_probe(struct peer *p)
{
	const char *identity = tls_chan_identity(conn_chan(p->conn));
	struct msg *m = calloc(1, sizeof(*m));

	if (m) {
		m->type = MSG_ROOM;
		room_fill(p->l->d, identity, &m->room);
		conn_send(p->conn, m);
		free(m);
	}
	dest_close(p->l->d, p->conn);
	peer_gone(p);
}

/* --- callbacks of the connection --- */

static void on_established(struct conn *c, void *arg)
{
	struct peer *p = arg;
	const struct conf_dest *conf = &p->l->d->conf;
	struct error err = {0};

	if (tls_allow_check((const char *const *)conf->allow, conf->n_allow, conn_chan(c), &err))
		peer_refuse(p, &err);
}

static void on_message(struct conn *c, const struct msg *m, void *arg)
{
	struct peer *p = arg;
	struct error err = {0};

	(void)c;
	if (p->query && (m->type == MSG_QUERY || m->type == MSG_KEPT)) {
		on_query(p, m->type == MSG_KEPT, m->number.value);
		return;
	}
	if (p->query && m->type == MSG_PROBE) {
		on_probe(p);
		return;
	}
	if (p->again && m->type == MSG_RESUME) {
		if (!on_resume(p, &m->resume, &err))
			return;
	} else if (p->query || p->again || p->answered || m->type != MSG_HELLO)
		error_set(&err, -EBADMSG, "unexpected-message", "%s where %s was due",
			  msg_type_name(m->type),
			  p->query   ? "QUERY"
			  : p->again ? "RESUME"
				     : "HELLO");
	else if (!on_hello(p, &m->hello, &err))
		return;
	peer_refuse(p, &err);
}

static void on_closed(struct conn *c, const struct error *why, void *arg)
{
	log_notice("connection from %s refused: %s (%s)", tls_chan_peer(conn_chan(c)), why->msg,
		   why->code);
	audit_refused(arg, why);
	peer_drop(arg);
}

/* Looked up again: the session may have ended meanwhile, or the place been taken. */
static int join(struct peer *p, struct tls_chan *chan, struct error *err)
{
	struct incoming *inc = incoming_find(p->l->d, p->hello.migration);
	int r = -EACCES;

	if (!inc)
		error_set(err, r, "bad-token", "the migration has ended");
	else
		r = incoming_may_join(inc, &p->hello, tls_chan_identity(chan), err);
	if (r) {
		tls_chan_free(chan);
		return r;
	}
	return incoming_join(inc, p->hello.kind, p->hello.index, chan, err);
}

static void on_drained(struct conn *c, void *arg)
{
	struct peer *p = arg;
	struct error err = {0};
	struct tls_chan *chan;

	if (!p->answered)
		return;
	chan = conn_release(c);
	if (!chan)
		return;
	if (join(p, chan, &err))
		log_notice("a %s channel was not taken: %s", msg_channel_name(p->hello.kind),
			   err.msg);
	peer_gone(p);
}

static const struct conn_ops peer_ops = {.established = on_established,
					 .message = on_message,
					 .closed = on_closed,
					 .drained = on_drained};

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
		peer_make_way(oldest_of_it);
	else if (l->n_peers >= l->d->conf.limit_connections)
		peer_make_way(l->oldest);
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

static struct peer *peer_new(struct listener *l, int fd)
{
	struct peer *p = calloc(1, sizeof(*p));
	struct tls_chan *chan;

	if (!p || tls_chan_accept(l->d->tls, fd, &chan)) {
		close(fd);
		free(p);
		return NULL;
	}
	p->l = l;
	p->conn = conn_new(l->d->loop, chan, true, MSG_CHANNEL_CONTROL, &peer_ops, p);
	if (!p->conn) {
		free(p);
		return NULL;
	}
	return p;
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
	p = peer_new(l, fd);
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
	for (struct addrinfo *ai = all; ai && !r && l->n < SOCKETS_MAX; ai = ai->ai_next)
		r = open_socket(l, ai, err);
	freeaddrinfo(all);
	return r;
}

/* Those of a .socket unit, if there is one: what is configured is then not opened. */
static int open_handed_over(struct listener *l, struct error *err)
{
	int *fds, n = supervisor_sockets(l->d->handed, &fds, err), r = MIN(n, 0);

	if (n > SOCKETS_MAX)
		r = error_set(err, -E2BIG, "listen",
			      "the service manager hands over %d sockets, at most %d are supported",
			      n, SOCKETS_MAX);
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
		peer_drop(l->oldest);
	for (unsigned int i = 0; i < l->n; i++)
		evconnlistener_free(l->sockets[i]);
	if (l->rest)
		event_free(l->rest);
	free(l);
}
