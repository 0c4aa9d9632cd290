/* SPDX-License-Identifier: Apache-2.0 */
#include "mig_progress.h"

#include "migration_priv.h"
#include "util/cleanup.h"
#include "util/clock.h"

/* So many of the newest say how fast it goes. */
#define MEASURED 8

static uint64_t elapsed_us(const struct migration *m)
{
	uint64_t now = m->ended_us ? m->ended_us : clock_wall_us();

	return now > m->created_us ? now - m->created_us : 0;
}

void mig_progress(const struct migration *m, struct mig_progress *ret)
{
	struct migration_totals t = m->totals;

	mig_totals(m, &t);
	*ret = (struct mig_progress){
		.state = m->state,
		.owner_gone = m->committed,
		.stuck = m->state == MIG_IN_DOUBT || m->state == MIG_PAUSED ||
			 m->state == MIG_RECOVERING,
		.err = m->err,
		.total = t.total_bytes,
		.sent = t.sent_bytes,
		.remaining = MIN(t.remaining_bytes, t.total_bytes),
		.rate = t.rate,
		.us = elapsed_us(m),
		.downtime_us = m->downtime_us,
	};
	/* Nothing is pending before the first pass begins. */
	if (!t.sent_bytes && !t.zero_pages && !mig_state_ended(m->state))
		ret->remaining = t.total_bytes;
}

void mig_set_bandwidth(struct migration *m, uint64_t rate)
{
	if (m->options.bandwidth == rate)
		return;
	m->options.bandwidth = rate;
	if (m->engine)
		engine_set_bandwidth(m->engine, rate);
}

uint64_t mig_measured_rate(const struct source *s)
{
	uint64_t bytes = 0, us = 0;
	unsigned int n = 0;

	for (const struct migration *m = s->migrations; m && n < MEASURED; m = m->next) {
		if (m->state != MIG_COMPLETED || m->snapshot || !m->totals.sent_bytes)
			continue;
		bytes += m->totals.sent_bytes;
		us += elapsed_us(m);
		n++;
	}
	return us ? (uint64_t)((double)bytes * 1e6 / (double)us) : 0;
}
