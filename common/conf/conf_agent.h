/* SPDX-License-Identifier: Apache-2.0 */
/* What either agent is told about itself: a part of the configuration of both. */
#ifndef DECANT_CONF_AGENT_H
#define DECANT_CONF_AGENT_H

#include "conf/conf_common.h"
#include "conf/conf_hooks.h"

/**
 * struct conf_agent - defaults filled in; owns its memory
 * @api:	default unix:/run/decant/AGENT.sock
 * @tls:	mandatory
 * @attach:	Unix socket where native guests attach, default /run/decant/AGENT.attach
 * @run_dir:	default /run/decant
 * @state_dir:	default /var/lib/decant
 * @cordon_file: see host/cordon.h; default: "cordon" in state_dir, the same for both agents
 * @hooks:	who is told, and by decant-source also asked
 */
struct conf_agent {
	struct conf_api api;
	struct conf_tls tls;
	char *attach;
	char *run_dir;
	char *state_dir;
	char *cordon_file;
	struct conf_hooks hooks;
};

/* Its members but for the hooks, in the table of struct @s, which has it as "agent". */
#define CONF_AGENT_FIELDS(s)                                                            \
	{"api", JSONX_OBJECT, .fields = conf_api_fields, .n_fields = CONF_API_FIELDS,   \
	 JSONX_INTO(s, agent.api)},                                                     \
		{"tls",                                                                 \
		 JSONX_OBJECT,                                                          \
		 .required = true,                                                      \
		 .fields = conf_tls_fields,                                             \
		 .n_fields = CONF_TLS_FIELDS,                                           \
		 JSONX_INTO(s, agent.tls)},                                             \
		{"attach", JSONX_STRING, .min = 1, .max = CONF_SOCKET_MAX,              \
		 JSONX_INTO(s, agent.attach)},                                          \
		{"run_dir", JSONX_STRING, .min = 1, JSONX_INTO(s, agent.run_dir)},      \
		{"state_dir", JSONX_STRING, .min = 1, JSONX_INTO(s, agent.state_dir)},  \
	{                                                                               \
		"cordon_file", JSONX_STRING, .min = 1, JSONX_INTO(s, agent.cordon_file) \
	}

/** conf_agent_defaults() - before anything is read. @agent: "source" or "dest". Return: 0 or -ENOMEM with @err filled */
int conf_agent_defaults(struct conf_agent *c, const char *agent, struct error *err);
/** conf_agent_check() - when all is read: defaults that follow from it, and conf_api_check(). Return: 0 or -errno with @err filled */
int conf_agent_check(struct conf_agent *c, struct error *err);
/** conf_agent_credentials() - conf_credential() of all its files. Return: 0 or -errno with @err filled */
int conf_agent_credentials(struct conf_agent *c, struct error *err);

#endif
