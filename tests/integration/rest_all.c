/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Every operation of deploy/openapi.yaml, asked well and badly. What is answered is noted (tests/lib/lab_http.c), and
 * tests/rest/check compares it with the description; after a whole run it demands that none was left out.
 */
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>
#include "lib/lab_test.h"

TestSuite(rest_all, .timeout = 120);

/* --- help --- */

/* Return: the answer's body as JSON (NULL if it is none), after the status was checked */
static json_t *ask(struct lab *lab, const char *sock, const char *method, const char *path,
		   const char *body, int status)
{
	char *text = NULL;
	int r = lab_http(sock, method, path, body, &text);
	json_t *o = text ? json_loads(text, 0, NULL) : NULL;

	lab_check(lab, r == status, "%s %s: %d, not %d: %s", method, path, r, status,
		  text ? text : "");
	free(text);
	return o;
}

/* The same with a printf path and header lines (each with its line end). */
static json_t *ask_with(struct lab *lab, const char *sock, const char *method, const char *path,
			const char *headers, const char *body, int status)
{
	char *request, *text = NULL;
	int n = asprintf(&request,
			 "%s %s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n%s"
			 "Content-Type: application/json\r\nContent-Length: %zu\r\n\r\n%s",
			 method, path, headers, body ? strlen(body) : 0, body ? body : "");
	int r = lab_http_raw(sock, request, (size_t)n, &text);
	json_t *o = text ? json_loads(text, 0, NULL) : NULL;

	lab_check(lab, r == status, "%s %s: %d, not %d: %s", method, path, r, status,
		  text ? text : "");
	free(text);
	free(request);
	return o;
}

/** struct bad - what is refused, and with which status and code */
struct bad {
	const char *method, *path, *body;
	int status;
	const char *code;
};

static void refused(struct lab *lab, const char *sock, const struct bad *rows, size_t n)
{
	for (const struct bad *b = rows; b < rows + n; b++) {
		json_t *o = ask(lab, sock, b->method, b->path, b->body, b->status);

		lab_check(lab, !strcmp(lab_str(lab, o, "code"), b->code), "%s %s %s: code %s",
			  b->method, b->path, b->body ? b->body : "", lab_str(lab, o, "code"));
		lab_check(lab, *lab_str(lab, o, "detail"), "%s %s says nothing", b->method,
			  b->path);
		json_decref(o);
	}
}

#define REFUSED(lab, sock, ...)                               \
	refused(lab, sock, (const struct bad[]){__VA_ARGS__}, \
		LAB_COUNT(((const struct bad[]){__VA_ARGS__})))

/* An answer without end: its beginning is looked at. */
static void listen_to(struct lab *lab, const char *sock)
{
	static const char request[] = "GET /v1/events HTTP/1.1\r\nHost: x\r\n\r\n";
	struct sockaddr_un sa = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0), status = 0;
	char text[4096] = "";
	size_t n = 0;

	snprintf(sa.sun_path, sizeof(sa.sun_path), "%s", sock);
	lab_check(lab, !connect(fd, (struct sockaddr *)&sa, sizeof(sa)), "%s", sock);
	lab_check(lab, write(fd, request, strlen(request)) > 0, "write");
	while (!strstr(text, "event: hello")) {
		struct pollfd p = {.fd = fd, .events = POLLIN};
		ssize_t got =
			poll(&p, 1, 10000) == 1 ? read(fd, text + n, sizeof(text) - n - 1) : 0;

		lab_check(lab, got > 0, "no events: %s", text);
		n += (size_t)got;
	}
	close(fd);
	*strstr(text, "\r\n\r\n") = 0;
	lab_check(lab, sscanf(text, "HTTP/1.1 %d", &status) == 1 && status == 200, "%s", text);
	lab_http_note(request, strlen(request), text, status, "");
}

static bool phase_is(struct lab *lab, const char *sock, const char *path, const char *phase)
{
	json_t *o = ask(lab, sock, "GET", path, NULL, 200);
	bool is = !strcmp(lab_str(lab, o, "phase"), phase);

	json_decref(o);
	return is;
}

