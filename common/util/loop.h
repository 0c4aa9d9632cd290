/* SPDX-License-Identifier: Apache-2.0 */
/* The daemon's one event loop: a libevent base, and a way for other threads to post work to it. */
#ifndef DECANT_UTIL_LOOP_H
#define DECANT_UTIL_LOOP_H

#include <event2/event.h>
#include <stdint.h>

struct loop;

/** loop_fn - work that runs on the loop's thread */
typedef void loop_fn(void *arg);

/**
 * loop_new() - make a loop; SIGPIPE is ignored in this process from here on
 *
 * The loop's thread is the one that is inside loop_run(); until then the one that made it.
 *
 * Return: the loop, NULL when out of memory or descriptors
 */
struct loop *loop_new(void);
/**
 * loop_free() - after loop_run() has ended; work still queued is dropped
 *
 * Threads that wait in loop_call() are let go first. NULL is fine.
 */
void loop_free(struct loop *l);
/** loop_base() - Return: the libevent base, without locks: for use on the loop's thread only */
struct event_base *loop_base(struct loop *l);
/**
 * loop_run() - serve events until loop_stop(); may be called again afterwards
 *
 * Return: 0 after loop_stop(), -errno on failure
 */
int loop_run(struct loop *l);
/**
 * loop_stop() - make loop_run() return, also one that has not begun yet
 *
 * From any thread or signal handler. Work queued behind what runs now stays queued.
 */
void loop_stop(struct loop *l);
/**
 * loop_post() - run @fn(@arg) on the loop's thread, soon, in the order of posting
 *
 * From any thread; never blocks. Return: 0 or -ENOMEM
 */
int loop_post(struct loop *l, loop_fn *fn, void *arg);
/**
 * loop_call() - run @fn(@arg) on the loop's thread and wait until it has returned
 *
 * From any thread but the loop's own. Return: 0, -ECANCELED if the loop ended first (@fn was not
 * and will not be run), -EDEADLK on the loop's own thread
 */
int loop_call(struct loop *l, loop_fn *fn, void *arg);
/**
 * loop_timer() - run @fn(@arg) once after @us microseconds; on the loop's thread only
 *
 * Return: an event for event_free() (which also cancels), NULL when out of memory
 */
struct event *loop_timer(struct loop *l, uint64_t us, loop_fn *fn, void *arg);

#endif
