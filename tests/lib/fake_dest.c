/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "frame.h"
#include "lib/fake_dest.h"
#include "lib/tls_pair.h"

#define THREADS_MAX 64
#define DRIBBLE_US  100000

/**
 * struct fake_dest - the listener; what channels share is atomic
 * @stop_fd:	eventfd, readable at the end
 * @pages:	of its only block, @page_size bytes each
 * @pass:	of SWITCH
 * @runs:	the guest was said to run
 */
struct fake_dest {
	struct lab *lab;
	enum fake_sin sin;
	struct tls_ctx *ctx;
	int listener;
	int stop_fd;
	char to[32];
	pthread_t thread;
	_Atomic unsigned int sessions;
	_Atomic uint64_t pages;
	_Atomic uint32_t page_size;
	_Atomic uint32_t pass;
	_Atomic bool runs;
	pthread_t channels[THREADS_MAX];
	unsigned int n;
};

/** struct channel - a connection and its thread */
struct channel {
	struct fake_dest *d;
	struct frame_io io;
	struct msg m;
	struct error err;
	uint8_t body[MSG_BODY_MAX];
	uint8_t data[MSG_PAGES_RAW_MAX];
	unsigned int said;
};

static bool stopped(const struct fake_dest *d)
{
	struct pollfd p = {.fd = d->stop_fd, .events = POLLIN};

	return poll(&p, 1, 0) > 0;
}

/* Until the test ends, or the peer has enough. */
static int stand(struct channel *c)
{
	struct pollfd p[] = {{.fd = c->d->stop_fd, .events = POLLIN},
			     {.fd = tls_chan_fd(c->io.chan), .events = POLLRDHUP}};

	poll(p, 2, -1);
	return -ECANCELED;
}

static int say(struct channel *c, enum msg_type type)
{
	c->m.type = type;
	return frame_send(&c->io, &c->m, &c->err);
}

static int ask(struct channel *c, uint32_t block, uint64_t offset, uint64_t length)
{
	c->m.request = (struct msg_request){block, offset, length};
	return say(c, MSG_REQUEST);
}

/* --- control --- */

static int on_blocks(struct channel *c)
{
	switch (c->d->sin) {
	case SIN_NO_PREPARED:
		return 0;
	case SIN_READY_EARLY:
		return say(c, MSG_READY);
	case SIN_RUNNING_EARLY:
		c->m.number.value = 1;
		return say(c, MSG_RUNNING);
	case SIN_RECEIPT_EARLY:
		memset(&c->m.receipt, 0, sizeof(c->m.receipt));
		c->m.receipt.digest_ok = true;
		return say(c, MSG_RECEIPT);
	case SIN_LONG_FRAME:
		tls_write_full(c->io.chan, "\xff\xff\xff\xff\x12\0\0", 8, -1, 1000000, &c->err);
		return stand(c);
	case SIN_PING_FLOOD:
		c->m.number.value = 1;
		while (!say(c, MSG_PING) && !stopped(c->d))
			;
		return -ECANCELED;
	default:
		return say(c, MSG_PREPARED);
	}
}

static int on_commit(struct channel *c)
{
	if (c->d->sin == SIN_NO_RUNNING)
		return 0;
	atomic_store(&c->d->runs, true);
	/* The session is lost behind it: see the sins of recovery. */
	if (c->d->sin >= SIN_RECEIVED_OUTSIDE) {
		say(c, MSG_RUNNING);
		return -ECANCELED;
	}
	return say(c, MSG_RUNNING);
}

static int on_complete(struct channel *c)
{
	uint64_t pages = atomic_load(&c->d->pages);

	/* Who is busy asking has no time to be done. */
	if (c->d->sin == SIN_NO_RECEIPT ||
	    (c->d->sin >= SIN_REQUEST_OUTSIDE && c->d->sin <= SIN_REQUEST_FLOOD))
		return 0;
	memset(&c->m.receipt, 0, sizeof(c->m.receipt));
	c->m.receipt.digest_ok = true;
	c->m.receipt.n = 1;
	c->m.receipt.pages[0] = pages - (c->d->sin == SIN_RECEIPT_FEWER);
	return say(c, MSG_RECEIPT);
}

static int on_resume(struct channel *c)
{
	struct msg_received *v = &c->m.received;
	uint64_t words = (atomic_load(&c->d->pages) + 63) / 64;

	if (c->d->sin == SIN_RESUMED_EARLY) {
		c->m.resumed.pass = atomic_load(&c->d->pass);
		return say(c, MSG_RESUMED);
	}
	memset(v, 0, sizeof(*v));
	v->n = 1;
	v->words[0] = UINT64_MAX;
	v->first = c->d->sin == SIN_RECEIVED_ORDER ? 64 : words * 64;
	return say(c, MSG_RECEIVED);
}

