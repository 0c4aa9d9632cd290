/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Placing a page, and hearing that the guest gave it back, must exclude each other.
 *
 * The kernel refuses UFFDIO_COPY from when the guest begins to give memory back until the event of it
 * was read; only then does the guest's thread take the pages away. A receiver that has looked at a
 * page's state before the event was read, and whose copy lands behind it, would put dead data where the guest
 * has to read zeros. So who places looks and copies inside the gate, and the fault thread reads events and
 * notes what they say with the gate closed: a copy that has begun lands first, where it is still
 * wanted; one that begins later sees the state.
 *
 * A lock that sleeps would cost the fault thread a wake-up, which is more than most copies take: it spins
 * first. Whoever is inside must not wait for the fault thread: "events first" is waited for outside.
 */
#ifndef DECANT_GATE_H
#define DECANT_GATE_H

#include <stdatomic.h>
#include <stdbool.h>

/**
 * struct gate - zeroed at first
 * @inside:	threads that place just now
 * @closed:	the fault thread reads, or waits to read
 */
struct gate {
	_Atomic unsigned int inside;
	_Atomic bool closed;
};

/** gate_enter() - any thread that places: waits while the gate is closed */
void gate_enter(struct gate *g);
/** gate_leave() - soon: the guest's fault waits */
void gate_leave(struct gate *g);
/** gate_close() - the fault thread alone: from its return on nobody is inside; new ones wait */
void gate_close(struct gate *g);
/** gate_open() - let them in again */
void gate_open(struct gate *g);

#endif
