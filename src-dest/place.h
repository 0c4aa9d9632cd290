/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The one place where a page of an arriving guest gets its content and its state.
 *
 * Two regimes, and a gap between them:
 *
 *   PLACE_PRECOPY	nothing is registered, the guest does not run; what comes is written, also
 *			over an older copy; a zero run makes a hole of earlier data
 *   PLACE_CLOSED	from the switch until post-copy may begin, and at the end: nothing is placed
 *   PLACE_LIVE		registered for missing faults: content comes by UFFDIO_COPY alone, and only
 *			where nothing is
 *
 * Of the rules in DESIGN.md these could be broken here, and this is why they are not:
 *
 *   1 (never overwrite)  PLACE_LIVE knows no other way to memory than UFFDIO_COPY and ZEROPAGE, which
 *			refuse a page that is there; PLACE_PRECOPY, which writes, never comes back; and
 *			who finds the regime closed in the middle of placing (at the end two threads may have
 *			the last page) leaves what is there
 *   2 (state after the kernel)  a state is set behind the call that placed, never before it
 *   5 (unguarded)	a page set back to missing in precopy is punched, because a missing page with
 *			stale content would be read without a fault
 *   7 (no dereference)  memory is reached by gmem.h and uffd.h only
 *
  * A fault and a page that arrives can cross. The fault thread notes "asked", then reads the state;
 * who places sets the state, then looks for "asked"; and between the two, both change one counter. So
 * at least one of them sees the other and answers the fault; both may, which is harmless. A sharer's
 * fault is noted in "shared" before "asked", and looked for behind it, by a change on both sides.
 *
 * place_pages() and place_zero… run in any data thread; the fault entry points in the fault thread;
 * the rest on the loop (or the prepare worker) while no data thread runs, as said at each.
 */
#ifndef DECANT_PLACE_H
#define DECANT_PLACE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include "gate.h"
#include "blocktime.h"
#include "guest/gmem.h"
#include "msg.h"
#include "pages/pages.h"
#include "sharers.h"
#include "util/bitmap.h"
#include "util/error.h"
#include "util/hist.h"

/** enum place_regime - see above */
enum place_regime { PLACE_PRECOPY, PLACE_CLOSED, PLACE_LIVE };

/**
 * PLACE_PAGE_WHOLE - largest page that is put together beside the guest, and the largest that can be
 * placed in PLACE_LIVE: a larger one would cost each channel as much memory
 */
#define PLACE_PAGE_WHOLE MSG_REQUEST_MAX

/** PLACE_TIMED - faults whose time of arrival is remembered at once (a power of two) */
#define PLACE_TIMED 1024

/**
 * struct place_block - one block, in the order of the wire
 * @name:	as in BLOCK
 * @kind, @page_size, @length: agreed with the guest
 * @shift:	log2 of @page_size
 * @npages:	@length >> @shift
 * @mem:	the guest's memory
 * @pages:	states of its pages, in a file
 * @asked:	pages that a thread of the guest waits for and that were asked for
 * @shared:	pages of @asked that a sharer waits for
 * @received:	pages that are not missing; any thread
 * @zeropage:	UFFDIO_ZEROPAGE works (P9); otherwise zeros are copied
 * @registered:	missing faults are on
 * @changed:	the guest has unmapped or moved a part of it: that part cannot be unregistered
 * @moved:	it has moved a part of it
 */
struct place_block {
	char name[MSG_NAME_MAX];
	enum msg_block_kind kind;
	uint64_t page_size;
	uint64_t length;
	unsigned int shift;
	uint64_t npages;
	struct gmem mem;
	struct pages *pages;
	struct bitmap asked;
	struct bitmap shared;
	_Atomic uint64_t received;
	_Atomic bool zeropage;
	bool registered;
	_Atomic bool changed;
	_Atomic bool moved;
};

/** struct place_timed - when a fault was read: @key is block and page, 0 when free */
struct place_timed {
	_Atomic uint64_t key;
	_Atomic uint64_t at_us;
};

/**
 * place_punch_fn - make holes where place cannot by itself (anonymous memory); blocks the caller
 *
 * Called from data threads and the worker, never on the loop. Return: 0 or -errno with @err filled
 */
typedef int place_punch_fn(void *arg, unsigned int block, const struct guest_range *ranges,
			   size_t n, struct error *err);