static int on_control(struct channel *c)
{
	struct fake_dest *d = c->d;

	switch (c->m.type) {
	case MSG_PING:
		return say(c, MSG_PONG);
	case MSG_BLOCK:
		atomic_store(&d->page_size, c->m.block.page_size);
		atomic_store(&d->pages, c->m.block.length / c->m.block.page_size);
		return on_blocks(c);
	case MSG_INTENT:
		return d->sin == SIN_NO_INTENT_ACK ? 0 : say(c, MSG_INTENT_ACK);
	case MSG_SWITCH:
		atomic_store(&d->pass, c->m.switch_.pass);
		return 0;
	case MSG_STATE_END:
		return d->sin == SIN_NO_READY ? 0 : say(c, MSG_READY);
	case MSG_COMMIT:
		return on_commit(c);
	case MSG_COMPLETE:
		return on_complete(c);
	case MSG_RESUME:
		return on_resume(c);
	case MSG_ABORT:
		return say(c, MSG_ABORTED);
	case MSG_QUERY:
		c->m.answer.answer =
			atomic_load(&d->runs) ? MSG_ANSWER_RUNNING : MSG_ANSWER_UNKNOWN;
		return say(c, MSG_ANSWER);
	case MSG_ERROR:
		return -ECANCELED;
	default:
		return 0;
	}
}

/* --- bulk --- */

static int nack(struct channel *c, uint64_t offset, uint64_t length)
{
	uint32_t pass = c->m.pages.pass;

	c->m.nack = (struct msg_nack){.pass = pass, .offset = offset, .length = length};
	return say(c, MSG_NACK);
}

static int on_pages(struct channel *c)
{
	struct msg_pages p = c->m.pages;
	uint64_t size = atomic_load(&c->d->page_size), all = atomic_load(&c->d->pages) * size;
	int r = frame_read_payload(&c->io, &p, c->data, &c->err);

	if (r || p.kind == MSG_PAGES_ZERO)
		return r;
	switch (c->d->sin) {
	case SIN_NACK_ALL:
		return nack(c, p.offset, p.length);
	case SIN_NACK_OUTSIDE:
		return nack(c, all, size);
	case SIN_NACK_FLOOD:
		for (int i = 0; i < 100000 && !r; i++) {
			c->m.pages = p;
			r = nack(c, p.offset, size);
		}
		return r;
	case SIN_ACK_AHEAD:
		c->m.barrier = (struct msg_barrier){p.pass, 1};
		return say(c, MSG_BARRIER_ACK);
	default:
		return 0;
	}
}

static int on_bulk(struct channel *c)
{
	int r;

	if (c->m.type == MSG_PAGES)
		return on_pages(c);
	if (c->m.type != MSG_BARRIER || c->d->sin == SIN_NO_ACK)
		return 0;
	r = say(c, MSG_BARRIER_ACK);
	return r || c->d->sin != SIN_ACK_TWICE ? r : say(c, MSG_BARRIER_ACK);
}

/* --- urgent --- */

static int sin_on_urgent(struct channel *c)
{
	uint64_t size = atomic_load(&c->d->page_size), all = atomic_load(&c->d->pages) * size;
	int r = 0;

	switch (c->d->sin) {
	case SIN_REQUEST_OUTSIDE:
		return ask(c, 0, all - size, 2 * size);
	case SIN_REQUEST_BLOCK:
		return ask(c, 77, 0, size);
	case SIN_REQUEST_ODD:
		/* Multiples of 4,096, as the coder wants them, and not of the block's pages. */
		return ask(c, 0, all, size);
	case SIN_REQUEST_FLOOD:
		while (!r && !stopped(c->d))
			r = ask(c, 0, 0, size);
		return r;
	default:
		return 0;
	}
}

/* It has nothing to read that matters, but what comes must be taken. */
static int urgent(struct channel *c)
{
	struct pollfd p = {.fd = tls_chan_fd(c->io.chan), .events = POLLIN | POLLRDHUP};
	int r;

	if (c->d->sin == SIN_REQUEST_EARLY)
		return ask(c, 0, 0, atomic_load(&c->d->page_size)) ?: stand(c);
	while (!atomic_load(&c->d->runs)) {
		if (stopped(c->d) || (poll(&p, 1, 5) > 0 && p.revents & (POLLRDHUP | POLLHUP)))
			return -ECANCELED;
	}
	r = sin_on_urgent(c);
	while (!r && !stopped(c->d)) {
		ssize_t n = tls_read(c->io.chan, c->data, sizeof(c->data));

		if (n == -EAGAIN)
			poll(&p, 1, 20);
		else if (n <= 0)
			return -ECANCELED;
	}
	return r;
}

/* --- channels --- */

static int dribble(struct channel *c)
{
	uint8_t out[MSG_HEADER_LEN + 256];
	ssize_t n = msg_encode(&c->m, out, sizeof(out));
	int r = 0;

	for (ssize_t i = 0; i < n && !r && !stopped(c->d); i++) {
		usleep(DRIBBLE_US);
		r = tls_write_full(c->io.chan, out + i, 1, c->d->stop_fd, 1000000, &c->err);
	}
	return r;
}

