/* SPDX-License-Identifier: Apache-2.0 */
/* UUIDs between their 16 bytes and their text. fdio_uuid4() makes new ones. */
#ifndef DECANT_UTIL_UUID_H
#define DECANT_UTIL_UUID_H

#include <stdint.h>

/** UUID_LEN, UUID_TEXT_MAX - bytes of one; of its text with the NUL */
#define UUID_LEN      16
#define UUID_TEXT_MAX 37

/** uuid_text() - lower case with dashes; Return: @out */
char *uuid_text(const uint8_t uuid[static UUID_LEN], char out[static UUID_TEXT_MAX]);
/** uuid_parse() - Return: 0, or -EINVAL if @s is not a whole UUID in text form (either case) */
int uuid_parse(const char *s, uint8_t out[static UUID_LEN]);

#endif
