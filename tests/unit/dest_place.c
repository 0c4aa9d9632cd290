/* SPDX-License-Identifier: Apache-2.0 */
/* Placing pages, with a real userfaultfd, into memory of this very process. */
#include <errno.h>
#include <pthread.h>
#include <sys/stat.h>
#include "place_priv.h"
#include "dest_box.h"
#include "util/log.h"

static void quiet(void)
{
	log_setup("warning");
}

TestSuite(dest_place, .init = quiet, .timeout = 60);

/* --- precopy --- */

static void precopy(enum msg_block_kind kind)
{
	struct box b;

	box_init(&b, kind);
	cr_assert(zero(int, put(&b, 0, 8, 1)));
	cr_assert(zero(int, put(&b, 4, 2, 100)), "a newer copy overwrites");
	cr_assert(eq(u8, b.mem[3 * PAGE], 4));
	cr_assert(eq(u8, b.mem[4 * PAGE], 104));
	cr_assert(eq(u8, b.mem[6 * PAGE], 7));
	cr_assert(eq(u64, received(&b), 8));
	cr_assert(zero(int, put_zero(&b, 2, 20)));
	cr_assert(eq(u64, received(&b), 22));
	cr_assert(eq(int, state(&b, 1), PAGES_DATA));
	cr_assert(eq(int, state(&b, 2), PAGES_ZERO));
	cr_assert(eq(int, state(&b, 21), PAGES_ZERO));
	cr_assert(eq(int, state(&b, 22), PAGES_MISSING));
	/* Zeros onto what was a hole leave it one. */
	cr_assert(is_hole(&b, 8, PAGES - 8));
	cr_assert(eq(u8, b.mem[5 * PAGE + 7], 0));
	cr_assert(zero(int, put(&b, 5, 1, 1)), "and from zeros back to data");
	cr_assert(eq(u8, b.mem[5 * PAGE + 7], 6));
	cr_assert(eq(u64, received(&b), 22));
	box_free(&b);
}

Test(dest_place, precopy_memfd)
{
	precopy(MSG_BLOCK_MEMFD);
}

Test(dest_place, precopy_anon)
{
	precopy(MSG_BLOCK_ANON);
}

/* A large zero run over data takes memory away, in anonymous memory through the guest. */
static void large_zero_run(enum msg_block_kind kind)
{
	struct box b;

	box_init(&b, kind);
	for (uint64_t i = 0; i < PAGES; i += 64)
		cr_assert(zero(int, put(&b, i, 64, 1)));
	cr_assert(not(is_hole(&b, 0, PAGES)));
	cr_assert(zero(int, put_zero(&b, 0, PAGES)));
	cr_assert(is_hole(&b, 0, PAGES));
	cr_assert(place_complete(&b.p));
	box_free(&b);
}

Test(dest_place, large_zero_run_memfd)
{
	large_zero_run(MSG_BLOCK_MEMFD);
}

Test(dest_place, large_zero_run_anon)
{
	large_zero_run(MSG_BLOCK_ANON);
}

/* An older copy must not pass for received when a newer one was damaged on its way. */
static void damaged(enum msg_block_kind kind)
{
	struct msg_pages m = {.kind = MSG_PAGES_RAW, .length = 2 * PAGE, .pass = 1, .digest = 1};
	struct box b;
	uint8_t *buf = content(0, 2, 50);

	box_init(&b, kind);
	cr_assert(zero(int, put(&b, 0, 3, 1)));
	cr_assert(eq(int, place_pages(&b.p, &b.io, &m, buf, &b.err), 1));
	cr_assert(eq(int, state(&b, 0), PAGES_MISSING));
	cr_assert(eq(int, state(&b, 1), PAGES_MISSING));
	cr_assert(eq(int, state(&b, 2), PAGES_DATA));
	cr_assert(eq(u64, received(&b), 1));
	cr_assert(is_hole(&b, 0, 2));
	free(buf);
	box_free(&b);
}

Test(dest_place, damaged_memfd)
{
	damaged(MSG_BLOCK_MEMFD);
}

Test(dest_place, damaged_anon)
{
	damaged(MSG_BLOCK_ANON);
}

