/* SPDX-License-Identifier: Apache-2.0 */
#include "soak/plan.h"

#include <string.h>
#include "lib/lab.h"

#define COUNT(a) (sizeof(a) / sizeof((a)[0]))

static const char *const whens[] = {
	[SOAK_SETUP] = "setup",
	[SOAK_PRECOPY] = "precopy",
	[SOAK_SWITCH] = "switchover",
	[SOAK_POSTCOPY] = "post-copy",
};

/**
 * struct kind - of a fault
 * @share:	how often it comes, of the sum of all
 * @quick_share: the same where nothing may take seconds
 * @least_ms, @most_ms: how long it lasts
 */
static const struct kind {
	const char *name;
	unsigned int share, quick_share;
	unsigned int least_ms, most_ms;
} kinds[] = {
	[SOAK_NONE] = {"none", 5, 2, 0, 0},
	[SOAK_KILL_SOURCE] = {"kill-source", 12, 6, 0, 300},
	[SOAK_KILL_DEST] = {"kill-dest", 12, 6, 0, 300},
	[SOAK_KILL_BOTH] = {"kill-both", 8, 3, 0, 300},
	[SOAK_RESTART_SOURCE] = {"restart-source", 5, 2, 0, 200},
	[SOAK_RESTART_DEST] = {"restart-dest", 5, 2, 0, 200},
	[SOAK_STOP_SOURCE] = {"stop-source", 4, 1, 100, 3000},
	[SOAK_STOP_DEST] = {"stop-dest", 4, 1, 100, 3000},
	[SOAK_CUT] = {"cut", 8, 4, 0, 0},
	[SOAK_CUT_ONE] = {"cut-one", 6, 3, 0, 0},
	[SOAK_CUT_WORD] = {"cut-word", 8, 4, 0, 0},
	[SOAK_FLAP] = {"flap", 3, 1, 200, 1500},
	[SOAK_BLACK_HOLE] = {"black-hole", 4, 0, 1000, 8000},
	[SOAK_DELAY] = {"delay", 4, 2, 300, 2000},
	[SOAK_CANCEL] = {"cancel", 6, 3, 0, 0},
	[SOAK_SWITCHOVER] = {"switchover", 4, 2, 0, 0},
	[SOAK_REFUSED] = {"refused", 2, 1, 0, 0},
	[SOAK_TWICE] = {"twice", 3, 1, 0, 0},
	[SOAK_SNAPSHOT] = {"snapshot", 4, 2, 0, 0},
};

_Static_assert(COUNT(kinds) == SOAK_FAULTS, "each fault is described");

#define QUICK_MS 400

const char *soak_fault_name(enum soak_fault fault)
{
	return kinds[fault].name;
}

enum soak_fault soak_fault_of(const char *name)
{
	size_t i = 0;

	while (i < COUNT(kinds) && strcmp(kinds[i].name, name) != 0)
		i++;
	return (enum soak_fault)i;
}

bool soak_fault_loses(enum soak_fault fault)
{
	return fault >= SOAK_KILL_SOURCE && fault <= SOAK_DELAY;
}

/* The numbers of a round do not depend on how many another one has taken. */
static uint64_t next(uint64_t *rng)
{
	uint64_t z = *rng += 0x9e3779b97f4a7c15u;

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
	z = (z ^ z >> 27) * 0x94d049bb133111ebu;
	return z ^ z >> 31;
}

static unsigned int below(uint64_t *rng, unsigned int n)
{
	return (unsigned int)(next(rng) % n);
}

/* Short ones are as likely as long ones are. */
static unsigned int span(uint64_t *rng, unsigned int least, unsigned int most)
{
	unsigned int width = most > least ? most - least : 0;

	if (below(rng, 2))
		width /= 8;
	return least + below(rng, width + 1);
}

static enum soak_fault draw_fault(uint64_t *rng, bool quick)
{
	unsigned int sum = 0, at;

