/* SPDX-License-Identifier: Apache-2.0 */
#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include "lib/model_priv.h"
#include "util/cleanup.h"

const struct rules model_rules = {
	.name = "as it is",
	.src_step = mig_step_find,
	.restarted = doubt_restarted,
	.settled = doubt_settled,
	.may_resolve = doubt_may_resolve,
	.abort_at_start = doubt_abort_at_start,
	.mine = doubt_mine,
	.abort_when_asked = doubt_abort_when_asked,
	.answer = doubt_answer,
	.kept = doubt_kept,
};

/* --- all situations --- */

/**
 * struct place - a situation and how it came about
 * @from:	number of the one before
 * @what:	happened
 */
struct place {
	struct sys s;
	uint32_t from;
	const char *what;
};

/**
 * struct walk - what was found so far
 * @places, @n, @cap: in the order in which they were found
 * @table, @mask: numbers of places by their hash, 0: none (they are counted from 1)
 */
struct walk {
	const struct rules *rules;
	struct place *places;
	uint64_t n, cap;
	uint32_t *table;
	uint64_t mask;
	uint32_t at;
	struct result result;
};

static uint64_t hash(const struct sys *s)
{
	const uint8_t *p = (const uint8_t *)s;
	uint64_t h = 0xcbf29ce484222325u;

	for (size_t i = 0; i < sizeof(*s); i++)
		h = (h ^ p[i]) * 0x100000001b3u;
	return h ^ h >> 29;
}

static void grow(struct walk *w)
{
	uint64_t size = w->cap ? (w->mask + 1) * 2 : 1u << 16;

	w->cap = size / 2;
	w->mask = size - 1;
	w->places = realloc(w->places, (w->cap + 1) * sizeof(*w->places));
	free(w->table);
	w->table = calloc(size, sizeof(*w->table));
	assert(w->places && w->table);
	for (uint64_t i = 1; i <= w->n; i++) {
		uint64_t h = hash(&w->places[i].s) & w->mask;

		while (w->table[h])
			h = (h + 1) & w->mask;
		w->table[h] = (uint32_t)i;
	}
}

/* --- what must not be --- */

static const char *wrong(const struct sys *s)
{
	bool operator_has = s->keep == MODEL_KEEP_SOURCE;

	if (s->g_src == COPY_RUNNING && s->g_dst == COPY_RUNNING && !(operator_has && !s->told))
		return "the guest runs in two places";
	if (s->g_src == COPY_RUNNING && s->ran && !operator_has)
		return "the guest goes on at the source although it has run at the destination";
	if (s->g_src == COPY_ENDED && !(s->ran && s->full) && s->keep != MODEL_KEEP_DESTINATION)
		return "the copy at the source was ended before the destination had all of it";
	if (s->g_dst == COPY_ENDED && s->ran)
		return "a copy that has run was ended by the destination";
	if (s->d_rec == HISTORY_ABORTED && s->ran)
		return "\"aborted\" is recorded of a guest that has run";
	if (s->told && s->answer == MSG_ANSWER_NOT_STARTED && s->ran)
		return "the source was told that the guest never ran at the destination";
	if (s->told && (s->answer == MSG_ANSWER_RUNNING || s->answer == MSG_ANSWER_COMPLETED) &&
	    !s->loud)
		return "a conflict that the destination does not report";
	return NULL;
}

/* With nothing going wrong any more: is there a reason why it does not run in just one place? */
static const char *stuck(const struct rules *r, const struct sys *s)
{
	struct doubt_place place = {(enum mig_state)s->src, s->committed};
	bool here = s->g_src == COPY_RUNNING, there = s->g_dst == COPY_RUNNING;
	const char *owner = mig_owner_name(place.state, place.committed);

	if (s->keep == MODEL_KEEP_DESTINATION)
		return NULL;
	if (s->keep == MODEL_KEEP_SOURCE && !s->told && !s->d_lost)
		return "the destination is never told that the guest was kept at the source";
	/* Killed between its record and the pause, and nobody can say that COMMIT was never sent. */
	if (here && s->src == MIG_IN_DOUBT && (s->d_lost || !s->d_boot) &&
	    r->may_resolve(place, false))
		return NULL;
	if (here && !there && strcmp(owner, "source") != 0)
		return "it runs at the source, and the job says otherwise";
	if (there && !here && !strcmp(owner, "source"))
		return "it runs at the destination, and the job says otherwise";
	if (here || there || s->g_src == COPY_DEAD || s->g_src == COPY_ENDED)
		return NULL;
	/* Paused at the source. */
	if (!r->may_resolve(place, false))
		return "it runs nowhere, and nobody can do anything about it";
	if (s->g_dst == COPY_DEAD || s->d_lost || !s->d_boot)
		return NULL;
	return "it runs nowhere, although nothing was lost for good";
}

