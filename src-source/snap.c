/* SPDX-License-Identifier: Apache-2.0 */
#include "snap.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "held.h"
#include "pins.h"
#include "scan_priv.h"
#include "sender.h"
#include "uffd/pagemap.h"
#include "util/cleanup.h"
#include "util/clock.h"
#include "util/faultpoint.h"

/* --- the pool --- */

static bool pool_full(const struct engine *e, uint64_t limit)
{
	return atomic_load(&e->saved_bytes) >= limit;
}

void snap_piece_free(struct engine *e, struct snap_piece *p)
{
	uint64_t length = p->length;

	free(p);
	/* The thread sleeps only when the pool was full. */
	if (atomic_fetch_sub(&e->saved_bytes, length) >= SNAP_POOL_SCAN)
		scan_kick(e->scan);
}

void snap_free(struct scan *s)
{
	struct snap_piece *p;

	while ((p = s->saved)) {
		s->saved = p->next;
		free(p);
	}
}

int snap_poll_fd(const struct scan *s)
{
	return pool_full(s->e, SNAP_POOL) ? -1 : s->track.uffd;
}

/* Hand saved pieces to senders that have room. */
static void pump(struct scan *s)
{
	struct sender *to;

	while (s->saved && (to = feed_roomiest(s))) {
		struct snap_piece *p = s->saved;
		struct run run = {.kind = RUN_SAVED,
				  .block = p->block,
				  .pass = atomic_load(&s->e->pass),
				  .offset = p->offset,
				  .length = p->length,
				  .piece = p,
				  .class = BUDGET_BULK};

		s->saved = p->next;
		if (!s->saved)
			s->saved_end = NULL;
		runq_push(&to->queue, &run);
	}
}

static void keep(struct scan *s, struct snap_piece *p)
{
	p->next = NULL;
	if (s->saved_end)
		s->saved_end->next = p;
	else
		s->saved = p;
	s->saved_end = p;
	atomic_fetch_add(&s->e->saved_bytes, p->length);
	pump(s);
}

/* --- saving --- */

/* One call for a run, which also wakes who waits there. */
static int unprotect(struct scan *s, const struct engine_block *b, uint64_t first, uint64_t n,
		     struct error *err)
{
	uint64_t page = b->mem.block.page_size;
	int r;

	if (!engine_tracked(b))
		return 0;
	r = uffd_writeprotect(s->track.uffd, b->mem.block.addr + first * page, n * page, false);
	if (r == -ENOENT && gone_covers(&b->mem, first * page, n * page))
		r = uffd_wake(s->track.uffd, b->mem.block.addr + first * page, n * page);
	return r < 0 ? error_set(err, r, "tracking-failed",
				 "cannot let the writers of block %s go on: %s", b->mem.block.name,
				 strerror(-r))
		     : 0;
}

struct cleared {
	const struct engine_block *b;
	struct snap_piece *p;
};

static void clear(void *arg, uint64_t start, uint64_t len)
{
	struct cleared *c = arg;
	uint64_t off = start - c->b->mem.block.addr - c->p->offset;

	memset(c->p->frame + MSG_PAGES_FIXED + off, 0, len);
}

/*
 * Private memory loses its protection when it is given back, and can have been written since without a
 * fault. What is protected behind the copy was so all the time; of the rest nobody knows what it held at
 * the snapshot's instant, and the image says that it was given back: zeros.
 */
static int clear_given_back(const struct engine_block *b, struct snap_piece *p)
{
	struct cleared c = {b, p};
	uint64_t start = b->mem.block.addr + p->offset;

	if (b->mem.block.kind != GUEST_BLOCK_ANON || !engine_tracked(b))
		return 0;
	return pagemap_unprotected(b->mem.pagemap, start, start + p->length, clear, &c);
}

static int copy(struct scan *s, uint32_t block, uint64_t offset, uint64_t length, struct error *err)
{
	struct engine_block *b = &s->e->blocks[block];
	struct snap_piece *p = malloc(sizeof(*p) + MSG_PAGES_FIXED + length);
	int r = p ? 0 : -ENOMEM;

	if (!r) {
		p->block = block;
		p->offset = offset;
		p->length = length;
		r = gone_read(&b->mem, p->offset, p->frame + MSG_PAGES_FIXED, p->length);
	}
	if (!r)
		r = clear_given_back(b, p);
	if (r < 0) {
		free(p);
		return error_set(err, r, "guest-memory", "cannot save block %s at %#llx: %s",
				 b->mem.block.name, (unsigned long long)offset, strerror(-r));
	}
	keep(s, p);
	return 0;
}

