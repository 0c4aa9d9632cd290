/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Who is served when several guests share one rate: a simulation of senders with a clock of its own. What each
 * may have in a run is counted, not hoped for.
 */
#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <string.h>

#include "budget/budget_queue.h"
#include "util/cleanup.h"

#define KIB       UINT64_C(1024)
#define SECOND    UINT64_C(1000000)
#define RUN       (256 * KIB)
#define BURST_MIN (256 * KIB)
#define SENDERS   8

/**
 * struct sender - one that sends as much as it may
 * @guess, @sent: bytes that it asks for each time, and sends then
 * @class:	of them
 * @begin_us, @end_us: when it wants to; an end of 0 is never
 * @late_us:	so much later than it was told does it look again
 * @total:	bytes it has sent
 * @longest_us:	its longest wait
 */
struct sender {
	uint64_t guess, sent;
	enum budget_class class;
	uint64_t begin_us, end_us, late_us;
	uint64_t total, longest_us;
	struct budget_flow flow;
	struct budget_turn turn;
	uint64_t next_us, since_us;
};

static struct sender bulk(uint64_t bytes)
{
	return (struct sender){.guess = bytes, .sent = bytes, .class = BUDGET_BULK};
}

/* It has looked, and may send: at once, and then it asks for the next turn. */
static void served(struct budget_queue *q, struct sender *s, uint64_t now)
{
	budget_queue_settle(q, &s->flow, s->class, s->guess, s->sent, now);
	s->total += s->sent;
	s->longest_us = MAX(s->longest_us, now - s->since_us);
	s->turn = (struct budget_turn){0};
}

static void step(struct budget_queue *q, struct sender *s, uint64_t now)
{
	uint64_t wait = 0;

	while (!wait) {
		if (s->turn.state == BUDGET_IDLE) {
			budget_queue_join(q, &s->turn, &s->flow, s->class, s->guess);
			s->since_us = now;
		}
		wait = budget_queue_look(q, &s->turn, now);
		if (!wait)
			served(q, s, now);
	}
	s->next_us = now + wait + s->late_us;
}

static bool active(const struct sender *s, uint64_t now)
{
	return now >= s->begin_us && (!s->end_us || now < s->end_us);
}

/* From @from to @to, each looking again when it was told to. */
static void drive(struct budget_queue *q, struct sender *s, size_t n, uint64_t from, uint64_t to)
{
	for (uint64_t now = from, next; now < to; now = next) {
		next = to;
		for (size_t i = 0; i < n; i++) {
			if (!active(&s[i], now)) {
				budget_queue_leave(q, &s[i].turn);
				if (s[i].begin_us > now)
					next = MIN(next, s[i].begin_us);
				continue;
			}
			if (s[i].next_us <= now)
				step(q, &s[i], now);
			if (s[i].next_us < next)
				next = s[i].next_us;
			if (s[i].end_us)
				next = MIN(next, s[i].end_us);
		}
	}
	for (size_t i = 0; i < n; i++)
		budget_queue_leave(q, &s[i].turn);
}

static uint64_t sum(const struct sender *s, size_t n)
{
	uint64_t all = 0;

	for (size_t i = 0; i < n; i++)
		all += s[i].total;
	return all;
}

static void near(uint64_t is, uint64_t want, unsigned int percent, const char *what)
{
	cr_assert(le(u64, is, want + want * percent / 100), "%s: %lu for %lu", what, is, want);
	cr_assert(ge(u64, is, want - want * percent / 100), "%s: %lu for %lu", what, is, want);
}

Test(budget_queue, no_limit_never_waits)
{
	struct budget_queue q;
	struct budget_turn t[3] = {0};
	struct budget_flow f = {0};

	budget_queue_init(&q, 0, 5);
	for (int i = 0; i < 3; i++) {
		budget_queue_join(&q, &t[i], &f, BUDGET_BULK, UINT64_C(1) << 40);
		cr_assert(zero(u64, budget_queue_look(&q, &t[i], 5)));
	}
}

/* Each sender alone would want all. Shares are of bytes, whatever the size of a turn. */
Test(budget_queue, shares_are_equal)
{
	static const uint64_t rates[] = {1000000, 10000000, 125000000, 1250000000};
	static const uint64_t sizes[SENDERS] = {RUN,     RUN,     4 * KIB, 64 * KIB,
						4 * RUN, 8 * KIB, RUN,     100001};

	for (size_t r = 0; r < ARRAY_SIZE(rates); r++) {
		for (size_t n = 1; n <= SENDERS; n++) {
			struct sender s[SENDERS] = {0};
			uint64_t burst = MAX(rates[r] / 10, BURST_MIN), largest = 0;
			struct budget_queue q;

			for (size_t i = 0; i < n; i++) {
				s[i] = bulk(sizes[i]);
				largest = MAX(largest, sizes[i]);
			}
			budget_queue_init(&q, rates[r], 1);
			drive(&q, s, n, 1, 30 * SECOND);
			cr_assert(le(u64, sum(s, n), 30 * rates[r] + burst + largest), "rate %lu",
				  rates[r]);
			near(sum(s, n), 30 * rates[r] + burst, 7, "all together");
			for (size_t i = 1; i < n; i++) {
				uint64_t most = MAX(s[i].total, s[0].total);
				uint64_t least = MIN(s[i].total, s[0].total);

				/* The first one has the burst before the second has asked. */
				cr_assert(le(u64, most - least, burst + 2 * largest),
					  "%zu of %zu at %lu: %lu and %lu", i, n, rates[r], most,
					  least);
			}
		}
	}
}

