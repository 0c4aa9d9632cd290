/* SPDX-License-Identifier: Apache-2.0 */
/* From argv to a command: options before and after its name, help, errors. */
#include "cli/cli.h"

#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "conf/conf_options.h"
#include "util/cleanup.h"
#include "util/fdio.h"
#include "util/text.h"

/* A token and what may stand before it. */
#define TOKEN_FILE_MAX 65536
/* What parse_*() return when the command shall run; otherwise an exit code. */
#define GO_ON (-1)

int cli_error(int code, const char *what, const char *why_fmt, ...)
{
	char why[1024], line[1200];
	va_list ap;

	va_start(ap, why_fmt);
	vsnprintf(why, sizeof(why), why_fmt, ap);
	va_end(ap);
	snprintf(line, sizeof(line), "decant: %s: %s", what, why);
	text_clean(line);
	fflush(stdout);
	fprintf(stderr, "%s\n", line);
	return code;
}

int cli_error_of(int code, const char *what, const struct error *err)
{
	return cli_error(code, what, "%s", err->msg);
}

static const struct cli_command *find_command(const struct cli_program *p, const char *name)
{
	for (const struct cli_command *cmd = p->commands; cmd->name; cmd++)
		if (!strcmp(cmd->name, name))
			return cmd;
	return NULL;
}

/* --- help --- */

static const struct cli_option shared_options[] = {
	{"--api", "unix:PATH|https://HOST:PORT", "where the agent's REST interface is"},
	{"--token-file", "FILE", "https: the token is the last word of its first line"},
	{"--cacert", "FILE",
	 "https: authorities of the agent's certificate (default: the system's)"},
	{"--cert", "FILE", "https: our certificate"},
	{"--key", "FILE", "https: its key"},
	{"--json", NULL, "one JSON document instead of text"},
	{"--help", NULL, "this text"},
	{NULL},
};

static void help_option(const char *name, const char *value, const char *help)
{
	char left[80];

	snprintf(left, sizeof(left), "%s%s%s", name, value ? " " : "", value ? value : "");
	printf("  %-40s %s\n", left, help);
}

static void help_program(const struct cli_program *p)
{
	printf("usage: %s COMMAND [ARGUMENTS] [OPTIONS]\n\n", p->name);
	for (const struct cli_command *cmd = p->commands; cmd->name; cmd++)
		printf("  %-14s %s%s\n", cmd->name, cmd->help,
		       cmd->run ? "" : " (not supported yet)");
	printf("\nOptions of every command, before or after it:\n");
	for (const struct cli_option *o = shared_options; o->name; o++)
		help_option(o->name, o->value, o->help);
	help_option("--version", NULL, "the version");
	printf("\nThe agent is asked at %s unless --api says otherwise.\n"
	       "Exit: 0 done, 1 failed or cancelled, 2 wrong use, 3 refused, 4 agent not "
	       "reachable.\n",
	       p->default_api);
}

static void help_tuning(void)
{
	size_t n;
	const struct conf_option_help *h = conf_options_help(&n);

	printf("\nTuning (defaults are the agent's configuration):\n");
	for (size_t i = 0; i < n; i++)
		help_option(h[i].name, h[i].value, h[i].help);
}

static void help_command(const struct cli_program *p, const struct cli_command *cmd)
{
	printf("usage: %s %s %s\n\n%s%s\n\n", p->name, cmd->name, cmd->args, cmd->help,
	       cmd->run ? "" : " (not supported yet)");
	for (const struct cli_option *o = cmd->options; o && o->name; o++)
		help_option(o->name, o->value, o->help);
	if (cmd->wait)
		help_option("--wait", NULL, "stay until it has ended, showing progress");
	for (const struct cli_option *o = shared_options; o->name; o++)
		help_option(o->name, o->value, o->help);
	if (cmd->tuning)
		help_tuning();
}

static int help(const struct cli *c)
{
	if (c->command)
		help_command(c->prog, c->command);
	else
		help_program(c->prog);
	return CLI_OK;
}

/* --- options --- */

/**
 * struct words - the command line while it is taken apart
 * @argv:	@argc words
 * @i:		the next one
 * @name:	of the option that is being read, without "=VALUE"
 * @value:	what stood behind '=', NULL if there was none
 */
struct words {
	int argc;
	char **argv;
	int i;
	char name[64];
	const char *value;
};

static const char *subject(const struct cli *c)
{
	return c->command ? c->command->name : "command line";
}

