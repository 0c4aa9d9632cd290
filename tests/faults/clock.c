/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The wall clock of both hosts is set, a day forward or back, in the middle of a migration. It is for people: nothing
 * that is timed, waited for or given up goes by it (tests/static/clock), so nothing is noticed but in what is written.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "lib/lab_matrix.h"
#include "lib/lab_pace.h"
#include "lib/lab_preload.h"
#include "lib/lab_test.h"

TestSuite(clock_set, .timeout = 120);

#define DAY 86400

/** struct clock_row - no pointers, Criterion copies it */
struct clock_row {
	bool back;
	bool postcopy;
	bool quick;
};

static const struct clock_row rows[] = {
	{false, false, false}, {true, false, false}, {false, true, false}, {true, true, true}};

ParameterizedTestParameters(clock_set, rows)
{
	static struct clock_row picked[LAB_COUNT(rows)];
	size_t n = 0;

	for (size_t i = 0; i < LAB_COUNT(rows); i++)
		if (lab_matrix_pick(i, rows[i].quick))
			picked[n++] = rows[i];
	return cr_make_param_array(struct clock_row, picked, n);
}

/* It is off for the job, too: else the agents have not noticed what they were to ignore. */
static void off_by_a_day(struct lab *lab, json_t *job, bool back)
{
	const char *begin = lab_str(lab, job, "created_at"), *end = lab_str(lab, job, "ended_at");
	int order = strncmp(begin, end, strlen("2026-01-31"));

	lab_check(lab, back ? order > 0 : order < 0, "from %s to %s", begin, end);
}

ParameterizedTest(struct clock_row *r, clock_set, rows)
{
	struct lab_row row = {.fault = r->back ? "clocks set back a day"
					       : "clocks set forward a day",
			      .phase = r->postcopy ? "postcopy" : "precopy",
			      .driver = "native"};
	struct lab_move move = {.args = {"--bandwidth", "40Mbit"}};
	struct lab *lab = lab_new(lab_test_failed);
	char file[LAB_PATH_MAX + 16];
	struct lab_host *a, *b;
	struct lab_guest *g;
	struct lab_proc *p;
	struct pace *pace;
	uint64_t since;
	json_t *job;

	row.mode = move.mode = row.phase;
	lab_matrix_begin(&row);
	snprintf(file, sizeof(file), "%s/clock", lab->root);
	lab_clock_set(lab, file, 0);
	lab_preload(lab, "clock", file);
	a = lab_host_start(lab, &(struct lab_host_opts){.name = "a"});
	b = lab_host_start(lab, &(struct lab_host_opts){.name = "b"});
	lab_preload_end();
	/* In post-copy it asks for all of its pages: of fewer it has them in no time. */
	g = lab_guest_start(a, &(struct lab_guest_opts){
				       .mb = r->postcopy ? 64 : 16, .threads = 1, .writes = 20});
	p = lab_migrate_begin(a, b, g, &move);
	lab_until(lab, 10000, lab_job_phase_is(a, row.phase), "it does not begin");
	pace = pace_start();
	lab_clock_set(lab, file, r->back ? -DAY : DAY);
	since = lab_now_ms();
	job = lab_migrate_end(a, p, &move);
	off_by_a_day(lab, job, r->back);
	lab_brisk(lab, pace, (lab_now_ms() - since) * 1000, 15000000, "the migration");
	pace_end(pace);
	lab_check(lab,
		  !lab_proc_said(lab, a->source, "is lost") &&
			  !lab_proc_said(lab, b->dest, "is lost"),
		  "a connection was taken for lost");
	json_decref(job);
	lab_guest_arrived(g, b);
	lab_end(lab);
	lab_matrix_end(&row, "moved");
}
