/* SPDX-License-Identifier: Apache-2.0 */
/* For tests in which the test itself is the guest that attaches: messages as they are, good and bad. */
#ifndef DECANT_TESTS_ATTACH_PEER_H
#define DECANT_TESTS_ATTACH_PEER_H

#include "unit/guest_pair.h"

static struct pair p;
static int sock;
static uint8_t packet[GWIRE_PACKET_MAX];

static inline int dial(void)
{
	struct sockaddr_un sa = {.sun_family = AF_UNIX};
	int s = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);

	strcpy(sa.sun_path, p.path);
	cr_assert_eq(connect(s, (struct sockaddr *)&sa, sizeof(sa)), 0);
	fcntl(s, F_SETFL, O_NONBLOCK);
	return s;
}

static inline void start(void)
{
	pair_open(&p);
	sock = dial();
}

static inline void stop(void)
{
	close(sock);
	pair_spin(&p, 20);
	pair_close(&p);
}

static inline void redial(void)
{
	close(sock);
	sock = dial();
}

static inline int put(const struct gwire_msg *m, int fd)
{
	ssize_t n = gwire_encode(m, packet, sizeof(packet));

	cr_assert_gt(n, 0);
	return gwire_send(sock, packet, (size_t)n, fd);
}

/* The next message of the agent; type 0 when it has ended the connection. */
static inline struct gwire_msg take(void)
{
	struct gwire_msg m = {0};
	uint64_t until = clock_us() + PAIR_WAIT_MS * 1000ull;
	const char *what;
	ssize_t n;
	int fd = -1;

	do {
		pair_spin(&p, 1);
		n = gwire_recv(sock, packet, &fd, NULL);
		if (n == -ECONNRESET)
			n = gwire_recv(sock, packet, &fd, NULL);
		cr_assert_lt(clock_us(), until, "the agent says nothing");
	} while (n == -EAGAIN);
	if (fd >= 0)
		close(fd);
	if (n <= 0)
		return m;
	cr_assert_eq(gwire_decode(packet, (size_t)n, NULL, &m, &what), 0);
	return m;
}

static inline struct gwire_msg hello(uint16_t blocks)
{
	return (struct gwire_msg){
		.type = GWIRE_HELLO,
		.u.hello = {.version = 1, .name = "evil", .uuid = {1}, .blocks = blocks}};
}

static inline void say_hello(uint16_t blocks)
{
	struct gwire_msg m = hello(blocks);

	cr_assert_eq(put(&m, -1), 0);
}

static inline void say_end(void)
{
	struct gwire_msg m = {.type = GWIRE_HELLO_END};

	put(&m, -1);
}

static inline void attach(void)
{
	say_hello(0);
	say_end();
	cr_assert_eq(take().type, GWIRE_WELCOME);
	cr_assert(p.g);
}

#endif
