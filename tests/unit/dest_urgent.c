/* SPDX-License-Identifier: Apache-2.0 */
/* The fault thread and its urgent channel, with threads of this process that really fault. */
#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include <xxhash.h>
#include "fault.h"
#include "frame.h"
#include "lib/tls_pair.h"
#include "lib/tls_pki.h"
#include "uffd/uffd.h"
#include "util/clock.h"
#include "util/log.h"

#define PAGE  4096ul
#define PAGES 64ul

static void quiet(void)
{
	log_setup("error");
}

TestSuite(dest_urgent, .init = quiet, .timeout = 60);

ReportHook(PRE_ALL)(struct criterion_test_set *set)
{
	(void)set;
	tls_pki_begin();
	if (tls_pki_certs("ca %s/ca >/dev/null", tls_pki_dir()) ||
	    tls_pki_certs("host %s/ca host-a DNS:localhost >/dev/null", tls_pki_dir()))
		abort();
}

ReportHook(POST_ALL)(struct criterion_global_stats *stats)
{
	(void)stats;
	tls_pki_end();
}

/**
 * struct box - a place in anonymous memory of this process, and its fault thread
 * @lock, @changed: protect what follows
 * @asked:	requests that came without an urgent channel
 * @nasked:	how many
 * @trouble:	how often each came
 * @err:	the last one
 */
struct box {
	struct place p;
	struct tally tally;
	struct fault *f;
	uint8_t *mem;
	char dir[64], path[96];
	pthread_mutex_t lock;
	pthread_cond_t changed;
	struct msg_request asked[256];
	unsigned int nasked;
	unsigned int trouble[3];
	struct error err;
};

static void on_request(void *arg, const struct msg_request *m)
{
	struct box *b = arg;

	pthread_mutex_lock(&b->lock);
	b->asked[b->nasked++ % 256] = *m;
	pthread_cond_broadcast(&b->changed);
	pthread_mutex_unlock(&b->lock);
}

static void on_trouble(void *arg, enum fault_trouble what, const struct error *err)
{
	struct box *b = arg;

	pthread_mutex_lock(&b->lock);
	b->trouble[what]++;
	b->err = *err;
	pthread_cond_broadcast(&b->changed);
	pthread_mutex_unlock(&b->lock);
}

static const struct fault_ops ops = {.request = on_request, .trouble = on_trouble};

/* Wait until a counter under @lock has reached @n; at most 10 s. */
static bool reaches(struct box *b, const unsigned int *counter, unsigned int n)
{
	uint64_t end = clock_us() + 10000000;
	bool did = false;

	while (!did && clock_us() < end) {
		pthread_mutex_lock(&b->lock);
		did = *counter >= n;
		pthread_mutex_unlock(&b->lock);
		usleep(500);
	}
	return did;
}

/* The guest's thread is on its way before its fault is booked. */
static bool counts(const void *counter, uint64_t n)
{
	const uint64_t *c = counter;

	for (int i = 0; i < 5000 && __atomic_load_n(c, __ATOMIC_ACQUIRE) != n; i++)
		usleep(1000);
	return __atomic_load_n(c, __ATOMIC_ACQUIRE) == n;
}

static void box_init(struct box *b)
{
	struct pages_what what = {.npages = PAGES, .page_size = PAGE};
	struct place_block *pb;
	struct error err = {0};

	memset(b, 0, sizeof(*b));
	pthread_mutex_init(&b->lock, NULL);
	pthread_cond_init(&b->changed, NULL);
	cr_assert(zero(int, place_init(&b->p, 1, PAGE)));
	pb = &b->p.blocks[0];
	strcpy(pb->name, "ram");
	pb->kind = MSG_BLOCK_ANON;
	pb->page_size = PAGE;
	pb->shift = 12;
	pb->length = PAGES * PAGE;
	pb->npages = PAGES;
	/* Registered beyond the block as well: what lies there is nobody's. */
	b->mem = mmap(NULL, 2 * PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
		      -1, 0);
	cr_assert(ne(ptr, b->mem, MAP_FAILED));
	madvise(b->mem, 2 * PAGES * PAGE, MADV_NOHUGEPAGE);
	pb->mem.block.addr = (uint64_t)b->mem;
	strcpy(b->dir, "/tmp/decant-fault-XXXXXX");
	cr_assert(ne(ptr, mkdtemp(b->dir), NULL));
	snprintf(b->path, sizeof(b->path), "%s/states", b->dir);
	cr_assert(zero(int, pages_create(&pb->pages, b->path, &what, &err)), "%s", err.msg);
	cr_assert(zero(int, bitmap_init(&pb->asked, PAGES)));
	b->p.uffd = uffd_open(true, NULL);
	cr_assert(zero(int, uffd_api(b->p.uffd, UFFD_F_EVENT_REMOVE, NULL, NULL)));
}

