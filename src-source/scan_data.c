/* SPDX-License-Identifier: Apache-2.0 */
/* What of a block is data, and what is a hole: holes go as zero runs, before or between the pages. */
#include "scan.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "held.h"
#include "scan_priv.h"
#include "uffd/pagemap.h"
#include "util/cleanup.h"

/* --- the first pass --- */

struct data_arg {
	struct engine_block *b;
};

static int add_data(void *arg, uint64_t off, uint64_t len)
{
	struct data_arg *a = arg;
	uint64_t page = a->b->mem.block.page_size;

	bitmap_set_range(&a->b->pending, off / page, len / page);
	return 0;
}

static void add_present(void *arg, uint64_t start, uint64_t len)
{
	struct engine_block *b = arg;
	uint64_t page = b->mem.block.page_size;

	bitmap_set_range(&b->pending, (start - b->mem.block.addr) / page, len / page);
}

static int find_data(struct engine_block *b, struct error *err)
{
	struct data_arg a = {.b = b};
	int r = gmem_data_ranges(&b->mem, add_data, &a);

	if (r < 0)
		return error_set(err, r, "guest-memory",
				 "cannot tell where block %s holds data: %s", b->mem.block.name,
				 strerror(-r));
	return 0;
}

static bool host_swaps(void)
{
	CLEANUP_FCLOSE FILE *f = fopen("/proc/swaps", "re");
	char line[256];
	int n = 0;

	while (f && fgets(line, sizeof(line), f))
		n++;
	return !f || n > 1;
}

/*
 * Anonymous memory that was empty when it was protected carries a marker from then on and looks
 * like swapped out; so its data is looked for before, and once more after protecting for what was
 * written in between. In between it can also have been swapped out: with swap all is taken for data.
 */
static int find_data_tracked(struct engine_block *b, struct error *err)
{
	struct pagemap_query present = {.all_of = PAGEMAP_PRESENT};
	const struct guest_block *g = &b->mem.block;
	int r;

	if (g->kind != GUEST_BLOCK_ANON)
		return find_data(b, err);
	if (host_swaps() || b->mem.pagemap < 0) {
		bitmap_set_range(&b->pending, 0, b->npages);
		return 0;
	}
	r = pagemap_scan(b->mem.pagemap, g->addr, g->addr + g->length, &present, add_present, b);
	if (r < 0)
		bitmap_set_range(&b->pending, 0, b->npages); /* an old kernel: read it all */
	return 0;
}

int scan_data_anon(struct scan *s, struct error *err)
{
	int r = 0;

	for (uint32_t i = 0; !r && i < s->e->nblocks; i++)
		if (s->e->blocks[i].mem.block.kind == GUEST_BLOCK_ANON)
			r = find_data(&s->e->blocks[i], err);
	return r;
}

/* Everything that is not pending is empty: one zero run for each such range. */
static int feed_holes(struct scan *s, uint32_t block, struct error *err)
{
	struct engine_block *b = &s->e->blocks[block];
	int r = 0;

	for (uint64_t p = 0; !r && (p = bitmap_next_clear(&b->pending, p)) < b->npages;) {
		uint64_t end = bitmap_next_set(&b->pending, p);

		r = feed_hole(s, block, p, end - p, err);
		p = end;
	}
	return r;
}

int scan_data_first(struct scan *s, struct error *err)
{
	int r = 0;

	for (uint32_t i = 0; !r && i < s->e->nblocks; i++)
		r = find_data_tracked(&s->e->blocks[i], err);
	for (uint32_t i = 0; !r && i < s->e->nblocks; i++)
		r = feed_holes(s, i, err);
	held_strike(s->e);
	return r;
}

/* --- post-copy --- */

struct holes_arg {
	struct scan *s;
	uint32_t block;
	uint64_t done;
	struct error *err;
};

/* Pages in [a->done, page) are a hole: claim and send them as one zero run. */
static int hole_until(struct holes_arg *a, uint64_t page)
{
	struct engine_block *b = &a->s->e->blocks[a->block];
	uint64_t first = bitmap_next_set(&b->pending, a->done);
	int r = 0;

	/* Usually one run; cut where pages were claimed by a request or had been sent before. */
	while (!r && first < page) {
		uint64_t end = MIN(bitmap_next_clear(&b->pending, first), page);

		bitmap_clear_range(&b->pending, first, end - first);
		r = feed_hole(a->s, a->block, first, end - first, a->err);
		first = bitmap_next_set(&b->pending, end);
	}
	return r;
}

static int skip_data(void *arg, uint64_t off, uint64_t len)
{
	struct holes_arg *a = arg;
	uint64_t page = a->s->e->blocks[a->block].mem.block.page_size;
	int r = hole_until(a, off / page);

	a->done = (off + len) / page;
	return r;
}

int scan_data_left(struct scan *s, uint32_t block, struct error *err)
{
	struct engine_block *b = &s->e->blocks[block];
	struct holes_arg a = {.s = s, .block = block, .err = err};
	int r = gmem_data_ranges(&b->mem, skip_data, &a);

	if (!r)
		r = hole_until(&a, b->npages);
	if (r < 0 && r != -ECANCELED)
		error_set(err, r, "guest-memory", "cannot tell where block %s holds data: %s",
			  b->mem.block.name, strerror(-r));
	return r;
}