/* Those that sleep too long, or that guess too much, cost the others nothing. */
Test(budget_queue, latecomers_and_bad_guesses_hold_nobody_up)
{
	struct sender s[4] = {bulk(RUN), bulk(RUN), bulk(RUN), bulk(RUN)};
	struct budget_queue q;

	s[1].late_us = 40000; /* most turns of 256 KiB take 26 ms */
	s[2].sent = 4 * KIB;
	s[3].sent = 2 * RUN;
	budget_queue_init(&q, 10000000, 1);
	drive(&q, s, 4, 1, 60 * SECOND);
	near(sum(s, 4), 60 * 10000000 + BURST_MIN, 2, "all together");
	near(s[0].total, s[3].total, 2, "one that guesses too little");
	near(s[0].total, s[2].total, 20, "one that guesses too much");
}

Test(budget_queue, one_that_was_idle_saves_nothing_up)
{
	struct sender s[2] = {bulk(RUN), bulk(RUN)};
	uint64_t before;
	struct budget_queue q;

	budget_queue_init(&q, 10000000, 1);
	s[1].begin_us = 20 * SECOND;
	drive(&q, s, 2, 1, 20 * SECOND);
	before = s[0].total;
	near(before, 20 * 10000000, 3, "alone");
	drive(&q, s, 2, 20 * SECOND, 24 * SECOND);
	near(s[1].total, 4 * 10000000 / 2, 20, "the one that came later");
	near(s[0].total - before, 4 * 10000000 / 2, 20, "the one that was there");
	cr_assert(lt(u64, s[0].longest_us, SECOND / 5), "%lu us", s[0].longest_us);
}

/* The switchover has all there is, the rest waits; and no bulk turn before it delays it by its overdraft. */
Test(budget_queue, switchover_goes_before_bulk)
{
	struct sender s[4] = {bulk(RUN), bulk(RUN), bulk(RUN), bulk(RUN)};
	uint64_t before;
	struct budget_queue q;

	s[3].class = BUDGET_SWITCHOVER;
	s[3].begin_us = 5 * SECOND;
	s[3].end_us = 7 * SECOND;
	budget_queue_init(&q, 2000000, 1);
	drive(&q, s, 4, 1, 5 * SECOND);
	before = sum(s, 3);
	drive(&q, s, 4, 5 * SECOND, 7 * SECOND);
	near(s[3].total, 2 * 2000000, 30, "the guest that stands still");
	cr_assert(le(u64, sum(s, 3) - before, RUN), "bulk went meanwhile");
	before = sum(s, 3);
	drive(&q, s, 4, 7 * SECOND, 17 * SECOND);
	near(sum(s, 3) - before, 10 * 2000000, 10, "and then bulk goes on");
}

Test(budget_queue, a_switchover_does_not_wait_for_the_overdraft_of_bulk)
{
	struct budget_turn b = {0}, s = {0};
	struct budget_flow f[2] = {0};
	struct budget_queue q;

	budget_queue_init(&q, 1000000, 0);
	budget_queue_join(&q, &b, &f[0], BUDGET_BULK, BURST_MIN + 200000);
	cr_assert(zero(u64, budget_queue_look(&q, &b, 0)));
	b = (struct budget_turn){0};
	budget_queue_join(&q, &b, &f[0], BUDGET_BULK, 100000);
	cr_assert(eq(u64, budget_queue_look(&q, &b, 0), 200000));
	budget_queue_join(&q, &s, &f[1], BUDGET_SWITCHOVER, 100000);
	cr_assert(zero(u64, budget_queue_look(&q, &s, 0)));
	cr_assert(eq(u64, budget_queue_look(&q, &b, 0), 300000));
}

/* Requests never ask; what they take, bulk does not get, and the sum is what was allowed. */
Test(budget_queue, requests_are_paid_back_by_bulk)
{
	struct sender s = bulk(RUN);
	uint64_t asked = 0;
	struct budget_queue q;

	budget_queue_init(&q, 10000000, 1);
	for (uint64_t now = 1; now < 20 * SECOND; now += 1000) {
		budget_queue_spend(&q, 4 * KIB, now);
		asked += 4 * KIB;
		drive(&q, &s, 1, now, now + 1000);
	}
	near(s.total + asked, 20 * 10000000 + BURST_MIN, 3, "together");
	near(s.total, 20 * 10000000 - asked, 5, "bulk");
}

