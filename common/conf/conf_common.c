/* SPDX-License-Identifier: Apache-2.0 */
#include "conf/conf_common.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "rest/rest_addr.h"

const struct jsonx_field conf_tls_fields[CONF_TLS_FIELDS] = {
	{"ca", JSONX_STRING, .required = true, .min = 1, JSONX_INTO(struct conf_tls, ca)},
	{"cert", JSONX_STRING, .required = true, .min = 1, JSONX_INTO(struct conf_tls, cert)},
	{"key", JSONX_STRING, .required = true, .min = 1, JSONX_INTO(struct conf_tls, key)},
	{"crl", JSONX_STRING, .nullable = true, .min = 1, JSONX_INTO(struct conf_tls, crl)},
};

int conf_unsupported(const json_t *value, const char *key, const struct jsonx_at *at, void *obj)
{
	(void)key;
	(void)obj;
	if (json_is_null(value) || (json_is_array(value) && !json_array_size(value)))
		return 0;
	return error_set(at->err, -ENOTSUP, "not-supported", "%s: not supported yet", at->path);
}

/* The addresses must be ones that a listener can be made for. */
static int check_listen(const json_t *value, const char *key, const struct jsonx_at *at, void *obj)
{
	const char *path;
	size_t i;
	json_t *s;

	(void)key;
	(void)obj;
	json_array_foreach(value, i, s) {
		int r = rest_addr_unix(json_string_value(s), &path, at->err);

		if (r < 0) {
			error_prefix(at->err, "%s[%zu]", at->path, i);
			return r;
		}
	}
	return 0;
}

const struct jsonx_field conf_api_fields[CONF_API_FIELDS] = {
	{"listen", JSONX_STRINGS, .min = 1, .max = CONF_LISTEN_MAX, .take = check_listen,
	 JSONX_INTO(struct conf_api, listen)},
	{"token_file", JSONX_ANY, .take = conf_unsupported},
};

int conf_default(char **p, const char *value)
{
	*p = strdup(value);
	return *p ? 0 : -ENOMEM;
}

int conf_api_default(struct conf_api *api, const char *addr)
{
	api->listen = calloc(2, sizeof(*api->listen));
	return api->listen ? conf_default(&api->listen[0], addr) : -ENOMEM;
}

size_t conf_count(char *const *list)
{
	size_t n = 0;

	while (list && list[n])
		n++;
	return n;
}

static int credential(char **path, const char *key, const char *dir, struct error *err)
{
	char *full;

	if (!*path || **path == '/')
		return 0;
	if (asprintf(&full, "%s/%s", dir, *path) < 0)
		return error_set(err, -ENOMEM, NULL, "out of memory");
	if (access(full, F_OK)) {
		int r = error_set(err, -errno, "bad-config",
				  "tls.%s: \"%s\" is no absolute path, and the unit has no "
				  "credential of that name: add LoadCredential=%s:PATH to it",
				  key, *path, *path);

		free(full);
		return r;
	}
	free(*path);
	*path = full;
	return 0;
}

int conf_tls_credentials(struct conf_tls *tls, struct error *err)
{
	const char *dir = getenv("CREDENTIALS_DIRECTORY");
	int r;

	if (!dir)
		return 0;
	r = credential(&tls->ca, "ca", dir, err);
	if (!r)
		r = credential(&tls->cert, "cert", dir, err);
	if (!r)
		r = credential(&tls->key, "key", dir, err);
	return r ? r : credential(&tls->crl, "crl", dir, err);
}
