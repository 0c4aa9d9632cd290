/* SPDX-License-Identifier: Apache-2.0 */
#include "uffd/uffd.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include "uffd/pagemap.h"
#include "util/cleanup.h"

/** struct area - two pages of our own to try things on */
struct area {
	uint8_t *p;
	size_t page;
	size_t len;
};

static int area_map(struct area *a, enum uffd_mem mem)
{
	CLEANUP_CLOSE int fd = -1;
	int flags = MAP_PRIVATE | MAP_ANONYMOUS;

	a->page = (size_t)sysconf(_SC_PAGESIZE);
	a->len = 2 * a->page;
	if (mem == UFFD_MEM_SHMEM) {
		fd = memfd_create("decant-probe", MFD_CLOEXEC);
		if (fd < 0)
			return -errno;
		if (ftruncate(fd, (off_t)a->len) < 0)
			return -errno;
		flags = MAP_SHARED;
	}
	a->p = mmap(NULL, a->len, PROT_READ | PROT_WRITE, flags, fd, 0);
	return a->p == MAP_FAILED ? -errno : 0;
}

static uint64_t area_addr(const struct area *a)
{
	return (uint64_t)(uintptr_t)a->p;
}

/* A descriptor that shook hands for @want and has the area registered. Return: it or -errno */
static int area_register(const struct area *a, bool user_mode_only, uint64_t want, uint64_t mode,
			 uint64_t *ret_can)
{
	CLEANUP_CLOSE int fd = uffd_open(user_mode_only, NULL);
	int r;

	if (fd < 0)
		return fd;
	r = uffd_api(fd, want, NULL, NULL);
	if (r == 0)
		r = uffd_register(fd, area_addr(a), a->len, mode, ret_can);
	return r < 0 ? r : steal_fd(&fd);
}

static uint64_t wp_features(const struct uffd_caps *c, enum uffd_mem mem)
{
	uint64_t want = UFFD_F_PAGEFAULT_FLAG_WP | UFFD_F_WP_UNPOPULATED;

	if (mem == UFFD_MEM_SHMEM)
		want |= UFFD_F_WP_HUGETLBFS_SHMEM;
	return want & c->features;
}

static void runs_sum(void *arg, uint64_t start, uint64_t len)
{
	uint64_t *sum = arg;

	(void)start;
	*sum += len;
}

/*
 * Protect both pages, write to the first, and see exactly that: the only proof that features, ioctl
 * and scan fit together. Both pages are unpopulated, which also proves WP_UNPOPULATED.
 */
static bool try_async(const struct uffd_caps *c, const struct area *a, enum uffd_mem mem)
{
	uint64_t want = wp_features(c, mem) | UFFD_F_WP_ASYNC;
	CLEANUP_CLOSE int map = pagemap_open(0);
	CLEANUP_CLOSE int fd = -1;
	uint64_t all = 0, seen = 0, rest = 0, at = area_addr(a);

	if (!(c->features & UFFD_F_WP_ASYNC) || map < 0)
		return false;
	fd = area_register(a, c->how == UFFD_HOW_USER_MODE, want, UFFD_MODE_WP, NULL);
	if (fd < 0)
		return false;
	if (uffd_writeprotect(fd, at, a->len, true) < 0)
		return false;
	if (pagemap_written(map, at, at + a->len, true, runs_sum, &all) < 0 || all)
		return false;
	*(volatile uint8_t *)a->p = 1;
	if (pagemap_written(map, at, at + a->page, true, runs_sum, &seen) < 0)
		return false;
	if (pagemap_written(map, at, at + a->len, false, runs_sum, &rest) < 0)
		return false;
	return seen == a->page && !rest;
}

static unsigned int probe_tracking(struct uffd_caps *c, const struct area *a, enum uffd_mem mem)
{
	uint64_t need = UFFD_CAN_WAKE | UFFD_CAN_WRITEPROTECT;
	unsigned int kinds = 0;
	int fd;

	fd = area_register(a, c->how == UFFD_HOW_USER_MODE, wp_features(c, mem), UFFD_MODE_WP,
			   &c->wp[mem]);
	if (fd >= 0) {
		if ((c->wp[mem] & need) == need &&
		    uffd_writeprotect(fd, area_addr(a), a->len, true) == 0)
			kinds |= UFFD_TRACK_FAULTS;
		close(fd);
	}
	return kinds | (try_async(c, a, mem) ? UFFD_TRACK_ASYNC : 0);
}

static bool has_all(uint64_t can, uint64_t need)
{
	return (can & need) == need;
}

