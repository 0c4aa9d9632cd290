/* SPDX-License-Identifier: Apache-2.0 */
/* The short form of `make test-soak`: always the same rounds, and more of them in a full run. */
#include "lib/lab_test.h"
#include "soak/soak.h"

#define SEED 20

Test(soak, there_and_back_with_faults, .timeout = 1800)
{
	struct lab *lab = lab_new(lab_test_failed);
	/* What instrumented agents do takes longer, and is the same. */
	unsigned int full = lab->sanitized ? 15 : 60;

	soak_run(lab, &(struct soak_opts){.seed = SEED,
					  .rounds = lab->full ? full : 10,
					  .only = SOAK_FAULTS,
					  .quick = !lab->full});
	lab_end(lab);
}
