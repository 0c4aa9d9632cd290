/* SPDX-License-Identifier: Apache-2.0 */
#include "guest/qemu/qmp.h"

#include <ctype.h>
#include <errno.h>
#include <event2/buffer.h>
#include <event2/event.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "guest/qemu/qmp_out.h"
#include "util/cleanup.h"
#include "util/clock.h"

#define READ_BYTES   65536
#define READS_A_TURN 16

/**
 * struct asked - one command on its way
 * @q:		its connection
 * @id:		on the wire
 * @command:	its name; allocated
 * @done, @arg:	whom to tell; NULL once told (then only its late answer is waited for), or if nobody cares
 * @timer:	bound
 */
struct asked {
	struct asked *next;
	struct qmp *q;
	json_int_t id;
	char *command;
	qmp_done_fn *done;
	void *arg;
	struct event *timer;
};

/**
 * struct qmp - one connection
 * @sock:	-1 once it is over
 * @in:		bytes that are no whole line yet; @scanned of them are known to hold no line feed
 * @out:	what waits to be sent
 * @greeting:	bounds the wait for the monitor's first words, and for its first answer
 * @ready:	commands may be sent
 * @events, @events_us: events, and since when they are counted
 * @depth:	callbacks that are running
 * @freed:	qmp_free() came inside one: release at the outermost
 */
struct qmp {
	struct loop *loop;
	const struct qmp_ops *ops;
	void *arg;
	char *path;
	pid_t peer;
	int sock;
	struct event *ev_read;
	struct event *ev_write;
	struct event *greeting;
	struct evbuffer *in;
	size_t scanned;
	struct qmp_out out;
	struct asked *asked;
	size_t nasked;
	json_int_t next_id;
	bool greeted;
	bool ready;
	char version[32];
	unsigned int events;
	uint64_t events_us;
	unsigned int depth;
	bool freed;
};

static void free_event(struct event **ev)
{
	if (*ev)
		event_free(*ev);
	*ev = NULL;
}

static void free_asked(struct asked *a)
{
	free_event(&a->timer);
	free(a->command);
	free(a);
}

static void disconnect(struct qmp *q)
{
	free_event(&q->ev_read);
	free_event(&q->ev_write);
	free_event(&q->greeting);
	qmp_out_clear(&q->out);
	q->ready = false;
	if (q->sock >= 0)
		close(steal_fd(&q->sock));
}

static void destroy(struct qmp *q)
{
	disconnect(q);
	while (q->asked) {
		struct asked *a = q->asked;

		q->asked = a->next;
		free_asked(a);
	}
	if (q->in)
		evbuffer_free(q->in);
	free(q->path);
	free(q);
}

static void enter(struct qmp *q)
{
	q->depth++;
}

/* Return: false if the connection was freed meanwhile: touch nothing of it any more */
static bool leave(struct qmp *q)
{
	if (--q->depth || !q->freed)
		return !q->freed;
	destroy(q);
	return false;
}

void qmp_free(struct qmp *q)
{
	if (!q)
		return;
	if (q->depth)
		q->freed = true;
	else
		destroy(q);
}

pid_t qmp_peer(const struct qmp *q)
{
	return q->peer;
}

const char *qmp_version(const struct qmp *q)
{
	return q->version;
}

/* --- the end ------------------------------------------------------------------------------------ */

static void complete(struct qmp *q, struct asked *a, int ret, const json_t *result,
		     const struct error *err)
{
	qmp_done_fn *done = a->done;

	a->done = NULL;
	free_event(&a->timer);
	if (done && !q->freed)
		done(a->arg, ret, result, err);
}

static void unlink_asked(struct qmp *q, struct asked *a)
{
	struct asked **at = &q->asked;

	while (*at != a)
		at = &(*at)->next;
	*at = a->next;
	q->nasked--;
}

static void lose(struct qmp *q, const struct error *why)
{
	struct error err = {0};

	if (q->sock < 0)
		return;
	disconnect(q);
	enter(q);
	while (q->asked) {
		struct asked *a = q->asked;

		error_clear(&err);
		error_set(&err, -ECONNRESET, why->code, "%s: %s", a->command, why->msg);
		unlink_asked(q, a);
		complete(q, a, -ECONNRESET, NULL, &err);
		free_asked(a);
	}
	if (!q->freed)
		q->ops->closed(q->arg, why);
	leave(q);
}

