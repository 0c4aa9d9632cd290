/* SPDX-License-Identifier: Apache-2.0 */
/* Two hosts and the guest tests/guests/paint, for those who want to know more of it than stamp says. */
#ifndef DECANT_TESTS_LAB_PAINT_H
#define DECANT_TESTS_LAB_PAINT_H

#include <jansson.h>
#include "lib/lab.h"

/** PAINT_THREADS - threads that look at its memory where it has arrived */
#define PAINT_THREADS 2

/** struct paint_world - the guest is at @a and goes to @b */
struct paint_world {
	struct lab *lab;
	struct lab_host *a, *b;
	struct lab_proc *guest;
};

/** paint_world() - the guest has @mb MiB ("16", or "16h" for huge pages); its threads look at a page
 * each @sleep_us */
struct paint_world paint_world(struct lab *lab, const char *mb, const char *sleep_us);
/** paint_migrate() - Return: the command, which waits for the end */
struct lab_proc *paint_migrate(struct paint_world *w, const char *mode, const char *rate);
/** paint_report() - Return: what it says at the destination, new reference; NULL for nothing yet */
json_t *paint_report(struct paint_world *w);
/** paint_said() - Return: a number of it; 1 for true, 0 for what it has not said */
long paint_said(struct paint_world *w, const char *what);
/** paint_phase_is() - Return: whether the incoming at @b is in this phase */
bool paint_phase_is(struct paint_world *w, const char *phase);

#endif
