/* SPDX-License-Identifier: Apache-2.0 */
/* The digest of page runs on the wire. */
#ifndef DECANT_UTIL_DIGEST_H
#define DECANT_UTIL_DIGEST_H

#include <stddef.h>
#include <stdint.h>

/** digest_xxh3() - XXH3 (64 bits, no seed) of @n bytes, by the widest vectors of this processor */
uint64_t digest_xxh3(const void *p, size_t n);

#endif
