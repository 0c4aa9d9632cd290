/* SPDX-License-Identifier: Apache-2.0 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>
#include "lib/lab_line.h"
#include "lib/lab_relay.h"
#include "util/cleanup.h"

#define LINKS_MAX 256
#define LATER_MAX 4
#define ROOM      65536
/* Of loss: what one packet carries, when it is sent again, and for how long at most it is waited then. */
#define PACKET   1448
#define RTO_MS   200
#define RTO_MOST 3200

/* What the process is told; each is answered by a number. */
enum order {
	OPEN,
	ACCEPTED,
	CUT,
	CUT_ONE,
	SWALLOW,
	REFUSE,
	FLAP,
	CUT_AFTER,
	CUT_BEFORE,
	DELAY,
	LOSS,
	STALLS,
	LATER,
	WAITING
};

struct order_msg {
	enum order order;
	unsigned int arg;
	unsigned int more;
};

/**
 * struct link - one connection and what is on its way in it
 * @fd:		towards the source, towards the destination
 * @line:	line[i] came from fd[i] and goes to the other
 * @held_ms:	what comes from fd[i] is not handed on before
 * @ended:	fd[i] has sent its last byte; @told: and the other has been told
 * @says_left:	the destination may say something so often, less one; 0: as often as it likes
 * @stuck:	nothing is taken and nothing is told any more
 */
struct link {
	int fd[2];
	struct lab_line line[2];
	uint64_t held_ms[2];
	bool ended[2], told[2];
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
	unsigned int delay_ms;
	unsigned int loss;
	uint64_t dice;
	unsigned int stalls;
	uint64_t later_in;
	struct order_msg later[LATER_MAX];
	unsigned int nlater;
	bool listing;
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
		lab_line_free(&l->line[side]);
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
	for (int side = 0; side < 2; side++) {
		/* One wait on the way is enough. */
		setsockopt(l->fd[side], IPPROTO_TCP, TCP_NODELAY, &(int){1}, sizeof(int));
		if (!lab_line_init(&l->line[side]))
			abort();
	}
	r->links[r->n++] = l;
}

/* From here on orders are kept until @bytes have come; 0: the list is complete. */
static void list_later(struct relay *r, unsigned int bytes)
{
	r->listing = bytes > 0;
	if (!bytes)
		return;
	r->later_in = bytes;
	r->nlater = 0;
}

static unsigned int obey(struct relay *r, const struct order_msg *m)
{
	if (r->listing && m->order != LATER && m->order != WAITING) {
		if (r->nlater == LATER_MAX)
			abort();
		r->later[r->nlater++] = *m;
		return 0;
	}
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
	case DELAY:
		r->delay_ms = m->arg;
		break;
	case LOSS:
		r->loss = m->arg;
		r->dice = m->more * 0x9e3779b97f4a7c15ull + 1;
		break;
	case STALLS:
		return r->stalls;
	case LATER:
		list_later(r, m->arg);
		break;
	case WAITING:
		return r->nlater;
	}
	return r->n;
}

/* Bytes that come while the list is being made count, and what is on it waits until it is complete. */
static void obey_later(struct relay *r)
{
	unsigned int n = r->nlater;

	if (r->later_in != 1 || r->listing)
		return;
	r->later_in = 0;
	r->nlater = 0;
	for (unsigned int i = 0; i < n; i++)
		obey(r, &r->later[i]);
}

static void count_down(uint64_t *left, size_t n)
{
	if (*left)
		*left = *left > n ? *left - n : 1;
}

/* Return: whether it happens that has a chance of @of_million */
static bool happens(struct relay *r, unsigned int of_million)
{
	r->dice ^= r->dice << 13;
	r->dice ^= r->dice >> 7;
	r->dice ^= r->dice << 17;
	return r->dice % 1000000 < of_million;
}

/* A lost packet is sent again when its time is over, and may be lost once more: all behind it waits. */
static uint64_t due(struct relay *r, struct link *l, int side, size_t n)
{
	uint64_t now = lab_now_ms();

	for (size_t i = 0; r->loss && i < n; i += PACKET) {
		uint64_t wait = RTO_MS + 2 * r->delay_ms;

		if (!happens(r, r->loss))
			continue;
		while (wait < RTO_MOST && happens(r, 250000))
			wait *= 2;
		l->held_ms[side] = MAX(l->held_ms[side], now + wait + r->delay_ms);
		r->stalls++;
	}
	return MAX(now + r->delay_ms, l->held_ms[side]);
}

/* A wire without length holds what it is handing on, and no more. */
static size_t room(const struct relay *r, const struct link *l, int side, uint8_t **ret_at)
{
	size_t n = lab_line_room(&l->line[side], ret_at);

	if (!r->delay_ms && !r->loss && !lab_line_empty(&l->line[side]))
		return 0;
	return l->ended[side] ? 0 : MIN(n, (size_t)ROOM);
}

