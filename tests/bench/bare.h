/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the figures are compared with: two processes that do nothing but TLS (and placing) between
 * them. OpenSSL directly, blocking sockets on loopback, none of decant's code.
 */
#ifndef DECANT_BENCH_BARE_H
#define DECANT_BENCH_BARE_H

#include <stdint.h>
#include "bench/bench.h"

/**
 * enum bare_place - what the receiver does with what it has read
 * @BARE_DROP:	nothing
 * @BARE_PWRITE: pwrite() into the holes of a fresh memfd, as precopy does
 * @BARE_UFFD:	UFFDIO_COPY into missing pages of a fresh memfd, as post-copy does
 */
enum bare_place { BARE_DROP, BARE_PWRITE, BARE_UFFD };

/**
 * struct bare_result - of one transfer
 * @rate:	bytes a second, at the receiver
 * @send_cpu_s, @receive_cpu_s: processor time of the two processes
 */
struct bare_result {
	double rate;
	double send_cpu_s;
	double receive_cpu_s;
};

/** bare_bulk() - send @bytes through one connection */
struct bare_result bare_bulk(struct bench *b, enum bare_place place, uint64_t bytes);

struct bare_rtt;

/** bare_rtt_open() - two processes ready for round trips: a small request, a page of 4 KiB back */
struct bare_rtt *bare_rtt_open(struct bench *b);
/** bare_rtt_run() - one round trip after the other for a while. Return: how many; @ret_ns their times, valid until the next run */
uint32_t bare_rtt_run(struct bare_rtt *r, unsigned int ms, const uint32_t **ret_ns);
/** bare_rtt_close() - end both */
void bare_rtt_close(struct bare_rtt *r);

#endif
