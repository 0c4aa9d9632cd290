/* SPDX-License-Identifier: Apache-2.0 */
/* Requests: their path, query and body, the route they match, and the answers to them. */
#include "rest/rest_int.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include "util/cleanup.h"
#include "util/digest.h"

/* A larger answer is not kept for repeats; those of the agents have some KiB. */
#define KEPT_BODY_MAX (64u << 10)

void rest_req_free(struct rest_req *req)
{
	if (!req)
		return;
	http_head_clear(&req->head);
	for (size_t i = 0; i < req->n_params; i++)
		free(req->param[i].value);
	free(req->path);
	free(req->query_text);
	json_decref(req->body);
	rest_idem_unref(req->idem);
	free(req->location);
	if (req->extra)
		evbuffer_free(req->extra);
	free(req);
}

static int parse_query(struct rest_req *req, const char *query, struct error *err)
{
	char *save = NULL, *pair;

	req->query_text = strdup(query);
	if (!req->query_text)
		return -ENOMEM;
	for (pair = strtok_r(req->query_text, "&", &save); pair;
	     pair = strtok_r(NULL, "&", &save)) {
		char *value = strchr(pair, '=');

		if (req->n_query == REST_QUERY_MAX)
			return error_set(err, 400, "bad-query", "more than %d query parameters",
					 REST_QUERY_MAX);
		if (value)
			*value++ = '\0';
		if (http_decode(pair, true) < 0 || (value && http_decode(value, true) < 0))
			return error_set(err, 400, "bad-query", "bad escape in the query");
		req->query[req->n_query].name = pair;
		req->query[req->n_query++].value = value ? value : "";
	}
	return 0;
}

static int req_init(struct rest_req *req, const char *target, struct error *err)
{
	const char *query = strchr(target, '?');

	req->path = query ? strndup(target, (size_t)(query - target)) : strdup(target);
	if (!req->path)
		return -ENOMEM;
	return query ? parse_query(req, query + 1, err) : 0;
}

int rest_req_new(struct http_head *head, struct rest_req **ret, struct error *err)
{
	struct rest_req *req = calloc(1, sizeof(*req));
	int r;

	if (!req)
		return -ENOMEM;
	r = req_init(req, head->target, err);
	if (r) {
		rest_req_free(req);
		return r;
	}
	req->head = *head;
	*head = (struct http_head){0};
	req->head_only = !strcmp(req->head.method, "HEAD");
	*ret = req;
	return 0;
}

/* One segment of the pattern against one of the path; both start behind a slash. */
static bool match_segment(struct rest_req *req, const char *pat, size_t pat_len, const char *seg,
			  size_t seg_len)
{
	char *value;

	if (pat_len < 2 || pat[0] != '{')
		return pat_len == seg_len && !memcmp(pat, seg, seg_len);
	if (!seg_len || req->n_params == REST_PARAMS_MAX)
		return false;
	value = strndup(seg, seg_len);
	if (!value || http_decode(value, false) < 0) {
		free(value);
		return false;
	}
	req->param[req->n_params].name = pat + 1;
	req->param[req->n_params].name_len = pat_len - 2;
	req->param[req->n_params++].value = value;
	return true;
}

static void drop_params(struct rest_req *req)
{
	while (req->n_params)
		free(req->param[--req->n_params].value);
}

static bool match_path(struct rest_req *req, const char *pattern)
{
	const char *pat = pattern, *path = req->path;

	drop_params(req);
	while (*pat == '/' && *path == '/') {
		size_t pat_len = strcspn(++pat, "/"), seg_len = strcspn(++path, "/");

		if (!match_segment(req, pat, pat_len, path, seg_len))
			return false;
		pat += pat_len;
		path += seg_len;
	}
	return !*pat && !*path;
}

static bool method_fits(const struct rest_req *req, const struct rest_route *r)
{
	return !strcmp(r->method, req->head.method) ||
	       (req->head_only && !strcmp(r->method, "GET"));
}

/*
 * Find the route. If the path is known and only the method does not fit, @allow gets the methods
 * that do.
 */
