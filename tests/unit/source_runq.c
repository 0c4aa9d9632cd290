/* SPDX-License-Identifier: Apache-2.0 */
#include <criterion/criterion.h>
#include <errno.h>
#include <poll.h>

#include "runq.h"

static struct run run(uint64_t n)
{
	return (struct run){.kind = RUN_READ, .offset = n};
}

static bool readable(const struct runq *q)
{
	struct pollfd p = {.fd = q->work_fd, .events = POLLIN};

	return poll(&p, 1, 0) == 1;
}

Test(runq, keeps_order_and_bound)
{
	struct runq q;
	struct run r;

	cr_assert_eq(runq_init(&q), 0);
	for (uint64_t i = 0; i < RUNQ_MAX; i++) {
		r = run(i);
		cr_assert_eq(runq_room(&q), RUNQ_MAX - i);
		cr_assert_eq(runq_push(&q, &r), 0);
	}
	cr_assert_eq(runq_room(&q), 0);
	cr_assert_eq(runq_push(&q, &r), -EAGAIN);
	for (uint64_t i = 0; i < RUNQ_MAX; i++) {
		cr_assert(runq_pop(&q, &r));
		cr_assert_eq(r.offset, i);
	}
	cr_assert_not(runq_pop(&q, &r));
	runq_destroy(&q);
}

Test(runq, what_was_asked_for_comes_first_even_when_full)
{
	struct runq q;
	struct run r;

	runq_init(&q);
	for (uint64_t i = 0; i < RUNQ_MAX; i++) {
		r = run(i);
		runq_push(&q, &r);
	}
	r = run(99);
	cr_assert_eq(runq_push_front(&q, &r), 0);
	cr_assert_eq(runq_push_front(&q, &r), -EAGAIN, "one place only");
	cr_assert(runq_pop(&q, &r));
	cr_assert_eq(r.offset, 99);
	cr_assert(runq_pop(&q, &r));
	cr_assert_eq(r.offset, 0);
	runq_destroy(&q);
}

Test(runq, its_descriptor_says_whether_there_is_work)
{
	struct runq q;
	struct run r = run(1);

	runq_init(&q);
	cr_assert_not(readable(&q));
	runq_push(&q, &r);
	runq_push(&q, &r);
	cr_assert(readable(&q));
	runq_pop(&q, &r);
	cr_assert(readable(&q));
	runq_pop(&q, &r);
	cr_assert_not(readable(&q));
	runq_push_front(&q, &r);
	cr_assert(readable(&q));
	runq_destroy(&q);
}
