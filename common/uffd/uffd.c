/* SPDX-License-Identifier: Apache-2.0 */
#include "uffd/uffd.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>
#include "util/cleanup.h"

#ifndef UFFD_USER_MODE_ONLY
#define UFFD_USER_MODE_ONLY 1
#endif

static_assert(UFFD_F_THREAD_ID == UFFD_FEATURE_THREAD_ID, "feature bits are the kernel's");
static_assert(UFFD_F_EVENT_REMOVE == UFFD_FEATURE_EVENT_REMOVE, "feature bits are the kernel's");
static_assert(UFFD_CAN_COPY >> _UFFDIO_COPY == 1, "ioctl bits are the kernel's");
static_assert(UFFD_CAN_API >> _UFFDIO_API == 1, "ioctl bits are the kernel's");
static_assert(UFFD_MODE_MISSING == UFFDIO_REGISTER_MODE_MISSING, "modes are the kernel's");
static_assert(UFFD_MODE_WP == UFFDIO_REGISTER_MODE_WP, "modes are the kernel's");
static_assert(sizeof(struct uffd_msg) == 32, "messages of the kernel are 32 bytes");

/*
 * A change of the layout lasts as long as its system call plus the time until its event is read. If
 * the event is ours to read, spinning longer than this cannot help.
 */
#define UFFD_WP_RETRIES 1000

/* An ioctl that returns -errno. */
static int uffd_ioctl(int fd, unsigned long request, void *arg)
{
	return ioctl(fd, request, arg) < 0 ? -errno : 0;
}

const char *uffd_how_name(enum uffd_how how)
{
	switch (how) {
	case UFFD_HOW_SYSCALL:
		return "syscall";
	case UFFD_HOW_DEVICE:
		return "device";
	case UFFD_HOW_USER_MODE:
		return "user-mode-only";
	}
	return "unknown";
}

static int open_syscall(int flags)
{
	long fd = syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK | flags);

	return fd < 0 ? -errno : (int)fd;
}

static int open_device(void)
{
	CLEANUP_CLOSE int dev = open(UFFD_DEVICE, O_RDWR | O_CLOEXEC);
	int fd;

	if (dev < 0)
		return -errno;
	fd = ioctl(dev, UFFD_DEVICE_NEW, O_CLOEXEC | O_NONBLOCK);
	return fd < 0 ? -errno : fd;
}

int uffd_try(enum uffd_how how)
{
	CLEANUP_CLOSE int fd = -1;

	if (how == UFFD_HOW_DEVICE)
		fd = open_device();
	else
		fd = open_syscall(how == UFFD_HOW_USER_MODE ? UFFD_USER_MODE_ONLY : 0);
	return MIN(fd, 0);
}

int uffd_open(bool user_mode_only, enum uffd_how *ret_how)
{
	enum uffd_how how = user_mode_only ? UFFD_HOW_USER_MODE : UFFD_HOW_SYSCALL;
	int fd = open_syscall(user_mode_only ? UFFD_USER_MODE_ONLY : 0);
	int by_device;

	if (fd < 0 && !user_mode_only) {
		/* If the device does not help either, the system call's answer says more. */
		by_device = open_device();
		if (by_device >= 0) {
			fd = by_device;
			how = UFFD_HOW_DEVICE;
		}
	}
	if (fd >= 0 && ret_how)
		*ret_how = how;
	return fd;
}

int uffd_api(int fd, uint64_t want, uint64_t *ret_features, uint64_t *ret_ioctls)
{
	struct uffdio_api api = {.api = UFFD_API, .features = want};
	int r = uffd_ioctl(fd, UFFDIO_API, &api);

	if (r < 0)
		return r;
	if (ret_features)
		*ret_features = api.features;
	if (ret_ioctls)
		*ret_ioctls = api.ioctls;
	return 0;
}

int uffd_register(int fd, uint64_t addr, uint64_t len, uint64_t mode, uint64_t *ret_ioctls)
{
	struct uffdio_register reg = {.range = {.start = addr, .len = len}, .mode = mode};
	int r = uffd_ioctl(fd, UFFDIO_REGISTER, &reg);

	if (r < 0)
		return r;
	if (ret_ioctls)
		*ret_ioctls = reg.ioctls;
	return 0;
}

int uffd_unregister(int fd, uint64_t addr, uint64_t len)
{
	struct uffdio_range range = {.start = addr, .len = len};

	return uffd_ioctl(fd, UFFDIO_UNREGISTER, &range);
}

