/* SPDX-License-Identifier: Apache-2.0 */
#include "guest/qemu/inject.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "util/cleanup.h"
#include "util/clock.h"
#include "util/fdio.h"

/*
 * Between two looks at a target that runs towards its stop. Asleep, not spinning: on a busy machine it
 * may need this very processor.
 */
#define LOOK_NS 20000
/* Stops of another kind that may come before a step is done: group stops, mostly. */
#define STEPS_MAX 16
/* A system call that takes longer is not one of those that are made here. */
#define STEP_MS 2000
/* Code selector of 64-bit programs. */
#define CS_64BIT 0x33
#define TEXT_MAX (16u << 20)
/* What a target is while it stands. */
#define TARGET_CLASS (SCHED_RR | SCHED_RESET_ON_FORK)
#define TARGET_PRIO  1

#if !defined(__x86_64__)
#error "injection knows the registers of x86-64 only"
#endif

/* --- rights ------------------------------------------------------------------------------------- */

static long read_number(const char *path, const char *label)
{
	CLEANUP_FREE char *text = NULL;
	char *at;

	if (fdio_read_file(path, 65536, &text) < 0)
		return -1;
	at = label ? strstr(text, label) : text;
	return at ? strtol(at + (label ? strlen(label) : 0), NULL, 10) : -1;
}

bool inject_traced(pid_t pid)
{
	char path[48];

	snprintf(path, sizeof(path), "/proc/%d/status", (int)pid);
	return read_number(path, "TracerPid:") > 0;
}

/* Who may trace is decided in several places; say which of them it was. */
static int refused(pid_t pid, struct error *err)
{
	char path[48];
	long tracer, scope = read_number("/proc/sys/kernel/yama/ptrace_scope", NULL);

	snprintf(path, sizeof(path), "/proc/%d/status", (int)pid);
	tracer = read_number(path, "TracerPid:");
	if (tracer > 0)
		return error_set(
			err, -EPERM, "ptrace-refused",
			"process %d is traced by process %ld (a debugger?): end that first",
			(int)pid, tracer);
	if (scope == 3)
		return error_set(
			err, -EPERM, "ptrace-refused",
			"process %d may not be traced: kernel.yama.ptrace_scope is 3, which "
			"forbids it to everybody until the next boot: boot with 0 to 2",
			(int)pid);
	return error_set(err, -EPERM, "ptrace-refused",
			 "process %d may not be traced: this agent needs the capability "
			 "CAP_SYS_PTRACE%s",
			 (int)pid,
			 scope > 0
				 ? " (kernel.yama.ptrace_scope is not 0, so being the same user is "
				   "not enough)"
				 : "");
}

/* --- an instruction to use ---------------------------------------------------------------------- */

/* Return: address of the first `syscall` in [start, end), 0 if there is none, -errno */
static int64_t search_text(int mem, uint64_t start, uint64_t end)
{
	static const uint8_t insn[] = {0x0f, 0x05};
	size_t len = (size_t)MIN(end - start, (uint64_t)TEXT_MAX);
	CLEANUP_FREE uint8_t *text = malloc(len);
	ssize_t n;
	uint8_t *at;

	if (!text)
		return -ENOMEM;
	n = pread(mem, text, len, (off_t)start);
	if (n < 0)
		return -errno;
	at = memmem(text, (size_t)n, insn, sizeof(insn));
	return at ? (int64_t)(start + (uint64_t)(at - text)) : 0;
}

static bool is_candidate(const char *line, const char *perms)
{
	return perms[0] == 'r' && perms[2] == 'x' &&
	       (strstr(line, "[vdso]") || strstr(line, "/libc"));
}

/* The vDSO's if it has one, else libc's. Return: address, 0 or -errno */
static int64_t find_in_maps(FILE *maps, int mem)
{
	int64_t found = 0;
	char line[512];

	while (fgets(line, sizeof(line), maps)) {
		unsigned long long start, end;
		char perms[5];
		int64_t at;

		if (sscanf(line, "%llx-%llx %4s", &start, &end, perms) != 3 ||
		    !is_candidate(line, perms))
			continue;
		at = search_text(mem, start, end);
		if (at > 0 && (!found || strstr(line, "[vdso]")))
			found = at;
	}
	return found;
}

