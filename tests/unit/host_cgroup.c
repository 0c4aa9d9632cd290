/* SPDX-License-Identifier: Apache-2.0 */
/* What control groups leave: trees of files as the kernel has them, of both versions, in a folder of this test. */
#include <criterion/criterion.h>
#include <ftw.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "host/cgroup.h"
#include "util/fdio.h"

TestSuite(host_cgroup, .timeout = 30);

/** struct tree - @dir stands for where groups are mounted; @mounts and @member for the files of /proc */
struct tree {
	char dir[40], mounts[64], member[64];
};

__attribute__((format(printf, 3, 4))) static void put(const char *dir, const char *file,
						      const char *fmt, ...)
{
	char path[256];
	va_list ap;
	FILE *f;

	cr_assert_eq(fdio_mkdir_p(dir, 0755), 0, "%s", dir);
	snprintf(path, sizeof(path), "%s/%s", dir, file);
	f = fopen(path, "we");
	cr_assert(f, "%s: %m", path);
	va_start(ap, fmt);
	vfprintf(f, fmt, ap);
	va_end(ap);
	fclose(f);
}

static struct tree tree(void)
{
	struct tree t = {.dir = "/tmp/cgroup.XXXXXX"};

	cr_assert(mkdtemp(t.dir));
	snprintf(t.mounts, sizeof(t.mounts), "%s/mountinfo", t.dir);
	snprintf(t.member, sizeof(t.member), "%s/cgroup", t.dir);
	return t;
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *f)
{
	(void)st;
	(void)type;
	(void)f;
	return remove(path);
}

static void leave(const struct tree *t)
{
	nftw(t->dir, remove_one, 8, FTW_DEPTH | FTW_PHYS);
}

/* A group of version 2 below the mount "v2". */
static void group2(const struct tree *t, const char *path, const char *max, unsigned long current,
		   unsigned long file)
{
	char dir[160];

	snprintf(dir, sizeof(dir), "%s/v2%s", t->dir, path);
	put(dir, "memory.max", "%s\n", max);
	put(dir, "memory.current", "%lu\n", current);
	put(dir, "memory.stat", "anon 5\nshmem 7\ninactive_file %lu\nactive_file %lu\nslab 9\n",
	    file / 2, file - file / 2);
}

static void group1(const struct tree *t, const char *path, const char *limit, unsigned long usage,
		   unsigned long file)
{
	char dir[160];

	snprintf(dir, sizeof(dir), "%s/v1%s", t->dir, path);
	put(dir, "memory.limit_in_bytes", "%s\n", limit);
	put(dir, "memory.usage_in_bytes", "%lu\n", usage);
	put(dir, "memory.stat",
	    "inactive_file 99999\ntotal_inactive_file %lu\ntotal_active_file 0\n", file);
}

/* Both versions are mounted, as on hosts that have "hybrid" groups; @root is what of them is seen. */
static void mounts(const struct tree *t, const char *root)
{
	put(t->dir, "mountinfo",
	    "22 1 0:21 / / rw,relatime shared:1 - ext4 /dev/vda1 rw\n"
	    "30 22 0:29 / %s/cpu rw - cgroup cgroup rw,cpu,cpuacct\n"
	    "31 22 0:30 %s %s/v1 rw,nosuid shared:9 master:3 - cgroup cgroup rw,hugetlb,memory\n"
	    "32 22 0:31 %s %s/v2 ro - cgroup2 cgroup rw,nsdelegate\n",
	    t->dir, root, t->dir, root, t->dir);
}

static void expect(const struct tree *t, const char *below, const char *path, uint64_t limit,
		   uint64_t unused)
{
	struct cgroup_room room = {.unused = UINT64_MAX};
	char want[160] = "";

	cgroup_memory(t->mounts, t->member, below, &room);
	if (*path)
		snprintf(want, sizeof(want), "%s/%s", t->dir, path);
	cr_assert_str_eq(room.path, want);
	cr_assert_eq(room.unused, unused, "%lu", room.unused);
	cr_assert_eq(room.limit, limit, "%lu", room.limit);
	if (*path)
		cr_assert_str_eq(room.file,
				 path[1] == '2' ? "memory.max" : "memory.limit_in_bytes");
}

