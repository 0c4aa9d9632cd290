/* SPDX-License-Identifier: Apache-2.0 */
/* Emptying memory before the guest runs, and putting it under the userfaultfd's eyes. */
#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include "place_priv.h"
#include "uffd/uffd.h"
#include "util/faultpoint.h"
#include "util/trace.h"

/* --- discarding --- */

static int discard_check(const struct place_block *b, const struct guest_range *r,
			 struct error *err)
{
	if (!r->length || (r->offset | r->length) & (b->page_size - 1) || r->length > b->length ||
	    r->offset > b->length - r->length)
		return error_set(err, -EBADMSG, "bad-message",
				 "DISCARD in block %s: offset %" PRIu64 ", length %" PRIu64
				 " are not whole pages inside its %" PRIu64 " bytes",
				 b->name, r->offset, r->length, b->length);
	return 0;
}

/*
 * A huge folio that cannot be split is zeroed by the kernel and not freed. Such a page would be read
 * as zeros without a fault once the guest runs, so it is refused here (rule 5).
 */
static int check_holes(const struct place_block *b, const struct guest_range *ranges, size_t n,
		       struct error *err)
{
	for (size_t i = 0; i < n; i++) {
		uint64_t off = ranges[i].offset;
		int r = gmem_check_hole(&b->mem, off, ranges[i].length, &off);

		if (r < 0)
			return place_fail(err, r, b, off >> b->shift, "looking at");
		if (!r)
			return error_set(err, -EBUSY, "not-empty",
					 "block %s: the page at 0x%" PRIx64
					 " could not be taken away: is the "
					 "memory locked, or pinned by a device?",
					 b->name, off);
	}
	return 0;
}

int place_discard(struct place *p, unsigned int block, const struct guest_range *ranges, size_t n,
		  struct error *err)
{
	struct place_block *b;
	int r;

	if (block >= p->n)
		return error_set(err, -EBADMSG, "bad-message", "DISCARD for block %u of %u", block,
				 p->n);
	b = &p->blocks[block];
	for (size_t i = 0; i < n; i++) {
		r = discard_check(b, &ranges[i], err);
		if (r)
			return r;
	}
	for (size_t i = 0; i < n; i++) {
		trace_discard(b->name, ranges[i].offset, ranges[i].length);
		place_set(b, ranges[i].offset >> b->shift, ranges[i].length >> b->shift,
			  PAGES_MISSING);
	}
	FAULTPOINT(DISCARDS_MARKED);
	r = place_punch(p, b, ranges, n, err);
	return r ? r : check_holes(b, ranges, n, err);
}

int place_discard_all(struct place *p, struct error *err)
{
	int r = 0;

	for (unsigned int i = 0; i < p->n && !r; i++) {
		struct guest_range all = {0, p->blocks[i].length};

		r = place_discard(p, i, &all, 1, err);
	}
	return r;
}

/* --- registering --- */

uint64_t place_features(const struct place *p, uint64_t has)
{
	uint64_t want =
		UFFD_F_EVENT_REMOVE | UFFD_F_EVENT_UNMAP | UFFD_F_EVENT_REMAP | UFFD_F_EVENT_FORK;

	if (p->blocktime)
		want |= UFFD_F_THREAD_ID;
	for (unsigned int i = 0; i < p->n; i++) {
		if (p->blocks[i].kind == MSG_BLOCK_MEMFD)
			want |= UFFD_F_MISSING_SHMEM;
		else if (p->blocks[i].kind == MSG_BLOCK_HUGETLB)
			want |= UFFD_F_MISSING_HUGETLBFS;
	}
	return want & has;
}

int place_can(const struct place_block *b, uint64_t can, struct error *err)
{
	if ((can & UFFD_CAN_COPY) && (can & UFFD_CAN_WAKE))
		return 0;
	return error_set(
		err, -EOPNOTSUPP, "cannot-register",
		"block %s: this kernel cannot place pages into its kind of memory (no %s): "
		"use mode precopy",
		b->name, can & UFFD_CAN_COPY ? "WAKE" : "COPY");
}

static int register_block(struct place *p, struct place_block *b, struct error *err)
{
	uint64_t can = 0;
	int r = uffd_register(p->uffd, b->mem.block.addr, b->length, UFFD_MODE_MISSING, &can);

	if (r)
		return error_set(err, r, "cannot-register",
				 "block %s cannot be registered for missing faults: %s", b->name,
				 strerror(-r));
	b->registered = true;
	atomic_store(&b->zeropage, can & UFFD_CAN_ZEROPAGE);
	r = place_can(b, can, err);
	if (!r)
		trace_block_start(b->name, b->page_size, b->mem.block.addr, b->length);
	return r;
}

int place_register(struct place *p, struct error *err)
{
	int r = 0;

	for (unsigned int i = 0; i < p->n && !r; i++)
		r = register_block(p, &p->blocks[i], err);
	if (r)
		place_unregister(p, NULL);
	return r;
}

/*
 * The kernel finds the range registered and changes nothing; what it refuses is a range that the guest
 * has unmapped since, wholly or for something else: that needs no placing, and cannot be unregistered.
 */
static int register_block_again(struct place *p, struct place_block *b, struct error *err)
{
	uint64_t can = 0;
	int r = uffd_register(p->uffd, b->mem.block.addr, b->length, UFFD_MODE_MISSING, &can);

	if (r == -EINVAL || r == -ENOMEM || r == -ENOENT)
		atomic_store(&b->changed, true);
	else if (r)
		return error_set(err, r, "cannot-register",
				 "block %s is not registered with the userfaultfd that the guest "
				 "has kept: %s",
				 b->name, strerror(-r));
	b->registered = true;
	atomic_store(&b->zeropage, can & UFFD_CAN_ZEROPAGE);
	trace_block_start(b->name, b->page_size, b->mem.block.addr, b->length);
	r = uffd_wake(p->uffd, b->mem.block.addr, b->length);
	return r ? error_set(err, r, "userfaultfd", "block %s: waking: %s", b->name, strerror(-r))
		 : 0;
}

int place_register_again(struct place *p, struct error *err)
{
	int r = 0;

	for (unsigned int i = 0; i < p->n && !r; i++)
		r = register_block_again(p, &p->blocks[i], err);
	return r;
}

int place_unregister(struct place *p, struct error *err)
{
	int first = 0;

	for (unsigned int i = 0; i < p->n; i++) {
		struct place_block *b = &p->blocks[i];
		int r;

		if (!b->registered)
			continue;
		r = uffd_unregister(p->uffd, b->mem.block.addr, b->length);
		/*
		 * The kernel wakes who waits before it lets go of the mapping: a thread that tries
		 * again in between waits once more, for a fault that can no longer be answered.
		 */
		if (!r)
			uffd_wake(p->uffd, b->mem.block.addr, b->length);
		trace_block_stop(b->name, b->page_size, b->mem.block.addr, b->length, r);
		b->registered = false;
		if (!r || r == -ESRCH || (r == -EINVAL && atomic_load(&b->changed)))
			continue;
		error_set(err, r, "unregister", "block %s: %s", b->name, strerror(-r));
		first = first ? first : r;
	}
	return first;
}
