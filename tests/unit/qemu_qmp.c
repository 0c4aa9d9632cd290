/* SPDX-License-Identifier: Apache-2.0 */
/* The QMP client against a monitor that is played by a thread: polite, slow, or not QEMU at all. */
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "guest/qemu/qmp.h"
#include "util/cleanup.h"
#include "util/clock.h"
#include "util/fdio.h"
#include "util/log.h"

#define GREETING                                                                           \
	"{\"QMP\": {\"version\": {\"qemu\": {\"micro\": 22, \"minor\": 2, \"major\": 7}, " \
	"\"package\": \"\"}, \"capabilities\": [\"oob\"]}}\r\n"
#define ANY_MS 10000

/**
 * struct monitor - the thread's side
 * @script:	what it does with a client
 * @got:	descriptors that came
 * @heard:	commands in order
 */
struct monitor {
	char dir[64];
	char path[100];
	int listener;
	int sock;
	pthread_t thread;
	void (*script)(struct monitor *m);
	char heard[4096];
	int got;
};

/** struct client - what the callbacks were told */
struct client {
	struct loop *loop;
	struct qmp *q;
	int ready, closed, answers, events;
	struct error why;
	int ret;
	struct error err;
	char result[4096];
	char said[256];
	bool free_at_ready, free_at_event, free_at_answer;
};

static struct monitor m;
static struct client c;

/* --- the monitor --- */

static void say(struct monitor *mon, const char *text)
{
	size_t n = strlen(text);

	while (n) {
		ssize_t k = send(mon->sock, text, n, MSG_NOSIGNAL);

		if (k <= 0)
			return;
		text += k;
		n -= (size_t)k;
	}
}

/* Return: id of the next command, -1 at the end; its name is added to what was heard. */
static long hear(struct monitor *mon, char *name, size_t size)
{
	char line[8192], control[CMSG_SPACE(sizeof(int))];
	size_t n = 0;
	const char *at;

	while (n + 1 < sizeof(line)) {
		struct iovec iov = {line + n, 1};
		struct msghdr msg = {.msg_iov = &iov,
				     .msg_iovlen = 1,
				     .msg_control = control,
				     .msg_controllen = sizeof(control)};

		if (recvmsg(mon->sock, &msg, MSG_CMSG_CLOEXEC) <= 0)
			return -1;
		if (msg.msg_controllen && CMSG_FIRSTHDR(&msg))
			memcpy(&mon->got, CMSG_DATA(CMSG_FIRSTHDR(&msg)), sizeof(int));
		if (line[n++] == '\n')
			break;
	}
	line[n] = '\0';
	at = strstr(line, "\"execute\":\"");
	cr_assert(at != NULL, "no command: %s", line);
	snprintf(name, size, "%.*s", (int)strcspn(at + 11, "\""), at + 11);
	snprintf(mon->heard + strlen(mon->heard), sizeof(mon->heard) - strlen(mon->heard), "%s ",
		 name);
	at = strstr(line, "\"id\":");
	return at ? strtol(at + 5, NULL, 10) : -1;
}

static void answer(struct monitor *mon, long id, const char *what)
{
	CLEANUP_FREE char *text = NULL;

	if (asprintf(&text, "{%s, \"id\": %ld}\r\n", what, id) > 0)
		say(mon, text);
}

static void greet(struct monitor *mon)
{
	char name[64];

	say(mon, GREETING);
	answer(mon, hear(mon, name, sizeof(name)), "\"return\": {}");
}

/* Answers everything; "refused", "silent", "late" and "events" are commands of their own kind. */
static void polite(struct monitor *mon)
{
	char name[64];
	long id, late = -1;

	greet(mon);
	while ((id = hear(mon, name, sizeof(name))) >= 0) {
		if (!strcmp(name, "refused"))
			answer(mon, id,
			       "\"error\": {\"class\": \"DeviceNotFound\", \"desc\": \"no such "
			       "thing\"}");
		else if (!strcmp(name, "late"))
			late = id;
		else if (!strcmp(name, "events"))
			say(mon,
			    "{\"timestamp\": {\"seconds\": 1, \"microseconds\": 2}, \"event\": "
			    "\"STOP\"}\r\n"
			    "{\"event\": \"MIGRATION\", \"data\": {\"status\": "
			    "\"completed\"}}\r\n");
		if (!strcmp(name, "events") || !strcmp(name, "plain"))
			answer(mon, id, "\"return\": {\"a\": 1}");
		if (!strcmp(name, "plain") && late >= 0) {
			answer(mon, late, "\"return\": {\"late\": 1}");
			late = -1;
		}
	}
}

