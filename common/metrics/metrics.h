/* SPDX-License-Identifier: Apache-2.0 */
/*
 * /metrics: the text format 0.0.4 of Prometheus. Whoever counts something registers a function that writes what it has when it
 * is asked; nothing is gathered in between.
 *
 * Names begin with "decant_" and follow Prometheus' conventions: base units (seconds, bytes), "_total" for what only
 * rises, "_info" for texts. Labels have few values: what is labelled with a job ends with the
 * job, and its sums go on elsewhere. Never more than METRICS_JOBS_MAX jobs are shown singly.
 *
 * All of it is the loop's.
 */
#ifndef DECANT_METRICS_H
#define DECANT_METRICS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "util/error.h"
#include "util/hist.h"

/** METRICS_TYPE - media type of the text */
#define METRICS_TYPE "text/plain; version=0.0.4; charset=utf-8"
/** METRICS_JOBS_MAX - jobs that get samples of their own */
#define METRICS_JOBS_MAX 256

/** enum metrics_kind - of a family */
enum metrics_kind { METRICS_COUNTER, METRICS_GAUGE, METRICS_HISTOGRAM };

/** struct metrics_label - @value may be any text; a NULL @name ends an array */
struct metrics_label {
	const char *name;
	const char *value;
};

/** METRICS_LABELS() - an array of them: METRICS_LABELS({"kind", "bulk"}) */
#define METRICS_LABELS(...) ((const struct metrics_label[]){__VA_ARGS__, {NULL, NULL}})

/** struct metrics - a text that is being written */
struct metrics;

/**
 * metrics_family() - the samples that follow belong to this family
 * @name:	complete but for what a histogram adds; each once in a text
 * @help:	one line
 */
void metrics_family(struct metrics *m, const char *name, enum metrics_kind kind, const char *help);
/** metrics_uint() - a sample of the family begun last. @labels: NULL for none */
void metrics_uint(struct metrics *m, const struct metrics_label *labels, uint64_t value);
/** metrics_real() - the same */
void metrics_real(struct metrics *m, const struct metrics_label *labels, double value);
/** metrics_us() - the same of microseconds, written as seconds */
void metrics_us(struct metrics *m, const struct metrics_label *labels, uint64_t us);
/** metrics_hist() - a histogram of durations, in seconds, in buckets of an octave each */
void metrics_hist(struct metrics *m, const struct metrics_label *labels, const struct hist *h);

/** metrics_index() - Return: of @name among @n @names; of the last one, "other", for all that is not there */
size_t metrics_index(const char *name, const char *const *names, size_t n);

/** metrics_fn - write what you have; called with each request for /metrics */
typedef void metrics_fn(struct metrics *m, void *arg);

struct metrics_registry;

/** metrics_registry_new() - with what every agent has: build and process. @agent: "source". Return: NULL when out of memory */
struct metrics_registry *metrics_registry_new(const char *agent);
/**
 * metrics_start() - metrics_registry_new() and metrics_register() for an agent
 * @counts:	what it counts in; NULL: there was no memory for that
 *
 * Return: 0, or -ENOMEM with @err filled; what is in @ret in either case is for metrics_registry_free()
 */
int metrics_start(const char *agent, const void *counts, metrics_fn *fn, void *arg,
		  struct metrics_registry **ret, struct error *err);
/** metrics_registry_free() - NULL is fine */
void metrics_registry_free(struct metrics_registry *r);
/** metrics_register() - have @fn called, in the order of registering. Return: 0 or -ENOMEM */
int metrics_register(struct metrics_registry *r, metrics_fn *fn, void *arg);
/** metrics_text() - Return: all of it, for free(3); NULL when out of memory */
char *metrics_text(const struct metrics_registry *r);

/** metrics_process() - metrics_fn of this process: CPU, memory, descriptors, threads; by /proc/self */
metrics_fn metrics_process;

#endif
