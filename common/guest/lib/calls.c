/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The callback thread. It alone calls the program, and it alone changes @paused: it compares what
 * is wished with what it did last, so that a pause that comes too late is undone by the same rule
 * that makes any other resume.
 */
#include "guest/lib/lib.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int lib_calls_post(struct decant_guest *g, uint16_t type, uint32_t id, int fd)
{
	if (g->njobs == LIB_JOBS_MAX || g->nresults >= LIB_RESULTS_MAX / 2)
		return -EBUSY;
	g->jobs[g->njobs++] = (struct lib_job){.type = type, .id = id, .epoch = g->epoch, .fd = fd};
	pthread_cond_broadcast(&g->work);
	return 0;
}

void lib_calls_result(struct decant_guest *g, uint32_t id, uint64_t epoch, int result,
		      uint64_t detail, const char *message)
{
	struct lib_result *r;

	if (epoch != g->epoch || g->nresults == LIB_RESULTS_MAX)
		return;
	r = &g->results[g->nresults++];
	r->id = id;
	r->epoch = epoch;
	r->result = result;
	r->detail = detail;
	snprintf(r->message, sizeof(r->message), "%s", message);
	lib_wake(g);
}

static void finish_pause(struct decant_guest *g, int result, uint64_t us)
{
	if (!g->pausing)
		return;
	g->pausing = false;
	lib_calls_result(g, g->pause_id, g->epoch, result, us,
			 result ? "the program could not pause" : "");
}

static int deadline_ms(const struct decant_guest *g)
{
	uint64_t now = lib_now_us();

	if (!g->pausing)
		return -1;
	return now < g->pause_deadline_us ? (int)((g->pause_deadline_us - now) / 1000) : 0;
}

static void call_pause(struct decant_guest *g)
{
	int ms = deadline_ms(g), ret;
	uint64_t began = lib_now_us();

	pthread_mutex_unlock(&g->lock);
	ret = g->cb.pause(g->opaque, ms);
	if (ret)
		lib_error(g, "the pause callback failed: %s", strerrorname_np(abs(ret)));
	pthread_mutex_lock(&g->lock);
	if (ret > 0 || ret < -4095)
		ret = -EIO;
	if (ret)
		g->hold = g->own = false; /* else it would be tried for ever */
	else
		g->paused = true;
	finish_pause(g, ret, lib_now_us() - began);
	lib_wake(g);
}

static void call_resume(struct decant_guest *g)
{
	pthread_mutex_unlock(&g->lock);
	g->cb.resume(g->opaque);
	pthread_mutex_lock(&g->lock);
	g->paused = false;
	lib_wake(g);
}

/* Lock held; given up during a callback. Return: whether something was done, so look again. */
static bool agree(struct decant_guest *g)
{
	bool want = g->hold || g->own;

	if (!lib_is_here(g))
		return false;
	if (want == g->paused) {
		if (want && g->hold)
			finish_pause(g, 0, 0);
		return false;
	}
	if (want)
		call_pause(g);
	else
		call_resume(g);
	return true;
}

static int do_save(struct decant_guest *g, const struct lib_job *job, uint64_t *detail,
		   const char **msg)
{
	struct decant_writer w = {.g = g, .epoch = job->epoch, .fd = job->fd};
	bool ok;
	int ret;

	pthread_mutex_lock(&g->lock);
	ok = g->hold && g->paused && !g->pausing && lib_is_here(g);
	pthread_mutex_unlock(&g->lock);
	if (!ok) {
		*msg = "not paused for a migration";
		return -EINVAL;
	}
	w.buf = malloc(LIB_STREAM_BUFFER);
	if (!w.buf)
		return -ENOMEM;
	ret = g->cb.save(g->opaque, &w);
	*msg = ret ? "the save callback failed" : "";
	if (!ret)
		lib_stream_flush(&w);
	if (w.error) {
		ret = w.error;
		*msg = ret == -EFBIG ? "the state is larger than 64 MiB" : "the pipe broke";
	}
	free(w.buf);
	*detail = w.total;
	return ret;
}

