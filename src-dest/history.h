/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What became of every incoming migration, on disk: state_dir/incoming/ID.journal, one file each,
 * one record a line. A record says "setup", "may-own", "owner", "completed", "registered", "aborted",
 * "gone" or "overruled", with the id of this boot. What follows from them is decided by proto/doubt.c.
 *
 *   setup	a session has begun			synced before anything is launched
 *		again, with the process that was launched	written
 *   may-own	the source may hand over from here on	synced before INTENT_ACK
 *   owner	COMMIT came; this host runs the guest	written before it runs, synced behind RUNNING
 *   completed	every page is here			synced before the receipt
 *   registered	this host's decant-source has it	synced soon: without it that is done again
 *   aborted	it never ran here and never will	synced before the guest is ended and before
 *						anybody is told so
 *   gone	it ran here and has died		synced before anybody is told so
 *   overruled	an operator has kept the guest at the source; it ran here, and is stopped (overrule.h)
 *						synced before it is stopped
 *
 * Rule 4 (one place) rests on this order: "aborted" and "owner" exclude each other, and who is asked
 * says "not started" only when "aborted" is on the disk. "owner" needs no sync while the guest stands
 * still: what it must survive is the agent; with the whole host the guest is gone, too, and an
 * other boot's "may-own" answers "unknown".
 *
 * A record is written by the call and synced by a thread (util/journal_sync.h); a step that it announces waits.
 * Until then who asks is not answered by it (history_pending()). Synced by the call are "aborted" at the start of the
 * agent, when nothing is served yet, and what an operator's decision leads to (history_overruled(),
 * history_conclude()). One that was written and not yet synced when the agent was killed counts in its next life: it was
 * announced to nobody, and is as true; it is pending there until it is synced.
 *
 * Loop thread only.
 */
#ifndef DECANT_HISTORY_H
#define DECANT_HISTORY_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "doubt.h"
#include "msg.h"
#include "util/error.h"
#include "util/journal_sync.h"
#include "util/uuid.h"

/** HISTORY_MAX - ended migrations that are kept */
#define HISTORY_MAX 1000

/**
 * struct past - one incoming migration, under way or ended
 * @id:		of the migration
 * @identity:	of the source, as tls_chan_identity() has it
 * @generation:	that the guest has when it runs here
 * @uuid:	of the guest
 * @name:	of the guest
 * @fate:	see enum history_fate
 * @same_boot:	all of it is of this boot of the host
 * @registered:	nothing is left to be done after COMPLETED
 * @overruled:	the guest was kept at its source; the one here is not to run
 * @untold:	it was aborted when the records were read: nobody has heard of that
 * @unsynced:	a record was written that is not being synced yet
 * @synced:	the last record is being synced; @before: the fate that is known to be on the disk, and comes back if
 *		that fails
 * @dropped:	nothing more becomes of it behind that
 * @facts:	the "setup" record: name, uuid, launcher, driver, vars, from
 * @view:	as the REST interface showed it last, as text: a tenth of what the objects take, and there are many;
 *		NULL while an incoming lives
 * @live:	an incoming of this life of the agent is behind it
 * @journal:	open while there may be further records, else NULL
 * @pid, @pid_start: process of the guest, as "owner" noted it (proc.h); before that the one that was launched,
 *		or has connected; 0 once it is nobody's to be ended
 * @place:	what "may-own" noted of its memory, for revive.h; of an earlier life only, else NULL
 * @pass, @listened: as "owner" noted them: the pass of SWITCH, and whether pages may have been missing
 * @next:	older
 */
struct past {
	char id[UUID_TEXT_MAX];
	char *identity;
	uint64_t generation;
	uint8_t uuid[MSG_UUID_LEN];
	char name[MSG_NAME_MAX];
	enum history_fate fate;
	bool same_boot;
	bool registered;
	bool overruled;
	json_t *facts;
	char *view;
	bool live;
	struct journal *journal;
	pid_t pid;
	uint64_t pid_start;
	json_t *place;
	uint32_t pass;
	bool listened;
	bool unsynced;
	bool untold;
	bool dropped;
	enum history_fate before;
	struct journal_wait synced;
	struct past *next;
};

struct history;

/**
 * history_open() - read what is there
 * @state_dir:	its folder "incoming" is made if it is missing
 * @journals:	syncs what is written; outlives the history
 *
 * What was under way without "owner" when the agent ended gets its "aborted" record here, but for a micro-VM that had
 * not connected: that is decided by who has its socket. A file that
 * cannot be read is reported and answers "unknown"; it is left alone.
 *
 * Return: 0 or -errno with @err filled
 */
