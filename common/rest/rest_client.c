/* SPDX-License-Identifier: Apache-2.0 */
#include "rest/rest_client.h"

#include <errno.h>
#include <event2/bufferevent.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include "rest/http.h"
#include "rest/rest_addr.h"
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
 * @bev:	the connection, NULL until then
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
	struct bufferevent *bev;
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
	if (call->bev)
		bufferevent_free(call->bev);
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
	struct evbuffer *in = bufferevent_get_input(call->bev);
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
		len = http_head_take(bufferevent_get_input(call->bev), HEAD_MAX, &call->scanned,
				     &text);
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

static void call_read(struct bufferevent *bev, void *arg)
{
	size_t have = evbuffer_get_length(bufferevent_get_input(bev));
	struct rest_call *call = arg;

	if (!call->head.status && call_head(call) <= 0)
		return;
	have = evbuffer_get_length(bufferevent_get_input(bev));
	if (call->head.has_length || call->head.status == 204) {
		if (have >= call->head.length)
			call_answer(call, call->head.length);
	} else if (have > ANSWER_MAX) {
		call_fail(call, -EBADMSG, "bad-answer", "the answer is too long");
	}
}

static void call_event(struct bufferevent *bev, short what, void *arg)
{
	struct rest_call *call = arg;
	int e = EVUTIL_SOCKET_ERROR();

	/* An agent that refuses early closes while we still write: what it said comes first. */
	if (what & BEV_EVENT_WRITING)
		return;
	if ((what & BEV_EVENT_EOF) && call->head.status && !call->head.has_length) {
		call_answer(call, evbuffer_get_length(bufferevent_get_input(bev)));
		return;
	}
	e = (what & BEV_EVENT_EOF) || !e ? ECONNRESET : e;
	call_fail(call, -e, "unreachable",
		  call->head.status ? "connection lost in the middle of the answer"
				    : "connection lost before the answer");
}

static void call_deadline(evutil_socket_t fd, short what, void *arg)
{
	(void)fd;
	(void)what;
	call_fail(arg, -ETIMEDOUT, "unreachable", "no answer in time");
}

/* Return: 0 connected, -EAGAIN its queue is full, -errno */
static int call_connect(struct rest_call *call)
{
	CLEANUP_CLOSE int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	if (fd < 0)
		return -errno;
	if (connect(fd, (struct sockaddr *)&call->addr, sizeof(call->addr)) < 0)
		return -errno;
	call->bev = bufferevent_socket_new(call->base, fd, BEV_OPT_CLOSE_ON_FREE);
	if (!call->bev)
		return -ENOMEM;
	steal_fd(&fd);
	bufferevent_setcb(call->bev, call_read, NULL, call_event, call);
	bufferevent_setwatermark(call->bev, EV_READ, 0, HEAD_MAX + ANSWER_MAX);
	bufferevent_enable(call->bev, EV_READ | EV_WRITE);
	return bufferevent_write_buffer(call->bev, call->out) < 0 ? -ENOMEM : 0;
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

static int call_request(struct rest_call *call, const struct rest_call_spec *spec)
{
	char *text = spec->body ? json_dumps(spec->body, JSON_COMPACT) : NULL;
	int bad = spec->body && !text;

	bad |= evbuffer_add_printf(
		       call->out,
		       "%s %s HTTP/1.1\r\nHost: localhost\r\nAccept: application/json\r\n"
		       "Connection: close\r\n",
		       spec->method, spec->path) < 0;
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

static int call_init(struct rest_call *call, const struct rest_call_spec *spec)
{
	unsigned int ms = spec->timeout_ms ? spec->timeout_ms : REST_CALL_TIMEOUT_MS;
	struct timeval tv = {ms / 1000, (long)(ms % 1000) * 1000};
	static const struct timeval soon = {0, RETRY_US};
	int r;

	call->api = strdup(spec->api);
	call->out = evbuffer_new();
	call->deadline = evtimer_new(call->base, call_deadline, call);
	call->retry = evtimer_new(call->base, call_retry, call);
	if (!call->api || !call->out || !call->deadline || !call->retry)
		return -ENOMEM;
	r = call_request(call, spec);
	if (r < 0)
		return r;
	r = call_connect(call);
	if (r == -EAGAIN)
		r = event_add(call->retry, &soon);
	if (r < 0)
		return r;
	return event_add(call->deadline, &tv) < 0 ? -ENOMEM : 0;
}

int rest_call_start(struct event_base *base, const struct rest_call_spec *spec, rest_call_fn *fn,
		    void *arg, struct rest_call **ret, struct error *err)
{
	struct rest_call *call;
	const char *path;
	int r;

	r = rest_addr_unix(spec->api, &path, err);
	if (r < 0)
		return r;
	call = calloc(1, sizeof(*call));
	if (!call)
		return error_set(err, -ENOMEM, NULL, "out of memory");
	call->base = base;
	call->fn = fn;
	call->arg = arg;
	call->addr.sun_family = AF_UNIX;
	strcpy(call->addr.sun_path, path); /* rest_addr_unix() has looked at its length */
	r = call_init(call, spec);
	if (r < 0) {
		rest_call_cancel(call);
		return error_set(err, r, "unreachable", "%s: %s", spec->api, connect_error(-r));
	}
	if (ret)
		*ret = call;
	return 0;
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

int rest_call(const struct rest_call_spec *spec, struct rest_answer *ret, struct error *err)
{
	struct event_base *base = event_base_new();
	struct waiting w = {0};
	int r;

	if (!base)
		return error_set(err, -ENOMEM, NULL, "out of memory");
	r = rest_call_start(base, spec, call_waited, &w, NULL, err);
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
