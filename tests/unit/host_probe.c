/* SPDX-License-Identifier: Apache-2.0 */
#include "host/host_probe.h"

#include <criterion/criterion.h>
#include <dirent.h>
#include <errno.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include "host/host_priv.h"
#include "uffd/uffd.h"
#include "util/cleanup.h"

/* A host that wants for nothing. */
static const char perfect[] =
	"{'userfaultfd': {'available': true, 'how': 'syscall', 'missing_features': []},"
	" 'tracking': {'shared': {'async': true, 'faults': true},"
	"  'anonymous': {'async': true, 'faults': true}, 'populate_first': false},"
	" 'postcopy': {'available': true, 'reason': null},"
	" 'page_sizes': [{'bytes': 4096, 'kind': 'base', 'total': null, 'free': null},"
	"  {'bytes': 2097152, 'kind': 'hugetlb', 'total': 8, 'free': 3}],"
	" 'thp': {'anonymous': 'madvise', 'shared': 'never'},"
	" 'kvm': {'available': true, 'api_version': 12, 'reason': null},"
	" 'tls': {'library': 'OpenSSL', 'ciphers': ["
	"  {'name': 'TLS_AES_128_GCM_SHA256', 'bytes_per_s': 4306000000}]},"
	" 'memory': {'total_bytes': 25769803776, 'available_bytes': 17179869184,"
	"  'shm_total_bytes': 12884901888, 'shm_free_bytes': 12884901888},"
	" 'limits': {'nofile': 65536, 'nofile_max': 65536, 'memlock_bytes': null,"
	"  'ptrace_scope': 0, 'unprivileged_userfaultfd': 0},"
	" 'capabilities': {'CAP_SYS_PTRACE': true, 'CAP_CHECKPOINT_RESTORE': true,"
	"  'CAP_SYS_ADMIN': true, 'CAP_DAC_OVERRIDE': true, 'CAP_IPC_LOCK': true},"
	" 'hostname': 'host-a', 'kernel': '6.12', 'arch': 'x86_64', 'cpus': 8, 'version': '1'}";

/* JSON with single quotes, to be readable in C. */
static json_t *parse(const char *text)
{
	char *s = strdup(text);
	json_t *v;

	for (char *p = s; *p; p++)
		if (*p == '\'')
			*p = '"';
	v = json_loads(s, JSON_DECODE_ANY, NULL);
	free(s);
	cr_assert(v, "%s", text);
	return v;
}

/* Set host[a][b] = value, or host[a][b][c]. */
static void put(json_t *host, const char *a, const char *b, const char *c, const char *value)
{
	json_t *o = json_object_get(host, a);

	if (c) {
		o = json_object_get(o, b);
		b = c;
	}
	cr_assert(json_is_object(o));
	json_object_set_new(o, b, parse(value));
}

static const char *member(const json_t *finding, const char *key)
{
	const char *s = json_string_value(json_object_get(finding, key));

	cr_assert(s && *s, "a finding without \"%s\"", key);
	return s;
}

Test(host_probe, perfect_host_has_no_findings)
{
	json_t *host = parse(perfect), *found = host_advice(host);

	cr_assert_eq(json_array_size(found), 0);
	json_decref(found);
	json_decref(host);
}

/* One defect each, and the one finding that it must give. */
static const struct {
	const char *a, *b, *c, *value, *level, *what;
} defects[] = {
	{"postcopy", "available", NULL, "false", "error", "no incoming post-copy"},
	{"limits", "ptrace_scope", NULL, "3", "error", "ptrace is forbidden"},
	{"userfaultfd", "how", NULL, "'user-mode-only'", "warning", "faults of user mode only"},
	{"tracking", "shared", "async", "false", "warning", "no asynchronous write tracking"},
	{"userfaultfd", "missing_features", NULL, "['MISSING_HUGETLBFS']", "warning", "huge pages"},
	{"userfaultfd", "missing_features", NULL, "['THREAD_ID']", "info", "THREAD_ID"},
	{"tracking", "populate_first", NULL, "true", "info", "WP_UNPOPULATED"},
	{"capabilities", "CAP_SYS_PTRACE", NULL, "false", "warning", "no CAP_SYS_PTRACE"},
	{"capabilities", "CAP_IPC_LOCK", NULL, "false", NULL, NULL},
	{"limits", "memlock_bytes", NULL, "65536", NULL, NULL},
	{"limits", "nofile", NULL, "1024", "warning", "few file descriptors"},
	{"memory", "shm_total_bytes", NULL, "null", "warning", "no /dev/shm"},
	{"memory", "shm_total_bytes", NULL, "67108864", "warning", "small /dev/shm"},
	{"memory", "available_bytes", NULL, "1048576", "warning", "little free memory"},
	{"kvm", "available", NULL, "false", "info", "no KVM"},
	{"capabilities", "CAP_SYS_ADMIN", NULL, "false", NULL, NULL},
};

