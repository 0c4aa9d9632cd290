/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Includes the source, so that each variant is tested on a processor that would choose another.
 */
#include "util/zero.c" /* NOLINT(bugprone-suspicious-include) */

#include <criterion/criterion.h>
#include <criterion/new/assert.h>

#define MAX_LEN 4096

typedef bool zero_fn(const uint8_t *p, size_t n);

static bool chosen(const uint8_t *p, size_t n)
{
	return zero_is(p, n);
}

/*
 * One bit at every position of buffers of several lengths and alignments must be seen; bytes just
 * before and behind must not. A dirty byte at each end of the room guards against reading beyond.
 */
static void check_variant(zero_fn *is_zero)
{
	static const size_t lens[] = {64, 128, 192, 256, 320, 576, MAX_LEN};
	static const size_t shifts[] = {64, 65, 80, 127};
	static uint8_t room[MAX_LEN + 256];

	for (size_t l = 0; l < sizeof(lens) / sizeof(lens[0]); l++) {
		for (size_t s = 0; s < sizeof(shifts) / sizeof(shifts[0]); s++) {
			uint8_t *p = room + shifts[s];
			size_t n = lens[l];

			memset(room, 0xff, sizeof(room));
			memset(p, 0, n);
			cr_assert(is_zero(p, n), "length %zu shift %zu", n, shifts[s]);
			for (size_t i = 0; i < n; i++) {
				p[i] = (uint8_t)(1 << (i % 8));
				cr_assert(not(is_zero(p, n)), "byte %zu of %zu", i, n);
				p[i] = 0;
			}
			cr_assert(is_zero(p, n));
		}
	}
	cr_assert(is_zero(room, 0));
}

Test(zero, words)
{
	check_variant(zero_words);
}

Test(zero, chosen_by_the_processor)
{
	check_variant(chosen);
}

#ifdef __x86_64__
Test(zero, avx2)
{
	if (!__builtin_cpu_supports("avx2"))
		cr_skip("this processor has no AVX2");
	check_variant(zero_avx2);
}

Test(zero, avx512)
{
	if (!__builtin_cpu_supports("avx512f"))
		cr_skip("this processor has no AVX-512");
	check_variant(zero_avx512);
}
#endif
