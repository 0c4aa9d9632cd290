/* SPDX-License-Identifier: Apache-2.0 */
/* Agents with another clock, or a disk that is full or busy: by libraries of tests/preload, and with small file systems. */
#ifndef DECANT_TESTS_LAB_PRELOAD_H
#define DECANT_TESTS_LAB_PRELOAD_H

#include <stdbool.h>
#include <stdint.h>
#include "lib/lab.h"

/**
 * lab_preload() - what is started from now on has this library
 * @name:	"clock": DECANT_TEST_CLOCK names a file for lab_clock_set(); "full" and "sync": DECANT_TEST_FULL, DECANT_TEST_SYNC
 *		one that is made and removed; of "sync" what is in it is part of the paths that are meant
 * @file:	absolute
 *
 * Until lab_preload_end(); what agents launch inherits it.
 */
void lab_preload(struct lab *lab, const char *name, const char *file);
void lab_preload_end(void);
/** lab_clock_set() - the wall clock of those with library "clock" is off by so much from now on */
void lab_clock_set(struct lab *lab, const char *file, int64_t seconds);
/**
 * lab_small_state() - a host's state_dir is a file system of its own, before agents are started
 *
 * In a mount namespace of the test, which ends with it. Return: false if that cannot be had
 */
bool lab_small_state(struct lab_host *h, unsigned int kb);

#endif
