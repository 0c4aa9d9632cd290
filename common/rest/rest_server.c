/* SPDX-License-Identifier: Apache-2.0 */
/* Listeners and connections. A connection is one small state machine on its bufferevent. */
#include "rest/rest_int.h"

#include <errno.h>
#include <event2/bufferevent.h>
#include <event2/listener.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>
#include <sys/stat.h>
#include <time.h>
#include "rest/rest_addr.h"
#include "util/cleanup.h"
#include "util/fdio.h"
#include "util/log.h"

#define BODY_DEFAULT        (1u << 20)
#define HEAD_DEFAULT        (16u << 10)
#define CONNECTIONS_DEFAULT 64
#define REQUEST_MS_DEFAULT  10000
#define IDLE_MS_DEFAULT     60000
/* How long a client that we refuse may go on sending before it must have read the answer. */
#define DRAIN_MS 2000
/* Pause in accepting when descriptors ran out: the listener would spin. */
#define ACCEPT_PAUSE_US 100000

/**
 * enum conn_state - what a connection waits for
 * @CONN_HEAD:	a request's header; ends: it is there, or it is bad
 * @CONN_BODY:	the rest of the request
 * @CONN_HANDLER: the handler's answer; ends: rest_conn_send(), or the client goes away
 * @CONN_WRITING: the client to take the answer
 * @CONN_DRAIN:	the client to notice that the connection is over; what it sends is thrown away,
 *		because closing with unread bytes could take the answer away from it
 */
enum conn_state { CONN_HEAD, CONN_BODY, CONN_HANDLER, CONN_WRITING, CONN_DRAIN };

/**
 * struct rest_conn - one connection
 * @deadline:	ends the connection, or the request with 408; not armed in CONN_HANDLER
 * @scanned:	see http_head_take()
 * @started:	a byte of the current request has come
 * @head:	of the request that is being read
 * @req:	the request in CONN_HANDLER, else NULL
 * @keep:	another request may follow
 */
struct rest_conn {
	TAILQ_ENTRY(rest_conn) link;
	struct rest_server *server;
	struct bufferevent *bev;
	struct event *deadline;
	enum conn_state state;
	size_t scanned;
	bool started;
	struct http_head head;
	struct rest_req *req;
	bool keep;
	struct rest_peer peer;
};

/**
 * struct rest_listener - one listening socket
 * @resume:	timer that takes up accepting again, NULL unless paused
 * @path:	of the socket
 * @dev, @ino:	the file that was bound, so that another one's is never removed
 */
struct rest_listener {
	TAILQ_ENTRY(rest_listener) link;
	struct rest_server *server;
	struct evconnlistener *ev;
	struct event *resume;
	char *path;
	dev_t dev;
	ino_t ino;
};

struct rest_server {
	struct loop *loop;
	const struct rest_route *routes;
	size_t n_routes;
	struct rest_limits limits;
	void *ctx;
	TAILQ_HEAD(, rest_conn) conns;
	TAILQ_HEAD(, rest_listener) listeners;
	unsigned int n_conns;
};

static void conn_arm(struct rest_conn *c, unsigned int ms)
{
	struct timeval tv = {ms / 1000, (long)(ms % 1000) * 1000};

	event_add(c->deadline, &tv);
}

static void conn_free(struct rest_conn *c)
{
	struct rest_req *req = c->req;

	TAILQ_REMOVE(&c->server->conns, c, link);
	c->server->n_conns--;
	http_head_clear(&c->head);
	if (c->deadline)
		event_free(c->deadline);
	if (c->bev)
		bufferevent_free(c->bev);
	free(c);
	if (!req)
		return;
	req->conn = NULL;
	if (req->gone)
		req->gone(req, req->gone_arg);
}

static void add_date(struct evbuffer *out)
{
	char text[40];
	time_t now = time(NULL);
	struct tm tm;

	gmtime_r(&now, &tm);
	strftime(text, sizeof(text), "%a, %d %b %Y %H:%M:%S GMT", &tm);
	evbuffer_add_printf(out, "Date: %s\r\n", text);
}

void rest_conn_send(struct rest_conn *c, int status, const char *type, struct evbuffer *body,
		    struct evbuffer *extra, bool head_only)
{
	struct evbuffer *out = bufferevent_get_output(c->bev);

