/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the platform proofs share: facts, a guest process that touches memory on request, and bare
 * system calls. Nothing of decant is used, so that a proof says something about the kernel only.
 *
 * A program prints one line for each fact. It exits 0 if all that could be tried hold, 1 if one does
 * not, 77 if nothing could be tried.
 */
#ifndef DECANT_TESTS_PLATFORM_H
#define DECANT_TESTS_PLATFORM_H

#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define PAGE         4096ul
#define UNUSED       __attribute__((unused))
#define WP_UNPOP     (1ull << 13)
#define WP_ASYNC     (1ull << 15)
#define USER_ONLY    1
#define SCAN_WRITTEN 2ull
#define SCAN_PRESENT 8ull
#define SCAN_SWAPPED 16ull

struct scan_run {
	uint64_t start, end, categories;
};

struct scan_arg {
	uint64_t size, flags, start, end, walk_end, vec, vec_len, max_pages;
	uint64_t inverted, mask, anyof, ret;
};

/* --- facts --- */

static int facts_held, facts_failed;

__attribute__((format(printf, 2, 3))) UNUSED static bool fact(bool holds, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	fputs(holds ? "holds   " : "FAILS   ", stdout);
	vprintf(fmt, ap);
	putchar('\n');
	fflush(stdout);
	va_end(ap);
	if (holds)
		facts_held++;
	else
		facts_failed++;
	return holds;
}

/* What was measured or found, where nothing leans on it. */
__attribute__((format(printf, 1, 2))) UNUSED static void note(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	fputs("note    ", stdout);
	vprintf(fmt, ap);
	putchar('\n');
	va_end(ap);
}

__attribute__((format(printf, 1, 2))) UNUSED static void untried(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	fputs("untried ", stdout);
	vprintf(fmt, ap);
	putchar('\n');
	fflush(stdout);
	va_end(ap);
}

static int facts_end(void)
{
	return facts_failed ? 1 : facts_held ? 0 : 77;
}

/* The ground under a proof gave way: not a fact about the platform, so never a success. */
#define must(cond)                                                                   \
	do {                                                                         \
		if (!(cond)) {                                                       \
			printf("FAILS   %s:%d: %s: %s\n", __FILE__, __LINE__, #cond, \
			       strerror(errno));                                     \
			exit(1);                                                     \
		}                                                                    \
	} while (0)

/* --- small helpers --- */

UNUSED static uint64_t now_us(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000 + (uint64_t)t.tv_nsec / 1000;
}

UNUSED static void sleep_us(uint64_t us)
{
	struct timespec t = {.tv_sec = (time_t)(us / 1000000),
			     .tv_nsec = (long)(us % 1000000) * 1000};

	nanosleep(&t, NULL);
}

UNUSED static uint64_t addr_of(const void *p)
{
	return (uint64_t)(uintptr_t)p;
}

UNUSED static uint8_t *map_anon(size_t len)
{
	uint8_t *p = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	must(p != MAP_FAILED);
	madvise(p, len, MADV_NOHUGEPAGE);
	return p;
}

UNUSED static uint8_t *map_file(int fd, size_t len)
{
	uint8_t *p = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

	must(p != MAP_FAILED);
	return p;
}

UNUSED static int new_memfd(size_t len)
{
	int fd = memfd_create("proof", MFD_CLOEXEC | MFD_ALLOW_SEALING);

	must(fd >= 0 && ftruncate(fd, (off_t)len) == 0);
	return fd;
}

UNUSED static int punch(int fd, uint64_t off, uint64_t len)
{
	return fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)off, (off_t)len);
}

/* Is the page at @off of the file a hole? */
UNUSED static bool is_hole(int fd, uint64_t off)
{
	return lseek(fd, (off_t)off, SEEK_HOLE) == (off_t)off;
}

/* --- userfaultfd --- */

