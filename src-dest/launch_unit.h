/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Guests in units of systemd. A process that the agent starts itself inherits the agent's confinement
 * and stands in its control group; one that systemd starts for it, in a transient unit of
 * decant-guests.slice, has neither, and systemctl shows it. launch.h decides which.
 *
 * Everything is asked over the system bus without waiting for the answer. Loop thread only.
 */
#ifndef DECANT_LAUNCH_UNIT_H
#define DECANT_LAUNCH_UNIT_H

#include <stdbool.h>
#include "launch.h"

/** LAUNCH_UNIT_GROUP - the control group of all of them, below that of systemd: a dash is a level in names of slices */
#define LAUNCH_UNIT_GROUP "decant.slice/decant-guests.slice"

struct launch_unit;

/**
 * launch_units_new() - connect to systemd
 * @run_dir:	the tokens of guests are kept in there while these are being started
 *
 * Return: 0, or -errno with @err filled
 */
int launch_units_new(struct loop *loop, const char *run_dir, struct launch_units **ret,
		     struct error *err);
/** launch_units_free() - after the last launch; NULL is fine */
void launch_units_free(struct launch_units *us);
/** launch_units_usable() - Return: whether systemd can be asked; NULL: no */
bool launch_units_usable(const struct launch_units *us);

/**
 * launch_unit_start() - ask for a unit
 * @on_exit:	also told if there was no unit to be had; never called before this has returned
 *
 * Return: 0, or -errno with @err filled: it could not even be asked for
 */
int launch_unit_start(struct launch_units *us, const struct launch_spec *spec,
		      launch_exit_fn *on_exit, void *arg, struct launch_unit **ret,
		      struct error *err);
/** launch_unit_watch() - hand it to another owner */
void launch_unit_watch(struct launch_unit *u, launch_exit_fn *on_exit, void *arg);
/** launch_unit_kill() - SIGKILL for all of the unit */
void launch_unit_kill(struct launch_unit *u);
/** launch_unit_free() - of no interest any more; the unit stays */
void launch_unit_free(struct launch_unit *u);

#endif
