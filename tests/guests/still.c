/* SPDX-License-Identifier: Apache-2.0 */
/*
 * still: a guest that only ever arrives. Its state is a seed and ballast; from the seed follows what
 * every page must hold (guests/still_page.h). It looks at each page, writes into it, looks at all of
 * them again, and says in a file what it found.
 *
  *	still NAME REPORT BLOCK:KIND:PAGES[,...]	KIND is memfd, anon or huge
 *
 * With STILL=deaf in the environment it never attaches itself.
 */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "guest/decant-guest.h"
#include "guests/still_page.h"

#define BLOCKS_MAX 16

/** struct still - the guest */
struct still {
	struct decant_guest *guest;
	const char *report;
	unsigned int n;
	uint8_t *mem[BLOCKS_MAX];
	uint64_t pages[BLOCKS_MAX];
	uint64_t seed;
	uint64_t state_bytes;
	volatile bool quit;
};

static void report(const struct still *s, const char *text)
{
	char tmp[512];
	FILE *f;

	snprintf(tmp, sizeof(tmp), "%s.new", s->report);
	f = fopen(tmp, "w");
	if (!f)
		return;
	fprintf(f, "%s\n", text);
	fclose(f);
	rename(tmp, s->report);
}

static int on_pause(void *opaque, int deadline_ms)
{
	(void)opaque;
	(void)deadline_ms;
	return 0;
}

static void on_resume(void *opaque)
{
	(void)opaque;
}

static int on_save(void *opaque, struct decant_writer *w)
{
	const struct still *s = opaque;

	return decant_write(w, &s->seed, sizeof(s->seed));
}

/* Loading touches memory, as device state does: here the last page of each block. */
static int on_load(void *opaque, struct decant_reader *r)
{
	struct still *s = opaque;
	uint8_t buf[4096];
	ssize_t n;
	int ret = decant_read(r, &s->seed, sizeof(s->seed));

	if (ret)
		return ret;
	while ((n = decant_read_some(r, buf, sizeof(buf))) > 0)
		for (ssize_t i = 0; i < n; i++)
			if (buf[i] != still_ballast(s->seed, s->state_bytes++))
				return -5;
	for (unsigned int b = 0; b < s->n; b++)
		if (!still_page_ok(s->mem[b] + (s->pages[b] - 1) * STILL_PAGE, s->seed, b,
				   s->pages[b] - 1))
			return -5;
	return n < 0 ? (int)n : 0;
}

static void on_quit(void *opaque)
{
	((struct still *)opaque)->quit = true;
}

/* Backwards, so that it does not walk along with what comes in order. */
static bool look(struct still *s)
{
	char text[128];

	for (unsigned int b = s->n; b-- > 0;) {
		for (uint64_t p = s->pages[b]; p-- > 0;) {
			uint8_t *page = s->mem[b] + p * STILL_PAGE;

			if (!still_page_ok(page, s->seed, b, p)) {
				snprintf(text, sizeof(text), "bad block %u page %lu", b, p);
				report(s, text);
				return false;
			}
			/* Whoever overwrites it afterwards is found by the second look. */
			*(uint64_t *)page = still_mark(s->seed, b, p);
		}
	}
	return true;
}

static bool look_again(struct still *s)
{
	char text[128];

	for (unsigned int b = 0; b < s->n; b++) {
		for (uint64_t p = 0; p < s->pages[b]; p++) {
			if (*(uint64_t *)(s->mem[b] + p * STILL_PAGE) !=
			    still_mark(s->seed, b, p)) {
				snprintf(text, sizeof(text), "overwritten block %u page %lu", b, p);
				report(s, text);
				return false;
			}
		}
	}
	return true;
}

static int add_block(struct still *s, const char *spec)
{
	unsigned int flags = DECANT_BLOCK_NO_DMA | DECANT_BLOCK_MEMFD;
	char name[64], kind[16];
	void *addr;
	int r;

	if (sscanf(spec, "%63[^:]:%15[^:]:%lu", name, kind, &s->pages[s->n]) != 3)
		return -22;
	if (!strcmp(kind, "anon"))
		flags = DECANT_BLOCK_NO_DMA | DECANT_BLOCK_ANON;
	else if (!strcmp(kind, "huge"))
		flags = DECANT_BLOCK_NO_DMA | DECANT_BLOCK_HUGE_2M;
	r = decant_block_create(s->guest, name, s->pages[s->n] * STILL_PAGE, flags, &addr);
	if (!r && flags & DECANT_BLOCK_MEMFD)
		/* What start-up code left there: the agent takes it away. */
		memset(addr, 0xee, STILL_PAGE);
	s->mem[s->n++] = addr;
	return r;
}

int main(int argc, char **argv)
{
	struct still s = {0};
	struct decant_guest_config config = {
		.callbacks = {.pause = on_pause,
			      .resume = on_resume,
			      .save = on_save,
			      .load = on_load,
			      .quit = on_quit},
		.opaque = &s,
	};
	const char *how = getenv("STILL");
	char text[128];
	int r = 0;

	if (argc != 4)
		return 2;
	if (how && !strcmp(how, "deaf"))
		pause();
	config.name = argv[1];
	s.report = argv[2];
	s.guest = decant_guest_new(&config);
	for (char *spec = strtok(argv[3], ","); s.guest && spec && !r; spec = strtok(NULL, ","))
		r = s.n < BLOCKS_MAX ? add_block(&s, spec) : -7;
	if (!s.guest || r) {
		fprintf(stderr, "still: cannot make its blocks: %d\n", r);
		return 1;
	}
	r = decant_guest_start(s.guest);
	if (r != DECANT_ARRIVED && r != DECANT_ARRIVED_PAUSED) {
		fprintf(stderr, "still: start: %d\n", r);
		return 3;
	}
	snprintf(text, sizeof(text), "%s %lu", r == DECANT_ARRIVED ? "arrived" : "arrived paused",
		 s.state_bytes);
	report(&s, text);
	if (look(&s) && look_again(&s)) {
		report(&s, "seen");
		/* What comes late is found, too. */
		for (int i = 0; i < 20 && !s.quit; i++)
			usleep(10000);
		if (look_again(&s))
			report(&s, "good");
	}
	while (!s.quit)
		usleep(10000);
	decant_guest_free(s.guest);
	return 0;
}