static int find_insn(pid_t pid, uint64_t *ret, struct error *err)
{
	CLEANUP_FCLOSE FILE *maps = NULL;
	CLEANUP_CLOSE int mem = -1;
	char path[48];
	int64_t at;

	snprintf(path, sizeof(path), "/proc/%d/maps", (int)pid);
	maps = fopen(path, "re");
	snprintf(path, sizeof(path), "/proc/%d/mem", (int)pid);
	mem = maps ? open(path, O_RDONLY | O_CLOEXEC) : -1;
	if (mem < 0 && (errno == EACCES || errno == EPERM))
		return refused(pid, err);
	if (mem < 0)
		return error_set(err, errno == ENOENT ? -ESRCH : -errno, NULL, "%s: %m", path);
	at = find_in_maps(maps, mem);
	if (at <= 0)
		return error_set(err, -ENOEXEC, "no-syscall-instruction",
				 "process %d has no libc and no vDSO to make system calls with",
				 (int)pid);
	*ret = (uint64_t)at;
	return 0;
}

/* --- haste ------------------------------------------------------------------------------------ */

/* On a busy machine the target would stand until it is our turn again. Without the right to, it does. */
static void hurry(struct inject *in)
{
	struct sched_param p = {.sched_priority = 1};

	in->hurried = sched_getscheduler(0) == SCHED_OTHER && !sched_setscheduler(0, SCHED_RR, &p);
}

/*
 * And so would it, had each of its steps to wait for a processor. Its children are not to inherit that. Were
 * this agent to die in between, one that comes after it finds the mark: inject_calm().
 */
static void hurry_target(struct inject *in)
{
	struct sched_param p = {.sched_priority = TARGET_PRIO};

	in->pushed = sched_getscheduler(in->pid) == SCHED_OTHER &&
		     !sched_setscheduler(in->pid, TARGET_CLASS, &p);
}

void inject_calm(pid_t pid)
{
	struct sched_param p = {0};

	if (sched_getscheduler(pid) == TARGET_CLASS && !sched_getparam(pid, &p) &&
	    p.sched_priority == TARGET_PRIO)
		sched_setscheduler(pid, SCHED_OTHER, &(struct sched_param){0});
}

static void calm_down(struct inject *in)
{
	struct sched_param p = {0};

	if (in->pushed)
		sched_setscheduler(in->pid, SCHED_OTHER, &p);
	in->pushed = false;

	if (in->hurried)
		sched_setscheduler(0, SCHED_OTHER, &p);
	in->hurried = false;
}

/* --- stopping ----------------------------------------------------------------------------------- */

/* Return: 0 with a status; -ESRCH if it has ended, -ETIMEDOUT */
static int wait_stop(pid_t pid, unsigned int bound_ms, int *ret_status)
{
	const struct timespec nap = {.tv_nsec = LOOK_NS};
	uint64_t end = clock_us() + (uint64_t)bound_ms * 1000;

	for (;;) {
		int status;
		pid_t r = waitpid(pid, &status, __WALL | WNOHANG);

		if (r == pid && WIFSTOPPED(status)) {
			*ret_status = status;
			return 0;
		}
		if (r == pid || (r < 0 && errno != EINTR))
			return -ESRCH;
		if (clock_us() > end)
			return -ETIMEDOUT;
		nanosleep(&nap, NULL);
	}
}

static bool is_event_stop(int status)
{
	return status >> 16 == PTRACE_EVENT_STOP;
}

/* Signals that come before the stop go where they were going. */
static int interrupt(pid_t pid)
{
	int status, r;

	if (ptrace(PTRACE_INTERRUPT, pid, 0, 0))
		return -errno;
	for (;;) {
		r = wait_stop(pid, INJECT_STOP_MS, &status);
		if (r < 0 || is_event_stop(status))
			return r;
		if (ptrace(PTRACE_CONT, pid, 0, WSTOPSIG(status)))
			return -errno;
	}
}

/*
 * A signal that arrives in between must not be delivered at an instruction of ours, nor lost: all
 * are blocked meanwhile but the one by which a step reports.
 */
static int look_and_mask(struct inject *in)
{
	uint64_t mask = ~(UINT64_C(1) << (SIGTRAP - 1));

	if (ptrace(PTRACE_GETREGS, in->pid, 0, &in->regs))
		return -errno;
	if (in->regs.cs != CS_64BIT)
		return -ENOEXEC;
	if (ptrace(PTRACE_GETSIGMASK, in->pid, sizeof(in->sigmask), &in->sigmask) ||
	    ptrace(PTRACE_SETSIGMASK, in->pid, sizeof(mask), &mask))
		return -errno;
	return 0;
}

