/* SPDX-License-Identifier: Apache-2.0 */
/* What the configurations of both agents have in common. */
#ifndef DECANT_CONF_COMMON_H
#define DECANT_CONF_COMMON_H

#include <jansson.h>
#include <stddef.h>
#include "util/error.h"
#include "util/jsonx.h"

/** CONF_FILE_MAX - largest configuration file in bytes */
#define CONF_FILE_MAX (1u << 20)
/** CONF_LISTEN_MAX - most REST listeners */
#define CONF_LISTEN_MAX 8
/** CONF_SOCKET_MAX - longest path of a Unix socket */
#define CONF_SOCKET_MAX 107

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

/** CONF_NAMES_MAX - most names of certificates in one list of the REST interface */
#define CONF_NAMES_MAX 1000

/**
 * struct conf_api - the REST interface
 * @listen:	@n addresses as of rest_addr_parse(); NULL behind the last
 * @token_file:	see rest_auth.h; NULL without
 * @operators, @readers: names of certificates that are let in by https, NULL-terminated; NULL without
 * @tls:	of https, all NULL where the agent's own does
 */
struct conf_api {
	char **listen;
	size_t n;
	char *token_file;
	char **operators;
	char **readers;
	struct conf_tls tls;
};

/* The members of "tls" and of "api", for the tables of both agents. */
#define CONF_TLS_FIELDS 4
extern const struct jsonx_field conf_tls_fields[CONF_TLS_FIELDS];
#define CONF_API_FIELDS 5
extern const struct jsonx_field conf_api_fields[CONF_API_FIELDS];

/** conf_unsupported() - a jsonx_take_fn that refuses by name whatever is not empty */
int conf_unsupported(const json_t *value, const char *key, const struct jsonx_at *at, void *obj);

/**
 * conf_tls_credentials() - find the files that the service manager has handed over
 *
 * A path without a leading slash is the name of a credential of the agent's unit (LoadCredential=) and
 * becomes its path; without $CREDENTIALS_DIRECTORY it stays relative to the working directory. @in is the
 * object's key, for messages.
 * Return: 0, or -errno with @err filled
 */
int conf_tls_credentials(struct conf_tls *tls, const char *in, struct error *err);
/** conf_credential() - the same of one file, which is @key of the object @in */
int conf_credential(char **path, const char *in, const char *key, struct error *err);
/** conf_api_credentials() - the same of api's token_file and tls */
int conf_api_credentials(struct conf_api *api, struct error *err);

/** conf_api_check() - is there somebody who could use each listener? Return: 0, or -EINVAL with @err filled, which names the keys */
int conf_api_check(const struct conf_api *api, struct error *err);

/** conf_default() - set *@p to a copy of @value. Return: 0 or -ENOMEM */
int conf_default(char **p, const char *value);

/** conf_take_api() - a jsonx_take_fn: the address of another agent's REST interface, "unix:PATH" */
int conf_take_api(const json_t *value, const char *key, const struct jsonx_at *at, void *obj);

/** conf_api_default() - listen at @addr and nowhere else. Return: 0 or -ENOMEM */
int conf_api_default(struct conf_api *api, const char *addr);

/** conf_count() - Return: strings before the NULL of @list, which may be NULL */
size_t conf_count(char *const *list);

#endif
