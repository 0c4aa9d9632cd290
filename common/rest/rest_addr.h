/* SPDX-License-Identifier: Apache-2.0 */
/* Where a REST interface is: "unix:PATH", "https://HOST:PORT", "http://127.0.0.1:PORT". */
#ifndef DECANT_REST_ADDR_H
#define DECANT_REST_ADDR_H

#include "util/error.h"

/** REST_ADDR_PATH_MAX - bytes of a socket's path, NUL included */
#define REST_ADDR_PATH_MAX 108
/** REST_ADDR_HOST_MAX - bytes of a host's name, NUL included */
#define REST_ADDR_HOST_MAX 256

/**
 * enum rest_addr_kind - how an interface is reached
 * @REST_UNIX:	Unix socket
 * @REST_HTTPS:	TCP with TLS
 * @REST_HTTP:	TCP as it is, which never leaves this host
 */
enum rest_addr_kind { REST_UNIX, REST_HTTPS, REST_HTTP };

/**
 * struct rest_addr - an address taken apart
 * @path:	of REST_UNIX, else ""
 * @host:	name or address without brackets, "" of REST_UNIX
 * @port:	decimal, "" of REST_UNIX
 */
struct rest_addr {
	enum rest_addr_kind kind;
	char path[REST_ADDR_PATH_MAX];
	char host[REST_ADDR_HOST_MAX];
	char port[6];
};

/**
 * rest_addr_parse() - take an address apart
 *
 * Port 0 is any that is free, for a listener of tests. Plain http is taken for 127.0.0.1, ::1 and localhost only. Return: 0, or with @err filled -EINVAL (code
 * "bad-address")
 */
int rest_addr_parse(const char *addr, struct rest_addr *ret, struct error *err);

/** rest_addr_unix() - the path of a "unix:PATH" address; it points into @addr. Return: as rest_addr_parse() */
int rest_addr_unix(const char *addr, const char **ret_path, struct error *err);

#endif
