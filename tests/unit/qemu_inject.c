/* SPDX-License-Identifier: Apache-2.0 */
/* System calls made inside children that compute, block, stand or have many threads. */
#include <criterion/criterion.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "guest/qemu/inject.h"
#include "util/clock.h"

#define ROUNDS  200
#define STOP_US 5000
#define CALLS   100
#define NONE    ((uint64_t[6]){0})

/** struct shared - what the child tells; @sum, @product: what it has to find every time */
struct shared {
	_Atomic uint64_t rounds;
	_Atomic uint64_t wrong;
	_Atomic uint64_t signals;
	_Atomic uint64_t woken;
	_Atomic int ready;
	int fd[2];
	uint64_t sum;
	double product;
};

static struct shared *s;
static pid_t child;

/* Registers of all kinds are in use all the time, and every result is known. */
static uint64_t compute_sum(double *ret_product)
{
	uint64_t x = 88172645463325252ull, sum = 0;
	double d = 1;

	for (unsigned int i = 0; i < 20000; i++) {
		x ^= x << 13;
		x ^= x >> 7;
		x ^= x << 17;
		sum += x;
		d = d * 1.0000001 + 1e-9;
	}
	*ret_product = d;
	return sum;
}

static void start(void)
{
	alarm(60);
	s = mmap(NULL, sizeof(*s), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	cr_assert(s != MAP_FAILED && !pipe(s->fd));
	s->sum = compute_sum(&s->product);
}

static void stop(void)
{
	if (child > 0) {
		kill(child, SIGKILL);
		waitpid(child, NULL, 0);
	}
}

TestSuite(qemu_inject, .init = start, .fini = stop);

#define until(cond, ...)                                             \
	do {                                                         \
		uint64_t end_ = clock_us() + 10000000;               \
		while (!(cond)) {                                    \
			cr_assert_lt(clock_us(), end_, __VA_ARGS__); \
			usleep(100);                                 \
		}                                                    \
	} while (0)

static void compute(void)
{
	for (;;) {
		double product;
		uint64_t sum = compute_sum(&product);

		s->wrong += sum != s->sum || product != s->product;
		s->rounds++;
	}
}

static void *compute_thread(void *arg)
{
	(void)arg;
	compute();
	return NULL;
}

static void on_signal(int sig)
{
	(void)sig;
	s->signals++;
}

/* Blocks in read(2); each byte that comes is counted, an interruption is an error. */
static void block(void)
{
	char c;

	s->ready = 1;
	while (read(s->fd[0], &c, 1) == 1)
		s->woken++;
	s->wrong++;
	pause();
}

static void many_threads(void)
{
	pthread_t t;

	for (int i = 0; i < 8; i++)
		pthread_create(&t, NULL, compute_thread, NULL);
	block();
}

static void spawn(void (*body)(void))
{
	child = fork();
	if (!child) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		signal(SIGUSR1, on_signal);
		body();
		_exit(1);
	}
	cr_assert(child > 0);
	usleep(50000);
}

static void list_fds(char *out, size_t size)
{
	char path[64], link[128];
	struct dirent *e;
	DIR *d;

	snprintf(path, sizeof(path), "/proc/%d/fd", (int)child);
	d = opendir(path);
	cr_assert(d != NULL);
	*out = '\0';
	while ((e = readdir(d))) {
		ssize_t n = readlinkat(dirfd(d), e->d_name, link, sizeof(link) - 1);

		if (n > 0)
			snprintf(out + strlen(out), size - strlen(out), "%s>%.*s ", e->d_name,
				 (int)n, link);
	}
	closedir(d);
}

static int64_t call(long nr, const uint64_t args[6])
{
	struct error err = {0};
	struct inject in;
	int64_t result = -1;
	uint64_t us;

	cr_assert_eq(inject_begin(&in, child, &err), 0, "%s", err.msg);
	cr_assert_eq(inject_call(&in, nr, args, &result), 0);
	us = inject_end(&in);
	if (us > STOP_US)
		cr_log_info("stood for %llu us", (unsigned long long)us);
	return result;
}

