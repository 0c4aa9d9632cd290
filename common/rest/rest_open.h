/* SPDX-License-Identifier: Apache-2.0 */
/* From an agent's configuration to its REST server. */
#ifndef DECANT_REST_OPEN_H
#define DECANT_REST_OPEN_H

#include "conf/conf_agent.h"
#include "rest/rest_server.h"

/**
 * struct rest_open_spec - all that a server is made of; borrowed for the call but for @routes and @ctx
 * @loop:	the daemon's
 * @routes:	@n of them
 * @conf:	the agent's: where it listens, who is let in, where answers are kept for repeats
 * @agent:	"source" or "dest"
 * @answered:	see rest_server_watch()
 * @ctx:	of the handlers
 */
struct rest_open_spec {
	struct loop *loop;
	const struct rest_route *routes;
	size_t n;
	const struct conf_agent *conf;
	const char *agent;
	rest_answered_fn *answered;
	void *ctx;
};

/**
 * rest_open() - make the server and listen everywhere
 * @ret:	the server, also when 0 is not returned; NULL if there is none
 *
 * Return: 0, or -errno with @err filled
 */
int rest_open(const struct rest_open_spec *spec, struct rest_server **ret, struct error *err);

/** rest_low_port() - Return: whether one of the addresses has a port below 1024, which takes CAP_NET_BIND_SERVICE */
bool rest_low_port(const struct conf_api *api);

/**
 * rest_reload() - read certificates and tokens again
 *
 * Connections keep their certificate, requests are judged by the new tokens. Return: 0; -errno with @err filled,
 * and nothing has changed
 */
int rest_reload(struct rest_server *s, const struct conf_agent *conf, struct error *err);

#endif
