/* SPDX-License-Identifier: Apache-2.0 */
/* Answers that come late, or in pages, and to whom. */
#include <sys/socket.h>
#include <sys/stat.h>
#include "unit/rest_fixture.h"
#include "util/cleanup.h"

/* What the handlers have seen; they run on the loop's thread. */
struct seen {
	struct fixture f;
	struct rest_req *pending;
	int gone;
};

static void get_peer(struct rest_req *req, void *ctx)
{
	const struct rest_peer *p = rest_peer(req);

	(void)ctx;
	rest_reply(req, 200,
		   json_pack("{s:i, s:b, s:s, s:s, s:i}", "pid", (int)p->pid, "local", p->local,
			     "name", p->name, "who", p->who, "role", (int)p->role));
}

static void get_list(struct rest_req *req, void *ctx)
{
	json_t *items = json_array();

	(void)ctx;
	for (int i = 0; i < 250; i++) {
		char name[16];

		snprintf(name, sizeof(name), "n%d", i);
		json_array_append_new(items, json_pack("{s:s}", "name", name));
	}
	rest_reply_list(req, items, "name");
}

static void went(struct rest_req *req, void *arg)
{
	struct seen *s = arg;

	(void)req;
	__atomic_add_fetch(&s->gone, 1, __ATOMIC_RELEASE);
}

static void get_later(struct rest_req *req, void *ctx)
{
	struct seen *s = ctx;

	rest_on_gone(req, went, s);
	__atomic_store_n(&s->pending, req, __ATOMIC_RELEASE);
}

static const struct rest_route routes[] = {
	{"GET", "/v1/things", REST_READER, REST_BODY_NONE, get_list},
	{"GET", "/v1/peer", REST_READER, REST_BODY_NONE, get_peer},
	{"GET", "/v1/later", REST_READER, REST_BODY_NONE, get_later},
};

/* What hangs is ended by a signal. (Criterion's own timeouts leak, which LeakSanitizer reports.) */
static void watchdog(void)
{
	alarm(60);
}

TestSuite(rest_answers, .init = watchdog);

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

static struct rest_req *wait_pending(struct seen *s)
{
	struct rest_req *req;

	while (!(req = __atomic_load_n(&s->pending, __ATOMIC_ACQUIRE)))
		usleep(1000);
	return req;
}

static void answer_pending(void *arg)
{
	struct seen *s = arg;

	rest_reply(s->pending, 200, json_pack("{s:b}", "late", 1));
	s->pending = NULL;
}

static const char later[] = "GET /v1/later HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";

Test(rest_answers, a_handler_may_answer_later)
{
	struct seen *s = start((struct rest_limits){.request_ms = 100, .idle_ms = 200});
	CLEANUP_CLOSE int fd = fixture_connect(&s->f);
	CLEANUP_FREE char *out = NULL;

	/* It ends its side, as nc -N does: that is no reason not to answer. */
	fdio_write_full(fd, later, strlen(later));
	shutdown(fd, SHUT_WR);
	wait_pending(s);
	usleep(400000); /* longer than the limits, which are not for handlers */
	loop_call(s->f.loop, answer_pending, s);
	out = fixture_read(fd);
	cr_expect(has(out, "{\"late\":true}"), "%s", out);
	cr_expect(eq(int, s->gone, 0));
	stop(s);
}

Test(rest_answers, a_handler_is_told_that_the_client_went_away)
{
	struct seen *s = start((struct rest_limits){0});
	int fd = fixture_connect(&s->f);

	fdio_write_full(fd, later, strlen(later));
	wait_pending(s);
	cr_expect(eq(int, __atomic_load_n(&s->gone, __ATOMIC_ACQUIRE), 0));
	close(fd);
	while (!__atomic_load_n(&s->gone, __ATOMIC_ACQUIRE))
		usleep(1000);
	loop_call(s->f.loop, answer_pending, s);
	cr_expect(eq(int, s->gone, 1));
	stop(s);
}

Test(rest_answers, requests_outlive_the_server)
{
	struct seen *s = start((struct rest_limits){0});
	CLEANUP_CLOSE int fd = fixture_connect(&s->f);

	fdio_write_full(fd, later, strlen(later));
	wait_pending(s);
	loop_call(s->f.loop, fixture_drop, &s->f);
	cr_expect(eq(int, s->gone, 1));
	cr_expect(eq(int, access(s->f.path, F_OK), -1));
	loop_call(s->f.loop, answer_pending, s);
	stop(s);
}

Test(rest_answers, lists_come_in_pages)
{
	struct seen *s = start((struct rest_limits){0});
	char path[64] = "/v1/things";
	int pages = 0, items = 0;

	for (;;) {
		struct rest_answer a = fixture_ask(&s->f, "GET", path, NULL);
		const char *next = json_string_value(json_object_get(a.json, "next"));

		cr_assert(eq(int, a.status, 200));
		pages++;
		items += (int)json_array_size(json_object_get(a.json, "items"));
		if (next)
			snprintf(path, sizeof(path), "/v1/things?after=%s", next);
		rest_answer_clear(&a);
		if (!next)
			break;
	}
	cr_expect(eq(int, pages, 3));
	cr_expect(eq(int, items, 250));
	static const char *const bad[] = {"limit=0", "limit=x", "limit=1001", "limit=-1",
					  "after=nobody"};

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		snprintf(path, sizeof(path), "/v1/things?%s", bad[i]);
		struct rest_answer a = fixture_ask(&s->f, "GET", path, NULL);

		cr_expect(eq(int, a.status, 400), "%s", path);
		rest_answer_clear(&a);
	}
	stop(s);
}

Test(rest_answers, the_peer_is_known)
{
	struct seen *s = start((struct rest_limits){0});
	struct rest_answer a = fixture_ask(&s->f, "GET", "/v1/peer", NULL);
	struct stat st;

	char who[80];

	cr_expect(eq(int, (int)json_integer_value(json_object_get(a.json, "pid")), (int)getpid()));
	cr_expect(eq(int, json_is_true(json_object_get(a.json, "local")), 1));
	cr_expect(eq(int, (int)json_integer_value(json_object_get(a.json, "role")), REST_OPERATOR));
	snprintf(who, sizeof(who), "uid:%u (pid %d)", getuid(), (int)getpid());
	cr_expect(eq(str, (char *)json_string_value(json_object_get(a.json, "who")), who));
	rest_answer_clear(&a);
	cr_expect(eq(int, stat(s->f.path, &st), 0));
	cr_expect(eq(int, (int)(st.st_mode & 07777), 0660));
	stop(s);
}