static void discard(enum msg_block_kind kind)
{
	struct guest_range ranges[] = {{1 * PAGE, PAGE}, {10 * PAGE, 3 * PAGE}};
	struct box b;

	box_init(&b, kind);
	cr_assert(zero(int, put(&b, 0, 20, 1)));
	atomic_store(&b.p.regime, PLACE_CLOSED);
	cr_assert(zero(int, place_discard(&b.p, 0, ranges, 2, &b.err)), "%s", b.err.msg);
	cr_assert(eq(u64, received(&b), 16));
	cr_assert(is_hole(&b, 1, 1));
	cr_assert(is_hole(&b, 10, 3));
	cr_assert(not(is_hole(&b, 0, 1)));
	cr_assert(not(is_hole(&b, 13, 1)));
	cr_assert(eq(int, state(&b, 10), PAGES_MISSING));
	/* What start-up code put there, which no state tells of, goes as well. */
	b.mem[200 * PAGE] = 1;
	cr_assert(zero(int, place_discard_all(&b.p, &b.err)), "%s", b.err.msg);
	cr_assert(is_hole(&b, 0, PAGES));
	cr_assert(eq(u64, received(&b), 0));
	box_free(&b);
}

Test(dest_place, discard_memfd)
{
	discard(MSG_BLOCK_MEMFD);
}

Test(dest_place, discard_anon)
{
	discard(MSG_BLOCK_ANON);
}

static int punch_nothing(void *arg, unsigned int block, const struct guest_range *ranges, size_t n,
			 struct error *err)
{
	(void)arg;
	(void)block;
	(void)ranges;
	(void)n;
	(void)err;
	return 0;
}

/* Memory that does not go away is found before a guest would read it without a fault. */
Test(dest_place, what_stays_is_found)
{
	struct guest_range all = {0, PAGES * PAGE};
	struct box b;

	box_init(&b, MSG_BLOCK_ANON);
	b.mem[17 * PAGE] = 1;
	b.p.punch = punch_nothing;
	cr_assert(eq(int, place_discard(&b.p, 0, &all, 1, &b.err), -EBUSY));
	cr_assert(eq(str, b.err.code, "not-empty"));
	cr_assert(ne(ptr, strstr(b.err.msg, "0x11000"), NULL), "%s", b.err.msg);
	box_free(&b);
}

/* --- what cannot be --- */

Test(dest_place, frames_that_cannot_be)
{
	static const struct {
		struct msg_pages m;
		const char *names;
	} bad[] = {
		{{.block = 1, .length = PAGE, .pass = 1}, "block 1 of 1"},
		{{.offset = 7, .length = PAGE, .pass = 1}, "multiples of 4096"},
		{{.length = 100, .pass = 1}, "multiples of 4096"},
		{{.length = 0, .pass = 1}, "multiples of 4096"},
		{{.length = (PAGES + 1) * PAGE, .pass = 1}, "beyond its length"},
		{{.offset = PAGES * PAGE, .length = PAGE, .pass = 1}, "beyond its length"},
		{{.offset = -PAGE, .length = PAGE, .pass = 1}, "beyond its length"},
		{{.offset = PAGE, .length = -PAGE, .pass = 1}, "beyond its length"},
		{{.length = PAGE, .pass = 2}, "in pass 3"},
	};
	struct box b;

	box_init(&b, MSG_BLOCK_MEMFD);
	atomic_store(&b.p.pass, 3);
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		struct msg_pages m = bad[i].m;

		if (m.pass == 1)
			m.pass = 3;
		error_clear(&b.err);
		cr_assert(eq(int, place_pages(&b.p, &b.io, &m, NULL, &b.err), -EBADMSG), "%zu", i);
		cr_assert(ne(ptr, strstr(b.err.msg, bad[i].names), NULL), "%s", b.err.msg);
	}
	cr_assert(eq(u64, received(&b), 0));
	atomic_store(&b.p.regime, PLACE_CLOSED);
	error_clear(&b.err);
	cr_assert(eq(int, put_pass(&b, 0, 1, 1, 3), -EBADMSG));
	cr_assert(eq(str, b.err.code, "unexpected-message"));
	box_free(&b);
}

