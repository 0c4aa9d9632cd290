/* SPDX-License-Identifier: Apache-2.0 */
/*
 * System calls carried out inside another process, which does not co-operate: its main thread is
 * stopped by ptrace(2), made to execute `syscall` instructions that its vDSO or libc has anyway, and
 * put back exactly where it was. No code and no data of it are changed. x86-64 only.
 *
 * Never while a missing fault may be pending in the target: a thread that sleeps in a fault taken in
 * kernel mode does not stop. All waits are bounded, but they are waits: not on an event loop.
 *
 * Rule 8: whoever traces must not die in the middle. The target would go on at our instruction with our registers,
 * and be lost. So agents call inject_run(), which has it done by a process of its own, that outlives them for as
 * long as it takes. What that process is made of is below it, for it and for tests: the functions of one
 * struct inject belong to one thread, and that thread has to end soon after a failure with -ETIMEDOUT: only then
 * the kernel lets go of a target that did not stop.
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
 * struct inject_call - a system call
 * @nr, @args:	as the kernel takes them
 * @result:	what it returned in the target, a negative errno included
 */
struct inject_call {
	long nr;
	uint64_t args[6];
	int64_t result;
};

/**
 * struct inject_script - what is done in one stop
 * @pid, @pidfd:	of the target
 * @calls, @n:	one after another; none behind one that failed, unless @all
 * @all:	failures do not matter
 * @fetch:	what the first call returns is a descriptor, which comes here
 * @keep:	and stays there as well; else it is closed there in the same stop
 * @fd:		it: ours, close-on-exec; -1 without
 * @us:		for how long the target stood
 * @pushed:	it was hurried meanwhile
 */
struct inject_script {
	pid_t pid;
	int pidfd;
	struct inject_call *calls;
	size_t n;
	bool all;
	bool fetch;
	bool keep;
	int fd;
	uint64_t us;
	bool pushed;
};

/**
 * inject_run() - stop the main thread, have it make these calls, let it go on
 *
 * Any thread that may wait. A successor of an agent that died in the middle waits until that has come to its end.
 *
 * Return: 0 if they were made, whatever they returned; -EPERM with @err saying which right is missing; -ESRCH;
 * -ETIMEDOUT; -ENOEXEC if it has no instruction to use or is no 64-bit program; or another -errno
 */
int inject_run(struct inject_script *s, struct error *err);

/** enum inject_stage - how far inject_stop() has come: what its failure is about */
enum inject_stage {
	INJECT_TRACE,
	INJECT_STOP,
	INJECT_LOOK,
};

/**
 * struct inject - a target that stands; filled by inject_begin()
 * @pid:	the process, and its main thread
 * @stage:	of stopping it
 * @insn:	address of a `syscall` instruction there
 * @regs:	what the thread goes on with
 * @sigmask:	signals that it has blocked
 * @since_us:	clock_us() when it was seen to stand
 * @hurried:	the calling thread is of a real-time class meanwhile
 * @pushed:	the target is, too
 */
struct inject {
	pid_t pid;
	enum inject_stage stage;
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
/** inject_find() - the first half of inject_begin(): look for an instruction. Return: as that */
int inject_find(struct inject *in, pid_t pid, struct error *err);
/** inject_stop() - the second half: system calls only, for a process that has forked. Return: 0 or -errno */
int inject_stop(struct inject *in);
/** inject_why() - what a failure @r of inject_stop() means. Return: @r, with @err filled */
int inject_why(const struct inject *in, int r, struct error *err);
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

/** inject_traced() - Return: whether some process traces @pid now */
bool inject_traced(pid_t pid);

/** inject_calm() - take @pid out of the real-time class in which an agent that died in an injection has left it */
void inject_calm(pid_t pid);

/**
 * inject_fetch() - a descriptor of the target's, by pidfd_getfd(2)
 *
 * Return: ours, close-on-exec, or -errno
 */
int inject_fetch(int pidfd, int fd);

#endif
