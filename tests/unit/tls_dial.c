/* SPDX-License-Identifier: Apache-2.0 */
/* From a name to a connection: addresses, deadlines, stopping. */
#include <criterion/criterion.h>
#include <criterion/hooks.h>
#include <dirent.h>
#include <errno.h>
#include <netdb.h>
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
#include "util/clock.h"

ReportHook(PRE_ALL)(struct criterion_test_set *set)
{
	int bad = 0;

	(void)set;
	tls_pki_begin();
	bad |= tls_pki_certs("ca %s/ca >/dev/null", tls_pki_dir());
	bad |= tls_pki_certs("host %s/ca host-a DNS:localhost IP:127.0.0.1 IP:::1 >/dev/null",
			     tls_pki_dir());
	if (bad)
		abort();
}

ReportHook(POST_ALL)(struct criterion_global_stats *stats)
{
	(void)stats;
	tls_pki_end();
}

static int open_descriptors(void)
{
	DIR *d = opendir("/proc/self/fd");
	int n = 0;

	while (readdir(d))
		n++;
	closedir(d);
	return n;
}

/**
 * struct host - a server of one connection on a thread
 * @silent:	accepts, hears the beginning of the handshake and says nothing
 * @heard:	eventfd to write to when it has heard, 0 for none
 * @ret:	how its handshake went
 * @peer:	whom it saw
 */
struct host {
	int listener;
	char port[TLS_PAIR_PORT];
	bool silent;
	int heard;
	pthread_t thread;
	int ret;
	char peer[80];
	char cipher[64];
};

static void *host_main(void *arg)
{
	struct tls_ctx *ctx = tls_pki_context(TLS_SERVER, "ca", "host-a");
	struct host *h = arg;
	struct tls_chan *c;
	char byte;
	int fd = accept(h->listener, NULL, NULL);

	if (fd < 0) {
		h->ret = -errno;
	} else if (h->silent) {
		h->ret = recv(fd, &byte, 1, MSG_PEEK) == 1 ? 0 : -EIO;
		if (h->heard)
			eventfd_write(h->heard, 1);
		poll(&(struct pollfd){.fd = fd, .events = POLLRDHUP}, 1, 20000);
		close(fd);
	} else if (!(h->ret = tls_chan_accept(ctx, fd, &c))) {
		h->ret = tls_chan_handshake_wait(c, -1, 5000000, NULL);
		snprintf(h->peer, sizeof(h->peer), "%s", tls_chan_peer(c));
		snprintf(h->cipher, sizeof(h->cipher), "%s", tls_chan_cipher(c));
		if (!h->ret)
			tls_write_full(c, "!", 1, -1, 1000000, NULL);
		tls_chan_free(c);
	}
	tls_ctx_unref(ctx);
	return NULL;
}

static void host_start(struct host *h, const char *address)
{
	h->listener = tls_pair_listen(address, h->port);
	cr_assert_eq(pthread_create(&h->thread, NULL, host_main, h), 0);
}

static void host_end(struct host *h)
{
	pthread_join(h->thread, NULL);
	close(h->listener);
}

static void reaches(const char *address, const char *dialled, const char *peer)
{
	struct tls_ctx *ctx = tls_pki_context(TLS_CLIENT, "ca", "host-a");
	int before = open_descriptors();
	struct error err = {0};
	struct host h = {0};
	struct tls_chan *c;
	char byte = 0;

	host_start(&h, address);
	cr_assert_eq(tls_dial(ctx, dialled, h.port, 5000000, -1, &c, &err), 0, "%s", err.msg);
	cr_expect_eq(tls_read_full(c, &byte, 1, -1, 5000000, &err), 0, "%s", err.msg);
	cr_expect_eq(byte, '!');
	cr_expect_eq(strncmp(tls_chan_peer(c), peer, strlen(peer)), 0, "%s", tls_chan_peer(c));
	cr_expect_str_eq(tls_chan_identity(c), "DNS:localhost, IP:127.0.0.1, IP:::1");
	tls_chan_free(c);
	host_end(&h);
	cr_expect_eq(h.ret, 0);
	cr_expect_eq(strncmp(h.peer, peer, strlen(peer)), 0, "%s", h.peer);
	cr_expect_eq(open_descriptors(), before);
	tls_ctx_unref(ctx);
}

Test(tls_dial, address)
{
	reaches("127.0.0.1", "127.0.0.1", "127.0.0.1:");
}

Test(tls_dial, name)
{
	reaches("127.0.0.1", "localhost", "127.0.0.1:");
}

static bool have_ipv6(void)
{
	FILE *f = fopen("/proc/net/if_inet6", "re");
	char line[128];
	bool yes = f && fgets(line, sizeof(line), f);

	if (f)
		fclose(f);
	return yes;
}

Test(tls_dial, address_of_ipv6)
{
	if (!have_ipv6())
		cr_skip_test("no IPv6 here");
	reaches("::1", "::1", "[::1]:");
}

Test(tls_dial, address_of_ipv6_in_brackets)
{
	if (!have_ipv6())
		cr_skip_test("no IPv6 here");
	reaches("::1", "[::1]", "[::1]:");
}

/* A server for both families sees mapped addresses, which nobody wants to read. */
Test(tls_dial, mapped_address)
{
	if (!have_ipv6())
		cr_skip_test("no IPv6 here");
	reaches("::", "127.0.0.1", "127.0.0.1:");
}

