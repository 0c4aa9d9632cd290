/* SPDX-License-Identifier: Apache-2.0 */
#include "guest/qemu/qemu_proc.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/magic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "util/cleanup.h"
#include "util/fdio.h"

#define SOCKETS_MAX 1024
#define LINK_MAX_   512

/* --- descriptors -------------------------------------------------------------------------------- */

int qemu_proc_fds(pid_t pid, qemu_proc_fd_fn *fn, void *arg)
{
	char path[48], link[LINK_MAX_];
	struct dirent *e;
	bool more = true;
	DIR *dir;

	snprintf(path, sizeof(path), "/proc/%d/fd", (int)pid);
	dir = opendir(path);
	if (!dir)
		return -errno;
	while (more && (e = readdir(dir))) {
		ssize_t n = readlinkat(dirfd(dir), e->d_name, link, sizeof(link) - 1);

		if (n <= 0 || !isdigit((unsigned char)e->d_name[0]))
			continue;
		link[n] = '\0';
		more = fn(arg, (int)strtol(e->d_name, NULL, 10), link);
	}
	closedir(dir);
	return 0;
}

/** struct wanted - a link that is looked for, and where it was found */
struct wanted {
	const char *link;
	int fd;
};

static bool take_wanted(void *arg, int fd, const char *link)
{
	struct wanted *w = arg;

	if (!strcmp(link, w->link) && fd > w->fd)
		w->fd = fd;
	return true;
}

int qemu_proc_fd_of(pid_t pid, const char *link)
{
	struct wanted w = {link, -ENOENT};
	int r = qemu_proc_fds(pid, take_wanted, &w);

	return r < 0 ? r : w.fd;
}

/* --- who is it? --------------------------------------------------------------------------------- */

/** struct sockets - inodes of a process's sockets */
struct sockets {
	unsigned long inodes[SOCKETS_MAX];
	size_t n;
};

static bool take_socket(void *arg, int fd, const char *link)
{
	struct sockets *s = arg;

	(void)fd;
	if (sscanf(link, "socket:[%lu]", &s->inodes[s->n]) == 1)
		s->n++;
	return s->n < SOCKETS_MAX;
}

static bool holds(const struct sockets *s, unsigned long inode)
{
	for (size_t i = 0; i < s->n; i++)
		if (s->inodes[i] == inode)
			return true;
	return false;
}

/* Is the name that a socket was bound to, as its process sees it, this very file? */
static bool is_file(pid_t pid, const char *bound, const struct stat *file)
{
	CLEANUP_FREE char *path = NULL;
	struct stat st;

	if (asprintf(&path, "/proc/%d/%s%s%s", (int)pid, *bound == '/' ? "root" : "cwd",
		     *bound == '/' ? "" : "/", bound) < 0) {
		path = NULL;
		return false;
	}
	return !stat(path, &st) && st.st_dev == file->st_dev && st.st_ino == file->st_ino;
}

/* Lines of /proc/net/unix: address, references, protocol, flags, type, state, inode, path. */
static bool listens_at(pid_t pid, const struct stat *file)
{
	CLEANUP_FREE struct sockets *s = calloc(1, sizeof(*s));
	CLEANUP_FCLOSE FILE *f = NULL;
	char path[48], line[LINK_MAX_];

	snprintf(path, sizeof(path), "/proc/%d/net/unix", (int)pid);
	if (!s || qemu_proc_fds(pid, take_socket, s) < 0 || !(f = fopen(path, "re")))
		return false;
	while (fgets(line, sizeof(line), f)) {
		unsigned long flags, inode;
		int at = 0;

		if (sscanf(line, "%*s %*s %*s %lx %*s %*s %lu %n", &flags, &inode, &at) != 2 ||
		    !at || !(flags & 0x10000 /* listening */) || !holds(s, inode))
			continue;
		line[strcspn(line, "\n")] = '\0';
		if (is_file(pid, line + at, file))
			return true;
	}
	return false;
}

static bool is_qemu(pid_t pid, char *program, size_t size)
{
	char path[48], link[LINK_MAX_];
	const char *name;
	ssize_t n;

	snprintf(path, sizeof(path), "/proc/%d/exe", (int)pid);
	n = readlink(path, link, sizeof(link) - 1);
	link[MAX(n, 0)] = '\0';
	name = strrchr(link, '/') ? strrchr(link, '/') + 1 : link;
	snprintf(program, size, "%.60s", *name ? name : "not to be seen from here");
	return !strncmp(name, "qemu-", 5);
}

static pid_t search_all(const struct stat *file)
{
	DIR *dir = opendir("/proc");
	pid_t found = 0;
	struct dirent *e;
	char program[64];

	while (dir && !found && (e = readdir(dir))) {
		pid_t pid = (pid_t)strtol(e->d_name, NULL, 10);

		if (pid > 0 && is_qemu(pid, program, sizeof(program)) && listens_at(pid, file))
			found = pid;
	}
	if (dir)
		closedir(dir);
	return found;
}

