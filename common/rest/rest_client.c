/* SPDX-License-Identifier: Apache-2.0 */
#include "rest/rest_client.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include "rest/http.h"
#include "rest/rest_addr.h"
#include "rest/rest_io.h"
#include "util/cleanup.h"

/* An answer is a page of a list at most; an agent that sends more is not one. */
#define ANSWER_MAX (16u << 20)
#define HEAD_MAX   (64u << 10)
/* Pause before trying again a socket whose queue of connections is full. */
#define RETRY_US 50000

/**
 * struct rest_call - one call under way
 * @base:	whose thread runs all of it
 * @addr:	of the agent's socket
 * @api:	the address as it was given, for messages; owned
 * @out:	the request until there is a connection to write it to
 * @io:		the connection, NULL until then
 * @deadline:	of the whole call
 * @retry:	armed while the agent's queue of connections is full
 * @scanned:	see http_head_take()
 * @head:	of the answer; its status is 0 until it is there
 * @fn, @arg:	see rest_call_fn
 */
struct rest_call {
	struct event_base *base;
	struct sockaddr_un addr;
	char *api;
	struct evbuffer *out;
	struct rest_io *io;
	struct event *deadline;
	struct event *retry;
	size_t scanned;
	struct http_head head;
	rest_call_fn *fn;
	void *arg;
};

void rest_answer_clear(struct rest_answer *a)
{
	json_decref(a->json);
	*a = (struct rest_answer){0};
}

char *rest_encode(const char *s)
{
	return http_encode(s);
}

void rest_call_cancel(struct rest_call *call)
{
	if (!call)
		return;
	if (call->deadline)
		event_free(call->deadline);
	if (call->retry)
		event_free(call->retry);
	rest_io_free(call->io);
	if (call->out)
		evbuffer_free(call->out);
	http_head_clear(&call->head);
	free(call->api);
	free(call);
}

static void call_end(struct rest_call *call, int ret, const struct rest_answer *a,
		     const struct error *err)
{
	rest_call_fn *fn = call->fn;
	void *arg = call->arg;

	rest_call_cancel(call);
	fn(arg, ret, a, err);
}

static void call_fail(struct rest_call *call, int ret, const char *code, const char *why)
{
	struct error err = {0};

	error_set(&err, ret, code, "%s: %s", call->api, why);
	call_end(call, ret, NULL, &err);
}

/* Errors of the agent become ours: its words if it has some, else those of the status. */
static void answer_problem(struct rest_answer *a)
{
	const char *code = json_string_value(json_object_get(a->json, "code"));
	const char *detail = json_string_value(json_object_get(a->json, "detail"));

	if (a->status >= 400)
		error_set(&a->problem, -EIO, code && *code ? code : "http-error", "%s",
			  detail ? detail : http_reason(a->status));
}

static void call_answer(struct rest_call *call, size_t len)
{
	struct evbuffer *in = rest_io_in(call->io);
	struct rest_answer a = {.status = call->head.status};
	const char *type = http_head_get(&call->head, "Content-Type");

	if (len) {
		const char *text = (const char *)evbuffer_pullup(in, (ev_ssize_t)len);

		a.json = text ? json_loadb(text, len, JSON_DECODE_ANY, NULL) : NULL;
		if (!a.json) {
			call_fail(call, -EBADMSG, "bad-answer",
				  type && strstr(type, "json") ? "the answer is no valid JSON"
							       : "the answer is no JSON");
			return;
		}
	}
	answer_problem(&a);
	call_end(call, 0, &a, NULL);
	rest_answer_clear(&a);
}

/* Return: 1 when the head is there, 0 when not yet, -errno after the call has ended */
static int call_head(struct rest_call *call)
{
	struct error err = {0};
	ssize_t len;
	char *text;

	while (!call->head.status) {
		len = http_head_take(rest_io_in(call->io), HEAD_MAX, &call->scanned, &text);
		if (!len)
			return 0;
		if (len < 0) {
			call_fail(call, -EBADMSG, "bad-answer", "the answer's header is too long");
			return -EBADMSG;
		}
		if (http_parse_response(&call->head, text, (size_t)len, &err) < 0) {
			call_fail(call, -EBADMSG, "bad-answer", err.msg);
			return -EBADMSG;
		}
		if (call->head.status < 200) /* "100 Continue": the answer is still to come */
			http_head_clear(&call->head);
	}
	if (!call->head.chunked && call->head.length <= ANSWER_MAX)
		return 1;
	call_fail(call, -EBADMSG, "bad-answer",
		  call->head.chunked ? "the answer has no Content-Length"
				     : "the answer is too long");
	return -EBADMSG;
}

