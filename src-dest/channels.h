/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A data channel is lost and the session stands (PROTOCOL.md section 3): the source says DROP, all that
 * came on it is placed or given up, then DROPPED says that nothing more of it will be, and another may come.
 */
#ifndef DECANT_DEST_CHANNELS_H
#define DECANT_DEST_CHANNELS_H

#include "incoming_priv.h"

/** channels_mend() - Return: whether the loss of a data channel is not that of the session */
bool channels_mend(const struct incoming *inc);
/** channels_drop() - DROP has come. Return: 0, or -errno with @err filled */
int channels_drop(struct incoming *inc, const struct msg *m, struct error *err);
/** channels_look() - a receiver has ended: was it to? */
void channels_look(struct incoming *inc);
/** channels_end_all() - the session is over before the switch: end them without waiting; channels_look() goes on */
void channels_end_all(struct incoming *inc);
/** channels_urgent_dropped() - the fault thread has let go of the urgent channel */
void channels_urgent_dropped(struct incoming *inc);
/** channels_to_fault() - the fault thread gets the urgent channel that there is, or learns that there is none */
void channels_to_fault(struct incoming *inc);

#endif