int uffd_writeprotect(int fd, uint64_t addr, uint64_t len, bool on)
{
	struct uffdio_writeprotect wp = {
		.range = {.start = addr, .len = len},
		.mode = on ? UFFDIO_WRITEPROTECT_MODE_WP : 0,
	};
	int r = uffd_ioctl(fd, UFFDIO_WRITEPROTECT, &wp);

	for (int i = 0; r == -EAGAIN && i < UFFD_WP_RETRIES; i++) {
		sched_yield();
		r = uffd_ioctl(fd, UFFDIO_WRITEPROTECT, &wp);
	}
	return r;
}

int uffd_wake(int fd, uint64_t addr, uint64_t len)
{
	struct uffdio_range range = {.start = addr, .len = len};

	return uffd_ioctl(fd, UFFDIO_WAKE, &range);
}

/*
 * COPY and ZEROPAGE answer alike. Success is all of it. A failed call says EAGAIN and a positive
 * count when it placed a part (and woke its waiters), whatever stopped it there; the next call
 * tells the reason. EAGAIN without a count means that the layout is changing: an event is to be
 * read.
 *
 * Return: 1 to go on with the rest, else what the caller is told
 */
static int account(int r, int64_t placed, uint64_t *done)
{
	if (placed > 0)
		*done += (uint64_t)placed;
	if (r == -EAGAIN && placed > 0)
		return 1;
	return r;
}

int uffd_copy(int fd, uint64_t dst, const void *src, uint64_t len, uint64_t *ret_done)
{
	uint64_t done = 0;
	int r;

	do {
		/* Older kernels leave the count alone when they fail early: it starts as nothing.
		 */
		struct uffdio_copy c = {
			.dst = dst + done,
			.src = (uint64_t)(uintptr_t)src + done,
			.len = len - done,
		};

		r = uffd_ioctl(fd, UFFDIO_COPY, &c);
		r = account(r, c.copy, &done);
	} while (r == 1);
	*ret_done = done;
	return r;
}

int uffd_zeropage(int fd, uint64_t dst, uint64_t len, uint64_t *ret_done)
{
	uint64_t done = 0;
	int r;

	do {
		struct uffdio_zeropage z = {
			.range = {.start = dst + done, .len = len - done},
		};

		r = uffd_ioctl(fd, UFFDIO_ZEROPAGE, &z);
		r = account(r, z.zeropage, &done);
	} while (r == 1);
	*ret_done = done;
	return r;
}

int uffd_unblock(int fd)
{
	int flags = fcntl(fd, F_GETFL);

	if (flags < 0)
		return -errno;
	if (flags & O_NONBLOCK)
		return -EBADF;
	return fcntl(fd, F_SETFL, flags | O_NONBLOCK) ? -errno : 0;
}

static struct uffd_event decode(const struct uffd_msg *m)
{
	struct uffd_event ev = {.kind = UFFD_EV_UNKNOWN, .fd = -1, .raw = m->event};

	switch (m->event) {
	case UFFD_EVENT_PAGEFAULT:
		ev.kind = UFFD_EV_FAULT;
		ev.addr = m->arg.pagefault.address;
		ev.write = m->arg.pagefault.flags & UFFD_PAGEFAULT_FLAG_WRITE;
		ev.wp = m->arg.pagefault.flags & UFFD_PAGEFAULT_FLAG_WP;
		ev.minor = m->arg.pagefault.flags & UFFD_PAGEFAULT_FLAG_MINOR;
		ev.tid = m->arg.pagefault.feat.ptid;
		break;
	case UFFD_EVENT_REMOVE:
	case UFFD_EVENT_UNMAP:
		ev.kind = m->event == UFFD_EVENT_REMOVE ? UFFD_EV_REMOVE : UFFD_EV_UNMAP;
		ev.addr = m->arg.remove.start;
		ev.len = m->arg.remove.end - m->arg.remove.start;
		break;
	case UFFD_EVENT_REMAP:
		ev.kind = UFFD_EV_REMAP;
		ev.addr = m->arg.remap.from;
		ev.to = m->arg.remap.to;
		ev.len = m->arg.remap.len;
		break;
	case UFFD_EVENT_FORK:
		ev.kind = UFFD_EV_FORK;
		ev.fd = (int)m->arg.fork.ufd;
		break;
	}
	return ev;
}

int uffd_read(int fd, struct uffd_event *ev, size_t max)
{
	struct uffd_msg msg[UFFD_READ_MAX];
	ssize_t n;
	size_t i;

	/* Not again after EINTR: it may have come to end a read that was never meant to wait. */
	n = read(fd, msg, MIN(max, (size_t)UFFD_READ_MAX) * sizeof(msg[0]));
	if (n < 0)
		return errno == EAGAIN || errno == EINTR ? 0 : -errno;
	if (n == 0 || (size_t)n % sizeof(msg[0]))
		return -EIO;
	for (i = 0; i < (size_t)n / sizeof(msg[0]); i++)
		ev[i] = decode(&msg[i]);
	return (int)i;
}
