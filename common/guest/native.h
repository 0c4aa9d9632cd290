/* SPDX-License-Identifier: Apache-2.0 */
/* The driver of native guests: GUEST.md from WELCOME on, the agent's side. attach.c makes them. */
#ifndef DECANT_GUEST_NATIVE_H
#define DECANT_GUEST_NATIVE_H

#include "guest/driver.h"

/**
 * native_new() - a guest that has no connection yet, to be filled by the caller
 *
 * @nblocks, @blocks, @pidfd and the rest are the caller's to fill; guest_free() releases them.
 *
 * Return: a guest, NULL when out of memory
 */
struct guest *native_new(struct loop *loop);
/**
 * native_start() - give it the connection over which its hello came
 * @sock:	non-blocking; taken over on success
 *
 * Return: 0 or -ENOMEM
 */
int native_start(struct guest *g, int sock);
/** native_welcome() - send WELCOME and go to work; whatever fails is told by the gone callback */
void native_welcome(struct guest *g);

#endif
