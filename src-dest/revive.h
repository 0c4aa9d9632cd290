/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A guest that an earlier life of this agent left behind in post-copy becomes an incoming again: placed,
 * guarded and held, so that its source can make the session anew (PROTOCOL.md section 12). What it is
 * stands in the records "setup", "may-own" and "owner", which of its pages are here in the files of their
 * states, and its process has kept the userfaultfd.
 *
 * Which of DESIGN.md's rules it could break, and why it does not:
 *
 *   1 (never overwrite)  the regime begins as PLACE_LIVE. A page that was placed in the very moment of the
 *			end, whose state is still missing, is found by the kernel (EEXIST) when it comes again
 *   2 (state after the kernel)  states are taken as they are: they were set behind the kernel's answer,
 *			in a file that outlives the process and, by its boot id, belongs to this boot. So
 *			nothing counts as received that was not; what was and is not noted comes again
 *   5 (unguarded)	no range is unregistered on the way here, whatever fails, and the guest's process keeps
 *			its copy of the descriptor until all is accounted for: who fails here leaves
 *			everybody waiting, as the end of the agent did. Faults that were read and not
 *			answered are made anew by one wake over every block, behind the start of
 *			the fault thread
 *   8 (an end at any moment)  nothing is written and nothing is used up: it can be done again and again
 *
 * Not known any more is a range that the guest gave back (REMOVE) and that was read, but not noted yet, when the
 * agent was killed: it counts as missing and comes with the content that it had at the source; and a
 * forked child, whose descriptor the agent alone had.
 *
 * Loop thread only.
 */
#ifndef DECANT_REVIVE_H
#define DECANT_REVIVE_H

#include <jansson.h>
#include "dest.h"
#include "guest/driver.h"
#include "history.h"

struct incoming;

/** revive_record() - members of "may-own" that a later life needs. Return: new reference, NULL when
 * out of memory */
json_t *revive_record(const struct incoming *inc);
/** revive_tag() - Return: what the userfaultfd is called that the guest keeps for this migration */
uint32_t revive_tag(const uint8_t id[static MSG_UUID_LEN]);
/**
 * revive_check() - can this guest be taken over?
 *
 * Return: 0; 1: it can, and no userfaultfd is needed, because nothing was missing; or -errno with @err
 * filled
 */
int revive_check(const struct past *p, const struct guest *g, struct error *err);
/**
 * revive() - make it an incoming in state held
 * @p:		its record; not live
 * @g:		taken over on success
 * @uffd:	the descriptor that it has kept, taken over in every case; -1 for none
 *
 * Return: 0; -EBUSY: the earlier life is still ending, try again; or another -errno; with @err filled
 */
int revive(struct dest *d, struct past *p, struct guest *g, int uffd, struct error *err);
/** revive_is_qemu() - Return: whether it is one that can be taken over by revive_qemu() */
bool revive_is_qemu(const struct past *p);
/**
 * revive_qemu() - the same of a QEMU, which may not answer: its main thread can be the one that waits for a
 * page. Its memory and its descriptor are found through /proc; once it answers it is to be the
 * incoming's by incoming_attach()
 */
int revive_qemu(struct dest *d, struct past *p, struct error *err);
/** revive_ended() - the process of such a guest has ended, attached or not */
void revive_ended(struct dest *d, const struct past *p);

#endif