	if (!body && status != 204 && status >= 400)
		c->keep = false; /* out of memory: the status alone has to do */
	evbuffer_add_printf(out, "HTTP/1.1 %d %s\r\n", status, http_reason(status));
	add_date(out);
	if (body)
		evbuffer_add_printf(out, "Content-Type: %s\r\n", type);
	if (status != 204)
		evbuffer_add_printf(out, "Content-Length: %zu\r\n",
				    body ? evbuffer_get_length(body) : 0);
	evbuffer_add_printf(out, "Cache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\n");
	if (!c->keep)
		evbuffer_add_printf(out, "Connection: close\r\n");
	if (extra)
		evbuffer_add_buffer(out, extra);
	evbuffer_add(out, "\r\n", 2);
	if (body && !head_only)
		evbuffer_add_buffer(out, body);
	c->req = NULL;
	c->state = CONN_WRITING;
	conn_arm(c, c->server->limits.idle_ms);
}

/* Refuse what HTTP itself forbids. Where the request ends is not known any more: the last answer. */
static void conn_refuse(struct rest_conn *c, int status, const struct error *err)
{
	json_t *json = rest_problem_json(status, err);
	struct evbuffer *body = rest_json_text(json);

	log_debug("rest: refused with %d: %s", status, err->msg);
	c->keep = false;
	rest_conn_send(c, status, "application/problem+json", body, NULL, false);
	json_decref(json);
	if (body)
		evbuffer_free(body);
}

static void conn_refusef(struct rest_conn *c, int status, const char *code, const char *fmt, ...)
	__attribute__((format(printf, 4, 5)));

static void conn_refusef(struct rest_conn *c, int status, const char *code, const char *fmt, ...)
{
	struct error err = {0};
	va_list ap;

	va_start(ap, fmt);
	error_setv(&err, -EINVAL, code, fmt, ap);
	va_end(ap);
	conn_refuse(c, status, &err);
}

/* Can the body that the header announces be read? */
static void conn_check_body(struct rest_conn *c)
{
	const struct http_head *h = &c->head;
	size_t max = c->server->limits.body;

	if (h->chunked) {
		conn_refusef(c, 411, "length-required",
			     "Transfer-Encoding is not supported; send Content-Length");
	} else if (h->length > max) {
		conn_refusef(c, 413, "too-large", "the body has %llu bytes, %zu are allowed",
			     (unsigned long long)h->length, max);
	} else {
		c->state = CONN_BODY;
		if (h->expect && h->length)
			evbuffer_add_printf(bufferevent_get_output(c->bev),
					    "HTTP/1.1 100 Continue\r\n\r\n");
	}
}

/* Return: was a whole header taken off the input? */
static bool conn_read_head(struct rest_conn *c)
{
	struct evbuffer *in = bufferevent_get_input(c->bev);
	struct error err = {0};
	size_t max = c->server->limits.head;
	ssize_t len;
	char *text;
	int status;

	if (!c->started && evbuffer_get_length(in)) {
		c->started = true;
		conn_arm(c, c->server->limits.request_ms);
	}
	len = http_head_take(in, max, &c->scanned, &text);
	if (len == -E2BIG) {
		conn_refusef(c, 431, "too-large", "the request's header has more than %zu bytes",
			     max);
		return false;
	}
	if (len <= 0) /* -ENOMEM: the deadline ends it */
		return false;
	status = http_parse_request(&c->head, text, (size_t)len, &err);
	c->keep = !status && c->head.keep_alive;
	if (status)
		conn_refuse(c, status, &err);
	else
		conn_check_body(c);
	return true;
}

static void conn_dispatch(struct rest_conn *c)
{
	struct evbuffer *in = bufferevent_get_input(c->bev);
	size_t len = (size_t)c->head.length;
	struct rest_server *s = c->server;
	CLEANUP_FREE char *body = malloc(len + 1);
	struct error err = {0};
	struct rest_req *req;
	int r = body ? rest_req_new(&c->head, &req, &err) : -ENOMEM;

	if (r < 0) {
		r = 503;
		error_set(&err, -ENOMEM, "enomem", "out of memory");
	}
	if (r) {
		conn_refuse(c, r, &err);
		return;
	}
	evbuffer_remove(in, body, len);
	log_debug("rest: %s %s", req->head.method, req->path);
	req->conn = c;
	req->peer = c->peer;
	c->req = req;
	c->state = CONN_HANDLER;
	event_del(c->deadline);
	rest_req_dispatch(req, s->routes, s->n_routes, body, len, s->ctx);
}