/* Without permission: one for faults of user mode, which is all that most proofs take. */
UNUSED static int uffd_raw(int flags)
{
	int fd = (int)syscall(SYS_userfaultfd, flags);

	if (fd < 0 && errno == EPERM)
		fd = (int)syscall(SYS_userfaultfd, flags | USER_ONLY);
	if (fd < 0 && errno == ENOSYS) {
		untried("userfaultfd: this kernel has none");
		exit(77);
	}
	return fd;
}

UNUSED static int uffd_features(int fd, uint64_t want)
{
	struct uffdio_api api = {.api = UFFD_API, .features = want};

	return ioctl(fd, UFFDIO_API, &api) < 0 ? -errno : 0;
}

/* What the kernel knows, asked on a throw-away descriptor. */
UNUSED static uint64_t uffd_known(void)
{
	int fd = uffd_raw(O_CLOEXEC | O_NONBLOCK);
	struct uffdio_api api = {.api = UFFD_API};

	must(fd >= 0 && ioctl(fd, UFFDIO_API, &api) == 0);
	close(fd);
	return api.features;
}

UNUSED static int uffd_new(uint64_t want)
{
	int fd = uffd_raw(O_CLOEXEC | O_NONBLOCK);

	must(fd >= 0);
	must(uffd_features(fd, want) == 0);
	return fd;
}

UNUSED static int uffd_reg(int fd, const void *p, size_t len, uint64_t mode)
{
	struct uffdio_register r = {.range = {addr_of(p), len}, .mode = mode};

	return ioctl(fd, UFFDIO_REGISTER, &r) < 0 ? -errno : 0;
}

UNUSED static int uffd_unreg(int fd, const void *p, size_t len)
{
	struct uffdio_range r = {addr_of(p), len};

	return ioctl(fd, UFFDIO_UNREGISTER, &r) < 0 ? -errno : 0;
}

UNUSED static int uffd_copy(int fd, const void *dst, const void *src, size_t len, int64_t *placed)
{
	struct uffdio_copy c = {.dst = addr_of(dst), .src = addr_of(src), .len = len};
	int r = ioctl(fd, UFFDIO_COPY, &c) < 0 ? -errno : 0;

	if (placed)
		*placed = c.copy;
	return r;
}

UNUSED static int uffd_zero(int fd, const void *dst, size_t len)
{
	struct uffdio_zeropage z = {.range = {addr_of(dst), len}};

	return ioctl(fd, UFFDIO_ZEROPAGE, &z) < 0 ? -errno : 0;
}

UNUSED static int uffd_wp(int fd, const void *p, size_t len, bool on)
{
	struct uffdio_writeprotect w = {.range = {addr_of(p), len},
					.mode = on ? UFFDIO_WRITEPROTECT_MODE_WP : 0};

	return ioctl(fd, UFFDIO_WRITEPROTECT, &w) < 0 ? -errno : 0;
}

UNUSED static int uffd_wakeup(int fd, const void *p, size_t len)
{
	struct uffdio_range r = {addr_of(p), len};

	return ioctl(fd, UFFDIO_WAKE, &r) < 0 ? -errno : 0;
}

/* Next message within @ms. Return: its event, 0 if none came, -errno */
UNUSED static int uffd_next(int fd, struct uffd_msg *m, int ms)
{
	struct pollfd p = {.fd = fd, .events = POLLIN};
	uint64_t end = now_us() + (uint64_t)ms * 1000;
	ssize_t n;

	do {
		if (poll(&p, 1, ms) < 0)
			return -errno;
		n = read(fd, m, sizeof(*m));
		if (n == sizeof(*m))
			return m->event;
		if (n >= 0 || errno != EAGAIN)
			return n >= 0 ? -EIO : -errno;
	} while (now_us() < end);
	return 0;
}

/* --- page map --- */

/* Return: number of runs, or -errno */
UNUSED static int scan(int map, const void *p, size_t len, bool protect, uint64_t mask,
		       uint64_t anyof, struct scan_run *runs, size_t max)
{
	struct scan_arg a = {
		.size = sizeof(a),
		.flags = protect ? 3 : 0,
		.start = addr_of(p),
		.end = addr_of(p) + len,
		.vec = addr_of(runs),
		.vec_len = max,
		.mask = mask,
		.anyof = anyof,
		.ret = mask | anyof,
	};
	int n = ioctl(map, _IOWR('f', 16, struct scan_arg), &a);

	return n < 0 ? -errno : n;
}

