/* SPDX-License-Identifier: Apache-2.0 */
#include "bench/bare.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/ssl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define WANT(cond)                                            \
	do {                                                  \
		if (!(cond))                                  \
			bench_die("bare TLS: %s: %m", #cond); \
	} while (0)

/* --- connections --- */

static int listen_loopback(struct sockaddr_in *ret)
{
	struct sockaddr_in sin = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
	socklen_t len = sizeof(sin);
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	WANT(fd >= 0);
	WANT(!bind(fd, (struct sockaddr *)&sin, len) && !listen(fd, 1));
	WANT(!getsockname(fd, (struct sockaddr *)ret, &len));
	return fd;
}

/* The same cipher and records as between agents. Nobody is verified: handshakes are not measured. */
static SSL *new_ssl(struct bench *b, bool server, int fd)
{
	SSL_CTX *ctx = SSL_CTX_new(server ? TLS_server_method() : TLS_client_method());
	char file[LAB_PATH_MAX + 32];
	int one = 1;
	SSL *ssl;

	WANT(ctx && SSL_CTX_set_min_proto_version(ctx, TLS1_3_VERSION));
	WANT(SSL_CTX_set_ciphersuites(ctx, "TLS_AES_128_GCM_SHA256"));
	WANT(SSL_CTX_set_num_tickets(ctx, 0));
	if (server) {
		snprintf(file, sizeof(file), "%s/host-a.cert", b->lab->certs);
		WANT(SSL_CTX_use_certificate_file(ctx, file, SSL_FILETYPE_PEM) == 1);
		snprintf(file, sizeof(file), "%s/host-a.key", b->lab->certs);
		WANT(SSL_CTX_use_PrivateKey_file(ctx, file, SSL_FILETYPE_PEM) == 1);
	}
	WANT(!setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one)));
	ssl = SSL_new(ctx);
	WANT(ssl && SSL_set_fd(ssl, fd));
	WANT((server ? SSL_accept(ssl) : SSL_connect(ssl)) == 1);
	return ssl;
}

static SSL *accept_one(struct bench *b, int listener)
{
	int fd = accept(listener, NULL, NULL);

	WANT(fd >= 0);
	return new_ssl(b, true, fd);
}

static SSL *dial(struct bench *b, const struct sockaddr_in *to)
{
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	WANT(fd >= 0 && !connect(fd, (const struct sockaddr *)to, sizeof(*to)));
	return new_ssl(b, false, fd);
}

/* Return: whether all of it came */
static bool read_all(SSL *ssl, uint8_t *buf, size_t n)
{
	for (size_t have = 0, got; have < n; have += got)
		if (SSL_read_ex(ssl, buf + have, n - have, &got) != 1)
			return false;
	return true;
}

/* A process of our own, which must not end as the benchmark would. */
static pid_t child(void)
{
	pid_t pid;

	fflush(NULL);
	pid = fork();
	WANT(pid >= 0);
	if (!pid)
		prctl(PR_SET_PDEATHSIG, SIGKILL);
	return pid;
}

/* Return: seconds of processor time that it took */
static double reap(pid_t pid)
{
	struct rusage u;
	int status;

	WANT(wait4(pid, &status, 0, &u) == pid);
	if (status)
		bench_die("bare TLS: a process ended with status %#x", (unsigned int)status);
	return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) +
	       (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e6;
}

/* --- bulk --- */

/**
 * struct sink - where the receiver places
 * @fd:		the fresh memfd
 * @uffd:	its mapping's, BARE_UFFD only
 * @at:		the mapping
 */
struct sink {
	enum bare_place place;
	int fd;
	int uffd;
	uint8_t *at;
};

static struct sink sink_open(enum bare_place place, uint64_t bytes)
{
	struct uffdio_api api = {.api = UFFD_API};
	struct uffdio_register reg = {.mode = UFFDIO_REGISTER_MODE_MISSING};
	struct sink s = {.place = place, .fd = -1, .uffd = -1};

	if (place == BARE_DROP)
		return s;
	s.fd = memfd_create("bench", MFD_CLOEXEC);
	WANT(s.fd >= 0 && !ftruncate(s.fd, (off_t)bytes));
	if (place != BARE_UFFD)
		return s;
	s.at = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, s.fd, 0);
	WANT(s.at != MAP_FAILED);
	s.uffd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK | UFFD_USER_MODE_ONLY);
	WANT(s.uffd >= 0 && !ioctl(s.uffd, UFFDIO_API, &api));
	reg.range.start = (uintptr_t)s.at;
	reg.range.len = bytes;
	WANT(!ioctl(s.uffd, UFFDIO_REGISTER, &reg));
	return s;
}

static void sink_put(const struct sink *s, const uint8_t *data, uint64_t off)
{
	struct uffdio_copy copy = {
		.dst = (uintptr_t)s->at + off, .src = (uintptr_t)data, .len = BENCH_RUN};

	if (s->place == BARE_PWRITE)
		WANT(pwrite(s->fd, data, BENCH_RUN, (off_t)off) == BENCH_RUN);
	else if (s->place == BARE_UFFD)
		WANT(!ioctl(s->uffd, UFFDIO_COPY, &copy));
}

