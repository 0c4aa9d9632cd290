/* SPDX-License-Identifier: Apache-2.0 */
/* Opening a channel, against destinations that agree, refuse, answer nonsense or nothing. */
#include <sys/eventfd.h>
#include <sys/socket.h>
#include "dial.h"
#include "lib/pace.h"
#include "proto_fixture.h"
#include "util/loop.h"

static unsigned int threads(void)
{
	char line[128];
	CLEANUP_FCLOSE FILE *f = fopen("/proc/self/status", "r");
	unsigned int n = 0;

	while (fgets(line, sizeof(line), f))
		sscanf(line, "Threads: %u", &n);
	return n;
}

static void wait_for_threads(unsigned int n)
{
	for (int i = 0; i < 1500 && threads() > n; i++)
		usleep(10000);
	cr_assert_leq(threads(), n);
}

/**
 * struct dest - a destination that takes one connection and answers HELLO once
 * @answer:	what it sends; type 0: nothing
 * @raw, @raw_len: bytes behind it
 * @hello:	what it heard
 * @threads:	of the process, without those of the test
 */
struct dest {
	unsigned int threads;
	int listener;
	char port[TLS_PAIR_PORT];
	struct msg *answer;
	uint8_t raw[64];
	size_t raw_len;
	struct msg *hello;
	enum msg_channel kind;
	pthread_t thread;
	struct tls_chan *chan;
};

static void *dest_main(void *arg)
{
	struct dest *d = arg;
	struct tls_ctx *ctx = fixture_ctx(TLS_SERVER);
	struct frame_io io = {
		.channel = d->kind, .from_source = true, .stop_fd = -1, .timeout_us = 5000000};
	uint8_t buf[FRAME_SMALL_MAX];
	struct msg_header h;
	int fd = accept(d->listener, NULL, NULL);

	if (fd >= 0 && tls_chan_accept(ctx, fd, &d->chan) == 0 &&
	    tls_chan_handshake_wait(d->chan, -1, 5000000, NULL) == 0) {
		io.chan = d->chan;
		if (frame_read_header(&io, &h, NULL) == 0)
			frame_read_body(&io, &h, buf, d->hello, NULL);
		if (d->answer->type) {
			ssize_t n = msg_encode(d->answer, buf, sizeof(buf));

			memcpy(buf + n, d->raw, d->raw_len);
			fixture_put(d->chan, buf, (size_t)n + d->raw_len);
		} else if (d->raw_len) {
			fixture_put(d->chan, d->raw, d->raw_len);
		}
	}
	tls_ctx_unref(ctx);
	return NULL;
}

static void dest_start(struct dest *d, enum msg_channel kind)
{
	*d = (struct dest){.kind = kind, .threads = threads()};
	d->listener = tls_pair_listen("127.0.0.1", d->port);
	d->hello = fixture_msg(0);
	d->answer = fixture_msg(MSG_HELLO_ACK);
	d->answer->hello_ack.version = MSG_VERSION;
	if (kind == MSG_CHANNEL_CONTROL)
		memset(d->answer->hello_ack.token, 0x77, MSG_TOKEN_LEN);
}

static void dest_run(struct dest *d)
{
	cr_assert_eq(pthread_create(&d->thread, NULL, dest_main, d), 0);
}

static void dest_end(struct dest *d)
{
	shutdown(d->listener, SHUT_RDWR);
	pthread_join(d->thread, NULL);
	close(d->listener);
	tls_chan_free(d->chan);
	free(d->hello);
	free(d->answer);
}

/**
 * struct result - what a dial came to
 */
struct result {
	struct loop *loop;
	unsigned int calls;
	struct tls_chan *chan;
	struct msg_hello_ack ack;
	struct error err;
};

static void on_dialled(void *arg, struct tls_chan *chan, const struct msg_hello_ack *ack,
		       const struct error *err)
{
	struct result *r = arg;

	cr_assert_eq(!chan, !ack);
	cr_assert_eq(!chan, error_is_set(err));
	r->calls++;
	r->chan = chan;
	if (ack)
		r->ack = *ack;
	r->err = *err;
	loop_stop(r->loop);
}

