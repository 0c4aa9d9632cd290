/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the pages of stamp.c hold: a function of the page's number, of how often it was written and
 * of the run's seed. A head of three words says which, so that a wrong page can be told apart:
 * of an older count (stale), of another page (swapped), zeros where there was data (zeroed), a part of one and a part of
 * another (torn).
 */
#ifndef DECANT_GUESTS_STAMP_PAGE_H
#define DECANT_GUESTS_STAMP_PAGE_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#define STAMP_PAGE  4096
#define STAMP_WORDS (STAMP_PAGE / 8)

static inline uint64_t stamp_mix(uint64_t x)
{
	x ^= x >> 30;
	x *= 0xbf58476d1ce4e5b9u;
	x ^= x >> 27;
	x *= 0x94d049bb133111ebu;
	return x ^ x >> 31;
}

/** struct stamp_seed - what is the same for all pages of a run; @zeros in per cent */
struct stamp_seed {
	uint64_t seed;
	uint64_t zeros;
};

static inline uint64_t stamp_key(const struct stamp_seed *s, uint64_t page, uint32_t count)
{
	return stamp_mix(s->seed ^ stamp_mix(page * 0x9e3779b97f4a7c15u ^ (uint64_t)count << 40));
}

/** stamp_is_zero() - Return: whether the page is to be all zeros at this count */
static inline bool stamp_is_zero(const struct stamp_seed *s, uint64_t page, uint32_t count)
{
	return !count || stamp_mix(stamp_key(s, page, count) + 1) % 100 < s->zeros;
}

static inline uint64_t stamp_word(uint64_t key, size_t i)
{
	return (key + i) * 0x9e3779b97f4a7c15u ^ key >> 17;
}

/** stamp_write() - make the page what it is at @count */
static inline void stamp_write(const struct stamp_seed *s, uint64_t *p, uint64_t page,
			       uint32_t count)
{
	uint64_t key = stamp_key(s, page, count);

	if (stamp_is_zero(s, page, count)) {
		memset(p, 0, STAMP_PAGE);
		return;
	}
	p[0] = s->seed;
	p[1] = page;
	p[2] = count;
	for (size_t i = 3; i < STAMP_WORDS; i++)
		p[i] = stamp_word(key, i);
}

static inline bool stamp_all_zero(const uint64_t *p)
{
	uint64_t any = 0;

	for (size_t i = 0; i < STAMP_WORDS; i++)
		any |= p[i];
	return !any;
}

static inline bool stamp_matches(const struct stamp_seed *s, const uint64_t *p, uint64_t page,
				 uint32_t count)
{
	uint64_t key = stamp_key(s, page, count), wrong;

	if (stamp_is_zero(s, page, count))
		return stamp_all_zero(p);
	wrong = (p[0] ^ s->seed) | (p[1] ^ page) | (p[2] ^ count);
	for (size_t i = 3; i < STAMP_WORDS; i++)
		wrong |= p[i] ^ stamp_word(key, i);
	return !wrong;
}

/** stamp_what() - Return: what is wrong with a page that should be @page at @count */
static inline const char *stamp_what(const struct stamp_seed *s, const uint64_t *p, uint64_t page,
				     uint32_t count)
{
	if (stamp_all_zero(p))
		return "zeroed";
	if (p[0] != s->seed)
		return "foreign";
	if (p[2] > UINT32_MAX || !stamp_matches(s, p, p[1], (uint32_t)p[2]))
		return "torn";
	if (p[1] != page)
		return "swapped";
	return p[2] < count ? "stale" : "future";
}

#endif
