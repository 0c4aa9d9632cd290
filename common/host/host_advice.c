/* SPDX-License-Identifier: Apache-2.0 */
/* What is amiss on a host, what that means for guests, and what to do about it. */
#include "host/host_priv.h"

#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include "util/cleanup.h"

#define MIB (1024ll * 1024)

/* Fewer descriptors than this run out with some dozens of guests on 16 channels each. */
#define NOFILE_WANTED 4096
/* /dev/shm of a container is 64 MiB by default, which holds no guest. */
#define SHM_WANTED    (1024 * MIB)
#define MEMORY_WANTED (256 * MIB)

static const json_t *in(const json_t *host, const char *a, const char *b)
{
	return json_object_get(json_object_get(host, a), b);
}

static bool yes(const json_t *host, const char *a, const char *b)
{
	return json_is_true(in(host, a, b));
}

static bool below(const json_t *v, json_int_t wanted)
{
	return json_is_integer(v) && json_integer_value(v) < wanted;
}

static bool lists(const json_t *array, const char *word)
{
	size_t i;
	json_t *v;

	json_array_foreach(array, i, v)
		if (json_is_string(v) && !strcmp(json_string_value(v), word))
			return true;
	return false;
}

static bool has_userfaultfd(const json_t *host)
{
	return yes(host, "userfaultfd", "available");
}

static bool tracks(const json_t *host, const char *mem, const char *kind)
{
	return json_is_true(json_object_get(in(host, "tracking", mem), kind));
}

static bool no_userfaultfd(const json_t *host)
{
	return !has_userfaultfd(host);
}

static bool user_mode_only(const json_t *host)
{
	const char *how = json_string_value(in(host, "userfaultfd", "how"));

	return how && !strcmp(how, "user-mode-only");
}

static bool no_postcopy(const json_t *host)
{
	return has_userfaultfd(host) && !yes(host, "postcopy", "available");
}

static bool no_tracking(const json_t *host)
{
	return has_userfaultfd(host) && !tracks(host, "shared", "async") &&
	       !tracks(host, "shared", "faults");
}

static bool only_faults(const json_t *host)
{
	return tracks(host, "shared", "faults") && !tracks(host, "shared", "async");
}

static bool populates_first(const json_t *host)
{
	return tracks(host, "anonymous", "faults") && yes(host, "tracking", "populate_first");
}

static bool lacks(const json_t *host, const char *feature)
{
	return has_userfaultfd(host) && lists(in(host, "userfaultfd", "missing_features"), feature);
}

static bool no_huge_faults(const json_t *host)
{
	return lacks(host, "MISSING_HUGETLBFS");
}

static bool no_thread_ids(const json_t *host)
{
	return lacks(host, "THREAD_ID");
}

static bool ptrace_forbidden(const json_t *host)
{
	const json_t *scope = in(host, "limits", "ptrace_scope");

	return json_is_integer(scope) && json_integer_value(scope) >= 3;
}

static bool ptrace_scoped(const json_t *host)
{
	const json_t *scope = in(host, "limits", "ptrace_scope");

	return !yes(host, "capabilities", "CAP_SYS_PTRACE") && !ptrace_forbidden(host) &&
	       json_integer_value(scope) >= 1;
}

static bool no_ptrace(const json_t *host)
{
	return !yes(host, "capabilities", "CAP_SYS_PTRACE") && !ptrace_forbidden(host) &&
	       !ptrace_scoped(host);
}

static bool no_map_files(const json_t *host)
{
	return !yes(host, "capabilities", "CAP_CHECKPOINT_RESTORE") &&
	       !yes(host, "capabilities", "CAP_SYS_ADMIN");
}

static bool memlock_low(const json_t *host)
{
	return !yes(host, "capabilities", "CAP_IPC_LOCK") &&
	       json_is_integer(in(host, "limits", "memlock_bytes"));
}

static bool few_descriptors(const json_t *host)
{
	return below(in(host, "limits", "nofile"), NOFILE_WANTED);
}

static bool shm_absent(const json_t *host)
{
	return !json_is_integer(in(host, "memory", "shm_total_bytes"));
}

static bool shm_small(const json_t *host)
{
	return below(in(host, "memory", "shm_total_bytes"), SHM_WANTED);
}

static bool memory_low(const json_t *host)
{
	return below(in(host, "memory", "available_bytes"), MEMORY_WANTED);
}

static bool no_kvm(const json_t *host)
{
	return !yes(host, "kvm", "available");
}

static bool no_huge_pages(const json_t *host)
{
	size_t i;
	json_t *v;

	json_array_foreach(json_object_get(host, "page_sizes"), i, v)
		if (json_integer_value(json_object_get(v, "total")) > 0)
			return false;
	return true;
}

static bool slow_aes(const json_t *host)
{
	const json_t *first = json_array_get(in(host, "tls", "ciphers"), 0);
	const char *name = json_string_value(json_object_get(first, "name"));

	return name && strstr(name, "CHACHA20");
}

/**
 * struct advice - one thing that may be amiss
 * @level:	"error": a main function is gone; "warning": some guests are concerned, or slower;
 *		"info": nothing to worry about
 * @applies:	whether it is so on this host
 * @what:	what is missing
 * @from, @why:	where the host's own reason stands (object, member), NULL if there is none
 * @means:	what cannot be done
 * @fix:	what to do about it
 */
