/* SPDX-License-Identifier: Apache-2.0 */
/* The server over TLS: certificates, tokens and their roles, and those who are let in no further. */
#include <criterion/hooks.h>
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include "lib/pace.h"
#include "lib/tls_pki.h"
#include "rest/rest_auth.h"
#include "unit/rest_fixture.h"
#include "util/cleanup.h"
#include "util/clock.h"

#define OP_TOKEN   "9f86d081884c7d659a2feaa0c55ad015"
#define READ_TOKEN "reader-token-1234"

ReportHook(PRE_ALL)(struct criterion_test_set *set)
{
	const char *dir;
	int bad = 0;

	(void)set;
	tls_pki_begin();
	dir = tls_pki_dir();
	bad |= tls_pki_certs("ca %s/ca >/dev/null", dir);
	bad |= tls_pki_certs("host %s/ca agent DNS:agent IP:127.0.0.1 >/dev/null", dir);
	bad |= tls_pki_certs("host %s/ca boss DNS:boss >/dev/null", dir);
	bad |= tls_pki_certs("host %s/ca viewer DNS:viewer >/dev/null", dir);
	bad |= tls_pki_certs("host %s/ca stranger DNS:stranger >/dev/null", dir);
	bad |= tls_pki_certs("ca %s/foreign --name other >/dev/null", dir);
	bad |= tls_pki_certs("host %s/foreign boss DNS:boss >/dev/null", dir);
	if (bad)
		abort();
}

ReportHook(POST_ALL)(struct criterion_global_stats *stats)
{
	(void)stats;
	tls_pki_end();
}

static void watchdog(void)
{
	alarm(60);
}

TestSuite(rest_tls, .init = watchdog);

static void get_who(struct rest_req *req, void *ctx)
{
	const struct rest_peer *p = rest_peer(req);

	(void)ctx;
	rest_reply(req, 200,
		   json_pack("{s:s, s:s, s:b, s:s}", "name", p->name, "who", p->who, "local",
			     p->local, "address", p->address));
}

static void post_thing(struct rest_req *req, void *ctx)
{
	int *calls = ctx;

	rest_reply(req, 202, json_pack("{s:i}", "n", ++*calls));
}

static const struct rest_route routes[] = {
	{"GET", "/", REST_PUBLIC, REST_BODY_NONE, get_who},
	{"GET", "/v1/who", REST_READER, REST_BODY_NONE, get_who},
	{"POST", "/v1/things", REST_OPERATOR, REST_BODY_OBJECT, post_thing},
};

/**
 * struct tls_fixture - a server with an https listener
 * @f:		its loop, server and thread
 * @calls:	of POST
 */
struct tls_fixture {
	struct fixture f;
	unsigned int port;
	char api[64];
	int calls;
};

static void write_tokens(struct tls_fixture *f, char path[static 120])
{
	FILE *out;

	snprintf(path, 120, "%s/tokens", f->f.dir);
	out = fopen(path, "w");
	fchmod(fileno(out), 0600);
	fputs("operator alice " OP_TOKEN "\nreader bob " READ_TOKEN "\n", out);
	fclose(out);
}

static void listen_tls(struct tls_fixture *t)
{
	struct error err = {0};
	char ca[PATH_MAX];
	struct tls_ctx *ctx;
	struct tls_pki p;

	snprintf(ca, sizeof(ca), "%s/ca", tls_pki_dir());
	tls_pki_files(&p, ca, "agent");
	p.files.http = true;
	cr_assert(eq(int, tls_ctx_new(&p.files, TLS_SERVER, &ctx, &err), 0), "%s", err.msg);
	rest_server_tls(t->f.server, ctx);
	tls_ctx_unref(ctx);
	cr_assert(eq(int, rest_server_listen(t->f.server, "https://127.0.0.1:0", &err), 0), "%s",
		  err.msg);
	t->port = rest_server_port(t->f.server);
	snprintf(t->api, sizeof(t->api), "https://127.0.0.1:%u", t->port);
}