Test(budget_queue, a_storm_of_requests_is_paid_back_within_a_second)
{
	struct budget_turn t = {0};
	struct budget_flow f = {0};
	struct budget_queue q;

	budget_queue_init(&q, 1000000, 0);
	for (int i = 0; i < 100; i++)
		budget_queue_spend(&q, 1000000, 0);
	budget_queue_join(&q, &t, &f, BUDGET_BULK, RUN);
	cr_assert(eq(u64, budget_queue_look(&q, &t, 0), SECOND));
	cr_assert(zero(u64, budget_queue_look(&q, &t, SECOND)));
}

/* One guest's faults do not keep another one standing still; nor does that one get more than a burst for it. */
Test(budget_queue, a_storm_of_requests_does_not_hold_up_who_stands_still)
{
	struct budget_turn t[3] = {0};
	struct budget_flow f = {0};
	struct budget_queue q;

	budget_queue_init(&q, 10000000, 0);
	for (int i = 0; i < 100; i++)
		budget_queue_spend(&q, 1000000, 0);
	budget_queue_join(&q, &t[0], &f, BUDGET_SWITCHOVER, 1000000);
	cr_assert(zero(u64, budget_queue_look(&q, &t[0], 0)));
	budget_queue_join(&q, &t[1], &f, BUDGET_SWITCHOVER, RUN);
	cr_assert(zero(u64, budget_queue_look(&q, &t[1], 0)), "the burst is not used up");
	budget_queue_join(&q, &t[2], &f, BUDGET_SWITCHOVER, RUN);
	cr_assert(gt(u64, budget_queue_look(&q, &t[2], 0), 0));
	/* Afterwards there is nothing left to go below. */
	cr_assert(zero(u64, budget_queue_look(&q, &t[2], 3 * SECOND)));
	cr_assert(zero(i64, q.asked));
}

Test(budget_queue, a_change_of_the_rate_holds_at_once)
{
	struct sender s[2] = {bulk(RUN), bulk(RUN)};
	struct budget_queue q;
	uint64_t before;

	budget_queue_init(&q, 100000000, 1);
	drive(&q, s, 2, 1, 5 * SECOND);
	near(sum(s, 2), 5 * 100000000, 4, "before");
	before = sum(s, 2);
	budget_queue_set_rate(&q, 1000000, 5 * SECOND);
	drive(&q, s, 2, 5 * SECOND, 15 * SECOND);
	cr_assert(le(u64, sum(s, 2) - before, 10 * 1000000 + BURST_MIN + 2 * RUN));
	cr_assert(ge(u64, sum(s, 2) - before, 8 * 1000000));
	before = sum(s, 2);
	budget_queue_set_rate(&q, 50000000, 15 * SECOND);
	drive(&q, s, 2, 15 * SECOND, 20 * SECOND);
	near(sum(s, 2) - before, 5 * 50000000, 4, "after");
}

/* A debt at a high rate is not a sentence at a low one; and one that waits is let go with the limit. */
Test(budget_queue, who_waits_profits_from_a_change)
{
	struct budget_turn t = {0};
	struct budget_flow f = {0};
	struct budget_queue q;

	budget_queue_init(&q, 1000000000, 0);
	budget_queue_spend(&q, 900000000, 0);
	budget_queue_join(&q, &t, &f, BUDGET_BULK, RUN);
	cr_assert(gt(u64, budget_queue_look(&q, &t, 0), 0));
	budget_queue_set_rate(&q, 1000, 0);
	cr_assert(eq(u64, budget_queue_look(&q, &t, 0), SECOND));
	budget_queue_set_rate(&q, 0, 0);
	cr_assert(zero(u64, budget_queue_look(&q, &t, 0)));
}

Test(budget_queue, who_leaves_gives_back)
{
	struct budget_turn t[3] = {0};
	struct budget_flow f[3] = {0};
	struct budget_queue q;

	budget_queue_init(&q, 1000000, 0);
	budget_queue_join(&q, &t[0], &f[0], BUDGET_BULK, BURST_MIN + 1000000);
	cr_assert(zero(u64, budget_queue_look(&q, &t[0], 0)));
	for (int i = 1; i < 3; i++)
		budget_queue_join(&q, &t[i], &f[i], BUDGET_BULK, 500000);
	cr_assert(eq(u64, budget_queue_look(&q, &t[2], 0), 3 * SECOND / 2));
	cr_assert(eq(sz, budget_queue_waiting(&q), 2));
	budget_queue_leave(&q, &t[1]);
	cr_assert(eq(u64, budget_queue_look(&q, &t[2], 0), SECOND));
	/* All of it, granted and not used. */
	budget_queue_leave(&q, &t[0]);
	cr_assert(zero(u64, budget_queue_look(&q, &t[2], 0)));
	cr_assert(zero(u64, f[0].finish[BUDGET_BULK]));
	budget_queue_leave(&q, &t[2]);
	budget_queue_leave(&q, &t[2]);
	cr_assert(zero(sz, budget_queue_waiting(&q)));
	cr_assert(eq(i64, q.bucket.tokens, (int64_t)BURST_MIN));
}