static char state_of(void)
{
	char path[64], text[512] = "", *at;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/stat", (int)child);
	f = fopen(path, "re");
	cr_assert(f && fread(text, 1, sizeof(text) - 1, f));
	fclose(f);
	at = strrchr(text, ')');
	return at ? at[2] : '?';
}

Test(qemu_inject, a_child_that_computes_goes_on_and_is_right)
{
	uint64_t before;

	spawn(compute);
	for (int i = 0; i < ROUNDS; i++)
		cr_assert_eq(call(SYS_getpid, NONE), child);
	before = s->rounds;
	while (s->rounds < before + 50)
		usleep(1000);
	cr_assert_eq(s->wrong, 0);
}

Test(qemu_inject, stands_for_less_than_five_milliseconds)
{
	uint64_t best = UINT64_MAX;

	spawn(compute);
	for (int i = 0; i < 20; i++) {
		struct inject in;
		int64_t result;
		uint64_t us;

		cr_assert_eq(inject_begin(&in, child, NULL), 0);
		cr_assert_eq(inject_call(&in, SYS_getppid, NONE, &result), 0);
		us = inject_end(&in);
		best = us < best ? us : best;
		cr_assert_eq(result, getpid());
	}
	cr_assert_lt(best, STOP_US);
}

Test(qemu_inject, a_descriptor_made_there_comes_here_and_is_gone_there)
{
	char before[4096], with[4096], after[4096];
	int pidfd, fd;
	int64_t there;

	spawn(compute);
	list_fds(before, sizeof(before));
	there = call(SYS_eventfd2, (uint64_t[6]){7, O_CLOEXEC | O_NONBLOCK});
	cr_assert_geq(there, 0);
	list_fds(with, sizeof(with));
	cr_assert_str_neq(with, before);
	pidfd = (int)syscall(SYS_pidfd_open, child, 0);
	fd = inject_fetch(pidfd, (int)there);
	cr_assert_geq(fd, 0, "%s", strerror(-fd));
	cr_assert(fcntl(fd, F_GETFD) & FD_CLOEXEC);
	cr_assert_eq(read(fd, &(uint64_t){0}, 8), 8);
	cr_assert_eq(call(SYS_close, (uint64_t[6]){(uint64_t)there}), 0);
	list_fds(after, sizeof(after));
	cr_assert_str_eq(after, before);
	cr_assert_eq(s->wrong, 0);
}

Test(qemu_inject, several_calls_in_one_stop_and_errors_of_the_call)
{
	struct inject in;
	int64_t fd, r;

	spawn(compute);
	cr_assert_eq(inject_begin(&in, child, NULL), 0);
	cr_assert_eq(inject_call(&in, SYS_eventfd2, (uint64_t[6]){0}, &fd), 0);
	cr_assert_eq(inject_call(&in, SYS_close, (uint64_t[6]){(uint64_t)fd}, &r), 0);
	cr_assert_eq(r, 0);
	cr_assert_eq(inject_call(&in, SYS_close, (uint64_t[6]){(uint64_t)fd}, &r), 0);
	cr_assert_eq(r, -EBADF);
	inject_end(&in);
}

Test(qemu_inject, a_system_call_that_blocks_goes_on_waiting)
{
	spawn(block);
	for (int i = 1; i <= 20; i++) {
		cr_assert_eq(call(SYS_getpid, NONE), child);
		cr_assert_eq(s->wrong, 0, "read(2) was interrupted");
		cr_assert_eq(write(s->fd[1], "x", 1), 1);
		while (s->woken < (uint64_t)i)
			usleep(100);
	}
	cr_assert_eq(s->wrong, 0);
}

