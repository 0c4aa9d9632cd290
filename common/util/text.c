/* SPDX-License-Identifier: Apache-2.0 */
#include "util/text.h"

#include <stdint.h>
#include <string.h>

/*
 * Bytes of the UTF-8 character at @s with its value, 0 if there is none. The terminating NUL is no
 * continuation, so this never reads behind it.
 */
static size_t decode(const char *s, uint32_t *ret)
{
	static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
	uint8_t lead = (uint8_t)s[0];
	size_t n = lead < 0x80       ? 1
		   : lead >> 5 == 6  ? 2
		   : lead >> 4 == 14 ? 3
		   : lead >> 3 == 30 ? 4
				     : 0;
	uint32_t v = n == 1 ? lead : lead & (0x7fu >> n);

	for (size_t i = 1; i < n; i++) {
		if (((uint8_t)s[i] & 0xc0) != 0x80)
			return 0;
		v = v << 6 | ((uint8_t)s[i] & 0x3f);
	}
	/* Overlong forms, surrogates and what is beyond Unicode are not characters. */
	if (n && (v < least[n] || v > 0x10ffff || (v >= 0xd800 && v <= 0xdfff)))
		return 0;
	*ret = v;
	return n;
}

void text_clean(char *s)
{
	uint32_t v = 0;
	size_t n;

	for (; *s; s += n) {
		n = decode(s, &v);
		if (!n) {
			*s = '?';
			n = 1;
		} else if (v < 0x20 || (v >= 0x7f && v < 0xa0)) {
			memset(s, ' ', n);
		}
	}
}

size_t text_clip(const char *s, size_t max)
{
	size_t n = strnlen(s, max + 1);

	if (n <= max)
		return n;
	/* Back to the first byte of the character that does not fit. */
	for (n = max; n && ((uint8_t)s[n] & 0xc0) == 0x80; n--)
		;
	return n;
}