static int fails(const char *host, const char *port, uint64_t timeout_us, int stop,
		 const char *code, const char *says)
{
	struct tls_ctx *ctx = tls_pki_context(TLS_CLIENT, "ca", "host-a");
	struct tls_chan *c = (void *)-1;
	int before = open_descriptors(), r;
	struct error err = {0};

	r = tls_dial(ctx, host, port, timeout_us, stop, &c, &err);
	cr_expect_lt(r, 0);
	cr_expect_eq(c, (void *)-1, "the output is untouched");
	cr_expect_str_eq(err.code, code, "[%s] %s", err.code, err.msg);
	cr_expect(strstr(err.msg, says) && strstr(err.msg, host), "%s", err.msg);
	/* The thread that resolved the name may take a moment to end. */
	for (int i = 0; open_descriptors() > before && i < 200; i++)
		poll(NULL, 0, 10);
	cr_expect_leq(open_descriptors(), before);
	tls_ctx_unref(ctx);
	return r;
}

Test(tls_dial, nobody_listens, .timeout = 30)
{
	char port[TLS_PAIR_PORT];

	close(tls_pair_listen("127.0.0.1", port));
	cr_expect_eq(fails("127.0.0.1", port, 5000000, -1, "tls-unreachable",
			   "127.0.0.1: Connection refused"),
		     -ECONNREFUSED);
	cr_expect_eq(fails("localhost", port, 5000000, -1, "tls-unreachable",
			   "127.0.0.1: Connection refused"),
		     -ECONNREFUSED);
}

Test(tls_dial, bad_port)
{
	fails("127.0.0.1", "http", 5000000, -1, "tls-unreachable", "port http");
	fails("127.0.0.1", "", 5000000, -1, "tls-unreachable", "port");
}

/* Whatever the resolver of this machine makes of it, the deadline holds. */
Test(tls_dial, unknown_name, .timeout = 60)
{
	struct tls_ctx *ctx = tls_pki_context(TLS_CLIENT, "ca", "host-a");
	struct pace *pace = pace_start();
	uint64_t t0 = clock_us();
	struct error err = {0};
	struct tls_chan *c;
	int r = tls_dial(ctx, "no-such-host.invalid", "7400", 2000000, -1, &c, &err);

	cr_expect(r == -ENOENT || r == -EHOSTUNREACH || r == -ETIMEDOUT, "%d", r);
	cr_expect(pace_brisk(pace, clock_us() - t0, 4000000));
	pace_end(pace);
	cr_expect(strstr(err.msg, "no-such-host.invalid"), "%s", err.msg);
	tls_ctx_unref(ctx);
}

Test(tls_dial, silent_server_times_out, .timeout = 30)
{
	struct host h = {.silent = true};
	struct pace *pace = pace_start();
	uint64_t t0 = clock_us();

	host_start(&h, "127.0.0.1");
	cr_expect_eq(fails("127.0.0.1", h.port, 100000, -1, "tls-timeout", "TLS handshake"),
		     -ETIMEDOUT);
	cr_expect_geq(clock_us() - t0, 100000);
	cr_expect(pace_brisk(pace, clock_us() - t0, 5000000));
	pace_end(pace);
	host_end(&h);
}

Test(tls_dial, stopped_in_the_handshake, .timeout = 30)
{
	int stop = eventfd(0, 0);
	struct host h = {.silent = true, .heard = stop};

	host_start(&h, "127.0.0.1");
	cr_expect_eq(fails("127.0.0.1", h.port, TLS_FOREVER, stop, "cancelled", "TLS handshake"),
		     -ECANCELED);
	host_end(&h);
	close(stop);
}

static void *signal_later(void *arg)
{
	poll(NULL, 0, 50);
	eventfd_write(*(int *)arg, 1);
	return NULL;
}

/* A listener whose queue is full lets further connections hang, as an address behind a firewall. */
static int deaf_listener(char port[static TLS_PAIR_PORT], int fill[static 4])
{
	struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *ai;
	int fd = tls_pair_listen("127.0.0.1", port);

	cr_assert_eq(listen(fd, 0), 0);
	cr_assert_eq(getaddrinfo("127.0.0.1", port, &hints, &ai), 0);
	for (int i = 0; i < 4; i++) {
		fill[i] = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
		(void)!connect(fill[i], ai->ai_addr, ai->ai_addrlen);
	}
	freeaddrinfo(ai);
	poll(NULL, 0, 20);
	return fd;
}

Test(tls_dial, connecting_ends_in_time_or_when_stopped, .timeout = 30)
{
	char port[TLS_PAIR_PORT];
	int fill[4], stop = eventfd(0, 0);
	int fd = deaf_listener(port, fill);
	struct pace *pace = pace_start();
	uint64_t t0 = clock_us();
	pthread_t t;

	cr_expect_eq(fails("127.0.0.1", port, 100000, -1, "tls-timeout", "cannot connect"),
		     -ETIMEDOUT);
	cr_expect_geq(clock_us() - t0, 100000);
	cr_expect(pace_brisk(pace, clock_us() - t0, 5000000));
	pace_end(pace);
	pthread_create(&t, NULL, signal_later, &stop);
	cr_expect_eq(fails("127.0.0.1", port, TLS_FOREVER, stop, "cancelled", "connecting"),
		     -ECANCELED);
	pthread_join(t, NULL);
	for (int i = 0; i < 4; i++)
		close(fill[i]);
	close(fd);
	close(stop);
}

Test(tls_dial, stop_that_is_already_there)
{
	struct host h = {.silent = true};
	int stop = eventfd(1, 0);

	host_start(&h, "127.0.0.1");
	fails("localhost", h.port, TLS_FOREVER, stop, "cancelled", "localhost");
	shutdown(h.listener, SHUT_RDWR);
	host_end(&h);
	close(stop);
}
