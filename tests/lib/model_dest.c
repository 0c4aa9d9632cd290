/* SPDX-License-Identifier: Apache-2.0 */
/* The model's destination: handover.c, settle.c, listen_peer.c, incoming.c, overrule.c, history.c, adopt.c. */
#include <assert.h>
#include "lib/model_priv.h"

bool model_dst_event(struct sys *s, enum inc_event ev)
{
	const struct inc_step *step =
		s->dst == MODEL_ABSENT ? NULL : inc_step_find((enum inc_state)s->dst, ev);

	if (!step)
		return false;
	s->dst = (uint8_t)step->next;
	switch (step->action) {
	case INC_ACT_RUN:
		s->d_due = DUE_LET_GO;
		break;
	case INC_ACT_DISCARD_GUEST:
		s->d_due = ev == INC_EV_ABORT ? DUE_ABORT_NOTE : DUE_FAIL_NOTE;
		break;
	case INC_ACT_HOLD:
		model_close_dst(s);
		break;
	case INC_ACT_SETTLE:
		s->d_due = DUE_SETTLE_NOTE;
		break;
	case INC_ACT_BURY:
		s->d_due = DUE_BURY_NOTE;
		break;
	default:
		break;
	}
	return true;
}

/* --- steps --- */

static void give_up(const struct rules *r, struct sys *s)
{
	assert(doubt_may_follow((enum history_fate)s->d_rec, HISTORY_ABORTED) ||
	       s->d_rec == HISTORY_ABORTED);
	if (!r->no_aborted)
		model_dst_note(s, HISTORY_ABORTED, !r->aborted_unsynced);
}

static void let_go(struct sys *s)
{
	if (s->g_dst != COPY_PAUSED || s->d_over)
		return;
	s->g_dst = COPY_RUNNING;
	s->ran = 1;
}

static enum msg_answer answer(const struct rules *r, const struct sys *s)
{
	return s->d_rec == MODEL_NO_RECORD ? MSG_ANSWER_UNKNOWN
					   : r->answer((enum history_fate)s->d_rec, s->d_boot);
}

/* The channel ends behind it; what is under way to the source still arrives. */
static void say_error(struct sys *s)
{
	model_say(s, MSG_ERROR);
	if (!s->d_closed)
		model_close_dst(s);
}

static const char *gives_up(const struct rules *r, struct sys *s)
{
	if (s->d_due == DUE_ABORT_NOTE || s->d_due == DUE_FAIL_NOTE) {
		give_up(r, s);
		if (s->d_due == DUE_FAIL_NOTE)
			say_error(s);
		s->d_due = DUE_ABORT_KILL;
		return "the destination records that it never ran here and never will";
	}
	if (s->d_due == DUE_ABORT_KILL) {
		s->g_dst = s->g_dst == COPY_PAUSED ? COPY_ENDED : s->g_dst;
		s->d_due = DUE_ABORT_SAY;
		return "the destination ends its copy";
	}
	s->d_due = DUE_NOTHING;
	model_say(s, MSG_ABORTED);
	if (s->ask == ASK_ABORTING) {
		s->answer = (uint8_t)answer(r, s);
		s->ask = ASK_ANSWERED;
	}
	return "the destination says so";
}

