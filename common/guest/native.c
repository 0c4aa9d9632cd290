/* SPDX-License-Identifier: Apache-2.0 */
#include "guest/native_impl.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "guest/attach_check.h"
#include "util/cleanup.h"
#include "util/clock.h"
#include "util/fdio.h"
#include "util/log.h"

static void report_gone(struct native *n, enum guest_gone how);

static void free_event(struct event **ev)
{
	if (*ev)
		event_free(*ev);
	*ev = NULL;
}

static void free_request(struct native_request *r)
{
	free_event(&r->timer);
	free(r);
}

static void free_out(struct native *n)
{
	while (n->out) {
		struct native_packet *p = n->out;

		n->out = p->next;
		if (p->fd >= 0)
			close(p->fd);
		free(p);
	}
}

static void disconnect(struct native *n)
{
	n->lost = true;
	free_event(&n->ev_read);
	free_event(&n->ev_write);
	free_out(n);
	if (n->sock >= 0)
		close(steal_fd(&n->sock));
}

static void destroy(struct native *n)
{
	disconnect(n);
	free_event(&n->ev_pidfd);
	free_event(&n->death);
	while (n->requests) {
		struct native_request *r = n->requests;

		n->requests = r->next;
		native_state_over(n, r->id);
		free_request(r);
	}
	for (size_t i = 0; i < n->g.nblocks; i++)
		fdio_close_apart(n->g.blocks[i].fd);
	if (n->g.pidfd >= 0)
		close(n->g.pidfd);
	free(n->g.blocks);
	free(n->packet);
	free(n);
}

void native_enter(struct native *n)
{
	n->depth++;
}

bool native_leave(struct native *n)
{
	if (--n->depth || !n->freed)
		return !n->freed;
	destroy(n);
	return false;
}

void native_free(struct guest *g)
{
	struct native *n = native_of(g);

	if (n->depth)
		n->freed = true;
	else
		destroy(n);
}

/* --- sending ------------------------------------------------------------------------------------ */

static int push_out(struct native *n, const uint8_t *data, size_t len, int fd)
{
	struct native_packet *p = malloc(sizeof(*p) + len), **at = &n->out;

	if (!p)
		return -ENOMEM;
	*p = (struct native_packet){.fd = -1, .len = len};
	memcpy(p->data, data, len);
	if (fd >= 0) {
		p->fd = dup(fd);
		if (p->fd < 0) {
			free(p);
			return -errno;
		}
	}
	while (*at)
		at = &(*at)->next;
	*at = p;
	return event_add(n->ev_write, NULL) ? -ENOMEM : 0;
}

int native_tell(struct native *n, const struct gwire_msg *m, int fd)
{
	ssize_t len = gwire_encode(m, n->packet, GWIRE_PACKET_MAX);
	int ret = -EAGAIN;

	if (n->lost)
		return -ECONNRESET;
	if (len < 0)
		return (int)len;
	if (!n->out)
		ret = gwire_send(n->sock, n->packet, (size_t)len, fd);
	if (ret == -EAGAIN)
		return push_out(n, n->packet, (size_t)len, fd);
	/* Of a broken connection the read event tells everybody, in one place. */
	return ret == -EPIPE || ret == -ECONNRESET ? 0 : ret;
}

static void on_writable(evutil_socket_t sock, short what, void *arg)
{
	struct native *n = arg;
	int ret = 0;

	(void)what;
	while (n->out && !ret) {
		struct native_packet *p = n->out;

		ret = gwire_send((int)sock, p->data, p->len, p->fd);
		if (ret == -EAGAIN)
			break;
		n->out = p->next;
		if (p->fd >= 0)
			close(p->fd);
		free(p);
	}
	if (n->out && ret == -EAGAIN)
		event_add(n->ev_write, NULL);
}

/* --- requests ----------------------------------------------------------------------------------- */

static struct native_request *find_request(struct native *n, uint32_t id)
{
	struct native_request *r = n->requests;

