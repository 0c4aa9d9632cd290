/* SPDX-License-Identifier: Apache-2.0 */
/*
 * System calls carried out inside another process, which does not co-operate: its main thread is
 * stopped by ptrace(2), made to execute `syscall` instructions that its vDSO or libc has anyway, and
 * put back exactly where it was. No code and no data of it are changed. x86-64 only.
 *
 * Never while a missing fault may be pending in the target: a thread that sleeps in a fault taken in
 * kernel mode does not stop. All waits are bounded, but they are waits: not on an event loop. The
 * functions of one struct inject belong to one thread, and that thread has to end soon after a
 * failure of inject_begin() with -ETIMEDOUT: only then the kernel lets go of a target that did not stop.
 */
#ifndef DECANT_GUEST_QEMU_INJECT_H
#define DECANT_GUEST_QEMU_INJECT_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/user.h>

#include "util/error.h"

/** INJECT_STOP_MS - a thread that has not stopped for so long will not */
#define INJECT_STOP_MS 2000

/**
 * struct inject - a target that stands; filled by inject_begin()
 * @pid:	the process, and its main thread
 * @insn:	address of a `syscall` instruction there
 * @regs:	what the thread goes on with
 * @sigmask:	signals that it has blocked
 * @since_us:	clock_us() when it was seen to stand
 * @hurried:	the calling thread is of a real-time class meanwhile
 * @pushed:	the target is, too
 */
struct inject {
	pid_t pid;
	uint64_t insn;
	struct user_regs_struct regs;
	uint64_t sigmask;
	uint64_t since_us;
	bool hurried;
	bool pushed;
};

/**
 * inject_begin() - stop the main thread of @pid
 *
 * Return: 0, then inject_end() has to follow; -EPERM with @err saying which right is missing; -ESRCH;
 * -ETIMEDOUT; -ENOEXEC if it has no instruction to use or is no 64-bit program; or another -errno
 */
int inject_begin(struct inject *in, pid_t pid, struct error *err);
/**
 * inject_call() - have it make one system call
 * @args:	six of them
 * @ret_result:	what the call returned in the target, a negative errno included
 *
 * Return: 0 if it was made; -ESRCH, -ETIMEDOUT (then it may still be made)
 */
int inject_call(struct inject *in, long nr, const uint64_t args[static 6], int64_t *ret_result);
/**
 * inject_end() - let it go on as if nothing had happened
 *
 * Return: microseconds that it stood
 */
uint64_t inject_end(struct inject *in);

/** inject_calm() - take @pid out of the real-time class in which an agent that died in an injection has left it */
void inject_calm(pid_t pid);

/**
 * inject_fetch() - a descriptor of the target's, by pidfd_getfd(2)
 *
 * Return: ours, close-on-exec, or -errno
 */
int inject_fetch(int pidfd, int fd);

#endif
