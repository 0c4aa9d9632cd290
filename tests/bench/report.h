/* SPDX-License-Identifier: Apache-2.0 */
/* Series of measurements, their medians with the spread, and how they are shown. */
#ifndef DECANT_BENCH_REPORT_H
#define DECANT_BENCH_REPORT_H

#include <stdbool.h>
#include <stddef.h>

#define REPORT_SERIES_MAX 64
#define REPORT_VALUES_MAX 32

/** enum report_bound - what is asked of the median */
enum report_bound { REPORT_NO_BOUND, REPORT_AT_LEAST, REPORT_AT_MOST };

/**
 * struct report_series - one figure
 * @name:	what it is
 * @unit:	of the values; "" for ratios
 * @kind, @bound: what is asked of it
 * @v, @n:	the measurements
 */
struct report_series {
	char name[96];
	char unit[16];
	enum report_bound kind;
	double bound;
	double v[REPORT_VALUES_MAX];
	size_t n;
};

/** struct report - all figures in the order in which they are shown */
struct report {
	struct report_series series[REPORT_SERIES_MAX];
	size_t n;
};

/** report_add() - Return: new series, empty; valid as long as the report */
struct report_series *report_add(struct report *r, const char *name, const char *unit,
				 enum report_bound kind, double bound);
/** report_value() - one more measurement */
void report_value(struct report_series *s, double v);
/** report_median() - Return: 0 for an empty series */
double report_median(const struct report_series *s);
/** report_quantile() - Return: of @n values, which are sorted by this; 0 of none */
double report_quantile(double *v, size_t n, double q);
/** report_table() - for a person, on stdout */
void report_table(const struct report *r);
/** report_json() - one JSON document on stdout */
void report_json(const struct report *r);

#endif
