/* SPDX-License-Identifier: Apache-2.0 */
/* Where native guests attach themselves: the agent's side of GUEST.md up to WELCOME. */
#ifndef DECANT_GUEST_ATTACH_H
#define DECANT_GUEST_ATTACH_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include "guest/driver.h"
#include "guest/share.h"
#include "util/error.h"
#include "util/loop.h"

struct attach;

/**
 * attach_fn - a guest has said and shown everything; does the agent want it?
 * @g:		complete and checked, but not yet welcomed: ask nothing of it before 0 was returned.
 *Call guest_watch() here
 * @err:	fill it when refusing; the guest is told code and message
 *
 * Return: 0 to accept: @g is the callee's, who calls guest_free() in the end; a negative errno to
 * refuse: @g is freed by the caller
 */
typedef int attach_fn(void *arg, struct guest *g, struct error *err);

/**
 * share_fn - a sharer has said hello; does the agent know whose memory it maps?
 * @s:		ask nothing of it before 0 was returned, but share_welcome()
 *
 * Return: 0 to accept: @s is the callee's, who calls share_free() in the end; a negative errno to
 * refuse: @s is freed by the caller
 */
typedef int share_fn(void *arg, struct share *s, struct error *err);

/**
 * struct attach_config - copied by attach_new()
 * @path:	socket to make (mode @mode; an old socket is replaced); ignored with @listen_fd
 * @mode:	permissions of the socket file, e.g. 0660
 * @listen_fd:	a listening SOCK_SEQPACKET socket (socket activation), or -1; taken over on success
 * @uids, @nuids: who may attach; none given: root and the agent's own user
 * @max_pending: connections without a complete hello, 0 means 64; more wait in the backlog
 * @hello_timeout_ms: time for the whole hello, 0 means 5000
 * @fn, @arg:	who decides
 * @share:	the same about sharers; NULL: there are none here
 */
struct attach_config {
	const char *path;
	mode_t mode;
	int listen_fd;
	const uid_t *uids;
	size_t nuids;
	unsigned int max_pending;
	unsigned int hello_timeout_ms;
	attach_fn *fn;
	share_fn *share;
	void *arg;
};

/** attach_new() - listen. Loop thread. Return: 0, or -errno with @err filled */
int attach_new(struct loop *loop, const struct attach_config *config, struct attach **ret,
	       struct error *err);
/** attach_free() - stop listening, drop unfinished connections and remove the socket file that
 * attach_new() made; guests already handed over stay. NULL is fine */
void attach_free(struct attach *a);

#endif
