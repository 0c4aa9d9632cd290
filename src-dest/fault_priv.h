/* SPDX-License-Identifier: Apache-2.0 */
/* What fault.c (the thread) and fault_resume.c (from one session to the next) share. */
#ifndef DECANT_FAULT_PRIV_H
#define DECANT_FAULT_PRIV_H

#include <pthread.h>
#include <semaphore.h>
#include "children.h"
#include "fault.h"
#include "frame.h"
#include "uffd/uffd.h"

/** FAULT_REQUESTS_MAX - bytes of requests that can wait to be written: one for each of 25,000 threads
 * of the guest */
#define FAULT_REQUESTS_MAX (1u << 20)

/**
 * struct fault - the thread; the rest belongs to it, but for the atomics
 * @place, @ops, @arg: see fault_start()
 * @urgent:	owned; NULL without one, or when it is lost
 * @in, @out:	of @urgent
 * @tally:	of @urgent
 * @huge:	a page of @urgent that is larger than a frame
 * @io:		how placing waits in this thread
 * @thread:	joined by fault_stop()
 * @started:	posted by the thread
 * @wake_fd:	eventfd: @quit or @hold have changed
 * @quit, @hold: see fault_stop(), fault_hold(); @hold is lifted by the thread alone
 * @next_lock, @next, @resume: see fault_resume(): what the thread is to take
 * @mend, @drop, @again: see fault_mend(), fault_drop(), fault_ask_again()
 * @ended:	the thread answers nothing any more
 * @told:	bit for each enum fault_trouble
 * @later, @nlater, @later_cap: events that were read while a page was being placed
 * @children:	what the guest has forked
 * @m:		a message to send
 */
struct fault {
	struct place *place;
	const struct fault_ops *ops;
	void *arg;
	struct tls_chan *urgent;
	struct frame_reader in;
	struct frame_writer out;
	struct tally *tally;
	struct place_huge huge;
	struct place_io io;
	pthread_t thread;
	sem_t started;
	int wake_fd;
	_Atomic bool quit;
	_Atomic bool hold;
	pthread_mutex_t next_lock;
	struct tls_chan *next;
	_Atomic bool resume;
	_Atomic bool mend;
	_Atomic bool drop;
	_Atomic bool again;
	_Atomic bool ended;
	unsigned int told;
	struct uffd_event *later;
	size_t nlater;
	size_t later_cap;
	struct children children;
	struct msg m;
};

/* The thread's alone: */

/** fault_drop_urgent() - there is no urgent channel any more; nothing is asked for until fault_take_next() */
void fault_drop_urgent(struct fault *f);
/** fault_lose_urgent() - the same, told as trouble */
void fault_lose_urgent(struct fault *f, const struct error *err);
/** fault_ask() - ask for a missing page, if there is a way */
void fault_ask(struct fault *f, unsigned int block, uint64_t page);
/** fault_flush() - write requests as far as goes without waiting */
void fault_flush(struct fault *f);
/** fault_take_next() - begin with the session of fault_resume() */
void fault_take_next(struct fault *f);

/** fault_obey() - do what fault_drop() and fault_ask_again() have ordered */
void fault_obey(struct fault *f);
/** fault_do_ask_again() - ask for all that is asked for and missing */
void fault_do_ask_again(struct fault *f);

/** fault_wake() - have the thread look again; any thread */
void fault_wake(struct fault *f);

#endif
