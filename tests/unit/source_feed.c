/* SPDX-License-Identifier: Apache-2.0 */
/* In which order the snapshot thread hands out work: asked for, faulted on, scanned. */
#include <criterion/criterion.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>

#include "scan_priv.h"
#include "sender.h"
#include "util/log.h"

static void quiet(void)
{
	log_setup("error");
}

TestSuite(source_feed, .init = quiet, .timeout = 30);

#define PAGE  4096ul
#define PAGES 64ul

/**
 * struct box - an engine with one block, one sender without thread, and a snapshot thread's state
 * @seen:	runs in the sender's queue when write faults were looked at, each time
 * @nseen:	how often that was
 * @waiting:	write faults that are still to be reported
 */
struct box {
	struct engine e;
	struct engine_block block;
	struct sender sender;
	struct scan *s;
	struct error err;
	unsigned int seen[32];
	unsigned int nseen;
	int waiting;
};

static struct box *box_of(const struct track *t)
{
	return (struct box *)((char *)t->e - offsetof(struct box, e));
}

static int service(struct track *t, struct error *err)
{
	struct box *b = box_of(t);

	(void)err;
	if (b->nseen < 32)
		b->seen[b->nseen++] = b->sender.queue.n;
	return b->waiting ? b->waiting-- : 0;
}

static int protect(struct track *t, struct engine_block *b, uint64_t offset, uint64_t length,
		   struct error *err)
{
	(void)t;
	(void)b;
	(void)offset;
	(void)length;
	(void)err;
	return 0;
}

/* A queue that is full would have to be waited for: no test fills it. */
static const struct track_ops fake = {.name = "fake", .service = service, .protect = protect};

static void box_init(struct box *b)
{
	memset(b, 0, sizeof(*b));
	b->block.mem.block = (struct guest_block){.length = PAGES * PAGE, .page_size = PAGE};
	b->block.npages = PAGES;
	cr_assert(!bitmap_init(&b->block.pending, PAGES) && !bitmap_init(&b->block.sent, PAGES) &&
		  !bitmap_init(&b->block.dirty, PAGES));
	b->e.blocks = &b->block;
	b->e.nblocks = 1;
	b->e.stop_fd = eventfd(0, EFD_NONBLOCK);
	b->e.senders[0] = &b->sender;
	b->e.nsenders = 1;
	cr_assert_eq(runq_init(&b->sender.queue), 0);
	b->s = calloc(1, sizeof(*b->s));
	b->s->e = &b->e;
	b->s->ops = &fake;
	b->s->track = (struct track){.ops = &fake, .e = &b->e, .uffd = -1, .pagemap = -1};
	b->s->kick_fd = eventfd(0, EFD_NONBLOCK);
	pthread_mutex_init(&b->s->lock, NULL);
	atomic_store(&b->e.postcopy, true);
}

static void ask(struct box *b, uint64_t page)
{
	struct msg_request q = {.offset = page * PAGE, .length = PAGE};

	cr_assert_eq(scan_request(b->s, &q, &b->err), 0, "%s", b->err.msg);
}

static uint64_t pop(struct box *b)
{
	struct run run;

	cr_assert(runq_pop(&b->sender.queue, &run), "no more runs");
	cr_assert_eq(run.length, PAGE);
	return run.offset / PAGE;
}

Test(source_feed, asked_for_then_faults_then_the_scan)
{
	struct box b;

	box_init(&b);
	for (uint64_t p = 0; p < 21; p += 10)
		bitmap_set(&b.block.pending, p);
	ask(&b, 10);
	b.waiting = 1;
	cr_assert_eq(feed_pending(b.s, false, &b.err), 0, "%s", b.err.msg);
	cr_assert_eq(b.seen[0], 1, "the page asked for goes before write faults are looked at");
	cr_assert_eq(b.waiting, 0);
	cr_assert_eq(b.seen[1], 1, "all write faults are served before the scan goes on");
	cr_assert_eq(pop(&b), 10);
	cr_assert_eq(pop(&b), 20, "the scan goes on behind what was asked for");
	cr_assert_eq(pop(&b), 0);
}

/* Before each step, not only before the first. */
Test(source_feed, every_step_looks_at_the_faults)
{
	struct box b;

	box_init(&b);
	for (uint64_t p = 0; p < 21; p += 10)
		bitmap_set(&b.block.pending, p);
	cr_assert_eq(feed_pending(b.s, false, &b.err), 0);
	for (unsigned int i = 0; i < 4; i++)
		cr_assert_eq(b.seen[i], i);
}

/* Served out of order, it is not sent by the scan; nor twice when it is asked for twice. */
Test(source_feed, a_page_goes_once)
{
	struct box b;
	struct run run;

	box_init(&b);
	bitmap_set(&b.block.pending, 9);
	ask(&b, 9);
	ask(&b, 9);
	cr_assert_eq(feed_pending(b.s, false, &b.err), 0);
	cr_assert_eq(pop(&b), 9);
	cr_assert(!runq_pop(&b.sender.queue, &run));
	cr_assert_eq(engine_pending_bytes(&b.e), 0);
}

/* What is refused of a page that travels in parts is a part; what is sent again is the page. */
Test(source_feed, a_part_that_is_refused_brings_its_page_back)
{
	struct msg_nack n = {
		.pass = 1, .offset = (2u << 20) + 3 * ENGINE_RUN_MAX, .length = ENGINE_RUN_MAX};
	struct box b;

	box_init(&b);
	b.block.mem.block.page_size = 2u << 20;
	b.block.mem.block.length = 4u << 20;
	b.e.scan = b.s;
	cr_assert_eq(engine_nack(&b.e, &n, &b.err), 0, "%s", b.err.msg);
	cr_assert(!bitmap_test(&b.block.pending, 0));
	cr_assert(bitmap_test(&b.block.pending, 1));
	n.offset = 4u << 20;
	cr_assert_eq(engine_nack(&b.e, &n, &b.err), -EBADMSG);
}

/* A pass would not end for a destination that refuses all. */
Test(source_feed, only_so_many_are_refused)
{
	struct msg_nack n = {.pass = 1, .length = 4096};
	struct box b;

	box_init(&b);
	b.e.scan = b.s;
	for (unsigned int i = 0; i < ENGINE_NACKS_MAX; i++)
		cr_assert_eq(engine_nack(&b.e, &n, &b.err), 0, "%s", b.err.msg);
	cr_assert_eq(engine_nack(&b.e, &n, &b.err), -EBADMSG);
	cr_assert_str_eq(b.err.code, "digest-mismatch");
}