	while (r && r->id != id)
		r = r->next;
	return r;
}

static void unlink_request(struct native *n, struct native_request *r)
{
	struct native_request **at = &n->requests;

	while (*at != r)
		at = &(*at)->next;
	*at = r->next;
	n->nrequests--;
}

void native_complete(struct native *n, uint32_t id, int ret, const struct error *err, int fd)
{
	struct native_request *r = find_request(n, id);
	guest_done_fn *done = r ? r->done : NULL;
	void *arg = r ? r->arg : NULL;

	native_state_over(n, id);
	if (r) {
		r->done = NULL;
		free_event(&r->timer);
		if (r->answered) {
			unlink_request(n, r);
			free_request(r);
		}
	}
	if (done && !n->freed)
		done(arg, ret, err, fd);
	else if (fd >= 0)
		close(fd);
}

static void on_timeout(evutil_socket_t sock, short what, void *arg)
{
	struct native_request *r = arg;
	struct native *n = r->n;
	struct error err = {0};

	(void)sock;
	(void)what;
	native_enter(n);
	error_set(&err, -ETIMEDOUT, "guest-timeout", "guest %s did not answer %s in time",
		  n->g.name, gwire_name(r->type));
	native_ops_given_up(n, r);
	native_complete(n, r->id, -ETIMEDOUT, &err, -1);
	native_leave(n);
}

int native_ask(struct native *n, struct gwire_msg *m, int fd, unsigned int timeout_ms,
	       guest_done_fn *done, void *arg, struct native_request **ret_request)
{
	struct timeval tv = {.tv_sec = timeout_ms / 1000, .tv_usec = timeout_ms % 1000 * 1000};
	struct native_request *r, **at = &n->requests;
	int ret;

	if (n->lost)
		return -ECONNRESET;
	if (n->nrequests >= NATIVE_REQUESTS_MAX)
		return -EBUSY;
	r = calloc(1, sizeof(*r));
	if (!r)
		return -ENOMEM;
	*r = (struct native_request){.n = n, .type = m->type, .done = done, .arg = arg};
	r->id = ++n->next_id ? n->next_id : ++n->next_id;
	r->timer = evtimer_new(loop_base(n->g.loop), on_timeout, r);
	m->id = r->id;
	m->nfds = fd >= 0;
	ret = !r->timer || evtimer_add(r->timer, &tv) ? -ENOMEM : native_tell(n, m, fd);
	if (ret) {
		free_request(r);
		return ret;
	}
	while (*at)
		at = &(*at)->next;
	*at = r;
	n->nrequests++;
	if (ret_request)
		*ret_request = r;
	return 0;
}

/* --- receiving ---------------------------------------------------------------------------------- */

static void apply(struct native *n, const struct native_request *r, const struct gwire_done *d)
{
	struct guest *g = &n->g;

	switch (r->type) {
	case GWIRE_UFFD:
		g->uffd_how = d->detail <= GUEST_UFFD_USER_MODE ? (enum guest_uffd_how)d->detail
								: GUEST_UFFD_NONE;
		if (r->keep) {
			g->kept_uffd = true;
			g->kept_tag = r->tag;
		}
		break;
	case GWIRE_UFFD_CLOSE:
		g->kept_uffd = false;
		g->kept_tag = 0;
		break;
	case GWIRE_IDENTITY:
		memcpy(g->uuid, r->identity.uuid, sizeof(g->uuid));
		g->generation = r->identity.generation;
		break;
	}
}

