/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Connections. Each is one small state machine on its bytes (rest_io.h).
 *
 * None of DECANT's eight rules but the sixth is within reach of this: everything that a client sends or keeps us
 * waiting for is bounded in bytes, time and number, on a loop that does nothing that waits.
 */
#include "rest/rest_int.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>
#include "util/cleanup.h"
#include "util/clock.h"
#include "util/log.h"

#define BODY_DEFAULT        (1u << 20)
#define HEAD_DEFAULT        (16u << 10)
#define CONNECTIONS_DEFAULT 64
#define PER_ADDRESS_DEFAULT 32
#define STREAMS_DEFAULT     32
#define REQUEST_MS_DEFAULT  10000
#define IDLE_MS_DEFAULT     60000
/* How long a client that we refuse may go on sending before it must have read the answer. */
#define DRAIN_MS 2000

void rest_conn_arm(struct rest_conn *c, unsigned int ms)
{
	struct timeval tv = {ms / 1000, (long)(ms % 1000) * 1000};

	event_add(c->deadline, &tv);
}

void rest_conn_free(struct rest_conn *c)
{
	struct rest_req *req = c->req;
	bool streamed = c->state == CONN_STREAM;
	struct rest_stream st = c->stream;

	TAILQ_REMOVE(&c->server->conns, c, link);
	rest_turn_leave(c);
	c->listener->n_conns--;
	c->server->n_streams -= streamed;
	http_head_clear(&c->head);
	if (c->deadline)
		event_free(c->deadline);
	rest_io_free(c->io);
	free(c);
	if (streamed && st.ops)
		st.ops->gone(st.arg);
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

void rest_conn_head(struct rest_conn *c, int status, const char *type)
{
	struct evbuffer *out = rest_io_out(c->io);

	evbuffer_add_printf(out, "HTTP/1.1 %d %s\r\n", status, http_reason(status));
	add_date(out);
	if (type)
		evbuffer_add_printf(out, "Content-Type: %s\r\n", type);
	evbuffer_add_printf(out, "Cache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\n");
	if (!c->keep)
		evbuffer_add_printf(out, "Connection: close\r\n");
}

void rest_conn_send(struct rest_conn *c, int status, const char *type, struct evbuffer *body,
		    struct evbuffer *extra, bool head_only)
{
	struct evbuffer *out = rest_io_out(c->io);

	if (!body && status != 204 && status >= 400)
		c->keep = false; /* out of memory: the status alone has to do */
	rest_conn_head(c, status, body ? type : NULL);
	if (status != 204)
		evbuffer_add_printf(out, "Content-Length: %zu\r\n",
				    body ? evbuffer_get_length(body) : 0);
	if (extra)
		evbuffer_add_buffer(out, extra);
	evbuffer_add(out, "\r\n", 2);
	if (body && !head_only)
		evbuffer_add_buffer(out, body);
	c->req = NULL;
	c->state = CONN_WRITING;
	rest_conn_arm(c, c->server->limits.idle_ms);
	rest_io_send(c->io);
}

/* Refuse what HTTP itself forbids. Where the request ends is not known any more: the last answer. */
static void conn_refuse(struct rest_conn *c, int status, struct evbuffer *extra,
			const struct error *err)
{
	json_t *json = rest_problem_json(status, err);
	struct evbuffer *body = rest_json_text(json);

	log_debug("rest: refused with %d: %s", status, err->msg);
	c->keep = false;
	rest_conn_send(c, status, "application/problem+json", body, extra, false);
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
	conn_refuse(c, status, NULL, &err);
}

/* A line of header for a refusal. */
static void conn_refuse_with(struct rest_conn *c, int status, const char *field, const char *code,
			     const char *msg)
{
	struct evbuffer *extra = evbuffer_new();
	struct error err = {0};

	error_set(&err, -EACCES, code, "%s", msg);
	if (extra)
		evbuffer_add_printf(extra, "%s\r\n", field);
	conn_refuse(c, status, extra, &err);
	if (extra)
		evbuffer_free(extra);
}

/* --- who is it? --- */

static void name_peer(struct rest_peer *p)
{
	if (!p->local && *p->name)
		snprintf(p->who, sizeof(p->who), "%s from %s", p->name, p->address);
}

/*
 * What a token says counts more than the certificate: a wrong one is never overlooked. Return: false after a
 * refusal
 */
static bool conn_authorize(struct rest_conn *c)
{
	const char *value = http_head_get(&c->head, "Authorization");

	c->peer = c->socket_peer;
	if (c->peer.local || !value)
		return true;
	c->peer.role = REST_PUBLIC;
	if (rest_auth_header(c->server->auth, value, &c->peer)) {
		name_peer(&c->peer);
		return true;
	}
	log_info("rest: %s has sent a token that is not known", c->peer.who);
	conn_refuse_with(c, 401,
			 "WWW-Authenticate: Bearer realm=\"decant\", error=\"invalid_token\"",
			 "bad-token", "the token is not one of api.token_file's");
	return false;
}

/*
 * A browser that shows somebody else's page must not act for whoever holds a certificate. What is no browser
 * sends no Origin.
 */
static bool conn_same_origin(struct rest_conn *c)
{
	const char *origin = http_head_get(&c->head, "Origin");
	const char *host = http_head_get(&c->head, "Host");
	const char *at = origin ? strstr(origin, "://") : NULL;

	if (!origin || (at && host && !strcasecmp(at + 3, host)))
		return true;
	conn_refuse_with(c, 403, "Vary: Origin", "cross-origin",
			 "the request comes from a page of another site");
	return false;
}

/* Can the body that the header announces be read? */
static void conn_check_body(struct rest_conn *c)
{
	const struct http_head *h = &c->head;
	size_t max = c->server->limits.body;

	if (!conn_authorize(c) || !conn_same_origin(c))
		return;
	if (h->chunked) {
		conn_refusef(c, 411, "length-required",
			     "Transfer-Encoding is not supported; send Content-Length");
	} else if (h->length && c->peer.role == REST_PUBLIC) {
		conn_refuse_with(c, 401, "WWW-Authenticate: Bearer realm=\"decant\"", "who-are-you",
				 "a token or a listed certificate is needed");
	} else if (h->length > max) {
		conn_refusef(c, 413, "too-large", "the body has %llu bytes, %zu are allowed",
			     (unsigned long long)h->length, max);
	} else {
		c->state = CONN_BODY;
		if (h->expect && h->length) {
			evbuffer_add_printf(rest_io_out(c->io), "HTTP/1.1 100 Continue\r\n\r\n");
			rest_io_send(c->io);
		}
	}
}

/* Return: was a whole header taken off the input? */
static bool conn_read_head(struct rest_conn *c)
{
	struct evbuffer *in = rest_io_in(c->io);
	struct error err = {0};
	size_t max = c->server->limits.head;
	ssize_t len;
	char *text;
	int status;

	if (!c->started && evbuffer_get_length(in)) {
		c->started = true;
		/* Of a stranger the whole beginning counts, which is running already. */
		if (c->served || c->socket_peer.local)
			rest_conn_arm(c, c->server->limits.request_ms);
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
		conn_refuse(c, status, NULL, &err);
	else
		conn_check_body(c);
	return true;
}

void rest_conn_dispatch(struct rest_conn *c)
{
	struct evbuffer *in = rest_io_in(c->io);
	size_t len = (size_t)c->head.length;
	struct rest_server *s = c->server;
	CLEANUP_FREE char *body = malloc(len + 1);
	struct error err = {0};
	uint64_t us = clock_thread_us();
	struct rest_req *req;
	int r = body ? rest_req_new(&c->head, &req, &err) : -ENOMEM;

	if (r < 0) {
		r = 503;
		error_set(&err, -ENOMEM, "enomem", "out of memory");
	}
	if (r) {
		conn_refuse(c, r, NULL, &err);
		return;
	}
	evbuffer_remove(in, body, len);
	log_debug("rest: %s %s %s", c->peer.who, req->head.method, req->path);
	req->conn = c;
	req->peer = c->peer;
	c->req = req;
	c->served = true;
	c->state = CONN_HANDLER;
	event_del(c->deadline);
	rest_req_dispatch(req, s, body, len);
	rest_turn_spent(s, clock_thread_us() - us);
}

/* Go on with what has been read. At most one request: the next one waits for its answer. */
static void conn_process(struct rest_conn *c)
{
	if (c->state == CONN_HEAD && !conn_read_head(c))
		return;
	if (c->state == CONN_BODY && evbuffer_get_length(rest_io_in(c->io)) >= c->head.length &&
	    rest_turn_take(c))
		rest_conn_dispatch(c);
}

/* --- what the bytes tell --- */

static void conn_input(void *arg)
{
	struct rest_conn *c = arg;

	if (c->state == CONN_DRAIN || c->state == CONN_STREAM)
		evbuffer_drain(rest_io_in(c->io), SIZE_MAX);
	else if (!c->surplus)
		conn_process(c);
	if (!rest_io_ended(c->io))
		return;
	/* Who has only said all that he had to say still gets his answer. */
	if ((c->waits || c->state == CONN_HANDLER || c->state == CONN_WRITING) &&
	    !rest_io_hung_up(c->io))
		c->keep = false;
	else
		rest_conn_free(c);
}

static void conn_written(void *arg)
{
	struct rest_conn *c = arg;

	if (c->state == CONN_STREAM) {
		event_del(c->deadline);
		c->stream.ops->drained(c->stream.arg);
		return;
	}
	if (c->state != CONN_WRITING)
		return;
	http_head_clear(&c->head);
	if (c->keep) {
		c->state = CONN_HEAD;
		c->started = false;
		c->scanned = 0;
		rest_conn_arm(c, c->server->limits.idle_ms);
		conn_process(c);
		return;
	}
	c->state = CONN_DRAIN;
	rest_conn_arm(c, DRAIN_MS);
	rest_io_finish(c->io);
	evbuffer_drain(rest_io_in(c->io), SIZE_MAX);
	if (rest_io_ended(c->io))
		rest_conn_free(c);
}

static void conn_lost(void *arg, const struct error *why)
{
	struct rest_conn *c = arg;

	log_debug("rest: %s: %s", c->socket_peer.who, why->msg);
	rest_conn_free(c);
}

/* TLS is there: now it is known who it is, and he can be told what is wrong. */
static void conn_ready(void *arg)
{
	struct rest_conn *c = arg;

	rest_auth_tls(c->server->auth, rest_io_tls(c->io), &c->socket_peer);
	name_peer(&c->socket_peer);
	if (c->surplus)
		conn_refuse_with(c, 429, "Retry-After: 1", "too-many-connections",
				 "too many connections");
}

static const struct rest_io_ops conn_ops = {
	.ready = conn_ready,
	.input = conn_input,
	.written = conn_written,
	.lost = conn_lost,
};

static void conn_deadline(evutil_socket_t fd, short what, void *arg)
{
	struct rest_conn *c = arg;

	(void)fd;
	(void)what;
	if ((c->state == CONN_HEAD && c->started) || c->state == CONN_BODY)
		conn_refusef(c, 408, "too-slow", "the request was not complete within %u ms",
			     c->server->limits.request_ms);
	else
		rest_conn_free(c);
}

/* Return: NULL when out of memory; @fd is gone then */
static struct rest_io *conn_io(struct rest_conn *c, int fd)
{
	const struct rest_limits *max = &c->server->limits;
	struct tls_chan *tls = NULL;

	if (c->listener->addr.kind == REST_HTTPS && tls_chan_accept(c->server->tls, fd, &tls) < 0) {
		close(fd);
		return NULL;
	}
	/* A client that sends ahead of its answers is not read further than one request. */
	return rest_io_new(loop_base(c->server->loop), tls ? -1 : fd, tls, max->head + max->body,
			   &conn_ops, c);
}

void rest_conn_new(struct rest_listener *l, int fd, const struct rest_peer *peer, bool surplus)
{
	struct rest_server *s = l->server;
	struct rest_conn *c = calloc(1, sizeof(*c));

	if (!c) {
		close(fd);
		return;
	}
	c->server = s;
	c->listener = l;
	c->surplus = surplus;
	c->socket_peer = c->peer = *peer;
	TAILQ_INSERT_TAIL(&s->conns, c, link);
	l->n_conns++;
	c->deadline = evtimer_new(loop_base(s->loop), conn_deadline, c);
	c->io = conn_io(c, fd);
	if (!c->io || !c->deadline) {
		rest_conn_free(c);
		return;
	}
	rest_conn_arm(c, peer->local ? s->limits.idle_ms : s->limits.request_ms);
}

/* --- the server --- */

struct rest_server *rest_server_new(struct loop *l, const struct rest_route *routes, size_t n,
				    const struct rest_limits *limits, void *ctx)
{
	struct rest_server *s = calloc(1, sizeof(*s));

	if (s)
		s->idem = rest_idem_new();
	if (!s || !s->idem) {
		free(s);
		return NULL;
	}
	s->loop = l;
	s->routes = routes;
	s->n_routes = n;
	s->ctx = ctx;
	TAILQ_INIT(&s->conns);
	TAILQ_INIT(&s->listeners);
	TAILQ_INIT(&s->waiting);
	s->limits = limits ? *limits : (struct rest_limits){0};
	s->limits.body = s->limits.body ?: BODY_DEFAULT;
	s->limits.head = s->limits.head ?: HEAD_DEFAULT;
	s->limits.connections = s->limits.connections ?: CONNECTIONS_DEFAULT;
	s->limits.per_address = s->limits.per_address ?: PER_ADDRESS_DEFAULT;
	s->limits.streams = s->limits.streams ?: STREAMS_DEFAULT;
	s->limits.request_ms = s->limits.request_ms ?: REQUEST_MS_DEFAULT;
	s->limits.idle_ms = s->limits.idle_ms ?: IDLE_MS_DEFAULT;
	return s;
}

void rest_server_tls(struct rest_server *s, struct tls_ctx *ctx)
{
	tls_ctx_ref(ctx);
	tls_ctx_unref(s->tls);
	s->tls = ctx;
}

void rest_server_auth(struct rest_server *s, struct rest_auth *auth)
{
	rest_auth_free(s->auth);
	s->auth = auth;
}

void rest_server_watch(struct rest_server *s, rest_answered_fn *fn)
{
	s->watch = fn;
}

int rest_server_keep(struct rest_server *s, const char *path, struct error *err)
{
	return rest_idem_keep(s->idem, path, err);
}

void rest_server_free(struct rest_server *s)
{
	struct rest_listener *l;
	struct rest_conn *c;

	if (!s)
		return;
	while ((c = TAILQ_FIRST(&s->conns)))
		rest_conn_free(c);
	while ((l = TAILQ_FIRST(&s->listeners))) {
		TAILQ_REMOVE(&s->listeners, l, link);
		rest_listener_free(l);
	}
	if (s->turn)
		event_free(s->turn);
	rest_auth_free(s->auth);
	tls_ctx_unref(s->tls);
	rest_idem_unref(s->idem);
	free(s);
}
