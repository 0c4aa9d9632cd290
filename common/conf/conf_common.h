/* SPDX-License-Identifier: Apache-2.0 */
/* What the configurations of both agents have in common. */
#ifndef DECANT_CONF_COMMON_H
#define DECANT_CONF_COMMON_H

#include <jansson.h>
#include <stddef.h>
#include "util/error.h"

/** CONF_FILE_MAX - largest configuration file in bytes */
#define CONF_FILE_MAX (1u << 20)
/** CONF_LISTEN_MAX - most REST listeners */
#define CONF_LISTEN_MAX 8

/**
 * struct conf_tls - files of the data plane's identity
 * @ca:		certificates that sign peers
 * @cert, @key:	this host's own
 * @crl:	revocation list, NULL if none
 */
struct conf_tls {
	char *ca;
	char *cert;
	char *key;
	char *crl;
};

/**
 * struct conf_api - the REST interface
 * @listen:	@n addresses, "unix:PATH"
 */
struct conf_api {
	char *listen[CONF_LISTEN_MAX];
	size_t n;
};

#endif
