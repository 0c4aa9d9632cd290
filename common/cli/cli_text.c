/* SPDX-License-Identifier: Apache-2.0 */
/* Quantities for people, and tables of them. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "cli/cli.h"
#include "util/text.h"

char *cli_size(char buf[static CLI_TEXT_MAX], double bytes)
{
	static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB"};
	size_t u = 0;

	while (bytes >= 1024 && u + 1 < sizeof(units) / sizeof(units[0])) {
		bytes /= 1024;
		u++;
	}
	snprintf(buf, CLI_TEXT_MAX, "%.*f %s", u == 0 ? 0 : bytes < 100 ? 2 : 1, bytes, units[u]);
	return buf;
}

char *cli_rate(char buf[static CLI_TEXT_MAX], double bytes_per_s)
{
	static const char *const units[] = {"bit/s", "kbit/s", "Mbit/s", "Gbit/s", "Tbit/s"};
	double bits = bytes_per_s * 8;
	size_t u = 0;

	while (bits >= 1000 && u + 1 < sizeof(units) / sizeof(units[0])) {
		bits /= 1000;
		u++;
	}
	snprintf(buf, CLI_TEXT_MAX, "%.*f %s", u == 0 ? 0 : bits < 100 ? 2 : 1, bits, units[u]);
	return buf;
}

char *cli_duration(char buf[static CLI_TEXT_MAX], double us)
{
	long s = (long)(us / 1e6);

	if (us < 1000)
		snprintf(buf, CLI_TEXT_MAX, "%.0f us", us);
	else if (us < 1e6)
		snprintf(buf, CLI_TEXT_MAX, "%.1f ms", us / 1e3);
	else if (us < 60e6)
		snprintf(buf, CLI_TEXT_MAX, "%.1f s", us / 1e6);
	else if (s < 3600)
		snprintf(buf, CLI_TEXT_MAX, "%ldm%02lds", s / 60, s % 60);
	else
		snprintf(buf, CLI_TEXT_MAX, "%ldh%02ldm", s / 3600, s / 60 % 60);
	return buf;
}

/**
 * struct cli_table - cells until they are printed
 * @columns:	of each row
 * @right:	bit i: column i is aligned to the right
 * @cells:	@n copies, row by row
 * @broken:	out of memory: it will not be printed
 */
struct cli_table {
	size_t columns;
	unsigned int right;
	char **cells;
	size_t n;
	bool broken;
};

struct cli_table *cli_table_new(size_t columns, unsigned int right)
{
	struct cli_table *t = calloc(1, sizeof(*t));

	if (t) {
		t->columns = columns;
		t->right = right;
	}
	return t;
}

void cli_table_row(struct cli_table *t, const char *const *cells)
{
	char **more = t ? realloc(t->cells, (t->n + t->columns) * sizeof(*more)) : NULL;

	if (!more) {
		if (t)
			t->broken = true;
		return;
	}
	t->cells = more;
	for (size_t i = 0; i < t->columns; i++) {
		char *copy = strdup(cells[i] && *cells[i] ? cells[i] : "-");

		if (copy)
			text_clean(copy); /* an agent's text must not steer the terminal */
		else
			t->broken = true;
		t->cells[t->n++] = copy;
	}
}

static size_t width(const struct cli_table *t, size_t column)
{
	size_t w = 0;

	for (size_t i = column; i < t->n; i += t->columns)
		if (strlen(t->cells[i]) > w)
			w = strlen(t->cells[i]);
	return w;
}

static void print_rows(const struct cli_table *t)
{
	for (size_t i = 0; i < t->n; i++) {
		size_t column = i % t->columns;
		bool last = column + 1 == t->columns, right = t->right >> column & 1;
		int w = last && !right ? 0 : (int)width(t, column);

		printf("%*s%s", right ? w : -w, t->cells[i], last ? "\n" : "  ");
	}
}

int cli_table_print(struct cli_table *t)
{
	bool ok = t && !t->broken;

	if (ok)
		print_rows(t);
	for (size_t i = 0; t && i < t->n; i++)
		free(t->cells[i]);
	if (t)
		free(t->cells);
	free(t);
	return ok ? CLI_OK : cli_error(CLI_FAILED, "table", "out of memory");
}
