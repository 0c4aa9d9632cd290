/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Pages that may not be copied yet, because a device may still be writing to them: of blocks that are not
 * declared free of DMA, in the ways ever-dirty and quarantine of dma.h.
 *
 * What holds it together:
 *   - Before anything is copied, the guest is paused, without I/O under way, and what was written since the
 *     protection began is protected again: then everything is, and nothing is pinned. A page that was
 *     never reported since was therefore not pinned since, but for buffers registered before: pins.h.
 *   - Pinning for a device is a write fault, so each later pin is reported by the next scan, in both kinds of
 *     tracking. What the device writes through it until the I/O ends is not.
 *   - ever-dirty: a page reported once is never copied before the guest has stopped for good, its I/O done.
 *   - quarantine: a scan protects, so the pins that it reports are older than it, and their I/O has ended
 *     once the longest I/O is over. Registered buffers are looked up after each scan: one that is still
 *     registered then is held for good; one that is not any more had its last I/O submitted before. A page
 *     pinned later is reported by a later scan, and its quarantine begins anew.
 *   - Whatever is held at the switch is sent then: the guest has stopped, its I/O done.
 *
 * Rules at stake: 2 and 3 read from the source's side (a page that counts as sent is the last version):
 * what is held is struck from engine_block.pending, and given back to it before anybody counts the
 * migration's pages or names what the destination has to discard.
 */
#ifndef DECANT_HELD_H
#define DECANT_HELD_H

#include "engine.h"
#include "pins.h"

struct scan;

/** HELD_SLOTS - a page stays for HELD_SLOTS - 1 to HELD_SLOTS slots, each a part of the quarantine */
#define HELD_SLOTS 4

/**
 * struct held - of one block; written by the snapshot thread alone
 * @fresh:	reported by tracking and not sorted yet
 * @slots:	a ring: reported in the present slot of time and those before
 * @pinned:	registered with an io_uring when somebody looked: for good
 */
struct held {
	struct bitmap fresh;
	struct bitmap slots[HELD_SLOTS];
	struct bitmap pinned;
};

/** held_new() - before the snapshot thread starts, with engine.dma set. Return: 0 or -ENOMEM */
int held_new(struct engine *e);
/** held_free() - of one block; NULL is fine */
void held_free(struct held *h);

/** held_written() - Return: where tracking notes what was written in this block */
struct bitmap *held_written(struct engine_block *b);
/** held_bytes() - Return: bytes that are held; any thread */
uint64_t held_bytes(const struct engine *e);
/** held_pinned_bytes() - Return: those of them that are held for good; any thread */
uint64_t held_pinned_bytes(const struct engine *e);

/**
 * held_pins() - look up registered buffers, again and again while a ring is busy
 *
 * Write faults are served meanwhile: a busy ring may wait for one.
 *
 * Return: 0 with @ret for pins_free(), -ECANCELED, or -errno with @err filled
 */
int held_pins(struct scan *s, struct pins *ret, struct error *err);
/** held_begin() - only where dma_holds(): the guest is paused, everything is protected: the quarantine's clock begins. Return: as held_pins() */
int held_begin(struct scan *s, struct error *err);
/** held_strike() - what is held is no longer pending */
void held_strike(struct engine *e);
/** held_sort() - after each scan that protected: sort what it reported, let go whose time is over. Return: as held_pins() */
int held_sort(struct scan *s, struct error *err);
/** held_wait_us() - Return: microseconds until something may be let go */
uint64_t held_wait_us(const struct scan *s);
/** held_give_back() - everything that is held, or was reported and not sorted, becomes pending */
void held_give_back(struct engine *e);

#endif
