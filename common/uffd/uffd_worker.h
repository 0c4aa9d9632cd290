/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Threads of the kernel that work in a process's address space, such as those of vhost-net, write through its
 * page tables. Whether write tracking sees them is tried.
 */
#ifndef DECANT_UFFD_UFFD_WORKER_H
#define DECANT_UFFD_UFFD_WORKER_H

#include "util/error.h"

/**
 * uffd_worker_seen() - is what a kernel's thread writes into this process's memory seen?
 *
 * It is tried with a thread of io_uring, which since kernel 6.4 is of the same sort as vhost's, on shared and on private
 * memory, with every kind of tracking that this host has (UFFD_TRACK_*). Takes milliseconds; a second at most.
 *
 * Return: 0; -EOPNOTSUPP with @err saying what was not seen; -ENODATA if it could not be tried
 */
int uffd_worker_seen(struct error *err);

#endif