static struct tls_fixture *start(const struct rest_limits *limits)
{
	static char *operators[] = {"DNS:boss", NULL}, *readers[] = {"DNS:viewer", NULL};
	struct rest_auth_conf conf = {.operators = operators, .readers = readers};
	struct tls_fixture *t = calloc(1, sizeof(*t));
	const char *tmp = getenv("TMPDIR");
	struct rest_auth *auth = NULL;
	struct error err = {0};
	char path[120];

	snprintf(t->f.dir, sizeof(t->f.dir), "%s/rest-XXXXXX", tmp ? tmp : "/tmp");
	cr_assert(ne(ptr, mkdtemp(t->f.dir), NULL));
	write_tokens(t, path);
	conf.token_file = path;
	t->f.loop = loop_new();
	t->f.server = rest_server_new(t->f.loop, routes, ARRAY_SIZE(routes), limits, &t->calls);
	cr_assert(eq(int, rest_auth_new(&conf, &auth, &err), 0), "%s", err.msg);
	unlink(path);
	rmdir(t->f.dir);
	rest_server_auth(t->f.server, auth);
	listen_tls(t);
	pthread_create(&t->f.thread, NULL, fixture_run, &t->f);
	return t;
}

static void stop(struct tls_fixture *t)
{
	loop_call(t->f.loop, fixture_drop, &t->f);
	loop_stop(t->f.loop);
	pthread_join(t->f.thread, NULL);
	loop_free(t->f.loop);
	free(t);
}

/* Files of an identity of the CA in subfolder @sub; the agent's authority is trusted. */
static void identity(struct rest_creds *c, struct tls_pki *p, struct tls_pki *agent,
		     const char *sub, const char *name)
{
	char dir[PATH_MAX];

	snprintf(dir, sizeof(dir), "%s/ca", tls_pki_dir());
	tls_pki_files(agent, dir, "agent");
	c->ca = agent->files.ca;
	if (!name)
		return;
	snprintf(dir, sizeof(dir), "%s/%s", tls_pki_dir(), sub);
	tls_pki_files(p, dir, name);
	c->cert = p->files.cert;
	c->key = p->files.key;
}

/* One call. Return: its status, or -errno */
static int ask(struct tls_fixture *t, const char *sub, const char *name, const char *token,
	       const char *method, const char *path, struct rest_answer *ret, struct error *err)
{
	struct rest_creds creds = {.token = token};
	struct rest_call_spec spec = {
		.api = t->api, .creds = &creds, .method = method, .path = path, .timeout_ms = 5000};
	json_t *body = strcmp(method, "POST") ? NULL : json_object();
	struct tls_pki p, agent;
	int r;

	identity(&creds, &p, &agent, sub, name);
	spec.body = body;
	r = rest_call(&spec, ret, err);
	json_decref(body);
	return r ? r : ret->status;
}

