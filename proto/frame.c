/* SPDX-License-Identifier: Apache-2.0 */
#include "frame.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include "util/cleanup.h"

#define PAGES_BODY    (MSG_PAGES_FIXED - MSG_HEADER_LEN)
#define PAYLOAD_ALIGN 4096

_Static_assert(MSG_PAGES_RAW_MAX >= MSG_BODY_MAX, "one buffer holds any body, too");

/* Names the channel and the peer in front of what is wrong. */
static int blame(const struct tls_chan *chan, enum msg_channel channel, int r, struct error *err)
{
	error_prefix(err, "%s channel with %s", msg_channel_name(channel), tls_chan_peer(chan));
	return r;
}

int frame_read_header(const struct frame_io *io, struct msg_header *ret, struct error *err)
{
	uint8_t head[MSG_HEADER_LEN];
	int r = tls_read_full(io->chan, head, sizeof(head), io->stop_fd, io->timeout_us, err);

	if (r < 0)
		return r;
	r = msg_header_decode(head, io->channel, io->from_source, ret, err);
	return r < 0 ? blame(io->chan, io->channel, r, err) : 0;
}

int frame_read_body(const struct frame_io *io, const struct msg_header *h, uint8_t *buf,
		    struct msg *ret, struct error *err)
{
	size_t n = h->type == MSG_PAGES ? PAGES_BODY : h->length;
	int r = 0;

	if (n)
		r = tls_read_full(io->chan, buf, n, io->stop_fd, io->timeout_us, err);
	if (r == -ENODATA) {
		error_prefix(err, "in the middle of %s", msg_type_name(h->type));
		return -ECONNRESET;
	}
	if (r < 0)
		return r;
	r = msg_decode(h, buf, ret, err);
	return r < 0 ? blame(io->chan, io->channel, r, err) : 0;
}

int frame_read_payload(const struct frame_io *io, const struct msg_pages *p, void *buf,
		       struct error *err)
{
	int r;

	if (p->kind != MSG_PAGES_RAW)
		return 0;
	r = tls_read_full(io->chan, buf, p->length, io->stop_fd, io->timeout_us, err);
	if (r == -ENODATA) {
		error_prefix(err, "in the middle of PAGES");
		return -ECONNRESET;
	}
	return r;
}

/* Into one small buffer, payload excluded. Return: bytes or -EINVAL */
static ssize_t encode_small(const struct msg *m, uint8_t *out, size_t cap)
{
	ssize_t n;

	if (m->type == MSG_PAGES && m->pages.kind != MSG_PAGES_ZERO)
		return -EINVAL;
	n = msg_encode(m, out, cap);
	return n == -ENOSPC ? -EINVAL : n;
}

int frame_send(const struct frame_io *io, const struct msg *m, struct error *err)
{
	uint8_t buf[MSG_HEADER_LEN + FRAME_SMALL_MAX];
	ssize_t n = encode_small(m, buf, sizeof(buf));

	if (n < 0)
		return error_set(err, (int)n, "bad-message", "%s cannot be sent: out of bounds",
				 msg_type_name(m->type));
	return tls_write_full(io->chan, buf, (size_t)n, io->stop_fd, io->timeout_us, err);
}

int frame_send_error(const struct frame_io *io, const struct error *why, struct error *err)
{
	CLEANUP_FREE struct msg *m = calloc(1, sizeof(*m));

	if (!m)
		return error_set(err, -ENOMEM, NULL, "no memory for a message");
	msg_error_fill(m, MSG_ERROR, why);
	return frame_send(io, m, err);
}

int frame_send_pages(const struct frame_io *io, const struct msg_pages *p, uint8_t *buf,
		     struct error *err)
{
	ssize_t n = msg_pages_encode(p, buf);

	if (n < 0)
		return error_set(err, (int)n, "bad-message", "PAGES cannot be sent: out of bounds");
	if (p->kind == MSG_PAGES_RAW)
		n += (ssize_t)p->length;
	return tls_write_full(io->chan, buf, (size_t)n, io->stop_fd, io->timeout_us, err);
}

/**
 * enum stage - what a reader reads next
 * @STAGE_HEADER: into @head
 * @STAGE_FIXED: the fixed part of PAGES, behind the header in @head
 * @STAGE_BODY:	of any other message, into @buf
 * @STAGE_PAYLOAD: of PAGES, into @buf
 */
enum stage { STAGE_HEADER, STAGE_FIXED, STAGE_BODY, STAGE_PAYLOAD };

int frame_reader_init(struct frame_reader *r, enum msg_channel channel, bool from_source)
{
	/* Whole frames may come before anything was read in vain, which would tell what to wait for. */
	*r = (struct frame_reader){
		.channel = channel, .from_source = from_source, .events = POLLIN};
	r->buf = aligned_alloc(PAYLOAD_ALIGN, MSG_PAGES_RAW_MAX);
	r->m = malloc(sizeof(*r->m));
	if (r->buf && r->m)
		return 0;
	frame_reader_free(r);
	return -ENOMEM;
}

void frame_reader_free(struct frame_reader *r)
{
	free(steal_ptr(&r->buf));
	free(steal_ptr(&r->m));
}

