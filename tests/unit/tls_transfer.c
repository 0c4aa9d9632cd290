/* SPDX-License-Identifier: Apache-2.0 */
/* Bytes through a connection: all of them, in order, whatever the socket, the peer or the clock does. */
#include <criterion/criterion.h>
#include <criterion/hooks.h>
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>
#include "lib/pace.h"
#include "lib/tls_pair.h"
#include "lib/tls_pki.h"
#include "tls/tls_priv.h"
#include "util/clock.h"

ReportHook(PRE_ALL)(struct criterion_test_set *set)
{
	int bad = 0;

	(void)set;
	tls_pki_begin();
	bad |= tls_pki_certs("ca %s/ca >/dev/null", tls_pki_dir());
	bad |= tls_pki_certs("host %s/ca host-a DNS:localhost IP:192.0.2.1 >/dev/null",
			     tls_pki_dir());
	bad |= tls_pki_certs("host %s/ca late DNS:late --start-days -9 --days 5 >/dev/null",
			     tls_pki_dir());
	if (bad)
		abort();
}

ReportHook(POST_ALL)(struct criterion_global_stats *stats)
{
	(void)stats;
	tls_pki_end();
}

/* Byte @i of the stream with this seed. */
static uint8_t stream_byte(uint64_t seed, uint64_t i)
{
	uint64_t x = (i + seed) * 0x9e3779b97f4a7c15u;

	return (uint8_t)(x >> 56);
}

/**
 * struct flow - one direction of a transfer, run by a thread of its own end
 * @total:	bytes to send, and to receive
 * @sent, @got:	so far
 * @again:	bytes offered when the last write was refused, 0 if it was not
 * @refused:	how often that was
 * @rnd:	state of rand_r()
 */
struct flow {
	struct tls_chan *c;
	uint64_t seed_out;
	uint64_t seed_in;
	size_t total;
	size_t sent;
	size_t got;
	size_t again;
	int refused;
	unsigned int rnd;
	const char *wrong;
};

static ssize_t flow_send(struct flow *f)
{
	static const size_t most[] = {1, 100, 5000, 16384, 16385, 70000};
	size_t n = 1 + (size_t)rand_r(&f->rnd) % most[rand_r(&f->rnd) % 6];
	uint8_t *copy;
	ssize_t r;

	n = n < f->again ? f->again : n;
	if (n > f->total - f->sent)
		n = f->total - f->sent;
	if (!n)
		return -EAGAIN;
	copy = malloc(n); /* the same bytes, each time elsewhere */
	for (size_t i = 0; i < n; i++)
		copy[i] = stream_byte(f->seed_out, f->sent + i);
	r = tls_write(f->c, copy, n);
	memset(copy, 0x55, n);
	free(copy);
	f->again = r == -EAGAIN ? n : 0;
	f->refused += r == -EAGAIN;
	f->sent += r > 0 ? (size_t)r : 0;
	return r;
}

static ssize_t flow_receive(struct flow *f)
{
	uint8_t buf[20000];
	ssize_t r = tls_read(f->c, buf, 1 + (size_t)rand_r(&f->rnd) % sizeof(buf));

	for (ssize_t i = 0; i < r; i++)
		if (buf[i] != stream_byte(f->seed_in, f->got + (size_t)i))
			f->wrong = "a byte is wrong";
	f->got += r > 0 ? (size_t)r : 0;
	return r;
}

static void *flow_main(void *arg)
{
	struct flow *f = arg;

	while ((f->sent < f->total || f->got < f->total) && !f->wrong) {
		struct pollfd pfd = {.fd = tls_chan_fd(f->c), .events = POLLIN};
		ssize_t in = flow_receive(f), out = flow_send(f);

		if ((in <= 0 && in != -EAGAIN) || (out < 0 && out != -EAGAIN))
			f->wrong = tls_chan_error(f->c)->msg;
		if (in > 0 || out > 0 || tls_pending(f->c))
			continue;
		if (f->sent < f->total)
			pfd.events |= POLLOUT;
		if (poll(&pfd, 1, 20000) != 1)
			f->wrong = "nothing goes on";
	}
	return NULL;
}

