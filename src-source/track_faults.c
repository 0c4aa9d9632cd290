/* SPDX-License-Identifier: Apache-2.0 */
/* Tracking of kind faults: synchronous write protection, served by the snapshot thread. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "held.h"
#include "track.h"
#include "uffd/pagemap.h"
#include "util/cleanup.h"
#include "util/clock.h"

/* A guest whose threads do nothing but change its layout is given up on. */
#define EVENTS_US 20000000

/*
 * Before kernel 6.4 protection passes over anonymous pages that are not there, and a first write to
 * them would be no fault (W4). Reading from outside maps the kernel's page of zeros there, which can
 * be protected and takes no memory.
 */
static int populate(const struct engine_block *b, struct error *err)
{
	uint64_t page = b->mem.block.page_size;
	int r = 0;

	for (uint64_t off = 0; !r && off < b->mem.block.length; off += page) {
		uint8_t byte;

		r = gmem_read(&b->mem, off, &byte, sizeof(byte));
	}
	return r < 0 ? error_set(err, r, "tracking-refused", "cannot populate block %s: %s",
				 b->mem.block.name, strerror(-r))
		     : 0;
}

int track_populate(const struct engine *e, struct error *err)
{
	int r = 0;

	if (e->features & UFFD_F_WP_UNPOPULATED)
		return 0;
	for (uint32_t i = 0; !r && i < e->nblocks; i++)
		if (e->blocks[i].mem.block.kind == GUEST_BLOCK_ANON &&
		    engine_tracked(&e->blocks[i]))
			r = populate(&e->blocks[i], err);
	return r;
}

static struct engine_block *find_block(struct engine *e, uint64_t addr)
{
	for (uint32_t i = 0; i < e->nblocks; i++) {
		const struct guest_block *b = &e->blocks[i].mem.block;

		if (addr >= b->addr && addr - b->addr < b->length)
			return &e->blocks[i];
	}
	return NULL;
}

static bool keep_for_later(struct track *t, uint64_t addr)
{
	if (t->nlater == t->later_cap) {
		size_t cap = t->later_cap * 2 + UFFD_READ_MAX;
		uint64_t *p = reallocarray(t->later, cap, sizeof(*p));

		if (!p)
			return false;
		t->later = p;
		t->later_cap = cap;
	}
	t->later[t->nlater++] = addr;
	return true;
}

/* Protecting met an event that has to be read first; write faults that come before it wait a little more. */
static int read_events(struct track *t, struct error *err)
{
	struct uffd_event ev[UFFD_READ_MAX];
	int n = uffd_read(t->uffd, ev, UFFD_READ_MAX), r = MIN(n, 0);

	for (int i = 0; i < n && !r; i++) {
		if (ev[i].kind != UFFD_EV_FAULT)
			r = gone_event(&t->gone, t->e, &ev[i], err);
		else if (!keep_for_later(t, ev[i].addr))
			r = -ENOMEM;
	}
	return r;
}

/* As uffd_writeprotect(), while the guest gives memory back. Bounded, if it never does anything else. */
static int writeprotect(struct track *t, uint64_t addr, uint64_t len, bool on, struct error *err)
{
	uint64_t end = clock_us() + EVENTS_US;
	int r = uffd_writeprotect(t->uffd, addr, len, on), events;

	while (r == -EAGAIN && clock_us() < end && !engine_stopping(t->e)) {
		events = read_events(t, err);
		if (events < 0)
			return events;
		r = uffd_writeprotect(t->uffd, addr, len, on);
	}
	return r;
}

static int faults_start(struct track *t, struct error *err)
{
	int r = track_populate(t->e, err);

	if (!r)
		r = gone_start(&t->gone, t->e, err);
	if (r < 0)
		return r;
	t->quiet_us = clock_us();
	for (uint32_t i = 0; i < t->e->nblocks; i++) {
		const struct guest_block *b = &t->e->blocks[i].mem.block;

		if (!engine_tracked(&t->e->blocks[i]))
			continue;
		r = writeprotect(t, b->addr, b->length, true, err);
		if (r < 0)
			return error_set(err, r, "tracking-refused",
					 "cannot write-protect block %s: %s", b->name,
					 strerror(-r));
	}
	return 0;
}

/* The page is dirty from now on; only then may its writer go on. */
static int written(struct track *t, uint64_t addr, struct error *err)
{
	struct engine_block *b = find_block(t->e, addr);
	uint64_t page, n;
	int r;

	if (!b)
		return error_set(err, -EFAULT, "fault-outside",
				 "write fault at %#llx, outside of every block: tracking by faults "
				 "ends, use --tracking async or --mode postcopy",
				 (unsigned long long)addr);
	page = b->mem.block.page_size;
	n = (addr - b->mem.block.addr) / page;
	bitmap_set(&b->dirty, n);
	r = writeprotect(t, b->mem.block.addr + n * page, page, false, err);
	/* Unmapped meanwhile: its writer was woken by that, to find out. */
	if (r == -ENOENT && gone_covers(&b->mem, n * page, page))
		r = uffd_wake(t->uffd, b->mem.block.addr + n * page, page);
	if (r < 0)
		return error_set(err, r, "tracking-failed",
				 "cannot let a writer of block %s go on: %s", b->mem.block.name,
				 strerror(-r));
	return 0;
}

/* Return: @n, or as many as there were at least; or -errno */
static int serve_later(struct track *t, int n, struct error *err)
{
	while (t->nlater) {
		int r = written(t, t->later[--t->nlater], err);

		if (r < 0)
			return r;
		hist_add(&t->e->stats.stall, clock_us() - t->quiet_us);
		n = MAX(n, 1);
	}
	return n;
}

