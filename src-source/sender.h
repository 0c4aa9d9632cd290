/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A bulk sender: one thread, one TLS channel, one queue. It reads the runs it is given out of the
 * guest's memory and sends them, and reads NACK and BARRIER_ACK from the destination.
 */
#ifndef DECANT_SENDER_H
#define DECANT_SENDER_H

#include "engine.h"
#include "runq.h"

/**
 * struct sender - private to sender.c but for what is named here
 * @queue:	the snapshot thread pushes, this thread pops
 * @told, @told_us: number of the last barrier that was sent, and when
 * @acked:	number of the last barrier that the destination has answered
 */
struct sender {
	struct engine *e;
	uint32_t index;
	struct tls_chan *chan;
	struct runq queue;
	_Atomic uint32_t told;
	_Atomic uint64_t told_us;
	_Atomic uint32_t acked;
	_Atomic uint64_t wire_bytes;
	uint8_t *buf;
	pthread_t thread;
	bool joined;
};

/**
 * sender_start() - start the thread
 * @chan:	taken over on success
 *
 * Return: 0, or -errno with @err filled
 */
int sender_start(struct engine *e, uint32_t index, struct tls_chan *chan, struct error *err);
/** sender_join() - wait for the thread, which engine.stop_fd ends; safe twice */
void sender_join(struct sender *s);
/** sender_free() - after sender_join(): close the channel and free */
void sender_free(struct sender *s);
/** sender_wire_bytes() - Return: bytes that the socket has sent, as the kernel counts them */
uint64_t sender_wire_bytes(const struct sender *s);

#endif