/**
 * struct place - the memory of one arriving guest
 * @blocks, @n:	fixed before data threads run
 * @regime:	enum place_regime; changed by the loop
 * @pass:	frames of an earlier pass are refused; changed by the loop
 * @uffd:	of the guest's process, -1 if there is none; fixed before PLACE_LIVE
 * @gate:	placing and reading events exclude each other
  * @outstanding: bits set in all @asked together; while one is being set or cleared, one off
 * @faults:	faults read
 * @requests:	pages asked for
 * @latency:	us from reading a fault to its answer
 * @timed:	faults under way
 * @sharers:	who else maps the memory
 * @blocktime:	NULL where no thread is named; fixed before PLACE_LIVE
 * @zeros:	zeros, as many as the largest page has that is placed whole, at least MSG_PAGES_RAW_MAX
 * @traced:	trace_logged()
 * @punch, @punch_arg: see place_punch_fn
 */
struct place {
	struct place_block *blocks;
	unsigned int n;
	_Atomic int regime;
	_Atomic uint32_t pass;
	int uffd;
	struct gate gate;
	_Atomic uint64_t outstanding;
	_Atomic uint64_t faults;
	_Atomic uint64_t requests;
	struct hist latency;
	struct place_timed timed[PLACE_TIMED];
	struct sharers sharers;
	struct blocktime *blocktime;
	uint8_t *zeros;
	bool traced;
	place_punch_fn *punch;
	void *punch_arg;
};

/**
 * struct place_io - how a thread waits when the kernel says "events first" (EAGAIN)
 * @again:	make it possible to try again: the fault thread reads the events, others give it a
 *		moment to do so. Return: 0, or -errno to give up
 */
struct place_io {
	int (*again)(void *arg);
	void *arg;
};

/** place_init() - @n blocks, all zeroed; the caller fills them. @page_max: their largest page.
 * Return: 0 or -ENOMEM */
int place_init(struct place *p, unsigned int n, uint64_t page_max);
/** place_clear() - close memory and state files (they stay); no thread may use @p. Safe on a zeroed
 * struct and after half of place_init() */
void place_clear(struct place *p);

/**
 * place_pages() - put one PAGES frame where it belongs
 * @data:	@m->length bytes for kind raw, NULL for kind zero
 *
 * The digest is checked before anything is placed.
 *
 * Return: 0; 1 if the digest is wrong: nothing was placed, in precopy the pages are missing again, and
 * the caller sends NACK; -EBADMSG for a frame that cannot be (block, range, pass, regime), named in
 * @err; -ESRCH when the guest is gone; or another -errno with @err filled
 */
int place_pages(struct place *p, const struct place_io *io, const struct msg_pages *m,
		const void *data, struct error *err);

/**
 * struct place_huge - a page that is larger than a frame, on its way; one for each channel, zeroed
 * @buf, @cap:	the page so far; of one that is larger than PLACE_PAGE_WHOLE the part under way
 * @have:	bytes of it there; 0 between pages
 * @bad:	one of its parts had a wrong digest
 * @block, @pass, @offset: which page
 */
struct place_huge {
	uint8_t *buf;
	uint64_t cap;
	uint64_t have;
	bool bad;
	uint32_t block;
	uint32_t pass;
	uint64_t offset;
};

/** place_is_part() - Return: whether this frame carries a part of a page only */
bool place_is_part(const struct place *p, const struct msg_pages *m);
/** place_huge_room() - Return: where the payload of a part is to be read to; NULL with @err filled if
 * it is not the part that is due */
void *place_huge_room(struct place *p, struct place_huge *h, const struct msg_pages *m,
		      struct error *err);
/** place_huge_part() - the payload is there. Return: as place_pages(); 1 asks for the page again */
int place_huge_part(struct place *p, const struct place_io *io, struct place_huge *h,
		    const struct msg_pages *m, struct error *err);
/** place_huge_free() - also of a zeroed one */
void place_huge_free(struct place_huge *h);

/** place_complete() - Return: whether no page of any block is missing; any thread */
bool place_complete(const struct place *p);
/** place_first_missing() - Return: whether there is one, then block and byte offset in it */
bool place_first_missing(const struct place *p, unsigned int *ret_block, uint64_t *ret_off);

/* --- the fault thread's --- */

/** place_key() - Return: a number that stands for a page, never 0 */
static inline uint64_t place_key(unsigned int block, uint64_t page)
{
	return ((uint64_t)block + 1) << 48 | page;
}