static struct dial *start(struct result *r, const struct dest *d, uint64_t timeout_us)
{
	struct tls_ctx *ctx = fixture_ctx(TLS_CLIENT);
	char port[TLS_PAIR_PORT];
	struct dial_to to = {ctx, "localhost", port, timeout_us};
	struct msg *m = fixture_hello(d->kind);
	struct dial *dial;

	memcpy(port, d->port, sizeof(port));
	*r = (struct result){.loop = loop_new()};
	dial = dial_start(r->loop, &to, &m->hello, on_dialled, r);
	cr_assert(dial);
	/* All was copied. */
	memset(port, 0, sizeof(port));
	free(m);
	tls_ctx_unref(ctx);
	return dial;
}

static void end(struct result *r, const struct dest *d)
{
	wait_for_threads(d->threads);
	tls_chan_free(r->chan);
	loop_free(r->loop);
}

Test(proto_dial, agreed)
{
	struct result r;
	struct dest d;
	uint8_t byte;

	dest_start(&d, MSG_CHANNEL_CONTROL);
	d.answer->hello_ack.capabilities = MSG_CAP_URGENT;
	d.raw[0] = 42;
	d.raw_len = 1;
	dest_run(&d);
	start(&r, &d, 5000000);
	cr_assert_eq(loop_run(r.loop), 0);
	cr_assert_eq(r.calls, 1);
	cr_assert(r.chan, "%s", r.err.msg);
	cr_assert_eq(r.ack.capabilities, MSG_CAP_URGENT);
	cr_assert_eq(r.ack.token[31], 0x77);
	cr_assert_str_eq(tls_chan_identity(r.chan), "DNS:localhost, IP:127.0.0.1");
	/* What came behind the answer is still there. */
	cr_assert_eq(tls_read_full(r.chan, &byte, 1, -1, 1000000, NULL), 0);
	cr_assert_eq(byte, 42);
	dest_end(&d);
	cr_assert_eq(d.kind, MSG_CHANNEL_CONTROL);
	end(&r, &d);
}

static void fails(struct dest *d, enum msg_channel kind, int want, const char *code,
		  const char *says)
{
	struct tls_ctx *ctx = fixture_ctx(TLS_CLIENT);
	struct dial_to to = {ctx, "localhost", d->port, 1000000};
	struct msg *m = fixture_hello(kind);
	struct msg_hello_ack ack;
	struct error err = {0};
	struct tls_chan *chan;

	dest_run(d);
	cr_expect_eq(dial_blocking(&to, &m->hello, -1, &chan, &ack, &err), want, "%s: %s", err.code,
		     err.msg);
	cr_expect_str_eq(err.code, code, "%s: %s", err.code, err.msg);
	cr_expect(strstr(err.msg, says), "%s lacks %s", err.msg, says);
	cr_expect(strstr(err.msg, "localhost") || strstr(err.msg, "127.0.0.1"), "%s", err.msg);
	free(m);
	tls_ctx_unref(ctx);
	dest_end(d);
}

Test(proto_dial, refused)
{
	struct error why = {"no-room", "3 guests are here already"};
	struct dest d;

	dest_start(&d, MSG_CHANNEL_BULK);
	msg_error_fill(d.answer, MSG_ERROR, &why);
	fails(&d, MSG_CHANNEL_BULK, -EREMOTEIO, "no-room", "3 guests are here already");
}

Test(proto_dial, nonsense)
{
	struct dest d;

	dest_start(&d, MSG_CHANNEL_CONTROL);
	d.answer->hello_ack.version = MSG_VERSION + 1;
	fails(&d, MSG_CHANNEL_CONTROL, -EBADMSG, "version", "it chose version");
	dest_start(&d, MSG_CHANNEL_CONTROL);
	d.answer->hello_ack.capabilities = 1 << 7;
	fails(&d, MSG_CHANNEL_CONTROL, -EBADMSG, "bad-message", "0x80");
	dest_start(&d, MSG_CHANNEL_CONTROL);
	memset(d.answer->hello_ack.token, 0, MSG_TOKEN_LEN);
	fails(&d, MSG_CHANNEL_CONTROL, -EBADMSG, "bad-message", "lacks a token");
	dest_start(&d, MSG_CHANNEL_URGENT);
	d.answer->hello_ack.token[3] = 1;
	fails(&d, MSG_CHANNEL_URGENT, -EBADMSG, "bad-message", "has a token");
	dest_start(&d, MSG_CHANNEL_CONTROL);
	d.answer->type = MSG_READY;
	fails(&d, MSG_CHANNEL_CONTROL, -EBADMSG, "unexpected-message", "READY");
	dest_start(&d, MSG_CHANNEL_CONTROL);
	d.answer->type = 0;
	memset(d.raw, 0xff, d.raw_len = 8);
	fails(&d, MSG_CHANNEL_CONTROL, -EBADMSG, "unknown-message", "65535");
}