static const struct rest_route *find_route(struct rest_req *req, const struct rest_route *routes,
					   size_t n, char *allow, size_t cap)
{
	size_t len = 0;

	*allow = '\0';
	for (size_t i = 0; i < n; i++) {
		if (!match_path(req, routes[i].pattern))
			continue;
		if (method_fits(req, &routes[i]))
			return &routes[i];
		len += (size_t)snprintf(allow + len, cap - len, "%s%s%s", len ? ", " : "",
					routes[i].method,
					strcmp(routes[i].method, "GET") ? "" : ", HEAD");
		if (len >= cap)
			break;
	}
	return NULL;
}

static bool is_json_type(const char *type)
{
	size_t n = strcspn(type, "; \t");

	return n == strlen("application/json") && !strncasecmp(type, "application/json", n);
}

/* Return: 0, or the status to refuse the body with */
static int read_body(struct rest_req *req, const char *body, size_t len, struct error *err)
{
	const char *type = http_head_get(&req->head, "Content-Type");
	json_error_t je;

	if (len && (!type || !is_json_type(type)))
		return error_set(err, 415, "bad-media-type",
				 "the body's Content-Type is %.60s, not application/json",
				 type ? type : "missing");
	if (len) {
		req->body = json_loadb(body, len, JSON_REJECT_DUPLICATES, &je);
		if (!req->body)
			return error_set(err, 400, "bad-json", "body: line %d column %d: %s",
					 je.line, je.column, je.text);
	}
	if (req->body && !json_is_object(req->body))
		return error_set(err, 400, "bad-json", "body: not a JSON object");
	if (req->route->body == REST_BODY_OBJECT && !req->body)
		return error_set(err, 400, "bad-json", "body: missing; a JSON object is needed");
	if (req->route->body != REST_BODY_OBJECT && json_object_size(req->body))
		return error_set(err, 400, "bad-json", "body: unknown key \"%.60s\"; none is taken",
				 json_object_iter_key(json_object_iter(req->body)));
	return 0;
}

/* --- may he, and can he take it? --- */

static bool refuse_stranger(struct rest_req *req, enum rest_role role)
{
	if (req->peer.role != REST_PUBLIC || role == REST_PUBLIC)
		return false;
	if (*req->peer.name) {
		rest_problemf(req, 403, "not-listed",
			      "%s is neither in api.operators nor in api.readers", req->peer.name);
	} else {
		rest_add_header(req, "WWW-Authenticate", "Bearer realm=\"decant\"");
		rest_problemf(
			req, 401, "who-are-you",
			"a token (Authorization: Bearer …) or a listed certificate is needed");
	}
	return true;
}

static bool refuse_role(struct rest_req *req)
{
	if (refuse_stranger(req, req->route->role))
		return true;
	if (req->peer.role >= req->route->role)
		return false;
	rest_problemf(req, 403, "read-only", "%s %s is for operators; %s may only look",
		      req->head.method, req->path, req->peer.name);
	return true;
}

/* One entry of an Accept field against "TYPE/SUBTYPE". A weight of nothing but zeros refuses. */
static bool range_fits(const char *range, size_t len, const char *type)
{
	size_t n = strcspn(range, "; \t,"), major = strcspn(type, "/") + 1;
	const char *q = memmem(range, len, "q=", 2);

	if (q && q[2] == '0' && strspn(q + 2, "0.") >= strcspn(q + 2, "; \t,"))
		return false;
	n = MIN(n, len);
	if (n == 3 && !memcmp(range, "*/*", 3))
		return true;
	if (n == major + 1 && range[n - 1] == '*' && !strncasecmp(range, type, major))
		return true;
	return n == strlen(type) && !strncasecmp(range, type, n);
}

bool rest_refuse_type(struct rest_req *req, const char *type)
{
	const char *p = http_head_get(&req->head, "Accept");
	char bare[64];

	if (!p || !*p)
		return false;
	snprintf(bare, sizeof(bare), "%.*s", (int)strcspn(type, ";"), type);
	while (*p) {
		size_t len = strcspn(p, ",");

		if (range_fits(p, len, bare))
			return false;
		p += len;
		p += strspn(p, ", \t");
	}
	rest_problemf(req, 406, "bad-accept", "%s is %s, which the request's Accept does not take",
		      req->path, bare);
	return true;
}

/* --- repeats --- */

