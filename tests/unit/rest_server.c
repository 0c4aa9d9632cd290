/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include "lib/pace.h"
#include "unit/rest_fixture.h"
#include "util/cleanup.h"
#include "util/clock.h"

/* What the handlers have seen; they run on the loop's thread. */
struct seen {
	struct fixture f;
	int calls;
};

static void get_echo(struct rest_req *req, void *ctx)
{
	const char *q = rest_query(req, "q"), *key = rest_header(req, "idempotency-KEY");

	(void)ctx;
	rest_add_header(req, "Location", "/v1/here\r\nEvil: yes");
	rest_reply(req, 200,
		   json_pack("{s:s, s:s?, s:s?, s:s, s:s}", "name", rest_param(req, "name"), "q", q,
			     "key", key, "method", rest_method(req), "path", rest_path(req)));
}

static void post_thing(struct rest_req *req, void *ctx)
{
	struct seen *s = ctx;

	s->calls++;
	rest_reply(req, 202, json_incref((json_t *)rest_body(req)));
}

static void post_bare(struct rest_req *req, void *ctx)
{
	(void)ctx;
	rest_reply(req, 204, rest_body(req) ? json_true() : NULL);
}

static void get_big(struct rest_req *req, void *ctx)
{
	char *text = malloc(8u << 20);
	json_t *j;

	(void)ctx;
	memset(text, 'x', (8u << 20) - 1);
	text[(8u << 20) - 1] = '\0';
	j = json_pack("{s:s}", "text", text);
	free(text);
	rest_reply(req, 200, j);
}

static void get_never(struct rest_req *req, void *ctx)
{
	(void)ctx;
	rest_problemf(req, 409, "not-now", "caf\xe9: %s", rest_path(req));
}

static const struct rest_route routes[] = {
	{"GET", "/v1/echo/{name}", REST_READER, REST_BODY_NONE, get_echo},
	{"GET", "/v1/things", REST_READER, REST_BODY_NONE, get_never},
	{"POST", "/v1/things", REST_OPERATOR, REST_BODY_OBJECT, post_thing},
	{"POST", "/v1/things/{name}/bare", REST_OPERATOR, REST_BODY_NONE, post_bare},
	{"GET", "/v1/big", REST_READER, REST_BODY_NONE, get_big},
	{"GET", "/v1/conflict", REST_READER, REST_BODY_NONE, get_never},
};

/* What hangs is ended by a signal. (Criterion's own timeouts leak, which LeakSanitizer reports.) */
static void watchdog(void)
{
	alarm(60);
}

TestSuite(rest, .init = watchdog);

static struct seen *start(struct rest_limits limits)
{
	struct seen *s = calloc(1, sizeof(*s));

	s->f.limits = limits;
	s->f.ctx = s;
	fixture_start(&s->f, routes, ARRAY_SIZE(routes));
	return s;
}

static void stop(struct seen *s)
{
	fixture_stop(&s->f);
	free(s);
}

/* Send bytes as they are; expect the answer to begin with @status and to hold @word. */
static void raw_expect(struct seen *s, const char *text, size_t n, const char *status,
		       const char *word)
{
	CLEANUP_CLOSE int fd = fixture_connect(&s->f);
	CLEANUP_FREE char *out = NULL;
	char want[32];

	/* Also who is refused early may say all that it has to say. */
	cr_expect(eq(int, fdio_write_full(fd, text, n), 0), "%.60s", text);
	shutdown(fd, SHUT_WR);
	out = fixture_read(fd);
	snprintf(want, sizeof(want), "HTTP/1.1 %s ", status);
	cr_expect(starts(out, want), "%.60s: got %.100s", text, out);
	cr_expect(has(out, word), "%.60s: no \"%s\" in %s", text, word, out);
}

static void expect_raw(struct seen *s, const char *text, const char *status, const char *word)
{
	raw_expect(s, text, strlen(text), status, word);
}