Test(rest_tls, certificates_and_tokens_have_roles)
{
	static const struct {
		const char *name, *token, *method, *path;
		int status;
		const char *code, *who;
	} rows[] = {
		{NULL, NULL, "GET", "/", 200, "", ""},
		{NULL, NULL, "GET", "/v1/who", 401, "who-are-you", NULL},
		{NULL, NULL, "GET", "/v1/nothing", 401, "who-are-you", NULL},
		{NULL, NULL, "POST", "/v1/things", 401, "who-are-you", NULL},
		{NULL, "wrong-wrong-wrong", "GET", "/v1/who", 401, "bad-token", NULL},
		{NULL, "wrong-wrong-wrong", "GET", "/", 401, "bad-token", NULL},
		{NULL, READ_TOKEN, "GET", "/v1/who", 200, "", "token:bob"},
		{NULL, READ_TOKEN, "GET", "/v1/nothing", 404, "no-such-path", NULL},
		{NULL, READ_TOKEN, "POST", "/v1/things", 403, "read-only", NULL},
		{NULL, OP_TOKEN, "POST", "/v1/things", 202, "", NULL},
		{"boss", NULL, "GET", "/v1/who", 200, "", "DNS:boss"},
		{"boss", NULL, "POST", "/v1/things", 202, "", NULL},
		{"viewer", NULL, "GET", "/v1/who", 200, "", "DNS:viewer"},
		{"viewer", NULL, "POST", "/v1/things", 403, "read-only", NULL},
		{"viewer", OP_TOKEN, "POST", "/v1/things", 202, "", NULL},
		{"boss", READ_TOKEN, "POST", "/v1/things", 403, "read-only", NULL},
		{"boss", "wrong-wrong-wrong", "GET", "/v1/who", 401, "bad-token", NULL},
		{"stranger", NULL, "GET", "/v1/who", 403, "not-listed", NULL},
		{"stranger", NULL, "GET", "/", 200, "", "DNS:stranger"},
		{"stranger", OP_TOKEN, "POST", "/v1/things", 202, "", NULL},
	};
	struct tls_fixture *t = start(NULL);

	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		struct rest_answer a = {0};
		struct error err = {0};
		int r = ask(t, "ca", rows[i].name, rows[i].token, rows[i].method, rows[i].path, &a,
			    &err);
		const char *name = json_string_value(json_object_get(a.json, "name"));

		cr_expect(eq(int, r, rows[i].status), "row %zu: %s%s", i, err.msg, a.problem.msg);
		cr_expect(eq(str, a.problem.code, (char *)rows[i].code), "row %zu", i);
		if (rows[i].who)
			cr_expect(eq(str, (char *)name, (char *)rows[i].who), "row %zu", i);
		rest_answer_clear(&a);
	}
	cr_expect(eq(int, t->calls, 4));
	stop(t);
}

Test(rest_tls, who_it_was_is_said_with_the_address)
{
	struct tls_fixture *t = start(NULL);
	struct rest_answer a = {0};
	struct error err = {0};
	const char *who;

	cr_assert(eq(int, ask(t, "ca", NULL, OP_TOKEN, "GET", "/v1/who", &a, &err), 200), "%s",
		  err.msg);
	who = json_string_value(json_object_get(a.json, "who"));
	cr_expect(starts(who, "token:alice from 127.0.0.1:"), "%s", who);
	cr_expect(eq(int, json_is_false(json_object_get(a.json, "local")), 1));
	rest_answer_clear(&a);
	stop(t);
}

Test(rest_tls, a_certificate_of_another_authority_is_refused)
{
	struct tls_fixture *t = start(NULL);
	struct rest_answer a = {0};
	struct error err = {0};
	int r = ask(t, "foreign", "boss", NULL, "GET", "/v1/who", &a, &err);

	cr_expect(lt(int, r, 0), "status %d", r);
	cr_expect(eq(str, err.code, "tls-unknown-ca"), "%s: %s", err.code, err.msg);
	rest_answer_clear(&a);
	stop(t);
}

Test(rest_tls, an_agent_of_another_authority_is_not_trusted)
{
	struct tls_fixture *t = start(NULL);
	struct rest_creds creds = {.token = OP_TOKEN};
	struct rest_call_spec spec = {
		.api = t->api, .creds = &creds, .method = "GET", .path = "/v1/who"};
	struct rest_answer a = {0};
	struct error err = {0};
	char dir[PATH_MAX];
	struct tls_pki p;

	cr_expect(eq(int, rest_call(&spec, &a, &err), -EACCES), "the system's: %s", err.msg);
	error_clear(&err);
	snprintf(dir, sizeof(dir), "%s/foreign", tls_pki_dir());
	tls_pki_files(&p, dir, "boss");
	creds.ca = p.files.ca;
	cr_expect(eq(int, rest_call(&spec, &a, &err), -EACCES), "%s", err.msg);
	cr_expect(eq(str, err.code, "tls-unknown-ca"), "%s", err.msg);
	stop(t);
}

static int dial_plain(const struct tls_fixture *t)
{
	struct sockaddr_in sa = {.sin_family = AF_INET,
				 .sin_port = htons((uint16_t)t->port),
				 .sin_addr = {htonl(INADDR_LOOPBACK)}};
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	cr_assert(eq(int, connect(fd, (struct sockaddr *)&sa, sizeof(sa)), 0));
	return fd;
}

