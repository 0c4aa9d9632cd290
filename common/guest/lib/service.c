/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The service thread: one connection at a time, for ever. It never touches a block, so it can
 * punch holes and hand out userfaultfds while every other thread waits for a page.
 */
#include "guest/lib/lib.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

static bool stopped(struct decant_guest *g)
{
	bool stop;

	pthread_mutex_lock(&g->lock);
	stop = g->stop;
	pthread_mutex_unlock(&g->lock);
	return stop;
}

/* One packet, waiting up to LIB_SEND_MS. Return: 0 or -errno */
static int send_packet(struct decant_guest *g, const struct gwire_msg *m, int fd)
{
	struct pollfd p = {.fd = g->sock, .events = POLLOUT};
	uint64_t until = lib_now_us() + LIB_SEND_MS * 1000;
	uint8_t buf[2048]; /* nothing that the library sends comes near it */
	ssize_t n = gwire_encode(m, buf, sizeof(buf));
	int ret;

	if (n < 0)
		return (int)n;
	while ((ret = gwire_send(g->sock, buf, (size_t)n, fd)) == -EAGAIN) {
		if (stopped(g) || lib_now_us() > until)
			return -ETIMEDOUT;
		if (poll(&p, 1, LIB_STREAM_POLL_MS) < 0 && errno != EINTR)
			return -errno;
	}
	return ret;
}

int lib_service_done(struct decant_guest *g, uint32_t id, int result, uint64_t detail, int fd,
		     const char *message)
{
	struct gwire_msg m = {.type = GWIRE_DONE, .nfds = fd >= 0, .id = id};

	m.u.done.result = result;
	m.u.done.detail = detail;
	snprintf(m.u.done.message, sizeof(m.u.done.message), "%s", message);
	return send_packet(g, &m, fd);
}

/* Return: a message's length, or -errno; waits for @ms at most. */
static ssize_t receive(struct decant_guest *g, int ms, int *ret_fd, pid_t *ret_pid)
{
	uint64_t until = lib_now_us() + (uint64_t)ms * 1000;
	struct pollfd p[2] = {{.fd = g->sock, .events = POLLIN}, {.fd = g->wake, .events = POLLIN}};
	eventfd_t count;
	ssize_t n;

	for (;;) {
		n = gwire_recv(g->sock, g->packet, ret_fd, ret_pid);
		if (n == -ECONNRESET) /* told before the packets that still wait in the queue */
			n = gwire_recv(g->sock, g->packet, ret_fd, ret_pid);
		if (n == 0)
			return -ECONNRESET;
		if (n != -EAGAIN)
			return n;
		if (stopped(g) || lib_now_us() >= until)
			return -ETIMEDOUT;
		if (poll(p, 2, LIB_STREAM_POLL_MS) < 0 && errno != EINTR)
			return -errno;
		eventfd_read(g->wake, &count); /* who woke us is served once we are attached */
	}
}

static int dial(struct decant_guest *g)
{
	struct sockaddr_un sa = {.sun_family = AF_UNIX};
	int on = 1;

	memcpy(sa.sun_path, g->path, sizeof(sa.sun_path));
	g->sock = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (g->sock < 0)
		return -errno;
	if (setsockopt(g->sock, SOL_SOCKET, SO_PASSCRED, &on, sizeof(on)) ||
	    connect(g->sock, (struct sockaddr *)&sa, sizeof(sa)))
		return -errno;
	return 0;
}

static int send_hello(struct decant_guest *g)
{
	struct gwire_msg m = {.type = GWIRE_HELLO};
	struct gwire_hello *h = &m.u.hello;

	h->version = GWIRE_VERSION;
	strcpy(h->name, g->name);
	memcpy(h->uuid, g->uuid, sizeof(h->uuid));
	h->generation = g->generation;
	h->has_token = g->has_token;
	memcpy(h->token, g->token, sizeof(h->token));
	pthread_mutex_lock(&g->lock);
	h->run_state = g->sent_state = lib_run_state(g);
	pthread_mutex_unlock(&g->lock);
	h->flags = (g->kept >= 0 ? GWIRE_HELLO_KEPT : 0) |
		   (g->flags & DECANT_GUEST_VCPUS ? GWIRE_HELLO_VCPUS : 0) |
		   (g->flags & DECANT_GUEST_USER_FAULTS ? GWIRE_HELLO_USER_FAULTS : 0);
	h->kept_tag = g->kept >= 0 ? g->kept_tag : 0;
	h->blocks = g->nblocks;
	return send_packet(g, &m, -1);
}