Test(rest, routes_decode_parameters_and_queries)
{
	struct seen *s = start((struct rest_limits){0});
	struct rest_answer a = fixture_ask(&s->f, "GET", "/v1/echo/a%2Fb%20c?x=1&q=d%26e+f", NULL);

	cr_expect(eq(int, a.status, 200));
	cr_expect(eq(str, (char *)json_string_value(json_object_get(a.json, "name")), "a/b c"));
	cr_expect(eq(str, (char *)json_string_value(json_object_get(a.json, "q")), "d&e f"));
	rest_answer_clear(&a);
	stop(s);
}

Test(rest, wrong_paths_and_methods_are_named)
{
	static const struct {
		const char *method, *path;
		int status;
		const char *code;
	} rows[] = {
		{"GET", "/", 404, "no-such-path"},
		{"GET", "/v1", 404, "no-such-path"},
		{"GET", "/v1/echo", 404, "no-such-path"},
		{"GET", "/v1/echo/", 404, "no-such-path"},
		{"GET", "/v1/echo/a/b", 404, "no-such-path"},
		{"GET", "/v1/echo/%00", 404, "no-such-path"},
		{"GET", "/v1/echo/%zz", 404, "no-such-path"},
		{"GET", "/v1/echoo/a", 404, "no-such-path"},
		{"GET", "/v1/things/", 404, "no-such-path"},
		{"DELETE", "/v1/things", 405, "bad-method"},
		{"BREW", "/v1/things", 405, "bad-method"},
		{"get", "/v1/things", 405, "bad-method"},
		{"GET", "/v1/echo/a?q=%gg", 400, "bad-query"},
		{"GET", "/v1/echo/a?1&2&3&4&5&6&7&8&9&a&b&c&d&e&f&g&h", 400, "bad-query"},
	};
	struct seen *s = start((struct rest_limits){0});

	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		struct rest_answer a = fixture_ask(&s->f, rows[i].method, rows[i].path, NULL);

		cr_expect(eq(int, a.status, rows[i].status), "%s", rows[i].path);
		cr_expect(eq(str, a.problem.code, (char *)rows[i].code), "%s", rows[i].path);
		rest_answer_clear(&a);
	}
	expect_raw(s, "PUT /v1/things HTTP/1.1\r\nHost: a\r\n\r\n", "405",
		   "\r\nAllow: GET, HEAD, POST\r\n");
	stop(s);
}

Test(rest, problems_are_rfc9457_documents)
{
	struct seen *s = start((struct rest_limits){0});
	struct rest_answer a = fixture_ask(&s->f, "GET", "/v1/conflict", NULL);
	const char *type, *title, *detail, *code;
	int status;

	cr_assert(eq(int, a.status, 409));
	cr_assert(eq(int,
		     json_unpack(a.json, "{s:s, s:s, s:s, s:s, s:i !}", "type", &type, "title",
				 &title, "detail", &detail, "code", &code, "status", &status),
		     0));
	cr_expect(eq(str, (char *)type, "about:blank"));
	cr_expect(eq(str, (char *)title, "Conflict"));
	cr_expect(eq(str, (char *)detail, "caf?: /v1/conflict"));
	cr_expect(eq(int, status, 409));
	cr_expect(eq(str, a.problem.code, "not-now"));
	rest_answer_clear(&a);
	expect_raw(s, "GET /v1/conflict HTTP/1.1\r\nHost: a\r\n\r\n", "409",
		   "\r\nContent-Type: application/problem+json\r\n");
	stop(s);
}

