/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Command line of the programs: a table of subcommands, the options that all of them share, exit
 * codes and the one-line errors of the contract. Functions here may print; none of them exits.
 */
#ifndef DECANT_CLI_H
#define DECANT_CLI_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "rest/rest_client.h"
#include "util/error.h"

/** enum cli_exit - what a program ends with */
enum cli_exit {
	CLI_OK = 0,
	CLI_FAILED = 1,
	CLI_USAGE = 2,
	CLI_REFUSED = 3,
	CLI_UNREACHABLE = 4,
};

/** CLI_PATIENCE_S - how long --wait stands an agent that is away, or a job in doubt */
#define CLI_PATIENCE_S 60
/** CLI_ARGS_MAX - most words of a command line */
#define CLI_ARGS_MAX 128

/**
 * struct cli - a command line, taken apart
 * @prog:	the program, see struct cli_program
 * @command:	the command's row, NULL until it is known
 * @api:	of --api or the default
 * @api_given:	--api was there
 * @creds:	of --token-file, --cacert, --cert, --key; for https
 * @token:	owned: what --token-file holds
 * @json:	--json was given
 * @wait:	--wait was given
 * @patience_s:	how long waiting stands an agent that is away or a job in doubt (CLI_PATIENCE_S)
 * @args, @n_args: words that are no options
 * @opts:	object of the command's own options: {"--name": "x", "--start": true, "--to": ["a", "b"]}, see struct
 * cli_option
 */
struct cli {
	const struct cli_program *prog;
	const struct cli_command *command;
	const char *api;
	bool api_given;
	struct rest_creds creds;
	char *token;
	bool json;
	bool wait;
	unsigned int patience_s;
	const char *args[CLI_ARGS_MAX];
	size_t n_args;
	json_t *opts;
	json_t *tuning;
};

/**
 * struct cli_option - an option of one command
 * @name:	with the dashes; NULL ends the table
 * @value:	what its value is called in the help, NULL if it takes none
 * @help:	one line
 */
struct cli_option {
	const char *name;
	const char *value;
	const char *help;
};

/**
 * struct cli_command - one row of the table of commands
 * @name:	the word; NULL ends the table
 * @args:	its arguments for the help ("GUEST --to HOST[:PORT]")
 * @help:	one line; what `help` lists
 * @min, @max:	how many arguments it takes
 * @options:	its own options, NULL if none
 * @many:	one of them that may be there several times: its values are an array, always; NULL if none may
 * @tuning:	it takes the migration options of conf_options.h, too; they land in @opts as
 * "options"
 * @wait:	it takes --wait
 * @offline:	it asks no agent: --api is refused
 * @run:	NULL for a command of the contract that is not there: "not supported yet", exit 3
 */
struct cli_command {
	const char *name;
	const char *args;
	const char *help;
	size_t min;
	size_t max;
	const struct cli_option *options;
	const char *many;
	bool tuning;
	bool wait;
	int (*run)(struct cli *c);
};

/**
 * struct cli_program - a program's commands
 * @name:	as shown in help and version
 * @default_api: used without --api
 * @commands:	ends with a NULL name
 */
struct cli_program {
	const char *name;
	const char *default_api;
	const struct cli_command *commands;
};

/**
 * cli_main() - take the command line apart and run its command
 *
 * SIGPIPE is ignored from here on. Return: enum cli_exit
 */
int cli_main(const struct cli_program *p, int argc, char **argv);

/* What the row of `serve` is made of in a table of commands; main() sees to it by itself. */
extern const struct cli_option cli_serve_options[];
int cli_serve_misplaced(struct cli *c);

/**
 * cli_serve_args() - the command line of `serve --config FILE`
 * @argc, @argv: of the program, argv[1] is "serve"
 * @ret_config:	points into @argv
 *
 * Return: -1 if the daemon shall go on with @ret_config, else the exit code (--help, wrong use)
 */
int cli_serve_args(const char *prog, int argc, char **argv, const char **ret_config);

/* --- errors --- */

/** cli_error() - "decant: WHAT: WHY" on stderr. Return: @code, for a return statement */
int cli_error(int code, const char *what, const char *why_fmt, ...)
	__attribute__((format(printf, 3, 4)));
/** cli_error_of() - the same from a struct error */
int cli_error_of(int code, const char *what, const struct error *err);

/* --- asking the agent --- */

