/* SPDX-License-Identifier: Apache-2.0 */
/* What the guest `still` finds in its pages: a function of seed, block and page. */
#ifndef DECANT_TESTS_STILL_PAGE_H
#define DECANT_TESTS_STILL_PAGE_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#define STILL_PAGE 4096ul

static inline uint64_t still_mix(uint64_t x)
{
	x ^= x >> 31;
	x *= 0x9e3779b97f4a7c15u;
	x ^= x >> 29;
	return x * 0xbf58476d1ce4e5b9u;
}

/** still_is_zero() - every fifth page or so */
static inline bool still_is_zero(uint64_t seed, unsigned int block, uint64_t page)
{
	return still_mix(seed + block * 1000003 + page) % 5 == 0;
}

/** still_page_fill() - @buf has STILL_PAGE bytes */
static inline void still_page_fill(void *buf, uint64_t seed, unsigned int block, uint64_t page)
{
	uint64_t *w = buf, x = still_mix(seed ^ (uint64_t)block << 48 ^ page);

	memset(buf, 0, STILL_PAGE);
	if (still_is_zero(seed, block, page))
		return;
	for (unsigned int i = 0; i < STILL_PAGE / 8; i++)
		w[i] = x += 0x9e3779b97f4a7c15u;
}

static inline bool still_page_ok(const void *page, uint64_t seed, unsigned int block, uint64_t n)
{
	uint64_t want[STILL_PAGE / 8];

	still_page_fill(want, seed, block, n);
	return !memcmp(page, want, STILL_PAGE);
}

/** still_mark() - what the guest writes into a page once it has looked at it */
static inline uint64_t still_mark(uint64_t seed, unsigned int block, uint64_t page)
{
	return ~still_mix(seed + 77 * block + page) | 1;
}

/** still_ballast() - byte @i behind the seed in the saved state */
static inline uint8_t still_ballast(uint64_t seed, uint64_t i)
{
	return (uint8_t)still_mix(seed ^ i);
}

#endif
