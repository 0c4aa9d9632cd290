/* SPDX-License-Identifier: Apache-2.0 */
#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <math.h>
#include <pthread.h>
#include "util/hist.h"

#define LONGEST ((UINT64_C(1) << 40) - 1)

/* The bucket that one value falls into. */
static size_t bucket_of(uint64_t us)
{
	static struct hist h;
	size_t i = 0;

	h = (struct hist){0};
	hist_add(&h, us);
	while (!h.count[i])
		cr_assert(lt(sz, ++i, HIST_BUCKETS));
	return i;
}

Test(hist, buckets_have_no_gap_and_no_overlap)
{
	for (size_t i = 0; i < HIST_BUCKETS; i++) {
		uint64_t le = hist_bucket_le(i);

		cr_assert(eq(sz, bucket_of(le), i));
		if (i + 1 < HIST_BUCKETS)
			cr_assert(eq(sz, bucket_of(le + 1), i + 1));
	}
	cr_assert(eq(u64, hist_bucket_le(0), 0));
	cr_assert(eq(u64, hist_bucket_le(15), 15));
	cr_assert(eq(u64, hist_bucket_le(HIST_BUCKETS - 1), LONGEST));
}

Test(hist, a_bucket_is_no_wider_than_a_sixteenth)
{
	for (size_t i = 17; i < HIST_BUCKETS; i++) {
		uint64_t low = hist_bucket_le(i - 1) + 1, high = hist_bucket_le(i);

		cr_assert(le(u64, (high - low + 1) * 16, low), "bucket %zu", i);
	}
}

Test(hist, empty)
{
	static struct hist h;

	cr_assert(zero(u64, hist_quantile(&h, 0.5)));
}

Test(hist, quantiles_of_one_to_a_thousand)
{
	static struct hist h;
	static const double qs[] = {0.001, 0.1, 0.5, 0.9, 0.99};

	for (uint64_t us = 1000; us; us--)
		hist_add(&h, us);
	for (size_t i = 0; i < sizeof(qs) / sizeof(qs[0]); i++) {
		uint64_t exact = (uint64_t)(qs[i] * 1000 + 0.5), got = hist_quantile(&h, qs[i]);

		cr_assert(ge(u64, got, exact), "q %f", qs[i]);
		cr_assert(le(u64, got, exact + exact / 16), "q %f", qs[i]);
	}
	cr_assert(eq(u64, hist_quantile(&h, 1), 1000));
	cr_assert(eq(u64, hist_quantile(&h, 7), 1000));
	cr_assert(eq(u64, hist_quantile(&h, -1), 1));
	cr_assert(eq(u64, hist_quantile(&h, NAN), 1));
	cr_assert(eq(u64, h.n, 1000));
	cr_assert(eq(u64, h.sum_us, 500500));
	cr_assert(eq(u64, h.max_us, 1000));
}

Test(hist, never_above_the_largest_value)
{
	static struct hist h;

	hist_add(&h, 1000); /* its bucket ends at 1023 */
	cr_assert(eq(u64, hist_quantile(&h, 0.5), 1000));
	cr_assert(eq(u64, hist_quantile(&h, 1), 1000));
}

Test(hist, beyond_the_last_bucket)
{
	static struct hist h;

	hist_add(&h, UINT64_MAX);
	cr_assert(eq(u64, h.max_us, LONGEST));
	cr_assert(eq(u64, h.sum_us, LONGEST));
	cr_assert(eq(u64, hist_quantile(&h, 1), LONGEST));
}

#define THREADS 4
#define ADDS    200000

static void *add_many(void *arg)
{
	for (uint64_t i = 0; i < ADDS; i++)
		hist_add(arg, i % 5000);
	return NULL;
}

Test(hist, nothing_is_lost_with_many_threads)
{
	static struct hist h;
	pthread_t t[THREADS];
	uint64_t n = 0;

	for (int i = 0; i < THREADS; i++)
		cr_assert(zero(int, pthread_create(&t[i], NULL, add_many, &h)));
	for (int i = 0; i < 1000; i++)
		cr_assert(le(u64, hist_quantile(&h, 0.5), 4999));
	for (int i = 0; i < THREADS; i++)
		pthread_join(t[i], NULL);
	for (size_t i = 0; i < HIST_BUCKETS; i++)
		n += h.count[i];
	cr_assert(eq(u64, n, THREADS * ADDS));
	cr_assert(eq(u64, h.n, THREADS * ADDS));
	cr_assert(eq(u64, h.sum_us, (uint64_t)THREADS * (ADDS / 5000) * (4999 * 5000 / 2)));
	cr_assert(eq(u64, h.max_us, 4999));
}

Test(hist, octaves)
{
	static const uint64_t us[] = {0, 1, 2, 3, 4, 5, 16, 17, 100000};
	struct hist h = {0};
	uint32_t out[8];

	for (size_t i = 0; i < sizeof(us) / sizeof(us[0]); i++)
		hist_add(&h, us[i]);
	hist_octaves(&h, out, 8);
	cr_assert(eq(u32, out[0], 2), "0 and 1");
	cr_assert(eq(u32, out[1], 1), "2");
	cr_assert(eq(u32, out[2], 2), "3 and 4");
	cr_assert(eq(u32, out[3], 1), "5");
	cr_assert(eq(u32, out[4], 1), "16");
	cr_assert(eq(u32, out[5], 1), "17");
	cr_assert(eq(u32, out[7], 1), "all that are larger");
}

Test(hist, merge)
{
	struct hist a = {0}, b = {0}, both = {0};

	for (uint64_t i = 0; i < 1000; i++) {
		hist_add(i % 3 ? &a : &b, i * i);
		hist_add(&both, i * i);
	}
	hist_merge(&a, &b);
	cr_assert(eq(u64, a.n, 1000));
	cr_assert(eq(u64, a.sum_us, both.sum_us));
	cr_assert(eq(u64, hist_quantile(&a, 1), 999 * 999));
	for (size_t i = 0; i < HIST_BUCKETS; i++)
		cr_assert(eq(u64, a.count[i], both.count[i]));
}
