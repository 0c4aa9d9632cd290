/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The two state machines of PROTOCOL.md section 9 as tables: state x event -> next state, action.
 * Nothing here does anything but change a state: the agents call the one setter and carry the
 * action out.
 */
#ifndef DECANT_PROTO_STATE_H
#define DECANT_PROTO_STATE_H

#include <stdbool.h>
#include "util/error.h"

enum mig_state {
	MIG_QUEUED,
	MIG_SETUP,
	MIG_PRECOPY,
	MIG_SWITCHOVER,
	MIG_HANDOVER, /* past the point of no return */
	MIG_POSTCOPY,
	MIG_COMPLETED,
	MIG_CANCELLING,
	MIG_CANCELLED,
	MIG_FAILING,
	MIG_FAILED,
	MIG_IN_DOUBT,
	MIG_PAUSED,
	MIG_SAVING,      /* a snapshot: the guest runs on here */
	MIG_RECOVERING,  /* a session for a guest that runs at the destination is made again */
	MIG_INTERRUPTED, /* in precopy without a session: the guest runs on here */
	MIG_REJOINING,   /* and one is made again */
	MIG_STATE_COUNT_
};

enum mig_event {
	MIG_EV_START,
	MIG_EV_PREPARED,
	MIG_EV_CONVERGED,
	MIG_EV_READY,
	MIG_EV_RUNNING,
	MIG_EV_RECEIPT,
	MIG_EV_CANCEL,
	MIG_EV_ERROR,
	MIG_EV_LOST,
	MIG_EV_GONE,
	MIG_EV_ROLLED_BACK,
	MIG_EV_NOT_STARTED,
	MIG_EV_SNAPSHOT,
	MIG_EV_RESUMED,
	MIG_EV_BROKEN,
	MIG_EV_RETRY,
	MIG_EV_KEEP_SOURCE, /* an operator's decision (decant resolve) */
	MIG_EV_KEEP_DESTINATION,
	MIG_EV_COUNT_
};

enum mig_action {
	MIG_ACT_SETUP,
	MIG_ACT_PRECOPY,
	MIG_ACT_SWITCHOVER,
	MIG_ACT_COMMIT,
	MIG_ACT_POSTCOPY,
	MIG_ACT_RELEASE,
	MIG_ACT_ROLLBACK,
	MIG_ACT_ASK,
	MIG_ACT_HOLD,
	MIG_ACT_ABANDON,
	MIG_ACT_NOTE,
	MIG_ACT_FINISH,
	MIG_ACT_SAVE,
	MIG_ACT_RECOVER,
	MIG_ACT_RESUME,
	MIG_ACT_INTERRUPT,
	MIG_ACT_REJOIN,
	MIG_ACT_GO_ON,
	MIG_ACT_COUNT_
};

enum inc_state {
	INC_NONE,
	INC_ADVISE,
	INC_DISCARD,
	INC_LISTENING,
	INC_READY,
	INC_RUNNING,
	INC_HELD,
	INC_END,
	INC_STORING,
	INC_WAITING, /* without a session before the switch: what has arrived is kept */
	INC_STATE_COUNT_
};

enum inc_event {
	INC_EV_SETUP,
	INC_EV_SWITCH,
	INC_EV_LISTEN,
	INC_EV_LOADED,
	INC_EV_COMMIT,
	INC_EV_ACCOUNTED,
	INC_EV_ABORT,
	INC_EV_FAIL,
	INC_EV_LOST,
	INC_EV_GONE,
	INC_EV_STORE,
	INC_EV_STORED,
	INC_EV_RESUME,
	INC_EV_BROKEN,
	INC_EV_COUNT_
};

enum inc_action {
	INC_ACT_PREPARE,
	INC_ACT_DISCARD,
	INC_ACT_LISTEN,
	INC_ACT_READY,
	INC_ACT_RUN,
	INC_ACT_SETTLE,
	INC_ACT_HOLD,
	INC_ACT_BURY,
	INC_ACT_DISCARD_GUEST,
	INC_ACT_STORE,
	INC_ACT_STORED,
	INC_ACT_RESUME,
	INC_ACT_KEEP,
	INC_ACT_COUNT_
};

/** struct mig_step - one row of the source's table */
struct mig_step {
	enum mig_state state;
	enum mig_event event;
	enum mig_state next;
	enum mig_action action;
};

/** struct inc_step - one row of the destination's table */
struct inc_step {
	enum inc_state state;
	enum inc_event event;
	enum inc_state next;
	enum inc_action action;
};

/** mig_step_find() - Return: the row, NULL if the event is illegal in that state */
const struct mig_step *mig_step_find(enum mig_state state, enum mig_event event);
/** inc_step_find() - Return: the row, NULL if the event is illegal in that state */
const struct inc_step *inc_step_find(enum inc_state state, enum inc_event event);

/**
 * mig_state_apply(), inc_state_apply() - the only way in which a state changes
 * @state:	of the job; only the loop's thread changes it, others may read it with
 *		__atomic_load_n(state, __ATOMIC_ACQUIRE)
 * @ret_step:	the row; the caller carries its action out
 *
 * Logs the change at debug. Return: 0; -EPROTO if the table has no such row (nothing was changed)
 */
int mig_state_apply(enum mig_state *state, enum mig_event ev, const struct mig_step **ret_step);
int inc_state_apply(enum inc_state *state, enum inc_event ev, const struct inc_step **ret_step);

/**
 * mig_state_check_msg(), inc_state_check_msg() - may this message come in this state?
 * @type:	enum msg_type of a message of the session: not HELLO, HELLO_ACK, ERROR, PING, PONG,
 *		which belong to the channel and come in any state
 *
 * To be asked before a message is handled; the events that it may cause have rows of their own.
 * Return: 0 handle it; 1 (source only) drop it, it was sent before our ABORT arrived; -EPROTO with
 * @err naming message and state (code `unexpected-message`)
 */
int mig_state_check_msg(enum mig_state s, unsigned int type, struct error *err);
int inc_state_check_msg(enum inc_state s, unsigned int type, struct error *err);

/** mig_steps(), inc_steps() - the whole table, for tests and documentation; Return: row 0 */
const struct mig_step *mig_steps(int *ret_n);
const struct inc_step *inc_steps(int *ret_n);

/* Names as PROTOCOL.md and REST have them ("in-doubt"); never NULL. */
const char *mig_state_name(enum mig_state s);
const char *mig_event_name(enum mig_event e);
const char *mig_action_name(enum mig_action a);
const char *inc_state_name(enum inc_state s);
const char *inc_event_name(enum inc_event e);
const char *inc_action_name(enum inc_action a);

/** mig_state_ended() - Return: whether nothing can happen to such a job any more */
bool mig_state_ended(enum mig_state s);
/** mig_state_phase() - Return: the phase that clients see (handover shows as "switchover", failing
 * as "cancelling") */
const char *mig_state_phase(enum mig_state s);
/**
 * mig_owner_name() - who has the right to run the guest: "source", "destination" or "in-doubt"
 * @committed:	COMMIT may have been sent, was not answered with not-started, and nobody has decided that
 *		the guest is kept here (a job that has ended can be either)
 */
const char *mig_owner_name(enum mig_state s, bool committed);

#endif