/*
 * Two threads have the last page: one places it, the guest writes to it, all is complete and closed; the
 * other had its look at the frame before that, and comes to placing now.
 */
static void late(enum msg_block_kind kind)
{
	struct msg_pages m = {
		.kind = MSG_PAGES_RAW, .offset = 2 * PAGE, .length = 2 * PAGE, .pass = 1};
	uint8_t *old = content(2, 2, 1);
	struct box b;

	box_init(&b, kind);
	box_live(&b);
	cr_assert(zero(int, put(&b, 0, 4, 1)));
	b.mem[2 * PAGE] = 77;
	b.mem[3 * PAGE + 5] = 78;
	atomic_store(&b.p.regime, PLACE_CLOSED);
	cr_assert(zero(int, place_put(&b.p, &b.io, &m, old, &b.err)), "%s", b.err.msg);
	cr_assert(eq(int, b.mem[2 * PAGE], 77), "written over");
	m.kind = MSG_PAGES_ZERO;
	cr_assert(zero(int, place_put(&b.p, &b.io, &m, NULL, &b.err)), "%s", b.err.msg);
	cr_assert(zero(int, place_forget(&b.p, &m, &b.err)), "%s", b.err.msg);
	cr_assert(eq(int, b.mem[2 * PAGE], 77));
	cr_assert(eq(int, b.mem[3 * PAGE + 5], 78));
	cr_assert(eq(int, state(&b, 2), PAGES_DATA));
	cr_assert(eq(u64, received(&b), 4));
	/* What is missing is no more placed than it was. */
	m.kind = MSG_PAGES_RAW;
	m.offset = 3 * PAGE;
	cr_assert(eq(int, place_put(&b.p, &b.io, &m, old, &b.err), -EBADMSG));
	cr_assert(eq(int, b.mem[3 * PAGE + 5], 78));
	cr_assert(eq(int, state(&b, 4), PAGES_MISSING));
	free(old);
	box_free(&b);
}

Test(dest_place, what_comes_behind_the_end_memfd)
{
	late(MSG_BLOCK_MEMFD);
}

Test(dest_place, what_comes_behind_the_end_anon)
{
	late(MSG_BLOCK_ANON);
}

Test(dest_place, discards_that_cannot_be)
{
	static const struct guest_range bad[] = {{0, 0},
						 {1, PAGE},
						 {0, PAGE + 1},
						 {PAGES * PAGE, PAGE},
						 {0, (PAGES + 1) * PAGE},
						 {-PAGE, 2 * PAGE},
						 {PAGE, -PAGE}};
	struct box b;

	box_init(&b, MSG_BLOCK_MEMFD);
	cr_assert(zero(int, put(&b, 0, 8, 1)));
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		struct guest_range two[] = {{0, PAGE}, bad[i]};

		cr_assert(eq(int, place_discard(&b.p, 0, two, 2, &b.err), -EBADMSG), "%zu", i);
	}
	cr_assert(eq(int, place_discard(&b.p, 1, bad, 1, &b.err), -EBADMSG));
	cr_assert(eq(u64, received(&b), 8), "a bad range spoils all of the message");
	box_free(&b);
}

/* --- live --- */

static void never_overwrites(enum msg_block_kind kind)
{
	struct box b;

	box_init(&b, kind);
	cr_assert(zero(int, put(&b, 0, 2, 1)));
	box_live(&b);
	cr_assert(zero(int, put(&b, 4, 4, 1)));
	b.mem[5 * PAGE] = 77; /* the guest writes */
	cr_assert(zero(int, put(&b, 0, 10, 100)));
	cr_assert(eq(u8, b.mem[1 * PAGE], 2), "a page of precopy");
	cr_assert(eq(u8, b.mem[2 * PAGE], 102));
	cr_assert(eq(u8, b.mem[5 * PAGE], 77), "a page that the guest has written");
	cr_assert(eq(u8, b.mem[8 * PAGE], 108));
	cr_assert(zero(int, put_zero(&b, 4, 8)));
	cr_assert(eq(u8, b.mem[5 * PAGE], 77), "nor zeros over it");
	cr_assert(eq(u64, received(&b), 12));
	box_free(&b);
}