static const char *does(const struct rules *r, struct sys *s)
{
	switch (s->d_due) {
	case DUE_FAIL_NOTE:
	case DUE_ABORT_NOTE:
	case DUE_ABORT_KILL:
	case DUE_ABORT_SAY:
		return gives_up(r, s);
	case DUE_ACK_INTENT:
		s->d_due = DUE_NOTHING;
		model_say(s, MSG_INTENT_ACK);
		return "the destination answers INTENT";
	case DUE_LET_GO:
		let_go(s);
		s->d_due = DUE_SAY_RUNNING;
		return "the destination lets the guest go";
	case DUE_SAY_RUNNING:
		if (r->run_before_owner && s->d_rec == HISTORY_MAY_OWN)
			model_dst_note(s, HISTORY_OWNER, false);
		model_say(s, MSG_RUNNING);
		s->d_due = DUE_SYNC;
		return "the destination says that it runs";
	case DUE_SYNC:
		s->d_synced = s->d_rec;
		s->d_due = DUE_NOTHING;
		return "the destination syncs its journal";
	case DUE_SETTLE_NOTE:
		model_dst_note(s, HISTORY_COMPLETED, true);
		s->d_due = DUE_SETTLE_SAY;
		return "the destination records that it has all pages";
	case DUE_SETTLE_SAY:
		model_say(s, MSG_RECEIPT);
		s->d_due = DUE_NOTHING;
		return "the destination sends RECEIPT";
	case DUE_BURY_NOTE:
		model_dst_note(s, HISTORY_GONE, true);
		s->d_due = DUE_BURY_SAY;
		return "the destination records that the guest has died";
	case DUE_BURY_SAY:
		say_error(s);
		s->d_due = DUE_NOTHING;
		return "the destination says that the guest has died";
	default:
		/* A process that has ended cannot be stopped. */
		s->loud = 1;
		s->answer = MSG_ANSWER_GONE;
		if (s->g_dst == COPY_RUNNING || s->g_dst == COPY_PAUSED ||
		    s->g_dst == COPY_STOPPED) {
			s->g_dst = COPY_STOPPED;
			s->answer = s->d_rec == HISTORY_COMPLETED ? MSG_ANSWER_COMPLETED
								  : MSG_ANSWER_RUNNING;
		}
		s->ask = ASK_ANSWERED;
		s->d_due = DUE_NOTHING;
		return "the destination stops its copy, and reports a conflict";
	}
}

/* --- messages --- */

/* SWITCH, LISTEN, STATE and STATE_END, and the guest takes its state. */
static void load(struct sys *s)
{
	static const enum inc_event events[] = {INC_EV_SWITCH, INC_EV_LISTEN, INC_EV_LOADED};

	for (size_t i = 0; i < sizeof(events) / sizeof(events[0]); i++)
		model_dst_event(s, events[i]);
	model_say(s, MSG_READY);
}

void model_dst_takes(const struct rules *r, struct sys s, uint8_t type, model_fn *fn, void *arg)
{
	if (s.dst == INC_END || s.dst == MODEL_ABSENT) {
		fn(arg, &s, "a message reaches a destination that has no use for it");
		return;
	}
	switch (type) {
	case MSG_INTENT:
		if (!r->no_may_own)
			model_dst_note(&s, HISTORY_MAY_OWN, true);
		s.d_due = DUE_ACK_INTENT;
		fn(arg, &s, "INTENT arrives, \"may own\" is recorded");
		return;
	case MSG_STATE_END:
		load(&s);
		fn(arg, &s, "the guest's state arrives; READY");
		return;
	case MSG_COMMIT:
		if (!r->run_before_owner && !r->no_may_own) {
			assert(doubt_may_follow((enum history_fate)s.d_rec, HISTORY_OWNER));
			model_dst_note(&s, HISTORY_OWNER, false);
		} else if (r->no_may_own) {
			model_dst_note(&s, HISTORY_OWNER, false);
		}
		model_dst_event(&s, INC_EV_COMMIT);
		fn(arg, &s, "COMMIT arrives, \"owner\" is written");
		return;
	default:
		model_dst_event(&s, INC_EV_ABORT);
		fn(arg, &s, "ABORT arrives");
		return;
	}
}

bool model_dst_resumes(struct sys *s)
{
	if (!s->d_up || s->d_due || s->d_over || (s->dst != INC_RUNNING && s->dst != INC_HELD))
		return false;
	if (s->dst == INC_RUNNING)
		model_dst_event(s, INC_EV_LOST);
	model_close_dst(s);
	model_close_src(s);
	s->up = 1;
	s->s_closed = s->d_closed = 0;
	return model_dst_event(s, INC_EV_RESUME);
}

