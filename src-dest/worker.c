/* SPDX-License-Identifier: Apache-2.0 */
#include "worker.h"
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include "util/cleanup.h"
#include "util/log.h"
#include "util/trace.h"

/**
 * struct worker - a thread and its queue
 * @loop:	where results go
 * @thread:	joined by worker_stop()
 * @lock:	protects the fields below
 * @changed:	a job came, or @quit
 * @head, @tail: jobs to run, oldest first
 * @quit:	run no more
 */
struct worker {
	struct loop *loop;
	pthread_t thread;
	pthread_mutex_t lock;
	pthread_cond_t changed;
	struct worker_job *head, **tail;
	bool quit;
};

static void post_done(void *arg)
{
	struct worker_job *job = arg;

	job->done(job);
}

static void finish(struct worker *w, struct worker_job *job, int ret)
{
	job->ret = ret;
	if (loop_post(w->loop, post_done, job))
		log_error("worker: out of memory, a result is lost");
}

static struct worker_job *take(struct worker *w, bool wait)
{
	LOCK_SCOPE(&w->lock);
	struct worker_job *job;

	while (wait && !w->head && !w->quit)
		pthread_cond_wait(&w->changed, &w->lock);
	if (wait && w->quit)
		return NULL;
	job = w->head;
	if (job) {
		w->head = job->next;
		if (!w->head)
			w->tail = &w->head;
	}
	return job;
}

static void *worker_main(void *arg)
{
	struct worker *w = arg;
	struct worker_job *job;

	trace_thread_enter("worker");
	while ((job = take(w, true)))
		finish(w, job, job->run(job, &job->err));
	trace_thread_exit("worker", 0);
	return NULL;
}

int worker_start(struct loop *loop, struct worker **ret)
{
	struct worker *w = calloc(1, sizeof(*w));
	int r;

	if (!w)
		return -ENOMEM;
	w->loop = loop;
	w->tail = &w->head;
	pthread_mutex_init(&w->lock, NULL);
	pthread_cond_init(&w->changed, NULL);
	r = pthread_create(&w->thread, NULL, worker_main, w);
	if (r) {
		pthread_cond_destroy(&w->changed);
		pthread_mutex_destroy(&w->lock);
		free(w);
		return -r;
	}
	*ret = w;
	return 0;
}

void worker_push(struct worker *w, struct worker_job *job)
{
	LOCK_SCOPE(&w->lock);

	job->next = NULL;
	job->ret = 0;
	error_clear(&job->err);
	*w->tail = job;
	w->tail = &job->next;
	pthread_cond_signal(&w->changed);
}

static void quit(struct worker *w)
{
	LOCK_SCOPE(&w->lock);

	w->quit = true;
	pthread_cond_signal(&w->changed);
}

void worker_stop(struct worker *w)
{
	struct worker_job *job;

	if (!w)
		return;
	quit(w);
	pthread_join(w->thread, NULL);
	while ((job = take(w, false)))
		finish(w, job, -ECANCELED);
	pthread_cond_destroy(&w->changed);
	pthread_mutex_destroy(&w->lock);
	free(w);
}
