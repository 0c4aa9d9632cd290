/* SPDX-License-Identifier: Apache-2.0 */
#include "guest/attach.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "guest/attach_check.h"
#include "guest/native.h"
#include "util/cleanup.h"
#include "util/fdio.h"
#include "util/log.h"

#ifndef SO_PEERPIDFD
#define SO_PEERPIDFD 77 /* kernel 6.5 */
#endif

#define PENDING_DEFAULT    64
#define TIMEOUT_DEFAULT_MS 5000
/* Connections of one process whose hello is not complete: one for each of its guests, for a moment. */
#define PROCESS_MAX 16
#define RETRY_US    100000

struct conn;

/**
 * struct attach - loop thread
 * @uids:	copy; @nuids of them
 * @path:	of the socket file that we made, NULL if it was given to us
 * @fd, @accept: the listener and its event, off while @npending is at its bound
 * @retry:	listening again after there were no descriptors left
 * @conns:	connections whose hello is not complete
 * @packet:	for one message at a time
 */
struct attach {
	struct loop *loop;
	struct attach_config c;
	uid_t *uids;
	char *path;
	int fd;
	struct event *accept;
	struct event *retry;
	struct conn *conns;
	unsigned int npending;
	uint8_t *packet;
};

/**
 * struct conn - a connection whose hello is not complete
 * @g:		filled as it comes; its blocks are allocated by what HELLO says
 * @blocks:	how many will come
 * @hello:	HELLO has come
 * @handed_over: @sock is @g's
 */
struct conn {
	struct conn *next;
	struct attach *a;
	int sock;
	struct event *readable;
	struct event *timer;
	struct guest *g;
	uint16_t blocks;
	bool hello;
	bool handed_over;
};

static void conn_free(struct conn *c)
{
	struct conn **at = &c->a->conns;

	while (*at && *at != c)
		at = &(*at)->next;
	if (*at) {
		*at = c->next;
		c->a->npending--;
		event_add(c->a->accept, NULL);
	}
	if (c->readable)
		event_free(c->readable);
	if (c->timer)
		event_free(c->timer);
	if (!c->handed_over)
		gwire_hang_up(c->sock);
	guest_free(c->g);
	free(c);
}

static void conn_refuse(struct conn *c, const struct error *err)
{
	struct gwire_msg m = {.type = GWIRE_REFUSED};
	uint8_t buf[1024];
	ssize_t n;

	strcpy(m.u.refused.code, err->code);
	strcpy(m.u.refused.message, err->msg);
	n = gwire_encode(&m, buf, sizeof(buf));
	if (n > 0)
		gwire_send(c->sock, buf, (size_t)n, -1); /* if it does not listen, its loss */
	log_info("attach: pid %d, uid %u: refused: %s", (int)c->g->pid, (unsigned int)c->g->uid,
		 err->msg);
	conn_free(c);
}

/* --- the hello ---------------------------------------------------------------------------------- */

static int on_hello(struct conn *c, const struct gwire_msg *m, struct error *err)
{
	const struct gwire_hello *h = &m->u.hello;
	static const uint8_t zeros[GWIRE_UUID_LEN];
	struct guest *g = c->g;

	if (h->version != GWIRE_VERSION)
		return error_set(err, -EPROTONOSUPPORT, "version",
				 "the guest's library speaks version %u, this agent version %d",
				 h->version, GWIRE_VERSION);
	if (!guest_name_ok(h->name))
		return error_set(err, -EINVAL, "bad-hello", "the guest's name is malformed");
	if (!memcmp(h->uuid, zeros, sizeof(zeros)))
		return error_set(err, -EINVAL, "bad-hello", "the guest's uuid is empty");
	g->blocks = calloc(h->blocks ? h->blocks : 1, sizeof(*g->blocks));
	if (!g->blocks)
		return error_set(err, -ENOMEM, NULL, "out of memory");
	strcpy(g->name, h->name);
	memcpy(g->uuid, h->uuid, sizeof(g->uuid));
	g->generation = h->generation;
	g->has_token = h->has_token;
	memcpy(g->token, h->token, sizeof(g->token));
	g->run_state = (enum guest_run_state)h->run_state;
	g->user_faults = h->flags & GWIRE_HELLO_USER_FAULTS;
	g->names_vcpus = h->flags & GWIRE_HELLO_VCPUS;
	g->kept_uffd = h->flags & GWIRE_HELLO_KEPT;
	g->kept_tag = h->kept_tag;
	c->blocks = h->blocks;
	c->hello = true;
	return 0;
}

