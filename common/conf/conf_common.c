/* SPDX-License-Identifier: Apache-2.0 */
#include "conf/conf_common.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "rest/rest_addr.h"
#include "tls/tls_chan.h"

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
	struct rest_addr addr;
	size_t i;
	json_t *s;

	(void)key;
	(void)obj;
	json_array_foreach(value, i, s) {
		int r = rest_addr_parse(json_string_value(s), &addr, at->err);

		if (!r && !strcmp(addr.port, "0"))
			r = error_set(at->err, -EINVAL, at->code, "the port is not 1 to 65535");
		if (r < 0) {
			error_prefix(at->err, "%s[%zu]", at->path, i);
			return r;
		}
	}
	return 0;
}

static int check_names(const json_t *value, const char *key, const struct jsonx_at *at, void *obj)
{
	size_t i;
	json_t *s;

	(void)key;
	(void)obj;
	json_array_foreach(value, i, s) {
		int r = tls_allow_valid(json_string_value(s), at->err);

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
	{"token_file", JSONX_STRING, .nullable = true, .min = 1,
	 JSONX_INTO(struct conf_api, token_file)},
	{"operators", JSONX_STRINGS, .max = CONF_NAMES_MAX, .take = check_names,
	 JSONX_INTO(struct conf_api, operators)},
	{"readers", JSONX_STRINGS, .max = CONF_NAMES_MAX, .take = check_names,
	 JSONX_INTO(struct conf_api, readers)},
	{"tls", JSONX_OBJECT, .fields = conf_tls_fields, .n_fields = CONF_TLS_FIELDS,
	 JSONX_INTO(struct conf_api, tls)},
};

int conf_api_check(const struct conf_api *api, struct error *err)
{
	bool names = conf_count(api->operators) || conf_count(api->readers);

	for (size_t i = 0; i < api->n; i++) {
		struct rest_addr addr;
		int r = rest_addr_parse(api->listen[i], &addr, err);

		if (r < 0)
			return r;
		if (addr.kind == REST_UNIX || api->token_file || (addr.kind == REST_HTTPS && names))
			continue;
		return error_set(
			err, -EINVAL, "bad-config",
			"api.listen[%zu]: nobody could use \"%s\": api.token_file%s is missing", i,
			api->listen[i],
			addr.kind == REST_HTTPS ? ", api.operators or api.readers" : "");
	}
	return 0;
}

int conf_default(char **p, const char *value)
{
	*p = strdup(value);
	return *p ? 0 : -ENOMEM;
}

int conf_take_api(const json_t *value, const char *key, const struct jsonx_at *at, void *obj)
{
	const char *path, *addr = json_string_value(value);
	int r;

	(void)key;
	(void)obj;
	if (!strncmp(addr, "http", 4))
		return error_set(
			at->err, -ENOTSUP, "not-supported",
			"%s: \"%s\" is not supported: the agents of a host ask each other by "
			"a Unix socket, unix:PATH",
			at->path, addr);
	r = rest_addr_unix(addr, &path, at->err);
	if (r < 0)
		error_prefix(at->err, "%s", at->path);
	return r;
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

static int credential(char **path, const char *in, const char *key, const char *dir,
		      struct error *err)
{
	char *full;

	if (!*path || **path == '/')
		return 0;
	if (asprintf(&full, "%s/%s", dir, *path) < 0)
		return error_set(err, -ENOMEM, NULL, "out of memory");
	if (access(full, F_OK)) {
		int r = error_set(err, -errno, "bad-config",
				  "%s.%s: \"%s\" is no absolute path, and the unit has no "
				  "credential of that name: add LoadCredential=%s:PATH to it",
				  in, key, *path, *path);

		free(full);
		return r;
	}
	free(*path);
	*path = full;
	return 0;
}

int conf_credential(char **path, const char *in, const char *key, struct error *err)
{
	const char *dir = getenv("CREDENTIALS_DIRECTORY");

	return dir ? credential(path, in, key, dir, err) : 0;
}

int conf_tls_credentials(struct conf_tls *tls, const char *in, struct error *err)
{
	const char *dir = getenv("CREDENTIALS_DIRECTORY");
	int r;

	if (!dir)
		return 0;
	r = credential(&tls->ca, in, "ca", dir, err);
	if (!r)
		r = credential(&tls->cert, in, "cert", dir, err);
	if (!r)
		r = credential(&tls->key, in, "key", dir, err);
	return r ? r : credential(&tls->crl, in, "crl", dir, err);
}

int conf_api_credentials(struct conf_api *api, struct error *err)
{
	const char *dir = getenv("CREDENTIALS_DIRECTORY");
	int r = conf_tls_credentials(&api->tls, "api.tls", err);

	return r || !dir ? r : credential(&api->token_file, "api", "token_file", dir, err);
}