/* Go on with what has been read. At most one request: the next one waits for its answer. */
static void conn_process(struct rest_conn *c)
{
	if (c->state == CONN_HEAD && !conn_read_head(c))
		return;
	if (c->state == CONN_BODY &&
	    evbuffer_get_length(bufferevent_get_input(c->bev)) >= c->head.length)
		conn_dispatch(c);
}

static void conn_read(struct bufferevent *bev, void *arg)
{
	struct rest_conn *c = arg;

	if (c->state == CONN_DRAIN)
		evbuffer_drain(bufferevent_get_input(bev), SIZE_MAX);
	else
		conn_process(c);
}

static void conn_written(struct bufferevent *bev, void *arg)
{
	struct rest_conn *c = arg;

	if (c->state != CONN_WRITING || evbuffer_get_length(bufferevent_get_output(bev)))
		return;
	http_head_clear(&c->head);
	if (c->keep) {
		c->state = CONN_HEAD;
		c->started = false;
		c->scanned = 0;
		conn_arm(c, c->server->limits.idle_ms);
		conn_process(c);
		return;
	}
	c->state = CONN_DRAIN;
	conn_arm(c, DRAIN_MS);
	shutdown(bufferevent_getfd(bev), SHUT_WR);
	evbuffer_drain(bufferevent_get_input(bev), SIZE_MAX);
}

/* Both directions are over, as opposed to a client that only said all that it had to say. */
static bool conn_hung_up(const struct rest_conn *c)
{
	struct pollfd p = {.fd = bufferevent_getfd(c->bev)};

	return poll(&p, 1, 0) == 1 && (p.revents & (POLLHUP | POLLERR));
}

static void conn_event(struct bufferevent *bev, short what, void *arg)
{
	struct rest_conn *c = arg;

	(void)bev;
	if ((what & BEV_EVENT_EOF) && (c->state == CONN_HANDLER || c->state == CONN_WRITING) &&
	    !conn_hung_up(c)) {
		c->keep = false;
		return;
	}
	conn_free(c);
}

static void conn_deadline(evutil_socket_t fd, short what, void *arg)
{
	struct rest_conn *c = arg;

	(void)fd;
	(void)what;
	if ((c->state == CONN_HEAD && c->started) || c->state == CONN_BODY)
		conn_refusef(c, 408, "too-slow", "the request was not complete within %u ms",
			     c->server->limits.request_ms);
	else
		conn_free(c);
}

/* Whom the socket's mode lets in may do everything. */
static void see_local(struct rest_peer *p, int fd)
{
	struct ucred u = {0};
	socklen_t len = sizeof(u);

	getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &u, &len);
	*p = (struct rest_peer){.role = REST_OPERATOR, .local = true};
	p->pid = u.pid;
	p->uid = u.uid;
	p->gid = u.gid;
	snprintf(p->name, sizeof(p->name), "uid:%u", p->uid);
	snprintf(p->who, sizeof(p->who), "%s (pid %d)", p->name, (int)p->pid);
}

static void conn_new(struct rest_server *s, int fd)
{
	struct rest_conn *c = calloc(1, sizeof(*c));
	struct event_base *base = loop_base(s->loop);

	if (!c) {
		close(fd);
		return;
	}
	c->server = s;
	TAILQ_INSERT_TAIL(&s->conns, c, link);
	s->n_conns++;
	see_local(&c->peer, fd);
	c->deadline = evtimer_new(base, conn_deadline, c);
	c->bev = bufferevent_socket_new(base, fd, BEV_OPT_CLOSE_ON_FREE);
	if (!c->bev)
		close(fd);
	if (!c->bev || !c->deadline) {
		conn_free(c);
		return;
	}
	/* A client that sends ahead of its answers is not read further than one request. */
	bufferevent_setwatermark(c->bev, EV_READ, 0, s->limits.head + s->limits.body);
	bufferevent_setcb(c->bev, conn_read, conn_written, conn_event, c);
	bufferevent_enable(c->bev, EV_READ | EV_WRITE);
	conn_arm(c, s->limits.idle_ms);
}

