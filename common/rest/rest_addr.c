/* SPDX-License-Identifier: Apache-2.0 */
#include "rest/rest_addr.h"

#include <ctype.h>
#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/un.h>

_Static_assert(REST_ADDR_PATH_MAX == sizeof(((struct sockaddr_un *)0)->sun_path),
	       "a path that fits is one that can be bound");

int rest_addr_unix(const char *addr, const char **ret_path, struct error *err)
{
	if (strncmp(addr, "unix:", 5) != 0)
		return error_set(err, -EINVAL, "bad-address", "\"%s\" is not unix:PATH", addr);
	addr += 5;
	if (!*addr)
		return error_set(err, -EINVAL, "bad-address", "unix: without a path");
	if (strlen(addr) >= REST_ADDR_PATH_MAX)
		return error_set(err, -EINVAL, "bad-address",
				 "\"%s\" is too long for a socket's path", addr);
	*ret_path = addr;
	return 0;
}

static int parse_port(const char *s, char ret[static 6])
{
	size_t n = strspn(s, "0123456789");
	unsigned long v = strtoul(s, NULL, 10);

	if (!n || s[n] || n > 5 || v > 65535)
		return -EINVAL;
	strcpy(ret, s);
	return 0;
}

/* "HOST:PORT" or "[V6]:PORT"; a "/" behind it does no harm. */
static int parse_tcp(const char *addr, const char *at, struct rest_addr *a, struct error *err)
{
	size_t len = strcspn(at, *at == '[' ? "]" : ":/");
	const char *host = at + (*at == '['), *port = at + len + (at[len] == ']');
	char text[8];
	size_t n;

	len -= *at == '[';
	n = strcspn(*port ? port + 1 : port, "/");
	if (*port != ':' || !len || len >= sizeof(a->host) || n >= sizeof(text) ||
	    (port[1 + n] && strcmp(port + 1 + n, "/") != 0))
		return error_set(err, -EINVAL, "bad-address",
				 "\"%s\" is not SCHEME://HOST:PORT or SCHEME://[V6]:PORT", addr);
	memcpy(text, port + 1, n);
	text[n] = '\0';
	memcpy(a->host, host, len);
	a->host[len] = '\0';
	for (const char *p = a->host; *p; p++)
		if (!isalnum((unsigned char)*p) && !strchr(".-:%_", *p))
			return error_set(err, -EINVAL, "bad-address", "\"%s\": bad host", addr);
	if (parse_port(text, a->port) < 0)
		return error_set(err, -EINVAL, "bad-address", "\"%s\": the port is not 0 to 65535",
				 addr);
	return 0;
}

static bool is_loopback(const char *host)
{
	return !strcmp(host, "127.0.0.1") || !strcmp(host, "::1") || !strcasecmp(host, "localhost");
}

int rest_addr_parse(const char *addr, struct rest_addr *ret, struct error *err)
{
	struct rest_addr a = {0};
	const char *path;
	int r;

	if (!strncmp(addr, "https://", 8)) {
		a.kind = REST_HTTPS;
		r = parse_tcp(addr, addr + 8, &a, err);
	} else if (!strncmp(addr, "http://", 7)) {
		a.kind = REST_HTTP;
		r = parse_tcp(addr, addr + 7, &a, err);
		if (!r && !is_loopback(a.host))
			r = error_set(err, -EINVAL, "bad-address",
				      "\"%s\": plain http would show tokens to the network: only "
				      "127.0.0.1, [::1] and localhost are possible; use https",
				      addr);
	} else if (!strncmp(addr, "unix:", 5)) {
		r = rest_addr_unix(addr, &path, err);
		if (!r)
			strcpy(a.path, path);
	} else {
		r = error_set(err, -EINVAL, "bad-address",
			      "\"%s\" is not unix:PATH, https://HOST:PORT or http://127.0.0.1:PORT",
			      addr);
	}
	if (!r)
		*ret = a;
	return r;
}