/* The option's value: behind its '=' or the next word. Return: GO_ON or CLI_USAGE */
static int want_value(struct cli *c, struct words *w)
{
	if (!w->value && w->i < w->argc)
		w->value = w->argv[w->i++];
	if (w->value)
		return GO_ON;
	return cli_error(CLI_USAGE, subject(c), "%s needs a value", w->name);
}

static int want_none(struct cli *c, struct words *w)
{
	if (!w->value)
		return GO_ON;
	return cli_error(CLI_USAGE, subject(c), "%s takes no value", w->name);
}

/* A line of an agent's token file does as well as a token alone. */
static int read_token(struct cli *c, const char *file)
{
	char *text, *word, *save = NULL;
	ssize_t n = fdio_read_file(file, TOKEN_FILE_MAX, &text);

	if (n < 0)
		return cli_error(CLI_USAGE, subject(c), "--token-file: %s: %s", file,
				 strerror((int)-n));
	text[strcspn(text, "\r\n")] = '\0';
	free(steal_ptr(&c->token));
	for (word = strtok_r(text, " \t", &save); word; word = strtok_r(NULL, " \t", &save)) {
		free(c->token);
		c->token = strdup(word);
	}
	free(text);
	c->creds.token = c->token;
	for (const char *p = c->token; p && *p; p++)
		if (*p <= 0x20 || *p >= 0x7f)
			return cli_error(CLI_USAGE, subject(c), "--token-file: %s: no token in it",
					 file);
	return c->token ? GO_ON
			: cli_error(CLI_USAGE, subject(c), "--token-file: %s is empty", file);
}

/* Return: as parse_shared() */
static int parse_creds(struct cli *c, struct words *w)
{
	const struct {
		const char *name;
		const char **into;
	} files[] = {{"--token-file", NULL},
		     {"--cacert", &c->creds.ca},
		     {"--cert", &c->creds.cert},
		     {"--key", &c->creds.key}};

	for (size_t i = 0; i < ARRAY_SIZE(files); i++) {
		int r;

		if (strcmp(w->name, files[i].name) != 0)
			continue;
		r = want_value(c, w);
		if (r != GO_ON || !files[i].into)
			return r == GO_ON ? read_token(c, w->value) : r;
		*files[i].into = w->value;
		return GO_ON;
	}
	return -ENOENT;
}

/* Return: GO_ON, an exit code, or -ENOENT if it is none of the options that all commands share */
static int parse_shared(struct cli *c, struct words *w)
{
	int r;

	if (!strcmp(w->name, "--api")) {
		r = want_value(c, w);
		c->api = r == GO_ON ? w->value : NULL;
		c->api_given = true;
		return r;
	}
	r = parse_creds(c, w);
	if (r != -ENOENT)
		return r;
	if (!strcmp(w->name, "--json")) {
		c->json = true;
		return want_none(c, w);
	}
	if (!strcmp(w->name, "--wait") && c->command && c->command->wait) {
		c->wait = true;
		return want_none(c, w);
	}
	if (!strcmp(w->name, "--help") || !strcmp(w->name, "-h"))
		return help(c);
	if (!strcmp(w->name, "--version")) {
		printf("%s %s\n", c->prog->name, DECANT_VERSION);
		return CLI_OK;
	}
	return -ENOENT;
}

static bool many(const struct cli *c, const struct cli_option *o)
{
	return c->command->many && !strcmp(c->command->many, o->name);
}

/* Return: 0 or -1 */
static int keep(struct cli *c, const struct cli_option *o, const struct words *w)
{
	json_t *value = o->value ? json_string(w->value) : json_true();
	json_t *all = json_object_get(c->opts, w->name);

	if (!many(c, o))
		return json_object_set_new(c->opts, w->name, value);
	if (!all) {
		all = json_array();
		json_object_set_new(c->opts, w->name, all);
	}
	return json_array_append_new(all, value);
}

static int parse_own(struct cli *c, struct words *w)
{
	for (const struct cli_option *o = c->command->options; o && o->name; o++) {
		int r;

		if (strcmp(o->name, w->name) != 0)
			continue;
		if (!many(c, o) && json_object_get(c->opts, w->name))
			return cli_error(CLI_USAGE, subject(c), "%s is there twice", w->name);
		r = o->value ? want_value(c, w) : want_none(c, w);
		if (r == GO_ON && keep(c, o, w) < 0)
			return cli_error(CLI_USAGE, subject(c), "%s: the value is no text",
					 w->name);
		return r;
	}
	return -ENOENT;
}

