/* SPDX-License-Identifier: Apache-2.0 */
#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <errno.h>
#include <string.h>
#include "util/bytes.h"

/* One message with a field of each kind, and what it must look like. */
static const uint8_t golden[] = {0x01, 0x03, 0x02, 0x07, 0x06, 0x05, 0x04, 0x0f, 0x0e,
				 0x0d, 0x0c, 0x0b, 0x0a, 0x09, 0x08, 0xaa, 0xbb, 0xcc,
				 0x03, 0x00, 'a',  'b',  'c',  0x00, 0x00};

static void put_all(struct bytes_writer *w)
{
	bytes_put_u8(w, 0x01);
	bytes_put_u16(w, 0x0203);
	bytes_put_u32(w, 0x04050607);
	bytes_put_u64(w, 0x08090a0b0c0d0e0f);
	bytes_put_raw(w, "\xaa\xbb\xcc", 3);
	bytes_put_str(w, "abc");
	bytes_put_str(w, "");
}

struct fields {
	uint8_t u8;
	uint16_t u16;
	uint32_t u32;
	uint64_t u64;
	uint8_t raw[3];
	char str[4];
	char empty[1];
};

static int get_all(struct bytes_reader *r, struct fields *f)
{
	f->u8 = bytes_get_u8(r, "u8");
	f->u16 = bytes_get_u16(r, "u16");
	f->u32 = bytes_get_u32(r, "u32");
	f->u64 = bytes_get_u64(r, "u64");
	bytes_get_raw(r, f->raw, sizeof(f->raw), "raw");
	bytes_get_str(r, f->str, sizeof(f->str), "str");
	bytes_get_str(r, f->empty, sizeof(f->empty), "empty");
	return bytes_end(r);
}

Test(bytes, layout_is_little_endian)
{
	uint8_t buf[sizeof(golden)];
	struct bytes_writer w = {.p = buf, .cap = sizeof(buf)};

	put_all(&w);
	cr_assert(not(w.failed));
	cr_assert(eq(sz, w.len, sizeof(golden)));
	cr_assert(zero(int, memcmp(buf, golden, sizeof(golden))));
}

Test(bytes, read_back)
{
	struct bytes_reader r = {.p = golden, .len = sizeof(golden)};
	struct fields f;

	cr_assert(zero(int, get_all(&r, &f)));
	cr_assert(eq(u8, f.u8, 0x01));
	cr_assert(eq(u16, f.u16, 0x0203));
	cr_assert(eq(u32, f.u32, 0x04050607));
	cr_assert(eq(u64, f.u64, 0x08090a0b0c0d0e0f));
	cr_assert(zero(int, memcmp(f.raw, "\xaa\xbb\xcc", 3)));
	cr_assert(eq(str, f.str, "abc"));
	cr_assert(eq(str, f.empty, ""));
	cr_assert(eq(ptr, (void *)r.what, NULL));
}

/* Where fields of the message above start and end. */
static bool is_field_end(size_t len)
{
	static const size_t ends[] = {0, 1, 3, 7, 15, 18, 23, 25};

	for (size_t i = 0; i < sizeof(ends) / sizeof(ends[0]); i++)
		if (ends[i] == len)
			return true;
	return false;
}

/* Each buffer size that is too small fails, writes nothing behind it, and stays failed. */
Test(bytes, writer_cut_at_each_byte)
{
	for (size_t cap = 0; cap < sizeof(golden); cap++) {
		uint8_t buf[sizeof(golden) + 1];
		struct bytes_writer w = {.p = buf, .cap = cap};
		size_t len;

		memset(buf, 0x5a, sizeof(buf));
		put_all(&w);
		cr_assert(w.failed, "capacity %zu", cap);
		cr_assert(le(sz, w.len, cap));
		cr_assert(is_field_end(w.len), "half a field: %zu", w.len);
		cr_assert(zero(int, memcmp(buf, golden, w.len)));
		for (size_t i = cap; i < sizeof(buf); i++)
			cr_assert(eq(u8, buf[i], 0x5a));
		len = w.len;
		bytes_put_u8(&w, 1);
		bytes_put_raw(&w, NULL, 0);
		cr_assert(w.failed && w.len == len);
	}
}

