/* SPDX-License-Identifier: Apache-2.0 */
#include "host/confine.h"

#include <errno.h>
#include <linux/audit.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "util/cleanup.h"

#ifndef CAP_CHECKPOINT_RESTORE
#define CAP_CHECKPOINT_RESTORE 40
#endif

/* Beyond what any kernel has. */
#define CAPS_MAX 64

/* --- capabilities --- */

static uint64_t kept(const struct confine_wish *w)
{
	uint64_t caps = UINT64_C(1) << CAP_SYS_PTRACE | UINT64_C(1) << CAP_CHECKPOINT_RESTORE |
			UINT64_C(1) << CAP_DAC_OVERRIDE | UINT64_C(1) << CAP_KILL |
			UINT64_C(1) << CAP_SYS_NICE;

	if (w->gives_sockets)
		caps |= UINT64_C(1) << CAP_CHOWN;
	if (w->low_port)
		caps |= UINT64_C(1) << CAP_NET_BIND_SERVICE;
	return caps;
}

struct caps {
	struct __user_cap_header_struct head;
	struct __user_cap_data_struct data[2];
};

static int get_caps(struct caps *c)
{
	*c = (struct caps){.head = {.version = _LINUX_CAPABILITY_VERSION_3}};
	return syscall(SYS_capget, &c->head, c->data) ? -errno : 0;
}

/* What execve(2) can give: while CAP_SETPCAP is still there. */
static int drop_bounding(uint64_t keep)
{
	int r = 0;

	for (int cap = 0; cap < CAPS_MAX && prctl(PR_CAPBSET_READ, cap, 0, 0, 0) >= 0; cap++)
		if (!(keep >> cap & 1) && prctl(PR_CAPBSET_READ, cap, 0, 0, 0) == 1 &&
		    prctl(PR_CAPBSET_DROP, cap, 0, 0, 0) && !r)
			r = -errno;
	return r;
}

static int drop_caps(uint64_t keep)
{
	struct caps c;
	int r = get_caps(&c);

	if (r < 0)
		return r;
	for (int i = 0; i < 2; i++) {
		c.data[i].permitted &= (uint32_t)(keep >> 32 * i);
		c.data[i].effective &= (uint32_t)(keep >> 32 * i);
		c.data[i].inheritable = 0;
	}
	prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
	return syscall(SYS_capset, &c.head, c.data) ? -errno : 0;
}

/* Whoever may not drop the set (no CAP_SETPCAP) has nothing in it that he could get. */
static int give_up_caps(const struct confine_wish *w)
{
	struct caps now;
	int r, r2 = 0;
	bool may;

	/* Those of another user than root are what its guests have, too. */
	if (w->starts_guests && geteuid())
		return 0;
	r = get_caps(&now);
	may = !r && now.data[0].effective >> CAP_SETPCAP & 1;

	if (may && !w->starts_guests)
		r2 = drop_bounding(kept(w));
	r = r ? r : drop_caps(kept(w));
	return r ? r : r2;
}

/* --- system calls --- */

/*
 * What no agent ever needs, nor what it starts (hooks): a list of refusals, because what it does need includes
 * whatever three libraries and the kernel's tracing call for. ptrace(2), process_vm_readv(2), process_madvise(2),
 * pidfd_getfd(2), userfaultfd(2), io_uring_setup(2) and kcmp(2) are needed.
 */
static const int refused[] = {
	/* another kernel, or code in it */
	SYS_kexec_load,
	SYS_kexec_file_load,
	SYS_init_module,
	SYS_finit_module,
	SYS_delete_module,
	SYS_bpf,
	SYS_reboot,
	SYS_iopl,
	SYS_ioperm,
	SYS_modify_ldt,
	/* another view of the system */
	SYS_mount,
	SYS_umount2,
	SYS_move_mount,
	SYS_open_tree,
	SYS_fsopen,
	SYS_fsconfig,
	SYS_fsmount,
	SYS_fspick,
	SYS_mount_setattr,
	SYS_pivot_root,
	SYS_chroot,
	SYS_unshare,
	SYS_setns,
	SYS_open_by_handle_at,
	/* settings of the host */
	SYS_swapon,
	SYS_swapoff,
	SYS_acct,
	SYS_quotactl,
	SYS_sethostname,
	SYS_setdomainname,
	SYS_settimeofday,
	SYS_clock_settime,
	SYS_adjtimex,
	SYS_clock_adjtime,
	SYS_syslog,
	SYS_vhangup,
	/* large and seldom used: where holes were */
	SYS_perf_event_open,
	SYS_add_key,
	SYS_request_key,
	SYS_keyctl,
	SYS_fanotify_init,
	SYS_lookup_dcookie,
	SYS_uselib,
	SYS_nfsservctl,
	SYS_personality,
};

