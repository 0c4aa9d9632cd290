/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Closing an inotify(7) instance waits for a grace period of the whole machine: 8 s of it have been seen
 * on a busy one, in which no PING was answered. So nobody who must not wait closes one. inotify_init1() and
 * close() are this program's own here, the latter as slow as that.
 */
#include "lib/pace.h"
#include "unit/source_box.h"

#include <fcntl.h>
#include <stdatomic.h>
#include <sys/inotify.h>
#include <sys/syscall.h>
#include <time.h>

TestSuite(source_watch, .timeout = 60);

/* Longer than anything else here takes. */
#define SLOW_MS 1500

static _Atomic int made, instance = -1;

int inotify_init1(int flags)
{
	int fd = (int)syscall(SYS_inotify_init1, flags);

	atomic_store(&instance, fd);
	atomic_fetch_add(&made, 1);
	return fd;
}

int close(int fd)
{
	struct timespec slow = {SLOW_MS / 1000, SLOW_MS % 1000 * 1000000L};
	int r;

	if (fd < 0 || fd != atomic_load(&instance))
		return (int)syscall(SYS_close, fd);
	nanosleep(&slow, NULL);
	r = (int)syscall(SYS_close, fd);
	atomic_store(&instance, -1);
	return r;
}

static uint64_t now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000 + (uint64_t)ts.tv_nsec / 1000000;
}

/* The loop stops the tracking, and other guests' agents wait for it meanwhile. */
Test(source_watch, stopping_does_not_wait_for_it)
{
	struct timespec nap = {.tv_nsec = 10000000};
	struct pace *pace = pace_start();
	struct box b;
	uint64_t from;

	box_init(&b);
	start(&b, &track_async);
	cr_assert_eq(made, 1);
	from = now_ms();
	track_stop(&b.t);
	cr_assert(pace_brisk(pace, (now_ms() - from) * 1000, SLOW_MS / 2 * 1000));
	while (atomic_load(&instance) >= 0) {
		cr_assert_lt(now_ms() - from, 20000, "it is not closed at all");
		nanosleep(&nap, NULL);
	}
	pace_end(pace);
}

/* Both agents take hold of memory on their loops. */
Test(source_watch, memory_is_opened_without_one)
{
	struct box b;
	struct guest g = {.blocks = NULL, .nblocks = 1, .pid = getpid()};
	struct gmem m;

	box_init(&b);
	g.pidfd = b.blocks[0].mem.pidfd;
	g.blocks = &b.blocks[0].mem.block;
	cr_assert_eq(gmem_open(&m, &g, 0, &b.err), 0, "%s", b.err.msg);
	gmem_close(&m);
	cr_assert_eq(made, 0);
}

/* --- what it is for --- */

/* What memfd_create(2) opened may be mute; this tells. */
static int opened_again(const struct box *b)
{
	char path[64];
	int fd;

	snprintf(path, sizeof(path), "/proc/self/fd/%d", b->blocks[0].mem.block.fd);
	fd = open(path, O_RDWR | O_CLOEXEC);
	cr_assert_geq(fd, 0);
	return fd;
}

static bool is_mute(int fd)
{
	int in = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
	char path[64], buf[512];
	bool mute;

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	cr_assert_geq(inotify_add_watch(in, path, IN_ACCESS), 0);
	cr_assert_eq(pread(fd, buf, 1, 0), 1);
	mute = read(in, buf, sizeof(buf)) < 0;
	syscall(SYS_close, in);
	return mute;
}

/* Whether it tells is tried with the guest's own open file, by which the guest changes it. */
Test(source_watch, a_file_that_is_mute_is_looked_at_always)
{
	struct box b;

	box_init(&b);
	b.blocks[0].theirs = fcntl(b.blocks[0].mem.block.fd, F_DUPFD_CLOEXEC, 0);
	if (!is_mute(b.blocks[0].theirs))
		cr_skip_test("memfd_create(2) opens files that tell, on this kernel");
	start(&b, &track_async);
	cr_assert_eq(b.t.gone.wd[0], -1);
	track_stop(&b.t);
}

/* A file that says when it is changed is looked at then only; it says so whoever punches it. */
Test(source_watch, a_file_that_tells_is_looked_at_when_it_does)
{
	struct engine_block *eb;
	struct box b;
	int fd;

	box_init(&b);
	eb = &b.blocks[0];
	eb->theirs = opened_again(&b);
	memset(b.mem[0], 1, BYTES / 2);
	start(&b, &track_async);
	cr_assert_geq(b.t.gone.wd[0], 0);
	cr_assert_eq(eb->theirs, -1);
	was_sent(&b,
		 0); /* the other half is a hole, and was not sent as one: it is not looked for */
	cr_assert_eq(track_async.collect(&b.t, &b.err), 0, "%s", b.err.msg);
	cr_assert(are_pending(&b, 0, 0, 0));
	fd = opened_again(&b);
	cr_assert_eq(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 2 * PAGE, PAGE), 0);
	cr_assert_eq(track_async.collect(&b.t, &b.err), 0, "%s", b.err.msg);
	cr_assert(bitmap_test(&eb->pending, 2));
	cr_assert(bitmap_test(&eb->pending, PAGES - 1));
	cr_assert(!bitmap_test(&eb->pending, 1));
	close(fd);
	track_stop(&b.t);
}
