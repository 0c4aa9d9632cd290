/* SPDX-License-Identifier: Apache-2.0 */
/* The description of a guest: in a configuration, in guests_dir, in POST /v1/guests, on the wire.
 */
#ifndef DECANT_CONF_GUEST_H
#define DECANT_CONF_GUEST_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include "util/error.h"
#include "util/jsonx.h"

/** CONF_NAME_MAX - a name and its NUL */
#define CONF_NAME_MAX 64
/** CONF_VARS_MAX - most launcher variables of a guest */
#define CONF_VARS_MAX 64
/** CONF_VAR_VALUE_MAX - bytes of one variable's value */
#define CONF_VAR_VALUE_MAX 1024

/** enum guest_driver - how a guest is spoken to */
enum guest_driver { GUEST_DRIVER_NATIVE, GUEST_DRIVER_QEMU };
/** enum guest_disposal - what becomes of the source's copy after the receipt */
enum guest_disposal { GUEST_DISPOSAL_QUIT, GUEST_DISPOSAL_KEEP };

/**
 * struct conf_guest - one guest's description; owns its memory
 * @name:	conf_guest_name_ok()
 * @uuid:	lower case, "" if not told
 * @driver:	see enum guest_driver
 * @qmp:	path of its QMP socket (qemu), else NULL
 * @generation:	of a qemu guest, which cannot say itself how often it was moved
 * @launcher:	name of the launcher on the other host, NULL if not told
 * @vars:	object of strings for the launcher; never NULL, may be empty. One is for the driver, too:
 *		QEMU_VAR_NO_DMA of guest/qemu/qemu.h
 * @priority:	-1000..1000, higher leaves earlier
 * @disposal:	see enum guest_disposal
 */
struct conf_guest {
	char name[CONF_NAME_MAX];
	char uuid[37];
	enum guest_driver driver;
	char *qmp;
	uint64_t generation;
	char *launcher;
	json_t *vars;
	int priority;
	enum guest_disposal disposal;
};

/**
 * conf_guest_read() - check and take over a description
 * @where:	path to @json for messages ("guests[2]", "body")
 * @ret:	for conf_guest_clear()
 *
 * Return: 0, or -EINVAL (code "bad-guest"), -ENOTSUP or -ENOMEM with @err filled
 */
int conf_guest_read(const json_t *json, const char *where, struct conf_guest *ret,
		    struct error *err);

/** conf_guest_json() - Return: new reference, readable by conf_guest_read(); NULL when out of
 * memory */
json_t *conf_guest_json(const struct conf_guest *g);

/** conf_guest_copy() - a deep copy for conf_guest_clear(). Return: 0 or -ENOMEM */
int conf_guest_copy(const struct conf_guest *g, struct conf_guest *ret);

/** conf_guest_clear() - free what is inside; a zeroed struct is fine */
void conf_guest_clear(struct conf_guest *g);

/** conf_guest_name_ok() - Return: does @s match [A-Za-z0-9][A-Za-z0-9._-]{0,62}? (guests,
 * launchers) */
bool conf_guest_name_ok(const char *s);
/** conf_guest_var_ok() - Return: is @value printable ASCII without quotes, backslash, braces, '$'
 * and '`', up to CONF_VAR_VALUE_MAX? */
bool conf_guest_var_ok(const char *value);
/** conf_guest_drivers() - Return: the names of enum guest_driver, NULL behind the last */
const char *const *conf_guest_drivers(void);
const char *conf_guest_driver_name(enum guest_driver d);

#endif
