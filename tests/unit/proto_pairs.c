/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Both state machines together, with a channel between them that may break at any moment: every
 * situation that can come about is walked through. What must hold in all of them: the guest runs
 * in one place at most; a peer that keeps the rules is never told that its message is unexpected;
 * the pairs of states that meet are exactly those of PROTOCOL.md.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include "msg.h"
#include "proto_tables.h"
#include "state.h"
#include "util/cleanup.h"
#include "util/log.h"

#define ABSENT    INC_STATE_COUNT_
#define QUEUE_MAX 16
#define SYS_MAX   65536

/* How the destination came to its end: it decides what an ANSWER says. */
enum ended { NOT_ENDED, ABORTED, ACCOUNTED, BURIED, STORED };

/**
 * struct sys - one situation; compared as bytes
 * @src, @dst:	the states; @dst is ABSENT before there is a session
 * @up:		the control channel can carry what is sent
 * @src_closed, @dst_closed: that side has noticed its end, or ended it
 * @sent:	how far the source came in the switch-over
 * @complete:	COMPLETE has arrived
 * @snapshot:	the job stores an image; STORE stands for all of STORE, SETUP and BLOCK
 * @committed:	COMMIT may have been sent and was not answered by not-started
 * @again:	a session was made again of which the destination has not heard: what it says goes nowhere
 * @to, @from:	messages under way to and from the destination
 */
struct sys {
	uint8_t src, dst, ended, up, src_closed, dst_closed, sent, complete, committed, snapshot,
		again;
	uint8_t nto, nfrom;
	uint8_t to[QUEUE_MAX], from[QUEUE_MAX];
};

/**
 * struct walk - all situations that were found
 * @quiet:	no client, no guest and no agent does anything out of turn
 */
struct walk {
	bool quiet;
	struct sys *seen;
	size_t n;
	bool met[MIG_STATE_COUNT_][INC_STATE_COUNT_ + 1];
};

/* What the source sends between precopy and COMMIT; 0 is the wait for INTENT_ACK. */
static const uint8_t switchover[] = {MSG_DISCARD, MSG_INTENT, 0,         MSG_SWITCH,
				     MSG_DISCARD, MSG_LISTEN, MSG_STATE, MSG_STATE_END};

static void push(uint8_t *queue, uint8_t *n, uint8_t type)
{
	cr_assert_lt(*n, QUEUE_MAX);
	queue[(*n)++] = type;
}

static uint8_t pop(uint8_t *queue, uint8_t *n)
{
	uint8_t type = queue[0];

	memmove(queue, queue + 1, --*n);
	queue[*n] = 0;
	return type;
}

static void src_send(struct sys *s, uint8_t type)
{
	if (!s->src_closed)
		push(s->to, &s->nto, type);
}

static void dst_send(struct sys *s, uint8_t type)
{
	if (!s->dst_closed && !s->again)
		push(s->from, &s->nfrom, type);
}

/* One side lets go: what was under way to it is lost, the other will notice. */
static void src_close(struct sys *s)
{
	s->src_closed = 1;
	s->up = 0;
	if (s->again) {
		/* It may never hear of it. */
		s->again = 0;
		s->nto = 0;
		memset(s->to, 0, sizeof(s->to));
	}
	s->nfrom = 0;
	memset(s->from, 0, sizeof(s->from));
}

static void dst_close(struct sys *s)
{
	if (s->again)
		return; /* that was the old one */
	s->dst_closed = 1;
	s->up = 0;
	s->nto = 0;
	memset(s->to, 0, sizeof(s->to));
}

static bool runs_at_source(const struct sys *s)
{
	switch (s->src) {
	case MIG_QUEUED:
	case MIG_SETUP:
	case MIG_PRECOPY:
	case MIG_INTERRUPTED:
	case MIG_REJOINING:
	case MIG_SWITCHOVER:
	case MIG_CANCELLING:
	case MIG_CANCELLED:
	case MIG_FAILING:
	case MIG_SAVING:
		return true;
	case MIG_FAILED:
		return !s->committed;
	default:
		return false;
	}
}

