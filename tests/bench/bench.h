/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `make bench`: first figures, each measured beside what it is compared with, in one run. A figure
 * that misses its bound is printed as missed and is no failure; something that did not work is.
 */
#ifndef DECANT_BENCH_H
#define DECANT_BENCH_H

#include "bench/report.h"
#include "lib/lab.h"

/** BENCH_ROUNDS - measurements that a median is made of, unless --rounds says otherwise */
#define BENCH_ROUNDS 5
/** BENCH_RUN - bytes that are handed to TLS and placed at a time, as decant has them in a frame */
#define BENCH_RUN (256u << 10)

/**
 * struct bench - one run
 * @lab:	the world
 * @host:	guests go from one to the other and back
 * @shm:	folder of both run_dirs and of control files; in memory, as /run is
 * @rounds:	measurements of each figure; one more comes before, which is dropped
 * @report:	what was found
 */
struct bench {
	struct lab *lab;
	struct lab_host *host[2];
	char shm[LAB_PATH_MAX];
	unsigned int rounds;
	struct report report;
};

/** bench_say() - tell a waiting person what is being done */
void bench_say(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
/** bench_die() - something did not work: say what, end with 1 */
void bench_die(const char *fmt, ...) __attribute__((format(printf, 1, 2), noreturn));
/** bench_now() - Return: seconds, CLOCK_MONOTONIC */
double bench_now(void);

/** bench_bulk() - bulk rates of precopy and post-copy beside TLS-plus-placing; agents' own memory */
void bench_bulk(struct bench *b);
/** bench_fault() - what a fault costs the guest, beside round trips of 4 KiB */
void bench_fault(struct bench *b);
/** bench_pause() - how long a guest stands still */
void bench_pause(struct bench *b);
/** bench_zeros() - 4 GiB of zeros, touched and never touched */
void bench_zeros(struct bench *b);
/** bench_track() - what write tracking costs the guest */
void bench_track(struct bench *b);

#endif
