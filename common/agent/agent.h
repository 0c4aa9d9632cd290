/* SPDX-License-Identifier: Apache-2.0 */
/* What both daemons do in the same way when they start, and when they are to read their secrets again. */
#ifndef DECANT_AGENT_H
#define DECANT_AGENT_H

#include "audit/audit.h"
#include "conf/conf_agent.h"
#include "hooks/hooks.h"
#include "host/confine.h"
#include "rest/rest_server.h"
#include "tls/tls_ctx.h"
#include "util/error.h"

/**
 * agent_main() - a program that is the daemon (serve) and its operator's commands
 * @name:	"decant-dest"
 * @commands:	all but serve
 * @serve:	with the path of the configuration file
 *
 * Return: exit code
 */
int agent_main(const char *name, int argc, char **argv, int (*commands)(int argc, char **argv),
	       int (*serve)(const char *config));

/**
 * agent_confine() - give up all rights but @wish
 *
 * Before there is any other thread, socket or key. What cannot be given up is no reason not to serve.
 */
void agent_confine(const struct confine_wish *wish);

/** agent_make_folders() - run_dir and state_dir. Return: 0 or -errno with @err filled */
int agent_make_folders(const struct conf_agent *c, struct error *err);

/**
 * agent_load_tls() - the certificates of the data plane
 * @tls:	NULL, or what they are to take the place of, which stays on failure; its counts go on
 *
 * Return: 0 or -errno with @err filled
 */
int agent_load_tls(const struct conf_agent *c, enum tls_role role, struct tls_ctx **tls,
		   struct error *err);

/**
 * struct agent_secrets - who has read certificates, tokens and secrets; borrowed
 * @tls:	see agent_load_tls()
 * @audit:	its file may have been renamed
 */
struct agent_secrets {
	const struct conf_agent *conf;
	enum tls_role role;
	struct tls_ctx **tls;
	struct rest_server *rest;
	struct audit *audit;
	struct hooks *hooks;
};

/** agent_reload() - SIGHUP: all is read again; what cannot be stays as it was, and that is logged */
void agent_reload(const struct agent_secrets *s);

#endif
