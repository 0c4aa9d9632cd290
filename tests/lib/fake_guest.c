/* SPDX-License-Identifier: Apache-2.0 */
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
#include <unistd.h>

#include "guest/gwire.h"
#include "lib/fake_guest.h"
#include "uffd/uffd.h"

#define LENGTH (4u << 20)

/** struct rogue - the process */
struct rogue {
	enum guest_sin sin;
	const char *name;
	int sock;
	int memfd;
	uint8_t *mem;
	uint8_t packet[GWIRE_PACKET_MAX];
};

static void must(bool ok, const char *what)
{
	if (ok)
		return;
	perror(what);
	_exit(1);
}

/* Return: 0, or -errno when it was cut off */
static int put(struct rogue *r, const struct gwire_msg *m, int fd)
{
	ssize_t n = gwire_encode(m, r->packet, sizeof(r->packet));

	must(n > 0, "encode");
	return gwire_send(r->sock, r->packet, (size_t)n, fd);
}

/* --- hello --- */

static void make_memory(struct rogue *r)
{
	r->memfd = memfd_create("rogue", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	must(r->memfd >= 0 && !ftruncate(r->memfd, LENGTH), "memfd");
	if (r->sin != GUEST_UNSEALED)
		must(!fcntl(r->memfd, F_ADD_SEALS, F_SEAL_SHRINK), "seal");
	r->mem = mmap(NULL, LENGTH, PROT_READ | PROT_WRITE, MAP_SHARED, r->memfd, 0);
	must(r->mem != MAP_FAILED, "mmap");
	memset(r->mem, 7, LENGTH);
}

/* What gwire_send() would not send. */
static void send_two_fds(struct rogue *r, const uint8_t *packet, size_t n)
{
	struct iovec iov = {(void *)packet, n};
	union {
		char bytes[CMSG_SPACE(2 * sizeof(int))];
		struct cmsghdr align;
	} control = {0};
	struct msghdr msg = {.msg_iov = &iov,
			     .msg_iovlen = 1,
			     .msg_control = control.bytes,
			     .msg_controllen = sizeof(control.bytes)};
	struct cmsghdr *c = CMSG_FIRSTHDR(&msg);
	int fds[2] = {r->memfd, r->memfd};

	c->cmsg_level = SOL_SOCKET;
	c->cmsg_type = SCM_RIGHTS;
	c->cmsg_len = CMSG_LEN(sizeof(fds));
	memcpy(CMSG_DATA(c), fds, sizeof(fds));
	must(sendmsg(r->sock, &msg, MSG_NOSIGNAL) > 0, "sendmsg");
}

static void say_block(struct rogue *r)
{
	struct gwire_msg m = {.type = GWIRE_BLOCK,
			      .nfds = 1,
			      .u.block = {.flags = GWIRE_BLOCK_NO_DMA,
					  .length = LENGTH,
					  .page_size = 4096,
					  .address = (uintptr_t)r->mem,
					  .name = "ram"}};
	ssize_t n = gwire_encode(&m, r->packet, sizeof(r->packet));
	int p[2];

	must(n > 0 && !pipe(p), "block");
	switch (r->sin) {
	case GUEST_NO_FD:
		gwire_send(r->sock, r->packet, (size_t)n, -1);
		break;
	case GUEST_TWO_FDS:
		send_two_fds(r, r->packet, (size_t)n);
		break;
	case GUEST_PIPE:
		gwire_send(r->sock, r->packet, (size_t)n, p[0]);
		break;
	case GUEST_CUT:
		gwire_send(r->sock, r->packet, (size_t)n / 2, r->memfd);
		break;
	default:
		gwire_send(r->sock, r->packet, (size_t)n, r->memfd);
	}
}

static void say_hello(struct rogue *r)
{
	struct gwire_msg m = {.type = GWIRE_HELLO,
			      .u.hello = {.version = 1,
					  .uuid = {0xbad & 0xff, (uint8_t)getpid()},
					  .flags = GWIRE_HELLO_USER_FAULTS,
					  .blocks = 1}};

	snprintf(m.u.hello.name, sizeof(m.u.hello.name), "%s", r->name);
	put(r, &m, -1);
	say_block(r);
	m = (struct gwire_msg){.type = GWIRE_HELLO_END};
	put(r, &m, -1);
}

/* --- requests --- */

static void done(struct rogue *r, uint32_t id, int result, uint64_t detail, int fd)
{
	struct gwire_msg m = {.type = GWIRE_DONE,
			      .id = id,
			      .nfds = fd >= 0,
			      .u.done = {.result = result, .detail = detail}};

	put(r, &m, fd);
}

static void on_uffd(struct rogue *r, uint32_t id)
{
	int p[2], fd;

	if (r->sin == GUEST_EXITS_UFFD)
		_exit(0);
	must(!pipe(p), "pipe");
	fd = r->sin == GUEST_NOT_UFFD ? p[0] : uffd_open(true, NULL);
	done(r, id, 0, 3, fd);
	close(fd);
	if (r->sin != GUEST_EXITS_TRACKED)
		return;
	usleep(30000);
	_exit(0);
}

static void on_save(struct rogue *r, uint32_t id, int pipe_fd)
{
	static uint8_t lots[1 << 20];
	uint64_t n = 0;

	if (r->sin == GUEST_EXITS_SAVE)
		_exit(0);
	while (r->sin == GUEST_STATE_ENDLESS && n < 1ull << 30) {
		ssize_t k = write(pipe_fd, lots, sizeof(lots));

		if (k <= 0)
			break;
		n += (uint64_t)k;
	}
	if (r->sin != GUEST_STATE_ENDLESS)
		n = (uint64_t)write(pipe_fd, lots, 1000);
	close(pipe_fd);
	done(r, id, 0, n + (r->sin == GUEST_STATE_LIES), -1);
	if (r->sin == GUEST_EXITS_SAVED)
		_exit(0);
}

static void flood(struct rogue *r)
{
	struct gwire_msg m = {.type = GWIRE_STATE_CHANGED};

	while (!put(r, &m, -1))
		m.u.run_state ^= 1;
}

static void on_welcome(struct rogue *r)
{
	switch (r->sin) {
	case GUEST_EXITS_WELCOME:
		_exit(0);
	case GUEST_UNMAPS:
		munmap(r->mem, LENGTH);
		break;
	case GUEST_UNASKED:
		done(r, 12345, 0, 0, -1);
		break;
	case GUEST_FLOODS:
		flood(r);
		break;
	default:
		break;
	}
}

static void obey(struct rogue *r, const struct gwire_msg *m, int fd)
{
	printf("%s\n", gwire_name(m->type));
	fflush(stdout);
	switch (m->type) {
	case GWIRE_WELCOME:
		on_welcome(r);
		break;
	case GWIRE_REFUSED:
		printf("refused: %s: %s\n", m->u.refused.code, m->u.refused.message);
		fflush(stdout);
		_exit(0);
	case GWIRE_UFFD:
		on_uffd(r, m->id);
		break;
	case GWIRE_PAUSE:
		if (r->sin == GUEST_EXITS_PAUSE)
			_exit(0);
		if (r->sin != GUEST_DEAF)
			done(r, m->id, 0, 1, -1);
		break;
	case GWIRE_SAVE:
		on_save(r, m->id, fd);
		break;
	case GWIRE_QUIT:
		done(r, m->id, 0, 0, -1);
		_exit(0);
	default:
		if (m->id)
			done(r, m->id, 0, 0, -1);
	}
}

static void rogue_main(struct rogue *r)
{
	struct pollfd p = {.fd = r->sock, .events = POLLIN};
	struct gwire_msg m;
	const char *what;
	int fd;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	make_memory(r);
	say_hello(r);
	for (;;) {
		ssize_t n;

		if (r->sin == GUEST_PUNCHES) {
			fallocate(r->memfd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, LENGTH);
			memset(r->mem, 9, LENGTH / 2);
		}
		if (poll(&p, 1, r->sin == GUEST_PUNCHES ? 0 : -1) <= 0)
			continue;
		n = gwire_recv(r->sock, r->packet, &fd, NULL);
		if (n ==
		    -ECONNRESET) /* because of what was not heard; what was said comes behind */
			n = gwire_recv(r->sock, r->packet, &fd, NULL);
		if (n <= 0)
			_exit(0);
		must(!gwire_decode(r->packet, (size_t)n, NULL, &m, &what) || m.type, "decode");
		obey(r, &m, fd);
	}
}

struct lab_proc *fake_guest_start(struct lab_host *h, const char *name, enum guest_sin sin)
{
	struct sockaddr_un sa = {.sun_family = AF_UNIX};
	char path[LAB_PATH_MAX + LAB_NAME_MAX + 16];
	struct rogue *r;
	pid_t pid;

	snprintf(sa.sun_path, sizeof(sa.sun_path), "%.100s", h->attach);
	snprintf(path, sizeof(path), "%s/%s.out", h->lab->root, name);
	fflush(NULL);
	pid = fork();
	lab_check(h->lab, pid >= 0, "fork: %m");
	if (pid == 0) {
		r = calloc(1, sizeof(*r));
		r->sin = sin;
		r->name = name;
		must(freopen(path, "w", stdout), path);
		/* The agent knows a guest by the process that connected. */
		r->sock = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
		must(!connect(r->sock, (struct sockaddr *)&sa, sizeof(sa)), "connect");
		rogue_main(r);
	}
	return lab_lend(h->lab, name, pid);
}
