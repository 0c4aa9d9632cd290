/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A migration: one guest on its way out. The state machine is the table of proto/state.c; this is
 * what drives it. Everything here belongs to the loop's thread.
 */
#ifndef DECANT_MIGRATION_H
#define DECANT_MIGRATION_H

#include <jansson.h>
#include <stdbool.h>

#include "conf/conf_options.h"
#include "doubt.h"
#include "guest/driver.h"
#include "source.h"
#include "state.h"

/** struct migration_image - a job that stores an image and moves nothing: @name or NULL; @start: start a copy from it */
struct migration_image {
	const char *name;
	bool start;
};

/** struct migration_asked - the request that makes a job: its Idempotency-Key, at most 128 characters, and rest_request_digest() */
struct migration_asked {
	const char *key;
	uint64_t digest;
};

/**
 * migration_new() - make a job and start it
 * @to:		"HOST[:PORT]", "[V6]:PORT"
 * @asked:	by what request; NULL for none that could be repeated
 * @image:	makes a snapshot instead; NULL: a migration
 *
 * Return: 0 with @ret; -errno with @err filled: what was asked for cannot be done now
 */
int migration_new(struct source *s, struct source_guest *sg, const char *to,
		  const struct migration_asked *asked, const struct mig_options *options,
		  const struct migration_image *image, struct migration **ret, struct error *err);
/** migration_find_key() - Return: the job that a request with this Idempotency-Key has made, or NULL */
struct migration *migration_find_key(struct source *s, const char *key);
/** migration_asked_so() - Return: whether it was made by a request of this digest */
bool migration_asked_so(const struct migration *m, uint64_t digest);
/** migration_is_snapshot() - Return: whether the job stores an image */
bool migration_is_snapshot(const struct migration *m);
/** migration_find() - Return: the job of that id, or NULL */
struct migration *migration_find(struct source *s, const char *id);
/** migration_json() - Return: new reference to the object of the contract */
json_t *migration_json(const struct migration *m);
/** migrations_json() - Return: new reference to an array of all jobs that are @snapshots, or are not, newest first */
json_t *migrations_json(const struct source *s, bool snapshots);
/** migrations_show() - to those who look at events: how far each job is (a rest_events_progress_fn; @arg: struct source) */
void migrations_show(struct rest_events *ev, void *arg);
const char *migration_id(const struct migration *m);
const char *migration_phase(const struct migration *m);
/** migration_cancel() - Return: 0; -EBUSY past the point of no return, -EALREADY if it has ended; @err filled */
int migration_cancel(struct migration *m, struct error *err);
/** migration_switchover() - end precopy now. Return: 0, or -EBUSY with @err filled if it is not in precopy */
int migration_switchover(struct migration *m, struct error *err);

/**
 * migration_recover() - a paused migration, or one in doubt: ask the destination now
 * @to:		another address of it, NULL for the one that is known
 *
 * Return: 0; -EINVAL for @to, -EBUSY or -EALREADY in any other state, with @err filled
 */
int migration_recover(struct migration *m, const char *to, struct error *err);
/** enum mig_keep - whose copy of a guest lives on: an operator's decision */
enum mig_keep {
	MIG_KEEP_NONE,
	MIG_KEEP_SOURCE,
	MIG_KEEP_DESTINATION,
};

/** mig_keep_name() - Return: "source", "destination" */
const char *mig_keep_name(enum mig_keep keep);
/** mig_keep_parse() - Return: 0, or -EINVAL if @text (may be NULL) is neither */
int mig_keep_parse(const char *text, enum mig_keep *ret);
/**
 * migration_resolve() - decide where the guest of a job lives that is in doubt, paused, or has left a copy here
 * @confirm:	the id of the job, typed by whoever decides; NULL for none
 *
 * The decision is in the journal when this returns; what follows is seen in the job's "resolution". Return: 0;
 * -EBUSY where there is nothing to decide, -EINVAL without @confirm: then the error says what is risked;
 * or another -errno; with @err filled
 */
int migration_resolve(struct migration *m, enum mig_keep keep, const char *confirm,
		      struct error *err);
/** migration_busy() - Return: whether the job has not ended */
bool migration_busy(const struct migration *m);
/** migrations_busy() - Return: how many jobs have not ended */
unsigned int migrations_busy(const struct source *s);
/** migration_is_of() - Return: whether this is the uuid of its guest */
bool migration_is_of(const struct migration *m, const uint8_t uuid[static GUEST_UUID_LEN]);
/** migration_holds_guest() - Return: whether the guest must not run here, because it runs, or may run, elsewhere */
bool migration_holds_guest(const struct migration *m);
/** migration_guest_stopped() - to make the guest do something for the job, a thread of it stood for @us */
void migration_guest_stopped(struct migration *m, uint64_t us);
/** migration_guest_gone() - the guest of the job was lost */
void migration_guest_gone(struct migration *m, enum guest_gone how);
/** migration_guest_attached() - a guest has (again) attached: settle what is open. Asks nothing of it */
void migration_guest_attached(struct source_guest *sg);
/** migration_guest_welcomed() - it may be asked now: let it go if nothing holds it */
void migration_guest_welcomed(struct source_guest *sg);
/** migration_forget_guest() - the entry no longer stands for the guest of its job */
void migration_forget_guest(struct source_guest *sg);

/** migration_load_all() - take up the journals of an earlier run. Return: 0, or -errno with @err filled */
int migration_load_all(struct source *s, struct error *err);
/** migration_end_all() - the daemon ends: stop what runs (guests that were not handed over go on) and free */
void migration_end_all(struct source *s);

#endif
