/* SPDX-License-Identifier: Apache-2.0 */
#include "runq.h"

#include <errno.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "util/cleanup.h"

#define RING (RUNQ_MAX + 1)

int runq_init(struct runq *q)
{
	memset(q, 0, sizeof(*q));
	q->work_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (q->work_fd < 0)
		return -errno;
	pthread_mutex_init(&q->lock, NULL);
	return 0;
}

void runq_destroy(struct runq *q)
{
	close(q->work_fd);
	pthread_mutex_destroy(&q->lock);
}

/* The eventfd follows "is anything queued"; both change under the lock. */
static void added(struct runq *q)
{
	if (q->n++ == 0)
		eventfd_write(q->work_fd, 1);
}

void runq_close(struct runq *q, bool closed)
{
	LOCK_SCOPE(&q->lock);
	q->closed = closed;
}

int runq_push(struct runq *q, const struct run *r)
{
	LOCK_SCOPE(&q->lock);
	if (q->closed)
		return -EPIPE;
	if (q->n >= RUNQ_MAX)
		return -EAGAIN;
	q->ring[(q->head + q->n) % RING] = *r;
	added(q);
	return 0;
}

int runq_push_front(struct runq *q, const struct run *r)
{
	LOCK_SCOPE(&q->lock);
	if (q->closed)
		return -EPIPE;
	if (q->n >= RING)
		return -EAGAIN;
	q->head = (q->head + RING - 1) % RING;
	q->ring[q->head] = *r;
	added(q);
	return 0;
}

bool runq_pop(struct runq *q, struct run *ret)
{
	eventfd_t dummy;

	LOCK_SCOPE(&q->lock);
	if (!q->n)
		return false;
	*ret = q->ring[q->head];
	q->head = (q->head + 1) % RING;
	if (--q->n == 0)
		eventfd_read(q->work_fd, &dummy);
	return true;
}

unsigned int runq_room(struct runq *q)
{
	LOCK_SCOPE(&q->lock);
	return q->closed || q->n >= RUNQ_MAX ? 0 : RUNQ_MAX - q->n;
}