Test(host_cgroup, version_2_and_all_above)
{
	struct tree t = tree();

	mounts(&t, "/");
	put(t.dir, "cgroup", "12:cpu,cpuacct:/x\n0::/a/b\n");
	group2(&t, "/a", "max", 500, 0);
	group2(&t, "/a/b", "max", 400, 0);
	expect(&t, NULL, "", 0, UINT64_MAX);
	group2(&t, "/a/b", "1000", 400, 100);
	expect(&t, NULL, "v2/a/b", 1000, 700);
	group2(&t, "/a", "2000", 1500, 0);
	expect(&t, NULL, "v2/a", 2000, 500);
	/* It is over its limit, as when that was lowered; and one of files that are all its own. */
	group2(&t, "/a", "1000", 1500, 0);
	expect(&t, NULL, "v2/a", 1000, 0);
	group2(&t, "/a", "1000", 1500, 9000);
	expect(&t, NULL, "v2/a/b", 1000, 700);
	/* Another's does not matter, nor does one that is there and not ours. */
	group2(&t, "/a/c", "1", 0, 0);
	group2(&t, "/a/b/d", "1", 0, 0);
	expect(&t, NULL, "v2/a/b", 1000, 700);
	leave(&t);
}

Test(host_cgroup, version_1_beside_it)
{
	struct tree t = tree();

	mounts(&t, "/");
	put(t.dir, "cgroup", "4:hugetlb,memory:/m/n\n3:memory2:/m\n0::/a\n");
	group1(&t, "", "9223372036854771712", 100, 0);
	group1(&t, "/m", "9223372036854771712", 100, 0);
	group1(&t, "/m/n", "4096", 1096, 1000);
	/* Version 2 has no memory controller there. */
	expect(&t, NULL, "v1/m/n", 4096, 4000);
	group1(&t, "", "3000", 100, 0);
	expect(&t, NULL, "v1", 3000, 2900);
	leave(&t);
}

/* In a container: what is mounted is its group, under the name that it has outside; or nothing that one is in. */
Test(host_cgroup, a_part_is_mounted)
{
	struct tree t = tree();

	mounts(&t, "/docker/1");
	put(t.dir, "cgroup", "0::/docker/1/a\n");
	group2(&t, "", "3000", 0, 0);
	group2(&t, "/a", "2000", 0, 0);
	group2(&t, "/docker/1/a", "1", 0, 0);
	expect(&t, NULL, "v2/a", 2000, 2000);
	put(t.dir, "cgroup", "0::/docker/12/a\n");
	expect(&t, NULL, "v2", 3000, 3000);
	put(t.dir, "cgroup", "0::/docker/1/../../x\n");
	expect(&t, NULL, "v2", 3000, 3000);
	leave(&t);
}

/* Those of systemd's guests, also before the first of them is there. */
Test(host_cgroup, a_group_below_that_of_systemd)
{
	struct tree t = tree();

	mounts(&t, "/");
	put(t.dir, "cgroup", "0::/init.scope\n");
	group2(&t, "/init.scope", "1", 0, 0);
	group2(&t, "/decant.slice", "5000", 0, 0);
	expect(&t, "decant.slice/decant-guests.slice", "v2/decant.slice", 5000, 5000);
	group2(&t, "/decant.slice/decant-guests.slice", "4000", 1000, 0);
	expect(&t, "decant.slice/decant-guests.slice", "v2/decant.slice/decant-guests.slice", 4000,
	       3000);
	put(t.dir, "cgroup", "0::/\n");
	expect(&t, "decant.slice/decant-guests.slice", "v2/decant.slice/decant-guests.slice", 4000,
	       3000);
	leave(&t);
}

/* Whatever stands there, nothing is made up. */
Test(host_cgroup, what_cannot_be_read_is_no_limit)
{
	struct tree t = tree();

	expect(&t, NULL, "", 0, UINT64_MAX);
	put(t.dir, "mountinfo", "no such\n - cgroup2\n1 2 3 / %s/v2 - cgroup2", t.dir);
	put(t.dir, "cgroup", "0:\n:::\n\n0::/a");
	expect(&t, NULL, "", 0, UINT64_MAX);
	mounts(&t, "/");
	group2(&t, "/a", "", 1, 0);
	expect(&t, NULL, "", 0, UINT64_MAX);
	group2(&t, "/a", "rubbish", 1, 0);
	expect(&t, NULL, "", 0, UINT64_MAX);
	group2(&t, "/a", "10", 1, 0);
	expect(&t, NULL, "v2/a", 10, 9);
	leave(&t);
}

/* Two questions, one answer: the least of both. */
Test(host_cgroup, the_least_of_two)
{
	struct cgroup_room room = {.unused = UINT64_MAX};
	struct tree t = tree();
	char want[160];

	mounts(&t, "/");
	group2(&t, "/a", "10", 0, 0);
	group2(&t, "/b", "20", 0, 0);
	put(t.dir, "cgroup", "0::/a\n");
	cgroup_memory(t.mounts, t.member, NULL, &room);
	put(t.dir, "cgroup", "0::/b\n");
	cgroup_memory(t.mounts, t.member, NULL, &room);
	snprintf(want, sizeof(want), "%s/v2/a", t.dir);
	cr_assert_str_eq(room.path, want);
	cr_assert_eq(room.unused, 10);
	leave(&t);
}
