/* SPDX-License-Identifier: Apache-2.0 */
/*
 * REST clients that send what must not be sent, to agents that live: each gets an error that names what
 * was wrong, and the agent goes on serving others.
 */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "lib/lab_hostile.h"
#include "lib/lab_test.h"

TestSuite(hostile_rest, .timeout = 120);

struct request {
	const char *what;
	const char *text;
	int status; /* 0: any refusal, or none at all */
};

static const struct request requests[] = {
	{"no such path", "GET /v1/nothing HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", 404},
	{"a way out", "GET /../../etc/passwd HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", 0},
	{"coded way out", "GET /v1/%2e%2e/%00 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", 0},
	{"wrong method", "DELETE /v1/health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", 405},
	{"no method", "\r\n\r\n\r\n", 0},
	{"noise", "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 0},
	{"no version", "GET /v1/health\r\n\r\n", 0},
	{"two lengths",
	 "POST /v1/migrations HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nContent-Length: "
	 "9\r\nConnection: close\r\n\r\n{}",
	 0},
	{"negative length",
	 "POST /v1/migrations HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\nConnection: "
	 "close\r\n\r\n{}",
	 0},
	{"huge length",
	 "POST /v1/migrations HTTP/1.1\r\nHost: x\r\nContent-Length: "
	 "99999999999999999999\r\nConnection: close\r\n\r\n{}",
	 0},
	{"huge chunk",
	 "POST /v1/migrations HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nConnection: "
	 "close\r\n\r\nffffffffffffffff\r\n",
	 0},
	{"short body",
	 "POST /v1/migrations HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\nConnection: "
	 "close\r\n\r\n{",
	 0},
};

static void send_requests(struct lab_host *h, const char *sock)
{
	for (size_t i = 0; i < LAB_COUNT(requests); i++) {
		const struct request *r = &requests[i];
		char *body = NULL;
		int status = lab_http_raw(sock, r->text, strlen(r->text), &body);

		lab_check(h->lab, r->status ? status == r->status : status < 200 || status >= 400,
			  "%s: status %d: %s", r->what, status, body ? body : "");
		if (r->status)
			hostile_problem(h->lab, r->what, body);
		free(body);
		hostile_alive(h, sock, r->what);
	}
}

static void send_long_ones(struct lab_host *h, const char *sock)
{
	size_t n = 4 << 20;
	char *text = malloc(n + 64);
	int head = sprintf(text, "GET /v1/");
	int status;

	memset(text + head, 'a', n);
	strcpy(text + head + n, " HTTP/1.1\r\nHost: x\r\n\r\n");
	status = lab_http_raw(sock, text, strlen(text), NULL);
	lab_check(h->lab, status < 0 || status >= 400, "4 MiB of path: %d", status);
	hostile_alive(h, sock, "long path");

	head = sprintf(text, "GET /v1/health HTTP/1.1\r\nHost: x\r\nX-Long: ");
	memset(text + head, 'a', n - (size_t)head);
	text[n] = 0;
	status = lab_http_raw(sock, text, strlen(text), NULL);
	lab_check(h->lab, status < 0 || status >= 400, "4 MiB of header: %d", status);
	hostile_alive(h, sock, "long header");

	memset(text, '[', n);
	text[n] = 0;
	status = lab_http(sock, "POST", "/v1/migrations", text, NULL);
	lab_check(h->lab, status < 0 || status >= 400, "4 MiB of brackets: %d", status);
	text[60000] = 0;
	status = lab_http(sock, "POST", "/v1/migrations", text, NULL);
	lab_check(h->lab, status < 0 || status >= 400, "60,000 brackets: %d", status);
	hostile_alive(h, sock, "deep body");
	free(text);
}

Test(hostile_rest, requests)
{
	struct lab_host *a, *b;
	struct lab *lab = lab_test_pair(&a, &b);

	send_requests(a, a->source_sock);
	send_requests(b, b->dest_sock);
	send_long_ones(a, a->source_sock);
	send_long_ones(b, b->dest_sock);
	lab_end(lab);
}

struct body {
	const char *path;
	const char *body;
	const char *names; /* what the detail must name */
};

static const struct body bodies[] = {
	{"/v1/migrations", "", ""},
	{"/v1/migrations", "not json", ""},
	{"/v1/migrations", "[]", ""},
	{"/v1/migrations", "{\"to\": \"h:1\"}", "guest"},
	{"/v1/migrations", "{\"guest\": \"guest\"}", "to"},
	{"/v1/migrations", "{\"guest\": 7, \"to\": \"h:1\"}", "guest"},
	{"/v1/migrations", "{\"guest\": \"guest\", \"to\": \"h:0\"}", "h:0"},
	{"/v1/migrations", "{\"guest\": \"guest\", \"to\": \"h:65536\"}", "65536"},
	{"/v1/migrations", "{\"guest\": \"guest\", \"to\": \"\"}", "host"},
	{"/v1/migrations", "{\"guest\": \"guest\", \"to\": \"h:1\", \"mode\": \"fast\"}", "fast"},
	{"/v1/migrations", "{\"guest\": \"guest\", \"to\": \"h:1\", \"colour\": 1}", "colour"},
	{"/v1/migrations", "{\"guest\": \"guest\", \"to\": \"h:1\", \"options\": {\"colour\": 1}}",
	 "colour"},
	{"/v1/migrations",
	 "{\"guest\": \"guest\", \"to\": \"h:1\", \"options\": {\"channels\": 17}}", "channels"},
	{"/v1/migrations",
	 "{\"guest\": \"guest\", \"to\": \"h:1\", \"options\": {\"channels\": -1}}", "channels"},
	{"/v1/migrations",
	 "{\"guest\": \"guest\", \"to\": \"h:1\", \"options\": {\"downtime_limit_ms\": 1e99}}",
	 "downtime_limit_ms"},
	{"/v1/migrations",
	 "{\"guest\": \"guest\", \"to\": \"h:1\", \"options\": {\"compression\": \"zstd\"}}",
	 "zstd"},
	{"/v1/guests", "{\"name\": \"../x\", \"driver\": \"native\"}", "name"},
	{"/v1/guests", "{\"name\": \"x\"}", "driver"},
	{"/v1/guests", "{\"name\": \"x\", \"driver\": \"hyper\"}", "driver"},
	{"/v1/guests", "{\"name\": \"x\", \"driver\": \"native\", \"colour\": 1}", "colour"},
	{"/v1/guests", "{\"name\": \"x\", \"driver\": \"native\", \"vars\": {\"a\": \"$(id)\"}}",
	 "vars"},
};

Test(hostile_rest, bodies)
{
	struct lab *lab = lab_new(lab_test_failed);
	struct lab_host *a =
		lab_host_start(lab, &(struct lab_host_opts){.name = "a", .no_dest = true});

	/* Its target is looked at only once the guest is known. */
	lab_guest_start(a, &(struct lab_guest_opts){.mb = 1});
	for (size_t i = 0; i < LAB_COUNT(bodies); i++) {
		const struct body *r = &bodies[i];
		char *answer = NULL;
		int status = lab_http(a->source_sock, "POST", r->path, r->body, &answer);

		lab_check(lab, status >= 400 && status < 500, "%s: status %d: %s", r->body, status,
			  answer ? answer : "");
		hostile_problem(lab, r->body, answer);
		lab_check(lab, strstr(answer, r->names), "%s: does not name \"%s\": %s", r->body,
			  r->names, answer);
		free(answer);
	}
	hostile_alive(a, a->source_sock, "bodies");
	lab_end(lab);
}
