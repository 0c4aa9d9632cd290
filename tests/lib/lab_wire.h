/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A peer that says what the test wants on the wire: TLS by OpenSSL directly, without the code under
 * test, and any bytes inside it.
 */
#ifndef DECANT_TESTS_LAB_WIRE_H
#define DECANT_TESTS_LAB_WIRE_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include "lib/lab.h"

struct lab_wire;

/**
 * struct lab_wire_opts - how to connect; zero means properly
 * @identity:	certificates to show; "" for none at all
 * @tls12:	speak no more than TLS 1.2
 * @alpn:	protocol to name instead of decant/1
 */
struct lab_wire_opts {
	const char *identity;
	bool tls12;
	const char *alpn;
};

/** lab_wire_open() - connect to a host's data plane. Return: NULL if the handshake was refused */
struct lab_wire *lab_wire_open(struct lab_host *h, const struct lab_wire_opts *opts);
/** lab_wire_send() - Return: whether all bytes could be sent */
bool lab_wire_send(struct lab_wire *w, const void *bytes, size_t n);
/** lab_wire_recv() - one frame, header first. Return: bytes of it; 0 at the end; -errno (-ETIMEDOUT) */
ssize_t lab_wire_recv(struct lab_wire *w, uint8_t *buf, size_t cap, unsigned int ms);
void lab_wire_close(struct lab_wire *w);

/** lab_tcp_open() - Return: a plain TCP connection to a host's data plane */
int lab_tcp_open(struct lab_host *h);

#endif