static void box_start(struct box *b, struct tls_chan *urgent)
{
	struct error err = {0};

	cr_assert(zero(int, fault_start(&b->p, urgent, &b->tally, &ops, b, &b->f)));
	cr_assert(zero(int, place_register(&b->p, &err)), "%s", err.msg);
	atomic_store(&b->p.regime, PLACE_LIVE);
}

static void box_free(struct box *b)
{
	struct error err = {0};

	place_unregister(&b->p, &err);
	fault_stop(b->f);
	close(b->p.uffd);
	munmap(b->mem, 2 * PAGES * PAGE);
	place_clear(&b->p);
	unlink(b->path);
	cr_assert(zero(int, rmdir(b->dir)));
}

/* --- a thread of the guest --- */

/** struct toucher - reads one byte */
struct toucher {
	pthread_t thread;
	const volatile uint8_t *at;
	uint8_t got;
	_Atomic bool done;
};

static void *touch_main(void *arg)
{
	struct toucher *t = arg;

	t->got = *t->at;
	atomic_store(&t->done, true);
	return NULL;
}

static void touch(struct toucher *t, const uint8_t *at)
{
	t->at = at;
	t->done = false;
	cr_assert(zero(int, pthread_create(&t->thread, NULL, touch_main, t)));
}

static uint8_t touched(struct toucher *t)
{
	pthread_join(t->thread, NULL);
	return t->got;
}

/* --- pages that arrive elsewhere --- */

static int again(void *arg)
{
	(void)arg;
	usleep(20);
	return 0;
}

static int put(struct box *b, uint64_t page, uint8_t fill)
{
	const struct place_io io = {again, NULL};
	uint8_t buf[PAGE];
	struct msg_pages m = {
		.kind = MSG_PAGES_RAW, .offset = page * PAGE, .length = PAGE, .pass = 1};
	struct error err = {0};

	memset(buf, fill, sizeof(buf));
	m.digest = XXH3_64bits(buf, PAGE);
	return place_pages(&b->p, &io, &m, buf, &err);
}

static void put_zero(struct box *b, uint64_t page, uint64_t n)
{
	const struct place_io io = {again, NULL};
	struct msg_pages m = {
		.kind = MSG_PAGES_ZERO, .offset = page * PAGE, .length = n * PAGE, .pass = 1};
	struct error err = {0};

	cr_assert(zero(int, place_pages(&b->p, &io, &m, NULL, &err)), "%s", err.msg);
}

/* --- without an urgent channel --- */

Test(dest_urgent, zeros_at_once)
{
	struct toucher t;
	struct box b;

	box_init(&b);
	box_start(&b, NULL);
	put_zero(&b, 0, PAGES);
	for (uint64_t i = 0; i < PAGES; i++) {
		touch(&t, b.mem + i * PAGE);
		cr_assert(eq(u8, touched(&t), 0));
	}
	cr_assert(eq(uint, b.nasked, 0));
	cr_assert(counts(&b.p.latency.n, PAGES));
	box_free(&b);
}

/* Removals in one thread, pages that arrive in another: EAGAIN all the time, and no hang. */
static void *give_back(void *arg)
{
	struct box *b = arg;

	for (uint64_t i = 0; i < 2000; i++)
		madvise(b->mem + i % PAGES * PAGE, PAGE, MADV_DONTNEED);
	return NULL;
}

Test(dest_urgent, events_under_way)
{
	pthread_t t;
	struct box b;

	box_init(&b);
	box_start(&b, NULL);
	cr_assert(zero(int, pthread_create(&t, NULL, give_back, &b)));
	for (uint64_t i = 0; i < PAGES; i++)
		cr_assert(zero(int, put(&b, i, 9)));
	pthread_join(t, NULL);
	cr_assert(place_complete(&b.p));
	box_free(&b);
}

/* --- with one --- */

/** struct wire - the urgent channel: [client] is the source's end */
struct wire {
	struct tls_ctx *client, *server;
	struct tls_pair pair;
	struct frame_io io;
	struct msg *m;
};

