/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sharers of a guest's memory (P17), beside a real fault thread: further mappings of the same file in
 * this process, each with a userfaultfd of its own.
 */
#include <errno.h>
#include <pthread.h>
#include <sys/syscall.h>
#include <time.h>
#include "dest_box.h"
#include "fault.h"
#include "util/cleanup.h"
#include "util/clock.h"
#include "util/log.h"

static void quiet(void)
{
	log_setup("error");
}

TestSuite(dest_sharers, .init = quiet, .timeout = 60);

/**
 * struct lab - a box and its fault thread
 * @asked:	requests for each page
 * @drops, @why: what was dropped, and the code of the last
 */
struct lab {
	struct box b;
	struct fault *f;
	struct tally tally;
	_Atomic unsigned int asked[PAGES];
	_Atomic unsigned int nasked, told, drops;
	char why[sizeof(((struct error *)0)->code)];
};

static void on_request(void *arg, const struct msg_request *m)
{
	struct lab *l = arg;

	atomic_fetch_add(&l->asked[m->offset / PAGE], 1);
	atomic_fetch_add(&l->nasked, 1);
}

static void on_trouble(void *arg, enum fault_trouble what, const struct error *err)
{
	struct lab *l = arg;

	(void)err;
	atomic_fetch_or(&l->told, 1u << what);
}

static const struct fault_ops ops = {.request = on_request, .trouble = on_trouble};

static void on_drop(void *arg, const struct error *why)
{
	struct lab *l = arg;

	snprintf(l->why, sizeof(l->why), "%s", why->code);
	atomic_fetch_add(&l->drops, 1);
}

static void lab_init(struct lab *l)
{
	memset(l, 0, sizeof(*l));
	box_init(&l->b, MSG_BLOCK_MEMFD);
	box_live(&l->b);
	cr_assert(zero(int, fault_start(&l->b.p, NULL, &l->tally, &ops, l, &l->f)));
}

static void lab_free(struct lab *l)
{
	cr_assert(zero(u32, atomic_load(&l->told)));
	fault_stop(l->f);
	sharers_settle(&l->b.p.sharers);
	box_free(&l->b);
}

#define until(cond)                                                              \
	do {                                                                     \
		uint64_t end_ = clock_us() + 10000000;                           \
		bool met_;                                                       \
		while (!(met_ = (cond)) && clock_us() < end_)                    \
			nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL); \
		cr_assert(met_, "%s", #cond);                                    \
	} while (0)

static void rest(void)
{
	nanosleep(&(struct timespec){.tv_nsec = 30000000}, NULL);
}

/** struct view - a sharer: pages [first, first + n) of the block, mapped once more */
struct view {
	uint8_t *mem;
	uint64_t first, n;
	int uffd;
	struct sharer *h;
};

static int view_add(struct lab *l, struct view *v, uint64_t first, uint64_t n, int uffd)
{
	struct sharer_spec spec = {.uffd = uffd,
				   .features = UFFD_F_MISSING_SHMEM,
				   .name = "view",
				   .on_drop = on_drop,
				   .arg = l};
	struct sharer_range r = {.page_size = PAGE, .offset = first * PAGE, .length = n * PAGE};
	int ret;

	*v = (struct view){.first = first, .n = n, .uffd = uffd};
	v->mem = mmap(NULL, n * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED,
		      l->b.p.blocks[0].mem.block.fd, (off_t)(first * PAGE));
	cr_assert(ne(ptr, v->mem, MAP_FAILED));
	r.addr = (uint64_t)v->mem;
	ret = sharers_add(&l->b.p.sharers, &spec, &v->h, &l->b.err);
	if (!ret)
		ret = sharers_map(&l->b.p.sharers, v->h, &r, &l->b.err);
	fault_look(l->f);
	return ret;
}

static void view_open(struct lab *l, struct view *v, uint64_t first, uint64_t n)
{
	cr_assert(zero(int, view_add(l, v, first, n, uffd_open(true, NULL))), "%s", l->b.err.msg);
}

static void view_unmap(struct view *v)
{
	munmap(v->mem, v->n * PAGE);
}

/** struct toucher - a thread that reads one byte */
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

static void touch(struct toucher *t, const uint8_t *at)
{
	t->at = at;
	atomic_store(&t->value, -1);
	pthread_create(&t->t, NULL, touch_main, t);
}

static int touched(struct toucher *t)
{
	until(atomic_load(&t->value) != -1);
	pthread_join(t->t, NULL);
	return atomic_load(&t->value);
}

