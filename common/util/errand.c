/* SPDX-License-Identifier: Apache-2.0 */
#include "util/errand.h"

#include <errno.h>
#include <stdint.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "util/log.h"

static void *work(void *arg)
{
	struct errand *e = arg;
	uint64_t one = 1;

	e->ret = e->run(e, &e->err);
	if (write(e->end_fd, &one, sizeof(one)) < 0)
		log_error("errand: its end cannot be told: %m");
	return NULL;
}

void errand_drop(struct errand *e)
{
	if (!e->under_way)
		return;
	pthread_join(e->thread, NULL);
	event_free(e->ended);
	close(e->end_fd);
	e->under_way = false;
}

static void on_ended(evutil_socket_t fd, short what, void *arg)
{
	struct errand *e = arg;

	(void)fd;
	(void)what;
	errand_drop(e);
	e->done(e);
}

int errand_start(struct errand *e, struct loop *loop, errand_run_fn *run, errand_done_fn *done)
{
	int r;

	e->run = run;
	e->done = done;
	e->ret = 0;
	error_clear(&e->err);
	e->end_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (e->end_fd < 0)
		return -errno;
	e->ended = event_new(loop_base(loop), e->end_fd, EV_READ, on_ended, e);
	r = !e->ended || event_add(e->ended, NULL) ? ENOMEM
						   : pthread_create(&e->thread, NULL, work, e);
	if (!r) {
		e->under_way = true;
		return 0;
	}
	if (e->ended)
		event_free(e->ended);
	close(e->end_fd);
	return -r;
}
