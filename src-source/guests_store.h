/* SPDX-License-Identifier: Apache-2.0 */
/* Descriptions that clients have added, kept in state_dir/guests.json over restarts. */
#ifndef DECANT_GUESTS_STORE_H
#define DECANT_GUESTS_STORE_H

#include "guests.h"

/** guests_store_load() - add what the file says, unless the configuration describes that guest.
 * Return: 0, or -errno with @err filled */
int guests_store_load(struct source *s, struct error *err);
/** guests_stored_fn - the file has what there was at guests_store_save(), or is as it was: @ret is -errno, @err filled */
typedef void guests_stored_fn(void *arg, int ret, const struct error *err);
/**
 * guests_store_save() - write those that are stored
 *
 * A thread does that, because it waits for the disk. @fn is called once, not from within the call. Return: 0; or -errno
 * with @err filled, then it is not called
 */
int guests_store_save(struct source *s, guests_stored_fn *fn, void *arg, struct error *err);
/** guests_store_end() - what is due is written, and told, before this returns */
void guests_store_end(struct source *s);

#endif
