/* SPDX-License-Identifier: Apache-2.0 */
/* What listen.c (where sources connect) and listen_peer.c (until their session has them) share. */
#ifndef DECANT_LISTEN_PRIV_H
#define DECANT_LISTEN_PRIV_H

#include "conn.h"
#include "listen.h"
#include "util/journal_sync.h"

/** LISTEN_SOCKETS_MAX - addresses that a name may stand for */
#define LISTEN_SOCKETS_MAX 8

/**
 * struct peer - a connection that no session has yet
 * @l:		where it came in
 * @conn:	owned
 * @addr:	of the other end, without its port: of IPv6 the network, because a host has all of it
 * @alen:	bytes of @addr
 * @kind, @index, @migration: of its HELLO, once HELLO_ACK is on its way
 * @answered:	HELLO_ACK was sent: it joins its session when that is out
 * @hello:	what it said
 * @version:	agreed on
 * @query:	it may ask, once: then it is @asked
 * @synced:	the answer is being written down, and given behind that: about @generation, and to KEPT if
 *		@kept
 * @again:	it may RESUME its migration, by @token
 * @next:	younger
 */
struct peer {
	struct listener *l;
	struct conn *conn;
	uint8_t addr[8];
	size_t alen;
	struct msg_hello hello;
	uint16_t version;
	bool answered;
	bool query;
	bool asked;
	bool kept;
	uint64_t generation;
	struct journal_wait synced;
	bool again;
	uint8_t token[MSG_TOKEN_LEN];
	struct peer *next;
};

/**
 * struct listener - see listen.h
 * @sockets:	@n of them
 * @oldest:	peers, in the order in which they came
 * @n_peers:	how many
 * @rest:	accepting goes on after this
 */
struct listener {
	struct dest *d;
	struct evconnlistener *sockets[LISTEN_SOCKETS_MAX];
	unsigned int n;
	struct peer *oldest;
	unsigned int n_peers;
	struct event *rest;
};

/** listen_peer_new() - of what was accepted. @fd: taken over, also on failure. Return: NULL when out of memory */
struct peer *listen_peer_new(struct listener *l, int fd);
/** listen_peer_drop() - close it without a word */
void listen_peer_drop(struct peer *p);
/** listen_peer_make_way() - the same, for another's sake */
void listen_peer_make_way(struct peer *p);

#endif