static void lose_rubbish(struct qmp *q, const char *what)
{
	struct error err = {0};

	error_set(&err, -EPROTO, "monitor-rubbish", "%s is no QMP monitor: it sent %s", q->path,
		  what);
	lose(q, &err);
}

static void lose_errno(struct qmp *q, int ret)
{
	struct error err = {0};

	error_set(&err, ret, "monitor-lost", "the QMP monitor at %s is gone: %s", q->path,
		  ret ? strerror(-ret) : "the connection has ended");
	lose(q, &err);
}

/* --- sending ------------------------------------------------------------------------------------ */

/* Return: 0 if all of it is out or the socket is full, -errno */
static int flush(struct qmp *q)
{
	int r = qmp_out_send(&q->out, q->sock);

	if (r == -EAGAIN)
		return event_add(q->ev_write, NULL) ? -ENOMEM : 0;
	return r;
}

/* An error is told from the loop, in one place with what reading finds. */
static void on_writable(evutil_socket_t sock, short what, void *arg)
{
	struct qmp *q = arg;
	int r = flush(q);

	(void)sock;
	(void)what;
	if (r < 0)
		lose_errno(q, r);
}

static int push(struct qmp *q, const char *text, int fd)
{
	int r = qmp_out_add(&q->out, text, fd);

	if (!r && flush(q) < 0)
		event_active(q->ev_write, EV_WRITE, 1);
	return r;
}

static void on_timeout(evutil_socket_t sock, short what, void *arg)
{
	struct asked *a = arg;
	struct qmp *q = a->q;
	struct error err = {0};

	(void)sock;
	(void)what;
	error_set(&err, -ETIMEDOUT, "monitor-timeout", "QEMU did not answer %s in time",
		  a->command);
	enter(q);
	complete(q, a, -ETIMEDOUT, NULL, &err);
	leave(q);
}

static char *command_text(const char *command, json_int_t id, json_t *args)
{
	json_t *o =
		args ? json_pack("{s:s, s:I, s:O}", "execute", command, "id", id, "arguments", args)
		     : json_pack("{s:s, s:I}", "execute", command, "id", id);
	char *text = o ? json_dumps(o, JSON_COMPACT) : NULL;

	json_decref(o);
	json_decref(args);
	return text;
}

static int ask(struct qmp *q, const char *command, json_t *args, int fd, unsigned int timeout_ms,
	       qmp_done_fn *done, void *arg)
{
	struct timeval tv = {.tv_sec = timeout_ms / 1000, .tv_usec = timeout_ms % 1000 * 1000};
	struct asked *a = calloc(1, sizeof(*a)), **at = &q->asked;
	CLEANUP_FREE char *text = NULL;
	int r = -ENOMEM;

	if (!a) {
		json_decref(args);
		return -ENOMEM;
	}
	*a = (struct asked){.q = q, .id = ++q->next_id, .done = done, .arg = arg};
	text = command_text(command, a->id, args);
	a->command = strdup(command);
	a->timer = evtimer_new(loop_base(q->loop), on_timeout, a);
	if (text && a->command && a->timer && !evtimer_add(a->timer, &tv))
		r = push(q, text, fd);
	if (r < 0) {
		free_asked(a);
		return r;
	}
	while (*at)
		at = &(*at)->next;
	*at = a;
	q->nasked++;
	return 0;
}

int qmp_ask(struct qmp *q, const char *command, json_t *args, int fd, unsigned int timeout_ms,
	    qmp_done_fn *done, void *arg)
{
	int r = !q->ready ? -ECONNRESET : q->nasked >= QMP_ASKED_MAX ? -EBUSY : 0;

	if (!r)
		return ask(q, command, args, fd, timeout_ms, done, arg);
	json_decref(args);
	return r;
}

/* --- receiving ---------------------------------------------------------------------------------- */

