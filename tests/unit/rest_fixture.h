/* SPDX-License-Identifier: Apache-2.0 */
/* A REST server on a loop of its own thread and a socket of its own, for tests that talk to one. */
#ifndef DECANT_TESTS_REST_FIXTURE_H
#define DECANT_TESTS_REST_FIXTURE_H

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "rest/rest_client.h"
#include "rest/rest_server.h"
#include "util/fdio.h"

/* Criterion's conditions want an expression that starts with a name. */
static inline int has(const char *text, const char *word)
{
	return text && strstr(text, word);
}

static inline int starts(const char *text, const char *word)
{
	return text && !strncmp(text, word, strlen(word));
}

struct fixture {
	char dir[80];
	char path[92];
	char api[100];
	struct loop *loop;
	struct rest_server *server;
	pthread_t thread;
	const struct rest_route *routes;
	size_t n;
	struct rest_limits limits;
	void *ctx;
};

static inline void *fixture_run(void *arg)
{
	struct fixture *f = arg;

	loop_run(f->loop);
	return NULL;
}

static inline void fixture_make(void *arg)
{
	struct fixture *f = arg;
	struct error err = {0};

	f->server = rest_server_new(f->loop, f->routes, f->n, &f->limits, f->ctx);
	cr_assert(eq(int, rest_server_listen(f->server, f->api, &err), 0), "%s", err.msg);
}

static inline void fixture_drop(void *arg)
{
	struct fixture *f = arg;

	rest_server_free(f->server);
	f->server = NULL;
}

static inline void fixture_start(struct fixture *f, const struct rest_route *routes, size_t n)
{
	const char *tmp = getenv("TMPDIR");

	snprintf(f->dir, sizeof(f->dir), "%s/rest-XXXXXX", tmp ? tmp : "/tmp");
	cr_assert(ne(ptr, mkdtemp(f->dir), NULL));
	snprintf(f->path, sizeof(f->path), "%s/api.sock", f->dir);
	snprintf(f->api, sizeof(f->api), "unix:%s", f->path);
	f->routes = routes;
	f->n = n;
	f->loop = loop_new();
	fixture_make(f);
	pthread_create(&f->thread, NULL, fixture_run, f);
}

static inline void fixture_stop(struct fixture *f)
{
	loop_call(f->loop, fixture_drop, f);
	loop_stop(f->loop);
	pthread_join(f->thread, NULL);
	loop_free(f->loop);
	unlink(f->path);
	rmdir(f->dir);
}

/* One call whose answer must come. */
static inline struct rest_answer fixture_ask(struct fixture *f, const char *method,
					     const char *path, const json_t *body)
{
	struct rest_call_spec spec = {
		.api = f->api, .method = method, .path = path, .body = body, .timeout_ms = 10000};
	struct rest_answer a = {0};
	struct error err = {0};

	cr_assert(eq(int, rest_call(&spec, &a, &err), 0), "%s", err.msg);
	return a;
}

static inline int fixture_connect(struct fixture *f)
{
	int fd = fdio_unix_connect(f->path, SOCK_STREAM, 0);

	cr_assert(ge(int, fd, 0));
	return fd;
}

/* Everything until the server closes, as a string for free(). */
static inline char *fixture_read(int fd)
{
	size_t cap = 1u << 20, len = 0;
	char *out = malloc(cap);
	ssize_t n;

	while (len + 1 < cap && (n = read(fd, out + len, cap - 1 - len)) > 0)
		len += (size_t)n;
	out[len] = '\0';
	return out;
}

#endif
