/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The part of HTTP/1.1 that server and client share: heads of messages, percent-encoding.
 *
 * Why not evhttp, although libevent is here: libevent 2.1's client always connects to a host by
 * name (Unix sockets came with 2.2), and its server has no bound on connections or on the whole
 * time of a request, answers what it refuses by itself with HTML instead of a problem document, and
 * stops reading while a handler works, so that nobody learns that the client has gone.
 *
 * Strict by choice: CRLF only, no folded lines, no chunked bodies, one Content-Length. Everything
 * else gets an error that says so.
 */
#ifndef DECANT_REST_HTTP_H
#define DECANT_REST_HTTP_H

#include <event2/buffer.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include "util/error.h"

/** HTTP_FIELDS_MAX - most header fields of one message */
#define HTTP_FIELDS_MAX 64

/**
 * struct http_field - one header field
 * @name:	as it came
 * @value:	without the white space around it
 */
struct http_field {
	char *name;
	char *value;
};

/**
 * struct http_head - a parsed head; the strings point into @text
 * @text:	owned, for http_head_clear()
 * @method, @target: of a request, else NULL
 * @status:	of a response, else 0
 * @minor:	of the version HTTP/1.x
 * @field:	@n of them
 * @has_length:	Content-Length is there
 * @length:	its value in bytes, 0 if it is not there
 * @chunked:	Transfer-Encoding is there (nothing here can read such a body)
 * @keep_alive:	the connection can serve another request
 * @expect:	"Expect: 100-continue" is there
 */
struct http_head {
	char *text;
	char *method;
	char *target;
	int status;
	int minor;
	struct http_field field[HTTP_FIELDS_MAX];
	size_t n;
	bool has_length;
	uint64_t length;
	bool chunked;
	bool keep_alive;
	bool expect;
};

/**
 * http_head_take() - take a whole head off a buffer
 * @max:	most bytes it may have
 * @scanned:	where the last call stopped searching; 0 before the first call for a message
 * @ret:	new text for http_parse_request() or http_parse_response()
 *
 * Return: its length, 0 if it has not all arrived, -E2BIG if it is longer than @max, -ENOMEM
 */
ssize_t http_head_take(struct evbuffer *in, size_t max, size_t *scanned, char **ret);

/**
 * http_parse_request() - take a request's head apart
 * @text, @len:	from http_head_take(); owned by @h afterwards, in every case
 * @err:	what is wrong, code and text
 *
 * Return: 0, or the status to answer with (400, 417, 505); http_head_clear() in either case
 */
int http_parse_request(struct http_head *h, char *text, size_t len, struct error *err);

/** http_parse_response() - the same of a response. Return: 0 or -EBADMSG with @err filled */
int http_parse_response(struct http_head *h, char *text, size_t len, struct error *err);

/** http_head_clear() - free what is inside; a zeroed struct is fine */
void http_head_clear(struct http_head *h);

/** http_head_get() - Return: value of the first field of that name (any case), NULL if none */
const char *http_head_get(const struct http_head *h, const char *name);

/** http_reason() - Return: the phrase of a status ("Not Found"), "Unknown" for others */
const char *http_reason(int status);

/**
 * http_decode() - undo percent-encoding in place
 * @plus:	'+' is a space (queries)
 *
 * Return: 0, or -EINVAL for a broken escape or one that makes a control character
 */
int http_decode(char *s, bool plus);

/** http_encode() - as rest_encode() */
char *http_encode(const char *s);

#endif
