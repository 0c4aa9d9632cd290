/* SPDX-License-Identifier: Apache-2.0 */
/* The fault thread, with threads of this process that touch missing pages. */
#include <errno.h>
#include <limits.h>
#include <pthread.h>
#include <semaphore.h>
#include <sys/wait.h>
#include <time.h>
#include "dest_box.h"
#include "fault.h"
#include "lib/pace.h"
#include "place_priv.h"
#include "util/clock.h"
#include "util/log.h"

static void quiet(void)
{
	log_setup("error");
}

TestSuite(dest_fault, .init = quiet, .timeout = 30);

/**
 * struct lab - a box and its fault thread
 * @asked:	last request
 * @nasked:	how many there were
 * @told:	bits of enum fault_trouble
 * @why:	the code of the last one
 */
struct lab {
	struct box b;
	struct fault *f;
	struct tally tally;
	pthread_mutex_t lock;
	struct msg_request asked;
	_Atomic unsigned int nasked;
	_Atomic unsigned int told;
	char why[sizeof(((struct error *)0)->code)];
};

static void on_request(void *arg, const struct msg_request *m)
{
	struct lab *l = arg;

	pthread_mutex_lock(&l->lock);
	l->asked = *m;
	pthread_mutex_unlock(&l->lock);
	atomic_fetch_add(&l->nasked, 1);
}

static void on_trouble(void *arg, enum fault_trouble what, const struct error *err)
{
	struct lab *l = arg;

	snprintf(l->why, sizeof(l->why), "%s", err->code);
	atomic_fetch_or(&l->told, 1u << what);
}

static const struct fault_ops ops = {.request = on_request, .trouble = on_trouble};

static void lab_init_kind(struct lab *l, enum msg_block_kind kind)
{
	uint64_t features;

	memset(l, 0, sizeof(*l));
	pthread_mutex_init(&l->lock, NULL);
	box_init(&l->b, kind);
	l->b.p.uffd = uffd_open(true, NULL);
	cr_assert(ge(int, l->b.p.uffd, 0));
	features = place_features(&l->b.p, UINT64_MAX);
	if (uffd_api(l->b.p.uffd, features, NULL, NULL))
		cr_assert(zero(int,
			       uffd_api(l->b.p.uffd, features & ~UFFD_F_EVENT_FORK, NULL, NULL)));
	cr_assert(zero(int, fault_start(&l->b.p, NULL, &l->tally, &ops, l, &l->f)));
	cr_assert(zero(int, place_register(&l->b.p, &l->b.err)), "%s", l->b.err.msg);
	atomic_store(&l->b.p.regime, PLACE_LIVE);
}

static void lab_init(struct lab *l)
{
	lab_init_kind(l, MSG_BLOCK_ANON);
}

static void lab_free(struct lab *l)
{
	fault_stop(l->f);
	box_free(&l->b);
}

static bool told(const struct lab *l, enum fault_trouble what)
{
	return atomic_load(&l->told) & 1u << what;
}

#define until(cond)                                                              \
	do {                                                                     \
		uint64_t end_ = clock_us() + 5000000;                            \
		bool met_;                                                       \
		while (!(met_ = (cond)) && clock_us() < end_)                    \
			nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL); \
		cr_assert(met_, "%s", #cond);                                    \
	} while (0)

static void rest(void)
{
	nanosleep(&(struct timespec){.tv_nsec = 50000000}, NULL);
}

/** struct toucher - a thread of the guest: reads one byte */
struct toucher {
	const volatile uint8_t *at;
	_Atomic int value;
	pthread_t t;
};

static void *touch_main(void *arg)
{
	struct toucher *t = arg;

	atomic_store(&t->value, *t->at);
	return NULL;
}

static void touch(struct lab *l, struct toucher *t, uint64_t off)
{
	t->at = l->b.mem + off;
	atomic_store(&t->value, -1);
	pthread_create(&t->t, NULL, touch_main, t);
}

static int touched(struct toucher *t)
{
	pthread_join(t->t, NULL);
	return atomic_load(&t->value);
}

