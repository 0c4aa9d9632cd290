/* SPDX-License-Identifier: Apache-2.0 */
/* How fast this host encrypts, for people who want to know what a channel can carry. */
#ifndef DECANT_TLS_SPEED_H
#define DECANT_TLS_SPEED_H

#include <stdint.h>
#include "util/error.h"

/**
 * struct tls_speed - bytes per second of one thread's time, sealing records of 16 KiB in memory
 * @aes128gcm:		AES-128-GCM
 * @chacha20poly1305:	ChaCha20-Poly1305
 */
struct tls_speed {
	uint64_t aes128gcm;
	uint64_t chacha20poly1305;
};

/**
 * tls_speed_measure() - measure both, about 50 ms of the calling thread's time each
 * @ret:	untouched on failure
 *
 * Return: 0, or -errno with @err filled
 */
int tls_speed_measure(struct tls_speed *ret, struct error *err);

#endif
