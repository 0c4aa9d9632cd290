/* SPDX-License-Identifier: Apache-2.0 */
/* The model's source: mig_switch.c, mig_doubt.c, mig_end.c, mig_resolve.c, mig_journal.c. */
#include "lib/model_priv.h"

static bool ended(const struct sys *s)
{
	return mig_state_ended((enum mig_state)s->src);
}

static bool telling(const struct sys *s)
{
	return s->keep == MODEL_KEEP_SOURCE && !s->told && ended(s) && !s->committed;
}

/* --- the table, and what its actions begin --- */

bool model_src_event(const struct rules *r, struct sys *s, enum mig_event ev)
{
	const struct mig_step *step = ended(s) ? NULL : r->src_step((enum mig_state)s->src, ev);

	if (!step)
		return false;
	s->src = (uint8_t)step->next;
	switch (step->action) {
	case MIG_ACT_SWITCHOVER:
		if (!r->no_may_hand_over)
			model_src_note(s, MIG_REC_MAY_HAND_OVER, true);
		s->s_due = DUE_SEND_INTENT;
		break;
	case MIG_ACT_COMMIT:
		s->committed = 1;
		s->s_due = DUE_SEND_COMMIT;
		break;
	case MIG_ACT_POSTCOPY:
		s->s_due = r->quit_on_running ? DUE_RELEASE_QUIT : DUE_NOTE_RUNNING;
		break;
	case MIG_ACT_HOLD:
		model_close_src(s);
		s->s_due = DUE_NOTE_HELD;
		break;
	case MIG_ACT_ROLLBACK:
		s->committed = 0;
		s->s_due = DUE_ROLL_NOTE;
		break;
	case MIG_ACT_RELEASE:
		s->s_due = DUE_RELEASE_NOTE;
		break;
	case MIG_ACT_ASK:
	case MIG_ACT_ABANDON:
	case MIG_ACT_FINISH:
		model_close_src(s);
		break;
	default:
		break;
	}
	return true;
}

/* --- steps --- */

static const char *keeps(const struct rules *r, struct sys *s)
{
	if (s->s_due == DUE_KEEP_RESUME) {
		s->g_src = s->g_src == COPY_PAUSED ? COPY_RUNNING : s->g_src;
		s->s_due = DUE_KEEP_EVENT;
		return "the source lets the guest go, which an operator has kept there";
	}
	s->s_due = DUE_NOTHING;
	s->committed = 0;
	model_src_event(r, s, MIG_EV_KEEP_SOURCE);
	return "the source ends the job";
}

static const char *rolls_back(struct sys *s)
{
	switch (s->s_due) {
	case DUE_ROLL_NOTE:
		model_src_note(s, MIG_REC_ROLLED_BACK, true);
		s->s_due = DUE_ROLL_ABORT;
		return "the source records that it rolls back";
	case DUE_ROLL_ABORT:
		model_send(s, MSG_ABORT);
		s->s_due = DUE_ROLL_RESUME;
		return "the source sends ABORT";
	default:
		s->g_src = s->g_src == COPY_PAUSED ? COPY_RUNNING : s->g_src;
		s->s_due = DUE_NOTHING;
		return "the source lets the guest go";
	}
}

static const char *does(const struct rules *r, struct sys *s)
{
	uint8_t due = s->s_due;

	switch (due) {
	case DUE_ROLL_NOTE:
	case DUE_ROLL_ABORT:
	case DUE_ROLL_RESUME:
		return rolls_back(s);
	case DUE_KEEP_RESUME:
	case DUE_KEEP_EVENT:
		return keeps(r, s);
	case DUE_RELEASE_NOTE:
		model_src_note(s, MIG_REC_COMPLETED, true);
		s->s_due = DUE_RELEASE_QUIT;
		return "the source records that all has arrived";
	default:
		break;
	}
	s->s_due = DUE_NOTHING;
	switch (due) {
	case DUE_SEND_INTENT:
		model_send(s, MSG_INTENT);
		return "the source sends INTENT";
	case DUE_SEND_COMMIT:
		model_send(s, MSG_COMMIT);
		return "the source sends COMMIT";
	case DUE_NOTE_RUNNING:
		model_src_note(s, MIG_REC_RUNNING, false);
		return "the source writes that it runs at the destination";
	case DUE_NOTE_HELD:
		model_src_note(s, MIG_REC_HELD, true);
		return "the source records that the session is lost";
	default:
		s->g_src = s->g_src == COPY_PAUSED ? COPY_ENDED : s->g_src;
		return "the source tells its copy to end";
	}
}

/* --- messages --- */

void model_src_takes(const struct rules *r, struct sys s, uint8_t type, model_fn *fn, void *arg)
{
	switch (type) {
	case MSG_INTENT_ACK:
		if (s.src == MIG_SWITCHOVER) {
			s.g_src = s.g_src == COPY_RUNNING ? COPY_PAUSED : s.g_src;
			model_send(&s, MSG_STATE_END);
		}
		fn(arg, &s, "INTENT_ACK arrives; the source pauses the guest and sends its state");
		return;
	case MSG_READY:
		model_src_event(r, &s, MIG_EV_READY);
		fn(arg, &s, "READY arrives: the point of no return");
		return;
	case MSG_RUNNING:
		model_src_event(r, &s, MIG_EV_RUNNING);
		fn(arg, &s, "RUNNING arrives");
		return;
	case MSG_RECEIPT:
		model_src_event(r, &s, MIG_EV_RECEIPT);
		fn(arg, &s, "RECEIPT arrives");
		return;
	case MSG_ABORTED:
		model_src_event(r, &s, MIG_EV_ROLLED_BACK);
		fn(arg, &s, "ABORTED arrives");
		return;
	default:
		model_close_src(&s);
		model_src_event(r, &s, MIG_EV_ERROR);
		fn(arg, &s, "ERROR arrives");
		return;
	}
}

