/* SPDX-License-Identifier: Apache-2.0 */
#include "gone.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <unistd.h>

#include "held.h"
#include "uffd/pagemap.h"
#include "util/cleanup.h"
#include "util/clock.h"
#include "util/fdio.h"
#include "util/log.h"

/* A guest that unmaps while it is read is read again so often. */
#define READ_TRIES 8
/* Between reading an event and the change that it announces there is a wake-up of the guest's thread. */
#define TOLD_US 2000000

/* --- what is mapped --- */

/** struct mapping - a line of /proc/PID/maps */
struct mapping {
	uint64_t start, end;
};

/** struct maps - an open /proc/PID/maps */
struct maps {
	FILE *f;
	char *line;
	size_t cap;
};

static int maps_open(struct maps *m, pid_t pid)
{
	char path[64];

	*m = (struct maps){0};
	snprintf(path, sizeof(path), "/proc/%d/maps", (int)pid);
	m->f = fopen(path, "re");
	return m->f ? 0 : -errno;
}

static void maps_close(struct maps *m)
{
	if (m->f)
		fclose(m->f);
	free(m->line);
}

static bool maps_next(struct maps *m, struct mapping *ret)
{
	while (getline(&m->line, &m->cap, m->f) > 0)
		if (sscanf(m->line, "%" SCNx64 "-%" SCNx64 " ", &ret->start, &ret->end) == 2)
			return true;
	return false;
}

/** gap_fn - [off, off + len) of a block is not mapped */
typedef void gap_fn(void *arg, uint64_t off, uint64_t len);

/* Return: 0 or -errno; a process that has ended has no mappings, and all is a gap */
static int for_gaps(const struct gmem *g, uint64_t off, uint64_t len, gap_fn *fn, void *arg)
{
	uint64_t at = g->block.addr + off, end = at + len;
	struct mapping m;
	struct maps maps;
	int r = maps_open(&maps, g->pid);

	while (!r && at < end && maps_next(&maps, &m)) {
		if (m.end <= at || m.start >= end)
			continue;
		if (m.start > at)
			fn(arg, at - g->block.addr, m.start - at);
		at = m.end;
	}
	if (!r && at < end)
		fn(arg, at - g->block.addr, end - at);
	maps_close(&maps);
	return r;
}

static void add_length(void *arg, uint64_t off, uint64_t len)
{
	(void)off;
	*(uint64_t *)arg += len;
}

bool gone_covers(const struct gmem *m, uint64_t off, uint64_t len)
{
	uint64_t unmapped = 0;

	return !for_gaps(m, off, len, add_length, &unmapped) && unmapped == len;
}

/** struct filling - a buffer that is read around gaps */
struct filling {
	const struct gmem *m;
	uint8_t *buf;
	uint64_t off;
	uint64_t done;
	int r;
};

static void read_until(struct filling *f, uint64_t off)
{
	if (!f->r && off > f->done)
		f->r = gmem_read(f->m, f->done, f->buf + (f->done - f->off), off - f->done);
}

static void fill_gap(void *arg, uint64_t off, uint64_t len)
{
	struct filling *f = arg;

	read_until(f, off);
	memset(f->buf + (off - f->off), 0, len);
	f->done = off + len;
}

int gone_read(const struct gmem *m, uint64_t off, void *buf, uint64_t len)
{
	int r = gmem_read(m, off, buf, len);

	if (m->block.kind != GUEST_BLOCK_ANON)
		return r;
	for (int i = 0; r == -EFAULT && i < READ_TRIES; i++) {
		struct filling f = {.m = m, .buf = buf, .off = off, .done = off};
		int gaps = for_gaps(m, off, len, fill_gap, &f);

		if (gaps)
			return gaps;
		read_until(&f, off + len);
		r = f.r;
	}
	/* Zeros of a guest that is gone would be believed. */
	return r ? r : gmem_read(m, off, buf, 0);
}

/* --- looking --- */

static void forget(struct engine_block *b, uint64_t first, uint64_t end)
{
	for (uint64_t p = first; (p = bitmap_next_set(&b->filled, p)) < end;) {
		uint64_t stop = MIN(bitmap_next_clear(&b->filled, p), end);

		bitmap_clear_range(&b->filled, p, stop - p);
		bitmap_set_range(held_written(b), p, stop - p);
		p = stop;
	}
}

/** struct holes - the search for them. @done: page up to which all is known */
struct holes {
	struct engine_block *b;
	uint64_t done;
};

static int skip_data(void *arg, uint64_t off, uint64_t len)
{
	struct holes *h = arg;
	uint64_t page = h->b->mem.block.page_size;

	forget(h->b, h->done, off / page);
	h->done = (off + len + page - 1) / page;
	return 0;
}

