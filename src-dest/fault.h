/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The fault thread of one arriving guest. It sleeps on these at once: the guest's userfaultfd, those
 * of the sharers of its memory, the urgent channel and an eventfd; it asks for pages and places them itself, because
 * a second thread in between doubles the time that the guest waits.
 *
 * Which rules it could break: 2 and 1 are kept by place.h, through which it places. 5: it never
 * closes the userfaultfd, and it goes on answering what can be answered without the source when
 * the session is lost, so that nobody is handed anything but the truth; what is missing waits.
 */
#ifndef DECANT_FAULT_H
#define DECANT_FAULT_H

#include "msg.h"
#include "place.h"
#include "tally.h"
#include "tls/tls_chan.h"
#include "util/error.h"

struct fault;

/** enum fault_trouble - what went wrong */
enum fault_trouble {
	FAULT_LOST,   /* the urgent channel; faults are noted and wait */
	FAULT_BROKEN, /* the source sent what cannot be, or a fault cannot be answered; goes on */
	FAULT_ENDED,  /* the userfaultfd itself failed; the thread has ended, faults wait */
};

/**
 * struct fault_ops - called on the fault thread; must not wait
 * @request:	a page is wanted and there is no urgent channel
 * @trouble:	told at most once for each kind
 * @provide:	instead of all asking: place it now, out of what this host has. Return: 0, or -errno
 *		with @err filled. NULL where pages come from a source
 * @dropped:	what fault_drop() has ordered is done; NULL where nobody does
 */
struct fault_ops {
	void (*request)(void *arg, const struct msg_request *m);
	void (*trouble)(void *arg, enum fault_trouble what, const struct error *err);
	int (*provide)(void *arg, const struct msg_request *m, const struct place_io *io,
		       struct error *err);
	void (*dropped)(void *arg);
};

/**
 * fault_start() - start the thread; returns when it runs (P10: before anything is registered)
 * @place:	with @place->uffd, after its handshake
 * @urgent:	taken over, also on failure; NULL: requests go through @ops->request
 * @tally:	of the urgent channel
 *
 * Return: 0 or -errno
 */
int fault_start(struct place *place, struct tls_chan *urgent, struct tally *tally,
		const struct fault_ops *ops, void *arg, struct fault **ret);
/** fault_hold() - the session is over: end the urgent channel, ask for nothing; any thread */
void fault_hold(struct fault *f);
/** fault_look() - there are new sharers in place.sharers; any thread */
void fault_look(struct fault *f);
/**
 * fault_resume() - there is a session again: ask for what is asked for and still missing, and go on
 * @urgent:	taken over; NULL: requests go through @ops->request
 *
 * The counts of the tally begin at 0 again once the thread has taken the channel. Loop thread.
 */
void fault_resume(struct fault *f, struct tls_chan *urgent);
/** fault_mend() - the loss of the urgent channel is not that of the session: without it, ask by @ops->request */
void fault_mend(struct fault *f, bool mend);
/** fault_drop() - let go of the urgent channel, if there is one; @ops->dropped says when that is done. Any thread */
void fault_drop(struct fault *f);
/** fault_ask_again() - what was asked for and is missing may have been lost on its way: ask once more. Any thread */
void fault_ask_again(struct fault *f);
/** fault_lives() - Return: whether the thread answers faults; any thread */
bool fault_lives(const struct fault *f);
/**
 * fault_stop() - end and join the thread; NULL is fine. Not from its callbacks.
 *
 * Rule 5: only when every page is received, or the guest is ended; faults that nobody reads wait.
 */
void fault_stop(struct fault *f);

#endif
