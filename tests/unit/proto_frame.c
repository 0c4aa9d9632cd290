/* SPDX-License-Identifier: Apache-2.0 */
/* Frames for data threads: split at every byte, cut off, forbidden; and the writer's queue. */
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include "proto_fixture.h"

#define RUN 8192

/* A REQUEST is for the source's ears, everything else here for the destination's. */
static struct frame_io io_of(struct tls_chan *chan, enum msg_channel channel, bool from_source)
{
	return (struct frame_io){chan, channel, from_source, -1, 3000000};
}

/* PAGES raw, BARRIER, PAGES zero, ERROR: in one piece, as a bulk channel may carry them. */
static size_t stream(uint8_t *out, size_t cap)
{
	struct msg_pages raw = {.block = 1,
				.kind = MSG_PAGES_RAW,
				.offset = 1 << 20,
				.length = RUN,
				.pass = 2,
				.digest = 99};
	struct msg *m = fixture_msg(MSG_BARRIER);
	size_t n = MSG_PAGES_FIXED + RUN;

	cr_assert_eq(msg_pages_encode(&raw, out), MSG_PAGES_FIXED);
	for (size_t i = 0; i < RUN; i++)
		out[MSG_PAGES_FIXED + i] = (uint8_t)(i * 7);
	m->barrier = (struct msg_barrier){2, 5};
	n += fixture_encode(m, out + n, cap - n);
	m->type = MSG_PAGES;
	m->pages = (struct msg_pages){.block = 1, .length = 1 << 30, .pass = 2};
	n += fixture_encode(m, out + n, cap - n);
	msg_error_fill(m, MSG_ERROR, &(struct error){"enough", "that is all"});
	n += fixture_encode(m, out + n, cap - n);
	free(m);
	return n;
}

static void check_frame(unsigned int i, const struct msg *m, const uint8_t *payload)
{
	if (i == 0) {
		cr_assert_eq(m->type, MSG_PAGES);
		cr_assert_eq(m->pages.digest, 99);
		cr_assert_eq((uintptr_t)payload % 4096, 0);
		cr_assert_eq(payload[0], 0);
		cr_assert_eq(payload[1], 7);
		for (size_t j = 0; j < RUN; j += 256) /* the pattern's period */
			cr_assert_arr_eq(payload + j, payload, 256);
	} else if (i == 1) {
		cr_assert_eq(m->type, MSG_BARRIER);
		cr_assert_eq(m->barrier.number, 5);
	} else if (i == 2) {
		cr_assert_eq(m->type, MSG_PAGES);
		cr_assert_eq(m->pages.length, 1 << 30);
	} else {
		cr_assert_eq(m->type, MSG_ERROR);
		cr_assert_str_eq(m->error.code, "enough");
	}
	if (i)
		cr_assert_null(payload);
}

/* Take frames until none is whole. Loopback may be late: @want frames have to come. */
static unsigned int take(struct frame_reader *r, struct tls_chan *chan, unsigned int from,
			 unsigned int want)
{
	const uint8_t *payload;
	const struct msg *m;
	struct error err = {0};
	unsigned int n = from;

	for (;;) {
		struct pollfd pfd = {.fd = tls_chan_fd(chan), .events = POLLIN};
		int e = frame_reader_next(r, chan, &m, &payload, &err);

		if (e == 0) {
			check_frame(n++, m, payload);
			continue;
		}
		cr_assert_eq(e, -EAGAIN, "%s", err.msg);
		cr_assert_eq(r->events, POLLIN);
		if (n >= want)
			return n;
		cr_assert_eq(poll(&pfd, 1, 5000), 1);
	}
}

/* Frames that end at or before byte @k of the stream. */
static unsigned int whole(size_t k, size_t total)
{
	const size_t ends[] = {MSG_PAGES_FIXED + RUN, MSG_PAGES_FIXED + RUN + 16,
			       2 * MSG_PAGES_FIXED + RUN + 16, total};
	unsigned int n = 0;

	while (n < ARRAY_SIZE(ends) && ends[n] <= k)
		n++;
	return n;
}

Test(proto_frame, every_split)
{
	static uint8_t buf[3 * RUN];
	size_t total = stream(buf, sizeof(buf));
	struct frame_reader r;
	struct tls_pair p;

	fixture_pair(&p);
	cr_assert_eq(frame_reader_init(&r, MSG_CHANNEL_BULK, true), 0);
	for (size_t k = 0; k <= total; k++) {
		unsigned int n = 0;

		if (k) {
			cr_assert_eq(fixture_put(p.client, buf, k), 0);
			n = take(&r, p.server, 0, whole(k, total));
			cr_assert_eq(n, whole(k, total), "%zu of %zu", k, total);
		}
		if (k < total) {
			cr_assert_eq(fixture_put(p.client, buf + k, total - k), 0);
			n = take(&r, p.server, n, 4);
		}
		cr_assert_eq(n, 4);
	}
	frame_reader_free(&r);
	frame_reader_free(&r);
	tls_pair_free(&p);
}

