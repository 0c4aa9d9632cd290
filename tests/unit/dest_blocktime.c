/* SPDX-License-Identifier: Apache-2.0 */
/* Block time (P18): who waited how long, and when all did; the clock is the test's. */
#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include "blocktime.h"

static struct blocktime *three(void)
{
	struct blocktime *bt = blocktime_new();

	for (uint32_t tid = 1; tid <= 3; tid++)
		blocktime_name(bt, tid, true, 0);
	return bt;
}

/* What it came to at @now, then the end of it. */
static void comes_to(struct blocktime *bt, uint64_t now, uint64_t all, uint64_t a, uint64_t b,
		     uint64_t c)
{
	struct blocktime_sums s = {0};

	blocktime_read(bt, now, &s);
	cr_assert(eq(u32, s.n, 3));
	cr_assert(eq(u64, s.thread_us[0], a));
	cr_assert(eq(u64, s.thread_us[1], b));
	cr_assert(eq(u64, s.thread_us[2], c));
	cr_assert(eq(u64, s.all_us, all));
}

Test(dest_blocktime, each_thread_and_all_at_once)
{
	struct blocktime *bt = three();

	blocktime_begin(bt, 1, 10, 100);
	blocktime_begin(bt, 2, 11, 200);
	comes_to(bt, 250, 0, 150, 50, 0);
	blocktime_begin(bt, 3, 12, 300);
	comes_to(bt, 350, 50, 250, 150, 50);
	blocktime_end(bt, 11, 400);
	comes_to(bt, 900, 100, 800, 200, 600);
	blocktime_begin(bt, 2, 13, 1000);
	blocktime_end(bt, 12, 1010);
	blocktime_end(bt, 10, 1020);
	blocktime_end(bt, 13, 1030);
	comes_to(bt, 5000, 110, 920, 230, 710);
	blocktime_free(bt);
}

Test(dest_blocktime, one_page_frees_several)
{
	struct blocktime *bt = three();

	blocktime_begin(bt, 1, 10, 100);
	blocktime_begin(bt, 2, 10, 150);
	blocktime_begin(bt, 3, 10, 200);
	blocktime_end(bt, 10, 300);
	comes_to(bt, 1000, 100, 200, 150, 100);
	blocktime_end(bt, 10, 2000);
	comes_to(bt, 2000, 100, 200, 150, 100);
	blocktime_free(bt);
}

/* It arrived while its fault was being read: nobody has waited, and not all of them at once either. */
Test(dest_blocktime, a_page_that_was_there_is_undone)
{
	struct blocktime *bt = three();

	blocktime_begin(bt, 1, 10, 100);
	blocktime_begin(bt, 2, 11, 100);
	blocktime_begin(bt, 3, 12, 200);
	blocktime_undo(bt, 3, 12);
	comes_to(bt, 500, 0, 400, 400, 0);
	/* What has ended cannot be undone, nor can another page's wait. */
	blocktime_undo(bt, 1, 11);
	blocktime_end(bt, 10, 600);
	blocktime_undo(bt, 1, 10);
	blocktime_end(bt, 11, 700);
	comes_to(bt, 900, 0, 500, 600, 0);
	blocktime_free(bt);
}

/* A thread waits for one page at a time: the earlier wait has ended. The same fault read twice is one. */
Test(dest_blocktime, one_page_at_a_time)
{
	struct blocktime *bt = three();

	blocktime_begin(bt, 1, 10, 100);
	blocktime_begin(bt, 1, 11, 300);
	blocktime_begin(bt, 1, 11, 350);
	blocktime_end(bt, 10, 400);
	blocktime_end(bt, 11, 500);
	comes_to(bt, 1000, 0, 400, 0, 0);
	blocktime_free(bt);
}

Test(dest_blocktime, threads_come_and_go)
{
	struct blocktime *bt = three();

	blocktime_begin(bt, 4, 10, 50); /* none of them */
	blocktime_begin(bt, 1, 10, 100);
	blocktime_begin(bt, 2, 11, 100);
	blocktime_name(bt, 3, false, 200); /* all that are left wait */
	comes_to(bt, 300, 100, 200, 200, 0);
	blocktime_begin(bt, 3, 12, 300);
	blocktime_name(bt, 3, true, 400);
	comes_to(bt, 500, 300, 400, 400, 200); /* it waited before it had a name */
	blocktime_name(bt, 2, false, 600);     /* what waits is ended */
	blocktime_end(bt, 11, 700);
	comes_to(bt, 800, 600, 700, 500, 500);
	blocktime_name_none(bt, 900);
	comes_to(bt, 5000, 700, 800, 500, 600);
	blocktime_free(bt);
}

/* Of two threads' clocks one is behind. */
/* The name can come behind the first fault; a wait that is over or was none by then does not count. */
Test(dest_blocktime, named_while_it_waits)
{
	struct blocktime *bt = blocktime_new();

	blocktime_begin(bt, 1, 10, 100);
	blocktime_begin(bt, 2, 11, 150);
	blocktime_begin(bt, 3, 12, 160);
	blocktime_begin(bt, 4, 13, 170);
	blocktime_end(bt, 12, 190);
	blocktime_undo(bt, 4, 13);
	blocktime_name(bt, 1, true, 200);
	blocktime_name(bt, 2, true, 300);
	blocktime_name(bt, 3, true, 400);
	comes_to(bt, 500, 200, 400, 350, 0);
	blocktime_name(bt, 3, false, 600);
	blocktime_end(bt, 11, 700);
	comes_to(bt, 1000, 300, 900, 550, 0);
	blocktime_name(bt, 4, true, 1000);
	blocktime_end(bt, 10, 1100);
	{
		struct blocktime_sums s = {0};

		blocktime_read(bt, 2000, &s);
		cr_assert(eq(u32, s.n, 4));
		cr_assert(eq(u64, s.thread_us[3], 0));
	}
	blocktime_free(bt);
}

Test(dest_blocktime, time_never_runs_backwards)
{
	struct blocktime *bt = three();

	blocktime_begin(bt, 1, 10, 100);
	blocktime_begin(bt, 2, 10, 100);
	blocktime_begin(bt, 3, 10, 100);
	blocktime_end(bt, 10, 99);
	comes_to(bt, 98, 0, 0, 0, 0);
	blocktime_free(bt);
}

Test(dest_blocktime, more_threads_than_are_told_apart)
{
	struct blocktime *bt = blocktime_new();
	struct blocktime_sums s = {0};

	for (uint32_t tid = 1; tid <= BLOCKTIME_THREADS_MAX + 10; tid++)
		blocktime_name(bt, tid, true, 0);
	blocktime_begin(bt, BLOCKTIME_THREADS_MAX, 1, 100);
	blocktime_begin(bt, BLOCKTIME_THREADS_MAX + 1, 1, 100);
	blocktime_end(bt, 1, 200);
	blocktime_read(bt, 300, &s);
	cr_assert(eq(u32, s.n, BLOCKTIME_THREADS_MAX));
	cr_assert(eq(u64, s.thread_us[BLOCKTIME_THREADS_MAX - 1], 100));
	blocktime_free(bt);
}
