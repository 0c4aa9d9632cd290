/* SPDX-License-Identifier: Apache-2.0 */
/*
 * SIGKILL of an agent, and beside it the control: a process of as many threads that does nothing but
 * hold a write-protecting userfaultfd over a bystander's memory. The threads of a killed process need
 * processors to die on, and only then its descriptors are closed; what that costs on this machine at
 * this moment the bystander's writer knows. So a busy machine is told from an agent whose death leaves
 * writers blocked: where another process holds a copy of its descriptor, say.
 */
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <unistd.h>
#include "lib/lab_guest.h"
#include "lib/lab_kill.h"
#include "lib/pace.h"
#include "uffd/uffd.h"
#include "util/cleanup.h"
#include "util/clock.h"

#define PAGE   4096
#define LENGTH (4096 * PAGE)
/* A writer that the dead agent tracked may wait as long as its death takes, not longer. */
#define STALL_US 100000
/* The bystander and the guest are not scheduled alike. */
#define UNLIKE 3

/**
 * struct lab_control - shared by its processes
 * @calm:	the writer's waits count
 * @stall_us:	the longest of them
 * @writes:	pages that it wrote
 * @served:	its faults that the holder answered
 * @bystander:	its process
 * @holder:	the process that is killed beside the agent
 * @threads:	of the holder
 * @pace:	the test's: what the machine makes of anybody meanwhile. The bystander is killed once, so that
 *		it is one sample of what a busy machine may do
 */
struct lab_control {
	_Atomic bool calm;
	_Atomic uint64_t stall_us;
	_Atomic uint64_t writes;
	_Atomic uint64_t served;
	struct lab_proc *bystander;
	_Atomic pid_t holder;
	unsigned int threads;
	struct pace *pace;
};

static void must(bool ok, const char *what)
{
	if (ok)
		return;
	perror(what);
	_exit(1);
}

static void *idle_main(void *arg)
{
	for (;;)
		poll(NULL, 0, -1);
	return arg;
}

/* Lets the writer go fault by fault, as an agent does, and protects everything anew now and then. */
static void holder_main(struct lab_control *c, int fd, uint64_t mem)
{
	struct uffd_event ev[UFFD_READ_MAX];
	uint64_t due = 0;
	pthread_t t;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	for (unsigned int i = 1; i < c->threads; i++)
		must(!pthread_create(&t, NULL, idle_main, NULL), "thread");
	for (;;) {
		int n;

		if (clock_us() >= due) {
			must(!uffd_writeprotect(fd, mem, LENGTH, true), "protect");
			due = clock_us() + 50000;
		}
		poll(&(struct pollfd){.fd = fd, .events = POLLIN}, 1, 10);
		n = uffd_read(fd, ev, UFFD_READ_MAX);
		for (int i = 0; i < n; i++)
			must(!uffd_writeprotect(fd, ev[i].addr / PAGE * PAGE, PAGE, false),
			     "allow");
		if (n > 0)
			atomic_fetch_add(&c->served, (uint64_t)n);
	}
}

/*
 * Page after page for ever; a write to a protected page waits for the holder. It never sleeps, as the
 * guest's writers do not: what a busy machine makes one of them wait, it makes the other.
 */
static void write_on(struct lab_control *c, volatile uint8_t *mem)
{
	uint64_t was = clock_us(), now;

	for (uint64_t at = 0;; at = (at + PAGE) % LENGTH) {
		mem[at]++;
		now = clock_us();
		if (atomic_load(&c->calm) && now - was > atomic_load(&c->stall_us))
			atomic_store(&c->stall_us, now - was);
		atomic_fetch_add(&c->writes, 1);
		was = now;
	}
}

