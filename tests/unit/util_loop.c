/* SPDX-License-Identifier: Apache-2.0 */
#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdlib.h>
#include <unistd.h>
#include "util/clock.h"
#include "util/loop.h"

#define THREADS 4
#define POSTS   20000

static void stop(void *arg)
{
	loop_stop(arg);
}

static void *run(void *arg)
{
	return (void *)(intptr_t)loop_run(arg);
}

/* A loop on a thread of its own, which ends with join(). */
static struct loop *start(pthread_t *t)
{
	struct loop *l = loop_new();

	cr_assert(ne(ptr, l, NULL));
	cr_assert(zero(int, pthread_create(t, NULL, run, l)));
	return l;
}

static void join(pthread_t t)
{
	void *ret;

	pthread_join(t, &ret);
	cr_assert(eq(ptr, ret, NULL));
}

/* What hangs is ended by a signal. (Criterion's own timeouts leak, which LeakSanitizer reports.) */
static void watchdog(void)
{
	alarm(60);
}

TestSuite(loop, .init = watchdog);

Test(loop, ignores_sigpipe)
{
	struct loop *l = loop_new();
	int p[2];

	cr_assert(zero(int, pipe(p)));
	close(p[0]);
	cr_assert(eq(long, write(p[1], "x", 1), -1));
	cr_assert(eq(int, errno, EPIPE));
	close(p[1]);
	loop_free(l);
}

Test(loop, stop_before_run_is_not_lost)
{
	struct loop *l = loop_new();

	loop_stop(l);
	cr_assert(zero(int, loop_run(l)));
	loop_free(l);
}

/**
 * struct order - what one posting thread sends
 * @l:		where to
 * @thread:	index of the poster
 * @last:	loop's thread only: last number seen from this poster
 * @wrong:	loop's thread only: numbers out of order
 * @loop_thread: loop's thread only: where it ran
 */
struct order {
	struct loop *l;
	uint64_t last;
	uint64_t wrong;
	pthread_t loop_thread;
	struct post {
		struct order *o;
		uint64_t n;
	} posts[POSTS];
};

static void check_order(void *arg)
{
	struct post *p = arg;

	p->o->wrong += p->n != p->o->last + 1;
	p->o->last = p->n;
	p->o->loop_thread = pthread_self();
}

static void *post_many(void *arg)
{
	struct order *o = arg;

	for (uint64_t i = 0; i < POSTS; i++) {
		o->posts[i] = (struct post){.o = o, .n = i + 1};
		if (loop_post(o->l, check_order, &o->posts[i]))
			abort();
	}
	return NULL;
}

Test(loop, posts_from_many_threads_arrive_in_order)
{
	static struct order o[THREADS];
	pthread_t t[THREADS], lt;
	struct loop *l = start(&lt);

	for (int i = 0; i < THREADS; i++) {
		o[i].l = l;
		pthread_create(&t[i], NULL, post_many, &o[i]);
	}
	for (int i = 0; i < THREADS; i++)
		pthread_join(t[i], NULL);
	/* Behind all the others in the queue. */
	loop_post(l, stop, l);
	join(lt);
	for (int i = 0; i < THREADS; i++) {
		cr_assert(eq(u64, o[i].last, POSTS));
		cr_assert(zero(u64, o[i].wrong));
		cr_assert(pthread_equal(o[i].loop_thread, lt));
	}
	loop_free(l);
}

static void add_one(void *arg)
{
	uint64_t *n = arg;

	*n += 1; /* no atomic: only the loop's thread gets here */
}

struct caller {
	struct loop *l;
	uint64_t *sum;
	uint64_t behind;
};

static void *call_many(void *arg)
{
	struct caller *c = arg;
	uint64_t own = 0;

	for (int i = 0; i < 2000; i++) {
		uint64_t before = own;

		if (loop_call(c->l, add_one, &own) || loop_call(c->l, add_one, c->sum))
			abort();
		c->behind += own != before + 1;
	}
	return NULL;
}

Test(loop, calls_from_many_threads_wait_for_their_end)
{
	struct caller c[THREADS];
	pthread_t t[THREADS], lt;
	struct loop *l = start(&lt);
	uint64_t sum = 0;

	for (int i = 0; i < THREADS; i++) {
		c[i] = (struct caller){.l = l, .sum = &sum};
		pthread_create(&t[i], NULL, call_many, &c[i]);
	}
	for (int i = 0; i < THREADS; i++) {
		pthread_join(t[i], NULL);
		cr_assert(zero(u64, c[i].behind));
	}
	loop_stop(l);
	join(lt);
	cr_assert(eq(u64, sum, THREADS * 2000));
	loop_free(l);
}

struct self_call {
	struct loop *l;
	int ret;
};

static void call_self(void *arg)
{
	struct self_call *s = arg;

	s->ret = loop_call(s->l, stop, s->l);
	loop_stop(s->l);
}

