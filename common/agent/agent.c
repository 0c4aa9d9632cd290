/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/agent.h"

#include <malloc.h>
#include <string.h>

#include "cli/cli.h"
#include "rest/rest_open.h"
#include "tls/tls_stats.h"
#include "util/cleanup.h"
#include "util/faultpoint.h"
#include "util/fdio.h"
#include "util/log.h"

int agent_main(const char *name, int argc, char **argv, int (*commands)(int argc, char **argv),
	       int (*serve)(const char *config))
{
	struct error err = {0};
	const char *config;
	int r;

	if (argc < 2 || strcmp(argv[1], "serve") != 0)
		return commands(argc, argv);
	r = cli_serve_args(name, argc, argv, &config);
	if (r >= 0)
		return r;
	if (log_setup(NULL) < 0)
		return cli_error(CLI_USAGE, "serve",
				 "DECANT_LOG is none of debug, info, notice, warning, error");
	if (faultpoint_check(&err) < 0)
		return cli_error_of(CLI_USAGE, "serve", &err);
	/*
	 * Large buffers come and go with each migration, small records of it stay: kept apart, or the
	 * heap would grow around the records. (glibc would raise the threshold by itself.)
	 */
	mallopt(M_MMAP_THRESHOLD, 128 << 10);
	return serve(config);
}

void agent_confine(const struct confine_wish *wish)
{
	char text[CONFINE_TEXT_MAX];
	struct error err = {0};

	if (confine(wish, &err) < 0)
		log_warn("not confined as it should be: %s", err.msg);
	log_debug("confined: %s", confine_text(text));
}

int agent_make_folders(const struct conf_agent *c, struct error *err)
{
	const char *dirs[] = {c->run_dir, c->state_dir};

	for (size_t i = 0; i < ARRAY_SIZE(dirs); i++) {
		int r = fdio_mkdir_p(dirs[i], 0750);

		if (r < 0)
			return error_set(err, r, NULL, "cannot make folder %s: %s", dirs[i],
					 strerror(-r));
	}
	return 0;
}

int agent_load_tls(const struct conf_agent *c, enum tls_role role, struct tls_ctx **tls,
		   struct error *err)
{
	const struct conf_tls *t = &c->tls;
	struct tls_files files = {.ca = t->ca, .cert = t->cert, .key = t->key, .crl = t->crl};
	struct error dates = {0};
	struct tls_ctx *ctx;
	int r = tls_ctx_new(&files, role, &ctx, err);

	if (r < 0)
		return r;
	/* It is used all the same: clocks differ, and whoever refuses it says why. */
	if (tls_ctx_check_dates(ctx, &dates) < 0)
		log_warn("%s", dates.msg);
	tls_stats_inherit(ctx, *tls);
	tls_ctx_unref(*tls);
	*tls = ctx;
	return 0;
}

void agent_reload(const struct agent_secrets *s)
{
	struct error err = {0}, hook = {0};

	if (agent_load_tls(s->conf, s->role, s->tls, &err) < 0 ||
	    rest_reload(s->rest, s->conf, &err) < 0)
		log_error("certificates not reloaded, the old ones stay in use: %s", err.msg);
	else
		log_info("certificates reloaded");
	audit_reopen(s->audit);
	if (hooks_reload(s->hooks, &hook) < 0)
		log_error("secrets not reloaded, the old ones stay in use: %s", hook.msg);
}