static void silent(struct monitor *mon)
{
	char name[64];

	hear(mon, name, sizeof(name));
}

static void no_json(struct monitor *mon)
{
	say(mon, "SSH-2.0-OpenSSH_9.2\r\n");
	silent(mon);
}

static void no_object(struct monitor *mon)
{
	say(mon, "[1, 2]\r\n");
	silent(mon);
}

static void unasked(struct monitor *mon)
{
	greet(mon);
	answer(mon, 4711, "\"return\": {}");
	silent(mon);
}

static void greets_twice(struct monitor *mon)
{
	greet(mon);
	say(mon, GREETING);
	silent(mon);
}

static void endless_line(struct monitor *mon)
{
	static char lots[65536];

	memset(lots, 'x', sizeof(lots) - 1);
	greet(mon);
	for (int i = 0; i < 100; i++)
		say(mon, lots);
	silent(mon);
}

static void endless_events(struct monitor *mon)
{
	greet(mon);
	for (unsigned int i = 0; i < 2 * QMP_EVENTS_MAX; i++)
		say(mon, "{\"event\": \"RTC_CHANGE\"}\r\n");
	silent(mon);
}

/* What a parser that calls itself would need a stack for. */
static void deep_json(struct monitor *mon)
{
	static char deep[1 << 20];

	memset(deep, '[', sizeof(deep) - 3);
	strcpy(deep + sizeof(deep) - 3, "\r\n");
	greet(mon);
	say(mon, deep);
	silent(mon);
}

static void wrong_types(struct monitor *mon)
{
	greet(mon);
	say(mon, "{\"event\": {\"event\": 7}, \"id\": \"seven\", \"return\": 1}\r\n");
	silent(mon);
}

static void dies(struct monitor *mon)
{
	char name[64];

	greet(mon);
	hear(mon, name, sizeof(name));
}

/* Every byte by itself, and many lines at once. */
static void in_pieces(struct monitor *mon)
{
	const char *text = GREETING;
	char name[64];
	long a, b;

	for (; *text; text++) {
		say(mon, (char[]){*text, 0});
		usleep(50);
	}
	answer(mon, hear(mon, name, sizeof(name)), "\"return\": {}");
	a = hear(mon, name, sizeof(name));
	b = hear(mon, name, sizeof(name));
	answer(mon, b, "\"return\": {\"b\": 2}");
	answer(mon, a, "\"return\": {\"a\": 1}");
	silent(mon);
}

static void *play(void *arg)
{
	struct monitor *mon = arg;

	mon->sock = accept(mon->listener, NULL, NULL);
	mon->script(mon);
	close(mon->sock);
	return NULL;
}

/* --- the client --- */

static void on_ready(void *arg)
{
	c.ready++;
	if (c.free_at_ready)
		qmp_free(steal_ptr(&c.q));
	(void)arg;
}

static void on_event(void *arg, const char *name, const json_t *data)
{
	const char *status = json_string_value(json_object_get(data, "status"));

	(void)arg;
	c.events++;
	snprintf(c.said + strlen(c.said), sizeof(c.said) - strlen(c.said), "%s(%s) ", name,
		 status ? status : "");
	if (c.free_at_event)
		qmp_free(steal_ptr(&c.q));
}

static void on_closed(void *arg, const struct error *why)
{
	(void)arg;
	c.closed++;
	c.why = *why;
}

static void on_done(void *arg, int ret, const json_t *result, const struct error *err)
{
	char *text = result ? json_dumps(result, JSON_COMPACT | JSON_SORT_KEYS) : NULL;

	(void)arg;
	c.answers++;
	c.ret = ret;
	c.err = *err;
	snprintf(c.result + strlen(c.result), sizeof(c.result) - strlen(c.result), "%s ",
		 text ? text : "-");
	free(text);
	if (c.free_at_answer)
		qmp_free(steal_ptr(&c.q));
}

static const struct qmp_ops ops = {on_ready, on_event, on_closed};

static void wake(void *arg)
{
	(void)arg;
}

