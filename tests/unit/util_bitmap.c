/* SPDX-License-Identifier: Apache-2.0 */
#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "util/bitmap.h"

static const uint64_t sizes[] = {1, 2, 63, 64, 65, 127, 128, 129, 200};
#define NSIZES (sizeof(sizes) / sizeof(sizes[0]))

/* What the bitmap must hold, one byte a bit. */
struct model {
	struct bitmap b;
	bool bit[256];
};

static void model_init(struct model *m, uint64_t nbits)
{
	*m = (struct model){0};
	cr_assert(zero(int, bitmap_init(&m->b, nbits)));
}

/* Each question that can be asked about bits is answered as the model would. */
static void model_check(const struct model *m)
{
	uint64_t n = m->b.nbits, count = 0, set = n, clear = n;

	for (uint64_t i = n; i-- > 0;) {
		set = m->bit[i] ? i : set;
		clear = m->bit[i] ? clear : i;
		count += m->bit[i];
		cr_assert(eq(int, bitmap_test(&m->b, i), m->bit[i]));
		cr_assert(eq(u64, bitmap_next_set(&m->b, i), set));
		cr_assert(eq(u64, bitmap_next_clear(&m->b, i), clear));
	}
	cr_assert(eq(u64, bitmap_count(&m->b), count));
	cr_assert(eq(u64, bitmap_next_set(&m->b, n), n));
	cr_assert(eq(u64, bitmap_next_clear(&m->b, n + 1000), n));
	if (n % 64)
		cr_assert(zero(u64, m->b.words[n / 64] >> (n % 64)));
}

/* What hangs is ended by a signal. (Criterion's own timeouts leak, which LeakSanitizer reports.) */
static void watchdog(void)
{
	alarm(60);
}

TestSuite(bitmap, .init = watchdog);

Test(bitmap, single_bits)
{
	struct model m;

	for (size_t s = 0; s < NSIZES; s++) {
		model_init(&m, sizes[s]);
		model_check(&m);
		for (uint64_t i = 0; i < sizes[s]; i++) {
			cr_assert(not(bitmap_test_and_set(&m.b, i)));
			cr_assert(bitmap_test_and_set(&m.b, i));
			m.bit[i] = true;
			model_check(&m);
		}
		for (uint64_t i = 0; i < sizes[s]; i += 2) {
			cr_assert(bitmap_test_and_clear(&m.b, i));
			cr_assert(not(bitmap_test_and_clear(&m.b, i)));
			m.bit[i] = false;
			model_check(&m);
		}
		bitmap_set(&m.b, 0);
		m.bit[0] = true;
		model_check(&m);
		bitmap_test_and_clear(&m.b, 0);
		m.bit[0] = false;
		model_check(&m);
		bitmap_free(&m.b);
	}
}

Test(bitmap, no_bits_at_all)
{
	struct bitmap b;
	uint64_t first = 7;

	cr_assert(zero(int, bitmap_init(&b, 0)));
	cr_assert(zero(u64, bitmap_count(&b)));
	cr_assert(zero(u64, bitmap_next_set(&b, 0)));
	cr_assert(zero(u64, bitmap_next_clear(&b, 0)));
	cr_assert(zero(u64, bitmap_set_range(&b, 0, 0)));
	cr_assert(zero(u64, bitmap_claim_run(&b, 0, 10, &first)));
	cr_assert(eq(u64, first, 7));
	bitmap_free(&b);
	bitmap_free(&b);
}

/* Every range of a bitmap that has every third bit set before. */
Test(bitmap, ranges)
{
	struct model m;

	for (uint64_t first = 0; first <= 130; first += 1 + first % 3) {
		for (uint64_t n = 0; n <= 130 - first; n++) {
			uint64_t was = 0;

			model_init(&m, 130);
			for (uint64_t i = 0; i < 130; i += 3) {
				bitmap_set(&m.b, i);
				m.bit[i] = true;
			}
			for (uint64_t i = first; i < first + n; i++)
				was += m.bit[i];
			cr_assert(eq(u64, bitmap_set_range(&m.b, first, n), n - was));
			memset(m.bit + first, true, n);
			model_check(&m);
			cr_assert(eq(u64, bitmap_clear_range(&m.b, first, n), n));
			memset(m.bit + first, false, n);
			model_check(&m);
			bitmap_free(&m.b);
		}
	}
}

Test(bitmap, or)
{
	struct bitmap a, b;

	bitmap_init(&a, 200);
	bitmap_init(&b, 200);
	bitmap_set_range(&a, 10, 100);
	bitmap_set_range(&b, 90, 110);
	bitmap_or(&a, &b);
	cr_assert(eq(u64, bitmap_count(&a), 190));
	cr_assert(eq(u64, bitmap_next_set(&a, 0), 10));
	cr_assert(eq(u64, bitmap_count(&b), 110));
	bitmap_free(&a);
	bitmap_free(&b);
}

/* All runs, starts and bounds of a small bitmap against a search bit by bit. */
Test(bitmap, claim_run_matches_the_model)
{
	struct model m;

	for (uint64_t a = 0; a < 200; a += 7) {
		for (uint64_t len = 1; len <= 200 - a; len += 9) {
			for (uint64_t max = 1; max < 200; max += 13) {
				uint64_t from = a > 3 ? a - 3 : 0, first = 999, want, got;

				model_init(&m, 200);
				bitmap_set_range(&m.b, a, len);
				memset(m.bit + a, true, len);
				want = len < max ? len : max;
				got = bitmap_claim_run(&m.b, from, max, &first);
				cr_assert(eq(u64, got, want));
				cr_assert(eq(u64, first, a));
				memset(m.bit + a, false, want);
				model_check(&m);
				/* from the middle of what is left */
				if (len > want + 2) {
					from = a + want + 1;
					want = len - want - 1 < max ? len - want - 1 : max;
					got = bitmap_claim_run(&m.b, from, max, &first);
					cr_assert(eq(u64, first, from));
					cr_assert(eq(u64, got, want));
					memset(m.bit + from, false, want);
					model_check(&m);
				}
				bitmap_free(&m.b);
			}
		}
	}
}