Test(tls_transfer, both_ways_at_once, .timeout = 60)
{
	struct tls_pair p;
	struct flow a, b;
	pthread_t t;

	tls_pair_alike(&p);
	tls_pair_buffers(tls_chan_fd(p.client));
	tls_pair_buffers(tls_chan_fd(p.server));
	a = (struct flow){.c = p.client, .seed_out = 1, .seed_in = 99, .total = 6 << 20, .rnd = 5};
	b = (struct flow){.c = p.server, .seed_out = 99, .seed_in = 1, .total = 6 << 20, .rnd = 6};
	cr_assert_eq(pthread_create(&t, NULL, flow_main, &a), 0);
	flow_main(&b);
	pthread_join(t, NULL);
	cr_expect_null(a.wrong, "%s", a.wrong);
	cr_expect_null(b.wrong, "%s", b.wrong);
	cr_expect_eq(a.got, a.total);
	cr_expect_eq(b.got, b.total);
	cr_expect(a.refused && b.refused, "the buffers were never full: nothing was tried");
	tls_pair_free(&p);
}

/* Passes bytes on, one at a time. */
struct relay {
	int from;
	int to;
};

static void *relay_main(void *arg)
{
	struct relay *r = arg;
	char byte;

	while (recv(r->from, &byte, 1, 0) == 1 && send(r->to, &byte, 1, MSG_NOSIGNAL) == 1)
		;
	shutdown(r->to, SHUT_WR);
	return NULL;
}

Test(tls_transfer, dribbled, .timeout = 60)
{
	struct tls_ctx *cctx = tls_pki_context(TLS_CLIENT, "ca", "host-a");
	struct tls_ctx *sctx = tls_pki_context(TLS_SERVER, "ca", "host-a");
	struct tls_chan *client, *server;
	struct relay to, fro;
	char out[40000], in[40000];
	int near[2], far[2], rc, rs;
	pthread_t t[2];

	tls_pair_sockets(near);
	tls_pair_sockets(far);
	to = (struct relay){.from = near[1], .to = far[0]};
	fro = (struct relay){.from = far[0], .to = near[1]};
	pthread_create(&t[0], NULL, relay_main, &to);
	pthread_create(&t[1], NULL, relay_main, &fro);
	cr_assert_eq(tls_chan_connect(cctx, near[0], "localhost", &client), 0);
	cr_assert_eq(tls_chan_accept(sctx, far[1], &server), 0);
	do {
		rc = tls_chan_handshake(client, NULL);
		rs = tls_chan_handshake(server, NULL);
		poll(NULL, 0, 1);
	} while (rc == -EAGAIN || rs == -EAGAIN);
	cr_assert_eq(rc, 0);
	cr_assert_eq(rs, 0);
	for (size_t i = 0; i < sizeof(out); i++)
		out[i] = (char)stream_byte(3, i);
	cr_assert_eq(tls_write_full(client, out, sizeof(out), -1, TLS_FOREVER, NULL), 0);
	cr_assert_eq(tls_read_full(server, in, sizeof(in), -1, TLS_FOREVER, NULL), 0);
	cr_expect_arr_eq(in, out, sizeof(out));
	tls_chan_free(client);
	cr_expect_eq(tls_read_full(server, in, 1, -1, TLS_FOREVER, NULL), -ENODATA);
	tls_chan_free(server);
	pthread_join(t[0], NULL);
	pthread_join(t[1], NULL);
	close(near[1]);
	close(far[0]);
	tls_ctx_unref(cctx);
	tls_ctx_unref(sctx);
}

Test(tls_transfer, pending)
{
	struct tls_pair p;
	struct pollfd pfd;
	char buf[10000] = {0};

	tls_pair_alike(&p);
	pfd = (struct pollfd){.fd = tls_chan_fd(p.client), .events = POLLIN};
	cr_expect_not(tls_pending(p.client));
	cr_assert_eq(tls_write_full(p.server, buf, sizeof(buf), -1, 0, NULL), 0);
	cr_assert_eq(tls_write_full(p.server, buf, 5, -1, 0, NULL), 0);
	cr_assert_eq(poll(&pfd, 1, 1000), 1);
	cr_assert_eq(tls_read(p.client, buf, 10), 10);
	cr_expect(tls_pending(p.client), "decrypted bytes are left");
	cr_assert_eq(tls_read_full(p.client, buf, 9990, -1, 0, NULL), 0);
	/* The second record may lie in the socket or in OpenSSL: one of them must tell. */
	cr_expect(tls_pending(p.client) || poll(&pfd, 1, 1000) == 1);
	cr_assert_eq(tls_read(p.client, buf, 10), 5);
	cr_expect_eq(tls_read(p.client, buf, 10), -EAGAIN);
	cr_expect_eq(tls_chan_events(p.client), POLLIN);
	cr_expect_not(tls_pending(p.client), "nothing is left: a loop on it would spin");
	tls_pair_free(&p);
}

