/* SPDX-License-Identifier: Apache-2.0 */
#include "state.h"

#include <errno.h>
#include "msg.h"
#include "util/cleanup.h"
#include "util/log.h"

static const char *const mig_state_names[] = {
	[MIG_QUEUED] = "queued",         [MIG_SETUP] = "setup",
	[MIG_PRECOPY] = "precopy",       [MIG_SWITCHOVER] = "switchover",
	[MIG_HANDOVER] = "handover",     [MIG_POSTCOPY] = "postcopy",
	[MIG_COMPLETED] = "completed",   [MIG_CANCELLING] = "cancelling",
	[MIG_CANCELLED] = "cancelled",   [MIG_FAILING] = "failing",
	[MIG_FAILED] = "failed",         [MIG_IN_DOUBT] = "in-doubt",
	[MIG_PAUSED] = "paused",         [MIG_SAVING] = "saving",
	[MIG_RECOVERING] = "recovering", [MIG_INTERRUPTED] = "interrupted",
	[MIG_REJOINING] = "rejoining",
};

static const char *const mig_event_names[] = {
	[MIG_EV_START] = "start",
	[MIG_EV_PREPARED] = "prepared",
	[MIG_EV_CONVERGED] = "converged",
	[MIG_EV_READY] = "ready",
	[MIG_EV_RUNNING] = "running",
	[MIG_EV_RECEIPT] = "receipt",
	[MIG_EV_CANCEL] = "cancel",
	[MIG_EV_ERROR] = "error",
	[MIG_EV_LOST] = "lost",
	[MIG_EV_GONE] = "gone",
	[MIG_EV_ROLLED_BACK] = "rolled-back",
	[MIG_EV_NOT_STARTED] = "not-started",
	[MIG_EV_SNAPSHOT] = "snapshot",
	[MIG_EV_RESUMED] = "resumed",
	[MIG_EV_BROKEN] = "broken",
	[MIG_EV_RETRY] = "retry",
	[MIG_EV_KEEP_SOURCE] = "keep-source",
	[MIG_EV_KEEP_DESTINATION] = "keep-destination",
};

static const char *const mig_action_names[] = {
	[MIG_ACT_SETUP] = "setup",
	[MIG_ACT_PRECOPY] = "precopy",
	[MIG_ACT_SWITCHOVER] = "switchover",
	[MIG_ACT_COMMIT] = "commit",
	[MIG_ACT_POSTCOPY] = "postcopy",
	[MIG_ACT_RELEASE] = "release",
	[MIG_ACT_ROLLBACK] = "rollback",
	[MIG_ACT_ASK] = "ask",
	[MIG_ACT_HOLD] = "hold",
	[MIG_ACT_ABANDON] = "abandon",
	[MIG_ACT_NOTE] = "note",
	[MIG_ACT_FINISH] = "finish",
	[MIG_ACT_SAVE] = "save",
	[MIG_ACT_RECOVER] = "recover",
	[MIG_ACT_RESUME] = "resume",
	[MIG_ACT_INTERRUPT] = "interrupt",
	[MIG_ACT_REJOIN] = "rejoin",
	[MIG_ACT_GO_ON] = "go-on",
};

static const char *const inc_state_names[] = {
	[INC_NONE] = "none",           [INC_ADVISE] = "advise", [INC_DISCARD] = "discard",
	[INC_LISTENING] = "listening", [INC_READY] = "ready",   [INC_RUNNING] = "running",
	[INC_HELD] = "held",           [INC_END] = "end",       [INC_STORING] = "storing",
	[INC_WAITING] = "waiting",
};

static const char *const inc_event_names[] = {
	[INC_EV_SETUP] = "setup",   [INC_EV_SWITCH] = "switch", [INC_EV_LISTEN] = "listen",
	[INC_EV_LOADED] = "loaded", [INC_EV_COMMIT] = "commit", [INC_EV_ACCOUNTED] = "accounted",
	[INC_EV_ABORT] = "abort",   [INC_EV_FAIL] = "fail",     [INC_EV_LOST] = "lost",
	[INC_EV_GONE] = "gone",     [INC_EV_STORE] = "store",   [INC_EV_STORED] = "stored",
	[INC_EV_RESUME] = "resume", [INC_EV_BROKEN] = "broken",
};

