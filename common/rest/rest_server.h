/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A small REST server on the daemon's loop: a constant table of routes, JSON in and out, errors as
 * RFC 9457 problem documents. What is wrong with a request by HTTP's own rules (method, path,
 * media type, size, syntax) is answered here, by name; a handler sees only requests that fit its
 * route. Everything runs on the loop's thread.
 */
#ifndef DECANT_REST_SERVER_H
#define DECANT_REST_SERVER_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>
#include "util/error.h"
#include "util/loop.h"

struct rest_server;
struct rest_req;
struct rest_auth;
struct tls_ctx;

/** REST_PARAMS_MAX - most {param}s in one pattern */
#define REST_PARAMS_MAX 4

/**
 * rest_handler - answers one request
 * @ctx:	what rest_server_new() was given
 *
 * Calls rest_reply() or rest_problem() exactly once, before it returns or at any later time on the
 * loop's thread. The request stays valid until that call, also when its client has gone away
 * (rest_on_gone()) or the server was freed; the answer then goes nowhere.
 */
typedef void rest_handler(struct rest_req *req, void *ctx);

/**
 * enum rest_body_rule - what a route takes as its body
 * @REST_BODY_NONE:	nothing (or an empty object)
 * @REST_BODY_OBJECT:	a JSON object, always
 * @REST_DOCUMENT:	nothing; the answer is no JSON, and the handler asks rest_refuse_type() first
 */
enum rest_body_rule { REST_BODY_NONE, REST_BODY_OBJECT, REST_DOCUMENT };

/**
 * enum rest_role - what a client may do; each includes what is before it
 * @REST_PUBLIC:	documents that are the same on every host; nobody has to say who he is
 * @REST_READER:	look at everything, change nothing
 * @REST_OPERATOR:	all of it
 */
enum rest_role { REST_PUBLIC, REST_READER, REST_OPERATOR };

/**
 * struct rest_route - one row of the table
 * @method:	"GET", "POST", "PUT" or "DELETE"; GET serves HEAD, too
 * @pattern:	"/v1/guests/{name}": a {param} matches one whole, non-empty segment
 * @role:	the least that a client must be
 * @body:	see enum rest_body_rule
 * @handle:	see rest_handler
 */
struct rest_route {
	const char *method;
	const char *pattern;
	enum rest_role role;
	enum rest_body_rule body;
	rest_handler *handle;
};

/** REST_WHO_MAX - bytes of struct rest_peer's texts */
#define REST_WHO_MAX 160

/**
 * struct rest_peer - who has asked, as far as can be known
 * @role:	what it may do
 * @local:	it came by a Unix socket: @pid, @uid and @gid are the kernel's word (SO_PEERCRED)
 * @address:	"192.0.2.1:50123", "[2001:db8::1]:50123"; "" of a Unix socket
 * @name:	how it has proved who it is: "uid:0", "DNS:orchestrator" (all names of its certificate, joined
 *		by ", ", may be cut), "token:NAME"; "" of a client that has not
 * @who:	all of that for a person and the audit: "uid:0 (pid 4711)", "token:ci from 192.0.2.1:50123"
 */
struct rest_peer {
	enum rest_role role;
	bool local;
	pid_t pid;
	uid_t uid;
	gid_t gid;
	char address[72];
	char name[REST_WHO_MAX];
	char who[REST_WHO_MAX + 80];
};

/**
 * struct rest_limits - bounds of a server; a zero field takes the default
 * @body:	bytes of a body (1 MiB)
 * @head:	bytes of request line and header fields together (16 KiB)
 * @connections: of one listener at a time (64); the next one is answered 429 and closed
 * @per_address: of them of one address (32); for TCP
 * @streams:	answers without end, of all listeners (32)
 * @request_ms:	from a request's first byte to its last (10,000), however slowly they come; for TCP from the
 *		beginning of the connection, TLS included, to the end of the first request
 * @idle_ms:	without a request (60,000); also for a client to take its answer
 */
struct rest_limits {
	size_t body;
	size_t head;
	unsigned int connections;
	unsigned int per_address;
	unsigned int streams;
	unsigned int request_ms;
	unsigned int idle_ms;
};

/**
 * rest_server_new() - a server without listeners
 * @routes:	kept, not copied; @n of them
 * @limits:	copied; NULL takes all defaults
 *
 * Return: the server, NULL when out of memory
 */
struct rest_server *rest_server_new(struct loop *l, const struct rest_route *routes, size_t n,
				    const struct rest_limits *limits, void *ctx);

/**
 * rest_server_tls() - certificates of https listeners, for connections from now on
 * @ctx:	of role TLS_SERVER and @http; a reference is taken
 */
void rest_server_tls(struct rest_server *s, struct tls_ctx *ctx);
/** rest_server_auth() - who is let in over TCP, from now on; taken over, see rest_auth.h */
void rest_server_auth(struct rest_server *s, struct rest_auth *auth);
/**
 * rest_answered_fn - a request is about to be answered
 * @ctx:	of the handlers
 * @code:	of a problem, else NULL
 * @answer:	borrowed; NULL if it is none of JSON
 */
typedef void rest_answered_fn(void *ctx, const struct rest_req *req, int status, const char *code,
			      const json_t *answer);
/** rest_server_watch() - be told of each answer; also when the client, or the server, is gone by then */
void rest_server_watch(struct rest_server *s, rest_answered_fn *fn);
/**
 * rest_server_keep() - answers to requests with an Idempotency-Key outlive the server
 * @path:	of their file, made if it is not there
 *
 * Return: 0, or -errno with @err filled: then they are kept in memory only
 */
