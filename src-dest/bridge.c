/* SPDX-License-Identifier: Apache-2.0 */
/* From the data threads to the loop: what they have to say, and what they want of the guest. */
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include "channels.h"
#include "incoming_priv.h"
#include "util/cleanup.h"
#include "util/log.h"

/**
 * struct news - something happened on a data thread
 * @inc:	referenced
 * @session:	which of its sessions it is about
 * @ev:		event that it is
 * @err:	why
 */
struct news {
	struct incoming *inc;
	unsigned int session;
	enum inc_event ev;
	struct error err;
};

static void tell(void *arg)
{
	struct news *n = arg;
	struct incoming *inc = n->inc;

	if (n->session != atomic_load(&inc->session)) {
		log_debug("incoming %s: of an earlier session: %s", inc->id_text, n->err.msg);
		channels_look(inc);
	} else if (n->ev == INC_EV_LOST && channels_mend(inc)) {
		/* The source has to know of it before anything can be done. */
		log_info("incoming %s: %s", inc->id_text, n->err.msg);
		channels_look(inc);
	} else {
		incoming_event(inc, n->ev, &n->err);
	}
	incoming_unref(inc);
	free(n);
}

static void post(struct incoming *inc, enum inc_event ev, const struct error *err)
{
	struct news *n = malloc(sizeof(*n));

	if (!n) {
		log_error("incoming %s: out of memory: %s", inc->id_text, err->msg);
		return;
	}
	*n = (struct news){incoming_ref(inc), atomic_load(&inc->session), ev, *err};
	if (loop_post(inc->d->loop, tell, n))
		log_error("incoming %s: out of memory: %s", inc->id_text, err->msg);
}

void bridge_receive_end(void *arg, enum receive_end why, const struct error *err)
{
	struct incoming *inc = arg;

	/* The guest's end is told by its pidfd, with the right event. */
	if (why != RECEIVE_GONE)
		post(inc, why == RECEIVE_LOST ? INC_EV_LOST : INC_EV_FAIL, err);
}

static void urgent_dropped(void *arg)
{
	struct incoming *inc = arg;

	channels_urgent_dropped(inc);
	incoming_unref(inc);
}

static void on_dropped(void *arg)
{
	struct incoming *inc = incoming_ref(arg);

	/* Without it the source waits, and gives the session up. */
	if (loop_post(inc->d->loop, urgent_dropped, inc))
		log_error("incoming %s: out of memory", inc->id_text);
}

static void on_trouble(void *arg, enum fault_trouble what, const struct error *err)
{
	post(arg, what == FAULT_LOST ? INC_EV_LOST : INC_EV_FAIL, err);
}

/* --- requests without an urgent channel --- */

/**
 * struct wish - a REQUEST on its way to the control channel
 * @inc:	referenced
 * @m:		what is wanted
 */
struct wish {
	struct incoming *inc;
	struct msg_request m;
};

static void send_wish(void *arg)
{
	struct wish *w = arg;
	struct msg *m = calloc(1, sizeof(*m));
	struct error err = {0};
	int r = -ENOMEM;

	if (w->inc->resuming != RESUMING_NOT) {
		/* The source is not there yet; with CONTINUE all that is noted is asked for again. */
		r = 0;
		free(m);
	} else if (m) {
		m->type = MSG_REQUEST;
		m->request = w->m;
		r = incoming_send(w->inc, m);
		free(m);
	}
	/* The guest waits for what was not asked for: that is a session of no use any more. */
	if (r) {
		error_set(&err, r, "lost", "control channel: a page cannot be asked for: %s",
			  strerror(-r));
		incoming_event(w->inc, INC_EV_LOST, &err);
	}
	incoming_unref(w->inc);
	free(w);
}

static void on_request(void *arg, const struct msg_request *m)
{
	struct incoming *inc = arg;
	struct wish *w = malloc(sizeof(*w));

	if (w) {
		*w = (struct wish){incoming_ref(inc), *m};
		if (!loop_post(inc->d->loop, send_wish, w))
			return;
	}
	log_error("incoming %s: out of memory, a page was not asked for", inc->id_text);
}

const struct fault_ops bridge_fault_ops = {
	.request = on_request, .trouble = on_trouble, .dropped = on_dropped};

