/* SPDX-License-Identifier: Apache-2.0 */
#include "fuzz/lib/plain_chan.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include "tls/tls_stats.h"
#include "util/cleanup.h"
#include "util/clock.h"

/** struct tls_chan - a socket, and what was last the matter with it */
struct tls_chan {
	int fd;
	short events;
	uint64_t sent;
	struct error why;
};

/** struct tls_ctx - nothing but somewhere to point to */
struct tls_ctx {
	unsigned int refs;
};

/* Whom to dial is not an argument of tls_dial(). */
static struct {
	pthread_mutex_t lock;
	plain_dial_fn *fn;
	void *arg;
} dialled = {.lock = PTHREAD_MUTEX_INITIALIZER};

void plain_on_dial(plain_dial_fn *fn, void *arg)
{
	pthread_mutex_lock(&dialled.lock);
	dialled.fn = fn;
	dialled.arg = arg;
	pthread_mutex_unlock(&dialled.lock);
}

struct tls_chan *plain_chan(int fd)
{
	struct tls_chan *c = calloc(1, sizeof(*c));

	if (!c)
		abort();
	fcntl(fd, F_SETFL, O_NONBLOCK);
	c->fd = fd;
	c->events = POLLIN;
	return c;
}

/* --- tls_ctx.h --- */

int tls_ctx_new(const struct tls_files *files, enum tls_role role, struct tls_ctx **ret,
		struct error *err)
{
	(void)files;
	(void)role;
	*ret = calloc(1, sizeof(**ret));
	if (!*ret)
		return error_set(err, -ENOMEM, NULL, "out of memory");
	(*ret)->refs = 1;
	return 0;
}

struct tls_ctx *tls_ctx_ref(struct tls_ctx *ctx)
{
	__atomic_add_fetch(&ctx->refs, 1, __ATOMIC_ACQ_REL);
	return ctx;
}

void tls_ctx_unref(struct tls_ctx *ctx)
{
	if (ctx && !__atomic_sub_fetch(&ctx->refs, 1, __ATOMIC_ACQ_REL))
		free(ctx);
}

int tls_ctx_check_dates(const struct tls_ctx *ctx, struct error *err)
{
	(void)ctx;
	(void)err;
	return 0;
}

bool tls_ctx_cpu_has_aes(void)
{
	return true;
}

const char *tls_ctx_ciphers(bool has_aes)
{
	(void)has_aes;
	return "none";
}

/* --- tls_stats.h: there are no handshakes to be counted --- */

void tls_stats_inherit(struct tls_ctx *ctx, const struct tls_ctx *old)
{
	(void)ctx;
	(void)old;
}

uint64_t tls_stats_done(const struct tls_ctx *ctx)
{
	(void)ctx;
	return 0;
}

const char *tls_stats_refused(const struct tls_ctx *ctx, size_t i, uint64_t *ret)
{
	(void)ctx;
	(void)i;
	(void)ret;
	return NULL;
}

void tls_stats_write(struct metrics *m, const struct tls_ctx *ctx)
{
	(void)m;
	(void)ctx;
}

/* --- connecting --- */

int tls_dial(struct tls_ctx *ctx, const char *host, const char *port, uint64_t timeout_us,
	     int stop_fd, struct tls_chan **ret, struct error *err)
{
	int fd[2], r = -ECONNREFUSED;

	(void)ctx;
	(void)timeout_us;
	(void)stop_fd;
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fd))
		return error_set(err, -errno, "tls-unreachable", "%s", strerror(errno));
	pthread_mutex_lock(&dialled.lock);
	if (dialled.fn)
		r = dialled.fn(dialled.arg, fd[1]);
	pthread_mutex_unlock(&dialled.lock);
	if (r) {
		close(fd[0]);
		close(fd[1]);
		return error_set(err, r, "tls-unreachable", "%s port %s: %s", host, port,
				 strerror(-r));
	}
	*ret = plain_chan(fd[0]);
	return 0;
}

int tls_chan_accept(struct tls_ctx *ctx, int fd, struct tls_chan **ret)
{
	(void)ctx;
	*ret = plain_chan(fd);
	return 0;
}

int tls_chan_connect(struct tls_ctx *ctx, int fd, const char *host, struct tls_chan **ret)
{
	(void)host;
	return tls_chan_accept(ctx, fd, ret);
}

int tls_chan_handshake(struct tls_chan *c, struct error *err)
{
	(void)c;
	(void)err;
	return 0;
}

int tls_chan_handshake_wait(struct tls_chan *c, int stop_fd, uint64_t timeout_us, struct error *err)
{
	(void)stop_fd;
	(void)timeout_us;
	return tls_chan_handshake(c, err);
}

/* --- reading and writing --- */

