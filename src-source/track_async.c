/* SPDX-License-Identifier: Apache-2.0 */
/* Tracking of kind async: UFFD_F_WP_ASYNC and PAGEMAP_SCAN. */
#include <errno.h>
#include <string.h>

#include "held.h"
#include "track.h"
#include "uffd/pagemap.h"

static void add_written(void *arg, uint64_t start, uint64_t len)
{
	struct engine_block *b = arg;
	uint64_t page = b->mem.block.page_size;

	bitmap_set_range(held_written(b), (start - b->mem.block.addr) / page, len / page);
}

static void ignore(void *arg, uint64_t start, uint64_t len)
{
	(void)arg;
	(void)start;
	(void)len;
}

/*
 * A failed protecting scan may have protected pages that it never reported: everything in the block
 * then counts as written.
 */
static int scan_block(struct track *t, struct engine_block *b, bool protect, PAGEMAP_RUN_FN(fn),
		      struct error *err)
{
	const struct guest_block *g = &b->mem.block;
	int r = pagemap_written(t->pagemap, g->addr, g->addr + g->length, protect, fn, b);

	if (r == -EAGAIN || r == -EINTR) {
		bitmap_set_range(held_written(b), 0, b->npages);
		return 0;
	}
	/* The end of the block is not mapped: the rest was read, and the guest lives. */
	if (r == -ESRCH && gone_covers(&b->mem, g->length - g->page_size, g->page_size) &&
	    !gmem_read(&b->mem, 0, NULL, 0))
		return 0;
	if (r == -EPERM)
		return error_set(err, r, "tracking-failed",
				 "block %s: the guest has mapped memory anew in it, where writes "
				 "cannot be seen; it runs on here",
				 g->name);
	if (r < 0)
		return error_set(err, r, "tracking-failed",
				 "cannot read what was written in block %s: %s", g->name,
				 strerror(-r));
	return 0;
}

static int scan_all(struct track *t, bool protect, PAGEMAP_RUN_FN(fn), struct error *err)
{
	int r = 0;

	for (uint32_t i = 0; !r && i < t->e->nblocks; i++)
		if (engine_tracked(&t->e->blocks[i]))
			r = scan_block(t, &t->e->blocks[i], protect, fn, err);
	return r;
}

static int async_start(struct track *t, struct error *err)
{
	int r = gone_start(&t->gone, t->e, err);

	if (r < 0 || !t->e->nblocks)
		return r;
	t->pagemap = pagemap_open(t->e->blocks[0].mem.pid);
	if (t->pagemap < 0)
		return error_set(err, t->pagemap, "tracking-refused",
				 "cannot open the guest's page map: %s", strerror(-t->pagemap));
	/* What this first scan reports does not matter: the first pass sends everything anyway. */
	return scan_all(t, true, ignore, err);
}

/* Writers do not wait; who gives memory back or moves it does, until that was read. */
static int async_service(struct track *t, struct error *err)
{
	struct uffd_event ev[UFFD_READ_MAX];
	int n = uffd_read(t->uffd, ev, UFFD_READ_MAX), r = 0;

	if (n < 0)
		return error_set(err, n, "tracking-failed", "cannot read the guest's events: %s",
				 strerror(-n));
	for (int i = 0; i < n && !r; i++)
		r = gone_event(&t->gone, t->e, &ev[i], err);
	return r < 0 ? r : n;
}

static int drain(struct track *t, struct error *err)
{
	int r;

	while ((r = async_service(t, err)) > 0)
		;
	return r;
}

static int async_renew(struct track *t, struct error *err)
{
	return scan_all(t, true, ignore, err);
}

static int async_collect(struct track *t, struct error *err)
{
	int r = drain(t, err);

	if (!r)
		r = scan_all(t, true, add_written, err);
	return r < 0 ? r : gone_look(&t->gone, t->e, false, err);
}

static int async_final(struct track *t, struct error *err)
{
	int r = drain(t, err);

	if (!r)
		r = scan_all(t, false, add_written, err);
	return r < 0 ? r : gone_look(&t->gone, t->e, true, err);
}

static int async_protect(struct track *t, struct engine_block *b, uint64_t offset, uint64_t length,
			 struct error *err)
{
	(void)t; /* the scan that reported these pages has protected them again */
	(void)b;
	(void)offset;
	(void)length;
	(void)err;
	return 0;
}

const struct track_ops track_async = {
	.name = "async",
	.features =
		UFFD_F_WP_ASYNC | UFFD_F_WP_UNPOPULATED | UFFD_F_WP_HUGETLBFS_SHMEM | GONE_FEATURES,
	.start = async_start,
	.renew = async_renew,
	.collect = async_collect,
	.final = async_final,
	.protect = async_protect,
	.service = async_service,
};