static int describe(pid_t pid, uid_t *ret_uid, int *ret_pidfd, struct error *err)
{
	CLEANUP_CLOSE int pidfd = pidfd_open(pid, 0);
	struct stat st;
	char path[48];

	snprintf(path, sizeof(path), "/proc/%d", (int)pid);
	if (pidfd < 0 || stat(path, &st))
		return error_set(err, -errno, "guest-gone", "process %d: %m", (int)pid);
	*ret_uid = st.st_uid;
	*ret_pidfd = steal_fd(&pidfd);
	return 0;
}

pid_t qemu_proc_find(const char *path, pid_t claimed, uid_t *ret_uid, int *ret_pidfd,
		     struct error *err)
{
	char program[64] = "not to be seen from here";
	struct stat file;
	pid_t pid = claimed;
	int r;

	if (stat(path, &file))
		return error_set(err, -errno, NULL, "%s: %m", path);
	if (pid <= 0 || !is_qemu(pid, program, sizeof(program)) || !listens_at(pid, &file))
		pid = search_all(&file);
	if (pid <= 0)
		return error_set(
			err, -ESRCH, "not-qemu",
			"no QEMU process of this host has the socket %s (process %d does, and "
			"is %s)",
			path, (int)claimed, program);
	r = describe(pid, ret_uid, ret_pidfd, err);
	return r < 0 ? r : pid;
}

bool qemu_proc_said(pid_t pid, const char *word)
{
	CLEANUP_FREE char *text = NULL;
	char path[48];
	ssize_t n;

	snprintf(path, sizeof(path), "/proc/%d/cmdline", (int)pid);
	n = fdio_read_file(path, 1u << 20, &text);
	for (ssize_t at = 0; at < n; at += (ssize_t)strlen(text + at) + 1)
		if (!strcmp(text + at, word))
			return true;
	return false;
}

/* --- memory ------------------------------------------------------------------------------------- */

/** struct mapping - a line of /proc/PID/maps */
struct mapping {
	uint64_t start, end, offset;
	char perms[5];
	dev_t dev;
	ino_t ino;
	char what[LINK_MAX_];
};

static bool parse(const char *line, struct mapping *m)
{
	unsigned int major, minor;
	unsigned long ino;
	int at = 0;

	if (sscanf(line, "%" SCNx64 "-%" SCNx64 " %4s %" SCNx64 " %x:%x %lu %n", &m->start, &m->end,
		   m->perms, &m->offset, &major, &minor, &ino, &at) < 7)
		return false;
	m->dev = makedev(major, minor);
	m->ino = ino;
	snprintf(m->what, sizeof(m->what), "%s", at ? line + at : "");
	m->what[strcspn(m->what, "\n")] = '\0';
	return true;
}

static FILE *open_of(pid_t pid, const char *file)
{
	char path[48];

	snprintf(path, sizeof(path), "/proc/%d/%s", (int)pid, file);
	return fopen(path, "re");
}

static int changed(const struct guest_block *b, struct error *err)
{
	return error_set(err, -EFAULT, "block-not-mapped",
			 "block %s is not mapped in one piece of one file in QEMU's memory",
			 b->name);
}

/* One mapping, or several of one file side by side: flags can split it. The first goes to @ret. */
static int find_mappings(FILE *maps, const struct guest_block *b, struct mapping *ret,
			 struct error *err)
{
	uint64_t at = b->addr, end = b->addr + b->length;
	char line[LINK_MAX_ + 128];
	struct mapping m;

	while (at < end && fgets(line, sizeof(line), maps)) {
		if (!parse(line, &m) || m.end <= at)
			continue;
		if (m.start > at)
			return changed(b, err);
		if (at == b->addr)
			*ret = m;
		if (ret->perms[3] != 's' && m.perms[3] == ret->perms[3] && !m.ino && !ret->ino) {
			at = m.end;
			continue;
		}
		if (ret->perms[3] != 's')
			return 0;
		if (m.ino != ret->ino || m.dev != ret->dev ||
		    m.offset + (at - m.start) != at - b->addr)
			return changed(b, err);
		at = m.end;
	}
	return at < end ? changed(b, err) : 0;
}

/** struct backing - a file that is looked for among descriptors; @fd: of ours, or -ENOENT */
struct backing {
	pid_t pid;
	const struct mapping *m;
	int fd;
};

