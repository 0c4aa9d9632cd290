/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Memory that is in files of a file system with a size: a QEMU's in /dev/shm, say. Which file system that is shows when
 * the guest has been launched, and is asked of its files themselves: no launcher's words have to be understood. A memfd
 * is in none that has a size.
 */
#include "room.h"
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/sysmacros.h>
#include "fit.h"
#include "incoming_priv.h"
#include "util/cleanup.h"
#include "util/fdio.h"

#define MOUNTS     "/proc/self/mountinfo"
#define MOUNTS_MAX (1 << 20)
#define BLOCK      512 /* of st_blocks */

/* Pages of huge pages were promised by their pool. */
static bool is_there(const struct place_block *b, dev_t dev, struct stat *ret)
{
	return b->kind != MSG_BLOCK_HUGETLB && b->mem.block.fd >= 0 &&
	       !fstat(b->mem.block.fd, ret) && ret->st_dev == dev;
}

/* What the guest's files there will still grow by: what its start-up has filled is emptied and filled again. */
static uint64_t will_take(const struct incoming *inc, dev_t dev)
{
	uint64_t sum = 0;
	struct stat st;

	for (unsigned int i = 0; i < inc->place.n; i++) {
		const struct place_block *b = &inc->place.blocks[i];

		if (is_there(b, dev, &st))
			sum += b->length - MIN((uint64_t)st.st_blocks * BLOCK, b->length);
	}
	return sum;
}

static uint64_t others_will_take(const struct incoming *inc, dev_t dev)
{
	uint64_t sum = 0;

	for (const struct incoming *o = inc->d->incomings; o; o = incoming_next(o))
		if (o != inc && o->placed && !o->store && incoming_admitted(o))
			sum += will_take(o, dev);
	return sum;
}

/* Where a file system is mounted, for people. Of several places any will do. */
static void mounted_at(dev_t dev, char *out, size_t cap)
{
	CLEANUP_FREE char *text = NULL;
	unsigned int major, minor;
	char *rest, at[256];

	snprintf(out, cap, "device %u:%u", major(dev), minor(dev));
	if (fdio_read_file(MOUNTS, MOUNTS_MAX, &text) < 0) {
		text = NULL;
		return;
	}
	rest = text;
	for (char *line; (line = strsep(&rest, "\n"));)
		if (sscanf(line, "%*s %*s %u:%u %*s %255s", &major, &minor, at) == 3 &&
		    makedev(major, minor) == dev) {
			snprintf(out, cap, "%s", at);
			return;
		}
}

static int check_one(const struct incoming *inc, const struct place_block *b, struct error *err)
{
	int64_t margin = inc->d->conf.margin_bytes;
	char path[256];
	struct statvfs fs;
	struct stat st;
	int r;

	if (b->mem.block.fd < 0 || fstat(b->mem.block.fd, &st) || !is_there(b, st.st_dev, &st) ||
	    fstatvfs(b->mem.block.fd, &fs) || !fs.f_blocks)
		return 0;
	mounted_at(st.st_dev, path, sizeof(path));
	r = fit_check_files(&(struct fit_files){.path = path,
						.unused = (uint64_t)fs.f_bavail * fs.f_frsize,
						.needs = will_take(inc, st.st_dev),
						.promised = others_will_take(inc, st.st_dev),
						.lent = margin < 0 ? 0 - (uint64_t)margin : 0},
			    err);
	if (r)
		error_prefix(err, "guest %s", inc->setup->name);
	return r;
}

int room_files(const struct incoming *inc, struct error *err)
{
	int r = 0;

	for (unsigned int i = 0; inc->d->conf.check_room && !r && i < inc->place.n; i++)
		r = check_one(inc, &inc->place.blocks[i], err);
	return r;
}
