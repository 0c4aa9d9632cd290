/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The two pipes of a native guest's state. Nothing that the guest does with its end can block the
 * loop or fill the agent: what is saved is taken in small pieces and only when wanted, what is
 * loaded is buffered up to a bound.
 */
#include "guest/native_impl.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "guest/state_pipe.h"
#include "util/cleanup.h"

#define CHUNK 65536

static void close_end(struct event **ev, int *fd)
{
	if (*ev)
		event_free(*ev);
	*ev = NULL;
	if (*fd >= 0)
		close(steal_fd(fd));
}

/* --- save --------------------------------------------------------------------------------------- */

static void fail_save(struct native *n, int ret, const char *why)
{
	struct error err = {0};

	error_set(&err, ret, NULL, "guest %s: saving its state: %s", n->g.name, why);
	native_complete(n, n->save.request, ret, &err, -1);
}

/* The end of the pipe and DONE come in any order; together they say that it is whole. */
static void settle_save(struct native *n)
{
	struct native_save *s = &n->save;

	if (!s->answered || s->fd >= 0)
		return;
	if (s->said != s->total) {
		fail_save(n, -EIO, "it is cut off");
		return;
	}
	n->g.state_bytes = s->total;
	native_complete(n, s->request, 0, NULL, -1);
}

static void on_save_readable(evutil_socket_t fd, short what, void *arg)
{
	struct native *n = arg;
	struct native_save *s = &n->save;
	uint8_t buf[CHUNK];
	ssize_t len;
	int ret;

	(void)what;
	native_enter(n);
	if (s->cancel) {
		fail_save(n, s->cancel, "given up");
		native_leave(n);
		return;
	}
	len = read((int)fd, buf, sizeof(buf));
	if (len > 0) {
		s->total += (uint64_t)len;
		ret = s->total > GUEST_STATE_MAX ? -EFBIG : s->chunk(s->arg, buf, (size_t)len);
		if (n->freed || !s->request)
			; /* the callback has ended it */
		else if (ret < 0)
			fail_save(n, ret,
				  ret == -EFBIG ? "it is too large" : "not wanted any more");
		else if (ret > 0)
			event_del(s->event);
	} else if (len == 0) {
		close_end(&s->event, &s->fd);
		settle_save(n);
	} else if (errno != EAGAIN && errno != EINTR) {
		fail_save(n, -errno, strerror(errno));
	}
	native_leave(n);
}

int native_state_save(struct guest *g, guest_chunk_fn *chunk, guest_done_fn *done, void *arg)
{
	struct native *n = native_of(g);
	struct native_save *s = &n->save;
	struct gwire_msg m = {.type = GWIRE_SAVE};
	CLEANUP_CLOSE int theirs = -1;
	int ret;

	if (s->request)
		return -EBUSY;
	*s = (struct native_save){.fd = -1, .chunk = chunk, .arg = arg};
	ret = state_pipe(0, &s->fd, &theirs);
	if (ret)
		return ret;
	s->event = event_new(loop_base(g->loop), s->fd, EV_READ | EV_PERSIST, on_save_readable, n);
	ret = !s->event || event_add(s->event, NULL) ? -ENOMEM : 0;
	if (!ret)
		ret = native_ask(n, &m, theirs, NATIVE_STATE_TIMEOUT_MS, done, arg, NULL);
	if (ret)
		close_end(&s->event, &s->fd);
	else
		s->request = m.id;
	return ret;
}

void native_state_save_more(struct guest *g)
{
	struct native_save *s = &native_of(g)->save;

	if (s->request && s->event)
		event_add(s->event, NULL);
}

void native_state_cancel_save(struct native *n, int ret)
{
	struct native_save *s = &n->save;

	if (!s->request || s->cancel)
		return;
	s->cancel = ret;
	if (s->event)
		event_active(s->event, EV_READ, 1);
}

/* --- load --------------------------------------------------------------------------------------- */

