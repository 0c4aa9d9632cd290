/* SPDX-License-Identifier: Apache-2.0 */
#include "conn_priv.h"

#include <errno.h>
#include <event2/buffer.h>
#include <stdlib.h>
#include "util/cleanup.h"
#include "util/clock.h"

/* For the answer to reach a peer that is slow, but not longer. */
#define LINGER_US 2000000ull

static const struct conn_ops no_ops;

void conn_after(struct event *ev, uint64_t us)
{
	struct timeval tv = {.tv_sec = (time_t)(us / 1000000),
			     .tv_usec = (suseconds_t)(us % 1000000)};

	event_add(ev, &tv);
}

void conn_kick(struct conn *c)
{
	conn_after(c->kick, 0);
}

static void drop_event(struct event **ev)
{
	if (*ev)
		event_free(*ev);
	*ev = NULL;
}

void conn_drop_events(struct conn *c)
{
	drop_event(&c->ev_in);
	drop_event(&c->ev_out);
	drop_event(&c->kick);
	drop_event(&c->deadline);
	drop_event(&c->tick);
}

static void destroy(struct conn *c)
{
	if (c->out)
		evbuffer_free(c->out);
	free(c->body);
	free(c->m);
	free(c);
}

void conn_leave(struct conn *c)
{
	if (!--c->busy && c->freed)
		destroy(c);
}

void conn_free(struct conn *c)
{
	if (!c || c->freed)
		return;
	c->freed = true;
	conn_drop_events(c);
	tls_chan_free(steal_ptr(&c->chan));
	if (!c->busy)
		destroy(c);
}

struct tls_chan *conn_release(struct conn *c)
{
	struct tls_chan *chan;

	if (c->freed || (c->phase != CONN_OPEN && c->phase != CONN_NEW) || c->in_body || c->have ||
	    conn_queued(c))
		return NULL;
	chan = steal_ptr(&c->chan);
	conn_free(c);
	return chan;
}

struct tls_chan *conn_chan(struct conn *c)
{
	return c->chan;
}

uint64_t conn_silent_us(const struct conn *c)
{
	return clock_us() - c->last_in_us;
}

size_t conn_queued(const struct conn *c)
{
	return evbuffer_get_length(c->out);
}

void conn_set_ops(struct conn *c, const struct conn_ops *ops, void *arg)
{
	c->ops = ops;
	c->arg = arg;
}

void conn_set_channel(struct conn *c, enum msg_channel channel)
{
	c->channel = channel;
}

void conn_set_timeout(struct conn *c, uint64_t us)
{
	if (c->freed || c->phase >= CONN_CLOSING)
		return;
	c->timeout_us = us;
	if (us)
		conn_after(c->deadline, us);
	else
		event_del(c->deadline);
}

int conn_queue(struct conn *c, const struct msg *m)
{
	uint8_t small[MSG_HEADER_LEN + 1024], *p = small;
	CLEANUP_FREE uint8_t *large = NULL;
	ssize_t n = msg_encode(m, p, sizeof(small));

	if (n == -ENOSPC) {
		p = large = malloc(MSG_HEADER_LEN + MSG_BODY_MAX);
		n = p ? msg_encode(m, p, MSG_HEADER_LEN + MSG_BODY_MAX) : -ENOMEM;
	}
	if (n < 0)
		return (int)n;
	if (evbuffer_add(c->out, p, (size_t)n))
		return -ENOMEM;
	c->undrained = true;
	c->last_out_us = clock_us();
	return 0;
}

int conn_send(struct conn *c, const struct msg *m)
{
	int r;

	if (c->freed || c->phase >= CONN_CLOSING)
		return -EPIPE;
	if (m->type == MSG_PAGES)
		return -EINVAL; /* its payload has no place in the queue */
	if (conn_queued(c) >= CONN_QUEUE_MAX)
		return -ENOBUFS;
	r = conn_queue(c, m);
	if (!r)
		conn_kick(c);
	return r;
}

int conn_send_simple(struct conn *c, enum msg_type type)
{
	CLEANUP_FREE struct msg *m = calloc(1, sizeof(*m));

	if (!m)
		return -ENOMEM;
	m->type = type;
	return conn_send(c, m);
}

int conn_send_error(struct conn *c, enum msg_type type, const struct error *err)
{
	CLEANUP_FREE struct msg *m = calloc(1, sizeof(*m));

	if (!m)
		return -ENOMEM;
	msg_error_fill(m, type, err);
	return conn_send(c, m);
}

void conn_keepalive(struct conn *c)
{
	if (c->freed || c->phase >= CONN_CLOSING)
		return;
	c->keepalive = true;
	c->last_in_us = c->last_out_us = clock_us();
	conn_after(c->tick, MSG_PING_IDLE_US);
}

void conn_pause(struct conn *c, bool paused)
{
	if (c->freed || c->phase >= CONN_CLOSING || c->paused == paused)
		return;
	c->paused = paused;
	c->last_in_us = c->frame_us = clock_us();
	if (!paused)
		conn_kick(c);
	else if (!c->busy)
		conn_wait(c);
}

void conn_close_when_sent(struct conn *c)
{
	if (!c || c->freed)
		return;
	c->ops = &no_ops;
	if (c->phase != CONN_OPEN && c->phase != CONN_NEW) {
		conn_free(c);
		return;
	}
	c->phase = CONN_CLOSING;
	event_del(c->tick);
	conn_after(c->deadline, LINGER_US);
	conn_kick(c);
}

struct conn *conn_new(struct loop *loop, struct tls_chan *chan, bool accepted,
		      enum msg_channel channel, const struct conn_ops *ops, void *arg)
{
	struct event_base *base = loop_base(loop);
	int fd = tls_chan_fd(chan);
	struct conn *c = calloc(1, sizeof(*c));

	if (!c) {
		tls_chan_free(chan);
		return NULL;
	}
	*c = (struct conn){.chan = chan,
			   .channel = channel,
			   .from_source = accepted,
			   .phase = accepted ? CONN_HANDSHAKE : CONN_NEW,
			   .ops = ops,
			   .arg = arg};
	c->out = evbuffer_new();
	c->ev_in = event_new(base, fd, EV_READ | EV_PERSIST, conn_on_io, c);
	c->ev_out = event_new(base, fd, EV_WRITE | EV_PERSIST, conn_on_io, c);
	c->kick = evtimer_new(base, conn_on_io, c);
	c->deadline = evtimer_new(base, conn_on_deadline, c);
	c->tick = evtimer_new(base, conn_on_tick, c);
	if (!c->out || !c->ev_in || !c->ev_out || !c->kick || !c->deadline || !c->tick) {
		conn_free(c);
		return NULL;
	}
	if (accepted)
		conn_set_timeout(c, MSG_HELLO_TIMEOUT_US);
	conn_kick(c);
	return c;
}
