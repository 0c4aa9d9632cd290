/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a lost channel leaves behind: all that nobody has acknowledged is sent again, by whoever comes first, and
 * nothing that was acknowledged is.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <string.h>

#include "lane.h"

#define PAGES (4ul * LANE_OPEN_MAX)

/** struct stage - an engine with one block, nothing of which is pending, and a lane */
struct stage {
	struct engine e;
	struct engine_block block;
	struct lane lane;
	struct error err;
};

static void stage_init(struct stage *s, bool note)
{
	memset(s, 0, sizeof(*s));
	s->e.blocks = &s->block;
	s->e.nblocks = 1;
	cr_assert(!bitmap_init(&s->block.pending, PAGES));
	cr_assert_eq(lane_init(&s->lane, note), 0);
}

static void stage_free(struct stage *s)
{
	lane_clear(&s->lane);
	bitmap_free(&s->block.pending);
}

static void sent(struct stage *s, uint64_t first, uint64_t n)
{
	lane_note(&s->lane, 0, first, n, n * 4096);
	s->lane.runs++;
	s->lane.digest_sum += first;
	atomic_fetch_add(&s->e.stats.runs, 1);
	atomic_fetch_add(&s->e.stats.digest_sum, first);
}

static uint32_t acked(struct stage *s, uint32_t wire)
{
	uint32_t number = 999;

	cr_assert_eq(lane_acked(&s->lane, wire, &number, &s->err), 0, "%s", s->err.msg);
	return number;
}

/* Exactly pages [first, first + n) and those added before are pending. */
static void pending(const struct stage *s, uint64_t first, uint64_t n)
{
	for (uint64_t i = first; i < first + n; i++)
		cr_assert(bitmap_test(&s->block.pending, i), "page %lu is forgotten", i);
	cr_assert_eq(bitmap_count(&s->block.pending), n, "%lu pages are sent again, not %lu",
		     bitmap_count(&s->block.pending), n);
}

Test(lane, what_is_not_acknowledged_is_sent_again_and_no_more)
{
	struct stage s;
	uint32_t first, second;

	stage_init(&s, true);
	sent(&s, 0, 10);
	sent(&s, 10, 30);
	first = lane_mark(&s.lane, 0, 1);
	sent(&s, 100, 50);
	second = lane_mark(&s.lane, 7, 2);
	sent(&s, 150, 1);
	cr_assert_eq(acked(&s, first), 0);
	lane_give_up(&s.lane, &s.e);
	pending(&s, 100, 51);
	cr_assert_neq(first, second);
	stage_free(&s);
}

Test(lane, what_is_acknowledged_is_not_sent_again)
{
	struct stage s;

	stage_init(&s, true);
	sent(&s, 5, 20);
	cr_assert_eq(acked(&s, lane_mark(&s.lane, 7, 1)), 7, "who asked is told");
	lane_give_up(&s.lane, &s.e);
	pending(&s, 0, 0);
	stage_free(&s);
}

/* Of a lost channel nothing counts: the destination drops its half of the count, too. */
Test(lane, frames_of_a_lost_channel_do_not_count)
{
	struct stage s;

	stage_init(&s, true);
	atomic_store(&s.e.stats.runs, 100);
	atomic_store(&s.e.stats.digest_sum, 1000);
	sent(&s, 1, 1);
	acked(&s, lane_mark(&s.lane, 0, 1));
	sent(&s, 2, 1);
	lane_give_up(&s.lane, &s.e);
	cr_assert_eq(atomic_load(&s.e.stats.runs), 100);
	cr_assert_eq(atomic_load(&s.e.stats.digest_sum), 1000);
	/* And nothing of it is left for the next channel. */
	sent(&s, 3, 1);
	lane_give_up(&s.lane, &s.e);
	cr_assert_eq(atomic_load(&s.e.stats.runs), 100);
	stage_free(&s);
}

