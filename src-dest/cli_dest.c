/* SPDX-License-Identifier: Apache-2.0 */
/* `decant-dest`'s commands. */
#include "cli_dest.h"

#include <stdio.h>
#include "cli/cli.h"
#include "cli/cli_check.h"
#include "util/cleanup.h"

static void incoming_row(struct cli_table *t, const json_t *in)
{
	double total = cli_num(in, "memory.total_bytes", -1);
	double received = cli_num(in, "memory.received_bytes", -1);
	char a[CLI_TEXT_MAX], b[CLI_TEXT_MAX];
	const char *row[] = {cli_str(in, "id"),
			     cli_str(in, "guest"),
			     cli_str(in, "from"),
			     cli_str(in, "phase"),
			     received < 0 ? NULL : cli_size(a, received),
			     total < 0 ? NULL : cli_size(b, total),
			     cli_str(in, "error.code")};

	cli_table_row(t, row);
}

static int print_incoming(const json_t *items)
{
	static const char *const head[] = {"ID",       "GUEST",  "FROM", "PHASE",
					   "RECEIVED", "MEMORY", "ERROR"};
	struct cli_table *t = cli_table_new(ARRAY_SIZE(head), 3u << 4);
	size_t i;
	json_t *in;

	cli_table_row(t, head);
	json_array_foreach(items, i, in)
		incoming_row(t, in);
	return cli_table_print(t);
}

static int incoming_list(struct cli *c)
{
	json_t *items, *all;
	int r = cli_list(c, "/v1/incoming", "incoming", &items);

	if (r)
		return r;
	if (c->json) {
		all = json_pack("{s:O, s:n}", "items", items, "next");
		r = cli_print_json(all);
		json_decref(all);
	} else {
		r = print_incoming(items);
	}
	json_decref(items);
	return r;
}

static int incoming(struct cli *c)
{
	json_t *in;
	int r;

	if (!c->n_args)
		return incoming_list(c);
	r = cli_find(c, "/v1/incoming", "incoming migration", c->args[0], &in);
	if (r)
		return r;
	r = c->json ? cli_print_json(in) : cli_print_object(in);
	json_decref(in);
	return r;
}

static const struct cli_command commands[] = {
	{"serve", "--config FILE", "run the agent", .options = cli_serve_options,
	 .run = cli_serve_misplaced},
	{"check", "", "what this host can and can't do", .run = cli_check},
	{"incoming", "[ID]", "show the guests that arrive or have arrived", 0, 1, .run = incoming},
	{"snapshots", "", "list the stored images", .run = NULL},
	{"restore", "SNAPSHOT [--wait]", "start a guest from a stored image", .run = NULL},
	{"import", "--memory FILE --name N", "store an image from a file", .run = NULL},
	{"uffd", "NAME --socket PATH", "serve the page faults of a micro-VM", .run = NULL},
	{NULL},
};

int cli_dest_main(int argc, char **argv)
{
	static const struct cli_program program = {
		.name = "decant-dest",
		.default_api = "unix:/run/decant/dest.sock",
		.commands = commands,
	};

	return cli_main(&program, argc, argv);
}
