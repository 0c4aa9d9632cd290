/* SPDX-License-Identifier: Apache-2.0 */
#include "api.h"

#include "bandwidth.h"
#include "budget/budget.h"
#include "util/cleanup.h"
#include "util/jsonx.h"

void api_get_bandwidth(struct rest_req *req, void *ctx)
{
	rest_reply(req, 200, bandwidth_json(ctx));
}

struct wish {
	uint64_t rate;
};

/* bytes_per_s: mandatory; null is no limit, and 0 would be no way to say so. */
void api_put_bandwidth(struct rest_req *req, void *ctx)
{
	static const struct jsonx_field body[] = {
		{"bytes_per_s", JSONX_UINT, .required = true, .nullable = true, .min = 1,
		 .max = BUDGET_RATE_MAX, JSONX_INTO(struct wish, rate)},
	};
	struct error err = {0};
	struct jsonx_at at = {"body", "bad-value", &err};
	struct wish w = {0};
	int r = jsonx_read(rest_body(req), &at, body, ARRAY_SIZE(body), &w);

	if (r < 0) {
		rest_problem(req, 400, &err);
		return;
	}
	r = bandwidth_set(ctx, w.rate, &err);
	if (r < 0)
		rest_problem(req, 500, &err);
	else
		rest_reply(req, 200, bandwidth_json(ctx));
}