/** enum place_answer - what became of a fault */
enum place_answer {
	PLACE_ANSWERED, /* zeros, or woken: nothing to ask for */
	PLACE_ASK,      /* ask the source for it */
	PLACE_ASKED,    /* asked for already */
};

/**
 * place_find() - which block has this address?
 * @ret_page:	its page there
 *
 * Return: whether there is one
 */
bool place_find(const struct place *p, uint64_t addr, unsigned int *ret_block, uint64_t *ret_page);
/**
 * place_fault() - a thread of the guest waits for a page
 * @at_us:	clock_us() when that was read
 *
 * Return: enum place_answer, or -errno with @err filled
 */
int place_fault(struct place *p, const struct place_io *io, unsigned int block, uint64_t page,
		uint64_t at_us, struct error *err);
/**
 * place_fault_shared() - the same for a thread of a sharer (P17)
 *
 * It is woken by sharers_wake(), now or when the page is placed. Return: as place_fault()
 */
int place_fault_shared(struct place *p, const struct place_io *io, unsigned int block,
		       uint64_t page, uint64_t at_us, struct error *err);
/**
 * place_note_removed() - the guest gave a range back: its pages are zeros from now on
 *
 * Called with @p->gate closed since before the event was read: see gate.h.
 */
void place_note_removed(struct place *p, uint64_t addr, uint64_t len);
/**
 * place_note_unmapped() - the guest unmapped a range: zeros from now on, as if it had given it back
 *
 * Of what was moved away (place_note_moved()) nothing is noted: what is missing of it stays missing.
 */
void place_note_unmapped(struct place *p, uint64_t addr, uint64_t len);
/**
 * place_note_moved() - the guest moved a range to another address, where nobody looks for it
 *
 * Return: the name of the block if a page of the range is missing and so cannot be had there any more;
 * NULL if all is well
 */
const char *place_note_moved(struct place *p, uint64_t addr, uint64_t len);
/** place_unmapped() - a range was unmapped, which was noted: who waits there goes on, to its end.
 * Return: 0 or -errno with @err filled */
int place_unmapped(struct place *p, uint64_t addr, uint64_t len, struct error *err);
/**
 * place_removed() - a range was given back, which was noted: answer who waits there already
 *
 * Return: 0 or -errno with @err filled
 */
int place_removed(struct place *p, const struct place_io *io, uint64_t addr, uint64_t len,
		  struct error *err);

/* --- before data threads run, or while they rest (worker or loop) --- */

/**
 * place_discard() - make ranges of a block missing: holes, checked to be such
 * @ranges, @n:	inside the block and in whole pages (checked; -EBADMSG)
 *
 * Regime PLACE_PRECOPY or PLACE_CLOSED only. Return: 0 or -errno with @err filled
 */
int place_discard(struct place *p, unsigned int block, const struct guest_range *ranges, size_t n,
		  struct error *err);
/** place_discard_all() - everything (P7). Return: as place_discard() */
int place_discard_all(struct place *p, struct error *err);
/**
 * place_features() - what the guest's userfaultfd is to be set up with (P2)
 * @has:	UFFD_F_* of this host's kernel: an unknown one would refuse the whole handshake
 *
 * Thread ids are asked for only for the block time of threads that are named. UFFD_F_EVENT_FORK is refused with
 * -EPERM to an agent without CAP_SYS_PTRACE; it can do without it where children inherit no block.
 *
 * Return: UFFD_F_* that the kinds of memory of @p need, as far as the kernel has them
 */
uint64_t place_features(const struct place *p, uint64_t has);
/**
 * place_register() - missing faults on for every block (P9); undone if one fails
 *
 * Return: 0, or -errno with @err naming the block
 */
int place_register(struct place *p, struct error *err);
/**
 * place_register_again() - the blocks are registered with @p->uffd since an earlier life of the agent
 *
 * Wakes everybody who waits: what that life had read of their faults nobody would see again. So the
 * fault thread is to run. Unlike place_register() it undoes nothing (rule 5).
 *
 * Return: 0, or -errno with @err naming the block; -EBUSY: it is another descriptor's
 */
int place_register_again(struct place *p, struct error *err);
/**
 * place_unregister() - off again; threads that wait are woken
 *
 * Rule 5: only when place_complete(), or when the guest never ran. Return: 0, or the first -errno; goes
 * on after a failure; pages of a guest that is gone are no failure
 */
int place_unregister(struct place *p, struct error *err);

#endif
