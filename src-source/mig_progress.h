/* SPDX-License-Identifier: Apache-2.0 */
/* What whoever started a migration by the dozen has to know of each, without its JSON. */
#ifndef DECANT_MIG_PROGRESS_H
#define DECANT_MIG_PROGRESS_H

#include "migration.h"

/**
 * struct mig_progress - a job, now
 * @state:	of its machine
 * @owner_gone:	the guest must not run here: it runs, or may run, elsewhere
 * @stuck:	no session stands and the guest is not simply here: in doubt, or held (paused, recovering)
 * @err:	what ended it, empty if nothing did
 * @total, @sent, @remaining: bytes of memory
 * @rate:	bytes a second, 0 while that is not known
 * @us:		since it was made, or until it ended
 * @downtime_us: of the guest, 0 while that is not known
 */
struct mig_progress {
	enum mig_state state;
	bool owner_gone;
	bool stuck;
	struct error err;
	uint64_t total;
	uint64_t sent;
	uint64_t remaining;
	uint64_t rate;
	uint64_t us;
	uint64_t downtime_us;
};

/** mig_progress() - of a job */
void mig_progress(const struct migration *m, struct mig_progress *ret);
/** mig_set_bandwidth() - bytes a second of a job that has not ended, from now on; 0: no limit */
void mig_set_bandwidth(struct migration *m, uint64_t rate);
/** mig_measured_rate() - Return: bytes a second of the newest migrations that arrived, 0 if none did */
uint64_t mig_measured_rate(const struct source *s);

#endif
