/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The files of a process that was killed are let go one after the other, the highest number first. Who
 * waits for one of them waits for all above it, too; an inotify(7) instance is slow, because it waits for a
 * grace period of the whole machine. So an agent keeps the descriptors at high numbers whose end lets
 * a guest's writers go on (fdio_high()).
 */
#include "platform.h"

#include <sys/epoll.h>
#include <sys/inotify.h>

#define LOW    50
#define MIDDLE 100
#define HIGH   200
#define ROUNDS 15
#define PIPES  150

/* A userfaultfd at MIDDLE, which protects its parent's memory, and an inotify instance at @at. */
static void holder(int uffd, int at, int ready)
{
	int in = inotify_init1(IN_NONBLOCK), file = new_memfd(PAGE);
	char path[64];

	snprintf(path, sizeof(path), "/proc/self/fd/%d", file);
	if (inotify_add_watch(in, path, IN_MODIFY) < 0 || dup2(in, at) != at || close(in) ||
	    dup2(uffd, MIDDLE) != MIDDLE || close(uffd) || write(ready, "x", 1) != 1)
		_exit(1);
	for (;;)
		pause();
}

/* Return: microseconds that a write waits when the holder is killed */
static uint64_t waits(int at)
{
	uint8_t *mem = map_anon(16 * PAGE);
	int uffd = uffd_new(UFFD_FEATURE_PAGEFAULT_FLAG_WP), pipes[2];
	uint64_t from;
	char byte;
	pid_t pid;

	memset(mem, 1, 16 * PAGE);
	must(madvise(mem, 16 * PAGE, MADV_DONTFORK) == 0);
	must(uffd_reg(uffd, mem, 16 * PAGE, UFFDIO_REGISTER_MODE_WP) == 0);
	must(uffd_wp(uffd, mem, 16 * PAGE, true) == 0);
	must(pipe(pipes) == 0);
	pid = fork();
	must(pid >= 0);
	if (pid == 0)
		holder(uffd, at, pipes[1]);
	close(uffd);
	must(read(pipes[0], &byte, 1) == 1);
	from = now_us();
	kill(pid, SIGKILL);
	mem[0] = 2;
	from = now_us() - from;
	waitpid(pid, NULL, 0);
	close(pipes[0]);
	close(pipes[1]);
	munmap(mem, 16 * PAGE);
	return from;
}

static int by_size(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return x < y ? -1 : x > y;
}

/* Return: the median of some rounds */
static uint64_t usually(int at)
{
	uint64_t us[ROUNDS];

	for (int i = 0; i < ROUNDS; i++)
		us[i] = waits(at);
	qsort(us, ROUNDS, sizeof(us[0]), by_size);
	return us[ROUNDS / 2];
}

/* Holds the ends for writing of pipes at numbers that are not the order in which they were made. */
static void writer(const int (*pipes)[2], int ready)
{
	for (int i = 0; i < PIPES; i++)
		if (dup2(pipes[i][1], HIGH + PIPES + i * 7 % PIPES) < 0 || close(pipes[i][1]))
			_exit(1);
	if (write(ready, "x", 1) != 1)
		_exit(1);
	for (;;)
		pause();
}

/*
 * epoll(7) lists what became ready in the order in which it did, so that the order is seen without a
 * clock.
 */
static void order_of_ends(void)
{
	struct epoll_event got[PIPES], ev = {.events = EPOLLIN};
	int pipes[PIPES][2], ready[2], set = epoll_create1(0), n, down = 0;
	char byte;
	pid_t pid;

	must(set >= 0 && pipe(ready) == 0);
	for (int i = 0; i < PIPES; i++) {
		must(pipe(pipes[i]) == 0);
		ev.data.u32 = (uint32_t)(i * 7 % PIPES);
		must(epoll_ctl(set, EPOLL_CTL_ADD, pipes[i][0], &ev) == 0);
	}
	pid = fork();
	must(pid >= 0);
	if (pid == 0)
		writer(pipes, ready[1]);
	for (int i = 0; i < PIPES; i++)
		close(pipes[i][1]);
	must(read(ready[0], &byte, 1) == 1);
	must(epoll_wait(set, got, PIPES, 0) == 0);
	agent_kill(pid);
	n = epoll_wait(set, got, PIPES, 5000);
	must(n == PIPES);
	for (int i = 1; i < n; i++)
		down += got[i].data.u32 + 1 == got[i - 1].data.u32;
	fact(down == PIPES - 1, "files are let go from the highest number down (%d of %d)",
	     down + 1, PIPES);
	for (int i = 0; i < PIPES; i++)
		close(pipes[i][0]);
	close(set);
}

int main(void)
{
	uint64_t below = usually(LOW), above = usually(HIGH);

	/* no fact: how long an inotify instance takes depends on what the other processors do */
	note("a writer waits %lu us for a userfaultfd above an inotify instance, %lu us for one "
	     "below",
	     below, above);
	order_of_ends();
	return facts_end();
}