static int parse_tuning(struct cli *c, struct words *w)
{
	struct error err = {0};
	int takes = conf_options_arg_takes(w->name + 2), r = GO_ON;

	if (takes < 0)
		return -ENOENT;
	if (takes)
		r = want_value(c, w);
	else
		r = want_none(c, w);
	if (r != GO_ON)
		return r;
	r = conf_options_arg(w->name + 2, w->value, c->tuning, &err);
	if (r < 0)
		return cli_error_of(r == -ENOTSUP ? CLI_REFUSED : CLI_USAGE, subject(c), &err);
	return GO_ON;
}

static int parse_option(struct cli *c, struct words *w, const char *word)
{
	size_t n = strcspn(word, "=");
	int r;

	snprintf(w->name, sizeof(w->name), "%.*s", (int)MIN(n, sizeof(w->name) - 1), word);
	w->value = word[n] ? word + n + 1 : NULL;
	r = parse_shared(c, w);
	if (r == -ENOENT && c->command)
		r = parse_own(c, w);
	if (r == -ENOENT && c->command && c->command->tuning && !strncmp(w->name, "--", 2))
		r = parse_tuning(c, w);
	if (r == -ENOENT)
		return cli_error(CLI_USAGE, subject(c), "unknown option %s (see --help)", w->name);
	return r;
}

static int parse_word(struct cli *c, struct words *w, const char *word)
{
	if (c->command && c->n_args < MIN(c->command->max, (size_t)CLI_ARGS_MAX)) {
		c->args[c->n_args++] = word;
		return GO_ON;
	}
	if (c->command)
		return cli_error(CLI_USAGE, subject(c), "\"%s\" is one argument too many", word);
	c->command = find_command(c->prog, word);
	if (!c->command)
		return cli_error(CLI_USAGE, subject(c), "no command \"%s\" (see --help)", word);
	if (c->command->run)
		return GO_ON;
	/* Nothing is known of its arguments; only its help can be had. */
	for (; w->i < w->argc; w->i++)
		if (!strcmp(w->argv[w->i], "--help") || !strcmp(w->argv[w->i], "-h"))
			return help(c);
	return cli_error(CLI_REFUSED, word, "not supported yet");
}

static int parse(struct cli *c, struct words *w)
{
	bool options = true;
	int r = GO_ON;

	while (r == GO_ON && w->i < w->argc) {
		const char *word = w->argv[w->i++];

		if (options && !strcmp(word, "--"))
			options = false;
		else if (options && word[0] == '-' && word[1])
			r = parse_option(c, w, word);
		else
			r = parse_word(c, w, word);
	}
	if (r != GO_ON)
		return r;
	if (!c->command)
		return cli_error(CLI_USAGE, subject(c), "no command given (see --help)");
	if (c->n_args < c->command->min)
		return cli_error(CLI_USAGE, subject(c), "argument missing: %s", c->command->args);
	return GO_ON;
}

int cli_main(const struct cli_program *p, int argc, char **argv)
{
	struct cli c = {.prog = p, .api = p->default_api, .patience_s = CLI_PATIENCE_S};
	struct words w = {.argc = argc, .argv = argv, .i = 1};
	int r;

	signal(SIGPIPE, SIG_IGN); /* an agent that goes away is an answer, not our end */
	c.opts = json_object();
	c.tuning = json_object();
	r = parse(&c, &w);
	if (r == GO_ON)
		r = c.command->run(&c);
	if (fflush(stdout) && r == CLI_OK)
		r = cli_error(CLI_FAILED, "stdout", "%s", strerror(errno));
	json_decref(c.opts);
	json_decref(c.tuning);
	free(c.token);
	return r;
}

/* --- serve --- */

const struct cli_option cli_serve_options[] = {
	{"--config", "FILE", "the agent's configuration"},
	{NULL},
};

int cli_serve_misplaced(struct cli *c)
{
	(void)c;
	return cli_error(CLI_USAGE, "serve", "must be the first word");
}

int cli_serve_args(const char *prog, int argc, char **argv, const char **ret_config)
{
	const char *config = NULL;

	for (int i = 2; i < argc; i++) {
		if (!strcmp(argv[i], "--help") || !strcmp(argv[i], "-h")) {
			printf("usage: %s serve --config FILE\n", prog);
			return CLI_OK;
		}
		if (!strncmp(argv[i], "--config=", 9))
			config = argv[i] + 9;
		else if (!strcmp(argv[i], "--config") && i + 1 < argc)
			config = argv[++i];
		else if (!strcmp(argv[i], "--config"))
			return cli_error(CLI_USAGE, "serve", "--config needs a value");
		else
			return cli_error(CLI_USAGE, "serve", "unknown argument %s", argv[i]);
	}
	if (!config)
		return cli_error(CLI_USAGE, "serve", "--config FILE is missing");
	*ret_config = config;
	return -1;
}
