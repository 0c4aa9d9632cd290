/* SPDX-License-Identifier: Apache-2.0 */
/* Between rest_server.c (connections) and rest_req.c (requests); nobody else's business. */
#ifndef DECANT_REST_INT_H
#define DECANT_REST_INT_H

#include <event2/buffer.h>
#include <jansson.h>
#include "rest/http.h"
#include "rest/rest_server.h"

/** REST_QUERY_MAX - most query parameters of one request */
#define REST_QUERY_MAX 16

struct rest_conn;

/**
 * struct rest_req - a request that a handler has to answer
 * @conn:	NULL once the client is gone
 * @head:	owned
 * @head_only:	HEAD: the answer's body stays here
 * @route:	the row that matched
 * @path:	the target without its query; owned
 * @param:	@n_params of them: names inside @route->pattern (of @name_len bytes), values owned
 * @query:	@n_query pairs, pointing into @query_text
 * @query_text:	decoded pieces; owned
 * @body:	owned reference, NULL if there is none
 * @peer:	who has asked
 * @extra:	header lines for the answer, NULL if none
 * @gone:	see rest_on_gone()
 * @gone_arg:	for @gone
 */
struct rest_req {
	struct rest_conn *conn;
	struct http_head head;
	bool head_only;
	const struct rest_route *route;
	char *path;
	struct {
		const char *name;
		size_t name_len;
		char *value;
	} param[REST_PARAMS_MAX];
	size_t n_params;
	struct {
		const char *name;
		const char *value;
	} query[REST_QUERY_MAX];
	size_t n_query;
	char *query_text;
	json_t *body;
	struct rest_peer peer;
	struct evbuffer *extra;
	void (*gone)(struct rest_req *req, void *arg);
	void *gone_arg;
};

/* --- rest_req.c --- */

/**
 * rest_req_new() - a request from its head
 * @head:	moved into the request on success
 *
 * Return: 0, -ENOMEM, or the status to answer with and @err filled
 */
int rest_req_new(struct http_head *head, struct rest_req **ret, struct error *err);

/**
 * rest_req_dispatch() - find the route, check the body, call the handler
 * @body, @len:	what came
 *
 * Ends in an answer or in a handler that answers later.
 */
void rest_req_dispatch(struct rest_req *req, const struct rest_route *routes, size_t n,
		       const char *body, size_t len, void *ctx);

/** rest_req_free() - NULL is fine */
void rest_req_free(struct rest_req *req);

/** rest_json_text() - Return: new buffer with the JSON and a newline, NULL for NULL or when out of memory */
struct evbuffer *rest_json_text(const json_t *json);

/** rest_problem_json() - Return: new reference to a problem document, NULL when out of memory */
json_t *rest_problem_json(int status, const struct error *err);

/* --- rest_server.c --- */

/**
 * rest_conn_send() - queue the answer to the connection's request
 * @type:	of the content
 * @body:	emptied; NULL for none
 * @extra:	header lines, emptied; may be NULL
 *
 * Never frees the connection.
 */
void rest_conn_send(struct rest_conn *c, int status, const char *type, struct evbuffer *body,
		    struct evbuffer *extra, bool head_only);

#endif