/* --- questions --- */

static void abort_for(struct sys *s)
{
	model_close_dst(s);
	model_dst_event(s, INC_EV_LOST);
	s->ask = ASK_ABORTING;
}

static const char *kept(const struct rules *r, struct sys *s)
{
	enum doubt_kept what = r->kept((enum history_fate)s->d_rec, s->d_boot);

	s->ask = ASK_ANSWERED;
	s->answer = MSG_ANSWER_NOT_STARTED;
	switch (what) {
	case DOUBT_KEPT_NOTHING:
		return "KEPT arrives: it never ran";
	case DOUBT_KEPT_ABORT:
		model_dst_note(s, HISTORY_ABORTED, true);
		return "KEPT arrives: it cannot have run, and \"aborted\" is recorded";
	case DOUBT_KEPT_DEAD:
		if (doubt_may_follow((enum history_fate)s->d_rec, HISTORY_GONE))
			model_dst_note(s, HISTORY_GONE, true);
		s->answer = MSG_ANSWER_GONE;
		return "KEPT arrives: it has died";
	default:
		s->d_over = 1;
		s->ask = ASK_ABORTING;
		s->d_due = DUE_STOP;
		return "KEPT arrives: it runs, and \"overruled\" is recorded";
	}
}

static void hears(const struct rules *r, struct sys s, model_fn *fn, void *arg)
{
	const char *what = "the destination answers";

	if (s.dst != MODEL_ABSENT && r->abort_when_asked((enum inc_state)s.dst)) {
		abort_for(&s);
		what = "the destination is asked, and gives up what is before COMMIT";
	} else if (s.ask == ASK_QUERY) {
		s.answer = (uint8_t)answer(r, &s);
		s.ask = ASK_ANSWERED;
	} else if (s.d_rec == MODEL_NO_RECORD) {
		s.answer = MSG_ANSWER_UNKNOWN;
		s.ask = ASK_ANSWERED;
	} else {
		what = kept(r, &s);
	}
	fn(arg, &s, what);
}

void model_dst_alone(const struct rules *r, const struct sys *s, model_fn *fn, void *arg)
{
	struct sys next = *s;
	const char *what;

	if (s->d_due) {
		what = does(r, &next);
		fn(arg, &next, what);
		return;
	}
	if (s->ask == ASK_QUERY || s->ask == ASK_KEPT)
		hears(r, next, fn, arg);
	if (s->dst == INC_RUNNING && s->src == MIG_POSTCOPY && s->up && !s->full) {
		next = *s;
		next.full = 1;
		fn(arg, &next, "the last page arrives");
	}
	if (s->full && s->g_dst == COPY_RUNNING && (s->dst == INC_RUNNING || s->dst == INC_HELD)) {
		next = *s;
		model_dst_event(&next, INC_EV_ACCOUNTED);
		fn(arg, &next, "all pages are accounted for");
	}
}

/* --- the start --- */

void model_dst_starts(const struct rules *r, struct sys *s)
{
	enum history_fate fate = (enum history_fate)s->d_rec;

	s->d_up = 1;
	if (s->d_rec == MODEL_NO_RECORD)
		return;
	if (r->abort_at_start(fate, s->d_boot))
		give_up(r, s);
	if (s->d_rec == HISTORY_ABORTED && s->g_dst == COPY_PAUSED)
		s->g_dst = COPY_ENDED;
	if (!r->mine(fate, s->d_boot, s->d_over) || fate != HISTORY_OWNER)
		return;
	if (s->g_dst == COPY_DEAD) {
		model_dst_note(s, HISTORY_GONE, true);
		return;
	}
	s->dst = INC_HELD;
	if (s->g_dst == COPY_PAUSED)
		s->d_due = DUE_LET_GO;
}