/* Two threads on one page: one request, for the whole page; what is placed frees both. */
Test(dest_fault, a_page_is_asked_for_once)
{
	struct toucher a, b;
	struct lab l;

	lab_init(&l);
	touch(&l, &a, 7 * PAGE + 123);
	touch(&l, &b, 7 * PAGE + 4000);
	until(atomic_load(&l.b.p.faults) == 2);
	rest();
	cr_assert(eq(u32, atomic_load(&l.nasked), 1));
	cr_assert(eq(u32, l.asked.block, 0));
	cr_assert(eq(u64, l.asked.offset, 7 * PAGE));
	cr_assert(eq(u64, l.asked.length, PAGE));
	cr_assert(eq(int, atomic_load(&a.value), -1), "it waits");
	cr_assert(zero(int, put(&l.b, 7, 1, 1)));
	cr_assert(eq(int, touched(&a), 8));
	cr_assert(eq(int, touched(&b), 8));
	cr_assert(zero(u64, atomic_load(&l.b.p.outstanding)));
	cr_assert(zero(u32, atomic_load(&l.told)));
	lab_free(&l);
}

/* The guest gives pages back: zeros at once, without a request. */
Test(dest_fault, a_removed_page_is_zeros)
{
	struct toucher t;
	struct lab l;

	lab_init(&l);
	cr_assert(zero(int, put(&l.b, 20, 4, 1)));
	/* Returns once the event was read. */
	cr_assert(zero(int, madvise(l.b.mem + 20 * PAGE, 2 * PAGE, MADV_DONTNEED)));
	until(state(&l.b, 20) == PAGES_REMOVED);
	touch(&l, &t, 20 * PAGE);
	cr_assert(zero(int, touched(&t)));
	cr_assert(eq(int, state(&l.b, 22), PAGES_DATA));
	cr_assert(zero(u32, atomic_load(&l.nasked)));
	lab_free(&l);
}

/* --- memory that changes underneath --- */

/** struct late - a receiver whose copy is held up after it has looked at the page's state */
struct late {
	struct lab *l;
	uint8_t *data; /* one page, missing: the copy's own read of it faults */
	int uffd;
	pthread_t t;
	int r;
};

static void *late_main(void *arg)
{
	struct late *x = arg;
	struct msg_pages m = {
		.kind = MSG_PAGES_RAW, .offset = 30 * PAGE, .length = PAGE, .pass = 1};
	struct place_io io = {box_again, &x->l->b};

	x->l->b.again_max = UINT_MAX;
	x->r = place_put(&x->l->b.p, &io, &m, x->data, &x->l->b.err);
	return NULL;
}

static void late_begin(struct lab *l, struct late *x)
{
	struct uffd_event ev;

	x->l = l;
	x->data = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	x->uffd = uffd_open(false, NULL);
	if (x->uffd < 0)
		cr_skip_test("no userfaultfd for faults of the kernel");
	cr_assert(zero(int, uffd_api(x->uffd, 0, NULL, NULL)));
	cr_assert(zero(int,
		       uffd_register(x->uffd, (uint64_t)x->data, PAGE, UFFD_MODE_MISSING, NULL)));
	pthread_create(&x->t, NULL, late_main, x);
	until(uffd_read(x->uffd, &ev, 1) == 1);
}

static void late_go(struct late *x)
{
	uint8_t *page = content(0, 1, 0x77);
	uint64_t done;

	cr_assert(zero(int, uffd_copy(x->uffd, (uint64_t)x->data, page, PAGE, &done)));
	pthread_join(x->t, NULL);
	cr_assert(zero(int, x->r), "%s", x->l->b.err.msg);
	close(x->uffd);
	free(page);
}

/** struct giver - a thread of the guest that gives memory back */
struct giver {
	uint8_t *at;
	_Atomic bool done;
	pthread_t t;
};

static void *give_main(void *arg)
{
	struct giver *g = arg;

	madvise(g->at, PAGE, MADV_DONTNEED);
	atomic_store(&g->done, true);
	return NULL;
}

/*
 * A copy is under way when the page is given back. Whether it lands before or is told to look again: behind
 * the guest's own madvise(2) there are zeros, and they stay.
 */
Test(dest_fault, what_was_given_back_does_not_come_back)
{
	struct late late = {0};
	struct giver giver = {0};
	struct toucher t;
	struct lab l;

	lab_init(&l);
	late_begin(&l, &late);
	giver.at = l.b.mem + 30 * PAGE;
	pthread_create(&giver.t, NULL, give_main, &giver);
	rest();
	late_go(&late);
	pthread_join(giver.t, NULL);
	touch(&l, &t, 30 * PAGE);
	cr_assert(zero(int, touched(&t)), "dead data");
	cr_assert(zero(u32, atomic_load(&l.nasked)));
	cr_assert(zero(u32, atomic_load(&l.told)));
	lab_free(&l);
}

static void *unmap_main(void *arg)
{
	return munmap(arg, 4 * PAGE) ? arg : NULL;
}

