/* SPDX-License-Identifier: Apache-2.0 */
/* Blocks as wholes: what is asked of the kernel for them, large pages, the end. */
#include <errno.h>
#include <pthread.h>
#include <sys/syscall.h>
#include "dest_box.h"
#include "util/log.h"

static void quiet(void)
{
	log_setup("error");
}

TestSuite(dest_blocks, .init = quiet, .timeout = 60);

/* --- features --- */

Test(dest_blocks, features_are_asked_for_where_they_are_and_are_used)
{
	const uint64_t all = ~0ul, events = UFFD_F_EVENT_REMOVE | UFFD_F_EVENT_UNMAP |
					    UFFD_F_EVENT_REMAP | UFFD_F_EVENT_FORK;
	struct place_block *b;
	struct place p;

	cr_assert(zero(int, place_init(&p, 2, PAGE)));
	b = p.blocks;
	b[0].kind = b[1].kind = MSG_BLOCK_ANON;
	cr_assert(eq(u64, place_features(&p, all), events));
	cr_assert(zero(u64, place_features(&p, 0)));
	b[1].kind = MSG_BLOCK_MEMFD;
	cr_assert(eq(u64, place_features(&p, all), events | UFFD_F_MISSING_SHMEM));
	cr_assert(eq(u64, place_features(&p, UFFD_F_EVENT_REMOVE), UFFD_F_EVENT_REMOVE));
	b[0].kind = MSG_BLOCK_HUGETLB;
	cr_assert(eq(u64, place_features(&p, all & ~events),
		     UFFD_F_MISSING_HUGETLBFS | UFFD_F_MISSING_SHMEM));
	/* Thread ids where threads are named. */
	p.blocktime = blocktime_new();
	cr_assert(eq(u64, place_features(&p, UFFD_F_THREAD_ID), UFFD_F_THREAD_ID));
	cr_assert(zero(u64, place_features(&p, 0)));
	place_clear(&p);
}

/* --- registering --- */

/* Each block remembers for itself whether the kernel can put zeros there. */
Test(dest_blocks, zeropage_is_the_kernels_word)
{
	struct box b;

	box_init(&b, MSG_BLOCK_MEMFD);
	cr_assert(not(b.p.blocks[0].zeropage));
	box_live(&b);
	cr_assert(b.p.blocks[0].zeropage, "shared memory has it");
	cr_assert(b.p.blocks[0].registered);
	box_free(&b);
}

static bool is_free(const struct box *b, uint64_t page)
{
	int fd = uffd_open(true, NULL), r;

	cr_assert(zero(int, uffd_api(fd, 0, NULL, NULL)));
	r = uffd_register(fd, (uint64_t)b->mem + page * PAGE, PAGE, UFFD_MODE_MISSING, NULL);
	close(fd);
	return !r;
}

/* One block that cannot be taken off is reported, and the others are taken off all the same. */
Test(dest_blocks, one_failed_step_skips_nothing)
{
	struct place_block *two;
	struct box b;

	box_init(&b, MSG_BLOCK_ANON);
	box_live(&b);
	two = calloc(2, sizeof(*two));
	two[0] = two[1] = b.p.blocks[0];
	two[0].mem.block.addr += 1; /* EINVAL */
	strcpy(two[0].name, "odd");
	free(b.p.blocks);
	b.p.blocks = two;
	b.p.n = 2;
	cr_assert(eq(int, place_unregister(&b.p, &b.err), -EINVAL));
	cr_assert(ne(ptr, strstr(b.err.msg, "block odd"), NULL), "%s", b.err.msg);
	cr_assert(is_free(&b, 0));
	cr_assert(is_free(&b, PAGES - 1));
	cr_assert(zero(int, place_unregister(&b.p, &b.err)), "safe to call twice");
	two[1] = two[0];
	b.p.n = 1;
	box_free(&b);
}