static bool ran_at_destination(const struct sys *s)
{
	return s->dst == INC_RUNNING || s->dst == INC_HELD ||
	       (s->dst == INC_END && s->ended != ABORTED && s->ended != STORED);
}

static void found(struct walk *w, const struct sys *s)
{
	for (size_t i = 0; i < w->n; i++)
		if (!memcmp(&w->seen[i], s, sizeof(*s)))
			return;
	cr_assert_lt(w->n, SYS_MAX);
	cr_assert_not(runs_at_source(s) && ran_at_destination(s), "twice: %s and %s",
		      mig_state_name(s->src), inc_state_name(s->dst));
	w->met[s->src][s->dst] = true;
	w->seen[w->n++] = *s;
}

/* An event at the source, with what its action does to the channel. Return: whether it was legal */
static bool src_event(struct walk *w, struct sys s, enum mig_event ev)
{
	enum mig_state state = s.src;
	const struct mig_step *step;

	if (mig_state_apply(&state, ev, &step) < 0)
		return false;
	s.src = state;
	switch (step->action) {
	case MIG_ACT_SETUP:
		s.dst = INC_NONE;
		s.up = 1;
		src_send(&s, s.snapshot ? MSG_STORE : MSG_SETUP);
		break;
	case MIG_ACT_COMMIT:
		s.committed = 1;
		src_send(&s, MSG_COMMIT);
		break;
	case MIG_ACT_REJOIN:
	case MIG_ACT_RECOVER:
		s.up = 1;
		s.again = 1;
		s.src_closed = 0;
		s.dst_closed = 0;
		s.nto = s.nfrom = 0;
		memset(s.to, 0, sizeof(s.to));
		memset(s.from, 0, sizeof(s.from));
		src_send(&s, MSG_RESUME);
		break;
	case MIG_ACT_RESUME:
		src_send(&s, MSG_CONTINUE);
		src_send(&s, MSG_COMPLETE);
		break;
	case MIG_ACT_GO_ON:
		src_send(&s, MSG_CONTINUE);
		break;
	case MIG_ACT_SAVE:
	case MIG_ACT_POSTCOPY:
		src_send(&s, MSG_COMPLETE);
		break;
	case MIG_ACT_ROLLBACK:
		s.committed = 0;
		src_send(&s, MSG_ABORT);
		break;
	case MIG_ACT_INTERRUPT:
	case MIG_ACT_ASK:
	case MIG_ACT_HOLD:
	case MIG_ACT_ABANDON:
	case MIG_ACT_RELEASE:
	case MIG_ACT_FINISH:
		if (s.dst != ABSENT)
			src_close(&s);
		break;
	default:
		break;
	}
	found(w, &s);
	return true;
}

static bool dst_event(struct walk *w, struct sys s, enum inc_event ev)
{
	enum inc_state state = s.dst;
	const struct inc_step *step;

	if (inc_state_apply(&state, ev, &step) < 0)
		return false;
	s.dst = state;
	switch (step->action) {
	case INC_ACT_STORED:
		s.ended = STORED;
		dst_send(&s, MSG_RECEIPT);
		break;
	case INC_ACT_STORE:
	case INC_ACT_PREPARE:
		dst_send(&s, MSG_PREPARED);
		break;
	case INC_ACT_READY:
		dst_send(&s, MSG_READY);
		break;
	case INC_ACT_RUN:
		dst_send(&s, MSG_RUNNING);
		break;
	case INC_ACT_RESUME:
		s.complete = 0;
		dst_send(&s, MSG_RECEIVED);
		dst_send(&s, MSG_RESUMED);
		break;
	case INC_ACT_SETTLE:
		s.ended = ACCOUNTED;
		dst_send(&s, MSG_RECEIPT);
		break;
	case INC_ACT_BURY:
		s.ended = BURIED;
		break;
	case INC_ACT_DISCARD_GUEST:
		s.ended = ABORTED;
		if (ev == INC_EV_ABORT)
			dst_send(&s, MSG_ABORTED);
		break;
	default:
		break;
	}
	if (ev == INC_EV_FAIL || ev == INC_EV_GONE)
		dst_send(&s, MSG_ERROR);
	if (ev == INC_EV_FAIL || ev == INC_EV_GONE || ev == INC_EV_LOST || ev == INC_EV_BROKEN)
		dst_close(&s);
	found(w, &s);
	return true;
}

