/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Starting the process of an arriving guest. What is executed comes from this host's own
 * configuration; the peer only fills placeholders, and only with values of a strict pattern. No
 * shell is involved. The process outlives the agent: under systemd it has a unit of its own
 * (launch_unit.h), elsewhere a session of its own.
 *
 * Loop thread only.
 */
#ifndef DECANT_LAUNCH_H
#define DECANT_LAUNCH_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include "msg.h"
#include "util/error.h"
#include "util/loop.h"

/**
 * struct launch_facts - what placeholders stand for; all borrowed
 * @launcher:	its name, for messages
 * @name:	of the guest, conf_guest_name_ok()
 * @uuid:	as text
 * @memory_bytes: decimal
 * @run_dir:	of the agent
 * @attach:	socket where the guest attaches itself
 * @qmp:	where a QEMU makes the socket of its monitor; NULL for others
 * @vars, @nvars: of the guest, unchecked
 */
struct launch_facts {
	const char *launcher;
	const char *name;
	const char *uuid;
	const char *memory_bytes;
	const char *run_dir;
	const char *attach;
	const char *qmp;
	const struct msg_var *vars;
	size_t nvars;
};

/**
 * launch_argv() - fill the placeholders of a launcher
 * @words:	NULL-terminated, from the configuration
 * @ret:	new NULL-terminated array for launch_argv_free()
 *
 * Return: 0, or -errno with @err filled: codes launcher-placeholder (one that is not known) and
 * launcher-var (the guest lacks it, or its value is not allowed)
 */
int launch_argv(char *const *words, const struct launch_facts *f, char ***ret, struct error *err);
/** launch_argv_free() - NULL is fine */
void launch_argv_free(char **argv);

struct launch;
struct launch_units;

/**
 * launch_exit_fn - the process has ended and was reaped, or systemd could not start it
 * @how:	"exit status 1", "killed by signal 11 (Segmentation fault)"
 *
 * launch_free() may be called here.
 */
typedef void launch_exit_fn(void *arg, const char *how);

/**
 * struct launch_spec - what to start
 * @argv:	filled; argv[0] is an absolute path
 * @log_path:	stdout and stderr are appended to this file (made with mode 0640)
 * @token:	one-time token of MSG_TOKEN_LEN bytes: DECANT_INCOMING in hex
 * @attach:	DECANT_ATTACH
 * @units:	systemd, if the guest is to have a unit; else NULL
 * @name, @id:	of the guest and of what brings it (at least 8 characters): for the name of a unit
 */
struct launch_spec {
	char *const *argv;
	const char *log_path;
	const uint8_t *token;
	const char *attach;
	struct launch_units *units;
	const char *name;
	const char *id;
};

/**
 * launch_start() - start it
 *
 * As a unit where systemd can be asked. Otherwise as our child: its own session, stdin /dev/null, no
 * other descriptor of ours, default signals and mask.
 *
 * Return: 0, or -errno with @err filled: the program is not there, may not be executed …
 */
int launch_start(struct loop *loop, const struct launch_spec *spec, launch_exit_fn *on_exit,
		 void *arg, struct launch **ret, struct error *err);
/** LAUNCH_TOKEN_MAX - bytes of launch_token() with the NUL */
#define LAUNCH_TOKEN_MAX (sizeof("DECANT_INCOMING=") + 2 * MSG_TOKEN_LEN)
/** launch_token() - the variable of the environment that has the token. A secret: to be wiped. Return: its length */
size_t launch_token(const uint8_t token[static MSG_TOKEN_LEN], char out[static LAUNCH_TOKEN_MAX]);
/**
 * launch_last_words() - the last two lines that the process wrote
 * @log_path:	what the spec said
 * @from:	size of that file before the launch
 * @out, @cap:	cleaned for a message; "" if it wrote nothing
 */
void launch_last_words(const char *log_path, off_t from, char *out, size_t cap);
/** launch_log_size() - Return: bytes in it now, 0 if there is none */
off_t launch_log_size(const char *log_path);
/** launch_watch() - hand it to another owner */
void launch_watch(struct launch *l, launch_exit_fn *on_exit, void *arg);
/** launch_pid() - Return: its pid; stays valid until @on_exit, because only then it is reaped. 0 of a unit */
pid_t launch_pid(const struct launch *l);
/** launch_kill() - SIGKILL; nothing if it has ended. Its end is told by @on_exit */
void launch_kill(struct launch *l);
/** launch_free() - stop watching; a process that lives goes on. NULL is fine */
void launch_free(struct launch *l);

#endif