#define until(cond)                                                              \
	do {                                                                     \
		uint64_t end_ = clock_us() + 15000000;                           \
		while (!(cond)) {                                                \
			struct event *t_ = loop_timer(c.loop, 1000, wake, NULL); \
			event_base_loop(loop_base(c.loop), EVLOOP_ONCE);         \
			event_free(t_);                                          \
			cr_assert(clock_us() < end_, "in time: " #cond);         \
		}                                                                \
	} while (0)

static void spin(unsigned int ms)
{
	uint64_t end = clock_us() + ms * 1000ull;

	until(clock_us() > end);
}

static void connect_to(void (*script)(struct monitor *))
{
	struct error err = {0};

	m.script = script;
	cr_assert_eq(pthread_create(&m.thread, NULL, play, &m), 0);
	cr_assert_eq(qmp_open(c.loop, m.path, &ops, &c, &c.q, &err), 0, "%s", err.msg);
}

static void ask(const char *command, unsigned int ms)
{
	cr_assert_eq(qmp_ask(c.q, command, NULL, -1, ms, on_done, &c), 0);
}

static void start(void)
{
	struct error err = {0};

	alarm(60);
	log_setup("error");
	m = (struct monitor){.dir = "/tmp/decant-qmp-XXXXXX", .got = -1};
	cr_assert(mkdtemp(m.dir));
	snprintf(m.path, sizeof(m.path), "%s/s", m.dir);
	m.listener = fdio_unix_listen(m.path, SOCK_STREAM, 0600, &err);
	cr_assert_geq(m.listener, 0, "%s", err.msg);
	fcntl(m.listener, F_SETFL, 0);
	c = (struct client){.loop = loop_new()};
}

static void stop(void)
{
	qmp_free(c.q);
	if (m.thread)
		pthread_join(m.thread, NULL);
	close(m.listener);
	unlink(m.path);
	rmdir(m.dir);
	loop_free(c.loop);
}

TestSuite(qemu_qmp, .init = start, .fini = stop);

Test(qemu_qmp, asks_and_is_answered)
{
	connect_to(polite);
	cr_assert_eq(qmp_ask(c.q, "early", NULL, -1, ANY_MS, NULL, NULL), -ECONNRESET);
	until(c.ready);
	cr_assert_str_eq(qmp_version(c.q), "7.2.22");
	cr_assert_eq(qmp_peer(c.q), getpid());
	ask("plain", ANY_MS);
	cr_assert_eq(c.answers, 0, "before it returned");
	until(c.answers == 1);
	cr_assert_eq(c.ret, 0);
	cr_assert_str_eq(c.result, "{\"a\":1} ");
}

Test(qemu_qmp, a_refusal_has_qemus_words)
{
	connect_to(polite);
	until(c.ready);
	ask("refused", ANY_MS);
	until(c.answers == 1);
	cr_assert_eq(c.ret, -EREMOTEIO);
	cr_assert_str_eq(c.err.code, "device-not-found");
	cr_assert(strstr(c.err.msg, "refused") && strstr(c.err.msg, "no such thing"), "%s",
		  c.err.msg);
	ask("plain", ANY_MS);
	until(c.answers == 2);
	cr_assert_eq(c.ret, 0, "the connection goes on");
}

Test(qemu_qmp, events_come_with_their_data)
{
	connect_to(polite);
	until(c.ready);
	ask("events", ANY_MS);
	until(c.answers == 1);
	cr_assert_str_eq(c.said, "STOP() MIGRATION(completed) ");
}

Test(qemu_qmp, no_answer_in_time_and_a_late_one)
{
	connect_to(polite);
	until(c.ready);
	ask("late", 50);
	until(c.answers == 1);
	cr_assert_eq(c.ret, -ETIMEDOUT);
	ask("plain", ANY_MS);
	until(c.answers == 2);
	cr_assert_eq(c.ret, 0);
	spin(50);
	cr_assert_eq(c.answers, 2, "told twice");
	cr_assert_eq(c.closed, 0);
}

Test(qemu_qmp, a_descriptor_goes_with_its_command)
{
	int p[2];

	connect_to(polite);
	until(c.ready);
	cr_assert(!pipe(p));
	cr_assert_eq(
		qmp_ask(c.q, "plain", json_pack("{s:s}", "fdname", "x"), p[1], ANY_MS, on_done, &c),
		0);
	close(p[1]);
	until(c.answers == 1);
	cr_assert_geq(m.got, 0);
	cr_assert_eq(write(m.got, "!", 1), 1);
	cr_assert_eq(read(p[0], (char[1]){0}, 1), 1);
	close(m.got);
	cr_assert_eq(read(p[0], (char[1]){0}, 1), 0, "a copy stayed open here");
	close(p[0]);
}

Test(qemu_qmp, silence_means_that_it_is_busy)
{
	uint64_t before = clock_us();

	connect_to(silent);
	until(c.closed);
	cr_assert_str_eq(c.why.code, "monitor-busy");
	cr_assert(strstr(c.why.msg, "add a second -qmp"), "%s", c.why.msg);
	cr_assert(clock_us() - before > 1900000);
	cr_assert_eq(c.ready, 0);
}

static const struct rubbish {
	void (*script)(struct monitor *);
	const char *what;
} rubbish[] = {
	{no_json, "no JSON"},          {no_object, "no JSON object"},
	{unasked, "nobody asked"},     {greets_twice, "greeting"},
	{endless_line, "longer"},      {endless_events, "more events"},
	{deep_json, "no JSON object"}, {wrong_types, "neither answer nor event"},
};

Test(qemu_qmp, rubbish_ends_it_by_name)
{
	for (size_t i = 0; i < ARRAY_SIZE(rubbish); i++) {
		c.closed = 0;
		connect_to(rubbish[i].script);
		until(c.closed);
		cr_assert_str_eq(c.why.code, "monitor-rubbish", "%s", c.why.msg);
		cr_assert(strstr(c.why.msg, rubbish[i].what), "%s", c.why.msg);
		qmp_free(steal_ptr(&c.q));
		pthread_join(m.thread, NULL);
	}
	m.thread = 0;
}

Test(qemu_qmp, an_end_is_told_to_all_who_wait)
{
	connect_to(dies);
	until(c.ready);
	ask("one", ANY_MS);
	ask("two", ANY_MS);
	until(c.closed);
	cr_assert_eq(c.answers, 2);
	cr_assert_eq(c.ret, -ECONNRESET);
	cr_assert_str_eq(c.why.code, "monitor-lost");
	cr_assert_eq(qmp_ask(c.q, "three", NULL, -1, ANY_MS, NULL, NULL), -ECONNRESET);
}

Test(qemu_qmp, bytes_one_by_one_and_answers_in_another_order)
{
	connect_to(in_pieces);
	until(c.ready);
	ask("a", ANY_MS);
	ask("b", ANY_MS);
	until(c.answers == 2);
	cr_assert_str_eq(c.result, "{\"b\":2} {\"a\":1} ");
}

Test(qemu_qmp, may_be_freed_in_any_callback)
{
	c.free_at_ready = true;
	connect_to(polite);
	until(c.ready);
	pthread_join(m.thread, NULL);
	c.free_at_ready = false;
	c.free_at_event = true;
	connect_to(polite);
	until(c.ready == 2);
	ask("events", ANY_MS);
	until(c.events == 1);
	pthread_join(m.thread, NULL);
	spin(20);
	cr_assert_eq(c.events, 1, "an event after the end");
	cr_assert_eq(c.answers, 0, "an answer after the end");
	c.free_at_event = false;
	c.free_at_answer = true;
	connect_to(polite);
	until(c.ready == 3);
	ask("plain", ANY_MS);
	ask("plain", ANY_MS);
	until(c.answers == 1);
	pthread_join(m.thread, NULL);
	spin(20);
	cr_assert_eq(c.answers, 1);
	m.thread = 0;
}

Test(qemu_qmp, too_many_are_refused)
{
	connect_to(polite);
	until(c.ready);
	for (int i = 0; i < QMP_ASKED_MAX; i++)
		ask("silent", ANY_MS);
	cr_assert_eq(qmp_ask(c.q, "silent", NULL, -1, ANY_MS, on_done, &c), -EBUSY);
}

Test(qemu_qmp, nobody_listens)
{
	struct error err = {0};

	cr_assert_eq(qmp_open(c.loop, "/nowhere/at/all", &ops, &c, &c.q, &err), -ENOENT);
	cr_assert_str_eq(err.code, "no-monitor");
}
