/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/cli_check.h"

#include "host/host_probe.h"

int cli_check(struct cli *c)
{
	json_t *host = NULL;
	int r = CLI_OK;

	if (c->api_given)
		r = cli_call(c, "GET", "/v1/host", NULL, "check", &host);
	else if (!(host = host_probe_json(true)))
		r = cli_error(CLI_FAILED, "check", "out of memory");
	if (r)
		return r;
	if (c->json)
		r = cli_print_json(host);
	else
		host_probe_print(stdout, host);
	json_decref(host);
	return r;
}
