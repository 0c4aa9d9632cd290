/* SPDX-License-Identifier: Apache-2.0 */
#include "rest/rest_addr.h"

#include <errno.h>
#include <string.h>
#include <sys/un.h>

int rest_addr_unix(const char *addr, const char **ret_path, struct error *err)
{
	if (!strncmp(addr, "https://", 8))
		return error_set(err, -ENOTSUP, "not-supported",
				 "\"%s\": https is not supported yet; use unix:PATH", addr);
	if (strncmp(addr, "unix:", 5) != 0)
		return error_set(err, -EINVAL, "bad-address", "\"%s\" is not unix:PATH", addr);
	addr += 5;
	if (!*addr)
		return error_set(err, -EINVAL, "bad-address", "unix: without a path");
	if (strlen(addr) >= sizeof(((struct sockaddr_un *)0)->sun_path))
		return error_set(err, -EINVAL, "bad-address",
				 "\"%s\" is too long for a socket's path", addr);
	*ret_path = addr;
	return 0;
}