Test(rest, bodies_are_checked_by_name)
{
#define POST "POST /v1/things HTTP/1.1\r\nHost: a\r\n"
#define JSON "Content-Type: application/json; charset=utf-8\r\n"
	static const struct {
		const char *text, *status, *word;
	} rows[] = {
		{POST JSON "Content-Length: 8\r\n\r\n{\"a\": 1}", "202", "{\"a\":1}"},
		{POST "\r\n", "400", "body: missing"},
		{POST "Content-Length: 2\r\n\r\n{}", "415", "missing, not application/json"},
		{POST "Content-Type: text/plain\r\nContent-Length: 2\r\n\r\n{}", "415",
		 "text/plain"},
		{POST JSON "Content-Length: 2\r\n\r\n[]", "400", "not a JSON object"},
		{POST JSON "Content-Length: 3\r\n\r\n{x}", "400", "body: line 1 column"},
		{POST JSON "Content-Length: 15\r\n\r\n{\"a\":1, \"a\": 2}", "400", "duplicate"},
		{POST JSON "Content-Length: 4\r\n\r\n{\"\xff\"", "400", "bad-json"},
		{POST "Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n", "411",
		 "send Content-Length"},
		{"POST /v1/things/x/bare HTTP/1.1\r\nHost: a\r\n\r\n", "204", ""},
		{"POST /v1/things/x/bare HTTP/1.1\r\nHost: a\r\n" JSON
		 "Content-Length: 2\r\n\r\n{}",
		 "204", ""},
		{"POST /v1/things/x/bare HTTP/1.1\r\nHost: a\r\n" JSON
		 "Content-Length: 7\r\n\r\n{\"b\":1}",
		 "400", "unknown key \\\"b\\\""},
	};
	struct seen *s = start((struct rest_limits){0});

	for (size_t i = 0; i < ARRAY_SIZE(rows); i++)
		expect_raw(s, rows[i].text, rows[i].status, rows[i].word);
	stop(s);
}

Test(rest, broken_requests_are_refused_by_name)
{
	static const struct {
		const char *text, *status, *word;
	} rows[] = {
		{"\r\nGET /v1/echo/a HTTP/1.1\r\nHost: a\r\n\r\n", "200", "\"name\":\"a\""},
		{"GET /v1/echo/a HTTP/1.0\r\n\r\n", "200", "\r\nConnection: close\r\n"},
		{"GET /v1/echo/a\r\n\r\n", "400", "request line"},
		{"GET  /v1/echo/a HTTP/1.1\r\n\r\n", "400", "request line"},
		{"GET v1 HTTP/1.1\r\n\r\n", "400", "must start with /"},
		{"G(T /v1 HTTP/1.1\r\n\r\n", "400", "bad method"},
		{"GET /\xc3\xa4 HTTP/1.1\r\n\r\n", "400", "bad character"},
		{"GET / HTTP/2.0\r\n\r\n", "505", "not HTTP/1.1"},
		{"GET / HTTP/1.1\r\n\r\n", "400", "no Host header"},
		{"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", "400", "more than one Host"},
		{"GET / HTTP/1.1\r\nHost a\r\n\r\n", "400", "without a colon"},
		{"GET / HTTP/1.1\r\nHost: a\r\nA b: c\r\n\r\n", "400", "bad header name"},
		{"GET / HTTP/1.1\r\nHost: a\r\n folded\r\n\r\n", "400", "colon"},
		{"GET / HTTP/1.1\r\nHost: a\nX: b\r\n\r\n", "400", "control character"},
		{"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n", "400",
		 "Content-Length is no number"},
		{"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999999999999\r\n\r\n", "400",
		 "Content-Length is no number"},
		{"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n",
		 "400", "Content-Length twice"},
		{"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: x\r\n\r\n",
		 "400", "both Content-Length"},
		{"GET / HTTP/1.1\r\nHost: a\r\nExpect: miracles\r\n\r\n", "417", "100-continue"},
		{"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 999999999999\r\n\r\n", "413",
		 "1048576 are allowed"},
	};
	static const char nul[] = "GET / HTTP/1.1\r\nHost: \0a\r\n\r\n";
	struct seen *s = start((struct rest_limits){0});

	for (size_t i = 0; i < ARRAY_SIZE(rows); i++)
		expect_raw(s, rows[i].text, rows[i].status, rows[i].word);
	raw_expect(s, nul, sizeof(nul) - 1, "400", "NUL byte");
	stop(s);
}

Test(rest, headers_are_bounded_in_bytes_and_number)
{
	struct seen *s = start((struct rest_limits){.head = 4096});
	char *text = malloc(300000), *p = text;

	p += sprintf(p, "GET / HTTP/1.1\r\nHost: a\r\n");
	for (int i = 0; i < 70; i++)
		p += sprintf(p, "x%d: y\r\n", i);
	strcpy(p, "\r\n");
	expect_raw(s, text, "400", "more than 64 header fields");
	memset(p, 'x', 200000);
	p[200000] = '\0';
	expect_raw(s, text, "431", "more than 4096 bytes");
	free(text);
	stop(s);
}

