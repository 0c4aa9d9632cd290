/* SPDX-License-Identifier: Apache-2.0 */
#include "place_priv.h"
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include "uffd/uffd.h"
#include "util/cleanup.h"
#include "util/clock.h"
#include "util/digest.h"
#include "util/faultpoint.h"
#include "util/log.h"
#include "util/trace.h"

/* Most bytes that are placed at a time while events have to wait; larger pages go one by one. */
#define GATE_BYTES (64u << 10)

int place_init(struct place *p, unsigned int n, uint64_t page_max)
{
	size_t whole = MIN(page_max, (uint64_t)PLACE_PAGE_WHOLE);
	size_t nzeros = MAX(whole, (size_t)MSG_PAGES_RAW_MAX);

	memset(p, 0, sizeof(*p));
	p->uffd = -1;
	sharers_init(&p->sharers);
	p->blocks = calloc(n ? n : 1, sizeof(*p->blocks));
	p->zeros = aligned_alloc(4096, nzeros);
	if (!p->blocks || !p->zeros) {
		place_clear(p);
		return -ENOMEM;
	}
	memset(p->zeros, 0, nzeros);
	p->n = n;
	p->pass = 1;
	p->traced = trace_logged();
	for (unsigned int i = 0; i < n; i++) {
		p->blocks[i].mem.block.fd = -1;
		p->blocks[i].mem.pidfd = -1;
		p->blocks[i].mem.pagemap = -1;
	}
	return 0;
}

void place_clear(struct place *p)
{
	for (unsigned int i = 0; i < p->n; i++) {
		struct place_block *b = &p->blocks[i];

		gmem_close(&b->mem);
		pages_close(b->pages);
		bitmap_free(&b->asked);
		bitmap_free(&b->shared);
	}
	if (p->blocks)
		sharers_clear(&p->sharers);
	free(p->blocks);
	free(p->zeros);
	blocktime_free(steal_ptr(&p->blocktime));
	p->blocks = NULL;
	p->zeros = NULL;
	p->n = 0;
}

static uint64_t addr_of(const struct place_block *b, uint64_t page)
{
	return b->mem.block.addr + (page << b->shift);
}

int place_fail(struct error *err, int r, const struct place_block *b, uint64_t page,
	       const char *what)
{
	return error_set(err, r, r == -ESRCH ? "guest-gone" : "placing",
			 "%s block %s at 0x%" PRIx64 ": %s", what, b->name, page << b->shift,
			 r == -ESRCH ? "the guest is gone" : strerror(-r));
}

/* --- who waits --- */

static uint64_t timed_key(const struct place *p, const struct place_block *b, uint64_t page)
{
	return place_key((unsigned int)(b - p->blocks), page);
}

static struct place_timed *timed_slot(struct place *p, uint64_t key)
{
	return &p->timed[(key * 0x9e3779b97f4a7c15u) >> 54 & (PLACE_TIMED - 1)];
}

/* Note when a fault was read. Two that share a slot: the older one is not measured. */
static void timed_begin(struct place *p, const struct place_block *b, uint64_t page, uint64_t at_us)
{
	uint64_t key = timed_key(p, b, page);
	struct place_timed *t = timed_slot(p, key);

	atomic_store_explicit(&t->key, 0, memory_order_relaxed);
	atomic_store_explicit(&t->at_us, at_us, memory_order_relaxed);
	atomic_store_explicit(&t->key, key, memory_order_release);
}

static void timed_end(struct place *p, const struct place_block *b, uint64_t page)
{
	uint64_t key = timed_key(p, b, page), expected = key;
	struct place_timed *t = timed_slot(p, key);
	uint64_t at_us = atomic_load_explicit(&t->at_us, memory_order_relaxed);

	if (atomic_compare_exchange_strong(&t->key, &expected, 0))
		hist_add(&p->latency, clock_us() - at_us);
}

/* Forget the request of a page that is received now. Return: whether there was one. */
static bool asked_clear(struct place *p, struct place_block *b, uint64_t page)
{
	if (!bitmap_test(&b->asked, page) || !bitmap_test_and_clear(&b->asked, page))
		return false;
	atomic_fetch_sub(&p->outstanding, 1);
	timed_end(p, b, page);
	if (p->blocktime)
		blocktime_end(p->blocktime, timed_key(p, b, page), clock_us());
	if (atomic_load(&p->sharers.n) && bitmap_test_and_clear(&b->shared, page))
		sharers_wake(&p->sharers, (unsigned int)(b - p->blocks), page << b->shift,
			     b->page_size);
	return true;
}

