/* SPDX-License-Identifier: Apache-2.0 */
/* Write tracking, both kinds, with real userfaultfds, of memory of this very process. */
#include <fcntl.h>
#include <pthread.h>
#include <time.h>

#include "source_box.h"
#include "util/cleanup.h"
#include "util/clock.h"
#include "util/log.h"

static void quiet(void)
{
	log_setup("error");
}

TestSuite(source_track, .init = quiet, .timeout = 30);

/* Return: what the first fault came to, 0 if there was none in ten seconds */
static int service_one(struct box *b)
{
	uint64_t end = clock_us() + 10000000;
	int r;

	do
		r = b->t.ops->service(&b->t, &b->err);
	while (r == 0 && clock_us() < end);
	return r;
}

/* A thread writes, waits, and goes on once it was served. Return: what serving it said */
static int write_served(struct box *b, uint8_t *at)
{
	pthread_t t;
	int r;

	pthread_create(&t, NULL, write_one, at);
	r = service_one(b);
	if (r > 0)
		pthread_join(t, NULL);
	else
		pthread_detach(t);
	return r;
}

/* --- choosing --- */

Test(source_track, the_host_decides_which_kind)
{
	struct uffd_caps caps = {.tracking = UFFD_TRACK_ASYNC | UFFD_TRACK_FAULTS,
				 .tracking_anon = UFFD_TRACK_FAULTS};
	struct box b;

	box_init(&b);
	cr_assert_eq(track_choose(&caps, &b.e, MIG_TRACKING_AUTO, &b.err), &track_faults,
		     "private memory allows less");
	b.e.nblocks = 1;
	cr_assert_eq(track_choose(&caps, &b.e, MIG_TRACKING_AUTO, &b.err), &track_async);
	cr_assert_eq(track_choose(&caps, &b.e, MIG_TRACKING_FAULTS, &b.err), &track_faults);
	caps.tracking = UFFD_TRACK_FAULTS;
	cr_assert_null(track_choose(&caps, &b.e, MIG_TRACKING_ASYNC, &b.err));
	cr_assert_str_eq(b.err.code, "tracking-not-supported");
}

/* --- before the start --- */

Test(source_track, a_check_leaves_nothing_behind)
{
	struct box b;
	int fd;

	box_init(&b);
	fd = fresh();
	cr_assert_eq(track_check(&track_faults, &b.e, fd, &b.err), 0, "%s", b.err.msg);
	cr_assert_eq(fcntl(fd, F_GETFD), -1, "thrown away");
	cr_assert(is_free(&b, 0) && is_free(&b, 1));
	b.mem[0][0] = b.mem[1][0] = 1;
}

Test(source_track, a_check_names_the_block_that_cannot_be)
{
	struct box b;
	int other, fd;

	box_init(&b);
	other = take(&b, 1);
	fd = fresh();
	cr_assert_eq(track_check(&track_async, &b.e, fd, &b.err), -EBUSY);
	cr_assert(strstr(b.err.msg, "block private"), "%s", b.err.msg);
	cr_assert_eq(fcntl(fd, F_GETFD), -1);
	cr_assert(is_free(&b, 0));
	close(other);
}

/* --- start and stop --- */

Test(source_track, a_start_that_fails_undoes_what_was_done)
{
	struct box b;
	int other;

	box_init(&b);
	other = take(&b, 1);
	cr_assert_eq(track_start(&b.t, &track_faults, &b.e, fresh(), &b.err), -EBUSY);
	cr_assert(strstr(b.err.msg, "block private"), "%s", b.err.msg);
	cr_assert(is_free(&b, 0));
	cr_assert_eq(b.t.uffd, -1);
	b.mem[0][0] = 1; /* would wait for ever */
	close(other);
}

static int protect_half(struct track *t, struct error *err)
{
	const struct guest_block *g = &t->e->blocks[0].mem.block;

	cr_assert_eq(uffd_writeprotect(t->uffd, g->addr, g->length, true), 0);
	return error_set(err, -EIO, "tracking-refused", "cannot write-protect the other block");
}

