/* SPDX-License-Identifier: Apache-2.0 */
#include "guest/qemu/qemu_devices.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "guest/qemu/qemu_proc.h"
#include "util/cleanup.h"
#include "util/digest.h"
#include "util/fdio.h"

#define MOUNTS_MAX (4u << 20)
#define FDINFO_MAX 4096
#define FSTYPE_MAX 32
#define SEEN_MAX   32

/**
 * struct judge - a look under way
 * @mounts:	text of /proc/PID/mountinfo, read when it is first needed
 * @seen:	digests of the names of those that were found
 */
struct judge {
	pid_t pid;
	const char *no_dma;
	struct qemu_writers *w;
	char *mounts;
	uint64_t seen[SEEN_MAX];
	size_t nseen;
};

static const char *text_of(const json_t *o, const char *key)
{
	return json_string_value(json_object_get(o, key));
}

/* --- judgements ---------------------------------------------------------------------------------- */

/* Does the operator answer for it? */
static bool vouched(const struct judge *j, const char *name)
{
	const char *at = j->no_dma;
	size_t len = name ? strlen(name) : 0;

	while (len && at && *at) {
		size_t n = strcspn(at, " ,");

		if (n == len && !memcmp(at, name, len))
			return true;
		at += n;
		at += strspn(at, " ,");
	}
	return false;
}

/* @name: what the operator can answer for; @what: the device, for people */
static void refuse(struct judge *j, const char *name, const char *what, const char *instead)
{
	if (!vouched(j, name))
		error_set(
			&j->w->cannot, -EOPNOTSUPP, "device-not-supported",
			"%.160s: what it writes into the guest's memory is not seen; %s, or answer "
			"for it by \"no_dma\": \"%.64s\" in the guest's vars",
			what, instead, name);
}

/* Was it found already, in another way? What is not remembered counts as another. */
static bool seen_before(struct judge *j, const char *key)
{
	uint64_t digest = digest_xxh3(key, strlen(key));

	for (size_t i = 0; i < j->nseen; i++)
		if (j->seen[i] == digest)
			return true;
	if (j->nseen < SEEN_MAX)
		j->seen[j->nseen++] = digest;
	return false;
}

/* The first is named, the others are counted. @key: a file has a node, the node of its format, a descriptor */
__attribute__((format(printf, 3, 4))) static void direct(struct judge *j, const char *key,
							 const char *fmt, ...)
{
	struct qemu_writers *w = j->w;
	va_list ap;

	if (seen_before(j, key))
		return;
	va_start(ap, fmt);
	if (!w->n++)
		vsnprintf(w->dma, sizeof(w->dma), fmt, ap);
	va_end(ap);
}

/* --- what QEMU says ------------------------------------------------------------------------------ */

static bool begins_with_one(const char *s, const char *const list[])
{
	for (; *list; list++)
		if (!strncmp(s, *list, strlen(*list)))
			return true;
	return false;
}

static void judge_device(struct judge *j, const char *name, const char *type)
{
	static const char *const foreign[] = {"vfio-",
					      "vhost-",
					      "ivshmem",
					      "pvrdma",
					      "x-pci-proxy-dev",
					      "x-vfio-user",
					      "cryptodev-vhost-user",
					      NULL};
	static const char *const pass_through[] = {"scsi-generic", "scsi-block", NULL};
	char what[160];

	snprintf(what, sizeof(what), "device %.64s (%.*s)", name, (int)MIN(strcspn(type, ">"), 64u),
		 type);
	if (begins_with_one(type, foreign))
		refuse(j, name, what, "use an emulated device");
	else if (begins_with_one(type, pass_through) && !vouched(j, name))
		direct(j, name, "%s passes commands through to a device of the host", what);
}

/* Names, and types as "child<TYPE>". */
static void judge_devices(struct judge *j, const json_t *list)
{
	const json_t *child;
	size_t i;

	json_array_foreach(list, i, child) {
		const char *type = text_of(child, "type"), *name = text_of(child, "name");

		if (type && name && !strncmp(type, "child<", 6))
			judge_device(j, name, type + 6);
	}
}

