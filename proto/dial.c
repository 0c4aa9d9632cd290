/* SPDX-License-Identifier: Apache-2.0 */
#include "dial.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>
#include "frame.h"
#include "util/cleanup.h"
#include "util/clock.h"
#include "util/log.h"

/**
 * struct dial - owned by its thread until the result is posted, by the posted work from then on
 * @to:		@host and @port are @host_buf and @port_buf
 * @stop_fd:	eventfd, written by dial_cancel()
 * @chan, @ack, @err: the result; written by the thread, read by the posted work
 * @lock:	protects @cancelled and @posted
 * @cancelled:	@fn may not be called and the loop not be touched any more
 * @posted:	the loop will free this
 */
struct dial {
	struct loop *loop;
	struct dial_to to;
	char *host_buf;
	char *port_buf;
	struct msg_hello hello;
	dial_fn *fn;
	void *arg;
	int stop_fd;
	struct tls_chan *chan;
	struct msg_hello_ack ack;
	struct error err;
	pthread_mutex_t lock;
	bool cancelled;
	bool posted;
};

static bool is_zero(const uint8_t *p, size_t n)
{
	while (n)
		if (p[--n])
			return false;
	return true;
}

/* Does the answer keep to what was offered? */
static int check_ack(const struct msg_hello *h, const struct msg_hello_ack *a, struct error *err)
{
	bool control = h->kind == MSG_CHANNEL_CONTROL;

	if (a->version < h->version_min || a->version > h->version_max)
		return error_set(err, -EBADMSG, "version",
				 "it chose version %u of the protocol, offered were %u to %u",
				 a->version, h->version_min, h->version_max);
	if (a->capabilities & ~h->capabilities)
		return error_set(err, -EBADMSG, "bad-message",
				 "HELLO_ACK has capabilities that were not offered (0x%llx)",
				 (unsigned long long)(a->capabilities & ~h->capabilities));
	if (is_zero(a->token, sizeof(a->token)) == control)
		return error_set(err, -EBADMSG, "bad-message",
				 "HELLO_ACK %s a token on a %s channel", control ? "lacks" : "has",
				 msg_channel_name(h->kind));
	return 0;
}

/* The answer to HELLO into @m, with a body in @buf. */
static int read_answer(const struct frame_io *io, const struct msg_hello *hello, struct msg *m,
		       struct error *err)
{
	uint8_t buf[FRAME_SMALL_MAX];
	struct msg_header h;
	int r = frame_read_header(io, &h, err);

	if (r < 0)
		return r;
	if (h.type != MSG_HELLO_ACK && h.type != MSG_ERROR)
		return error_set(err, -EBADMSG, "unexpected-message", "it answered %s to HELLO",
				 msg_type_name(h.type));
	r = frame_read_body(io, &h, buf, m, err);
	if (r < 0)
		return r;
	if (m->type == MSG_ERROR)
		return error_set(err, -EREMOTEIO, m->error.code, "it refused: %s",
				 m->error.message);
	return check_ack(hello, &m->hello_ack, err);
}

static int say_hello(struct frame_io *io, uint64_t deadline, const struct msg_hello *hello,
		     struct msg_hello_ack *ret, struct error *err)
{
	CLEANUP_FREE struct msg *m = calloc(1, sizeof(*m));
	uint64_t now = clock_us();
	int r;

	if (!m)
		return error_set(err, -ENOMEM, NULL, "no memory for a message");
	m->type = MSG_HELLO;
	m->hello = *hello;
	if (deadline != TLS_FOREVER)
		io->timeout_us = deadline > now ? deadline - now : 0;
	r = frame_send(io, m, err);
	if (!r)
		r = read_answer(io, hello, m, err);
	if (!r)
		*ret = m->hello_ack;
	return r;
}

int dial_blocking(const struct dial_to *to, const struct msg_hello *hello, int stop_fd,
		  struct tls_chan **ret, struct msg_hello_ack *ret_ack, struct error *err)
{
	struct frame_io io = {
		.channel = hello->kind, .stop_fd = stop_fd, .timeout_us = to->timeout_us};
	uint64_t now = clock_us();
	uint64_t deadline = to->timeout_us < TLS_FOREVER - now ? now + to->timeout_us : TLS_FOREVER;
	int r;