Test(loop, a_call_from_its_own_thread_is_refused)
{
	struct self_call s = {.l = loop_new()};

	loop_post(s.l, call_self, &s);
	cr_assert(zero(int, loop_run(s.l)));
	cr_assert(eq(int, s.ret, -EDEADLK));
	loop_free(s.l);
}

static void never(void *arg)
{
	*(bool *)arg = true;
}

struct late_call {
	struct loop *l;
	_Atomic bool begun;
	bool ran;
	int ret;
};

static void *call_late(void *arg)
{
	struct late_call *c = arg;

	c->begun = true;
	c->ret = loop_call(c->l, never, &c->ran);
	return NULL;
}

/* Holds the loop until the other thread's call is queued behind it, then ends it. */
static void wait_and_stop(void *arg)
{
	usleep(100000);
	loop_stop(arg);
}

Test(loop, a_call_is_cancelled_when_the_loop_ends)
{
	struct late_call c = {.l = loop_new()};
	bool posted = false;
	pthread_t t;

	loop_post(c.l, wait_and_stop, c.l);
	loop_post(c.l, never, &posted);
	pthread_create(&t, NULL, call_late, &c);
	cr_assert(zero(int, loop_run(c.l)));
	pthread_join(t, NULL);
	cr_assert(eq(int, c.ret, -ECANCELED));
	cr_assert(not(c.ran));
	cr_assert(not(posted));
	cr_assert(eq(int, loop_call(c.l, never, &c.ran), -ECANCELED));
	loop_free(c.l);
}

Test(loop, freeing_a_loop_that_never_ran_lets_callers_go)
{
	struct late_call c = {.l = loop_new()};
	pthread_t t;

	pthread_create(&t, NULL, call_late, &c);
	/* A caller must not come when the loop is freed. */
	while (!c.begun)
		usleep(1000);
	usleep(100000);
	loop_free(c.l);
	pthread_join(t, NULL);
	cr_assert(eq(int, c.ret, -ECANCELED));
	cr_assert(not(c.ran));
}

Test(loop, runs_again_with_what_was_left)
{
	struct loop *l = loop_new();
	uint64_t n = 0;

	loop_post(l, stop, l);
	loop_post(l, add_one, &n);
	cr_assert(zero(int, loop_run(l)));
	cr_assert(zero(u64, n));
	loop_post(l, stop, l);
	cr_assert(zero(int, loop_run(l)));
	cr_assert(eq(u64, n, 1));
	loop_free(l);
}

/* Work that posts itself again must not keep timers from firing. */
struct busy {
	struct loop *l;
	uint64_t rounds;
};

static void post_again(void *arg)
{
	struct busy *b = arg;

	b->rounds++;
	loop_post(b->l, post_again, b);
}

Test(loop, endless_posts_do_not_starve_timers)
{
	struct busy b = {.l = loop_new()};
	struct event *ev = loop_timer(b.l, 50000, stop, b.l);

	loop_post(b.l, post_again, &b);
	cr_assert(zero(int, loop_run(b.l)));
	cr_assert(gt(u64, b.rounds, 10));
	event_free(ev);
	loop_free(b.l);
}

struct timing {
	struct loop *l;
	struct event *timer;
	uint64_t start, fired;
};

static void note(void *arg)
{
	struct timing *t = arg;

	t->fired = clock_us();
	loop_stop(t->l);
}

static void nothing(void *arg)
{
	(void)arg;
}

static void arm_after_a_delay(void *arg)
{
	struct timing *t = arg;

	/*
	 * The loop's idea of now must not be that of the callback's start. More work makes it look
	 * at its timers again at once.
	 */
	usleep(30000);
	t->start = clock_us();
	t->timer = loop_timer(t->l, 20000, note, t);
	loop_post(t->l, nothing, NULL);
}

Test(loop, timers_are_not_early)
{
	struct timing t = {.l = loop_new()};

	loop_post(t.l, arm_after_a_delay, &t);
	cr_assert(zero(int, loop_run(t.l)));
	event_free(t.timer);
	cr_assert(ge(u64, t.fired - t.start, 20000));
	cr_assert(lt(u64, t.fired - t.start, 2000000));
	loop_free(t.l);
}

/* Not even by the grain of a coarse clock, at whatever moment of a tick they are armed. */
Test(loop, short_timers_are_not_early)
{
	struct timing t = {.l = loop_new()};

	for (useconds_t i = 0; i < 40; i++) {
		usleep(i * 100);
		t.start = clock_us();
		t.timer = loop_timer(t.l, 1500, note, &t);
		cr_assert(zero(int, loop_run(t.l)));
		cr_assert(ge(u64, t.fired - t.start, 1500));
		event_free(t.timer);
	}
	loop_free(t.l);
}

Test(loop, freeing_a_timer_cancels_it)
{
	struct loop *l = loop_new();
	bool fired = false;
	struct event *ev = loop_timer(l, 10000, never, &fired), *end;

	event_free(ev);
	end = loop_timer(l, 50000, stop, l);
	cr_assert(zero(int, loop_run(l)));
	cr_assert(not(fired));
	event_free(end);
	loop_free(l);
}
