/* SPDX-License-Identifier: Apache-2.0 */
/* `decant-dest`'s commands. */
#include "cli_dest.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "cli/cli.h"
#include "cli/cli_check.h"
#include "util/cleanup.h"

/* How often an incoming is looked at. */
#define POLL_US 200000

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

/* GET @path, and print all of it: as one document, or by @table. */
static int list(struct cli *c, const char *path, const char *what,
		int (*table)(const json_t *items))
{
	json_t *items, *all;
	int r = cli_list(c, path, what, &items);

	if (r)
		return r;
	if (c->json) {
		all = json_pack("{s:O, s:n}", "items", items, "next");
		r = cli_print_json(all);
		json_decref(all);
	} else {
		r = table(items);
	}
	json_decref(items);
	return r;
}

static int incoming(struct cli *c)
{
	json_t *in;
	int r;

	if (!c->n_args)
		return list(c, "/v1/incoming", "incoming", print_incoming);
	r = cli_find(c, "/v1/incoming", "incoming migration", c->args[0], &in);
	if (r)
		return r;
	r = c->json ? cli_print_json(in) : cli_print_object(in);
	json_decref(in);
	return r;
}

static const char *guest_of(const json_t *s)
{
	return cli_str(s, "error.code") ?: cli_str(s, "guest");
}

static int print_snapshots(const json_t *items)
{
	static const char *const head[] = {"NAME", "GUEST", "CREATED", "MEMORY", "STORED"};
	struct cli_table *t = cli_table_new(ARRAY_SIZE(head), 3u << 3);
	size_t i;
	json_t *s;

	cli_table_row(t, head);
	json_array_foreach(items, i, s) {
		double memory = cli_num(s, "memory_bytes", -1),
		       disk = cli_num(s, "stored_bytes", -1);
		char a[CLI_TEXT_MAX], b[CLI_TEXT_MAX];
		const char *row[] = {cli_str(s, "name"), guest_of(s), cli_str(s, "created_at"),
				     memory < 0 ? NULL : cli_size(a, memory),
				     disk < 0 ? NULL : cli_size(b, disk)};

		cli_table_row(t, row);
	}
	return cli_table_print(t);
}

static int snapshots(struct cli *c)
{
	return list(c, "/v1/snapshots", "snapshots", print_snapshots);
}

static bool ended(const json_t *in)
{
	const char *phase = cli_str(in, "phase") ?: "?";

	return !strcmp(phase, "completed") || !strcmp(phase, "failed") ||
	       !strcmp(phase, "aborted") || !strcmp(phase, "held");
}

/* Until every page is here, or it has gone wrong. */
static int wait_restored(struct cli *c, const char *what, json_t **in)
{
	CLEANUP_FREE char *path = cli_path("/v1/incoming", cli_str(*in, "id") ?: "", NULL);
	int r = path ? CLI_OK : cli_error(CLI_FAILED, what, "out of memory");
	uint64_t away_us = 0;

	while (!r && !ended(*in)) {
		json_t *newer = NULL;

		usleep(POLL_US);
		r = cli_poll(c, path, what, &away_us, &newer);
		if (newer) {
			json_decref(*in);
			*in = newer;
		}
	}
	if (r || !strcmp(cli_str(*in, "phase") ?: "?", "completed"))
		return r;
	return cli_error(json_is_true(json_object_get(*in, "refused")) ? CLI_REFUSED : CLI_FAILED,
			 what, "%s: %s (%s)", cli_str(*in, "phase") ?: "?",
			 cli_str(*in, "error.message") ?: "no reason is known",
			 cli_str(*in, "error.code") ?: "-");
}

static int restore(struct cli *c)
{
	CLEANUP_FREE char *path = cli_path("/v1/snapshots", c->args[0], "/restore");
	json_t *body = json_object(), *in = NULL;
	char what[100];
	int r;

	snprintf(what, sizeof(what), "restore %s", c->args[0]);
	r = path && body ? cli_call(c, "POST", path, body, what, &in)
			 : cli_error(CLI_FAILED, what, "out of memory");
	json_decref(body);
	if (r)
		return r;
	if (c->wait)
		r = wait_restored(c, what, &in);
	if (c->json && r != CLI_UNREACHABLE)
		cli_print_json(in);
	else if (!c->json && !r)
		printf("%s: %s out of %s, %s\n", cli_str(in, "id") ?: "?",
		       cli_str(in, "guest") ?: "guest", c->args[0],
		       cli_str(in, "phase") ?: "started");
	json_decref(in);
	return r;
}

/* --- micro-VMs --- */

/* The agent has another working directory. Return: new string for free(3), NULL when out of memory */
static char *absolute(const char *path)
{
	CLEANUP_FREE char *cwd = path[0] == '/' ? NULL : getcwd(NULL, 0);
	char *out;

	if (path[0] == '/')
		return strdup(path);
	return cwd && asprintf(&out, "%s/%s", cwd, path) >= 0 ? out : NULL;
}

static void show_import(struct cli_progress *p, const json_t *im, bool event)
{
	double total = cli_num(im, "memory_bytes", 0), done = cli_num(im, "done_bytes", 0);
	char a[CLI_TEXT_MAX], b[CLI_TEXT_MAX];

	cli_progress_show(p, event, "%s: %s, %s of %s", cli_str(im, "name") ?: "?",
			  cli_str(im, "phase") ?: "?", cli_size(a, done), cli_size(b, total));
}