Test(rest_tls, who_speaks_plain_http_is_told_what_this_is)
{
	static const char text[] = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
	struct tls_fixture *t = start(NULL);
	CLEANUP_CLOSE int fd = dial_plain(t);
	CLEANUP_FREE char *out = NULL;

	fdio_write_full(fd, text, strlen(text));
	out = fixture_read(fd);
	cr_expect(starts(out, "HTTP/1.1 400 "), "%s", out);
	cr_expect(has(out, "HTTPS only"), "%s", out);
	stop(t);
}

/* Strangers that say nothing hold their places for the time of one request, not for that of an idle client. */
Test(rest_tls, silent_strangers_are_closed_soon)
{
	struct tls_fixture *t = start(&(struct rest_limits){.request_ms = 300, .idle_ms = 60000});
	CLEANUP_CLOSE int fd = dial_plain(t);
	struct pace *pace = pace_start();
	uint64_t since = clock_us();
	char c;

	cr_expect(eq(long, read(fd, &c, 1), 0));
	cr_expect(pace_brisk(pace, clock_us() - since, 5000000));
	pace_end(pace);
	stop(t);
}

/* Two places for this address are taken by silence: the third is told so inside TLS. */
Test(rest_tls, one_address_cannot_take_all_places)
{
	struct tls_fixture *t = start(&(struct rest_limits){.per_address = 2});
	CLEANUP_CLOSE int one = dial_plain(t);
	CLEANUP_CLOSE int two = dial_plain(t);
	struct rest_answer a = {0};
	struct error err = {0};

	cr_expect(eq(int, ask(t, "ca", NULL, OP_TOKEN, "GET", "/v1/who", &a, &err), 429), "%s",
		  err.msg);
	cr_expect(eq(str, a.problem.code, "too-many-connections"));
	rest_answer_clear(&a);
	stop(t);
}

/* A page of another site makes its visitor's browser ask: the browser says where the page is from. */
Test(rest_tls, other_sites_do_not_act_for_a_certificate)
{
	struct tls_fixture *t = start(NULL);
	static const char *const origins[] = {"https://evil.example", "null"};
	struct tls_pki p, agent;
	struct rest_creds creds = {0};

	identity(&creds, &p, &agent, "ca", "boss");
	for (size_t i = 0; i < ARRAY_SIZE(origins); i++) {
		struct tls_files files = {.ca = agent.files.ca,
					  .cert = p.files.cert,
					  .key = p.files.key,
					  .http = true};
		struct error err = {0};
		struct tls_chan *c;
		struct tls_ctx *ctx;
		char text[200], port[8], out[1000] = "";
		size_t n = 0;
		ssize_t got;

		cr_assert(eq(int, tls_ctx_new(&files, TLS_CLIENT, &ctx, &err), 0), "%s", err.msg);
		snprintf(port, sizeof(port), "%u", t->port);
		cr_assert(eq(int, tls_dial(ctx, "127.0.0.1", port, 5000000, -1, &c, &err), 0), "%s",
			  err.msg);
		snprintf(text, sizeof(text),
			 "GET /v1/who HTTP/1.1\r\nHost: 127.0.0.1:%s\r\nOrigin: %s\r\n"
			 "Connection: close\r\n\r\n",
			 port, origins[i]);
		cr_assert(eq(int, tls_write_full(c, text, strlen(text), -1, 5000000, &err), 0));
		while ((got = tls_read(c, out + n, sizeof(out) - 1 - n)) > 0 || got == -EAGAIN)
			n += got > 0 ? (size_t)got : 0;
		cr_expect(eq(int, (int)got, 0), "ended by TLS' own end: %s",
			  tls_chan_error(c)->msg);
		cr_expect(starts(out, "HTTP/1.1 403 "), "%s", out);
		cr_expect(has(out, "cross-origin"), "%s", out);
		tls_chan_free(c);
		tls_ctx_unref(ctx);
	}
	stop(t);
}
