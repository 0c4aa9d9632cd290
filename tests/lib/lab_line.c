/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/lab_line.h"

#include <stdlib.h>

#include "util/cleanup.h"

bool lab_line_init(struct lab_line *l)
{
	l->in = l->out = 0;
	l->head = l->n = 0;
	l->buf = malloc(LAB_LINE_MAX);
	return l->buf;
}

void lab_line_free(struct lab_line *l)
{
	free(steal_ptr(&l->buf));
}

bool lab_line_empty(const struct lab_line *l)
{
	return l->in == l->out;
}

size_t lab_line_room(const struct lab_line *l, uint8_t **ret_at)
{
	size_t at = l->in % LAB_LINE_MAX;

	*ret_at = l->buf + at;
	return l->n == LAB_LINE_MARKS ? 0 : MIN(LAB_LINE_MAX - (l->in - l->out), LAB_LINE_MAX - at);
}

void lab_line_put(struct lab_line *l, size_t n, uint64_t due_ms)
{
	struct lab_line_mark *last = &l->marks[(l->head + l->n - 1) % LAB_LINE_MARKS];

	l->in += n;
	if (l->n && last->due_ms >= due_ms) {
		last->upto = l->in;
		return;
	}
	l->marks[(l->head + l->n++) % LAB_LINE_MARKS] = (struct lab_line_mark){l->in, due_ms};
}

size_t lab_line_due(const struct lab_line *l, uint64_t now_ms, uint8_t **ret_at)
{
	size_t at = l->out % LAB_LINE_MAX;
	uint64_t upto = l->out;

	for (unsigned int i = 0; i < l->n; i++) {
		const struct lab_line_mark *m = &l->marks[(l->head + i) % LAB_LINE_MARKS];

		if (m->due_ms > now_ms)
			break;
		upto = m->upto;
	}
	*ret_at = l->buf + at;
	return MIN(upto - l->out, LAB_LINE_MAX - at);
}

void lab_line_take(struct lab_line *l, size_t n)
{
	l->out += n;
	while (l->n && l->marks[l->head].upto <= l->out) {
		l->head = (l->head + 1) % LAB_LINE_MARKS;
		l->n--;
	}
	/* A wire without length uses the same memory again and again. */
	if (l->in == l->out)
		l->in = l->out = 0;
}

uint64_t lab_line_wait_ms(const struct lab_line *l, uint64_t now_ms)
{
	uint64_t due;

	if (!l->n)
		return UINT64_MAX;
	due = l->marks[l->head].due_ms;
	return due > now_ms ? due - now_ms : 0;
}
