/* SPDX-License-Identifier: Apache-2.0 */
/* A tick is a line that begins with '*', which nothing else that the guest says contains. */
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include "bench/qemu/versus.h"

uint64_t versus_now_us(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000 + (uint64_t)ts.tv_nsec / 1000;
}

/* Return: whether the console is still open */
static bool hear(struct versus_ear *ear, int fd, bool there)
{
	char buf[4096];
	ssize_t n = recv(fd, buf, sizeof(buf), MSG_DONTWAIT);
	uint64_t now = versus_now_us();

	if (n <= 0 || !memchr(buf, '*', (size_t)n))
		return n > 0;
	if (ear->tick_us && now - ear->tick_us > ear->gap_us)
		ear->gap_us = now - ear->tick_us;
	ear->tick_us = now;
	if (there && !ear->came_us)
		ear->came_us = now;
	return true;
}

static void *ear_main(void *arg)
{
	struct versus_ear *ear = arg;

	while (!ear->ends) {
		struct pollfd pfd[2] = {{.fd = ear->from, .events = POLLIN},
					{.fd = ear->to, .events = POLLIN}};

		poll(pfd, 2, 5);
		if (pfd[0].revents && !hear(ear, pfd[0].fd, false))
			ear->from = -1;
		if (pfd[1].revents && !hear(ear, pfd[1].fd, true))
			break;
	}
	return NULL;
}

void versus_ear_begin(struct versus_ear *ear, int from)
{
	*ear = (struct versus_ear){.from = from, .to = -1};
	pthread_create(&ear->thread, NULL, ear_main, ear);
}

void versus_ear_end(struct versus_ear *ear)
{
	ear->ends = true;
	pthread_join(ear->thread, NULL);
}