/* One byte a record: the reader never waits, whatever is missing. */
Test(proto_frame, dribbled)
{
	static uint8_t buf[3 * RUN];
	size_t total = stream(buf, sizeof(buf));
	struct frame_reader r;
	struct tls_pair p;
	unsigned int n = 0;

	fixture_pair(&p);
	cr_assert_eq(frame_reader_init(&r, MSG_CHANNEL_BULK, true), 0);
	for (size_t k = 0; k < total; k++) {
		cr_assert_eq(fixture_put(p.client, buf + k, 1), 0);
		n = take(&r, p.server, n, whole(k + 1, total));
	}
	cr_assert_eq(n, 4);
	frame_reader_free(&r);
	tls_pair_free(&p);
}

/* The end after every byte: orderly between frames, an error that says so within one. */
Test(proto_frame, end_after_every_byte)
{
	static uint8_t buf[3 * RUN];
	size_t total = stream(buf, sizeof(buf)), step;

	for (size_t k = 0; k <= total; k += step) {
		struct pollfd pfd;
		struct frame_reader r;
		struct error err = {0};
		const uint8_t *payload;
		const struct msg *m;
		struct tls_pair p;
		bool between;
		int e;

		/* Every byte of the small frames; of a payload one is as good as another. */
		step = k > MSG_PAGES_FIXED + 4 && k < MSG_PAGES_FIXED + RUN - 1024 ? 1000 : 1;
		between = k == 0 || whole(k, total) != whole(k - 1, total);
		if (!between && k % 5)
			continue;
		fixture_pair(&p);
		cr_assert_eq(frame_reader_init(&r, MSG_CHANNEL_BULK, true), 0);
		if (k)
			cr_assert_eq(fixture_put(p.client, buf, k), 0);
		tls_chan_free(steal_ptr(&p.client));
		while ((e = frame_reader_next(&r, p.server, &m, &payload, &err)) == 0 ||
		       e == -EAGAIN) {
			pfd = (struct pollfd){.fd = tls_chan_fd(p.server), .events = r.events};
			if (e)
				cr_assert_eq(poll(&pfd, 1, 5000), 1);
		}
		cr_assert_eq(e, between ? -ENODATA : -ECONNRESET, "%zu: %s", k, err.msg);
		cr_assert_str_eq(err.code, "tls-closed");
		cr_assert_neq(!strstr(err.msg, "in the middle"), !between, "%zu: %s", k, err.msg);
		frame_reader_free(&r);
		tls_pair_free(&p);
	}
}

Test(proto_frame, forbidden)
{
	static const uint8_t bad[][MSG_HEADER_LEN] = {
		{0xff, 0xff, 0xff, 0xff, 48, 0}, /* PAGES of 4 GiB */
		{57, 0, 4, 0, 48, 0},            /* of one byte too many */
		{55, 0, 0, 0, 48, 0},            /* and too few */
		{24, 0, 0, 0, 40, 0},            /* REQUEST from a source */
		{8, 0, 0, 0, 27, 0},             /* COMMIT on bulk */
		{0, 0, 0, 0, 77, 0},
	};
	static const char *const code[] = {"bad-length",         "bad-length",
					   "bad-length",         "unexpected-message",
					   "unexpected-message", "unknown-message"};

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		struct error err = {0}, err2 = {0};
		struct frame_reader r;
		struct msg_header h;
		const uint8_t *payload;
		const struct msg *m;
		struct tls_pair p;
		struct frame_io io;
		int e;

		fixture_pair(&p);
		cr_assert_eq(frame_reader_init(&r, MSG_CHANNEL_BULK, true), 0);
		io = io_of(p.server, MSG_CHANNEL_BULK, true);
		cr_assert_eq(fixture_put(p.client, bad[i], sizeof(bad[i])), 0);
		while ((e = frame_reader_next(&r, p.server, &m, &payload, &err)) == -EAGAIN)
			;
		cr_assert_eq(e, -EBADMSG);
		cr_assert_str_eq(err.code, code[i], "%zu: %s", i, err.msg);
		cr_assert(strstr(err.msg, "bulk channel with 127.0.0.1"), "%s", err.msg);
		cr_assert_eq(fixture_put(p.client, bad[i], sizeof(bad[i])), 0);
		cr_assert_eq(frame_read_header(&io, &h, &err2), -EBADMSG);
		cr_assert_str_eq(err2.code, code[i]);
		frame_reader_free(&r);
		tls_pair_free(&p);
	}
}

