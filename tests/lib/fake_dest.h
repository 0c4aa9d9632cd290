/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A destination that keeps the protocol but for one sin: it takes pages and keeps none, and says of a guest
 * that was never there that it runs. It has threads of its own, one for each channel.
 */
#ifndef DECANT_TESTS_FAKE_DEST_H
#define DECANT_TESTS_FAKE_DEST_H

#include "lib/lab.h"

/**
 * enum fake_sin - what it does wrong
 * @SIN_SILENT:		takes connections and says nothing
 * @SIN_DRIBBLE:	HELLO_ACK comes byte by byte, one each 100 ms
 * @SIN_LONG_FRAME:	a frame on control whose header says 4 GiB
 * @SIN_NO_PREPARED, @SIN_NO_ACK, @SIN_NO_INTENT_ACK, @SIN_NO_READY, @SIN_NO_RUNNING, @SIN_NO_RECEIPT:
 *			that answer does not come, PONGs do
 * @SIN_READY_EARLY, @SIN_RUNNING_EARLY, @SIN_RECEIPT_EARLY: that comes instead of PREPARED
 * @SIN_ACK_AHEAD:	acknowledges a barrier that was not sent
 * @SIN_ACK_TWICE:	acknowledges each twice
 * @SIN_NACK_ALL:	refuses every run, again and again
 * @SIN_NACK_OUTSIDE:	refuses what no block has
 * @SIN_NACK_FLOOD:	refuses a run more often than it came
 * @SIN_REQUEST_EARLY:	asks for a page in precopy
 * @SIN_REQUEST_OUTSIDE, @SIN_REQUEST_BLOCK, @SIN_REQUEST_ODD: asks for bytes behind the block, of a block that
 *			is not there, of half a page; once the guest runs
 * @SIN_REQUEST_FLOOD:	asks for one page for ever
 * @SIN_PING_FLOOD:	PINGs for ever and reads no answer
 * @SIN_RECEIPT_FEWER:	its receipt counts fewer pages
 * @SIN_RECEIVED_OUTSIDE, @SIN_RECEIVED_ORDER, @SIN_RESUMED_EARLY: it loses the session behind RUNNING; when it is made
 *			again its bitmap has pages that the block has not, begins in the middle, or is not there at all
 */
enum fake_sin {
	SIN_NONE,
	SIN_SILENT,
	SIN_DRIBBLE,
	SIN_LONG_FRAME,
	SIN_NO_PREPARED,
	SIN_NO_ACK,
	SIN_NO_INTENT_ACK,
	SIN_NO_READY,
	SIN_NO_RUNNING,
	SIN_NO_RECEIPT,
	SIN_READY_EARLY,
	SIN_RUNNING_EARLY,
	SIN_RECEIPT_EARLY,
	SIN_ACK_AHEAD,
	SIN_ACK_TWICE,
	SIN_NACK_ALL,
	SIN_NACK_OUTSIDE,
	SIN_NACK_FLOOD,
	SIN_REQUEST_EARLY,
	SIN_REQUEST_OUTSIDE,
	SIN_REQUEST_BLOCK,
	SIN_REQUEST_ODD,
	SIN_REQUEST_FLOOD,
	SIN_PING_FLOOD,
	SIN_RECEIPT_FEWER,
	SIN_RECEIVED_OUTSIDE,
	SIN_RECEIVED_ORDER,
	SIN_RESUMED_EARLY,
};

struct fake_dest;

/** fake_dest_start() - listens with the certificates of host-b, for fake_dest_end() */
struct fake_dest *fake_dest_start(struct lab *lab, enum fake_sin sin);
/** fake_dest_to() - Return: "ADDRESS:PORT" */
const char *fake_dest_to(const struct fake_dest *d);
/** fake_dest_sessions() - Return: control channels that it has answered so far */
unsigned int fake_dest_sessions(const struct fake_dest *d);
/** fake_dest_end() - close everything, join all threads */
void fake_dest_end(struct fake_dest *d);

#endif