static void call_ended(struct rest_call *call)
{
	if (call->head.status && !call->head.has_length)
		call_answer(call, evbuffer_get_length(rest_io_in(call->io)));
	else
		call_fail(call, -ECONNRESET, "unreachable",
			  call->head.status ? "connection lost in the middle of the answer"
					    : "connection lost before the answer");
}

/* An agent that refuses early closes while we still write: what it said comes first. */
static void call_read(void *arg)
{
	struct rest_call *call = arg;
	bool ended = rest_io_ended(call->io);
	int r = call->head.status ? 1 : call_head(call);
	size_t have;

	if (r < 0)
		return;
	have = evbuffer_get_length(rest_io_in(call->io));
	if (r && (call->head.has_length || call->head.status == 204) && have >= call->head.length)
		call_answer(call, call->head.length);
	else if (r && have > ANSWER_MAX)
		call_fail(call, -EBADMSG, "bad-answer", "the answer is too long");
	else if (ended)
		call_ended(call);
}

static void call_written(void *arg)
{
	(void)arg;
}

/* A refusal by TLS reaches a client only when it reads. */
static void call_lost(void *arg, const struct error *why)
{
	struct rest_call *call = arg;

	if (rest_io_tls(call->io) && *why->code && !call->head.status)
		call_fail(call, -ECONNRESET, why->code, why->msg);
	else
		call_ended(call);
}

static const struct rest_io_ops call_ops = {
	.input = call_read,
	.written = call_written,
	.lost = call_lost,
};

static void call_deadline(evutil_socket_t fd, short what, void *arg)
{
	(void)fd;
	(void)what;
	call_fail(arg, -ETIMEDOUT, "unreachable", "no answer in time");
}

/* Either is taken over. Return: 0 or -ENOMEM */
static int call_use(struct rest_call *call, int fd, struct tls_chan *tls)
{
	call->io = rest_io_new(call->base, fd, tls, HEAD_MAX + ANSWER_MAX, &call_ops, call);
	if (!call->io || evbuffer_add_buffer(rest_io_out(call->io), call->out) < 0)
		return -ENOMEM;
	rest_io_send(call->io);
	return 0;
}

/* Return: 0 connected, -EAGAIN its queue is full, -errno */
static int call_connect(struct rest_call *call)
{
	CLEANUP_CLOSE int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	if (fd < 0)
		return -errno;
	if (connect(fd, (struct sockaddr *)&call->addr, sizeof(call->addr)) < 0)
		return -errno;
	return call_use(call, steal_fd(&fd), NULL);
}

static const char *connect_error(int e)
{
	switch (e) {
	case ENOENT:
	case ECONNREFUSED:
		return "no agent listens there (is it running? see --api)";
	case EACCES:
		return "permission denied: the socket is for root and its group";
	default:
		return strerror(e);
	}
}

static void call_retry(evutil_socket_t fd, short what, void *arg)
{
	static const struct timeval pause = {0, RETRY_US};
	struct rest_call *call = arg;
	int r = call_connect(call);

	(void)fd;
	(void)what;
	if (r == -EAGAIN)
		event_add(call->retry, &pause);
	else if (r < 0)
		call_fail(call, r, "unreachable", connect_error(-r));
}

static const char *host_of(const char *api)
{
	return strncmp(api, "https://", 8) ? "localhost" : api + 8;
}

static int call_request(struct rest_call *call, const struct rest_call_spec *spec)
{
	char *text = spec->body ? json_dumps(spec->body, JSON_COMPACT) : NULL;
	int bad = spec->body && !text;

	bad |= evbuffer_add_printf(call->out,
				   "%s %s HTTP/1.1\r\nHost: %s\r\nAccept: application/json\r\n"
				   "Connection: close\r\n",
				   spec->method, spec->path, host_of(spec->api)) < 0;
	if (spec->creds && spec->creds->token)
		bad |= evbuffer_add_printf(call->out, "Authorization: Bearer %s\r\n",
					   spec->creds->token) < 0;
	if (spec->idempotency_key)
		bad |= evbuffer_add_printf(call->out, "Idempotency-Key: %s\r\n",
					   spec->idempotency_key) < 0;
	if (text)
		bad |= evbuffer_add_printf(call->out,
					   "Content-Type: application/json\r\n"
					   "Content-Length: %zu\r\n",
					   strlen(text)) < 0;
	bad |= evbuffer_add_printf(call->out, "\r\n%s", text ? text : "") < 0;
	free(text);
	return bad ? -ENOMEM : 0;
}

/* @tls: connected already and taken over, or NULL */
static int call_init(struct rest_call *call, const struct rest_call_spec *spec,
		     struct tls_chan *tls)
{
	unsigned int ms = spec->timeout_ms ? spec->timeout_ms : REST_CALL_TIMEOUT_MS;
	struct timeval tv = {ms / 1000, (long)(ms % 1000) * 1000};
	static const struct timeval soon = {0, RETRY_US};
	int r;