/* A payload that is not as long as the run says. */
Test(proto_frame, payload_that_differs)
{
	struct msg_pages raw = {.kind = MSG_PAGES_RAW, .length = RUN, .pass = 1};
	uint8_t head[MSG_PAGES_FIXED];
	struct error err = {0};
	struct frame_reader r;
	const uint8_t *payload;
	const struct msg *m;
	struct tls_pair p;
	int e;

	fixture_pair(&p);
	cr_assert_eq(frame_reader_init(&r, MSG_CHANNEL_URGENT, true), 0);
	cr_assert_eq(r.events, POLLIN, "what it waits for before it has read in vain");
	cr_assert_eq(msg_pages_encode(&raw, head), MSG_PAGES_FIXED);
	head[0]--;
	cr_assert_eq(fixture_put(p.client, head, sizeof(head)), 0);
	while ((e = frame_reader_next(&r, p.server, &m, &payload, &err)) == -EAGAIN)
		;
	cr_assert_eq(e, -EBADMSG);
	cr_assert(strstr(err.msg, "payload"), "%s", err.msg);
	frame_reader_free(&r);
	tls_pair_free(&p);
}

Test(proto_frame, blocking_there_and_back)
{
	static uint8_t out[MSG_PAGES_FIXED + MSG_PAGES_RAW_MAX], in[MSG_PAGES_RAW_MAX];
	struct msg_pages raw = {.kind = MSG_PAGES_RAW, .length = RUN, .pass = 3};
	struct msg *m = fixture_msg(MSG_BARRIER), *got = fixture_msg(0);
	struct frame_io src, dst;
	struct msg_header h;
	struct tls_pair p;

	fixture_pair(&p);
	src = io_of(p.client, MSG_CHANNEL_BULK, false);
	dst = io_of(p.server, MSG_CHANNEL_BULK, true);
	memset(out + MSG_PAGES_FIXED, 0xa5, RUN);
	cr_assert_eq(frame_send_pages(&src, &raw, out, NULL), 0);
	m->barrier = (struct msg_barrier){3, 1};
	cr_assert_eq(frame_send(&src, m, NULL), 0);
	cr_assert_eq(frame_read_header(&dst, &h, NULL), 0);
	cr_assert_eq(frame_read_body(&dst, &h, in, got, NULL), 0);
	cr_assert_eq(got->pages.length, RUN);
	cr_assert_eq(frame_read_payload(&dst, &got->pages, in, NULL), 0);
	cr_assert_eq(in[0] + in[RUN - 1], 2 * 0xa5);
	cr_assert_eq(frame_read_header(&dst, &h, NULL), 0);
	cr_assert_eq(frame_read_body(&dst, &h, in, got, NULL), 0);
	cr_assert_eq(got->barrier.pass, 3);
	got->type = MSG_BARRIER_ACK;
	cr_assert_eq(frame_send(&dst, got, NULL), 0);
	cr_assert_eq(frame_read_header(&src, &h, NULL), 0);
	cr_assert_eq(h.type, MSG_BARRIER_ACK);
	free(m);
	free(got);
	tls_pair_free(&p);
}

Test(proto_frame, refuses_to_send)
{
	struct msg *m = fixture_msg(MSG_PAGES);
	struct error err = {0};
	struct frame_writer w;
	struct frame_io io;
	struct tls_pair p;

	fixture_pair(&p);
	io = io_of(p.client, MSG_CHANNEL_BULK, false);
	m->pages = (struct msg_pages){.kind = MSG_PAGES_RAW, .length = RUN, .pass = 1};
	cr_assert_eq(frame_send(&io, m, &err), -EINVAL, "its payload would be missing");
	cr_assert(error_is_set(&err));
	m->type = MSG_STATE;
	m->state = (struct msg_state){(const uint8_t *)m, 2 * FRAME_SMALL_MAX};
	cr_assert_eq(frame_send(&io, m, NULL), -EINVAL);
	cr_assert_eq(frame_writer_init(&w, 0), 0);
	cr_assert_eq(frame_writer_put(&w, m), -EINVAL);
	cr_assert_eq(frame_writer_queued(&w), 0);
	frame_writer_free(&w);
	free(m);
	tls_pair_free(&p);
}

