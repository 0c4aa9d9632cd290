/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How the benchmarks drive their guest: a file that both map. Each host has a file of its own for
 * the guest, and only the process on that host looks at it.
 */
#ifndef DECANT_BENCH_PACER_H
#define DECANT_BENCH_PACER_H

#include <stdatomic.h>
#include <stdint.h>

#define PACER_PAGE        4096
#define PACER_TOUCHES_MAX (1u << 18)

/**
 * enum pacer_order - what the guest does with its memory
 * @PACER_REST:	nothing
 * @PACER_WRITE: write random pages, @rate a second, @bytes of each
 * @PACER_TOUCH: read random pages that are missing, one at a time
 * @PACER_ZERO:	write zeros to every page, then rest
 */
enum pacer_order { PACER_REST, PACER_WRITE, PACER_TOUCH, PACER_ZERO };

/**
 * struct pacer_control - one file
 * @order:	enum pacer_order, set by the benchmark
 * @rate:	writes a second, 0 as fast as it can
 * @bytes:	of each write, up to a page
 * @ready:	set by the guest: its pid, once it may be moved or was let go here
 * @resting:	set by the guest: it has seen that it is to rest
 * @writes:	counted by the guest
 * @touched:	how many entries of @touch_ns there are
 * @spent:	nothing that is missing could be found any more
 * @touch_ns:	how long each read took
 */
struct pacer_control {
	_Atomic uint32_t order;
	_Atomic uint32_t rate;
	_Atomic uint32_t bytes;
	_Atomic uint32_t ready;
	_Atomic uint32_t resting;
	_Atomic uint64_t writes;
	_Atomic uint32_t touched;
	_Atomic uint32_t spent;
	uint32_t touch_ns[PACER_TOUCHES_MAX];
};

#endif