/*
 * The state of pages was set: does a fault wait for one of them? A change, although of nothing: if it
 * comes before that of place_fault(), the fault sees the state; otherwise this sees the fault.
 */
static bool anybody_waits(struct place *p)
{
	return atomic_fetch_add(&p->outstanding, 0) != 0;
}

/* Next asked page in [page, end), or end. */
static uint64_t next_asked(const struct place_block *b, uint64_t page, uint64_t end)
{
	/* A search through the bitmap does not stop at @end: not for the few pages of a data run. */
	if (end - page > 4096)
		return MIN(bitmap_next_set(&b->asked, page), end);
	while (page < end && !bitmap_test(&b->asked, page))
		page++;
	return page;
}

static void mark(struct place_block *b, uint64_t first, uint64_t n, enum pages_state state)
{
	atomic_fetch_add(&b->received, pages_mark(b->pages, first, n, state));
}

void place_set(struct place_block *b, uint64_t first, uint64_t n, enum pages_state state)
{
	uint64_t before = pages_set(b->pages, first, n, state);

	if (state == PAGES_MISSING)
		atomic_fetch_sub(&b->received, before);
	else
		atomic_fetch_add(&b->received, n - before);
}

/* --- live: registered, the guest may run --- */

/* A page that is received: zeros if nothing is there, else let the thread try again. */
static int live_fill(struct place *p, const struct place_io *io, struct place_block *b,
		     uint64_t page, struct error *err)
{
	uint64_t addr = addr_of(b, page), done;
	int r;

	for (;;) {
		r = atomic_load_explicit(&b->zeropage, memory_order_relaxed)
			    ? uffd_zeropage(p->uffd, addr, b->page_size, &done)
			    : uffd_copy(p->uffd, addr, p->zeros, b->page_size, &done);
		if (r != -EAGAIN)
			break;
		r = io->again(io->arg);
		if (r)
			return place_fail(err, r, b, page, "zeros into");
	}
	/* Unmapped meanwhile (ENOENT): who waits finds that out for itself. */
	if (r == -EEXIST || r == -ENOENT)
		r = uffd_wake(p->uffd, addr, b->page_size);
	else if (!r)
		trace_place_zero(p->traced, b->name, page << b->shift, b->page_size);
	return r ? place_fail(err, r, b, page, "zeros into") : 0;
}

/* Waiters of pages that were just set to zero or removed. */
static int live_answer(struct place *p, const struct place_io *io, struct place_block *b,
		       uint64_t first, uint64_t n, struct error *err)
{
	int r = 0;

	if (!anybody_waits(p))
		return 0;
	for (uint64_t page = first; !r; page++) {
		page = next_asked(b, page, first + n);
		if (page >= first + n)
			break;
		r = live_fill(p, io, b, page, err);
		if (!r)
			asked_clear(p, b, page);
	}
	return r;
}

/* UFFDIO_COPY has woken who waits already. */
static void live_placed(struct place *p, struct place_block *b, uint64_t first, uint64_t n)
{
	mark(b, first, n, PAGES_DATA);
	if (!anybody_waits(p))
		return;
	for (uint64_t page = next_asked(b, first, first + n); page < first + n;
	     page = next_asked(b, page + 1, first + n))
		asked_clear(p, b, page);
}

/* @p->gate is held. Return: pages dealt with, -EAGAIN or another -errno */
static int64_t copy_run(struct place *p, struct place_block *b, uint64_t first, uint64_t n,
			const uint8_t *data)
{
	uint64_t done = 0, k;
	int r = uffd_copy(p->uffd, addr_of(b, first), data, n << b->shift, &done);

	k = done >> b->shift;
	FAULTPOINT(PAGES_PLACED);
	if (k)
		live_placed(p, b, first, k);
	FAULTPOINT(PAGES_MARKED);
	if (r == -EEXIST) {
		/* There before its state said so: an earlier life of the agent placed it. */
		r = uffd_wake(p->uffd, addr_of(b, first + k), b->page_size);
		if (!r)
			live_placed(p, b, first + k++, 1);
	}
	return k ? (int64_t)k : r;
}

