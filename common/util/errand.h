/* SPDX-License-Identifier: Apache-2.0 */
/* One piece of work that may wait, done by a short-lived thread for the loop. */
#ifndef DECANT_UTIL_ERRAND_H
#define DECANT_UTIL_ERRAND_H

#include <event2/event.h>
#include <pthread.h>
#include <stdbool.h>

#include "util/error.h"
#include "util/loop.h"

struct errand;

/** errand_run_fn - on a thread of its own; must end by itself. Return: 0, or -errno with @err filled */
typedef int errand_run_fn(struct errand *e, struct error *err);
/** errand_done_fn - on the loop's thread, once; @e is idle again and may be freed or started anew */
typedef void errand_done_fn(struct errand *e);

/**
 * struct errand - embedded by its owner; zero is idle
 * @run, @done:	see above
 * @ret, @err:	what @run returned
 * @under_way:	started, and neither done nor dropped
 * @thread, @end_fd, @ended: errand.c's own
 */
struct errand {
	errand_run_fn *run;
	errand_done_fn *done;
	int ret;
	struct error err;
	bool under_way;
	pthread_t thread;
	int end_fd;
	struct event *ended;
};

/** errand_start() - Return: 0 or -errno (then @done is not called) */
int errand_start(struct errand *e, struct loop *loop, errand_run_fn *run, errand_done_fn *done);
/** errand_drop() - wait for the end of the thread; @done is not called any more. Idle is fine */
void errand_drop(struct errand *e);

#endif