static int on_block(struct conn *c, const struct gwire_msg *m, int *fd, struct error *err)
{
	const struct gwire_block *w = &m->u.block;
	struct guest *g = c->g;
	struct guest_block b = {
		.index = w->index,
		.kind = (enum guest_block_kind)w->kind,
		.flags = w->flags,
		.length = w->length,
		.page_size = w->page_size,
		.addr = w->address,
		.fd = *fd,
	};
	int ret;

	if (g->nblocks == c->blocks)
		return error_set(err, -EPROTO, "bad-hello", "more blocks than HELLO said");
	strcpy(b.name, w->name);
	ret = attach_check_block(g, &b, err);
	if (ret)
		return ret;
	*fd = -1;
	g->blocks[g->nblocks++] = b;
	return 0;
}

/* The pid is only a number: it must still mean the process that connected. */
static int check_alive(const struct guest *g, struct error *err)
{
	struct pollfd p = {.fd = g->pidfd, .events = POLLIN};

	if (poll(&p, 1, 0) == 0)
		return 0;
	return error_set(err, -ESRCH, "guest-gone", "its process has ended");
}

/* @c is gone afterwards, unless this fails. */
static int on_end(struct conn *c, struct error *err)
{
	struct attach *a = c->a;
	struct guest *g = c->g;
	int ret;

	if (g->nblocks != c->blocks)
		return error_set(err, -EPROTO, "bad-hello", "fewer blocks than HELLO said");
	ret = attach_check_maps(g, err);
	if (!ret)
		ret = check_alive(g, err);
	if (!ret)
		ret = native_start(g, c->sock);
	if (ret)
		return error_set(err, ret, NULL, "out of memory");
	c->handed_over = true;
	ret = a->c.fn(a->c.arg, g, err);
	if (ret)
		return error_set(err, ret, NULL, "this agent does not want the guest");
	c->g = NULL;
	conn_free(c);
	native_welcome(g);
	return 0;
}

/* @c is gone afterwards, unless this fails. */
static int on_sharer(struct conn *c, const struct gwire_sharer *h, int *uffd, struct error *err)
{
	struct attach *a = c->a;
	struct share *s;
	int ret;

	if (h->version != GWIRE_VERSION)
		return error_set(err, -EPROTONOSUPPORT, "version",
				 "the sharer's library speaks version %u, this agent version %d",
				 h->version, GWIRE_VERSION);
	if (!guest_name_ok(h->guest) || !guest_name_ok(h->name))
		return error_set(err, -EINVAL, "bad-hello",
				 "the sharer's or the guest's name is malformed");
	if (attach_check_uffd(*uffd))
		return error_set(err, -EPROTO, "bad-hello",
				 "sharer %s: its descriptor is no userfaultfd", h->name);
	if (!a->c.share)
		return error_set(
			err, -EOPNOTSUPP, "no-sharers",
			"sharer %s: this agent receives no guests: attach it to decant-dest",
			h->name);
	s = share_new(a->loop, c->sock, c->g->pidfd, c->g->pid, h, *uffd);
	if (!s)
		return error_set(err, -ENOMEM, NULL, "out of memory");
	*uffd = -1;
	ret = a->c.share(a->c.arg, s, err);
	if (ret) {
		share_refuse(s, err);
		share_free(s);
	}
	/* Socket and pidfd are the share's. */
	c->handed_over = true;
	c->g->pidfd = -1;
	conn_free(c);
	return 0;
}