static void deliver_to_source(struct walk *w, struct sys s)
{
	uint8_t type = pop(s.from, &s.nfrom);
	int r;

	if (type == MSG_ERROR) {
		bool another =
			(s.src == MIG_POSTCOPY || s.src == MIG_RECOVERING) && s.ended != BURIED;

		src_close(&s);
		if (!src_event(w, s, another ? MIG_EV_LOST : MIG_EV_ERROR))
			found(w, &s);
		return;
	}
	r = mig_state_check_msg(s.src, type, NULL);
	cr_assert_geq(r, 0, "%s in %s", msg_type_name(type), mig_state_name(s.src));
	if (r == 1)
		found(w, &s);
	else if (type == MSG_INTENT_ACK) {
		s.sent++;
		found(w, &s);
	} else if (type == MSG_RECEIVED)
		found(w, &s);
	else if (type == MSG_RESUMED)
		cr_assert(src_event(w, s, MIG_EV_RESUMED));
	else if (type == MSG_PREPARED)
		cr_assert(src_event(w, s, s.snapshot ? MIG_EV_SNAPSHOT : MIG_EV_PREPARED));
	else if (type == MSG_READY)
		cr_assert(src_event(w, s, MIG_EV_READY));
	else if (type == MSG_RUNNING)
		cr_assert(src_event(w, s, MIG_EV_RUNNING));
	else if (type == MSG_RECEIPT)
		cr_assert(src_event(w, s, MIG_EV_RECEIPT));
	else if (type == MSG_ABORTED)
		cr_assert(src_event(w, s, MIG_EV_ROLLED_BACK));
	else
		cr_assert_fail("%s", msg_type_name(type));
}

/* On a channel of its own. What is left of the old session goes before it. */
static void deliver_resume(struct walk *w, struct sys s)
{
	enum inc_state state = s.dst;
	const struct inc_step *step;

	if ((s.dst == INC_RUNNING || s.dst == INC_ADVISE) && s.again) {
		enum inc_event ev = s.dst == INC_ADVISE ? INC_EV_BROKEN : INC_EV_LOST;

		cr_assert_eq(inc_state_apply(&state, ev, &step), 0);
		s.dst = state;
	}
	s.again = 0;
	if (s.dst == INC_HELD || s.dst == INC_WAITING) {
		cr_assert_eq(inc_state_check_msg(s.dst, MSG_RESUME, NULL), 0);
		cr_assert(dst_event(w, s, INC_EV_RESUME));
		return;
	}
	cr_assert_eq(s.dst, INC_END, "%s", inc_state_name(s.dst));
	dst_send(&s, MSG_ERROR);
	dst_close(&s);
	found(w, &s);
}

static void deliver_to_destination(struct walk *w, struct sys s)
{
	static const struct {
		uint8_t type;
		enum inc_event event;
	} events[] = {
		{MSG_SETUP, INC_EV_SETUP},   {MSG_SWITCH, INC_EV_SWITCH},
		{MSG_LISTEN, INC_EV_LISTEN}, {MSG_STATE_END, INC_EV_LOADED},
		{MSG_COMMIT, INC_EV_COMMIT}, {MSG_ABORT, INC_EV_ABORT},
		{MSG_STORE, INC_EV_STORE},
	};
	uint8_t type = pop(s.to, &s.nto);

	if (type == MSG_RESUME) {
		deliver_resume(w, s);
		return;
	}
	if (s.dst == INC_END) { /* nobody is listening any more */
		found(w, &s);
		return;
	}
	cr_assert_eq(inc_state_check_msg(s.dst, type, NULL), 0, "%s in %s", msg_type_name(type),
		     inc_state_name(s.dst));
	for (size_t i = 0; i < ARRAY_SIZE(events); i++)
		if (events[i].type == type) {
			cr_assert(dst_event(w, s, events[i].event));
			return;
		}
	if (type == MSG_INTENT)
		dst_send(&s, MSG_INTENT_ACK);
	if (type == MSG_COMPLETE)
		s.complete = 1;
	found(w, &s);
}

