/* SPDX-License-Identifier: Apache-2.0 */
/* A client of the REST interface of an agent that runs in this process. */
#ifndef DECANT_TESTS_FUZZ_CLIENT_H
#define DECANT_TESTS_FUZZ_CLIENT_H

#include "fuzz/lib/fuzz.h"

/** FUZZ_CLIENT_OPEN - connections that stay open at a time */
#define FUZZ_CLIENT_OPEN 4

/**
 * struct fuzz_client - who asks
 * @loop:	of the agent
 * @dir:	where it listens, at "api.sock"
 * @id:		the end of the last Location that an answer had; "" before
 * @open:	connections that stay; -1
 * @n:		of those that were made
 */
struct fuzz_client {
	struct loop *loop;
	const char *dir;
	char id[64];
	int open[FUZZ_CLIENT_OPEN];
	unsigned int n;
};

/** fuzz_client_begin() - nothing is asked yet */
void fuzz_client_begin(struct fuzz_client *c, struct loop *loop, const char *dir);
/** fuzz_client_end() - all connections are closed */
void fuzz_client_end(struct fuzz_client *c);
/** fuzz_client_get() - GET a path on a connection of its own, and turn the loop */
void fuzz_client_get(struct fuzz_client *c, const char *path);
/**
 * fuzz_client_ask() - a piece of an input as a request
 *
 * Its first line is method and path, lines behind it that begin with "+" are header fields, the rest is the
 * body. "@" is @id, which no mutation could know, and "$" is @dir. A piece that begins with "=" is asked on a
 * connection that stays, as that of a stream does.
 */
void fuzz_client_ask(struct fuzz_client *c, struct fuzz_in piece);

#endif