static int probe_mem(struct uffd_caps *c, enum uffd_mem mem)
{
	struct area a = {};
	int fd, r = area_map(&a, mem);
	unsigned int kinds;

	if (r < 0)
		return r;
	fd = area_register(&a, c->how == UFFD_HOW_USER_MODE, 0, UFFD_MODE_MISSING,
			   &c->missing[mem]);
	if (fd >= 0)
		close(fd);
	kinds = probe_tracking(c, &a, mem);
	munmap(a.p, a.len);
	if (mem == UFFD_MEM_ANON)
		c->tracking_anon = kinds;
	else
		c->tracking = kinds;
	return 0;
}

static int probe_open(struct uffd_caps *c, struct error *err)
{
	CLEANUP_CLOSE int fd = uffd_open(false, &c->how);
	int r, first = fd;

	if (fd < 0)
		fd = uffd_open(true, &c->how);
	if (fd == -ENOSYS)
		return error_set(err, fd, "no-userfaultfd",
				 "this kernel has no userfaultfd: it needs CONFIG_USERFAULTFD=y");
	if (fd < 0)
		return error_set(err, first, "no-userfaultfd",
				 "userfaultfd cannot be opened: %s; run as root, allow " UFFD_DEVICE
				 " to this user, or set vm.unprivileged_userfaultfd=1",
				 strerror(-first));
	r = uffd_api(fd, 0, &c->features, &c->ioctls);
	if (r < 0)
		error_set(err, r, "no-userfaultfd", "userfaultfd refuses API version 0xaa: %s",
			  strerror(-r));
	return r;
}

int uffd_probe(struct uffd_caps *ret, struct error *err)
{
	struct uffd_caps c = {};
	int r = probe_open(&c, err);

	if (r < 0)
		return r;
	for (int mem = 0; mem < UFFD_MEM_COUNT; mem++) {
		r = probe_mem(&c, (enum uffd_mem)mem);
		if (r < 0)
			return error_set(err, r, NULL, "no memory for a userfaultfd test area: %s",
					 strerror(-r));
	}
	c.populate_first = !(c.features & UFFD_F_WP_UNPOPULATED);
	c.postcopy = uffd_caps_postcopy(&c, NULL) == 0;
	*ret = c;
	return 0;
}

/* Add the names of the bits of @lack to a list. */
static void name_bits(char *buf, size_t cap, uint64_t lack, const char *(*name)(unsigned int),
		      const char *suffix)
{
	for (unsigned int bit = 0; bit < 64; bit++) {
		size_t n = strlen(buf);

		if (lack >> bit & 1 && name(bit))
			snprintf(buf + n, cap - n, "%s%s%s", n ? ", " : "", name(bit), suffix);
	}
}

int uffd_caps_postcopy(const struct uffd_caps *caps, struct error *err)
{
	const uint64_t own = UFFD_CAN_REGISTER | UFFD_CAN_UNREGISTER;
	const uint64_t range = UFFD_CAN_WAKE | UFFD_CAN_COPY | UFFD_CAN_ZEROPAGE;
	char lack[300] = "";

	if (has_all(caps->ioctls, own) && has_all(caps->missing[UFFD_MEM_ANON], range) &&
	    has_all(caps->missing[UFFD_MEM_SHMEM], range))
		return 0;
	name_bits(lack, sizeof(lack), own & ~caps->ioctls, uffd_can_name, "");
	name_bits(lack, sizeof(lack), range & ~caps->missing[UFFD_MEM_ANON], uffd_can_name,
		  " on anonymous memory");
	name_bits(lack, sizeof(lack), range & ~caps->missing[UFFD_MEM_SHMEM], uffd_can_name,
		  " on shared memory");
	return error_set(
		err, -EOPNOTSUPP, "no-postcopy",
		"this kernel's userfaultfd lacks %s: a newer kernel is needed (4.11 at least)",
		lack);
}

const char *uffd_feature_name(unsigned int bit)
{
	static const char *const names[] = {
		"PAGEFAULT_FLAG_WP",
		"EVENT_FORK",
		"EVENT_REMAP",
		"EVENT_REMOVE",
		"MISSING_HUGETLBFS",
		"MISSING_SHMEM",
		"EVENT_UNMAP",
		"SIGBUS",
		"THREAD_ID",
		"MINOR_HUGETLBFS",
		"MINOR_SHMEM",
		"EXACT_ADDRESS",
		"WP_HUGETLBFS_SHMEM",
		"WP_UNPOPULATED",
		"POISON",
		"WP_ASYNC",
		"MOVE",
	};

	return bit < ARRAY_SIZE(names) ? names[bit] : NULL;
}

const char *uffd_can_name(unsigned int bit)
{
	static const char *const names[] = {
		"REGISTER", "UNREGISTER",   "WAKE",     "COPY",   "ZEROPAGE",
		"MOVE",     "WRITEPROTECT", "CONTINUE", "POISON",
	};

	if (bit == 0x3f)
		return "API";
	return bit < ARRAY_SIZE(names) ? names[bit] : NULL;
}