/* What the source asks a destination that it lost, and what it is told. */
static void ask(struct walk *w, const struct sys *s)
{
	if (s->src == MIG_INTERRUPTED)
		src_event(w, *s, MIG_EV_RETRY);
	if (s->src != MIG_IN_DOUBT && s->src != MIG_PAUSED)
		return;
	if (s->dst == INC_END && s->ended == ABORTED)
		src_event(w, *s, MIG_EV_NOT_STARTED);
	if (s->dst == INC_END && s->ended == ACCOUNTED)
		src_event(w, *s, MIG_EV_RECEIPT);
	if (s->dst == INC_RUNNING || s->dst == INC_HELD ||
	    (s->dst == INC_END && s->ended == BURIED))
		src_event(w, *s, MIG_EV_RUNNING);
}

/* What happens by itself at the source: clients, its guest, its own errors, time. */
static void source_alone(struct walk *w, const struct sys *s)
{
	static const enum mig_event any[] = {MIG_EV_START, MIG_EV_CONVERGED, MIG_EV_CANCEL,
					     MIG_EV_GONE, MIG_EV_ERROR};
	struct sys next = *s;

	for (size_t i = 0; i < (w->quiet ? 2 : ARRAY_SIZE(any)); i++)
		src_event(w, *s, any[i]);
	if (s->src == MIG_SWITCHOVER && s->sent < sizeof(switchover) && switchover[s->sent] &&
	    !s->src_closed) {
		src_send(&next, switchover[next.sent++]);
		found(w, &next);
	}
	/* Nobody waits for ABORTED for ever. */
	if (s->src == MIG_CANCELLING || s->src == MIG_FAILING)
		src_event(w, *s, MIG_EV_ROLLED_BACK);
	ask(w, s);
}

static void destination_alone(struct walk *w, const struct sys *s)
{
	if (s->dst == ABSENT)
		return;
	if (!s->dst_closed && !w->quiet)
		dst_event(w, *s, INC_EV_FAIL);
	if (!w->quiet)
		dst_event(w, *s, INC_EV_GONE);
	/* Nothing is kept for ever. */
	if (s->dst == INC_WAITING)
		dst_event(w, *s, INC_EV_LOST);
	if (s->complete && !s->snapshot)
		dst_event(w, *s, INC_EV_ACCOUNTED);
	if (s->complete && s->snapshot)
		dst_event(w, *s, INC_EV_STORED);
}

/* The channel breaks; each side notices when it does, or hears first what had come through. */
static void channel_alone(struct walk *w, const struct sys *s)
{
	struct sys next = *s;

	if (s->dst == ABSENT)
		return;
	if (s->up) {
		next.up = 0;
		found(w, &next);
		return;
	}
	if (!s->src_closed) {
		src_close(&next);
		if (s->src == MIG_PRECOPY)
			src_event(w, next, MIG_EV_BROKEN);
		if (!src_event(w, next, MIG_EV_LOST))
			found(w, &next);
	}
	next = *s;
	if (!s->dst_closed && s->dst == INC_ADVISE)
		dst_event(w, next, INC_EV_BROKEN);
	if (!s->dst_closed && !dst_event(w, next, INC_EV_LOST)) {
		dst_close(&next);
		found(w, &next);
	}
}

static void step(struct walk *w, const struct sys *s)
{
	source_alone(w, s);
	destination_alone(w, s);
	channel_alone(w, s);
	if (s->nfrom && !s->src_closed)
		deliver_to_source(w, *s);
	if (s->nto && !s->dst_closed)
		deliver_to_destination(w, *s);
}

