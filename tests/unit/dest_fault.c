/* SPDX-License-Identifier: Apache-2.0 */
/* The fault thread, with threads of this process that touch missing pages. */
#include <errno.h>
#include <pthread.h>
#include <semaphore.h>
#include <time.h>
#include "dest_box.h"
#include "fault.h"
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

static void lab_init(struct lab *l)
{
	memset(l, 0, sizeof(*l));
	pthread_mutex_init(&l->lock, NULL);
	box_init(&l->b, MSG_BLOCK_ANON);
	l->b.p.uffd = uffd_open(true, NULL);
	cr_assert(ge(int, l->b.p.uffd, 0));
	cr_assert(zero(int, uffd_api(l->b.p.uffd, UFFD_F_EVENT_REMOVE, NULL, NULL)));
	cr_assert(zero(int, fault_start(&l->b.p, NULL, &l->tally, &ops, l, &l->f)));
	cr_assert(zero(int, place_register(&l->b.p, &l->b.err)), "%s", l->b.err.msg);
	atomic_store(&l->b.p.regime, PLACE_LIVE);
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
Test(dest_fault, starts_and_ends, .timeout = 10)
{
	uint64_t begin = clock_us();
	struct lab l;

	for (int i = 0; i < 20; i++) {
		lab_init(&l);
		lab_free(&l);
	}
	cr_assert(lt(u64, clock_us() - begin, 10000000));
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
