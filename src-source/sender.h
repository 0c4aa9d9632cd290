/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A bulk sender: one thread, one TLS channel, one queue. It reads the runs it is given out of the
 * guest's memory and sends them, and reads NACK and BARRIER_ACK from the destination.
 */
#ifndef DECANT_SENDER_H
#define DECANT_SENDER_H

#include "lane.h"
#include "runq.h"

/**
 * enum sender_state - of its channel
 * @SENDER_UP:	it stands
 * @SENDER_LOST: it is lost, and the destination may still place what was sent on it
 * @SENDER_DOWN: that is over
 */
enum sender_state { SENDER_UP, SENDER_LOST, SENDER_DOWN };

/**
 * struct sender - private to sender.c but for what is named here
 * @queue:	the snapshot thread pushes, this thread pops; closed while the channel is not up
 * @told, @told_us: number of the last barrier that was asked for and sent, and when
 * @acked:	number of the last barrier that the destination has answered
 * @state:	enum sender_state; lost is set by whoever loses it, the rest by the loop
 * @gone:	channels of it of which nothing is placed any more: rises by one with each
 * @given_up:	loop: lost, and sender_give_up() was called
 * @since_us:	loop: clock_us() when the channel was taken
 * @why:	what the channel was lost of, once it is
 */
struct sender {
	struct engine *e;
	uint32_t index;
	struct lane lane;
	struct runq queue;
	_Atomic uint32_t told;
	_Atomic uint64_t told_us;
	_Atomic uint32_t acked;
	_Atomic int state;
	_Atomic uint32_t gone;
	bool given_up;
	uint64_t since_us;
	struct error why;
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
/** sender_quit() - have the thread end; any thread */
void sender_quit(struct sender *s);
/** sender_silent() - loop: Return: whether its channel is up and nobody is there any more at its other end */
bool sender_silent(struct sender *s);
/** sender_break() - loop: its channel is lost, although the thread does not know: it is ended; for sender_give_up() */
void sender_break(struct sender *s, const struct error *why);
/** sender_give_up() - loop: its channel is lost, or is to be: end the thread, see to it that all is sent again */
void sender_give_up(struct sender *s);
/** sender_gone() - loop: nothing that was sent on the lost channel is placed any more */
void sender_gone(struct sender *s);
/** sender_again() - loop: another channel for a sender that is down; @chan is taken over on success. Return: as sender_start() */
int sender_again(struct sender *s, struct tls_chan *chan, struct error *err);
/** sender_join() - wait for the thread, which engine.stop_fd ends; safe twice */
void sender_join(struct sender *s);
/** sender_free() - after sender_join(): close the channel and free */
void sender_free(struct sender *s);
/** sender_wire_bytes() - Return: bytes that the socket has sent, as the kernel counts them */
uint64_t sender_wire_bytes(const struct sender *s);

#endif
