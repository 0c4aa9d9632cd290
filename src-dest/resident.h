/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Guests that have arrived and run here. They stay attached to this agent until the host's
 * decant-source has taken their description; then they are sent there, so that they can leave again.
 * A failure to register is reported and tried again for as long as it takes: it is never the guest's.
 *
 * Loop thread only.
 */
#ifndef DECANT_RESIDENT_H
#define DECANT_RESIDENT_H

#include "dest.h"
#include "guest/driver.h"
#include "history.h"

struct resident;

/**
 * resident_new() - take over a guest that has arrived
 * @past:	its record, for as long as the resident lives
 * @guest:	owned from here on; NULL if it is disconnected just now: it attaches again
 * @launch:	its process, owned from here on; NULL if it was started by an earlier life
 *
 * Return: 0 or -ENOMEM (then @guest and @launch are still the caller's)
 */
int resident_new(struct dest *d, struct past *past, struct guest *guest, struct launch *launch);
/** resident_attach() - a guest has attached itself: is it one of them? Return: whether it was taken */
bool resident_attach(struct dest *d, struct guest *g);
/** resident_find() - by name or uuid. Return: NULL if there is none */
struct resident *resident_find(const struct dest *d, const char *name,
			       const uint8_t uuid[static MSG_UUID_LEN]);
/** resident_count() - Return: how many are here */
unsigned int resident_count(const struct dest *d);
/** resident_free_all() - the agent ends: the guests run on */
void resident_free_all(struct dest *d);

#endif
