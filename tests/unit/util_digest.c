/* SPDX-License-Identifier: Apache-2.0 */
#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <stdlib.h>
#include <xxhash.h>
#include "util/digest.h"

/* XXH3 changes its way at 16, 128, 240 and 1024 bytes; runs are multiples of 4096. */
Test(util_digest, is_xxh3_at_every_length)
{
	static const size_t lens[] = {0,   1,   3,    8,    16,   17,    128,    129,
				      240, 241, 1024, 1025, 4096, 12288, 262144, 262143};
	uint8_t *p = malloc(262144 + 64);

	for (uint32_t i = 0, v = 7; i < 262144 + 64; i++)
		p[i] = (uint8_t)((v = v * 1664525 + 1013904223) >> 24);
	for (size_t i = 0; i < sizeof(lens) / sizeof(lens[0]); i++) {
		for (size_t shift = 0; shift <= 64; shift += 13) {
			uint64_t want = XXH3_64bits(p + shift, lens[i]);

			cr_assert(eq(u64, digest_xxh3(p + shift, lens[i]), want), "length %zu",
				  lens[i]);
		}
	}
	free(p);
}

/* What stands in the protocol's description, whatever library computes it. */
Test(util_digest, golden)
{
	static const uint8_t zeros[4096];

	cr_assert(eq(u64, digest_xxh3("", 0), UINT64_C(0x2d06800538d394c2)));
	cr_assert(eq(u64, digest_xxh3(zeros, sizeof(zeros)), UINT64_C(0x93d76fe148c689ba)));
}
