/* SPDX-License-Identifier: Apache-2.0 */
#include "bench/report.h"

#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>
#include <time.h>
#include <unistd.h>

struct report_series *report_add(struct report *r, const char *name, const char *unit,
				 enum report_bound kind, double bound)
{
	struct report_series *s;

	if (r->n == REPORT_SERIES_MAX) {
		fprintf(stderr, "bench: more than %d figures\n", REPORT_SERIES_MAX);
		exit(1);
	}
	s = &r->series[r->n++];
	*s = (struct report_series){.kind = kind, .bound = bound};
	snprintf(s->name, sizeof(s->name), "%s", name);
	snprintf(s->unit, sizeof(s->unit), "%s", unit);
	return s;
}

void report_value(struct report_series *s, double v)
{
	if (s->n < REPORT_VALUES_MAX)
		s->v[s->n++] = v;
}

static int compare(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

double report_quantile(double *v, size_t n, double q)
{
	double at = q * (double)(n ? n - 1 : 0);
	size_t low = (size_t)at;

	if (!n)
		return 0;
	qsort(v, n, sizeof(*v), compare);
	return low + 1 < n ? v[low] + (at - (double)low) * (v[low + 1] - v[low]) : v[n - 1];
}

static double quantile(const struct report_series *s, double q)
{
	double v[REPORT_VALUES_MAX];

	memcpy(v, s->v, sizeof(v));
	return report_quantile(v, s->n, q);
}

double report_median(const struct report_series *s)
{
	return quantile(s, 0.5);
}

static bool met(const struct report_series *s)
{
	double m = report_median(s);

	return s->n && (s->kind == REPORT_AT_LEAST ? m >= s->bound : m <= s->bound);
}

/* --- as a table --- */

static int decimals(double v)
{
	return fabs(v) < 10 ? 2 : fabs(v) < 100 ? 1 : 0;
}

static void print_row(const struct report_series *s)
{
	double low = quantile(s, 0), median = quantile(s, 0.5), high = quantile(s, 1);
	char bound[32] = "", spread[48];

	snprintf(spread, sizeof(spread), "(%.*f..%.*f)", decimals(low), low, decimals(high), high);
	if (s->kind)
		snprintf(bound, sizeof(bound), "%s %.*f",
			 s->kind == REPORT_AT_LEAST ? ">=" : "<=", decimals(s->bound), s->bound);
	printf("%-58s %8.*f %-6s %-18s %-9s %s\n", s->name, decimals(median), median, s->unit,
	       spread, bound,
	       !s->kind ? ""
	       : met(s) ? "met"
			: "MISSED");
}

void report_table(const struct report *r)
{
	size_t bounds = 0, fine = 0;

	printf("\n%-58s %8s %-6s %-18s %-9s\n", "figure", "median", "", "(min..max)", "asked");
	for (size_t i = 0; i < r->n; i++) {
		const struct report_series *s = &r->series[i];

		print_row(s);
		bounds += s->kind != REPORT_NO_BOUND;
		fine += s->kind != REPORT_NO_BOUND && met(s);
	}
	printf("%zu of %zu bounds met\n", fine, bounds);
}

/* --- as JSON --- */

static json_t *series_json(const struct report_series *s)
{
	json_t *values = json_array(), *o;

	for (size_t i = 0; i < s->n; i++)
		json_array_append_new(values, json_real(s->v[i]));
	o = json_pack("{s:s, s:s, s:f, s:f, s:f, s:o}", "name", s->name, "unit", s->unit, "median",
		      quantile(s, 0.5), "min", quantile(s, 0), "max", quantile(s, 1), "values",
		      values);
	json_object_set_new(o, "asked",
			    s->kind ? json_pack("{s:s, s:f}", "op",
						s->kind == REPORT_AT_LEAST ? ">=" : "<=", "value",
						s->bound)
				    : json_null());
	json_object_set_new(o, "met", s->kind ? json_boolean(met(s)) : json_null());
	return o;
}

void report_json(const struct report *r)
{
	json_t *figures = json_array(), *o;
	struct utsname u = {0};

	uname(&u);
	for (size_t i = 0; i < r->n; i++)
		json_array_append_new(figures, series_json(&r->series[i]));
	o = json_pack("{s:s, s:s, s:i, s:o}", "version", DECANT_VERSION, "kernel", u.release,
		      "processors", (int)sysconf(_SC_NPROCESSORS_ONLN), "figures", figures);
	json_dumpf(o, stdout, JSON_INDENT(1));
	putchar('\n');
	json_decref(o);
}
