/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the machine does to anybody, measured while something else is.
 *
 * A bound in milliseconds says something about us only as long as the machine runs us: another's load, or a
 * hypervisor that takes the processors away for a second, makes anybody wait. So whoever demands that something
 * takes no longer than a bound starts a pace before it, and allows what the pace has met with meanwhile, too.
 * For programs with a lab there is lab_soon() (lab_pace.h).
 */
#ifndef DECANT_TESTS_PACE_H
#define DECANT_TESTS_PACE_H

#include <stdbool.h>
#include <stdint.h>

struct pace;

/**
 * pace_start() - two processes that wake each other, and one that sleeps on each processor, some hundred times a second
 *
 * They end with pace_end(), or with the thread that called this.
 * Return: never NULL; a test that cannot fork is aborted
 */
struct pace *pace_start(void);
/** pace_longest_us() - Return: the longest that one of them waited since pace_start(), a wait under way counts */
uint64_t pace_longest_us(const struct pace *p);
/** pace_lost_us() - Return: what one of them lost in all by waits that somebody could notice */
uint64_t pace_lost_us(const struct pace *p);
/** pace_soon() - Return: whether one wait of @us is no longer than @bound_us, or that and what the machine did meanwhile */
bool pace_soon(const struct pace *p, uint64_t us, uint64_t bound_us);
/** pace_brisk() - the same of something that consists of many steps, each of which the machine may have held up */
bool pace_brisk(const struct pace *p, uint64_t us, uint64_t bound_us);
/** pace_end() - @p is gone; NULL is nothing */
void pace_end(struct pace *p);

#endif
