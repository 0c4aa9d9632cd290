/* SPDX-License-Identifier: Apache-2.0 */
/* The table of `decant`'s commands, and those about guests. */
#include "cli_source.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include "cli/cli_check.h"
#include "cli_priv.h"
#include "conf/conf_common.h"
#include "util/cleanup.h"
#include "util/jsonx.h"

static const struct cli_option migrate_options[] = {
	{"--to", "HOST[:PORT]", "the destination's agent (port 7400)"},
	{NULL},
};

static const struct cli_option recover_options[] = {
	{"--to", "HOST[:PORT]", "another address of its destination"},
	{NULL},
};

static const struct cli_option resolve_options[] = {
	{"--keep", "source|destination", "whose copy of the guest lives on"},
	{"--confirm", "ID", "the id in full; without it, it is asked for on the terminal"},
	{NULL},
};

static const struct cli_option evacuate_options[] = {
	{"--to", "HOST[:PORT]", "a destination's agent (port 7400); may be there several times"},
	{"--concurrency", "N", "migrations at once, 1 to 16; default 2"},
	{"--order", "largest|smallest|least-dirty|priority", "who leaves first; default priority"},
	{"--dry-run", NULL, "show the plan and an estimate, and do nothing"},
	{"--to-the-end", NULL,
	 "with --wait: first for an evacuation that runs already, and for held guests however "
	 "long"},
	{NULL},
};

static const struct cli_option snapshot_options[] = {
	{"--to", "HOST[:PORT]", "the agent that stores it (port 7400)"},
	{"--name", "NAME", "of the image; default: the guest's name and the time"},
	{"--start", NULL, "start a copy of the guest from it there"},
	{NULL},
};

static const struct cli_command commands[] = {
	{"serve", "--config FILE", "run the agent", .options = cli_serve_options,
	 .run = cli_serve_misplaced},
	{"guests", "", "list the guests of this host", .run = cli_guests},
	{"add", "FILE", "make a guest known (JSON; - is stdin)", 1, 1, .run = cli_add},
	{"remove", "GUEST", "forget a guest; it runs on", 1, 1, .run = cli_remove},
	{"migrate", "GUEST --to HOST[:PORT] [--wait]", "move a guest to another host", 1, 1,
	 .options = migrate_options, .tuning = true, .wait = true, .run = cli_migrate},
	{"status", "[ID]", "show all jobs, or one in full", 0, 1, .run = cli_status},
	{"watch", "[ID]", "follow a job, or all that run", 0, 1, .run = cli_watch},
	{"cancel", "ID", "stop a job; guests that have not left stay here", 1, 1,
	 .run = cli_cancel},
	{"switchover", "ID", "stop sending and change hosts now", 1, 1, .run = cli_switchover},
	{"check", "", "what this host can and can't do", .run = cli_check},
	{"evacuate", "--to HOST[:PORT] [--to …] [--wait]", "move all guests away",
	 .options = evacuate_options, .many = "--to", .tuning = true, .wait = true,
	 .run = cli_evacuate},
	{"snapshot", "GUEST --to HOST[:PORT] [--wait]", "store an image while the guest runs on", 1,
	 1, .options = snapshot_options, .tuning = true, .wait = true, .run = cli_snapshot},
	{"recover", "ID [--to HOST[:PORT]]", "go on with a paused migration now", 1, 1,
	 .options = recover_options, .run = cli_recover},
	{"resolve", "ID --keep source|destination", "decide where a guest in doubt runs", 1, 1,
	 .options = resolve_options, .run = cli_resolve},
	{"bandwidth", "[RATE|unlimited]", "show or set the limit of all that leaves this host", 0,
	 1, .run = cli_bandwidth},
	{"cordon", "", "accept no guests on this host", .run = cli_cordon},
	{"uncordon", "", "accept guests again", .run = cli_uncordon},
	{NULL},
};

int cli_source_main(int argc, char **argv)
{
	static const struct cli_program program = {
		.name = "decant",
		.default_api = "unix:/run/decant/source.sock",
		.commands = commands,
	};

	return cli_main(&program, argc, argv);
}

