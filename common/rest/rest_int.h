/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Between rest_listen.c (listeners), rest_server.c (connections), rest_req.c (requests) and rest_stream.c
 * (answers without end); nobody else's business.
 */
#ifndef DECANT_REST_INT_H
#define DECANT_REST_INT_H

#include <event2/buffer.h>
#include <event2/listener.h>
#include <jansson.h>
#include <sys/queue.h>
#include <sys/stat.h>
#include "rest/http.h"
#include "rest/rest_addr.h"
#include "rest/rest_auth.h"
#include "rest/rest_idem.h"
#include "rest/rest_io.h"
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
 * @idem:	a reference, if the answer is to be kept for a repeat
 * @extra:	header lines for the answer, NULL if none
 * @location:	of them the one that a repeat needs, too; owned
 * @gone:	see rest_on_gone()
 * @gone_arg:	for @gone
 * @watch, @ctx: see rest_server_watch()
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
	struct rest_idem *idem;
	struct evbuffer *extra;
	char *location;
	void (*gone)(struct rest_req *req, void *arg);
	void *gone_arg;
	rest_answered_fn *watch;
	void *ctx;
};

/**
 * enum rest_conn_state - what a connection waits for
 * @CONN_HEAD:	a request's header; ends: it is there, or it is bad
 * @CONN_BODY:	the rest of the request
 * @CONN_HANDLER: the handler's answer; ends: rest_conn_send(), or the client goes away
 * @CONN_WRITING: the client to take the answer
 * @CONN_STREAM: an answer without end; ends: rest_stream_end(), or the client goes away
 * @CONN_DRAIN:	the client to notice that the connection is over; what it sends is thrown away,
 *		because closing with unread bytes could take the answer away from it
 */
enum rest_conn_state { CONN_HEAD, CONN_BODY, CONN_HANDLER, CONN_WRITING, CONN_STREAM, CONN_DRAIN };

/**
 * struct rest_stream - see rest_server.h; part of its connection
 */
struct rest_stream {
	struct rest_conn *conn;
	const struct rest_stream_ops *ops;
	void *arg;
};

/**
 * struct rest_conn - one connection
 * @deadline:	ends the connection, or the request with 408; not armed in CONN_HANDLER
 * @scanned:	see http_head_take()
 * @started:	a byte of the current request has come
 * @served:	one request at least was complete
 * @surplus:	one too many: it will be told so once TLS can tell it anything
 * @head:	of the request that is being read
 * @req:	the request in CONN_HANDLER, else NULL
 * @keep:	another request may follow
 * @socket_peer: who is there, as far as the socket and TLS tell
 * @peer:	the same with what the present request says
 * @stream:	in CONN_STREAM
 * @waits:	its request is there, in CONN_BODY, and it is not its turn; then @turn is in server.waiting
 */
struct rest_conn {
	TAILQ_ENTRY(rest_conn) link;
	TAILQ_ENTRY(rest_conn) turn;
	bool waits;
	struct rest_server *server;
	struct rest_listener *listener;
	struct rest_io *io;
	struct event *deadline;
	enum rest_conn_state state;
	size_t scanned;
	bool started;
	bool served;
	bool surplus;
	struct http_head head;
	struct rest_req *req;
	bool keep;
	struct rest_peer socket_peer;
	struct rest_peer peer;
	struct rest_stream stream;
};

/**
 * struct rest_listener - one listening socket
 * @addr:	where
 * @port:	of TCP, the kernel's choice if 0 was asked for
 * @resume:	timer that takes up accepting again, NULL unless paused
 * @dev, @ino:	of a Unix socket the file that was bound, so that another one's is never removed
 * @n_conns:	its connections
 */
struct rest_listener {
	TAILQ_ENTRY(rest_listener) link;
	struct rest_server *server;
	struct rest_addr addr;
	unsigned int port;
	struct evconnlistener *ev;
	struct event *resume;
	dev_t dev;
	ino_t ino;
	unsigned int n_conns;
};

/**
 * struct rest_server - see rest_server.h
 * @tls, @auth:	of new connections and requests, NULL if there are none
 * @watch:	see rest_server_watch()
 * @idem:	answers that are kept for repeats
 * @n_streams:	connections in CONN_STREAM
 * @waiting:	connections whose turn it is not, oldest first
 * @turn:	timer of the first of them
 * @paid_us:	clock_us() when what requests have cost so far will be paid for, see rest_turn.c
 */
struct rest_server {
	struct loop *loop;
	const struct rest_route *routes;
	size_t n_routes;
	struct rest_limits limits;
	void *ctx;
	struct tls_ctx *tls;
	struct rest_auth *auth;
	rest_answered_fn *watch;
	struct rest_idem *idem;
	TAILQ_HEAD(, rest_conn) conns;
	TAILQ_HEAD(, rest_listener) listeners;
	unsigned int n_streams;
	TAILQ_HEAD(, rest_conn) waiting;
	struct event *turn;
	uint64_t paid_us;
};

/* --- rest_turn.c --- */

/** rest_turn_take() - a request is there. Return: whether it may be served now; else it is when it may */
bool rest_turn_take(struct rest_conn *c);
/** rest_turn_spent() - a request has cost so much of the thread's time */
void rest_turn_spent(struct rest_server *s, uint64_t us);
/** rest_turn_leave() - the connection does not wait any more */
void rest_turn_leave(struct rest_conn *c);

/* --- rest_listen.c --- */

/** rest_listener_free() - close it and remove its socket; connections have gone before */
void rest_listener_free(struct rest_listener *l);

/* --- rest_req.c --- */

/**
 * rest_req_new() - a request from its head
 * @head:	moved into the request on success
 *
 * Return: 0, -ENOMEM, or the status to answer with and @err filled
 */
int rest_req_new(struct http_head *head, struct rest_req **ret, struct error *err);

/**
 * rest_req_dispatch() - find the route, check rights and body, call the handler
 * @body, @len:	what came
 *
 * Ends in an answer or in a handler that answers later.
 */
void rest_req_dispatch(struct rest_req *req, const struct rest_server *s, const char *body,
		       size_t len);

/** rest_req_free() - NULL is fine */
void rest_req_free(struct rest_req *req);

/** rest_json_text() - Return: new buffer with the JSON and a newline, NULL for NULL or when out of memory */
struct evbuffer *rest_json_text(const json_t *json);

/** rest_problem_json() - Return: new reference to a problem document, NULL when out of memory */
json_t *rest_problem_json(int status, const struct error *err);

/* --- rest_server.c --- */

/**
 * rest_conn_new() - serve a connection that was accepted
 * @fd:		owned afterwards, also on failure
 * @peer:	what the listener knows of it
 * @surplus:	see struct rest_conn
 */
void rest_conn_new(struct rest_listener *l, int fd, const struct rest_peer *peer, bool surplus);

/** rest_conn_dispatch() - the connection's request is there, and it is its turn */
void rest_conn_dispatch(struct rest_conn *c);

/** rest_conn_free() - close; a request that is being handled is told */
void rest_conn_free(struct rest_conn *c);

/** rest_conn_arm() - the connection's present state may last so long */
void rest_conn_arm(struct rest_conn *c, unsigned int ms);

/** rest_conn_head() - the status line and the fields that all answers have; an empty line is still to come */
void rest_conn_head(struct rest_conn *c, int status, const char *type);

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