static void skip_present(void *arg, uint64_t start, uint64_t len)
{
	struct holes *h = arg;

	skip_data(h, start - h->b->mem.block.addr, len);
}

/*
 * Huge pages: their file knows no holes. What the guest does not have mapped is sent once more, and found
 * to be zeros if it is a hole: a marker of the tracking is no page, so only "present" will do.
 */
static int find_holes(struct engine_block *b)
{
	struct pagemap_query present = {.all_of = PAGEMAP_PRESENT};
	const struct guest_block *g = &b->mem.block;
	struct holes h = {.b = b};
	int r;

	if (g->kind == GUEST_BLOCK_MEMFD)
		r = gmem_data_ranges(&b->mem, skip_data, &h);
	else
		r = pagemap_scan(b->mem.pagemap, g->addr, g->addr + g->length, &present,
				 skip_present, &h);
	if (r == -ENOTTY)
		r = h.done = 0; /* an old kernel: all of it once more */
	if (!r)
		forget(b, h.done, b->npages);
	return r;
}

static void forget_gap(void *arg, uint64_t off, uint64_t len)
{
	struct engine_block *b = arg;
	uint64_t page = b->mem.block.page_size;

	forget(b, off / page, (off + len) / page);
}

static void look_at_gaps(struct engine_block *b)
{
	if (b->mem.block.kind == GUEST_BLOCK_ANON)
		for_gaps(&b->mem, 0, b->mem.block.length, forget_gap, b);
}

/* --- what the kernel tells --- */

/* The part of [addr, addr + len) that is in @b, in pages. Return: whether there is one */
static bool overlap(const struct engine_block *b, uint64_t addr, uint64_t len, uint64_t *ret_first,
		    uint64_t *ret_end)
{
	const struct guest_block *g = &b->mem.block;
	uint64_t lo = MAX(addr, g->addr), hi = MIN(addr + len, g->addr + g->length);

	if (lo >= hi)
		return false;
	*ret_first = (lo - g->addr) / g->page_size;
	*ret_end = (hi - g->addr + g->page_size - 1) / g->page_size;
	return true;
}

int gone_event(struct gone *g, struct engine *e, const struct uffd_event *ev, struct error *err)
{
	uint64_t first, end;

	if (ev->kind != UFFD_EV_REMOVE && ev->kind != UFFD_EV_REMAP)
		return 0;
	for (uint32_t i = 0; i < e->nblocks; i++) {
		struct engine_block *b = &e->blocks[i];

		if (!overlap(b, ev->addr, ev->len, &first, &end))
			continue;
		if (ev->kind == UFFD_EV_REMAP)
			return error_set(
				err, -EFAULT, "guest-remapped",
				"block %s: the guest has moved a part of it (mremap) to where "
				"writes to it cannot be seen; it runs on here: it can be "
				"moved when the block is whole again",
				b->mem.block.name);
		bitmap_set_range(&g->told[i], first, end - first);
	}
	return 0;
}

static void add_all(struct bitmap *to, const struct bitmap *from)
{
	for (uint64_t p = 0; (p = bitmap_next_set(from, p)) < from->nbits;) {
		uint64_t end = bitmap_next_clear(from, p);

		bitmap_set_range(to, p, end - p);
		p = end;
	}
}

/*
 * The pages are taken away a moment after the event was read: what is read before that is dead. So they
 * are sent in each pass until it was long ago, and in the last one, when no call is under way any more.
 */
static void look_at_told(struct gone *g, struct engine *e, bool last)
{
	uint64_t now = clock_us();
	bool turn = !last && now - g->since_us >= TOLD_US;

	for (uint32_t i = 0; i < e->nblocks; i++) {
		struct bitmap fresh = g->told[i];

		/* Private memory is known by its protection, to the page. */
		if (e->blocks[i].mem.block.kind == GUEST_BLOCK_ANON)
			continue;
		add_all(held_written(&e->blocks[i]), &g->told[i]);
		add_all(held_written(&e->blocks[i]), &g->told_before[i]);
		if (!turn)
			continue;
		g->told[i] = g->told_before[i];
		g->told_before[i] = fresh;
		bitmap_clear_range(&g->told[i], 0, g->told[i].nbits);
	}
	if (turn)
		g->since_us = now;
}

/* Which files were changed since the last look; all of them if that cannot be told. */
static void read_inotify(struct gone *g, uint32_t nblocks, bool *changed)
{
	char buf[4096] __attribute__((aligned(8)));
	ssize_t n;

	for (uint32_t i = 0; i < nblocks; i++)
		changed[i] = g->wd[i] < 0;
	while (g->inotify >= 0 && (n = read(g->inotify, buf, sizeof(buf))) > 0) {
		for (char *at = buf; at < buf + n;) {
			const struct inotify_event *ev = (const void *)at;

			for (uint32_t i = 0; i < nblocks; i++)
				changed[i] |= ev->wd == g->wd[i] || ev->mask & IN_Q_OVERFLOW;
			at += sizeof(*ev) + ev->len;
		}
	}
}