/* Two sharers and the guest want one page, by different addresses: asked for once, all are woken. */
Test(dest_sharers, a_page_is_asked_for_once_and_wakes_all)
{
	struct toucher g, a, b;
	struct view va, vb;
	struct lab l;

	lab_init(&l);
	view_open(&l, &va, 0, PAGES);
	view_open(&l, &vb, 16, 32);
	touch(&a, va.mem + 20 * PAGE + 5);
	touch(&b, vb.mem + 4 * PAGE + 6);
	touch(&g, l.b.mem + 20 * PAGE + 7);
	until(atomic_load(&l.b.p.faults) == 3);
	rest();
	cr_assert(eq(u32, atomic_load(&l.nasked), 1));
	cr_assert(eq(u32, atomic_load(&l.asked[20]), 1));
	cr_assert(eq(int, atomic_load(&a.value), -1));
	cr_assert(zero(int, put(&l.b, 20, 1, 1)));
	cr_assert(eq(int, touched(&a), 21));
	cr_assert(eq(int, touched(&b), 21));
	cr_assert(eq(int, touched(&g), 21));
	cr_assert(zero(u64, atomic_load(&l.b.p.outstanding)));
	view_unmap(&va);
	view_unmap(&vb);
	lab_free(&l);
}

/* What is there needs no fault, zeros no request; and nobody is woken for pages that nobody wants. */
Test(dest_sharers, what_is_there_is_not_asked_for)
{
	struct toucher t;
	struct view v;
	struct lab l;

	lab_init(&l);
	view_open(&l, &v, 0, PAGES);
	cr_assert(zero(int, put(&l.b, 3, 1, 1)));
	cr_assert(zero(int, put_zero(&l.b, 4, 1)));
	cr_assert(zero(u64, atomic_load(&l.b.p.sharers.wakes)), "woken in vain");
	touch(&t, v.mem + 3 * PAGE);
	cr_assert(eq(int, touched(&t), 4));
	touch(&t, v.mem + 4 * PAGE);
	cr_assert(eq(int, touched(&t), 0));
	cr_assert(zero(u32, atomic_load(&l.nasked)));
	cr_assert(eq(int, *(volatile uint8_t *)(l.b.mem + 4 * PAGE), 0));
	/* The guest alone waits: no sharer is woken for it. */
	touch(&t, l.b.mem + 5 * PAGE);
	until(atomic_load(&l.nasked) == 1);
	cr_assert(zero(int, put(&l.b, 5, 1, 1)));
	cr_assert(eq(int, touched(&t), 6));
	cr_assert(eq(u64, atomic_load(&l.b.p.sharers.wakes), 1), "the page of zeros, and no other");
	view_unmap(&v);
	lab_free(&l);
}

/* A page of zeros, sent while a sharer waits for it. */
Test(dest_sharers, zeros_that_are_waited_for)
{
	struct toucher t;
	struct view v;
	struct lab l;

	lab_init(&l);
	view_open(&l, &v, 0, PAGES);
	touch(&t, v.mem + 9 * PAGE);
	until(atomic_load(&l.nasked) == 1);
	cr_assert(zero(int, put_zero(&l.b, 9, 1)));
	cr_assert(eq(int, touched(&t), 0));
	view_unmap(&v);
	lab_free(&l);
}

/** struct reader - reads all pages of a mapping, in an order of its own, until told to end */
struct reader {
	const volatile uint8_t *mem;
	uint64_t first, n, step;
	unsigned int bad;
	pthread_t t;
};

static void *reader_main(void *arg)
{
	struct reader *r = arg;

	for (uint64_t i = 0; i < r->n; i++) {
		uint64_t page = i * r->step % r->n;

		if (r->mem[page * PAGE + i] != (uint8_t)(1 + r->first + page))
			r->bad++;
	}
	return NULL;
}

static void reader_start(struct reader *r, const uint8_t *mem, uint64_t first, uint64_t n,
			 uint64_t step)
{
	*r = (struct reader){.mem = mem, .first = first, .n = n, .step = step};
	pthread_create(&r->t, NULL, reader_main, r);
}

#define ROUNDS 40

