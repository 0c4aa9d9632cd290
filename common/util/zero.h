/* SPDX-License-Identifier: Apache-2.0 */
#ifndef DECANT_UTIL_ZERO_H
#define DECANT_UTIL_ZERO_H

#include <stdbool.h>
#include <stddef.h>

/**
 * zero_is() - is a buffer all zeros?
 * @p:		any alignment
 * @n:		bytes, a multiple of 64
 *
 * AVX2 or AVX-512 by what the processor has (chosen at run time), SSE2 otherwise. Leaves at the
 * first 256 bytes that hold anything, so a page of data costs next to nothing.
 */
bool zero_is(const void *p, size_t n);

#endif
