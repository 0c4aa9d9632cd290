/* SPDX-License-Identifier: Apache-2.0 */
#include "metrics/metrics.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "util/cleanup.h"

/* Buckets of a histogram: up to 2^4 us, 2^5 us … 2^26 us (67 s), and all. */
#define OCTAVE_FIRST 4u
#define OCTAVE_LAST  26u

/**
 * struct metrics - see metrics.h
 * @out:	grows in memory
 * @family:	of the samples
 */
struct metrics {
	FILE *out;
	const char *family;
};

/**
 * struct metrics_registry - see metrics.h
 * @agent:	"source", "dest"
 * @entries, @n: who is asked
 */
struct metrics_registry {
	const char *agent;
	struct {
		metrics_fn *fn;
		void *arg;
	} * entries;
	size_t n;
};

/* --- the text --- */

void metrics_family(struct metrics *m, const char *name, enum metrics_kind kind, const char *help)
{
	static const char *const kinds[] = {"counter", "gauge", "histogram"};

	m->family = name;
	fprintf(m->out, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, kinds[kind]);
}

static void value_of_label(FILE *out, const char *text)
{
	for (; *text; text++) {
		if (*text == '\\' || *text == '"')
			fputc('\\', out);
		if (*text == '\n')
			fputs("\\n", out);
		else
			fputc(*text, out);
	}
}

/* @le: one more label, of histograms; NULL for none */
static void begin(struct metrics *m, const char *suffix, const struct metrics_label *labels,
		  const char *le)
{
	char before = '{';

	fprintf(m->out, "%s%s", m->family, suffix);
	for (; labels && labels->name; labels++) {
		fprintf(m->out, "%c%s=\"", before, labels->name);
		value_of_label(m->out, labels->value ? labels->value : "");
		fputc('"', m->out);
		before = ',';
	}
	if (le) {
		fprintf(m->out, "%cle=\"%s\"", before, le);
		before = ',';
	}
	fputs(before == ',' ? "} " : " ", m->out);
}

static void sample(struct metrics *m, const char *suffix, const struct metrics_label *labels,
		   const char *le, uint64_t value)
{
	begin(m, suffix, labels, le);
	fprintf(m->out, "%llu\n", (unsigned long long)value);
}

void metrics_uint(struct metrics *m, const struct metrics_label *labels, uint64_t value)
{
	sample(m, "", labels, NULL, value);
}

void metrics_real(struct metrics *m, const struct metrics_label *labels, double value)
{
	begin(m, "", labels, NULL);
	fprintf(m->out, "%.9g\n", value);
}

void metrics_us(struct metrics *m, const struct metrics_label *labels, uint64_t us)
{
	begin(m, "", labels, NULL);
	fprintf(m->out, "%llu.%06llu\n", (unsigned long long)us / 1000000,
		(unsigned long long)us % 1000000);
}

/* The counts are what is added up: the sum of them all may be ahead. */
void metrics_hist(struct metrics *m, const struct metrics_label *labels, const struct hist *h)
{
	uint32_t octaves[OCTAVE_LAST + 2];
	uint64_t seen = 0;
	char le[32];

	hist_octaves(h, octaves, ARRAY_SIZE(octaves));
	for (unsigned int i = 0; i <= OCTAVE_LAST; i++) {
		seen += octaves[i];
		if (i < OCTAVE_FIRST)
			continue;
		snprintf(le, sizeof(le), "%.9g", (double)(UINT64_C(1) << i) / 1e6);
		sample(m, "_bucket", labels, le, seen);
	}
	seen += octaves[OCTAVE_LAST + 1];
	sample(m, "_bucket", labels, "+Inf", seen);
	begin(m, "_sum", labels, NULL);
	fprintf(m->out, "%.9g\n", (double)__atomic_load_n(&h->sum_us, __ATOMIC_RELAXED) / 1e6);
	sample(m, "_count", labels, NULL, seen);
}

/* --- who is asked --- */

static void build(struct metrics *m, void *arg)
{
	const struct metrics_registry *r = arg;

	metrics_family(m, "decant_build_info", METRICS_GAUGE, "Version of this agent.");
	metrics_uint(m, METRICS_LABELS({"agent", r->agent}, {"version", DECANT_VERSION}), 1);
}

size_t metrics_index(const char *name, const char *const *names, size_t n)
{
	size_t i = 0;

	while (i < n - 1 && strcmp(names[i], name) != 0)
		i++;
	return i;
}

struct metrics_registry *metrics_registry_new(const char *agent)
{
	struct metrics_registry *r = calloc(1, sizeof(*r));

	if (!r)
		return NULL;
	r->agent = agent;
	if (metrics_register(r, build, r) < 0 || metrics_register(r, metrics_process, NULL) < 0) {
		metrics_registry_free(r);
		return NULL;
	}
	return r;
}

int metrics_start(const char *agent, const void *counts, metrics_fn *fn, void *arg,
		  struct metrics_registry **ret, struct error *err)
{
	*ret = counts ? metrics_registry_new(agent) : NULL;
	if (*ret && !metrics_register(*ret, fn, arg))
		return 0;
	return error_set(err, -ENOMEM, NULL, "out of memory");
}

void metrics_registry_free(struct metrics_registry *r)
{
	if (!r)
		return;
	free(r->entries);
	free(r);
}

int metrics_register(struct metrics_registry *r, metrics_fn *fn, void *arg)
{
	void *more = realloc(r->entries, (r->n + 1) * sizeof(*r->entries));

	if (!more)
		return -ENOMEM;
	r->entries = more;
	r->entries[r->n].fn = fn;
	r->entries[r->n].arg = arg;
	r->n++;
	return 0;
}

char *metrics_text(const struct metrics_registry *r)
{
	struct metrics m = {0};
	char *text = NULL;
	size_t len;
	bool bad;

	m.out = open_memstream(&text, &len);
	if (!m.out)
		return NULL;
	for (size_t i = 0; i < r->n; i++)
		r->entries[i].fn(&m, r->entries[i].arg);
	bad = ferror(m.out);
	bad |= fclose(m.out) != 0;
	if (bad) {
		free(text);
		return NULL;
	}
	return text;
}
