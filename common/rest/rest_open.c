/* SPDX-License-Identifier: Apache-2.0 */
#include "rest/rest_open.h"

#include <errno.h>
#include "rest/rest_addr.h"
#include "rest/rest_auth.h"
#include "tls/tls_ctx.h"
#include "util/cleanup.h"
#include "util/log.h"

static bool listens(const struct conf_api *api, enum rest_addr_kind kind)
{
	struct rest_addr addr;

	for (size_t i = 0; i < api->n; i++)
		if (!rest_addr_parse(api->listen[i], &addr, NULL) && addr.kind == kind)
			return true;
	return false;
}

static int load_tls(const struct conf_agent *conf, struct tls_ctx **ret, struct error *err)
{
	const struct conf_tls *t = conf->api.tls.ca ? &conf->api.tls : &conf->tls;
	struct tls_files files = {
		.ca = t->ca, .cert = t->cert, .key = t->key, .crl = t->crl, .http = true};
	struct error dates = {0};
	int r = tls_ctx_new(&files, TLS_SERVER, ret, err);

	/* Of the agent's own that was said already. */
	if (!r && t == &conf->api.tls && tls_ctx_check_dates(*ret, &dates) < 0)
		log_warn("api: %s", dates.msg);
	return r;
}

int rest_reload(struct rest_server *s, const struct conf_agent *conf, struct error *err)
{
	const struct conf_api *api = &conf->api;
	const struct rest_auth_conf who = {api->token_file, api->operators, api->readers};
	struct tls_ctx *ctx = NULL;
	struct rest_auth *auth;
	int r;

	if (!listens(api, REST_HTTPS) && !listens(api, REST_HTTP))
		return 0;
	if (listens(api, REST_HTTPS)) {
		r = load_tls(conf, &ctx, err);
		if (r < 0)
			return r;
	}
	r = rest_auth_new(&who, &auth, err);
	if (!r)
		rest_server_auth(s, auth);
	if (!r && ctx)
		rest_server_tls(s, ctx);
	tls_ctx_unref(ctx);
	return r;
}

int rest_open(const struct rest_open_spec *spec, struct rest_server **ret, struct error *err)
{
	struct rest_server *s = rest_server_new(spec->loop, spec->routes, spec->n, NULL, spec->ctx);
	const struct conf_api *api = &spec->conf->api;
	CLEANUP_FREE char *keep = NULL;
	struct error why = {0};
	int r;

	*ret = s;
	if (!s)
		return error_set(err, -ENOMEM, NULL, "out of memory");
	rest_server_watch(s, spec->answered);
	if (asprintf(&keep, "%s/rest-%s.journal", spec->conf->state_dir, spec->agent) < 0)
		keep = NULL;
	if (keep && rest_server_keep(s, keep, &why) < 0)
		log_warn("answers are kept for repeats in memory only: %s", why.msg);
	r = rest_reload(s, spec->conf, err);
	for (size_t i = 0; !r && i < api->n; i++)
		r = rest_server_listen(s, api->listen[i], err);
	return r;
}

bool rest_low_port(const struct conf_api *api)
{
	struct rest_addr a;

	for (size_t i = 0; i < api->n; i++)
		if (!rest_addr_parse(api->listen[i], &a, NULL) && a.kind != REST_UNIX &&
		    atoi(a.port) > 0 && atoi(a.port) < 1024)
			return true;
	return false;
}
