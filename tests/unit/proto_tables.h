/* SPDX-License-Identifier: Apache-2.0 */
/* Reads tables out of proto/PROTOCOL.md, so that tests compare the code with the page itself. */
#ifndef DECANT_TESTS_PROTO_TABLES_H
#define DECANT_TESTS_PROTO_TABLES_H

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TABLE_CELLS 4

struct table_row {
	char *cell[TABLE_CELLS];
};

/**
 * struct table - the rows below the head
 * @text:	what the cells point into
 */
struct table {
	struct table_row *rows;
	size_t n;
	char *text;
};

/* The cells of one line, cut out in place and without blanks at their ends. */
static inline struct table_row table_row_of(char *line, int cells)
{
	struct table_row row = {0};

	for (int i = 0; i < cells; i++) {
		char *end;

		cr_assert_eq(*line, '|');
		line++;
		end = strchr(line, '|');
		cr_assert(end, "a row of %d cells", cells);
		row.cell[i] = line;
		line = end;
		while (*row.cell[i] == ' ')
			row.cell[i]++;
		while (end > row.cell[i] && end[-1] == ' ')
			*--end = '\0';
	}
	return row;
}

/* The first table at or behind the line that begins with @mark. Aborts if there is none. */
static inline struct table table_read(const char *mark, int cells)
{
	FILE *f = fopen("proto/PROTOCOL.md", "re");
	struct table t = {.rows = calloc(256, sizeof(*t.rows)), .text = calloc(1, 1 << 17)};
	bool found = false, in_table = false;
	char *line = t.text;

	cr_assert(f, "run from the project's root");
	while (t.n < 256 && fgets(line, 1024, f)) {
		found |= !strncmp(line, mark, strlen(mark));
		line[strcspn(line, "\n")] = '\0';
		if (!found)
			continue;
		if (line[0] != '|') {
			if (in_table)
				break;
			continue;
		}
		if (!strncmp(line, "| ---", 5)) {
			in_table = true;
		} else if (in_table) {
			size_t len = strlen(line);

			t.rows[t.n++] = table_row_of(line, cells);
			line += len + 1;
		}
	}
	fclose(f);
	cr_assert_gt(t.n, 0, "no table behind %s", mark);
	return t;
}

static inline void table_free(struct table *t)
{
	free(t->rows);
	free(t->text);
}

#endif