/* Its pages count as given back, and nothing is placed there any more. */
Test(dest_fault, an_unmapped_range_is_given_back)
{
	struct lab l;
	pthread_t t;
	void *r;

	lab_init(&l);
	pthread_create(&t, NULL, unmap_main, l.b.mem + 8 * PAGE);
	pthread_join(t, &r);
	cr_assert(eq(ptr, r, NULL));
	until(state(&l.b, 8) == PAGES_REMOVED && state(&l.b, 11) == PAGES_REMOVED);
	cr_assert(eq(int, state(&l.b, 7), PAGES_MISSING));
	cr_assert(eq(int, state(&l.b, 12), PAGES_MISSING));
	cr_assert(zero(int, put(&l.b, 4, 12, 1)), "%s", l.b.err.msg);
	cr_assert(eq(int, l.b.mem[7 * PAGE], 8));
	cr_assert(eq(int, l.b.mem[12 * PAGE], 13));
	cr_assert(zero(u32, atomic_load(&l.told)));
	lab_free(&l);
}

/* What is missing cannot follow: it stays missing, and nobody is handed zeros in its place. */
Test(dest_fault, a_moved_range_is_held)
{
	struct toucher t = {.value = -1};
	struct lab l;
	uint8_t *to;

	lab_init(&l);
	cr_assert(zero(int, put(&l.b, 0, 2, 1)));
	to = mremap(l.b.mem, PAGE, PAGE, MREMAP_MAYMOVE | MREMAP_FIXED,
		    mmap(NULL, PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
	cr_assert(ne(ptr, to, MAP_FAILED));
	rest();
	cr_assert(zero(u32, atomic_load(&l.told)), "of this nothing is missing");
	to = mremap(l.b.mem + 40 * PAGE, 2 * PAGE, 2 * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED,
		    mmap(NULL, 2 * PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
	cr_assert(ne(ptr, to, MAP_FAILED));
	until(told(&l, FAULT_BROKEN));
	cr_assert(eq(str, l.why, "guest-remapped"));
	rest();
	cr_assert(eq(int, state(&l.b, 40), PAGES_MISSING));
	t.at = to;
	pthread_create(&t.t, NULL, touch_main, &t);
	rest();
	cr_assert(eq(int, atomic_load(&t.value), -1), "it was handed zeros");
	cr_assert(zero(int, uffd_unregister(l.b.p.uffd, (uint64_t)to, 2 * PAGE)));
	pthread_join(t.t, NULL);
	lab_free(&l);
}

/*
 * A child that inherits shared memory must not fill its holes with zeros: it waits until what is missing has
 * been placed, and sees that.
 */
Test(dest_fault, a_forked_child_is_handed_no_zeros)
{
	_Atomic int *seen =
		mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	struct lab l;
	pid_t pid;

	if (geteuid())
		cr_skip_test("forks are told to the privileged only");
	lab_init_kind(&l, MSG_BLOCK_MEMFD);
	atomic_store(seen, -1);
	pid = fork();
	if (!pid) {
		atomic_store(seen, *(volatile uint8_t *)(l.b.mem + 5 * PAGE));
		_exit(0);
	}
	rest();
	cr_assert(eq(int, atomic_load(seen), -1), "it was handed zeros");
	cr_assert(is_hole(&l.b, 5, 1), "a page of zeros is in the file");
	until(atomic_load(&l.nasked) == 1);
	cr_assert(zero(int, put(&l.b, 5, 1, 1)), "%s", l.b.err.msg);
	until(atomic_load(seen) >= 0);
	cr_assert(eq(int, atomic_load(seen), 6));
	cr_assert(zero(u32, atomic_load(&l.told)));
	waitpid(pid, NULL, 0);
	lab_free(&l);
}

/* Private memory cannot be served to it: it waits until all is there. */
Test(dest_fault, a_forked_child_waits_with_private_memory)
{
	_Atomic int *seen =
		mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	struct lab l;
	pid_t pid;

	if (geteuid())
		cr_skip_test("forks are told to the privileged only");
	lab_init(&l);
	cr_assert(zero(int, put(&l.b, 4, 1, 1)));
	atomic_store(seen, -1);
	pid = fork();
	if (!pid) {
		atomic_store(seen, *(volatile uint8_t *)(l.b.mem + 4 * PAGE));
		atomic_store(seen, *(volatile uint8_t *)(l.b.mem + 5 * PAGE));
		_exit(0);
	}
	until(atomic_load(seen) == 5);
	rest();
	cr_assert(eq(int, atomic_load(seen), 5), "it was handed zeros");
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
	lab_free(&l);
}

/* The guest has the same open file: what it does to its flags stops nobody. */
Test(dest_fault, a_descriptor_that_was_made_to_block)
{
	struct toucher t;
	struct lab l;

	lab_init(&l);
	for (unsigned int i = 0; i < 20; i++) {
		cr_assert(zero(int, fcntl(l.b.p.uffd, F_SETFL, 0)));
		touch(&l, &t, i * PAGE);
		until(atomic_load(&l.nasked) == i + 1);
		cr_assert(zero(int, put(&l.b, i, 1, 1)));
		cr_assert(eq(int, touched(&t), (int)i + 1));
	}
	cr_assert(zero(u32, atomic_load(&l.told)));
	lab_free(&l);
}

/* No answer is guessed for an address that is in no block: who faults there is held. */
Test(dest_fault, a_fault_outside_is_never_answered)
{
	struct toucher t;
	struct lab l;
	uint8_t *more;

	lab_init(&l);
	more = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	cr_assert(zero(int,
		       uffd_register(l.b.p.uffd, (uint64_t)more, PAGE, UFFD_MODE_MISSING, NULL)));
	t.at = more;
	atomic_store(&t.value, -1);
	pthread_create(&t.t, NULL, touch_main, &t);
	until(told(&l, FAULT_BROKEN));
	cr_assert(eq(str, l.why, "fault-outside"));
	rest();
	cr_assert(eq(int, atomic_load(&t.value), -1));
	/* Others go on being served. */
	struct toucher other;
	touch(&l, &other, 0);
	until(atomic_load(&l.nasked) == 1);
	cr_assert(zero(int, put(&l.b, 0, 1, 1)));
	cr_assert(eq(int, touched(&other), 1));
	cr_assert(zero(int, uffd_unregister(l.b.p.uffd, (uint64_t)more, PAGE)));
	cr_assert(zero(int, touched(&t)));
	lab_free(&l);
}

/* The session is lost: what is asked for stays noted, who waits goes on waiting. */
Test(dest_fault, held_it_asks_for_nothing_and_loses_nothing)
{
	struct toucher a, b, zero;
	struct lab l;

	lab_init(&l);
	cr_assert(zero(int, put_zero(&l.b, 100, 1)));
	touch(&l, &a, 3 * PAGE);
	until(atomic_load(&l.nasked) == 1);
	fault_hold(l.f);
	touch(&l, &b, 4 * PAGE);
	until(atomic_load(&l.b.p.faults) == 2);
	rest();
	cr_assert(eq(u32, atomic_load(&l.nasked), 1));
	cr_assert(eq(u64, atomic_load(&l.b.p.outstanding), 2));
	cr_assert(bitmap_test(&l.b.p.blocks[0].asked, 3));
	cr_assert(bitmap_test(&l.b.p.blocks[0].asked, 4));
	cr_assert(eq(int, atomic_load(&a.value), -1));
	cr_assert(eq(int, atomic_load(&b.value), -1));
	/* What needs no source is answered all the same. */
	touch(&l, &zero, 100 * PAGE);
	cr_assert(zero(int, touched(&zero)));
	cr_assert(zero(int, put(&l.b, 3, 2, 1)));
	cr_assert(eq(int, touched(&a), 4));
	cr_assert(eq(int, touched(&b), 5));
	lab_free(&l);
}

/* It is there when fault_start() returns, and ends when told so although nothing happens. */
Test(dest_fault, starts_and_ends, .timeout = 60)
{
	struct pace *pace = pace_start();
	uint64_t begin = clock_us();
	struct lab l;

	for (int i = 0; i < 20; i++) {
		lab_init(&l);
		lab_free(&l);
	}
	cr_assert(pace_brisk(pace, clock_us() - begin, 10000000));
	pace_end(pace);
}

/* A descriptor of no use is told, not spun on. */
Test(dest_fault, a_bad_descriptor_ends_it)
{
	struct lab l;

	memset(&l, 0, sizeof(l));
	pthread_mutex_init(&l.lock, NULL);
	box_init(&l.b, MSG_BLOCK_ANON);
	l.b.p.uffd = uffd_open(true, NULL); /* without its handshake: poll(2) says error */
	cr_assert(zero(int, fault_start(&l.b.p, NULL, &l.tally, &ops, &l, &l.f)));
	until(told(&l, FAULT_ENDED));
	lab_free(&l);
}