	call->api = strdup(spec->api);
	call->out = evbuffer_new();
	call->deadline = evtimer_new(call->base, call_deadline, call);
	call->retry = evtimer_new(call->base, call_retry, call);
	r = !call->api || !call->out || !call->deadline || !call->retry ? -ENOMEM
									: call_request(call, spec);
	if (r < 0) {
		tls_chan_free(tls);
		return r;
	}
	r = tls ? call_use(call, -1, tls) : call_connect(call);
	if (r == -EAGAIN)
		r = event_add(call->retry, &soon);
	if (r < 0)
		return r;
	return event_add(call->deadline, &tv) < 0 ? -ENOMEM : 0;
}

static int call_start(struct event_base *base, const struct rest_call_spec *spec,
		      const struct rest_addr *at, struct tls_chan *tls, rest_call_fn *fn, void *arg,
		      struct rest_call **ret, struct error *err)
{
	struct rest_call *call = calloc(1, sizeof(*call));
	int r;

	if (!call) {
		tls_chan_free(tls);
		return error_set(err, -ENOMEM, NULL, "out of memory");
	}
	call->base = base;
	call->fn = fn;
	call->arg = arg;
	call->addr.sun_family = AF_UNIX;
	memcpy(call->addr.sun_path, at->path, sizeof(call->addr.sun_path));
	r = call_init(call, spec, tls);
	if (r < 0) {
		rest_call_cancel(call);
		return error_set(err, r, "unreachable", "%s: %s", spec->api, connect_error(-r));
	}
	if (ret)
		*ret = call;
	return 0;
}

int rest_call_start(struct event_base *base, const struct rest_call_spec *spec, rest_call_fn *fn,
		    void *arg, struct rest_call **ret, struct error *err)
{
	struct rest_addr at;
	int r = rest_addr_parse(spec->api, &at, err);

	if (!r && at.kind != REST_UNIX)
		r = error_set(err, -ENOTSUP, "not-supported",
			      "\"%s\": agents ask each other by Unix sockets only", spec->api);
	return r ? r : call_start(base, spec, &at, NULL, fn, arg, ret, err);
}

/**
 * struct waiting - what rest_call() waits for
 * @done:	the callback ran
 */
struct waiting {
	bool done;
	int ret;
	struct rest_answer answer;
	struct error err;
};

static void call_waited(void *arg, int ret, const struct rest_answer *a, const struct error *err)
{
	struct waiting *w = arg;

	w->done = true;
	w->ret = ret;
	if (a) {
		w->answer = *a;
		json_incref(w->answer.json);
	} else {
		w->err = *err;
	}
}

/* Connect and shake hands; what is left of @timeout_ms is for the call. */
static int dial(const struct rest_call_spec *spec, const struct rest_addr *at,
		struct tls_chan **ret, struct error *err)
{
	static const struct rest_creds none;
	const struct rest_creds *c = spec->creds ? spec->creds : &none;
	struct tls_files files = {.ca = c->ca, .cert = c->cert, .key = c->key, .http = true};
	uint64_t us = (spec->timeout_ms ? spec->timeout_ms : REST_CALL_TIMEOUT_MS) * UINT64_C(1000);
	struct tls_ctx *ctx;
	int r;

	if (at->kind != REST_HTTPS)
		return error_set(err, -EINVAL, "bad-address",
				 "\"%s\" is neither unix:PATH nor https://HOST:PORT", spec->api);
	r = tls_ctx_new(&files, TLS_CLIENT, &ctx, err);
	if (r < 0)
		return r;
	r = tls_dial(ctx, at->host, at->port, us, -1, ret, err);
	tls_ctx_unref(ctx);
	return r;
}

int rest_call(const struct rest_call_spec *spec, struct rest_answer *ret, struct error *err)
{
	struct tls_chan *tls = NULL;
	struct event_base *base;
	struct waiting w = {0};
	struct rest_addr at;
	int r = rest_addr_parse(spec->api, &at, err);

	if (!r && at.kind != REST_UNIX)
		r = dial(spec, &at, &tls, err);
	if (r < 0)
		return r;
	base = event_base_new();
	if (!base) {
		tls_chan_free(tls);
		return error_set(err, -ENOMEM, NULL, "out of memory");
	}
	r = call_start(base, spec, &at, tls, call_waited, &w, NULL, err);
	while (r == 0 && !w.done)
		event_base_loop(base, EVLOOP_ONCE);
	event_base_free(base);
	if (r < 0)
		return r;
	if (w.ret < 0)
		return error_set(err, w.ret, w.err.code, "%s", w.err.msg);
	*ret = w.answer;
	return 0;
}