static int on_packet(struct conn *c, const uint8_t *packet, size_t len, int *fd, struct error *err)
{
	struct gwire_msg m;
	const char *what;

	if (gwire_decode(packet, len, NULL, &m, &what))
		return error_set(err, -EBADMSG, "bad-message", "%s: wrong %s", gwire_name(m.type),
				 what);
	if (m.type == GWIRE_HELLO && !c->hello)
		return on_hello(c, &m, err);
	if (m.type == GWIRE_SHARER && !c->hello) {
		event_del(c->readable);
		return on_sharer(c, &m.u.sharer, fd, err) ?: 1;
	}
	if (m.type == GWIRE_BLOCK && c->hello)
		return on_block(c, &m, fd, err);
	if (m.type == GWIRE_HELLO_END && c->hello) {
		event_del(c->readable);
		return on_end(c, err) ?: 1;
	}
	return error_set(err, -EPROTO, "bad-message", "%s (%u) is out of place", gwire_name(m.type),
			 m.type);
}

static void on_readable(evutil_socket_t sock, short what, void *arg)
{
	struct conn *c = arg;
	struct error err = {0};
	int ret = 0;

	(void)what;
	for (int i = 0; i < 32 && !ret; i++) {
		CLEANUP_CLOSE int fd = -1;
		ssize_t n = gwire_recv(sock, c->a->packet, &fd, NULL);

		if (n == -EAGAIN)
			return;
		if (n == 0 || (n < 0 && n != -EBADMSG)) {
			conn_free(c);
			return;
		}
		if (n < 0)
			ret = error_set(&err, (int)n, "bad-message",
					"a packet that is cut short or has the wrong descriptors");
		else
			ret = on_packet(c, c->a->packet, (size_t)n, &fd, &err);
	}
	if (ret < 0)
		conn_refuse(c, &err);
}

static void on_timeout(evutil_socket_t sock, short what, void *arg)
{
	struct error err = {0};

	(void)sock;
	(void)what;
	error_set(&err, -ETIMEDOUT, "timeout", "its hello took too long");
	conn_refuse(arg, &err);
}

/* --- connections -------------------------------------------------------------------------------- */

static bool uid_allowed(const struct attach *a, uid_t uid)
{
	for (size_t i = 0; i < a->c.nuids; i++)
		if (a->uids[i] == uid)
			return true;
	return !a->c.nuids && (uid == 0 || uid == geteuid());
}

static int peer_pidfd(int sock, pid_t pid)
{
	socklen_t len = sizeof(int);
	int fd;

	if (!getsockopt(sock, SOL_SOCKET, SO_PEERPIDFD, &fd, &len))
		return fd;
	fd = (int)syscall(SYS_pidfd_open, pid, 0);
	return fd < 0 ? -errno : fd;
}

/* So that one process cannot keep all others out. */
static bool crowds(const struct conn *c, pid_t pid)
{
	unsigned int n = 0;

	for (const struct conn *o = c->a->conns; o; o = o->next)
		n += o != c && o->g && o->g->pid == pid;
	return n >= PROCESS_MAX;
}

static int identify(struct conn *c, struct error *err)
{
	struct ucred cred = {0};
	socklen_t len = sizeof(cred);
	int fd;

	if (getsockopt(c->sock, SOL_SOCKET, SO_PEERCRED, &cred, &len))
		return error_set(err, -errno, NULL, "who it is cannot be found out: %m");
	c->g->pid = cred.pid;
	c->g->uid = cred.uid;
	if (!uid_allowed(c->a, cred.uid))
		return error_set(err, -EACCES, "not-allowed", "user %u may not attach guests here",
				 (unsigned int)cred.uid);
	if (cred.pid <= 0)
		return error_set(err, -ESRCH, "not-visible",
				 "its process is not in the agent's pid namespace");
	if (crowds(c, cred.pid))
		return error_set(err, -EBUSY, "too-many-connections",
				 "process %d has %d connections already that have not said who "
				 "they are",
				 (int)cred.pid, PROCESS_MAX);
	fd = peer_pidfd(c->sock, cred.pid);
	if (fd < 0)
		return error_set(err, fd, NULL, "no pidfd of process %d: %s", (int)cred.pid,
				 strerror(-fd));
	c->g->pidfd = fd;
	return 0;
}

