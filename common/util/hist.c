/* SPDX-License-Identifier: Apache-2.0 */
#include "util/hist.h"

#include <stdbool.h>

/* Beyond this (almost 13 days) a duration is counted as this long. */
#define LONGEST_US ((UINT64_C(1) << 40) - 1)

/* Four bits behind the leading one choose among the 16 buckets of an octave. */
static size_t bucket_of(uint64_t us)
{
	unsigned int octave;

	if (us < 16)
		return (size_t)us;
	octave = 63 - (unsigned int)__builtin_clzll(us) - 4;
	return 16 + 16 * (size_t)octave + ((us >> octave) & 15);
}

uint64_t hist_bucket_le(size_t i)
{
	if (i < 16)
		return i;
	return ((16 + i % 16 + 1) << (i / 16 - 1)) - 1;
}

void hist_add(struct hist *h, uint64_t us)
{
	uint64_t max = __atomic_load_n(&h->max_us, __ATOMIC_RELAXED);

	if (us > LONGEST_US)
		us = LONGEST_US;
	while (us > max && !__atomic_compare_exchange_n(&h->max_us, &max, us, true,
							__ATOMIC_RELAXED, __ATOMIC_RELAXED))
		;
	__atomic_fetch_add(&h->sum_us, us, __ATOMIC_RELAXED);
	__atomic_fetch_add(&h->n, 1, __ATOMIC_RELAXED);
	/* Last, and released: who sees the count also sees a maximum that is not below it. */
	__atomic_fetch_add(&h->count[bucket_of(us)], 1, __ATOMIC_RELEASE);
}

static uint64_t counted(const struct hist *h)
{
	uint64_t n = 0;

	for (size_t i = 0; i < HIST_BUCKETS; i++)
		n += __atomic_load_n(&h->count[i], __ATOMIC_ACQUIRE);
	return n;
}

/* The smallest rank, 1 to @n, that has at least the part @q of all values at or below it. */
static uint64_t rank_of(double q, uint64_t n)
{
	uint64_t rank;

	if (!(q > 0))
		return 1;
	if (q >= 1)
		return n;
	rank = (uint64_t)(q * (double)n);
	if ((double)rank < q * (double)n || !rank)
		rank++;
	return rank < n ? rank : n;
}

uint64_t hist_quantile(const struct hist *h, double q)
{
	/* Not @n: it may be ahead of the counts, and the walk below would fall off the end. */
	uint64_t n = counted(h), seen = 0, rank, max, le;
	size_t i;

	if (!n)
		return 0;
	rank = rank_of(q, n);
	for (i = 0; i < HIST_BUCKETS - 1; i++) {
		seen += __atomic_load_n(&h->count[i], __ATOMIC_ACQUIRE);
		if (seen >= rank)
			break;
	}
	le = hist_bucket_le(i);
	max = __atomic_load_n(&h->max_us, __ATOMIC_RELAXED);
	return le < max ? le : max;
}

void hist_octaves(const struct hist *h, uint32_t *out, size_t n)
{
	for (size_t k = 0; k < n; k++)
		out[k] = 0;
	for (size_t i = 0; i < HIST_BUCKETS; i++) {
		uint64_t count = __atomic_load_n(&h->count[i], __ATOMIC_RELAXED);
		size_t k = 0;

		while (k + 1 < n && hist_bucket_le(i) > UINT64_C(1) << k)
			k++;
		out[k] += (uint32_t)count;
	}
}

void hist_merge(struct hist *to, const struct hist *from)
{
	uint64_t max = __atomic_load_n(&from->max_us, __ATOMIC_RELAXED);

	for (size_t i = 0; i < HIST_BUCKETS; i++)
		to->count[i] += __atomic_load_n(&from->count[i], __ATOMIC_RELAXED);
	to->n += __atomic_load_n(&from->n, __ATOMIC_RELAXED);
	to->sum_us += __atomic_load_n(&from->sum_us, __ATOMIC_RELAXED);
	if (max > to->max_us)
		to->max_us = max;
}
