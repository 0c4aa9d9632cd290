/* SPDX-License-Identifier: Apache-2.0 */
/* decant resolve: say what a decision risks, have the id typed, take it, and say what became of it. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "cli_priv.h"
#include "util/cleanup.h"

/* How often, and how long, it is looked whether the guest was let go. */
#define POLL_US    100000
#define POLL_TIMES 100

/* Return: what the agent says of this decision about this migration; NULL if it cannot be taken */
static const char *risk(const json_t *m, const char *keep)
{
	char path[40];

	snprintf(path, sizeof(path), "resolve.%s", keep);
	return cli_str(m, path);
}

/* Ids may be abbreviated everywhere else: here the whole of it is proof that somebody has looked. */
static int ask(const char *what, const char *why, const char *id, char **ret)
{
	CLEANUP_FREE char *line = NULL;
	size_t cap = 0;
	ssize_t n;

	if (!isatty(STDIN_FILENO))
		return cli_error(CLI_REFUSED, what, "%s. To do it, give --confirm %s", why, id);
	fprintf(stderr, "%s.\nType the id of the migration (%s) to do it: ", why, id);
	n = getline(&line, &cap, stdin);
	if (n > 0 && line[n - 1] == '\n')
		line[n - 1] = '\0';
	if (n <= 0 || strcmp(line, id) != 0)
		return cli_error(CLI_REFUSED, what, "that is not the id: nothing has been decided");
	*ret = steal_ptr(&line);
	return CLI_OK;
}

static int confirmed(struct cli *c, const json_t *m, const char *keep, const char *what, char **ret)
{
	const char *given = json_string_value(json_object_get(c->opts, "--confirm"));
	const char *why = risk(m, keep);

	if (given || !why) {
		/* The agent says what speaks against it. */
		*ret = strdup(given ? given : "");
		return *ret ? CLI_OK : cli_error(CLI_FAILED, what, "out of memory");
	}
	return ask(what, why, cli_str(m, "id") ?: "", ret);
}

static int decide(struct cli *c, const char *path, const char *keep, const char *confirm,
		  const char *what, json_t **ret)
{
	CLEANUP_FREE char *url = cli_path(path, "resolve", NULL);
	json_t *body = json_pack("{s:s, s:s}", "keep", keep, "confirm", confirm);
	int r = url && body ? cli_call(c, "POST", url, body, what, ret)
			    : cli_error(CLI_USAGE, what, "--confirm: is no text");

	json_decref(body);
	return r;
}

/* Until the guest here goes on, or cannot. */
static int await(struct cli *c, const char *path, const char *what, json_t **m)
{
	uint64_t away = 0;
	json_t *newer;
	int r = CLI_OK;

	for (int i = 0; !r && i < POLL_TIMES; i++) {
		if (strcmp(cli_str(*m, "resolution.state") ?: "", "acting") != 0)
			break;
		usleep(POLL_US);
		r = cli_poll(c, path, what, &away, &newer);
		if (newer) {
			json_decref(*m);
			*m = newer;
		}
	}
	return r;
}

static int outcome(struct cli *c, const char *what, const json_t *m)
{
	const char *state = cli_str(m, "resolution.state") ?: "?";

	if (!strcmp(state, "failed") || !strcmp(state, "acting"))
		return cli_error(CLI_FAILED, what, "the guest could not be let go here: %s",
				 cli_str(m, "resolution.last_error.message") ?: "no answer yet");
	if (c->json)
		return CLI_OK;
	printf("%s: kept at the %s; the job is %s\n", cli_str(m, "guest") ?: "guest",
	       cli_str(m, "resolution.keep") ?: "?", cli_str(m, "phase") ?: "?");
	if (!strcmp(state, "telling"))
		printf("%s is told as soon as it can be reached: decant status %s\n",
		       cli_str(m, "to") ?: "the destination", cli_str(m, "id") ?: "");
	return CLI_OK;
}

int cli_resolve(struct cli *c)
{
	const char *keep = json_string_value(json_object_get(c->opts, "--keep"));
	CLEANUP_FREE char *path = NULL, *confirm = NULL;
	json_t *m, *after = NULL;
	char what[100];
	int r;

	if (!keep || (strcmp(keep, "source") != 0 && strcmp(keep, "destination") != 0))
		return cli_error(CLI_USAGE, "resolve", "--keep source or --keep destination is %s",
				 keep ? "possible" : "missing");
	snprintf(what, sizeof(what), "resolve %s", c->args[0]);
	r = cli_find(c, "/v1/migrations", "migration", c->args[0], &m);
	if (r)
		return r;
	path = cli_path("/v1/migrations", cli_str(m, "id") ?: "", NULL);
	r = path ? confirmed(c, m, keep, what, &confirm)
		 : cli_error(CLI_FAILED, what, "out of memory");
	if (!r)
		r = decide(c, path, keep, confirm, what, &after);
	if (!r)
		r = await(c, path, what, &after);
	if (!r)
		r = outcome(c, what, after);
	if (after && c->json)
		cli_print_json(after);
	json_decref(after);
	json_decref(m);
	return r;
}
