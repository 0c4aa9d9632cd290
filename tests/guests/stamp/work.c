/* SPDX-License-Identifier: Apache-2.0 */
/* The threads of stamp, and what they do to a page. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "guests/stamp/stamp.h"

#define COMPLAINTS_MAX 20
#define FAULT_MIN_US   20   /* a first touch that takes longer had to wait for its page */
#define STALL_MIN_US   5000 /* a shorter one is not worth the question what it was */

static void latency_add(struct latency *l, uint64_t us)
{
	unsigned int top = us < 8 ? 0 : 60 - (unsigned int)__builtin_clzll(us);
	size_t i = us < 8 ? us : 8 * top + (us >> top);

	stamp_add(l->count[i < 8 * 40 ? i : 8 * 40 - 1], 1);
	stamp_add(l->n, 1);
	stamp_raise(&l->max_us, us);
}

/* --- pages -------------------------------------------------------------------------------------- */

uint64_t *work_page(struct stamp *s, uint64_t page)
{
	return (uint64_t *)(s->block[page / s->per_block] + page % s->per_block * STAMP_PAGE);
}

static bool page_lock(struct stamp *s, uint64_t page)
{
	return !(__atomic_fetch_or(&s->flags[page], STAMP_LOCKED, __ATOMIC_ACQUIRE) & STAMP_LOCKED);
}

static void page_unlock(struct stamp *s, uint64_t page)
{
	__atomic_fetch_and(&s->flags[page], (uint8_t)~STAMP_LOCKED, __ATOMIC_RELEASE);
}

static void complain(struct stamp *s, uint64_t page, const uint64_t *p)
{
	struct bad b = {.page = page,
			.count = s->counts[page],
			.zero = stamp_is_zero(&s->seed, page, s->counts[page]),
			.got_page = p[1],
			.got_count = p[2]};

	if (stamp_get(s->flags[page]) & STAMP_BAD)
		return;
	__atomic_fetch_or(&s->flags[page], STAMP_BAD, __ATOMIC_RELAXED);
	strcpy(b.what, stamp_what(&s->seed, p, page, s->counts[page]));
	pthread_mutex_lock(&s->lock);
	if (stamp_add(s->bad_pages, 1) == 1)
		s->first_bad = b;
	pthread_mutex_unlock(&s->lock);
	if (stamp_add(s->complaints, 1) <= COMPLAINTS_MAX)
		fprintf(stderr,
			"stamp %s: bad page %" PRIu64 " (block %" PRIu64 ", offset %#" PRIx64
			"): %s; expected count %" PRIu64 "%s, got page %" PRIu64 " count %" PRIu64
			"\n",
			s->name, page, page / s->per_block, page % s->per_block * STAMP_PAGE,
			b.what, b.count, b.zero ? " (zeros)" : "", b.got_page, b.got_count);
}

/* The page is locked. The first access after an arrival is the one that may have to wait. */
static void page_check(struct stamp *s, uint64_t page)
{
	uint64_t *p = work_page(s, page), began, us;

	if (!(stamp_get(s->flags[page]) & STAMP_TOUCHED)) {
		began = stamp_now_us();
		*(volatile uint64_t *)p;
		us = stamp_now_us() - began;
		if (us >= FAULT_MIN_US)
			latency_add(&s->faults, us);
		__atomic_fetch_or(&s->flags[page], STAMP_TOUCHED, __ATOMIC_RELAXED);
	}
	if (!stamp_matches(&s->seed, p, page, s->counts[page]))
		complain(s, page, p);
}
/* --- threads ------------------------------------------------------------------------------------ */

/* Return: how long this thread has waited for a processor in all; 0 where that is not told */
static uint64_t queued_us(const struct worker *w)
{
	unsigned long long ran, queued;
	char text[96];
	ssize_t n = w->schedstat > 0 ? pread(w->schedstat, text, sizeof(text) - 1, 0) : -1;

	if (n <= 0)
		return 0;
	text[n] = '\0';
	return sscanf(text, "%llu %llu", &ran, &queued) == 2 ? queued / 1000 : 0;
}

/*
 * A thread announces itself before it looks whether the guest is paused, and the pause callback
 * does it the other way round: so one of the two always sees the other.
 */
