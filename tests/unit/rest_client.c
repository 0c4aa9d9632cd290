/* SPDX-License-Identifier: Apache-2.0 */
/* The client against servers that are no agents, or bad ones. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include "lib/pace.h"
#include "unit/rest_fixture.h"
#include "util/cleanup.h"
#include "util/clock.h"

/**
 * struct liar - a server that says one thing and closes
 * @text:	what it says, NULL: it only closes
 * @hang:	it does not close until it is told to
 */
struct liar {
	char dir[80];
	char path[100];
	char api[110];
	const char *text;
	bool hang;
	int listener;
	int conn;
	char got[2000];
	pthread_t thread;
};

static void *lie(void *arg)
{
	struct liar *l = arg;

	l->conn = accept4(l->listener, NULL, NULL, SOCK_CLOEXEC);
	if (l->conn < 0)
		return NULL;
	if (read(l->conn, l->got, sizeof(l->got) - 1) < 0)
		return NULL;
	if (l->text)
		fdio_write_full(l->conn, l->text, strlen(l->text));
	if (!l->hang)
		close(l->conn);
	return NULL;
}

static void liar_start(struct liar *l)
{
	const char *tmp = getenv("TMPDIR");
	struct error err = {0};

	alarm(60);
	snprintf(l->dir, sizeof(l->dir), "%s/liar-XXXXXX", tmp ? tmp : "/tmp");
	cr_assert(ne(ptr, mkdtemp(l->dir), NULL));
	snprintf(l->path, sizeof(l->path), "%s/s", l->dir);
	snprintf(l->api, sizeof(l->api), "unix:%s", l->path);
	l->listener = fdio_unix_listen(l->path, SOCK_STREAM, 0600, &err);
	cr_assert(ge(int, l->listener, 0), "%s", err.msg);
	fcntl(l->listener, F_SETFL, 0);
	pthread_create(&l->thread, NULL, lie, l);
}

static void liar_stop(struct liar *l)
{
	pthread_join(l->thread, NULL);
	if (l->hang)
		close(l->conn);
	close(l->listener);
	unlink(l->path);
	rmdir(l->dir);
}

#define OK "HTTP/1.1 200 OK\r\n"

Test(rest_client, bad_answers_are_named)
{
	static const struct {
		const char *text;
		int ret;
		const char *code, *word;
	} rows[] = {
		{NULL, -ECONNRESET, "unreachable", "connection lost before the answer"},
		{"HTTP/1.1 200", -ECONNRESET, "unreachable", "connection lost before the answer"},
		{OK "Content-Length: 9\r\n\r\n{", -ECONNRESET, "unreachable", "in the middle"},
		{"220 smtp.example ESMTP\r\n\r\n", -EBADMSG, "bad-answer", "not an HTTP/1 answer"},
		{"HTTP/1.1 2000 OK\r\n\r\n", -EBADMSG, "bad-answer", "not an HTTP/1 answer"},
		{"HTTP/1.1 999 OK\r\n\r\n", -EBADMSG, "bad-answer", "bad status 999"},
		{OK "Transfer-Encoding: chunked\r\n\r\n", -EBADMSG, "bad-answer",
		 "has no Content-Length"},
		{OK "Content-Length: 99999999999\r\n\r\n", -EBADMSG, "bad-answer", "too long"},
		{OK "Content-Length: 2\r\n\r\n{]", -EBADMSG, "bad-answer", "is no JSON"},
		{OK "Content-Type: application/json\r\nContent-Length: 2\r\n\r\n{]", -EBADMSG,
		 "bad-answer", "is no valid JSON"},
	};

	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		struct liar l = {.text = rows[i].text};
		struct rest_call_spec spec = {.api = l.api, .method = "GET", .path = "/"};
		struct rest_answer a = {0};
		struct error err = {0};

		liar_start(&l);
		cr_expect(eq(int, rest_call(&spec, &a, &err), rows[i].ret), "%s: %s", rows[i].text,
			  err.msg);
		cr_expect(eq(str, err.code, (char *)rows[i].code), "%s", err.msg);
		cr_expect(has(err.msg, rows[i].word), "%s", err.msg);
		cr_expect(has(err.msg, l.api), "%s", err.msg);
		liar_stop(&l);
	}
}