static int hello(struct channel *c)
{
	struct msg_header h;
	uint64_t caps;
	int r = frame_read_header(&c->io, &h, &c->err);

	if (!r)
		r = frame_read_body(&c->io, &h, c->body, &c->m, &c->err);
	if (r || c->m.type != MSG_HELLO)
		return -EPROTO;
	c->io.channel = (enum msg_channel)c->m.hello.kind;
	if (c->io.channel == MSG_CHANNEL_CONTROL)
		atomic_fetch_add(&c->d->sessions, 1);
	caps = c->m.hello.capabilities & (MSG_CAP_POSTCOPY | MSG_CAP_URGENT);
	c->m.type = MSG_HELLO_ACK;
	c->m.hello_ack = (struct msg_hello_ack){.version = MSG_VERSION, .capabilities = caps};
	if (c->io.channel == MSG_CHANNEL_CONTROL)
		memset(c->m.hello_ack.token, 7, MSG_TOKEN_LEN);
	return c->d->sin == SIN_DRIBBLE ? dribble(c) : frame_send(&c->io, &c->m, &c->err);
}

static int one_frame(struct channel *c)
{
	struct msg_header h;
	int r = frame_read_header(&c->io, &h, &c->err);

	if (!r)
		r = frame_read_body(&c->io, &h, c->body, &c->m, &c->err);
	if (r)
		return r;
	return c->io.channel == MSG_CHANNEL_BULK ? on_bulk(c) : on_control(c);
}

static void *channel_main(void *arg)
{
	struct channel *c = arg;
	int r = c->d->sin == SIN_SILENT ? stand(c) : 0;

	if (!r)
		r = tls_chan_handshake_wait(c->io.chan, c->d->stop_fd, 5000000, &c->err);
	if (!r)
		r = hello(c);
	if (!r && c->io.channel == MSG_CHANNEL_URGENT)
		r = urgent(c);
	while (!r)
		r = one_frame(c);
	tls_chan_free(c->io.chan);
	free(c);
	return NULL;
}

static void take(struct fake_dest *d, int fd)
{
	struct channel *c = calloc(1, sizeof(*c));

	c->d = d;
	c->io = (struct frame_io){.channel = MSG_CHANNEL_CONTROL,
				  .from_source = true,
				  .stop_fd = d->stop_fd,
				  .timeout_us = TLS_FOREVER};
	if (d->n == THREADS_MAX || tls_chan_accept(d->ctx, fd, &c->io.chan)) {
		close(fd);
		free(c);
		return;
	}
	if (!pthread_create(&d->channels[d->n], NULL, channel_main, c))
		d->n++;
}

static void *listen_main(void *arg)
{
	struct fake_dest *d = arg;
	struct pollfd p[] = {{.fd = d->listener, .events = POLLIN},
			     {.fd = d->stop_fd, .events = POLLIN}};

	while (poll(p, 2, -1) > 0 && !p[1].revents) {
		int fd = accept4(d->listener, NULL, NULL, SOCK_CLOEXEC);

		if (fd >= 0)
			take(d, fd);
	}
	return NULL;
}

struct fake_dest *fake_dest_start(struct lab *lab, enum fake_sin sin)
{
	struct fake_dest *d = calloc(1, sizeof(*d));
	char ca[512], cert[512], key[512], port[TLS_PAIR_PORT];
	struct tls_files files = {.ca = ca, .cert = cert, .key = key};
	struct error err = {0};

	d->lab = lab;
	d->sin = sin;
	snprintf(ca, sizeof(ca), "%s/host-b.ca", lab->certs);
	snprintf(cert, sizeof(cert), "%s/host-b.cert", lab->certs);
	snprintf(key, sizeof(key), "%s/host-b.key", lab->certs);
	lab_check(lab, !tls_ctx_new(&files, TLS_SERVER, &d->ctx, &err), "%s", err.msg);
	d->listener = tls_pair_listen("127.0.0.1", port);
	d->stop_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	snprintf(d->to, sizeof(d->to), "127.0.0.1:%s", port);
	lab_check(lab, !pthread_create(&d->thread, NULL, listen_main, d), "a thread");
	return d;
}

const char *fake_dest_to(const struct fake_dest *d)
{
	return d->to;
}

unsigned int fake_dest_sessions(const struct fake_dest *d)
{
	return atomic_load(&d->sessions);
}

void fake_dest_end(struct fake_dest *d)
{
	eventfd_write(d->stop_fd, 1);
	pthread_join(d->thread, NULL);
	for (unsigned int i = 0; i < d->n; i++)
		pthread_join(d->channels[i], NULL);
	close(d->listener);
	close(d->stop_fd);
	tls_ctx_unref(d->ctx);
	free(d);
}
