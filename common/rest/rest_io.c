/* SPDX-License-Identifier: Apache-2.0 */
#include "rest/rest_io.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include "util/cleanup.h"

/* Most bytes moved for one connection before the others have their turn. */
#define TURN_BYTES (64u << 10)

/**
 * struct rest_io - see rest_io.h
 * @fd:		the socket; @tls' own if there is one
 * @ready:	there is no handshake to wait for
 * @ended:	the peer will send no more
 * @deaf:	the peer takes nothing more; what it has said is still read
 * @rwait, @wwait: POLLIN or POLLOUT: what the last read or write waits for (TLS may turn them round)
 * @rd, @wr:	events of the socket, @rd_on and @wr_on: they are armed
 * @freed:	set when a callback frees the connection that has called it
 */
struct rest_io {
	int fd;
	struct tls_chan *tls;
	bool ready;
	bool ended;
	bool deaf;
	short rwait;
	short wwait;
	size_t max_in;
	struct evbuffer *in;
	struct evbuffer *out;
	struct event *rd;
	struct event *wr;
	bool rd_on;
	bool wr_on;
	const struct rest_io_ops *ops;
	void *arg;
	bool *freed;
};

static void arm_one(struct event *ev, bool *on, bool want)
{
	if (want == *on)
		return;
	*on = want;
	if (want)
		event_add(ev, NULL);
	else
		event_del(ev);
}

static bool may_read(const struct rest_io *io)
{
	return io->ready && !io->ended && evbuffer_get_length(io->in) < io->max_in;
}

static bool may_write(const struct rest_io *io)
{
	return io->ready && !io->deaf && evbuffer_get_length(io->out);
}

static void arm(struct rest_io *io)
{
	short want = io->ready ? 0 : tls_chan_events(io->tls);

	if (may_read(io))
		want |= io->rwait;
	if (may_write(io))
		want |= io->wwait;
	arm_one(io->rd, &io->rd_on, want & POLLIN);
	arm_one(io->wr, &io->wr_on, want & POLLOUT);
	/* What TLS has taken off the socket already makes no event. */
	if (may_read(io) && io->tls && tls_pending(io->tls))
		event_active(io->rd, EV_READ, 0);
}

/* Return: bytes, 0 at the end, -EAGAIN, -errno */
static ssize_t read_some(struct rest_io *io)
{
	struct evbuffer_iovec v;
	ssize_t n;

	if (evbuffer_reserve_space(io->in, TLS_RECORD_MAX, &v, 1) != 1)
		return -ENOMEM;
	v.iov_len = MIN(v.iov_len, (size_t)TLS_RECORD_MAX);
	if (io->tls)
		n = tls_read(io->tls, v.iov_base, v.iov_len);
	else
		n = recv(io->fd, v.iov_base, v.iov_len, 0);
	if (n < 0 && !io->tls)
		n = errno == EINTR ? -EAGAIN : -errno;
	if (n > 0) {
		v.iov_len = (size_t)n;
		evbuffer_commit_space(io->in, &v, 1);
	}
	io->rwait = io->tls && n == -EAGAIN ? tls_chan_events(io->tls) : POLLIN;
	return n;
}

/* Return: whether there is something to tell; *@ret_lost: -errno that ended the connection */
static bool read_turn(struct rest_io *io, int *ret_lost)
{
	size_t got = 0;
	ssize_t n = 1;

	while (n > 0 && got < TURN_BYTES && may_read(io)) {
		n = read_some(io);
		got += n > 0 ? (size_t)n : 0;
	}
	if (n == 0)
		io->ended = true;
	else if (n < 0 && n != -EAGAIN)
		*ret_lost = (int)n;
	return got || n == 0;
}

/* Return: bytes, -EAGAIN, -errno */
static ssize_t write_some(struct rest_io *io)
{
	struct evbuffer_iovec v;
	ssize_t n;

	if (evbuffer_peek(io->out, -1, NULL, &v, 1) < 1)
		return -EAGAIN;
	if (io->tls)
		n = tls_write(io->tls, v.iov_base, v.iov_len);
	else
		n = send(io->fd, v.iov_base, v.iov_len, MSG_NOSIGNAL);
	if (n < 0 && !io->tls)
		n = errno == EINTR ? -EAGAIN : -errno;
	if (n > 0)
		evbuffer_drain(io->out, (size_t)n);
	io->wwait = io->tls && n == -EAGAIN ? tls_chan_events(io->tls) : POLLOUT;
	return n;
}

