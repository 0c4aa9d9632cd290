/* SPDX-License-Identifier: Apache-2.0 */
/* Where a REST interface is: "unix:PATH" or "https://HOST:PORT". */
#ifndef DECANT_REST_ADDR_H
#define DECANT_REST_ADDR_H

#include "util/error.h"

/**
 * rest_addr_unix() - the path of a "unix:PATH" address
 * @ret_path:	points into @addr
 *
 * Return: 0, or with @err filled -ENOTSUP (code "not-supported") for https://, -EINVAL (code
 * "bad-address") for anything else or a path too long for a socket
 */
int rest_addr_unix(const char *addr, const char **ret_path, struct error *err);

#endif