Test(bytes, reader_cut_at_each_byte)
{
	/* The field that a message of this many bytes ends in. */
	static const struct {
		size_t end;
		const char *what;
	} ends[] = {{1, "u8"},   {3, "u16"},  {7, "u32"},   {15, "u64"},
		    {18, "raw"}, {23, "str"}, {25, "empty"}};

	for (size_t len = 0, i = 0; len < sizeof(golden); len++) {
		struct bytes_reader r = {.p = golden, .len = len};
		struct fields f;

		memset(&f, 0x5a, sizeof(f));
		while (ends[i].end <= len)
			i++;
		cr_assert(eq(int, get_all(&r, &f), -EBADMSG));
		cr_assert(r.failed);
		cr_assert(eq(str, (char *)r.what, (char *)ends[i].what), "length %zu", len);
		cr_assert(le(sz, r.off, len));
		/* What lies behind the cut reads as zeros. */
		cr_assert(eq(str, f.empty, ""));
		if (len < 18)
			cr_assert(zero(int, memcmp(f.raw, "\0\0\0", 3)));
		if (len < 15)
			cr_assert(zero(u64, f.u64));
	}
}

Test(bytes, bytes_left_over_are_an_error)
{
	struct bytes_reader r = {.p = golden, .len = sizeof(golden)};

	bytes_get_u8(&r, "u8");
	cr_assert(eq(int, bytes_end(&r), -EBADMSG));
	cr_assert(not(eq(ptr, (void *)r.what, NULL)));
}

Test(bytes, string_longer_than_its_bound)
{
	static const uint8_t in[] = {3, 0, 'a', 'b', 'c'};
	struct bytes_reader r = {.p = in, .len = sizeof(in)};
	char out[3] = "zz";

	bytes_get_str(&r, out, sizeof(out), "name");
	cr_assert(eq(str, (char *)r.what, "name"));
	cr_assert(eq(str, out, ""));
}

Test(bytes, string_with_a_nul_inside)
{
	static const uint8_t in[] = {3, 0, 'a', 0, 'c'};
	struct bytes_reader r = {.p = in, .len = sizeof(in)};
	char out[8];

	bytes_get_str(&r, out, sizeof(out), "name");
	cr_assert(eq(str, (char *)r.what, "name"));
	cr_assert(eq(str, out, ""));
}

Test(bytes, string_length_at_its_extreme)
{
	static const uint8_t in[] = {0xff, 0xff, 'a'};
	struct bytes_reader r = {.p = in, .len = sizeof(in)};
	static char out[70000];

	bytes_get_str(&r, out, sizeof(out), "name");
	cr_assert(r.failed);
	cr_assert(eq(str, out, ""));
}

Test(bytes, put_string_too_long_for_its_length_field)
{
	static char s[65537];
	static uint8_t buf[70000];
	struct bytes_writer w = {.p = buf, .cap = sizeof(buf)};

	memset(s, 'x', 65536);
	bytes_put_str(&w, s);
	cr_assert(w.failed && w.len == 0);
	s[65535] = '\0';
	w = (struct bytes_writer){.p = buf, .cap = sizeof(buf)};
	bytes_put_str(&w, s);
	cr_assert(not(w.failed));
	cr_assert(eq(sz, w.len, 65537));
}

Test(bytes, huge_reference)
{
	struct bytes_reader r = {.p = golden, .len = sizeof(golden)};

	bytes_get_u8(&r, "u8");
	/* off + n would wrap */
	cr_assert(eq(ptr, (void *)bytes_get_ref(&r, SIZE_MAX, "blob"), NULL));
	cr_assert(eq(str, (char *)r.what, "blob"));
	cr_assert(eq(sz, r.off, 1));
}

Test(bytes, the_first_failure_is_named)
{
	struct bytes_reader r = {.p = golden, .len = sizeof(golden)};

	bytes_fail(&r, "bound");
	bytes_fail(&r, "other");
	cr_assert(zero(u8, bytes_get_u8(&r, "u8")));
	cr_assert(zero(sz, r.off));
	cr_assert(eq(str, (char *)r.what, "bound"));
}
