// SPDX-License-Identifier: Apache-2.0
/* Pages that are larger than a frame: put together beside the guest, placed once (P16). */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include "place_priv.h"
#include "util/digest.h"

void place_huge_free(struct place_huge *h)
{
	free(h->buf);
	memset(h, 0, sizeof(*h));
}

bool place_is_part(const struct place *p, const struct msg_pages *m)
{
	return m->kind == MSG_PAGES_RAW && m->block < p->n &&
	       p->blocks[m->block].page_size > MSG_PAGES_RAW_MAX;
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

void *place_huge_room(struct place *p, struct place_huge *h, const struct msg_pages *m,
		      struct error *err)
{
	const struct place_block *b = &p->blocks[m->block];

	if (place_check(p, m, MSG_PAGES_RAW_MAX, err) || check_order(h, b, m, err))
		return NULL;
	if (h->cap < b->page_size) {
		free(h->buf);
		h->buf = aligned_alloc(4096, b->page_size);
		h->cap = h->buf ? b->page_size : 0;
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
	}
	return h->buf + h->have;
}

int place_huge_part(struct place *p, const struct place_io *io, struct place_huge *h,
		    const struct msg_pages *m, struct error *err)
{
	const struct place_block *b = &p->blocks[m->block];
	struct msg_pages page = *m;
	int r = 0;

	if (digest_xxh3(h->buf + h->have, m->length) != m->digest)
		h->bad = true;
	h->have += m->length;
	if (h->have < b->page_size)
		return 0;
	h->have = 0;
	page.offset = h->offset;
	page.length = b->page_size;
	if (!h->bad)
		return place_put(p, io, &page, h->buf, err);
	r = place_forget(p, &page, err);
	return r ? r : 1;
}