int history_open(const char *state_dir, struct journal_syncer *journals, struct history **ret,
		 struct error *err);
/** history_close() - NULL is fine */
void history_close(struct history *h);

/**
 * history_begin() - a new incoming: writes "setup" and has it synced
 * @facts:	borrowed; id, identity, from, guest, uuid, generation, driver, launcher, vars, created
 * @w:		is told when it is; may be NULL
 *
 * Return: 0 with @ret (@live is set); -EEXIST if this id was here before; or another -errno, with
 * @err filled
 */
int history_begin(struct history *h, const json_t *facts, struct journal_wait *w, struct past **ret,
		  struct error *err);
/**
 * history_launched() - what process was launched for it, or has connected to be served, before COMMIT: a next life
 * of the agent ends it
 *
 * Not synced: the process does not outlive the host either. Return: 0 or -errno with @err filled
 */
int history_launched(struct past *p, pid_t pid, struct error *err);
/** enum history_sync - when a record is to be on the disk: HISTORY_LATER: by history_sync(); HISTORY_APART: soon */
enum history_sync {
	HISTORY_LATER,
	HISTORY_APART,
};
/**
 * history_note() - write a record
 * @fate:	must follow from the one before (asserted)
 * @more:	members to go with it, borrowed, NULL for none: "view" is kept as past.view, "pid",
 *		"pid_start", "pass" and "listened" belong to HISTORY_OWNER, "place" to HISTORY_MAY_OWN
 * @w:		with HISTORY_APART: is told when it is on the disk, or that it cannot be, and then the fate
 *		has gone back; may be NULL
 *
 * Return: 0 or -errno with @err filled: then @fate has not changed
 */
int history_note(struct past *p, enum history_fate fate, const json_t *more, enum history_sync sync,
		 struct journal_wait *w, struct error *err);
/** history_sync() - have what was written without synced now, which nobody waits for */
void history_sync(struct past *p);
/** history_pending() - Return: whether the last record is not known to be on the disk: nobody is to be told of it */
static inline bool history_pending(const struct past *p)
{
	return journal_waiting(&p->synced);
}
/** history_await() - of a pending one: @w is told when it is not any more */
void history_await(struct past *p, struct journal_wait *w);
/** history_registered() - the last record of a completed one; nothing waits for it. Return: 0 or -errno with @err filled */
int history_registered(struct past *p, struct error *err);
/** history_overruled() - the guest was kept at its source. Return: 0 or -errno with @err filled */
int history_overruled(struct history *h, struct past *p, struct error *err);
/**
 * history_conclude() - a record of another boot, whose host can have had no part in it since: it was
 * aborted, or its guest has died
 * @fate:	HISTORY_ABORTED or HISTORY_GONE; must follow from the one before (asserted)
 *
 * Return: 0 or -errno with @err filled: then nothing has changed
 */
int history_conclude(struct history *h, struct past *p, enum history_fate fate, struct error *err);
/** history_end() - no incoming is behind it any more; @view replaces past.view (borrowed, may be
 * NULL). Drops the oldest ended ones beyond HISTORY_MAX */
void history_end(struct history *h, struct past *p, const json_t *view);

/** history_find() - by id. Return: NULL if there is none */
struct past *history_find(const struct history *h, const char *id);
/** history_find_guest() - the newest one of this boot whose guest is this host's (doubt_mine()). Return:
 * NULL if there is none */
struct past *history_find_guest(const struct history *h, const uint8_t uuid[static MSG_UUID_LEN],
				uint64_t generation);
/** history_first() - newest; go on with past.next */
struct past *history_first(const struct history *h);
/**
 * history_settle() - somebody asks about one that is over
 *
 * If it was not handed over, and the disk had no room for "aborted" when it ended, there may be some now. It is
 * pending then.
 */
void history_settle(struct history *h, struct past *p);
/** history_answer() - what a QUERY from @identity about @generation is told (not for a live one that
 * is before COMMIT: that is aborted first; nor for a pending one, of which UNKNOWN is said) */
enum msg_answer history_answer(const struct past *p, const char *identity, uint64_t generation);
/** history_ended() - Return: whether nothing more can be asked of it */
bool history_ended(const struct past *p);

#endif