static int on_done(struct native *n, const struct gwire_msg *m, int fd)
{
	struct native_request *r = find_request(n, m->id);
	const struct gwire_done *d = &m->u.done;
	bool is_uffd = r && (r->type == GWIRE_UFFD || r->type == GWIRE_UFFD_AGAIN);
	struct error err = {0};

	if (!r || (fd >= 0 && !is_uffd) || (is_uffd && !d->result && attach_check_uffd(fd))) {
		if (fd >= 0)
			close(fd);
		return -EPROTO;
	}
	r->answered = true;
	if (!d->result)
		apply(n, r, d);
	if (!r->done) {
		native_ops_late(n, r, d);
	} else if ((r->type == GWIRE_SAVE || r->type == GWIRE_LOAD) &&
		   !native_state_done(n, r->type, d)) {
		return 0; /* the rest of the pipe comes first */
	}
	if (d->result)
		error_set(&err, d->result, NULL, "guest %s: %s: %s", n->g.name, gwire_name(r->type),
			  d->message[0] ? d->message : strerror(-d->result));
	native_complete(n, m->id, d->result, &err, fd);
	return 0;
}

/* Return: 0, or -EPROTO for more than GUEST.md allows */
static int on_vcpu(struct guest *g, const struct gwire_vcpu *v)
{
	unsigned int i = 0;

	while (i < g->nvcpus && g->vcpus[i] != v->tid)
		i++;
	if (v->on == (i < g->nvcpus))
		return 0;
	if (v->on && (i == GUEST_VCPUS_MAX || !g->names_vcpus))
		return -EPROTO;
	if (v->on)
		g->vcpus[g->nvcpus++] = v->tid;
	else
		g->vcpus[i] = g->vcpus[--g->nvcpus];
	if (g->on_vcpu)
		g->on_vcpu(g->arg, g, v->tid, v->on);
	return 0;
}

/* A guest that never stops talking would have the loop to itself, turn by turn. */
static bool floods(struct native *n)
{
	uint64_t now = clock_us();

	if (now - n->told_us > 1000000) {
		n->told_us = now;
		n->told = 0;
	}
	if (++n->told <= NATIVE_TOLD_MAX)
		return false;
	log_warn("guest %s: more than %u messages in a second that nobody asked for", n->g.name,
		 NATIVE_TOLD_MAX);
	return true;
}

static int on_message(struct native *n, const struct gwire_msg *m, int fd)
{
	if (m->type == GWIRE_DONE)
		return on_done(n, m, fd);
	if (fd >= 0)
		close(fd);
	if (floods(n))
		return -EPROTO;
	if (m->type == GWIRE_VCPU)
		return on_vcpu(&n->g, &m->u.vcpu);
	if (m->type != GWIRE_STATE_CHANGED)
		return -EPROTO;
	if (n->g.run_state != m->u.run_state) {
		n->g.run_state = (enum guest_run_state)m->u.run_state;
		if (n->g.on_state)
			n->g.on_state(n->g.arg, &n->g);
	}
	return 0;
}

/* Return: 1 for a message, 0 for none, -errno for the end of the connection. */
static int read_one(struct native *n)
{
	struct gwire_msg m;
	const char *what;
	int fd, ret;
	ssize_t len = gwire_recv(n->sock, n->packet, &fd, NULL);

	if (len == -EAGAIN)
		return 0;
	if (len <= 0)
		return len < 0 ? (int)len : -ECONNRESET;
	ret = gwire_decode(n->packet, (size_t)len, NULL, &m, &what);
	if (ret) {
		log_warn("guest %s: %s: wrong %s", n->g.name, gwire_name(m.type), what);
		if (fd >= 0)
			close(fd);
		return ret;
	}
	ret = on_message(n, &m, fd);
	return ret ? ret : 1;
}

static bool process_ended(const struct native *n)
{
	struct pollfd p = {.fd = n->g.pidfd, .events = POLLIN};

	return poll(&p, 1, 0) > 0;
}

static void on_death_timeout(evutil_socket_t sock, short what, void *arg)
{
	struct native *n = arg;

	(void)sock;
	(void)what;
	report_gone(n, process_ended(n) ? GUEST_GONE_DEAD : GUEST_GONE_DISCONNECTED);
}

