/* SPDX-License-Identifier: Apache-2.0 */
/* Pages that are held back: in and out of quarantine, registered buffers, and all of it at the switch. */
#include <linux/io_uring.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <sys/uio.h>

#include "held.h"
#include "scan_priv.h"
#include "source_box.h"
#include "util/clock.h"

#define QUARANTINE_MS 90u

/** struct hold - a snapshot thread's state without the thread; block "private" is free of DMA */
struct hold {
	struct box b;
	struct scan s;
	struct bitmap *pending;
	struct held *h;
};

static void hold_init(struct hold *h, enum dma_way way)
{
	memset(&h->s, 0, sizeof(h->s));
	box_init(&h->b);
	h->b.blocks[1].mem.block.flags = GUEST_BLOCK_NO_DMA;
	h->b.e.dma = way;
	h->b.e.options.dma_quarantine_ms = QUARANTINE_MS;
	h->b.e.stop_fd = eventfd(0, EFD_NONBLOCK);
	h->s.kick_fd = eventfd(0, EFD_NONBLOCK);
	h->s.e = &h->b.e;
	pthread_mutex_init(&h->s.lock, NULL);
	cr_assert_eq(held_new(&h->b.e), 0);
	h->pending = &h->b.blocks[0].pending;
	h->h = h->b.blocks[0].held;
	cr_assert_eq(held_begin(&h->s, &h->b.err), 0, "%s", h->b.err.msg);
}

static void report(struct hold *h, uint64_t page)
{
	bitmap_set(held_written(&h->b.blocks[0]), page);
	cr_assert_eq(held_sort(&h->s, &h->b.err), 0, "%s", h->b.err.msg);
}

static void pass_ms(unsigned int ms)
{
	usleep(ms * 1000);
}

Test(held, only_blocks_that_devices_write_to)
{
	struct hold h;

	hold_init(&h, DMA_QUARANTINE);
	cr_assert(h.h);
	cr_assert(!h.b.blocks[1].held);
	cr_assert_eq(held_written(&h.b.blocks[1]), &h.b.blocks[1].pending);
}

Test(held, nothing_is_held_where_nothing_has_to_be)
{
	struct hold h;

	hold_init(&h, DMA_POSTCOPY);
	cr_assert(!h.h);
	bitmap_set(h.pending, 3);
	held_strike(&h.b.e);
	held_give_back(&h.b.e);
	cr_assert(bitmap_count(h.pending) == 1 && held_bytes(&h.b.e) == 0);
}

Test(held, quarantine_is_never_too_short)
{
	struct hold h;
	uint64_t since;

	hold_init(&h, DMA_QUARANTINE);
	for (int i = 0; i < 3; i++) {
		pass_ms(17 * (unsigned int)i); /* anywhere in a slot */
		bitmap_set(h.pending, 5);
		since = clock_us();
		report(&h, 5);
		cr_assert(!bitmap_test(h.pending, 5), "it may be copied at once");
		cr_assert_eq(held_bytes(&h.b.e), PAGE);
		while (!bitmap_test(h.pending, 5)) {
			cr_assert_lt(clock_us() - since, 20u * QUARANTINE_MS * 1000,
				     "it stays for good");
			usleep(1000);
			cr_assert_eq(held_sort(&h.s, &h.b.err), 0);
		}
		cr_assert_geq(clock_us() - since, QUARANTINE_MS * 1000 - 2000);
		cr_assert_eq(held_bytes(&h.b.e), 0);
		bitmap_test_and_clear(h.pending, 5);
	}
}

Test(held, a_new_report_begins_it_anew)
{
	struct hold h;

	hold_init(&h, DMA_QUARANTINE);
	report(&h, 5);
	for (int i = 0; i < 12; i++) {
		pass_ms(QUARANTINE_MS / 4);
		report(&h, 5);
		cr_assert(!bitmap_test(h.pending, 5), "round %d", i);
	}
	cr_assert_eq(held_bytes(&h.b.e), PAGE);
	/* A pass can be longer than all of it. */
	pass_ms(3 * QUARANTINE_MS);
	report(&h, 6);
	cr_assert(bitmap_test(h.pending, 5) && !bitmap_test(h.pending, 6));
}

Test(held, ever_dirty_is_for_good)
{
	struct hold h;

	hold_init(&h, DMA_EVER_DIRTY);
	bitmap_set_range(h.pending, 0, PAGES);
	report(&h, 9);
	pass_ms(2 * QUARANTINE_MS);
	report(&h, 10);
	cr_assert(!bitmap_test(h.pending, 9) && !bitmap_test(h.pending, 10));
	bitmap_clear_range(h.pending, 0, PAGES);
	bitmap_set(held_written(&h.b.blocks[0]), 11); /* the last scan: not sorted any more */
	held_give_back(&h.b.e);
	cr_assert_eq(bitmap_count(h.pending), 3);
	cr_assert(bitmap_test(h.pending, 9) && bitmap_test(h.pending, 10) &&
		  bitmap_test(h.pending, 11));
	cr_assert_eq(held_bytes(&h.b.e), 0);
}

Test(held, registered_buffers)
{
	struct io_uring_params params = {0};
	int fd = (int)syscall(SYS_io_uring_setup, 2, &params);
	struct iovec iov;
	struct hold h;

	if (fd < 0)
		cr_skip_test("io_uring: %s", strerror(errno));
	hold_init(&h, DMA_QUARANTINE);
	iov = (struct iovec){h.b.mem[0] + 2 * PAGE, 3 * PAGE};
	report(&h, 2);
	cr_assert_eq(syscall(SYS_io_uring_register, fd, IORING_REGISTER_BUFFERS, &iov, 1), 0);
	bitmap_set_range(h.pending, 0, PAGES);
	report(&h, 3);
	cr_assert_eq(held_pinned_bytes(&h.b.e), 3 * PAGE);
	cr_assert_eq(held_bytes(&h.b.e), 3 * PAGE, "a page is held twice");
	close(fd); /* what was seen once is held for good */
	pass_ms(2 * QUARANTINE_MS);
	report(&h, 4);
	for (uint64_t p = 0; p < 8; p++)
		cr_assert_eq(bitmap_test(h.pending, p), p < 2 || p > 4, "page %lu", p);
	held_give_back(&h.b.e);
	cr_assert_eq(bitmap_count(h.pending), PAGES);
}
