/* SPDX-License-Identifier: Apache-2.0 */
/* The configuration of decant-dest. */
#ifndef DECANT_CONF_DEST_H
#define DECANT_CONF_DEST_H

#include <stdbool.h>
#include <stdint.h>
#include "conf/conf_agent.h"
#include "conf/conf_launcher.h"

/** CONF_DEFAULT_PORT - of the data plane */
#define CONF_DEFAULT_PORT 7400
/** CONF_ALLOW_MAX - most entries of the allow list */
#define CONF_ALLOW_MAX 1024
/** CONF_LAUNCHERS_MAX - most launchers */
#define CONF_LAUNCHERS_MAX 256
/** CONF_INTERRUPTED_DEFAULT - of limit_interrupted_s */
#define CONF_INTERRUPTED_DEFAULT 120
/** CONF_INCOMING_DEFAULT - of limit_incoming */
#define CONF_INCOMING_DEFAULT 16
/** CONF_CONNECTIONS_DEFAULT, CONF_CONNECTIONS_PER_ADDRESS_DEFAULT - of limit_connections and
 * limit_connections_per_address */
#define CONF_CONNECTIONS_DEFAULT             256
#define CONF_CONNECTIONS_PER_ADDRESS_DEFAULT 64
/** CONF_MARGIN_MAX - of margin_bytes: more than guests have */
#define CONF_MARGIN_MAX (INT64_C(1) << 46)

/**
 * struct conf_dest - all of it, defaults filled in; owns its memory
 * @listen_host: numeric address ("0.0.0.0", "::") or name, without brackets
 * @listen_port: 1..65535; default CONF_DEFAULT_PORT
 * @allow:	@n_allow subject alternative names, "DNS:…", "IP:…", "URI:…"; none at all admits
 * nobody
 * @agent:	as decant-source has it; the guests that attach are those launched here
 * @source_api:	where arrived guests are registered, default unix:/run/decant/source.sock; NULL:
 * nowhere
 * @limit_interrupted_s: for so long what has arrived is kept without a session before the switch, 0: not at all
 * @limit_incoming: most incoming migrations at a time, default CONF_INCOMING_DEFAULT
 * @limit_incoming_per_source: most of them from one authenticated identity, 0 for no limit (default)
 * @limit_connections: most connections that no session has yet, default CONF_CONNECTIONS_DEFAULT
 * @limit_connections_per_address: most of them from one address, default
 *		CONF_CONNECTIONS_PER_ADDRESS_DEFAULT
 * @limit_memory_bytes: most memory of all incoming guests together, 0 for no limit (default)
 * @check_room: a guest comes only if there is memory for it; default true
 * @margin_bytes: then so much of what is available stays free, -CONF_MARGIN_MAX..CONF_MARGIN_MAX, default 0; negative:
 *		so much more than that may be promised to guests
 * @launchers:	@n_launchers of them
 */
struct conf_dest {
	char *listen_host;
	uint16_t listen_port;
	char **allow;
	size_t n_allow;
	struct conf_agent agent;
	char *source_api;
	uint32_t limit_incoming;
	uint32_t limit_incoming_per_source;
	uint32_t limit_connections;
	uint32_t limit_connections_per_address;
	uint32_t limit_interrupted_s;
	uint64_t limit_memory_bytes;
	bool check_room;
	int64_t margin_bytes;
	struct conf_launcher *launchers;
	size_t n_launchers;
};

/** conf_dest_load() - as conf_source_load() */
int conf_dest_load(const char *file, struct conf_dest *ret, struct error *err);
/** conf_dest_read() - the same from JSON that is there */
int conf_dest_read(const json_t *json, struct conf_dest *ret, struct error *err);
/** conf_dest_clear() - free what is inside; a zeroed struct is fine */
void conf_dest_clear(struct conf_dest *c);
/** conf_dest_launcher() - Return: the launcher of that name, NULL if there is none */
const struct conf_launcher *conf_dest_launcher(const struct conf_dest *c, const char *name);

#endif
