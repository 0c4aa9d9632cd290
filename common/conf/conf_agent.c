/* SPDX-License-Identifier: Apache-2.0 */
#include "conf/conf_agent.h"

#include <errno.h>
#include <stdio.h>

int conf_agent_defaults(struct conf_agent *c, const char *agent, struct error *err)
{
	char api[64], attach[64];
	int bad;

	snprintf(api, sizeof(api), "unix:/run/decant/%s.sock", agent);
	snprintf(attach, sizeof(attach), "/run/decant/%s.attach", agent);
	bad = conf_api_default(&c->api, api);
	bad |= conf_default(&c->attach, attach);
	bad |= conf_default(&c->run_dir, "/run/decant");
	bad |= conf_default(&c->state_dir, "/var/lib/decant");
	return bad ? error_set(err, -ENOMEM, NULL, "out of memory") : 0;
}

int conf_agent_check(struct conf_agent *c, struct error *err)
{
	if (!c->cordon_file && asprintf(&c->cordon_file, "%s/cordon", c->state_dir) < 0) {
		c->cordon_file = NULL;
		return error_set(err, -ENOMEM, NULL, "out of memory");
	}
	c->api.n = conf_count(c->api.listen);
	return conf_api_check(&c->api, err);
}

int conf_agent_credentials(struct conf_agent *c, struct error *err)
{
	int r = conf_tls_credentials(&c->tls, "tls", err);

	if (!r)
		r = conf_api_credentials(&c->api, err);
	return r ? r : conf_hooks_credentials(&c->hooks, err);
}
