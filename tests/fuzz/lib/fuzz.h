/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the fuzz targets share. tests/fuzz/NAME.c is one target: LLVMFuzzerTestOneInput() gets one
 * input and must come back, whatever it is. Linked with libFuzzer it is driven by that (`make fuzz`),
 * linked with replay.c it runs what is stored in tests/fuzz/corpus/NAME (`make test`).
 */
#ifndef DECANT_TESTS_FUZZ_H
#define DECANT_TESTS_FUZZ_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include "util/loop.h"

/** LLVMFuzzerTestOneInput() - one input; Return: 0 */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/** FUZZ_CHECK() - what must hold for any input; the end of the program if it does not */
#define FUZZ_CHECK(cond)                                                                          \
	do {                                                                                      \
		if (!(cond)) {                                                                    \
			fprintf(stderr, "%s:%d: does not hold: %s\n", __FILE__, __LINE__, #cond); \
			abort();                                                                  \
		}                                                                                 \
	} while (0)

/** FUZZ_PATH - bytes of a path that fuzz_file() makes */
#define FUZZ_PATH 40

/** struct fuzz_in - what is left of an input */
struct fuzz_in {
	const uint8_t *p;
	size_t n;
};

/** fuzz_begin() - quiet unless DECANT_LOG says what is to be logged, and without SIGPIPE; at the beginning of each input. Return: all of it */
struct fuzz_in fuzz_begin(const uint8_t *data, size_t size);
/** fuzz_u8(), fuzz_u16() - take a number off; 0 at the end */
uint8_t fuzz_u8(struct fuzz_in *in);
uint16_t fuzz_u16(struct fuzz_in *in);
/** fuzz_take() - the next @n bytes, fewer at the end */
struct fuzz_in fuzz_take(struct fuzz_in *in, size_t n);
/** fuzz_piece() - u16 length and so many bytes, fewer at the end */
struct fuzz_in fuzz_piece(struct fuzz_in *in);
/** fuzz_copy() - in memory of exactly that size, so that a byte too far is seen. free(3) it */
uint8_t *fuzz_copy(struct fuzz_in in);
/** fuzz_text() - fuzz_copy() with a NUL behind it */
char *fuzz_text(struct fuzz_in in);
/** fuzz_file() - a file with these bytes. Return: its descriptor; @path opens it */
int fuzz_file(struct fuzz_in in, char path[static FUZZ_PATH]);
/** fuzz_turns() - so many turns of the loop, none of which waits */
void fuzz_turns(struct loop *l, unsigned int n);
/** fuzz_settle() - turns until nothing is called any more, at most @us */
void fuzz_settle(struct loop *l, uint64_t us);

#endif
