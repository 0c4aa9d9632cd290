/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Least privilege: what an agent gives up when it begins, so that whoever gets hold of it has no more than the
 * agent needs. It is the second line behind the confinement of its unit, and the only one outside of systemd.
 *
 * Capabilities that are kept, all of which an agent of another user than root does not have anyway:
 *
 *   CAP_SYS_PTRACE		a QEMU is made to open a userfaultfd; memory and /proc of guests of other users
 *   CAP_CHECKPOINT_RESTORE	/proc/PID/map_files of QEMUs of other users
 *   CAP_DAC_OVERRIDE		monitors, memory files and images that belong to other users
 *   CAP_KILL			guests that have left, or cannot be completed, are ended
 *   CAP_SYS_NICE		a thread of a QEMU that is stopped is real-time meanwhile; the urgent thread
 *   CAP_CHOWN			decant-dest: the socket of a micro-VM is given to the user that it is jailed as
 *   CAP_NET_BIND_SERVICE	only with a port below 1024
 *
 * Nothing of it may reach a guest. Guests that systemd starts have their own units. Where an agent starts them as
 * its children, what execve(2) passes on is left as it is: the bounding set, no_new_privs and system calls; then a
 * program of root gets all capabilities again. That is the price, and confine_text() says which of the two it is.
 */
#ifndef DECANT_HOST_CONFINE_H
#define DECANT_HOST_CONFINE_H

#include <stdbool.h>

#include "util/error.h"

/**
 * struct confine_wish - what an agent cannot do without
 * @starts_guests: as its children: they may not be confined
 * @gives_sockets: to other users (CAP_CHOWN)
 * @low_port:	it will listen below port 1024
 */
struct confine_wish {
	bool starts_guests;
	bool gives_sockets;
	bool low_port;
};

/**
 * confine() - give up all else, for good
 *
 * Of the calling thread and of what it starts: to be called while there is no other. Where the kernel, or whoever
 * has started the agent, does not let it, the rest is done all the same. Return: 0; -errno of the first step that
 * failed, with @err filled
 */
int confine(const struct confine_wish *wish, struct error *err);

/** CONFINE_TEXT_MAX - bytes of confine_text() */
#define CONFINE_TEXT_MAX 160
/** confine_text() - what holds now for this process, for the log. Return: @buf */
const char *confine_text(char buf[static CONFINE_TEXT_MAX]);

#endif