/* @text: a network card a line, "type=…" somewhere in it */
static void judge_network(struct judge *j, const json_t *text)
{
	static const char *const types[] = {"vhost-user", "vhost-vdpa"};
	const char *s = json_string_value(text);

	for (size_t k = 0; s && k < ARRAY_SIZE(types); k++) {
		char key[32], what[64];

		snprintf(key, sizeof(key), "type=%s", types[k]);
		snprintf(what, sizeof(what), "a network card is of %s", key);
		if (strstr(s, key))
			refuse(j, types[k], what, "use one of type=tap without vhost");
	}
}

static void judge_node(struct judge *j, const json_t *node)
{
	static const char *const foreign[] = {"nvme", "virtio-blk-vhost-user",
					      "virtio-blk-vhost-vdpa", "virtio-blk-vfio-pci", NULL};
	const char *name = text_of(node, "node-name") ?: "", *file = text_of(node, "file") ?: "";
	const char *drv = text_of(node, "drv") ?: "";
	bool pins = json_is_true(json_object_get(json_object_get(node, "cache"), "direct")) ||
		    !strcmp(drv, "nvme-io_uring");
	char what[160];

	if (vouched(j, name) || vouched(j, file))
		return;
	snprintf(what, sizeof(what), "block device %.48s (%.80s)", name, *file ? file : drv);
	if (begins_with_one(drv, foreign) && strcmp(drv, "nvme-io_uring") != 0)
		refuse(j, name, what, "use the host's driver of that device");
	else if (pins)
		direct(j, *file ? file : name, "%s reads with direct I/O (cache.direct=on)", what);
}

static void judge_nodes(struct judge *j, const json_t *nodes)
{
	const json_t *node;
	size_t i;

	json_array_foreach(nodes, i, node)
		judge_node(j, node);
}

static void judge_blockers(struct judge *j, const json_t *migrate)
{
	const json_t *reasons = json_object_get(migrate, "blocked-reasons");
	const char *why = json_string_value(json_array_get(reasons, 0));

	if (why)
		error_set(&j->w->cannot, -EOPNOTSUPP, "migration-blocked",
			  "QEMU says that it cannot be migrated: %s", why);
}

/* --- what /proc says ----------------------------------------------------------------------------- */

bool qemu_devices_copies(const char *fstype)
{
	static const char *const known[] = {
		/* through the page cache */
		"ext2", "ext3", "ext4", "xfs", "btrfs", "f2fs", "tmpfs", "ramfs", "hugetlbfs",
		"devtmpfs", "overlay", "nfs", "nfs4", "vfat", "exfat", "iso9660", "udf", "squashfs",
		"erofs", "gfs2", "ocfs2", "bcachefs", "jfs",
		/* made up by the kernel */
		"proc", "sysfs", "cgroup", "cgroup2", "devpts", "debugfs", "tracefs", "securityfs",
		"mqueue", "pstore", "binfmt_misc"};

	for (size_t i = 0; i < ARRAY_SIZE(known); i++)
		if (!strcmp(fstype, known[i]))
			return true;
	return false;
}

/* Lines of mountinfo: "ID parent major:minor root mount-point options… - TYPE source options" */
static bool fstype_of(struct judge *j, int mount, char ret[FSTYPE_MAX])
{
	char path[48];

	snprintf(path, sizeof(path), "/proc/%d/mountinfo", (int)j->pid);
	if (!j->mounts && fdio_read_file(path, MOUNTS_MAX, &j->mounts) < 0)
		return false;
	for (const char *at = j->mounts; at && *at;) {
		const char *end = strchrnul(at, '\n'), *dash = strstr(at, " - ");

		if (atoi(at) == mount && dash && dash < end)
			return sscanf(dash, " - %31s", ret) == 1;
		at = *end ? end + 1 : end;
	}
	return false;
}

