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
 * Who waits spins for less than a wake-up costs, because most copies are nearly done, and sleeps then: on a
 * host whose processors are all busy the fault thread has often taken the place of the very receiver that is
 * inside, and as long as it spins or yields to somebody else the guest's fault stands. Whoever is inside
 * must not wait for the fault thread: "events first" is waited for outside.
 */
#ifndef DECANT_GATE_H
#define DECANT_GATE_H

#include <stdatomic.h>

/**
 * struct gate - zeroed at first
 * @inside:	threads that place just now
 * @closed:	1: the fault thread reads, or waits to read
 * @outside:	threads that wait for @closed to be 0
 */
struct gate {
	_Atomic unsigned int inside;
	_Atomic unsigned int closed;
	_Atomic unsigned int outside;
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