/* The client sends all of a body that is refused from its header on, and still reads the answer. */
Test(rest, huge_body_is_refused_and_the_answer_arrives)
{
	struct seen *s = start((struct rest_limits){0});
	size_t n = 5u << 20;
	char *body = malloc(n + 200);
	int len = sprintf(
		body, "POST /v1/things HTTP/1.1\r\nHost: a\r\n" JSON "Content-Length: %zu\r\n\r\n",
		n);
	json_t *big = json_object();

	memset(body + len, 'x', n);
	raw_expect(s, body, (size_t)len + n, "413", "5242880 bytes, 1048576 are allowed");
	body[len + (1 << 20) + 1] = '\0';
	json_object_set_new(big, "x", json_string(body + len));
	struct rest_answer a = fixture_ask(&s->f, "POST", "/v1/things", big);

	cr_expect(eq(int, a.status, 413));
	cr_expect(eq(str, a.problem.code, "too-large"));
	cr_expect(eq(int, s->calls, 0));
	rest_answer_clear(&a);
	json_decref(big);
	free(body);
	stop(s);
}

Test(rest, a_body_of_the_limit_is_taken)
{
	struct seen *s = start((struct rest_limits){0});
	char *text = malloc(1u << 20);
	json_t *big = json_object();
	struct rest_answer a;

	memset(text, 'x', 1u << 20);
	text[(1u << 20) - strlen("{\"x\":\"\"}")] = '\0';
	json_object_set_new(big, "x", json_string(text));
	a = fixture_ask(&s->f, "POST", "/v1/things", big);
	cr_expect(eq(int, a.status, 202));
	cr_expect(json_equal(a.json, big));
	rest_answer_clear(&a);
	json_decref(big);
	free(text);
	stop(s);
}

Test(rest, requests_share_a_connection_and_may_come_in_one_piece)
{
	static const char two[] = "HEAD /v1/echo/a HTTP/1.1\r\nHost: a\r\n\r\n"
				  "GET /v1/echo/b HTTP/1.1\r\nHost: a\r\n\r\n"
				  "GET /v1/echo/c HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
	struct seen *s = start((struct rest_limits){0});
	CLEANUP_CLOSE int fd = fixture_connect(&s->f);
	CLEANUP_FREE char *out = NULL;

	fdio_write_full(fd, two, strlen(two));
	out = fixture_read(fd);
	cr_expect(not(has(out, "\"name\":\"a\"")));
	cr_expect(has(out, "\"name\":\"b\""));
	cr_expect(has(out, "\"name\":\"c\""));
	cr_expect(has(out, "\r\nLocation: /v1/hereEvil: yes\r\n"));
	stop(s);
}

Test(rest, one_byte_at_a_time_is_read)
{
	static const char text[] = POST JSON "Content-Length: 8\r\n\r\n{\"a\": 1}";
	struct seen *s = start((struct rest_limits){0});
	CLEANUP_CLOSE int fd = fixture_connect(&s->f);
	CLEANUP_FREE char *out = NULL;

	for (size_t i = 0; i < strlen(text); i++) {
		fdio_write_full(fd, text + i, 1);
		usleep(500);
	}
	shutdown(fd, SHUT_WR);
	out = fixture_read(fd);
	cr_expect(starts(out, "HTTP/1.1 202 "), "%s", out);
	stop(s);
}

/* A client that never stops sending a little does not get more time for it. */
Test(rest, slow_requests_end_in_408)
{
	struct seen *s = start((struct rest_limits){.request_ms = 300});
	CLEANUP_CLOSE int fd = fixture_connect(&s->f);
	CLEANUP_FREE char *out = NULL;
	struct pace *pace = pace_start();
	uint64_t t = clock_us();
	struct pollfd p = {.fd = fd, .events = POLLIN};

	fdio_write_full(fd, "GET / HTTP/1.1\r\nX: ", 19);
	while (!poll(&p, 1, 50)) {
		cr_assert(lt(u64, clock_us() - t, 10000000), "each byte gives it more time");
		fdio_write_full(fd, "y", 1);
	}
	out = fixture_read(fd);
	cr_expect(starts(out, "HTTP/1.1 408 "), "%s", out);
	cr_expect(has(out, "too-slow"));
	cr_expect(pace_brisk(pace, clock_us() - t, 5000000));
	pace_end(pace);
	stop(s);
}

