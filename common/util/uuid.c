/* SPDX-License-Identifier: Apache-2.0 */
#include "util/uuid.h"

#include <ctype.h>
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

static bool dash_before(int i)
{
	return i == 4 || i == 6 || i == 8 || i == 10;
}

char *uuid_text(const uint8_t uuid[static UUID_LEN], char out[static UUID_TEXT_MAX])
{
	char *p = out;

	for (int i = 0; i < UUID_LEN; i++)
		p += sprintf(p, "%s%02x", dash_before(i) ? "-" : "", uuid[i]);
	return out;
}

static int nibble(char c)
{
	static const char digits[] = "0123456789abcdef";
	const char *p =
		isxdigit((unsigned char)c) ? strchr(digits, tolower((unsigned char)c)) : NULL;

	return p ? (int)(p - digits) : -1;
}

int uuid_parse(const char *s, uint8_t out[static UUID_LEN])
{
	uint8_t u[UUID_LEN];

	if (strlen(s) != UUID_TEXT_MAX - 1)
		return -EINVAL;
	for (int i = 0; i < UUID_LEN; i++, s += 2) {
		if (dash_before(i) && *s++ != '-')
			return -EINVAL;
		if (nibble(s[0]) < 0 || nibble(s[1]) < 0)
			return -EINVAL;
		u[i] = (uint8_t)(nibble(s[0]) << 4 | nibble(s[1]));
	}
	memcpy(out, u, sizeof(u));
	return 0;
}