Test(rest_client, good_answers_in_all_forms)
{
	static const struct {
		const char *text;
		int status;
		const char *json, *code, *msg;
	} rows[] = {
		{OK "Content-Length: 7\r\n\r\n{\"a\":1}", 200, "{\"a\":1}", "", ""},
		{OK "\r\n{\"a\":1}", 200, "{\"a\":1}", "", ""},
		{"HTTP/1.1 100 Continue\r\n\r\n" OK "Content-Length: 2\r\n\r\n{}", 200, "{}", "",
		 ""},
		{"HTTP/1.1 204 No Content\r\n\r\n", 204, NULL, "", ""},
		{"HTTP/1.1 409 Conflict\r\nContent-Length: "
		 "27\r\n\r\n{\"code\":\"c\",\"detail\":\"why\"}",
		 409, "{\"code\":\"c\",\"detail\":\"why\"}", "c", "why"},
		{"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", 404, NULL, "http-error",
		 "Not Found"},
	};

	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		struct liar l = {.text = rows[i].text};
		struct rest_call_spec spec = {.api = l.api, .method = "GET", .path = "/"};
		json_t *want = rows[i].json ? json_loads(rows[i].json, 0, NULL) : NULL;
		struct rest_answer a = {0};
		struct error err = {0};

		liar_start(&l);
		cr_expect(eq(int, rest_call(&spec, &a, &err), 0), "%s: %s", rows[i].text, err.msg);
		cr_expect(eq(int, a.status, rows[i].status));
		cr_expect(eq(int, want ? json_equal(a.json, want) : !a.json, 1), "%s",
			  rows[i].text);
		cr_expect(eq(str, a.problem.code, (char *)rows[i].code));
		cr_expect(eq(str, a.problem.msg, (char *)rows[i].msg));
		rest_answer_clear(&a);
		json_decref(want);
		liar_stop(&l);
	}
}

Test(rest_client, the_request_is_what_was_asked_for)
{
	json_t *body = json_pack("{s:i}", "a", 1);
	struct liar l = {.text = OK "Content-Length: 2\r\n\r\n{}"};
	struct rest_call_spec spec = {.api = l.api,
				      .method = "POST",
				      .path = "/v1/x?y=z",
				      .body = body,
				      .idempotency_key = "once"};
	struct rest_answer a = {0};
	struct error err = {0};

	liar_start(&l);
	cr_expect(eq(int, rest_call(&spec, &a, &err), 0));
	liar_stop(&l);
	cr_expect(starts(l.got, "POST /v1/x?y=z HTTP/1.1\r\nHost: localhost\r\n"), "%s", l.got);
	cr_expect(has(l.got, "\r\nIdempotency-Key: once\r\n"), "%s", l.got);
	cr_expect(has(l.got,
		      "\r\nContent-Type: application/json\r\nContent-Length: 7\r\n\r\n{\"a\":1}"),
		  "%s", l.got);
	rest_answer_clear(&a);
	json_decref(body);
}

/* The agent does not even read what it refuses, so that writing fails before the answer is read. */
Test(rest_client, an_early_refusal_is_heard)
{
	struct liar l = {.text = "HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n"};
	size_t n = 4u << 20;
	char *text = malloc(n + 1);
	struct rest_call_spec spec = {.api = l.api, .method = "POST", .path = "/"};
	struct rest_answer a = {0};
	struct error err = {0};
	json_t *body;

	signal(SIGPIPE, SIG_IGN);
	memset(text, 'x', n);
	text[n] = '\0';
	body = json_pack("{s:s}", "x", text);
	spec.body = body;
	liar_start(&l);
	cr_expect(eq(int, rest_call(&spec, &a, &err), 0), "%s", err.msg);
	cr_expect(eq(int, a.status, 413));
	liar_stop(&l);
	json_decref(body);
	free(text);
}