/* Bytes that are no whole record yet are nothing to wake up for. */
Test(tls_transfer, half_a_record_is_not_pending)
{
	struct tls_pair p;
	struct pollfd pfd;
	char buf[10];

	tls_pair_alike(&p);
	pfd = (struct pollfd){.fd = tls_chan_fd(p.client), .events = POLLIN};
	cr_assert_eq(send(tls_chan_fd(p.server), "\x17\x03\x03\x01\x00half", 9, 0), 9);
	cr_assert_eq(poll(&pfd, 1, 1000), 1);
	cr_expect_eq(tls_read(p.client, buf, 10), -EAGAIN);
	cr_expect_eq(poll(&pfd, 1, 0), 0);
	cr_expect_not(tls_pending(p.client));
	tls_pair_free(&p);
}

/* New connections use the new certificate, the old one goes on, and both are the same host. */
Test(tls_transfer, renewed_certificate)
{
	struct tls_ctx *cctx = tls_pki_context(TLS_CLIENT, "ca", "host-a"), *sctx;
	struct tls_pair old, new;
	char buf[6];

	tls_pair_alike(&old);
	cr_assert_eq(tls_pki_certs("host %s/ca host-a --renew >/dev/null", tls_pki_dir()), 0);
	sctx = tls_pki_context(TLS_SERVER, "ca", "host-a");
	tls_pair_make(&new, cctx, sctx);
	cr_expect(X509_cmp(SSL_get0_peer_certificate(old.client->ssl),
			   SSL_get0_peer_certificate(new.client->ssl)) != 0,
		  "the certificate was not renewed");
	cr_expect_str_eq(tls_chan_identity(old.client), "DNS:localhost, IP:192.0.2.1");
	cr_expect_str_eq(tls_chan_identity(new.client), tls_chan_identity(old.client));
	cr_assert_eq(tls_write_full(old.client, "hello", 6, -1, 0, NULL), 0);
	cr_assert_eq(tls_read_full(old.server, buf, 6, -1, 1000000, NULL), 0);
	cr_expect_str_eq(buf, "hello");
	tls_pair_free(&old);
	tls_pair_free(&new);
	tls_ctx_unref(cctx);
	tls_ctx_unref(sctx);
}

Test(tls_transfer, read_waits_no_longer_than_allowed)
{
	struct error err = {0};
	struct pace *pace = pace_start();
	struct tls_pair p;
	uint64_t t0;
	char buf[8];

	tls_pair_alike(&p);
	tls_write_full(p.server, "half", 4, -1, 0, NULL);
	t0 = clock_us();
	cr_expect_eq(tls_read_full(p.client, buf, 8, -1, 50000, &err), -ETIMEDOUT);
	cr_expect_geq(clock_us() - t0, 50000);
	cr_expect(pace_brisk(pace, clock_us() - t0, 2000000));
	pace_end(pace);
	cr_expect_str_eq(err.code, "tls-timeout");
	cr_expect(strstr(err.msg, tls_chan_peer(p.client)), "%s", err.msg);
	cr_expect_eq(tls_read_full(p.client, buf, 8, -1, 0, NULL), -ETIMEDOUT, "at once");
	tls_pair_free(&p);
}

Test(tls_transfer, write_waits_no_longer_than_allowed)
{
	struct error err = {0};
	size_t n = 64 << 20;
	char *buf = calloc(1, n);
	struct tls_pair p;

	tls_pair_alike(&p);
	cr_expect_eq(tls_write_full(p.client, buf, n, -1, 50000, &err), -ETIMEDOUT);
	cr_expect_eq(tls_chan_events(p.client), POLLOUT);
	cr_expect_str_eq(err.code, "tls-timeout");
	tls_pair_free(&p);
	free(buf);
}

