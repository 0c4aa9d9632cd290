/* SPDX-License-Identifier: Apache-2.0 */
#include "doubt.h"

/* --- the source --- */

struct doubt_place doubt_restarted(enum mig_record last)
{
	switch (last) {
	case MIG_REC_MAY_HAND_OVER:
		return (struct doubt_place){MIG_IN_DOUBT, true};
	case MIG_REC_RUNNING:
	case MIG_REC_HELD:
		return (struct doubt_place){MIG_PAUSED, true};
	case MIG_REC_COMPLETED:
		return (struct doubt_place){MIG_COMPLETED, true};
	case MIG_REC_KEPT_DESTINATION:
		return (struct doubt_place){MIG_FAILED, true};
	default:
		return (struct doubt_place){MIG_FAILED, false};
	}
}

bool doubt_settled(enum mig_state s, enum msg_answer answer, enum mig_event *ret)
{
	switch (answer) {
	case MSG_ANSWER_NOT_STARTED:
		/* One that has said before that it runs contradicts itself. */
		if (s != MIG_IN_DOUBT)
			return false;
		*ret = MIG_EV_NOT_STARTED;
		return true;
	case MSG_ANSWER_RUNNING:
		*ret = MIG_EV_RUNNING;
		return true;
	case MSG_ANSWER_COMPLETED:
		*ret = MIG_EV_RECEIPT;
		return true;
	default:
		return false;
	}
}

bool doubt_may_resolve(struct doubt_place place, bool kept)
{
	switch (place.state) {
	case MIG_IN_DOUBT:
	case MIG_PAUSED:
	case MIG_RECOVERING:
		return true;
	case MIG_FAILED:
		return place.committed;
	case MIG_COMPLETED:
		return place.committed && kept;
	default:
		return false;
	}
}

/* --- the destination --- */

bool doubt_may_follow(enum history_fate from, enum history_fate to)
{
	switch (to) {
	case HISTORY_MAY_OWN:
		return from == HISTORY_SETUP;
	case HISTORY_OWNER:
		return from == HISTORY_MAY_OWN;
	case HISTORY_COMPLETED:
	case HISTORY_GONE:
		return from == HISTORY_OWNER;
	case HISTORY_ABORTED:
		return from == HISTORY_SETUP || from == HISTORY_MAY_OWN;
	default:
		return false;
	}
}

bool doubt_abort_at_start(enum history_fate fate, bool same_boot)
{
	return same_boot && (fate == HISTORY_SETUP || fate == HISTORY_MAY_OWN);
}

bool doubt_mine(enum history_fate fate, bool same_boot, bool overruled)
{
	return (fate == HISTORY_OWNER || fate == HISTORY_COMPLETED) && same_boot && !overruled;
}

bool doubt_abort_when_asked(enum inc_state s)
{
	return s < INC_RUNNING || s == INC_WAITING;
}

enum msg_answer doubt_answer(enum history_fate fate, bool same_boot)
{
	switch (fate) {
	case HISTORY_ABORTED:
		return MSG_ANSWER_NOT_STARTED;
	case HISTORY_COMPLETED:
		return MSG_ANSWER_COMPLETED;
	case HISTORY_OWNER:
	case HISTORY_GONE:
		return same_boot ? MSG_ANSWER_RUNNING : MSG_ANSWER_UNKNOWN;
	default:
		return MSG_ANSWER_UNKNOWN;
	}
}

enum doubt_kept doubt_kept(enum history_fate fate, bool same_boot)
{
	switch (fate) {
	case HISTORY_ABORTED:
		return DOUBT_KEPT_NOTHING;
	case HISTORY_SETUP:
	case HISTORY_MAY_OWN:
		/* "owner" may have been written, and lost with the host. */
		return same_boot ? DOUBT_KEPT_ABORT : DOUBT_KEPT_DEAD;
	case HISTORY_GONE:
		return DOUBT_KEPT_DEAD;
	default:
		return same_boot ? DOUBT_KEPT_STOP : DOUBT_KEPT_DEAD;
	}
}
