/* SPDX-License-Identifier: Apache-2.0 */
/* The guests of this host: those that were described, and those that have attached themselves. */
#ifndef DECANT_GUESTS_H
#define DECANT_GUESTS_H

#include "source.h"

/**
 * struct source_guest - one entry
 * @desc:	description, owned
 * @conn:	the attached guest, NULL while it is absent; owned
 * @welcome:	timer between its attaching and its being asked anything, NULL otherwise
 * @migration:	the job that has a say over it: active, or ended with the guest held; NULL otherwise.
 *		Kept in step by migration.c
 * @described:	by the configuration or a client; otherwise it just attached itself
 * @handed_over: it has left; the entry stays until it returns or is removed
 * @stored:	a client described it: kept over restarts (guests_store.h)
 * @added_us:	clock_us() when a client described it last, 0 if none did
 * @sampled:	its writes are being counted for an evacuation's plan: no job may begin
 * @look, @look_again: driver qemu: an attempt to find it, and the time of the next
 * @look_us:	how long after a look the next is due
 * @when_known, @when_known_arg: who waits for the end of the first (guests_qemu.h)
 * @problem:	why it is not found; empty while that is not known
 */
struct source_guest {
	struct source *src;
	struct source_guest *next;
	struct conf_guest desc;
	struct guest *conn;
	struct event *welcome;
	struct migration *migration;
	bool described;
	bool handed_over;
	bool stored;
	bool sampled;
	uint64_t added_us;
	struct qemu_attach *look;
	struct event *look_again;
	uint64_t look_us;
	void (*when_known)(void *arg);
	void *when_known_arg;
	struct error problem;
};

/** guests_configure() - take over those of the configuration. Return: 0, or -errno with @err filled */
int guests_configure(struct source *s, struct error *err);
/** guests_look_for_all() - begin to look for guests that do not attach themselves; once the loop is there
 * and earlier jobs are known */
void guests_look_for_all(struct source *s);
/** guests_attach() - attach_fn of the attach socket; @arg is the struct source */
int guests_attach(void *arg, struct guest *g, struct error *err);
/**
 * guests_add() - a description from a client
 * @desc:	copied
 *
 * Replaces an entry that was handed over, and one that is the same guest and takes part in nothing. Return: 0 with
 * @ret; -EEXIST if the name is taken, -EBUSY if that guest is being migrated or in doubt; @err filled
 */
int guests_add(struct source *s, const struct conf_guest *desc, struct source_guest **ret,
	       struct error *err);
/** guests_remove() - forget an entry; the program is not touched. Return: 0 or -EBUSY with @err filled */
int guests_remove(struct source_guest *sg, struct error *err);
/** guests_reserve() - find, or make an entry without a description: for a guest that attaches by itself, or that a job of
 * an earlier run holds. Return: NULL when out of memory */
struct source_guest *guests_reserve(struct source *s, const char *name);
/** guests_find() - Return: the entry of that name, or NULL */
struct source_guest *guests_find(struct source *s, const char *name);
/** guests_json() - Return: new reference, as GET /v1/guests/{name} shows it */
json_t *guests_json(const struct source_guest *sg);
/** guests_free() - let go of all guests; they run on */
void guests_free(struct source *s);

#endif
