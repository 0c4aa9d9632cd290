/* SPDX-License-Identifier: Apache-2.0 */
/* A histogram of durations in microseconds: log-linear buckets (16 an octave), atomic counters. */
#ifndef DECANT_UTIL_HIST_H
#define DECANT_UTIL_HIST_H

#include <stddef.h>
#include <stdint.h>

/** HIST_BUCKETS - 16 linear buckets below 16 us, then 16 for each power of two up to 2^40 us */
#define HIST_BUCKETS (16 + 16 * 36)

/** struct hist - may be zero-initialised; hist_add() from any thread, reading is a snapshot */
struct hist {
	uint64_t count[HIST_BUCKETS];
	uint64_t n;
	uint64_t sum_us;
	uint64_t max_us;
};

/** hist_add() - count one duration; from 2^40 us (13 days) on it is counted as 2^40 - 1 */
void hist_add(struct hist *h, uint64_t us);
/**
 * hist_quantile() - the value that a part @q (0..1) of all does not exceed
 *
 * Return: upper bound (us) of its bucket, but never above the largest value added; 0 if empty
 */
uint64_t hist_quantile(const struct hist *h, double q);
/**
 * hist_octaves() - the same in a few buckets: @out[i] counts values above 2^(i-1) and up to 2^i us
 * @n:		entries of @out; the last one takes all that are larger
 */
void hist_octaves(const struct hist *h, uint32_t *out, size_t n);
/** hist_merge() - add what @from has; nobody adds to @to meanwhile */
void hist_merge(struct hist *to, const struct hist *from);
/** hist_bucket_le() - Return: inclusive upper bound (us) of bucket @i */
uint64_t hist_bucket_le(size_t i);

#endif
