/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where sources connect: from TCP to a channel that belongs to a session. Whoever is not let in, or
 * is slow, costs a bounded place for a bounded time, and its own address's places first
 * (conf.limit_connections, conf.limit_connections_per_address).
 *
 * Loop thread only.
 */
#ifndef DECANT_LISTEN_H
#define DECANT_LISTEN_H

#include "dest.h"

struct listener;

/** listen_new() - listen on all addresses of conf.listen_host. Return: 0 or -errno with @err filled */
int listen_new(struct dest *d, struct listener **ret, struct error *err);
/** listen_waiting() - Return: connections that no session has yet; NULL has none */
unsigned int listen_waiting(const struct listener *l);
/** listen_free() - stop, and drop all that has no session; NULL is fine */
void listen_free(struct listener *l);

#endif
