/* SPDX-License-Identifier: Apache-2.0 */
#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>
#include "lib/lab_relay.h"

#define LINKS_MAX 256
#define ROOM      65536

/* What the process is told; each is answered by a number. */
enum order { OPEN, ACCEPTED, CUT, CUT_ONE, SWALLOW, REFUSE, FLAP, CUT_AFTER, CUT_BEFORE };

struct order_msg {
	enum order order;
	unsigned int arg;
};

/**
 * struct link - one connection and what is on its way in it
 * @fd:		towards the source, towards the destination
 * @buf, @from, @to: [from, to) of buf[i] came from fd[i] and goes to the other
 * @ended:	fd[i] has sent its last byte
 * @says_left:	the destination may say something so often, less one; 0: as often as it likes
 * @stuck:	nothing is taken and nothing is told any more
 */
struct link {
	int fd[2];
	uint8_t *buf[2];
	size_t from[2], to[2];
	bool ended[2];
	unsigned int says_left;
	bool stuck;
};

struct relay {
	struct sockaddr_in target;
	int listener;
	int orders;
	struct link *links[LINKS_MAX];
	unsigned int n, accepted;
	bool refuse;
	unsigned int flap_ms;
	uint64_t flap_next;
	uint64_t cut_after;
	unsigned int cut_before;
};

struct lab_relay {
	struct lab *lab;
	int orders;
};

static void reset(int fd)
{
	struct linger now = {.l_onoff = 1};

	setsockopt(fd, SOL_SOCKET, SO_LINGER, &now, sizeof(now));
	close(fd);
}

static void drop(struct relay *r, unsigned int i, bool by_reset)
{
	struct link *l = r->links[i];

	for (int side = 0; side < 2; side++) {
		if (by_reset)
			reset(l->fd[side]);
		else
			close(l->fd[side]);
		free(l->buf[side]);
	}
	free(l);
	memmove(&r->links[i], &r->links[i + 1], (--r->n - i) * sizeof(r->links[0]));
}

static void cut(struct relay *r)
{
	while (r->n)
		drop(r, 0, true);
}

static void take(struct relay *r)
{
	int fd = accept4(r->listener, NULL, NULL, SOCK_CLOEXEC), out;
	struct link *l;

	if (fd < 0)
		return;
	r->accepted++;
	out = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (r->refuse || r->n == LINKS_MAX || out < 0 ||
	    connect(out, (struct sockaddr *)&r->target, sizeof(r->target)) != 0) {
		reset(fd);
		close(out);
		return;
	}
	l = calloc(1, sizeof(*l));
	l->fd[0] = fd;
	l->fd[1] = out;
	l->says_left = r->cut_before;
	r->cut_before = 0;
	l->buf[0] = malloc(ROOM);
	l->buf[1] = malloc(ROOM);
	r->links[r->n++] = l;
}

static unsigned int obey(struct relay *r, const struct order_msg *m)
{
	switch (m->order) {
	case OPEN:
		return r->n;
	case ACCEPTED:
		return r->accepted;
	case CUT:
		cut(r);
		break;
	case CUT_ONE:
		if (m->arg < r->n)
			drop(r, m->arg, true);
		break;
	case SWALLOW:
		for (unsigned int i = 0; i < r->n; i++)
			r->links[i]->stuck = true;
		break;
	case REFUSE:
		r->refuse = m->arg;
		break;
	case FLAP:
		r->flap_ms = m->arg;
		r->flap_next = lab_now_ms() + m->arg;
		break;
	case CUT_AFTER:
		r->cut_after = m->arg;
		break;
	case CUT_BEFORE:
		r->cut_before = m->arg;
		break;
	}
	return r->n;
}

/* Return: whether the link still stands */
static bool carry(struct relay *r, struct link *l, int side, short revents, short other)
{
	ssize_t n;

	if (revents & (POLLIN | POLLHUP | POLLERR) && l->from[side] == l->to[side] &&
	    !l->ended[side]) {
		n = recv(l->fd[side], l->buf[side], ROOM, MSG_DONTWAIT);
		if (n < 0 && errno != EAGAIN)
			return false;
		l->ended[side] = n == 0;
		l->from[side] = 0;
		l->to[side] = n > 0 ? (size_t)n : 0;
		if (side == 1 && n > 0 && l->says_left && --l->says_left == 0) {
			r->cut_after = 1;
			l->to[1] = 0;
		}
		if (side == 0 && n > 0 && r->cut_after)
			r->cut_after = r->cut_after > (uint64_t)n ? r->cut_after - (uint64_t)n : 1;
		if (l->ended[side])
			shutdown(l->fd[!side], SHUT_WR);
	}
	if (other & POLLOUT && l->from[side] < l->to[side]) {
		n = send(l->fd[!side], l->buf[side] + l->from[side], l->to[side] - l->from[side],
			 MSG_DONTWAIT | MSG_NOSIGNAL);
		if (n < 0 && errno != EAGAIN)
			return false;
		l->from[side] += n > 0 ? (size_t)n : 0;
	}
	return !l->ended[0] || !l->ended[1];
}

