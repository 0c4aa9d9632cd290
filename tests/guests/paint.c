/* SPDX-License-Identifier: Apache-2.0 */
/*
 * paint: a guest whose memory is shared with further processes (tests/guests/sharer), and whose threads
 * measure themselves how long they waited for pages.
 *
 *	paint NAME ATTACH REPORT MB[h] THREADS SLEEP_US		h: of huge pages
 *
 * A fresh one paints its block "ram" over and over, each page always alike (guests/still_page.h), so that
 * all of it is dirty and none of it changes. One that has arrived starts THREADS threads, named as vCPU
 * threads, which look at a page each SLEEP_US, at every one once; then it looks at all of them again and again.
 */
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "guest/decant-guest.h"
#include "guests/still_page.h"

#define SEED        42
#define THREADS_MAX 16

struct paint;

/** struct looker - a thread that looks at every n-th page; @waited_us: in accesses to them */
struct looker {
	struct paint *p;
	unsigned int index;
	pthread_t thread;
	int tid;
	uint64_t waited_us;
	uint64_t bad;
};

/** struct paint - the guest; @paused under @lock */
struct paint {
	struct decant_guest *guest;
	const char *report;
	uint8_t *mem;
	uint64_t pages;
	unsigned int threads, sleep_us;
	struct looker looker[THREADS_MAX];
	pthread_mutex_t lock;
	pthread_cond_t resumed;
	bool paused;
	volatile bool quit;
	bool arrived;
	bool done;
	uint64_t bad, looks, elapsed_us;
};

static uint64_t now_us(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000 + (uint64_t)ts.tv_nsec / 1000;
}

static void report(const struct paint *p)
{
	char tmp[512];
	FILE *f;

	snprintf(tmp, sizeof(tmp), "%s.new", p->report);
	f = fopen(tmp, "w");
	if (!f)
		return;
	fprintf(f,
		"{\"pid\": %d, \"arrived\": %s, \"done\": %s, \"bad\": %lu, \"looks\": %lu, "
		"\"elapsed_us\": %lu, \"threads\": [",
		getpid(), p->arrived ? "true" : "false", p->done ? "true" : "false", p->bad,
		p->looks, p->elapsed_us);
	for (unsigned int i = 0; p->done && i < p->threads; i++)
		fprintf(f, "%s{\"tid\": %d, \"waited_us\": %lu}", i ? ", " : "", p->looker[i].tid,
			p->looker[i].waited_us);
	fprintf(f, "]}\n");
	fclose(f);
	rename(tmp, p->report);
}

static int on_pause(void *opaque, int deadline_ms)
{
	struct paint *p = opaque;

	(void)deadline_ms;
	pthread_mutex_lock(&p->lock);
	p->paused = true;
	pthread_mutex_unlock(&p->lock);
	return 0;
}

static void on_resume(void *opaque)
{
	struct paint *p = opaque;

	pthread_mutex_lock(&p->lock);
	p->paused = false;
	pthread_cond_broadcast(&p->resumed);
	pthread_mutex_unlock(&p->lock);
}

static int on_save(void *opaque, struct decant_writer *w)
{
	const struct paint *p = opaque;

	return decant_write(w, &p->pages, sizeof(p->pages));
}

static int on_load(void *opaque, struct decant_reader *r)
{
	struct paint *p = opaque;
	uint64_t pages = 0;
	int ret = decant_read(r, &pages, sizeof(pages));

	p->paused = true;
	return ret ? ret : pages == p->pages ? 0 : -EINVAL;
}

static void on_quit(void *opaque)
{
	((struct paint *)opaque)->quit = true;
}

