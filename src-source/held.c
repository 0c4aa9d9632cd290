/* SPDX-License-Identifier: Apache-2.0 */
#include "held.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "scan_priv.h"
#include "util/cleanup.h"
#include "util/clock.h"

/* How long a ring may be busy: it is for as long as it takes to submit. */
#define BUSY_US     2000000u
#define BUSY_NAP_US 1000u

void held_free(struct held *h)
{
	if (!h)
		return;
	bitmap_free(&h->fresh);
	for (size_t i = 0; i < HELD_SLOTS; i++)
		bitmap_free(&h->slots[i]);
	bitmap_free(&h->pinned);
	free(h);
}

static int block_new(struct engine_block *b)
{
	struct held *h = calloc(1, sizeof(*h));
	int r = h ? 0 : -ENOMEM;

	if (!r)
		r = bitmap_init(&h->fresh, b->npages);
	if (!r)
		r = bitmap_init(&h->pinned, b->npages);
	for (size_t i = 0; !r && i < HELD_SLOTS; i++)
		r = bitmap_init(&h->slots[i], b->npages);
	if (r < 0)
		held_free(h);
	else
		b->held = h;
	return r;
}

int held_new(struct engine *e)
{
	int r = 0;

	for (uint32_t i = 0; !r && dma_holds(e->dma) && i < e->nblocks; i++)
		if (!(e->blocks[i].mem.block.flags & GUEST_BLOCK_NO_DMA))
			r = block_new(&e->blocks[i]);
	return r;
}

struct bitmap *held_written(struct engine_block *b)
{
	return b->held ? &b->held->fresh : &b->pending;
}

uint64_t held_bytes(const struct engine *e)
{
	uint64_t sum = 0;

	for (uint32_t i = 0; i < e->nblocks; i++) {
		const struct held *h = e->blocks[i].held;
		uint64_t pages = h ? bitmap_count(&h->pinned) : 0;

		for (size_t j = 0; h && j < HELD_SLOTS; j++)
			pages += bitmap_count(&h->slots[j]);
		sum += pages * e->blocks[i].mem.block.page_size;
	}
	return sum;
}

uint64_t held_pinned_bytes(const struct engine *e)
{
	uint64_t sum = 0;

	for (uint32_t i = 0; i < e->nblocks; i++)
		if (e->blocks[i].held)
			sum += bitmap_count(&e->blocks[i].held->pinned) *
			       e->blocks[i].mem.block.page_size;
	return sum;
}

/* --- registered buffers --- */

int held_pins(struct scan *s, struct pins *ret, struct error *err)
{
	pid_t pid = s->e->blocks[0].mem.pid;
	uint64_t end = clock_us() + BUSY_US;
	int r, waited = 0;

	while ((r = pins_read(pid, ret, err)) == -EAGAIN && !waited && clock_us() < end)
		waited = feed_nap(s, BUSY_NAP_US, err);
	if (waited < 0)
		return waited;
	return r == -EAGAIN
		       ? error_set(err, -EBUSY, "dma-unknown",
				   "an io_uring of process %d is always busy, so its registered "
				   "buffers cannot be looked up: use --mode postcopy",
				   (int)pid)
		       : r;
}

static void pin(struct engine_block *b, uint64_t first, uint64_t n)
{
	struct held *h = b->held;

	bitmap_set_range(&h->pinned, first, n);
	bitmap_clear_range(&h->fresh, first, n);
	bitmap_clear_range(&b->pending, first, n);
	for (size_t i = 0; i < HELD_SLOTS; i++)
		bitmap_clear_range(&h->slots[i], first, n);
}

static int look(struct scan *s, struct error *err)
{
	struct pins pins = {0};
	int r = held_pins(s, &pins, err);

	for (uint32_t i = 0; !r && i < s->e->nblocks; i++) {
		struct engine_block *b = &s->e->blocks[i];
		uint64_t first, n;

		for (size_t j = 0; b->held && j < pins.n; j++)
			if (pins_pages(&pins.ranges[j], &b->mem.block, &first, &n))
				pin(b, first, n);
	}
	pins_free(&pins);
	return r;
}

int held_begin(struct scan *s, struct error *err)
{
	s->slot_us = clock_us();
	return look(s, err);
}

/* --- sorting --- */

static void strike(struct bitmap *from, const struct bitmap *what)
{
	for (uint64_t p = 0; (p = bitmap_next_set(what, p)) < what->nbits;) {
		uint64_t end = bitmap_next_clear(what, p);

		bitmap_clear_range(from, p, end - p);
		p = end;
	}
}

static void move(struct bitmap *to, struct bitmap *from)
{
	bitmap_or(to, from);
	bitmap_clear_range(from, 0, from->nbits);
}

void held_strike(struct engine *e)
{
	for (uint32_t i = 0; i < e->nblocks; i++) {
		struct held *h = e->blocks[i].held;

		if (!h)
			continue;
		strike(&e->blocks[i].pending, &h->pinned);
		for (size_t j = 0; j < HELD_SLOTS; j++)
			strike(&e->blocks[i].pending, &h->slots[j]);
	}
}

static uint64_t slot_length_us(const struct engine *e)
{
	return (uint64_t)e->options.dma_quarantine_ms * 1000 / (HELD_SLOTS - 1) + 1;
}

/* The oldest slot is let go and becomes the present one. */
static void next_slot(struct scan *s)
{
	s->slot = (s->slot + 1) % HELD_SLOTS;
	for (uint32_t i = 0; i < s->e->nblocks; i++) {
		struct engine_block *b = &s->e->blocks[i];

		if (b->held)
			move(&b->pending, &b->held->slots[s->slot]);
	}
}

static void age(struct scan *s)
{
	uint64_t now = clock_us(), length = slot_length_us(s->e);

	for (int i = 0; i < HELD_SLOTS && now - s->slot_us >= length; i++) {
		next_slot(s);
		s->slot_us += length;
	}
	if (now - s->slot_us >= length)
		s->slot_us = now; /* all slots are empty */
}

static void sort(struct engine_block *b, unsigned int slot)
{
	struct held *h = b->held;

	strike(&h->fresh, &h->pinned);
	strike(&b->pending, &h->fresh);
	for (size_t i = 0; i < HELD_SLOTS; i++)
		strike(&h->slots[i], &h->fresh);
	move(&h->slots[slot], &h->fresh);
}

int held_sort(struct scan *s, struct error *err)
{
	int r = 0;

	if (!dma_holds(s->e->dma))
		return 0;
	/* What is ever-dirty is held anyway: a buffer that was registered meanwhile is. */
	if (s->e->dma == DMA_QUARANTINE) {
		r = look(s, err);
		if (!r)
			age(s);
	}
	for (uint32_t i = 0; !r && i < s->e->nblocks; i++)
		if (s->e->blocks[i].held)
			sort(&s->e->blocks[i], s->slot);
	return r;
}

uint64_t held_wait_us(const struct scan *s)
{
	uint64_t end = s->slot_us + slot_length_us(s->e), now = clock_us();

	return end > now ? end - now : 0;
}

void held_give_back(struct engine *e)
{
	for (uint32_t i = 0; i < e->nblocks; i++) {
		struct engine_block *b = &e->blocks[i];

		if (!b->held)
			continue;
		move(&b->pending, &b->held->fresh);
		move(&b->pending, &b->held->pinned);
		for (size_t j = 0; j < HELD_SLOTS; j++)
			move(&b->pending, &b->held->slots[j]);
	}
}