struct advice {
	const char *level;
	bool (*applies)(const json_t *host);
	const char *what;
	const char *from, *why;
	const char *means;
	const char *fix;
};

#define OPEN_IT                                                                          \
	"run the agent as root or with CAP_SYS_PTRACE, give its user read and write on " \
	"/dev/userfaultfd, or set sysctl vm.unprivileged_userfaultfd=1"

/* Worst first. */
static const struct advice table[] = {
	{"error", no_userfaultfd, "no userfaultfd", "postcopy", "reason",
	 "guests cannot arrive by post-copy and their writes cannot be tracked", OPEN_IT},
	{"error", no_postcopy, "no incoming post-copy", "postcopy", "reason",
	 "guests can arrive by precopy only", "use a newer kernel (4.11 at least)"},
	{"error", no_tracking, "no write tracking of shared memory", NULL, NULL,
	 "guests can leave by pure post-copy only",
	 "use Linux 5.19 or newer; 6.7 for the best kind"},
	{"error", ptrace_forbidden, "ptrace is forbidden (kernel.yama.ptrace_scope=3)", NULL, NULL,
	 "anonymous guest memory cannot be read, and no guest survives the restart of an agent",
	 "set kernel.yama.ptrace_scope to 2 or less; 3 lasts until the next boot"},
	{"warning", user_mode_only, "userfaultfd for faults of user mode only", NULL, NULL,
	 "KVM guests, and programs that pass their memory to system calls, cannot be served",
	 OPEN_IT},
	{"warning", only_faults, "no asynchronous write tracking", NULL, NULL,
	 "tracking by faults: the first write to each page waits for the agent in every pass",
	 "use Linux 6.7 or newer"},
	{"warning", no_huge_faults, "no missing faults of huge pages", NULL, NULL,
	 "guests with hugetlbfs memory are refused", "use Linux 4.11 or newer with hugetlbfs"},
	{"warning", ptrace_scoped, "no CAP_SYS_PTRACE under kernel.yama.ptrace_scope", NULL, NULL,
	 "anonymous guest memory cannot be read, and no guest survives the restart of an agent",
	 "give the agent CAP_SYS_PTRACE, or set kernel.yama.ptrace_scope=0"},
	{"warning", no_ptrace, "no CAP_SYS_PTRACE", NULL, NULL,
	 "only guests of the agent's own user can be moved", "give the agent CAP_SYS_PTRACE"},
	{"warning", few_descriptors, "few file descriptors (RLIMIT_NOFILE)", NULL, NULL,
	 "a few dozen guests at a time use them up",
	 "LimitNOFILE=65536 in the unit, or ulimit -n 65536"},
	{"warning", shm_absent, "no /dev/shm", NULL, NULL,
	 "guests whose memory lies there cannot arrive", "mount a tmpfs on /dev/shm"},
	{"warning", shm_small, "small /dev/shm", NULL, NULL,
	 "guests whose memory lies there must be smaller than that",
	 "mount -o remount,size=90% /dev/shm"},
	{"warning", memory_low, "little free memory", NULL, NULL, "arriving guests may not fit",
	 "free some, or lower limits.memory_bytes of decant-dest so that they are refused in time"},
	{"info", populates_first, "no WP_UNPOPULATED", NULL, NULL,
	 "anonymous memory is populated in full before its writes are tracked by faults",
	 "use Linux 6.4 or newer"},
	{"info", no_thread_ids, "no THREAD_ID", NULL, NULL,
	 "the time that threads of a guest were blocked is not told thread by thread",
	 "use Linux 4.14 or newer"},
	{"info", no_map_files, "no CAP_CHECKPOINT_RESTORE", NULL, NULL,
	 "shared guest memory is opened by its path or by a descriptor that the guest hands over, "
	 "not through /proc/PID/map_files",
	 "give the agent CAP_CHECKPOINT_RESTORE for guests with neither"},
	{"info", memlock_low, "locked memory is limited", NULL, NULL,
	 "memory that a guest had locked may not be locked again after its arrival",
	 "LimitMEMLOCK=infinity in the guest's unit"},
	{"info", no_kvm, "no KVM", "kvm", "reason", "virtual machines run here by emulation only",
	 "load kvm_intel or kvm_amd, and give the guests' user read and write on /dev/kvm"},
	{"info", no_huge_pages, "no huge pages are reserved", NULL, NULL,
	 "guests with hugetlbfs memory cannot arrive", "sysctl vm.nr_hugepages=N reserves them"},
	{"info", slow_aes, "no AES instructions", NULL, NULL,
	 "ChaCha20 is preferred; a channel is slower than on other processors", "nothing"},
};

static json_t *finding(const json_t *host, const struct advice *a)
{
	const char *why = a->from ? json_string_value(in(host, a->from, a->why)) : NULL;
	char what[640];

	snprintf(what, sizeof(what), "%s%s%s", a->what, why ? ": " : "", why ? why : "");
	return json_pack("{s:s, s:s, s:s, s:s}", "level", a->level, "what", what, "means", a->means,
			 "do", a->fix);
}

json_t *host_advice(const json_t *host)
{
	json_t *a = json_array();

	for (size_t i = 0; a && i < ARRAY_SIZE(table); i++) {
		if (!table[i].applies(host))
			continue;
		if (json_array_append_new(a, finding(host, &table[i])) < 0) {
			json_decref(a);
			return NULL;
		}
	}
	return a;
}
