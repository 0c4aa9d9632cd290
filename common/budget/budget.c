/* SPDX-License-Identifier: Apache-2.0 */
#include "budget/budget.h"

#include <stdlib.h>

#include "util/cleanup.h"
#include "util/clock.h"

struct budget *budget_new(uint64_t rate)
{
	struct budget *b = calloc(1, sizeof(*b));

	if (!b)
		return NULL;
	pthread_mutex_init(&b->lock, NULL);
	budget_queue_init(&b->queue, rate, clock_us());
	atomic_store(&b->rate, rate);
	return b;
}

void budget_free(struct budget *b)
{
	if (!b)
		return;
	pthread_mutex_destroy(&b->lock);
	free(b);
}

void budget_set_rate(struct budget *b, uint64_t rate)
{
	LOCK_SCOPE(&b->lock);
	budget_queue_set_rate(&b->queue, rate, clock_us());
	atomic_store(&b->rate, rate);
}

uint64_t budget_rate(const struct budget *b)
{
	return atomic_load(&b->rate);
}

size_t budget_waiting(struct budget *b)
{
	LOCK_SCOPE(&b->lock);
	return budget_queue_waiting(&b->queue);
}

const char *budget_class_name(enum budget_class class)
{
	static const char *const names[] = {[BUDGET_REQUEST] = "request",
					    [BUDGET_SWITCHOVER] = "switchover",
					    [BUDGET_BULK] = "bulk"};

	_Static_assert(ARRAY_SIZE(names) == BUDGET_CLASSES, "each class has a name");
	return names[class];
}

static void note_wait(struct budget *b, struct budget_ask *ask)
{
	if (ask->since_us)
		atomic_fetch_add(&b->waited_us[ask->turn.class], clock_us() - ask->since_us);
	ask->since_us = 0;
}

uint64_t budget_turn(struct budget *b, struct budget_ask *ask, struct budget_flow *flow,
		     enum budget_class class, uint64_t bytes)
{
	struct budget_turn *t = &ask->turn;
	uint64_t now, us;

	/* A place is the asking thread's: if it has none, nobody else looks at it. */
	if (!budget_rate(b) && !ask->since_us)
		return 0;
	LOCK_SCOPE(&b->lock);
	now = clock_us();
	if (t->state == BUDGET_IDLE)
		budget_queue_join(&b->queue, t, flow, class, bytes);
	us = budget_queue_look(&b->queue, t, now);
	if (us) {
		ask->since_us = ask->since_us ? ask->since_us : now;
		return MIN(us, (uint64_t)BUDGET_NAP_US);
	}
	note_wait(b, ask);
	*t = (struct budget_turn){0};
	return 0;
}

void budget_leave(struct budget *b, struct budget_ask *ask)
{
	if (!ask->since_us)
		return;
	LOCK_SCOPE(&b->lock);
	note_wait(b, ask);
	budget_queue_leave(&b->queue, &ask->turn);
}

void budget_guess(struct budget *b, struct budget_flow *flow, enum budget_class class,
		  uint64_t guess, uint64_t better)
{
	if (!budget_rate(b) || guess == better)
		return;
	LOCK_SCOPE(&b->lock);
	budget_queue_settle(&b->queue, flow, class, guess, better, clock_us());
}

void budget_settle(struct budget *b, struct budget_flow *flow, enum budget_class class,
		   uint64_t guess, uint64_t sent)
{
	atomic_fetch_add(&b->sent[class], sent);
	budget_guess(b, flow, class, guess, sent);
}

void budget_spend(struct budget *b, enum budget_class class, uint64_t bytes)
{
	atomic_fetch_add(&b->sent[class], bytes);
	if (!budget_rate(b))
		return;
	LOCK_SCOPE(&b->lock);
	budget_queue_spend(&b->queue, bytes, clock_us());
}
