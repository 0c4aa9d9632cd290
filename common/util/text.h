/* SPDX-License-Identifier: Apache-2.0 */
/* Text from elsewhere that ends in a log line, an error or a JSON string. */
#ifndef DECANT_UTIL_TEXT_H
#define DECANT_UTIL_TEXT_H

#include <stddef.h>

/**
 * text_clean() - make a string one line of valid UTF-8, in place
 *
 * A control character becomes a blank: what a peer sent must not forge a second log line, nor
 * steer a terminal. A byte that is not UTF-8 becomes '?' (also the rest of a character that a
 * full buffer cut): a JSON string cannot hold it.
 */
void text_clean(char *s);

/** text_clip() - Return: bytes of the longest whole characters of @s that fit into @max bytes */
size_t text_clip(const char *s, size_t max);

#endif
