/* SPDX-License-Identifier: Apache-2.0 */
/*
 * pacer: the guest of the benchmarks. It does what its control file says, measures what it costs the
 * guest, and keeps next to no state outside of its block.
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "bench/guest/pacer.h"
#include "guest/decant-guest.h"

/* What is done between two looks at the pause: some tens of microseconds. */
#define BATCH      64
#define ZERO_BATCH 256

/**
 * struct pacer - everything
 * @busy:	the worker may be inside the block
 * @paused:	it has to stay outside
 */
struct pacer {
	struct pacer_control *control;
	uint8_t *block;
	uint64_t pages;
	uint64_t rng;
	_Atomic bool busy;
	_Atomic bool paused;
	_Atomic bool quit;
};

static uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000 + (uint64_t)ts.tv_nsec;
}

static uint64_t next_random(uint64_t *rng)
{
	*rng ^= *rng << 13;
	*rng ^= *rng >> 7;
	*rng ^= *rng << 17;
	return *rng;
}

static uint8_t *page_at(struct pacer *p, uint64_t page)
{
	return p->block + page * PACER_PAGE;
}

/* --- the worker --- */

/* Either the worker sees that the guest is paused, or the pause callback sees that it is busy. */
static bool enter(struct pacer *p)
{
	atomic_store(&p->busy, true);
	if (!atomic_load(&p->paused))
		return true;
	atomic_store(&p->busy, false);
	return false;
}

static void write_page(struct pacer *p, uint32_t bytes)
{
	uint64_t *at = (uint64_t *)page_at(p, next_random(&p->rng) % p->pages), v = p->rng;

	for (uint32_t i = 0; i < bytes / 8; i++)
		at[i] = v += 0x9e3779b97f4a7c15u;
}

static void write_batch(struct pacer *p, uint64_t *due_ns)
{
	struct pacer_control *c = p->control;
	uint32_t rate = atomic_load(&c->rate), bytes = atomic_load(&c->bytes);
	uint64_t now = now_ns();

	if (rate && now < *due_ns) {
		usleep(200);
		return;
	}
	if (!enter(p)) {
		usleep(20);
		return;
	}
	for (int i = 0; i < BATCH; i++)
		write_page(p, bytes);
	atomic_store(&p->busy, false);
	atomic_fetch_add(&c->writes, BATCH);
	/* What a long stop made it miss is not made up for. */
	if (rate)
		*due_ns = (now > *due_ns + 50000000 ? now : *due_ns) + BATCH * 1000000000ull / rate;
}

/* A page that is in the file is no fault that anybody has to serve. */
static bool find_missing(struct pacer *p, uint64_t *ret)
{
	for (int i = 0; i < 100000; i++) {
		uint64_t page = next_random(&p->rng) % p->pages;
		unsigned char there = 0;

		if (!mincore(page_at(p, page), PACER_PAGE, &there) && !(there & 1)) {
			*ret = page;
			return true;
		}
	}
	return false;
}

static void touch_one(struct pacer *p)
{
	struct pacer_control *c = p->control;
	uint32_t n = atomic_load(&c->touched);
	uint64_t page, began;

	if (n >= PACER_TOUCHES_MAX || atomic_load(&c->spent) || !enter(p)) {
		usleep(200);
		return;
	}
	if (find_missing(p, &page)) {
		began = now_ns();
		*(volatile uint64_t *)page_at(p, page);
		c->touch_ns[n] = (uint32_t)(now_ns() - began);
		atomic_store(&c->touched, n + 1);
	} else {
		atomic_store(&c->spent, 1);
	}
	atomic_store(&p->busy, false);
}

/* Written word by word in a way that no compiler takes for a reason to skip it. */
static void zero_all(struct pacer *p)
{
	for (uint64_t page = 0; page < p->pages && !atomic_load(&p->quit);) {
		if (!enter(p)) {
			usleep(20);
			continue;
		}
		for (int i = 0; i < ZERO_BATCH && page < p->pages; i++, page++)
			memset(page_at(p, page), 0, PACER_PAGE);
		atomic_store(&p->busy, false);
	}
	atomic_store(&p->control->order, PACER_REST);
}

static void *worker_main(void *arg)
{
	struct pacer *p = arg;
	uint64_t due_ns = 0;

	while (!atomic_load(&p->quit)) {
		uint32_t order = atomic_load(&p->control->order);

		atomic_store(&p->control->resting, order == PACER_REST);
		switch (order) {
		case PACER_WRITE:
			write_batch(p, &due_ns);
			break;
		case PACER_TOUCH:
			touch_one(p);
			break;
		case PACER_ZERO:
			zero_all(p);
			break;
		default:
			usleep(1000);
		}
	}
	return NULL;
}

/* --- callbacks --- */