static void conn_new(struct attach *a, int sock)
{
	struct timeval tv = {.tv_sec = a->c.hello_timeout_ms / 1000,
			     .tv_usec = a->c.hello_timeout_ms % 1000 * 1000};
	struct conn *c = calloc(1, sizeof(*c));
	struct error err = {0};

	if (!c) {
		close(sock);
		return;
	}
	*c = (struct conn){.next = a->conns, .a = a, .sock = sock};
	a->conns = c;
	if (++a->npending >= a->c.max_pending)
		event_del(a->accept);
	c->g = native_new(a->loop);
	c->readable = event_new(loop_base(a->loop), sock, EV_READ | EV_PERSIST, on_readable, c);
	c->timer = evtimer_new(loop_base(a->loop), on_timeout, c);
	if (!c->g || !c->readable || !c->timer || event_add(c->readable, NULL) ||
	    evtimer_add(c->timer, &tv))
		conn_free(c);
	else if (identify(c, &err))
		conn_refuse(c, &err);
}

static void on_retry(void *arg)
{
	struct attach *a = arg;

	event_free(a->retry);
	a->retry = NULL;
	event_add(a->accept, NULL);
}

static void on_accept(evutil_socket_t fd, short what, void *arg)
{
	struct attach *a = arg;
	int sock = accept4((int)fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

	(void)what;
	if (sock >= 0) {
		conn_new(a, sock);
	} else if (errno == EMFILE || errno == ENFILE || errno == ENOMEM || errno == ENOBUFS) {
		/* It would be reported again at once, for ever. */
		log_warn("attach: accept: %m");
		event_del(a->accept);
		if (!a->retry)
			a->retry = loop_timer(a->loop, RETRY_US, on_retry, a);
	}
}

static int open_listener(struct attach *a, struct error *err)
{
	int ret = a->c.listen_fd;

	if (ret < 0) {
		ret = fdio_unix_listen(a->c.path, SOCK_SEQPACKET, a->c.mode, err);
		if (ret < 0)
			return ret;
		a->path = strdup(a->c.path);
	}
	a->fd = ret;
	evutil_make_socket_nonblocking(ret);
	a->accept = event_new(loop_base(a->loop), ret, EV_READ | EV_PERSIST, on_accept, a);
	if (!a->accept || event_add(a->accept, NULL))
		return error_set(err, -ENOMEM, NULL, "out of memory");
	return 0;
}

int attach_new(struct loop *loop, const struct attach_config *config, struct attach **ret_attach,
	       struct error *err)
{
	struct attach *a = calloc(1, sizeof(*a));
	int ret;

	if (!a)
		return error_set(err, -ENOMEM, NULL, "out of memory");
	a->loop = loop;
	a->c = *config;
	a->fd = -1;
	if (!a->c.max_pending)
		a->c.max_pending = PENDING_DEFAULT;
	if (!a->c.hello_timeout_ms)
		a->c.hello_timeout_ms = TIMEOUT_DEFAULT_MS;
	a->packet = malloc(GWIRE_PACKET_MAX);
	a->uids = calloc(a->c.nuids + 1, sizeof(*a->uids));
	if (a->packet && a->uids) {
		for (size_t i = 0; i < a->c.nuids; i++)
			a->uids[i] = config->uids[i];
		ret = open_listener(a, err);
	} else {
		ret = error_set(err, -ENOMEM, NULL, "out of memory");
	}
	if (ret) {
		if (config->listen_fd >= 0)
			a->fd = -1; /* still the caller's */
		attach_free(a);
		return ret;
	}
	*ret_attach = a;
	return 0;
}

void attach_free(struct attach *a)
{
	if (!a)
		return;
	while (a->conns)
		conn_free(a->conns);
	if (a->retry)
		event_free(a->retry);
	if (a->accept)
		event_free(a->accept);
	if (a->fd >= 0)
		close(a->fd);
	if (a->path)
		unlink(a->path);
	free(a->path);
	free(a->uids);
	free(a->packet);
	free(a);
}
