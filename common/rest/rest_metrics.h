/* SPDX-License-Identifier: Apache-2.0 */
/* GET /metrics. Metrics know nothing of REST: what counts (TLS among it) stands below what answers. */
#ifndef DECANT_REST_METRICS_H
#define DECANT_REST_METRICS_H

#include "metrics/metrics.h"
#include "rest/rest_server.h"

/** rest_metrics_reply() - the answer to GET /metrics: all that @r has. The loop's. */
void rest_metrics_reply(const struct metrics_registry *r, struct rest_req *req);

#endif
