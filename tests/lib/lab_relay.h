/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A network that fails when the test wants it: a process between a source and a destination that hands
 * bytes on, until it is told to break connections, to swallow what they carry, to let nobody in, or to take its time.
 */
#ifndef DECANT_TESTS_LAB_RELAY_H
#define DECANT_TESTS_LAB_RELAY_H

#include "lib/lab.h"

struct lab_relay;

/** lab_relay_new() - put one before a host: from now on others migrate to it there. Ends with the lab */
struct lab_relay *lab_relay_new(struct lab_host *h);
/** lab_relay_free() - it is of no use any more */
void lab_relay_free(struct lab_relay *r);
/** lab_relay_open() - Return: how many connections stand */
unsigned int lab_relay_open(struct lab_relay *r);
/** lab_relay_accepted() - Return: how many there have ever been */
unsigned int lab_relay_accepted(struct lab_relay *r);
/** lab_relay_cut() - reset all that stand, on both sides */
void lab_relay_cut(struct lab_relay *r);
/** lab_relay_cut_one() - reset one, counted in the order in which they were made, of those that stand */
void lab_relay_cut_one(struct lab_relay *r, unsigned int i);
/** lab_relay_swallow() - from now on nothing is taken from those that stand, and nobody is told */
void lab_relay_swallow(struct lab_relay *r);
/** lab_relay_refuse() - reset whoever comes from now on, or let them in again */
void lab_relay_refuse(struct lab_relay *r, bool refuse);
/** lab_relay_flap() - reset all that stand, again and again, every @ms; 0 ends it */
void lab_relay_flap(struct lab_relay *r, unsigned int ms);
/** lab_relay_cut_after() - reset all that stand once @bytes more have come from the source side */
void lab_relay_cut_after(struct lab_relay *r, unsigned int bytes);
/**
 * lab_relay_cut_before() - reset all that stand when the destination says something for the @nth time on the
 * connection that is made next, without handing it on; the TLS handshake counts as one
 */
void lab_relay_cut_before(struct lab_relay *r, unsigned int nth);
/**
 * lab_relay_later() - what it is told from now on is done once @bytes more have come from the source side
 *
 * So that it happens in the middle of a migration, however quick that is or how late a test looks. Up to four
 * orders, which answer nothing; @bytes 0 ends the list, and orders are carried out at once again.
 */
void lab_relay_later(struct lab_relay *r, unsigned int bytes);
/** lab_relay_waiting() - Return: orders that wait for their bytes */
unsigned int lab_relay_waiting(struct lab_relay *r);
/** lab_relay_delay() - from now on bytes take @ms in either direction; up to 4 MiB are on their way on each */
void lab_relay_delay(struct lab_relay *r, unsigned int ms);
/**
 * lab_relay_loss() - from now on packets are lost, as one sees it from above TCP: all that comes on that connection
 * in that direction stands for 200 ms and a round trip, or twice that, or four times..., and comes in a burst then
 * @of_million:	packets of 1448 bytes; 0 ends it
 * @seed:	of the dice
 */
void lab_relay_loss(struct lab_relay *r, unsigned int of_million, unsigned int seed);
/** lab_relay_stalls() - Return: packets that have been lost */
unsigned int lab_relay_stalls(struct lab_relay *r);

#endif