uint64_t rest_request_digest(const struct rest_req *req)
{
	CLEANUP_FREE char *body =
		req->body ? json_dumps(req->body, JSON_COMPACT | JSON_SORT_KEYS) : NULL;
	CLEANUP_FREE char *all = NULL;

	if (asprintf(&all, "%s %s %s", req->head.method, req->path, body ? body : "") < 0)
		all = NULL;
	return all ? digest_xxh3(all, strlen(all)) : 0;
}

static void answer_repeat(struct rest_req *req, const struct rest_idem_answer *a)
{
	if (a->location)
		rest_add_header(req, "Location", a->location);
	rest_add_header(req, "Idempotent-Replayed", "true");
	rest_reply_text(req, a->status, "application/json", a->body, strlen(a->body));
}

static bool key_ok(const char *key)
{
	size_t len = strlen(key);

	for (const char *p = key; *p; p++)
		if (*p < 0x20 || *p >= 0x7f)
			return false;
	return len && len <= REST_IDEM_KEY_MAX;
}

/* Return: whether that was the answer */
static bool answer_by_key(struct rest_req *req, struct rest_idem *idem)
{
	const char *key = http_head_get(&req->head, "Idempotency-Key");
	struct rest_idem_answer a;

	if (!key || strcmp(req->head.method, "POST") != 0)
		return false;
	if (!key_ok(key)) {
		rest_problemf(req, 400, "bad-key",
			      "the Idempotency-Key has not 1 to %d visible characters",
			      REST_IDEM_KEY_MAX);
		return true;
	}
	switch (rest_idem_begin(idem, key, rest_request_digest(req), &a)) {
	case REST_IDEM_NEW:
		req->idem = rest_idem_ref(idem);
		return false;
	case REST_IDEM_REPEAT:
		answer_repeat(req, &a);
		break;
	case REST_IDEM_OTHER:
		rest_problemf(req, 422, "key-reused",
			      "this Idempotency-Key came with another request before");
		break;
	case REST_IDEM_BUSY:
		rest_add_header(req, "Retry-After", "1");
		rest_problemf(req, 409, "key-in-use",
			      "the request with this Idempotency-Key is still under way");
		break;
	case REST_IDEM_FULL:
		rest_add_header(req, "Retry-After", "1");
		rest_problemf(req, 429, "too-many-requests", "too many requests are under way");
		break;
	}
	return true;
}

/* Only what says that something was done is worth a place. */
static void keep_answer(struct rest_req *req, int status, struct evbuffer *body)
{
	size_t len = body ? evbuffer_get_length(body) : 0;
	bool keep = status >= 200 && status < 300 && len <= KEPT_BODY_MAX;
	CLEANUP_FREE char *text = malloc(len + 1);
	const struct rest_idem_answer a = {status, req->location, text};

	if (text) {
		if (body)
			evbuffer_copyout(body, text, len);
		text[len] = '\0';
	}
	rest_idem_end(req->idem, http_head_get(&req->head, "Idempotency-Key"),
		      keep && text ? &a : NULL);
}

void rest_req_dispatch(struct rest_req *req, const struct rest_server *s, const char *body,
		       size_t len)
{
	struct error err = {0};
	char allow[80];
	int status;

	req->watch = s->watch;
	req->ctx = s->ctx;
	req->route = find_route(req, s->routes, s->n_routes, allow, sizeof(allow));
	if (!req->route && refuse_stranger(req, REST_READER))
		return;
	if (!req->route && *allow) {
		rest_add_header(req, "Allow", allow);
		rest_problemf(req, 405, "bad-method", "%s: %s is not possible here; %s is",
			      req->path, req->head.method, allow);
		return;
	}
	if (!req->route) {
		rest_problemf(req, 404, "no-such-path", "%s: no such path", req->path);
		return;
	}
	if (refuse_role(req) ||
	    (req->route->body != REST_DOCUMENT && rest_refuse_type(req, "application/json")))
		return;
	status = read_body(req, body, len, &err);
	if (status) {
		rest_problem(req, status, &err);
		return;
	}
	if (!answer_by_key(req, s->idem))
		req->route->handle(req, s->ctx);
}

const char *rest_method(const struct rest_req *req)
{
	return req->head_only ? "GET" : req->head.method;
}

const char *rest_path(const struct rest_req *req)
{
	return req->path;
}

