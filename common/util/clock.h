/* SPDX-License-Identifier: Apache-2.0 */
/* Time. Durations come from CLOCK_MONOTONIC; wall time is for people only. */
#ifndef DECANT_UTIL_CLOCK_H
#define DECANT_UTIL_CLOCK_H

#include <stddef.h>
#include <stdint.h>

/** clock_us() - Return: microseconds of CLOCK_MONOTONIC */
uint64_t clock_us(void);
/** clock_thread_us() - Return: microseconds of processor time that this thread has had */
uint64_t clock_thread_us(void);
/** clock_wall_us() - Return: microseconds since the Epoch */
uint64_t clock_wall_us(void);

/** CLOCK_TEXT_MAX - bytes that clock_rfc3339() needs, with the final NUL */
#define CLOCK_TEXT_MAX 32
/**
 * clock_rfc3339() - "2026-01-31T12:00:00.123Z" of a clock_wall_us() value
 *
 * Return: @buf
 */
char *clock_rfc3339(char buf[static CLOCK_TEXT_MAX], uint64_t wall_us);

#endif
