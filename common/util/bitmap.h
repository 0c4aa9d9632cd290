/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Bitmaps of pages. Every operation on single bits and ranges is atomic word by word (relaxed
 * counts, acquire/release on test-and-set and test-and-clear), so that threads may share one.
 */
#ifndef DECANT_UTIL_BITMAP_H
#define DECANT_UTIL_BITMAP_H

#include <stdbool.h>
#include <stdint.h>

/**
 * struct bitmap - @nbits bits, all clear at first
 * @nbits:	fixed when it is made
 * @words:	(nbits + 63) / 64 words; bits beyond @nbits are always clear
 */
struct bitmap {
	uint64_t nbits;
	uint64_t *words;
};

/** bitmap_init() - Return: 0 or -ENOMEM */
int bitmap_init(struct bitmap *b, uint64_t nbits);
/** bitmap_free() - release the words; safe on a zeroed struct and twice */
void bitmap_free(struct bitmap *b);

/*
 * Bits and ranges outside of the bitmap are a mistake of the caller, caught by assert(3): what a
 * peer named is checked before it gets here. Searches may start anywhere.
 */
bool bitmap_test(const struct bitmap *b, uint64_t bit);
void bitmap_set(struct bitmap *b, uint64_t bit);
/** bitmap_test_and_set() - Return: was it set before? Exactly one of many callers sees false */
bool bitmap_test_and_set(struct bitmap *b, uint64_t bit);
/** bitmap_test_and_clear() - Return: was it set before? Exactly one of many callers sees true */
bool bitmap_test_and_clear(struct bitmap *b, uint64_t bit);

/** bitmap_set_range() - set [first, first + n); Return: how many were clear before */
uint64_t bitmap_set_range(struct bitmap *b, uint64_t first, uint64_t n);
/** bitmap_clear_range() - clear [first, first + n); Return: how many were set before */
uint64_t bitmap_clear_range(struct bitmap *b, uint64_t first, uint64_t n);
/** bitmap_count() - Return: bits set (a snapshot, if others write meanwhile) */
uint64_t bitmap_count(const struct bitmap *b);
/** bitmap_next_set() - Return: first set bit at or after @from, @nbits if there is none */
uint64_t bitmap_next_set(const struct bitmap *b, uint64_t from);
/** bitmap_next_clear() - Return: first clear bit at or after @from, @nbits if there is none */
uint64_t bitmap_next_clear(const struct bitmap *b, uint64_t from);
/**
 * bitmap_claim_run() - atomically clear a run of set bits and so own them
 * @from:	where to search
 * @max:	longest run to take
 * @ret_first:	first bit of the run that was cleared by this call
 *
 * Return: length of the run, 0 if no bit was set at or after @from. Every bit is handed out once,
 * however many threads claim.
 */
uint64_t bitmap_claim_run(struct bitmap *b, uint64_t from, uint64_t max, uint64_t *ret_first);
/** bitmap_or() - dst |= src, of the same length */
void bitmap_or(struct bitmap *dst, const struct bitmap *src);

#endif
