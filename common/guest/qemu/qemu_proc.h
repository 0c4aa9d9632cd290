/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What /proc says of a QEMU: whether a process is the one behind a monitor's socket, what backs its
 * memory, what it has open. Nothing here waits for the process.
 */
#ifndef DECANT_GUEST_QEMU_PROC_H
#define DECANT_GUEST_QEMU_PROC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "guest/driver.h"
#include "util/error.h"

/**
 * qemu_proc_find() - the QEMU that listens at a socket
 * @path:	of the socket
 * @claimed:	who called listen(2): asked first; 0 if not known. Whoever started QEMU may have made
 *		the socket and handed it over
 * @ret_uid:	owner of the process
 * @ret_pidfd:	of it; the caller's to close
 *
 * Return: its pid, or -errno with @err filled
 */
pid_t qemu_proc_find(const char *path, pid_t claimed, uid_t *ret_uid, int *ret_pidfd,
		     struct error *err);

/** qemu_proc_said() - Return: whether one of the words of its command line is @word */
bool qemu_proc_said(pid_t pid, const char *word);

/**
 * qemu_proc_block() - what backs [@b->addr, @b->addr + @b->length)
 * @b:		name, address and length are given; kind, page size and descriptor are filled in
 * @anonymous:	private memory will do
 *
 * Return: 0; -EOPNOTSUPP with @err saying why memory of this kind cannot be moved; or another -errno
 */
int qemu_proc_block(pid_t pid, struct guest_block *b, bool anonymous, struct error *err);

/** qemu_proc_fd_fn - descriptor @fd is open there and is @link. Return: false to end the search */
typedef bool qemu_proc_fd_fn(void *arg, int fd, const char *link);
/** qemu_proc_fds() - go through its descriptors. Return: 0 or -errno */
int qemu_proc_fds(pid_t pid, qemu_proc_fd_fn *fn, void *arg);
/** qemu_proc_fd_of() - Return: the highest descriptor there whose link is @link, -ENOENT, or another -errno */
int qemu_proc_fd_of(pid_t pid, const char *link);

/** qemu_proc_has_flag() - Return: 1 if the mapping at @addr has this flag of VmFlags ("hg"), 0, or -errno */
int qemu_proc_has_flag(pid_t pid, uint64_t addr, const char *flag);

#endif