	r = tls_dial(to->ctx, to->host, to->port, to->timeout_us, stop_fd, &io.chan, err);
	if (r < 0)
		return r;
	r = say_hello(&io, deadline, hello, ret_ack, err);
	if (r < 0) {
		error_prefix(err, "%s channel to %s port %s", msg_channel_name(hello->kind),
			     to->host, to->port);
		tls_chan_free(io.chan);
		return r;
	}
	*ret = io.chan;
	return 0;
}

static void destroy(struct dial *d)
{
	tls_chan_free(d->chan);
	tls_ctx_unref(d->to.ctx);
	if (d->stop_fd >= 0)
		close(d->stop_fd);
	pthread_mutex_destroy(&d->lock);
	free(d->host_buf);
	free(d->port_buf);
	free(d);
}

static void finish(void *arg)
{
	struct dial *d = arg;
	struct msg_hello_ack ack = d->ack;
	struct error err = d->err;
	struct tls_chan *chan;
	dial_fn *fn = d->fn;
	void *fn_arg = d->arg;

	/* The thread that posted this may still be about to let go of the lock. */
	pthread_mutex_lock(&d->lock);
	if (d->cancelled)
		fn = NULL;
	pthread_mutex_unlock(&d->lock);
	chan = fn ? steal_ptr(&d->chan) : NULL;
	destroy(d);
	if (fn)
		fn(fn_arg, chan, chan ? &ack : NULL, &err);
}

/* Return: whether @d is no longer the thread's */
static bool hand_over(struct dial *d)
{
	bool cancelled;

	pthread_mutex_lock(&d->lock);
	cancelled = d->cancelled;
	if (!cancelled)
		d->posted = loop_post(d->loop, finish, d) == 0;
	if (!cancelled && !d->posted) {
		pthread_mutex_unlock(&d->lock);
		return false;
	}
	pthread_mutex_unlock(&d->lock);
	if (cancelled)
		destroy(d);
	return true;
}

static void *run(void *arg)
{
	struct dial *d = arg;

	dial_blocking(&d->to, &d->hello, d->stop_fd, &d->chan, &d->ack, &d->err);
	/* No memory to post it: the owner waits for the answer, and memory will come back. */
	while (!hand_over(d))
		usleep(10000);
	return NULL;
}

/* Signals are the loop's thread's to take. */
static int start_thread(struct dial *d)
{
	pthread_attr_t attr;
	sigset_t all, old;
	pthread_t t;
	int r;

	pthread_attr_init(&attr);
	pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	r = pthread_create(&t, &attr, run, d);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	pthread_attr_destroy(&attr);
	return -r;
}

struct dial *dial_start(struct loop *loop, const struct dial_to *to, const struct msg_hello *hello,
			dial_fn *fn, void *arg)
{
	struct dial *d = calloc(1, sizeof(*d));

	if (!d)
		return NULL;
	*d = (struct dial){.loop = loop, .to = *to, .hello = *hello, .fn = fn, .arg = arg};
	pthread_mutex_init(&d->lock, NULL);
	tls_ctx_ref(to->ctx);
	d->to.host = d->host_buf = strdup(to->host);
	d->to.port = d->port_buf = strdup(to->port);
	d->stop_fd = eventfd(0, EFD_CLOEXEC);
	if (!d->host_buf || !d->port_buf || d->stop_fd < 0 || start_thread(d) < 0) {
		destroy(d);
		return NULL;
	}
	return d;
}

void dial_cancel(struct dial *d)
{
	uint64_t one = 1;

	if (!d)
		return;
	pthread_mutex_lock(&d->lock);
	d->cancelled = true;
	if (d->posted)
		tls_chan_free(steal_ptr(&d->chan)); /* the loop may never run what was posted */
	else if (write(d->stop_fd, &one, sizeof(one)) < 0)
		log_debug("dial: the stop was not noted; the thread ends by its timeout");
	pthread_mutex_unlock(&d->lock);
}