/* Orders a job. Return: the path of what was made */
static char *order(struct lab *lab, const char *sock, const char *path, const char *body)
{
	json_t *o = ask(lab, sock, "POST", path, body, 202);
	char *at;

	cr_assert(asprintf(&at, "%s/%s", path, lab_str(lab, o, "id")) > 0);
	json_decref(o);
	return at;
}

/* --- both agents --- */

static void look_at(struct lab *lab, const char *sock)
{
	static const char *const paths[] = {"/v1/health",    "/v1/host", "/v1/snapshots",
					    "/openapi.json", "/metrics", "/"};

	for (size_t i = 0; i < LAB_COUNT(paths); i++)
		json_decref(ask(lab, sock, "GET", paths[i], NULL, 200));
	listen_to(lab, sock);
	json_decref(ask_with(lab, sock, "GET", "/v1/health", "Accept: text/html\r\n", NULL, 406));
	json_decref(ask_with(lab, sock, "GET", "/", "Accept: image/png\r\n", NULL, 406));
	json_decref(ask_with(lab, sock, "GET", "/metrics", "Accept: image/png\r\n", NULL, 406));
	json_decref(ask_with(lab, sock, "GET", "/v1/events", "Accept: image/png\r\n", NULL, 406));
	json_decref(ask_with(lab, sock, "GET", "/openapi.json", "Accept: a/b\r\n", NULL, 406));
	REFUSED(lab, sock, {"GET", "/v1/snapshots?limit=0", NULL, 400, "bad-query"},
		{"GET", "/v1/nothing", NULL, 404, "no-such-path"},
		{"PUT", "/v1/health", "{}", 405, "bad-method"},
		{"GET", "/v1/host?%zz", NULL, 400, "bad-query"});
}

static void host_of_source(struct lab *lab, const char *s)
{
	json_decref(ask(lab, s, "GET", "/v1/host/bandwidth", NULL, 200));
	json_decref(ask(lab, s, "PUT", "/v1/host/bandwidth", "{\"bytes_per_s\": 1000000}", 200));
	json_decref(ask(lab, s, "PUT", "/v1/host/bandwidth", "{\"bytes_per_s\": null}", 200));
	json_decref(ask(lab, s, "PUT", "/v1/host/cordon", "{\"cordoned\": true}", 200));
	json_decref(ask(lab, s, "PUT", "/v1/host/cordon", "{\"cordoned\": false}", 200));
	REFUSED(lab, s, {"PUT", "/v1/host/bandwidth", "{}", 400, "bad-value"},
		{"PUT", "/v1/host/bandwidth", "{\"bytes_per_s\": 0}", 400, "bad-value"},
		{"PUT", "/v1/host/bandwidth", "[1]", 400, "bad-json"},
		{"PUT", "/v1/host/cordon", "{\"cordoned\": 1}", 400, "bad-value"},
		{"PUT", "/v1/host/cordon", "{\"corded\": true}", 400, "unknown-key"});
}

static void guests(struct lab *lab, const char *s)
{
	json_t *o;

	json_decref(ask(lab, s, "POST", "/v1/guests", "{\"name\": \"x\", \"driver\": \"native\"}",
			201));
	json_decref(ask(lab, s, "GET", "/v1/guests/x", NULL, 200));
	o = ask(lab, s, "GET", "/v1/guests?limit=1", NULL, 200);
	lab_check(lab, json_array_size(json_object_get(o, "items")) == 1, "one guest");
	json_decref(o);
	REFUSED(lab, s, {"POST", "/v1/guests", "{\"driver\": \"native\"}", 400, "bad-guest"},
		{"POST", "/v1/guests", "{\"name\": \"y\", \"driver\": \"xen\"}", 400, "bad-guest"},
		{"GET", "/v1/guests/y", NULL, 404, "no-such-guest"},
		{"GET", "/v1/guests?limit=many", NULL, 400, "bad-query"},
		{"DELETE", "/v1/guests/y", NULL, 404, "no-such-guest"});
	json_decref(ask(lab, s, "DELETE", "/v1/guests/x", NULL, 204));
	json_decref(ask(lab, s, "GET", "/v1/guests/x", NULL, 404));
}