static void wire_init(struct wire *w)
{
	w->client = tls_pki_context(TLS_CLIENT, "ca", "host-a");
	w->server = tls_pki_context(TLS_SERVER, "ca", "host-a");
	tls_pair_make(&w->pair, w->client, w->server);
	w->io = (struct frame_io){.chan = w->pair.client,
				  .channel = MSG_CHANNEL_URGENT,
				  .stop_fd = -1,
				  .timeout_us = 10000000};
	w->m = calloc(1, sizeof(*w->m));
}

static void wire_free(struct wire *w)
{
	tls_chan_free(w->pair.client);
	tls_ctx_unref(w->client);
	tls_ctx_unref(w->server);
	free(w->m);
}

static void wire_expect(struct wire *w, enum msg_type type)
{
	uint8_t body[FRAME_SMALL_MAX];
	struct msg_header h;
	struct error err = {0};

	cr_assert(zero(int, frame_read_header(&w->io, &h, &err)), "%s", err.msg);
	cr_assert(zero(int, frame_read_body(&w->io, &h, body, w->m, &err)), "%s", err.msg);
	cr_assert(eq(int, (int)w->m->type, (int)type));
}

static void wire_page(struct wire *w, uint64_t offset, uint8_t fill, uint64_t wrong)
{
	uint8_t *buf = aligned_alloc(64, MSG_PAGES_FIXED + PAGE);
	struct msg_pages m = {.kind = MSG_PAGES_RAW, .offset = offset, .length = PAGE, .pass = 1};
	struct error err = {0};

	memset(buf + MSG_PAGES_FIXED, fill, PAGE);
	m.digest = XXH3_64bits(buf + MSG_PAGES_FIXED, PAGE) + wrong;
	cr_assert(zero(int, frame_send_pages(&w->io, &m, buf, &err)), "%s", err.msg);
	free(buf);
}

Test(dest_urgent, over_the_urgent_channel)
{
	struct toucher t;
	struct wire w;
	struct box b;

	box_init(&b);
	wire_init(&w);
	box_start(&b, w.pair.server);
	for (uint64_t i = 0; i < PAGES; i++) {
		touch(&t, b.mem + i * PAGE + 5);
		wire_expect(&w, MSG_REQUEST);
		cr_assert(eq(u64, w.m->request.offset, i * PAGE));
		wire_page(&w, i * PAGE, (uint8_t)(i + 1), 0);
		cr_assert(eq(u8, touched(&t), (uint8_t)(i + 1)));
	}
	cr_assert(counts(&b.tally.runs, PAGES));
	cr_assert(eq(uint, b.nasked, 0));
	box_free(&b);
	wire_free(&w);
}

Test(dest_urgent, damaged_on_the_urgent_channel)
{
	struct toucher t;
	struct wire w;
	struct box b;

	box_init(&b);
	wire_init(&w);
	box_start(&b, w.pair.server);
	touch(&t, b.mem);
	wire_expect(&w, MSG_REQUEST);
	wire_page(&w, 0, 5, 1);
	wire_expect(&w, MSG_NACK);
	cr_assert(not(t.done));
	wire_page(&w, 0, 5, 0);
	cr_assert(eq(u8, touched(&t), 5));
	cr_assert(eq(u64, atomic_load(&b.tally.nacks), 1));
	cr_assert(counts(&b.tally.runs, 2));
	box_free(&b);
	wire_free(&w);
}

/* P19: who waits goes on waiting, and nothing is asked for elsewhere. */
Test(dest_urgent, the_urgent_channel_breaks)
{
	struct toucher before, after, t;
	struct wire w;
	struct box b;

	box_init(&b);
	wire_init(&w);
	box_start(&b, w.pair.server);
	touch(&before, b.mem);
	wire_expect(&w, MSG_REQUEST);
	tls_chan_free(w.pair.client);
	w.pair.client = NULL;
	cr_assert(reaches(&b, &b.trouble[FAULT_LOST], 1));
	touch(&after, b.mem + PAGE);
	put_zero(&b, 2, 1);
	touch(&t, b.mem + 2 * PAGE);
	cr_assert(eq(u8, touched(&t), 0), "zeros are still answered");
	usleep(30000);
	cr_assert(not(before.done));
	cr_assert(not(after.done));
	cr_assert(eq(uint, b.nasked, 0));
	cr_assert(zero(int, put(&b, 0, 1)));
	cr_assert(zero(int, put(&b, 1, 2)));
	cr_assert(eq(u8, touched(&before), 1));
	cr_assert(eq(u8, touched(&after), 2));
	cr_assert(eq(uint, b.trouble[FAULT_LOST], 1));
	box_free(&b);
	wire_free(&w);
}