Test(dest_place, never_overwrites_memfd)
{
	never_overwrites(MSG_BLOCK_MEMFD);
}

Test(dest_place, never_overwrites_anon)
{
	never_overwrites(MSG_BLOCK_ANON);
}

/* Pages that are there although their state does not say so: an agent was killed in between. */
Test(dest_place, there_before_its_state)
{
	struct box b;
	uint64_t done;
	uint8_t *buf = content(3, 2, 1);

	box_init(&b, MSG_BLOCK_MEMFD);
	box_live(&b);
	cr_assert(zero(int, uffd_copy(b.p.uffd, (uint64_t)b.mem + 3 * PAGE, buf, 2 * PAGE, &done)));
	b.mem[3 * PAGE] = 99;
	cr_assert(zero(int, put(&b, 0, 8, 1)));
	cr_assert(eq(u8, b.mem[3 * PAGE], 99));
	cr_assert(eq(u8, b.mem[2 * PAGE], 3));
	cr_assert(eq(u8, b.mem[7 * PAGE], 8));
	cr_assert(eq(u64, received(&b), 8));
	cr_assert(eq(int, state(&b, 3), PAGES_DATA));
	free(buf);
	box_free(&b);
}

Test(dest_place, damaged_while_live)
{
	struct msg_pages m = {.kind = MSG_PAGES_RAW, .length = PAGE, .pass = 1, .digest = 1};
	struct box b;
	uint8_t *buf = content(0, 1, 50);

	box_init(&b, MSG_BLOCK_MEMFD);
	box_live(&b);
	cr_assert(eq(int, place_pages(&b.p, &b.io, &m, buf, &b.err), 1));
	cr_assert(eq(int, state(&b, 0), PAGES_MISSING));
	cr_assert(is_hole(&b, 0, 1));
	cr_assert(zero(int, put(&b, 0, 1, 1)));
	free(buf);
	box_free(&b);
}

/* --- faults --- */

Test(dest_place, faults_are_asked_for_once)
{
	struct box b;

	box_init(&b, MSG_BLOCK_MEMFD);
	box_live(&b);
	cr_assert(eq(int, fault(&b, 5), PLACE_ASK));
	cr_assert(eq(int, fault(&b, 5), PLACE_ASKED));
	cr_assert(eq(int, fault(&b, 6), PLACE_ASK));
	cr_assert(eq(u64, atomic_load(&b.p.outstanding), 2));
	cr_assert(zero(int, put(&b, 4, 8, 1)));
	cr_assert(eq(u64, atomic_load(&b.p.outstanding), 0), "placed: the request is forgotten");
	cr_assert(eq(u64, b.p.latency.n, 2));
	/* One that was read late is woken and not asked for again. */
	cr_assert(eq(int, fault(&b, 5), PLACE_ANSWERED));
	cr_assert(eq(u8, b.mem[5 * PAGE], 6));
	cr_assert(eq(u64, atomic_load(&b.p.faults), 4));
	cr_assert(eq(u64, atomic_load(&b.p.requests), 2));
	cr_assert(eq(u64, atomic_load(&b.p.outstanding), 0));
	box_free(&b);
}

Test(dest_place, zeros_when_touched)
{
	struct box b;

	box_init(&b, MSG_BLOCK_MEMFD);
	box_live(&b);
	cr_assert(zero(int, put_zero(&b, 0, PAGES)));
	cr_assert(is_hole(&b, 0, PAGES), "zeros are not pushed");
	cr_assert(eq(int, fault(&b, 9), PLACE_ANSWERED));
	cr_assert(not(is_hole(&b, 9, 1)));
	cr_assert(eq(u8, b.mem[9 * PAGE], 0));
	cr_assert(eq(u64, atomic_load(&b.p.requests), 0));
	/* Where ZEROPAGE does not work, zeros are copied. */
	b.p.blocks[0].zeropage = false;
	cr_assert(eq(int, fault(&b, 10), PLACE_ANSWERED));
	cr_assert(eq(u8, b.mem[10 * PAGE], 0));
	/* A page that the guest punched out of the file afterwards: zeros, and no storm of wakes. */
	cr_assert(zero(int, gmem_punch(&b.p.blocks[0].mem, 9 * PAGE, PAGE)));
	cr_assert(eq(int, fault(&b, 9), PLACE_ANSWERED));
	cr_assert(eq(u8, b.mem[9 * PAGE], 0));
	box_free(&b);
}

