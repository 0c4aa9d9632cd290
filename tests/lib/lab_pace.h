/* SPDX-License-Identifier: Apache-2.0 */
/* How long the machine makes anybody wait for a processor, measured while something else is. */
#ifndef DECANT_TESTS_LAB_PACE_H
#define DECANT_TESTS_LAB_PACE_H

#include <stdint.h>

#include "lib/lab.h"

struct lab_pace;

/**
 * lab_pace_start() - two processes that wake each other, some hundred times a second
 *
 * A page that is asked for wakes threads in the same way: what the machine, and not the agent, has made of
 * that is seen in the same time, and by more samples than a control of another time has.
 * Return: ends with lab_pace_end(), or with the lab
 */
struct lab_pace *lab_pace_start(struct lab *lab);
/** lab_pace_end() - Return: the longest that one of them has waited for the other, in us; @p is gone */
uint64_t lab_pace_end(struct lab *lab, struct lab_pace *p);

#endif