/* Faults and pages cross in every way: nothing hangs, nobody reads anything but the content. */
Test(dest_sharers, faults_and_pages_cross)
{
	static const uint64_t steps[] = {1, 3, 77, 255};

	for (unsigned int round = 0; round < ROUNDS; round++) {
		struct reader r[8];
		struct view v[2];
		struct lab l;

		lab_init(&l);
		view_open(&l, &v[0], 0, PAGES);
		view_open(&l, &v[1], 0, PAGES);
		for (unsigned int i = 0; i < ARRAY_SIZE(r); i++)
			reader_start(&r[i], i % 4 == 3 ? l.b.mem : v[i % 2].mem, 0, PAGES,
				     steps[i / 2]);
		for (uint64_t page = 0; page < PAGES; page += 4)
			cr_assert(zero(int, put(&l.b, (page * 5 + round * 4) % PAGES, 4, 1)));
		for (unsigned int i = 0; i < ARRAY_SIZE(r); i++) {
			pthread_join(r[i].t, NULL);
			cr_assert(zero(u32, r[i].bad));
		}
		cr_assert(zero(u64, atomic_load(&l.b.p.outstanding)));
		cr_assert(zero(u32, atomic_load(&l.drops)));
		view_unmap(&v[0]);
		view_unmap(&v[1]);
		lab_free(&l);
	}
}

/* One comes and goes all the time while pages are placed; another one waits for each of them. */
Test(dest_sharers, coming_and_going)
{
	struct view stays, goes;
	struct reader r;
	struct lab l;

	lab_init(&l);
	view_open(&l, &stays, 0, PAGES);
	reader_start(&r, stays.mem, 0, PAGES, 1);
	for (uint64_t page = 0; page < PAGES; page++) {
		struct toucher t;

		view_open(&l, &goes, page, 1);
		if (page % 3)
			touch(&t, goes.mem);
		cr_assert(zero(int, put(&l.b, page, 1, 1)));
		if (page % 3)
			cr_assert(eq(int, touched(&t), (uint8_t)(page + 1)));
		view_unmap(&goes);
		sharers_unmap(&l.b.p.sharers, goes.h, (uint64_t)goes.mem, PAGE);
		sharers_remove(&l.b.p.sharers, goes.h);
	}
	pthread_join(r.t, NULL);
	cr_assert(zero(u32, r.bad));
	cr_assert(eq(u32, atomic_load(&l.b.p.sharers.n), 1));
	view_unmap(&stays);
	lab_free(&l);
}

/*
 * A fault in none of its ranges: that sharer is dropped and waits; another one and the guest do not
 * notice; and at the end it reads the truth, too.
 */
Test(dest_sharers, one_in_error_is_dropped_and_handed_no_zeros)
{
	struct toucher bad, good;
	struct view vb, vg;
	struct lab l;

	lab_init(&l);
	view_open(&l, &vb, 0, PAGES);
	view_open(&l, &vg, 0, PAGES);
	cr_assert(
		eq(int,
		   sharers_map(&l.b.p.sharers, vb.h,
			       &(struct sharer_range){
				       .page_size = PAGE, .length = PAGE, .addr = (uint64_t)vb.mem},
			       &l.b.err),
		   -EEXIST));
	sharers_unmap(&l.b.p.sharers, vb.h, (uint64_t)vb.mem, PAGES * PAGE);
	touch(&bad, vb.mem + 7 * PAGE);
	until(atomic_load(&l.drops) == 1);
	cr_assert(eq(str, l.why, "fault-outside"));
	touch(&good, vg.mem + 7 * PAGE);
	until(atomic_load(&l.nasked) == 1);
	cr_assert(zero(int, put(&l.b, 7, 1, 1)));
	cr_assert(eq(int, touched(&good), 8));
	rest();
	cr_assert(eq(int, atomic_load(&bad.value), -1), "it waits");
	cr_assert(zero(u32, atomic_load(&l.told)), "the guest is not told");
	/* All is here: its process has its own copy no more than anybody has. */
	cr_assert(zero(int, put(&l.b, 0, PAGES, 1)));
	sharers_settle(&l.b.p.sharers);
	cr_assert(eq(int, touched(&bad), 8));
	view_unmap(&vb);
	view_unmap(&vg);
	lab_free(&l);
}

static void *fall(void *arg)
{
	struct view *v = arg;

	/* One that makes a hole again wherever it has been. */
	for (;;) {
		*(volatile uint8_t *)v->mem = 1;
		madvise(v->mem, PAGE, MADV_REMOVE);
		pthread_testcancel();
	}
	return NULL;
}

