/* SPDX-License-Identifier: Apache-2.0 */
/* Requests: their path, query and body, the route they match, and the answers to them. */
#include "rest/rest_int.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define LIST_LIMIT_DEFAULT 100
#define LIST_LIMIT_MAX     1000

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
	if (req->route->body == REST_BODY_NONE && json_object_size(req->body))
		return error_set(err, 400, "bad-json", "body: unknown key \"%.60s\"; none is taken",
				 json_object_iter_key(json_object_iter(req->body)));
	return 0;
}

void rest_req_dispatch(struct rest_req *req, const struct rest_route *routes, size_t n,
		       const char *body, size_t len, void *ctx)
{
	struct error err = {0};
	char allow[80];
	int status;

	req->route = find_route(req, routes, n, allow, sizeof(allow));
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
	if (req->peer.role < req->route->role) {
		rest_problemf(
			req, 403, "read-only",
			"%s %s is for operators; %s may only look (see the agent's api.token_file, "
			"api.operators)",
			req->head.method, req->path, req->peer.name);
		return;
	}
	status = read_body(req, body, len, &err);
	if (status) {
		rest_problem(req, status, &err);
		return;
	}
	req->route->handle(req, ctx);
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
	return req->route->body == REST_BODY_NONE ? NULL : req->body;
}

const struct rest_peer *rest_peer(const struct rest_req *req)
{
	return &req->peer;
}

void rest_on_gone(struct rest_req *req, void (*fn)(struct rest_req *req, void *arg), void *arg)
{
	req->gone = fn;
	req->gone_arg = arg;
}

void rest_add_header(struct rest_req *req, const char *name, const char *value)
{
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
	if (req->conn)
		rest_conn_send(req->conn, status, type, body, req->extra, req->head_only);
	if (body)
		evbuffer_free(body);
	rest_req_free(req);
}

void rest_reply(struct rest_req *req, int status, json_t *json)
{
	reply(req, status, "application/json", rest_json_text(json));
	json_decref(json);
}

void rest_reply_text(struct rest_req *req, int status, const char *type, const char *text,
		     size_t len)
{
	struct evbuffer *body = evbuffer_new();

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

static size_t list_limit(const struct rest_req *req)
{
	const char *s = rest_query(req, "limit");
	char *end;
	unsigned long v;

	if (!s)
		return LIST_LIMIT_DEFAULT;
	if (!isdigit((unsigned char)*s))
		return 0;
	v = strtoul(s, &end, 10);
	return *end || v > LIST_LIMIT_MAX ? 0 : v;
}

/* Return: index behind the item whose @key is @after, -1 if there is none */
static ssize_t list_start(const json_t *items, const char *key, const char *after)
{
	size_t i;
	json_t *item;

	json_array_foreach(items, i, item) {
		const char *s = json_string_value(json_object_get(item, key));

		if (s && !strcmp(s, after))
			return (ssize_t)i + 1;
	}
	return -1;
}

static json_t *list_page(const json_t *items, size_t start, size_t limit, const char *key)
{
	size_t n = json_array_size(items), end = limit < n - start ? start + limit : n;
	json_t *page = json_array(), *next = NULL;

	for (size_t i = start; i < end; i++)
		json_array_append(page, json_array_get(items, i));
	if (end < n)
		next = json_object_get(json_array_get(items, end - 1), key);
	return json_pack("{s:o, s:O?}", "items", page, "next", next);
}

void rest_reply_list(struct rest_req *req, json_t *items, const char *key)
{
	const char *after = rest_query(req, "after");
	size_t limit = list_limit(req);
	ssize_t start = after ? list_start(items, key, after) : 0;

	if (!limit)
		rest_problemf(req, 400, "bad-query", "limit: not a number from 1 to %d",
			      LIST_LIMIT_MAX);
	else if (start < 0)
		rest_problemf(req, 400, "bad-query", "after: no such item: %.80s", after);
	else
		rest_reply(req, 200, list_page(items, (size_t)start, limit, key));
	json_decref(items);
}
