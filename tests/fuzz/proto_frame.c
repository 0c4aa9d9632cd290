/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Frames as data threads take them, PAGES with their payloads among them: one input by the reader that
 * never blocks, cut anywhere, and again by the blocking calls. Both must see the same messages.
 */
#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include "frame.h"
#include "fuzz/lib/fuzz.h"
#include "fuzz/lib/plain_chan.h"
#include "util/digest.h"

/** struct seen - what one of the two saw: how many frames, and their contents */
struct seen {
	unsigned int n;
	uint64_t sum;
};

static void note(struct seen *s, const struct msg *m, const uint8_t *payload)
{
	s->n++;
	s->sum = s->sum * 31 + m->type;
	if (payload)
		s->sum = s->sum * 31 + digest_xxh3(payload, m->pages.length);
}

static void by_reader(struct fuzz_in in, enum msg_channel channel, bool from_source, size_t cut,
		      struct seen *ret)
{
	struct frame_reader r = {0};
	const struct msg *m;
	const uint8_t *payload;
	struct error err = {0};
	struct tls_chan *chan;
	int fd[2], ret_ = -EAGAIN;

	FUZZ_CHECK(!socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fd));
	chan = plain_chan(fd[0]);
	FUZZ_CHECK(!frame_reader_init(&r, channel, from_source));
	while (in.n && ret_ == -EAGAIN) {
		struct fuzz_in piece = fuzz_take(&in, cut);

		FUZZ_CHECK(send(fd[1], piece.p, piece.n, MSG_NOSIGNAL) == (ssize_t)piece.n);
		while (!(ret_ = frame_reader_next(&r, chan, &m, &payload, &err)))
			note(ret, m, payload);
		FUZZ_CHECK(ret_ == -EAGAIN || error_is_set(&err));
	}
	frame_reader_free(&r);
	tls_chan_free(chan);
	close(fd[1]);
}

static int next(const struct frame_io *io, uint8_t *buf, uint8_t *page, struct msg *m,
		struct seen *s, struct error *err)
{
	struct msg_header h;
	int r = frame_read_header(io, &h, err);

	if (!r)
		r = frame_read_body(io, &h, buf, m, err);
	if (!r && m->type == MSG_PAGES && m->pages.kind == MSG_PAGES_RAW) {
		r = frame_read_payload(io, &m->pages, page, err);
		if (!r)
			note(s, m, page);
	} else if (!r) {
		note(s, m, NULL);
	}
	return r;
}

/* A socket may hold less than the input: a writer that never waits would deadlock with its own reader. */
static void by_calls(struct fuzz_in in, enum msg_channel channel, bool from_source,
		     struct seen *ret)
{
	struct frame_io io = {NULL, channel, from_source, -1, TLS_FOREVER};
	uint8_t *buf = malloc(MSG_BODY_MAX), *page = malloc(MSG_PAGES_RAW_MAX);
	struct msg *m = calloc(1, sizeof(*m));
	struct error err = {0};
	int fd[2];

	FUZZ_CHECK(!socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fd));
	FUZZ_CHECK(send(fd[1], in.p, in.n, MSG_NOSIGNAL) == (ssize_t)in.n);
	close(fd[1]);
	io.chan = plain_chan(fd[0]);
	while (!next(&io, buf, page, m, ret, &err))
		;
	FUZZ_CHECK(error_is_set(&err));
	tls_chan_free(io.chan);
	free(m);
	free(page);
	free(buf);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct fuzz_in in = fuzz_begin(data, size);
	uint8_t how = fuzz_u8(&in);
	size_t cut = 1 + (size_t)fuzz_u8(&in) * 16;
	struct seen a = {0}, b = {0};

	if (!in.n || in.n > 100000)
		return 0;
	by_reader(in, how & 3, how & 4, cut, &a);
	by_calls(in, how & 3, how & 4, &b);
	FUZZ_CHECK(a.n == b.n && a.sum == b.sum);
	return 0;
}
