/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Clients of the API that never come to an end of what they say: almost all connections that both agents take, a byte
 * on each from time to time, while a guest moves. Others are answered meanwhile, and the migration does not notice.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>
#include "lib/lab_hostile.h"
#include "lib/lab_pace.h"
#include "lib/lab_test.h"

TestSuite(hostile_slow, .timeout = 120);

/* A listener takes 64 connections (rest_server.h), and who comes then is told so. */
#define CROWD 50

/**
 * struct crowd - slow clients of one socket
 * @fd:		-1: none
 * @opened:	how many have ever been; @closed: by the agent
 */
struct crowd {
	const char *sock;
	int fd[CROWD];
	unsigned int opened, closed;
};

static int open_one(const char *sock)
{
	struct sockaddr_un sun = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	snprintf(sun.sun_path, sizeof(sun.sun_path), "%s", sock);
	if (fd >= 0 && connect(fd, (struct sockaddr *)&sun, sizeof(sun))) {
		close(fd);
		fd = -1;
	}
	return fd;
}

/* Who is thrown out comes again. */
static void say_a_byte(struct crowd *c, unsigned int i)
{
	static const char begin[] = "POST /v1/migrations HTTP/1.1\r\nHost: x\r\nX-Slow: ";
	char byte = 'a';

	if (c->fd[i] >= 0) {
		if (send(c->fd[i], &byte, 1, MSG_NOSIGNAL) == 1 || errno == EAGAIN)
			return;
		c->closed++;
		close(c->fd[i]);
	}
	c->fd[i] = open_one(c->sock);
	c->opened += c->fd[i] >= 0;
	if (c->fd[i] >= 0 && send(c->fd[i], begin, strlen(begin), MSG_NOSIGNAL) < 0)
		c->closed++;
}

static void crowd_begin(struct crowd *c, const char *sock)
{
	*c = (struct crowd){.sock = sock};
	for (unsigned int i = 0; i < CROWD; i++)
		c->fd[i] = -1;
}

static void crowd_end(struct crowd *c)
{
	for (unsigned int i = 0; i < CROWD; i++)
		if (c->fd[i] >= 0)
			close(c->fd[i]);
}

static uint64_t asked_ms(struct lab *lab, const char *sock)
{
	uint64_t since = lab_now_ms();

	lab_check(lab, lab_http(sock, "GET", "/v1/host", NULL, NULL) == 200, "%s answers nobody",
		  sock);
	return lab_now_ms() - since;
}

Test(hostile_slow, api)
{
	struct lab_host *a, *b;
	struct lab *lab = lab_test_pair(&a, &b);
	struct lab_beside beside = lab_beside_begin(a, b, 4000);
	struct lab_watch source = lab_watch_begin(lab, a->source);
	struct lab_watch dest = lab_watch_begin(lab, b->dest);
	uint64_t longest = 0;
	struct crowd c[2];

	crowd_begin(&c[0], a->source_sock);
	crowd_begin(&c[1], b->dest_sock);
	while (lab_beside_moves(&beside)) {
		for (unsigned int i = 0; i < CROWD; i++) {
			say_a_byte(&c[0], i);
			say_a_byte(&c[1], i);
		}
		for (unsigned int k = 0; k < 2; k++) {
			uint64_t ms = asked_ms(lab, c[k].sock);

			longest = ms > longest ? ms : longest;
		}
		usleep(200000);
	}
	lab_check(lab, c[0].opened >= CROWD && c[1].opened >= CROWD, "%u and %u connections",
		  c[0].opened, c[1].opened);
	fprintf(stderr, "%u and %u slow ones, %u and %u thrown out, others answered in %lu ms\n",
		c[0].opened, c[1].opened, c[0].closed, c[1].closed, longest);
	lab_soon(lab, beside.pace, longest * 1000, 2000000, "somebody else waited");
	crowd_end(&c[0]);
	crowd_end(&c[1]);
	lab_beside_end(&beside);
	lab_watch_end(&source, "slow clients of the source", &(struct lab_cost){.cpu_percent = 80});
	lab_watch_end(&dest, "slow clients of the destination",
		      &(struct lab_cost){.cpu_percent = 80});
	lab_end(lab);
}