/* Beginning and end are left out, as they are when decant's rate is measured. */
static double receive(SSL *ssl, const struct sink *s, uint64_t bytes)
{
	uint64_t from = bytes / 20 / BENCH_RUN * BENCH_RUN;
	uint8_t *buf = aligned_alloc(4096, BENCH_RUN);
	double began = 0;

	WANT(buf);
	for (uint64_t off = 0; off < bytes; off += BENCH_RUN) {
		if (off == from)
			began = bench_now();
		WANT(read_all(ssl, buf, BENCH_RUN));
		sink_put(s, buf, off);
	}
	return (double)(bytes - from) / (bench_now() - began);
}

static void send_bulk(SSL *ssl, uint64_t bytes)
{
	uint8_t *buf = aligned_alloc(4096, BENCH_RUN);
	size_t sent;

	WANT(buf);
	for (uint32_t i = 0, v = 1; i < BENCH_RUN; i++)
		buf[i] = (uint8_t)((v = v * 1664525 + 1013904223) >> 24);
	for (uint64_t off = 0; off < bytes; off += BENCH_RUN)
		WANT(SSL_write_ex(ssl, buf, BENCH_RUN, &sent) == 1);
}

struct bare_result bare_bulk(struct bench *b, enum bare_place place, uint64_t bytes)
{
	struct sockaddr_in at;
	int listener = listen_loopback(&at), result[2];
	pid_t receiver, sender;
	struct bare_result r = {0};

	WANT(!pipe2(result, O_CLOEXEC));
	receiver = child();
	if (!receiver) {
		struct sink s = sink_open(place, bytes);

		r.rate = receive(accept_one(b, listener), &s, bytes);
		_exit(write(result[1], &r.rate, sizeof(r.rate)) != sizeof(r.rate));
	}
	sender = child();
	if (!sender) {
		send_bulk(dial(b, &at), bytes);
		_exit(0);
	}
	close(listener);
	r.send_cpu_s = reap(sender);
	WANT(read(result[0], &r.rate, sizeof(r.rate)) == sizeof(r.rate));
	r.receive_cpu_s = reap(receiver);
	close(result[0]);
	close(result[1]);
	return r;
}

/* --- round trips --- */

/* As much as a request and the head of a frame with a page take on decant's wire. */
#define REQUEST_LEN 32
#define REPLY_LEN   (4096 + 64)
#define TRIPS_MAX   (1u << 18)

/**
 * struct bare_rtt - two processes
 * @go, @done:	pipes: how many milliseconds to go on for; how many round trips were made
 * @ns:		their times; shared with the client
 */
struct bare_rtt {
	pid_t client;
	pid_t server;
	int go[2];
	int done[2];
	uint32_t *ns;
};

static void serve(SSL *ssl)
{
	uint8_t request[REQUEST_LEN], reply[REPLY_LEN] = {0};
	size_t sent;

	while (read_all(ssl, request, sizeof(request)))
		if (SSL_write_ex(ssl, reply, sizeof(reply), &sent) != 1)
			break;
	_exit(0);
}

static void ask(SSL *ssl, struct bare_rtt *r)
{
	uint8_t request[REQUEST_LEN] = {0}, reply[REPLY_LEN];
	unsigned int ms;
	size_t sent;

	while (read(r->go[0], &ms, sizeof(ms)) == sizeof(ms)) {
		double began = bench_now(), end = began + ms / 1e3, now;
		uint32_t n = 0;

		for (; began < end && n < TRIPS_MAX; began = now) {
			WANT(SSL_write_ex(ssl, request, sizeof(request), &sent) == 1);
			WANT(read_all(ssl, reply, sizeof(reply)));
			now = bench_now();
			r->ns[n++] = (uint32_t)((now - began) * 1e9);
		}
		WANT(write(r->done[1], &n, sizeof(n)) == sizeof(n));
	}
	_exit(0);
}

struct bare_rtt *bare_rtt_open(struct bench *b)
{
	struct bare_rtt *r = calloc(1, sizeof(*r));
	struct sockaddr_in at;
	int listener = listen_loopback(&at);

	WANT(r && !pipe2(r->go, O_CLOEXEC) && !pipe2(r->done, O_CLOEXEC));
	r->ns = mmap(NULL, TRIPS_MAX * sizeof(*r->ns), PROT_READ | PROT_WRITE,
		     MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	WANT(r->ns != MAP_FAILED);
	r->server = child();
	if (!r->server) {
		close(r->go[1]);
		serve(accept_one(b, listener));
	}
	r->client = child();
	if (!r->client) {
		close(r->go[1]);
		ask(dial(b, &at), r);
	}
	close(listener);
	return r;
}

uint32_t bare_rtt_run(struct bare_rtt *r, unsigned int ms, const uint32_t **ret_ns)
{
	uint32_t n = 0;

	WANT(write(r->go[1], &ms, sizeof(ms)) == sizeof(ms));
	WANT(read(r->done[0], &n, sizeof(n)) == sizeof(n));
	*ret_ns = r->ns;
	return n;
}

void bare_rtt_close(struct bare_rtt *r)
{
	close(r->go[1]);
	reap(r->client);
	reap(r->server);
	close(r->go[0]);
	close(r->done[0]);
	close(r->done[1]);
	munmap(r->ns, TRIPS_MAX * sizeof(*r->ns));
	free(r);
}
