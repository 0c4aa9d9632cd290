/* SPDX-License-Identifier: Apache-2.0 */
/* "hooks": who is told of every change of a job's phase, and who is asked before a guest is paused. */
#ifndef DECANT_CONF_HOOKS_H
#define DECANT_CONF_HOOKS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "util/error.h"
#include "util/jsonx.h"

/** CONF_HOOKS_MAX - most hooks of an agent */
#define CONF_HOOKS_MAX 16
/** CONF_HOOK_URL_MAX - longest url */
#define CONF_HOOK_URL_MAX 2000
/** CONF_HOOK_TIMEOUT_DEFAULT, CONF_HOOK_ATTEMPTS_DEFAULT, CONF_HOOK_RETRY_DEFAULT - of timeout_ms, attempts, retry_ms */
#define CONF_HOOK_TIMEOUT_DEFAULT  10000
#define CONF_HOOK_ATTEMPTS_DEFAULT 8
#define CONF_HOOK_RETRY_DEFAULT    1000

/**
 * enum conf_hook_error - what a gate that gives no answer amounts to
 * @CONF_HOOK_REFUSE: no
 * @CONF_HOOK_ALLOW:  yes
 */
enum conf_hook_error {
	CONF_HOOK_REFUSE,
	CONF_HOOK_ALLOW,
};

/**
 * struct conf_hook - one hook; owns its memory
 * @name:	of messages, metrics and of what waits on the disk: unique; made of @url or @exec if none is given
 * @url:	http or https, NULL for a command
 * @exec:	absolute path and arguments, NULL for a url
 * @events:	patterns of what it is told of; NULL: everything, or nothing if it is a gate
 * @secret_file: key of the signature, NULL without
 * @ca:		certificates that sign the server, NULL: the system's
 * @gate:	is asked before a guest is paused
 * @on_error:	of a gate
 * @timeout_ms:	for each attempt, and for each answer of a gate
 * @attempts:	most of them for one event
 * @retry_ms:	pause before the second one; each further one is twice as long
 */
struct conf_hook {
	char *name;
	char *url;
	char **exec;
	char **events;
	char *secret_file;
	char *ca;
	bool gate;
	enum conf_hook_error on_error;
	uint32_t timeout_ms;
	uint32_t attempts;
	uint32_t retry_ms;
};

/** struct conf_hooks - @n of them */
struct conf_hooks {
	struct conf_hook *hooks;
	size_t n;
};

/**
 * conf_hooks_read() - an array of hooks
 * @gates:	this agent asks gates
 * @ret:	for conf_hooks_clear(); not touched on failure
 *
 * Return: 0, or -errno with the error of @at filled
 */
int conf_hooks_read(const json_t *value, const struct jsonx_at *at, bool gates,
		    struct conf_hooks *ret);
/** conf_hooks_credentials() - conf_credential() of their files. Return: 0 or -errno with @err filled */
int conf_hooks_credentials(struct conf_hooks *c, struct error *err);
/** conf_hooks_clear() - free what is inside; a zeroed struct is fine */
void conf_hooks_clear(struct conf_hooks *c);

#endif
