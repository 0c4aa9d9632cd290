/* SPDX-License-Identifier: Apache-2.0 */
#include "util/zero.h"

#include <assert.h>
#include <stdint.h>
#include <string.h>

/*
 * Each variant ORs 256 bytes together before it tests them: one test and one branch for four to
 * sixteen loads, so that zeros are read at the speed of memory.
 */
#ifdef __x86_64__
#include <immintrin.h>

__attribute__((target("avx512f"))) static bool zero_avx512(const uint8_t *p, size_t n)
{
	__m512i v;

	for (; n >= 256; p += 256, n -= 256) {
		v = _mm512_or_si512(_mm512_loadu_si512(p), _mm512_loadu_si512(p + 64));
		v = _mm512_or_si512(v, _mm512_loadu_si512(p + 128));
		v = _mm512_or_si512(v, _mm512_loadu_si512(p + 192));
		if (_mm512_test_epi64_mask(v, v))
			return false;
	}
	for (; n; p += 64, n -= 64) {
		v = _mm512_loadu_si512(p);
		if (_mm512_test_epi64_mask(v, v))
			return false;
	}
	return true;
}

__attribute__((target("avx2"))) static inline __m256i or64_avx2(const uint8_t *p)
{
	return _mm256_or_si256(_mm256_loadu_si256((const __m256i *)p),
			       _mm256_loadu_si256((const __m256i *)(p + 32)));
}

__attribute__((target("avx2"))) static bool zero_avx2(const uint8_t *p, size_t n)
{
	__m256i v;

	for (; n >= 256; p += 256, n -= 256) {
		v = _mm256_or_si256(_mm256_or_si256(or64_avx2(p), or64_avx2(p + 64)),
				    _mm256_or_si256(or64_avx2(p + 128), or64_avx2(p + 192)));
		if (!_mm256_testz_si256(v, v))
			return false;
	}
	for (; n; p += 64, n -= 64) {
		v = or64_avx2(p);
		if (!_mm256_testz_si256(v, v))
			return false;
	}
	return true;
}
#endif

/* 64 bytes by words; with @n a constant the compiler makes SSE2 (or NEON) of it. */
static inline uint64_t or_words(const uint8_t *p, size_t n)
{
	uint64_t v = 0, w;

	for (size_t i = 0; i < n; i += sizeof(w)) {
		memcpy(&w, p + i, sizeof(w));
		v |= w;
	}
	return v;
}

static bool zero_words(const uint8_t *p, size_t n)
{
	for (; n >= 256; p += 256, n -= 256)
		if (or_words(p, 256))
			return false;
	for (; n; p += 64, n -= 64)
		if (or_words(p, 64))
			return false;
	return true;
}

bool zero_is(const void *p, size_t n)
{
	assert(n % 64 == 0);
#ifdef __x86_64__
	if (__builtin_cpu_supports("avx512f"))
		return zero_avx512(p, n);
	if (__builtin_cpu_supports("avx2"))
		return zero_avx2(p, n);
#endif
	return zero_words(p, n);
}