static int wait_imported(struct cli *c, const char *what, const char *name, json_t **im)
{
	CLEANUP_FREE char *path = cli_path("/v1/snapshots", name, NULL);
	int r = path ? CLI_OK : cli_error(CLI_FAILED, what, "out of memory");
	struct cli_progress p;
	uint64_t away_us = 0;

	cli_progress_init(&p);
	while (!r && !strcmp(cli_str(*im, "phase") ?: "?", "importing")) {
		json_t *newer = NULL;

		show_import(&p, *im, false);
		usleep(POLL_US);
		r = cli_poll(c, path, what, &away_us, &newer);
		if (newer) {
			json_decref(*im);
			*im = newer;
		}
	}
	cli_progress_end(&p);
	if (r || !strcmp(cli_str(*im, "phase") ?: "?", "completed"))
		return r;
	return cli_error(CLI_FAILED, what, "%s (%s)",
			 cli_str(*im, "error.message") ?: "no reason is known",
			 cli_str(*im, "error.code") ?: "-");
}

static int import(struct cli *c)
{
	const char *file = cli_str(c->opts, "--memory"), *name = cli_str(c->opts, "--name");
	CLEANUP_FREE char *memory = file ? absolute(file) : NULL;
	json_t *body, *im = NULL;
	char what[100], size[CLI_TEXT_MAX];
	int r;

	if (!file || !name)
		return cli_error(CLI_USAGE, "import", "--memory FILE and --name N are needed");
	snprintf(what, sizeof(what), "import %s", name);
	body = json_pack("{s:s, s:s}", "memory", memory ? memory : "", "name", name);
	r = memory && body ? cli_call(c, "POST", "/v1/snapshots", body, what, &im)
			   : cli_error(CLI_FAILED, what, "the path is no text");
	json_decref(body);
	if (r)
		return r;
	r = wait_imported(c, what, name, &im);
	if (c->json && r != CLI_UNREACHABLE)
		cli_print_json(im);
	else if (!c->json && !r)
		printf("%s: %s out of %s\n", name, cli_size(size, cli_num(im, "memory_bytes", 0)),
		       file);
	json_decref(im);
	return r;
}

/* "UID:GID", in numbers: the jailer of a micro-VM has no names. Return: new reference, or NULL */
static json_t *parse_owner(const char *s)
{
	unsigned int uid, gid;
	char rest;

	if (strspn(s, "0123456789:") != strlen(s) || sscanf(s, "%u:%u%c", &uid, &gid, &rest) != 2)
		return NULL;
	return json_pack("{s:I, s:I}", "uid", (json_int_t)uid, "gid", (json_int_t)gid);
}

static int uffd_body(struct cli *c, json_t **ret)
{
	const char *socket = cli_str(c->opts, "--socket"), *owner = cli_str(c->opts, "--owner");
	CLEANUP_FREE char *path = socket ? absolute(socket) : NULL;
	json_t *o = owner ? parse_owner(owner) : NULL;

	if (!socket)
		return cli_error(CLI_USAGE, "uffd", "--socket PATH is needed");
	if (owner && !o)
		return cli_error(CLI_USAGE, "uffd", "--owner: \"%s\" is not UID:GID in numbers",
				 owner);
	*ret = json_pack("{s:s, s:o*}", "socket", path ? path : "", "owner", o);
	return *ret ? CLI_OK : cli_error(CLI_FAILED, "uffd", "the path is no text");
}

static int uffd(struct cli *c)
{
	CLEANUP_FREE char *path = cli_path("/v1/snapshots", c->args[0], "/uffd");
	json_t *body = NULL, *in = NULL;
	char what[100];
	int r = uffd_body(c, &body);

	if (r)
		return r;
	snprintf(what, sizeof(what), "uffd %s", c->args[0]);
	r = path ? cli_call(c, "POST", path, body, what, &in)
		 : cli_error(CLI_FAILED, what, "out of memory");
	json_decref(body);
	if (r)
		return r;
	if (c->wait)
		r = wait_restored(c, what, &in);
	if (c->json && r != CLI_UNREACHABLE)
		cli_print_json(in);
	else if (!c->json && !r)
		printf("%s: a micro-VM of %s at %s, %s\n", cli_str(in, "id") ?: "?", c->args[0],
		       cli_str(in, "socket") ?: "?", cli_str(in, "phase") ?: "listening");
	json_decref(in);
	return r;
}

static const struct cli_option import_options[] = {
	{"--memory", "FILE", "raw memory, such as a micro-VM's snapshot leaves"},
	{"--name", "N", "of the image"},
	{NULL},
};

static const struct cli_option uffd_options[] = {
	{"--socket", "PATH", "where the micro-VM connects to, once (its uffd backend_path)"},
	{"--owner", "UID:GID", "whose the socket is (a jailed micro-VM's); default the agent's"},
	{NULL},
};

static const struct cli_command commands[] = {
	{"serve", "--config FILE", "run the agent", .options = cli_serve_options,
	 .run = cli_serve_misplaced},
	{"check", "", "what this host can and can't do", .run = cli_check},
	{"incoming", "[ID]", "show the guests that arrive or have arrived", 0, 1, .run = incoming},
	{"snapshots", "", "list the stored images", .run = snapshots},
	{"restore", "SNAPSHOT [--wait]", "start a guest from a stored image", 1, 1, .wait = true,
	 .run = restore},
	{"import", "--memory FILE --name N", "store a file of raw memory as an image",
	 .options = import_options, .run = import},
	{"uffd", "NAME --socket PATH [--owner UID:GID] [--wait]",
	 "serve the memory of one micro-VM out of an image", 1, 1, .options = uffd_options,
	 .wait = true, .run = uffd},
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