	for (size_t i = 0; i < COUNT(kinds); i++)
		sum += quick ? kinds[i].quick_share : kinds[i].share;
	at = below(rng, sum);
	for (size_t i = 0; i < COUNT(kinds); i++) {
		unsigned int share = quick ? kinds[i].quick_share : kinds[i].share;

		if (at < share)
			return (enum soak_fault)i;
		at -= share;
	}
	return SOAK_NONE;
}

static void draw_move(uint64_t *rng, bool quick, bool zstd, struct soak_move *m)
{
	static const char *const modes[] = {"hybrid", "hybrid", "postcopy", "precopy"};
	static const char *const trackings[] = {"auto", "async", "faults"};
	static const char *const ways[] = {"stop", "postcopy", "fail"};
	static const unsigned int lasts[] = {0, 300, 600, 1000};
	static const unsigned int passes[] = {1, 2, 4, 10};
	static const unsigned int downtimes[] = {5, 50, 300};

	m->mode = modes[below(rng, COUNT(modes))];
	m->tracking = trackings[below(rng, COUNT(trackings))];
	m->no_convergence = ways[below(rng, COUNT(ways))];
	m->channels = below(rng, 2) ? 1 + below(rng, 2) : 1 + below(rng, 8);
	m->urgent = below(rng, 4) > 0;
	m->last_ms = lasts[below(rng, quick ? 3 : COUNT(lasts))];
	m->max_passes = passes[below(rng, COUNT(passes))];
	m->downtime_ms = downtimes[below(rng, COUNT(downtimes))];
	m->compression = below(rng, 2) && zstd ? "zstd" : NULL;
}

void soak_plan(struct soak_plan *p, uint64_t seed, unsigned int round, enum soak_fault only,
	       unsigned int guests, bool quick, bool zstd)
{
	uint64_t rng = seed, *r = &rng;
	const struct kind *k;

	rng = next(&rng) ^ round * 0xda942042e4dd58b5u;
	*p = (struct soak_plan){.seed = seed, .round = round};
	p->first = below(r, guests);
	p->moving = 1u << p->first;
	/* One at a time, or several; in either direction. */
	if (below(r, 2))
		p->moving |= (unsigned int)next(r) & ((1u << guests) - 1);
	for (unsigned int i = 0; i < guests; i++)
		draw_move(r, quick, zstd, &p->moves[i]);
	p->fault = draw_fault(r, quick);
	if (only != SOAK_FAULTS)
		p->fault = only;
	k = &kinds[p->fault];
	p->when = (enum soak_when)below(r, SOAK_WHENS);
	/* What is waited for is passed through in no time, or may last as long as the bandwidth lets it. */
	p->delay_ms = span(r, 0, p->when == SOAK_SWITCH ? 30 : p->moves[p->first].last_ms + 50);
	p->for_ms = span(r, k->least_ms,
			 quick && k->most_ms > QUICK_MS ? QUICK_MS + k->least_ms : k->most_ms);
	p->which = below(r, 64);
}

static void print_move(FILE *f, unsigned int i, const struct soak_move *m)
{
	fprintf(f, " [guest %u: %s/%s, else %s, %u channels%s%s", i, m->mode, m->tracking,
		m->no_convergence, m->channels, m->urgent ? "" : ", no urgent",
		m->compression ? ", zstd" : "");
	fprintf(f, ", %u passes, %u ms down", m->max_passes, m->downtime_ms);
	if (m->last_ms)
		fprintf(f, ", takes %u ms", m->last_ms);
	fputc(']', f);
}

void soak_plan_print(FILE *f, const struct soak_plan *p)
{
	fprintf(f, "round %u of seed %lu: %s in %s + %u ms for %u ms (%u), set by guest %u",
		p->round, p->seed, kinds[p->fault].name, whens[p->when], p->delay_ms, p->for_ms,
		p->which, p->first);
	for (unsigned int i = 0; i < SOAK_GUESTS_MAX; i++)
		if (p->moving & 1u << i)
			print_move(f, i, &p->moves[i]);
	fputc('\n', f);
}