/* Return: false: the link is broken */
static bool bring(struct relay *r, struct link *l, int side)
{
	uint8_t *at;
	size_t most = room(r, l, side, &at);
	ssize_t n;

	if (!most)
		return true;
	n = recv(l->fd[side], at, most, MSG_DONTWAIT);
	if (n < 0)
		return errno == EAGAIN;
	l->ended[side] = n == 0;
	if (side == 0 && n > 0) {
		count_down(&r->cut_after, (size_t)n);
		count_down(&r->later_in, (size_t)n);
	}
	if (side == 1 && n > 0 && l->says_left && --l->says_left == 0)
		r->cut_after = 1;
	else if (n > 0)
		lab_line_put(&l->line[side], (size_t)n, due(r, l, side, (size_t)n));
	return true;
}

/* Return: whether the link still stands */
static bool carry(struct relay *r, struct link *l, int side, short revents, short other)
{
	struct lab_line *line = &l->line[side];
	uint8_t *at;
	size_t most;
	ssize_t n;

	if (revents & (POLLIN | POLLHUP | POLLERR) && !bring(r, l, side))
		return false;
	most = lab_line_due(line, lab_now_ms(), &at);
	if (other & POLLOUT && most) {
		n = send(l->fd[!side], at, most, MSG_DONTWAIT | MSG_NOSIGNAL);
		if (n < 0 && errno != EAGAIN)
			return false;
		lab_line_take(line, n > 0 ? (size_t)n : 0);
	}
	if (l->ended[side] && lab_line_empty(line) && !l->told[side]) {
		shutdown(l->fd[!side], SHUT_WR);
		l->told[side] = true;
	}
	return !l->told[0] || !l->told[1];
}

static short wants(const struct relay *r, const struct link *l, int side)
{
	short events = 0;
	uint8_t *at;

	if (l->stuck)
		return 0;
	if (room(r, l, side, &at))
		events |= POLLIN;
	if (lab_line_due(&l->line[!side], lab_now_ms(), &at))
		events |= POLLOUT;
	return events;
}

/* Return: milliseconds until something has to be done without being told */
static int patience(const struct relay *r)
{
	uint64_t ms = r->flap_ms ? 5 : 1000, now = lab_now_ms();

	for (unsigned int i = 0; i < r->n; i++)
		for (int side = 0; !r->links[i]->stuck && side < 2; side++) {
			uint64_t wait = lab_line_wait_ms(&r->links[i]->line[side], now);

			/* What is due waits for the socket. */
			if (wait)
				ms = MIN(ms, wait);
		}
	return (int)ms;
}

static void step(struct relay *r)
{
	struct pollfd fds[2 + 2 * LINKS_MAX] = {{.fd = r->orders, .events = POLLIN},
						{.fd = r->listener, .events = POLLIN}};
	unsigned int n = r->n;
	struct order_msg m;

	for (unsigned int i = 0; i < n; i++)
		for (int side = 0; side < 2; side++) {
			short events = wants(r, r->links[i], side);

			/* A hang-up would be told for ever. */
			fds[2 + 2 * i + (unsigned int)side] = (struct pollfd){
				.fd = events ? r->links[i]->fd[side] : -1, .events = events};
		}
	poll(fds, 2 + 2 * n, patience(r));
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
	obey_later(r);
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

static unsigned int tell2(struct lab_relay *r, enum order order, unsigned int arg,
			  unsigned int more)
{
	struct order_msg m = {order, arg, more};
	unsigned int answer = 0;

	lab_check(r->lab,
		  write(r->orders, &m, sizeof(m)) == sizeof(m) &&
			  read(r->orders, &answer, sizeof(answer)) == sizeof(answer),
		  "the relay does not answer: %m");
	return answer;
}

static unsigned int tell(struct lab_relay *r, enum order order, unsigned int arg)
{
	return tell2(r, order, arg, 0);
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

void lab_relay_later(struct lab_relay *r, unsigned int bytes)
{
	tell(r, LATER, bytes);
}

unsigned int lab_relay_waiting(struct lab_relay *r)
{
	return tell(r, WAITING, 0);
}

void lab_relay_delay(struct lab_relay *r, unsigned int ms)
{
	tell(r, DELAY, ms);
}

void lab_relay_loss(struct lab_relay *r, unsigned int of_million, unsigned int seed)
{
	tell2(r, LOSS, of_million, seed);
}

unsigned int lab_relay_stalls(struct lab_relay *r)
{
	return tell(r, STALLS, 0);
}
