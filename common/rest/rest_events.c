/* SPDX-License-Identifier: Apache-2.0 */
#include "rest/rest_events.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>
#include "util/cleanup.h"
#include "util/clock.h"
#include "util/log.h"

#define TICK_US 1000000
/* Ticks between two signs of life to a client, and to whatever stands in between. */
#define ALIVE_TICKS 15
/* A client that has so much still to take is given no more yet. */
#define QUEUED_MAX (64u << 10)

/**
 * struct kept - one that is kept
 * @text:	as it is sent
 */
struct kept {
	char *text;
	size_t len;
};

/**
 * struct client - one stream
 * @next:	number of the event that it gets next
 */
struct client {
	TAILQ_ENTRY(client) link;
	struct rest_events *ev;
	struct rest_stream *stream;
	uint64_t next;
};

/**
 * struct rest_events - see rest_events.h
 * @life:	tells the numbers of this life of the agent from those of another
 * @ring:	event N is at N modulo its size; from @first to before @next
 * @bytes:	of them
 * @tick:	timer, NULL while there are no clients; @ticks: how often it has run
 */
struct rest_events {
	struct loop *loop;
	rest_events_progress_fn *progress;
	void *arg;
	uint64_t life;
	struct kept ring[REST_EVENTS_MAX];
	uint64_t first;
	uint64_t next;
	size_t bytes;
	TAILQ_HEAD(, client) clients;
	struct event *tick;
	unsigned int ticks;
};

/* --- clients --- */

static void client_free(struct client *c)
{
	TAILQ_REMOVE(&c->ev->clients, c, link);
	free(c);
}

/* Return: false if it has gone, because what it should get next is gone */
static bool client_feed(struct client *c)
{
	struct rest_events *ev = c->ev;

	if (c->next < ev->first) {
		log_info("rest: a reader of events is too slow and was dropped");
		rest_stream_end(c->stream);
		client_free(c);
		return false;
	}
	while (c->next < ev->next && rest_stream_queued(c->stream) < QUEUED_MAX) {
		const struct kept *k = &ev->ring[c->next++ % REST_EVENTS_MAX];

		rest_stream_add(c->stream, k->text, k->len);
	}
	return true;
}

static void on_drained(void *arg)
{
	client_feed(arg);
}

static void on_gone(void *arg)
{
	client_free(arg);
}

static const struct rest_stream_ops stream_ops = {.drained = on_drained, .gone = on_gone};

/* --- the clock --- */

static void show_alive(struct rest_events *ev)
{
	struct client *c;

	TAILQ_FOREACH(c, &ev->clients, link)
	if (!rest_stream_queued(c->stream))
		rest_stream_add(c->stream, ":\n\n", 3);
}

static void on_tick(void *arg)
{
	struct rest_events *ev = arg;

	event_free(ev->tick);
	ev->tick = NULL;
	if (TAILQ_EMPTY(&ev->clients))
		return;
	ev->tick = loop_timer(ev->loop, TICK_US, on_tick, ev);
	if (ev->progress)
		ev->progress(ev, ev->arg);
	if (++ev->ticks % ALIVE_TICKS == 0)
		show_alive(ev);
}

/* --- begin and end --- */

struct rest_events *rest_events_new(struct loop *l, rest_events_progress_fn *progress, void *arg)
{
	struct rest_events *ev = calloc(1, sizeof(*ev));

	if (!ev)
		return NULL;
	ev->loop = l;
	ev->progress = progress;
	ev->arg = arg;
	ev->life = clock_wall_us();
	ev->first = ev->next = 1;
	TAILQ_INIT(&ev->clients);
	return ev;
}

static void forget_oldest(struct rest_events *ev)
{
	struct kept *k = &ev->ring[ev->first++ % REST_EVENTS_MAX];

	ev->bytes -= k->len;
	free(k->text);
	*k = (struct kept){0};
}

void rest_events_free(struct rest_events *ev)
{
	struct client *c;

	if (!ev)
		return;
	while ((c = TAILQ_FIRST(&ev->clients))) {
		rest_stream_end(c->stream);
		client_free(c);
	}
	while (ev->first < ev->next)
		forget_oldest(ev);
	if (ev->tick)
		event_free(ev->tick);
	free(ev);
}

