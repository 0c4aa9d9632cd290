/* SPDX-License-Identifier: Apache-2.0 */
/* What gates say, and do not say. */
#include <fcntl.h>
#include <net/if.h>
#include <netinet/in.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include "lib/pace.h"
#include "unit/hooks_fixture.h"

TestSuite(hooks_gate, .init = box_quiet, .timeout = 60);

/** struct verdict - what the one who has asked is told */
struct verdict {
	bool called;
	bool allowed;
	struct error why;
};

static void on_verdict(void *arg, const struct error *why)
{
	struct verdict *v = arg;

	cr_assert(not(v->called));
	v->called = true;
	v->allowed = !why;
	if (why)
		v->why = *why;
}

static struct hooks_gate *ask(struct box *b, uint64_t limit_us, struct verdict *v)
{
	struct hooks_gate *g;

	*v = (struct verdict){0};
	g = hooks_gate_ask(b->hooks, "migration.gate", "migrations/one", json_pack("{s:i}", "n", 1),
			   limit_us, on_verdict, v);
	cr_assert(ne(ptr, g, NULL));
	cr_assert(not(v->called), "not from within the question");
	return g;
}

/** struct row - one answer. @more: further members of the hook */
struct row {
	struct hook_say say;
	const char *more;
	bool allowed;
	const char *why;
};

Test(hooks_gate, http_answers)
{
	static const struct row rows[] = {
		{{.body = "{\"decision\": \"allow\"}"}, "", true, NULL},
		{{.body = "{\"decision\": \"refuse\", \"reason\": \"maintenance\"}"},
		 "",
		 false,
		 "refuses: maintenance"},
		{{.body = "{\"decision\": \"refuse\"}"}, "", false, "refuses"},
		{{.body = "{\"decision\": \"perhaps\"}"}, "", false, "has no \"decision\""},
		{{.body = "allow"}, "", false, "has no \"decision\""},
		{{.body = "allow"}, ", \"on_error\": \"allow\"", true, NULL},
		{{.body = NULL}, "", false, "has no \"decision\""},
		{{.body = "[]"}, "", false, "has no \"decision\""},
		{{.body = "{\"decision\": 7}"}, "", false, "has no \"decision\""},
		{{.status = 204}, "", false, "HTTP status 204"},
		{{.status = 500, .body = "{\"decision\": \"allow\"}"},
		 "",
		 false,
		 "HTTP status 500"},
		{{.status = 503}, "", false, "HTTP status 503"},
		{{.status = 302, .headers = "Location: /\r\n"}, "", false, "redirects are not"},
		{{.manner = HOOK_HANGS}, "", false, "has given no answer"},
		{{.manner = HOOK_HANGS}, ", \"on_error\": \"allow\"", true, NULL},
		{{.manner = HOOK_DRIPS}, "", false, "has given no answer"},
		{{.manner = HOOK_POURS}, "", false, "no"},
		{{.manner = HOOK_CLOSES, .body = "{\"decision\": \"allow\"}"},
		 "",
		 false,
		 "no answer"},
	};
	struct pace *pace = pace_start();
	struct box b;

	box_init(&b);
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		char conf[256];
		struct verdict v;
		uint64_t start;

		snprintf(conf, sizeof(conf),
			 "[{\"url\": \"%%s/\", \"gate\": true, \"timeout_ms\": 150%s}]",
			 rows[i].more);
		hook_server_script(b.server, &rows[i].say, 1);
		box_open(&b, conf);
		cr_expect(hooks_gated(b.hooks));
		start = clock_us();
		ask(&b, 10000000, &v);
		box_until(&b, v.called);
		cr_expect(pace_brisk(pace, clock_us() - start, 2000000), "row %zu", i);
		cr_expect(eq(int, v.allowed, rows[i].allowed), "row %zu: %s", i, v.why.msg);
		if (!rows[i].allowed) {
			cr_expect(eq(str, v.why.code, "gate-refused"), "row %zu", i);
			cr_expect(has(v.why.msg, rows[i].why), "row %zu: %s", i, v.why.msg);
		}
		box_close(&b);
	}
	pace_end(pace);
	cr_expect(eq(str, (char *)hook_server_type(b.server, 0), "decant.migration.gate"));
	box_free(&b);
}