static void bystander_main(struct lab_control *c)
{
	uint8_t *mem = mmap(NULL, LENGTH, PROT_READ | PROT_WRITE,
			    MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
	int fd = uffd_open(true, NULL);
	pid_t pid;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	signal(SIGCHLD, SIG_IGN);
	must(mem != MAP_FAILED && !madvise(mem, LENGTH, MADV_DONTFORK), "memory");
	must(fd >= 0 && !uffd_api(fd, UFFD_F_PAGEFAULT_FLAG_WP, NULL, NULL) &&
		     !uffd_register(fd, (uintptr_t)mem, LENGTH, UFFD_MODE_WP, NULL),
	     "userfaultfd");
	pid = fork();
	must(pid >= 0, "fork");
	if (pid == 0)
		holder_main(c, fd, (uintptr_t)mem);
	atomic_store(&c->holder, pid);
	close(fd);
	write_on(c, mem);
}

struct lab_control *lab_control_start(struct lab *lab, unsigned int threads)
{
	struct lab_control *c =
		mmap(NULL, sizeof(*c), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	pid_t pid;

	lab_check(lab, c != MAP_FAILED, "no memory for the control");
	c->threads = threads;
	fflush(NULL);
	pid = fork();
	if (pid == 0)
		bystander_main(c);
	c->bystander = lab_lend(lab, "bystander", pid);
	lab_until(lab, 10000, atomic_load(&c->served) > 10, "the control is not tracked");
	c->pace = pace_start();
	return c;
}

void lab_control_end(struct lab *lab, struct lab_control *c)
{
	lab_proc_kill(lab, c->bystander);
	pace_end(c->pace);
	munmap(c, sizeof(*c));
}

void lab_control_calm(struct lab_control *c)
{
	atomic_store(&c->stall_us, 0);
	atomic_store(&c->calm, true);
}

void lab_control_kill(struct lab_control *c)
{
	kill(atomic_load(&c->holder), SIGKILL);
}

void lab_control_check(struct lab *lab, struct lab_control *c, uint64_t stall_us, const char *what)
{
	uint64_t writes = atomic_load(&c->writes), usual, anybody;

	lab_until(lab, 20000, atomic_load(&c->writes) > writes + 2, "the bystander does not go on");
	usual = atomic_load(&c->stall_us);
	anybody = pace_longest_us(c->pace);
	fprintf(stderr,
		"%s: a writer stood for %lu us, the bystander's for %lu us, anybody for %lu us\n",
		what, stall_us, usual, anybody);
	lab_check(lab, stall_us <= (STALL_US + UNLIKE * MAX(usual, anybody)) * lab->slow,
		  "a writer stood for %lu us, the bystander's for %lu us, anybody for %lu us",
		  stall_us, usual, anybody);
}

void lab_kill_agent(struct lab *lab, struct lab_proc *agent, const struct lab_writers *w)
{
	struct lab_control *c = lab_control_start(lab, lab_usage(lab, agent->pid).threads);

	w->calm(w->arg);
	lab_control_calm(c);
	lab_control_kill(c);
	lab_proc_kill(lab, agent);
	w->go_on(w->arg);
	lab_control_check(lab, c, w->stall_us(w->arg), agent->name);
	lab_control_end(lab, c);
	if (w->end)
		w->end(w->arg);
}

/* --- a native guest --- */

static void calm_guest(void *arg)
{
	lab_guest_calm(arg);
}

static void guest_goes_on(void *arg)
{
	struct lab_guest *g = arg;
	uint64_t pages = lab_guest_report(g).pages, counter = lab_guest_counter(g, g->at);

	lab_until(g->lab, 20000, lab_guest_counter(g, g->at) > counter + pages / 4,
		  "the writers do not go on");
}

static uint64_t stall_of_guest(void *arg)
{
	return lab_guest_report(arg).stall_us;
}

void lab_guest_kill_agent(struct lab_guest *g, struct lab_proc *agent)
{
	const struct lab_writers w = {g, calm_guest, guest_goes_on, stall_of_guest, NULL};

	lab_kill_agent(g->lab, agent, &w);
}
