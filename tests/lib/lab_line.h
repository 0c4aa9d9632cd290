/* SPDX-License-Identifier: Apache-2.0 */
/* Bytes on a long wire: they go in at one end and come out, in order, when it is their time. One thread. */
#ifndef DECANT_TESTS_LAB_LINE_H
#define DECANT_TESTS_LAB_LINE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/** LAB_LINE_MAX - bytes on it: what 80 Mbit/s carry in 400 ms; LAB_LINE_MARKS - times that it can remember */
#define LAB_LINE_MAX   (4u << 20)
#define LAB_LINE_MARKS 1024u

/**
 * struct lab_line - one direction
 * @buf:	ring of LAB_LINE_MAX bytes
 * @in, @out:	bytes that have ever gone in, and come out
 * @marks, @head, @n: ring: bytes up to @upto come out from @due_ms (lab_now_ms()) on
 */
struct lab_line {
	uint8_t *buf;
	uint64_t in, out;
	struct lab_line_mark {
		uint64_t upto;
		uint64_t due_ms;
	} marks[LAB_LINE_MARKS];
	unsigned int head, n;
};

/** lab_line_init() - Return: whether there was memory; lab_line_free() in any case */
bool lab_line_init(struct lab_line *l);
void lab_line_free(struct lab_line *l);
/** lab_line_empty() - Return: whether all has come out */
bool lab_line_empty(const struct lab_line *l);
/** lab_line_room() - Return: bytes that can be written at *@ret_at */
size_t lab_line_room(const struct lab_line *l, uint8_t **ret_at);
/** lab_line_put() - @n bytes were; not due before those that went in earlier */
void lab_line_put(struct lab_line *l, size_t n, uint64_t due_ms);
/** lab_line_due() - Return: bytes at *@ret_at whose time it is */
size_t lab_line_due(const struct lab_line *l, uint64_t now_ms, uint8_t **ret_at);
/** lab_line_take() - @n of them are out */
void lab_line_take(struct lab_line *l, size_t n);
/** lab_line_wait_ms() - Return: until something is due: 0 if it is, UINT64_MAX if nothing is on it */
uint64_t lab_line_wait_ms(const struct lab_line *l, uint64_t now_ms);

#endif