/* Pages of all runs together. */
UNUSED static uint64_t scan_pages(const struct scan_run *runs, int n)
{
	uint64_t sum = 0;

	for (int i = 0; i < n; i++)
		sum += (runs[i].end - runs[i].start) / PAGE;
	return sum;
}

UNUSED static int map_of(pid_t pid)
{
	char path[64];

	snprintf(path, sizeof(path), "/proc/%d/pagemap", (int)pid);
	return open(path, O_RDONLY | O_CLOEXEC);
}

/* --- descriptors between processes --- */

UNUSED static void send_fd(int sock, int fd)
{
	char byte = 0, ctl[CMSG_SPACE(sizeof(int))] = "";
	struct iovec iov = {&byte, 1};
	struct msghdr m = {.msg_iov = &iov,
			   .msg_iovlen = 1,
			   .msg_control = ctl,
			   .msg_controllen = sizeof(ctl)};
	struct cmsghdr *c = CMSG_FIRSTHDR(&m);

	c->cmsg_level = SOL_SOCKET;
	c->cmsg_type = SCM_RIGHTS;
	c->cmsg_len = CMSG_LEN(sizeof(int));
	memcpy(CMSG_DATA(c), &fd, sizeof(fd));
	must(sendmsg(sock, &m, 0) == 1);
}

UNUSED static int recv_fd(int sock)
{
	char byte, ctl[CMSG_SPACE(sizeof(int))] = "";
	struct iovec iov = {&byte, 1};
	struct msghdr m = {.msg_iov = &iov,
			   .msg_iovlen = 1,
			   .msg_control = ctl,
			   .msg_controllen = sizeof(ctl)};
	struct cmsghdr *c;
	int fd = -1;

	must(recvmsg(sock, &m, MSG_CMSG_CLOEXEC) == 1);
	c = CMSG_FIRSTHDR(&m);
	must(c && c->cmsg_type == SCM_RIGHTS);
	memcpy(&fd, CMSG_DATA(c), sizeof(fd));
	return fd;
}

/* Descriptor number @fd of a child, as decant takes it. */
UNUSED static int take_fd(pid_t pid, int fd)
{
	int pidfd = (int)syscall(SYS_pidfd_open, pid, 0), got;

	must(pidfd >= 0);
	got = (int)syscall(SYS_pidfd_getfd, pidfd, fd, 0);
	close(pidfd);
	return got;
}

/* --- a guest: a process that touches its memory when told --- */

enum guest_op {
	OP_NONE,
	OP_READ,     /* value = byte at mem + off */
	OP_WRITE,    /* byte at mem + off = value */
	OP_SYSREAD,  /* read(2) of /dev/zero to mem + off; value = 0 or errno */
	OP_PUNCH,    /* fallocate of one page of the file */
	OP_MADVISE,  /* madvise(one page, value) */
	OP_CLOSE,    /* close the own userfaultfd */
	OP_FORKREAD, /* a child reads the byte at mem + off */
};

struct guest_ctl {
	_Atomic int op, done, ready;
	_Atomic uint64_t off;
	_Atomic int value;
};

struct guest {
	pid_t pid;
	uint8_t *mem;
	size_t len;
	int memfd;    /* of the memory, or -1 */
	int uffd;     /* the agent's copy */
	int own_uffd; /* its number in the guest */
	struct guest_ctl *ctl;
};