/* It accepts, and then says nothing; the time is that of the whole. */
Test(proto_dial, silent)
{
	struct pace *pace = pace_start();
	uint64_t begin = clock_us();
	struct dest d;

	dest_start(&d, MSG_CHANNEL_QUERY);
	d.answer->type = 0;
	fails(&d, MSG_CHANNEL_QUERY, -ETIMEDOUT, "tls-timeout", "query");
	cr_assert_geq(clock_us() - begin, 1000000);
	cr_assert(pace_brisk(pace, clock_us() - begin, 4000000));
	pace_end(pace);
}

Test(proto_dial, unreachable)
{
	struct result r;
	struct dest d;

	dest_start(&d, MSG_CHANNEL_CONTROL);
	close(d.listener);
	start(&r, &d, 5000000);
	cr_assert_eq(loop_run(r.loop), 0);
	cr_assert_eq(r.calls, 1);
	cr_assert_str_eq(r.err.code, "tls-unreachable");
	end(&r, &d);
	free(d.hello);
	free(d.answer);
}

static void on_stop(void *arg)
{
	loop_stop(arg);
}

/* Cancelled while it waits for the answer: no call, and the loop may go at once. */
Test(proto_dial, cancelled)
{
	unsigned int before = threads();
	struct event *stop;
	struct result r;
	struct dial *dial;
	struct dest d;

	dest_start(&d, MSG_CHANNEL_CONTROL);
	d.answer->type = 0;
	dest_run(&d);
	dial = start(&r, &d, TLS_FOREVER);
	stop = loop_timer(r.loop, 100000, on_stop, r.loop);
	cr_assert_eq(loop_run(r.loop), 0);
	event_free(stop);
	wait_for_threads(before + 1); /* the destination has heard HELLO, and stays silent */
	cr_assert_eq(threads(), before + 1, "the dialler still waits");
	dial_cancel(dial);
	loop_free(r.loop);
	dest_end(&d);
	wait_for_threads(before);
	cr_assert_eq(r.calls, 0);
}

/* Cancelled after it was done, but before the loop knew. */
Test(proto_dial, cancelled_too_late)
{
	unsigned int before = threads();
	struct event *stop;
	struct result r;
	struct dial *dial;
	struct dest d;

	dest_start(&d, MSG_CHANNEL_CONTROL);
	dest_run(&d);
	dial = start(&r, &d, 5000000);
	wait_for_threads(before);
	dial_cancel(dial);
	stop = loop_timer(r.loop, 50000, on_stop, r.loop);
	cr_assert_eq(loop_run(r.loop), 0);
	event_free(stop);
	cr_assert_eq(r.calls, 0);
	dial_cancel(NULL);
	dest_end(&d);
	loop_free(r.loop);
}

Test(proto_dial, stopped)
{
	struct tls_ctx *ctx = fixture_ctx(TLS_CLIENT);
	struct msg *m = fixture_hello(MSG_CHANNEL_BULK);
	struct msg_hello_ack ack;
	struct error err = {0};
	struct tls_chan *chan;
	struct dest d;
	uint64_t one = 1;
	int stop = eventfd(0, 0);

	dest_start(&d, MSG_CHANNEL_BULK);
	d.answer->type = 0;
	dest_run(&d);
	struct dial_to to = {ctx, "127.0.0.1", d.port, TLS_FOREVER};
	cr_assert_eq(write(stop, &one, sizeof(one)), sizeof(one));
	cr_assert_eq(dial_blocking(&to, &m->hello, stop, &chan, &ack, &err), -ECANCELED);
	cr_assert_str_eq(err.code, "cancelled");
	close(stop);
	free(m);
	tls_ctx_unref(ctx);
	dest_end(&d);
}
