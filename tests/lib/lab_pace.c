/* SPDX-License-Identifier: Apache-2.0 */
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "lib/lab_pace.h"

#define PAUSE_US 2000

/**
 * struct lab_pace - shared by the processes
 * @longest_us:	from a question to its answer
 * @asked_us:	when the question under way was asked, 0: there is none
 * @n:		answers
 */
struct lab_pace {
	_Atomic uint64_t longest_us;
	_Atomic uint64_t asked_us;
	_Atomic uint64_t n;
	struct lab_proc *proc;
};

static uint64_t now_us(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000 + (uint64_t)ts.tv_nsec / 1000;
}

static void answer(int fd)
{
	char c;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	while (read(fd, &c, 1) == 1 && write(fd, &c, 1) == 1)
		;
	_exit(0);
}

static void pace_main(struct lab_pace *p)
{
	char c = 0;
	int fd[2];

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	signal(SIGCHLD, SIG_IGN);
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fd))
		_exit(1);
	if (fork() == 0)
		answer(fd[1]);
	for (;; usleep(PAUSE_US)) {
		uint64_t us = now_us();

		atomic_store(&p->asked_us, us);
		if (write(fd[0], &c, 1) != 1 || read(fd[0], &c, 1) != 1)
			_exit(1);
		us = now_us() - us;
		atomic_store(&p->asked_us, 0);
		if (us > atomic_load(&p->longest_us))
			atomic_store(&p->longest_us, us);
		atomic_fetch_add(&p->n, 1);
	}
}

struct lab_pace *lab_pace_start(struct lab *lab)
{
	struct lab_pace *p =
		mmap(NULL, sizeof(*p), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	pid_t pid;

	lab_check(lab, p != MAP_FAILED, "no memory for the pace");
	fflush(NULL);
	pid = fork();
	if (pid == 0)
		pace_main(p);
	p->proc = lab_lend(lab, "pace", pid);
	lab_until(lab, 10000, atomic_load(&p->n) > 0, "nobody answers");
	return p;
}

uint64_t lab_pace_end(struct lab *lab, struct lab_pace *p)
{
	uint64_t longest = atomic_load(&p->longest_us), asked = atomic_load(&p->asked_us);

	if (asked && now_us() - asked > longest)
		longest = now_us() - asked;
	lab_proc_kill(lab, p->proc);
	munmap(p, sizeof(*p));
	return longest;
}
