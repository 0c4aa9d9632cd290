/* SPDX-License-Identifier: Apache-2.0 */
/* Two ends of one connection in one thread, for tests. */
#ifndef DECANT_TESTS_TLS_PAIR_H
#define DECANT_TESTS_TLS_PAIR_H

#include "tls/tls_chan.h"

/** TLS_PAIR_PORT - bytes of a port in text */
#define TLS_PAIR_PORT 8

/** tls_pair_listen() - a listener on @host, any free port. Return: descriptor; aborts on failure */
int tls_pair_listen(const char *host, char port[static TLS_PAIR_PORT]);

/** tls_pair_sockets() - two connected TCP sockets on 127.0.0.1: [0] dialled, [1] accepted */
void tls_pair_sockets(int fd[static 2]);

/** tls_pair_buffers() - make a socket's buffers so small that a few records fill them */
void tls_pair_buffers(int fd);

/**
 * struct tls_pair - both ends, and how far each came
 * @client, @server:	the connections, for tls_chan_free()
 * @client_ret, @server_ret:	what tls_chan_handshake() said last
 * @client_err, @server_err:	why
 */
struct tls_pair {
	struct tls_chan *client;
	struct tls_chan *server;
	int client_ret;
	int server_ret;
	struct error client_err;
	struct error server_err;
};

/** tls_pair_handshake() - make both and shake hands until each is done or has failed */
void tls_pair_handshake(struct tls_pair *p, struct tls_ctx *client, struct tls_ctx *server,
			const char *host);

/** tls_pair_make() - the same, and it has to succeed */
void tls_pair_make(struct tls_pair *p, struct tls_ctx *client, struct tls_ctx *server);

/** tls_pair_alike() - the same, both of them with the certificate "host-a" of the folder of tls_pki.h */
void tls_pair_alike(struct tls_pair *p);

/** tls_pair_free() - end both */
void tls_pair_free(struct tls_pair *p);

#endif