Test(source_track, a_half_done_block_is_undone_too)
{
	struct track_ops half = track_faults;
	struct box b;

	box_init(&b);
	half.start = protect_half;
	cr_assert_eq(track_start(&b.t, &half, &b.e, fresh(), &b.err), -EIO);
	cr_assert(is_free(&b, 0) && is_free(&b, 1), "registered and not protected");
	b.mem[0][0] = b.mem[1][0] = 1;
	track_stop(&b.t);
}

static void stops(const struct track_ops *ops)
{
	struct box b;

	box_init(&b);
	start(&b, ops);
	cr_assert(!is_free(&b, 0) && !is_free(&b, 1));
	track_stop(&b.t);
	cr_assert(is_free(&b, 0) && is_free(&b, 1));
	cr_assert_eq(b.t.uffd, -1);
	cr_assert_eq(b.t.pagemap, -1);
	b.mem[0][PAGE] = b.mem[1][PAGE] = 1;
	track_stop(&b.t);
}

Test(source_track, stops_async)
{
	stops(&track_async);
}

Test(source_track, stops_faults)
{
	stops(&track_faults);
}

/* Closing the descriptor would do the same, were the guest not to hold a copy. */
Test(source_track, stopping_does_not_depend_on_the_last_descriptor)
{
	struct box b;
	int copy;

	box_init(&b);
	start(&b, &track_async);
	copy = dup(b.t.uffd);
	track_stop(&b.t);
	cr_assert(is_free(&b, 0) && is_free(&b, 1));
	close(copy);
}

/* Each block, with page size, address and length, at the start and at the end. */
Test(source_track, starts_and_stops_are_traced)
{
	char log[4096] = "", want[200];
	int fd = memfd_create("log", MFD_CLOEXEC), out = dup(2);
	struct box b;

	box_init(&b);
	dup2(fd, 2);
	log_setup("debug");
	start(&b, &track_async);
	track_stop(&b.t);
	dup2(out, 2);
	cr_assert_gt(pread(fd, log, sizeof(log) - 1, 0), 0);
	for (int i = 0; i < 4; i++) {
		snprintf(want, sizeof(want),
			 "trace: %s: block %s page size 4096 address 0x%lx length %lu",
			 i < 2 ? "block_start" : "block_stop", b.blocks[i % 2].mem.block.name,
			 (unsigned long)b.mem[i % 2], BYTES);
		cr_assert(strstr(log, want), "%s is not in\n%s", want, log);
	}
}

/* --- what is seen --- */

/* Pages that nobody has touched, the first and the last of each block. */
Test(source_track, unpopulated_pages_async)
{
	struct box b;

	box_init(&b);
	start(&b, &track_async);
	for (int i = 0; i < 2; i++)
		b.mem[i][0] = b.mem[i][BYTES - 1] = 1;
	cr_assert_eq(b.t.ops->collect(&b.t, &b.err), 0, "%s", b.err.msg);
	for (int i = 0; i < 2; i++) {
		cr_assert(bitmap_test(&b.blocks[i].pending, 0));
		cr_assert(bitmap_test(&b.blocks[i].pending, PAGES - 1));
		cr_assert_eq(bitmap_count(&b.blocks[i].pending), 2);
	}
	track_stop(&b.t);
}

static void unpopulated_faults(uint64_t without)
{
	struct box b;

	box_init(&b);
	b.e.features &= ~without;
	start(&b, &track_faults);
	for (int i = 0; i < 2; i++) {
		cr_assert_eq(write_served(&b, b.mem[i]), 1, "%s", b.err.msg);
		cr_assert_eq(write_served(&b, b.mem[i] + BYTES - 1), 1, "%s", b.err.msg);
		cr_assert(bitmap_test(&b.blocks[i].dirty, 0));
		cr_assert(bitmap_test(&b.blocks[i].dirty, PAGES - 1));
		cr_assert_eq(bitmap_count(&b.blocks[i].dirty), 2);
		b.mem[i][0] = 2; /* a second write does not wait */
	}
	track_stop(&b.t);
}