static void on_capabilities(void *arg, int ret, const json_t *result, const struct error *err)
{
	struct qmp *q = arg;

	(void)result;
	if (ret == -ECONNRESET)
		return;
	if (ret < 0) {
		lose(q, err);
		return;
	}
	free_event(&q->greeting);
	q->ready = true;
	q->ops->ready(q->arg);
}

static void on_greeting(struct qmp *q, const json_t *greeting)
{
	const json_t *v = json_object_get(json_object_get(greeting, "version"), "qemu");

	snprintf(q->version, sizeof(q->version), "%d.%d.%d",
		 (int)json_integer_value(json_object_get(v, "major")),
		 (int)json_integer_value(json_object_get(v, "minor")),
		 (int)json_integer_value(json_object_get(v, "micro")));
	if (!json_is_object(v) || q->greeted) {
		lose_rubbish(q, "a greeting that is none");
		return;
	}
	q->greeted = true;
	if (ask(q, "qmp_capabilities", NULL, -1, QMP_GREETING_MS, on_capabilities, q))
		lose_errno(q, -ENOMEM);
}

/* "DeviceNotFound" as "device-not-found". */
static void spell_code(const char *class, char *code, size_t size)
{
	size_t n = 0;

	for (; *class && n + 2 < size; class ++) {
		if (!isalnum((unsigned char)*class))
			continue;
		if (isupper((unsigned char)*class) && n)
			code[n++] = '-';
		code[n++] = (char)tolower((unsigned char)*class);
	}
	code[n] = '\0';
}

static void on_answer(struct qmp *q, const json_t *m, const json_t *id)
{
	const json_t *error = json_object_get(m, "error");
	const char *class = json_string_value(json_object_get(error, "class"));
	const char *desc = json_string_value(json_object_get(error, "desc"));
	struct asked *a = q->asked;
	struct error err = {0};
	char code[40];

	while (a && a->id != json_integer_value(id))
		a = a->next;
	if (!a) {
		lose_rubbish(q, "an answer that nobody asked for");
		return;
	}
	if (error) {
		spell_code(class ? class : "unknown", code, sizeof(code));
		error_set(&err, -EREMOTEIO, code, "QEMU refuses %s: %s", a->command,
			  desc ? desc : "without a reason");
	}
	unlink_asked(q, a);
	complete(q, a, error ? -EREMOTEIO : 0, error ? NULL : json_object_get(m, "return"), &err);
	free_asked(a);
}

/* What never ends would have the loop to itself, turn by turn. */
static void on_event(struct qmp *q, const char *name, const json_t *data)
{
	uint64_t now = clock_us();

	if (now - q->events_us > 1000000) {
		q->events_us = now;
		q->events = 0;
	}
	if (++q->events > QMP_EVENTS_MAX)
		lose_rubbish(q, "more events in a second than any QEMU");
	else if (q->ops->event)
		q->ops->event(q->arg, name, data);
}

static void on_message(struct qmp *q, const json_t *m)
{
	const char *event = json_string_value(json_object_get(m, "event"));
	const json_t *greeting = json_object_get(m, "QMP"), *id = json_object_get(m, "id");

	if (event && q->greeted) {
		on_event(q, event, json_object_get(m, "data"));
	} else if (greeting) {
		on_greeting(q, greeting);
	} else if (json_is_integer(id) &&
		   (json_object_get(m, "return") || json_object_get(m, "error"))) {
		on_answer(q, m, id);
	} else {
		lose_rubbish(q, "a message that is neither answer nor event");
	}
}

static void on_line(struct qmp *q, const char *line, size_t len)
{
	json_t *m;

	while (len && isspace((unsigned char)line[len - 1]))
		len--;
	if (!len)
		return;
	m = json_loadb(line, len, 0, NULL);
	if (json_is_object(m))
		on_message(q, m);
	else
		lose_rubbish(q, "a line that is no JSON object");
	json_decref(m);
}

/* Return: whether there was a line. */
static bool take_line(struct qmp *q)
{
	struct evbuffer_ptr from, at;
	char *line;
	size_t len;

	evbuffer_ptr_set(q->in, &from, q->scanned, EVBUFFER_PTR_SET);
	at = evbuffer_search(q->in, "\n", 1, &from);
	if (at.pos < 0) {
		q->scanned = evbuffer_get_length(q->in);
		return false;
	}
	q->scanned = 0;
	line = evbuffer_readln(q->in, &len, EVBUFFER_EOL_LF);
	if (line)
		on_line(q, line, len);
	free(line);
	return true;
}