Test(dest_sharers, one_that_never_stops_faulting_is_dropped)
{
	struct toucher t;
	struct view v;
	struct lab l;
	pthread_t p;

	lab_init(&l);
	cr_assert(zero(int, put_zero(&l.b, 0, 1)));
	view_open(&l, &v, 0, 1);
	pthread_create(&p, NULL, fall, &v);
	until(atomic_load(&l.drops) == 1);
	cr_assert(eq(str, l.why, "flood"));
	touch(&t, l.b.mem + PAGE);
	until(atomic_load(&l.nasked) == 1);
	cr_assert(zero(int, put(&l.b, 1, 1, 1)));
	cr_assert(eq(int, touched(&t), 2));
	pthread_cancel(p);
	cr_assert(zero(int, put(&l.b, 2, PAGES - 2, 1)));
	sharers_settle(&l.b.p.sharers);
	pthread_join(p, NULL);
	view_unmap(&v);
	lab_free(&l);
}

/* poll(2) gives an error event for one that blocks. */
Test(dest_sharers, a_descriptor_that_blocks)
{
	struct toucher t;
	struct view v;
	struct lab l;

	lab_init(&l);
	cr_assert(zero(int,
		       view_add(&l, &v, 0, PAGES, (int)syscall(SYS_userfaultfd, O_CLOEXEC | 1))));
	until(atomic_load(&l.drops) == 1);
	cr_assert(eq(str, l.why, "userfaultfd"));
	touch(&t, l.b.mem + PAGE);
	until(atomic_load(&l.nasked) == 1);
	cr_assert(zero(int, put(&l.b, 1, 1, 1)));
	cr_assert(eq(int, touched(&t), 2));
	view_unmap(&v);
	lab_free(&l);
}

Test(dest_sharers, limits)
{
	struct view v[SHARERS_MAX + 1];
	struct sharer_range r = {.page_size = PAGE, .length = PAGE};
	int null = open("/dev/null", O_RDWR | O_CLOEXEC), fd;
	struct lab l;

	lab_init(&l);
	cr_assert(lt(int, view_add(&l, &v[0], 0, 1, null), 0), "what is no userfaultfd");
	view_unmap(&v[0]);
	for (unsigned int i = 0; i < SHARERS_MAX; i++)
		view_open(&l, &v[i], i, 1);
	fd = uffd_open(true, NULL);
	memset(&l.b.err, 0, sizeof(l.b.err));
	cr_assert(eq(int, view_add(&l, &v[SHARERS_MAX], 0, 1, fd), -EBUSY));
	cr_assert(eq(str, l.b.err.code, "limit-sharers"));
	/* Nothing is mapped there, so the kernel refuses each: none may stay noted. */
	for (unsigned int i = 0; i <= SHARERS_RANGES_MAX; i++) {
		r.addr = 0x1000ul * (i + 1);
		memset(&l.b.err, 0, sizeof(l.b.err));
		sharers_map(&l.b.p.sharers, v[0].h, &r, &l.b.err);
		cr_assert(eq(str, l.b.err.code, "cannot-register"));
	}
	close(null);
	close(fd);
	for (unsigned int i = 0; i <= SHARERS_MAX; i++)
		view_unmap(&v[i]);
	lab_free(&l);
}

/* An agent's next life: what the one before had read and not answered is faulted again. */
Test(dest_sharers, taken_over)
{
	struct sharer_spec spec = {.again = true, .name = "again"};
	struct sharer_range r = {.page_size = PAGE, .length = PAGES * PAGE};
	struct uffd_event ev[4];
	struct toucher t;
	struct sharer *h;
	struct view v;
	struct lab l;
	int fd;

	lab_init(&l);
	view_open(&l, &v, 0, PAGES);
	fd = dup(v.uffd);
	sharers_remove(&l.b.p.sharers, v.h);
	fault_look(l.f);
	touch(&t, v.mem + 2 * PAGE);
	until(uffd_read(fd, ev, 4) == 1);
	rest();
	spec.uffd = fd;
	r.addr = (uint64_t)v.mem;
	cr_assert(zero(int, sharers_add(&l.b.p.sharers, &spec, &h, &l.b.err)));
	cr_assert(zero(int, sharers_map(&l.b.p.sharers, h, &r, &l.b.err)), "%s", l.b.err.msg);
	fault_look(l.f);
	until(atomic_load(&l.asked[2]) == 1);
	cr_assert(zero(int, put(&l.b, 2, 1, 1)));
	cr_assert(eq(int, touched(&t), 3));
	view_unmap(&v);
	lab_free(&l);
}