Test(rest_all, hosts_and_guests)
{
	struct lab *lab = lab_new(lab_test_failed);
	struct lab_host *a = lab_host_start(lab, &(struct lab_host_opts){.name = "a"});

	look_at(lab, a->source_sock);
	look_at(lab, a->dest_sock);
	host_of_source(lab, a->source_sock);
	guests(lab, a->source_sock);
	lab_end(lab);
}

/* --- migrations --- */

#define NOWHERE "/00000000-0000-4000-8000-000000000000"

static void bad_migrations(struct lab *lab, const char *s)
{
	REFUSED(lab, s, {"POST", "/v1/migrations", "{\"guest\": \"guest\"}", 400, "missing-key"},
		{"POST", "/v1/migrations", "{\"guest\": \"x\", \"to\": \"h\"}", 404,
		 "no-such-guest"},
		{"POST", "/v1/migrations", "{\"guest\": \"guest\", \"to\": \"h\", \"mode\": 1}",
		 400, "bad-value"},
		{"POST", "/v1/migrations", "{\"guest\": \"guest\", \"to\": \"h\", \"fast\": 1}",
		 400, "unknown-key"},
		{"GET", "/v1/migrations?limit=1001", NULL, 400, "bad-query"},
		{"GET", "/v1/migrations" NOWHERE, NULL, 404, "no-such-migration"},
		{"POST", "/v1/migrations" NOWHERE "/cancel", "", 404, "no-such-migration"},
		{"POST", "/v1/migrations" NOWHERE "/switchover", "", 404, "no-such-migration"},
		{"POST", "/v1/migrations" NOWHERE "/recover", "{}", 404, "no-such-migration"},
		{"POST", "/v1/migrations" NOWHERE "/resolve", "{}", 404, "no-such-migration"});
}

/* Return: the path of a migration in precopy, which takes its time; for free(3) */
static char *slow(struct lab_host *a, struct lab_host *b, struct lab_guest *g)
{
	char body[400], *at;

	snprintf(body, sizeof(body),
		 "{\"guest\": \"%s\", \"to\": \"%s\", \"mode\": \"precopy\", "
		 "\"options\": {\"bandwidth\": 1500000}}",
		 g->name, b->to);
	at = order(a->lab, a->source_sock, "/v1/migrations", body);
	lab_until(a->lab, 10000, phase_is(a->lab, a->source_sock, at, "precopy"), "precopy");
	return at;
}

/* POST to what is below @at. */
static void below(struct lab *lab, const char *sock, const char *at, const char *what,
		  const char *body, int status)
{
	char path[200];

	snprintf(path, sizeof(path), "%s/%s", at, what);
	json_decref(ask(lab, sock, "POST", path, body, status));
}

static void cancelled(struct lab_host *a, struct lab_host *b, struct lab_guest *g)
{
	char *at = slow(a, b, g), there[80];

	json_decref(ask(a->lab, b->dest_sock, "GET", "/v1/incoming", NULL, 200));
	snprintf(there, sizeof(there), "/v1/incoming%s", strrchr(at, '/'));
	json_decref(ask(a->lab, b->dest_sock, "GET", there, NULL, 200));
	below(a->lab, a->source_sock, at, "recover", "{}", 409);
	below(a->lab, a->source_sock, at, "resolve", "{\"keep\": \"both\"}", 400);
	below(a->lab, a->source_sock, at, "resolve", "{\"keep\": \"source\"}", 409);
	below(a->lab, a->source_sock, at, "cancel", NULL, 202);
	lab_until(a->lab, 10000, phase_is(a->lab, a->source_sock, at, "cancelled"), "cancelled");
	below(a->lab, a->source_sock, at, "cancel", NULL, 409);
	below(a->lab, a->source_sock, at, "switchover", NULL, 409);
	free(at);
}