static int stop_it(struct inject *in)
{
	int r;

	in->stage = INJECT_TRACE;
	if (ptrace(PTRACE_SEIZE, in->pid, 0, 0))
		return -errno;
	in->stage = INJECT_STOP;
	r = interrupt(in->pid);
	if (r < 0)
		return r;
	in->stage = INJECT_LOOK;
	in->since_us = clock_us();
	hurry_target(in);
	r = look_and_mask(in);
	if (r < 0)
		ptrace(PTRACE_DETACH, in->pid, 0, 0);
	return r;
}

int inject_find(struct inject *in, pid_t pid, struct error *err)
{
	*in = (struct inject){.pid = pid};
	return find_insn(pid, &in->insn, err);
}

int inject_stop(struct inject *in)
{
	int r;

	hurry(in);
	r = stop_it(in);
	if (r < 0)
		calm_down(in);
	return r;
}

int inject_why(const struct inject *in, int r, struct error *err)
{
	int pid = (int)in->pid;

	if (in->stage == INJECT_TRACE && r == -EPERM)
		return refused(in->pid, err);
	if (in->stage == INJECT_TRACE)
		return error_set(err, r, NULL, "process %d cannot be traced: %s", pid,
				 strerror(-r));
	if (in->stage == INJECT_STOP)
		return error_set(err, r, r == -ETIMEDOUT ? "ptrace-timeout" : NULL,
				 "the main thread of process %d does not stop: %s", pid,
				 strerror(-r));
	return error_set(err, r, NULL, "process %d: %s", pid,
			 r == -ENOEXEC ? "it is no 64-bit program" : strerror(-r));
}

int inject_begin(struct inject *in, pid_t pid, struct error *err)
{
	int r = inject_find(in, pid, err);

	if (r < 0)
		return r;
	r = inject_stop(in);
	return r < 0 ? inject_why(in, r, err) : 0;
}

/* --- calling ------------------------------------------------------------------------------------ */

/* One that was stopped by a signal reports its group stop before it makes a step. */
static int step(pid_t pid)
{
	int status, r;

	for (int i = 0; i < STEPS_MAX; i++) {
		if (ptrace(PTRACE_SINGLESTEP, pid, 0, 0))
			return -errno;
		r = wait_stop(pid, STEP_MS, &status);
		if (r < 0)
			return r;
		if (status >> 8 == SIGTRAP)
			return 0;
	}
	return -ETIMEDOUT;
}

int inject_call(struct inject *in, long nr, const uint64_t args[static 6], int64_t *ret_result)
{
	struct user_regs_struct r = in->regs;
	int ret;

	r.rip = in->insn;
	r.rax = (unsigned long long)nr;
	/* What the thread was in the middle of is not to be begun again in our place. */
	r.orig_rax = ~0ull;
	r.rdi = args[0];
	r.rsi = args[1];
	r.rdx = args[2];
	r.r10 = args[3];
	r.r8 = args[4];
	r.r9 = args[5];
	if (ptrace(PTRACE_SETREGS, in->pid, 0, &r))
		return -errno;
	ret = step(in->pid);
	if (ret < 0)
		return ret;
	if (ptrace(PTRACE_GETREGS, in->pid, 0, &r))
		return -errno;
	*ret_result = (int64_t)r.rax;
	return 0;
}

uint64_t inject_end(struct inject *in)
{
	/*
	 * The kernel decides behind this stop whether a system call that was interrupted is begun
	 * again, by the registers that it finds now: as they were.
	 */
	ptrace(PTRACE_SETREGS, in->pid, 0, &in->regs);
	ptrace(PTRACE_SETSIGMASK, in->pid, sizeof(in->sigmask), &in->sigmask);
	if (in->pushed)
		sched_setscheduler(in->pid, SCHED_OTHER, &(struct sched_param){0});
	in->pushed = false;
	ptrace(PTRACE_DETACH, in->pid, 0, 0);
	calm_down(in);
	return clock_us() - in->since_us;
}

int inject_fetch(int pidfd, int fd)
{
	int own = (int)syscall(SYS_pidfd_getfd, pidfd, fd, 0);

	return own < 0 ? -errno : own;
}