/* --- events --- */

/* @id may be NULL. Return: new text, NULL when out of memory */
static char *event_text(const char *id, const char *type, const json_t *data, size_t *ret_len)
{
	CLEANUP_FREE char *json = data ? json_dumps(data, JSON_COMPACT) : NULL;
	char *text;
	int n;

	if (!json)
		return NULL;
	n = asprintf(&text, "%s%s%sevent: %s\ndata: %s\n\n", id ? "id: " : "", id ? id : "",
		     id ? "\n" : "", type, json);
	if (n < 0)
		return NULL;
	*ret_len = (size_t)n;
	return text;
}

#define ID_MAX 48

static char *id_text(const struct rest_events *ev, uint64_t number, char buf[static ID_MAX])
{
	snprintf(buf, ID_MAX, "%" PRIx64 "-%" PRIu64, ev->life, number);
	return buf;
}

void rest_events_publish(struct rest_events *ev, const char *type, json_t *data)
{
	struct client *c, *next;
	char id[ID_MAX];
	size_t len;
	char *text = ev ? event_text(id_text(ev, ev->next, id), type, data, &len) : NULL;

	json_decref(data);
	if (!text)
		return;
	while (ev->next - ev->first >= REST_EVENTS_MAX ||
	       (ev->first < ev->next && ev->bytes + len > REST_EVENTS_BYTES_MAX))
		forget_oldest(ev);
	ev->ring[ev->next++ % REST_EVENTS_MAX] = (struct kept){text, len};
	ev->bytes += len;
	for (c = TAILQ_FIRST(&ev->clients); c; c = next) {
		next = TAILQ_NEXT(c, link);
		client_feed(c);
	}
}

void rest_events_show(struct rest_events *ev, const char *type, json_t *data)
{
	struct client *c;
	size_t len;
	char *text = event_text(NULL, type, data, &len);

	json_decref(data);
	if (!text)
		return;
	/* Who has not taken all that happened is in no hurry for this. */
	TAILQ_FOREACH(c, &ev->clients, link)
	if (c->next == ev->next && rest_stream_queued(c->stream) < QUEUED_MAX)
		rest_stream_add(c->stream, text, len);
	free(text);
}

/* Return: whether all that came behind this id is still there; then *@ret_next is the first of it */
static bool resume(const struct rest_events *ev, const char *id, uint64_t *ret_next)
{
	uint64_t life, number;
	char more;

	if (sscanf(id, "%" SCNx64 "-%" SCNu64 "%c", &life, &number, &more) != 2 ||
	    life != ev->life || number >= ev->next || number + 1 < ev->first)
		return false;
	*ret_next = number + 1;
	return true;
}

static void say_hello(struct client *c, bool resumed)
{
	char id[ID_MAX];
	json_t *data = json_pack("{s:b}", "resumed", resumed);
	size_t len;
	char *text = event_text(id_text(c->ev, c->next - 1, id), "hello", data, &len);

	json_decref(data);
	if (text)
		rest_stream_add(c->stream, text, len);
	free(text);
}

void rest_events_serve(struct rest_events *ev, struct rest_req *req)
{
	const char *last = rest_header(req, "Last-Event-ID");
	struct client *c;
	bool resumed;

	if (!last)
		last = rest_query(req, "last_event_id");
	if (rest_refuse_type(req, "text/event-stream"))
		return;
	c = calloc(1, sizeof(*c));
	if (!c) {
		rest_problemf(req, 503, "enomem", "out of memory");
		return;
	}
	c->ev = ev;
	c->next = ev->next;
	resumed = last && resume(ev, last, &c->next);
	c->stream = rest_stream_begin(req, "text/event-stream", &stream_ops, c);
	if (!c->stream) {
		free(c);
		return;
	}
	TAILQ_INSERT_TAIL(&ev->clients, c, link);
	say_hello(c, resumed);
	client_feed(c);
	if (!ev->tick)
		ev->tick = loop_timer(ev->loop, TICK_US, on_tick, ev);
}
