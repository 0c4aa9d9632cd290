/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the agents decide about a guest whose hand-over was interrupted, as functions of what is on their
 * disks and of what they are told (PROTOCOL.md, section 8). Nothing here does anything: the agents act, and
 * tests/lib/model.h walks through every order in which messages, losses, crashes and restarts can come, with just
 * these functions and the tables of state.c. Rule 4 (one place) and rule 3 (pages are kept) rest on them:
 *
 *   - from the record "may-hand-over" on a source does not know whether its guest was taken over, and
 *     only "not started" makes it its own again, or an operator
 *   - a destination says "not started" only behind its synced record "aborted", which nothing follows; what it
 *     does not know, or cannot know since its host was started again, it does not deny
 */
#ifndef DECANT_PROTO_DOUBT_H
#define DECANT_PROTO_DOUBT_H

#include <stdbool.h>
#include "msg.h"
#include "state.h"

/* --- the source --- */

/** enum mig_record - records of the source's journal that say where the guest is */
enum mig_record {
	MIG_REC_CREATED,
	MIG_REC_MAY_HAND_OVER,
	MIG_REC_RUNNING, /* written when RUNNING comes, not synced */
	MIG_REC_HELD,    /* the session was lost behind that */
	MIG_REC_ROLLED_BACK,
	MIG_REC_COMPLETED,
	MIG_REC_KEPT_SOURCE, /* an operator's decision, see doubt_may_resolve() */
	MIG_REC_KEPT_DESTINATION,
	MIG_REC_COUNT_
};

/**
 * struct doubt_place - where a job stands
 * @state:	of the job
 * @committed:	the guest must not run here
 */
struct doubt_place {
	enum mig_state state;
	bool committed;
};

/**
 * doubt_restarted() - in which state a source whose agent ended goes on
 * @last:	the last record of those that say it
 *
 * Return: in doubt, held, or an end: MIG_FAILED without @committed is a guest that goes on here
 */
struct doubt_place doubt_restarted(enum mig_record last);
/**
 * doubt_settled() - does this answer to QUERY settle it?
 *
 * Return: whether it does; then @ret is what it means to a job in this state
 */
bool doubt_settled(enum mig_state s, enum msg_answer answer, enum mig_event *ret);
/**
 * doubt_may_resolve() - is there anything that an operator may decide?
 * @place:	of the job
 * @kept:	it is completed, and the copy here was kept
 *
 * Return: whether there is: it is in doubt, or no session stands, or the destination has it and the copy
 * here is still there
 */
bool doubt_may_resolve(struct doubt_place place, bool kept);

/* --- the destination --- */

/** enum history_fate - the last record of an incoming migration; "registered" counts as COMPLETED */
enum history_fate {
	HISTORY_SETUP,
	HISTORY_MAY_OWN,
	HISTORY_OWNER,
	HISTORY_COMPLETED,
	HISTORY_ABORTED,
	HISTORY_GONE,
};

/** doubt_may_follow() - Return: whether record @to may be written behind @from */
bool doubt_may_follow(enum history_fate from, enum history_fate to);
/**
 * doubt_abort_at_start() - an agent is started and finds this record
 * @same_boot:	the host has not been started again since
 *
 * Return: whether it was given up with the agent's end, which is to be recorded. "owner" would be there if
 * the guest had run, because what was written outlives the agent; not so the host
 */
bool doubt_abort_at_start(enum history_fate fate, bool same_boot);
/** doubt_mine() - Return: whether the guest of this record belongs to this host and may run */
bool doubt_mine(enum history_fate fate, bool same_boot, bool overruled);
/**
 * doubt_abort_when_asked() - its source asks, so it has lost the session, and a COMMIT that is still under
 * way in it must never be obeyed
 *
 * Return: whether the incoming is to be given up before an answer is given
 */
bool doubt_abort_when_asked(enum inc_state s);
/** doubt_answer() - Return: what its source is told about this record */
enum msg_answer doubt_answer(enum history_fate fate, bool same_boot);

/** enum doubt_kept - what to do when told that the guest was kept at the source */
enum doubt_kept {
	DOUBT_KEPT_NOTHING, /* it never ran here and never will */
	DOUBT_KEPT_ABORT,   /* the same, but for the record, which comes first */
	DOUBT_KEPT_DEAD,    /* it has died here, or with the host if it ran at all */
	DOUBT_KEPT_STOP,    /* it runs here: a conflict */
};

/** doubt_kept() - KEPT has come, for a record of which no incoming is before COMMIT */
enum doubt_kept doubt_kept(enum history_fate fate, bool same_boot);

#endif