static void *signal_later(void *arg)
{
	poll(NULL, 0, 50);
	eventfd_write(*(int *)arg, 1);
	return NULL;
}

Test(tls_transfer, stopped_while_waiting, .timeout = 30)
{
	int stop = eventfd(0, 0);
	struct error err = {0};
	struct tls_pair p;
	pthread_t t;
	char buf[8];

	tls_pair_alike(&p);
	pthread_create(&t, NULL, signal_later, &stop);
	cr_expect_eq(tls_read_full(p.client, buf, 8, stop, TLS_FOREVER, &err), -ECANCELED);
	cr_expect_str_eq(err.code, "cancelled");
	pthread_join(t, NULL);
	cr_expect_eq(poll(&(struct pollfd){.fd = stop, .events = POLLIN}, 1, 0), 1,
		     "it is not read, so that other threads see it too");
	tls_pair_free(&p);
	close(stop);
}

static void *write_forever(void *arg)
{
	static const char data[100000];

	while (!tls_write_full(arg, data, sizeof(data), -1, TLS_FOREVER, NULL))
		;
	return NULL;
}

Test(tls_transfer, stopped_while_data_flows, .timeout = 30)
{
	int stop = eventfd(1, 0), r = 0;
	struct tls_pair p;
	size_t got = 0;
	char buf[16];
	pthread_t t;

	tls_pair_alike(&p);
	pthread_create(&t, NULL, write_forever, p.server);
	for (; !r && got < 16 << 20; got += sizeof(buf)) {
		/* Never a read that has to wait, which would see the stop anyway. */
		if (!tls_pending(p.client))
			poll(&(struct pollfd){.fd = tls_chan_fd(p.client), .events = POLLIN}, 1,
			     1000);
		r = tls_read_full(p.client, buf, sizeof(buf), stop, TLS_FOREVER, NULL);
	}
	cr_expect_eq(r, -ECANCELED, "not seen within %zu bytes", got);
	tls_chan_free(p.client);
	pthread_join(t, NULL);
	tls_chan_free(p.server);
	close(stop);
}

/*
 * More than the peer's socket takes is still on its way when we close, and something of the peer lies
 * unread: TCP would answer that with a reset, which throws away what it has not sent.
 */
Test(tls_transfer, last_words_arrive, .timeout = 30)
{
	static char out[400000], in[sizeof(out)];
	struct error err = {0};
	struct tls_pair p;
	int large = 1 << 20;

	tls_pair_alike(&p);
	tls_pair_buffers(tls_chan_fd(p.client));
	setsockopt(tls_chan_fd(p.server), SOL_SOCKET, SO_SNDBUF, &large, sizeof(large));
	cr_assert_eq(tls_write_full(p.client, "unread", 6, -1, 0, NULL), 0);
	memset(out, 'x', sizeof(out));
	cr_assert_eq(tls_write_full(p.server, out, sizeof(out), -1, 0, &err), 0, "%s", err.msg);
	tls_chan_free(p.server);
	cr_expect_eq(tls_read_full(p.client, in, sizeof(in), -1, 9000000, &err), 0, "%s", err.msg);
	cr_expect_arr_eq(in, out, sizeof(in));
	cr_expect_eq(tls_read_full(p.client, in, 1, -1, 1000000, NULL), -ENODATA);
	tls_chan_free(p.client);
}

Test(tls_transfer, proper_end)
{
	struct error err = {0};
	struct tls_pair p;
	char buf[8];

	tls_pair_alike(&p);
	cr_assert_eq(tls_write_full(p.server, "last", 5, -1, 0, NULL), 0);
	cr_assert_eq(tls_write_full(p.client, "unread", 6, -1, 0, NULL), 0);
	tls_chan_free(p.server);
	cr_expect_eq(tls_read_full(p.client, buf, 5, -1, 1000000, &err), 0, "%s", err.msg);
	cr_expect_str_eq(buf, "last");
	cr_expect_eq(tls_read(p.client, buf, 8), 0);
	cr_expect_eq(tls_read(p.client, buf, 8), 0, "and so it stays");
	cr_expect_eq(tls_read_full(p.client, buf, 8, -1, 0, &err), -ENODATA);
	cr_expect_str_eq(err.code, "tls-closed");
	tls_chan_free(p.client);
}