/*
 * What is missing of the beginning of a run. The look at the state and the copy are one step for the
 * guest's events (gate.h), and a short one: a fault may wait behind it. Return: pages dealt with, or -errno
 */
static int64_t live_copy(struct place *p, const struct place_io *io, struct place_block *b,
			 uint64_t first, uint64_t n, const uint8_t *data, struct error *err)
{
	uint64_t most = MAX(GATE_BYTES >> b->shift, 1u);
	enum pages_state state;
	int64_t k;

	gate_enter(&p->gate);
	k = (int64_t)pages_run(b->pages, first, n, &state);
	/* Who made it received has answered, or will answer, its waiters. */
	if (state == PAGES_MISSING)
		k = copy_run(p, b, first, MIN((uint64_t)k, most), data);
	gate_leave(&p->gate);
	if (k == -EAGAIN)
		k = io->again(io->arg);
	return k < 0 ? place_fail(err, (int)k, b, first, "placing into") : k;
}

static int live_data(struct place *p, const struct place_io *io, struct place_block *b,
		     uint64_t first, uint64_t n, const uint8_t *data, struct error *err)
{
	while (n) {
		int64_t k = live_copy(p, io, b, first, n, data, err);

		if (k < 0)
			return (int)k;
		first += (uint64_t)k;
		n -= (uint64_t)k;
		data += (uint64_t)k << b->shift;
	}
	return 0;
}

/* Pages of zeros are not pushed: the fault thread fills them when they are touched. */
static int live_zero(struct place *p, const struct place_io *io, struct place_block *b,
		     uint64_t first, uint64_t n, struct error *err)
{
	mark(b, first, n, PAGES_ZERO);
	FAULTPOINT(ZEROS_MARKED);
	return live_answer(p, io, b, first, n, err);
}

/* --- precopy: nothing is registered, nobody runs --- */

int place_punch(struct place *p, struct place_block *b, const struct guest_range *ranges, size_t n,
		struct error *err)
{
	int r;

	if (b->kind == MSG_BLOCK_ANON)
		return p->punch(p->punch_arg, (unsigned int)(b - p->blocks), ranges, n, err);
	for (size_t i = 0; i < n; i++) {
		r = gmem_punch(&b->mem, ranges[i].offset, ranges[i].length);
		if (r)
			return place_fail(err, r, b, ranges[i].offset >> b->shift,
					  "making a hole in");
	}
	return 0;
}

static int punch_pages(struct place *p, struct place_block *b, uint64_t first, uint64_t n,
		       struct error *err)
{
	struct guest_range range = {first << b->shift, n << b->shift};

	return place_punch(p, b, &range, 1, err);
}

static int pre_data(struct place_block *b, uint64_t first, uint64_t n, const void *data,
		    struct error *err)
{
	int r = gmem_write(&b->mem, first << b->shift, data, n << b->shift);

	if (r)
		return place_fail(err, r, b, first, "writing into");
	FAULTPOINT(PAGES_WRITTEN);
	place_set(b, first, n, PAGES_DATA);
	return 0;
}

/* Earlier data goes; where none was, the hole stays untouched. */
static int pre_clear(struct place *p, struct place_block *b, uint64_t first, uint64_t n,
		     struct error *err)
{
	uint64_t bytes = n << b->shift;
	int r;

	/* A short run is cheaper written than punched by a message to the guest and back. */
	if (b->kind != MSG_BLOCK_ANON || bytes > MSG_PAGES_RAW_MAX)
		return punch_pages(p, b, first, n, err);
	r = gmem_write(&b->mem, first << b->shift, p->zeros, bytes);
	return r ? place_fail(err, r, b, first, "clearing") : 0;
}

static int pre_zero(struct place *p, struct place_block *b, uint64_t first, uint64_t n,
		    struct error *err)
{
	int r = 0;

	while (n && !r) {
		enum pages_state state;
		uint64_t k = pages_run(b->pages, first, n, &state);

		if (state == PAGES_DATA)
			r = pre_clear(p, b, first, k, err);
		if (!r)
			place_set(b, first, k, PAGES_ZERO);
		first += k;
		n -= k;
	}
	return r;
}

