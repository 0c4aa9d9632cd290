/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Guests that do not attach themselves: QEMUs, which are looked for as long as their entry stands. Loop
 * thread.
 */
#ifndef DECANT_GUESTS_QEMU_H
#define DECANT_GUESTS_QEMU_H

#include "guests.h"

/**
 * guests_qemu_look() - look for the QEMU of an entry, now and again until it is found
 *
 * Nothing for an entry of another driver, one that has its guest, or one that was handed over. Why it is
 * not found is in the entry (source_guest.problem).
 */
void guests_qemu_look(struct source_guest *sg);
/** guests_qemu_stop() - the entry goes, or means another guest */
void guests_qemu_stop(struct source_guest *sg);
/**
 * guests_qemu_when_known() - call @fn once the first look is over, whatever it found, or at once
 *
 * Only one can wait; it is called at the latest when the entry goes.
 */
void guests_qemu_when_known(struct source_guest *sg, void (*fn)(void *arg), void *arg);

#endif
