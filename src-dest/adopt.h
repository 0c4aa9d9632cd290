/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Guests that an earlier life of this agent left behind. What they are is told by the records alone:
 *
 *   "owner"	handed over, pages may be missing. It is let go if that had not been done (rule 4: the
 *		record is what gives the right to), and as soon as it is attached it is an incoming again
 *		(revive.h). Until then, and where that fails, it is held: what is missing waits
 *		behind its own copy of the userfaultfd (rule 5), which nobody here closes
 *   "completed"	arrived: becomes a resident
 *   "aborted"	never ran and never will: is ended
 *
 * Loop thread only.
 */
#ifndef DECANT_ADOPT_H
#define DECANT_ADOPT_H

#include "dest.h"
#include "history.h"

struct adopted;
struct incoming;

/**
 * adopt_attach() - a guest has attached itself that is nobody's: was it left behind?
 *
 * Return: 0: @g is taken; -errno with @err filled: it is refused
 */
int adopt_attach(struct dest *d, struct guest *g, struct error *err);
/**
 * adopt_start() - before guests can attach: note who has died meanwhile, and remove page states that
 * nobody needs
 */
void adopt_start(struct dest *d);
/** adopt_qemu() - if a record is of a QEMU: look for it, and adopt_attach() it. adopt_qemu.c */
void adopt_qemu(struct dest *d, struct past *past);
/** adopt_qemu_gone() - if a record is of a QEMU, which has ended: it may not have removed its socket */
void adopt_qemu_gone(const struct past *past);
/** adopt_qemu_free_all() - look no longer */
void adopt_qemu_free_all(struct dest *d);
/** adopt_over() - an incoming is at its end: if it was made of one that was held, no more is to be told */
void adopt_over(struct incoming *inc);
/** adopt_free_all() - the agent ends; the guests run on */
void adopt_free_all(struct dest *d);

#endif