/* --- holes in anonymous memory: only the guest can make them --- */

/**
 * struct hole - a data thread waits until the guest has punched
 * @refs:	the thread's and the loop's
 * @inc:	referenced by the loop's part
 * @block:	the guest's index
 * @ranges, @n: copied
 * @done_fd:	eventfd, readable once @ret is there
 * @ret, @err:	the result
 */
struct hole {
	_Atomic unsigned int refs;
	struct incoming *inc;
	uint16_t block;
	struct guest_range *ranges;
	size_t n;
	int done_fd;
	int ret;
	struct error err;
};

static void hole_unref(struct hole *h)
{
	if (atomic_fetch_sub(&h->refs, 1) != 1)
		return;
	if (h->done_fd >= 0)
		close(h->done_fd);
	free(h->ranges);
	free(h);
}

static void hole_done(void *arg, int ret, const struct error *err, int fd)
{
	struct hole *h = arg;
	uint64_t one = 1;

	(void)fd;
	h->ret = ret;
	if (ret)
		h->err = *err;
	if (write(h->done_fd, &one, sizeof(one)) < 0)
		log_debug("bridge: cannot wake: %s", strerror(errno));
	hole_unref(h);
}

static void hole_begin(void *arg)
{
	struct hole *h = arg;
	struct incoming *inc = h->inc;
	struct error err = {0};
	int r = -ECONNRESET;

	if (inc->guest && !inc->ending)
		r = guest_punch(inc->guest, h->block, h->ranges, h->n, hole_done, h);
	if (r) {
		error_set(&err, r, NULL, "the guest cannot be asked to make holes: %s",
			  strerror(-r));
		hole_done(h, r, &err, -1);
	}
	incoming_unref(inc);
}

static struct hole *hole_new(struct incoming *inc, uint16_t block, const struct guest_range *ranges,
			     size_t n)
{
	struct hole *h = calloc(1, sizeof(*h));

	if (!h)
		return NULL;
	h->refs = 1;
	h->inc = inc;
	h->block = block;
	h->n = n;
	h->done_fd = eventfd(0, EFD_CLOEXEC);
	h->ranges = reallocarray(NULL, n, sizeof(*ranges));
	if (h->done_fd < 0 || !h->ranges) {
		hole_unref(h);
		return NULL;
	}
	memcpy(h->ranges, ranges, n * sizeof(*ranges));
	return h;
}

/*
 * Waits for the loop, which may be waiting for this very thread to end: then the stop descriptor is
 * readable.
 */
static int hole_wait(struct hole *h, int stop_fd, struct error *err)
{
	struct pollfd fds[] = {{.fd = h->done_fd, .events = POLLIN},
			       {.fd = stop_fd, .events = POLLIN}};
	uint64_t n;

	while (poll(fds, ARRAY_SIZE(fds), -1) < 0)
		if (errno != EINTR)
			return error_set(err, -errno, NULL, "poll: %s", strerror(errno));
	if (!fds[0].revents)
		return error_set(err, -ECANCELED, "cancelled", "the session is over");
	/* Reading orders what the loop has written before; poll(2) alone promises nothing. */
	if (read(h->done_fd, &n, sizeof(n)) < 0)
		return error_set(err, -errno, NULL, "eventfd: %s", strerror(errno));
	if (h->ret)
		*err = h->err;
	return h->ret;
}

int bridge_punch(void *arg, unsigned int block, const struct guest_range *ranges, size_t n,
		 struct error *err)
{
	struct incoming *inc = arg;
	struct hole *h = hole_new(inc, inc->place.blocks[block].mem.block.index, ranges, n);
	int r;

	if (!h)
		return error_set(err, -ENOMEM, NULL, "out of memory");
	atomic_fetch_add(&h->refs, 1);
	incoming_ref(inc);
	r = loop_post(inc->d->loop, hole_begin, h);
	if (r) {
		hole_unref(h);
		atomic_fetch_sub(&inc->refs, 1);
		error_set(err, r, NULL, "out of memory");
	} else {
		r = hole_wait(h, inc->stop_fd, err);
	}
	hole_unref(h);
	if (r)
		error_prefix(err, "block %s", inc->place.blocks[block].name);
	return r;
}
