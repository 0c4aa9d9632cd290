/* SPDX-License-Identifier: Apache-2.0 */
/* From guest memory to PAGES frames. */
#include <errno.h>
#include <string.h>

#include "engine.h"
#include "gone.h"
#include "lane.h"
#include "util/digest.h"
#include "util/zero.h"

static int write_frame(struct engine *e, struct lane *lane, const struct msg_pages *pages,
		       uint8_t *frame, uint64_t payload, struct error *err)
{
	struct msg m = {.type = MSG_PAGES, .pages = *pages};
	ssize_t n = msg_encode(&m, frame, MSG_PAGES_FIXED);

	if (n < 0)
		return error_set(err, (int)n, NULL, "cannot encode PAGES");
	atomic_fetch_add_explicit(&e->stats.runs, 1, memory_order_relaxed);
	atomic_fetch_add_explicit(&e->stats.digest_sum, pages->digest, memory_order_relaxed);
	lane->runs++;
	lane->digest_sum += pages->digest;
	lane->wire += (size_t)n + payload;
	return tls_write_full(lane->chan, frame, (size_t)n + payload, lane->stop_fd,
			      ENGINE_IO_TIMEOUT_US, err);
}

/* Who looks at it does so when no run is under way. */
static void note_sent(struct engine_block *b, uint64_t offset, uint64_t length, bool data)
{
	uint64_t page = b->mem.block.page_size, first = offset / page;
	uint64_t n = (offset + length + page - 1) / page - first;

	if (!b->filled.nbits)
		return;
	if (data)
		bitmap_set_range(&b->filled, first, n);
	else
		bitmap_clear_range(&b->filled, first, n);
}

int engine_send_hole(struct engine *e, struct lane *lane, uint32_t pass, uint32_t block,
		     uint64_t offset, uint64_t length, struct error *err)
{
	struct msg_pages p = {.block = block,
			      .kind = MSG_PAGES_ZERO,
			      .offset = offset,
			      .length = length,
			      .pass = pass};
	uint64_t page = e->blocks[block].mem.block.page_size;
	bool part = length < page; /* of a page that holds data elsewhere */
	uint8_t frame[MSG_PAGES_FIXED];
	int r;

	note_sent(&e->blocks[block], offset, length, part);
	r = write_frame(e, lane, &p, frame, 0, err);
	if (!r)
		atomic_fetch_add_explicit(&e->stats.zero_pages, length / (part ? 4096 : page),
					  memory_order_relaxed);
	return r;
}

static int send_data(struct engine *e, struct lane *lane, uint8_t *frame, uint32_t pass,
		     uint32_t block, uint64_t offset, uint64_t length, struct error *err)
{
	struct msg_pages p = {.block = block,
			      .kind = MSG_PAGES_RAW,
			      .offset = offset,
			      .length = length,
			      .pass = pass,
			      .digest = digest_xxh3(frame + MSG_PAGES_FIXED, length)};
	int r;

	note_sent(&e->blocks[block], offset, length, true);
	r = write_frame(e, lane, &p, frame, length, err);
	/* What broke off in the middle is sent again, and counts then. */
	if (!r)
		atomic_fetch_add_explicit(&e->stats.sent_bytes, length, memory_order_relaxed);
	return r;
}

/* Length of the pages at @off that are all zero, or all not, like the first of them. */
static uint64_t same_kind(const uint8_t *data, uint64_t off, uint64_t length, uint64_t page,
			  bool *ret_zero)
{
	bool zero = zero_is(data + off, page);
	uint64_t end = off + page;

	while (end < length && zero_is(data + end, page) == zero)
		end += page;
	*ret_zero = zero;
	return end - off;
}

static int read_guest(const struct gmem *mem, uint64_t offset, uint8_t *data, uint64_t length,
		      struct error *err)
{
	int r = gone_read(mem, offset, data, length);

	if (r < 0)
		error_set(err, r, "guest-memory", "cannot read block %s at %#llx: %s",
			  mem->block.name, (unsigned long long)offset, strerror(-r));
	return r;
}

/* Nobody can ask for a page so large that it is paced: no post-copy. */
static int pace(struct engine *e, struct lane *lane, uint64_t length)
{
	int r = engine_await_turn(e, lane);

	engine_account(e, length);
	return r;
}

/* Only pages that the destination does not put together have parts of zeros. */
static int send_part(struct engine *e, struct lane *lane, uint8_t *buf, uint32_t pass,
		     uint32_t block, uint64_t offset, struct error *err)
{
	if (e->blocks[block].mem.block.page_size > ENGINE_PAGE_WHOLE &&
	    zero_is(buf + MSG_PAGES_FIXED, ENGINE_RUN_MAX))
		return engine_send_hole(e, lane, pass, block, offset, ENGINE_RUN_MAX, err);
	return send_data(e, lane, buf, pass, block, offset, ENGINE_RUN_MAX, err);
}

