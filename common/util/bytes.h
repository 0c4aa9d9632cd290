/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Little-endian fields in and out of a caller's buffer, one by one and bounds-checked. A writer or
 * reader that once ran out stays failed (sticky), so that a whole message is coded without a test
 * for each field and one test at the end.
 */
#ifndef DECANT_UTIL_BYTES_H
#define DECANT_UTIL_BYTES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/**
 * struct bytes_writer - appends fields
 * @p, @cap:	the caller's buffer and its size in bytes
 * @len:	bytes written so far
 * @failed:	a field did not fit; nothing was written since
 */
struct bytes_writer {
	uint8_t *p;
	size_t cap;
	size_t len;
	bool failed;
};

/**
 * struct bytes_reader - takes fields off
 * @p, @len:	the bytes and how many there are
 * @off:	bytes consumed so far
 * @failed:	a field was cut short, out of its bound, or not as the format has it
 * @what:	name of the first field that failed, NULL otherwise (a static string)
 */
struct bytes_reader {
	const uint8_t *p;
	size_t len;
	size_t off;
	bool failed;
	const char *what;
};

void bytes_put_u8(struct bytes_writer *w, uint8_t v);
void bytes_put_u16(struct bytes_writer *w, uint16_t v);
void bytes_put_u32(struct bytes_writer *w, uint32_t v);
void bytes_put_u64(struct bytes_writer *w, uint64_t v);
/** bytes_put_raw() - @n bytes as they are */
void bytes_put_raw(struct bytes_writer *w, const void *p, size_t n);
/** bytes_put_str() - u16 length, then the bytes of a NUL-terminated string without the NUL */
void bytes_put_str(struct bytes_writer *w, const char *s);

/* Readers return 0 (or leave the output zeroed) once failed. @what names the field in errors. */
uint8_t bytes_get_u8(struct bytes_reader *r, const char *what);
uint16_t bytes_get_u16(struct bytes_reader *r, const char *what);
uint32_t bytes_get_u32(struct bytes_reader *r, const char *what);
uint64_t bytes_get_u64(struct bytes_reader *r, const char *what);
/** bytes_get_raw() - copy @n bytes out */
void bytes_get_raw(struct bytes_reader *r, void *out, size_t n, const char *what);
/** bytes_get_ref() - Return: pointer to @n bytes inside the reader's buffer, NULL if cut short */
const uint8_t *bytes_get_ref(struct bytes_reader *r, size_t n, const char *what);
/**
 * bytes_get_str() - what bytes_put_str() wrote, into @out with a NUL
 * @cap:	size of @out; a longer string, or one with a NUL inside, fails the reader
 */
void bytes_get_str(struct bytes_reader *r, char *out, size_t cap, const char *what);
/** bytes_fail() - mark the reader failed because of field @what (a bound that the caller checks) */
void bytes_fail(struct bytes_reader *r, const char *what);
/** bytes_end() - Return: 0 if all was read and nothing is left over, -EBADMSG otherwise */
int bytes_end(struct bytes_reader *r);

#endif