/* Its destination is away for a while. */
static void recovered(struct lab_host *a, struct lab_host *b, struct lab_guest *g)
{
	char *at = slow(a, b, g);

	lab_proc_kill(a->lab, b->dest);
	lab_until(a->lab, 20000, phase_is(a->lab, a->source_sock, at, "paused"), "paused");
	below(a->lab, a->source_sock, at, "recover", "{\"to\": 1}", 400);
	below(a->lab, a->source_sock, at, "recover", "{}", 202);
	below(a->lab, a->source_sock, at, "cancel", NULL, 202);
	lab_until(a->lab, 10000, phase_is(a->lab, a->source_sock, at, "cancelled"), "cancelled");
	free(at);
	lab_host_dest_start(b);
}

/* It is told to go, and one that is kept here is given up. */
static void switched(struct lab_host *a, struct lab_host *b, struct lab_guest *g)
{
	char *at = slow(a, b, g), confirm[100];

	below(a->lab, a->source_sock, at, "switchover", NULL, 202);
	json_decref(ask(a->lab, a->source_sock, "PUT", "/v1/host/bandwidth",
			"{\"bytes_per_s\": null}", 200));
	lab_until(a->lab, 60000, phase_is(a->lab, a->source_sock, at, "completed"), "completed");
	lab_guest_arrived(g, b);
	below(a->lab, a->source_sock, at, "resolve", "{\"keep\": \"destination\"}", 400);
	snprintf(confirm, sizeof(confirm), "{\"keep\": \"destination\", \"confirm\": \"%s\"}",
		 strrchr(at, '/') + 1);
	below(a->lab, a->source_sock, at, "resolve", confirm, 202);
	free(at);
}

Test(rest_all, migrations)
{
	struct lab_host *a, *b;
	struct lab *lab = lab_test_pair(&a, &b);
	struct lab_guest *g = lab_guest_start(
		a, &(struct lab_guest_opts){.mb = 4, .threads = 1, .writes = 5, .keep = true});

	bad_migrations(lab, a->source_sock);
	REFUSED(lab, b->dest_sock, {"GET", "/v1/incoming?limit=x", NULL, 400, "bad-query"},
		{"GET", "/v1/incoming" NOWHERE, NULL, 404, "no-such-incoming"});
	cancelled(a, b, g);
	recovered(a, b, g);
	lab_guest_verified(g);
	switched(a, b, g);
	json_decref(ask(lab, a->source_sock, "GET", "/v1/migrations", NULL, 200));
	lab_end(lab);
}

/* --- evacuations --- */

#define KEY(k) "Idempotency-Key: " k "\r\n"

/* What is kept of answers is lost, as with a host that goes down: the jobs' own journals know. */
static void forget_answers(struct lab_host *a)
{
	lab_proc_kill(a->lab, a->source);
	lab_check(a->lab, !unlink(lab_host_path(a, "state/rest-source.journal")), "no answers");
	lab_host_source_start(a);
}

/*
 * Another request with the same key is refused, the repeat gets the first answer. In this order: where the answers are
 * lost, the first one that is given fills their place again.
 */
static void repeated(struct lab_host *a, const char *path, const char *id, const char *same,
		     const char *other)
{
	json_t *o = ask_with(a->lab, a->source_sock, "POST", path, KEY("once"), other, 422);

	lab_check(a->lab, !strcmp(lab_str(a->lab, o, "code"), "key-reused"), "code %s",
		  lab_str(a->lab, o, "code"));
	json_decref(o);
	o = ask_with(a->lab, a->source_sock, "POST", path, KEY("once"), same, 202);
	lab_check(a->lab, !strcmp(lab_str(a->lab, o, "id"), id), "it has made another one");
	json_decref(o);
}

/* @same: how the first body looks when it is written down otherwise */
static void with_key(struct lab_host *a, const char *path, const char *body, const char *same,
		     const char *other)
{
	json_t *o = ask_with(a->lab, a->source_sock, "POST", path, KEY("once"), body, 202);
	const char *id = lab_str(a->lab, o, "id");

	repeated(a, path, id, same, other);
	forget_answers(a);
	repeated(a, path, id, same, other);
	json_decref(o);
}