static const char *const inc_action_names[] = {
	[INC_ACT_PREPARE] = "prepare",
	[INC_ACT_DISCARD] = "discard",
	[INC_ACT_LISTEN] = "listen",
	[INC_ACT_READY] = "ready",
	[INC_ACT_RUN] = "run",
	[INC_ACT_SETTLE] = "settle",
	[INC_ACT_HOLD] = "hold",
	[INC_ACT_BURY] = "bury",
	[INC_ACT_DISCARD_GUEST] = "discard-guest",
	[INC_ACT_STORE] = "store",
	[INC_ACT_STORED] = "stored",
	[INC_ACT_RESUME] = "resume",
	[INC_ACT_KEEP] = "keep",
};

_Static_assert(ARRAY_SIZE(mig_state_names) == MIG_STATE_COUNT_, "a name for each");
_Static_assert(ARRAY_SIZE(mig_event_names) == MIG_EV_COUNT_, "a name for each");
_Static_assert(ARRAY_SIZE(mig_action_names) == MIG_ACT_COUNT_, "a name for each");
_Static_assert(ARRAY_SIZE(inc_state_names) == INC_STATE_COUNT_, "a name for each");
_Static_assert(ARRAY_SIZE(inc_event_names) == INC_EV_COUNT_, "a name for each");
_Static_assert(ARRAY_SIZE(inc_action_names) == INC_ACT_COUNT_, "a name for each");
_Static_assert(MIG_STATE_COUNT_ <= 32 && INC_STATE_COUNT_ <= 32, "states fit a mask");

#define ROW(state, event, next, action)                                   \
	{                                                                 \
		MIG_##state, MIG_EV_##event, MIG_##next, MIG_ACT_##action \
	}

static const struct mig_step mig_table[] = {
	ROW(QUEUED, START, SETUP, SETUP),
	ROW(QUEUED, CANCEL, CANCELLED, FINISH),
	ROW(QUEUED, ERROR, FAILED, FINISH),
	ROW(QUEUED, GONE, FAILED, FINISH),
	ROW(SETUP, PREPARED, PRECOPY, PRECOPY),
	ROW(SETUP, CANCEL, CANCELLING, ROLLBACK),
	ROW(SETUP, ERROR, FAILING, ROLLBACK),
	ROW(SETUP, LOST, FAILING, ROLLBACK),
	ROW(SETUP, GONE, FAILING, ROLLBACK),
	ROW(PRECOPY, CONVERGED, SWITCHOVER, SWITCHOVER),
	ROW(PRECOPY, CANCEL, CANCELLING, ROLLBACK),
	ROW(PRECOPY, ERROR, FAILING, ROLLBACK),
	ROW(PRECOPY, LOST, FAILING, ROLLBACK),
	ROW(PRECOPY, GONE, FAILING, ROLLBACK),
	ROW(SWITCHOVER, READY, HANDOVER, COMMIT),
	ROW(SWITCHOVER, CANCEL, CANCELLING, ROLLBACK),
	ROW(SWITCHOVER, ERROR, FAILING, ROLLBACK),
	ROW(SWITCHOVER, LOST, FAILING, ROLLBACK),
	ROW(SWITCHOVER, GONE, FAILING, ROLLBACK),
	ROW(HANDOVER, RUNNING, POSTCOPY, POSTCOPY),
	ROW(HANDOVER, ERROR, IN_DOUBT, ASK),
	ROW(HANDOVER, LOST, IN_DOUBT, ASK),
	ROW(HANDOVER, GONE, HANDOVER, NOTE),
	ROW(POSTCOPY, RECEIPT, COMPLETED, RELEASE),
	ROW(POSTCOPY, LOST, PAUSED, HOLD),
	ROW(POSTCOPY, ERROR, FAILED, ABANDON),
	ROW(POSTCOPY, GONE, FAILED, ABANDON),
	ROW(IN_DOUBT, NOT_STARTED, FAILING, ROLLBACK),
	ROW(IN_DOUBT, RUNNING, RECOVERING, RECOVER),
	ROW(IN_DOUBT, RECEIPT, COMPLETED, RELEASE),
	ROW(IN_DOUBT, GONE, IN_DOUBT, NOTE),
	ROW(PAUSED, RECEIPT, COMPLETED, RELEASE),
	ROW(PAUSED, GONE, FAILED, ABANDON),
	ROW(CANCELLING, ROLLED_BACK, CANCELLED, FINISH),
	ROW(CANCELLING, ERROR, CANCELLING, NOTE),
	ROW(CANCELLING, LOST, CANCELLING, NOTE),
	ROW(CANCELLING, GONE, CANCELLING, NOTE),
	ROW(FAILING, ROLLED_BACK, FAILED, FINISH),
	ROW(FAILING, ERROR, FAILING, NOTE),
	ROW(FAILING, LOST, FAILING, NOTE),
	ROW(FAILING, GONE, FAILING, NOTE),
	ROW(SETUP, SNAPSHOT, SAVING, SAVE),
	ROW(SAVING, RECEIPT, COMPLETED, FINISH),
	ROW(SAVING, CANCEL, CANCELLING, ROLLBACK),
	ROW(SAVING, ERROR, FAILING, ROLLBACK),
	ROW(SAVING, LOST, FAILING, ROLLBACK),
	ROW(SAVING, GONE, FAILING, ROLLBACK),
	ROW(PAUSED, RUNNING, RECOVERING, RECOVER),
	ROW(RECOVERING, RESUMED, POSTCOPY, RESUME),
	ROW(RECOVERING, LOST, PAUSED, HOLD),
	ROW(RECOVERING, ERROR, FAILED, ABANDON),
	ROW(RECOVERING, GONE, FAILED, ABANDON),
	ROW(PRECOPY, BROKEN, INTERRUPTED, INTERRUPT),
	ROW(INTERRUPTED, RETRY, REJOINING, REJOIN),
	ROW(INTERRUPTED, CANCEL, CANCELLING, ROLLBACK),
	ROW(INTERRUPTED, ERROR, FAILING, ROLLBACK),
	ROW(INTERRUPTED, GONE, FAILING, ROLLBACK),
	ROW(REJOINING, RESUMED, PRECOPY, GO_ON),
	ROW(REJOINING, LOST, INTERRUPTED, INTERRUPT),
	ROW(REJOINING, CANCEL, CANCELLING, ROLLBACK),
	ROW(REJOINING, ERROR, FAILING, ROLLBACK),
	ROW(REJOINING, GONE, FAILING, ROLLBACK),
	ROW(IN_DOUBT, KEEP_SOURCE, FAILING, ROLLBACK),
	ROW(IN_DOUBT, KEEP_DESTINATION, FAILED, ABANDON),
	ROW(PAUSED, KEEP_SOURCE, FAILING, ROLLBACK),
	ROW(PAUSED, KEEP_DESTINATION, FAILED, ABANDON),
	ROW(RECOVERING, KEEP_SOURCE, FAILING, ROLLBACK),
	ROW(RECOVERING, KEEP_DESTINATION, FAILED, ABANDON),
};