/*
 * The pages are claimed. W7: the copy first, the protection after it. W8: if there is no copy, the
 * protection stays and the error is what is told; the end of the tracking lets the writers go.
 */
int snap_save(struct scan *s, uint32_t block, uint64_t first, uint64_t n, struct error *err)
{
	struct engine_block *b = &s->e->blocks[block];
	uint64_t page = b->mem.block.page_size;
	int r = 0;

	if (page <= ENGINE_PAGE_WHOLE)
		r = copy(s, block, first * page, n * page, err);
	/* Room for a part at a time; no fault is served meanwhile, which might want to save, too. */
	for (uint64_t off = 0; page > ENGINE_PAGE_WHOLE && !r && off < n * page;
	     off += ENGINE_RUN_MAX) {
		while (!r && pool_full(s->e, SNAP_POOL)) {
			r = feed_idle(s);
			pump(s);
		}
		if (!r)
			r = copy(s, block, first * page + off, ENGINE_RUN_MAX, err);
	}
	if (r < 0)
		return r;
	bitmap_set_range(&b->sent, first, n);
	return unprotect(s, b, first, n, err);
}

static struct engine_block *find_block(struct engine *e, uint64_t addr, uint32_t *ret)
{
	for (*ret = 0; *ret < e->nblocks; (*ret)++) {
		const struct guest_block *b = &e->blocks[*ret].mem.block;

		if (addr >= b->addr && addr - b->addr < b->length)
			return &e->blocks[*ret];
	}
	return NULL;
}

/* W15: whoever clears the pending bit saves; a page that was saved only loses its protection. */
static int on_fault(struct scan *s, uint64_t addr, struct error *err)
{
	uint32_t block;
	struct engine_block *b = find_block(s->e, addr, &block);
	uint64_t n;

	if (!b)
		return error_set(err, -EFAULT, "fault-outside",
				 "write fault at %#llx, outside of every block",
				 (unsigned long long)addr);
	n = (addr - b->mem.block.addr) / b->mem.block.page_size;
	if (bitmap_test_and_clear(&b->pending, n))
		return snap_save(s, block, n, 1, err);
	return unprotect(s, b, n, 1, err);
}

/*
 * When a writer began to wait is not known; it was after the descriptor was last seen empty, so that
 * what is counted is never less than what the writer felt.
 */
static int service(struct track *t, struct error *err)
{
	struct scan *s = t->e->scan;
	struct uffd_event ev[UFFD_READ_MAX];
	int n;

	pump(s);
	if (t->uffd < 0 || pool_full(t->e, SNAP_POOL))
		return 0;
	n = uffd_read(t->uffd, ev, s->batch);
	if (n < 0)
		return error_set(err, n, "tracking-failed", "cannot read write faults: %s",
				 strerror(-n));
	if (!n)
		s->track.quiet_us = clock_us();
	for (int i = 0; i < n; i++) {
		int r;

		if (ev[i].kind != UFFD_EV_FAULT)
			continue; /* no events are asked for */
		r = on_fault(s, ev[i].addr, err);
		if (r < 0)
			return r;
		hist_add(&t->e->stats.stall, clock_us() - s->track.quiet_us);
	}
	return n;
}

/* --- the instant --- */

struct data_arg {
	struct engine_block *b;
};

static int note_data(void *arg, uint64_t off, uint64_t len)
{
	struct engine_block *b = ((struct data_arg *)arg)->b;
	uint64_t page = b->mem.block.page_size;

	bitmap_set_range(&b->data, off / page, len / page);
	return 0;
}

static int find_data(struct engine_block *b, struct error *err)
{
	struct data_arg a = {.b = b};
	int r = gmem_data_ranges(&b->mem, note_data, &a);

	return r < 0 ? error_set(err, r, "guest-memory",
				 "cannot tell where block %s holds data: %s", b->mem.block.name,
				 strerror(-r))
		     : 0;
}

