/* SPDX-License-Identifier: Apache-2.0 */
/* Memory, limits, capabilities, page sizes and KVM, as the kernel tells them in /proc and /sys. */
#include "host/host_priv.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/capability.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <unistd.h>
#include "util/cleanup.h"
#include "util/fdio.h"

#define SMALL_FILE 16384
#define HUGE_DIR   "/sys/kernel/mm/hugepages"
#define THP_DIR    "/sys/kernel/mm/transparent_hugepage/"
/* KVM_GET_API_VERSION of linux/kvm.h, the only thing that we ask it. */
#define KVM_API_VERSION 0xae00

/* A whole number in a small file; null if it is not there. */
static json_t *file_number(const char *path)
{
	CLEANUP_FREE char *text = NULL;
	char *end;
	long long v;

	if (fdio_read_file(path, SMALL_FILE, &text) < 0)
		return json_null();
	errno = 0;
	v = strtoll(text, &end, 10);
	return errno || end == text ? json_null() : json_integer(v);
}

/* "MemTotal: 123 kB" in bytes; null if it is not there. */
static json_t *meminfo(const char *text, const char *field)
{
	const char *at = text ? strstr(text, field) : NULL;
	uint64_t kb;

	if (!at || sscanf(at + strlen(field), ": %" SCNu64 " kB", &kb) != 1)
		return json_null();
	return json_integer((json_int_t)kb * 1024);
}

json_t *host_memory(void)
{
	CLEANUP_FREE char *text = NULL;
	struct statvfs fs;
	json_t *total = json_null(), *unused = json_null();

	if (fdio_read_file("/proc/meminfo", SMALL_FILE, &text) < 0)
		text = NULL;
	if (statvfs("/dev/shm", &fs) == 0) {
		total = json_integer((json_int_t)fs.f_blocks * (json_int_t)fs.f_frsize);
		unused = json_integer((json_int_t)fs.f_bavail * (json_int_t)fs.f_frsize);
	}
	return json_pack("{s:o, s:o, s:o, s:o}", "total_bytes", meminfo(text, "MemTotal"),
			 "available_bytes", meminfo(text, "MemAvailable"), "shm_total_bytes", total,
			 "shm_free_bytes", unused);
}

static json_t *limit(rlim_t v)
{
	return v == RLIM_INFINITY ? json_null() : json_integer((json_int_t)v);
}

json_t *host_limits(void)
{
	struct rlimit nofile = {}, memlock = {};

	getrlimit(RLIMIT_NOFILE, &nofile);
	getrlimit(RLIMIT_MEMLOCK, &memlock);
	return json_pack(
		"{s:o, s:o, s:o, s:o, s:o}", "nofile", limit(nofile.rlim_cur), "nofile_max",
		limit(nofile.rlim_max), "memlock_bytes", limit(memlock.rlim_cur), "ptrace_scope",
		file_number("/proc/sys/kernel/yama/ptrace_scope"), "unprivileged_userfaultfd",
		file_number("/proc/sys/vm/unprivileged_userfaultfd"));
}

json_t *host_capabilities(void)
{
	static const struct {
		const char *name;
		unsigned int bit;
	} caps[] = {
		{"CAP_SYS_PTRACE", CAP_SYS_PTRACE},
		{"CAP_CHECKPOINT_RESTORE", CAP_CHECKPOINT_RESTORE},
		{"CAP_SYS_ADMIN", CAP_SYS_ADMIN},
		{"CAP_DAC_OVERRIDE", CAP_DAC_OVERRIDE},
		{"CAP_IPC_LOCK", CAP_IPC_LOCK},
	};
	struct __user_cap_header_struct h = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct d[_LINUX_CAPABILITY_U32S_3] = {};
	json_t *o = json_object();

	/* It cannot fail for a version that the kernel knows; if it does, there are none. */
	if (syscall(SYS_capget, &h, d) < 0)
		memset(d, 0, sizeof(d));
	for (size_t i = 0; i < ARRAY_SIZE(caps); i++)
		json_object_set_new(
			o, caps[i].name,
			json_boolean(d[caps[i].bit / 32].effective >> caps[i].bit % 32 & 1));
	return o;
}

static json_t *huge_pool(const char *dir, uint64_t kb)
{
	char total[128], unused[128];

	snprintf(total, sizeof(total), HUGE_DIR "/%s/nr_hugepages", dir);
	snprintf(unused, sizeof(unused), HUGE_DIR "/%s/free_hugepages", dir);
	return json_pack("{s:I, s:s, s:o, s:o}", "bytes", (json_int_t)kb * 1024, "kind", "hugetlb",
			 "total", file_number(total), "free", file_number(unused));
}

static int is_pool(const struct dirent *d)
{
	return !strncmp(d->d_name, "hugepages-", 10) && strlen(d->d_name) < 40;
}

json_t *host_page_sizes(void)
{
	struct dirent **found = NULL;
	json_t *a = json_array();
	int n = scandir(HUGE_DIR, &found, is_pool, versionsort);
	uint64_t kb;

	json_array_append_new(a, json_pack("{s:I, s:s, s:n, s:n}", "bytes",
					   (json_int_t)sysconf(_SC_PAGESIZE), "kind", "base",
					   "total", "free"));
	for (int i = 0; i < n; i++) {
		if (sscanf(found[i]->d_name, "hugepages-%" SCNu64 "kB", &kb) == 1)
			json_array_append_new(a, huge_pool(found[i]->d_name, kb));
		free(found[i]);
	}
	free(found);
	return a;
}

/* The word in brackets: "always [madvise] never". */
static json_t *chosen(const char *path)
{
	CLEANUP_FREE char *text = NULL;
	char *from, *to;

	if (fdio_read_file(path, SMALL_FILE, &text) < 0)
		return json_null();
	from = strchr(text, '[');
	to = from ? strchr(from, ']') : NULL;
	return to ? json_stringn(from + 1, (size_t)(to - from - 1)) : json_null();
}

json_t *host_thp(void)
{
	return json_pack("{s:o, s:o}", "anonymous", chosen(THP_DIR "enabled"), "shared",
			 chosen(THP_DIR "shmem_enabled"));
}

json_t *host_kvm(void)
{
	CLEANUP_CLOSE int fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);
	int v = fd < 0 ? -1 : ioctl(fd, KVM_API_VERSION, 0);

	if (v < 0)
		return json_pack("{s:b, s:n, s:s}", "available", 0, "api_version", "reason",
				 strerror(errno));
	return json_pack("{s:b, s:i, s:n}", "available", 1, "api_version", v, "reason");
}
