/* SPDX-License-Identifier: Apache-2.0 */
#include "util/jsonout.h"

#include "util/clock.h"

json_t *jsonout_time(uint64_t wall_us)
{
	char text[CLOCK_TEXT_MAX];

	return wall_us ? json_string(clock_rfc3339(text, wall_us)) : json_null();
}

json_t *jsonout_error(const struct error *err)
{
	if (!error_is_set(err))
		return json_null();
	return json_pack("{s:s, s:s}", "code", err->code, "message", err->msg);
}
