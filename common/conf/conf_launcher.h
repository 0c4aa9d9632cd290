/* SPDX-License-Identifier: Apache-2.0 */
/* Launchers: what the destination executes for an arriving guest. */
#ifndef DECANT_CONF_LAUNCHER_H
#define DECANT_CONF_LAUNCHER_H

#include "conf/conf_guest.h"

/** CONF_ARGV_MAX - most words of a launcher */
#define CONF_ARGV_MAX 256

/**
 * struct conf_launcher - how an arriving guest is started; owns its memory
 * @name:	conf_guest_name_ok()
 * @driver:	of the guests it starts
 * @qmp:	qemu: where the socket of its monitor will be, placeholders still in it; NULL: NAME.qmp in
 *		run_dir. For a QEMU that may not make it there
 * @argv:	NULL-terminated; the first word is an absolute path; placeholders still in it
 */
struct conf_launcher {
	char name[CONF_NAME_MAX];
	enum guest_driver driver;
	char *qmp;
	char **argv;
};

/**
 * conf_launcher_read() - check and take over {"driver":…, "argv":[…], "qmp":…}
 * @name:	of the launcher
 *
 * Whatever stands in braces must be a placeholder that is known: {name}, {uuid}, {memory_bytes},
 * {run_dir}, {qmp}, {attach}, {var:KEY}. A mistake shall show when the agent starts, not when the
 * first guest arrives. Return: 0, or -errno with @at's error filled
 */
int conf_launcher_read(const json_t *json, const char *name, const struct jsonx_at *at,
		       struct conf_launcher *ret);

/** conf_launcher_clear() - free what is inside; a zeroed struct is fine */
void conf_launcher_clear(struct conf_launcher *l);

#endif
