/* SPDX-License-Identifier: Apache-2.0 */
#include "api.h"

#include "metrics/metrics.h"
#include "source.h"

void api_get_metrics(struct rest_req *req, void *ctx)
{
	const struct source *s = ctx;

	metrics_reply(s->metrics, req);
}