const char *rest_param(const struct rest_req *req, const char *name)
{
	for (size_t i = 0; i < req->n_params; i++)
		if (strlen(name) == req->param[i].name_len &&
		    !memcmp(name, req->param[i].name, req->param[i].name_len))
			return req->param[i].value;
	return NULL;
}

const char *rest_query(const struct rest_req *req, const char *name)
{
	for (size_t i = 0; i < req->n_query; i++)
		if (!strcmp(req->query[i].name, name))
			return req->query[i].value;
	return NULL;
}

const char *rest_header(const struct rest_req *req, const char *name)
{
	return http_head_get(&req->head, name);
}

const json_t *rest_body(const struct rest_req *req)
{
	return req->route && req->route->body == REST_BODY_OBJECT ? req->body : NULL;
}

const struct rest_peer *rest_peer(const struct rest_req *req)
{
	return &req->peer;
}

json_t *rest_peer_json(const struct rest_req *req)
{
	return json_pack("{s:s, s:s}", "name", req->peer.name, "role",
			 req->peer.role == REST_OPERATOR ? "operator" : "reader");
}

void rest_on_gone(struct rest_req *req, void (*fn)(struct rest_req *req, void *arg), void *arg)
{
	req->gone = fn;
	req->gone_arg = arg;
}

void rest_add_header(struct rest_req *req, const char *name, const char *value)
{
	if (!strcmp(name, "Location")) {
		free(req->location);
		req->location = strdup(value);
	}
	if (!req->extra)
		req->extra = evbuffer_new();
	if (!req->extra)
		return;
	evbuffer_add_printf(req->extra, "%s: ", name);
	for (; *value; value++)
		if (!iscntrl((unsigned char)*value))
			evbuffer_add(req->extra, value, 1);
	evbuffer_add(req->extra, "\r\n", 2);
}

static void free_text(const void *data, size_t len, void *arg)
{
	(void)data;
	(void)len;
	free(arg);
}

struct evbuffer *rest_json_text(const json_t *json)
{
	char *text = json ? json_dumps(json, JSON_COMPACT) : NULL;
	struct evbuffer *b = text ? evbuffer_new() : NULL;

	if (b && evbuffer_add_reference(b, text, strlen(text), free_text, text) == 0) {
		evbuffer_add(b, "\n", 1);
		return b;
	}
	free(text);
	if (b)
		evbuffer_free(b);
	return NULL;
}

/* @body is taken over */
static void reply(struct rest_req *req, int status, const char *type, struct evbuffer *body)
{
	if (req->idem)
		keep_answer(req, status, body);
	if (req->conn)
		rest_conn_send(req->conn, status, type, body, req->extra, req->head_only);
	if (body)
		evbuffer_free(body);
	rest_req_free(req);
}

static void tell(const struct rest_req *req, int status, const char *code, const json_t *answer)
{
	if (req->watch)
		req->watch(req->ctx, req, status, code, answer);
}

void rest_reply(struct rest_req *req, int status, json_t *json)
{
	tell(req, status, NULL, json);
	reply(req, status, "application/json", rest_json_text(json));
	json_decref(json);
}

void rest_reply_text(struct rest_req *req, int status, const char *type, const char *text,
		     size_t len)
{
	struct evbuffer *body = evbuffer_new();

	tell(req, status, NULL, NULL);
	if (body && evbuffer_add(body, text, len) < 0) {
		evbuffer_free(body);
		body = NULL;
	}
	reply(req, body ? status : 500, type, body);
}

/* Whatever a client sent, error_set() has made UTF-8 of it. */
json_t *rest_problem_json(int status, const struct error *err)
{
	return json_pack("{s:s, s:s, s:i, s:s, s:s}", "type", "about:blank", "title",
			 http_reason(status), "status", status, "detail", err->msg, "code",
			 err->code);
}

void rest_problem(struct rest_req *req, int status, const struct error *err)
{
	json_t *json = rest_problem_json(status, err);

	tell(req, status, err->code, json);
	reply(req, status, "application/problem+json", rest_json_text(json));
	json_decref(json);
}

void rest_problemf(struct rest_req *req, int status, const char *code, const char *fmt, ...)
{
	struct error err = {0};
	va_list ap;

	va_start(ap, fmt);
	error_setv(&err, -EINVAL, code, fmt, ap);
	va_end(ap);
	rest_problem(req, status, &err);
}