/* Flags of clone(2) that make namespaces; clone3(2), whose flags a filter cannot see, is said not to exist. */
#define NAMESPACES                                                                     \
	(CLONE_NEWNS | CLONE_NEWCGROUP | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWUSER | \
	 CLONE_NEWPID | CLONE_NEWNET)

#define LOAD(field)   BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, field))
#define SAY(answer)   BPF_STMT(BPF_RET | BPF_K, answer)
#define SAY_NO(error) SAY(SECCOMP_RET_ERRNO | (error))
/* The next statement if it is so, else the one behind it. */
#define IF_EQUAL(value) BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, value, 0, 1)
#define IF_ANY(bits)    BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, bits, 0, 1)
/* System calls of x86-64 with 32-bit pointers. */
#define X32_BIT 0x40000000u

static int filter(void)
{
	static const struct sock_filter head[] = {
		LOAD(arch),           BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, AUDIT_ARCH_X86_64, 1, 0),
		SAY_NO(ENOSYS),       LOAD(nr),
		IF_ANY(X32_BIT),      SAY_NO(ENOSYS),
		IF_EQUAL(SYS_clone3), SAY_NO(ENOSYS),
	};
	static const struct sock_filter tail[] = {
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_clone, 0, 3),
		LOAD(args[0]),
		IF_ANY(NAMESPACES),
		SAY_NO(EPERM),
		SAY(SECCOMP_RET_ALLOW),
	};
	struct sock_filter code[ARRAY_SIZE(head) + 2 * ARRAY_SIZE(refused) + ARRAY_SIZE(tail)];
	struct sock_fprog program = {.len = ARRAY_SIZE(code), .filter = code};
	size_t n = ARRAY_SIZE(head);

	memcpy(code, head, sizeof(head));
	for (size_t i = 0; i < ARRAY_SIZE(refused); i++) {
		code[n++] = (struct sock_filter)IF_EQUAL((uint32_t)refused[i]);
		code[n++] = (struct sock_filter)SAY_NO(EPERM);
	}
	memcpy(code + n, tail, sizeof(tail));
	return syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program) ? -errno : 0;
}

/* --- all of it --- */

/*
 * Memory of the agent, with its keys and pages of guests, goes into no core file, and no process of the same user
 * may look at it. Without privilege it stays as it is: then /proc/self would be another user's, and what the agent
 * has is that user's anyway.
 */
static int no_core(void)
{
	struct caps c;
	int r = get_caps(&c);

	if (r < 0 || (!c.data[0].permitted && geteuid()))
		return r;
	return prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) ? -errno : 0;
}

static void note(int r, const char *what, int *first, struct error *err)
{
	if (r >= 0 || *first < 0)
		return;
	*first = error_set(err, r, "confine", "%s: %s", what, strerror(-r));
}

int confine(const struct confine_wish *w, struct error *err)
{
	int first = 0;

	note(give_up_caps(w), "capabilities are not given up", &first, err);
	note(no_core(), "the agent's memory can be dumped", &first, err);
	if (w->starts_guests)
		return first;
	note(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) ? -errno : 0, "no_new_privs", &first, err);
	/* A service manager that filters more than this has refused seccomp(2) itself, too. */
	if (prctl(PR_GET_SECCOMP, 0, 0, 0, 0) != SECCOMP_MODE_FILTER)
		note(filter(), "system calls are not filtered", &first, err);
	return first;
}

const char *confine_text(char buf[static CONFINE_TEXT_MAX])
{
	unsigned int n = 0;
	struct caps c;

	if (!get_caps(&c))
		n = (unsigned int)(__builtin_popcount(c.data[0].effective) +
				   __builtin_popcount(c.data[1].effective));
	snprintf(buf, CONFINE_TEXT_MAX,
		 "%u capabilities, %s new privileges, system calls %sfiltered, memory %s dumped", n,
		 prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) == 1 ? "no" : "what it starts may gain",
		 prctl(PR_GET_SECCOMP, 0, 0, 0, 0) == SECCOMP_MODE_FILTER ? "" : "not ",
		 prctl(PR_GET_DUMPABLE, 0, 0, 0, 0) ? "can be" : "cannot be");
	return buf;
}
