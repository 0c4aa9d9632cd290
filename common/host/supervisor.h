/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The service manager that has started this agent, if one has: it is told that the agent is ready,
 * what it does, and, where it asked for that (WatchdogSec=), that its loop still runs; and it may
 * hand over sockets on which it listens for the agent. See sd_notify(3), sd_listen_fds(3).
 *
 * Loop thread only.
 */
#ifndef DECANT_HOST_SUPERVISOR_H
#define DECANT_HOST_SUPERVISOR_H

#include <stdbool.h>
#include <stddef.h>
#include "util/error.h"
#include "util/loop.h"

/** SUPERVISOR_STATUS_MAX - bytes of a status text, with its NUL */
#define SUPERVISOR_STATUS_MAX 160

/** supervisor_status_fn - one line about what the agent does; asked every few seconds at most */
typedef void supervisor_status_fn(void *arg, char out[static SUPERVISOR_STATUS_MAX]);

struct supervisor;

/**
 * supervisor_ready() - say READY=1, and from now on the status and that the loop runs
 * @status, @arg: borrowed until supervisor_free()
 * @ret:	NULL where there is no service manager to talk to, which is no failure
 *
 * The status is at most two seconds old. Return: 0 or -errno with @err filled
 */
int supervisor_ready(struct loop *loop, supervisor_status_fn *status, void *arg,
		     struct supervisor **ret, struct error *err);
/** supervisor_stopping() - say STOPPING=1; NULL is fine */
void supervisor_stopping(struct supervisor *s);
/** supervisor_free() - says nothing more; NULL is fine */
void supervisor_free(struct supervisor *s);

/**
 * supervisor_sockets() - the TCP sockets that were handed over
 * @ret_fds:	new array, close-on-exec, to be freed with its descriptors owned by the caller; NULL if none
 *
 * Once in the life of a process. Anything else that was handed over is refused by name: nobody would ever
 * answer there. Return: how many, or -errno with @err filled
 */
int supervisor_sockets(int **ret_fds, struct error *err);

/** supervisor_is_systemd() - Return: whether this process is a unit of a systemd that runs the host */
bool supervisor_is_systemd(void);

#endif
