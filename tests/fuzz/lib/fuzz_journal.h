/* SPDX-License-Identifier: Apache-2.0 */
/* Journals whose checksums are right: no mutation would find those. */
#ifndef DECANT_TESTS_FUZZ_JOURNAL_H
#define DECANT_TESTS_FUZZ_JOURNAL_H

#include <inttypes.h>
#include <string.h>
#include <unistd.h>
#include <xxhash.h>
#include "fuzz/lib/fuzz.h"
#include "util/fdio.h"

/**
 * fuzz_journal_here() - what a journal says of this boot and of this process: where @in says BOOT, PID0, TIME
 * @since:	when the process was started, as its agent counts it
 *
 * Return: the text, in @ret for free(3)
 */
static inline struct fuzz_in fuzz_journal_here(struct fuzz_in in, uint64_t since, char **ret)
{
	char boot[FDIO_UUID_MAX], pid[24], time[24];
	const struct {
		const char *word, *text;
	} words[] = {{"BOOT", boot}, {"PID0", pid}, {"TIME", time}};
	size_t n = 0;

	fdio_boot_id(boot);
	snprintf(pid, sizeof(pid), "%d", (int)getpid());
	snprintf(time, sizeof(time), "%" PRIu64, since);
	*ret = malloc(in.n * 10 + 1);
	FUZZ_CHECK(*ret);
	while (in.n) {
		const char *text = NULL;

		for (size_t i = 0; in.n >= 4 && i < 3; i++)
			if (!memcmp(in.p, words[i].word, 4))
				text = words[i].text;
		if (text) {
			n += (size_t)sprintf(*ret + n, "%s", text);
			fuzz_take(&in, 4);
		} else {
			(*ret)[n++] = (char)fuzz_u8(&in);
		}
	}
	return (struct fuzz_in){(uint8_t *)*ret, n};
}

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