/* Return: whether the last of the output has gone */
static bool write_turn(struct rest_io *io)
{
	size_t sent = 0;
	ssize_t n = 1;

	if (!may_write(io))
		return false;
	while (n > 0 && sent < TURN_BYTES && may_write(io)) {
		n = write_some(io);
		sent += n > 0 ? (size_t)n : 0;
	}
	/* A peer that refuses early closes while we still write: what it has said comes first. */
	if (n < 0 && n != -EAGAIN) {
		io->deaf = true;
		evbuffer_drain(io->out, SIZE_MAX);
		return false;
	}
	return !evbuffer_get_length(io->out);
}

static void tell_lost(struct rest_io *io, int ret)
{
	struct error why = {0};

	if (io->tls && error_is_set(tls_chan_error(io->tls)))
		error_set(&why, ret, tls_chan_error(io->tls)->code, "%s",
			  tls_chan_error(io->tls)->msg);
	else
		error_set(&why, ret, NULL, "%s", strerror(-ret));
	io->ended = io->deaf = true;
	arm(io);
	io->ops->lost(io->arg, &why);
}

/* Return: whether the connection may go on */
static bool shake_hands(struct rest_io *io, const bool *freed)
{
	struct error why = {0};
	int r = tls_chan_handshake(io->tls, &why);

	if (r == -EAGAIN) {
		arm(io);
		return false;
	}
	if (r < 0) {
		io->ended = io->deaf = true;
		io->ready = true; /* there is nothing to wait for */
		arm(io);
		io->ops->lost(io->arg, &why);
		return false;
	}
	io->ready = true;
	if (io->ops->ready)
		io->ops->ready(io->arg);
	return !*freed;
}

static void turn(evutil_socket_t fd, short what, void *arg)
{
	struct rest_io *io = arg;
	bool freed = false, came, went;
	int lost = 0;

	(void)fd;
	(void)what;
	io->freed = &freed;
	if (!io->ready && !shake_hands(io, &freed)) {
		if (!freed)
			io->freed = NULL;
		return;
	}
	went = write_turn(io);
	came = read_turn(io, &lost);
	if (came)
		io->ops->input(io->arg);
	/* Unless what has come was answered at once. */
	if (!freed && went && !evbuffer_get_length(io->out))
		io->ops->written(io->arg);
	if (!freed && lost)
		tell_lost(io, lost);
	if (freed)
		return;
	arm(io);
	io->freed = NULL;
}

struct rest_io *rest_io_new(struct event_base *base, int fd, struct tls_chan *tls, size_t max_in,
			    const struct rest_io_ops *ops, void *arg)
{
	struct rest_io *io = calloc(1, sizeof(*io));

	if (!io) {
		if (tls)
			tls_chan_free(tls);
		else
			close(fd);
		return NULL;
	}
	io->tls = tls;
	io->fd = tls ? tls_chan_fd(tls) : fd;
	io->ready = !tls || *tls_chan_cipher(tls);
	io->rwait = POLLIN;
	io->wwait = POLLOUT;
	io->max_in = max_in;
	io->ops = ops;
	io->arg = arg;
	io->in = evbuffer_new();
	io->out = evbuffer_new();
	io->rd = event_new(base, io->fd, EV_READ | EV_PERSIST, turn, io);
	io->wr = event_new(base, io->fd, EV_WRITE | EV_PERSIST, turn, io);
	if (!io->in || !io->out || !io->rd || !io->wr) {
		rest_io_free(io);
		return NULL;
	}
	arm(io);
	return io;
}

void rest_io_free(struct rest_io *io)
{
	if (!io)
		return;
	if (io->freed)
		*io->freed = true;
	if (io->rd)
		event_free(io->rd);
	if (io->wr)
		event_free(io->wr);
	if (io->in)
		evbuffer_free(io->in);
	if (io->out)
		evbuffer_free(io->out);
	if (io->tls)
		tls_chan_free(io->tls);
	else
		close(io->fd);
	free(io);
}

struct evbuffer *rest_io_in(struct rest_io *io)
{
	return io->in;
}

struct evbuffer *rest_io_out(struct rest_io *io)
{
	return io->out;
}

void rest_io_send(struct rest_io *io)
{
	arm(io);
}

bool rest_io_ended(const struct rest_io *io)
{
	return io->ended;
}

bool rest_io_hung_up(const struct rest_io *io)
{
	struct pollfd p = {.fd = io->fd};

	return io->deaf || (poll(&p, 1, 0) == 1 && (p.revents & (POLLHUP | POLLERR)));
}

void rest_io_finish(struct rest_io *io)
{
	if (io->tls)
		tls_chan_finish(io->tls);
	shutdown(io->fd, SHUT_WR);
}

const struct tls_chan *rest_io_tls(const struct rest_io *io)
{
	return io->tls;
}
