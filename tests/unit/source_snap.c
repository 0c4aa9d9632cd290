/* SPDX-License-Identifier: Apache-2.0 */
/* Write faults of a snapshot: the copy first, then the writer; and what becomes of errors. */
#include <pthread.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <time.h>

#include "scan_priv.h"
#include "snap.h"
#include "source_box.h"
#include "util/log.h"

static void quiet(void)
{
	log_setup("error");
}

TestSuite(source_snap, .init = quiet, .timeout = 30);

/**
 * struct lab - a box that is being saved; both blocks are protected
 * @t:		a thread of the guest
 * @at:		where it writes 9
 * @went_on:	it has
 */
struct lab {
	struct box b;
	struct scan *s;
	pthread_t t;
	volatile uint8_t *at;
	_Atomic bool went_on;
};

static void lab_init(struct lab *l)
{
	memset(l, 0, sizeof(*l));
	box_init(&l->b);
	l->s = calloc(1, sizeof(*l->s));
	l->s->e = &l->b.e;
	l->s->ops = &track_snapshot;
	l->s->batch = 1;
	l->s->kick_fd = eventfd(0, EFD_NONBLOCK);
	l->b.e.scan = l->s;
	cr_assert_eq(track_start(&l->s->track, &track_snapshot, &l->b.e, fresh(), &l->b.err), 0,
		     "%s", l->b.err.msg);
	/* It does not stand still yet: nobody waits. */
	memset(l->b.mem[0], 5, BYTES);
	memset(l->b.mem[1], 5, BYTES);
	for (int i = 0; i < 2; i++) {
		bitmap_set_range(&l->b.blocks[i].pending, 0, PAGES);
		cr_assert_eq(
			uffd_writeprotect(l->s->track.uffd, (uint64_t)l->b.mem[i], BYTES, true), 0);
	}
}

static void lab_free(struct lab *l)
{
	track_stop(&l->s->track);
	snap_free(l->s);
	close(l->s->kick_fd);
	free(l->s);
}

static void *write_nine(void *arg)
{
	struct lab *l = arg;

	*l->at = 9;
	atomic_store(&l->went_on, true);
	return NULL;
}

/* Return: what serving the write said */
static int write_at(struct lab *l, int block, uint64_t off)
{
	int r;

	l->at = l->b.mem[block] + off;
	atomic_store(&l->went_on, false);
	pthread_create(&l->t, NULL, write_nine, l);
	do
		r = track_snapshot.service(&l->s->track, &l->b.err);
	while (r == 0);
	return r;
}

static void saves_what_was(int block)
{
	const struct snap_piece *p;
	struct lab l;

	lab_init(&l);
	cr_assert_eq(write_at(&l, block, 3 * PAGE + 7), 1, "%s", l.b.err.msg);
	pthread_join(l.t, NULL);
	p = l.s->saved;
	cr_assert(p && !p->next, "one copy");
	cr_assert_eq(p->block, (unsigned int)block);
	cr_assert_eq(p->offset, 3 * PAGE);
	cr_assert_eq(p->length, PAGE);
	cr_assert_eq(p->frame[MSG_PAGES_FIXED + 7], 5, "as it was before the write");
	cr_assert_eq(l.b.mem[block][3 * PAGE + 7], 9);
	cr_assert(!bitmap_test(&l.b.blocks[block].pending, 3));
	lab_free(&l);
}

Test(source_snap, the_copy_is_of_before_the_write_shared)
{
	saves_what_was(0);
}

Test(source_snap, the_copy_is_of_before_the_write_private)
{
	saves_what_was(1);
}