Test(source_track, unpopulated_pages_faults)
{
	unpopulated_faults(0);
}

/* As on kernels before 6.4. */
Test(source_track, unpopulated_pages_where_the_kernel_passes_over_them)
{
	unpopulated_faults(UFFD_F_WP_UNPOPULATED);
}

/* What was written is sent again, protected again, and the next write is seen again. */
Test(source_track, faults_round_by_round)
{
	struct engine_block *eb;
	struct box b;

	box_init(&b);
	eb = &b.blocks[1];
	start(&b, &track_faults);
	for (int round = 0; round < 3; round++) {
		cr_assert_eq(write_served(&b, b.mem[1] + 5 * PAGE), 1);
		cr_assert_eq(b.t.ops->collect(&b.t, &b.err), 0);
		cr_assert_eq(bitmap_count(&eb->pending), 1);
		cr_assert(bitmap_test_and_clear(&eb->pending, 5));
		cr_assert_eq(bitmap_count(&eb->dirty), 0);
		cr_assert_eq(b.t.ops->protect(&b.t, eb, 5 * PAGE, PAGE, &b.err), 0);
	}
	track_stop(&b.t);
}

Test(source_track, a_fault_outside_of_every_block_ends_the_tracking)
{
	struct box b;

	box_init(&b);
	start(&b, &track_faults);
	b.blocks[1].mem.block.length -= PAGE;
	cr_assert_eq(write_served(&b, b.mem[1] + BYTES - PAGE), -EFAULT);
	cr_assert_str_eq(b.err.code, "fault-outside");
	b.blocks[1].mem.block.length += PAGE;
	track_stop(&b.t);
	cr_assert(is_free(&b, 1));
}

/* As long as it waited, also before anybody looked. */
Test(source_track, a_stall_counts_from_when_nobody_waited)
{
	struct timespec ms30 = {.tv_nsec = 30000000};
	struct box b;
	pthread_t t;

	box_init(&b);
	start(&b, &track_faults);
	cr_assert_eq(b.t.ops->service(&b.t, &b.err), 0);
	pthread_create(&t, NULL, write_one, b.mem[0]);
	nanosleep(&ms30, NULL);
	cr_assert_eq(service_one(&b), 1);
	pthread_join(t, NULL);
	cr_assert_geq(b.e.stats.stall.max_us, 20000);
	track_stop(&b.t);
}

Test(source_track, stalls_are_counted)
{
	uint32_t octaves[40], n = 0;
	struct box b;

	box_init(&b);
	start(&b, &track_faults);
	for (uint64_t i = 0; i < 8; i++)
		cr_assert_eq(write_served(&b, b.mem[0] + i * PAGE), 1);
	hist_octaves(&b.e.stats.stall, octaves, 40);
	for (int i = 0; i < 40; i++)
		n += octaves[i];
	cr_assert_eq(n, 8);
	cr_assert_gt(b.e.stats.stall.max_us, 0, "an ioctl takes its time");
	track_stop(&b.t);
}

/* --- memory that changes underneath --- */

/** struct changer - a thread of the guest that changes its memory, and waits until that was read */
struct changer {
	void *at, *to;
	size_t len;
	int advice;
	_Atomic bool done;
};

static void *change_main(void *arg)
{
	struct changer *c = arg;
	bool ok =
		c->to ? mremap(c->at, c->len, c->len, MREMAP_MAYMOVE | MREMAP_FIXED, c->to) == c->to
		      : !madvise(c->at, c->len, c->advice);

	cr_assert(ok, "%s", strerror(errno));
	atomic_store(&c->done, true);
	return NULL;
}