Test(rest_all, an_evacuation_is_made_once)
{
	char body[300], same[300], other[300];
	struct lab_host *a, *b;
	struct lab *lab = lab_test_pair(&a, &b);
	struct lab_guest *g = lab_guest_start(a, &(struct lab_guest_opts){.mb = 4, .threads = 1});
	char *at;

	snprintf(body, sizeof(body), "{\"to\": [\"%s\"], \"bandwidth\": 400000}", b->to);
	snprintf(same, sizeof(same), "{\"bandwidth\":400000,\"to\":[\"%s\"]}", b->to);
	snprintf(other, sizeof(other), "{\"to\": [\"%s\"], \"concurrency\": 3}", b->to);
	with_key(a, "/v1/evacuations", body, same, other);
	REFUSED(lab, a->source_sock,
		{"POST", "/v1/evacuations", "{\"to\": [\"h:1\"]}", 409, "evacuation-running"},
		{"POST", "/v1/evacuations", "{\"to\": []}", 400, "bad-value"},
		{"POST", "/v1/evacuations", "{}", 400, "missing-key"},
		{"GET", "/v1/evacuations?limit=0", NULL, 400, "bad-query"},
		{"GET", "/v1/evacuations" NOWHERE, NULL, 404, "no-such-evacuation"},
		{"POST", "/v1/evacuations" NOWHERE "/cancel", NULL, 404, "no-such-evacuation"});
	{
		json_t *o = ask(lab, a->source_sock, "GET", "/v1/evacuations", NULL, 200);

		lab_check(lab, json_array_size(json_object_get(o, "items")) == 1, "one alone");
		cr_assert(asprintf(&at, "/v1/evacuations/%s",
				   json_string_value(json_object_get(
					   json_array_get(json_object_get(o, "items"), 0), "id"))) >
			  0);
		json_decref(o);
	}
	below(lab, a->source_sock, at, "cancel", NULL, 202);
	lab_until(lab, 20000,
		  !phase_is(lab, a->source_sock, at, "running") &&
			  !phase_is(lab, a->source_sock, at, "cancelling"),
		  "cancelled");
	below(lab, a->source_sock, at, "cancel", NULL, 409);
	lab_guest_verified(g);
	free(at);
	lab_end(lab);
}

Test(rest_all, a_migration_is_made_once)
{
	char body[300], same[300], other[300];
	struct lab_host *a, *b;
	struct lab *lab = lab_test_pair(&a, &b);
	struct lab_guest *g = lab_guest_start(a, &(struct lab_guest_opts){.mb = 4, .threads = 1});

	snprintf(body, sizeof(body),
		 "{\"guest\": \"%s\", \"to\": \"%s\", \"mode\": \"precopy\", "
		 "\"options\": {\"bandwidth\": 400000}}",
		 g->name, b->to);
	snprintf(same, sizeof(same),
		 "{\"options\": {\"bandwidth\": 400000}, \"mode\": \"precopy\", "
		 "\"guest\": \"%s\", \"to\": \"%s\"}",
		 g->name, b->to);
	snprintf(other, sizeof(other), "{\"guest\": \"%s\", \"to\": \"%s\", \"mode\": \"precopy\"}",
		 g->name, b->to);
	with_key(a, "/v1/migrations", body, same, other);
	lab_guest_verified(g);
	lab_end(lab);
}

/* --- images --- */