Test(bitmap, claim_run_crosses_words_up_to_its_bound)
{
	struct bitmap b;
	uint64_t first = 0;

	bitmap_init(&b, 100000);
	bitmap_set_range(&b, 70, 99000);
	cr_assert(eq(u64, bitmap_claim_run(&b, 0, 512, &first), 512));
	cr_assert(eq(u64, first, 70));
	cr_assert(eq(u64, bitmap_claim_run(&b, 0, UINT64_MAX, &first), 99000 - 512));
	cr_assert(eq(u64, first, 582));
	cr_assert(zero(u64, bitmap_claim_run(&b, 0, 1, &first)));
	cr_assert(zero(u64, bitmap_count(&b)));
	bitmap_set(&b, 99999);
	cr_assert(zero(u64, bitmap_claim_run(&b, 0, 0, &first)));
	cr_assert(zero(u64, bitmap_claim_run(&b, 100000, 1, &first)));
	cr_assert(eq(u64, bitmap_claim_run(&b, 99999, 5, &first), 1));
	cr_assert(eq(u64, first, 99999));
	bitmap_free(&b);
}

#define THREADS 4
#define BITS    (UINT64_C(1) << 20)

/**
 * struct claimer - one of the threads that empty a bitmap together
 * @b:		shared
 * @owner:	shared; how often each bit was handed out
 * @seed:	different for each
 * @total:	bits that this one got
 * @broken:	runs longer than asked for
 */
struct claimer {
	struct bitmap *b;
	uint32_t *owner;
	unsigned int seed;
	uint64_t total;
	uint64_t broken;
};

static void *claim_all(void *arg)
{
	struct claimer *c = arg;
	uint64_t first = 0, n, max, from;

	do {
		/* Now and then a single bit from anywhere, as a request for one page does. */
		from = (uint64_t)rand_r(&c->seed) % BITS;
		if (from % 4 == 0 && bitmap_test_and_clear(c->b, from)) {
			__atomic_fetch_add(&c->owner[from], 1, __ATOMIC_RELAXED);
			c->total++;
		}
		max = 1 + (uint64_t)rand_r(&c->seed) % 200;
		n = bitmap_claim_run(c->b, 0, max, &first);
		c->broken += n > max;
		for (uint64_t i = 0; i < n; i++)
			__atomic_fetch_add(&c->owner[first + i], 1, __ATOMIC_RELAXED);
		c->total += n;
	} while (n);
	return NULL;
}

Test(bitmap, claim_hands_each_bit_out_once)
{
	uint32_t *owner = calloc(BITS, sizeof(*owner));
	struct claimer c[THREADS];
	pthread_t t[THREADS];
	struct bitmap b;
	uint64_t total = 0, set;

	cr_assert(zero(int, bitmap_init(&b, BITS)));
	bitmap_set_range(&b, 0, BITS);
	for (uint64_t i = 0; i < BITS; i += 100)
		bitmap_test_and_clear(&b, i);
	set = bitmap_count(&b);
	for (unsigned int i = 0; i < THREADS; i++) {
		c[i] = (struct claimer){.b = &b, .owner = owner, .seed = i + 1};
		cr_assert(zero(int, pthread_create(&t[i], NULL, claim_all, &c[i])));
	}
	for (int i = 0; i < THREADS; i++) {
		pthread_join(t[i], NULL);
		total += c[i].total;
		cr_assert(zero(u64, c[i].broken));
	}
	for (uint64_t i = 0; i < BITS; i++)
		cr_assert(eq(u32, owner[i], i % 100 != 0), "bit %lu", i);
	cr_assert(eq(u64, total, set));
	cr_assert(zero(u64, bitmap_count(&b)));
	bitmap_free(&b);
	free(owner);
}

/* Two threads set what two others claim; nothing is lost or doubled either. */
static void *set_all(void *arg)
{
	struct claimer *c = arg;

	for (uint64_t i = c->seed; i < BITS; i += 2)
		c->total += !bitmap_test_and_set(c->b, i);
	return NULL;
}

static void *claim_until_full(void *arg)
{
	struct claimer *c = arg;
	uint64_t first = 0, n;

	while (__atomic_load_n(&c->total, __ATOMIC_RELAXED) < BITS) {
		n = bitmap_claim_run(c->b, 0, 64, &first);
		for (uint64_t i = 0; i < n; i++)
			c->owner[first + i]++;
		c->total += n;
	}
	return NULL;
}

Test(bitmap, claim_while_others_set)
{
	uint32_t *owner = calloc(BITS, sizeof(*owner));
	struct claimer set[2], claim = {.owner = owner};
	pthread_t t[2], taker;
	struct bitmap b;

	bitmap_init(&b, BITS);
	claim.b = &b;
	pthread_create(&taker, NULL, claim_until_full, &claim);
	for (unsigned int i = 0; i < 2; i++) {
		set[i] = (struct claimer){.b = &b, .seed = i};
		pthread_create(&t[i], NULL, set_all, &set[i]);
	}
	for (int i = 0; i < 2; i++) {
		pthread_join(t[i], NULL);
		cr_assert(eq(u64, set[i].total, BITS / 2));
	}
	pthread_join(taker, NULL);
	for (uint64_t i = 0; i < BITS; i++)
		cr_assert(eq(u32, owner[i], 1));
	cr_assert(zero(u64, bitmap_count(&b)));
	bitmap_free(&b);
	free(owner);
}