static int on_pause(void *opaque, int deadline_ms)
{
	struct pacer *p = opaque;

	(void)deadline_ms; /* a batch is short; a page that is waited for cannot be hurried */
	atomic_store(&p->paused, true);
	while (atomic_load(&p->busy))
		usleep(10);
	return 0;
}

static void on_resume(void *opaque)
{
	struct pacer *p = opaque;

	atomic_store(&p->paused, false);
	atomic_store(&p->control->ready, (uint32_t)getpid());
}

static int on_save(void *opaque, struct decant_writer *w)
{
	struct pacer *p = opaque;

	return decant_write(w, &p->rng, sizeof(p->rng));
}

static int on_load(void *opaque, struct decant_reader *r)
{
	struct pacer *p = opaque;

	atomic_store(&p->paused, true);
	return decant_read(r, &p->rng, sizeof(p->rng));
}

static void on_quit(void *opaque)
{
	(void)opaque;
	kill(getpid(), SIGTERM);
}

static void on_message(void *opaque, const char *text)
{
	(void)opaque;
	fprintf(stderr, "pacer: %s\n", text);
}

/* --- set-up --- */

static struct pacer_control *map_control(const char *path)
{
	int fd = open(path, O_RDWR | O_CLOEXEC);
	void *p = fd < 0 ? MAP_FAILED
			 : mmap(NULL, sizeof(struct pacer_control), PROT_READ | PROT_WRITE,
				MAP_SHARED, fd, 0);

	if (fd >= 0)
		close(fd);
	if (p == MAP_FAILED) {
		fprintf(stderr, "pacer: %s: %m\n", path);
		exit(1);
	}
	return p;
}

static void fill(struct pacer *p, const char *with)
{
	uint64_t *at = (uint64_t *)p->block, words = p->pages * PACER_PAGE / 8;

	if (!strcmp(with, "random"))
		for (uint64_t i = 0; i < words; i++)
			at[i] = next_random(&p->rng);
	else if (!strcmp(with, "zeros"))
		memset(p->block, 0, p->pages * PACER_PAGE);
}

static int start(struct pacer *p, struct decant_guest *g, const char *with)
{
	bool incoming = decant_guest_incoming(g);
	pthread_t worker;
	int ret;

	if (!incoming)
		fill(p, with);
	ret = decant_guest_start(g);
	if (ret < 0) {
		fprintf(stderr, "pacer: %s\n", strerror(-ret));
		return ret;
	}
	if (pthread_create(&worker, NULL, worker_main, p))
		return -EAGAIN;
	atomic_store(&p->control->ready, (uint32_t)getpid());
	return 0;
}

static const struct option options[] = {
	{"name", 1, NULL, 'n'}, {"attach", 1, NULL, 'a'},  {"mb", 1, NULL, 'm'},
	{"fill", 1, NULL, 'f'}, {"control", 1, NULL, 'c'}, {NULL, 0, NULL, 0},
};

static const char usage[] = "pacer --name NAME --mb N --control FILE [--attach PATH]\n"
			    "      [--fill random|zeros|none]: see tests/bench/guest/pacer.h\n";

int main(int argc, char **argv)
{
	static struct pacer p;
	struct decant_guest_config config = {
		.flags = DECANT_GUEST_USER_FAULTS,
		.callbacks = {on_pause, on_resume, on_save, on_load, on_quit, on_message},
		.opaque = &p,
	};
	const char *with = "random", *control = NULL;
	struct decant_guest *g;
	sigset_t signals;
	uint64_t mb = 0;
	void *block;
	int c, sig;

	while ((c = getopt_long(argc, argv, "", options, NULL)) >= 0) {
		if (c == 'n')
			config.name = optarg;
		else if (c == 'a')
			config.attach = optarg;
		else if (c == 'm')
			mb = strtoull(optarg, NULL, 10);
		else if (c == 'f')
			with = optarg;
		else if (c == 'c')
			control = optarg;
	}
	if (!config.name || !mb || !control) {
		fputs(usage, stderr);
		return 2;
	}
	p.control = map_control(control);
	p.pages = (mb << 20) / PACER_PAGE;
	p.rng = now_ns() | 1;
	sigemptyset(&signals);
	sigaddset(&signals, SIGTERM);
	sigaddset(&signals, SIGINT);
	pthread_sigmask(SIG_BLOCK, &signals, NULL);
	g = decant_guest_new(&config);
	if (!g || decant_block_create(g, "ram", mb << 20, DECANT_BLOCK_MEMFD | DECANT_BLOCK_NO_DMA,
				      &block)) {
		fprintf(stderr, "pacer: cannot be a guest: %m\n");
		return 1;
	}
	p.block = block;
	if (start(&p, g, with))
		return 1;
	sigwait(&signals, &sig);
	return 0;
}
