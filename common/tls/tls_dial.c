/* SPDX-License-Identifier: Apache-2.0 */
/* From a name to an authenticated connection, within a deadline and with a way to stop. */
#include "tls/tls_priv.h"

#include <errno.h>
#include <netdb.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>
#include "util/cleanup.h"
#include "util/clock.h"

/* Most addresses of one name that are tried. */
#define DIAL_MAX 16
/* Head start of an address before the next one is tried as well (RFC 8305). */
#define DIAL_STAGGER_US 250000

#define CODE "tls-unreachable"

/**
 * struct lookup - one getaddrinfo(3), which cannot be interrupted and may take half a minute
 * @refs:	the thread's and the caller's; who drops the last one frees
 * @done:	@gai, @sys_errno and @list are there
 * @done_fd:	eventfd that becomes readable with @done
 * @host, @port:	what is looked up
 * @gai:	what getaddrinfo returned, and @sys_errno errno with it
 * @list:	addresses
 */
struct lookup {
	atomic_int refs;
	atomic_bool done;
	int done_fd;
	char *host;
	char *port;
	int gai;
	int sys_errno;
	struct addrinfo *list;
};

static void lookup_unref(struct lookup *l)
{
	if (atomic_fetch_sub(&l->refs, 1) != 1)
		return;
	if (l->list)
		freeaddrinfo(l->list);
	if (l->done_fd >= 0)
		close(l->done_fd);
	free(l->host);
	free(l->port);
	free(l);
}

static void lookup_run(struct lookup *l, int flags)
{
	struct addrinfo hints = {.ai_family = AF_UNSPEC,
				 .ai_socktype = SOCK_STREAM,
				 .ai_flags = AI_NUMERICSERV | flags};

	l->gai = getaddrinfo(l->host, l->port, &hints, &l->list);
	l->sys_errno = errno;
}

static void *lookup_main(void *arg)
{
	struct lookup *l = arg;

	lookup_run(l, AI_ADDRCONFIG);
	atomic_store(&l->done, true);
	eventfd_write(l->done_fd, 1);
	lookup_unref(l);
	return NULL;
}

/* Detached, because a caller that gives up must not wait for it; no signal handler runs on it. */
static int lookup_start(struct lookup *l)
{
	sigset_t all, old;
	pthread_t thread;
	int r;

	sigfillset(&all);
	atomic_fetch_add(&l->refs, 1);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	r = pthread_create(&thread, NULL, lookup_main, l);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	if (r)
		atomic_fetch_sub(&l->refs, 1);
	else
		pthread_detach(thread);
	return -r;
}

/* The host without the brackets that addresses of IPv6 are often written in. */
static char *unbracket(const char *host)
{
	size_t n = strlen(host);

	return n > 2 && host[0] == '[' && host[n - 1] == ']' ? strndup(host + 1, n - 2)
							     : strdup(host);
}

static struct lookup *lookup_new(const char *host, const char *port)
{
	struct lookup *l = calloc(1, sizeof(*l));

	if (!l)
		return NULL;
	atomic_init(&l->refs, 1);
	l->done_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	l->host = unbracket(host);
	l->port = strdup(port);
	if (l->done_fd >= 0 && l->host && l->port)
		return l;
	lookup_unref(l);
	return NULL;
}

static int lookup_error(const struct lookup *l, struct error *err)
{
	int r = l->gai == EAI_MEMORY ? -ENOMEM : l->gai == EAI_AGAIN ? -EHOSTUNREACH : -ENOENT;

	if (l->gai == EAI_SYSTEM)
		return error_set(err, -l->sys_errno, CODE, "cannot resolve %s: %s", l->host,
				 strerror(l->sys_errno));
	return error_set(err, r, CODE, "cannot resolve %s (port %s): %s", l->host, l->port,
			 gai_strerror(l->gai));
}

/* Addresses are understood at once; names are asked for on a thread. */
static int resolve(struct lookup *l, int stop_fd, uint64_t deadline, struct error *err)
{
	int r;

	lookup_run(l, AI_NUMERICHOST);
	if (l->gai == EAI_NONAME) {
		r = lookup_start(l);
		if (r)
			return error_set(err, r, NULL, "no thread to resolve %s: %s", l->host,
					 strerror(-r));
		r = tls_wire_wait(l->done_fd, POLLIN, stop_fd, deadline, err);
		if (r || !atomic_load(&l->done)) {
			error_prefix(err, "resolving %s", l->host);
			return r;
		}
	}
	return l->gai ? lookup_error(l, err) : 0;
}

/**
 * struct race - connections under way to several addresses of one host
 * @pfd:	[0] the stop descriptor, then those under way
 * @addr:	the address that each of @pfd goes to
 * @n:		entries of @pfd in use
 * @next:	address to try next, NULL when all were
 * @next_at:	clock_us() when that is due
 * @left:	addresses that may still be tried
 * @last:	-errno of the last that failed
 * @said, @len:	"192.0.2.1: Connection refused; …" of all that failed
 */
struct race {
	struct pollfd pfd[DIAL_MAX + 1];
	const struct addrinfo *addr[DIAL_MAX + 1];
	nfds_t n;
	const struct addrinfo *next;
	uint64_t next_at;
	int left;
	int last;
	char said[320];
	size_t len;
};

static void race_failed(struct race *race, const struct addrinfo *ai, int e)
{
	char host[64];
	int n;

	race->last = -e;
	if (getnameinfo(ai->ai_addr, ai->ai_addrlen, host, sizeof(host), NULL, 0, NI_NUMERICHOST))
		snprintf(host, sizeof(host), "?");
	n = snprintf(race->said + race->len, sizeof(race->said) - race->len, "%s%s: %s",
		     race->len ? "; " : "", host, strerror(e));
	race->len = MIN(race->len + (size_t)n, sizeof(race->said) - 1);
}

