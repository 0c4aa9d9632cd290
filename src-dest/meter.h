/* SPDX-License-Identifier: Apache-2.0 */
/* What /metrics of decant-dest says: of the guests that arrive, each, and of all since the agent was started. Loop thread only. */
#ifndef DECANT_METER_H
#define DECANT_METER_H

#include "dest.h"

struct micro;

/** meter_start() - make dest.metrics and dest.meter. Return: 0 or -ENOMEM with @err filled */
int meter_start(struct dest *d, struct error *err);
/** meter_stop() - nothing is counted any more */
void meter_stop(struct dest *d);
/** meter_incoming_begun() - a source has begun, or a restore */
void meter_incoming_begun(struct dest *d);
/** meter_incoming_ended() - its threads have ended, and its memory is about to be let go */
void meter_incoming_ended(const struct incoming *inc);
/** meter_micro_ended() - the same of a micro-VM */
void meter_micro_ended(const struct micro *m);
/** meter_objected() - a guest was not admitted, for the reason of this code */
void meter_objected(struct dest *d, const char *code);
/** meter_refused() - a connection was refused with this code behind its handshake */
void meter_refused(struct dest *d, const char *code);

#endif