static bool try_backing(void *arg, int fd, const char *link)
{
	struct backing *b = arg;
	struct stat st;
	char path[64];
	int own;

	(void)link;
	snprintf(path, sizeof(path), "/proc/%d/fd/%d", (int)b->pid, fd);
	if (stat(path, &st) || st.st_ino != b->m->ino || st.st_dev != b->m->dev)
		return true;
	own = open(path, O_RDWR | O_CLOEXEC);
	b->fd = own < 0 ? -errno : own;
	return own < 0;
}

/* The mapping itself opens for who may (CAP_CHECKPOINT_RESTORE); QEMU keeps a descriptor for others. */
static int open_backing(pid_t pid, const struct mapping *m)
{
	struct backing b = {pid, m, -ENOENT};
	char path[96];
	int fd, r;

	snprintf(path, sizeof(path), "/proc/%d/map_files/%" PRIx64 "-%" PRIx64, (int)pid, m->start,
		 m->end);
	fd = open(path, O_RDWR | O_CLOEXEC);
	if (fd >= 0)
		return fd;
	r = qemu_proc_fds(pid, try_backing, &b);
	return r < 0 ? r : b.fd;
}

static int classify(struct guest_block *b, int fd, const char *what, struct error *err)
{
	struct statfs fs;
	struct stat st;

	if (fstatfs(fd, &fs) || fstat(fd, &st))
		return error_set(err, -errno, NULL, "block %s: %m", b->name);
	if (fs.f_type == TMPFS_MAGIC) {
		b->kind = GUEST_BLOCK_MEMFD;
		b->page_size = (uint64_t)sysconf(_SC_PAGESIZE);
	} else if (fs.f_type == HUGETLBFS_MAGIC) {
		b->kind = GUEST_BLOCK_HUGETLB;
		b->page_size = (uint64_t)fs.f_bsize;
	} else {
		return error_set(
			err, -EOPNOTSUPP, "backing-not-supported",
			"block %s is backed by %s, which is neither in shared memory nor in "
			"huge pages: use mem-path=/dev/shm/… or memory-backend-memfd",
			b->name, what);
	}
	if ((uint64_t)st.st_size < b->length)
		return changed(b, err);
	return 0;
}

/*
 * Of a private mapping of a file, pages that QEMU has not written to are the file's: nobody can track that. So
 * anonymous memory it is, or nothing.
 */
static int take_private(struct guest_block *b, const struct mapping *m, bool allowed,
			struct error *err)
{
	if (m->ino)
		return error_set(
			err, -EOPNOTSUPP, "anonymous-memory",
			"block %s is a private mapping of %.120s, which cannot be moved from "
			"outside: give its -object share=on",
			b->name, m->what);
	if (!allowed)
		return error_set(
			err, -EOPNOTSUPP, "anonymous-memory",
			"block %s is private memory of QEMU's process: back it by -object "
			"memory-backend-file or memory-backend-memfd with share=on, or have it "
			"moved as it is, which is experimental, by \"anonymous_memory\": "
			"\"experimental\" in the guest's vars",
			b->name);
	b->kind = GUEST_BLOCK_ANON;
	b->page_size = (uint64_t)sysconf(_SC_PAGESIZE);
	return 0;
}

int qemu_proc_block(pid_t pid, struct guest_block *b, bool anonymous, struct error *err)
{
	CLEANUP_FCLOSE FILE *maps = open_of(pid, "maps");
	CLEANUP_CLOSE int fd = -1;
	struct mapping m = {0};
	int r;

	if (!maps)
		return error_set(err, -errno, NULL, "the mappings of process %d cannot be read: %m",
				 (int)pid);
	r = find_mappings(maps, b, &m, err);
	if (r < 0)
		return r;
	if (m.perms[3] != 's')
		return take_private(b, &m, anonymous, err);
	fd = open_backing(pid, &m);
	if (fd < 0)
		return error_set(err, fd, "memory-refused",
				 "the file behind block %s cannot be opened: %s; this agent needs "
				 "CAP_SYS_PTRACE, and CAP_CHECKPOINT_RESTORE or CAP_SYS_ADMIN",
				 b->name, strerror(-fd));
	r = classify(b, fd, m.what, err);
	if (!r)
		b->fd = steal_fd(&fd);
	return r;
}

int qemu_proc_has_flag(pid_t pid, uint64_t addr, const char *flag)
{
	CLEANUP_FCLOSE FILE *smaps = open_of(pid, "smaps");
	char line[LINK_MAX_ + 128], want[8];
	bool inside = false;
	struct mapping m;

	if (!smaps)
		return -errno;
	snprintf(want, sizeof(want), " %.4s", flag);
	while (fgets(line, sizeof(line), smaps)) {
		if (parse(line, &m))
			inside = m.start <= addr && addr < m.end;
		else if (inside && !strncmp(line, "VmFlags:", 8))
			return strstr(line, want) != NULL;
	}
	return -ENOENT;
}
