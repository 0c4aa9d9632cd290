/* SPDX-License-Identifier: Apache-2.0 */
/* The model's connection, its disks, and what goes wrong with either. */
#include <assert.h>
#include <string.h>
#include "lib/model_priv.h"

struct sys model_first(const struct bounds *b)
{
	return (struct sys){
		.src = MIG_PRECOPY,
		.s_up = 1,
		.s_last = MIG_REC_CREATED,
		.s_synced = MIG_REC_CREATED,
		.g_src = COPY_RUNNING,
		.dst = INC_ADVISE,
		.d_up = 1,
		.d_rec = HISTORY_SETUP,
		.d_synced = HISTORY_SETUP,
		.d_boot = 1,
		.g_dst = COPY_PAUSED,
		.up = 1,
		.left = *b,
	};
}

/* --- disks --- */

void model_src_note(struct sys *s, enum mig_record rec, bool sync)
{
	s->s_last = (uint8_t)rec;
	if (sync)
		s->s_synced = s->s_last;
}

void model_dst_note(struct sys *s, enum history_fate fate, bool sync)
{
	s->d_rec = (uint8_t)fate;
	if (sync)
		s->d_synced = s->d_rec;
}

/* --- the session's connection --- */

static void clear(uint8_t *queue, uint8_t *n)
{
	*n = 0;
	memset(queue, 0, MODEL_QUEUE);
}

static uint8_t pop(uint8_t *queue, uint8_t *n)
{
	uint8_t type = queue[0];

	memmove(queue, queue + 1, --*n);
	queue[*n] = 0;
	return type;
}

void model_send(struct sys *s, uint8_t type)
{
	assert(s->nto < MODEL_QUEUE);
	if (!s->s_closed && s->up)
		s->to[s->nto++] = type;
}

void model_say(struct sys *s, uint8_t type)
{
	assert(s->nfrom < MODEL_QUEUE);
	if (!s->d_closed && s->up)
		s->from[s->nfrom++] = type;
}

void model_close_src(struct sys *s)
{
	s->s_closed = 1;
	s->up = 0;
	clear(s->from, &s->nfrom);
}

void model_close_dst(struct sys *s)
{
	s->d_closed = 1;
	s->up = 0;
	clear(s->to, &s->nto);
}

static void deliver(const struct rules *r, const struct sys *s, model_fn *fn, void *arg)
{
	struct sys next = *s;
	uint8_t type;

	if (s->nfrom && !s->s_closed && s->s_up && !s->s_due) {
		type = pop(next.from, &next.nfrom);
		model_src_takes(r, next, type, fn, arg);
	}
	next = *s;
	if (s->nto && !s->d_closed && s->d_up && !s->d_due) {
		type = pop(next.to, &next.nto);
		model_dst_takes(r, next, type, fn, arg);
	}
}

/* Each side hears first what had come through. */
static void notice(const struct rules *r, const struct sys *s, model_fn *fn, void *arg)
{
	struct sys next = *s;

	if (!s->up && !s->s_closed && s->s_up && !s->s_due && !s->nfrom) {
		model_close_src(&next);
		model_src_event(r, &next, MIG_EV_LOST);
		fn(arg, &next, "the source notices that the connection is lost");
	}
	next = *s;
	if (!s->up && !s->d_closed && s->d_up && !s->d_due && !s->nto) {
		model_close_dst(&next);
		model_dst_event(&next, INC_EV_LOST);
		fn(arg, &next, "the destination notices that the connection is lost");
	}
}

static void start(const struct rules *r, const struct sys *s, model_fn *fn, void *arg)
{
	struct sys next = *s;

	if (!s->s_up) {
		model_src_starts(r, &next);
		fn(arg, &next, "the source's agent is started again");
	}
	next = *s;
	if (!s->d_up) {
		model_dst_starts(r, &next);
		fn(arg, &next, "the destination's agent is started again");
	}
}

void model_by_itself(const struct rules *r, const struct sys *s, model_fn *fn, void *arg)
{
	start(r, s, fn, arg);
	deliver(r, s, fn, arg);
	notice(r, s, fn, arg);
	if (s->d_up)
		model_dst_alone(r, s, fn, arg);
	if (s->s_up)
		model_src_alone(r, s, fn, arg);
}