Test(tls_transfer, end_in_the_middle)
{
	struct error err = {0};
	struct tls_pair p;
	char buf[8];

	tls_pair_alike(&p);
	cr_assert_eq(tls_write_full(p.server, "half", 4, -1, 0, NULL), 0);
	tls_chan_free(p.server);
	cr_expect_eq(tls_read_full(p.client, buf, 8, -1, 1000000, &err), -ECONNRESET);
	cr_expect_str_eq(err.code, "tls-closed");
	cr_expect(strstr(err.msg, "in the middle of a message"), "%s", err.msg);
	tls_chan_free(p.client);
}

/* Whoever cuts the connection must not be able to pass it off as its end. */
Test(tls_transfer, cut)
{
	struct error err = {0};
	struct tls_pair p;
	char buf[8];

	tls_pair_alike(&p);
	shutdown(tls_chan_fd(p.server), SHUT_WR);
	cr_expect_eq(tls_read_full(p.client, buf, 8, -1, 1000000, &err), -ECONNRESET);
	cr_expect_str_eq(err.code, "tls-closed");
	cr_expect(strstr(err.msg, "without the end of TLS"), "%s", err.msg);
	cr_expect_eq(tls_write(p.client, buf, 8), -ECONNRESET, "dead is dead");
	tls_pair_free(&p);
}

Test(tls_transfer, forged)
{
	static const unsigned char record[] = {23, 3, 3, 0, 32, 1, 2, 3, 4, 5, 6, 7, 8,
					       9,  0, 1, 2, 3,  4, 5, 6, 7, 8, 9, 0, 1,
					       2,  3, 4, 5, 6,  7, 8, 9, 0, 1, 2};
	struct error err = {0};
	struct tls_pair p;
	char buf[8];

	tls_pair_alike(&p);
	cr_assert_eq(send(tls_chan_fd(p.server), record, sizeof(record), 0), sizeof(record));
	cr_expect_eq(tls_read_full(p.client, buf, 8, -1, 1000000, &err), -EPROTO);
	cr_expect_str_eq(err.code, "tls-handshake");
	cr_expect(strstr(err.msg, "bad record mac"), "%s", err.msg);
	error_clear(&err);
	cr_expect_eq(tls_read_full(p.server, buf, 8, -1, 1000000, &err), -EPROTO);
	cr_expect(strstr(err.msg, "bad record mac"), "%s", err.msg);
	tls_pair_free(&p);
}

/* The default action of SIGPIPE would end the program here. */
Test(tls_transfer, write_to_nobody)
{
	struct tls_pair p;
	int r = 0;

	tls_pair_alike(&p);
	tls_chan_free(p.server);
	for (int i = 0; i < 1000 && !r; i++)
		r = tls_write_full(p.client, "x", 1, -1, 1000000, NULL);
	cr_expect(r == -EPIPE || r == -ECONNRESET, "%d", r);
	tls_chan_free(p.client);
}

/* A client that only writes must also hear why the server refused its certificate. */
Test(tls_transfer, write_hears_the_refusal)
{
	struct tls_ctx *cctx = tls_pki_context(TLS_CLIENT, "ca", "late");
	struct tls_ctx *sctx = tls_pki_context(TLS_SERVER, "ca", "host-a");
	struct error err = {0};
	struct tls_pair p;
	int r = 0;

	tls_pair_handshake(&p, cctx, sctx, "localhost");
	cr_assert_eq(p.client_ret, 0);
	cr_assert_eq(p.server_ret, -EACCES);
	tls_chan_free(p.server);
	for (int i = 0; i < 1000 && !r; i++)
		r = tls_write_full(p.client, "x", 1, -1, 1000000, &err);
	cr_expect_eq(r, -EACCES, "%d", r);
	cr_expect_str_eq(err.code, "tls-expired", "[%s] %s", err.code, err.msg);
	cr_expect(strstr(err.msg, "the peer refused our certificate"), "%s", err.msg);
	tls_chan_free(p.client);
	tls_ctx_unref(cctx);
	tls_ctx_unref(sctx);
}