static int guest_do(struct guest *g, int op, uint64_t off, int value)
{
	uint8_t *at = g->mem + off;
	int fd, status;
	pid_t child;

	switch (op) {
	case OP_READ:
		return *(volatile uint8_t *)at;
	case OP_WRITE:
		*(volatile uint8_t *)at = (uint8_t)value;
		return 0;
	case OP_SYSREAD:
		fd = open("/dev/zero", O_RDONLY);
		status = read(fd, at, 1) == 1 ? 0 : errno;
		close(fd);
		return status;
	case OP_PUNCH:
		return punch(g->memfd, off, PAGE) < 0 ? errno : 0;
	case OP_MADVISE:
		return madvise(at, PAGE, value) < 0 ? errno : 0;
	case OP_CLOSE:
		return close(g->own_uffd);
	case OP_FORKREAD:
		child = fork();
		if (child == 0)
			_exit(*(volatile uint8_t *)at);
		return waitpid(child, &status, 0) == child ? WEXITSTATUS(status) : -1;
	}
	return -1;
}

static void guest_main(struct guest *g)
{
	for (;;) {
		int op = atomic_load(&g->ctl->op);

		if (op == OP_NONE) {
			sleep_us(100);
			continue;
		}
		atomic_store(&g->ctl->value, guest_do(g, op, atomic_load(&g->ctl->off),
						      atomic_load(&g->ctl->value)));
		atomic_store(&g->ctl->op, OP_NONE);
		atomic_store(&g->ctl->done, 1);
	}
}

/*
 * Start a guest on memory that was mapped before. It makes its own userfaultfd (@mode 0: none),
 * registers all of the memory and hands the descriptor over; it keeps its copy.
 */
UNUSED static struct guest guest_start(uint8_t *mem, size_t len, int memfd, uint64_t features,
				       uint64_t mode)
{
	struct guest g = {.mem = mem, .len = len, .memfd = memfd, .uffd = -1, .own_uffd = -1};
	pid_t parent = getpid();
	int sock[2];

	g.ctl = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	must(g.ctl != MAP_FAILED);
	must(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sock) == 0);
	fflush(stdout);
	g.pid = fork();
	must(g.pid >= 0);
	if (g.pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (getppid() != parent)
			_exit(1);
		if (mode) {
			g.own_uffd = uffd_new(features);
			must(uffd_reg(g.own_uffd, mem, len, mode) == 0);
			g.ctl->value = g.own_uffd;
			send_fd(sock[1], g.own_uffd);
		}
		close(sock[0]);
		close(sock[1]);
		guest_main(&g);
	}
	close(sock[1]);
	if (mode) {
		g.uffd = recv_fd(sock[0]);
		g.own_uffd = g.ctl->value;
	}
	close(sock[0]);
	return g;
}

UNUSED static void guest_post(struct guest *g, enum guest_op op, uint64_t off, int value)
{
	atomic_store(&g->ctl->done, 0);
	atomic_store(&g->ctl->off, off);
	atomic_store(&g->ctl->value, value);
	atomic_store(&g->ctl->op, op);
}

/* Did it finish within @ms? */
UNUSED static bool guest_done(struct guest *g, int ms)
{
	uint64_t end = now_us() + (uint64_t)ms * 1000;

	while (!atomic_load(&g->ctl->done)) {
		if (now_us() > end)
			return false;
		sleep_us(50);
	}
	return true;
}

/* Tell and wait; what it found, -1 if it is stuck. */
UNUSED static int guest_ask(struct guest *g, enum guest_op op, uint64_t off, int value)
{
	guest_post(g, op, off, value);
	return guest_done(g, 5000) ? g->ctl->value : -1;
}

UNUSED static void guest_end(struct guest *g)
{
	kill(g->pid, SIGKILL);
	must(waitpid(g->pid, NULL, 0) == g->pid);
	if (g->uffd >= 0)
		close(g->uffd);
	munmap(g->ctl, PAGE);
}

/* --- an agent that is killed: holds what it had when it was forked --- */

UNUSED static pid_t agent_start(void (*body)(void *), void *arg)
{
	pid_t parent = getpid(), pid;

	fflush(stdout);
	pid = fork();
	must(pid >= 0);
	if (pid)
		return pid;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != parent)
		_exit(1);
	body(arg);
	for (;;)
		pause();
}

UNUSED static void agent_kill(pid_t pid)
{
	kill(pid, SIGKILL);
	must(waitpid(pid, NULL, 0) == pid);
}

#endif
