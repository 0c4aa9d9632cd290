/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One bulk channel of an arriving guest and the thread that empties it into the guest's memory, or
 * into an image of it.
 */
#ifndef DECANT_RECEIVE_H
#define DECANT_RECEIVE_H

#include "image.h"
#include "place.h"
#include "tally.h"
#include "tls/tls_chan.h"
#include "util/error.h"

struct receive;

/** enum receive_end - why a receiver ended by itself */
enum receive_end {
	RECEIVE_LOST,   /* the channel ended or broke */
	RECEIVE_BROKEN, /* the source sent what cannot be, or a page could not be placed */
	RECEIVE_GONE,   /* the guest is gone */
};

/** receive_end_fn - called once on the receiver's thread, which ends then; not after receive_stop() */
typedef void receive_end_fn(void *arg, enum receive_end why, const struct error *err);

/**
 * receive_start() - start the thread
 * @image:	where pages go if the guest is stored; NULL: into @place
 * @chan:	behind HELLO_ACK; taken over, also on failure
 *
 * Return: 0 or -errno
 */
int receive_start(struct place *place, struct image_writer *image, struct tls_chan *chan,
		  receive_end_fn *on_end, void *arg, struct receive **ret);
/** receive_drop() - have the thread end, without waiting: it tells so by @on_end, if it has not yet */
void receive_drop(struct receive *r);
/** receive_stop() - end the channel and join the thread; NULL is fine */
void receive_stop(struct receive *r);
/** receive_tally() - Return: its counts; any thread */
const struct tally *receive_tally(const struct receive *r);
/** receive_open() - Return: whether the channel still stands; any thread */
bool receive_open(const struct receive *r);

#endif
