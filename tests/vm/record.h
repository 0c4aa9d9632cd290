/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a page of the VM's memory and a record of its disk hold: a function of number, version and
 * seed, so that the VM and the harness that makes the disk image agree without talking.
 */
#ifndef DECANT_TESTS_VM_RECORD_H
#define DECANT_TESTS_VM_RECORD_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

/** RECORD_SIZE - bytes of a page and of a record */
#define RECORD_SIZE  4096
#define RECORD_WORDS (RECORD_SIZE / 8)

static inline uint64_t record_mix(uint64_t x)
{
	x ^= x >> 30;
	x *= 0xbf58476d1ce4e5b9u;
	x ^= x >> 27;
	x *= 0x94d049bb133111ebu;
	return x ^ x >> 31;
}

static inline uint64_t record_start(uint64_t number, uint64_t version, uint64_t seed)
{
	return record_mix(record_mix(record_mix(seed) ^ number) + version);
}

/* Every tenth version is all zeros: zero pages travel differently. Version 0 never is. */
static inline bool record_is_zeros(uint64_t version, uint64_t start)
{
	return version && start % 10 == 0;
}

/** record_word() - word @i of a record that begins with @start; the first two say which it is */
static inline uint64_t record_word(unsigned int i, uint64_t number, uint64_t version,
				   uint64_t start)
{
	return i == 0 ? number : i == 1 ? version : start + i * 0x9e3779b97f4a7c15u;
}

/** record_fill() - write a record */
static inline void record_fill(uint64_t *p, uint64_t number, uint64_t version, uint64_t seed)
{
	uint64_t start = record_start(number, version, seed);

	if (record_is_zeros(version, start)) {
		memset(p, 0, RECORD_SIZE);
		return;
	}
	for (unsigned int i = 0; i < RECORD_WORDS; i++)
		p[i] = record_word(i, number, version, start);
}

/** record_bad_at() - Return: first word that is not as record_fill() makes it, -1 if all are */
static inline int record_bad_at(const uint64_t *p, uint64_t number, uint64_t version, uint64_t seed)
{
	uint64_t start = record_start(number, version, seed);
	bool zeros = record_is_zeros(version, start);

	for (unsigned int i = 0; i < RECORD_WORDS; i++)
		if (p[i] != (zeros ? 0 : record_word(i, number, version, start)))
			return (int)i;
	return -1;
}

#endif