static void guest_row(struct cli_table *t, const json_t *g)
{
	double bytes = cli_num(g, "memory_bytes", -1);
	char size[CLI_TEXT_MAX] = "";
	const char *row[] = {cli_str(g, "name"),     cli_str(g, "driver"),
			     cli_str(g, "state"),    bytes < 0 ? NULL : cli_size(size, bytes),
			     cli_str(g, "launcher"), cli_str(g, "migration")};

	cli_table_row(t, row);
}

/* What a row has no room for: why it is not found or cannot be moved, and what it takes to move it. */
static void guest_notes(const json_t *g)
{
	const char *name = cli_str(g, "name"), *why = cli_str(g, "problem.message");
	bool attached = json_is_true(json_object_get(g, "attached"));

	if (why)
		printf("%s %s: %s\n", name, attached ? "cannot be moved" : "is not found", why);
	if (cli_str(g, "experimental"))
		printf("%s: %s\n", name, cli_str(g, "experimental"));
	if (cli_str(g, "dma.why"))
		printf("%s: %s; moved by %s (hybrid), %s (precopy), %s (postcopy)\n", name,
		       cli_str(g, "dma.why"), cli_str(g, "dma.ways.hybrid"),
		       cli_str(g, "dma.ways.precopy"), cli_str(g, "dma.ways.postcopy"));
}

int cli_guests(struct cli *c)
{
	static const char *const head[] = {"NAME",   "DRIVER",   "STATE",
					   "MEMORY", "LAUNCHER", "MIGRATION"};
	struct cli_table *t;
	json_t *items, *g;
	size_t i;
	int r = cli_list(c, "/v1/guests", "guests", &items);

	if (r)
		return r;
	if (c->json) {
		json_t *all = json_pack("{s:O, s:n}", "items", items, "next");

		r = cli_print_json(all);
		json_decref(all);
	} else {
		t = cli_table_new(ARRAY_SIZE(head), 1u << 3);
		cli_table_row(t, head);
		json_array_foreach(items, i, g)
			guest_row(t, g);
		r = cli_table_print(t);
		json_array_foreach(items, i, g)
			guest_notes(g);
	}
	json_decref(items);
	return r;
}

/* "-" is standard input. Return: CLI_OK or CLI_USAGE */
static int read_description(const char *file, json_t **ret)
{
	struct error err = {0};
	json_error_t je;

	if (strcmp(file, "-") != 0) {
		if (jsonx_load(file, CONF_FILE_MAX, ret, &err) < 0)
			return cli_error_of(CLI_USAGE, "add", &err);
		return CLI_OK;
	}
	*ret = json_loadf(stdin, JSON_REJECT_DUPLICATES, &je);
	if (*ret)
		return CLI_OK;
	return cli_error(CLI_USAGE, "add", "stdin: line %d column %d: %s", je.line, je.column,
			 je.text);
}

int cli_add(struct cli *c)
{
	json_t *body, *g = NULL;
	int r = read_description(c->args[0], &body);

	if (r)
		return r;
	r = cli_call(c, "POST", "/v1/guests", body, "add", &g);
	json_decref(body);
	if (!r && c->json)
		r = cli_print_json(g);
	else if (!r) {
		printf("%s: %s\n", cli_str(g, "name") ?: "guest", cli_str(g, "state") ?: "added");
		guest_notes(g);
	}
	json_decref(g);
	return r;
}

int cli_remove(struct cli *c)
{
	CLEANUP_FREE char *path = cli_path("/v1/guests", c->args[0], NULL);
	json_t *g = NULL, *none = NULL;
	int r;

	if (!path)
		return cli_error(CLI_FAILED, "remove", "out of memory");
	/* The object that the command is about can only be had before it is gone. */
	r = cli_call(c, "GET", path, NULL, "remove", &g);
	if (!r)
		r = cli_call(c, "DELETE", path, NULL, "remove", &none);
	if (!r && c->json)
		r = cli_print_json(g);
	else if (!r)
		printf("%s: removed\n", c->args[0]);
	json_decref(g);
	json_decref(none);
	return r;
}
