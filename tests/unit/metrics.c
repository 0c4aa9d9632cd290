/* SPDX-License-Identifier: Apache-2.0 */
#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "metrics/metrics.h"

static bool has(const char *text, const char *part)
{
	return strstr(text, part) != NULL;
}

static void some(struct metrics *m, void *arg)
{
	metrics_family(m, "decant_things_total", METRICS_COUNTER, "Things.");
	metrics_uint(m, NULL, 18446744073709551615u);
	metrics_family(m, "decant_name_info", METRICS_GAUGE, "A name.");
	metrics_uint(m, METRICS_LABELS({"name", arg}, {"none", NULL}), 1);
	metrics_family(m, "decant_ratio", METRICS_GAUGE, "A number.");
	metrics_real(m, NULL, 0.25);
	metrics_us(m, METRICS_LABELS({"a", "b"}), 1000042);
}

static char *text_of(metrics_fn *fn, void *arg)
{
	struct metrics_registry *r = metrics_registry_new("test");
	char *text;

	cr_assert(zero(int, metrics_register(r, fn, arg)));
	text = metrics_text(r);
	metrics_registry_free(r);
	cr_assert(ne(ptr, text, NULL));
	return text;
}

Test(metrics, samples)
{
	char *text = text_of(some, "b\\a\"c\nk");

	cr_assert(has(text, "# HELP decant_things_total Things.\n"
			    "# TYPE decant_things_total counter\n"
			    "decant_things_total 18446744073709551615\n"
			    "# HELP decant_name_info A name.\n"
			    "# TYPE decant_name_info gauge\n"
			    "decant_name_info{name=\"b\\\\a\\\"c\\nk\",none=\"\"} 1\n"
			    "# HELP decant_ratio A number.\n"
			    "# TYPE decant_ratio gauge\n"
			    "decant_ratio 0.25\n"
			    "decant_ratio{a=\"b\"} 1.000042\n"),
		  "%s", text);
	cr_assert(has(text, "decant_build_info{agent=\"test\",version=\"" DECANT_VERSION "\"} 1"));
	cr_assert(has(text, "\nprocess_open_fds "));
	cr_assert(has(text, "\nprocess_start_time_seconds 1"));
	free(text);
}

static void durations(struct metrics *m, void *arg)
{
	metrics_family(m, "decant_wait_seconds", METRICS_HISTOGRAM, "Waits.");
	metrics_hist(m, METRICS_LABELS({"k", "v"}), arg);
}

static double bucket(const char *text, const char *le)
{
	char name[96];
	const char *at;

	snprintf(name, sizeof(name), "decant_wait_seconds_bucket{k=\"v\",le=\"%s\"} ", le);
	at = strstr(text, name);
	cr_assert(ne(ptr, (void *)at, NULL), "%s", name);
	return strtod(at + strlen(name), NULL);
}

/* Cumulative, in seconds, and the last is all of them, however long. */
Test(metrics, histogram)
{
	struct hist h = {0};
	char *text;

	hist_add(&h, 3);
	hist_add(&h, 1000);
	hist_add(&h, 1500);
	hist_add(&h, UINT64_C(300000000));
	text = text_of(durations, &h);
	cr_assert(eq(dbl, bucket(text, "1.6e-05"), 1));
	cr_assert(eq(dbl, bucket(text, "0.000512"), 1));
	cr_assert(eq(dbl, bucket(text, "0.001024"), 2));
	cr_assert(eq(dbl, bucket(text, "0.002048"), 3));
	cr_assert(eq(dbl, bucket(text, "67.108864"), 3));
	cr_assert(eq(dbl, bucket(text, "+Inf"), 4));
	cr_assert(has(text, "decant_wait_seconds_count{k=\"v\"} 4\n"));
	cr_assert(has(text, "decant_wait_seconds_sum{k=\"v\"} 300.002503\n"), "%s", text);
	free(text);
}