/*
 * A page that is larger than a frame: all of its parts in order, or one zero run. Reading it twice
 * does no harm: what is written in between is dirty, and in post-copy nobody writes.
 */
static int send_large(struct engine *e, struct lane *lane, uint8_t *buf, uint32_t pass,
		      uint32_t block, uint64_t offset, struct error *err)
{
	const struct gmem *mem = &e->blocks[block].mem;
	uint8_t *data = buf + MSG_PAGES_FIXED;
	uint64_t page = mem->block.page_size;
	bool zero = true;
	int r = 0;

	for (uint64_t off = 0; off < page && zero && !r; off += ENGINE_RUN_MAX) {
		r = read_guest(mem, offset + off, data, ENGINE_RUN_MAX, err);
		zero = !r && zero_is(data, ENGINE_RUN_MAX);
	}
	if (zero)
		return engine_send_hole(e, lane, pass, block, offset, page, err);
	for (uint64_t off = 0; off < page && !r; off += ENGINE_RUN_MAX) {
		if (page > ENGINE_PAGE_WHOLE)
			r = pace(e, lane, ENGINE_RUN_MAX);
		if (!r)
			r = read_guest(mem, offset + off, data, ENGINE_RUN_MAX, err);
		if (!r)
			r = send_part(e, lane, buf, pass, block, offset + off, err);
	}
	return r;
}

/*
 * The pages are read behind room for one header. A frame that begins further in puts its header
 * over the tail of the page before, which has been dealt with by then: so each frame is one piece
 * of memory and one write, without copying.
 */
static int send_small(struct engine *e, struct lane *lane, uint8_t *buf, uint32_t pass,
		      uint32_t block, uint64_t offset, uint64_t length, struct error *err)
{
	uint64_t page = e->blocks[block].mem.block.page_size;
	uint8_t *data = buf + MSG_PAGES_FIXED;
	int r = 0;

	for (uint64_t off = 0, n; off < length && !r; off += n) {
		bool zero;

		n = same_kind(data, off, length, page, &zero);
		if (zero)
			r = engine_send_hole(e, lane, pass, block, offset + off, n, err);
		else
			r = send_data(e, lane, data + off - MSG_PAGES_FIXED, pass, block,
				      offset + off, n, err);
	}
	return r;
}

/* A saved page that is larger than a frame. */
static int send_saved_large(struct engine *e, struct lane *lane, uint8_t *frame, uint32_t pass,
			    uint32_t block, uint64_t offset, struct error *err)
{
	uint64_t page = e->blocks[block].mem.block.page_size;
	uint8_t *data = frame + MSG_PAGES_FIXED;
	int r = 0;

	if (zero_is(data, page))
		return engine_send_hole(e, lane, pass, block, offset, page, err);
	for (uint64_t off = 0; off < page && !r; off += ENGINE_RUN_MAX)
		r = send_data(e, lane, frame + off, pass, block, offset + off, ENGINE_RUN_MAX, err);
	return r;
}

int engine_send_saved(struct engine *e, struct lane *lane, uint8_t *frame, uint32_t pass,
		      uint32_t block, uint64_t offset, uint64_t length, struct error *err)
{
	uint64_t page = e->blocks[block].mem.block.page_size;

	if (page > ENGINE_PAGE_WHOLE) /* one of its parts */
		return send_part(e, lane, frame, pass, block, offset, err);
	if (page > ENGINE_RUN_MAX)
		return send_saved_large(e, lane, frame, pass, block, offset, err);
	return send_small(e, lane, frame, pass, block, offset, length, err);
}

int engine_send_run(struct engine *e, struct lane *lane, uint8_t *buf, uint32_t pass,
		    uint32_t block, uint64_t offset, uint64_t length, struct error *err)
{
	const struct gmem *mem = &e->blocks[block].mem;
	uint8_t *data = buf + MSG_PAGES_FIXED;
	uint64_t page = mem->block.page_size;
	int r = 0;

	if (page > ENGINE_RUN_MAX) {
		for (uint64_t off = 0; off < length && !r; off += page)
			r = send_large(e, lane, buf, pass, block, offset + off, err);
		return r;
	}
	r = read_guest(mem, offset, data, length, err);
	return r < 0 ? r : send_small(e, lane, buf, pass, block, offset, length, err);
}
