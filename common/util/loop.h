/* SPDX-License-Identifier: Apache-2.0 */
/* The daemon's one event loop: a libevent base, and a way for other threads to post work to it. */
#ifndef DECANT_UTIL_LOOP_H
#define DECANT_UTIL_LOOP_H

#include <event2/event.h>
#include <stdint.h>

struct loop;

/** loop_fn - work that runs on the loop's thread */
typedef void loop_fn(void *arg);

/** loop_new() - Return: a loop whose owner is the calling thread, NULL when out of memory. SIGPIPE is ignored from here on. */
struct loop *loop_new(void);
/** loop_free() - after loop_run() has ended; work still queued is dropped */
void loop_free(struct loop *l);
/** loop_base() - Return: the libevent base, for use on the loop's thread only */
struct event_base *loop_base(struct loop *l);
/** loop_run() - Return: 0 after loop_stop(), -errno on failure */
int loop_run(struct loop *l);
/** loop_stop() - make loop_run() return; from any thread */
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
 * From any thread but the loop's own. Return: 0, or -ECANCELED if the loop ended first
 */
int loop_call(struct loop *l, loop_fn *fn, void *arg);
/**
 * loop_timer() - run @fn(@arg) once after @us microseconds; on the loop's thread only
 *
 * Return: an event for event_free() (which also cancels), NULL when out of memory
 */
struct event *loop_timer(struct loop *l, uint64_t us, loop_fn *fn, void *arg);

#endif