static void images_of_source(struct lab_host *a, struct lab_host *b, struct lab_guest *g)
{
	struct lab *lab = a->lab;
	char body[300], *at;

	REFUSED(lab, a->source_sock,
		{"POST", "/v1/snapshots", "{\"guest\": \"x\", \"to\": \"h\"}", 404,
		 "no-such-guest"},
		{"POST", "/v1/snapshots", "{\"to\": \"h\"}", 400, "missing-key"},
		{"GET", "/v1/snapshots" NOWHERE, NULL, 404, "no-such-snapshot"},
		{"POST", "/v1/snapshots" NOWHERE "/cancel", NULL, 404, "no-such-snapshot"});
	snprintf(body, sizeof(body),
		 "{\"guest\": \"%s\", \"to\": \"%s\", \"name\": \"never\", "
		 "\"options\": {\"bandwidth\": 400000}}",
		 g->name, b->to);
	at = order(lab, a->source_sock, "/v1/snapshots", body);
	lab_until(lab, 10000, phase_is(lab, a->source_sock, at, "saving"), "saving");
	below(lab, a->source_sock, at, "cancel", NULL, 202);
	lab_until(lab, 10000, phase_is(lab, a->source_sock, at, "cancelled"), "cancelled");
	free(at);
	snprintf(body, sizeof(body), "{\"guest\": \"%s\", \"to\": \"%s\", \"name\": \"monday\"}",
		 g->name, b->to);
	at = order(lab, a->source_sock, "/v1/snapshots", body);
	lab_until(lab, 20000, phase_is(lab, a->source_sock, at, "completed"), "stored");
	free(at);
}

static void images_of_dest(struct lab_host *b)
{
	char memory[LAB_PATH_MAX + 16], body[LAB_PATH_MAX + 80];
	static char zero[8192];
	struct lab *lab = b->lab;
	const char *d = b->dest_sock;
	json_t *copy;
	FILE *f;

	REFUSED(lab, d, {"POST", "/v1/snapshots", "{\"name\": \"x\"}", 400, "bad-body"},
		{"POST", "/v1/snapshots", "{\"name\": \"x\", \"memory\": \"here\"}", 422,
		 "bad-memory"},
		{"GET", "/v1/snapshots/x", NULL, 404, "no-such-snapshot"},
		{"POST", "/v1/snapshots/x/restore", "{}", 404, "no-such-snapshot"},
		{"POST", "/v1/snapshots/monday/restore", "{\"x\": 1}", 400, "unknown-key"},
		{"POST", "/v1/snapshots/x/uffd", "{\"socket\": \"/x\"}", 404, "no-such-snapshot"},
		{"POST", "/v1/snapshots/monday/uffd", "{}", 400, "bad-body"});
	copy = ask(lab, d, "POST", "/v1/snapshots/monday/restore", "{}", 202);
	snprintf(body, sizeof(body), "/v1/incoming/%s", lab_str(lab, copy, "id"));
	json_decref(copy);
	/* Else it may be launched when the lab has ended all guests. */
	lab_until(lab, 20000, phase_is(lab, d, body, "completed"), "restored");
	snprintf(memory, sizeof(memory), "%s/memory", lab->root);
	f = fopen(memory, "we");
	lab_check(lab, f && fwrite(zero, sizeof(zero), 1, f) == 1 && !fclose(f), "%s", memory);
	snprintf(body, sizeof(body), "{\"memory\": \"%s\", \"name\": \"vm\"}", memory);
	json_decref(ask(lab, d, "POST", "/v1/snapshots", body, 202));
	lab_until(lab, 10000, phase_is(lab, d, "/v1/snapshots/vm", "completed"), "imported");
	snprintf(body, sizeof(body), "{\"socket\": \"%s/uffd.sock\"}", lab->root);
	json_decref(ask(lab, d, "POST", "/v1/snapshots/vm/uffd", body, 202));
	json_decref(ask(lab, d, "GET", "/v1/incoming?limit=1000", NULL, 200));
	json_decref(ask(lab, d, "GET", "/v1/snapshots", NULL, 200));
}

Test(rest_all, images)
{
	struct lab_host *a, *b;
	struct lab *lab = lab_test_pair(&a, &b);
	struct lab_guest *g = lab_guest_start(a, &(struct lab_guest_opts){.mb = 4, .threads = 1});

	images_of_source(a, b, g);
	images_of_dest(b);
	lab_guest_verified(g);
	lab_end(lab);
}
