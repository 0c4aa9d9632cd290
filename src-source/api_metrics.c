/* SPDX-License-Identifier: Apache-2.0 */
#include "api.h"

#include "rest/rest_metrics.h"
#include "source.h"

void api_get_metrics(struct rest_req *req, void *ctx)
{
	const struct source *s = ctx;

	rest_metrics_reply(s->metrics, req);
}