/* Somebody waits already when the source says that it is zeros, or the guest gives it back. */
Test(dest_place, zeros_that_are_waited_for)
{
	struct box b;

	box_init(&b, MSG_BLOCK_MEMFD);
	box_live(&b);
	cr_assert(eq(int, fault(&b, 9), PLACE_ASK));
	cr_assert(eq(int, fault(&b, 30), PLACE_ASK));
	cr_assert(zero(int, put_zero(&b, 0, 20)));
	cr_assert(not(is_hole(&b, 9, 1)));
	cr_assert(is_hole(&b, 10, 1));
	cr_assert(eq(u64, atomic_load(&b.p.outstanding), 1));
	place_note_removed(&b.p, (uint64_t)b.mem + 28 * PAGE, 4 * PAGE);
	cr_assert(zero(int,
		       place_removed(&b.p, &b.io, (uint64_t)b.mem + 28 * PAGE, 4 * PAGE, &b.err)));
	cr_assert(not(is_hole(&b, 30, 1)));
	cr_assert(eq(u8, b.mem[30 * PAGE], 0));
	cr_assert(eq(int, state(&b, 31), PAGES_REMOVED));
	cr_assert(eq(u64, atomic_load(&b.p.outstanding), 0));
	/* What was given back is never filled with what it was before. */
	cr_assert(zero(int, put(&b, 28, 4, 1)));
	cr_assert(eq(u8, b.mem[30 * PAGE], 0));
	cr_assert(is_hole(&b, 31, 1));
	cr_assert(eq(u64, received(&b), 24));
	box_free(&b);
}

/* A range beyond the block's ends, as a guest that unmaps more than it gives. */
Test(dest_place, removed_ranges_are_cut)
{
	struct box b;
	uint64_t at;

	box_init(&b, MSG_BLOCK_MEMFD);
	at = (uint64_t)b.mem;
	place_note_removed(&b.p, at - 8 * PAGE, 9 * PAGE);
	place_note_removed(&b.p, at + (PAGES - 1) * PAGE, 100 * PAGE);
	place_note_removed(&b.p, at - 8 * PAGE, 8 * PAGE);
	place_note_removed(&b.p, at + PAGES * PAGE, PAGE);
	cr_assert(eq(u64, received(&b), 2));
	cr_assert(eq(int, state(&b, 0), PAGES_REMOVED));
	cr_assert(eq(int, state(&b, PAGES - 1), PAGES_REMOVED));
	box_free(&b);
}

Test(dest_place, addresses)
{
	struct box b;
	unsigned int block;
	uint64_t page = 99;

	box_init(&b, MSG_BLOCK_MEMFD);
	cr_assert(place_find(&b.p, (uint64_t)b.mem + 7 * PAGE + 123, &block, &page));
	cr_assert(eq(u64, page, 7));
	cr_assert(place_find(&b.p, (uint64_t)b.mem + PAGES * PAGE - 1, &block, &page));
	cr_assert(eq(u64, page, PAGES - 1));
	cr_assert(not(place_find(&b.p, (uint64_t)b.mem + PAGES * PAGE, &block, &page)));
	cr_assert(not(place_find(&b.p, (uint64_t)b.mem - 1, &block, &page)));
	box_free(&b);
}

/* --- crossing --- */

/** struct race - pages arrive in one thread, faults in another */
struct race {
	struct box *b;
	pthread_barrier_t *start;
	bool zeros;
};

static void *arrive(void *arg)
{
	struct race *r = arg;

	pthread_barrier_wait(r->start);
	for (uint64_t i = 0; i < PAGES; i++)
		cr_assert(zero(int, r->zeros ? put_zero(r->b, i, 1) : put(r->b, i, 1, 1)));
	return NULL;
}

