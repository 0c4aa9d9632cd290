/* SPDX-License-Identifier: Apache-2.0 */
/* The urgent thread: reads REQUESTs from the urgent channel and answers with the pages at once. */
#ifndef DECANT_URGENT_H
#define DECANT_URGENT_H

#include "engine.h"

/** urgent_start() - start the thread; @chan is taken over on success. Return: 0, or -errno with @err filled */
int urgent_start(struct engine *e, struct tls_chan *chan, struct error *err);
/** urgent_join() - wait for the thread, which engine.stop_fd ends; safe twice; NULL is fine */
void urgent_join(struct urgent *u);
/** urgent_free() - after urgent_join(): close the channel and free; NULL is fine */
void urgent_free(struct urgent *u);
/** urgent_wire_bytes() - Return: bytes that the socket has sent */
uint64_t urgent_wire_bytes(const struct urgent *u);

/**
 * urgent_check() - is this a request that can be served? Then it counts as asked. Any thread
 *
 * Return: 0; -EBADMSG with @err filled for pages outside of the blocks or before LISTEN
 */
int urgent_check(struct engine *e, const struct msg_request *q, struct error *err);

#endif
