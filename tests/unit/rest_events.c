/* SPDX-License-Identifier: Apache-2.0 */
/* Server-sent events: numbers, resuming, what is not kept, and readers that are too slow. */
#include <poll.h>
#include <sys/socket.h>
#include "rest/rest_events.h"
#include "unit/rest_fixture.h"
#include "util/cleanup.h"

struct seen {
	struct fixture f;
	struct rest_events *ev;
	int shown;
	int publish;
	size_t pad;
};

static void get_events(struct rest_req *req, void *ctx)
{
	struct seen *s = ctx;

	rest_events_serve(s->ev, req);
}

static const struct rest_route routes[] = {
	{"GET", "/v1/events", REST_READER, REST_DOCUMENT, get_events},
};

static void watchdog(void)
{
	alarm(60);
}

TestSuite(rest_events, .init = watchdog);

static void progress(struct rest_events *ev, void *arg)
{
	struct seen *s = arg;

	rest_events_show(ev, "progress", json_pack("{s:i}", "n", ++s->shown));
}

static struct seen *start(struct rest_limits limits)
{
	struct seen *s = calloc(1, sizeof(*s));

	s->f.limits = limits;
	s->f.ctx = s;
	fixture_start(&s->f, routes, ARRAY_SIZE(routes));
	s->ev = rest_events_new(s->f.loop, progress, s);
	return s;
}

static void drop_events(void *arg)
{
	struct seen *s = arg;

	rest_events_free(s->ev);
}

static void stop(struct seen *s)
{
	loop_call(s->f.loop, drop_events, s);
	fixture_stop(&s->f);
	free(s);
}

static void do_publish(void *arg)
{
	struct seen *s = arg;
	CLEANUP_FREE char *pad = calloc(1, s->pad + 1);

	memset(pad, 'x', s->pad);
	rest_events_publish(s->ev, "thing", json_pack("{s:i, s:s}", "n", ++s->publish, "pad", pad));
}

static void publish(struct seen *s, int n)
{
	while (n--)
		loop_call(s->f.loop, do_publish, s);
}

/* Ask for the stream. Return: the connection */
static int look(struct seen *s, const char *last)
{
	char text[200];
	int fd = fixture_connect(&s->f);

	snprintf(text, sizeof(text), "GET /v1/events HTTP/1.1\r\nHost: a\r\n%s%s%s\r\n",
		 last ? "Last-Event-ID: " : "", last ? last : "", last ? "\r\n" : "");
	fdio_write_full(fd, text, strlen(text));
	return fd;
}

/* Read on until @word has come, or the end. Return: the text for free() */
static char *read_to(int fd, const char *word)
{
	size_t cap = 4u << 20, n = 0;
	char *out = calloc(1, cap);
	ssize_t got = 1;

	while (got > 0 && !strstr(out, word)) {
		got = read(fd, out + n, cap - n - 1);
		n += got > 0 ? (size_t)got : 0;
		out[n] = '\0';
	}
	return out;
}

/* The id of the last event in a text, for free(). */
static char *last_id(const char *text)
{
	const char *at = NULL, *p = text;

	while ((p = strstr(p, "\nid: ")))
		at = p += 5;
	return at ? strndup(at, strcspn(at, "\n")) : NULL;
}

Test(rest_events, what_happens_is_sent)
{
	struct seen *s = start((struct rest_limits){0});
	CLEANUP_CLOSE int fd = look(s, NULL);
	CLEANUP_FREE char *hello = read_to(fd, "\n\n");
	CLEANUP_FREE char *out = NULL;

	cr_expect(starts(hello, "HTTP/1.1 200 "), "%s", hello);
	cr_expect(has(hello, "\r\nContent-Type: text/event-stream\r\n"), "%s", hello);
	cr_expect(has(hello, "\r\nCache-Control: no-store\r\n"), "%s", hello);
	cr_expect(has(hello, "-0\nevent: hello\ndata: {\"resumed\":false}\n\n"), "%s", hello);
	publish(s, 2);
	out = read_to(fd, "\"n\":2");
	cr_expect(has(out, "-1\nevent: thing\ndata: {\"n\":1,\"pad\":\"\"}\n\n"), "%s", out);
	cr_expect(has(out, "-2\nevent: thing\n"), "%s", out);
	stop(s);
}

Test(rest_events, a_stream_is_resumed_where_it_was_cut)
{
	struct seen *s = start((struct rest_limits){0});
	int fd = look(s, NULL);
	CLEANUP_FREE char *first = NULL;
	CLEANUP_FREE char *id = NULL;
	CLEANUP_FREE char *out = NULL;

	free(read_to(fd, "hello"));
	publish(s, 2);
	first = read_to(fd, "\"n\":2");
	close(fd);
	id = last_id(first);
	publish(s, 3);
	fd = look(s, id);
	out = read_to(fd, "\"n\":5");
	close(fd);
	cr_expect(has(out, "{\"resumed\":true}"), "%s", out);
	cr_expect(not(has(out, "\"n\":2,")), "%s", out);
	cr_expect(has(out, "\"n\":3,"), "%s", out);
	cr_expect(has(out, "\"n\":4,"), "%s", out);
	stop(s);
}

