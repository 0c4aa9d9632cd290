/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Forked children of an arriving guest. The guest's library keeps blocks out of them (MADV_DONTFORK); where
 * the guest has undone that, a child has the memory registered, too, and what it does not find would be
 * zeros to it, and in shared memory to everybody, as soon as nobody holds its descriptor (rule 5).
 * So shared blocks are served to it as to any further process that maps them (sharers.h). A child with
 * private blocks cannot be served: it is held where it touches what was missing when it was forked.
 *
 * The kernel tells of forks only if the agent has CAP_SYS_PTRACE (UFFD_F_EVENT_FORK). All of it belongs to the
 * fault thread.
 */
#ifndef DECANT_CHILDREN_H
#define DECANT_CHILDREN_H

#include <stddef.h>
#include "place.h"
#include "util/error.h"

/** CHILDREN_MAX - children that are held at a time; those that have ended do not count */
#define CHILDREN_MAX 64

/** struct children - zeroed at first. @fd: their userfaultfds, owned; @n: how many */
struct children {
	int fd[CHILDREN_MAX];
	size_t n;
};

/**
 * children_take() - the guest has forked
 * @fd:		userfaultfd of the child, taken over
 *
 * Return: 0; -EMFILE with @err filled beyond CHILDREN_MAX
 */
int children_take(struct children *c, struct place *p, int fd, struct error *err);
/** children_clear() - let them go on: every page is there, or the guest is ended (rule 5) */
void children_clear(struct children *c);

#endif