/**
 * cli_call() - one request to @c's agent
 * @what:	for the error line
 * @ret:	filled when CLI_OK is returned; for json_decref()
 *
 * Return: CLI_OK, or the exit code after an error line: CLI_UNREACHABLE, CLI_REFUSED (the agent
 * said no, or cannot do that), CLI_FAILED (it failed: another status 5xx)
 */
int cli_call(struct cli *c, const char *method, const char *path, const json_t *body,
	     const char *what, json_t **ret);

/**
 * cli_path() - "PREFIX/NAME" and @suffix (or NULL), NAME percent-encoded
 *
 * Return: new string for free(), NULL when out of memory
 */
char *cli_path(const char *prefix, const char *name, const char *suffix);

/**
 * cli_poll() - look at an object again, while its agent may be restarting
 * @since_us:	0 at first; kept between calls: since when the agent has been unreachable
 * @ret:	the object, or NULL if the agent cannot be reached but that is not long yet
 *
 * Return: as cli_call(); CLI_UNREACHABLE after @c's patience_s without an answer
 */
int cli_poll(struct cli *c, const char *path, const char *what, uint64_t *since_us, json_t **ret);

/** cli_list() - all items of a list, page by page. Return: as cli_call(), @ret is an array */
int cli_list(struct cli *c, const char *path, const char *what, json_t **ret);

/**
 * cli_find() - the item whose "id" starts with @id, if there is just one
 * @list_path:	"/v1/migrations"
 * @noun:	"migration", for the error line
 *
 * Return: as cli_call(); CLI_REFUSED if none or several match
 */
int cli_find(struct cli *c, const char *list_path, const char *noun, const char *id, json_t **ret);
/** cli_find_any() - the same in several lists, of which the last is followed by NULL */
int cli_find_any(struct cli *c, const char *const lists[], const char *noun, const char *id,
		 json_t **ret);

/* --- output --- */

/**
 * cli_print_json() - one document and a newline on stdout
 *
 * Return: CLI_OK, CLI_FAILED if stdout is broken
 */
int cli_print_json(const json_t *json);

/** CLI_TEXT_MAX - bytes of one formatted quantity */
#define CLI_TEXT_MAX 32
/** cli_size() - "1.50 GiB" of bytes. Return: @buf */
char *cli_size(char buf[static CLI_TEXT_MAX], double bytes);
/** cli_rate() - "5.21 Gbit/s" of bytes a second. Return: @buf */
char *cli_rate(char buf[static CLI_TEXT_MAX], double bytes_per_s);
/** cli_duration() - "850 us", "12.3 ms", "4.2 s", "3m07s", "2h05m" of microseconds. Return: @buf */
char *cli_duration(char buf[static CLI_TEXT_MAX], double us);

struct cli_table;
/**
 * cli_table_new() - a table whose columns are as wide as their widest cells
 * @right:	bit i: column i is aligned to the right
 *
 * Return: NULL when out of memory, which the functions below take as well
 */
struct cli_table *cli_table_new(size_t columns, unsigned int right);
/** cli_table_row() - add a row of as many strings as there are columns; NULL is "-" */
void cli_table_row(struct cli_table *t, const char *const *cells);
/** cli_table_print() - write it to stdout and free it. Return: CLI_OK or CLI_FAILED */
int cli_table_print(struct cli_table *t);

/**
 * struct cli_progress - a line that is written over on a terminal, new lines elsewhere (stderr)
 * @last:	what was written last
 * @shown_us:	when
 * @tty:	stderr is a terminal
 * @open:	the cursor stands behind an unfinished line
 */
struct cli_progress {
	char last[240];
	uint64_t shown_us;
	bool tty;
	bool open;
};

void cli_progress_init(struct cli_progress *p);
/**
 * cli_progress_show() - show a line
 * @event:	it says something new (a change of phase): shown at once. Otherwise off a terminal
 *at most one line every 5 s, and never the same line twice
 */
void cli_progress_show(struct cli_progress *p, bool event, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));
/** cli_progress_end() - finish an unfinished line */
void cli_progress_end(struct cli_progress *p);

/**
 * cli_print_object() - every member, a line each, in words: "memory.sent_bytes  1.50 GiB"
 *
 * The unit is taken from the name's end (_bytes, _us, _s, bytes_per_s). Return: as above
 */
int cli_print_object(const json_t *o);

/* --- reading JSON leniently: an agent may be newer than this program --- */

/** cli_str() - string at a dotted path ("error.message"), NULL if it is not there */
const char *cli_str(const json_t *o, const char *path);
/** cli_num() - number at a dotted path, @dflt if it is not there */
double cli_num(const json_t *o, const char *path, double dflt);

#endif
