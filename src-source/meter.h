/* SPDX-License-Identifier: Apache-2.0 */
/* What /metrics of decant-source says: of the jobs under way, each, and of all since the agent was started. Loop thread only. */
#ifndef DECANT_METER_H
#define DECANT_METER_H

#include "source.h"

struct meter;
struct migration;

/** meter_start() - make source.metrics and source.meter. Return: 0 or -ENOMEM with @err filled */
int meter_start(struct source *s, struct error *err);
/** meter_stop() - nothing is counted any more */
void meter_stop(struct source *s);
/** meter_engine_end() - the job's engine, whose threads have ended, is about to be freed */
void meter_engine_end(const struct migration *m);
/** meter_job_begun(), meter_job_ended() - of this life; its counters are final */
void meter_job_begun(const struct migration *m);
void meter_job_ended(const struct migration *m);

#endif
