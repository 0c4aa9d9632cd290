/* SPDX-License-Identifier: Apache-2.0 */
/* Descriptions that clients have added, kept in state_dir/guests.json over restarts. */
#ifndef DECANT_GUESTS_STORE_H
#define DECANT_GUESTS_STORE_H

#include "guests.h"

/** guests_store_load() - add what the file says, unless the configuration describes that guest.
 * Return: 0, or -errno with @err filled */
int guests_store_load(struct source *s, struct error *err);
/** guests_store_save() - write those that are stored. Return: 0; -errno with @err filled: the file
 * is as it was */
int guests_store_save(const struct source *s, struct error *err);

#endif
