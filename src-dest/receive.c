/* SPDX-License-Identifier: Apache-2.0 */
#include "receive.h"
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include "frame.h"
#include "util/cleanup.h"
#include "util/faultpoint.h"
#include "util/log.h"
#include "util/trace.h"

/**
 * struct receive - one bulk channel; all of it is the thread's, but for the atomics
 * @place:	where pages go
 * @image:	or here, if it is not NULL
 * @io:		the channel, which is owned; its stop_fd is @stop_fd
 * @wait:	how placing waits in this thread
 * @on_end, @arg: see receive_start()
 * @thread:	joined by receive_stop()
 * @stop_fd:	eventfd, readable from receive_stop() on
 * @quit:	the same for those who do not poll
 * @open:	false once the thread has ended
 * @tally:	see receive_tally()
 * @pass:	of the last frame: it never falls
 * @huge:	a page that is larger than a frame
 * @data:	payload under way, MSG_PAGES_RAW_MAX bytes, page-aligned
 * @body:	of a frame that is not PAGES
 * @m:		the frame under way
 */
struct receive {
	struct place *place;
	struct image_writer *image;
	struct frame_io io;
	struct place_io wait;
	receive_end_fn *on_end;
	void *arg;
	pthread_t thread;
	int stop_fd;
	_Atomic bool quit;
	_Atomic bool open;
	struct tally tally;
	uint32_t pass;
	struct place_huge huge;
	uint8_t *data;
	uint8_t body[FRAME_SMALL_MAX];
	struct msg m;
};

/* The fault thread has an event to read first; that is a matter of microseconds. */
static int again(void *arg)
{
	const struct receive *r = arg;
	struct timespec t = {.tv_nsec = 20000};

	nanosleep(&t, NULL);
	return atomic_load_explicit(&r->quit, memory_order_relaxed) ? -ECANCELED : 0;
}

static int nack(struct receive *r, const struct msg_pages *p, struct error *err)
{
	struct msg_nack n = {
		.block = p->block, .pass = p->pass, .offset = p->offset, .length = p->length};

	r->m.type = MSG_NACK;
	r->m.nack = n;
	return frame_send(&r->io, &r->m, err);
}

static int check_pass(struct receive *r, uint32_t pass, const char *what, struct error *err)
{
	if (pass < r->pass)
		return error_set(err, -EBADMSG, "old-pass", "%s of pass %u behind one of pass %u",
				 what, pass, r->pass);
	r->pass = pass;
	return 0;
}

/* Parts of large pages are stored as they come: the image has digests of smaller units. */
static int store_pages(struct receive *r, struct error *err)
{
	struct msg_pages p = r->m.pages;
	int ret = check_pass(r, p.pass, "PAGES", err);

	if (!ret)
		ret = frame_read_payload(&r->io, &p, r->data, err);
	if (!ret)
		ret = image_put(r->image, &p, r->data, err);
	if (ret < 0)
		return ret;
	tally_frame(&r->tally, &p, ret);
	return ret ? nack(r, &p, err) : 0;
}

static int on_pages(struct receive *r, struct error *err)
{
	struct msg_pages p = r->m.pages;
	bool part = place_is_part(r->place, &p);
	void *to = r->data;
	int ret = check_pass(r, p.pass, "PAGES", err);

	if (ret)
		return ret;
	if (r->huge.have && !part)
		return error_set(err, -EBADMSG, "bad-message",
				 "PAGES between the parts of a large page");
	if (part)
		to = place_huge_room(r->place, &r->huge, &p, err);
	if (!to)
		return -EBADMSG;
	ret = frame_read_payload(&r->io, &p, to, err);
	FAULTPOINT(RUN_RECEIVED);
	if (ret)
		return ret;
	ret = part ? place_huge_part(r->place, &r->wait, &r->huge, &p, err)
		   : place_pages(r->place, &r->wait, &p, to, err);
	if (ret < 0)
		return ret;
	tally_frame(&r->tally, &p, ret);
	return ret ? nack(r, &p, err) : 0;
}

