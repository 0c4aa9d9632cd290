/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The process that injects. It is forked for one stop of the target and does nothing but system calls: other threads
 * may have held any lock of the agent's when it was made.
 *
 * Rule 8: SIGKILL of the agent does not reach it; it brings to an end what it has begun, and ends. Rule 8 again: of
 * what the agent has open it keeps nothing, so that a tracking descriptor is the agent's alone (its death
 * releases the writers), but for what it needs itself.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/close_range.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "guest/qemu/inject.h"
#include "util/cleanup.h"
#include "util/clock.h"
#include "util/fdpass.h"

/* Between two looks whether another process has done with the target. */
#define AGAIN_NS 5000000

/**
 * struct hand - what the process has to know and tells; memory that both have
 * @in:		the target
 * @ret:	0 or -errno; -EINPROGRESS until it is known
 * @us, @pushed: see struct inject_script
 * @calls:	copies
 */
struct hand {
	struct inject in;
	int ret;
	uint64_t us;
	bool pushed;
	struct inject_call calls[];
};

/* --- in that process ----------------------------------------------------------------------------- */

/* @a, @b: may be equal, but not negative */
static void close_others(int a, int b)
{
	unsigned int low = (unsigned int)MIN(a, b), high = (unsigned int)MAX(a, b);

	if (low)
		close_range(0, low - 1, 0);
	if (high > low + 1)
		close_range(low + 1, high - 1, 0);
	close_range(high + 1, ~0u, 0);
}

/* An agent that has died does not take it: then it goes there, too, and nobody has registered anything with it. */
static int fetch(struct hand *h, const struct inject_script *s, int sock)
{
	int there = (int)h->calls[0].result;
	int fd = inject_fetch(s->pidfd, there), r = MIN(fd, 0);
	int64_t closed;

	if (!r)
		r = (int)MIN(fdpass_send(sock, (const uint8_t[]){0}, 1, fd), 0);
	if (r < 0 || !s->keep)
		inject_call(&h->in, SYS_close, (uint64_t[6]){(uint64_t)there}, &closed);
	return r;
}

static int make_calls(struct hand *h, const struct inject_script *s, int sock)
{
	int r = 0;

	for (size_t i = 0; !r && i < s->n; i++) {
		struct inject_call *c = &h->calls[i];

		r = inject_call(&h->in, c->nr, c->args, &c->result);
		if (!r && !i && s->fetch && c->result >= 0)
			r = fetch(h, s, sock);
		if (c->result < 0 && !s->all)
			break;
	}
	return r;
}

static void inject_there(struct hand *h, const struct inject_script *s, int sock)
{
	int r;

	close_others(sock, s->pidfd >= 0 ? s->pidfd : sock);
	r = inject_stop(&h->in);
	if (!r) {
		r = make_calls(h, s, sock);
		h->pushed = h->in.pushed;
		h->us = inject_end(&h->in);
	}
	h->ret = r;
	_exit(0);
}

/* --- in the agent -------------------------------------------------------------------------------- */

static int take_fd(int sock)
{
	struct fdpass got;
	uint8_t byte;

	return fdpass_recv(sock, &byte, 1, &got) == 1 && got.n ? got.fds[0] : -1;
}

/* Nothing is delivered to that process: what ends the agent gently must not end it. */
static pid_t fork_masked(void)
{
	sigset_t all, old;
	pid_t pid;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	pid = fork();
	if (pid)
		pthread_sigmask(SIG_SETMASK, &old, NULL);
	return pid;
}

/* Return: 0 with what has become of it in @h, or -errno */
static int by_process(struct hand *h, const struct inject_script *s, int *ret_fd)
{
	int sock[2], status = 0;
	pid_t pid;

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sock))
		return -errno;
	pid = fork_masked();
	if (!pid)
		inject_there(h, s, sock[1]);
	close(sock[1]);
	if (pid < 0) {
		close(sock[0]);
		return -EAGAIN;
	}
	while (waitpid(pid, &status, __WALL) < 0 && errno == EINTR)
		;
	*ret_fd = take_fd(sock[0]);
	close(sock[0]);
	return status || h->ret == -EINPROGRESS ? -EIO : 0;
}

/* That of an agent that has died may have hold of the target still, for as long as a target may need to stop. */
static int by_processes(struct hand *h, const struct inject_script *s, int *ret_fd)
{
	const struct timespec nap = {.tv_nsec = AGAIN_NS};
	uint64_t end = clock_us() + INJECT_STOP_MS * 1000ull;
	int r;

	for (;;) {
		h->ret = -EINPROGRESS;
		r = by_process(h, s, ret_fd);
		if (r || h->ret != -EPERM || h->in.stage != INJECT_TRACE ||
		    !inject_traced(s->pid) || clock_us() > end)
			return r;
		nanosleep(&nap, NULL);
	}
}

int inject_run(struct inject_script *s, struct error *err)
{
	size_t size = sizeof(struct hand) + s->n * sizeof(s->calls[0]);
	struct hand *h =
		mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	int r;

	s->fd = -1;
	s->us = 0;
	s->pushed = false;
	if (h == MAP_FAILED)
		return error_set(err, -ENOMEM, NULL, "out of memory");
	memcpy(h->calls, s->calls, s->n * sizeof(s->calls[0]));
	r = inject_find(&h->in, s->pid, err);
	if (!r) {
		r = by_processes(h, s, &s->fd);
		if (r < 0)
			error_set(err, r, NULL, "the process that was to inject into %d: %s",
				  (int)s->pid, r == -EIO ? "has died" : strerror(-r));
		else if (h->ret < 0 && !h->us)
			r = inject_why(&h->in, h->ret, err);
		else
			r = h->ret;
		memcpy(s->calls, h->calls, s->n * sizeof(s->calls[0]));
		s->us = h->us;
		s->pushed = h->pushed;
	}
	munmap(h, size);
	return r;
}