#undef ROW
#define ROW(state, event, next, action)                                   \
	{                                                                 \
		INC_##state, INC_EV_##event, INC_##next, INC_ACT_##action \
	}

static const struct inc_step inc_table[] = {
	ROW(NONE, SETUP, ADVISE, PREPARE),        ROW(NONE, ABORT, END, DISCARD_GUEST),
	ROW(NONE, FAIL, END, DISCARD_GUEST),      ROW(NONE, LOST, END, DISCARD_GUEST),
	ROW(ADVISE, SWITCH, DISCARD, DISCARD),    ROW(ADVISE, ABORT, END, DISCARD_GUEST),
	ROW(ADVISE, FAIL, END, DISCARD_GUEST),    ROW(ADVISE, LOST, END, DISCARD_GUEST),
	ROW(ADVISE, GONE, END, DISCARD_GUEST),    ROW(DISCARD, LISTEN, LISTENING, LISTEN),
	ROW(DISCARD, ABORT, END, DISCARD_GUEST),  ROW(DISCARD, FAIL, END, DISCARD_GUEST),
	ROW(DISCARD, LOST, END, DISCARD_GUEST),   ROW(DISCARD, GONE, END, DISCARD_GUEST),
	ROW(LISTENING, LOADED, READY, READY),     ROW(LISTENING, ABORT, END, DISCARD_GUEST),
	ROW(LISTENING, FAIL, END, DISCARD_GUEST), ROW(LISTENING, LOST, END, DISCARD_GUEST),
	ROW(LISTENING, GONE, END, DISCARD_GUEST), ROW(READY, COMMIT, RUNNING, RUN),
	ROW(READY, ABORT, END, DISCARD_GUEST),    ROW(READY, FAIL, END, DISCARD_GUEST),
	ROW(READY, LOST, END, DISCARD_GUEST),     ROW(READY, GONE, END, DISCARD_GUEST),
	ROW(RUNNING, ACCOUNTED, END, SETTLE),     ROW(RUNNING, FAIL, HELD, HOLD),
	ROW(RUNNING, LOST, HELD, HOLD),           ROW(RUNNING, GONE, END, BURY),
	ROW(HELD, ACCOUNTED, END, SETTLE),        ROW(HELD, GONE, END, BURY),
	ROW(NONE, STORE, STORING, STORE),         ROW(STORING, STORED, END, STORED),
	ROW(STORING, ABORT, END, DISCARD_GUEST),  ROW(STORING, FAIL, END, DISCARD_GUEST),
	ROW(STORING, LOST, END, DISCARD_GUEST),   ROW(HELD, RESUME, RUNNING, RESUME),
	ROW(ADVISE, BROKEN, WAITING, KEEP),       ROW(WAITING, RESUME, ADVISE, RESUME),
	ROW(WAITING, LOST, END, DISCARD_GUEST),   ROW(WAITING, FAIL, END, DISCARD_GUEST),
	ROW(WAITING, GONE, END, DISCARD_GUEST),
};