static int broken(struct tls_chan *c, int e, short events)
{
	if (e == EAGAIN || e == EINTR) {
		c->events = events;
		return -EAGAIN;
	}
	return error_set(&c->why, -e, "tls-closed", "the connection ended: %s", strerror(e));
}

ssize_t tls_read(struct tls_chan *c, void *buf, size_t n)
{
	ssize_t k = recv(c->fd, buf, MIN(n, (size_t)TLS_RECORD_MAX), MSG_DONTWAIT);

	return k < 0 ? broken(c, errno, POLLIN) : k;
}

ssize_t tls_write(struct tls_chan *c, const void *buf, size_t n)
{
	ssize_t k = send(c->fd, buf, n, MSG_DONTWAIT | MSG_NOSIGNAL);

	if (k < 0)
		return broken(c, errno, POLLOUT);
	c->sent += (uint64_t)k;
	return k;
}

bool tls_pending(const struct tls_chan *c)
{
	(void)c;
	return false;
}

static int await(struct tls_chan *c, int stop_fd, uint64_t deadline, struct error *err)
{
	struct pollfd p[2] = {{.fd = c->fd, .events = c->events},
			      {.fd = stop_fd, .events = POLLIN}};
	uint64_t now = clock_us();
	int ms = deadline == TLS_FOREVER ? -1
		 : deadline > now        ? (int)MIN((deadline - now) / 1000 + 1, 60000ul)
					 : 0;
	int n = poll(p, 2, ms);

	if (n > 0 && p[1].revents)
		return error_set(err, -ECANCELED, "cancelled", "ended");
	return n ? 0 : error_set(err, -ETIMEDOUT, "tls-timeout", "time is up");
}

static uint64_t deadline_of(uint64_t timeout_us)
{
	uint64_t now = clock_us();

	return timeout_us < TLS_FOREVER - now ? now + timeout_us : TLS_FOREVER;
}

int tls_read_full(struct tls_chan *c, void *buf, size_t n, int stop_fd, uint64_t timeout_us,
		  struct error *err)
{
	uint64_t deadline = deadline_of(timeout_us);
	size_t done = 0;

	while (done < n) {
		ssize_t k = tls_read(c, (char *)buf + done, n - done);
		int r = 0;

		if (k == -EAGAIN)
			r = await(c, stop_fd, deadline, err);
		else if (k == 0)
			r = error_set(err, done ? -ECONNRESET : -ENODATA, "tls-closed", "ended");
		else if (k < 0)
			r = error_set(err, (int)k, c->why.code, "%s", c->why.msg);
		else
			done += (size_t)k;
		if (r)
			return r;
	}
	return 0;
}

int tls_write_full(struct tls_chan *c, const void *buf, size_t n, int stop_fd, uint64_t timeout_us,
		   struct error *err)
{
	uint64_t deadline = deadline_of(timeout_us);
	size_t done = 0;

	while (done < n) {
		ssize_t k = tls_write(c, (const char *)buf + done, n - done);
		int r = 0;

		if (k == -EAGAIN)
			r = await(c, stop_fd, deadline, err);
		else if (k < 0)
			r = error_set(err, (int)k, c->why.code, "%s", c->why.msg);
		else
			done += (size_t)k;
		if (r)
			return r;
	}
	return 0;
}

/* --- what is known of it --- */

int tls_chan_fd(const struct tls_chan *c)
{
	return c->fd;
}

uint64_t tls_chan_sent_bytes(const struct tls_chan *c)
{
	return c->sent;
}

short tls_chan_events(const struct tls_chan *c)
{
	return c->events;
}

/* The peer is this process. */
void tls_chan_watch(struct tls_chan *c, uint64_t us)
{
	(void)c;
	(void)us;
}

const struct error *tls_chan_error(const struct tls_chan *c)
{
	return &c->why;
}

const char *tls_chan_peer(const struct tls_chan *c)
{
	(void)c;
	return "192.0.2.1:7400";
}

const char *tls_chan_identity(const struct tls_chan *c)
{
	(void)c;
	return PLAIN_IDENTITY;
}

const char *tls_chan_cipher(const struct tls_chan *c)
{
	(void)c;
	return "none";
}

void tls_chan_finish(struct tls_chan *c)
{
	(void)c;
}

void tls_chan_free(struct tls_chan *c)
{
	if (!c)
		return;
	close(c->fd);
	free(c);
}

int tls_allow_check(const char *const *allow, size_t n, const struct tls_chan *c, struct error *err)
{
	(void)allow;
	(void)n;
	(void)c;
	(void)err;
	return 0;
}

int tls_allow_valid(const char *entry, struct error *err)
{
	(void)entry;
	(void)err;
	return 0;
}
