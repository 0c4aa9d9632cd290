/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tls_chan.h and tls_ctx.h without TLS, put in their place by the linker: the other end is the input,
 * not a certificate. OpenSSL is fuzzed by others, and a handshake for each input would take longer
 * than the input.
 */
#ifndef DECANT_TESTS_FUZZ_PLAIN_CHAN_H
#define DECANT_TESTS_FUZZ_PLAIN_CHAN_H

#include "tls/tls_chan.h"

/** PLAIN_IDENTITY - who every peer is */
#define PLAIN_IDENTITY "DNS:peer"

/** plain_chan() - a channel over this socket, which it owns */
struct tls_chan *plain_chan(int fd);

/**
 * plain_dial_fn - somebody dials; any thread
 * @fd:		the other end's socket, non-blocking; to be owned
 *
 * Return: 0, or -errno: nobody listens there (@fd stays the caller's)
 */
typedef int plain_dial_fn(void *arg, int fd);
/** plain_on_dial() - who is dialled from now on; NULL: nobody listens */
void plain_on_dial(plain_dial_fn *fn, void *arg);

#endif