/* A barrier of the channel before is no answer to one of this: the numbers go on. */
Test(lane, an_answer_to_the_channel_before_is_refused)
{
	uint32_t old, number = 0;
	struct stage s;

	stage_init(&s, true);
	sent(&s, 0, 1);
	old = lane_mark(&s.lane, 0, 1);
	lane_give_up(&s.lane, &s.e);
	sent(&s, 0, 1);
	cr_assert_gt(lane_mark(&s.lane, 0, 2), old);
	cr_assert_eq(lane_acked(&s.lane, old, &number, &s.err), -EBADMSG);
	lane_give_up(&s.lane, &s.e);
	pending(&s, 0, 1);
	stage_free(&s);
}

Test(lane, answers_come_in_their_order_and_once)
{
	uint32_t first, second, number = 0;
	struct stage s;

	stage_init(&s, true);
	sent(&s, 0, 1);
	first = lane_mark(&s.lane, 0, 1);
	sent(&s, 1, 1);
	second = lane_mark(&s.lane, 0, 2);
	cr_assert_eq(lane_acked(&s.lane, second, &number, &s.err), -EBADMSG, "out of order");
	acked(&s, first);
	cr_assert_eq(lane_acked(&s.lane, first, &number, &s.err), -EBADMSG, "twice");
	acked(&s, second);
	cr_assert_eq(lane_acked(&s.lane, second + 1, &number, &s.err), -EBADMSG, "never asked");
	stage_free(&s);
}

/* Many times around the ring: what is open is exact all the time. */
Test(lane, goes_around_its_ring)
{
	uint32_t wire[4] = {0};
	struct stage s;

	stage_init(&s, true);
	for (unsigned int i = 0; i < PAGES; i++) {
		uint32_t *mark = &wire[i / 1000 % 4];

		sent(&s, i, 1);
		if (i % 1000 != 999)
			continue;
		if (*mark)
			acked(&s, *mark);
		*mark = lane_mark(&s.lane, 0, i);
		cr_assert_not(lane_full(&s.lane));
	}
	lane_give_up(&s.lane, &s.e);
	/* Four barriers of 65 were not answered. */
	pending(&s, 61000, PAGES - 61000);
	stage_free(&s);
}

Test(lane, takes_no_more_than_it_can_note)
{
	struct stage s;
	unsigned int n = 0;
	uint32_t mark;

	stage_init(&s, true);
	for (; !lane_full(&s.lane); n++)
		sent(&s, n % PAGES, 1);
	cr_assert_gt(n, LANE_OPEN_MAX - 8);
	/* There is room for the barriers that free it. */
	mark = lane_mark(&s.lane, 0, 1);
	lane_mark(&s.lane, 3, 1);
	acked(&s, mark);
	cr_assert_not(lane_full(&s.lane));
	stage_free(&s);
}

Test(lane, a_barrier_is_due_after_so_much_or_so_long)
{
	struct stage s;

	stage_init(&s, true);
	cr_assert_not(lane_due(&s.lane, LANE_US * 9), "nothing is open");
	lane_mark(&s.lane, 0, LANE_US * 9);
	sent(&s, 0, 1);
	cr_assert_not(lane_due(&s.lane, LANE_US * 10 - 1));
	cr_assert(lane_due(&s.lane, LANE_US * 10));
	lane_mark(&s.lane, 0, LANE_US * 10);
	cr_assert_not(lane_due(&s.lane, LANE_US * 20), "nothing was sent since");
	for (unsigned int i = 0; i < LANE_RUNS - 1; i++)
		lane_note(&s.lane, 0, 0, 1, 0);
	cr_assert_not(lane_due(&s.lane, LANE_US * 10));
	lane_note(&s.lane, 0, 0, 1, 0);
	cr_assert(lane_due(&s.lane, LANE_US * 10));
	lane_mark(&s.lane, 0, LANE_US * 10);
	lane_note(&s.lane, 0, 0, 1024, LANE_BYTES);
	cr_assert(lane_due(&s.lane, LANE_US * 10));
	stage_free(&s);
}

/* A session that cannot mend its channels keeps no account, and hands numbers through. */
Test(lane, without_account_numbers_are_those_of_who_asks)
{
	struct stage s;

	stage_init(&s, false);
	sent(&s, 0, 9);
	cr_assert_eq(lane_mark(&s.lane, 42, 1), 42);
	cr_assert_eq(acked(&s, 42), 42);
	lane_give_up(&s.lane, &s.e);
	pending(&s, 0, 0);
	stage_free(&s);
}