Test(rest_client, silence_ends_in_time)
{
	struct liar l = {.hang = true};
	struct rest_call_spec spec = {
		.api = l.api, .method = "GET", .path = "/", .timeout_ms = 300};
	struct rest_answer a = {0};
	struct error err = {0};
	struct pace *pace = pace_start();
	uint64_t t = clock_us();

	liar_start(&l);
	cr_expect(eq(int, rest_call(&spec, &a, &err), -ETIMEDOUT));
	cr_expect(eq(str, err.code, "unreachable"));
	cr_expect(pace_brisk(pace, clock_us() - t, 5000000));
	pace_end(pace);
	liar_stop(&l);
}

/* Nobody accepts and the queue of connections is full: no hanging in connect(2). */
Test(rest_client, a_full_queue_ends_in_time)
{
	struct liar l = {0};
	struct rest_call_spec spec = {
		.api = l.api, .method = "GET", .path = "/", .timeout_ms = 400};
	struct rest_answer a = {0};
	struct error err = {0};
	int fd[8], n = 0;

	liar_start(&l);
	close(fdio_unix_connect(l.path, SOCK_STREAM, 1)); /* ends the thread that accepts */
	pthread_join(l.thread, NULL);
	listen(l.listener, 0);
	while (n < 8 && (fd[n] = fdio_unix_connect(l.path, SOCK_STREAM, 1)) >= 0)
		n++;
	cr_assert(lt(int, n, 8));
	cr_expect(eq(int, rest_call(&spec, &a, &err), -ETIMEDOUT), "%s", err.msg);
	while (n > 0)
		close(fd[--n]);
	close(l.listener);
	unlink(l.path);
	rmdir(l.dir);
}

Test(rest_client, nobody_there)
{
	struct rest_call_spec spec = {.api = "unix:/nowhere/at/all", .method = "GET", .path = "/"};
	struct rest_answer a = {0};
	struct error err = {0};

	cr_expect(eq(int, rest_call(&spec, &a, &err), -ENOENT));
	cr_expect(eq(str, err.code, "unreachable"));
	error_clear(&err);
	spec.api = "https://a:1";
	spec.creds = &(struct rest_creds){.ca = "/nowhere"};
	cr_expect(eq(int, rest_call(&spec, &a, &err), -ENOENT));
	cr_expect(eq(str, err.code, "tls-files"));
	error_clear(&err);
	spec.api = "a:1";
	cr_expect(eq(int, rest_call(&spec, &a, &err), -EINVAL));
	cr_expect(eq(str, err.code, "bad-address"));
}

static void must_not_run(void *arg, int ret, const struct rest_answer *a, const struct error *err)
{
	(void)arg;
	(void)ret;
	(void)a;
	(void)err;
	abort();
}

Test(rest_client, a_cancelled_call_says_nothing)
{
	struct event_base *base = event_base_new();
	struct liar l = {.hang = true};
	struct rest_call_spec spec = {
		.api = l.api, .method = "GET", .path = "/", .timeout_ms = 100};
	struct rest_call *call = NULL;
	struct error err = {0};

	liar_start(&l);
	cr_assert(eq(int, rest_call_start(base, &spec, must_not_run, NULL, &call, &err), 0));
	event_base_loop(base, EVLOOP_ONCE); /* the request goes out */
	rest_call_cancel(call);
	event_base_loop(base, EVLOOP_NONBLOCK);
	usleep(150000);
	event_base_loop(base, EVLOOP_NONBLOCK);
	event_base_free(base);
	liar_stop(&l);
	rest_call_cancel(NULL);
}

Test(rest_client, names_are_encoded)
{
	CLEANUP_FREE char *s = rest_encode("a/b c?&=%+\xc3\xa4.-_~9");

	cr_expect(eq(str, s, "a%2Fb%20c%3F%26%3D%25%2B%C3%A4.-_~9"));
}
