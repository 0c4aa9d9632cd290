/* SPDX-License-Identifier: Apache-2.0 */
/* P13: while the gate is closed nobody is inside; who waits sleeps, and is woken. */
#include <criterion/criterion.h>
#include <pthread.h>
#include <sched.h>
#include <stdint.h>
#include <time.h>
#include <unistd.h>

#include "gate.h"

TestSuite(dest_gate, .timeout = 60);

#define PLACERS 6
#define ROUNDS  20000

/**
 * struct world - one gate and who uses it
 * @inside:	placers that believe to be inside
 * @quit:	placers end
 * @passed:	times that somebody was inside
 */
struct world {
	struct gate gate;
	_Atomic int inside;
	_Atomic bool quit;
	_Atomic unsigned long passed;
};

static void *placer_main(void *arg)
{
	struct world *w = arg;

	while (!atomic_load(&w->quit)) {
		gate_enter(&w->gate);
		atomic_fetch_add(&w->inside, 1);
		if (atomic_fetch_add(&w->passed, 1) % 64 == 0)
			sched_yield(); /* somebody else takes the processor, as in a long copy */
		atomic_fetch_sub(&w->inside, 1);
		gate_leave(&w->gate);
	}
	return NULL;
}

Test(dest_gate, nobody_is_inside_while_it_is_closed)
{
	struct world w = {0};
	pthread_t t[PLACERS];
	unsigned long passed;

	for (int i = 0; i < PLACERS; i++)
		cr_assert_eq(pthread_create(&t[i], NULL, placer_main, &w), 0);
	for (int i = 0; i < ROUNDS; i++) {
		gate_close(&w.gate);
		cr_assert_eq(atomic_load(&w.inside), 0, "round %d", i);
		gate_open(&w.gate);
		if (i % 256 == 0)
			sched_yield();
	}
	/* Nobody was forgotten: all get in again. */
	passed = atomic_load(&w.passed);
	while (atomic_load(&w.passed) < passed + PLACERS)
		usleep(1000);
	atomic_store(&w.quit, true);
	for (int i = 0; i < PLACERS; i++)
		cr_assert_eq(pthread_join(t[i], NULL), 0);
	cr_assert_eq(atomic_load(&w.gate.outside), 0);
}

/* --- what waiting costs --- */

/** struct waiter - a thread that does one thing, and the processor time that it took */
struct waiter {
	struct gate *gate;
	void (*does)(struct gate *g);
	_Atomic bool done;
	uint64_t cpu_us;
};

static void *waiter_main(void *arg)
{
	struct waiter *w = arg;
	struct timespec t;

	w->does(w->gate);
	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
	w->cpu_us = (uint64_t)t.tv_sec * 1000000 + (uint64_t)t.tv_nsec / 1000;
	atomic_store(&w->done, true);
	return NULL;
}

static void sleeps(struct gate *g, void (*does)(struct gate *), void (*release)(struct gate *))
{
	struct waiter w = {.gate = g, .does = does};
	pthread_t t;

	cr_assert_eq(pthread_create(&t, NULL, waiter_main, &w), 0);
	usleep(300000);
	cr_assert_not(atomic_load(&w.done), "it did not wait");
	release(g);
	cr_assert_eq(pthread_join(t, NULL), 0);
	/* Who spins or yields takes as much of the time as it gets. */
	cr_assert_lt(w.cpu_us, 20000, "%lu us of processor time", (unsigned long)w.cpu_us);
}

Test(dest_gate, closing_sleeps_until_the_last_has_left)
{
	struct gate g = {0};

	gate_enter(&g);
	sleeps(&g, gate_close, gate_leave);
	gate_open(&g);
	gate_enter(&g);
	gate_leave(&g);
}

Test(dest_gate, entering_sleeps_until_it_is_open)
{
	struct gate g = {0};

	gate_close(&g);
	sleeps(&g, gate_enter, gate_open);
	gate_leave(&g);
	gate_close(&g);
}