static void walk(struct walk *w)
{
	struct sys first = {.src = MIG_QUEUED, .dst = ABSENT};
	struct sys other = {.src = MIG_QUEUED, .dst = ABSENT, .snapshot = true};

	log_setup("error");
	found(w, &first);
	found(w, &other);
	for (size_t i = 0; i < w->n; i++) {
		struct sys s = w->seen[i];

		step(w, &s);
	}
}

/* "none, advise" or "–" into a row of @met. */
static void read_cell(const char *cell, bool met[INC_STATE_COUNT_ + 1])
{
	CLEANUP_FREE char *copy = strdup(cell);
	char *save = NULL;

	for (char *p = strtok_r(copy, ", ", &save); p; p = strtok_r(NULL, ", ", &save)) {
		int i = 0;

		while (i < INC_STATE_COUNT_ && strcmp(inc_state_name(i), p) != 0)
			i++;
		cr_assert(i < INC_STATE_COUNT_ || !strcmp(p, "–"), "no state %s", p);
		met[i] = true;
	}
}

Test(proto_pairs, what_can_come_about)
{
	struct walk w = {.seen = calloc(SYS_MAX, sizeof(*w.seen))};
	struct table t = table_read("### Which pairs may meet", 2);
	bool listed[MIG_STATE_COUNT_][INC_STATE_COUNT_ + 1] = {0};

	walk(&w);
	cr_assert_gt(w.n, 500);
	cr_assert_eq(t.n, MIG_STATE_COUNT_);
	for (size_t i = 0; i < t.n; i++)
		for (int s = 0; s < MIG_STATE_COUNT_; s++)
			if (!strcmp(mig_state_name(s), t.rows[i].cell[0]))
				read_cell(t.rows[i].cell[1], listed[s]);
	for (int s = 0; s < MIG_STATE_COUNT_; s++)
		for (int d = 0; d <= INC_STATE_COUNT_; d++)
			cr_assert_eq(w.met[s][d], listed[s][d], "%s beside %s: met %d, listed %d",
				     mig_state_name(s), d == ABSENT ? "–" : inc_state_name(d),
				     w.met[s][d], listed[s][d]);
	table_free(&t);
	free(w.seen);
}

/* Is there an edge from @s to a situation of which it is known that it can end? */
static bool leads_on(const struct walk *w, const bool *can_end, const struct sys *s)
{
	struct sys room[64];
	struct walk next = {.seen = room, .quiet = true};
	bool found_one = false;

	step(&next, s);
	cr_assert_leq(next.n, ARRAY_SIZE(room));
	for (size_t i = 0; i < next.n; i++)
		for (size_t j = 0; j < w->n; j++)
			found_one |= can_end[j] && !memcmp(&w->seen[j], &room[i], sizeof(*s));
	return found_one;
}

/*
 * From every situation the source comes to an end by messages, the loss of the channel, asking and not waiting for ever: nobody has to
 * cancel, and nothing has to go wrong besides.
 */
Test(proto_pairs, nothing_gets_stuck)
{
	struct walk w = {.seen = calloc(SYS_MAX, sizeof(*w.seen))};
	CLEANUP_FREE bool *can_end = NULL;
	bool more = true;

	walk(&w);
	can_end = calloc(w.n, sizeof(*can_end));
	for (size_t i = 0; i < w.n; i++)
		can_end[i] = mig_state_ended(w.seen[i].src);
	while (more) {
		more = false;
		for (size_t i = 0; i < w.n; i++)
			if (!can_end[i] && leads_on(&w, can_end, &w.seen[i]))
				more = can_end[i] = true;
	}
	for (size_t i = 0; i < w.n; i++)
		cr_assert(can_end[i], "%s beside %s", mig_state_name(w.seen[i].src),
			  inc_state_name(w.seen[i].dst));
	free(w.seen);
}