/* The flags of open(2) and the mount of a descriptor. Return: false when it is closed meanwhile */
static bool opened_how(pid_t pid, int fd, unsigned int *ret_flags, int *ret_mount)
{
	CLEANUP_FREE char *text = NULL;
	const char *flags, *mount;
	char path[64];

	snprintf(path, sizeof(path), "/proc/%d/fdinfo/%d", (int)pid, fd);
	if (fdio_read_file(path, FDINFO_MAX, &text) < 0)
		return false;
	flags = strstr(text, "flags:");
	mount = strstr(text, "mnt_id:");
	if (!flags || !mount)
		return false;
	*ret_flags = (unsigned int)strtoul(flags + strlen("flags:"), NULL, 8);
	*ret_mount = atoi(mount + strlen("mnt_id:"));
	return true;
}

static void judge_file(struct judge *j, int fd, const char *link)
{
	char fstype[FSTYPE_MAX] = "";
	unsigned int flags;
	int mount;

	/* Memory files and what has no name in the file system are never on a disk. */
	if (link[0] != '/' || !strncmp(link, "/memfd:", 7) || vouched(j, link) ||
	    !opened_how(j->pid, fd, &flags, &mount) || (flags & O_ACCMODE) == O_WRONLY)
		return;
	if (flags & O_DIRECT)
		direct(j, link, "%.120s is open for direct I/O (O_DIRECT)", link);
	else if (!strncmp(link, "/dev/sg", 7) || !strncmp(link, "/dev/bsg/", 9))
		direct(j, link, "%.120s passes commands through to a device of the host", link);
	else if (fstype_of(j, mount, fstype) && !qemu_devices_copies(fstype))
		direct(j, link, "%.100s is on %.31s, which may read past the page cache", link,
		       fstype);
}

static bool take_fd(void *arg, int fd, const char *link)
{
	static const char *const foreign[] = {"/dev/vfio/", "/dev/infiniband/", "/dev/iommu", NULL};
	struct judge *j = arg;
	char what[160];

	snprintf(what, sizeof(what), "QEMU has %.120s open", link);
	if (!strcmp(link, "/dev/vhost-net"))
		refuse(j, link, what, "start the network card with vhost=off");
	else if (!strncmp(link, "/dev/vhost-", 11))
		refuse(j, link, what, "use an emulated device");
	else if (begins_with_one(link, foreign))
		refuse(j, link, what, "use an emulated device");
	else
		judge_file(j, fd, link);
	return true;
}

static void judge_fds(struct judge *j)
{
	int r = qemu_proc_fds(j->pid, take_fd, j);

	if (r < 0)
		error_set(&j->w->cannot, r, "guest-unknown",
			  "the descriptors of process %d cannot be looked at (%s), so it cannot be "
			  "told "
			  "who writes into the guest's memory: run this agent with CAP_SYS_PTRACE",
			  (int)j->pid, strerror(-r));
}

/* --- all of it ----------------------------------------------------------------------------------- */

static void count_others(struct qemu_writers *w)
{
	size_t n = strlen(w->dma);

	if (w->n > 1)
		snprintf(w->dma + n, sizeof(w->dma) - n, ", and %u more", w->n - 1);
}

void qemu_devices_opened(pid_t pid, const char *no_dma, struct qemu_writers *ret)
{
	struct judge j = {.pid = pid, .no_dma = no_dma, .w = ret};

	*ret = (struct qemu_writers){0};
	judge_fds(&j);
	free(j.mounts);
	count_others(ret);
}

void qemu_devices_judge(pid_t pid, const struct qemu_devices *d, const char *no_dma,
			struct qemu_writers *ret)
{
	struct judge j = {.pid = pid, .no_dma = no_dma, .w = ret};

	*ret = (struct qemu_writers){0};
	judge_devices(&j, d->devices);
	judge_devices(&j, d->anon);
	judge_devices(&j, d->objects);
	judge_network(&j, d->network);
	judge_nodes(&j, d->nodes);
	judge_fds(&j);
	judge_blockers(&j, d->migrate);
	free(j.mounts);
	count_others(ret);
}