#undef ROW

/** struct takes - in which states of its receiver a message may come (a mask) */
struct takes {
	unsigned int type;
	unsigned int states;
};

#define S1(a)          (1u << MIG_##a)
#define S2(a, b)       (S1(a) | S1(b))
#define S3(a, b, c)    (S2(a, b) | S1(c))
#define S4(a, b, c, d) (S3(a, b, c) | S1(d))

static const struct takes mig_takes[] = {
	{MSG_PREPARED, S1(SETUP)},
	{MSG_INTENT_ACK, S1(SWITCHOVER)},
	{MSG_READY, S1(SWITCHOVER)},
	{MSG_RUNNING, S1(HANDOVER)},
	{MSG_RECEIPT, S2(POSTCOPY, SAVING)},
	{MSG_ABORTED, S2(CANCELLING, FAILING)},
	{MSG_REQUEST, S3(SWITCHOVER, HANDOVER, POSTCOPY)},
	{MSG_NACK, S4(PRECOPY, SWITCHOVER, HANDOVER, POSTCOPY) | S1(SAVING)},
	{MSG_BARRIER_ACK, S4(PRECOPY, SWITCHOVER, POSTCOPY, SAVING)},
	{MSG_ANSWER, S2(IN_DOUBT, PAUSED)},
	{MSG_RECEIVED, S2(RECOVERING, REJOINING)},
	{MSG_RESUMED, S2(RECOVERING, REJOINING)},
	{MSG_DROPPED, S4(PRECOPY, SWITCHOVER, HANDOVER, POSTCOPY)},
};

#undef S1
#define S1(a) (1u << INC_##a)

static const struct takes inc_takes[] = {
	{MSG_SETUP, S1(NONE)},
	{MSG_BLOCK, S1(NONE)},
	{MSG_STORE, S1(NONE)},
	{MSG_FACTS, S1(NONE)},
	{MSG_INTENT, S1(ADVISE)},
	{MSG_SWITCH, S1(ADVISE)},
	{MSG_DISCARD, S2(ADVISE, DISCARD)},
	{MSG_LISTEN, S1(DISCARD)},
	{MSG_STATE, S2(LISTENING, STORING)},
	{MSG_STATE_END, S2(LISTENING, STORING)},
	{MSG_COMMIT, S1(READY)},
	{MSG_COMPLETE, S2(RUNNING, STORING)},
	{MSG_ABORT, S4(NONE, ADVISE, DISCARD, LISTENING) | S2(READY, STORING)},
	{MSG_PAGES, S4(ADVISE, LISTENING, READY, RUNNING) | S1(STORING)},
	{MSG_BARRIER, S3(ADVISE, RUNNING, STORING)},
	{MSG_RESUME, S4(RUNNING, HELD, ADVISE, WAITING)},
	{MSG_DROP, S4(ADVISE, DISCARD, LISTENING, READY) | S1(RUNNING)},
	{MSG_CONTINUE, S2(RUNNING, ADVISE)},
	{MSG_END, S2(RUNNING, END)},
};

static unsigned int states_for(const struct takes *t, size_t n, unsigned int type)
{
	for (size_t i = 0; i < n; i++)
		if (t[i].type == type)
			return t[i].states;
	return 0;
}

const struct mig_step *mig_step_find(enum mig_state state, enum mig_event event)
{
	for (size_t i = 0; i < ARRAY_SIZE(mig_table); i++)
		if (mig_table[i].state == state && mig_table[i].event == event)
			return &mig_table[i];
	return NULL;
}

const struct inc_step *inc_step_find(enum inc_state state, enum inc_event event)
{
	for (size_t i = 0; i < ARRAY_SIZE(inc_table); i++)
		if (inc_table[i].state == state && inc_table[i].event == event)
			return &inc_table[i];
	return NULL;
}

const struct mig_step *mig_steps(int *ret_n)
{
	*ret_n = ARRAY_SIZE(mig_table);
	return mig_table;
}

