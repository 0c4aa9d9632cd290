/* SPDX-License-Identifier: Apache-2.0 */
/* A guest of 4 GiB that holds nothing but zeros, by the default mode, from request to completed. */
#include "bench/mover.h"

#define GUEST_MB 4096

void bench_zeros(struct bench *b)
{
	struct report_series *holes =
		report_add(&b->report, "4 GiB never touched, in all", "s", REPORT_AT_MOST, 4);
	struct report_series *zeros =
		report_add(&b->report, "4 GiB of written zeros, in all", "s", REPORT_AT_MOST, 4);
	struct mover_guest *g = mover_guest_start(b, "zeros", GUEST_MB, "none");
	static struct mover_job job;

	for (unsigned int i = 0; i <= b->rounds; i++) {
		mover_move(g, "hybrid", NULL, &job);
		if (i)
			report_value(holes, job.seconds);
		bench_say("  never touched: %.2f s%s", job.seconds, i ? "" : " (warming up)");
		/* Only here: where it arrives it has nothing to do, and what is zero there is a hole. */
		atomic_store(&mover_here(g)->resting, 0);
		atomic_store(&mover_here(g)->order, PACER_ZERO);
		mover_rested(g);
		mover_move(g, "hybrid", NULL, &job);
		if (i)
			report_value(zeros, job.seconds);
		bench_say("  written: %.2f s%s", job.seconds, i ? "" : " (warming up)");
	}
	mover_guest_end(g);
}
