/* SPDX-License-Identifier: Apache-2.0 */
/* The pipe through which a guest's device state goes. */
#ifndef DECANT_GUEST_STATE_PIPE_H
#define DECANT_GUEST_STATE_PIPE_H

/**
 * state_pipe() - a large one
 * @keep_end:	which end is ours: 0 to read, 1 to write
 * @ret_keep:	that one, non-blocking
 * @ret_give:	the guest's
 *
 * Return: 0 or -errno
 */
int state_pipe(int keep_end, int *ret_keep, int *ret_give);

#endif
