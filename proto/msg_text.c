/* SPDX-License-Identifier: Apache-2.0 */
#include "msg_text.h"

#include <stdint.h>
#include <string.h>

static bool is_alnum(unsigned char c)
{
	return (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9');
}

bool msg_name_valid(const char *s, size_t cap)
{
	size_t n = strnlen(s, cap);

	if (n == cap || !n || !is_alnum((unsigned char)s[0]))
		return false;
	for (size_t i = 1; i < n; i++)
		if (!is_alnum((unsigned char)s[i]) && s[i] != '.' && s[i] != '_' && s[i] != '-')
			return false;
	return true;
}

/* Bytes that the character at @s announces by its first byte, 0 if no character begins so. */
static size_t announced(unsigned char c)
{
	if (c < 0x80)
		return 1;
	if (c >= 0xc2 && c <= 0xdf)
		return 2;
	if (c >= 0xe0 && c <= 0xef)
		return 3;
	if (c >= 0xf0 && c <= 0xf4)
		return 4;
	return 0;
}

/*
 * Length of the well-formed character at @s, 0 if there is none in the @left bytes or if it is a
 * control character. Overlong forms, surrogates and what lies beyond U+10FFFF are not well-formed.
 */
static size_t char_len(const unsigned char *s, size_t left)
{
	static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
	size_t n = left ? announced(s[0]) : 0;
	uint32_t v;

	if (!n || n > left)
		return 0;
	v = n == 1 ? s[0] : s[0] & (0x7fu >> n);
	for (size_t i = 1; i < n; i++) {
		if ((s[i] & 0xc0) != 0x80)
			return 0;
		v = v << 6 | (s[i] & 0x3f);
	}
	if (v < least[n] || v > 0x10ffff || (v >= 0xd800 && v <= 0xdfff))
		return 0;
	return v < 0x20 || (v >= 0x7f && v < 0xa0) ? 0 : n;
}

bool msg_text_valid(const char *s, size_t cap)
{
	size_t n = strnlen(s, cap);

	if (n == cap)
		return false;
	for (size_t i = 0; i < n;) {
		size_t k = char_len((const unsigned char *)s + i, n - i);

		if (!k)
			return false;
		i += k;
	}
	return true;
}

void msg_text_copy(char *out, size_t cap, const char *s)
{
	size_t n = strlen(s), len = 0;

	while (n) {
		size_t k = char_len((const unsigned char *)s, n);
		size_t take = k ? k : 1;

		if (len + take >= cap)
			break;
		if (k)
			memcpy(out + len, s, k);
		else
			out[len] = '?';
		len += take;
		s += take;
		n -= take;
	}
	out[len] = '\0';
}