/* Asked again behind the pause that it names, and then it allows. */
Test(hooks_gate, one_that_delays_is_asked_again)
{
	static const struct hook_say rows[] = {
		{.times = 1,
		 .body = "{\"decision\": \"delay\", \"reason\": \"busy\", \"retry_after_s\": 1}"},
		{.times = 1, .status = 503, .headers = "Retry-After: 1\r\n"},
		{.body = "{\"decision\": \"allow\"}"},
	};
	struct hooks_gate *g;
	struct verdict v;
	json_t *json;
	struct box b;

	box_init(&b);
	hook_server_script(b.server, rows, 3);
	box_open(&b, "[{\"url\": \"%s/\", \"gate\": true, \"name\": \"cloud\"}]");
	g = ask(&b, 60000000, &v);
	json = hooks_gate_json(g);
	cr_expect(eq(str, (char *)json_string_value(json_object_get(json, "state")), "asked"));
	json_decref(json);
	box_until(&b, box_count(&b).delayed == 1);
	json = hooks_gate_json(g);
	cr_expect(eq(str, (char *)json_string_value(json_object_get(json, "state")), "delayed"));
	cr_expect(eq(str, (char *)json_string_value(json_object_get(json, "reason")), "busy"));
	cr_expect(eq(str, (char *)json_string_value(json_object_get(json, "hook")), "cloud"));
	json_decref(json);
	box_until(&b, v.called);
	cr_expect(v.allowed);
	cr_expect(eq(sz, hook_server_count(b.server), 3));
	for (size_t i = 1; i < 3; i++)
		cr_expect(ge(u64,
			     hook_server_get(b.server, i)->at_ms -
				     hook_server_get(b.server, i - 1)->at_ms,
			     990));
	box_free(&b);
}

Test(hooks_gate, a_delay_ends_with_the_limit)
{
	static const struct hook_say delay = {
		.body = "{\"decision\": \"delay\", \"reason\": \"later\"}"};
	struct verdict v;
	uint64_t start;
	struct pace *pace = pace_start();
	struct box b;

	box_init(&b);
	hook_server_script(b.server, &delay, 1);
	box_open(&b, "[{\"url\": \"%s/\", \"gate\": true, \"on_error\": \"allow\"}]");
	start = clock_us();
	ask(&b, 300000, &v);
	box_until(&b, v.called);
	cr_expect(not(v.allowed));
	cr_expect(has(v.why.msg, "delayed for too long"), "%s", v.why.msg);
	cr_expect(ge(u64, clock_us() - start, 300000));
	cr_expect(pace_brisk(pace, clock_us() - start, 2000000));
	pace_end(pace);
	cr_expect(eq(sz, hook_server_count(b.server), 2),
		  "asked once more when the limit is there");
	box_free(&b);
}

Test(hooks_gate, commands)
{
	static const struct {
		const char *words;
		const char *more;
		bool allowed;
		const char *why;
	} rows[] = {
		{"exit 0", "", true, NULL},
		{"cat >/dev/null; echo rack 7 is on fire >&2; exit 1", "", false,
		 "rack 7 is on fire"},
		{"kill -9 $$", "", false, "no answer"},
		{"kill -9 $$", ", \"on_error\": \"allow\"", true, NULL},
		{"sleep 100", "", false, "no answer"},
		{"sleep 100", ", \"on_error\": \"allow\"", true, NULL},
		{"exec /no/such", "", false, "exit status 127"},
	};
	struct verdict v;
	struct box b;

	box_init(&b);
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		char conf[512];

		snprintf(conf, sizeof(conf),
			 "[{\"exec\": [\"/bin/sh\", \"-c\", \"%s\"], \"gate\": true, "
			 "\"timeout_ms\": 200%s}]",
			 rows[i].words, rows[i].more);
		box_open(&b, conf);
		ask(&b, 10000000, &v);
		box_until(&b, v.called);
		cr_expect(eq(int, v.allowed, rows[i].allowed), "row %zu: %s", i, v.why.msg);
		if (!rows[i].allowed)
			cr_expect(has(v.why.msg, rows[i].why), "row %zu: %s", i, v.why.msg);
		box_close(&b);
	}
	box_open(&b, "[{\"exec\": [\"/bin/sh\", \"-c\", \"exit 75\"], \"gate\": true}]");
	ask(&b, 200000, &v);
	box_until(&b, v.called);
	cr_expect(not(v.allowed));
	cr_expect(eq(u64, box_count(&b).delayed, 2));
	box_close(&b);
	box_open(&b, "[{\"exec\": [\"/no/such\"], \"gate\": true}]");
	ask(&b, 200000, &v);
	box_until(&b, v.called);
	cr_expect(not(v.allowed));
	box_free(&b);
}

