/* SPDX-License-Identifier: Apache-2.0 */
#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include "util/bucket.h"

#define KIB       UINT64_C(1024)
#define SECOND    UINT64_C(1000000)
#define BURST_MIN (256 * KIB)

Test(bucket, no_limit_never_waits)
{
	struct bucket b;

	bucket_init(&b, 0, 5);
	for (int i = 0; i < 100; i++)
		cr_assert(zero(u64, bucket_take(&b, UINT64_MAX, 5)));
}

Test(bucket, burst_goes_at_once)
{
	struct bucket b;

	bucket_init(&b, 100000000, 7);
	cr_assert(eq(u64, b.burst, 10000000));
	cr_assert(zero(u64, bucket_take(&b, 10000000, 7)));
	cr_assert(eq(u64, bucket_take(&b, 100, 7), 1));
	bucket_init(&b, 1000, 7);
	cr_assert(eq(u64, b.burst, BURST_MIN));
}

/* Overdraft: the whole is taken, and waited for. */
Test(bucket, wait_is_what_the_debt_takes)
{
	struct bucket b;

	bucket_init(&b, 1000000, 0);
	cr_assert(zero(u64, bucket_take(&b, BURST_MIN, 0)));
	cr_assert(eq(u64, bucket_take(&b, 500000, 0), SECOND / 2));
	cr_assert(eq(u64, bucket_take(&b, 500000, 0), SECOND));
	/* Half of it has passed, and nothing more was asked for. */
	cr_assert(eq(u64, bucket_take(&b, 0, SECOND / 2), SECOND / 2));
	cr_assert(zero(u64, bucket_take(&b, 0, SECOND)));
	cr_assert(eq(u64, bucket_take(&b, 1, SECOND), 1));
}

Test(bucket, idle_time_saves_up_one_burst_only)
{
	struct bucket b;

	bucket_init(&b, 1000000, 0);
	bucket_take(&b, BURST_MIN, 0);
	cr_assert(zero(u64, bucket_take(&b, BURST_MIN, 3600 * SECOND)));
	cr_assert(eq(u64, bucket_take(&b, 1000000, 3600 * SECOND), SECOND));
}

/* Send as fast as allowed for ten seconds; Return: bytes that went */
static uint64_t drive(uint64_t rate, uint64_t piece, uint64_t poll_us)
{
	struct bucket b;
	uint64_t now = 1, sent = 0, wait;

	bucket_init(&b, rate, now);
	while (now < 10 * SECOND) {
		wait = bucket_take(&b, piece, now);
		/* Some callers look again before their time has come. */
		while (poll_us && wait > poll_us) {
			now += poll_us;
			wait = bucket_take(&b, 0, now);
		}
		now += wait;
		sent += piece;
	}
	return sent;
}

Test(bucket, long_run_rate_is_met)
{
	static const uint64_t rates[] = {1000000, 12500000, 125000000, 1250000001};
	static const uint64_t polls[] = {0, 7, 1000};

	for (int r = 0; r < 4; r++) {
		for (int p = 0; p < 3; p++) {
			uint64_t sent = drive(rates[r], 64 * KIB, polls[p]);
			uint64_t burst = rates[r] / 10 > BURST_MIN ? rates[r] / 10 : BURST_MIN;
			uint64_t want = rates[r] * 10 + burst;

			cr_assert(le(u64, sent, want + 64 * KIB), "rate %lu", rates[r]);
			cr_assert(ge(u64, sent, want - want / 50), "rate %lu poll %lu", rates[r],
				  polls[p]);
		}
	}
}

/* A byte each millisecond, asked for every 100 us: fractions must add up. */
Test(bucket, slow_rates_do_not_lose_fractions)
{
	struct bucket b;

	bucket_init(&b, 1000, 0);
	bucket_take(&b, BURST_MIN + 100, 0);
	for (uint64_t now = 100; now < 100000; now += 100)
		cr_assert(eq(u64, bucket_take(&b, 0, now), 100000 - now));
	cr_assert(zero(u64, bucket_take(&b, 0, 100000)));
}

Test(bucket, extremes_do_not_wrap)
{
	struct bucket b;

	bucket_init(&b, 1, 0);
	for (int i = 0; i < 10; i++)
		cr_assert(gt(u64, bucket_take(&b, UINT64_MAX, 0), UINT64_MAX / 4));
	cr_assert(lt(i64, b.tokens, 0));
	bucket_init(&b, 1, 0);
	for (int i = 0; i < 10; i++) {
		bucket_take(&b, INT64_MAX / 2, 0);
		cr_assert(lt(i64, b.tokens, 0));
	}
	bucket_init(&b, INT64_MAX, 0);
	bucket_take(&b, INT64_MAX, 0);
	cr_assert(zero(u64, bucket_take(&b, 0, UINT64_MAX)));
	cr_assert(eq(i64, b.tokens, (int64_t)b.burst));
}

Test(bucket, a_clock_that_stands_or_goes_back_gives_nothing)
{
	struct bucket b;

	bucket_init(&b, 1000000, 50);
	bucket_take(&b, BURST_MIN + 1000, 50);
	cr_assert(eq(u64, bucket_take(&b, 0, 50), 1000));
	cr_assert(eq(u64, bucket_take(&b, 0, 20), 1000));
	cr_assert(eq(u64, bucket_take(&b, 0, 550), 500));
}

Test(bucket, what_is_given_back_can_be_taken_again)
{
	struct bucket b;

	bucket_init(&b, 1000000, 0);
	bucket_take(&b, BURST_MIN + 1000, 0);
	bucket_give(&b, 400);
	cr_assert(eq(u64, bucket_take(&b, 0, 0), 600));
	bucket_give(&b, UINT64_MAX);
	cr_assert(eq(i64, b.tokens, BURST_MIN));
	bucket_init(&b, 0, 0);
	bucket_give(&b, 400);
	cr_assert(zero(u64, bucket_take(&b, UINT64_MAX, 0)));
}

Test(bucket, another_rate)
{
	struct bucket b;

	bucket_init(&b, 100000000, 0);
	bucket_set_rate(&b, 10000000, 0);
	cr_assert(eq(i64, b.tokens, 1000000), "no more is saved up than the new burst");
	bucket_take(&b, 1500000, 0);
	bucket_set_rate(&b, 20000000, 0);
	cr_assert(eq(u64, bucket_take(&b, 0, 0), 25000), "a debt is paid at the new rate");
	bucket_set_rate(&b, 1000, 0);
	cr_assert(eq(u64, bucket_take(&b, 0, 0), SECOND), "and within a second");
	bucket_set_rate(&b, 0, 0);
	cr_assert(zero(u64, bucket_take(&b, UINT64_MAX, 0)));
	bucket_set_rate(&b, 1000, 5);
	cr_assert(zero(i64, b.tokens), "without a limit nothing is saved up");
	bucket_set_rate(&b, INT64_MAX, 5);
	bucket_set_rate(&b, UINT64_MAX, 5);
	cr_assert(zero(i64, b.tokens));
}
