/* SPDX-License-Identifier: Apache-2.0 */
/* Launchers: what the destination executes for an arriving guest. */
#ifndef DECANT_CONF_LAUNCHER_H
#define DECANT_CONF_LAUNCHER_H

#include <stdint.h>
#include "conf/conf_guest.h"

/** CONF_ARGV_MAX - most words of a launcher */
#define CONF_ARGV_MAX 256

/**
 * struct conf_launcher - how an arriving guest is started; owns its memory
 * @name:	conf_guest_name_ok()
 * @driver:	of the guests it starts
 * @argv:	NULL-terminated; the first word is an absolute path; placeholders still in it
 */
struct conf_launcher {
	char name[CONF_NAME_MAX];
	enum guest_driver driver;
	char **argv;
};

/**
 * struct conf_launch - what is filled into the placeholders
 * @name, @uuid, @memory_bytes: {name}, {uuid}, {memory_bytes}
 * @run_dir, @qmp, @attach: {run_dir}, {qmp}, {attach}; NULL: a launcher that wants it is refused
 * @vars:	object of strings for {var:KEY}
 */
struct conf_launch {
	const char *name;
	const char *uuid;
	uint64_t memory_bytes;
	const char *run_dir;
	const char *qmp;
	const char *attach;
	const json_t *vars;
};

/**
 * conf_launcher_read() - check and take over {"driver":…, "argv":[…]}
 * @name:	of the launcher
 *
 * An unknown placeholder is an error: it would reach the program as it stands. Return: 0, or
 * -errno with @at's error filled
 */
int conf_launcher_read(const json_t *json, const char *name, const struct jsonx_at *at,
		       struct conf_launcher *ret);

/**
 * conf_launcher_argv() - the words to execute
 * @ret:	new NULL-terminated array for jsonx_strings_free()
 *
 * Values come from a peer: each must be conf_guest_var_ok(). Return: 0, -ENOENT for a {var:KEY}
 * that the guest does not have, -EINVAL, -ENOMEM with @err filled (code "bad-launcher")
 */
int conf_launcher_argv(const struct conf_launcher *l, const struct conf_launch *with, char ***ret,
		       struct error *err);

/** conf_launcher_clear() - free what is inside; a zeroed struct is fine */
void conf_launcher_clear(struct conf_launcher *l);

#endif