Test(host_probe, each_defect_gives_its_finding)
{
	for (size_t i = 0; i < ARRAY_SIZE(defects); i++) {
		json_t *host = parse(perfect), *found, *f;

		put(host, defects[i].a, defects[i].b, defects[i].c, defects[i].value);
		found = host_advice(host);
		f = json_array_get(found, 0);
		cr_assert_eq(json_array_size(found), defects[i].what ? 1 : 0,
			     "%s.%s = %s gives %zu", defects[i].a, defects[i].b, defects[i].value,
			     json_array_size(found));
		if (f) {
			cr_assert_str_eq(member(f, "level"), defects[i].level);
			cr_assert(strstr(member(f, "what"), defects[i].what), "%s",
				  member(f, "what"));
			member(f, "means");
			member(f, "do");
		}
		json_decref(found);
		json_decref(host);
	}
}

static const char *only_finding(json_t *host, char *buf, size_t cap)
{
	json_t *found = host_advice(host);

	cr_assert_eq(json_array_size(found), 1);
	snprintf(buf, cap, "%s", member(json_array_get(found, 0), "what"));
	json_decref(found);
	json_decref(host);
	return buf;
}

Test(host_probe, defects_that_take_two)
{
	json_t *host = parse(perfect);
	char buf[512];

	put(host, "capabilities", "CAP_SYS_PTRACE", NULL, "false");
	put(host, "limits", "ptrace_scope", NULL, "1");
	cr_assert(strstr(only_finding(host, buf, sizeof(buf)), "ptrace_scope"), "%s", buf);

	host = parse(perfect);
	put(host, "capabilities", "CAP_SYS_ADMIN", NULL, "false");
	put(host, "capabilities", "CAP_CHECKPOINT_RESTORE", NULL, "false");
	cr_assert(strstr(only_finding(host, buf, sizeof(buf)), "CHECKPOINT_RESTORE"), "%s", buf);

	host = parse(perfect);
	put(host, "capabilities", "CAP_IPC_LOCK", NULL, "false");
	put(host, "limits", "memlock_bytes", NULL, "65536");
	cr_assert(strstr(only_finding(host, buf, sizeof(buf)), "locked memory"), "%s", buf);

	host = parse(perfect);
	put(host, "tracking", "shared", NULL, "{'async': false, 'faults': false}");
	cr_assert(strstr(only_finding(host, buf, sizeof(buf)), "no write tracking"), "%s", buf);

	host = parse(perfect);
	json_array_remove(json_object_get(host, "page_sizes"), 1);
	cr_assert(strstr(only_finding(host, buf, sizeof(buf)), "no huge pages"), "%s", buf);

	host = parse(perfect);
	json_object_set_new(json_object_get(host, "tls"), "ciphers",
			    parse("[{'name': 'TLS_CHACHA20_POLY1305_SHA256'}]"));
	cr_assert(strstr(only_finding(host, buf, sizeof(buf)), "no AES"), "%s", buf);

	/* The host's own words are part of it. */
	host = parse(perfect);
	put(host, "kvm", "available", NULL, "false");
	put(host, "kvm", "reason", NULL, "'Permission denied'");
	cr_assert(strstr(only_finding(host, buf, sizeof(buf)), "Permission denied"), "%s", buf);
}

static int open_descriptors(void)
{
	DIR *d = opendir("/proc/self/fd");
	int n = 0;

	cr_assert(d);
	while (readdir(d))
		n++;
	closedir(d);
	return n;
}

static int severity(const json_t *finding)
{
	const char *level = member(finding, "level");

	return !strcmp(level, "error") ? 0 : !strcmp(level, "warning") ? 1 : 2;
}

Test(host_probe, looks_at_this_host)
{
	static const struct {
		const char *key;
		json_type type;
	} members[] = {
		{"version", JSON_STRING},  {"hostname", JSON_STRING}, {"kernel", JSON_STRING},
		{"arch", JSON_STRING},     {"cpus", JSON_INTEGER},    {"userfaultfd", JSON_OBJECT},
		{"tracking", JSON_OBJECT}, {"postcopy", JSON_OBJECT}, {"page_sizes", JSON_ARRAY},
		{"thp", JSON_OBJECT},      {"kvm", JSON_OBJECT},      {"tls", JSON_OBJECT},
		{"memory", JSON_OBJECT},   {"limits", JSON_OBJECT},   {"capabilities", JSON_OBJECT},
		{"findings", JSON_ARRAY},
	};
	int before = open_descriptors(), worst = 0;
	json_t *host = host_probe_json(true), *ciphers, *v;
	size_t i;

	cr_assert(host);
	cr_assert_eq(open_descriptors(), before, "nothing stays open");
	cr_assert_eq(json_object_size(host), ARRAY_SIZE(members));
	for (i = 0; i < ARRAY_SIZE(members); i++)
		cr_assert(json_typeof(json_object_get(host, members[i].key)) == members[i].type,
			  "%s", members[i].key);
	ciphers = json_object_get(json_object_get(host, "tls"), "ciphers");
	cr_assert_eq(json_array_size(ciphers), 2);
	json_array_foreach(ciphers, i, v)
		cr_assert_gt(json_integer_value(json_object_get(v, "bytes_per_s")), 1000000);
	v = json_object_get(json_object_get(host, "memory"), "total_bytes");
	cr_assert_eq(json_integer_value(v), sysconf(_SC_PHYS_PAGES) * sysconf(_SC_PAGESIZE));
	json_array_foreach(json_object_get(host, "findings"), i, v) {
		cr_assert_geq(severity(v), worst, "worst first");
		worst = severity(v);
	}
	json_decref(host);
}