/* A copy that came before must not count as received when a newer one was damaged under way. */
static int pre_forget(struct place *p, struct place_block *b, uint64_t first, uint64_t n,
		      struct error *err)
{
	place_set(b, first, n, PAGES_MISSING);
	return punch_pages(p, b, first, n, err);
}

/* --- frames --- */

static int refuse_closed(struct error *err)
{
	return error_set(err, -EBADMSG, "unexpected-message",
			 "PAGES between SWITCH and the end of LISTEN, or at the end");
}

/*
 * The regime was closed behind place_check(), while the digest was made, say: another thread has placed the
 * last page that was missing, the guest writes to it already, and nobody is asked whether a page is
 * there any more. What is there stays (rule 1).
 */
static int put_late(const struct place_block *b, uint64_t first, uint64_t n, struct error *err)
{
	return pages_next_missing(b->pages, first) >= first + n ? 0 : refuse_closed(err);
}

int place_check(const struct place *p, const struct msg_pages *m, uint64_t unit, struct error *err)
{
	const struct place_block *b = &p->blocks[m->block];
	uint32_t pass = atomic_load_explicit(&p->pass, memory_order_relaxed);

	if (!m->length || (m->offset | m->length) & (unit - 1))
		return error_set(err, -EBADMSG, "bad-message",
				 "PAGES for block %s: offset %" PRIu64 ", length %" PRIu64
				 " are not multiples of %" PRIu64,
				 b->name, m->offset, m->length, unit);
	if (m->length > b->length || m->offset > b->length - m->length)
		return error_set(err, -EBADMSG, "bad-message",
				 "PAGES for block %s: offset %" PRIu64 ", length %" PRIu64
				 " are beyond its length %" PRIu64,
				 b->name, m->offset, m->length, b->length);
	if (m->pass < pass)
		return error_set(err, -EBADMSG, "old-pass",
				 "PAGES of pass %u came late, in pass %u", m->pass, pass);
	if (atomic_load_explicit(&p->regime, memory_order_acquire) == PLACE_CLOSED)
		return refuse_closed(err);
	return 0;
}

int place_put(struct place *p, const struct place_io *io, const struct msg_pages *m,
	      const void *data, struct error *err)
{
	int regime = atomic_load_explicit(&p->regime, memory_order_acquire);
	struct place_block *b = &p->blocks[m->block];
	uint64_t first = m->offset >> b->shift, n = m->length >> b->shift;
	bool live = regime == PLACE_LIVE;

	if (regime == PLACE_CLOSED)
		return put_late(b, first, n, err);
	if (m->kind == MSG_PAGES_ZERO) {
		trace_place_zero(p->traced, b->name, m->offset, m->length);
		return live ? live_zero(p, io, b, first, n, err) : pre_zero(p, b, first, n, err);
	}
	trace_place(p->traced, b->name, m->offset, m->length);
	return live ? live_data(p, io, b, first, n, data, err) : pre_data(b, first, n, data, err);
}

int place_forget(struct place *p, const struct msg_pages *m, struct error *err)
{
	struct place_block *b = &p->blocks[m->block];

	if (atomic_load_explicit(&p->regime, memory_order_acquire) != PLACE_PRECOPY)
		return 0;
	return pre_forget(p, b, m->offset >> b->shift, m->length >> b->shift, err);
}

int place_pages(struct place *p, const struct place_io *io, const struct msg_pages *m,
		const void *data, struct error *err)
{
	int r;

	if (m->block >= p->n)
		return error_set(err, -EBADMSG, "bad-message", "PAGES for block %u of %u", m->block,
				 p->n);
	r = place_check(p, m, p->blocks[m->block].page_size, err);
	if (r)
		return r;
	if (m->kind == MSG_PAGES_RAW && digest_xxh3(data, m->length) != m->digest) {
		r = place_forget(p, m, err);
		return r ? r : 1;
	}
	return place_put(p, io, m, data, err);
}

/* --- faults --- */