/* Return: the first error of serving it, or 0 */
static int change(struct box *b, struct changer c)
{
	pthread_t t;
	int r = 0, n;

	pthread_create(&t, NULL, change_main, &c);
	while (!atomic_load(&c.done)) {
		n = b->t.ops->service(&b->t, &b->err);
		r = r ? r : MIN(n, 0);
	}
	pthread_join(t, NULL);
	return r;
}

static void filled(struct box *b, const struct track_ops *ops)
{
	box_init(b);
	memset(b->mem[0], 1, BYTES);
	memset(b->mem[1], 1, BYTES);
	start(b, ops);
	was_sent(b, 0);
	was_sent(b, 1);
}

static void given_back(const struct track_ops *ops, bool last)
{
	struct box b;

	filled(&b, ops);
	struct changer shared = {.at = b.mem[0] + 7 * PAGE, .len = 5 * PAGE, .advice = MADV_REMOVE};
	struct changer private = {
		.at = b.mem[1] + 20 * PAGE, .len = 3 * PAGE, .advice = MADV_DONTNEED};

	cr_assert_eq(change(&b, shared), 0, "%s", b.err.msg);
	cr_assert_eq(change(&b, private), 0, "%s", b.err.msg);
	cr_assert_eq(*(volatile uint8_t *)(b.mem[0] + 8 * PAGE), 0); /* no hole any more */
	b.mem[1][21 * PAGE] = 2;                                     /* of which no fault tells */
	cr_assert_eq((last ? ops->final : ops->collect)(&b.t, &b.err), 0, "%s", b.err.msg);
	cr_assert(are_pending(&b, 0, 7, 5));
	cr_assert(are_pending(&b, 1, 20, 3));
	/* Sent as zeros and protected again, they are not sent for ever. */
	was_sent(&b, 0);
	bitmap_clear_range(&b.blocks[0].filled, 7, 5);
	was_sent(&b, 1);
	cr_assert_eq(ops->protect(&b.t, &b.blocks[1], 20 * PAGE, 3 * PAGE, &b.err), 0);
	if (last)
		return;
	/* The event came just before the change: what was read in that pass may be old. */
	cr_assert_eq(ops->collect(&b.t, &b.err), 0);
	cr_assert(are_pending(&b, 0, 7, 5));
	cr_assert(are_pending(&b, 1, 0, 0));
	for (int i = 0; i < 3; i++) {
		was_sent(&b, 0);
		bitmap_clear_range(&b.blocks[0].filled, 7, 5);
		b.t.gone.since_us = 0;
		cr_assert_eq(ops->collect(&b.t, &b.err), 0);
	}
	cr_assert(are_pending(&b, 0, 0, 0), "it was long ago");
	track_stop(&b.t);
}

Test(source_track, given_back_async)
{
	given_back(&track_async, false);
}

Test(source_track, given_back_faults)
{
	given_back(&track_faults, false);
}

Test(source_track, given_back_before_the_last_look_async)
{
	given_back(&track_async, true);
}

Test(source_track, given_back_before_the_last_look_faults)
{
	given_back(&track_faults, true);
}

