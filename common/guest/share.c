/* SPDX-License-Identifier: Apache-2.0 */
#include "guest/share.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "util/clock.h"
#include "util/cleanup.h"
#include "util/log.h"

/* Messages at one look: one that never stops talking must not keep the loop. */
#define MESSAGES_AT_ONCE 16
/*
 * And for so long. A range is looked up in /proc/PID/maps, which is as long as that process likes: once it
 * has cost more than all ranges of an honest one do, it is heard for a tenth of the time.
 */
#define LOOK_US 10000
#define FREE_US 100000
#define REST    9

/**
 * struct conn - a share and its connection
 * @s:		what the agent sees
 * @sock:	-1 once it has ended
 * @pidfd:	tells the end of the process
 * @ended:	the agent is to be told from the loop
 * @rested:	it is heard again
 * @spent_us:	on what it said
 */
struct conn {
	struct share s;
	int sock;
	int pidfd;
	struct event *readable;
	struct event *dead;
	struct event *ended;
	struct event *rested;
	uint64_t spent_us;
	const struct share_ops *ops;
	void *arg;
	uint8_t packet[GWIRE_PACKET_MAX];
};

static struct conn *conn_of(struct share *s)
{
	return (struct conn *)s; /* @s is its first member */
}

static void free_event(struct event **ev)
{
	if (*ev)
		event_free(*ev);
	*ev = NULL;
}

static void disconnect(struct conn *c)
{
	free_event(&c->readable);
	free_event(&c->rested);
	if (c->sock >= 0)
		gwire_hang_up(steal_fd(&c->sock));
}

static void on_ended(evutil_socket_t fd, short what, void *arg)
{
	struct conn *c = arg;

	(void)fd;
	(void)what;
	c->ops->gone(c->arg, false);
}

/* The agent is told from the loop: whoever sends is in the middle of something. */
static void lose(struct conn *c)
{
	if (c->sock < 0)
		return;
	disconnect(c);
	event_active(c->ended, EV_TIMEOUT, 1);
}

/* --- sending: few and short messages; who does not read them is cut off --- */

static void send_msg(struct conn *c, const struct gwire_msg *m)
{
	uint8_t buf[1024];
	ssize_t n = gwire_encode(m, buf, sizeof(buf));
	int r = n < 0 ? (int)n : c->sock < 0 ? 0 : gwire_send(c->sock, buf, (size_t)n, -1);

	if (r)
		lose(c);
}

void share_done(struct share *s, uint32_t id, int ret, bool missing, const char *message)
{
	struct gwire_msg m = {.type = GWIRE_DONE, .id = id};

	m.u.done.result = ret;
	m.u.done.detail = !ret && !missing;
	snprintf(m.u.done.message, sizeof(m.u.done.message), "%s", message);
	send_msg(conn_of(s), &m);
}

void share_settled(struct share *s)
{
	send_msg(conn_of(s), &(struct gwire_msg){.type = GWIRE_SETTLED});
}

void share_refuse(struct share *s, const struct error *why)
{
	struct gwire_msg m = {.type = GWIRE_REFUSED};

	strcpy(m.u.refused.code, why->code);
	strcpy(m.u.refused.message, why->msg);
	send_msg(conn_of(s), &m);
	disconnect(conn_of(s));
}

void share_expel(struct share *s, const struct error *why)
{
	share_refuse(s, why);
	event_active(conn_of(s)->ended, EV_TIMEOUT, 1);
}

/* --- receiving --- */

static int on_message(struct conn *c, const struct gwire_msg *m)
{
	const struct gwire_share *r = &m->u.share;

	switch (m->type) {
	case GWIRE_SHARE_MAP:
		c->ops->map(c->arg, m->id, r);
		return 0;
	case GWIRE_SHARE_UNMAP:
		c->ops->unmap(c->arg, r->address, r->length);
		return 0;
	default:
		return -EPROTO;
	}
}