int place_fault(struct place *p, const struct place_io *io, unsigned int block, uint64_t page,
		uint64_t at_us, struct error *err)
{
	struct place_block *b = &p->blocks[block];
	bool again = bitmap_test(&b->asked, page);
	int r;

	atomic_fetch_add_explicit(&p->faults, 1, memory_order_relaxed);
	if (!again) {
		timed_begin(p, b, page, at_us);
		bitmap_set(&b->asked, page);
		atomic_fetch_add(&p->outstanding, 1);
	}
	if (pages_get(b->pages, page) == PAGES_MISSING) {
		if (again)
			return PLACE_ASKED;
		atomic_fetch_add_explicit(&p->requests, 1, memory_order_relaxed);
		FAULTPOINT(REQUEST_DUE);
		return PLACE_ASK;
	}
	FAULTPOINT(ZERO_FAULT_READ);
	r = live_fill(p, io, b, page, err);
	if (r)
		return r;
	asked_clear(p, b, page);
	return PLACE_ANSWERED;
}

int place_fault_shared(struct place *p, const struct place_io *io, unsigned int block,
		       uint64_t page, uint64_t at_us, struct error *err)
{
	struct place_block *b = &p->blocks[block];
	int r;

	bitmap_test_and_set(&b->shared, page);
	r = place_fault(p, io, block, page, at_us, err);
	/* Who placed it has looked too early. */
	if (r == PLACE_ANSWERED && bitmap_test_and_clear(&b->shared, page))
		sharers_wake(&p->sharers, block, page << b->shift, b->page_size);
	return r;
}

/* The part of [addr, addr + len) that is in @b, in pages. Return: whether there is one */
static bool overlap(const struct place_block *b, uint64_t addr, uint64_t len, uint64_t *ret_first,
		    uint64_t *ret_n)
{
	uint64_t lo = MAX(addr, b->mem.block.addr);
	uint64_t hi = MIN(addr + len, b->mem.block.addr + b->length);

	if (lo >= hi)
		return false;
	*ret_first = (lo - b->mem.block.addr) >> b->shift;
	*ret_n = (hi - lo) >> b->shift;
	return *ret_n > 0;
}

void place_note_removed(struct place *p, uint64_t addr, uint64_t len)
{
	uint64_t first, n;

	for (unsigned int i = 0; i < p->n; i++)
		if (overlap(&p->blocks[i], addr, len, &first, &n))
			place_set(&p->blocks[i], first, n, PAGES_REMOVED);
}

void place_note_unmapped(struct place *p, uint64_t addr, uint64_t len)
{
	uint64_t first, n;

	for (unsigned int i = 0; i < p->n; i++) {
		struct place_block *b = &p->blocks[i];

		if (!overlap(b, addr, len, &first, &n))
			continue;
		atomic_store(&b->changed, true);
		if (!atomic_load(&b->moved))
			place_set(b, first, n, PAGES_REMOVED);
	}
}

const char *place_note_moved(struct place *p, uint64_t addr, uint64_t len)
{
	const char *name = NULL;
	uint64_t first, n;

	for (unsigned int i = 0; i < p->n; i++) {
		struct place_block *b = &p->blocks[i];

		if (!overlap(b, addr, len, &first, &n))
			continue;
		atomic_store(&b->changed, true);
		atomic_store(&b->moved, true);
		if (pages_next_missing(b->pages, first) < first + n)
			name = b->name;
	}
	return name;
}

int place_unmapped(struct place *p, uint64_t addr, uint64_t len, struct error *err)
{
	uint64_t first, n;
	int r = 0;

	for (unsigned int i = 0; i < p->n && !r; i++) {
		struct place_block *b = &p->blocks[i];

		if (!overlap(b, addr, len, &first, &n))
			continue;
		for (uint64_t page = next_asked(b, first, first + n); page < first + n;
		     page = next_asked(b, page + 1, first + n))
			asked_clear(p, b, page);
		r = uffd_wake(p->uffd, addr_of(b, first), n << b->shift);
		if (r)
			place_fail(err, r, b, first, "waking at");
	}
	return r;
}

int place_removed(struct place *p, const struct place_io *io, uint64_t addr, uint64_t len,
		  struct error *err)
{
	uint64_t first, n;
	int r = 0;

	for (unsigned int i = 0; i < p->n && !r; i++)
		if (overlap(&p->blocks[i], addr, len, &first, &n))
			r = live_answer(p, io, &p->blocks[i], first, n, err);
	return r;
}
