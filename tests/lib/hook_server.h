/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An HTTP server for hooks, with manners good and bad: one thread for each connection, all that was asked is kept.
 * What it is to say is a script of rows; the first row that fits a request and is not used up answers it.
 */
#ifndef DECANT_TESTS_HOOK_SERVER_H
#define DECANT_TESTS_HOOK_SERVER_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/**
 * enum hook_manner - how a request is answered
 * @HOOK_SAYS:	as it should be
 * @HOOK_HANGS:	not at all
 * @HOOK_CLOSES: half of the body, then the connection ends
 * @HOOK_DRIPS:	a byte every 50 ms, for ever
 * @HOOK_POURS:	a body without end, as fast as it goes
 */
enum hook_manner { HOOK_SAYS, HOOK_HANGS, HOOK_CLOSES, HOOK_DRIPS, HOOK_POURS };

/**
 * struct hook_say - a row
 * @when:	a text that the request's path or body must hold; NULL: any
 * @times:	how often it is used; 0: always
 * @status:	default 200
 * @headers:	further lines, each with its line end; NULL: none
 * @body:	NULL: none
 */
struct hook_say {
	const char *when;
	unsigned int times;
	enum hook_manner manner;
	int status;
	const char *headers;
	const char *body;
};

/**
 * struct hook_request - what came
 * @path:	of the request's line
 * @head:	all of its lines
 * @body, @len:	with a NUL behind
 * @json:	of the body; NULL if it is none
 * @at_ms:	CLOCK_MONOTONIC
 * @conn:	number of its connection
 */
struct hook_request {
	char path[256];
	char *head;
	char *body;
	size_t len;
	json_t *json;
	uint64_t at_ms;
	unsigned int conn;
};

struct hook_server;

/** hook_server_start() - at a free port of 127.0.0.1. @cert, @key: files, NULL: no TLS. Return: NULL if it cannot */
struct hook_server *hook_server_start(const char *cert, const char *key);
/** hook_server_stop() - end all connections; requests that were handed out go, too. NULL is fine */
void hook_server_stop(struct hook_server *s);
/** hook_server_script() - @n rows, not copied, until the next call */
void hook_server_script(struct hook_server *s, const struct hook_say *rows, size_t n);
/** hook_server_port() - Return: where it listens */
unsigned int hook_server_port(const struct hook_server *s);
/** hook_server_count() - Return: requests that came whole */
size_t hook_server_count(struct hook_server *s);
/** hook_server_get() - Return: the request of that number, the first one is 0; NULL beyond the last */
const struct hook_request *hook_server_get(struct hook_server *s, size_t i);
/** hook_server_header() - Return: value of a header field (as it was sent), for free(3); NULL without */
char *hook_server_header(const struct hook_request *q, const char *name);
/** hook_server_type() - Return: the type of the event of request @i, "" if it is none */
const char *hook_server_type(struct hook_server *s, size_t i);

#endif
