/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A thread that does for one arriving guest, in order, what would hold up the loop: emptying its
 * memory and looking whether it is empty.
 */
#ifndef DECANT_WORKER_H
#define DECANT_WORKER_H

#include <stdatomic.h>
#include <stdbool.h>
#include "util/error.h"
#include "util/loop.h"

struct worker;

/**
 * struct worker_job - one piece of work; the owner embeds it
 * @run:	on the worker's thread. Return: 0 or -errno with @err filled
 * @done:	on the loop's thread, once for every job that was pushed, in the order of pushing; it
 *		may free the job. @ret is -ECANCELED, @err empty, if it was not run
 * @ret, @err:	result of @run
 * @next:	the worker's own
 */
struct worker_job {
	int (*run)(struct worker_job *job, struct error *err);
	void (*done)(struct worker_job *job);
	int ret;
	struct error err;
	struct worker_job *next;
};

/** worker_start() - Return: 0 or -errno */
int worker_start(struct loop *loop, struct worker **ret);
/** worker_push() - queue a job; loop thread */
void worker_push(struct worker *w, struct worker_job *job);
/**
 * worker_stop() - end after the job that is running, and join; NULL is fine
 *
 * What was not run is done with -ECANCELED, from the loop, later. A job that waits for the loop
 * must be able to give up (it watches a stop descriptor), otherwise this never returns.
 */
void worker_stop(struct worker *w);

#endif
