/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reading an image that is still being written: what has come is told by bitmaps in memory, which the
 * writer and its readers share. A unit is noted behind the writing of its page and of its entry in
 * the table, so that whoever sees it noted reads both; what has not come is never read, because the
 * file has zeros there.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include "image_priv.h"
#include "util/bitmap.h"
#include "util/cleanup.h"

/**
 * struct image_progress - see above
 * @refs:	the writer's, and each reader's
 * @readers:	how many read; a writer that nobody follows takes no lock
 * @n:		blocks
 * @lock:	protects the fields below
 * @changed:	they have changed
 * @gen:	counts changes, from 1
 * @ended:	the writer is done
 * @finished:	and the image is complete
 * @there:	units that have come, for each block; atomic, not under @lock
 */
struct image_progress {
	_Atomic unsigned int refs;
	_Atomic unsigned int readers;
	uint32_t n;
	pthread_mutex_t lock;
	pthread_cond_t changed;
	uint64_t gen;
	bool ended;
	bool finished;
	struct bitmap there[];
};

struct image_progress *image_progress_new(const struct image_facts *f)
{
	struct image_progress *p = calloc(1, sizeof(*p) + f->setup.blocks * sizeof(struct bitmap));
	pthread_condattr_t attr;

	if (!p)
		return NULL;
	p->refs = 1;
	p->gen = 1;
	p->n = f->setup.blocks;
	pthread_mutex_init(&p->lock, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&p->changed, &attr);
	pthread_condattr_destroy(&attr);
	for (uint32_t i = 0; i < p->n; i++) {
		if (bitmap_init(&p->there[i], f->blocks[i].length / IMAGE_UNIT)) {
			image_progress_unref(p);
			return NULL;
		}
	}
	return p;
}

void image_progress_unref(struct image_progress *p)
{
	if (!p || atomic_fetch_sub(&p->refs, 1) != 1)
		return;
	for (uint32_t i = 0; i < p->n; i++)
		bitmap_free(&p->there[i]);
	pthread_cond_destroy(&p->changed);
	pthread_mutex_destroy(&p->lock);
	free(p);
}

void image_progress_put(struct image_progress *p, const struct msg_pages *m)
{
	bitmap_set_range(&p->there[m->block], m->offset / IMAGE_UNIT, m->length / IMAGE_UNIT);
	if (!atomic_load(&p->readers))
		return;
	LOCK_SCOPE(&p->lock);
	p->gen++;
	pthread_cond_broadcast(&p->changed);
}

void image_progress_end(struct image_progress *p, bool finished)
{
	if (!p)
		return;
	LOCK_SCOPE(&p->lock);
	if (p->ended)
		return;
	p->ended = true;
	p->finished = finished;
	p->gen++;
	pthread_cond_broadcast(&p->changed);
}

int image_progress_reader(struct image_progress *p, const struct image_facts *f,
			  const struct image_layout *l, int fd, struct image **ret,
			  struct error *err)
{
	struct image *img = calloc(1, sizeof(*img));
	size_t n = f->setup.blocks;

	if (!img)
		return error_set(err, -ENOMEM, NULL, "out of memory");
	img->facts = *f;
	img->facts.machine = NULL; /* memory is all that is read meanwhile */
	img->layout = *l;
	img->facts.blocks = calloc(n ? n : 1, sizeof(*f->blocks));
	img->fd = fcntl(fd, F_DUPFD_CLOEXEC, 0);
	if (!img->facts.blocks || img->fd < 0) {
		image_close(img);
		return error_set(err, -ENOMEM, NULL, "image %s: out of memory or descriptors",
				 f->name);
	}
	memcpy(img->facts.blocks, f->blocks, n * sizeof(*f->blocks));
	img->progress = p;
	atomic_fetch_add(&p->refs, 1);
	atomic_fetch_add(&p->readers, 1);
	*ret = img;
	return 0;
}

void image_progress_leave(struct image_progress *p)
{
	atomic_fetch_sub(&p->readers, 1);
	image_progress_unref(p);
}

/* --- what readers ask --- */

uint64_t image_there(const struct image *img, unsigned int block, uint64_t offset, uint64_t length)
{
	uint64_t unit = offset / IMAGE_UNIT, end = (offset + length) / IMAGE_UNIT;
	const struct bitmap *b;

	if (!img->progress)
		return length;
	b = &img->progress->there[block];
	while (unit < end && bitmap_test(b, unit))
		unit++;
	return unit * IMAGE_UNIT > offset ? unit * IMAGE_UNIT - offset : 0;
}

uint64_t image_next_there(const struct image *img, unsigned int block, uint64_t offset)
{
	if (!img->progress)
		return offset;
	return MIN(bitmap_next_set(&img->progress->there[block], offset / IMAGE_UNIT) * IMAGE_UNIT,
		   img->facts.blocks[block].length);
}

int image_wait(struct image *img, uint64_t *seen, unsigned int ms, struct error *err)
{
	struct image_progress *p = img->progress;
	struct timespec until;
	int r = 0;

	if (!p)
		return 1;
	clock_gettime(CLOCK_MONOTONIC, &until);
	until.tv_nsec += (long)ms * 1000000;
	until.tv_sec += until.tv_nsec / 1000000000;
	until.tv_nsec %= 1000000000;
	LOCK_SCOPE(&p->lock);
	while (!r && p->gen == *seen && !p->ended)
		r = pthread_cond_timedwait(&p->changed, &p->lock, &until);
	*seen = p->gen;
	if (!p->ended)
		return 0;
	return p->finished ? 1
			   : error_set(err, -ENODATA, "image-incomplete",
				       "image %s was never completed: what stored it has ended",
				       img->facts.name);
}