/* --- what goes wrong --- */

/* From some message on nothing arrives any more, in both directions. */
static void breaks(const struct sys *s, model_fn *fn, void *arg)
{
	struct sys next;

	if (!s->left.breaks || !s->up)
		return;
	for (uint8_t to = 0; to <= s->nto; to++)
		for (uint8_t from = 0; from <= s->nfrom; from++) {
			next = *s;
			next.left.breaks--;
			next.up = 0;
			next.nto = to;
			next.nfrom = from;
			memset(next.to + to, 0, (size_t)(MODEL_QUEUE - to));
			memset(next.from + from, 0, (size_t)(MODEL_QUEUE - from));
			fn(arg, &next, "the connection breaks");
		}
}

static void source_ends(struct sys *s)
{
	s->s_up = 0;
	s->s_due = DUE_NOTHING;
	model_close_src(s);
	s->ask = ASK_IDLE;
}

static void destination_ends(struct sys *s)
{
	s->d_up = 0;
	s->d_due = DUE_NOTHING;
	s->dst = MODEL_ABSENT;
	model_close_dst(s);
	if (s->ask != ASK_ANSWERED)
		s->ask = ASK_IDLE;
}

static bool lives(uint8_t copy)
{
	return copy == COPY_RUNNING || copy == COPY_PAUSED || copy == COPY_STOPPED;
}

static void hosts(const struct sys *s, model_fn *fn, void *arg)
{
	struct sys next = *s;

	if (s->left.s_boots) {
		next.left.s_boots--;
		source_ends(&next);
		next.s_last = next.s_synced;
		next.g_src = lives(next.g_src) ? COPY_DEAD : next.g_src;
		fn(arg, &next, "the source's host is started again");
	}
	next = *s;
	if (s->left.d_boots) {
		next.left.d_boots--;
		destination_ends(&next);
		next.d_rec = next.d_synced;
		next.d_boot = 0;
		next.g_dst = lives(next.g_dst) ? COPY_DEAD : next.g_dst;
		fn(arg, &next, "the destination's host is started again");
	}
}

static void agents(const struct sys *s, model_fn *fn, void *arg)
{
	struct sys next = *s;

	if (s->left.s_kills && s->s_up) {
		next.left.s_kills--;
		source_ends(&next);
		fn(arg, &next, "the source's agent is killed");
	}
	next = *s;
	if (s->left.d_kills && s->d_up) {
		next.left.d_kills--;
		destination_ends(&next);
		fn(arg, &next, "the destination's agent is killed");
	}
	next = *s;
	if (s->left.losses && !s->d_up && s->d_rec != MODEL_NO_RECORD) {
		next.left.losses--;
		next.d_rec = next.d_synced = MODEL_NO_RECORD;
		next.d_lost = 1;
		fn(arg, &next, "the destination's journal is lost");
	}
}

static void deaths(const struct sys *s, model_fn *fn, void *arg)
{
	struct sys next = *s;

	if (!s->left.deaths || s->d_due || !lives(s->g_dst))
		return;
	next.left.deaths--;
	next.g_dst = COPY_DEAD;
	if (next.d_up && next.dst != MODEL_ABSENT)
		model_dst_event(&next, INC_EV_GONE);
	fn(arg, &next, "the guest dies at the destination");
}

void model_out_of_turn(const struct rules *r, const struct sys *s, model_fn *fn, void *arg)
{
	struct sys next = *s;

	breaks(s, fn, arg);
	agents(s, fn, arg);
	hosts(s, fn, arg);
	deaths(s, fn, arg);
	if (s->left.breaks && s->ask != ASK_IDLE && s->ask != ASK_ABORTING) {
		next.left.breaks--;
		next.ask = ASK_IDLE;
		fn(arg, &next, "the question or its answer is lost");
	}
	next = *s;
	if (s->left.orders && s->s_up && !s->s_due && model_src_event(r, &next, MIG_EV_CANCEL)) {
		next.left.orders--;
		fn(arg, &next, "an operator cancels");
	}
	if (s->left.orders && s->s_up && !s->s_due)
		model_src_resolves(r, s, fn, arg);
}