/* Whatever the order, no request is left behind and no page without its content. */
static void crossing(bool zeros)
{
	for (int round = 0; round < 50; round++) {
		pthread_barrier_t start;
		pthread_t t;
		struct box b;
		struct race r = {&b, &start, zeros};

		box_init(&b, MSG_BLOCK_MEMFD);
		box_live(&b);
		pthread_barrier_init(&start, NULL, 2);
		pthread_create(&t, NULL, arrive, &r);
		pthread_barrier_wait(&start);
		for (uint64_t i = 0; i < PAGES; i++)
			cr_assert(ge(int, fault(&b, i), 0));
		pthread_join(t, NULL);
		cr_assert(eq(u64, atomic_load(&b.p.outstanding), 0));
		cr_assert(eq(u64, bitmap_count(&b.p.blocks[0].asked), 0));
		cr_assert(place_complete(&b.p));
		/* Answered, every one of them: nobody would wait. */
		for (uint64_t i = 0; i < PAGES; i++) {
			cr_assert(not(is_hole(&b, i, 1)), "page %lu", i);
			cr_assert(eq(u8, b.mem[i * PAGE], (uint8_t)(zeros ? 0 : i + 1)));
		}
		pthread_barrier_destroy(&start);
		box_free(&b);
	}
}

Test(dest_place, crossing_data)
{
	crossing(false);
}

Test(dest_place, crossing_zeros)
{
	crossing(true);
}

/* Two channels with the same pages: each is placed once and counted once. */
Test(dest_place, two_channels)
{
	for (int round = 0; round < 50; round++) {
		pthread_barrier_t start;
		pthread_t t;
		struct box b;
		struct race r = {&b, &start, false};

		box_init(&b, MSG_BLOCK_ANON);
		box_live(&b);
		pthread_barrier_init(&start, NULL, 2);
		pthread_create(&t, NULL, arrive, &r);
		pthread_barrier_wait(&start);
		for (uint64_t i = 0; i < PAGES; i += 16)
			cr_assert(zero(int, put(&b, i, 16, 1)));
		pthread_join(t, NULL);
		cr_assert(eq(u64, received(&b), PAGES));
		pthread_barrier_destroy(&start);
		box_free(&b);
	}
}

/* --- registering --- */

Test(dest_place, a_block_that_cannot_be_registered)
{
	struct box b;
	int other = uffd_open(true, NULL);

	box_init(&b, MSG_BLOCK_MEMFD);
	cr_assert(zero(int, uffd_api(other, 0, NULL, NULL)));
	cr_assert(zero(int, uffd_register(other, (uint64_t)b.mem + 8 * PAGE, PAGE,
					  UFFD_MODE_MISSING, NULL)));
	b.p.uffd = uffd_open(true, NULL);
	cr_assert(zero(int, uffd_api(b.p.uffd, 0, NULL, NULL)));
	cr_assert(eq(int, place_register(&b.p, &b.err), -EBUSY));
	cr_assert(ne(ptr, strstr(b.err.msg, "block ram"), NULL), "%s", b.err.msg);
	cr_assert(not(b.p.blocks[0].registered));
	close(other);
	box_free(&b);
}

/* No kernel that we know answers so; one that does is not believed to place anything. */
Test(dest_place, a_block_that_cannot_copy)
{
	struct box b;

	box_init(&b, MSG_BLOCK_ANON);
	cr_assert(zero(int, place_can(&b.p.blocks[0], UFFD_CAN_COPY | UFFD_CAN_WAKE, &b.err)));
	cr_assert(eq(int, place_can(&b.p.blocks[0], UFFD_CAN_ZEROPAGE | UFFD_CAN_WAKE, &b.err),
		     -EOPNOTSUPP));
	cr_assert(eq(str, b.err.code, "cannot-register"));
	cr_assert(ne(ptr, strstr(b.err.msg, "block ram"), NULL), "%s", b.err.msg);
	cr_assert(ne(ptr, strstr(b.err.msg, "no COPY"), NULL), "%s", b.err.msg);
	error_clear(&b.err);
	cr_assert(eq(int, place_can(&b.p.blocks[0], UFFD_CAN_COPY, &b.err), -EOPNOTSUPP));
	cr_assert(ne(ptr, strstr(b.err.msg, "no WAKE"), NULL), "%s", b.err.msg);
	box_free(&b);
}
