/* SPDX-License-Identifier: Apache-2.0 */
#ifndef DECANT_HOOKS_METRICS_H
#define DECANT_HOOKS_METRICS_H

#include "hooks/hooks.h"
#include "metrics/metrics.h"

/** hooks_metrics() - what became of the events of each hook; nothing for NULL */
void hooks_metrics(struct metrics *out, const struct hooks *h);

#endif
