/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Saved state through the agent's pipe. Everything is copied through a buffer of our own, so that
 * no memory of a block is passed to a system call (DECANT_GUEST_USER_FAULTS).
 */
#include "guest/lib/lib.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <unistd.h>

static bool is_current(struct decant_guest *g, uint64_t epoch)
{
	bool current;

	pthread_mutex_lock(&g->lock);
	current = !g->stop && g->epoch == epoch;
	pthread_mutex_unlock(&g->lock);
	return current;
}

/* The pipe does not block: a connection that ends must end the wait, too. */
static int wait_for(struct decant_guest *g, uint64_t epoch, int fd, short events)
{
	struct pollfd p = {.fd = fd, .events = events};
	int n;

	for (;;) {
		if (!is_current(g, epoch))
			return -EPIPE;
		n = poll(&p, 1, LIB_STREAM_POLL_MS);
		if (n < 0 && errno != EINTR)
			return -errno;
		if (n > 0)
			return 0;
	}
}

int lib_stream_flush(struct decant_writer *w)
{
	size_t done = 0;
	ssize_t n;

	while (!w->error && done < w->used) {
		n = write(w->fd, w->buf + done, w->used - done);
		if (n > 0)
			done += (size_t)n;
		else if (n < 0 && errno == EAGAIN)
			w->error = wait_for(w->g, w->epoch, w->fd, POLLOUT);
		else if (n < 0 && errno != EINTR)
			w->error = -errno;
	}
	w->used = 0;
	return w->error;
}

DECANT_API int decant_write(struct decant_writer *w, const void *buf, size_t n)
{
	const uint8_t *p = buf;

	if (!w->error && n > DECANT_STATE_MAX - w->total)
		w->error = -EFBIG;
	while (!w->error && n) {
		size_t part = LIB_STREAM_BUFFER - w->used;

		if (part > n)
			part = n;
		memcpy(w->buf + w->used, p, part);
		w->used += part;
		w->total += part;
		p += part;
		n -= part;
		if (w->used == LIB_STREAM_BUFFER)
			lib_stream_flush(w);
	}
	return w->error;
}

/*
 * The pipe ended. That is what a dying agent looks like, too: only LOAD_END with the same length
 * makes it the end of the state.
 */
static void check_end(struct decant_reader *r)
{
	struct decant_guest *g = r->g;

	pthread_mutex_lock(&g->lock);
	while (!g->stop && g->epoch == r->epoch && !g->load_end)
		pthread_cond_wait(&g->work, &g->lock);
	if (g->stop || g->epoch != r->epoch || g->load_length != r->total)
		r->error = -EIO;
	else
		r->end = true;
	pthread_mutex_unlock(&g->lock);
}

static void fill(struct decant_reader *r)
{
	ssize_t n;

	r->pos = r->used = 0;
	while (!r->error && !r->end && !r->used) {
		n = read(r->fd, r->buf, LIB_STREAM_BUFFER);
		if (n > 0) {
			r->used = (size_t)n;
			r->total += (size_t)n;
			if (r->total > DECANT_STATE_MAX)
				r->error = -EIO;
		} else if (n == 0) {
			check_end(r);
		} else if (errno == EAGAIN) {
			if (wait_for(r->g, r->epoch, r->fd, POLLIN))
				r->error = -EIO;
		} else if (errno != EINTR) {
			r->error = -EIO;
		}
	}
}

DECANT_API ssize_t decant_read_some(struct decant_reader *r, void *buf, size_t n)
{
	size_t part;

	if (!r->error && r->pos == r->used && n)
		fill(r);
	if (r->error)
		return r->error;
	part = r->used - r->pos;
	if (part > n)
		part = n;
	memcpy(buf, r->buf + r->pos, part);
	r->pos += part;
	return (ssize_t)part;
}

DECANT_API int decant_read(struct decant_reader *r, void *buf, size_t n)
{
	uint8_t *p = buf;
	ssize_t part;

	while (n) {
		part = decant_read_some(r, p, n);
		if (part == 0)
			r->error = -ENODATA;
		if (r->error)
			return r->error;
		p += part;
		n -= (size_t)part;
	}
	return r->error;
}

int lib_stream_at_end(struct decant_reader *r)
{
	uint8_t more;
	ssize_t n = decant_read_some(r, &more, 1);

	if (n > 0)
		return -EBADMSG;
	return (int)n;
}