/* --- stories --- */

static void tell(FILE *f, const struct walk *w, uint32_t at)
{
	if (w->places[at].from)
		tell(f, w, w->places[at].from);
	if (w->places[at].what)
		fprintf(f, "  %s\n", w->places[at].what);
}

static void describe(FILE *f, const struct sys *s)
{
	static const char *const copies[] = {"absent",  "running", "paused",
					     "stopped", "ended",   "dead"};

	fprintf(f, "  = source %s%s, its copy %s; destination %s%s, its copy %s\n",
		s->s_up ? mig_state_name((enum mig_state)s->src) : "down",
		s->committed ? " (committed)" : "", copies[s->g_src],
		!s->d_up                 ? "down"
		: s->dst == MODEL_ABSENT ? "without a session"
					 : inc_state_name((enum inc_state)s->dst),
		s->d_boot ? "" : " (rebooted)", copies[s->g_dst]);
}

static void report(struct walk *w, const char *what, uint32_t at, const char *last,
		   const struct sys *s)
{
	size_t n = 0;
	FILE *f;

	if (w->result.wrong)
		return;
	w->result.wrong = what;
	f = open_memstream(&w->result.trace, &n);
	tell(f, w, at);
	if (last)
		fprintf(f, "  %s\n", last);
	describe(f, s);
	fclose(f);
}

static void found(void *arg, const struct sys *s, const char *what)
{
	struct walk *w = arg;
	const char *bad;
	uint64_t h;

	w->result.steps++;
	if (w->n + 1 >= w->cap)
		grow(w);
	h = hash(s) & w->mask;
	while (w->table[h]) {
		if (!memcmp(&w->places[w->table[h]].s, s, sizeof(*s)))
			return;
		h = (h + 1) & w->mask;
	}
	w->places[++w->n] = (struct place){*s, w->at, what};
	w->table[h] = (uint32_t)w->n;
	bad = wrong(s);
	if (bad)
		report(w, bad, (uint32_t)w->n, NULL, s);
}

/** struct quiet - the first thing that can happen by itself */
struct quiet {
	struct sys s;
	bool any;
};

static void first(void *arg, const struct sys *s, const char *what)
{
	struct quiet *q = arg;

	(void)what;
	if (q->any)
		return;
	q->s = *s;
	q->any = true;
}

/* More than any history needs to come to rest; who asks in vain asks for ever. */
#define QUIET_STEPS 200

static const char *settles(const struct rules *r, const struct sys *s, struct sys *ret)
{
	struct sys now = *s;
	const char *bad;

	for (int i = 0; i < QUIET_STEPS; i++) {
		struct quiet q = {0};

		model_by_itself(r, &now, first, &q);
		if (!q.any)
			break;
		now = q.s;
		bad = wrong(&now);
		*ret = now;
		if (bad)
			return bad;
	}
	*ret = now;
	return stuck(r, &now);
}

struct result model_walk(const struct rules *r, const struct bounds *b)
{
	struct walk w = {.rules = r};
	struct sys s = model_first(b), end;
	struct result result;
	const char *bad;

	found(&w, &s, NULL);
	for (uint64_t i = 1; i <= w.n && !w.result.wrong; i++) {
		s = w.places[i].s;
		w.at = (uint32_t)i;
		model_by_itself(r, &s, found, &w);
		model_out_of_turn(r, &s, found, &w);
		bad = w.result.wrong ? NULL : settles(r, &s, &end);
		if (bad)
			report(&w, bad, (uint32_t)i, "… and then nothing goes wrong any more",
			       &end);
	}
	result = w.result;
	result.states = w.n;
	free(w.places);
	free(w.table);
	return result;
}
