/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "lib/pace.h"

#define PAUSE_US 2000
/* Those that sleep: on one processor each. */
#define SLEEPERS 8
/* A wait of this length somebody can notice, if there are several. */
#define NOTICED_US 5000
/* Who is measured and who measures are not scheduled alike. */
#define UNLIKE 3

/**
 * struct witness - written by its process, read by the test's
 * @longest_us:	wait so far
 * @lost_us:	sum of those that could be noticed
 * @due_us:	when the wait under way should have been over, 0: there is none
 */
struct witness {
	_Atomic uint64_t longest_us;
	_Atomic uint64_t lost_us;
	_Atomic uint64_t due_us;
	_Atomic uint64_t n;
};

/**
 * struct pace - shared by the processes
 * @w:		w[0] of the two that wake each other, the others of sleepers
 * @sleepers:	how many
 * @pid:	of the process whose end ends them all
 */
struct pace {
	struct witness w[1 + SLEEPERS];
	int sleepers;
	pid_t pid;
};

static uint64_t now_us(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000 + (uint64_t)ts.tv_nsec / 1000;
}

static void must(bool ok, const char *what)
{
	if (ok)
		return;
	perror(what);
	abort();
}

/* The wait that was to be over at due_us is over. */
static void waited(struct witness *w)
{
	uint64_t now = now_us(), due = atomic_load(&w->due_us), us = now > due ? now - due : 0;

	if (us > atomic_load(&w->longest_us))
		atomic_store(&w->longest_us, us);
	if (us >= NOTICED_US)
		atomic_fetch_add(&w->lost_us, us);
	atomic_store(&w->due_us, 0);
	atomic_fetch_add(&w->n, 1);
}

static void answer(int fd)
{
	char c;

	while (read(fd, &c, 1) == 1 && write(fd, &c, 1) == 1)
		;
	_exit(0);
}

static void ask(struct witness *w, int fd)
{
	char c = 0;

	for (;; usleep(PAUSE_US)) {
		atomic_store(&w->due_us, now_us());
		if (write(fd, &c, 1) != 1 || read(fd, &c, 1) != 1)
			_exit(1);
		waited(w);
	}
}

static void sleep_on(struct witness *w, int cpu)
{
	cpu_set_t one;

	CPU_ZERO(&one);
	CPU_SET((size_t)cpu, &one);
	sched_setaffinity(0, sizeof(one), &one);
	for (;;) {
		atomic_store(&w->due_us, now_us() + PAUSE_US);
		usleep(PAUSE_US);
		waited(w);
	}
}

/* Return: true in a child, which dies with its parent */
static bool in_child(pid_t parent)
{
	pid_t pid = fork();

	if (pid < 0)
		_exit(1);
	if (pid)
		return false;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != parent)
		_exit(1);
	return true;
}

static void pace_main(struct pace *p, const cpu_set_t *cpus)
{
	pid_t me = getpid();
	int fd[2], i = 0;

	signal(SIGCHLD, SIG_IGN);
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fd))
		_exit(1);
	if (in_child(me))
		answer(fd[1]);
	for (int cpu = 0; cpu < CPU_SETSIZE && i < p->sleepers; cpu++)
		if (CPU_ISSET((size_t)cpu, cpus) && in_child(me))
			sleep_on(&p->w[1 + i], cpu);
		else
			i += CPU_ISSET((size_t)cpu, cpus);
	ask(&p->w[0], fd[0]);
}

static bool all_begun(const struct pace *p)
{
	for (int i = 0; i <= p->sleepers; i++)
		if (!atomic_load(&p->w[i].n))
			return false;
	return true;
}

struct pace *pace_start(void)
{
	struct pace *p =
		mmap(NULL, sizeof(*p), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	pid_t parent = getpid(), pid;
	cpu_set_t cpus;
	int n;

	must(p != MAP_FAILED, "no memory for the pace");
	must(sched_getaffinity(0, sizeof(cpus), &cpus) == 0, "sched_getaffinity");
	n = CPU_COUNT(&cpus);
	p->sleepers = n < SLEEPERS ? n : SLEEPERS;
	fflush(NULL);
	/* The child has its 0 for itself. */
	pid = fork();
	must(pid >= 0, "fork");
	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (getppid() == parent)
			pace_main(p, &cpus);
		_exit(1);
	}
	p->pid = pid;
	while (!all_begun(p)) {
		must(waitpid(p->pid, NULL, WNOHANG) == 0, "the pace does not begin");
		usleep(1000);
	}
	return p;
}

/* Return: how long the wait under way is too long already */
static uint64_t under_way(const struct witness *w)
{
	uint64_t due = atomic_load(&w->due_us), now = now_us();

	return due && now > due ? now - due : 0;
}

uint64_t pace_longest_us(const struct pace *p)
{
	uint64_t most = 0;

	for (int i = 0; i <= p->sleepers; i++) {
		uint64_t past = atomic_load(&p->w[i].longest_us), now = under_way(&p->w[i]);

		most = past > most ? past : most;
		most = now > most ? now : most;
	}
	return most;
}

uint64_t pace_lost_us(const struct pace *p)
{
	uint64_t most = 0;

	for (int i = 0; i <= p->sleepers; i++) {
		uint64_t us = atomic_load(&p->w[i].lost_us) + under_way(&p->w[i]);

		most = us > most ? us : most;
	}
	return most;
}

bool pace_soon(const struct pace *p, uint64_t us, uint64_t bound_us)
{
	return us <= bound_us + UNLIKE * pace_longest_us(p);
}

bool pace_brisk(const struct pace *p, uint64_t us, uint64_t bound_us)
{
	uint64_t lost = pace_lost_us(p), longest = pace_longest_us(p);

	return us <= bound_us + UNLIKE * (lost > longest ? lost : longest);
}

void pace_end(struct pace *p)
{
	if (!p)
		return;
	kill(p->pid, SIGKILL);
	while (waitpid(p->pid, NULL, 0) < 0 && errno == EINTR)
		;
	munmap(p, sizeof(*p));
}
