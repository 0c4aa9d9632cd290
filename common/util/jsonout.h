/* SPDX-License-Identifier: Apache-2.0 */
/* Values as the agents' interface shows them everywhere. */
#ifndef DECANT_UTIL_JSONOUT_H
#define DECANT_UTIL_JSONOUT_H

#include <jansson.h>
#include <stdint.h>
#include "util/error.h"

/** jsonout_time() - clock_rfc3339() of a clock_wall_us() value, null of 0. Return: new reference; NULL when out of memory */
json_t *jsonout_time(uint64_t wall_us);
/** jsonout_error() - code and message, null if there is no error. Return: as jsonout_time() */
json_t *jsonout_error(const struct error *err);

#endif