/* Lines that came before the end of the connection are still heard. */
static void on_readable(evutil_socket_t sock, short what, void *arg)
{
	struct qmp *q = arg;
	int n = 1;

	(void)what;
	enter(q);
	for (int i = 0; i < READS_A_TURN && n > 0 && !q->freed && q->sock >= 0; i++) {
		n = evbuffer_read(q->in, (int)sock, READ_BYTES);
		while (!q->freed && q->sock >= 0 && take_line(q))
			;
		if (q->freed || q->sock < 0)
			break;
		if (evbuffer_get_length(q->in) > QMP_LINE_MAX)
			lose_rubbish(q, "a line longer than 4 MiB");
		else if (n == 0)
			lose_errno(q, 0);
		else if (n < 0 && errno != EAGAIN && errno != EINTR)
			lose_errno(q, -errno);
	}
	leave(q);
}

/* --- opening ------------------------------------------------------------------------------------ */

static int set_busy(struct error *err, const char *path)
{
	return error_set(
		err, -EAGAIN, "monitor-busy",
		"the QMP monitor at %s does not greet: it is busy with another client; give "
		"QEMU a monitor for decant alone: add a second -qmp",
		path);
}

static void on_silence(evutil_socket_t sock, short what, void *arg)
{
	struct qmp *q = arg;
	struct error err = {0};

	(void)sock;
	(void)what;
	set_busy(&err, q->path);
	lose(q, &err);
}

/* Never waits: where the listener's queue is full, nobody takes from it. */
static int connect_to(const char *path, int *ret)
{
	struct sockaddr_un sa = {.sun_family = AF_UNIX};
	CLEANUP_CLOSE int fd = -1;

	if (strlen(path) >= sizeof(sa.sun_path))
		return -ENAMETOOLONG;
	strcpy(sa.sun_path, path);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0 || connect(fd, (struct sockaddr *)&sa, sizeof(sa)))
		return -errno;
	*ret = steal_fd(&fd);
	return 0;
}

static int start(struct qmp *q)
{
	struct timeval tv = {.tv_sec = QMP_GREETING_MS / 1000,
			     .tv_usec = QMP_GREETING_MS % 1000 * 1000};
	struct event_base *base = loop_base(q->loop);
	struct ucred cred = {0};
	socklen_t len = sizeof(cred);

	if (!getsockopt(q->sock, SOL_SOCKET, SO_PEERCRED, &cred, &len))
		q->peer = cred.pid;
	q->in = evbuffer_new();
	q->ev_read = event_new(base, q->sock, EV_READ | EV_PERSIST, on_readable, q);
	q->ev_write = event_new(base, q->sock, EV_WRITE, on_writable, q);
	q->greeting = evtimer_new(base, on_silence, q);
	if (!q->in || !q->ev_read || !q->ev_write || !q->greeting || event_add(q->ev_read, NULL) ||
	    evtimer_add(q->greeting, &tv))
		return -ENOMEM;
	return 0;
}

int qmp_open(struct loop *loop, const char *path, const struct qmp_ops *ops, void *arg,
	     struct qmp **ret, struct error *err)
{
	struct qmp *q = calloc(1, sizeof(*q));
	int r = -ENOMEM;

	if (!q)
		return error_set(err, r, NULL, "out of memory");
	*q = (struct qmp){.loop = loop, .ops = ops, .arg = arg, .sock = -1};
	q->path = strdup(path);
	if (!q->path) {
		destroy(q);
		return error_set(err, r, NULL, "out of memory");
	}
	r = connect_to(path, &q->sock);
	if (!r)
		r = start(q);
	if (!r) {
		*ret = q;
		return 0;
	}
	destroy(q);
	if (r == -EAGAIN)
		return set_busy(err, path);
	return error_set(err, r, "no-monitor", "no QMP monitor at %s: %s", path, strerror(-r));
}