int rest_server_keep(struct rest_server *s, const char *path, struct error *err);
/**
 * rest_server_listen() - add a listener
 * @where:	as of rest_addr_parse(); a Unix socket gets mode 0660. TCP needs rest_server_auth() before, https
 *		rest_server_tls() as well
 *
 * Return: 0, or -errno with @err filled
 */
int rest_server_listen(struct rest_server *s, const char *where, struct error *err);
/** rest_server_port() - Return: of the newest TCP listener, 0 without one; port 0 takes any that is free */
unsigned int rest_server_port(const struct rest_server *s);

/**
 * rest_server_free() - close listeners and connections; not from inside a handler; NULL is fine
 *
 * Unanswered requests are told that their client is gone (rest_on_gone()) and still have to be
 * answered by their handler.
 */
void rest_server_free(struct rest_server *s);

/* --- what a handler may ask --- */

/** rest_method() - Return: "GET" also for HEAD, "POST", … */
const char *rest_method(const struct rest_req *req);
/** rest_path() - Return: the path as it came (printable ASCII), without the query */
const char *rest_path(const struct rest_req *req);
/** rest_param() - Return: the decoded segment that {@name} matched; never NULL for a name in the
 * pattern */
const char *rest_param(const struct rest_req *req, const char *name);
/** rest_query() - Return: the decoded value of a query parameter, "" if it has none, NULL if it is
 * not there */
const char *rest_query(const struct rest_req *req, const char *name);
/** rest_header() - Return: the value of a header field (any case), NULL if it is not there */
const char *rest_header(const struct rest_req *req, const char *name);
/** rest_body() - Return: borrowed reference to the JSON object, NULL for REST_BODY_NONE */
const json_t *rest_body(const struct rest_req *req);
/**
 * rest_request_digest() - what is asked: method, path and body
 *
 * The same of a repeat, in every life of the agent, however its body is laid out. Return: 0 when out of memory
 */
uint64_t rest_request_digest(const struct rest_req *req);
/** rest_peer() - who has asked. Return: valid as long as the request is; never NULL */
const struct rest_peer *rest_peer(const struct rest_req *req);
/** rest_peer_json() - who has asked, as he is told. Return: new reference {name, role}, NULL when out of memory */
json_t *rest_peer_json(const struct rest_req *req);

/**
 * rest_on_gone() - be told when the client goes away before the answer
 * @fn:		called at most once, never after the answer; NULL takes it back
 *
 * A notice only: the request must be answered all the same. @fn may do that itself.
 */
void rest_on_gone(struct rest_req *req, void (*fn)(struct rest_req *req, void *arg), void *arg);

/* --- answers: each of them ends the request --- */

/** rest_add_header() - a field for the coming answer ("Location"); control characters are dropped.
 * Does not end the request */
void rest_add_header(struct rest_req *req, const char *name, const char *value);
/** rest_reply() - answer; the reference @json is taken over, NULL is an empty body */
void rest_reply(struct rest_req *req, int status, json_t *json);
/** rest_reply_text() - answer with @len bytes that are no JSON, or are it already; copied */
void rest_reply_text(struct rest_req *req, int status, const char *type, const char *text,
		     size_t len);
/** rest_problem() - answer with a problem document: type, title, status, detail (@err's msg) and
 * code (@err's code) */
void rest_problem(struct rest_req *req, int status, const struct error *err);
/** rest_problemf() - rest_problem() of a code and a printf text */
void rest_problemf(struct rest_req *req, int status, const char *code, const char *fmt, ...)
	__attribute__((format(printf, 4, 5)));
/** rest_refuse_type() - answer 406 if the client does not take a media type. Return: whether that was the answer */
bool rest_refuse_type(struct rest_req *req, const char *type);

/* --- answers without end --- */

struct rest_stream;

/**
 * struct rest_stream_ops - what the writer of a stream is told
 * @drained:	everything has been given to the kernel
 * @gone:	the client has gone, or takes nothing for idle_ms; the stream is no more
 */
struct rest_stream_ops {
	void (*drained)(void *arg);
	void (*gone)(void *arg);
};

/**
 * rest_stream_begin() - answer 200 with a body that rest_stream_add() writes; ends the request
 *
 * Return: the stream; NULL if there are too many (the request has been answered 429), the client has gone or
 * asked by HEAD: no callback follows
 */
struct rest_stream *rest_stream_begin(struct rest_req *req, const char *type,
				      const struct rest_stream_ops *ops, void *arg);
/** rest_stream_add() - more of the body; copied */
void rest_stream_add(struct rest_stream *st, const char *text, size_t len);
/** rest_stream_queued() - Return: bytes that the kernel has not taken yet */
size_t rest_stream_queued(const struct rest_stream *st);
/** rest_stream_end() - close; no callback follows; NULL is fine */
void rest_stream_end(struct rest_stream *st);

/**
 * rest_reply_list() - answer GET of a list as {"items": […], "next": null | key}
 * @items:	array of objects, in the list's order; the reference is taken over
 * @key:	name of the member that tells the items apart ("id", "name")
 *
 * The client pages with ?limit=N (1..1000, default 100) and ?after=KEY (an earlier `next`).
 */
void rest_reply_list(struct rest_req *req, json_t *items, const char *key);

#endif
