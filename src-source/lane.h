/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A data channel and what was sent on it without being answered yet: if the channel is lost, just that
 * has to be sent again. What is acknowledged is what stands before a BARRIER that was answered. Besides the
 * barriers at the end of a pass a lane has barriers of its own, so that what is open, and what is
 * sent again, is bounded by what is on the wire and not by the guest.
 */
#ifndef DECANT_LANE_H
#define DECANT_LANE_H

#include "engine.h"
#include "tls/tls_silence.h"

/** LANE_OPEN_MAX - runs and barriers that can be open */
#define LANE_OPEN_MAX 16384u
/**
 * LANE_RUNS, LANE_BYTES, LANE_US - after so much, or so long, a lane sends a barrier of its own. What is sent again
 * when it is lost is less than that, and what was under way: a link that flaps lets something through each time
 */
#define LANE_RUNS  1024u
#define LANE_BYTES (4ull << 20)
#define LANE_US    100000ull

/**
 * struct lane_open - pages [@first, @first + @n) of block @block; or, with block LANE_MARK, barrier @first,
 * which stands for number @n of whoever asked for it (0: the lane itself)
 */
struct lane_open {
	uint32_t block;
	uint64_t first;
	uint64_t n;
};

#define LANE_MARK UINT32_MAX

/**
 * struct lane - of one data thread; by others touched only while there is no such thread
 * @chan:	owned; NULL while there is none
 * @stop_fd:	eventfd, readable once the thread is to end
 * @runs, @digest_sum: of the PAGES frames sent on @chan
 * @ask:	its thread's place in the host's budget
 * @class, @guess, @wire: of what is being sent: its class, the bytes that it had turns for, and those of its frames so far
 * @open, @head, @n: ring of what is not acknowledged, oldest first; NULL: nothing is noted
 * @barrier:	number of the last barrier
 * @since_runs, @since_bytes: noted behind it
 * @marked_us:	when it was
 * @silence:	of @chan; the loop's
 */
struct lane {
	struct tls_chan *chan;
	int stop_fd;
	uint64_t runs;
	uint64_t digest_sum;
	struct budget_ask ask;
	enum budget_class class;
	uint64_t guess;
	uint64_t wire;
	struct lane_open *open;
	unsigned int head;
	unsigned int n;
	uint32_t barrier;
	unsigned int since_runs;
	uint64_t since_bytes;
	uint64_t marked_us;
	struct tls_silence silence;
};

/** lane_init() - @note: keep account of what is open. Return: 0 or -errno; lane_clear() in any case */
int lane_init(struct lane *l, bool note);
/** lane_clear() - close the channel, free the rest */
void lane_clear(struct lane *l);
/** lane_take() - a channel for a lane without one, owned from now on; its dead peer is noticed also when idle */
void lane_take(struct lane *l, struct tls_chan *chan);
/** lane_begin() - what is sent next is of this class, and had a turn of @guess bytes */
void lane_begin(struct lane *l, enum budget_class class, uint64_t guess);
/** lane_settle() - it was sent, or some of it */
void lane_settle(struct lane *l, struct engine *e);
/** lane_silent() - loop, once a second: Return: whether nobody is there any more at the other end of its channel */
bool lane_silent(struct lane *l);
/** lane_quit() - have the lane's thread end; any thread */
void lane_quit(struct lane *l);
/** lane_full() - Return: whether no more can be noted: an answer has to come first */
bool lane_full(const struct lane *l);
/** lane_note() - these pages are about to be sent; not if lane_full() */
void lane_note(struct lane *l, uint32_t block, uint64_t first, uint64_t n, uint64_t bytes);
/** lane_due() - Return: whether a barrier of its own is due. @now: clock_us() */
bool lane_due(const struct lane *l, uint64_t now);
/** lane_mark() - a barrier is about to be sent. @number: of who asked, 0 for nobody. @now: clock_us(). Return: its number on the wire */
uint32_t lane_mark(struct lane *l, uint32_t number, uint64_t now);
/**
 * lane_acked() - BARRIER_ACK has come: all before it is acknowledged
 * @ret_number: of who asked, 0 for nobody
 *
 * Return: 0, or -EBADMSG with @err filled if that is not the answer that is due
 */
int lane_acked(struct lane *l, uint32_t wire, uint32_t *ret_number, struct error *err);
/**
 * lane_give_up() - the channel is lost and its thread has ended: what is open is pending again, and what was
 * sent on it counts no more
 */
void lane_give_up(struct lane *l, struct engine *e);

#endif
