/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Who may send next when several share one rate: pure arithmetic, no clock, no lock, no memory of its own.
 *
 * What is sent belongs to a flow (a guest) and to a class. Pages that somebody waits for are not queued at all:
 * they are only accounted for, and the others pay it back. Of what is queued, a class goes wholly before the
 * next one, and within a class the flows get equal shares: each turn has a start tag, the
 * bytes that its flow has had when it begins, and the smallest tag is served first. A flow that had nothing
 * to send for a while saves nothing up (its tags begin at that of the turn served last), so that none
 * can be starved by one that comes later, or by one that asks for more.
 *
 * Turns are for bytes that are guessed; what was sent in fact is told afterwards and evens out.
 */
#ifndef DECANT_BUDGET_QUEUE_H
#define DECANT_BUDGET_QUEUE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "util/bucket.h"

/**
 * enum budget_class - in their order
 * @BUDGET_REQUEST: a thread of a guest waits for it: never waits here
 * @BUDGET_SWITCHOVER: a guest stands still until it has arrived
 * @BUDGET_BULK: nobody waits
 */
enum budget_class {
	BUDGET_REQUEST,
	BUDGET_SWITCHOVER,
	BUDGET_BULK,
	BUDGET_CLASSES,
};

/** struct budget_flow - one that gets an equal share; zero to begin with. @finish: tag behind its last turn, by class */
struct budget_flow {
	uint64_t finish[BUDGET_CLASSES];
};

/**
 * enum budget_turn_state - what becomes of a turn
 * @BUDGET_IDLE: none is asked for
 * @BUDGET_WAITING: it stands in the queue
 * @BUDGET_GRANTED: its bytes are taken; they may be sent
 */
enum budget_turn_state { BUDGET_IDLE, BUDGET_WAITING, BUDGET_GRANTED };

/**
 * struct budget_turn - a place in the queue; of one thread, zero to begin with
 * @flow, @class, @bytes: who asks for what, once it is not idle
 * @start:	its tag
 * @next:	behind it
 */
struct budget_turn {
	enum budget_turn_state state;
	struct budget_flow *flow;
	enum budget_class class;
	uint64_t bytes;
	uint64_t start;
	struct budget_turn *next;
};

/**
 * struct budget_queue - all that share a rate
 * @bucket:	what may be sent
 * @asked:	of its overdraft: bytes that requests have made, at most
 * @waiting:	by class; smallest tag first
 * @now:	tag of the last turn granted, by class
 */
struct budget_queue {
	struct bucket bucket;
	int64_t asked;
	struct budget_turn *waiting[BUDGET_CLASSES];
	uint64_t now[BUDGET_CLASSES];
};

/** budget_queue_init() - @rate: bytes a second, 0 for no limit */
void budget_queue_init(struct budget_queue *q, uint64_t rate, uint64_t now_us);
/** budget_queue_set_rate() - from now on, also for those that wait */
void budget_queue_set_rate(struct budget_queue *q, uint64_t rate, uint64_t now_us);
/**
 * budget_queue_join() - ask for a turn
 * @t:		idle; it stands in the queue until it was granted or has left
 * @class:	not BUDGET_REQUEST
 */
void budget_queue_join(struct budget_queue *q, struct budget_turn *t, struct budget_flow *flow,
		       enum budget_class class, uint64_t bytes);
/**
 * budget_queue_look() - hand out what can be had by now, to whoever is next, and see about one turn
 *
 * Return: 0 if @t is granted; else microseconds until it will be if nothing changes
 */
uint64_t budget_queue_look(struct budget_queue *q, struct budget_turn *t, uint64_t now_us);
/** budget_queue_leave() - give a turn up, or a granted one back, of which nothing was sent; idle ones stay idle */
void budget_queue_leave(struct budget_queue *q, struct budget_turn *t);
/** budget_queue_spend() - account for bytes that are sent at once, whatever there is */
void budget_queue_spend(struct budget_queue *q, uint64_t bytes, uint64_t now_us);
/** budget_queue_settle() - of a turn of @guess bytes that was granted to @flow, @sent were sent */
void budget_queue_settle(struct budget_queue *q, struct budget_flow *flow, enum budget_class class,
			 uint64_t guess, uint64_t sent, uint64_t now_us);
/** budget_queue_waiting() - Return: how many turns wait */
size_t budget_queue_waiting(const struct budget_queue *q);

#endif