/* Pages of a buffer: those that no other buffer had yet are saved; others only counted. */
static int save_range(struct scan *s, uint32_t block, uint64_t first, uint64_t n, struct error *err)
{
	struct engine_block *b = &s->e->blocks[block];
	uint64_t max = MAX(ENGINE_RUN_MAX / b->mem.block.page_size, 1u);
	int r = 0;

	for (uint64_t p = first, end = first + n; !r && p < end;) {
		uint64_t run = 0;

		while (p < end && run < max && bitmap_test_and_clear(&b->pending, p)) {
			p++;
			run++;
		}
		if (run)
			r = snap_save(s, block, p - run, run, err);
		else
			p++;
	}
	return r;
}

/*
 * Protection does not stop what devices write into registered buffers, so these pages are saved before
 * the guest goes on. It stands still meanwhile: there is a limit.
 */
static int pinned(struct scan *s, const struct pins *pins, bool paused, struct error *err)
{
	uint64_t sum = 0, first, n;
	int r = 0;

	for (uint32_t i = 0; !r && i < s->e->nblocks; i++) {
		const struct guest_block *b = &s->e->blocks[i].mem.block;

		for (size_t j = 0; !r && j < pins->n; j++) {
			if (b->flags & GUEST_BLOCK_NO_DMA ||
			    !pins_pages(&pins->ranges[j], b, &first, &n))
				continue;
			sum += n * b->page_size;
			if (sum > SNAP_PINNED_MAX)
				return error_set(
					err, -EOPNOTSUPP, "dma-not-supported",
					"block %s holds more than %llu bytes of buffers registered "
					"with "
					"io_uring, which can only be saved while the guest stands "
					"still: unregister them first, or migrate the guest",
					b->name, SNAP_PINNED_MAX);
			if (paused)
				r = save_range(s, i, first, n, err);
		}
	}
	return r;
}

/* Also before the pause: what will be refused costs the guest none. */
static int look_for_pinned(struct scan *s, bool paused, struct error *err)
{
	struct pins pins = {0};
	int r = s->e->dma == DMA_SAVED ? held_pins(s, &pins, err) : 0;

	if (!r)
		r = pinned(s, &pins, paused, err);
	pins_free(&pins);
	return r;
}

/*
 * The guest is paused. Where anonymous memory is empty can only be told before it is protected;
 * files are asked afterwards, when the guest runs again: a hole that a waiting writer has filled
 * meanwhile still holds zeros.
 */
static int freeze(struct scan *s, struct error *err)
{
	int r = 0;

	for (uint32_t i = 0; !r && i < s->e->nblocks; i++) {
		struct engine_block *b = &s->e->blocks[i];
		const struct guest_block *g = &b->mem.block;

		if (g->kind == GUEST_BLOCK_ANON)
			r = find_data(b, err);
		if (r < 0)
			break;
		bitmap_set_range(&b->pending, 0, b->npages);
		if (!engine_tracked(b))
			continue;
		r = uffd_writeprotect(s->track.uffd, g->addr, g->length, true);
		if (r < 0)
			error_set(err, r, "tracking-refused", "cannot write-protect block %s: %s",
				  g->name, strerror(-r));
	}
	return r ? r : look_for_pinned(s, true, err);
}

static int find_file_data(struct scan *s, struct error *err)
{
	int r = 0;

	for (uint32_t i = 0; !r && i < s->e->nblocks; i++)
		if (s->e->blocks[i].mem.block.kind != GUEST_BLOCK_ANON)
			r = find_data(&s->e->blocks[i], err);
	return r;
}

/* --- the linear scan --- */

/* Empty from @first on: claimed, let go, and sent as one zero run. */
static int scan_hole(struct scan *s, uint32_t block, uint64_t first, struct error *err)
{
	struct engine_block *b = &s->e->blocks[block];
	uint64_t end = MIN(bitmap_next_set(&b->data, first), bitmap_next_clear(&b->pending, first));
	int r;

	bitmap_clear_range(&b->pending, first, end - first);
	s->cursor_page = end;
	r = unprotect(s, b, first, end - first, err);
	return r < 0 ? r : feed_hole(s, block, first, end - first, err);
}

