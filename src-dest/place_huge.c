/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Pages that are larger than a frame: put together beside the guest, placed once (P16).
 *
 * Those larger than PLACE_PAGE_WHOLE are written into place part by part: that is for PLACE_PRECOPY,
 * where nothing is registered and nobody runs, only. Rule 2: such a page is missing from its first part
 * on, also if an older copy of it was there, and received when the last part was written; a barrier
 * or another frame before that ends the session. A missing page with some of its content is never
 * left unguarded (rule 5): blocks with such pages are refused where post-copy may follow.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include "place_priv.h"
#include "util/digest.h"
#include "util/trace.h"

void place_huge_free(struct place_huge *h)
{
	free(h->buf);
	memset(h, 0, sizeof(*h));
}

bool place_is_part(const struct place *p, const struct msg_pages *m)
{
	uint64_t page = m->block < p->n ? p->blocks[m->block].page_size : 0;

	if (m->kind == MSG_PAGES_RAW)
		return page > MSG_PAGES_RAW_MAX;
	return page > PLACE_PAGE_WHOLE && m->length == MSG_PAGES_RAW_MAX;
}

/* The first part begins a page, each further one follows the one before. */
static int check_order(const struct place_huge *h, const struct place_block *b,
		       const struct msg_pages *m, struct error *err)
{
	uint64_t want = h->have ? h->offset + h->have : m->offset & ~(b->page_size - 1);

	if (m->length != MSG_PAGES_RAW_MAX || m->offset != want ||
	    (h->have && (m->block != h->block || m->pass != h->pass)))
		return error_set(err, -EBADMSG, "bad-message",
				 "PAGES for block %s: offset %" PRIu64 ", length %" PRIu64
				 " is not the next part of a page of %" PRIu64,
				 b->name, m->offset, m->length, b->page_size);
	return 0;
}

static bool in_parts(const struct place_block *b)
{
	return b->page_size > PLACE_PAGE_WHOLE;
}

static uint8_t *part_at(const struct place_huge *h, const struct place_block *b)
{
	return in_parts(b) ? h->buf : h->buf + h->have;
}

/* admit.c does not let it come to this. */
static int check_regime(const struct place *p, const struct place_block *b, struct error *err)
{
	if (!in_parts(b) || atomic_load_explicit(&p->regime, memory_order_acquire) == PLACE_PRECOPY)
		return 0;
	return error_set(err, -EBADMSG, "page-size",
			 "block %s has pages of %" PRIu64 " bytes: they cannot come by post-copy",
			 b->name, b->page_size);
}

void *place_huge_room(struct place *p, struct place_huge *h, const struct msg_pages *m,
		      struct error *err)
{
	struct place_block *b = &p->blocks[m->block];
	uint64_t room = in_parts(b) ? MSG_PAGES_RAW_MAX : b->page_size;

	if (place_check(p, m, MSG_PAGES_RAW_MAX, err) || check_order(h, b, m, err) ||
	    check_regime(p, b, err))
		return NULL;
	if (h->cap < room) {
		free(h->buf);
		h->buf = aligned_alloc(4096, room);
		h->cap = h->buf ? room : 0;
	}
	if (!h->buf) {
		error_set(err, -ENOMEM, NULL, "out of memory");
		return NULL;
	}
	if (!h->have) {
		h->block = m->block;
		h->pass = m->pass;
		h->offset = m->offset;
		h->bad = false;
		if (in_parts(b))
			place_set(b, m->offset >> b->shift, 1, PAGES_MISSING);
	}
	return part_at(h, b);
}

/* All parts are there, and right. */
static int put_page(struct place *p, const struct place_io *io, struct place_huge *h,
		    const struct msg_pages *page, struct error *err)
{
	struct place_block *b = &p->blocks[page->block];

	if (!in_parts(b))
		return place_put(p, io, page, h->buf, err);
	trace_place(p->traced, b->name, page->offset, page->length);
	place_set(b, page->offset >> b->shift, 1, PAGES_DATA);
	return 0;
}

static int write_part(struct place *p, const struct place_huge *h, const struct msg_pages *m,
		      struct error *err)
{
	struct place_block *b = &p->blocks[m->block];
	int r = gmem_write(&b->mem, m->offset, h->buf, m->length);

	return r ? place_fail(err, r, b, m->offset >> b->shift, "writing into") : 0;
}

int place_huge_part(struct place *p, const struct place_io *io, struct place_huge *h,
		    const struct msg_pages *m, struct error *err)
{
	const struct place_block *b = &p->blocks[m->block];
	struct msg_pages page = *m;
	int r = 0;

	if (m->kind == MSG_PAGES_ZERO)
		memset(part_at(h, b), 0, m->length);
	if (m->kind == MSG_PAGES_RAW && digest_xxh3(part_at(h, b), m->length) != m->digest)
		h->bad = true;
	else if (in_parts(b))
		r = write_part(p, h, m, err);
	if (r)
		return r;
	h->have += m->length;
	if (h->have < b->page_size)
		return 0;
	h->have = 0;
	page.offset = h->offset;
	page.length = b->page_size;
	if (!h->bad)
		return put_page(p, io, h, &page, err);
	r = place_forget(p, &page, err);
	return r ? r : 1;
}