/* Protected although it was saved: its writer is let go, and nothing is saved again. */
/* Given back and written again, which is no fault: not the new data, that is of no instant. */
Test(source_snap, what_was_given_back_is_zeros_in_the_image)
{
	const struct snap_piece *p;
	struct lab l;

	lab_init(&l);
	cr_assert_eq(madvise(l.b.mem[1] + 3 * PAGE, PAGE, MADV_DONTNEED), 0);
	cr_assert_eq(madvise(l.b.mem[0] + 3 * PAGE, PAGE, MADV_REMOVE), 0);
	l.b.mem[1][3 * PAGE] = 9;
	for (uint32_t i = 0; i < 2; i++) {
		cr_assert_eq(snap_save(l.s, i, 2, 3, &l.b.err), 0, "%s", l.b.err.msg);
		for (p = l.s->saved; p->next; p = p->next)
			;
		cr_assert_eq(p->block, i);
		cr_assert_eq(p->frame[MSG_PAGES_FIXED], 5, "its neighbours are exact");
		cr_assert_eq(p->frame[MSG_PAGES_FIXED + PAGE], 0);
		cr_assert_eq(p->frame[MSG_PAGES_FIXED + 2 * PAGE], 5);
	}
	lab_free(&l);
}

/* A range that is not mapped any more is zeros, and who fills the rest of the block goes on. */
Test(source_snap, what_was_unmapped_is_zeros_in_the_image)
{
	struct lab l;

	lab_init(&l);
	cr_assert_eq(munmap(l.b.mem[1] + 3 * PAGE, 2 * PAGE), 0);
	cr_assert_eq(snap_save(l.s, 1, 2, 5, &l.b.err), 0, "%s", l.b.err.msg);
	cr_assert_eq(l.s->saved->frame[MSG_PAGES_FIXED], 5);
	cr_assert_eq(l.s->saved->frame[MSG_PAGES_FIXED + PAGE], 0);
	cr_assert_eq(l.s->saved->frame[MSG_PAGES_FIXED + 3 * PAGE], 5);
	cr_assert_eq(snap_save(l.s, 1, 3, 2, &l.b.err), 0, "%s", l.b.err.msg);
	l.b.mem[1][2 * PAGE] = l.b.mem[1][6 * PAGE] = 9; /* would wait */
	lab_free(&l);
}

Test(source_snap, a_page_that_was_saved_only_loses_its_protection)
{
	struct lab l;

	lab_init(&l);
	bitmap_test_and_clear(&l.b.blocks[1].pending, 3);
	cr_assert_eq(write_at(&l, 1, 3 * PAGE), 1);
	pthread_join(l.t, NULL);
	cr_assert_null(l.s->saved);
	lab_free(&l);
}

/* No copy: the error is told, and the writer is not let go before the tracking ends. */
Test(source_snap, an_error_of_saving_is_not_hidden)
{
	struct lab l;

	lab_init(&l);
	l.b.blocks[1].mem.pid = 0x7ffffff0; /* nobody: cannot be read */
	cr_assert_lt(write_at(&l, 1, 3 * PAGE), 0);
	cr_assert_str_eq(l.b.err.code, "guest-memory");
	cr_assert(strstr(l.b.err.msg, "cannot save block private at 0x3000"), "%s", l.b.err.msg);
	nanosleep(&(struct timespec){.tv_nsec = 50000000}, NULL);
	cr_assert(!atomic_load(&l.went_on));
	cr_assert_null(l.s->saved);
	track_stop(&l.s->track);
	pthread_join(l.t, NULL);
	lab_free(&l);
}

/* The log of writes that a migration keeps is not there, and cannot be asked. */
Test(source_snap, no_other_log_runs)
{
	struct lab l;

	lab_init(&l);
	cr_assert(!(track_snapshot.features & UFFD_F_WP_ASYNC));
	cr_assert_eq(l.s->track.pagemap, -1);
	cr_assert_eq(write_at(&l, 0, 0), 1);
	pthread_join(l.t, NULL);
	cr_assert_eq(bitmap_count(&l.b.blocks[0].dirty), 0);
	cr_assert_eq(track_snapshot.collect(&l.s->track, &l.b.err), -EOPNOTSUPP);
	cr_assert_eq(track_snapshot.final(&l.s->track, &l.b.err), -EOPNOTSUPP);
	cr_assert_eq(track_snapshot.protect(&l.s->track, l.b.blocks, 0, PAGE, &l.b.err),
		     -EOPNOTSUPP);
	lab_free(&l);
}
