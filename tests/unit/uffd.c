/* SPDX-License-Identifier: Apache-2.0 */
#include "uffd/uffd.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>
#include "uffd/uffd_worker.h"
#include "util/cleanup.h"

enum { PAGE = 4096 };

static uint8_t *map_pages(size_t n)
{
	uint8_t *p =
		mmap(NULL, n * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	cr_assert_neq(p, MAP_FAILED);
	return p;
}

static uint64_t addr(const void *p)
{
	return (uint64_t)(uintptr_t)p;
}

/* A descriptor for the features, faults of user mode only: works without privilege. */
static int open_api(uint64_t want)
{
	int fd = uffd_open(true, NULL);

	if (fd == -ENOSYS)
		cr_skip("no userfaultfd in this kernel");
	cr_assert_geq(fd, 0);
	cr_assert_eq(uffd_api(fd, want, NULL, NULL), 0);
	return fd;
}

static int open_missing(const void *p, size_t n)
{
	int fd = open_api(UFFD_F_THREAD_ID);
	uint64_t can = 0;

	cr_assert_eq(uffd_register(fd, addr(p), n * PAGE, UFFD_MODE_MISSING, &can), 0);
	cr_assert(can & UFFD_CAN_COPY);
	return fd;
}

Test(uffd, opens_without_blocking)
{
	enum uffd_how how = UFFD_HOW_SYSCALL;
	int fd = uffd_open(true, &how);
	struct uffd_event ev;

	if (fd == -ENOSYS)
		cr_skip("no userfaultfd in this kernel");
	cr_assert_geq(fd, 0);
	cr_assert_eq(how, UFFD_HOW_USER_MODE);
	cr_assert(fcntl(fd, F_GETFL) & O_NONBLOCK);
	cr_assert(fcntl(fd, F_GETFD) & FD_CLOEXEC);
	cr_assert_eq(uffd_api(fd, UINT64_C(1) << 63, NULL, NULL), -EINVAL, "an unknown feature");
	close(fd);
	fd = open_api(0);
	cr_assert_eq(uffd_api(fd, UFFD_F_THREAD_ID, NULL, NULL), -EINVAL, "a second handshake");
	cr_assert_eq(uffd_read(fd, &ev, 1), 0, "nothing to read");
	close(fd);
}

Test(uffd, copy_places_all)
{
	uint8_t *p = map_pages(8), *src = malloc(8 * PAGE);
	int fd = open_missing(p, 8);
	uint64_t done = 99;

	memset(src, 0x5a, 8 * PAGE);
	cr_assert_eq(uffd_copy(fd, addr(p), src, 8 * PAGE, &done), 0);
	cr_assert_eq(done, 8 * PAGE);
	cr_assert_eq(memcmp(p, src, 8 * PAGE), 0);
	free(src);
	close(fd);
}

Test(uffd, copy_stops_at_a_page_that_is_there)
{
	uint8_t *p = map_pages(8), *src = malloc(8 * PAGE);
	int fd = open_missing(p, 8);
	uint64_t done = 99;

	memset(src, 1, PAGE);
	cr_assert_eq(uffd_copy(fd, addr(p) + 5 * PAGE, src, PAGE, &done), 0);
	memset(src, 2, 8 * PAGE);
	cr_assert_eq(uffd_copy(fd, addr(p), src, 8 * PAGE, &done), -EEXIST);
	cr_assert_eq(done, 5 * PAGE, "the five before it were placed");
	cr_assert_eq(uffd_wake(fd, addr(p) + done, PAGE), 0);
	cr_assert_eq(uffd_copy(fd, addr(p) + done, src, PAGE, &done), -EEXIST);
	cr_assert_eq(done, 0);
	cr_assert_eq(uffd_copy(fd, addr(p) + 6 * PAGE, src, 2 * PAGE, &done), 0);
	for (int i = 0; i < 8; i++)
		cr_assert_eq(p[i * PAGE], i == 5 ? 1 : 2, "page %d", i);
	free(src);
	close(fd);
}

Test(uffd, copy_reports_what_was_placed_before_an_error)
{
	uint8_t *p = map_pages(8), *src = map_pages(8);
	int fd = open_missing(p, 8);
	uint64_t done = 99;

	memset(src, 3, 8 * PAGE);
	/* The source ends after three pages: those are placed, then its fault is told. */
	cr_assert_eq(munmap(src + 3 * PAGE, 5 * PAGE), 0);
	cr_assert_eq(uffd_copy(fd, addr(p), src, 8 * PAGE, &done), -EFAULT);
	cr_assert_eq(done, 3 * PAGE);
	cr_assert_eq(uffd_copy(fd, addr(p) + 1, src, PAGE, &done), -EINVAL);
	cr_assert_eq(done, 0);
	/* The layout changes: nothing is registered there any more. */
	cr_assert_eq(uffd_unregister(fd, addr(p), 8 * PAGE), 0);
	cr_assert_eq(uffd_copy(fd, addr(p) + 4 * PAGE, src, PAGE, &done), -ENOENT);
	cr_assert_eq(done, 0);
	close(fd);
}

Test(uffd, zeropage_like_copy)
{
	uint8_t *p = map_pages(4), src[PAGE];
	int fd = open_missing(p, 4);
	uint64_t done;

	memset(src, 7, sizeof(src));
	cr_assert_eq(uffd_copy(fd, addr(p) + 2 * PAGE, src, PAGE, &done), 0);
	cr_assert_eq(uffd_zeropage(fd, addr(p), 4 * PAGE, &done), -EEXIST);
	cr_assert_eq(done, 2 * PAGE);
	cr_assert_eq(uffd_zeropage(fd, addr(p) + 3 * PAGE, PAGE, &done), 0);
	cr_assert_eq(done, PAGE);
	for (int i = 0; i < 4; i++)
		cr_assert_eq(p[i * PAGE], i == 2 ? 7 : 0, "page %d", i);
	close(fd);
}

/* Wait until there is something to read, then read it. */
static int wait_events(int fd, struct uffd_event *ev, size_t max)
{
	struct pollfd pfd = {.fd = fd, .events = POLLIN};

	cr_assert_eq(poll(&pfd, 1, 10000), 1);
	cr_assert(pfd.revents & POLLIN);
	return uffd_read(fd, ev, max);
}

struct toucher {
	pthread_t thread;
	uint8_t *p;
	bool write;
	_Atomic pid_t tid;
	uint8_t saw;
};

static void *touch(void *arg)
{
	struct toucher *t = arg;

	t->tid = (pid_t)syscall(SYS_gettid);
	if (t->write)
		*(volatile uint8_t *)t->p = 9;
	t->saw = *(volatile uint8_t *)t->p;
	return NULL;
}

static void touch_start(struct toucher *t, uint8_t *p, bool write)
{
	*t = (struct toucher){.p = p, .write = write};
	cr_assert_eq(pthread_create(&t->thread, NULL, touch, t), 0);
}

Test(uffd, fault_is_decoded_and_answered)
{
	uint8_t *p = map_pages(4), src[PAGE];
	int fd = open_missing(p, 4);
	struct uffd_event ev[4];
	struct toucher t;
	uint64_t done;

	memset(src, 0x77, sizeof(src));
	for (int write = 0; write < 2; write++) {
		touch_start(&t, p + (1 + write) * PAGE + 123, write);
		cr_assert_eq(wait_events(fd, ev, 4), 1);
		cr_assert_eq(ev[0].kind, UFFD_EV_FAULT);
		cr_assert_eq(ev[0].addr, addr(p) + (uint64_t)(1 + write) * PAGE);
		cr_assert_eq(ev[0].write, write);
		cr_assert(!ev[0].wp && !ev[0].minor);
		cr_assert_eq(ev[0].tid, (uint32_t)t.tid);
		cr_assert_eq(uffd_copy(fd, ev[0].addr, src, PAGE, &done), 0);
		pthread_join(t.thread, NULL);
		cr_assert_eq(t.saw, write ? 9 : 0x77);
	}
	close(fd);
}

Test(uffd, write_protection_stops_and_frees_a_writer)
{
	uint8_t *p = map_pages(2);
	int fd = open_api(UFFD_F_PAGEFAULT_FLAG_WP);
	struct uffd_event ev;
	struct toucher t;

	memset(p, 1, 2 * PAGE);
	cr_assert_eq(uffd_register(fd, addr(p), 2 * PAGE, UFFD_MODE_WP, NULL), 0);
	cr_assert_eq(uffd_writeprotect(fd, addr(p), 2 * PAGE, true), 0);
	touch_start(&t, p + PAGE, true);
	cr_assert_eq(wait_events(fd, &ev, 1), 1);
	cr_assert(ev.kind == UFFD_EV_FAULT && ev.wp && ev.write);
	cr_assert_eq(ev.addr, addr(p) + PAGE);
	cr_assert_eq(p[PAGE], 1, "the write waits");
	cr_assert_eq(uffd_writeprotect(fd, ev.addr, PAGE, false), 0);
	pthread_join(t.thread, NULL);
	cr_assert_eq(t.saw, 9);
	cr_assert_eq(uffd_unregister(fd, addr(p), 2 * PAGE), 0);
	cr_assert_eq(uffd_writeprotect(fd, addr(p), PAGE, true), -ENOENT);
	close(fd);
}

static void *give_back(void *p)
{
	madvise(p, 2 * PAGE, MADV_DONTNEED);
	return NULL;
}

Test(uffd, copy_waits_for_an_event_to_be_read)
{
	uint8_t *p = map_pages(4), src[PAGE] = {};
	int fd = open_api(UFFD_F_EVENT_REMOVE);
	struct pollfd pfd = {.fd = fd, .events = POLLIN};
	struct uffd_event ev;
	pthread_t thread;
	uint64_t done;

	cr_assert_eq(uffd_register(fd, addr(p), 4 * PAGE, UFFD_MODE_MISSING, NULL), 0);
	cr_assert_eq(uffd_copy(fd, addr(p), src, PAGE, &done), 0);
	cr_assert_eq(pthread_create(&thread, NULL, give_back, p), 0);
	cr_assert_eq(poll(&pfd, 1, 10000), 1);
	cr_assert_eq(uffd_copy(fd, addr(p) + 3 * PAGE, src, PAGE, &done), -EAGAIN);
	cr_assert_eq(done, 0);
	cr_assert_eq(uffd_read(fd, &ev, 1), 1);
	cr_assert_eq(ev.kind, UFFD_EV_REMOVE);
	cr_assert_eq(ev.addr, addr(p));
	cr_assert_eq(ev.len, 2 * PAGE);
	pthread_join(thread, NULL);
	cr_assert_eq(uffd_copy(fd, addr(p) + 3 * PAGE, src, PAGE, &done), 0);
	cr_assert_eq(uffd_copy(fd, addr(p), src, PAGE, &done), 0, "what was removed is missing");
	close(fd);
}

struct remapper {
	uint8_t *from;
	uint8_t *to;
};

static void *move_then_unmap(void *arg)
{
	struct remapper *r = arg;

	r->to = mremap(r->from, PAGE, PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, r->to);
	munmap(r->from + PAGE, PAGE);
	return NULL;
}

Test(uffd, layout_events_are_decoded)
{
	uint8_t *p = map_pages(2), *room = map_pages(1);
	int fd = open_api(UFFD_F_EVENT_REMAP | UFFD_F_EVENT_UNMAP);
	struct remapper r = {.from = p, .to = room};
	struct uffd_event ev;
	pthread_t thread;

	munmap(room, PAGE);
	cr_assert_eq(uffd_register(fd, addr(p), 2 * PAGE, UFFD_MODE_MISSING, NULL), 0);
	cr_assert_eq(pthread_create(&thread, NULL, move_then_unmap, &r), 0);
	do
		cr_assert_eq(wait_events(fd, &ev, 1), 1);
	while (ev.kind == UFFD_EV_UNMAP && ev.addr == addr(p));
	cr_assert_eq(ev.kind, UFFD_EV_REMAP);
	cr_assert_eq(ev.addr, addr(p));
	cr_assert_eq(ev.to, addr(room));
	cr_assert_eq(ev.len, PAGE);
	do
		cr_assert_eq(wait_events(fd, &ev, 1), 1);
	while (ev.kind == UFFD_EV_UNMAP && ev.addr == addr(p));
	cr_assert_eq(ev.kind, UFFD_EV_UNMAP);
	cr_assert_eq(ev.addr, addr(p) + PAGE);
	cr_assert_eq(ev.len, PAGE);
	pthread_join(thread, NULL);
	close(fd);
}

Test(uffd, many_events_in_one_read)
{
	enum { N = 6 };
	uint8_t *p = map_pages(N);
	int fd = open_missing(p, N), n = 0;
	struct uffd_event ev[N];
	struct toucher t[N];
	uint64_t done;

	for (int i = 0; i < N; i++)
		touch_start(&t[i], p + i * PAGE, false);
	while (n < N) {
		int got = wait_events(fd, ev, 4);

		cr_assert(got > 0 && got <= 4);
		for (int i = 0; i < got; i++)
			cr_assert_eq(uffd_zeropage(fd, ev[i].addr, PAGE, &done), 0);
		n += got;
	}
	for (int i = 0; i < N; i++)
		pthread_join(t[i].thread, NULL);
	close(fd);
}

Test(uffd, short_message_is_an_error)
{
	struct uffd_event ev;
	int fds[2];

	cr_assert_eq(pipe(fds), 0);
	cr_assert_eq(write(fds[1], "0123456789012345678901234567890123456789", 40), 40);
	cr_assert_eq(uffd_read(fds[0], &ev, 2), -EIO);
	close(fds[1]);
	cr_assert_eq(uffd_read(fds[0], &ev, 1), -EIO, "end of file is not \"nothing waits\"");
	close(fds[0]);
}

Test(uffd, unknown_message_is_passed_on)
{
	uint8_t msg[32] = {0x7f};
	struct uffd_event ev;
	int fds[2];

	cr_assert_eq(pipe(fds), 0);
	cr_assert_eq(write(fds[1], msg, sizeof(msg)), sizeof(msg));
	cr_assert_eq(uffd_read(fds[0], &ev, 1), 1);
	cr_assert(ev.kind == UFFD_EV_UNKNOWN && ev.raw == 0x7f && ev.fd == -1);
	close(fds[0]);
	close(fds[1]);
}

Test(uffd, guest_that_is_gone)
{
	uint8_t *p = map_pages(1), src[PAGE] = {}, byte;
	int fds[2], go[2], fd;
	uint64_t done;
	pid_t child;

	/* The descriptor of a child, taken out of it by number with pidfd_getfd(2). */
	cr_assert_eq(pipe(fds), 0);
	cr_assert_eq(pipe(go), 0);
	child = fork();
	if (child == 0) {
		int own = open_missing(p, 1);

		if (write(fds[1], &own, sizeof(own)) == sizeof(own) && read(go[0], &byte, 1) == 1)
			_exit(0);
		_exit(1);
	}
	cr_assert_eq(read(fds[0], &fd, sizeof(fd)), sizeof(fd));

	int pidfd = (int)syscall(SYS_pidfd_open, child, 0);

	fd = (int)syscall(SYS_pidfd_getfd, pidfd, fd, 0);
	if (fd < 0 && errno == EPERM)
		cr_skip("needs permission to take a child's descriptor");
	cr_assert_geq(fd, 0);
	cr_assert_eq(write(go[1], "x", 1), 1);
	cr_assert_eq(waitpid(child, NULL, 0), child);
	cr_assert_eq(uffd_copy(fd, addr(p), src, PAGE, &done), -ESRCH);
	cr_assert_eq(done, 0);
	cr_assert_eq(uffd_zeropage(fd, addr(p), PAGE, &done), -ESRCH);
	cr_assert_eq(uffd_writeprotect(fd, addr(p), PAGE, true), -ESRCH);
	close(fd);
	close(pidfd);
}

Test(uffd, probe_says_what_there_is)
{
	struct uffd_caps caps = {};
	struct error err = {};
	int r = uffd_probe(&caps, &err);

	if (r == -ENOSYS)
		cr_skip("no userfaultfd in this kernel");
	cr_assert_eq(r, 0, "%s", err.msg);
	cr_assert(caps.features & UFFD_F_PAGEFAULT_FLAG_WP);
	cr_assert(caps.ioctls & UFFD_CAN_REGISTER);
	cr_assert(caps.missing[UFFD_MEM_ANON] & UFFD_CAN_COPY);
	cr_assert(caps.missing[UFFD_MEM_SHMEM] & UFFD_CAN_ZEROPAGE);
	cr_assert(caps.postcopy);
	cr_assert(caps.tracking_anon & UFFD_TRACK_FAULTS);
	cr_assert_eq(!!(caps.tracking & UFFD_TRACK_ASYNC), !!(caps.features & UFFD_F_WP_ASYNC));
	cr_assert_eq(uffd_caps_postcopy(&caps, &err), 0);
}

Test(uffd, refusal_names_what_is_missing)
{
	struct uffd_caps caps = {.ioctls = UFFD_CAN_REGISTER | UFFD_CAN_UNREGISTER};
	struct error err = {};

	caps.missing[UFFD_MEM_ANON] = UFFD_CAN_WAKE | UFFD_CAN_COPY | UFFD_CAN_ZEROPAGE;
	caps.missing[UFFD_MEM_SHMEM] = UFFD_CAN_WAKE | UFFD_CAN_COPY;
	cr_assert_eq(uffd_caps_postcopy(&caps, &err), -EOPNOTSUPP);
	cr_assert(strstr(err.msg, "ZEROPAGE on shared memory"), "%s", err.msg);
	cr_assert(!strstr(err.msg, "COPY on"), "%s", err.msg);
	error_clear(&err);
	caps.ioctls = UFFD_CAN_REGISTER;
	cr_assert_eq(uffd_caps_postcopy(&caps, &err), -EOPNOTSUPP);
	cr_assert(strstr(err.msg, "UNREGISTER"), "%s", err.msg);
}

Test(uffd, names)
{
	cr_assert_str_eq(uffd_feature_name(15), "WP_ASYNC");
	cr_assert_str_eq(uffd_feature_name(8), "THREAD_ID");
	cr_assert_null(uffd_feature_name(63));
	cr_assert_str_eq(uffd_can_name(6), "WRITEPROTECT");
	cr_assert_str_eq(uffd_can_name(63), "API");
	cr_assert_null(uffd_can_name(40));
}

/* Of an error there is a reason, whichever it is; where the kernel can be tried, it is right about its threads. */
Test(uffd, a_thread_of_the_kernel_is_seen)
{
	struct error err = {};
	int r = uffd_worker_seen(&err);

	cr_assert_eq(error_is_set(&err), r != 0);
	if (r == -ENODATA)
		cr_skip("%s", err.msg);
	cr_assert_eq(r, 0, "%s", err.msg);
}
