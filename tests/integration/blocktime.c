/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Block time (P18) with real daemons: what decant says of the guest's vCPU threads is held against what
 * they measured themselves. Now and then the source is stopped, so that all of them wait for long.
 *
 * A thread's own time begins before its fault is read and ends behind its waking, so decant's is never
 * longer; and the stops, which are the most of it, are in both.
 *
 * Runs alone: it measures waits.
 */
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include "lib/lab_pace.h"
#include "lib/lab_paint.h"
#include "lib/lab_test.h"

TestSuite(blocktime, .timeout = 120);

#define STOPS   3
#define STOP_MS 400

static void nap(unsigned int ms)
{
	nanosleep(&(struct timespec){ms / 1000, ms % 1000 * 1000000l}, NULL);
}

/* Of a guest that names no threads: null. */
Test(blocktime, not_measured_without_names)
{
	struct lab_host *a, *b;
	struct lab *lab = lab_test_pair(&a, &b);
	struct lab_guest *g = lab_guest_start(a, &(struct lab_guest_opts){.mb = 8});
	json_t *job = lab_migrate(a, b, g, &(struct lab_move){.mode = "postcopy"});

	lab_check(lab, json_is_null(lab_at(job, "postcopy.block_time_us")), "measured");
	json_decref(job);
	lab_guest_arrived(g, b);
	lab_end(lab);
}

static double all_now(struct paint_world *w)
{
	json_t *o = lab_incoming_newest(w->b);
	double n = lab_num(w->lab, o, "postcopy.block_time_us.all_threads");

	json_decref(o);
	return n;
}

/* Return: for how long the source stood while the guest's threads had pages to look at, in us */
static double stop_the_source(struct paint_world *w)
{
	double stood = 0;

	for (int i = 0; i < STOPS; i++) {
		uint64_t since;
		double before;

		kill(w->a->source->pid, SIGSTOP);
		nap(STOP_MS / 2);
		before = all_now(w);
		/* Waits that are under way count, too; but first each thread must have come to a page that is missing. */
		lab_until(w->lab, 5000, paint_said(w, "done") || all_now(w) > before,
			  "the guest stands, and its block time does not grow");
		since = lab_now_ms();
		nap(STOP_MS / 2);
		since = lab_now_ms() - since;
		kill(w->a->source->pid, SIGCONT);
		nap(50);
		if (!paint_said(w, "done"))
			stood += (double)since * 1000;
	}
	return stood;
}

/* What the job says of its threads, in the order in which they were named. */
static double reported(struct paint_world *w, json_t *job, size_t i)
{
	json_t *a = lab_at(job, "postcopy.block_time_us.threads");

	lab_check(w->lab, json_array_size(a) == PAINT_THREADS, "%zu threads", json_array_size(a));
	return json_number_value(json_array_get(a, i));
}

static double measured(json_t *report, size_t i)
{
	return json_number_value(
		json_object_get(json_array_get(lab_at(report, "threads"), i), "waited_us"));
}

Test(blocktime, agrees_with_what_the_threads_measured)
{
	struct paint_world w = paint_world(lab_new(lab_test_failed), "1", "10000");
	struct lab_proc *command = paint_migrate(&w, "postcopy", "2Mbit");
	struct pace *pace = pace_start();
	double stood, lost, all, said[PAINT_THREADS], own[PAINT_THREADS], sum = 0, least = 1e18;
	json_t *job, *report;
	char *out = NULL;

	lab_until(w.lab, 20000, paint_said(&w, "arrived"), "the guest does not arrive");
	stood = stop_the_source(&w);
	lab_check(w.lab, stood > 0, "the guest was too fast");
	lab_check(w.lab, lab_proc_wait(w.lab, command, 30000) == 0, "decant migrate");
	lab_until(w.lab, 10000, paint_said(&w, "done"), "the guest does not come to an end");
	lab_check(w.lab, paint_said(&w, "bad") == 0, "bad pages");
	job = lab_job_newest(w.a);
	report = paint_report(&w);
	all = lab_num(w.lab, job, "postcopy.block_time_us.all_threads");
	for (size_t i = 0; i < PAINT_THREADS; i++) {
		said[i] = reported(&w, job, i);
		own[i] = measured(report, i);
		sum += said[i];
		least = said[i] < least ? said[i] : least;
	}
	/* A clock may be read late on either side of a wait. */
	lost = 2 * (double)pace_lost_us(pace);
	pace_end(pace);
	/* Which thread was named first is not known. */
	if ((said[0] < said[1]) != (own[0] < own[1])) {
		double first = own[0];

		own[0] = own[1];
		own[1] = first;
	}
	for (size_t i = 0; i < PAINT_THREADS; i++) {
		lab_check(w.lab, said[i] <= own[i] + lost, "thread %zu: %.0f us, by itself %.0f", i,
			  said[i], own[i]);
		lab_check(w.lab, said[i] >= own[i] / 2 - lost && said[i] >= stood * 0.8 - lost,
			  "thread %zu: %.0f us, by itself %.0f; %.0f us of stops", i, said[i],
			  own[i], stood);
	}
	lab_check(w.lab, all <= least && all >= stood * 0.8 - lost,
		  "all at once for %.0f us, the least of them for %.0f; %.0f us of stops", all,
		  least, stood);
	lab_check(w.lab, all >= sum - lab_num(w.lab, report, "elapsed_us") - lost,
		  "all at once for %.0f us, which is too little", all);
	lab_check(w.lab,
		  lab_decant(w.a, 10000, &out, NULL,
			     (const char *[]){"status", lab_str(w.lab, job, "id"), NULL}) == 0 &&
			  strstr(out, "postcopy.block_time_us.all_threads"),
		  "decant status does not say so: %s", out);
	free(out);
	json_decref(job);
	json_decref(report);
	kill((pid_t)paint_said(&w, "pid"), SIGKILL);
	lab_end(w.lab);
}
