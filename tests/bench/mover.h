/* SPDX-License-Identifier: Apache-2.0 */
/* The benchmarks' guest, and its migrations as an orchestrator starts and watches them. */
#ifndef DECANT_BENCH_MOVER_H
#define DECANT_BENCH_MOVER_H

#include <jansson.h>
#include "bench/bench.h"
#include "bench/guest/pacer.h"

#define MOVER_SAMPLES_MAX 4096

/**
 * struct mover_guest - a guest, wherever it is
 * @at:		index of its host
 * @control:	its orders, for each host
 */
struct mover_guest {
	struct bench *b;
	char name[32];
	unsigned int mb;
	unsigned int at;
	struct pacer_control *control[2];
};

/**
 * struct mover_job - a migration to the other host
 * @id:		of the job
 * @began:	bench_now() of its beginning
 * @memory_at:	when the agents' memory was looked at last
 * @time, @sent, @n: what GET said: bytes sent as data, and when
 * @source_mb, @dest_mb: most memory of their own that the agents were seen to have, MiB
 * @seconds:	from the request until it was seen to be complete
 * @rate:	bytes of guest memory a second in the bulk of the transfer, 0 if there was too little
 * @downtime_ms: as the job says
 * @passes:	of precopy
 * @source_cpu_s, @dest_cpu_s: processor time of the agents, from beginning to end
 */
struct mover_job {
	struct mover_guest *g;
	char id[64];
	double began;
	double memory_at;
	double time[MOVER_SAMPLES_MAX];
	double sent[MOVER_SAMPLES_MAX];
	size_t n;
	double source_mb;
	double dest_mb;
	double seconds;
	double rate;
	double downtime_ms;
	unsigned int passes;
	double source_cpu_s;
	double dest_cpu_s;
};

/** mover_hosts() - start both hosts with the guest's launcher and run_dirs in b->shm */
void mover_hosts(struct bench *b);
/** mover_guest_start() - start a guest on host 0 and wait until it is known there; for mover_guest_end() */
struct mover_guest *mover_guest_start(struct bench *b, const char *name, unsigned int mb,
				      const char *fill);
/** mover_guest_end() - end it where it is */
void mover_guest_end(struct mover_guest *g);
/** mover_order() - what it does where it is, and goes on with where it arrives next */
void mover_order(struct mover_guest *g, enum pacer_order order, unsigned int rate,
		 unsigned int bytes);
/** mover_here() - Return: its orders where it is now; once it runs there after a migration: other host's */
struct pacer_control *mover_here(struct mover_guest *g);
/** mover_rested() - wait until it does what PACER_REST says */
void mover_rested(struct mover_guest *g);

/**
 * mover_begin() - ask for a migration to the other host
 * @options:	JSON object, or NULL
 * @job:	filled
 */
void mover_begin(struct mover_guest *g, const char *mode, const char *options,
		 struct mover_job *job);
/** mover_look() - take a sample. Return: the job's phase, valid until the next call for any job */
const char *mover_look(struct mover_job *job);
/** mover_until() - look until it is in this phase; dies if it ends in another */
void mover_until(struct mover_job *job, const char *phase);
/** mover_complete() - look until it is complete, check it, wait until the guest can leave again */
void mover_complete(struct mover_job *job);
/** mover_move() - mover_begin() and mover_complete() */
void mover_move(struct mover_guest *g, const char *mode, const char *options,
		struct mover_job *job);
/** mover_cancel() - cancel it and wait until it is cancelled */
void mover_cancel(struct mover_job *job);

#endif
