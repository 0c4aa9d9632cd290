/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cut: a guest whose memory tells whether it is that of one instant. One thread writes the numbers 1,
 * 2, 3 and so on, as fast as it can, each into the next page, around and around, at both ends of the page.
 * So at every instant the N pages hold the last N numbers, each in its place; any mixture of two
 * instants does not. Its state is the last number. Where it arrives it looks at all pages before it
 * writes on, and says in a file what it found.
 *
 *	cut NAME ATTACH REPORT MB
 */
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "guest/decant-guest.h"

#define PAGE  4096ul
#define WORDS (PAGE / sizeof(uint64_t))

/**
 * struct cut - the guest
 * @lock:	held during each write: the pause takes it
 * @resumed:	@paused has changed
 * @last:	number that was written last
 */
struct cut {
	struct decant_guest *guest;
	const char *report;
	uint64_t *mem;
	uint64_t pages;
	uint64_t last;
	pthread_mutex_t lock;
	pthread_cond_t resumed;
	bool paused;
	volatile bool quit;
};

static void report(const struct cut *c, const char *what)
{
	char tmp[512];
	FILE *f;

	snprintf(tmp, sizeof(tmp), "%s.new", c->report);
	f = fopen(tmp, "w");
	if (!f)
		return;
	fprintf(f, "%s %d\n", what, (int)getpid());
	fclose(f);
	rename(tmp, c->report);
}

static int on_pause(void *opaque, int deadline_ms)
{
	struct cut *c = opaque;

	(void)deadline_ms;
	pthread_mutex_lock(&c->lock);
	c->paused = true;
	pthread_mutex_unlock(&c->lock);
	return 0;
}

static void on_resume(void *opaque)
{
	struct cut *c = opaque;

	pthread_mutex_lock(&c->lock);
	c->paused = false;
	pthread_cond_signal(&c->resumed);
	pthread_mutex_unlock(&c->lock);
}

static int on_save(void *opaque, struct decant_writer *w)
{
	const struct cut *c = opaque;

	return decant_write(w, &c->last, sizeof(c->last));
}

static int on_load(void *opaque, struct decant_reader *r)
{
	struct cut *c = opaque;

	return decant_read(r, &c->last, sizeof(c->last));
}

static void on_quit(void *opaque)
{
	((struct cut *)opaque)->quit = true;
}

static void write_next(struct cut *c)
{
	uint64_t *page = c->mem + c->last % c->pages * WORDS;

	page[0] = c->last + 1;
	page[WORDS - 1] = c->last + 1;
	c->last++;
}

static bool is_cut(const struct cut *c)
{
	for (uint64_t n = c->last - c->pages; n < c->last; n++) {
		const uint64_t *page = c->mem + n % c->pages * WORDS;

		if (page[0] != n + 1 || page[WORDS - 1] != n + 1)
			return false;
	}
	return true;
}

static void run(struct cut *c)
{
	while (!c->quit) {
		pthread_mutex_lock(&c->lock);
		while (c->paused && !c->quit)
			pthread_cond_wait(&c->resumed, &c->lock);
		for (int i = 0; i < 64; i++)
			write_next(c);
		pthread_mutex_unlock(&c->lock);
	}
}

int main(int argc, char **argv)
{
	struct cut c = {.lock = PTHREAD_MUTEX_INITIALIZER, .resumed = PTHREAD_COND_INITIALIZER};
	struct decant_guest_config config = {
		.callbacks = {.pause = on_pause,
			      .resume = on_resume,
			      .save = on_save,
			      .load = on_load,
			      .quit = on_quit},
		.opaque = &c,
	};
	bool incoming = getenv("DECANT_INCOMING");
	void *mem;
	int r;

	if (argc != 5)
		return 2;
	config.name = argv[1];
	config.attach = argv[2];
	c.report = argv[3];
	c.pages = strtoull(argv[4], NULL, 10) << 8;
	c.guest = decant_guest_new(&config);
	r = c.guest ? decant_block_create(c.guest, "ram", c.pages * PAGE,
					  DECANT_BLOCK_NO_DMA | DECANT_BLOCK_MEMFD, &mem)
		    : -12;
	if (r) {
		fprintf(stderr, "cut: cannot make its block: %d\n", r);
		return 1;
	}
	c.mem = mem;
	while (!incoming && c.last < c.pages)
		write_next(&c);
	r = decant_guest_start(c.guest);
	if (r < 0) {
		fprintf(stderr, "cut: start: %d\n", r);
		return 3;
	}
	report(&c, !incoming ? "started" : is_cut(&c) ? "exact" : "torn");
	run(&c);
	decant_guest_free(c.guest);
	return 0;
}