Test(host_probe, speed_is_measured_on_request_only)
{
	json_t *host = host_probe_json(false), *v;
	size_t i;

	json_array_foreach(json_object_get(json_object_get(host, "tls"), "ciphers"), i, v)
		cr_assert(json_is_null(json_object_get(v, "bytes_per_s")));
	cr_assert_eq(i, 2);
	json_decref(host);
}

/* From here on userfaultfd(2), and its device if @device, fail with @error for this process. */
static void deny_userfaultfd(int error, bool device)
{
	struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_userfaultfd, 3, 0),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, device ? SYS_ioctl : ~0u, 0, 3),
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[1])),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, UFFD_DEVICE_NEW, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | (unsigned int)error),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog prog = {.len = ARRAY_SIZE(code), .filter = code};

	cr_assert_eq(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
	if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &prog) < 0)
		cr_skip("seccomp filters cannot be set here");
}

Test(host_probe, without_userfaultfd)
{
	struct uffd_caps caps = {.postcopy = true};
	struct error err = {};
	json_t *host, *postcopy, *first;

	deny_userfaultfd(ENOSYS, true);
	cr_assert_eq(uffd_probe(&caps, &err), -ENOSYS);
	cr_assert_str_eq(err.code, "no-userfaultfd");
	cr_assert(strstr(err.msg, "CONFIG_USERFAULTFD"), "%s", err.msg);
	cr_assert(caps.postcopy, "outputs stay untouched on failure");

	host = host_probe_json(false);
	postcopy = json_object_get(host, "postcopy");
	first = json_array_get(json_object_get(host, "findings"), 0);
	cr_assert(json_is_false(json_object_get(postcopy, "available")));
	cr_assert(strstr(member(postcopy, "reason"), "CONFIG_USERFAULTFD"));
	cr_assert_str_eq(member(first, "level"), "error");
	cr_assert(strstr(member(first, "what"), "no userfaultfd"), "%s", member(first, "what"));
	json_decref(host);
}

Test(host_probe, without_permission_says_how_to_get_it)
{
	struct uffd_caps caps;
	struct error err = {};

	deny_userfaultfd(EPERM, true);
	cr_assert_eq(uffd_probe(&caps, &err), -EPERM);
	cr_assert(strstr(err.msg, "unprivileged_userfaultfd"), "%s", err.msg);
	cr_assert(strstr(err.msg, "/dev/userfaultfd"), "%s", err.msg);
}

Test(host_probe, device_is_the_second_door)
{
	struct uffd_caps caps;
	struct error err = {};
	enum uffd_how how = UFFD_HOW_SYSCALL;
	int fd;

	if (uffd_try(UFFD_HOW_DEVICE) < 0)
		cr_skip("/dev/userfaultfd cannot be opened here");
	deny_userfaultfd(EPERM, false);
	cr_assert_eq(uffd_try(UFFD_HOW_SYSCALL), -EPERM);
	fd = uffd_open(false, &how);
	cr_assert_geq(fd, 0);
	cr_assert_eq(how, UFFD_HOW_DEVICE);
	close(fd);
	cr_assert_eq(uffd_open(true, &how), -EPERM, "user mode only has no second door");
	cr_assert_eq(uffd_probe(&caps, &err), 0, "%s", err.msg);
	cr_assert_eq(caps.how, UFFD_HOW_DEVICE);
	cr_assert(caps.postcopy);
}

static char *print(const json_t *host)
{
	char *text = NULL;
	size_t n = 0;
	FILE *f = open_memstream(&text, &n);

	cr_assert(f);
	host_probe_print(f, host);
	fclose(f);
	return text;
}

Test(host_probe, table_shows_what_the_object_says)
{
	static const char *const wanted[] = {
		"host-a, Linux 6.12 x86_64, 8 processors",
		"yes: syscall",
		"2 MiB (3 free of 8)",
		"TLS_AES_128_GCM_SHA256         4306 MB/s",
		"16 GiB available of 24 GiB",
		"locked bytes unlimited",
		"CAP_CHECKPOINT_RESTORE",
		"\nwarning: few file descriptors",
		"to do: LimitNOFILE",
	};
	json_t *host = parse(perfect);
	char *text;

	put(host, "limits", "nofile", NULL, "1024");
	json_object_set_new(host, "findings", host_advice(host));
	text = print(host);
	for (size_t i = 0; i < ARRAY_SIZE(wanted); i++)
		cr_assert(strstr(text, wanted[i]), "no \"%s\" in:\n%s", wanted[i], text);
	free(text);
	json_decref(host);
}

Test(host_probe, table_of_an_odd_object_is_still_a_table)
{
	json_t *host = json_object();
	char *text = print(host);

	cr_assert(strstr(text, "userfaultfd           no"), "%s", text);
	free(text);
	json_decref(host);
}