static int scan_data(struct scan *s, uint32_t block, uint64_t first, struct error *err)
{
	struct engine_block *b = &s->e->blocks[block];
	uint64_t max = MAX(ENGINE_RUN_MAX / b->mem.block.page_size, 1u);
	uint64_t n = MIN(bitmap_next_clear(&b->data, first) - first, max), got;

	got = bitmap_claim_run(&b->pending, first, n, &first);
	s->cursor_page = first + got;
	return snap_save(s, block, first, got, err);
}

static int scan_step(struct scan *s, uint32_t block, struct error *err)
{
	struct engine_block *b = &s->e->blocks[block];
	uint64_t first = bitmap_next_set(&b->pending, s->cursor_page);

	if (bitmap_test(&b->data, first))
		return scan_data(s, block, first, err);
	return scan_hole(s, block, first, err);
}

/* Before every step the write faults (W5). */
static int scan_block(struct scan *s, uint32_t block, struct error *err)
{
	struct engine_block *b = &s->e->blocks[block];
	int r = 0;

	s->cursor_page = 0;
	while (!r) {
		r = feed_step(s, err);
		while (!r && pool_full(s->e, SNAP_POOL_SCAN))
			r = feed_wait(s, err);
		if (r < 0 || bitmap_next_set(&b->pending, s->cursor_page) >= b->npages)
			break;
		r = scan_step(s, block, err);
	}
	return r;
}

/* --- the thread --- */

static int prepare(struct scan *s, struct error *err)
{
	for (uint32_t i = 0; i < s->e->nblocks; i++)
		if (bitmap_init(&s->e->blocks[i].data, s->e->blocks[i].npages) < 0)
			return error_set(err, -ENOMEM, NULL, "no memory for the bitmaps");
	s->batch = UFFD_READ_MAX;
	for (uint32_t i = 0; i < s->e->nblocks; i++)
		if (s->e->blocks[i].mem.block.page_size > ENGINE_RUN_MAX)
			s->batch = 1;
	return track_start(&s->track, s->ops, s->e, steal_fd(&s->uffd), err);
}

static int await_pause(struct scan *s, struct error *err)
{
	int r = 0;

	while (!r && atomic_load(&s->phase) < SCAN_FINAL)
		r = feed_wait(s, err);
	return r;
}

static int flush(struct scan *s, struct error *err)
{
	int r = 0;

	while (!r && s->saved)
		r = feed_wait(s, err);
	return r ? r : feed_barrier(s, err);
}

int snap_run(struct scan *s, struct error *err)
{
	int r = prepare(s, err);

	if (!r)
		r = look_for_pinned(s, false, err);
	if (r < 0)
		return r;
	engine_post(s->e, ENGINE_TRACKING, NULL);
	r = await_pause(s, err);
	if (!r)
		r = freeze(s, err);
	if (r < 0)
		return r;
	s->track.quiet_us = clock_us();
	engine_post(s->e, ENGINE_FINAL, NULL);
	r = find_file_data(s, err);
	for (uint32_t i = 0; !r && i < s->e->nblocks; i++)
		r = scan_block(s, i, err);
	FAULTPOINT(SAVE_ALL_SAVED);
	/* Nothing is protected any more: what is left to do does not concern the guest. */
	if (!r)
		track_stop(&s->track);
	if (!r)
		r = flush(s, err);
	if (!r)
		engine_post(s->e, ENGINE_SENT, NULL);
	while (!r)
		r = feed_wait(s, err);
	return r;
}

/* --- the kind of tracking --- */

/* Everything is protected by freeze(), when the guest is paused; here it runs still. */
static int start(struct track *t, struct error *err)
{
	return track_populate(t->e, err);
}

static int nothing(struct track *t, struct error *err)
{
	(void)t; /* W10: no dirty log runs beside a snapshot */
	return error_set(err, -EOPNOTSUPP, NULL, "a snapshot has no passes");
}

static int no_protect(struct track *t, struct engine_block *b, uint64_t offset, uint64_t length,
		      struct error *err)
{
	(void)b;
	(void)offset;
	(void)length;
	return nothing(t, err);
}

const struct track_ops track_snapshot = {
	.name = "faults",
	.features = UFFD_F_PAGEFAULT_FLAG_WP | UFFD_F_WP_UNPOPULATED | UFFD_F_WP_HUGETLBFS_SHMEM,
	.start = start,
	.renew = nothing,
	.collect = nothing,
	.final = nothing,
	.protect = no_protect,
	.service = service,
};
