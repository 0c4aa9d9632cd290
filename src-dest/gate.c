/* SPDX-License-Identifier: Apache-2.0 */
#include "gate.h"
#include <linux/futex.h>
#include <stddef.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Less than a wake-up costs; a copy that is nearly done ends meanwhile. */
#define SPINS 40

static void relax(void)
{
#ifdef __x86_64__
	__builtin_ia32_pause();
#endif
}

/* Return once *@word is not @value any more, or for no reason. */
static void wait_while(_Atomic unsigned int *word, unsigned int value)
{
	for (unsigned int i = 0; i < SPINS; i++) {
		if (atomic_load(word) != value)
			return;
		relax();
	}
	syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, value, NULL);
}

static void wake_all(_Atomic unsigned int *word)
{
	syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, 1u << 30);
}

/* Both sides say what they want before they look at the other: one of them sees the other. */
void gate_enter(struct gate *g)
{
	for (;;) {
		atomic_fetch_add(&g->inside, 1);
		if (!atomic_load(&g->closed))
			return;
		gate_leave(g);
		atomic_fetch_add(&g->outside, 1);
		while (atomic_load(&g->closed))
			wait_while(&g->closed, 1);
		atomic_fetch_sub(&g->outside, 1);
	}
}

void gate_leave(struct gate *g)
{
	if (atomic_fetch_sub(&g->inside, 1) == 1 && atomic_load(&g->closed))
		wake_all(&g->inside);
}

void gate_close(struct gate *g)
{
	atomic_store(&g->closed, 1);
	for (unsigned int n; (n = atomic_load(&g->inside));)
		wait_while(&g->inside, n);
}

void gate_open(struct gate *g)
{
	atomic_store(&g->closed, 0);
	if (atomic_load(&g->outside))
		wake_all(&g->closed);
}
