/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The hand-over as a model: two agents, their journals, the guest's two copies and the connection between
 * them. What an agent decides comes from the tables of proto/state.c and the functions of proto/doubt.c, so that
 * the model cannot drift from them; what it does comes in the order in which the agents do it, and an agent, or its
 * host, may end between any two steps:
 *
 *   source	mig_switch.c (intent, commit), mig_doubt.c (ask, tell), mig_end.c (rollback, hold, release),
 *		mig_resolve.c, mig_journal.c (restart)
 *   destination	handover.c (intent, commit), settle.c (abort, settle, bury), listen_peer.c and incoming.c (query),
 *		overrule.c, history.c and adopt.c (restart)
 *
 * A broken connection loses what is under way from some message on, and each side notices when it does. What is
 * written outlives the agent, what is synced outlives the host, and a host takes its guest with it.
 */
#ifndef DECANT_TESTS_MODEL_H
#define DECANT_TESTS_MODEL_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <doubt.h> /* of proto: beside this file is another one */
#include "state.h"

#define MODEL_QUEUE     6
#define MODEL_NO_RECORD 255
#define MODEL_ABSENT    INC_STATE_COUNT_

/**
 * struct rules - what the agents decide by, and in which order they do it; a mutant has one of them wrong
 *
 * The functions are those of proto/doubt.h and proto/state.h.
 */
struct rules {
	const char *name;
	const struct mig_step *(*src_step)(enum mig_state s, enum mig_event ev);
	struct doubt_place (*restarted)(enum mig_record last);
	bool (*settled)(enum mig_state s, enum msg_answer answer, enum mig_event *ret);
	bool (*may_resolve)(struct doubt_place place, bool kept);
	bool (*abort_at_start)(enum history_fate fate, bool same_boot);
	bool (*mine)(enum history_fate fate, bool same_boot, bool overruled);
	bool (*abort_when_asked)(enum inc_state s);
	enum msg_answer (*answer)(enum history_fate fate, bool same_boot);
	enum doubt_kept (*kept)(enum history_fate fate, bool same_boot);
	bool no_may_hand_over; /* INTENT is sent without the record */
	bool no_may_own;       /* INTENT_ACK is sent without the record */
	bool run_before_owner; /* the guest is let go, then the record is written */
	bool no_aborted;       /* the incoming is given up without the record */
	bool aborted_unsynced;
	bool quit_on_running; /* the source's copy is ended before the receipt */
	bool kept_unheard;    /* the destination is not told */
	bool resume_unnoted;  /* an operator's decision is not in the journal */
};

/** struct bounds - how much may go wrong in one history */
struct bounds {
	uint8_t breaks, s_kills, d_kills, s_boots, d_boots, deaths, losses, orders;
};

/**
 * struct result - of a walk
 * @states, @steps: situations found, transitions taken
 * @wrong:	what must not be, NULL if nothing was found; then @trace tells how it came about
 */
struct result {
	uint64_t states, steps;
	const char *wrong;
	char *trace;
};

extern const struct rules model_rules;

/** model_walk() - every situation that can come about. Return: what was found; result.trace is for free(3) */
struct result model_walk(const struct rules *r, const struct bounds *b);

#endif
