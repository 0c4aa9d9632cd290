/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Calls to an agent's REST interface: asynchronous on a loop (the agents among themselves) and
 * blocking (the command line). One connection for each call, so that an agent that restarts in
 * between is nothing special. The process has to ignore SIGPIPE (loop_new() and cli_main() do).
 */
#ifndef DECANT_REST_CLIENT_H
#define DECANT_REST_CLIENT_H

#include <event2/event.h>
#include <jansson.h>
#include "util/error.h"

/** REST_CALL_TIMEOUT_MS - default time for a whole call */
#define REST_CALL_TIMEOUT_MS 30000

/**
 * struct rest_creds - what is shown to an agent at https://
 * @token:	NULL for none
 * @ca:		file of the authorities that the agent's certificate must be signed by, NULL for those that
 *		the system trusts
 * @cert, @key:	files of our own certificate, NULL for none
 */
struct rest_creds {
	const char *token;
	const char *ca;
	const char *cert;
	const char *key;
};

/**
 * struct rest_call_spec - one request
 * @api:	"unix:PATH", or for rest_call() "https://HOST:PORT"
 * @creds:	NULL for none
 * @method:	"GET", "POST", "PUT" or "DELETE"
 * @path:	"/v1/guests/demo?limit=10": percent-encoded already (rest_encode())
 * @body:	JSON to send (borrowed until the function that takes the spec returns), NULL for
 * none
 * @idempotency_key: value of the Idempotency-Key header, NULL for none
 * @timeout_ms:	for the whole call; 0 takes REST_CALL_TIMEOUT_MS
 */
struct rest_call_spec {
	const char *api;
	const struct rest_creds *creds;
	const char *method;
	const char *path;
	const json_t *body;
	const char *idempotency_key;
	unsigned int timeout_ms;
};

/**
 * struct rest_answer - what the agent said
 * @status:	of HTTP, 200 … 599
 * @json:	the body, NULL if there was none
 * @problem:	for @status >= 400: code and detail of the problem document (or made up from the
 *		status, when the body was none)
 */
struct rest_answer {
	int status;
	json_t *json;
	struct error problem;
};

/** rest_answer_clear() - drop what is inside; a zeroed struct is fine */
void rest_answer_clear(struct rest_answer *a);

/**
 * rest_call() - ask and wait
 * @ret:	filled when 0 is returned, whatever the status; for rest_answer_clear()
 *
 * Return: 0 with an answer, or -errno with @err filled: code "unreachable" if nobody answers at
 * @api (nothing listens, no permission, time is up, connection lost), "bad-answer" (-EBADMSG) if
 * what came is not an answer of an agent, "bad-address" (-EINVAL) for the kind of @api, one of
 * tls_chan.h's for TLS.
 */
int rest_call(const struct rest_call_spec *spec, struct rest_answer *ret, struct error *err);

struct rest_call;

/**
 * rest_call_fn - the end of an asynchronous call
 * @ret:	as rest_call() returns
 * @a:		the answer if @ret is 0, else NULL; borrowed for the time of the call
 * (json_incref())
 * @err:	filled if @ret is not 0, else NULL
 */
typedef void rest_call_fn(void *arg, int ret, const struct rest_answer *a, const struct error *err);

/**
 * rest_call_start() - ask without waiting, at a Unix socket
 * @base:	the loop's; @fn runs on its thread, never before this function has returned
 * @ret:	the call, for rest_call_cancel() until @fn has been called; may be NULL
 *
 * Return: 0, or -errno with @err filled and @fn not called
 */
int rest_call_start(struct event_base *base, const struct rest_call_spec *spec, rest_call_fn *fn,
		    void *arg, struct rest_call **ret, struct error *err);

/** rest_call_cancel() - @fn will not be called; NULL is fine */
void rest_call_cancel(struct rest_call *call);

/**
 * rest_encode() - percent-encode one path segment or query value
 *
 * Return: new string for free(), NULL when out of memory
 */
char *rest_encode(const char *s);

#endif