static void report_gone(struct native *n, enum guest_gone how)
{
	if (n->reported)
		return;
	n->reported = true;
	free_event(&n->ev_pidfd);
	if (n->death)
		evtimer_del(n->death);
	native_enter(n);
	if (n->g.on_gone)
		n->g.on_gone(n->g.arg, &n->g, how);
	native_leave(n);
}

/* All who wait are told at once; what became of the process may take a moment to be seen. */
static void lose(struct native *n, int ret)
{
	struct timeval tv = {.tv_usec = NATIVE_DEATH_MS * 1000};
	struct error err = {0};
	bool misbehaved = ret == -EBADMSG || ret == -EPROTO;

	disconnect(n);
	error_set(&err, -ECONNRESET, "guest-lost", "guest %s: %s", n->g.name,
		  misbehaved ? "it broke the attach protocol" : "the connection has ended");
	native_enter(n);
	while (n->requests) {
		n->requests->answered = true; /* nothing more can come */
		native_complete(n, n->requests->id, -ECONNRESET, &err, -1);
	}
	if (!native_leave(n))
		return;
	if (misbehaved)
		report_gone(n, GUEST_GONE_MISBEHAVED);
	else if (process_ended(n))
		report_gone(n, GUEST_GONE_DEAD);
	else if (evtimer_add(n->death, &tv))
		report_gone(n, GUEST_GONE_DISCONNECTED);
}

static void on_readable(evutil_socket_t sock, short what, void *arg)
{
	struct native *n = arg;
	int ret = 1;

	(void)sock;
	(void)what;
	native_enter(n);
	/* A few at a time: a guest that never stops talking must not keep the loop. */
	for (int i = 0; i < 16 && ret > 0 && !n->freed; i++)
		ret = read_one(n);
	if (ret < 0 && !n->freed)
		lose(n, ret);
	native_leave(n);
}

static void on_pidfd(evutil_socket_t sock, short what, void *arg)
{
	struct native *n = arg;

	(void)sock;
	(void)what;
	native_enter(n);
	if (!n->lost) /* what it said before it died is still worth hearing */
		on_readable(n->sock, EV_READ, n);
	if (!n->freed && !n->lost)
		lose(n, -ECONNRESET);
	if (!n->freed)
		report_gone(n, GUEST_GONE_DEAD);
	native_leave(n);
}

struct guest *native_new(struct loop *loop)
{
	struct native *n = calloc(1, sizeof(*n));

	if (!n)
		return NULL;
	n->g.ops = &native_ops;
	n->g.driver = "native";
	n->g.loop = loop;
	n->g.pidfd = -1;
	n->sock = n->save.fd = n->load.fd = -1;
	n->packet = malloc(GWIRE_PACKET_MAX);
	if (!n->packet) {
		free(n);
		return NULL;
	}
	return &n->g;
}

int native_start(struct guest *g, int sock)
{
	struct event_base *base = loop_base(g->loop);
	struct native *n = native_of(g);

	n->ev_read = event_new(base, sock, EV_READ | EV_PERSIST, on_readable, n);
	n->ev_write = event_new(base, sock, EV_WRITE, on_writable, n);
	n->ev_pidfd = event_new(base, g->pidfd, EV_READ, on_pidfd, n);
	n->death = evtimer_new(base, on_death_timeout, n);
	if (!n->ev_read || !n->ev_write || !n->ev_pidfd || !n->death)
		return -ENOMEM;
	n->sock = sock;
	return 0;
}

void native_welcome(struct guest *g)
{
	const struct gwire_msg welcome = {.type = GWIRE_WELCOME, .u.version = GWIRE_VERSION};
	struct native *n = native_of(g);

	if (!native_tell(n, &welcome, -1) && !event_add(n->ev_read, NULL) &&
	    !event_add(n->ev_pidfd, NULL))
		return;
	disconnect(n);
	event_active(n->death, EV_TIMEOUT, 1);
}
