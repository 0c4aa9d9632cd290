/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Syncing journals where no loop waits for it: a disk under pressure takes seconds for one fdatasync(2), in
 * which a loop that stood still would answer nobody, and its peers would give up sessions that have nothing to
 * do with it.
 *
 * A record is written at once, on the loop, and so in the order of the calls; what outlives the process's death
 * is there from then on. A thread syncs it, and whoever may take the next step only then is called back. Syncs of
 * one journal follow each other; those of several run side by side, which file systems make one of.
 *
 * All on the loop's thread.
 */
#ifndef DECANT_UTIL_JOURNAL_SYNC_H
#define DECANT_UTIL_JOURNAL_SYNC_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "util/error.h"
#include "util/journal.h"
#include "util/loop.h"

/** JOURNAL_SYNC_THREADS - that run side by side, each for as long as one sync takes */
#define JOURNAL_SYNC_THREADS 8
/** JOURNAL_SYNC_QUEUE - journals that wait for one of them; with more the caller waits itself */
#define JOURNAL_SYNC_QUEUE 256

struct journal_syncer;
struct journal_sync;
struct journal_wait;

/**
 * journal_synced_fn - it is on the disk, or is not known to be
 * @w:		idle again, may be freed or used anew; the journal may be closed
 * @err:	filled if @ret is -errno; the journal refuses further use then
 */
typedef void journal_synced_fn(struct journal_wait *w, int ret, const struct error *err);

/**
 * struct journal_wait - who waits for a journal to be synced; embedded by its owner, zero is idle
 * @fn:		see above; the owner's, and so is @arg
 * @round, @from, @to, @at, @next: journal_sync.c's own
 */
struct journal_wait {
	journal_synced_fn *fn;
	void *arg;
	uint64_t round;
	uint64_t from, to;
	struct journal_sync *at;
	struct journal_wait *next;
};

/** journal_syncer_new() - threads are started as they are needed. Return: NULL when out of memory */
struct journal_syncer *journal_syncer_new(struct loop *loop);
/**
 * journal_syncer_drain() - wait until all that was asked for is synced
 *
 * Nobody is told: the loop has ended, what would come next does not come.
 */
void journal_syncer_drain(struct journal_syncer *s);
/** journal_syncer_free() - behind the end of all journals that it syncs; drains. NULL is fine */
void journal_syncer_free(struct journal_syncer *s);

/**
 * journal_sync_by() - @j is synced by @s from now on
 *
 * Return: 0, or -errno with @err filled: then it is as before
 */
int journal_sync_by(struct journal *j, struct journal_syncer *s, struct error *err);
/**
 * journal_sync_apart() - have all that was written synced
 * @w:		who is to be told, not from within the call; an earlier wait of its is forgotten. NULL:
 *		nobody, a failure is logged
 *
 * Needs journal_sync_by().
 */
void journal_sync_apart(struct journal *j, struct journal_wait *w);
/**
 * journal_append_apart() - journal_write() and journal_sync_apart()
 *
 * If the sync fails, and nothing was written behind it, the record is taken back. Return: 0, or -errno with @err
 * filled: then nobody is told, the file is as before, or the journal refuses further use
 */
int journal_append_apart(struct journal *j, const json_t *record, struct journal_wait *w,
			 struct error *err);
/** journal_wait_cancel() - @w is not told any more; the sync goes on. Idle is fine */
void journal_wait_cancel(struct journal_wait *w);
/** journal_waiting() - Return: whether @w is still to be told */
static inline bool journal_waiting(const struct journal_wait *w)
{
	return w->at;
}

#endif