/* Return: 0 when @want bytes are at @at; as frame_reader_next() otherwise */
static int fill(struct frame_reader *r, struct tls_chan *chan, uint8_t *at, size_t want,
		struct error *err)
{
	while (r->have < want) {
		ssize_t n = tls_read(chan, at + r->have, want - r->have);

		if (n > 0) {
			r->have += (size_t)n;
			continue;
		}
		if (n == -EAGAIN) {
			r->events = tls_chan_events(chan);
			return -EAGAIN;
		}
		if (n == 0 && r->stage == STAGE_HEADER && !r->have)
			return error_set(err, -ENODATA, "tls-closed", "the peer ended the channel");
		if (n == 0)
			return error_set(err, -ECONNRESET, "tls-closed",
					 "the peer ended the channel in the middle of a message");
		if (error_is_set(tls_chan_error(chan)))
			return error_set(err, (int)n, tls_chan_error(chan)->code, "%s",
					 tls_chan_error(chan)->msg);
		return error_set(err, (int)n, NULL, "%s", strerror((int)-n));
	}
	r->have = 0;
	return 0;
}

static int read_header(struct frame_reader *r, struct tls_chan *chan, struct error *err)
{
	int e = fill(r, chan, r->head, MSG_HEADER_LEN, err);

	if (!e)
		e = msg_header_decode(r->head, r->channel, r->from_source, &r->h, err);
	if (!e)
		r->stage = r->h.type == MSG_PAGES ? STAGE_FIXED : STAGE_BODY;
	return e;
}

/* The fixed part says how the frame goes on; both parts were bounded by the header's check. */
static int read_fixed(struct frame_reader *r, struct tls_chan *chan, struct error *err)
{
	int e = fill(r, chan, r->head + MSG_HEADER_LEN, PAGES_BODY, err);

	if (!e)
		e = msg_decode(&r->h, r->head + MSG_HEADER_LEN, r->m, err);
	if (!e)
		r->stage = STAGE_PAYLOAD;
	return e;
}

static int read_rest(struct frame_reader *r, struct tls_chan *chan, struct error *err)
{
	int e;

	if (r->stage == STAGE_PAYLOAD)
		return fill(r, chan, r->buf, r->h.length - PAGES_BODY, err);
	e = fill(r, chan, r->buf, r->h.length, err);
	return e ? e : msg_decode(&r->h, r->buf, r->m, err);
}

int frame_reader_next(struct frame_reader *r, struct tls_chan *chan, const struct msg **ret,
		      const uint8_t **ret_payload, struct error *err)
{
	int e = 0;

	if (r->stage == STAGE_HEADER)
		e = read_header(r, chan, err);
	if (!e && r->stage == STAGE_FIXED)
		e = read_fixed(r, chan, err);
	if (!e)
		e = read_rest(r, chan, err);
	if (e)
		return e == -EAGAIN ? e : blame(chan, r->channel, e, err);
	r->stage = STAGE_HEADER;
	*ret = r->m;
	*ret_payload = r->h.type == MSG_PAGES && r->m->pages.kind == MSG_PAGES_RAW ? r->buf : NULL;
	return 0;
}

int frame_writer_init(struct frame_writer *w, size_t cap)
{
	*w = (struct frame_writer){.cap = MAX(cap, (size_t)FRAME_SMALL_MAX + MSG_HEADER_LEN)};
	w->buf = malloc(w->cap);
	return w->buf ? 0 : -ENOMEM;
}

void frame_writer_free(struct frame_writer *w)
{
	free(steal_ptr(&w->buf));
}

size_t frame_writer_queued(const struct frame_writer *w)
{
	return w->tail - w->head;
}

int frame_writer_put(struct frame_writer *w, const struct msg *m)
{
	uint8_t buf[MSG_HEADER_LEN + FRAME_SMALL_MAX];
	ssize_t n = encode_small(m, buf, sizeof(buf));

	if (n < 0)
		return (int)n;
	if (w->cap - w->tail < (size_t)n) {
		memmove(w->buf, w->buf + w->head, frame_writer_queued(w));
		w->tail -= w->head;
		w->head = 0;
	}
	if (w->cap - w->tail < (size_t)n)
		return -ENOBUFS;
	memcpy(w->buf + w->tail, buf, (size_t)n);
	w->tail += (size_t)n;
	return 0;
}

int frame_writer_flush(struct frame_writer *w, struct tls_chan *chan, struct error *err)
{
	while (w->head < w->tail) {
		ssize_t n = tls_write(chan, w->buf + w->head, w->tail - w->head);

		if (n > 0) {
			w->head += (size_t)n;
			continue;
		}
		if (n == -EAGAIN) {
			w->events = tls_chan_events(chan);
			return -EAGAIN;
		}
		if (error_is_set(tls_chan_error(chan)))
			return error_set(err, (int)n, tls_chan_error(chan)->code, "%s",
					 tls_chan_error(chan)->msg);
		return error_set(err, (int)n, "tls-closed", "%s ended the channel",
				 tls_chan_peer(chan));
	}
	w->head = w->tail = 0;
	return 0;
}
