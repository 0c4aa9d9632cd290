/* SPDX-License-Identifier: Apache-2.0 */
/* An engine with two blocks of memory of this very process, for the tests of what tracks them. */
#ifndef DECANT_TESTS_SOURCE_BOX_H
#define DECANT_TESTS_SOURCE_BOX_H

#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/pidfd.h>
#include <unistd.h>

#include "track.h"
#include "uffd/pagemap.h"

#define PAGE  4096ul
#define PAGES 64ul
#define BYTES (PAGES * PAGE)

/**
 * struct box - an engine with two blocks, "shared" and "private", and what tracks them
 * @mem:	the blocks, as the guest sees them; nothing is in them
 */
struct box {
	struct engine e;
	struct engine_block blocks[2];
	struct track t;
	struct error err;
	uint8_t *mem[2];
};

static inline void box_block(struct box *b, int i, const char *name, enum guest_block_kind kind,
			     int fd)
{
	struct engine_block *eb = &b->blocks[i];

	b->mem[i] = mmap(NULL, BYTES, PROT_READ | PROT_WRITE,
			 fd < 0 ? MAP_PRIVATE | MAP_ANONYMOUS : MAP_SHARED, fd, 0);
	cr_assert(b->mem[i] != MAP_FAILED);
	madvise(b->mem[i], BYTES, MADV_NOHUGEPAGE);
	eb->mem = (struct gmem){.pid = getpid(), .pidfd = pidfd_open(getpid(), 0), .pagemap = -1};
	eb->mem.block = (struct guest_block){.kind = kind,
					     .length = BYTES,
					     .page_size = PAGE,
					     .addr = (uint64_t)b->mem[i],
					     .fd = fd};
	if (fd < 0)
		eb->mem.pagemap = pagemap_open(0);
	snprintf(eb->mem.block.name, sizeof(eb->mem.block.name), "%s", name);
	eb->npages = PAGES;
	eb->theirs = -1;
	cr_assert(!bitmap_init(&eb->pending, PAGES) && !bitmap_init(&eb->sent, PAGES) &&
		  !bitmap_init(&eb->dirty, PAGES));
}

static inline void box_init(struct box *b)
{
	int fd = memfd_create("shared", MFD_CLOEXEC);
	struct uffd_caps caps;

	memset(b, 0, sizeof(*b));
	if (uffd_probe(&caps, &b->err) < 0)
		cr_skip_test("%s", b->err.msg);
	cr_assert_eq(ftruncate(fd, BYTES), 0);
	box_block(b, 0, "shared", GUEST_BLOCK_MEMFD, fd);
	box_block(b, 1, "private", GUEST_BLOCK_ANON, -1);
	b->e.blocks = b->blocks;
	b->e.nblocks = 2;
	b->e.features = caps.features;
	b->t.uffd = b->t.pagemap = -1;
}

static inline int fresh(void)
{
	int fd = uffd_open(true, NULL);

	cr_assert_geq(fd, 0);
	return fd;
}

static inline void start(struct box *b, const struct track_ops *ops)
{
	cr_assert_eq(track_start(&b->t, ops, &b->e, fresh(), &b->err), 0, "%s", b->err.msg);
}

/* A second descriptor takes a block only if no other has it. */
static inline bool is_free(const struct box *b, int i)
{
	int fd = fresh(), r;

	cr_assert_eq(uffd_api(fd, 0, NULL, NULL), 0);
	r = uffd_register(fd, (uint64_t)b->mem[i], BYTES, UFFD_MODE_MISSING, NULL);
	close(fd);
	cr_assert(r == 0 || r == -EBUSY, "%d", r);
	return r == 0;
}

/* One page of block @i gets another owner until the descriptor that is returned is closed. */
static inline int take(const struct box *b, int i)
{
	int fd = fresh();

	cr_assert_eq(uffd_api(fd, 0, NULL, NULL), 0);
	cr_assert_eq(uffd_register(fd, (uint64_t)b->mem[i] + PAGE, PAGE, UFFD_MODE_MISSING, NULL),
		     0);
	return fd;
}

static inline void *write_one(void *arg)
{
	*(volatile uint8_t *)arg = 1;
	return NULL;
}

/* All of block @i was sent: @n pages from @first on as zeros, the rest as data. */
static inline void was_sent(struct box *b, int i)
{
	struct engine_block *eb = &b->blocks[i];

	bitmap_set_range(&eb->filled, 0, PAGES);
	bitmap_clear_range(&eb->pending, 0, PAGES);
	bitmap_clear_range(&eb->dirty, 0, PAGES);
}

/* What is to be sent of block @i is exactly [first, first + n). */
static inline bool are_pending(const struct box *b, int i, uint64_t first, uint64_t n)
{
	const struct bitmap *p = &b->blocks[i].pending;

	return bitmap_count(p) == n && (!n || bitmap_next_set(p, 0) == first) &&
	       (!n || bitmap_next_clear(p, first) == first + n);
}

#endif
