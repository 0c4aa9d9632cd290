/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Frames on a channel that a data thread owns: blocking calls with a stop descriptor and timeouts,
 * and an incremental reader and a writer queue that never block, for threads that poll. Nothing
 * here has a lock: a channel and what reads or writes it belong to one thread.
 *
 * Errors: what tls_chan.h says for the channel, -EBADMSG with the codes of msg.h for what the peer
 * may not send. After any error but -EAGAIN the channel is of no more use, except that an ERROR
 * may be sent after -EBADMSG.
 */
#ifndef DECANT_PROTO_FRAME_H
#define DECANT_PROTO_FRAME_H

#include "msg.h"
#include "tls/tls_chan.h"

/**
 * FRAME_SMALL_MAX - bytes; longest body that frame_send() and struct frame_writer take: all
 * messages of urgent, bulk and query channels are shorter
 */
#define FRAME_SMALL_MAX 1024

/**
 * struct frame_io - what all blocking calls have in common
 * @chan:	belongs to the calling thread
 * @channel:	what it is, for the checks of msg_header_decode()
 * @from_source: the peer is a source
 * @stop_fd:	readable: calls end with -ECANCELED; -1 for none
 * @timeout_us:	for one call; TLS_FOREVER for none
 */
struct frame_io {
	struct tls_chan *chan;
	enum msg_channel channel;
	bool from_source;
	int stop_fd;
	uint64_t timeout_us;
};

/**
 * frame_read_header() - wait for the next frame and check its header
 *
 * Return: 0; -ENODATA the peer ended the channel properly; -ETIMEDOUT and -ECANCELED (if no byte
 * had come yet, the channel is still usable); -EBADMSG; other -errno; @err always filled
 */
int frame_read_header(const struct frame_io *io, struct msg_header *ret, struct error *err);
/**
 * frame_read_body() - the rest of the frame whose header was read, but not the payload of PAGES
 * @buf:	@h->length bytes (56 are enough for PAGES); what @ret points to lives there
 * @ret:	unspecified on failure
 *
 * Return: as frame_read_header(), but any failure ends the channel
 */
int frame_read_body(const struct frame_io *io, const struct msg_header *h, uint8_t *buf,
		    struct msg *ret, struct error *err);
/**
 * frame_read_payload() - the pages behind a PAGES of kind raw, straight to where they are wanted
 * @buf:	@p->length bytes
 *
 * Nothing for kind zero. The digest is the caller's to check. Return: as frame_read_body()
 */
int frame_read_payload(const struct frame_io *io, const struct msg_pages *p, void *buf,
		       struct error *err);

/**
 * frame_send() - any message with a body of FRAME_SMALL_MAX bytes at most, except PAGES of kind
 * raw. Return: 0; -EINVAL as msg_encode(); otherwise as frame_read_body(); @err always filled
 */
int frame_send(const struct frame_io *io, const struct msg *m, struct error *err);
/** frame_send_error() - frame_send() of ERROR with the code and text of @why */
int frame_send_error(const struct frame_io *io, const struct error *why, struct error *err);
/**
 * frame_send_pages() - PAGES with its payload, in one piece
 * @buf:	MSG_PAGES_FIXED bytes of room, written here, and right behind them the payload
 *		(@p->length bytes for kind raw)
 *
 * Return: as frame_send()
 */
int frame_send_pages(const struct frame_io *io, const struct msg_pages *p, uint8_t *buf,
		     struct error *err);

/**
 * struct frame_reader - takes frames off a channel without ever waiting
 * @events:	what reading waits for: POLLIN, or POLLOUT if that is what the last -EAGAIN meant
 *
 * The other fields are its own.
 */
struct frame_reader {
	short events;
	enum msg_channel channel;
	bool from_source;
	int stage;
	size_t have;
	struct msg_header h;
	uint8_t head[MSG_PAGES_FIXED];
	uint8_t *buf;
	struct msg *m;
};

/** frame_reader_init() - Return: 0 or -ENOMEM. @channel, @from_source as in struct frame_io */
int frame_reader_init(struct frame_reader *r, enum msg_channel channel, bool from_source);
/** frame_reader_free() - also of a zeroed one, and twice */
void frame_reader_free(struct frame_reader *r);
/**
 * frame_reader_next() - go on reading until a frame is whole or nothing more is there
 * @ret:	the message; valid until the next call
 * @ret_payload: of PAGES of kind raw: its @length bytes, page-aligned, until the next call; else
 *		NULL
 *
 * Before a thread sleeps in poll(2) it calls this until -EAGAIN, because decrypted bytes do not
 * make the socket readable. Nothing behind the frame is taken off the channel.
 *
 * Return: 0 a frame; -EAGAIN; -ENODATA the peer ended the channel properly (between frames);
 * -EBADMSG; other -errno; @err filled except for -EAGAIN
 */
int frame_reader_next(struct frame_reader *r, struct tls_chan *chan, const struct msg **ret,
		      const uint8_t **ret_payload, struct error *err);

/**
 * struct frame_writer - a bounded queue of small messages on their way out
 * @events:	after -EAGAIN: POLLIN or POLLOUT, what writing waits for
 * @buf, @cap:	of its own
 * @head, @tail: bytes [head, tail) of @buf are still to be written
 */
struct frame_writer {
	short events;
	uint8_t *buf;
	size_t cap;
	size_t head;
	size_t tail;
};

/**
 * frame_writer_init() - @cap: bytes that it can hold, at least FRAME_SMALL_MAX + MSG_HEADER_LEN.
 * Return: 0 or -ENOMEM
 */
int frame_writer_init(struct frame_writer *w, size_t cap);
/** frame_writer_free() - also of a zeroed one, and twice */
void frame_writer_free(struct frame_writer *w);
/**
 * frame_writer_put() - queue a message (as frame_send()). Return: 0; -ENOBUFS no room: flush and
 * try again later; -EINVAL
 */
int frame_writer_put(struct frame_writer *w, const struct msg *m);
/**
 * frame_writer_flush() - write as much as goes without waiting
 *
 * Return: 0 the queue is empty; -EAGAIN; other -errno with @err filled
 */
int frame_writer_flush(struct frame_writer *w, struct tls_chan *chan, struct error *err);
/** frame_writer_queued() - Return: bytes not yet written */
size_t frame_writer_queued(const struct frame_writer *w);

#endif