static void step_begin(struct worker *w)
{
	struct stamp *s = w->s;

	for (;;) {
		stamp_set(w->busy, true);
		if (!stamp_get(s->paused))
			break;
		stamp_set(w->busy, false);
		pthread_mutex_lock(&s->lock);
		while (s->paused)
			pthread_cond_wait(&s->resumed, &s->lock);
		pthread_mutex_unlock(&s->lock);
	}
	w->queued_us = queued_us(w);
	stamp_set(w->since_us, stamp_now_us());
}

/* A stall is waiting for memory, not for a processor that others have. */
static void step_end(struct worker *w)
{
	uint64_t us = stamp_now_us() - w->since_us, queued = 0;

	if (us >= STALL_MIN_US)
		queued = queued_us(w) - w->queued_us;
	stamp_raise(&w->s->longest_stall_us, us > queued ? us - queued : 0);
	stamp_set(w->since_us, 0);
	stamp_set(w->busy, false);
}

static uint64_t random_page(struct worker *w)
{
	w->rng ^= w->rng << 13;
	w->rng ^= w->rng >> 7;
	w->rng ^= w->rng << 17;
	return w->rng % stamp_get(w->s->used);
}

/* Sleep until the next write is due; after a long stop the missed ones are not made up for. */
static void keep_rate(struct stamp *s, uint64_t *due_us)
{
	uint64_t now = stamp_now_us();

	if (!s->writes)
		return;
	*due_us += 1000000 / s->writes;
	if (now > *due_us + 50000)
		*due_us = now;
	if (now + 1000 < *due_us || (now < *due_us && s->writes < 1000))
		usleep((useconds_t)(*due_us - now));
}

static void *write_main(void *arg)
{
	struct worker *w = arg;
	struct stamp *s = w->s;
	uint64_t due_us = stamp_now_us();

	/* As fast as it can it writes more often than it could ask. */
	if (s->writes)
		w->schedstat = open("/proc/thread-self/schedstat", O_RDONLY | O_CLOEXEC);
	for (;;) {
		uint64_t page = random_page(w);

		keep_rate(s, &due_us);
		step_begin(w);
		if (page_lock(s, page)) {
			page_check(s, page);
			stamp_write(&s->seed, work_page(s, page), page, ++s->counts[page]);
			stamp_add(s->counter, 1);
			page_unlock(s, page);
		}
		step_end(w);
	}
	return NULL;
}

static void *verify_main(void *arg)
{
	struct worker *w = arg;
	struct stamp *s = w->s;

	for (uint64_t page = w->from; page < w->to;) {
		bool mine;

		step_begin(w);
		mine = page_lock(s, page);
		if (mine) {
			page_check(s, page);
			page_unlock(s, page++);
			stamp_add(s->verified_pages, 1);
		}
		step_end(w);
		if (!mine) /* its writer may be waiting for it */
			usleep(20);
	}
	if (stamp_add(s->verifying, -1) == 0)
		stamp_add(s->verifications, 1);
	return NULL;
}

static int start_worker(struct stamp *s, unsigned int i, void *(*fn)(void *))
{
	struct worker *w = &s->worker[i];

	w->s = s;
	w->index = i;
	w->rng = stamp_mix(s->seed.seed + i + stamp_clock_us(CLOCK_REALTIME)) | 1;
	if (pthread_create(&w->thread, NULL, fn, w))
		return -EAGAIN;
	return pthread_detach(w->thread);
}

/* One at a time; what is asked for meanwhile follows. */
void work_verify(struct stamp *s)
{
	if (!s->verify_wanted || stamp_get(s->verifying))
		return;
	s->verify_wanted = false;
	stamp_set(s->verified_pages, 0);
	stamp_set(s->verifying, STAMP_VERIFIERS);
	for (unsigned int i = 0; i < STAMP_VERIFIERS; i++) {
		s->worker[STAMP_THREADS_MAX + i].from = s->pages * i / STAMP_VERIFIERS;
		s->worker[STAMP_THREADS_MAX + i].to = s->pages * (i + 1) / STAMP_VERIFIERS;
		if (start_worker(s, STAMP_THREADS_MAX + i, verify_main)) {
			fprintf(stderr, "stamp %s: no thread to verify with\n", s->name);
			exit(1);
		}
	}
}

int work_start_writer(struct stamp *s, unsigned int i)
{
	return start_worker(s, i, write_main);
}

void work_wait_paused(struct stamp *s)
{
	for (size_t i = 0; i < STAMP_THREADS_MAX + STAMP_VERIFIERS; i++)
		while (stamp_get(s->worker[i].busy))
			usleep(20);
}