static int send_block(struct decant_guest *g, uint16_t i)
{
	const struct lib_block *b = &g->blocks[i];
	struct gwire_msg m = {.type = GWIRE_BLOCK, .nfds = b->fd >= 0};

	m.u.block = (struct gwire_block){
		.index = i,
		.kind = b->kind,
		.flags = b->flags,
		.length = b->length,
		.page_size = b->page_size,
		.address = (uintptr_t)b->addr,
	};
	strcpy(m.u.block.name, b->name);
	return send_packet(g, &m, b->fd);
}

static int send_introduction(struct decant_guest *g)
{
	struct gwire_msg end = {.type = GWIRE_HELLO_END};
	int ret = send_hello(g);

	for (uint16_t i = 0; !ret && i < g->nblocks; i++)
		ret = send_block(g, i);
	return ret ? ret : send_packet(g, &end, -1);
}

/* Return: 0 when welcome */
static int get_answer(struct decant_guest *g)
{
	struct gwire_msg m;
	const char *what;
	pid_t pid = 0;
	int fd;
	ssize_t n = receive(g, LIB_WELCOME_MS, &fd, &pid);

	if (n < 0)
		return (int)n;
	if (fd >= 0)
		close(fd);
	if (gwire_decode(g->packet, (size_t)n, g->ranges, &m, &what))
		return -EBADMSG;
	if (m.type == GWIRE_REFUSED) {
		lib_say(g, true, "refused by %s: %s (%s)", g->path, m.u.refused.message,
			m.u.refused.code);
		return -EACCES;
	}
	if (m.type != GWIRE_WELCOME || m.u.version != GWIRE_VERSION)
		return -EPROTO;
	if (pid >
	    0) /* Yama's leave to read our memory; without Yama this fails, and is not needed */
		prctl(PR_SET_PTRACER, (unsigned long)pid, 0, 0, 0);
	return 0;
}

static int attach(struct decant_guest *g)
{
	int ret = dial(g), sent;

	if (ret)
		return ret;
	sent = send_introduction(g);
	ret = get_answer(g); /* also after a failed send: a refusal may be why */
	return sent ? sent : ret;
}

static int tell_vcpus(struct decant_guest *g)
{
	struct gwire_msg m = {.type = GWIRE_VCPU};
	bool more = true;
	int ret = 0;

	while (!ret && more) {
		pthread_mutex_lock(&g->lock);
		more = lib_vcpu_next(g, &m.u.vcpu);
		pthread_mutex_unlock(&g->lock);
		if (more)
			ret = send_packet(g, &m, -1);
	}
	return ret;
}

/* STATE_CHANGED, then the callback thread's answers. */
static int flush(struct decant_guest *g)
{
	struct gwire_msg m = {.type = GWIRE_STATE_CHANGED};
	struct lib_result r;
	bool changed, more;
	int ret = 0;

	do {
		pthread_mutex_lock(&g->lock);
		m.u.run_state = lib_run_state(g);
		changed = m.u.run_state != g->sent_state;
		more = g->nresults > 0;
		if (more) {
			r = g->results[0];
			g->nresults--;
			memmove(g->results, g->results + 1, g->nresults * sizeof(g->results[0]));
			more = r.epoch == g->epoch;
		}
		pthread_mutex_unlock(&g->lock);
		if (changed) {
			g->sent_state = m.u.run_state;
			ret = send_packet(g, &m, -1);
		}
		if (more && !ret)
			ret = lib_service_done(g, r.id, r.result, r.detail, -1, r.message);
	} while (more && !ret);
	return ret;
}