/* All must allow; one that refuses decides, whatever the others still think about. */
Test(hooks_gate, several_gates)
{
	static const struct hook_say allow[] = {{.body = "{\"decision\": \"allow\"}"}};
	static const struct hook_say one_refuses[] = {
		{.when = "/b", .body = "{\"decision\": \"refuse\"}"},
		{.when = "/c", .manner = HOOK_HANGS},
		{.body = "{\"decision\": \"allow\"}"},
	};
	static const char *const conf = "[{\"url\": \"%s/a\", \"gate\": true}, {\"url\": \"%s/b\", "
					"\"gate\": true}, {\"url\": \"%s/c\", \"gate\": true}, "
					"{\"url\": \"%s/d\"}]";
	struct verdict v;
	uint64_t start;
	struct pace *pace = pace_start();
	struct box b;

	box_init(&b);
	hook_server_script(b.server, allow, 1);
	box_open(&b, conf);
	ask(&b, 10000000, &v);
	box_until(&b, v.called);
	cr_expect(v.allowed);
	cr_expect(eq(sz, hook_server_count(b.server), 3), "what is no gate is not asked");
	hook_server_script(b.server, one_refuses, 3);
	start = clock_us();
	ask(&b, 10000000, &v);
	box_until(&b, v.called);
	cr_expect(not(v.allowed));
	cr_expect(has(v.why.msg, "/b refuses"), "%s", v.why.msg);
	cr_expect(pace_brisk(pace, clock_us() - start, 2000000));
	pace_end(pace);
	box_free(&b);
}

Test(hooks_gate, a_question_can_be_taken_back)
{
	static const struct hook_say hang = {.manner = HOOK_HANGS};
	static const struct hook_say delay = {.body = "{\"decision\": \"delay\"}"};
	static const struct hook_say allow = {.body = "{\"decision\": \"allow\"}"};
	struct hooks_gate *g;
	struct verdict v;
	struct box b;

	box_init(&b);
	box_open(&b, "[{\"url\": \"%s/\", \"gate\": true},"
		     " {\"exec\": [\"/bin/sleep\", \"100\"], \"gate\": true}]");
	hook_server_script(b.server, &hang, 1);
	g = ask(&b, 10000000, &v);
	box_until(&b, hook_server_count(b.server) == 1);
	hooks_gate_cancel(g);
	hook_server_script(b.server, &delay, 1);
	g = ask(&b, 10000000, &v);
	box_until(&b, box_count(&b).delayed == 1);
	hooks_gate_cancel(g);
	hook_server_script(b.server, &allow, 1);
	g = ask(&b, 10000000, &v);
	box_until(&b, box_count(&b).allowed == 1);
	hooks_gate_cancel(g);
	box_run_ms(&b, 50);
	cr_expect(not(v.called));
	box_free(&b);
}

/* A name server that is silent, in a network of our own. Return: whether that could be made */
static bool silent_name_server(struct box *b)
{
	struct sockaddr_in sin = {
		.sin_family = AF_INET, .sin_port = htons(53), .sin_addr = {htonl(INADDR_LOOPBACK)}};
	struct ifreq up = {.ifr_name = "lo", .ifr_flags = IFF_UP | IFF_RUNNING};
	char path[128];
	FILE *f;
	int fd;

	if (unshare(CLONE_NEWNS | CLONE_NEWNET) ||
	    mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL))
		return false;
	fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	snprintf(path, sizeof(path), "%s/resolv.conf", b->dir);
	f = fopen(path, "we");
	fputs("nameserver 127.0.0.1\noptions timeout:20 attempts:1\n", f);
	fclose(f);
	return !ioctl(fd, SIOCSIFFLAGS, &up) && !bind(fd, (struct sockaddr *)&sin, sizeof(sin)) &&
	       !mount(path, "/etc/resolv.conf", NULL, MS_BIND, NULL);
}

/* The name is not found in time: the loop turns on, also when the attempt is given up. */
Test(hooks_gate, a_silent_name_server_stops_nothing)
{
	struct verdict v;
	uint64_t start;
	struct pace *pace = pace_start();
	struct box b;

	box_init(&b);
	if (!silent_name_server(&b)) {
		pace_end(pace);
		box_free(&b);
		cr_skip_test("no network namespace can be made");
	}
	box_open(
		&b,
		"[{\"url\": \"http://hooks.example.test/\", \"gate\": true, \"timeout_ms\": 400}]");
	start = clock_us();
	ask(&b, 10000000, &v);
	b.stall_us = 0;
	box_until(&b, v.called);
	cr_expect(not(v.allowed));
	cr_expect(pace_brisk(pace, clock_us() - start, 3000000));
	cr_expect(pace_soon(pace, b.stall_us, 500000), "the loop stood for %llu us",
		  (unsigned long long)b.stall_us);
	ask(&b, 10000000, &v);
	box_run_ms(&b, 50);
	start = clock_us();
	box_free(&b);
	cr_expect(pace_brisk(pace, clock_us() - start, 1000000), "the end waits for it neither");
	pace_end(pace);
}