Test(proto_frame, stopped_and_late)
{
	struct error err = {0}, err2 = {0};
	struct frame_io io;
	struct msg_header h;
	struct tls_pair p;
	uint64_t begin, one = 1;
	int stop = eventfd(0, 0);

	fixture_pair(&p);
	io = io_of(p.server, MSG_CHANNEL_BULK, true);
	io.timeout_us = 100000;
	begin = clock_us();
	cr_assert_eq(frame_read_header(&io, &h, &err), -ETIMEDOUT);
	cr_assert(error_is_set(&err));
	cr_assert_geq(clock_us() - begin, 100000);
	io.stop_fd = stop;
	io.timeout_us = TLS_FOREVER;
	cr_assert_eq(write(stop, &one, sizeof(one)), sizeof(one));
	cr_assert_eq(frame_read_header(&io, &h, &err2), -ECANCELED);
	cr_assert_str_eq(err2.code, "cancelled");
	/* Nothing was lost by that. */
	io.stop_fd = -1;
	cr_assert_eq(fixture_put(p.client, "\x08\0\0\0\x32\0\0\0", 8), 0);
	cr_assert_eq(frame_read_header(&io, &h, NULL), 0);
	cr_assert_eq(h.type, MSG_BARRIER);
	close(stop);
	tls_pair_free(&p);
}

/* Several records, so that flushing stops in the middle; no multiple of a message. */
#define QUEUE (64 * 1024 + 16)

/* Queue REQUESTs with ascending offsets until there is no room. Return: how many so far */
static uint64_t put_all(struct frame_writer *w, struct msg *m, uint64_t sent)
{
	int e;

	do {
		m->request = (struct msg_request){.offset = sent * 4096, .length = 4096};
		e = frame_writer_put(w, m);
	} while (e == 0 && ++sent);
	cr_assert_eq(e, -ENOBUFS);
	cr_assert_leq(frame_writer_queued(w), QUEUE);
	cr_assert_gt(frame_writer_queued(w), QUEUE - 32);
	return sent;
}

/* Take all that is there, which must go on where the last call ended. Return: how many came */
static uint64_t get_all(struct frame_reader *r, struct tls_chan *chan, uint64_t got)
{
	const uint8_t *payload;
	const struct msg *in;

	while (frame_reader_next(r, chan, &in, &payload, NULL) == 0) {
		cr_assert_eq(in->request.offset, got * 4096);
		got++;
	}
	return got;
}

/* A queue that fills while the peer does not read, and then empties in order; three times. */
Test(proto_frame, writer)
{
	struct msg *m = fixture_msg(MSG_REQUEST);
	uint64_t sent = 0, got = 0;
	struct frame_reader r;
	struct frame_writer w;
	struct tls_pair p;

	fixture_pair(&p);
	cr_assert_eq(frame_writer_init(&w, QUEUE), 0);
	cr_assert_eq(frame_reader_init(&r, MSG_CHANNEL_URGENT, false), 0);
	for (int round = 0; round < 3; round++) {
		uint64_t begin = sent;

		do
			sent = put_all(&w, m, sent);
		while (frame_writer_flush(&w, p.server, NULL) == 0);
		if (w.head >= 32) /* the queue has moved up: there is room again */
			sent = put_all(&w, m, sent);
		cr_assert_eq(w.events, POLLOUT);
		cr_assert_gt(sent - begin, 1000);
		while (got < sent) {
			int e = frame_writer_flush(&w, p.server, NULL);

			cr_assert(e == 0 || e == -EAGAIN);
			got = get_all(&r, p.client, got);
		}
		cr_assert_eq(frame_writer_queued(&w), 0);
	}
	frame_writer_free(&w);
	frame_writer_free(&w);
	frame_reader_free(&r);
	free(m);
	tls_pair_free(&p);
}

/* The peer is gone: said by an error, not by waiting. */
Test(proto_frame, writer_without_peer)
{
	struct msg *m = fixture_msg(MSG_REQUEST);
	struct error err = {0};
	struct frame_writer w;
	struct tls_pair p;
	int e = 0;

	fixture_pair(&p);
	shutdown(tls_chan_fd(p.client), SHUT_RDWR);
	tls_chan_free(steal_ptr(&p.client));
	cr_assert_eq(frame_writer_init(&w, 4096), 0);
	m->request = (struct msg_request){.length = 4096};
	for (int i = 0; i < 100 && e == 0; i++) {
		cr_assert_eq(frame_writer_put(&w, m), 0);
		e = frame_writer_flush(&w, p.server, &err);
		usleep(1000);
	}
	cr_assert_lt(e, 0);
	cr_assert_neq(e, -EAGAIN);
	cr_assert(error_is_set(&err));
	frame_writer_free(&w);
	free(m);
	tls_pair_free(&p);
}
