/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The bandwidth of a host: one limit for all that its guests send together, which can be changed while
 * they do. See budget_queue.h for who goes first; this adds the clock, a lock and the counters.
 *
 * Nobody is blocked here: a thread asks for a turn, and if it has to wait is told when to ask again, so that
 * it can go on with what else it does. Without a limit nothing is locked.
 */
#ifndef DECANT_BUDGET_H
#define DECANT_BUDGET_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>

#include "budget/budget_queue.h"

/** BUDGET_RATE_MAX - largest limit, in bytes a second */
#define BUDGET_RATE_MAX (UINT64_C(1) << 50)
/** BUDGET_NAP_US - nobody is told to wait for longer: then it asks again, and notices a change of the rate */
#define BUDGET_NAP_US 100000u

/**
 * struct budget - of a host; owned by the daemon, which frees it after all that send
 * @lock:	protects @queue, the flows and the turns of all that share it
 * @rate:	that of the queue, for those that need no lock without one
 * @sent:	bytes sent, by class
 * @waited_us:	how long turns have waited, summed over all of them, by class
 */
struct budget {
	pthread_mutex_t lock;
	struct budget_queue queue;
	_Atomic uint64_t rate;
	_Atomic uint64_t sent[BUDGET_CLASSES];
	_Atomic uint64_t waited_us[BUDGET_CLASSES];
};

/**
 * struct budget_ask - a thread's place
 * @turn:	under budget.lock
 * @since_us:	clock_us() when the thread asked first; 0 unless it waits
 */
struct budget_ask {
	struct budget_turn turn;
	uint64_t since_us;
};

/** budget_new() - @rate: bytes a second, 0 for no limit. Return: NULL when out of memory */
struct budget *budget_new(uint64_t rate);
/** budget_free() - nobody uses it any more; NULL is fine */
void budget_free(struct budget *b);
/** budget_set_rate() - any thread */
void budget_set_rate(struct budget *b, uint64_t rate);
/** budget_rate() - Return: bytes a second, 0 for no limit; any thread */
uint64_t budget_rate(const struct budget *b);
/** budget_waiting() - Return: turns that wait; any thread */
size_t budget_waiting(struct budget *b);
/** budget_class_name() - Return: "request", "switchover", "bulk" */
const char *budget_class_name(enum budget_class class);

/**
 * budget_turn() - may @bytes (a guess) be sent now? If not, the thread keeps its place in the queue
 * @ask:	the calling thread's; while it waits, always with the same @flow, @class and @bytes
 *
 * Return: 0: send them, and budget_settle() then; else ask again after so many microseconds, or
 * budget_leave()
 */
uint64_t budget_turn(struct budget *b, struct budget_ask *ask, struct budget_flow *flow,
		     enum budget_class class, uint64_t bytes);
/** budget_leave() - the thread does not want to send any more; also if it does not wait */
void budget_leave(struct budget *b, struct budget_ask *ask);
/**
 * budget_guess() - of a turn of @guess bytes no more than @better will be sent, which is known now, and nothing was
 *
 * What becomes free helps the others at once. The thread settles @better afterwards.
 */
void budget_guess(struct budget *b, struct budget_flow *flow, enum budget_class class,
		  uint64_t guess, uint64_t better);
/** budget_settle() - of a turn of @guess bytes @sent were sent; any thread */
void budget_settle(struct budget *b, struct budget_flow *flow, enum budget_class class,
		   uint64_t guess, uint64_t sent);
/** budget_spend() - @bytes are sent without waiting; any thread */
void budget_spend(struct budget *b, enum budget_class class, uint64_t bytes);

#endif
