/* SPDX-License-Identifier: Apache-2.0 */
#include "budget/budget_queue.h"

#include "util/cleanup.h"

#define SECOND_US UINT64_C(1000000)

typedef unsigned __int128 u128;

void budget_queue_init(struct budget_queue *q, uint64_t rate, uint64_t now_us)
{
	*q = (struct budget_queue){0};
	bucket_init(&q->bucket, rate, now_us);
}

void budget_queue_set_rate(struct budget_queue *q, uint64_t rate, uint64_t now_us)
{
	bucket_set_rate(&q->bucket, rate, now_us);
}

void budget_queue_join(struct budget_queue *q, struct budget_turn *t, struct budget_flow *flow,
		       enum budget_class class, uint64_t bytes)
{
	struct budget_turn **at = &q->waiting[class];

	*t = (struct budget_turn){.state = BUDGET_WAITING,
				  .flow = flow,
				  .class = class,
				  .bytes = bytes,
				  .start = MAX(q->now[class], flow->finish[class])};
	flow->finish[class] = t->start + bytes;
	while (*at && (*at)->start <= t->start)
		at = &(*at)->next;
	t->next = *at;
	*at = t;
}

/*
 * The turn before may have overdrawn by all of its bytes, of which a guest that stands still must not wait
 * the end: its class may overdraw by a burst. Nor does it wait for what others ask for: their faults may go on for longer than
 * it can stand still.
 */
static int64_t needed(const struct budget_queue *q, enum budget_class class)
{
	return class == BUDGET_SWITCHOVER ? -(int64_t)q->bucket.burst - q->asked : 0;
}

/* What has become free pays for requests last: they never had to wait for it. */
static void pay_back(struct budget_queue *q, uint64_t now_us)
{
	bucket_take(&q->bucket, 0, now_us);
	q->asked = q->bucket.tokens < 0 ? MIN(q->asked, -q->bucket.tokens) : 0;
}

static void grant(struct budget_queue *q, enum budget_class class, uint64_t now_us)
{
	struct budget_turn *t = q->waiting[class];

	q->waiting[class] = t->next;
	q->now[class] = t->start;
	t->next = NULL;
	t->state = BUDGET_GRANTED;
	bucket_take(&q->bucket, t->bytes, now_us);
}

static void hand_out(struct budget_queue *q, uint64_t now_us)
{
	pay_back(q, now_us);
	for (enum budget_class c = 0; c < BUDGET_CLASSES; c++)
		while (q->waiting[c] && (!q->bucket.rate || q->bucket.tokens >= needed(q, c)))
			grant(q, c, now_us);
}

/* Bytes of all that are served before. */
static uint64_t ahead(const struct budget_queue *q, const struct budget_turn *t)
{
	uint64_t sum = 0;

	for (enum budget_class c = 0; c <= t->class; c++)
		for (const struct budget_turn *o = q->waiting[c]; o && o != t; o = o->next)
			sum += o->bytes;
	return sum;
}

uint64_t budget_queue_look(struct budget_queue *q, struct budget_turn *t, uint64_t now_us)
{
	uint64_t debt;
	u128 wait;

	hand_out(q, now_us);
	if (t->state != BUDGET_WAITING)
		return 0;
	/* Not negative: the first one would have been served. */
	debt = (uint64_t)MAX(needed(q, t->class) - q->bucket.tokens, INT64_C(0));
	wait = (((u128)ahead(q, t) + debt) * SECOND_US + q->bucket.rate - 1) / q->bucket.rate;
	return wait > UINT64_MAX ? UINT64_MAX : (uint64_t)wait;
}

static void unlink_turn(struct budget_queue *q, const struct budget_turn *t)
{
	struct budget_turn **at = &q->waiting[t->class];

	while (*at && *at != t)
		at = &(*at)->next;
	if (*at)
		*at = t->next;
}

/* The tags of turns that stand behind this one keep their places. */
static void refund(struct budget_flow *flow, enum budget_class class, uint64_t bytes)
{
	uint64_t f = flow->finish[class];

	flow->finish[class] = f > bytes ? f - bytes : 0;
}

void budget_queue_leave(struct budget_queue *q, struct budget_turn *t)
{
	if (t->state == BUDGET_IDLE)
		return;
	if (t->state == BUDGET_WAITING)
		unlink_turn(q, t);
	else
		bucket_give(&q->bucket, t->bytes);
	refund(t->flow, t->class, t->bytes);
	*t = (struct budget_turn){0};
}

void budget_queue_spend(struct budget_queue *q, uint64_t bytes, uint64_t now_us)
{
	int64_t least = -(int64_t)q->bucket.rate;

	pay_back(q, now_us);
	bucket_take(&q->bucket, bytes, now_us);
	q->asked = (int64_t)MIN((uint64_t)q->asked + bytes, q->bucket.rate);
	/* However much was asked for in a storm of faults: behind its end nobody waits for more than a second. */
	q->bucket.tokens = MAX(q->bucket.tokens, least);
}

void budget_queue_settle(struct budget_queue *q, struct budget_flow *flow, enum budget_class class,
			 uint64_t guess, uint64_t sent, uint64_t now_us)
{
	if (sent > guess) {
		flow->finish[class] += sent - guess;
		bucket_take(&q->bucket, sent - guess, now_us);
	} else {
		refund(flow, class, guess - sent);
		bucket_give(&q->bucket, guess - sent);
	}
}

size_t budget_queue_waiting(const struct budget_queue *q)
{
	size_t n = 0;

	for (enum budget_class c = 0; c < BUDGET_CLASSES; c++)
		for (const struct budget_turn *t = q->waiting[c]; t; t = t->next)
			n++;
	return n;
}
