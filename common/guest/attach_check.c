/* SPDX-License-Identifier: Apache-2.0 */
#include "guest/attach_check.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <linux/magic.h>

#include "util/cleanup.h"

#define ADDRESS_MAX (UINT64_C(1) << 56) /* end of user space with five levels of page tables */

static int wrong(struct error *err, const struct guest_block *b, const char *why)
{
	return error_set(err, -EINVAL, "bad-block", "block %s: %s", b->name, why);
}

static int check_numbers(const struct guest *g, const struct guest_block *b, struct error *err)
{
	uint64_t sum = guest_memory_bytes(g);

	if (!b->page_size || (b->page_size & (b->page_size - 1)) ||
	    b->page_size > (UINT64_C(1) << 30))
		return wrong(err, b, "its page size is impossible");
	if (b->kind != GUEST_BLOCK_HUGETLB && b->page_size != (uint64_t)sysconf(_SC_PAGESIZE))
		return wrong(err, b, "its page size is not that of this host");
	if (!b->length)
		return wrong(err, b, "it is empty");
	if (b->length > GWIRE_MEMORY_MAX || sum > GWIRE_MEMORY_MAX - b->length)
		return wrong(err, b, "it is absurdly large");
	if (b->length % b->page_size || b->addr % b->page_size)
		return wrong(err, b, "its address or length is not a multiple of its page size");
	if (!b->addr || b->addr > ADDRESS_MAX || b->length > ADDRESS_MAX - b->addr)
		return wrong(err, b, "its address range cannot be");
	return 0;
}

static int check_others(const struct guest *g, const struct guest_block *b, struct error *err)
{
	for (size_t i = 0; i < g->nblocks; i++) {
		const struct guest_block *o = &g->blocks[i];

		if (!strcmp(o->name, b->name))
			return wrong(err, b, "there are two of this name");
		if (b->addr < o->addr + o->length && o->addr < b->addr + b->length)
			return error_set(err, -EINVAL, "bad-block", "block %s overlaps block %s",
					 b->name, o->name);
	}
	return 0;
}

static bool same_file(int a, int b)
{
	struct stat sa, sb;

	return a >= 0 && b >= 0 && !fstat(a, &sa) && !fstat(b, &sb) && sa.st_dev == sb.st_dev &&
	       sa.st_ino == sb.st_ino;
}

static int check_file(const struct guest *g, const struct guest_block *b, struct error *err)
{
	bool huge = b->kind == GUEST_BLOCK_HUGETLB;
	struct statfs fs;
	struct stat st;
	int seals;

	if (fstat(b->fd, &st) || fstatfs(b->fd, &fs) || !S_ISREG(st.st_mode))
		return wrong(err, b, "its descriptor is not that of a memory file");
	if ((uint64_t)fs.f_type != (huge ? HUGETLBFS_MAGIC : TMPFS_MAGIC))
		return wrong(err, b,
			     huge ? "its file is not on hugetlbfs" : "its file is not on tmpfs");
	if (huge && (uint64_t)fs.f_bsize != b->page_size)
		return wrong(err, b, "its file has another page size");
	if ((uint64_t)st.st_size != b->length)
		return wrong(err, b, "its file has another length");
	if ((fcntl(b->fd, F_GETFL) & O_ACCMODE) != O_RDWR)
		return wrong(err, b, "its file is not open for reading and writing");
	seals = fcntl(b->fd, F_GET_SEALS);
	if (seals < 0 || !(seals & F_SEAL_SHRINK))
		return wrong(err, b, "its file lacks F_SEAL_SHRINK");
	if (seals & (F_SEAL_WRITE | F_SEAL_FUTURE_WRITE))
		return wrong(err, b, "its file is sealed against writing");
	for (size_t i = 0; i < g->nblocks; i++)
		if (same_file(g->blocks[i].fd, b->fd))
			return error_set(err, -EINVAL, "bad-block",
					 "block %s has the same file as block %s", b->name,
					 g->blocks[i].name);
	return 0;
}

int attach_check_block(const struct guest *g, const struct guest_block *b, struct error *err)
{
	int ret;

	if (!guest_name_ok(b->name))
		return error_set(err, -EINVAL, "bad-block", "block %u: its name is malformed",
				 b->index);
	if (b->index != g->nblocks)
		return wrong(err, b, "it is out of order");
	ret = check_numbers(g, b, err);
	if (!ret)
		ret = check_others(g, b, err);
	if (!ret && b->kind != GUEST_BLOCK_ANON)
		ret = check_file(g, b, err);
	return ret;
}

/** struct mapping - a line of /proc/PID/maps */
struct mapping {
	uint64_t start;
	uint64_t end;
	bool shared;
	uint64_t offset;
	dev_t dev;
	uint64_t inode;
};

static bool parse(const char *line, struct mapping *m)
{
	unsigned int major, minor;
	char perms[5];

	if (sscanf(line, "%" SCNx64 "-%" SCNx64 " %4s %" SCNx64 " %x:%x %" SCNu64, &m->start,
		   &m->end, perms, &m->offset, &major, &minor, &m->inode) != 7)
		return false;
	m->shared = perms[3] == 's';
	m->dev = makedev(major, minor);
	return true;
}

/* @done: how much of the block the mappings before this one cover. Lines come in rising order. */
static int check_mapping(const struct guest_block *b, const struct mapping *m, uint64_t *done,
			 struct error *err)
{
	uint64_t at = b->addr + *done, end = b->addr + b->length;
	struct stat st;