static short wants(const struct link *l, int side)
{
	short events = 0;

	if (l->stuck)
		return 0;
	if (l->from[side] == l->to[side] && !l->ended[side])
		events |= POLLIN;
	if (l->from[!side] < l->to[!side])
		events |= POLLOUT;
	return events;
}

static void step(struct relay *r)
{
	struct pollfd fds[2 + 2 * LINKS_MAX] = {{.fd = r->orders, .events = POLLIN},
						{.fd = r->listener, .events = POLLIN}};
	unsigned int n = r->n;
	struct order_msg m;

	for (unsigned int i = 0; i < n; i++)
		for (int side = 0; side < 2; side++) {
			short events = wants(r->links[i], side);

			/* A hang-up would be told for ever. */
			fds[2 + 2 * i + (unsigned int)side] = (struct pollfd){
				.fd = events ? r->links[i]->fd[side] : -1, .events = events};
		}
	poll(fds, 2 + 2 * n, r->flap_ms ? 5 : 1000);
	for (unsigned int i = n; i-- > 0;) {
		const struct pollfd *p = &fds[2 + 2 * i];

		if (!carry(r, r->links[i], 0, p[0].revents, p[1].revents) ||
		    !carry(r, r->links[i], 1, p[1].revents, p[0].revents))
			drop(r, i, true);
	}
	if (r->cut_after == 1) {
		r->cut_after = 0;
		cut(r);
	}
	if (r->flap_ms && lab_now_ms() >= r->flap_next) {
		r->flap_next = lab_now_ms() + r->flap_ms;
		cut(r);
	}
	if (fds[1].revents)
		take(r);
	if (fds[0].revents) {
		unsigned int answer;

		if (read(r->orders, &m, sizeof(m)) != sizeof(m))
			_exit(0);
		answer = obey(r, &m);
		if (write(r->orders, &answer, sizeof(answer)) < 0)
			_exit(1);
	}
}

struct lab_relay *lab_relay_new(struct lab_host *h)
{
	struct sockaddr_in sin = {.sin_family = AF_INET};
	struct relay r = {.target = {.sin_family = AF_INET, .sin_port = htons(h->port)}};
	struct lab_relay *ret = calloc(1, sizeof(*ret));
	socklen_t len = sizeof(sin);
	int pair[2];
	pid_t pid;

	ret->lab = h->lab;
	inet_pton(AF_INET, h->address, &r.target.sin_addr);
	inet_pton(AF_INET, h->address, &sin.sin_addr);
	r.listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	lab_check(h->lab,
		  r.listener >= 0 && !bind(r.listener, (struct sockaddr *)&sin, sizeof(sin)) &&
			  !listen(r.listener, 64) &&
			  !getsockname(r.listener, (struct sockaddr *)&sin, &len) &&
			  !socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair),
		  "relay: %m");
	r.orders = pair[1];
	ret->orders = pair[0];
	pid = fork();
	if (!pid) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		close(pair[0]);
		for (;;)
			step(&r);
	}
	lab_lend(h->lab, "relay", pid);
	close(pair[1]);
	close(r.listener);
	snprintf(h->to, sizeof(h->to), "%s:%u", h->address, ntohs(sin.sin_port));
	return ret;
}

void lab_relay_free(struct lab_relay *r)
{
	close(r->orders);
	free(r);
}

static unsigned int tell(struct lab_relay *r, enum order order, unsigned int arg)
{
	struct order_msg m = {order, arg};
	unsigned int answer = 0;

	lab_check(r->lab,
		  write(r->orders, &m, sizeof(m)) == sizeof(m) &&
			  read(r->orders, &answer, sizeof(answer)) == sizeof(answer),
		  "the relay does not answer: %m");
	return answer;
}

unsigned int lab_relay_open(struct lab_relay *r)
{
	return tell(r, OPEN, 0);
}

unsigned int lab_relay_accepted(struct lab_relay *r)
{
	return tell(r, ACCEPTED, 0);
}

void lab_relay_cut(struct lab_relay *r)
{
	tell(r, CUT, 0);
}

void lab_relay_cut_one(struct lab_relay *r, unsigned int i)
{
	tell(r, CUT_ONE, i);
}

void lab_relay_swallow(struct lab_relay *r)
{
	tell(r, SWALLOW, 0);
}

void lab_relay_refuse(struct lab_relay *r, bool refuse)
{
	tell(r, REFUSE, refuse);
}

void lab_relay_flap(struct lab_relay *r, unsigned int ms)
{
	tell(r, FLAP, ms);
}

void lab_relay_cut_after(struct lab_relay *r, unsigned int bytes)
{
	tell(r, CUT_AFTER, bytes);
}

void lab_relay_cut_before(struct lab_relay *r, unsigned int nth)
{
	tell(r, CUT_BEFORE, nth);
}
