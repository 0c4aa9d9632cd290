/* SPDX-License-Identifier: Apache-2.0 */
/* A place with one block of memory of this very process, for the tests of what decant-dest does to it. */
#ifndef DECANT_TESTS_DEST_BOX_H
#define DECANT_TESTS_DEST_BOX_H

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include <xxhash.h>
#include "place.h"
#include "uffd/uffd.h"

#define PAGE  4096ul
#define PAGES 256ul

/**
 * struct box - a place with one block of PAGES pages
 * @mem:	the block's memory, as a guest sees it
 * @again:	how often placing was told that events come first
 * @again_max:	after so many it gives up
 * @dir:	of the file of states
 */
struct box {
	struct place p;
	struct place_io io;
	struct error err;
	uint8_t *mem;
	unsigned int again, again_max;
	char dir[64], path[96];
};

static inline int box_again(void *arg)
{
	struct box *b = arg;

	return ++b->again > b->again_max ? -ECANCELED : 0;
}

/* As the guest's library does it. */
static inline int box_punch(void *arg, unsigned int block, const struct guest_range *ranges,
			    size_t n, struct error *err)
{
	const struct box *b = arg;

	(void)block;
	(void)err;
	for (size_t i = 0; i < n; i++)
		madvise(b->mem + ranges[i].offset, ranges[i].length, MADV_DONTNEED);
	return 0;
}

static inline void box_init(struct box *b, enum msg_block_kind kind)
{
	struct pages_what what = {.npages = PAGES, .page_size = PAGE};
	struct place_block *pb;
	bool anon = kind == MSG_BLOCK_ANON;

	memset(b, 0, sizeof(*b));
	cr_assert(zero(int, place_init(&b->p, 1, PAGE)));
	pb = &b->p.blocks[0];
	snprintf(pb->name, sizeof(pb->name), "ram");
	pb->kind = kind;
	pb->page_size = PAGE;
	pb->shift = 12;
	pb->length = PAGES * PAGE;
	pb->npages = PAGES;
	pb->mem.block = (struct guest_block){.kind = (enum guest_block_kind)kind,
					     .length = pb->length,
					     .page_size = PAGE,
					     .fd = anon ? -1 : memfd_create("ram", MFD_CLOEXEC)};
	pb->mem.pid = getpid();
	if (!anon)
		cr_assert(zero(int, ftruncate(pb->mem.block.fd, (off_t)pb->length)));
	b->mem = mmap(NULL, pb->length, PROT_READ | PROT_WRITE,
		      anon ? MAP_PRIVATE | MAP_ANONYMOUS : MAP_SHARED, pb->mem.block.fd, 0);
	cr_assert(ne(ptr, b->mem, MAP_FAILED));
	madvise(b->mem, pb->length, MADV_NOHUGEPAGE);
	pb->mem.block.addr = (uint64_t)b->mem;
	if (anon)
		pb->mem.pagemap = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	strcpy(b->dir, "/tmp/decant-place-XXXXXX");
	cr_assert(ne(ptr, mkdtemp(b->dir), NULL));
	snprintf(b->path, sizeof(b->path), "%s/states", b->dir);
	cr_assert(zero(int, pages_create(&pb->pages, b->path, &what, &b->err)), "%s", b->err.msg);
	cr_assert(zero(int, bitmap_init(&pb->asked, PAGES)));
	cr_assert(zero(int, bitmap_init(&pb->shared, PAGES)));
	b->io = (struct place_io){box_again, b};
	b->p.punch = box_punch;
	b->p.punch_arg = b;
}

static inline void box_live(struct box *b)
{
	b->p.uffd = uffd_open(true, NULL);
	cr_assert(ge(int, b->p.uffd, 0));
	cr_assert(zero(int, uffd_api(b->p.uffd, 0, NULL, NULL)));
	cr_assert(zero(int, place_register(&b->p, &b->err)), "%s", b->err.msg);
	atomic_store(&b->p.regime, PLACE_LIVE);
}

static inline void box_free(struct box *b)
{
	cr_assert(zero(int, place_unregister(&b->p, &b->err)), "%s", b->err.msg);
	if (b->p.uffd >= 0)
		close(b->p.uffd);
	munmap(b->mem, PAGES * PAGE);
	place_clear(&b->p);
	unlink(b->path);
	cr_assert(zero(int, rmdir(b->dir)));
}

/* @n pages from @first on, each filled with @seed plus its number. */
static inline uint8_t *content(uint64_t first, uint64_t n, unsigned int seed)
{
	uint8_t *buf = aligned_alloc(PAGE, n * PAGE);

	for (uint64_t i = 0; i < n; i++)
		memset(buf + i * PAGE, (int)(seed + first + i), PAGE);
	return buf;
}

static inline int put_pass(struct box *b, uint64_t first, uint64_t n, unsigned int seed,
			   uint32_t pass)
{
	uint8_t *buf = content(first, n, seed);
	struct msg_pages m = {.kind = MSG_PAGES_RAW,
			      .offset = first * PAGE,
			      .length = n * PAGE,
			      .pass = pass,
			      .digest = XXH3_64bits(buf, n * PAGE)};
	int r = place_pages(&b->p, &b->io, &m, buf, &b->err);

	free(buf);
	return r;
}

static inline int put(struct box *b, uint64_t first, uint64_t n, unsigned int seed)
{
	return put_pass(b, first, n, seed, 1);
}

static inline int put_zero(struct box *b, uint64_t first, uint64_t n)
{
	struct msg_pages m = {
		.kind = MSG_PAGES_ZERO, .offset = first * PAGE, .length = n * PAGE, .pass = 1};

	return place_pages(&b->p, &b->io, &m, NULL, &b->err);
}

static inline enum pages_state state(const struct box *b, uint64_t page)
{
	return pages_get(b->p.blocks[0].pages, page);
}

static inline uint64_t received(struct box *b)
{
	return atomic_load(&b->p.blocks[0].received);
}

static inline bool is_hole(struct box *b, uint64_t first, uint64_t n)
{
	return gmem_check_hole(&b->p.blocks[0].mem, first * PAGE, n * PAGE, NULL) == 1;
}

/* A fault as the fault thread reads it; with no request under way. */
static inline int fault(struct box *b, uint64_t page)
{
	return place_fault(&b->p, &b->io, 0, page, 0, &b->err);
}

#endif
