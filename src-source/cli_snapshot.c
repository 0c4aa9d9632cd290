/* SPDX-License-Identifier: Apache-2.0 */
/* decant snapshot. */
#include <stdio.h>
#include <string.h>
#include "cli_priv.h"
#include "util/cleanup.h"

static json_t *request(struct cli *c, const char *to)
{
	const char *name = json_string_value(json_object_get(c->opts, "--name"));
	json_t *body = json_pack("{s:s, s:s, s:s*}", "guest", c->args[0], "to", to, "name", name);

	if (body && json_object_get(c->opts, "--start"))
		json_object_set_new(body, "start", json_true());
	if (body && json_object_size(c->tuning))
		json_object_set(body, "options", c->tuning);
	return body;
}

static void print_summary(const json_t *m)
{
	char sent[CLI_TEXT_MAX], pause[CLI_TEXT_MAX], stall[CLI_TEXT_MAX];

	printf("%s is stored on %s as %s: %s sent, stopped for %s, longest wait of a writer %s\n",
	       cli_str(m, "guest") ?: "guest", cli_str(m, "to") ?: "the other host",
	       cli_str(m, "name") ?: "?", cli_size(sent, cli_num(m, "memory.sent_bytes", 0)),
	       cli_duration(pause, cli_num(m, "downtime_us", 0)),
	       cli_duration(stall, cli_num(m, "tracking.stall_us.max", 0)));
}

int cli_snapshot(struct cli *c)
{
	const char *to = json_string_value(json_object_get(c->opts, "--to"));
	json_t *body, *m = NULL;
	char addr[300], what[100];
	int r;

	if (!to)
		return cli_error(CLI_USAGE, "snapshot", "--to HOST[:PORT] is missing");
	if (json_object_get(c->tuning, "mode"))
		return cli_error(CLI_USAGE, "snapshot", "--mode: a snapshot has none");
	r = cli_address(to, "snapshot", addr, sizeof(addr));
	if (r)
		return r;
	snprintf(what, sizeof(what), "snapshot %s", c->args[0]);
	body = request(c, addr);
	if (!body)
		return cli_error(CLI_USAGE, what, "the name is no text");
	r = cli_call(c, "POST", "/v1/snapshots", body, what, &m);
	json_decref(body);
	if (r)
		return r;
	if (c->wait)
		r = cli_wait(c, "/v1/snapshots", what, &m);
	if (c->json && r != CLI_UNREACHABLE && m)
		cli_print_json(m);
	else if (!c->json && !c->wait)
		printf("%s: %s to %s as %s, %s\n", cli_str(m, "id") ?: "?", c->args[0], addr,
		       cli_str(m, "name") ?: "?", cli_str(m, "phase") ?: "started");
	else if (!c->json && !r)
		print_summary(m);
	json_decref(m);
	return r;
}