/*
 * When a writer began to wait is not known. It was after the descriptor was last seen empty, or after the
 * thread went to sleep on it, which it leaves at once: so what is counted is what the writer felt, or more.
 */
static int faults_service(struct track *t, struct error *err)
{
	struct uffd_event ev[UFFD_READ_MAX];
	uint64_t looked_us = clock_us();
	int n = uffd_read(t->uffd, ev, UFFD_READ_MAX);

	if (n < 0)
		return error_set(err, n, "tracking-failed", "cannot read write faults: %s",
				 strerror(-n));
	if (!n)
		t->quiet_us = looked_us;
	for (int i = 0; i < n; i++) {
		int r;

		if (ev[i].kind != UFFD_EV_FAULT)
			r = gone_event(&t->gone, t->e, &ev[i], err);
		else if (!(r = written(t, ev[i].addr, err)))
			hist_add(&t->e->stats.stall, clock_us() - t->quiet_us);
		if (r < 0)
			return r;
	}
	return serve_later(t, n, err);
}

static int drain(struct track *t, struct error *err)
{
	int r;

	while ((r = faults_service(t, err)) > 0)
		;
	return r;
}

static int protect(struct track *t, const struct engine_block *b, uint64_t first, uint64_t n,
		   struct error *err)
{
	uint64_t page = b->mem.block.page_size;
	int r = writeprotect(t, b->mem.block.addr + first * page, n * page, true, err);

	if (r == -ENOENT && gone_covers(&b->mem, first * page, n * page))
		return 0;
	if (r == -ENOENT)
		return error_set(err, r, "tracking-failed",
				 "block %s: the guest has mapped memory anew in it, where writes "
				 "cannot be seen; it runs on here",
				 b->mem.block.name);
	return r < 0 ? error_set(err, r, "tracking-failed", "cannot protect block %s again: %s",
				 b->mem.block.name, strerror(-r))
		     : 0;
}

static void add_dirty(void *arg, uint64_t start, uint64_t len)
{
	struct engine_block *b = arg;
	uint64_t page = b->mem.block.page_size;

	bitmap_set_range(&b->dirty, (start - b->mem.block.addr) / page, len / page);
}

/*
 * Private memory loses its protection when it is given back, and what is written there later is no fault
 * any more. So what is not protected counts as written, whoever took that off.
 */
static int find_unprotected(struct engine_block *b, struct error *err)
{
	const struct guest_block *g = &b->mem.block;
	int r = pagemap_unprotected(b->mem.pagemap, g->addr, g->addr + g->length, add_dirty, b);

	return r < 0 ? error_set(err, r, "tracking-failed",
				 "cannot read what of block %s is protected: %s", g->name,
				 strerror(-r))
		     : 0;
}

/*
 * What was written becomes this pass's work. Protection follows in faults_protect(), when a run is
 * claimed: until then the page may be written freely, because it is read only after it. In quarantine,
 * though, what is pinned freely is written for long after it: there protection comes with the report.
 */
static int collect(struct track *t, bool quarantine, bool last, struct error *err)
{
	int r = drain(t, err);

	for (uint32_t i = 0; !r && i < t->e->nblocks; i++) {
		struct engine_block *b = &t->e->blocks[i];

		if (b->mem.block.kind == GUEST_BLOCK_ANON && engine_tracked(b))
			r = find_unprotected(b, err);
		for (uint64_t p = 0; !r && (p = bitmap_next_set(&b->dirty, p)) < b->npages;) {
			uint64_t end = bitmap_next_clear(&b->dirty, p);

			bitmap_set_range(held_written(b), p, end - p);
			bitmap_clear_range(&b->dirty, p, end - p);
			if (quarantine && b->held)
				r = protect(t, b, p, end - p, err);
			p = end;
		}
	}
	return r < 0 ? r : gone_look(&t->gone, t->e, last, err);
}

static int faults_renew(struct track *t, struct error *err)
{
	int r = drain(t, err);

	for (uint32_t i = 0; !r && i < t->e->nblocks; i++) {
		struct engine_block *b = &t->e->blocks[i];

		for (uint64_t p = 0; !r && (p = bitmap_next_set(&b->dirty, p)) < b->npages;) {
			uint64_t end = bitmap_next_clear(&b->dirty, p);

			bitmap_clear_range(&b->dirty, p, end - p);
			r = protect(t, b, p, end - p, err);
			p = end;
		}
	}
	return r;
}

static int faults_collect(struct track *t, struct error *err)
{
	return collect(t, t->e->dma == DMA_QUARANTINE, false, err);
}

static int faults_final(struct track *t, struct error *err)
{
	return collect(t, false, true, err);
}

/*
 * What was written before the page is read needs no second sending. A write between the two lines
 * goes unnoticed, and is read; one after them is a fault. Where devices write, a note of an earlier
 * write must stay: what was pinned then may be written still.
 */
static int faults_protect(struct track *t, struct engine_block *b, uint64_t offset, uint64_t length,
			  struct error *err)
{
	uint64_t page = b->mem.block.page_size;

	if (b->held)
		return 0; /* it is protected, or known as written */
	bitmap_clear_range(&b->dirty, offset / page, length / page);
	return protect(t, b, offset / page, length / page, err);
}

const struct track_ops track_faults = {
	.name = "faults",
	.features = UFFD_F_PAGEFAULT_FLAG_WP | UFFD_F_WP_UNPOPULATED | UFFD_F_WP_HUGETLBFS_SHMEM |
		    GONE_FEATURES,
	.start = faults_start,
	.renew = faults_renew,
	.collect = faults_collect,
	.final = faults_final,
	.protect = faults_protect,
	.service = faults_service,
};