/* Return: 0, -EAGAIN when there is nothing more, or what ends the connection */
static int read_one(struct conn *c)
{
	CLEANUP_CLOSE int fd = -1;
	ssize_t n = gwire_recv(c->sock, c->packet, &fd, NULL);
	struct gwire_msg m;
	const char *what;
	int r;

	if (n <= 0)
		return n ? (int)n : -ECONNRESET;
	r = gwire_decode(c->packet, (size_t)n, NULL, &m, &what);
	if (!r)
		r = on_message(c, &m);
	if (r)
		log_error("sharer %s of guest %s (pid %d) breaks the attach protocol with %s",
			  c->s.name, c->s.guest, (int)c->s.pid, gwire_name(m.type));
	return r;
}

static void on_rested(evutil_socket_t fd, short what, void *arg)
{
	struct conn *c = arg;

	(void)fd;
	(void)what;
	if (event_add(c->readable, NULL))
		lose(c);
}

static void rest(struct conn *c, uint64_t us)
{
	struct timeval tv = {.tv_sec = (time_t)(us / 1000000),
			     .tv_usec = (suseconds_t)(us % 1000000)};

	if (event_del(c->readable) || evtimer_add(c->rested, &tv))
		lose(c);
}

static void on_readable(evutil_socket_t sock, short what, void *arg)
{
	struct conn *c = arg;
	uint64_t begun = clock_us(), spent = 0;
	int r = 0;

	(void)sock;
	(void)what;
	for (int i = 0; i < MESSAGES_AT_ONCE && !r && c->sock >= 0 && spent < LOOK_US; i++) {
		r = read_one(c);
		spent = clock_us() - begun;
	}
	c->spent_us += spent;
	if (r && r != -EAGAIN)
		lose(c);
	else if (c->sock >= 0 && c->spent_us > FREE_US)
		rest(c, spent * REST);
}

static void on_dead(evutil_socket_t fd, short what, void *arg)
{
	struct conn *c = arg;

	(void)fd;
	(void)what;
	disconnect(c);
	event_del(c->ended);
	c->ops->gone(c->arg, true);
}

/* --- beginning and end --- */

struct share *share_new(struct loop *loop, int sock, int pidfd, pid_t pid,
			const struct gwire_sharer *hello, int uffd)
{
	struct conn *c = calloc(1, sizeof(*c));

	if (!c)
		return NULL;
	c->s.uffd = c->sock = c->pidfd = -1;
	c->readable = event_new(loop_base(loop), sock, EV_READ | EV_PERSIST, on_readable, c);
	c->dead = event_new(loop_base(loop), pidfd, EV_READ, on_dead, c);
	c->ended = event_new(loop_base(loop), -1, 0, on_ended, c);
	c->rested = evtimer_new(loop_base(loop), on_rested, c);
	if (!c->readable || !c->dead || !c->ended || !c->rested) {
		share_free(&c->s);
		return NULL;
	}
	strcpy(c->s.guest, hello->guest);
	strcpy(c->s.name, hello->name);
	c->s.again = hello->flags & GWIRE_SHARER_AGAIN;
	c->s.pid = pid;
	c->s.uffd = uffd;
	c->sock = sock;
	c->pidfd = pidfd;
	return &c->s;
}

void share_welcome(struct share *s, const struct share_ops *ops, void *arg)
{
	struct conn *c = conn_of(s);

	c->ops = ops;
	c->arg = arg;
	if (event_add(c->readable, NULL) || event_add(c->dead, NULL))
		lose(c);
	send_msg(c, &(struct gwire_msg){.type = GWIRE_WELCOME, .u.version = GWIRE_VERSION});
}

void share_free(struct share *s)
{
	struct conn *c;

	if (!s)
		return;
	c = conn_of(s);
	disconnect(c);
	free_event(&c->dead);
	free_event(&c->ended);
	if (s->uffd >= 0)
		close(s->uffd);
	if (c->pidfd >= 0)
		close(c->pidfd);
	free(c);
}