/* No connection is made for it, so that a crowd of clients costs nothing. */
static void accept_refuse(int fd)
{
	static const char body[] =
		"{\"type\":\"about:blank\",\"title\":\"Service Unavailable\",\"status\":503,"
		"\"detail\":\"too many connections\",\"code\":\"too-many-connections\"}\n";
	char text[sizeof(body) + 200];
	int n = snprintf(text, sizeof(text),
			 "HTTP/1.1 503 %s\r\nContent-Type: application/problem+json\r\n"
			 "Content-Length: %zu\r\nConnection: close\r\nRetry-After: 1\r\n\r\n%s",
			 http_reason(503), sizeof(body) - 1, body);

	send(fd, text, (size_t)n, MSG_NOSIGNAL | MSG_DONTWAIT);
	close(fd);
}

static void accept_conn(struct evconnlistener *ev, evutil_socket_t fd, struct sockaddr *sa, int len,
			void *arg)
{
	struct rest_listener *l = arg;

	(void)ev;
	(void)sa;
	(void)len;
	if (l->server->n_conns < l->server->limits.connections)
		conn_new(l->server, fd);
	else
		accept_refuse(fd);
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

static void listener_free(struct rest_listener *l)
{
	struct stat st;

	if (l->resume)
		event_free(l->resume);
	if (l->ev) {
		if (!stat(l->path, &st) && st.st_dev == l->dev && st.st_ino == l->ino)
			unlink(l->path);
		evconnlistener_free(l->ev);
	}
	free(l->path);
	free(l);
}

int rest_server_listen(struct rest_server *s, const char *where, struct error *err)
{
	struct rest_listener *l;
	const char *path;
	struct stat st;
	int fd, r;

	r = rest_addr_unix(where, &path, err);
	if (r < 0)
		return r;
	fd = fdio_unix_listen(path, SOCK_STREAM, 0660, err);
	if (fd < 0)
		return fd;
	l = calloc(1, sizeof(*l));
	if (l) {
		l->server = s;
		l->path = strdup(path);
		l->ev = evconnlistener_new(loop_base(s->loop), accept_conn, l,
					   LEV_OPT_CLOSE_ON_FREE | LEV_OPT_CLOSE_ON_EXEC, 0, fd);
	}
	if (!l || !l->ev || !l->path || stat(path, &st) < 0) {
		if (!l || !l->ev)
			close(fd);
		if (l)
			listener_free(l);
		return error_set(err, -ENOMEM, NULL, "%s: out of memory", where);
	}
	l->dev = st.st_dev;
	l->ino = st.st_ino;
	evconnlistener_set_error_cb(l->ev, accept_failed);
	TAILQ_INSERT_TAIL(&s->listeners, l, link);
	return 0;
}

struct rest_server *rest_server_new(struct loop *l, const struct rest_route *routes, size_t n,
				    const struct rest_limits *limits, void *ctx)
{
	struct rest_server *s = calloc(1, sizeof(*s));

	if (!s)
		return NULL;
	s->loop = l;
	s->routes = routes;
	s->n_routes = n;
	s->ctx = ctx;
	TAILQ_INIT(&s->conns);
	TAILQ_INIT(&s->listeners);
	s->limits = limits ? *limits : (struct rest_limits){0};
	s->limits.body = s->limits.body ?: BODY_DEFAULT;
	s->limits.head = s->limits.head ?: HEAD_DEFAULT;
	s->limits.connections = s->limits.connections ?: CONNECTIONS_DEFAULT;
	s->limits.request_ms = s->limits.request_ms ?: REQUEST_MS_DEFAULT;
	s->limits.idle_ms = s->limits.idle_ms ?: IDLE_MS_DEFAULT;
	return s;
}

void rest_server_free(struct rest_server *s)
{
	struct rest_listener *l;
	struct rest_conn *c;

	if (!s)
		return;
	while ((l = TAILQ_FIRST(&s->listeners))) {
		TAILQ_REMOVE(&s->listeners, l, link);
		listener_free(l);
	}
	while ((c = TAILQ_FIRST(&s->conns)))
		conn_free(c);
	free(s);
}
