/* SPDX-License-Identifier: Apache-2.0 */
#include "gate.h"
#include <sched.h>
#include <time.h>

/* What a short copy takes; then the processor is offered to others; then it is slept. */
#define SPINS  200
#define YIELDS 400

static void relax(void)
{
#ifdef __x86_64__
	__builtin_ia32_pause();
#endif
}

static void wait_a_little(unsigned int *tries)
{
	struct timespec t = {.tv_nsec = 20000};

	if (++*tries < SPINS)
		relax();
	else if (*tries < YIELDS)
		sched_yield();
	else
		nanosleep(&t, NULL);
}

/* Both sides say what they want before they look at the other: one of them sees the other. */
void gate_enter(struct gate *g)
{
	unsigned int tries = 0;

	for (;;) {
		atomic_fetch_add(&g->inside, 1);
		if (!atomic_load(&g->closed))
			return;
		atomic_fetch_sub(&g->inside, 1);
		while (atomic_load(&g->closed))
			wait_a_little(&tries);
	}
}

void gate_leave(struct gate *g)
{
	atomic_fetch_sub(&g->inside, 1);
}

void gate_close(struct gate *g)
{
	unsigned int tries = 0;

	atomic_store(&g->closed, true);
	while (atomic_load(&g->inside))
		wait_a_little(&tries);
}

void gate_open(struct gate *g)
{
	atomic_store(&g->closed, false);
}