Test(rest, idle_connections_are_closed)
{
	struct seen *s = start((struct rest_limits){.idle_ms = 200});
	CLEANUP_CLOSE int fd = fixture_connect(&s->f);
	char c;

	cr_expect(eq(long, read(fd, &c, 1), 0));
	stop(s);
}

/* The answer is larger than the socket holds, and nobody takes it. */
Test(rest, answers_that_nobody_reads_are_dropped)
{
	static const char text[] = "GET /v1/big HTTP/1.1\r\nHost: a\r\n\r\n";
	struct seen *s = start((struct rest_limits){.idle_ms = 300});
	CLEANUP_CLOSE int fd = fixture_connect(&s->f);
	struct pollfd p = {.fd = fd, .events = POLLRDHUP};

	fdio_write_full(fd, text, strlen(text));
	cr_expect(eq(int, poll(&p, 1, 10000), 1));
	stop(s);
}

Test(rest, connections_are_bounded)
{
	struct seen *s = start((struct rest_limits){.connections = 3});
	struct rest_answer a;
	int fd[3];

	for (int i = 0; i < 3; i++)
		fd[i] = fixture_connect(&s->f);
	a = fixture_ask(&s->f, "GET", "/v1/echo/a", NULL);
	cr_expect(eq(int, a.status, 429));
	cr_expect(eq(str, a.problem.code, "too-many-connections"));
	rest_answer_clear(&a);
	close(fd[1]);
	for (int i = 0; i < 1000; i++) {
		a = fixture_ask(&s->f, "GET", "/v1/echo/a", NULL);
		int status = a.status;

		rest_answer_clear(&a);
		if (status == 200)
			break;
		usleep(10000);
		cr_assert(lt(int, i, 999));
	}
	close(fd[0]);
	close(fd[2]);
	stop(s);
}

Test(rest, expect_100_continue_is_answered)
{
	static const char head[] =
		POST JSON "Expect: 100-continue\r\nContent-Length: 7\r\nConnection: close\r\n\r\n";
	struct seen *s = start((struct rest_limits){0});
	CLEANUP_CLOSE int fd = fixture_connect(&s->f);
	CLEANUP_FREE char *out = NULL;
	char buf[64] = "";

	fdio_write_full(fd, head, strlen(head));
	cr_expect(gt(long, read(fd, buf, sizeof(buf) - 1), 0));
	cr_expect(eq(str, buf, "HTTP/1.1 100 Continue\r\n\r\n"));
	fdio_write_full(fd, "{\"a\":1}", 7);
	out = fixture_read(fd);
	cr_expect(starts(out, "HTTP/1.1 202 "), "%s", out);
	stop(s);
}

Test(rest, other_listeners_are_refused_by_name)
{
	struct seen *s = start((struct rest_limits){0});
	struct error err = {0};
	char longpath[200] = "unix:/";

	cr_expect(eq(int, rest_server_listen(s->f.server, "https://0.0.0.0:7401", &err), -EINVAL));
	cr_expect(has(err.msg, "nobody could use it"));
	error_clear(&err);
	cr_expect(
		eq(int, rest_server_listen(s->f.server, "http://127.0.0.1:65536", &err), -EINVAL));
	cr_expect(has(err.msg, "the port is not 0 to 65535"), "%s", err.msg);
	error_clear(&err);
	cr_expect(eq(int, rest_server_listen(s->f.server, "0.0.0.0:7401", &err), -EINVAL));
	memset(longpath + 6, 'x', 150);
	error_clear(&err);
	cr_expect(eq(int, rest_server_listen(s->f.server, longpath, &err), -EINVAL));
	cr_expect(has(err.msg, "too long"));
	error_clear(&err);
	cr_expect(lt(int, rest_server_listen(s->f.server, "unix:/nowhere/at/all", &err), 0));
	cr_expect(error_is_set(&err));
	stop(s);
}
