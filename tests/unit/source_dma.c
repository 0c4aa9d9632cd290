/* SPDX-License-Identifier: Apache-2.0 */
/* Memory that devices write to: which way it is moved, and what is known of its registered buffers. */
#include <criterion/criterion.h>
#include <errno.h>
#include <linux/io_uring.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include "dma.h"
#include "pins.h"

/* --- the way --- */

static enum dma_way way(enum mig_mode mode, bool snapshot, bool dma)
{
	struct mig_options o;

	conf_options_defaults(&o);
	o.mode = mode;
	return dma_choose(o.mode, snapshot, dma);
}

Test(dma, every_mode_has_a_way)
{
	cr_assert_eq(way(MIG_MODE_HYBRID, false, true), DMA_EVER_DIRTY);
	cr_assert_eq(way(MIG_MODE_PRECOPY, false, true), DMA_QUARANTINE);
	cr_assert_eq(way(MIG_MODE_POSTCOPY, false, true), DMA_POSTCOPY);
	cr_assert_eq(way(MIG_MODE_PRECOPY, true, true), DMA_SAVED);
	for (enum mig_mode m = MIG_MODE_HYBRID; m <= MIG_MODE_PRECOPY; m++)
		cr_assert_eq(way(m, false, false), DMA_NONE);
}

Test(dma, only_what_is_copied_early_is_held)
{
	cr_assert(dma_holds(DMA_EVER_DIRTY) && dma_holds(DMA_QUARANTINE));
	cr_assert(!dma_holds(DMA_NONE) && !dma_holds(DMA_POSTCOPY) && !dma_holds(DMA_SAVED));
	cr_assert_str_eq(dma_way_name(DMA_EVER_DIRTY), "ever-dirty");
}

/* --- what fdinfo lists --- */

#define HEAD "pos:\t0\nflags:\t02\nSqEntries:\t0\nUserFiles:\t0\n"
#define TAIL "PollList:\n"

static int parse(const char *text, struct pins *p)
{
	*p = (struct pins){0};
	return pins_parse(text, p);
}

Test(pins, a_list)
{
	struct pins p;

	cr_assert_eq(parse(HEAD "UserBufs:\t3\n    0: 0x7f0000001000/8192\n    1: <none>\n"
				"    2: 0x10/5\n" TAIL,
			   &p),
		     0);
	cr_assert_eq(p.n, 2);
	cr_assert(p.ranges[0].addr == 0x7f0000001000 && p.ranges[0].length == 8192);
	cr_assert(p.ranges[1].addr == 0x10 && p.ranges[1].length == 5);
	pins_free(&p);
	cr_assert_eq(parse(HEAD "UserBufs:\t0\n" TAIL, &p), 0);
	cr_assert_eq(p.n, 0);
}

/* The kernel leaves out what it cannot get the ring's lock for: that is not "none". */
Test(pins, a_busy_ring_is_not_an_empty_one)
{
	struct pins p;

	cr_assert_eq(parse("pos:\t0\nflags:\t02\n", &p), -EAGAIN);
	cr_assert_eq(parse("", &p), -EAGAIN);
	cr_assert_eq(parse(HEAD "UserBufs:\t2\n" TAIL, &p), -EAGAIN);
	cr_assert_eq(parse(HEAD "UserBufs:\t2\n    0: 0x1000/4096\n", &p), -EAGAIN);
	pins_free(&p);
	cr_assert_eq(parse(HEAD "UserBufs:\t2\n    0: 0x1000/4096\n    1: 0x20", &p), -EAGAIN);
	pins_free(&p);
}

Test(pins, what_is_not_understood_is_an_error)
{
	struct pins p;

	cr_assert_eq(parse(HEAD "UserBufs:\tmany\n", &p), -EBADMSG);
	cr_assert_eq(parse(HEAD "UserBufs:\t1\n    0: 4096 bytes\n", &p), -EBADMSG);
	cr_assert_eq(parse(HEAD "UserBufs:\t1\n    0: 0xfffffffffffff000/8192\n", &p), -EBADMSG);
	cr_assert_eq(parse(HEAD "UserBufs:\t99999999999\n", &p), -E2BIG);
	pins_free(&p);
}

Test(pins, pages_that_a_range_touches)
{
	const struct guest_block b = {.addr = 0x100000, .length = 16 * 4096, .page_size = 4096};
	struct pins_range r = {0x100000 + 4095, 2};
	uint64_t first = 99, n = 99;

	cr_assert(pins_pages(&r, &b, &first, &n));
	cr_assert(first == 0 && n == 2);
	r = (struct pins_range){0x100000 - 4096, 4096};
	cr_assert(!pins_pages(&r, &b, &first, &n));
	r = (struct pins_range){0x100000 + 16 * 4096, 1};
	cr_assert(!pins_pages(&r, &b, &first, &n));
	r = (struct pins_range){0, 0x200000};
	cr_assert(pins_pages(&r, &b, &first, &n));
	cr_assert(first == 0 && n == 16);
	r = (struct pins_range){0x100000 + 15 * 4096, 1 << 20};
	cr_assert(pins_pages(&r, &b, &first, &n));
	cr_assert(first == 15 && n == 1);
}

/* --- this very process --- */

static struct io_uring_params params;

static int ring(void)
{
	memset(&params, 0, sizeof(params));
	return (int)syscall(SYS_io_uring_setup, 2, &params);
}

Test(pins, of_this_process)
{
	uint8_t *mem =
		mmap(NULL, 65536, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	struct iovec iov[2] = {{mem, 8192}, {mem + 20480, 100}};
	struct error err = {0};
	struct pins p = {0};
	int fd = ring(), r;

	if (fd < 0)
		cr_skip_test("io_uring: %s", strerror(errno));
	cr_assert_eq(syscall(SYS_io_uring_register, fd, IORING_REGISTER_BUFFERS, iov, 2), 0);
	while ((r = pins_read(getpid(), &p, &err)) == -EAGAIN)
		;
	cr_assert_eq(r, 0, "%s", err.msg);
	cr_assert(p.rings == 1 && p.n == 2);
	cr_assert(p.ranges[0].addr == (uint64_t)mem && p.ranges[0].length == 8192);
	cr_assert(p.ranges[1].addr == (uint64_t)mem + 20480 && p.ranges[1].length == 100);
	pins_free(&p);
	close(fd);
	cr_assert_eq(pins_read(getpid(), &p, &err), 0);
	cr_assert(p.rings == 0 && p.n == 0);
}

/* It lives on with its buffers, and nobody can ask for them. */
Test(pins, a_ring_without_a_descriptor_is_refused)
{
	struct error err = {0};
	struct pins p = {0};
	int fd = ring();
	void *m;

	if (fd < 0)
		cr_skip_test("io_uring: %s", strerror(errno));
	m = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, IORING_OFF_SQ_RING);
	cr_assert_neq(m, MAP_FAILED);
	close(fd);
	cr_assert_eq(pins_read(getpid(), &p, &err), -EBADF);
	cr_assert_str_eq(err.code, "dma-unknown");
	cr_assert(strstr(err.msg, "--mode postcopy"), "%s", err.msg);
}

Test(pins, a_process_that_is_gone)
{
	struct error err = {0};
	struct pins p = {0};

	cr_assert_lt(pins_read(0x7ffffff0, &p, &err), 0);
	cr_assert_str_eq(err.code, "dma-unknown");
}