static int do_load(struct decant_guest *g, const struct lib_job *job, uint64_t *detail,
		   const char **msg)
{
	struct decant_reader r = {.g = g, .epoch = job->epoch, .fd = job->fd};
	int ret = -ENOMEM;

	r.buf = malloc(LIB_STREAM_BUFFER);
	if (r.buf) {
		ret = g->cb.load(g->opaque, &r);
		*msg = "the load callback failed";
		if (r.error) {
			ret = r.error;
			*msg = ret == -ENODATA ? "the state is too short" : "the state was cut off";
		}
		if (!ret) {
			ret = lib_stream_at_end(&r);
			*msg = ret == -EBADMSG ? "the load callback left bytes unread"
					       : "the state was cut off";
		}
	}
	if (!ret)
		*msg = "";
	free(r.buf);
	*detail = r.total;
	if (ret)
		lib_error(g, "load: %s", *msg);
	return ret;
}

static void do_resume(struct decant_guest *g)
{
	/* agree() has called the program already; a guest that has arrived may go on now. */
	pthread_mutex_lock(&g->lock);
	if (g->arrival == LIB_ARRIVED && !g->released)
		lib_release(g, g->paused ? DECANT_ARRIVED_PAUSED : DECANT_ARRIVED);
	pthread_mutex_unlock(&g->lock);
}

static void run_job(struct decant_guest *g, struct lib_job *job)
{
	char text[GWIRE_MESSAGE_MAX] = "";
	const char *msg = text;
	uint64_t detail = 0;
	int ret = 0;

	if (job->fd >= 0)
		fcntl(job->fd, F_SETFL, O_NONBLOCK);
	switch (job->type) {
	case GWIRE_SAVE:
		ret = do_save(g, job, &detail, &msg);
		break;
	case GWIRE_LOAD:
		ret = do_load(g, job, &detail, &msg);
		break;
	case GWIRE_RESUME:
		do_resume(g);
		break;
	case GWIRE_FINISH:
		ret = lib_advice_finish(g, &detail, text);
		break;
	}
	if (job->fd >= 0)
		close(job->fd); /* before DONE: the agent's end of file comes first */
	if (ret > 0 || ret < -4095)
		ret = -EIO;
	if (job->type == GWIRE_LOAD && !ret)
		ret = lib_block_protect(g);
	pthread_mutex_lock(&g->lock);
	if (job->type == GWIRE_LOAD) {
		g->arrival = ret ? LIB_FAILED : LIB_LOADED;
		g->own = !ret && g->load_paused;
		if (ret && job->epoch != g->epoch) /* nobody is left to be told first */
			lib_release(g, -EIO);
	}
	lib_calls_result(g, job->id, job->epoch, ret, detail, msg);
	lib_wake(g);
	pthread_mutex_unlock(&g->lock);
}

static void call_quit(struct decant_guest *g)
{
	g->quit = false;
	pthread_mutex_unlock(&g->lock);
	g->cb.quit(g->opaque);
	pthread_mutex_lock(&g->lock);
	lib_release(g, -ECANCELED);
}

static void take_job(struct decant_guest *g)
{
	struct lib_job job = g->jobs[0];

	g->njobs--;
	memmove(g->jobs, g->jobs + 1, g->njobs * sizeof(g->jobs[0]));
	pthread_mutex_unlock(&g->lock);
	run_job(g, &job);
	pthread_mutex_lock(&g->lock);
}

void *lib_calls_main(void *arg)
{
	struct decant_guest *g = arg;

	pthread_setname_np(pthread_self(), "decant-calls");
	pthread_mutex_lock(&g->lock);
	while (!g->stop) {
		if (g->quit)
			call_quit(g);
		else if (agree(g))
			continue;
		else if (g->njobs)
			take_job(g);
		else
			pthread_cond_wait(&g->work, &g->lock);
	}
	pthread_mutex_unlock(&g->lock);
	return NULL;
}