const struct inc_step *inc_steps(int *ret_n)
{
	*ret_n = ARRAY_SIZE(inc_table);
	return inc_table;
}

int mig_state_apply(enum mig_state *state, enum mig_event ev, const struct mig_step **ret_step)
{
	enum mig_state old = __atomic_load_n(state, __ATOMIC_ACQUIRE);
	const struct mig_step *step = mig_step_find(old, ev);

	if (!step) {
		log_debug("source: %s in %s is illegal", mig_event_name(ev), mig_state_name(old));
		return -EPROTO;
	}
	__atomic_store_n(state, step->next, __ATOMIC_RELEASE);
	log_debug("source: %s -> %s on %s, action %s", mig_state_name(old),
		  mig_state_name(step->next), mig_event_name(ev), mig_action_name(step->action));
	*ret_step = step;
	return 0;
}

int inc_state_apply(enum inc_state *state, enum inc_event ev, const struct inc_step **ret_step)
{
	enum inc_state old = __atomic_load_n(state, __ATOMIC_ACQUIRE);
	const struct inc_step *step = inc_step_find(old, ev);

	if (!step) {
		log_debug("destination: %s in %s is illegal", inc_event_name(ev),
			  inc_state_name(old));
		return -EPROTO;
	}
	__atomic_store_n(state, step->next, __ATOMIC_RELEASE);
	log_debug("destination: %s -> %s on %s, action %s", inc_state_name(old),
		  inc_state_name(step->next), inc_event_name(ev), inc_action_name(step->action));
	*ret_step = step;
	return 0;
}

int mig_state_check_msg(enum mig_state s, unsigned int type, struct error *err)
{
	unsigned int states = states_for(mig_takes, ARRAY_SIZE(mig_takes), type);

	if (states & 1u << s)
		return 0;
	/* Sent before our ABORT got there. */
	if (states && (s == MIG_CANCELLING || s == MIG_FAILING))
		return 1;
	return error_set(err, -EPROTO, "unexpected-message",
			 "%s from the destination while the migration is in state %s",
			 msg_type_name(type), mig_state_name(s));
}

int inc_state_check_msg(enum inc_state s, unsigned int type, struct error *err)
{
	if (states_for(inc_takes, ARRAY_SIZE(inc_takes), type) & 1u << s)
		return 0;
	return error_set(err, -EPROTO, "unexpected-message",
			 "%s from the source while the incoming migration is in state %s",
			 msg_type_name(type), inc_state_name(s));
}

static const char *name_of(const char *const *names, size_t n, unsigned int i)
{
	return i < n ? names[i] : "?";
}

const char *mig_state_name(enum mig_state s)
{
	return name_of(mig_state_names, ARRAY_SIZE(mig_state_names), s);
}

const char *mig_event_name(enum mig_event e)
{
	return name_of(mig_event_names, ARRAY_SIZE(mig_event_names), e);
}

const char *mig_action_name(enum mig_action a)
{
	return name_of(mig_action_names, ARRAY_SIZE(mig_action_names), a);
}

const char *inc_state_name(enum inc_state s)
{
	return name_of(inc_state_names, ARRAY_SIZE(inc_state_names), s);
}

const char *inc_event_name(enum inc_event e)
{
	return name_of(inc_event_names, ARRAY_SIZE(inc_event_names), e);
}

const char *inc_action_name(enum inc_action a)
{
	return name_of(inc_action_names, ARRAY_SIZE(inc_action_names), a);
}

bool mig_state_ended(enum mig_state s)
{
	return s == MIG_COMPLETED || s == MIG_CANCELLED || s == MIG_FAILED;
}

const char *mig_state_phase(enum mig_state s)
{
	if (s == MIG_HANDOVER)
		return mig_state_name(MIG_SWITCHOVER);
	if (s == MIG_FAILING)
		return mig_state_name(MIG_CANCELLING);
	if (s == MIG_INTERRUPTED)
		return mig_state_name(MIG_PAUSED);
	if (s == MIG_REJOINING)
		return mig_state_name(MIG_RECOVERING);
	return mig_state_name(s);
}

const char *mig_owner_name(enum mig_state s, bool committed)
{
	switch (s) {
	case MIG_HANDOVER:
	case MIG_IN_DOUBT:
		return "in-doubt";
	case MIG_POSTCOPY:
	case MIG_PAUSED:
	case MIG_RECOVERING:
		return "destination";
	case MIG_COMPLETED:
	case MIG_FAILED:
		return committed ? "destination" : "source";
	default:
		return "source";
	}
}
