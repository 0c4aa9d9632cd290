/* SPDX-License-Identifier: Apache-2.0 */
#include "soak/soak.h"

#include <stdlib.h>
#include "soak/world.h"

/* Said before the round, so that it stands there whatever happens in it. */
static void one(struct soak_world *w, unsigned int round, bool zstd)
{
	uint64_t began;

	soak_world_sweep(w);
	soak_plan(&w->plan, w->o->seed, round, w->o->only, w->nguests, w->o->quick, zstd);
	soak_plan_print(stderr, &w->plan);
	began = lab_now_ms();
	soak_round(w);
	if (w->o->quiet)
		return;
	fprintf(stderr, "     %lu ms", lab_now_ms() - began);
	soak_leaks_say(w, stderr);
	fputc('\n', stderr);
}

void soak_run(struct lab *lab, const struct soak_opts *opts)
{
	uint64_t began = lab_now_ms();
	struct soak_world *w = soak_world_new(lab, opts);
	bool zstd = soak_world_zstd(w);
	unsigned int done = 0;

	fprintf(stderr, "soak: seed %lu, rounds %u to %u\n", opts->seed, opts->first,
		opts->first + opts->rounds - 1);
	for (; done < opts->rounds && !soak_interrupted(); done++)
		one(w, opts->first + done, zstd);
	fprintf(stderr,
		"soak: seed %lu: %u rounds, %u migrations (%u completed, %u failed, %u cancelled) "
		"and %u snapshots in %lu s; every guest has all of its memory\n",
		opts->seed, done, w->jobs, w->ends[0], w->ends[1], w->ends[2], w->snapshots,
		(lab_now_ms() - began) / 1000);
	soak_leaks_table(w, stderr);
	soak_world_free(w);
}