Test(qemu_inject, a_stopped_process_stays_stopped)
{
	uint64_t before;

	spawn(compute);
	kill(child, SIGSTOP);
	while (state_of() != 'T')
		usleep(100);
	for (int i = 0; i < 5; i++)
		cr_assert_eq(call(SYS_getpid, NONE), child);
	usleep(20000);
	cr_assert_eq(state_of(), 'T');
	before = s->rounds;
	usleep(50000);
	cr_assert_eq(s->rounds, before);
	kill(child, SIGCONT);
	while (s->rounds < before + 20)
		usleep(1000);
	cr_assert_eq(s->wrong, 0);
}

Test(qemu_inject, other_threads_run_on)
{
	uint64_t before;
	struct inject in;

	spawn(many_threads);
	cr_assert_eq(inject_begin(&in, child, NULL), 0);
	before = s->rounds;
	while (s->rounds < before + 20)
		usleep(1000);
	inject_end(&in);
	for (int i = 0; i < ROUNDS; i++)
		cr_assert_eq(call(SYS_getpid, NONE), child);
	cr_assert_eq(s->wrong, 0);
}

Test(qemu_inject, no_signal_is_lost)
{
	struct inject in;
	int64_t r;

	spawn(compute);
	for (uint64_t i = 1; i <= 30; i++) {
		cr_assert_eq(inject_begin(&in, child, NULL), 0);
		kill(child, SIGUSR1);
		cr_assert_eq(inject_call(&in, SYS_getpid, NONE, &r), 0);
		cr_assert_eq(r, child);
		cr_assert_eq(s->signals, i - 1, "a handler ran in the middle");
		inject_end(&in);
		until(s->signals == i, "a signal was lost");
	}
	cr_assert_eq(s->wrong, 0);
}

static int run_calls(struct inject_call *calls, size_t n, struct inject_script *ret)
{
	struct error err = {0};
	int r;

	*ret = (struct inject_script){.pid = child,
				      .pidfd = (int)syscall(SYS_pidfd_open, child, 0),
				      .calls = calls,
				      .n = n};
	cr_assert_geq(ret->pidfd, 0);
	r = inject_run(ret, &err);
	close(ret->pidfd);
	cr_assert_eq(r != 0, error_is_set(&err), "%d: %s", r, err.msg);
	return r;
}

Test(qemu_inject, a_script_ends_at_a_failure_unless_that_does_not_matter)
{
	struct inject_call calls[] = {{.nr = SYS_getpid},
				      {.nr = SYS_close, .args = {9999}},
				      {.nr = SYS_getppid, .result = 1}};
	struct inject_script script;

	spawn(compute);
	cr_assert_eq(run_calls(calls, 3, &script), 0);
	cr_assert(calls[0].result == child && calls[1].result == -EBADF && calls[2].result == 1);
	cr_assert(script.us && script.fd < 0);
	script.all = true;
	cr_assert_eq(inject_run(&script, NULL), 0);
	cr_assert_eq(calls[2].result, getpid());
	cr_assert_eq(s->wrong, 0);
}

Test(qemu_inject, what_a_script_makes_comes_here_and_stays_there_only_if_it_is_to)
{
	struct inject_call make = {.nr = SYS_eventfd2, .args = {7, O_CLOEXEC | O_NONBLOCK}};
	char before[4096], after[4096];
	struct inject_script script;

	spawn(compute);
	list_fds(before, sizeof(before));
	for (int keep = 0; keep < 2; keep++) {
		script = (struct inject_script){.pid = child,
						.pidfd = (int)syscall(SYS_pidfd_open, child, 0),
						.calls = &make,
						.n = 1,
						.fetch = true,
						.keep = keep};
		cr_assert_eq(inject_run(&script, NULL), 0);
		cr_assert_geq(script.fd, 0);
		cr_assert(fcntl(script.fd, F_GETFD) & FD_CLOEXEC);
		cr_assert_eq(read(script.fd, &(uint64_t){0}, 8), 8);
		close(script.fd);
		close(script.pidfd);
		list_fds(after, sizeof(after));
		cr_assert_eq(!strcmp(before, after), !keep);
	}
	cr_assert_eq(s->wrong, 0);
}

