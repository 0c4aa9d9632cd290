/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `make bench-qemu`: one VM under one load, moved by decant and by QEMU's own migration with TLS, on this
 * machine.
 *
 * A round boots a VM and moves it from one QEMU to the next, once by each way. Each figure is taken alike for
 * all of them, by somebody who is neither: QEMU's events say when the VM stood and when it ran again, its
 * console is heard for ticks, and the guest itself says how long its accesses to memory took.
 */
#ifndef DECANT_BENCH_VERSUS_H
#define DECANT_BENCH_VERSUS_H

#include <pthread.h>
#include "bench/report.h"
#include "lib/lab_guest.h"
#include "lib/lab_job.h"
#include "lib/lab_vm.h"

#define VERSUS_SAMPLES 4096

/** enum versus_way - who moves it */
enum versus_way { VERSUS_PRECOPY, VERSUS_POSTCOPY, VERSUS_PREEMPT, VERSUS_DECANT, VERSUS_WAYS };

/**
 * enum versus_figure - what is measured of a move
 * @VERSUS_TOTAL:	s, from the word until nothing is left to do; the destination's QEMU is started in it
 * @VERSUS_RATE:	MB/s, while the middle 80 % of all bytes were sent
 * @VERSUS_DOWNTIME:	ms, from QEMU's event "STOP" to the other one's "RESUME"
 * @VERSUS_GAP:		ms, longest time without a tick of the guest
 * @VERSUS_TOUCHES:	a second, first accesses to pages that the guest came to make from the word until VERSUS_AFTER_MS
 *	after the first tick at the destination: a guest that stands makes none, and has no slow ones then
 * @VERSUS_P50, @VERSUS_P99, @VERSUS_MAX: us, what those took, by the guest's own clock, which stands when the VM does
 */
enum versus_figure {
	VERSUS_TOTAL,
	VERSUS_RATE,
	VERSUS_DOWNTIME,
	VERSUS_GAP,
	VERSUS_TOUCHES,
	VERSUS_P50,
	VERSUS_P99,
	VERSUS_MAX,
	VERSUS_FIGURES
};

#define VERSUS_AFTER_MS 2000

/**
 * struct versus_progress - bytes sent at points in time
 * @us:		CLOCK_MONOTONIC
 */
struct versus_progress {
	uint64_t us[VERSUS_SAMPLES];
	double sent[VERSUS_SAMPLES];
	size_t n;
};

/**
 * struct versus_ear - hears the ticks of a VM that moves, with a thread of its own
 *
 * @from:	console of the source
 * @to:		of the destination, -1 as long as it has none
 * @gap_us:	longest time between two ticks
 * @came_us:	CLOCK_MONOTONIC of the first tick from @to, 0 before
 */
struct versus_ear {
	pthread_t thread;
	int from;
	_Atomic int to;
	_Atomic bool ends;
	_Atomic uint64_t gap_us, came_us;
	uint64_t tick_us;
};

/** versus_now_us() - CLOCK_MONOTONIC */
uint64_t versus_now_us(void);
/** versus_ear_begin() - hear @from; @ear for versus_ear_end(), which alone may then be followed by questions to the
 * guest. */
void versus_ear_begin(struct versus_ear *ear, int from);
void versus_ear_end(struct versus_ear *ear);

/** versus_sample() - note that @sent bytes were sent by now */
void versus_sample(struct versus_progress *p, double sent);
/** versus_rate() - Return: bytes a second between 10 and 90 % of all, 0 if that was too short */
double versus_rate(const struct versus_progress *p);

/**
 * versus_by_qemu() - move @src to @dst, a twin that is not started, by QEMU's own migration with TLS
 *
 * Return: when nothing was left to do, CLOCK_MONOTONIC in us. Attaches to @dst
 */
uint64_t versus_by_qemu(struct lab_vm *src, struct lab_vm *dst, enum versus_way way,
			struct versus_ear *ear, struct versus_progress *p);
/** versus_by_decant() - the same by `decant migrate --mode MODE`, from host @a to host @b, which start @dst */
uint64_t versus_by_decant(struct lab_vm *src, struct lab_vm *dst, struct lab_host *const host[2],
			  const char *mode, struct versus_ear *ear, struct versus_progress *p);

#endif