/* The length is that of the beginning, whatever the guest's description says by now. */
Test(dest_blocks, a_length_is_fixed_when_the_incoming_side_starts)
{
	struct box b;
	uint64_t page;
	unsigned int block;

	box_init(&b, MSG_BLOCK_MEMFD);
	b.p.blocks[0].mem.block.length = PAGE;
	box_live(&b);
	cr_assert(not(is_free(&b, PAGES - 1)));
	b.p.blocks[0].mem.block.length = 2 * PAGE;
	cr_assert(place_find(&b.p, (uint64_t)b.mem + (PAGES - 1) * PAGE, &block, &page));
	cr_assert(zero(int, put(&b, PAGES - 1, 1, 1)));
	cr_assert(zero(int, place_unregister(&b.p, &b.err)));
	cr_assert(is_free(&b, PAGES - 1));
	atomic_store(&b.p.regime, PLACE_CLOSED);
	b.p.blocks[0].mem.block.length = PAGES * PAGE;
	cr_assert(zero(int, place_discard_all(&b.p, &b.err)), "%s", b.err.msg);
	cr_assert(is_hole(&b, PAGES - 1, 1));
	box_free(&b);
}

/* --- received --- */

/* The state tells of what the kernel took: up to the place where it refused, and no further. */
Test(dest_blocks, a_page_is_received_once_the_kernel_took_it)
{
	struct box b;

	box_init(&b, MSG_BLOCK_MEMFD);
	box_live(&b);
	cr_assert(zero(int,
		       uffd_unregister(b.p.uffd, (uint64_t)b.mem + 4 * PAGE, (PAGES - 4) * PAGE)));
	cr_assert(lt(int, put(&b, 0, 8, 1), 0));
	cr_assert(eq(str, b.err.code, "placing"));
	for (uint64_t i = 0; i < 8; i++)
		cr_assert(eq(int, state(&b, i), is_hole(&b, i, 1) ? PAGES_MISSING : PAGES_DATA));
	cr_assert(eq(int, state(&b, 4), PAGES_MISSING));
	cr_assert(le(u64, received(&b), 4));
	box_free(&b);
}

/* --- large pages --- */

#define LARGE (2ul << 20)