/* Begin with the next address. Return: a descriptor if that connected at once, else -EAGAIN */
static int race_start(struct race *race)
{
	const struct addrinfo *ai = race->next;
	int fd;

	race->next = --race->left > 0 ? ai->ai_next : NULL;
	race->next_at = clock_us() + DIAL_STAGGER_US;
	fd = socket(ai->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, ai->ai_protocol);
	if (fd < 0) {
		race_failed(race, ai, errno);
		return -EAGAIN;
	}
	if (!connect(fd, ai->ai_addr, ai->ai_addrlen))
		return fd;
	if (errno != EINPROGRESS) {
		race_failed(race, ai, errno);
		close(fd);
		return -EAGAIN;
	}
	race->pfd[race->n] = (struct pollfd){.fd = fd, .events = POLLOUT};
	race->addr[race->n++] = ai;
	return -EAGAIN;
}

/* See who has arrived. Return: its descriptor, taken out of the race, or -EAGAIN */
static int race_look(struct race *race)
{
	for (nfds_t i = 1; i < race->n;) {
		socklen_t len = sizeof(int);
		int e = 0, fd = race->pfd[i].fd;

		if (!race->pfd[i].revents) {
			i++;
			continue;
		}
		getsockopt(fd, SOL_SOCKET, SO_ERROR, &e, &len);
		if (e) {
			race_failed(race, race->addr[i], e);
			close(fd);
			race->next_at = 0;
		}
		race->n--;
		race->pfd[i] = race->pfd[race->n];
		race->addr[i] = race->addr[race->n];
		if (!e)
			return fd;
	}
	return -EAGAIN;
}

/* Sleep until something happens to the race. Return: 0, -ECANCELED or -ETIMEDOUT */
static int race_sleep(struct race *race, uint64_t deadline)
{
	uint64_t until = race->next ? MIN(deadline, race->next_at) : deadline, now = clock_us();
	uint64_t left = until > now ? until - now : 0;
	struct timespec ts = {.tv_sec = (time_t)(left / 1000000),
			      .tv_nsec = (long)(left % 1000000) * 1000};
	int r;

	r = ppoll(race->pfd, race->n, until == TLS_FOREVER ? NULL : &ts, NULL);
	if (r < 0 && errno != EINTR)
		return -errno;
	if (r > 0 && race->pfd[0].revents)
		return -ECANCELED;
	return r == 0 && until == deadline ? -ETIMEDOUT : 0;
}

/* Return: a connected descriptor, or -errno when all failed, the time is over, or stopped */
static int race_run(struct race *race, uint64_t deadline)
{
	int r;

	for (;;) {
		if (race->next && (race->n == 1 || clock_us() >= race->next_at)) {
			r = race_start(race);
		} else if (race->n == 1) {
			return race->last;
		} else {
			r = race_sleep(race, deadline);
			if (!r)
				r = race_look(race);
		}
		if (r != -EAGAIN)
			return r;
	}
}

static int dial_tcp(const struct addrinfo *list, int stop_fd, uint64_t deadline, struct error *err)
{
	struct race race = {.pfd = {{.fd = stop_fd, .events = POLLIN}},
			    .n = 1,
			    .next = list,
			    .left = DIAL_MAX,
			    .last = -EHOSTUNREACH};
	int r = race_run(&race, deadline);

	for (nfds_t i = 1; i < race.n; i++)
		close(race.pfd[i].fd);
	if (r == -ECANCELED)
		return error_set(err, r, "cancelled", "stopped while connecting");
	if (r == -ETIMEDOUT && !race.len)
		return error_set(err, r, "tls-timeout", "cannot connect: no answer in time");
	if (r < 0)
		return error_set(err, r, CODE, "cannot connect: %s", race.said);
	return r;
}

static int dial(struct tls_ctx *ctx, struct lookup *l, int stop_fd, uint64_t deadline,
		struct tls_chan **ret, struct error *err)
{
	CLEANUP_CLOSE int fd = -1;
	struct tls_chan *c;
	uint64_t now;
	int r;

	r = resolve(l, stop_fd, deadline, err);
	if (r)
		return r;
	fd = dial_tcp(l->list, stop_fd, deadline, err);
	if (fd < 0)
		return fd;
	r = tls_chan_connect(ctx, fd, l->host, &c);
	if (r)
		return error_set(err, r, "tls-handshake", "cannot set up TLS: %s", strerror(-r));
	fd = -1;
	now = clock_us();
	r = tls_chan_handshake_wait(c, stop_fd,
				    deadline == TLS_FOREVER ? TLS_FOREVER
				    : deadline > now        ? deadline - now
							    : 0,
				    err);
	if (r)
		tls_chan_free(c);
	else
		*ret = c;
	return r;
}

int tls_dial(struct tls_ctx *ctx, const char *host, const char *port, uint64_t timeout_us,
	     int stop_fd, struct tls_chan **ret, struct error *err)
{
	struct lookup *l = lookup_new(host, port);
	struct error e = {0};
	int r;

	if (!l)
		return error_set(err, -ENOMEM, NULL, "no memory to connect to %s", host);
	r = dial(ctx, l, stop_fd, tls_wire_deadline(timeout_us), ret, &e);
	lookup_unref(l);
	if (r)
		error_set(err, r, e.code, "%s port %s: %s", host, port, e.msg);
	return r;
}
