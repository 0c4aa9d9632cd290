/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One bulk channel, a guest of 2 GiB of incompressible memory that does nothing. It goes there by
 * precopy and back by post-copy; each journey stands beside the least that does the same placing.
 */
#include <stdio.h>
#include "bench/bare.h"
#include "bench/mover.h"

#define GUEST_MB    2048
#define GUEST_BYTES ((uint64_t)GUEST_MB << 20)
#define BARE_BYTES  (UINT64_C(1) << 30)
#define DROP_BYTES  (UINT64_C(512) << 20)
#define MB          1e6

/**
 * struct leg - one of the two comparisons
 * @ratio, @bare, @decant: bytes a second
 * @send_cpu, @receive_cpu: processor time of the agents by that of the two processes: tells which
 *		side limits, and does not depend on what else the machine does
 */
struct leg {
	const char *mode;
	enum bare_place place;
	struct report_series *bare;
	struct report_series *decant;
	struct report_series *ratio;
	struct report_series *send_cpu;
	struct report_series *receive_cpu;
	struct report_series *downtime;
};

static double per_gib(double s, uint64_t bytes)
{
	return s * (double)(UINT64_C(1) << 30) / (double)bytes;
}

static void leg_run(struct bench *b, struct leg *leg, struct mover_guest *g, struct mover_job *job,
		    bool counts)
{
	struct bare_result bare = bare_bulk(b, leg->place, BARE_BYTES);
	double send_cpu, receive_cpu;

	mover_move(g, leg->mode, "{\"channels\":1}", job);
	lab_check(b->lab, job->rate > 0, "the transfer was too short to be measured");
	send_cpu = per_gib(job->source_cpu_s, GUEST_BYTES) / per_gib(bare.send_cpu_s, BARE_BYTES);
	receive_cpu =
		per_gib(job->dest_cpu_s, GUEST_BYTES) / per_gib(bare.receive_cpu_s, BARE_BYTES);
	bench_say("  %-8s decant %4.0f MB/s, bare %4.0f MB/s: %.2f; processor time of source and "
		  "dest: %.2f, %.2f%s",
		  leg->mode, job->rate / MB, bare.rate / MB, job->rate / bare.rate, send_cpu,
		  receive_cpu, counts ? "" : " (warming up)");
	if (!counts)
		return;
	report_value(leg->bare, bare.rate / MB);
	report_value(leg->decant, job->rate / MB);
	report_value(leg->ratio, job->rate / bare.rate);
	report_value(leg->send_cpu, send_cpu);
	report_value(leg->receive_cpu, receive_cpu);
	report_value(leg->downtime, job->downtime_ms);
}

static void leg_init(struct bench *b, struct leg *leg, const char *placing)
{
	char name[96];

	snprintf(name, sizeof(name), "bulk, %s / TLS + %s", leg->mode, placing);
	leg->ratio = report_add(&b->report, name, "", REPORT_AT_LEAST, 0.75);
	snprintf(name, sizeof(name), "  %s", leg->mode);
	leg->decant = report_add(&b->report, name, "MB/s", REPORT_NO_BOUND, 0);
	snprintf(name, sizeof(name), "  TLS + %s", placing);
	leg->bare = report_add(&b->report, name, "MB/s", REPORT_NO_BOUND, 0);
	leg->send_cpu = report_add(&b->report, "  processor time, decant-source / sender", "",
				   REPORT_NO_BOUND, 0);
	leg->receive_cpu = report_add(&b->report, "  processor time, decant-dest / receiver", "",
				      REPORT_NO_BOUND, 0);
	snprintf(name, sizeof(name), "pause to run, 2 GiB, %s, idle", leg->mode);
	leg->downtime = report_add(&b->report, name, "ms", REPORT_AT_MOST, 20);
}

void bench_bulk(struct bench *b)
{
	struct leg legs[2] = {{.mode = "precopy", .place = BARE_PWRITE},
			      {.mode = "postcopy", .place = BARE_UFFD}};
	static struct mover_job job;
	struct report_series *tls, *source, *dest;
	struct mover_guest *g;

	leg_init(b, &legs[0], "pwrite to holes");
	leg_init(b, &legs[1], "UFFDIO_COPY");
	tls = report_add(&b->report, "bare TLS, nothing placed", "MB/s", REPORT_NO_BOUND, 0);
	source = report_add(&b->report, "decant-source's own memory, 2 GiB guest", "MiB",
			    REPORT_AT_MOST, 64);
	dest = report_add(&b->report, "decant-dest's own memory, 2 GiB guest", "MiB",
			  REPORT_AT_MOST, 64);
	g = mover_guest_start(b, "bulk", GUEST_MB, "random");
	for (unsigned int i = 0; i <= b->rounds; i++) {
		struct bare_result bare = bare_bulk(b, BARE_DROP, DROP_BYTES);
		double source_mb = 0, dest_mb = 0;

		for (size_t k = 0; k < 2; k++) {
			leg_run(b, &legs[k], g, &job, i > 0);
			source_mb = job.source_mb > source_mb ? job.source_mb : source_mb;
			dest_mb = job.dest_mb > dest_mb ? job.dest_mb : dest_mb;
		}
		if (!i)
			continue;
		report_value(tls, bare.rate / MB);
		report_value(source, source_mb);
		report_value(dest, dest_mb);
	}
	mover_guest_end(g);
}