/* Frames are placed one by one in this thread: all earlier ones are when this is answered. */
static int on_barrier(struct receive *r, struct error *err)
{
	int ret = check_pass(r, r->m.barrier.pass, "BARRIER", err);

	if (!ret && r->huge.have)
		ret = error_set(err, -EBADMSG, "bad-message", "BARRIER inside a large page");
	if (ret)
		return ret;
	FAULTPOINT(BARRIER_RECEIVED);
	r->m.type = MSG_BARRIER_ACK;
	return frame_send(&r->io, &r->m, err);
}

static int on_frame(struct receive *r, struct error *err)
{
	struct msg_header h;
	int ret = frame_read_header(&r->io, &h, err);

	if (!ret)
		ret = frame_read_body(&r->io, &h, r->body, &r->m, err);
	if (ret)
		return ret;
	switch (r->m.type) {
	case MSG_PAGES:
		return r->image ? store_pages(r, err) : on_pages(r, err);
	case MSG_BARRIER:
		return on_barrier(r, err);
	case MSG_ERROR:
		return error_set(err, -EPROTO, "peer-error",
				 "the source says on a bulk channel: %s (%s)", r->m.error.message,
				 r->m.error.code);
	default:
		return error_set(err, -EBADMSG, "unexpected-message", "%s on a bulk channel",
				 msg_type_name(r->m.type));
	}
}

static enum receive_end end_of(int ret, struct error *err)
{
	switch (ret) {
	case -ESRCH:
		return RECEIVE_GONE;
	case -EBADMSG:
	case -EPROTO:
		return RECEIVE_BROKEN;
	default:
		/* What is not the channel's has a code of its own. */
		return !strcmp(err->code, "placing") || !strcmp(err->code, "storing") ||
				       !strcmp(err->code, "guest-gone")
			       ? RECEIVE_BROKEN
			       : RECEIVE_LOST;
	}
}

static void *receive_main(void *arg)
{
	struct receive *r = arg;
	struct error err = {0}, ignored = {0};
	int ret;

	trace_thread_enter("bulk");
	do
		ret = on_frame(r, &err);
	while (!ret);
	if (ret == -EBADMSG && !atomic_load(&r->quit))
		frame_send_error(&r->io, &err, &ignored);
	atomic_store(&r->open, false);
	log_debug("receive: a bulk channel ends: %s", err.msg);
	trace_thread_exit("bulk", ret);
	if (!atomic_load(&r->quit))
		r->on_end(r->arg, end_of(ret, &err), &err);
	return NULL;
}

static void receive_free(struct receive *r)
{
	tls_chan_free(r->io.chan);
	if (r->stop_fd >= 0)
		close(r->stop_fd);
	place_huge_free(&r->huge);
	free(r->data);
	free(r);
}

int receive_start(struct place *place, struct image_writer *image, struct tls_chan *chan,
		  receive_end_fn *on_end, void *arg, struct receive **ret)
{
	struct receive *r = calloc(1, sizeof(*r));
	int e = 0;

	if (!r) {
		tls_chan_free(chan);
		return -ENOMEM;
	}
	r->place = place;
	r->image = image;
	r->on_end = on_end;
	r->arg = arg;
	r->wait = (struct place_io){again, r};
	r->stop_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	r->io = (struct frame_io){.chan = chan,
				  .channel = MSG_CHANNEL_BULK,
				  .from_source = true,
				  .stop_fd = r->stop_fd,
				  .timeout_us = TLS_FOREVER};
	r->data = aligned_alloc(4096, MSG_PAGES_RAW_MAX);
	r->open = true;
	if (r->stop_fd < 0)
		e = -errno;
	else if (!r->data)
		e = -ENOMEM;
	else
		e = -pthread_create(&r->thread, NULL, receive_main, r);
	if (e) {
		receive_free(r);
		return e;
	}
	*ret = r;
	return 0;
}

void receive_drop(struct receive *r)
{
	uint64_t one = 1;

	if (write(r->stop_fd, &one, sizeof(one)) < 0)
		log_debug("receive: cannot wake: %s", strerror(errno));
}

void receive_stop(struct receive *r)
{
	if (!r)
		return;
	atomic_store(&r->quit, true);
	receive_drop(r);
	pthread_join(r->thread, NULL);
	receive_free(r);
}

const struct tally *receive_tally(const struct receive *r)
{
	return &r->tally;
}

bool receive_open(const struct receive *r)
{
	return atomic_load(&r->open);
}
