/* SPDX-License-Identifier: Apache-2.0 */
#include "rest/rest_metrics.h"

#include <string.h>

#include "util/cleanup.h"

void rest_metrics_reply(const struct metrics_registry *r, struct rest_req *req)
{
	CLEANUP_FREE char *text = NULL;

	if (rest_refuse_type(req, "text/plain"))
		return;
	text = metrics_text(r);
	if (text)
		rest_reply_text(req, 200, METRICS_TYPE, text, strlen(text));
	else
		rest_problemf(req, 500, NULL, "out of memory");
}
