/* SPDX-License-Identifier: Apache-2.0 */
#include "util/bytes.h"

#include <errno.h>
#include <string.h>

/* Room for @n more bytes, NULL (and failed from now on) if there is none. */
static uint8_t *reserve(struct bytes_writer *w, size_t n)
{
	uint8_t *at;

	if (w->failed || n > w->cap - w->len) {
		w->failed = true;
		return NULL;
	}
	at = w->p + w->len;
	w->len += n;
	return at;
}

static void put_le(struct bytes_writer *w, uint64_t v, size_t n)
{
	uint8_t *at = reserve(w, n);

	for (size_t i = 0; at && i < n; i++)
		at[i] = (uint8_t)(v >> (8 * i));
}

void bytes_put_u8(struct bytes_writer *w, uint8_t v)
{
	put_le(w, v, 1);
}

void bytes_put_u16(struct bytes_writer *w, uint16_t v)
{
	put_le(w, v, 2);
}

void bytes_put_u32(struct bytes_writer *w, uint32_t v)
{
	put_le(w, v, 4);
}

void bytes_put_u64(struct bytes_writer *w, uint64_t v)
{
	put_le(w, v, 8);
}

void bytes_put_raw(struct bytes_writer *w, const void *p, size_t n)
{
	uint8_t *at = reserve(w, n);

	if (at && n)
		memcpy(at, p, n);
}

void bytes_put_str(struct bytes_writer *w, const char *s)
{
	size_t n = strlen(s);

	/* Both parts or none, so that a failed writer never ends in half a string. */
	if (n > UINT16_MAX || 2 + n > w->cap - w->len) {
		w->failed = true;
		return;
	}
	bytes_put_u16(w, (uint16_t)n);
	bytes_put_raw(w, s, n);
}

void bytes_fail(struct bytes_reader *r, const char *what)
{
	if (!r->failed)
		r->what = what;
	r->failed = true;
}

const uint8_t *bytes_get_ref(struct bytes_reader *r, size_t n, const char *what)
{
	const uint8_t *at;

	if (r->failed)
		return NULL;
	if (n > r->len - r->off) {
		bytes_fail(r, what);
		return NULL;
	}
	at = r->p + r->off;
	r->off += n;
	return at;
}

static uint64_t get_le(struct bytes_reader *r, size_t n, const char *what)
{
	const uint8_t *at = bytes_get_ref(r, n, what);
	uint64_t v = 0;

	for (size_t i = 0; at && i < n; i++)
		v |= (uint64_t)at[i] << (8 * i);
	return v;
}

uint8_t bytes_get_u8(struct bytes_reader *r, const char *what)
{
	return (uint8_t)get_le(r, 1, what);
}

uint16_t bytes_get_u16(struct bytes_reader *r, const char *what)
{
	return (uint16_t)get_le(r, 2, what);
}

uint32_t bytes_get_u32(struct bytes_reader *r, const char *what)
{
	return (uint32_t)get_le(r, 4, what);
}

uint64_t bytes_get_u64(struct bytes_reader *r, const char *what)
{
	return get_le(r, 8, what);
}

void bytes_get_raw(struct bytes_reader *r, void *out, size_t n, const char *what)
{
	const uint8_t *at = bytes_get_ref(r, n, what);

	if (!n)
		return;
	if (at)
		memcpy(out, at, n);
	else
		memset(out, 0, n);
}

void bytes_get_str(struct bytes_reader *r, char *out, size_t cap, const char *what)
{
	size_t n = bytes_get_u16(r, what);
	const uint8_t *at;

	memset(out, 0, cap);
	if (n >= cap) {
		bytes_fail(r, what);
		return;
	}
	at = bytes_get_ref(r, n, what);
	if (!at)
		return;
	if (memchr(at, '\0', n)) {
		bytes_fail(r, what);
		return;
	}
	memcpy(out, at, n);
}

int bytes_end(struct bytes_reader *r)
{
	if (!r->failed && r->off != r->len)
		bytes_fail(r, "bytes behind the end");
	return r->failed ? -EBADMSG : 0;
}
