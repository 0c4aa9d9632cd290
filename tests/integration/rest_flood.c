/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Clients that mean harm beside a migration: a hundred whose request never comes to an end, byte by byte, and others
 * that ask well, without a pause. Runs alone: it measures how long a migration takes.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>
#include "lib/lab_pace.h"
#include "lib/lab_test.h"

TestSuite(rest_flood, .timeout = 120);

/* Of each agent. */
#define DRIBBLERS 50
#define FLOODERS  8

/** struct client - @fd: -1 while there is no connection; @asks: it asks well; @at: of the request's next byte */
struct client {
	const char *sock;
	int fd;
	bool asks;
	size_t at;
};

static void come(struct client *c)
{
	struct sockaddr_un sa = {.sun_family = AF_UNIX};

	snprintf(sa.sun_path, sizeof(sa.sun_path), "%s", c->sock);
	c->at = 0;
	c->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (c->fd >= 0 && connect(c->fd, (struct sockaddr *)&sa, sizeof(sa)) < 0) {
		close(c->fd);
		c->fd = -1;
	}
}

static void go(struct client *c)
{
	close(c->fd);
	c->fd = -1;
}

static void ask(struct client *c)
{
	static const char request[] = "GET /v1/host HTTP/1.1\r\nHost: x\r\n\r\n";

	if (send(c->fd, request, strlen(request), MSG_NOSIGNAL) < 0 && errno != EAGAIN)
		go(c);
}

static void dribble(struct client *c)
{
	static const char head[] = "GET /v1/health HTTP/1.1\r\nX: ";

	if (send(c->fd, c->at < strlen(head) ? &head[c->at] : "y", 1, MSG_NOSIGNAL) < 0 &&
	    errno != EAGAIN)
		go(c);
	c->at++;
}

/* An answer, or the end: who asks well asks again at once. Return: answers */
static unsigned int hear(struct client *c)
{
	char text[8192];
	ssize_t n = read(c->fd, text, sizeof(text));

	if (n <= 0 && errno != EAGAIN)
		go(c);
	else if (n > 0 && c->asks)
		ask(c);
	return n > 0 && c->asks;
}

static void round_of(struct client *c, size_t n, bool dribbles)
{
	for (size_t i = 0; i < n; i++) {
		if (c[i].fd < 0) {
			come(&c[i]);
			if (c[i].fd >= 0 && c[i].asks)
				ask(&c[i]);
		} else if (dribbles && !c[i].asks) {
			dribble(&c[i]);
		}
	}
}

/* Until it is killed. @answers: shared, how many have come */
static void harm(const char *const socks[2], unsigned int *answers)
{
	static struct client c[2 * (DRIBBLERS + FLOODERS)];
	struct pollfd p[LAB_COUNT(c)];
	uint64_t next = 0;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	for (size_t i = 0; i < LAB_COUNT(c); i++)
		c[i] = (struct client){socks[i & 1], -1, i >= (size_t)2 * DRIBBLERS, 0};
	for (;;) {
		bool dribbles = lab_now_ms() >= next;

		if (dribbles)
			next = lab_now_ms() + 20;
		round_of(c, LAB_COUNT(c), dribbles);
		for (size_t i = 0; i < LAB_COUNT(c); i++)
			p[i] = (struct pollfd){.fd = c[i].fd, .events = POLLIN};
		poll(p, LAB_COUNT(c), 20);
		for (size_t i = 0; i < LAB_COUNT(c); i++)
			if (p[i].revents && c[i].fd >= 0)
				*answers += hear(&c[i]);
	}
}

/* Return: its milliseconds */
static uint64_t move(struct lab_host *from, struct lab_host *to, struct lab_guest *g)
{
	struct lab_move m = {.mode = "precopy"};
	uint64_t t = lab_now_ms();

	json_decref(lab_migrate(from, to, g, &m));
	t = lab_now_ms() - t;
	lab_guest_arrived(g, to);
	lab_host_knows(to, g->name);
	return t;
}

Test(rest_flood, harmful_clients_do_not_slow_a_migration)
{
	struct lab_host *a, *b;
	struct lab *lab = lab_test_pair(&a, &b);
	struct lab_guest *g =
		lab_guest_start(a, &(struct lab_guest_opts){.mb = 192, .threads = 1, .writes = 20});
	const char *socks[2] = {b->source_sock, a->dest_sock};
	unsigned int *answers = mmap(NULL, sizeof(*answers), PROT_READ | PROT_WRITE,
				     MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	uint64_t alone = move(a, b, g), beside;
	struct pace *pace = pace_start();
	pid_t pid = fork();

	if (!pid)
		harm(socks, answers);
	usleep(300000);
	beside = move(b, a, g);
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
	cr_log_info("alone %llu ms; beside %d endless requests and %u answers %llu ms",
		    (unsigned long long)alone, 2 * DRIBBLERS, *answers, (unsigned long long)beside);
	lab_check(lab, *answers > 100, "%u answers are no flood", *answers);
	lab_brisk(lab, pace, beside * 1000, 3 * alone * 1000 + 2000000, "beside harmful clients");
	pace_end(pace);
	lab_end(lab);
}
