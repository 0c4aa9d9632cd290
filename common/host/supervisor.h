/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The service manager that has started this agent, if one has: it is told that the agent is ready,
 * what it does, and, where it asked for that (WatchdogSec=), that its loop still runs; it may
 * hand over sockets on which it listens for the agent, and it keeps descriptors for the agent's next life
 * (FileDescriptorStoreMax=). See sd_notify(3), sd_listen_fds(3).
 *
 * What is kept outlives a crash and a restart of the unit. When the unit is stopped, its descriptors are closed:
 * with the last copy of a userfaultfd missing pages become zeros (DESIGN.md, rule 5). So what is kept is a
 * second line, never what a guest that has a copy of its own depends on. Only descriptors for missing faults may
 * be kept: one that tracks writes has to go with the agent, so that the writers go on (rule 8).
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

/** struct supervisor_fds - what was handed over at the start and nobody has taken yet */
struct supervisor_fds;

/**
 * supervisor_fds() - all that was handed over, close-on-exec
 *
 * Once in the life of a process. Return: 0 with @ret for supervisor_fds_free(), or -errno with @err filled
 */
int supervisor_fds(struct supervisor_fds **ret, struct error *err);
/** supervisor_fds_free() - closes what nobody has taken; what is kept stays so. NULL is fine */
void supervisor_fds_free(struct supervisor_fds *f);

/**
 * supervisor_sockets() - take the TCP sockets
 * @f:		may be NULL: there are none
 * @ret_fds:	new array, to be freed with its descriptors owned by the caller; NULL if none
 *
 * Anything else that was handed over and is not kept is refused by name: nobody would ever answer there.
 * Return: how many, or -errno with @err filled
 */
int supervisor_sockets(struct supervisor_fds *f, int **ret_fds, struct error *err);

/**
 * supervisor_keep() - ask that a copy of a descriptor be kept and handed over to the agent's next life
 * @name:	of letters, digits, dots and dashes; as long as a name of a unit at most
 *
 * Nobody says whether it is: where there is no service manager, or it keeps none, it is not.
 */
void supervisor_keep(const char *name, int fd);
/** supervisor_forget() - it is not needed any more; of a name that is not known it is nothing */
void supervisor_forget(const char *name);
/** supervisor_kept() - take what an earlier life had kept. Return: descriptor, owned by the caller; -ENOENT */
int supervisor_kept(struct supervisor_fds *f, const char *name);

/** supervisor_is_systemd() - Return: whether this process is a unit of a systemd that runs the host */
bool supervisor_is_systemd(void);

#endif
