/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How long a guest stands still, from asking for the pause to *running*, as the job says. A guest
 * that writes 20,000 pages a second. The limit that precopy has to reach is short, so that the
 * figure is the engine's and not the limit's; the other modes are as they are by default.
 */
#include <stdio.h>
#include "bench/mover.h"

#define GUEST_MB 512
#define RATE     20000

void bench_pause(struct bench *b)
{
	static const char *const modes[3] = {"precopy", "hybrid", "postcopy"};
	static const char *const options[3] = {
		"{\"downtime_limit_ms\":5,\"no_convergence\":\"stop\"}", NULL, NULL};
	struct report_series *series[2][3];
	static struct mover_job job;
	struct mover_guest *g = mover_guest_start(b, "pause", GUEST_MB, "random");
	char name[96];

	for (size_t w = 0; w < 2; w++) {
		for (size_t m = 0; m < 3; m++) {
			snprintf(name, sizeof(name), "pause to run, 512 MiB, %s, %s", modes[m],
				 w ? "20,000 writes/s" : "idle");
			series[w][m] = report_add(&b->report, name, "ms", REPORT_AT_MOST, 20);
		}
	}
	for (unsigned int i = 0; i <= b->rounds; i++) {
		for (size_t w = 0; w < 2; w++) {
			mover_order(g, w ? PACER_WRITE : PACER_REST, RATE, PACER_PAGE);
			for (size_t m = 0; m < 3; m++) {
				mover_move(g, modes[m], options[m], &job);
				if (i)
					report_value(series[w][m], job.downtime_ms);
				bench_say("  %s, %s: %.1f ms after %u passes%s", modes[m],
					  w ? "writes" : "idle", job.downtime_ms, job.passes,
					  i ? "" : " (warming up)");
			}
		}
	}
	mover_guest_end(g);
}