static int handle(struct decant_guest *g)
{
	struct gwire_msg m;
	const char *what;
	int fd;
	ssize_t n = gwire_recv(g->sock, g->packet, &fd, NULL);

	if (n == 0)
		return -ECONNRESET;
	if (n < 0)
		return n == -EAGAIN ? 0 : (int)n;
	if (gwire_decode(g->packet, (size_t)n, g->ranges, &m, &what)) {
		lib_say(g, true, "%s from the agent: wrong %s", gwire_name(m.type), what);
		if (fd >= 0)
			close(fd);
		return -EBADMSG;
	}
	return lib_request_handle(g, &m, fd);
}

/* A load that failed ends decant_guest_start(), but not before the agent has been told. */
static void release_failed(struct decant_guest *g)
{
	pthread_mutex_lock(&g->lock);
	if (g->arrival == LIB_FAILED)
		lib_release(g, -EIO);
	pthread_mutex_unlock(&g->lock);
}

static int serve(struct decant_guest *g)
{
	struct pollfd p[2] = {{.fd = g->sock, .events = POLLIN}, {.fd = g->wake, .events = POLLIN}};
	eventfd_t count;
	int ms, ret;

	for (;;) {
		ms = lib_request_pause_bound(g);
		ret = flush(g);
		if (!ret)
			ret = tell_vcpus(g);
		release_failed(g);
		if (ret || stopped(g) || g->moved)
			return ret;
		if (poll(p, 2, ms) < 0 && errno != EINTR)
			return -errno;
		eventfd_read(g->wake, &count);
		ret = handle(g);
		if (ret)
			return ret;
	}
}

/*
 * A pause that was not answered is not one, the agent has learnt nothing of it; one that was
 * answered holds until some agent lifts it.
 */
static void detach(struct decant_guest *g)
{
	if (g->sock >= 0)
		close(g->sock);
	g->sock = -1;
	pthread_mutex_lock(&g->lock);
	g->epoch++;
	g->nresults = 0;
	lib_vcpu_forget(g);
	if (g->pausing) {
		g->pausing = false;
		g->hold = false;
	}
	pthread_cond_broadcast(&g->work);
	pthread_mutex_unlock(&g->lock);
	release_failed(g);
}

/* Return: whether to go on trying */
static bool refused(struct decant_guest *g)
{
	bool incoming;

	pthread_mutex_lock(&g->lock);
	/* With state loaded it may be the only copy that is left: then never give up. */
	incoming = g->arrival == LIB_INCOMING;
	if (incoming) {
		g->arrival = LIB_FAILED;
		lib_release(g, -EACCES);
	}
	pthread_mutex_unlock(&g->lock);
	return !incoming;
}

static void back_off(struct decant_guest *g, int *ms)
{
	struct pollfd p = {.fd = g->wake, .events = POLLIN};
	uint64_t until = lib_now_us() + (uint64_t)*ms * 1000;
	eventfd_t count;

	while (!stopped(g) && lib_now_us() < until) {
		if (poll(&p, 1, (int)((until - lib_now_us()) / 1000 + 1)) > 0)
			eventfd_read(g->wake, &count);
	}
	*ms = *ms * 2 > LIB_BACKOFF_LAST_MS ? LIB_BACKOFF_LAST_MS : *ms * 2;
}

void *lib_service_main(void *arg)
{
	struct decant_guest *g = arg;
	int ms = LIB_BACKOFF_FIRST_MS, ret;

	pthread_setname_np(pthread_self(), "decant-service");
	while (!stopped(g)) {
		ret = attach(g);
		if (!ret) {
			ms = LIB_BACKOFF_FIRST_MS;
			lib_say(g, false, "attached to %s", g->path);
			ret = serve(g);
			if (ret && !g->moved)
				lib_say(g, false, "lost %s: %s", g->path, strerrorname_np(-ret));
		}
		detach(g);
		if (ret == -EACCES && !refused(g))
			break;
		if (!g->moved)
			back_off(g, &ms);
		g->moved = false;
	}
	return NULL;
}