int gone_look(struct gone *g, struct engine *e, bool last, struct error *err)
{
	CLEANUP_FREE bool *changed = calloc(e->nblocks + 1, sizeof(*changed));
	int r = changed ? 0 : error_set(err, -ENOMEM, NULL, "out of memory");

	if (!r)
		read_inotify(g, e->nblocks, changed);
	for (uint32_t i = 0; !r && i < e->nblocks; i++) {
		struct engine_block *b = &e->blocks[i];

		if (b->mem.block.kind != GUEST_BLOCK_ANON && changed[i])
			r = find_holes(b);
		if (r < 0)
			error_set(err, r, "guest-memory", "cannot tell where block %s is empty: %s",
				  b->mem.block.name, strerror(-r));
		look_at_gaps(b);
	}
	if (!r)
		look_at_told(g, e, last);
	return r;
}

/* --- watching --- */

static int add_watch(const struct gone *g, int fd, uint32_t mask)
{
	char path[64];

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	return inotify_add_watch(g->inotify, path, mask);
}

/* Return: whether what is read is about this watch */
static bool is_told_of(const struct gone *g, int wd)
{
	char buf[4096] __attribute__((aligned(8)));
	ssize_t n = read(g->inotify, buf, sizeof(buf));

	for (char *at = buf; n > 0 && at < buf + n;) {
		const struct inotify_event *ev = (const void *)at;

		if (ev->wd == wd)
			return true;
		at += sizeof(*ev) + ev->len;
	}
	return false;
}

/*
 * An open file can be mute, as memfd_create(2) makes it from kernel 6.14 on: try with a harmless event.
 * No instance is made for that alone, because closing one is slow (fdio_close_slow()).
 */
static bool is_heard(const struct gone *g, int fd)
{
	int wd = fd < 0 || g->inotify < 0 ? -1 : add_watch(g, fd, IN_ACCESS);
	bool heard;
	char byte;

	if (wd < 0)
		return false;
	heard = pread(fd, &byte, 1, 0) == 1 && is_told_of(g, wd);
	inotify_rm_watch(g->inotify, wd);
	return heard;
}

/*
 * The guest's own page tables tell of huge pages, so it does not matter how they are given back. All are
 * tried before the first is watched: nothing that is heard of then may be taken for a trial's.
 */
static void watch_all(struct gone *g, struct engine *e)
{
	g->inotify = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
	for (uint32_t i = 0; i < e->nblocks; i++) {
		CLEANUP_CLOSE int theirs = steal_fd(&e->blocks[i].theirs);

		g->wd[i] = is_heard(g, theirs) ? 0 : -1;
	}
	for (uint32_t i = 0; i < e->nblocks; i++) {
		const struct guest_block *b = &e->blocks[i].mem.block;

		if (!g->wd[i])
			g->wd[i] = add_watch(g, b->fd, IN_MODIFY);
		if (g->wd[i] < 0 && b->kind == GUEST_BLOCK_MEMFD)
			log_debug("block %s: nobody tells when it is given back: it is looked at "
				  "in each pass",
				  b->name);
	}
}

int gone_start(struct gone *g, struct engine *e, struct error *err)
{
	g->n = e->nblocks;
	g->since_us = clock_us();
	g->wd = calloc(e->nblocks + 1, sizeof(*g->wd));
	g->told = calloc(e->nblocks + 1, sizeof(*g->told));
	g->told_before = calloc(e->nblocks + 1, sizeof(*g->told_before));
	if (!g->wd || !g->told || !g->told_before)
		return error_set(err, -ENOMEM, NULL, "out of memory");
	for (uint32_t i = 0; i < e->nblocks; i++) {
		struct engine_block *b = &e->blocks[i];

		if ((!b->filled.nbits && bitmap_init(&b->filled, b->npages) < 0) ||
		    bitmap_init(&g->told[i], b->npages) < 0 ||
		    bitmap_init(&g->told_before[i], b->npages) < 0)
			return error_set(err, -ENOMEM, NULL, "no memory for the bitmaps");
	}
	watch_all(g, e);
	return 0;
}

void gone_stop(struct gone *g)
{
	if (g->inotify > 0)
		fdio_close_slow(g->inotify);
	for (uint32_t i = 0; i < g->n && g->told && g->told_before; i++) {
		bitmap_free(&g->told[i]);
		bitmap_free(&g->told_before[i]);
	}
	free(g->wd);
	free(g->told);
	free(g->told_before);
	*g = (struct gone){0};
}