	if (*done == b->length || m->end <= at || m->start >= end)
		return 0;
	if (m->start > at)
		return wrong(err, b, "a part of it is not mapped");
	if (b->kind == GUEST_BLOCK_ANON) {
		if (m->inode || m->shared)
			return wrong(err, b,
				     "what is mapped there is not private anonymous memory");
	} else if (fstat(b->fd, &st) || !m->shared || m->inode != st.st_ino ||
		   m->dev != st.st_dev || m->offset + (at - m->start) != *done) {
		return wrong(err, b, "what is mapped there is not its file");
	}
	*done = MIN(m->end, end) - b->addr;
	return 0;
}

int attach_check_maps(const struct guest *g, struct error *err)
{
	uint64_t done[GUEST_BLOCKS_MAX] = {0};
	CLEANUP_FCLOSE FILE *f = NULL;
	CLEANUP_FREE char *line = NULL;
	char path[64];
	size_t cap = 0;
	struct mapping m;
	int ret;

	snprintf(path, sizeof(path), "/proc/%d/maps", (int)g->pid);
	f = fopen(path, "re");
	while (f && getline(&line, &cap, f) > 0) {
		if (!parse(line, &m))
			continue;
		for (size_t i = 0; i < g->nblocks; i++) {
			ret = check_mapping(&g->blocks[i], &m, &done[i], err);
			if (ret)
				return ret;
		}
	}
	if (!f || ferror(f)) {
		ret = errno ? -errno : -EIO;
		return error_set(err, ret, "not-permitted",
				 "cannot read %s: %s; run the agent as root or as the guest's user",
				 path, strerror(-ret));
	}
	for (size_t i = 0; i < g->nblocks; i++)
		if (done[i] != g->blocks[i].length)
			return wrong(err, &g->blocks[i], "a part of it is not mapped");
	return 0;
}

/* --- sharers --- */

/** mapping_fn - a line of /proc/PID/maps. Return: 0 to go on, else what each_mapping() returns */
typedef int mapping_fn(void *arg, const struct mapping *m);

/* Return: 0, what @fn has returned, or -errno */
static int each_mapping(pid_t pid, mapping_fn *fn, void *arg)
{
	CLEANUP_FCLOSE FILE *f = NULL;
	CLEANUP_FREE char *line = NULL;
	char path[64];
	size_t cap = 0;
	struct mapping m;
	int ret = 0;

	snprintf(path, sizeof(path), "/proc/%d/maps", (int)pid);
	f = fopen(path, "re");
	if (!f)
		return -errno;
	while (!ret && getline(&line, &cap, f) > 0)
		if (parse(line, &m))
			ret = fn(arg, &m);
	return ret ? ret : ferror(f) ? -EIO : 0;
}

/**
 * struct share_look - is a range mapped without a gap, all of it from one file?
 * @r:		the range
 * @done:	bytes of it that were seen
 * @dev, @inode: of the file; taken from the first mapping if @inode is 0
 */
struct share_look {
	const struct gwire_share *r;
	uint64_t done;
	dev_t dev;
	uint64_t inode;
};

static int look_at(void *arg, const struct mapping *m)
{
	struct share_look *l = arg;
	uint64_t at = l->r->address + l->done, end = l->r->address + l->r->length;

	if (l->done == l->r->length || m->end <= at || m->start >= end)
		return 0;
	if (!l->inode) {
		l->dev = m->dev;
		l->inode = m->inode;
	}
	if (m->start > at || !m->shared || !m->inode || m->inode != l->inode || m->dev != l->dev ||
	    m->offset + (at - m->start) != l->r->offset + l->done)
		return -EINVAL;
	l->done = MIN(m->end, end) - l->r->address;
	return 0;
}

int attach_check_share(pid_t pid, const struct gwire_share *r, int fd, struct error *err)
{
	struct share_look l = {.r = r};
	struct stat st;
	int ret;

	if (r->address > ADDRESS_MAX || r->length > ADDRESS_MAX - r->address || fstat(fd, &st))
		return error_set(err, -EINVAL, "bad-range", "block %s: its address range cannot be",
				 r->block);
	l.dev = st.st_dev;
	l.inode = st.st_ino;
	ret = each_mapping(pid, look_at, &l);
	if (ret && ret != -EINVAL)
		return error_set(err, ret, "not-permitted", "cannot read /proc/%d/maps: %s",
				 (int)pid, strerror(-ret));
	if (ret || l.done != r->length)
		return error_set(err, -EINVAL, "bad-range",
				 "block %s: what is mapped at 0x%" PRIx64
				 " is not that part of the guest's file",
				 r->block, r->address);
	return 0;
}

static int look_for(void *arg, const struct mapping *m)
{
	const struct share_look *l = arg;

	return m->shared && m->inode == l->inode && m->dev == l->dev;
}

bool attach_same_memory(pid_t pid, const struct gwire_share *r, pid_t other)
{
	struct share_look l = {.r = r};

	return !each_mapping(pid, look_at, &l) && l.done == r->length &&
	       each_mapping(other, look_for, &l) == 1;
}

int attach_check_uffd(int fd)
{
	static const char want[] = "anon_inode:[userfaultfd]";
	char path[64], link[64];
	ssize_t len;

	if (fd < 0)
		return -EPROTO;
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	len = readlink(path, link, sizeof(link));
	return len == sizeof(want) - 1 && !memcmp(link, want, sizeof(want) - 1) ? 0 : -EPROTO;
}
