/* SPDX-License-Identifier: Apache-2.0 */
/* The urgent thread: reads REQUESTs from the urgent channel and answers with the pages at once. */
#ifndef DECANT_URGENT_H
#define DECANT_URGENT_H

#include "engine.h"

/** urgent_start() - start the thread; @chan is taken over on success. Return: 0, or -errno with @err filled */
int urgent_start(struct engine *e, struct tls_chan *chan, struct error *err);
/** urgent_quit() - have the thread end; any thread; NULL is fine */
void urgent_quit(struct urgent *u);
/** urgent_why() - Return: what a lost channel was lost of */
const struct error *urgent_why(const struct urgent *u);
/** urgent_open() - Return: whether the channel stands; NULL is fine */
bool urgent_open(const struct urgent *u);
/** urgent_silent() - loop: Return: whether its channel is up and nobody is there any more at its other end; NULL is fine */
bool urgent_silent(struct urgent *u);
/** urgent_break() - loop: its channel is lost, although the thread does not know: it is ended; for urgent_give_up() */
void urgent_break(struct urgent *u, const struct error *why);
/** urgent_give_up() - loop: its channel is lost, or is to be: end the thread, see to it that all is sent again, free */
void urgent_give_up(struct urgent *u);
/** urgent_gone() - loop: nothing that was sent on the lost urgent channel is placed any more */
void urgent_gone(struct engine *e);
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
