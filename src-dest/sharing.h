/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Processes that attach themselves as sharers of a guest's memory (GUEST.md): from their hello until
 * all pages are here. Whose memory it is is told by the guest's name, and shown by the file that they
 * map.
 *
 * Which of DESIGN.md's rules it could break, and why it does not:
 *
 *   1, 5	a range is registered behind the last discard and the look at the holes, in the same moment
 *	as the guest's own blocks, and before its state is loaded; only then its DONE goes out, before
 *	which the sharer may not touch it. "Nothing is missing" is said of a file only, never of a name:
 *	the guest may be on its way a second time
 *   6	numbers of sharers and of ranges are bounded, what they say is looked up in /proc/PID/maps
 *   8	the sharer keeps a copy of its descriptor until it is told that all is here
 *
 * Loop thread only.
 */
#ifndef DECANT_SHARING_H
#define DECANT_SHARING_H

#include "dest.h"
#include "guest/share.h"
#include "incoming.h"

struct sharing;

/** sharing_attach() - for struct attach_config; @arg is the struct dest */
share_fn sharing_attach;
/** sharing_listen() - the guest's memory is registered: now its sharers' is; nothing runs yet. A sharer
 * that cannot is refused by itself. Return: 0 */
int sharing_listen(struct incoming *inc, struct error *err);
/** sharing_settled() - every page is received */
void sharing_settled(struct incoming *inc);
/** sharing_over() - the incoming is gone, and its struct sharers with it */
void sharing_over(struct incoming *inc);
/** sharing_free_all() - the agent ends: they keep their copies, and attach themselves to its successor */
void sharing_free_all(struct dest *d);

#endif