/* --- asking and telling --- */

static void answered(const struct rules *r, struct sys s, model_fn *fn, void *arg)
{
	enum mig_event ev;

	s.ask = ASK_IDLE;
	if (telling(&s)) {
		s.told = s.answer != MSG_ANSWER_UNKNOWN;
		fn(arg, &s, "the answer to KEPT arrives");
		return;
	}
	if (!ended(&s) && r->settled((enum mig_state)s.src, (enum msg_answer)s.answer, &ev))
		model_src_event(r, &s, ev);
	fn(arg, &s,
	   s.answer == MSG_ANSWER_NOT_STARTED ? "the answer arrives: not started"
	   : s.answer == MSG_ANSWER_RUNNING   ? "the answer arrives: running"
	   : s.answer == MSG_ANSWER_COMPLETED ? "the answer arrives: completed"
					      : "the answer arrives: unknown");
}

static void asks(const struct rules *r, const struct sys *s, model_fn *fn, void *arg)
{
	struct sys next = *s;
	bool tells = telling(s) && !r->kept_unheard;

	if (s->ask == ASK_ANSWERED) {
		answered(r, next, fn, arg);
	} else if (s->ask == ASK_IDLE && tells) {
		next.ask = ASK_KEPT;
		next.answer = 0;
		fn(arg, &next, "the source tells the destination that the guest was kept");
	} else if (s->ask == ASK_IDLE && (s->src == MIG_IN_DOUBT || s->src == MIG_PAUSED)) {
		next.ask = ASK_QUERY;
		next.answer = 0;
		fn(arg, &next, "the source asks what became of the guest");
	}
}

static void recovers(const struct rules *r, const struct sys *s, model_fn *fn, void *arg)
{
	struct sys next = *s;

	if (s->src != MIG_RECOVERING)
		return;
	/* guest-gone is answered to HELLO. */
	if (s->d_up && !s->d_due && s->d_rec == HISTORY_GONE)
		model_src_event(r, &next, MIG_EV_ERROR);
	else if (!model_dst_resumes(&next))
		model_src_event(r, &next, MIG_EV_LOST);
	else
		model_src_event(r, &next, MIG_EV_RESUMED);
	fn(arg, &next, "the source makes a session again");
}

/* --- a copy that attaches again --- */

static void attaches(const struct sys *s, model_fn *fn, void *arg)
{
	struct sys next = *s;

	if (s->g_src != COPY_PAUSED || !ended(s))
		return;
	if (!s->committed) {
		next.g_src = COPY_RUNNING;
		fn(arg, &next, "the guest attaches to the source, where nothing holds it");
	} else if (s->src == MIG_COMPLETED || s->keep == MODEL_KEEP_DESTINATION) {
		next.g_src = COPY_ENDED;
		fn(arg, &next, "the copy at the source is told to end");
	}
}

void model_src_alone(const struct rules *r, const struct sys *s, model_fn *fn, void *arg)
{
	struct sys next = *s;
	const char *what;

	if (s->s_due) {
		what = does(r, &next);
		fn(arg, &next, what);
		return;
	}
	if (s->src == MIG_PRECOPY && s->up) {
		model_src_event(r, &next, MIG_EV_CONVERGED);
		fn(arg, &next, "precopy has converged");
	}
	attaches(s, fn, arg);
	if (s->src == MIG_CANCELLING || s->src == MIG_FAILING) {
		next = *s;
		model_src_event(r, &next, MIG_EV_ROLLED_BACK);
		fn(arg, &next, "the source waits for ABORTED no longer");
	}
	recovers(r, s, fn, arg);
	asks(r, s, fn, arg);
}

/* --- orders --- */

void model_src_resolves(const struct rules *r, const struct sys *s, model_fn *fn, void *arg)
{
	struct doubt_place place = {(enum mig_state)s->src, s->committed};
	struct sys next = *s;

	if (!r->may_resolve(place, false) || s->keep)
		return;
	next.left.orders--;
	next.ask = ASK_IDLE;
	model_close_src(&next);
	if (s->g_src == COPY_PAUSED || s->g_src == COPY_RUNNING) {
		struct sys here = next;

		here.keep = MODEL_KEEP_SOURCE;
		here.s_due = DUE_KEEP_RESUME;
		if (!r->resume_unnoted)
			model_src_note(&here, MIG_REC_KEPT_SOURCE, true);
		fn(arg, &here, "an operator keeps the guest at the source");
	}
	next.keep = MODEL_KEEP_DESTINATION;
	model_src_note(&next, MIG_REC_KEPT_DESTINATION, true);
	model_src_event(r, &next, MIG_EV_KEEP_DESTINATION);
	next.s_due = DUE_RELEASE_QUIT;
	fn(arg, &next, "an operator gives up the copy at the source");
}

void model_src_starts(const struct rules *r, struct sys *s)
{
	struct doubt_place place = r->restarted((enum mig_record)s->s_last);
	bool noted = s->s_last == MIG_REC_KEPT_SOURCE || s->s_last == MIG_REC_KEPT_DESTINATION ||
		     (s->keep == MODEL_KEEP_SOURCE && s->s_last == MIG_REC_ROLLED_BACK);

	s->s_up = 1;
	s->src = (uint8_t)place.state;
	s->committed = place.committed;
	if (!noted && !s->told)
		s->keep = 0;
}