static void paint_all(struct paint *p)
{
	uint8_t page[STILL_PAGE];

	for (uint64_t i = 0; i < p->pages && !p->quit; i++) {
		still_page_fill(page, SEED, 0, i);
		pthread_mutex_lock(&p->lock);
		while (p->paused && !p->quit)
			pthread_cond_wait(&p->resumed, &p->lock);
		if (!p->quit)
			memcpy(p->mem + i * STILL_PAGE, page, STILL_PAGE);
		pthread_mutex_unlock(&p->lock);
	}
}

/* Pages far from each other, so that none comes with its neighbour. */
static void *look_main(void *arg)
{
	struct looker *l = arg;
	struct paint *p = l->p;
	uint64_t n = p->pages / p->threads;

	l->tid = gettid();
	decant_vcpu_add(p->guest);
	for (uint64_t i = 0; i < n && !p->quit; i++) {
		uint64_t at = (i * 97 % n) * p->threads + l->index, since = now_us();
		const volatile uint8_t *page = p->mem + at * STILL_PAGE;

		(void)*page;
		l->waited_us += now_us() - since;
		l->bad += !still_page_ok((const void *)page, SEED, 0, at);
		if (p->sleep_us)
			usleep(p->sleep_us);
	}
	decant_vcpu_remove(p->guest);
	return NULL;
}

static void look(struct paint *p)
{
	uint64_t since = now_us();

	for (unsigned int i = 0; i < p->threads; i++) {
		p->looker[i] = (struct looker){.p = p, .index = i};
		pthread_create(&p->looker[i].thread, NULL, look_main, &p->looker[i]);
	}
	for (unsigned int i = 0; i < p->threads; i++) {
		pthread_join(p->looker[i].thread, NULL);
		p->bad += p->looker[i].bad;
	}
	p->elapsed_us = now_us() - since;
	p->done = true;
}

static void look_again(struct paint *p)
{
	uint64_t bad = 0;

	for (uint64_t i = 0; i < p->pages && !p->quit; i++)
		bad += !still_page_ok(p->mem + i * STILL_PAGE, SEED, 0, i);
	p->bad += bad;
	p->looks++;
}

int main(int argc, char **argv)
{
	struct paint p = {.lock = PTHREAD_MUTEX_INITIALIZER, .resumed = PTHREAD_COND_INITIALIZER};
	struct decant_guest_config config = {
		.flags = DECANT_GUEST_VCPUS,
		.callbacks = {.pause = on_pause,
			      .resume = on_resume,
			      .save = on_save,
			      .load = on_load,
			      .quit = on_quit},
		.opaque = &p,
	};
	unsigned int kind;
	void *addr;
	int r;

	if (argc != 7)
		return 2;
	config.name = argv[1];
	config.attach = argv[2];
	p.report = argv[3];
	kind = strchr(argv[4], 'h') ? DECANT_BLOCK_HUGE_2M : DECANT_BLOCK_MEMFD;
	p.pages = strtoul(argv[4], NULL, 10) << 8;
	p.threads = (unsigned int)strtoul(argv[5], NULL, 10);
	p.sleep_us = (unsigned int)strtoul(argv[6], NULL, 10);
	if (!p.pages || !p.threads || p.threads > THREADS_MAX)
		return 2;
	p.guest = decant_guest_new(&config);
	r = p.guest ? decant_block_create(p.guest, "ram", p.pages * STILL_PAGE,
					  kind | DECANT_BLOCK_NO_DMA, &addr)
		    : -errno;
	if (r) {
		fprintf(stderr, "paint: %s\n", strerror(-r));
		return 1;
	}
	p.mem = addr;
	if (!decant_guest_incoming(p.guest))
		paint_all(&p);
	report(&p);
	r = decant_guest_start(p.guest);
	if (r < 0)
		return 3;
	p.arrived = r != DECANT_STARTED;
	report(&p);
	if (p.arrived)
		look(&p);
	while (!p.quit) {
		if (p.arrived)
			look_again(&p);
		else
			paint_all(&p);
		report(&p);
		usleep(1000);
	}
	decant_guest_free(p.guest);
	return 0;
}