/* Private memory that is unmapped is zeros, wherever in the block it is; of a file nothing is lost. */
static void unmapped(const struct track_ops *ops)
{
	uint8_t buf[4 * PAGE];
	struct box b;

	filled(&b, ops);
	cr_assert_eq(munmap(b.mem[0] + 10 * PAGE, 2 * PAGE), 0);
	cr_assert_eq(munmap(b.mem[1] + 30 * PAGE, 2 * PAGE), 0);
	cr_assert_eq(ops->collect(&b.t, &b.err), 0, "%s", b.err.msg);
	cr_assert(are_pending(&b, 0, 0, 0));
	cr_assert(are_pending(&b, 1, 30, 2));
	cr_assert_eq(ops->protect(&b.t, &b.blocks[1], 30 * PAGE, 2 * PAGE, &b.err), 0);
	memset(buf, 7, sizeof(buf));
	cr_assert_eq(gone_read(&b.blocks[1].mem, 29 * PAGE, buf, 4 * PAGE), 0);
	cr_assert_eq(buf[0], 1);
	cr_assert_eq(buf[PAGE], 0);
	cr_assert_eq(buf[3 * PAGE - 1], 0);
	cr_assert_eq(buf[3 * PAGE], 1);
	cr_assert_eq(munmap(b.mem[1] + (PAGES - 1) * PAGE, PAGE), 0);
	cr_assert_eq(ops->collect(&b.t, &b.err), 0, "its end: %s", b.err.msg);
	cr_assert(bitmap_test(&b.blocks[1].pending, PAGES - 1));
	track_stop(&b.t);
	b.mem[1][40 * PAGE] = 2;
}

Test(source_track, unmapped_async)
{
	unmapped(&track_async);
}

Test(source_track, unmapped_faults)
{
	unmapped(&track_faults);
}

/* A part of a block that was moved is written to where nobody looks. */
static void moved(const struct track_ops *ops)
{
	struct box b;
	struct changer c = {.len = 2 * PAGE};

	filled(&b, ops);
	c.at = b.mem[0] + 10 * PAGE;
	c.to = mmap(NULL, 2 * PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	cr_assert_eq(change(&b, c), -EFAULT);
	cr_assert_str_eq(b.err.code, "guest-remapped");
	cr_assert(strstr(b.err.msg, "block shared"), "%s", b.err.msg);
	track_stop(&b.t);
	memset(c.to, 2, c.len);
}

Test(source_track, moved_async)
{
	moved(&track_async);
}

Test(source_track, moved_faults)
{
	moved(&track_faults);
}

/* Memory that was mapped anew in a block is not tracked: that is said, and nobody waits. */
static void mapped_anew(const struct track_ops *ops)
{
	struct box b;
	void *at;
	int r;

	filled(&b, ops);
	at = mmap(b.mem[1] + 10 * PAGE, PAGE, PROT_READ | PROT_WRITE,
		  MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
	cr_assert(at == b.mem[1] + 10 * PAGE);
	r = ops->collect(&b.t, &b.err);
	if (!r)
		r = ops->protect(&b.t, &b.blocks[1], 10 * PAGE, PAGE, &b.err);
	cr_assert_lt(r, 0);
	cr_assert_str_eq(b.err.code, "tracking-failed");
	cr_assert(strstr(b.err.msg, "block private") && strstr(b.err.msg, "anew"), "%s", b.err.msg);
	track_stop(&b.t);
	memset(b.mem[1], 2, BYTES);
}

Test(source_track, mapped_anew_async)
{
	mapped_anew(&track_async);
}

Test(source_track, mapped_anew_faults)
{
	mapped_anew(&track_faults);
}

/* What nobody writes to needs no tracking, and is not refused because it cannot have any. */
static void read_only_is_skipped(const struct track_ops *ops)
{
	struct box b;
	int other;

	box_init(&b);
	b.blocks[0].mem.block.flags = GUEST_BLOCK_READONLY;
	other = take(&b, 0); /* it could not be registered */
	cr_assert_eq(track_check(ops, &b.e, fresh(), &b.err), 0, "%s", b.err.msg);
	start(&b, ops);
	cr_assert(!is_free(&b, 1), "the other one is tracked");
	*b.mem[1] = 1;
	cr_assert_eq(ops->collect(&b.t, &b.err), 0, "%s", b.err.msg);
	cr_assert_eq(bitmap_count(&b.blocks[0].pending), 0);
	track_stop(&b.t);
	cr_assert(is_free(&b, 1));
	close(other);
	cr_assert(is_free(&b, 0));
}

Test(source_track, read_only_blocks_are_skipped)
{
	read_only_is_skipped(&track_async);
}
