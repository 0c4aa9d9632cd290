/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The cordon: a file that both agents of a host look at. As long as it is there the host accepts no guest.
 * decant-source makes and removes it; decant-dest looks whenever a session begins, so that there is no moment
 * at which the order was answered and is not obeyed, and so that it holds over restarts of either, in any order.
 */
#ifndef DECANT_HOST_CORDON_H
#define DECANT_HOST_CORDON_H

#include <stdbool.h>
#include <stdint.h>
#include "util/error.h"

/** CORDON_BY_MAX - bytes of who ordered it, with the NUL */
#define CORDON_BY_MAX 64

/**
 * struct cordon - an order
 * @since_us:	clock_wall_us() of it; 0 if the file does not tell
 * @by:		"operator", or the id of an evacuation
 */
struct cordon {
	uint64_t since_us;
	char by[CORDON_BY_MAX];
};

/**
 * cordon_holds() - is the host cordoned?
 *
 * A file that is there and cannot be looked at holds as well: what was ordered must not be undone by a mistake.
 * Return: whether
 */
bool cordon_holds(const char *file);
/** cordon_read() - Return: whether the host is cordoned; then @ret says since when and by whom, as far as the file does */
bool cordon_read(const char *file, struct cordon *ret);
/** cordon_set() - synced when this returns; one that is there stays as it is. Return: 0 or -errno with @err filled */
int cordon_set(const char *file, const struct cordon *c, struct error *err);
/** cordon_lift() - remove it, synced; one that is not there is fine. Return: 0 or -errno with @err filled */
int cordon_lift(const char *file, struct error *err);

#endif
