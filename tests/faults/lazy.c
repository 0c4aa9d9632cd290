/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The agent that fetches a program's pages is killed in the middle and does not come back for a while. With
 * decant the program waits where a page is missing, because its process keeps a copy of the userfaultfd, and
 * has every page in the end. Beside it, how it goes where the dead process had the only one, as CRIU's
 * lazy-pages daemon has: the kernel lets go of the memory and the program reads zeros, and is told nothing.
 */
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <unistd.h>
#include "lib/lab_matrix.h"
#include "lib/lab_test.h"
#include "uffd/uffd.h"

TestSuite(lazy, .timeout = 120);

#define PAGE  4096u
#define PAGES 16384u
/* Pages that the daemon brings before it is killed. */
#define BROUGHT 4096u

/* How long it is away. */
#define AWAY_MS 1500

Test(lazy, decant)
{
	struct lab_row row = {.fault = "fetching agent killed, away for 1.5 s",
			      .phase = "postcopy",
			      .mode = "postcopy",
			      .driver = "native"};
	const struct lab_move move = {.mode = "postcopy", .args = {"--bandwidth", "200Mbit"}};
	struct lab *lab;
	struct lab_host *a, *b;
	struct lab_guest *g;
	struct lab_proc *p;
	uint64_t end;
	char *fault;

	lab_test_long();
	fault = lab_fault(FAULTPOINT_PAGES_MARKED, "kill@50");
	lab = lab_new(lab_test_failed);
	lab_fault_agents(lab);
	lab_matrix_begin(&row);
	a = lab_host_start(lab, &(struct lab_host_opts){.name = "a"});
	b = lab_host_start(lab, &(struct lab_host_opts){.name = "b", .dest_fault = fault});
	free(fault);
	g = lab_guest_start(a, &(struct lab_guest_opts){.mb = 64, .threads = 3});
	p = lab_migrate_begin(a, b, g, &move);
	lab_fault_killed(lab, b->dest, 20000);
	for (end = lab_now_ms() + AWAY_MS; lab_now_ms() < end; lab_nap())
		lab_guest_unbroken(g, a, b);
	lab_check(lab, lab_guest_pid(g, b), "the program has ended");
	lab_host_dest_start(b);
	lab_until(lab, 30000, lab_job_phase_is(a, "completed"), "it is not recovered");
	lab_proc_kill(lab, p);
	lab_guest_arrived(g, b);
	lab_end(lab);
	lab_matrix_end(&row, "0 zero pages");
}

/* --- the control: the daemon has the only descriptor --- */

/**
 * struct control - shared by program and daemon
 * @ready:	the daemon serves
 * @brought:	pages that it has placed
 * @good, @zero, @other: what the program has read
 * @done:	it has read everything
 */
struct control {
	_Atomic bool ready;
	_Atomic unsigned int brought;
	_Atomic unsigned int good, zero, other;
	_Atomic bool done;
};

static void fill(uint32_t page[static PAGE / 4], unsigned int n)
{
	for (unsigned int i = 0; i < PAGE / 4; i++)
		page[i] = n * 1024 + i + 1;
}

/* Answers BROUGHT faults, then waits for its end. */
static void daemon_main(struct control *c, int fd, uint64_t mem)
{
	uint32_t page[PAGE / 4];
	struct uffd_event ev[UFFD_READ_MAX];
	uint64_t done;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	atomic_store(&c->ready, true);
	while (atomic_load(&c->brought) < BROUGHT) {
		int n = uffd_read(fd, ev, 1);

		if (n <= 0) {
			usleep(10);
			continue;
		}
		fill(page, (unsigned int)((ev[0].addr - mem) / PAGE));
		if (uffd_copy(fd, ev[0].addr / PAGE * PAGE, page, PAGE, &done))
			_exit(1);
		atomic_fetch_add(&c->brought, 1);
	}
	pause();
}

static void program_main(struct control *c, const volatile uint32_t *mem)
{
	uint32_t want[PAGE / 4];

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	for (unsigned int n = 0; n < PAGES; n++) {
		uint32_t got = mem[n * (PAGE / 4) + n % (PAGE / 4)];

		fill(want, n);
		atomic_fetch_add(got == want[n % (PAGE / 4)] ? &c->good
				 : got == 0                  ? &c->zero
							     : &c->other,
				 1);
	}
	atomic_store(&c->done, true);
}

/* The program makes its descriptor, hands it to the daemon and keeps none. */
static void start_program(struct control *c, _Atomic pid_t *daemon)
{
	void *mem = mmap(NULL, (size_t)PAGES * PAGE, PROT_READ | PROT_WRITE,
			 MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	int fd = uffd_open(false, NULL);
	pid_t pid;

	if (mem == MAP_FAILED || fd < 0 || uffd_api(fd, 0, NULL, NULL) ||
	    uffd_register(fd, (uintptr_t)mem, (size_t)PAGES * PAGE, UFFD_MODE_MISSING, NULL))
		_exit(1);
	pid = fork();
	if (pid == 0)
		daemon_main(c, fd, (uintptr_t)mem);
	if (pid < 0)
		_exit(1);
	close(fd);
	atomic_store(daemon, pid);
	program_main(c, mem);
	_exit(0);
}

Test(lazy, control_with_the_only_descriptor)
{
	struct lab_row row = {.fault = "control: who has the only userfaultfd killed",
			      .phase = "postcopy",
			      .mode = "postcopy",
			      .driver = "native"};
	struct control *c =
		mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	_Atomic pid_t *daemon = (_Atomic pid_t *)(c + 1);
	struct lab *lab = lab_new(lab_test_failed);
	struct lab_proc *p;
	char outcome[48];
	pid_t pid;

	lab_matrix_begin(&row);
	pid = fork();
	if (pid == 0)
		start_program(c, daemon);
	p = lab_lend(lab, "program", pid);
	lab_until(lab, 20000, atomic_load(&c->brought) == BROUGHT, "%u pages were brought",
		  atomic_load(&c->brought));
	lab_check(lab, !atomic_load(&c->done), "it has not waited");
	lab_check(lab, kill(atomic_load(daemon), SIGKILL) == 0, "the daemon");
	lab_check(lab, lab_proc_wait(lab, p, 20000) == 0, "the program has ended with %d",
		  p->status);
	fprintf(stderr, "%u pages right, %u zeros, %u others\n", c->good, c->zero, c->other);
	/* It proves nothing about decant unless it goes wrong here. */
	lab_check(lab, c->good == BROUGHT && c->zero == PAGES - BROUGHT && !c->other,
		  "%u right, %u zeros, %u others", c->good, c->zero, c->other);
	snprintf(outcome, sizeof(outcome), "%u zero pages", c->zero);
	munmap(c, PAGE);
	lab_end(lab);
	lab_matrix_end(&row, outcome);
}
