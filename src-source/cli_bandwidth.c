/* SPDX-License-Identifier: Apache-2.0 */
/* `decant bandwidth`: the limit of the host. */
#include <stdio.h>
#include <string.h>

#include "cli_priv.h"
#include "util/cleanup.h"
#include "util/jsonx.h"

/* Return: CLI_OK with the request's body, or CLI_USAGE after an error line */
static int body_of(const char *word, json_t **ret)
{
	struct error err = {0};
	uint64_t rate;

	if (!strcmp(word, "unlimited")) {
		*ret = json_pack("{s:n}", "bytes_per_s");
		return CLI_OK;
	}
	if (jsonx_rate(word, &rate, &err) < 0)
		return cli_error_of(CLI_USAGE, "bandwidth", &err);
	if (!rate)
		return cli_error(CLI_USAGE, "bandwidth",
				 "0 would stop all; say unlimited to have no limit");
	*ret = json_pack("{s:I}", "bytes_per_s", (json_int_t)rate);
	return CLI_OK;
}

static void show(const json_t *o)
{
	char text[CLI_TEXT_MAX], sent[CLI_TEXT_MAX];
	double rate = cli_num(o, "bytes_per_s", 0), all = 0, waiting = cli_num(o, "waiting", 0);
	const json_t *v;
	const char *class;

	json_object_foreach((json_t *)json_object_get(o, "sent_bytes"), class, v)
		all += json_number_value(v);
	printf("%s, %s sent since the agent was started",
	       rate > 0 ? cli_rate(text, rate) : "unlimited", cli_size(sent, all));
	if (waiting > 0)
		printf(", %.0f waiting", waiting);
	printf("\n");
}

int cli_bandwidth(struct cli *c)
{
	json_t *body = NULL, *o = NULL;
	int r = c->n_args ? body_of(c->args[0], &body) : CLI_OK;

	if (r)
		return r;
	r = cli_call(c, body ? "PUT" : "GET", "/v1/host/bandwidth", body, "bandwidth", &o);
	json_decref(body);
	if (!r && c->json)
		r = cli_print_json(o);
	else if (!r)
		show(o);
	json_decref(o);
	return r;
}
