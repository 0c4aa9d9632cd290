/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Processes that say to the attach sockets what no guest says: they are cut off, and guests beside them
 * come and go.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>
#include "lib/lab_hostile.h"
#include "lib/lab_test.h"

TestSuite(hostile_guest, .timeout = 120);

static int attach_to(const char *path)
{
	struct sockaddr_un sa = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);

	snprintf(sa.sun_path, sizeof(sa.sun_path), "%s", path);
	if (connect(fd, (struct sockaddr *)&sa, sizeof(sa)) == 0)
		return fd;
	close(fd);
	return -1;
}

static void send_noise(struct lab_host *h, const char *path, const char *sock)
{
	uint64_t state = 7;
	char what[32];

	for (int round = 0; round < 200; round++) {
		int fd = attach_to(path);
		uint8_t out[300];
		size_t n = hostile_random(&state) % sizeof(out);

		lab_check(h->lab, fd >= 0, "%s: %m", path);
		for (size_t i = 0; i < n; i++)
			out[i] = (uint8_t)hostile_random(&state);
		if (n >= 8 && round % 2) {
			hostile_put16(out, (uint16_t)(1 + round % 6));
			hostile_put16(out + 2, 0);
			hostile_put32(out + 4, 0);
		}
		send(fd, out, n, MSG_NOSIGNAL);
		/* It hangs up: at once, or because the hello does not come. */
		if (round % 50 == 1) {
			struct timeval tv = {.tv_sec = 15};

			setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof(tv));
			while (recv(fd, out, sizeof(out), 0) > 0)
				;
			lab_check(h->lab, errno != EAGAIN, "noise is kept waiting");
		}
		close(fd);
		snprintf(what, sizeof(what), "noise %d", round);
	}
	hostile_alive(h, sock, what);
}

Test(hostile_guest, attach)
{
	struct lab_host *a, *b;
	struct lab *lab = lab_test_pair(&a, &b);
	struct lab_guest *g;

	send_noise(a, a->attach, a->source_sock);
	send_noise(b, lab_host_path(b, "dest.attach"), b->dest_sock);
	/* A guest that nobody expects is refused at the destination. */
	g = lab_guest_start(a, &(struct lab_guest_opts){.mb = 8});
	json_decref(lab_migrate(a, b, g, &(struct lab_move){0}));
	lab_guest_arrived(g, b);
	lab_end(lab);
}