static void finish_feed(struct native *n)
{
	struct native_load *l = &n->load;
	struct gwire_msg m = {.type = GWIRE_LOAD_END, .u.load_length = l->total};

	if (l->fd < 0 || !l->ended || evbuffer_get_length(l->buffer))
		return;
	/* If this cannot be sent the library never takes what it has for the whole, and time runs out. */
	native_tell(n, &m, -1);
	close_end(&l->event, &l->fd);
}

static void on_load_writable(evutil_socket_t fd, short what, void *arg)
{
	struct native *n = arg;
	struct native_load *l = &n->load;
	int len = 0;

	(void)what;
	if (evbuffer_get_length(l->buffer))
		len = evbuffer_write(l->buffer, fd);
	if (len < 0 && errno != EAGAIN && errno != EINTR) {
		/* The guest does not read on; its DONE says why. */
		evbuffer_drain(l->buffer, evbuffer_get_length(l->buffer));
		close_end(&l->event, &l->fd);
		return;
	}
	if (evbuffer_get_length(l->buffer))
		event_add(l->event, NULL);
	finish_feed(n);
	if (l->want_room && evbuffer_get_length(l->buffer) <= NATIVE_FEED_LOW) {
		l->want_room = false;
		native_enter(n);
		if (l->room)
			l->room(l->arg);
		native_leave(n);
	}
}

int native_state_load(struct guest *g, bool paused, guest_room_fn *room, guest_done_fn *done,
		      void *arg)
{
	struct native *n = native_of(g);
	struct native_load *l = &n->load;
	struct gwire_msg m = {.type = GWIRE_LOAD, .u.load_flags = paused ? GWIRE_LOAD_PAUSED : 0};
	CLEANUP_CLOSE int theirs = -1;
	int ret;

	if (l->request)
		return -EBUSY;
	*l = (struct native_load){.fd = -1, .room = room, .arg = arg};
	ret = state_pipe(1, &l->fd, &theirs);
	if (ret)
		return ret;
	l->buffer = evbuffer_new();
	l->event = event_new(loop_base(g->loop), l->fd, EV_WRITE, on_load_writable, n);
	ret = l->buffer && l->event ? 0 : -ENOMEM;
	if (!ret)
		ret = native_ask(n, &m, theirs, NATIVE_STATE_TIMEOUT_MS, done, arg, NULL);
	if (!ret) {
		l->request = m.id;
		return 0;
	}
	close_end(&l->event, &l->fd);
	if (l->buffer)
		evbuffer_free(l->buffer);
	l->buffer = NULL;
	return ret;
}

int native_state_load_feed(struct guest *g, const void *p, size_t len)
{
	struct native_load *l = &native_of(g)->load;

	if (!l->request || l->ended)
		return -EINVAL;
	if (len > GUEST_STATE_MAX - l->total)
		return -EFBIG;
	if (evbuffer_get_length(l->buffer) >= NATIVE_FEED_HIGH) {
		l->want_room = true;
		return -EAGAIN;
	}
	if (l->fd >= 0 && (evbuffer_add(l->buffer, p, len) || event_add(l->event, NULL)))
		return -ENOMEM;
	l->total += len;
	return 0;
}

int native_state_load_end(struct guest *g)
{
	struct native_load *l = &native_of(g)->load;

	if (!l->request || l->ended)
		return -EINVAL;
	l->ended = true;
	finish_feed(native_of(g));
	return 0;
}

/* --- both --------------------------------------------------------------------------------------- */

bool native_state_done(struct native *n, uint16_t type, const struct gwire_done *d)
{
	struct native_save *s = &n->save;

	if (type != GWIRE_SAVE || d->result)
		return true;
	s->answered = true;
	s->said = d->detail;
	settle_save(n);
	return false;
}

void native_state_over(struct native *n, uint32_t id)
{
	if (id && id == n->save.request) {
		n->save.request = 0;
		close_end(&n->save.event, &n->save.fd);
	}
	if (id && id == n->load.request) {
		n->load.request = 0;
		close_end(&n->load.event, &n->load.fd);
		evbuffer_free(n->load.buffer);
		n->load.buffer = NULL;
	}
}