/* The block of a box as one large page; ordinary memory behind it is placed the same way. */
static void box_sized(struct box *b, uint64_t size)
{
	struct place_block *pb;
	struct pages_what what = {.npages = 1, .page_size = (uint32_t)size};

	box_init(b, MSG_BLOCK_ANON);
	munmap(b->mem, PAGES * PAGE);
	pb = &b->p.blocks[0];
	b->mem = mmap(NULL, 2 * size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	b->mem = (uint8_t *)(((uintptr_t)b->mem + size - 1) & ~(size - 1));
	madvise(b->mem, size, MADV_NOHUGEPAGE);
	pages_close(pb->pages);
	unlink(b->path);
	cr_assert(zero(int, pages_create(&pb->pages, b->path, &what, &b->err)), "%s", b->err.msg);
	pb->page_size = pb->length = pb->mem.block.length = pb->mem.block.page_size = size;
	pb->shift = (unsigned int)__builtin_ctzl(size);
	pb->npages = 1;
	pb->mem.block.addr = (uint64_t)b->mem;
}

static void box_large(struct box *b)
{
	box_sized(b, LARGE);
}

/* Part @i of the large page, its bytes being @i + 1. Return: as place_huge_part() */
static int part(struct box *b, struct place_huge *h, uint64_t i, uint64_t spoil)
{
	struct msg_pages m = {.kind = MSG_PAGES_RAW,
			      .offset = i * MSG_PAGES_RAW_MAX,
			      .length = MSG_PAGES_RAW_MAX,
			      .pass = 1};
	uint8_t *room = place_huge_room(&b->p, h, &m, &b->err);

	if (!room)
		return -EBADMSG;
	memset(room, (int)i + 1, m.length);
	m.digest = XXH3_64bits(room, m.length) ^ spoil;
	return place_huge_part(&b->p, &b->io, h, &m, &b->err);
}

static int zero_part(struct box *b, struct place_huge *h, uint64_t i)
{
	struct msg_pages m = {.kind = MSG_PAGES_ZERO,
			      .offset = i * MSG_PAGES_RAW_MAX,
			      .length = MSG_PAGES_RAW_MAX,
			      .pass = 1};

	cr_assert(place_is_part(&b->p, &m));
	cr_assert(ne(ptr, place_huge_room(&b->p, h, &m, &b->err), NULL), "%s", b->err.msg);
	return place_huge_part(&b->p, &b->io, h, &m, &b->err);
}

static bool there(const struct box *b, uint64_t off)
{
	unsigned char vec;

	cr_assert(zero(int, mincore(b->mem + off, PAGE, &vec)));
	return vec & 1;
}

Test(dest_blocks, a_large_page_is_placed_once_and_whole)
{
	const uint64_t n = LARGE / MSG_PAGES_RAW_MAX;
	struct place_huge h = {0};
	struct box b;

	box_large(&b);
	box_live(&b);
	for (uint64_t i = 0; i < n; i++) {
		cr_assert(not(there(&b, 0)), "nothing before it is whole");
		cr_assert(zero(u64, received(&b)));
		cr_assert(zero(int, part(&b, &h, i, 0)), "%s", b.err.msg);
	}
	cr_assert(eq(u64, received(&b), 1));
	for (uint64_t i = 0; i < n; i++)
		cr_assert(eq(u8, b.mem[(i + 1) * MSG_PAGES_RAW_MAX - 1], (uint8_t)(i + 1)));
	place_huge_free(&h);
	box_free(&b);
}

/* One damaged part: nothing is placed, the page is asked for again, and comes again. */
Test(dest_blocks, a_large_page_with_a_damaged_part)
{
	const uint64_t n = LARGE / MSG_PAGES_RAW_MAX;
	struct place_huge h = {0};
	struct box b;

	box_large(&b);
	box_live(&b);
	for (uint64_t i = 0; i < n; i++)
		cr_assert(eq(int, part(&b, &h, i, i == 2), i == n - 1));
	cr_assert(not(there(&b, 0)));
	cr_assert(zero(u64, received(&b)));
	for (uint64_t i = 0; i < n; i++)
		cr_assert(zero(int, part(&b, &h, i, 0)));
	cr_assert(eq(u64, received(&b), 1));
	place_huge_free(&h);
	box_free(&b);
}

/* Too large to be put together: written where it belongs, but missing until all of it is there. */
Test(dest_blocks, a_page_that_is_written_in_parts)
{
	const uint64_t n = 2 * LARGE / MSG_PAGES_RAW_MAX;
	struct place_huge h = {0};
	struct box b;

	box_sized(&b, 2 * LARGE);
	for (uint64_t pass = 0; pass < 2; pass++) {
		for (uint64_t i = 0; i < n; i++) {
			cr_assert(zero(int,
				       i == 3 && pass ? zero_part(&b, &h, i) : part(&b, &h, i, 0)),
				  "%s", b.err.msg);
			cr_assert(eq(u64, received(&b), i == n - 1));
		}
		for (uint64_t i = 0; i < n; i++)
			cr_assert(eq(u8, b.mem[(i + 1) * MSG_PAGES_RAW_MAX - 1],
				     i == 3 && pass ? 0 : (uint8_t)(i + 1)));
	}
	cr_assert(le(u64, h.cap, MSG_PAGES_RAW_MAX), "no room for all of it");

	/* Damaged, it is missing, and asked for again. */
	for (uint64_t i = 0; i < n; i++)
		cr_assert(eq(int, part(&b, &h, i, i == 2), i == n - 1));
	cr_assert(zero(u64, received(&b)));
	cr_assert(not(there(&b, 0)));

	/* Half of it must not be seen by anybody. */
	box_live(&b);
	cr_assert(eq(int, part(&b, &h, 0, 0), -EBADMSG));
	cr_assert(eq(str, b.err.code, "page-size"));
	place_huge_free(&h);
	box_free(&b);
}

Test(dest_blocks, parts_out_of_order)
{
	struct place_huge h = {0};
	struct box b;

	box_large(&b);
	cr_assert(eq(int, part(&b, &h, 1, 0), -EBADMSG), "not the first");
	cr_assert(zero(int, part(&b, &h, 0, 0)));
	cr_assert(eq(int, part(&b, &h, 2, 0), -EBADMSG), "one is left out");
	cr_assert(zero(int, part(&b, &h, 1, 0)));
	place_huge_free(&h);
	box_free(&b);
}
