/* SPDX-License-Identifier: Apache-2.0 */
/* Journals whose checksums are right: no mutation would find those. */
#ifndef DECANT_TESTS_FUZZ_JOURNAL_H
#define DECANT_TESTS_FUZZ_JOURNAL_H

#include <inttypes.h>
#include <string.h>
#include <xxhash.h>
#include "fuzz/lib/fuzz.h"

/** fuzz_journal() - put the right checksum before each line of @in. Return: the text, in @ret for free(3) */
static inline struct fuzz_in fuzz_journal(struct fuzz_in in, uint8_t **ret)
{
	size_t lines = 1, n = 0;
	char *out;

	for (size_t i = 0; i < in.n; i++)
		lines += in.p[i] == '\n';
	out = malloc(in.n + lines * 18 + 1);
	FUZZ_CHECK(out);
	while (in.n) {
		const uint8_t *nl = memchr(in.p, '\n', in.n);
		struct fuzz_in line = fuzz_take(&in, nl ? (size_t)(nl - in.p) : in.n);

		n += (size_t)sprintf(out + n, "%016" PRIx64 " ",
				     (uint64_t)XXH3_64bits(line.p, line.n));
		memcpy(out + n, line.p, line.n);
		n += line.n;
		out[n++] = '\n';
		fuzz_take(&in, 1);
	}
	*ret = (uint8_t *)out;
	return (struct fuzz_in){*ret, n};
}

#endif
