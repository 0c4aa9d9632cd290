/* SPDX-License-Identifier: Apache-2.0 */
#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <time.h>
#include "lib/pace.h"
#include "util/clock.h"

static uint64_t kernel_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000 + (uint64_t)ts.tv_nsec;
}

Test(clock, units_agree)
{
	uint64_t ns = kernel_ns(), us = clock_us(), ns2 = kernel_ns();

	cr_assert(ge(u64, us, ns / 1000));
	cr_assert(le(u64, us, ns2 / 1000));
}

Test(clock, measures_a_sleep)
{
	struct timespec ts = {.tv_nsec = 20000000};
	struct pace *pace = pace_start();
	uint64_t t = clock_us();

	nanosleep(&ts, NULL);
	t = clock_us() - t;
	cr_assert(ge(u64, t, 20000));
	cr_assert(pace_soon(pace, t, 5000000));
	pace_end(pace);
}

Test(clock, wall_time_is_since_the_epoch)
{
	uint64_t s = (uint64_t)time(NULL);
	uint64_t us = clock_wall_us();

	cr_assert(ge(u64, us / 1000000, s));
	cr_assert(le(u64, us / 1000000, s + 5));
}

Test(clock, rfc3339)
{
	char buf[CLOCK_TEXT_MAX];

	cr_assert(eq(str, clock_rfc3339(buf, 0), "1970-01-01T00:00:00.000Z"));
	cr_assert(eq(str, clock_rfc3339(buf, 1769860800123999), "2026-01-31T12:00:00.123Z"));
	cr_assert(eq(str, clock_rfc3339(buf, 1709164800001000), "2024-02-29T00:00:00.001Z"));
	/* The largest value still fits. */
	cr_assert(eq(str, clock_rfc3339(buf, UINT64_MAX), "586524-01-19T08:01:49.551Z"));
}
