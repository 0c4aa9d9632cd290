/* SPDX-License-Identifier: Apache-2.0 */
/*
 * KEPT: while this host could not be asked, an operator has decided at the source that the guest stays there
 * (decant resolve --keep source; PROTOCOL.md section 8). What has not run here never will. What does run here
 * runs twice now: it is stopped at once, not ended, and both agents say so.
 *
 * Which of DESIGN.md's rules it could break, and why it does not:
 *
 *   3 (pages are kept)  nothing is ended here: the guest that is stopped may have done work that nobody else
 *			has, and which of the two is to live on an operator decides
 *   4 (one place)	"aborted" is on the disk before the source is told that nothing has run; "overruled"
 *			before the guest is stopped, so that no later life of the agent lets it go again
 *   5 (unguarded)	a guest with missing pages stays an incoming that is held: descriptors,
 *			registrations and the fault thread stay as they are, and its process is stopped as a whole
 *   6 (peers)		only the migration's own source is heard, with the guest's generation; who may send
 *			KEPT may as well send ABORT, or no pages
 *
 * Loop thread only.
 */
#ifndef DECANT_OVERRULE_H
#define DECANT_OVERRULE_H

#include "dest.h"

/**
 * overrule() - what KEPT of this migration leads to
 * @identity:	of who says it
 * @generation:	that the guest has here
 *
 * Return: what it is answered: not-started, running or completed (it ran here, too, and was stopped), gone
 * (if it ran here, it has died), or unknown
 */
enum msg_answer overrule(struct dest *d, const uint8_t id[static MSG_UUID_LEN],
			 const char *identity, uint64_t generation);
/** overrule_json() - the error of such a record, for the REST interface. Return: new reference */
json_t *overrule_json(const struct past *p);
/** overrule_stop() - stop the guest of such a record, again if need be. Return: whether it lives */
bool overrule_stop(const struct past *p);

#endif
