/* SPDX-License-Identifier: Apache-2.0 */
#include "util/bitmap.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

#define WORD(bit)  ((bit) / 64)
#define SHIFT(bit) ((unsigned int)((bit) % 64))
#define MASK(bit)  (UINT64_C(1) << SHIFT(bit))

static uint64_t nwords(const struct bitmap *b)
{
	return b->nbits / 64 + (b->nbits % 64 != 0);
}

int bitmap_init(struct bitmap *b, uint64_t nbits)
{
	struct bitmap made = {.nbits = nbits};

	made.words = calloc(nbits ? nwords(&made) : 1, sizeof(*made.words));
	if (!made.words)
		return -ENOMEM;
	*b = made;
	return 0;
}

void bitmap_free(struct bitmap *b)
{
	free(b->words);
	*b = (struct bitmap){0};
}

static uint64_t load(const struct bitmap *b, uint64_t w)
{
	return __atomic_load_n(&b->words[w], __ATOMIC_ACQUIRE);
}

bool bitmap_test(const struct bitmap *b, uint64_t bit)
{
	assert(bit < b->nbits);
	return load(b, WORD(bit)) & MASK(bit);
}

bool bitmap_test_and_set(struct bitmap *b, uint64_t bit)
{
	assert(bit < b->nbits);
	return __atomic_fetch_or(&b->words[WORD(bit)], MASK(bit), __ATOMIC_ACQ_REL) & MASK(bit);
}

bool bitmap_test_and_clear(struct bitmap *b, uint64_t bit)
{
	assert(bit < b->nbits);
	return __atomic_fetch_and(&b->words[WORD(bit)], ~MASK(bit), __ATOMIC_ACQ_REL) & MASK(bit);
}

void bitmap_set(struct bitmap *b, uint64_t bit)
{
	bitmap_test_and_set(b, bit);
}

/* The bits of word @w that lie in [first, end); at least one does. */
static uint64_t part(uint64_t w, uint64_t first, uint64_t end)
{
	uint64_t m = ~UINT64_C(0);

	if (w == WORD(first))
		m <<= SHIFT(first);
	if (w == WORD(end - 1))
		m &= ~UINT64_C(0) >> (63 - SHIFT(end - 1));
	return m;
}

static void check_range(const struct bitmap *b, uint64_t first, uint64_t n)
{
	assert(first <= b->nbits && n <= b->nbits - first);
}

uint64_t bitmap_set_range(struct bitmap *b, uint64_t first, uint64_t n)
{
	uint64_t end = first + n, changed = 0, m;

	check_range(b, first, n);
	for (uint64_t w = WORD(first); n && w <= WORD(end - 1); w++) {
		m = part(w, first, end);
		m &= ~__atomic_fetch_or(&b->words[w], m, __ATOMIC_ACQ_REL);
		changed += (uint64_t)__builtin_popcountll(m);
	}
	return changed;
}

uint64_t bitmap_clear_range(struct bitmap *b, uint64_t first, uint64_t n)
{
	uint64_t end = first + n, changed = 0, m;

	check_range(b, first, n);
	for (uint64_t w = WORD(first); n && w <= WORD(end - 1); w++) {
		m = part(w, first, end);
		m &= __atomic_fetch_and(&b->words[w], ~m, __ATOMIC_ACQ_REL);
		changed += (uint64_t)__builtin_popcountll(m);
	}
	return changed;
}

uint64_t bitmap_count(const struct bitmap *b)
{
	uint64_t n = nwords(b), sum = 0;

	for (uint64_t w = 0; w < n; w++)
		sum += (uint64_t)__builtin_popcountll(
			__atomic_load_n(&b->words[w], __ATOMIC_RELAXED));
	return sum;
}

/* First bit at or after @from that differs from @flip's, where @flip is all zeros or all ones. */
static uint64_t next(const struct bitmap *b, uint64_t from, uint64_t flip)
{
	uint64_t n = nwords(b), w = WORD(from), v;

	if (from >= b->nbits)
		return b->nbits;
	v = (load(b, w) ^ flip) & (~UINT64_C(0) << SHIFT(from));
	while (!v) {
		if (++w == n)
			return b->nbits;
		v = load(b, w) ^ flip;
	}
	/* Bits behind the last one are clear: where nothing else is, @nbits is the first of them. */
	return w * 64 + (uint64_t)__builtin_ctzll(v);
}

uint64_t bitmap_next_set(const struct bitmap *b, uint64_t from)
{
	return next(b, from, 0);
}

uint64_t bitmap_next_clear(const struct bitmap *b, uint64_t from)
{
	return next(b, from, ~UINT64_C(0));
}

/*
 * Take the set bits from @shift on, up to the first clear one and at most @max, out of word @w.
 * Another thread may take some first, then what is left is looked at again.
 */
static uint64_t claim_in_word(struct bitmap *b, uint64_t w, unsigned int shift, uint64_t max)
{
	uint64_t old = load(b, w), v, n;

	do {
		v = old >> shift;
		n = v == ~UINT64_C(0) ? 64 : (uint64_t)__builtin_ctzll(~v);
		if (n > max)
			n = max;
		if (!n)
			return 0;
		v = (~UINT64_C(0) >> (64 - n)) << shift;
	} while (!__atomic_compare_exchange_n(&b->words[w], &old, old & ~v, false, __ATOMIC_ACQ_REL,
					      __ATOMIC_ACQUIRE));
	return n;
}

uint64_t bitmap_claim_run(struct bitmap *b, uint64_t from, uint64_t max, uint64_t *ret_first)
{
	uint64_t n = nwords(b), first, w, got, more;

	if (!max)
		return 0;
	for (;;) {
		first = bitmap_next_set(b, from);
		if (first == b->nbits)
			return 0;
		got = claim_in_word(b, WORD(first), SHIFT(first), max);
		if (got)
			break;
		from = first; /* somebody was faster */
	}
	/* On into the next words while the run reaches exactly up to each of them. */
	for (w = WORD(first) + 1; got < max && first + got == w * 64 && w < n; w++) {
		more = claim_in_word(b, w, 0, max - got);
		if (!more)
			break;
		got += more;
	}
	*ret_first = first;
	return got;
}

void bitmap_or(struct bitmap *dst, const struct bitmap *src)
{
	uint64_t n = nwords(dst), v;

	assert(dst->nbits == src->nbits);
	for (uint64_t w = 0; w < n; w++) {
		v = load(src, w);
		if (v)
			__atomic_fetch_or(&dst->words[w], v, __ATOMIC_ACQ_REL);
	}
}
