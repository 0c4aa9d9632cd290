/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Networks on which all arrives, but late: 200 ms there and back, and packets that are lost and sent again. Nothing
 * times out, no channel is taken for dead, nothing is sent twice; what costs round trips is counted in them.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "lib/lab_matrix.h"
#include "lib/lab_pace.h"
#include "lib/lab_relay.h"
#include "lib/lab_test.h"

TestSuite(net_late, .timeout = 240);

#define MB     16
#define RTT_MS 200.0
/* Of the guest: pages that each writes in a second. */
#define THREADS 2
#define WRITES  30

/**
 * struct late_row - no pointers, Criterion copies it
 * @mode:	index of modes[]
 * @loss:	packets of a million that are lost, besides the delay; 0 none
 * @urgent:	there is an urgent channel
 */
struct late_row {
	unsigned int mode;
	unsigned int loss;
	bool urgent;
	bool quick;
};

static const char *const modes[] = {"precopy", "hybrid", "postcopy"};

#define PRE  0
#define HYB  1
#define POST 2

static const struct late_row rows[] = {
	{PRE, 0, true, false},     {HYB, 0, true, false},    {POST, 0, true, true},
	{POST, 0, false, false},   {PRE, 2000, true, false}, {HYB, 2000, true, false},
	{POST, 2000, true, false},
};

ParameterizedTestParameters(net_late, rows)
{
	static struct late_row picked[LAB_COUNT(rows)];
	size_t n = 0;

	for (size_t i = 0; i < LAB_COUNT(rows); i++)
		if (lab_matrix_pick(i, rows[i].quick))
			picked[n++] = rows[i];
	return cr_make_param_array(struct late_row, picked, n);
}

/**
 * struct scene - a migration over a long wire
 * @pace:	what the machine makes of anybody meanwhile
 * @begun_ms:	when the guest began to write
 */
struct scene {
	const struct late_row *r;
	struct lab *lab;
	struct lab_host *a, *b;
	struct lab_guest *g;
	struct lab_relay *relay;
	struct pace *pace;
	uint64_t begun_ms;
};

static void start(struct scene *s)
{
	s->lab = lab_test_pair(&s->a, &s->b);
	s->relay = lab_relay_new(s->b);
	lab_relay_delay(s->relay, (unsigned int)RTT_MS / 2);
	lab_relay_loss(s->relay, s->r->loss, 7);
	s->g = lab_guest_start(
		s->a, &(struct lab_guest_opts){.mb = MB, .threads = THREADS, .writes = WRITES});
	s->begun_ms = lab_now_ms();
	s->pace = pace_start();
}

/* Nobody was taken for dead. */
static void stood(struct scene *s)
{
	lab_check(s->lab,
		  !lab_proc_said(s->lab, s->a->source, "is lost (") &&
			  !lab_proc_said(s->lab, s->a->source, "the session is lost") &&
			  !lab_proc_said(s->lab, s->b->dest, "is lost"),
		  "a late peer is taken for a dead one");
}

/*
 * Pages that were asked for come at the cost of one round trip, and of the packets that were lost. Faults on pages
 * that were on their way already, or are zeros, wait for less. Return: the longest wait
 */
static double asked_for(struct scene *s, json_t *job)
{
	json_t *b, *buckets = lab_at(job, "postcopy.latency_us.buckets");
	double waited = 0, longer = 0, max = lab_num(s->lab, job, "postcopy.latency_us.max");
	/* Half a round trip more is too long, unless the machine has made anybody wait for that. */
	double long_ms = RTT_MS * 1.5 + 3e-3 * (double)pace_longest_us(s->pace);
	size_t i;

	json_array_foreach(buckets, i, b) {
		double le_ms = lab_num(s->lab, b, "le_us") / 1000, n = lab_num(s->lab, b, "count");

		waited += le_ms > RTT_MS * 0.6 ? n : 0;
		longer += le_ms > long_ms ? n : 0;
	}
	lab_check(s->lab, waited >= 10, "%.0f waits: the wire is not as long", waited);
	if (!s->r->loss) {
		lab_check(s->lab, longer <= waited / 10,
			  "%.0f of %.0f waits took longer than a round trip", longer, waited);
		lab_soon(s->lab, s->pace, (uint64_t)max, (uint64_t)(RTT_MS * 3000),
			 "the longest wait for a page");
	}
	return max / 1000;
}

/*
 * The last barrier, SWITCH to READY, COMMIT to RUNNING: three round trips, whatever there is to send, and what a busy
 * machine adds; a guest that touches its memory when it is loaded waits one more for each such page.
 */
static double switched(struct scene *s, json_t *job)
{
	double ms = lab_num(s->lab, job, "downtime_us") / 1000;

	lab_check(s->lab, ms > RTT_MS * 1.9, "in %.0f ms: the wire is not as long", ms);
	if (!s->r->loss)
		lab_brisk(s->lab, s->pace, (uint64_t)(ms * 1000),
			  (uint64_t)(RTT_MS * (s->r->urgent ? 6000 : 12000)), "the switchover");
	return ms;
}

ParameterizedTest(struct late_row *r, net_late, rows)
{
	char fault[64], text[128];
	struct lab_row row = {
		.fault = fault, .phase = "all", .mode = modes[r->mode], .driver = "native"};
	struct lab_move move = {.mode = modes[r->mode],
				.ms = 120000,
				.args = {"--bandwidth", "40Mbit", "--channels", "2",
					 "--switchover-timeout-ms", "20000",
					 r->urgent ? NULL : "--no-urgent"}};
	struct scene s = {.r = r};
	double sent, wrote, longest = 0, downtime;
	json_t *job;
	int n;

	snprintf(fault, sizeof(fault), "200 ms of delay%s%s", r->loss ? ", packets lost" : "",
		 r->urgent ? "" : ", no urgent channel");
	lab_matrix_begin(&row);
	start(&s);
	job = lab_migrate(s.a, s.b, s.g, &move);
	stood(&s);
	downtime = switched(&s, job);
	if (r->mode == POST)
		longest = asked_for(&s, job);
	sent = lab_num(s.lab, job, "memory.sent_bytes") +
	       lab_num(s.lab, job, "memory.zero_pages") * 4096 -
	       lab_num(s.lab, job, "memory.total_bytes");
	/* What the guest writes meanwhile, and no more. */
	wrote = THREADS * WRITES * 4.096 * (double)(lab_now_ms() - s.begun_ms);
	lab_check(s.lab, sent < 2e6 + wrote, "%.0f bytes were sent twice, of %.0f written", sent,
		  wrote);
	pace_end(s.pace);
	json_decref(job);
	lab_guest_arrived(s.g, s.b);
	lab_check(s.lab, !r->loss || lab_relay_stalls(s.relay), "no packet was lost");
	n = snprintf(text, sizeof(text), "moved; stood %.0f ms", downtime);
	if (r->mode == POST)
		n += snprintf(text + n, sizeof(text) - (size_t)n, ", longest wait %.0f ms",
			      longest);
	if (r->loss)
		snprintf(text + n, sizeof(text) - (size_t)n, ", %u packets lost",
			 lab_relay_stalls(s.relay));
	lab_relay_free(s.relay);
	lab_end(s.lab);
	lab_matrix_end(&row, text);
}