/* Of another life, not a number, not yet there, or too long ago: it is said that something is missed. */
Test(rest_events, what_cannot_be_resumed_is_said)
{
	static const char *const ids[] = {"1-1", "x", "0", "ffffffffffffffff-1", "-", "1-1-1"};
	struct seen *s = start((struct rest_limits){0});
	int fd = look(s, NULL);
	char *hello = read_to(fd, "hello"), *id = last_id(hello);

	close(fd);
	for (size_t i = 0; i < ARRAY_SIZE(ids); i++) {
		CLEANUP_FREE char *out = NULL;

		fd = look(s, ids[i]);
		out = read_to(fd, "}\n\n");
		cr_expect(has(out, "{\"resumed\":false}"), "%s: %s", ids[i], out);
		close(fd);
	}
	publish(s, REST_EVENTS_MAX);
	fd = look(s, id);
	free(hello);
	hello = read_to(fd, "}\n\n");
	cr_expect(has(hello, "{\"resumed\":true}"), "%s", hello);
	close(fd);
	publish(s, 1);
	fd = look(s, id);
	free(hello);
	hello = read_to(fd, "}\n\n");
	cr_expect(has(hello, "{\"resumed\":false}"), "%s", hello);
	close(fd);
	free(hello);
	free(id);
	stop(s);
}

Test(rest_events, progress_has_no_number_and_is_not_kept)
{
	struct seen *s = start((struct rest_limits){0});
	int fd = look(s, NULL);
	CLEANUP_FREE char *out = read_to(fd, "event: progress");
	CLEANUP_FREE char *id = last_id(out);
	CLEANUP_FREE char *again = NULL;

	cr_expect(has(out, "\n\nevent: progress"), "%s", out);
	close(fd);
	fd = look(s, id);
	again = read_to(fd, "}\n\n");
	cr_expect(not(has(again, "progress")), "%s", again);
	close(fd);
	stop(s);
}

/* It reads nothing: it costs no more than what the kernel holds and a piece, and is dropped in the end. */
Test(rest_events, a_slow_reader_is_dropped)
{
	struct seen *s = start((struct rest_limits){0});
	CLEANUP_CLOSE int slow = look(s, NULL);
	CLEANUP_CLOSE int quick = look(s, NULL);
	struct pollfd p = {.fd = slow, .events = POLLRDHUP};

	free(read_to(quick, "hello"));
	free(read_to(slow, "hello"));
	s->pad = 60000;
	for (int i = 0; i < 40; i++) {
		char word[20];

		publish(s, 1);
		snprintf(word, sizeof(word), "\"n\":%d", i + 1);
		free(read_to(quick, word));
	}
	cr_expect(eq(int, poll(&p, 1, 5000), 1), "it was dropped");
	p.fd = quick;
	cr_expect(eq(int, poll(&p, 1, 0), 0), "the other goes on");
	stop(s);
}

Test(rest_events, streams_are_bounded_and_places_come_free)
{
	struct seen *s = start((struct rest_limits){.streams = 2});
	int one = look(s, NULL), two = look(s, NULL), fd;
	char *out;

	free(read_to(one, "hello"));
	free(read_to(two, "hello"));
	fd = look(s, NULL);
	out = read_to(fd, "too-many-streams");
	cr_expect(starts(out, "HTTP/1.1 429 "), "%s", out);
	cr_expect(has(out, "\r\nRetry-After: 5\r\n"), "%s", out);
	free(out);
	close(fd);
	close(one);
	for (int i = 0; i < 2000; i++) {
		fd = look(s, NULL);
		out = read_to(fd, "}\n");
		close(fd);
		if (starts(out, "HTTP/1.1 200 "))
			break;
		free(out);
		out = NULL;
		usleep(10000);
	}
	cr_expect(ne(ptr, out, NULL));
	free(out);
	close(two);
	stop(s);
}

Test(rest_events, who_wants_something_else_is_told)
{
	static const char
		text[] = "GET /v1/events HTTP/1.1\r\nHost: a\r\nAccept: application/json\r\n"
			 "Connection: close\r\n\r\n",
		head[] = "HEAD /v1/events HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
	struct seen *s = start((struct rest_limits){0});
	int fd = fixture_connect(&s->f);
	char *out;

	fdio_write_full(fd, text, strlen(text));
	out = fixture_read(fd);
	cr_expect(starts(out, "HTTP/1.1 406 "), "%s", out);
	close(fd);
	free(out);
	fd = fixture_connect(&s->f);
	fdio_write_full(fd, head, strlen(head));
	out = fixture_read(fd);
	cr_expect(starts(out, "HTTP/1.1 200 "), "%s", out);
	close(fd);
	free(out);
	stop(s);
}