/* An agent that does nothing else. */
static void agent_main(void)
{
	struct inject_call calls[CALLS];

	for (;;) {
		struct inject_script script = {
			.pid = child, .pidfd = -1, .calls = calls, .n = CALLS};

		for (size_t i = 0; i < CALLS; i++)
			calls[i] = (struct inject_call){.nr = SYS_getpid};
		if (inject_run(&script, NULL))
			s->wrong++;
	}
}

static pid_t start_agent(void)
{
	pid_t p = fork();

	if (!p)
		agent_main();
	cr_assert_gt(p, 0);
	return p;
}

static bool at_peace(uint64_t mask)
{
	char path[48], text[4096] = "", *at;
	uint64_t now = 0;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/status", (int)child);
	f = fopen(path, "re");
	cr_assert(f && fread(text, 1, sizeof(text) - 1, f));
	fclose(f);
	at = strstr(text, "SigBlk:");
	cr_assert(at && sscanf(at + 7, "%lx", &now) == 1);
	return !inject_traced(child) && now == mask;
}

Test(qemu_inject, an_agent_that_dies_in_between_leaves_it_as_it_was)
{
	uint64_t before;

	spawn(compute);
	for (int i = 0; i < 15; i++) {
		pid_t agent = start_agent();

		while (!inject_traced(child))
			usleep(50);
		usleep((useconds_t)(i * 53));
		kill(agent, SIGKILL);
		waitpid(agent, NULL, 0);
		/* What it had begun comes to its end. */
		until(at_peace(0), "kill %d leaves it traced or masked", i);
		cr_assert_eq(waitpid(child, NULL, WNOHANG), 0, "it was ended by kill %d", i);
	}
	before = s->rounds;
	while (s->rounds < before + 20)
		usleep(1000);
	cr_assert_eq(s->wrong, 0);
}

Test(qemu_inject, one_that_is_gone_is_told)
{
	struct error err = {0};
	struct inject in;

	spawn(compute);
	kill(child, SIGKILL);
	waitpid(child, NULL, 0);
	cr_assert_eq(inject_begin(&in, child, &err), -ESRCH, "%s", err.msg);
	child = 0;
}

Test(qemu_inject, one_that_dies_in_between_is_told)
{
	struct inject in;
	int64_t r;

	spawn(compute);
	cr_assert_eq(inject_begin(&in, child, NULL), 0);
	kill(child, SIGKILL);
	usleep(20000);
	cr_assert_eq(inject_call(&in, SYS_getpid, NONE, &r), -ESRCH);
	inject_end(&in);
}

Test(qemu_inject, a_debugger_is_named)
{
	struct error err = {0};
	struct inject in;
	pid_t debugger;

	spawn(compute);
	debugger = fork();
	if (!debugger) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		syscall(SYS_ptrace, 0x4206 /* PTRACE_SEIZE */, child, 0, 0);
		s->ready = 1;
		pause();
		_exit(0);
	}
	while (!s->ready)
		usleep(100);
	cr_assert_eq(inject_begin(&in, child, &err), -EPERM);
	cr_assert(strstr(err.msg, "debugger"), "%s", err.msg);
	kill(debugger, SIGKILL);
	waitpid(debugger, NULL, 0);
}

Test(qemu_inject, the_missing_right_is_named)
{
	pid_t p;
	int status;

	if (getuid() != 0)
		cr_skip_test("root is needed to give up rights");
	spawn(compute);
	p = fork();
	if (!p) {
		struct error err = {0};
		struct inject in;

		if (setgid(65534) || setuid(65534))
			_exit(2);
		_exit(inject_begin(&in, child, &err) == -EPERM && strstr(err.msg, "CAP_SYS_PTRACE")
			      ? 0
			      : 1);
	}
	waitpid(p, &status, 0);
	cr_assert_eq(status, 0);
}