Test(dest_urgent, nonsense_on_the_urgent_channel)
{
	struct wire w;
	struct box b;
	struct error err = {0};

	box_init(&b);
	wire_init(&w);
	box_start(&b, w.pair.server);
	wire_page(&w, PAGES * PAGE, 1, 0);
	cr_assert(reaches(&b, &b.trouble[FAULT_BROKEN], 1));
	cr_assert(ne(ptr, strstr(b.err.msg, "beyond its length"), NULL), "%s", b.err.msg);
	(void)err;
	box_free(&b);
	wire_free(&w);
}

/*
 * P19, P21: the next session's channel takes over. What was asked for when the first one broke, and what
 * was touched while there was none, is asked for there, once each; what has come meanwhile is not.
 */
Test(dest_urgent, goes_on_over_the_next_channel)
{
	struct toucher t[3];
	struct wire first, next;
	struct box b;

	box_init(&b);
	wire_init(&first);
	wire_init(&next);
	box_start(&b, first.pair.server);
	touch(&t[0], b.mem);
	wire_expect(&first, MSG_REQUEST);
	wire_page(&first, 9 * PAGE, 9, 0);
	cr_assert(counts(&b.tally.runs, 1));
	tls_chan_free(first.pair.client);
	first.pair.client = NULL;
	cr_assert(reaches(&b, &b.trouble[FAULT_LOST], 1));
	fault_hold(b.f);
	touch(&t[1], b.mem + PAGE);
	touch(&t[2], b.mem + 2 * PAGE);
	cr_assert(counts(&b.p.faults, 3));
	cr_assert(zero(int, put(&b, 1, 2)));
	cr_assert(eq(u8, touched(&t[1]), 2));

	/* What comes first is there before anything was asked for: reading goes on behind it. */
	wire_page(&next, 20 * PAGE, 3, 0);
	fault_resume(b.f, next.pair.server);
	wire_expect(&next, MSG_REQUEST);
	cr_assert(zero(u64, next.m->request.offset));
	wire_expect(&next, MSG_REQUEST);
	cr_assert(eq(u64, next.m->request.offset, 2 * PAGE));
	wire_page(&next, 0, 7, 0);
	wire_page(&next, 2 * PAGE, 8, 0);
	cr_assert(eq(u8, touched(&t[0]), 7));
	cr_assert(eq(u8, touched(&t[2]), 8));
	cr_assert(counts(&b.tally.runs, 3), "counts begin again");
	/* And it can be lost like the first. */
	tls_chan_free(next.pair.client);
	next.pair.client = NULL;
	cr_assert(reaches(&b, &b.trouble[FAULT_LOST], 2));
	box_free(&b);
	wire_free(&first);
	wire_free(&next);
}

/* Without an urgent channel in the next session the requests go their other way. */
Test(dest_urgent, goes_on_without_a_channel)
{
	struct toucher t;
	struct wire w;
	struct box b;

	box_init(&b);
	wire_init(&w);
	box_start(&b, w.pair.server);
	touch(&t, b.mem + 3 * PAGE);
	wire_expect(&w, MSG_REQUEST);
	fault_hold(b.f);
	fault_resume(b.f, NULL);
	cr_assert(reaches(&b, &b.nasked, 1));
	cr_assert(eq(u64, b.asked[0].offset, 3 * PAGE));
	cr_assert(zero(int, put(&b, 3, 4)));
	cr_assert(eq(u8, touched(&t), 4));
	cr_assert(zero(uint, b.trouble[FAULT_LOST]), "ended by us, not lost");
	box_free(&b);
	wire_free(&w);
}

/* P21: END and then the end of the channel is no loss. */
Test(dest_urgent, an_end_marker_ends_it)
{
	struct error err = {0};
	struct wire w;
	struct box b;

	box_init(&b);
	wire_init(&w);
	box_start(&b, w.pair.server);
	wire_page(&w, 0, 5, 0);
	w.m->type = MSG_END;
	cr_assert(zero(int, frame_send(&w.io, w.m, &err)), "%s", err.msg);
	tls_chan_free(w.pair.client);
	w.pair.client = NULL;
	cr_assert(counts(&b.tally.runs, 1));
	usleep(30000);
	for (unsigned int i = 0; i < 3; i++)
		cr_assert(zero(uint, b.trouble[i]), "%s", b.err.msg);
	box_free(&b);
	wire_free(&w);
}
