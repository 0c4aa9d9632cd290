/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Giving a micro-VM its pages out of the image: the fault thread those that it touches, a job of the
 * worker the rest. Each region is a block of the place, with the region's address.
 *
 * Which rules it could break: 1 and 2 are kept by place.h. 5: what the image cannot give (it is damaged,
 * or the snapshot that was to write it has failed) stays missing and guarded: the micro-VM waits
 * there. A page that is removed (balloon) is noted before anybody places it again, so that the image
 * is not asked for it.
 */
#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include "micro_priv.h"
#include "proc.h"
#include "uffd/uffd.h"
#include "util/cleanup.h"
#include "util/clock.h"
#include "util/digest.h"
#include "util/faultpoint.h"
#include "util/log.h"

/* Bytes that are filled in at a time. */
#define FILL_BYTES MSG_PAGES_RAW_MAX
/* For more of an image that is still being written. */
#define WAIT_MS 20
/* Between two looks through all that has come of it; what is waited for is looked for at once. */
#define ROUND_US 5000
/* Runs that are filled in before it is looked again for what is waited for. */
#define RUNS_MAX 16

/* --- pages --- */

/* Read, checked, placed; what is there already stays. @buf: @length bytes of the calling thread */
static int put(struct micro *m, const struct place_io *io, unsigned int region, uint64_t offset,
	       uint64_t length, uint8_t *buf, struct error *err)
{
	struct msg_pages p = {.block = region,
			      .kind = MSG_PAGES_ZERO,
			      .offset = offset,
			      .length = length,
			      .pass = 1};
	bool zero;
	int r = image_read(m->img, 0, m->regions[region].offset + offset, length, buf, &zero, err);

	if (r)
		return r;
	if (!zero) {
		p.kind = MSG_PAGES_RAW;
		p.digest = digest_xxh3(buf, length);
	}
	return place_pages(&m->place, io, &p, buf, err);
}

/* Bytes of a range of a region that have come. */
static uint64_t there(const struct micro *m, unsigned int region, uint64_t offset, uint64_t length)
{
	uint64_t n = image_there(m->img, 0, m->regions[region].offset + offset, length);

	return n & ~(m->regions[region].page_size - 1);
}

/* What has not come yet stays noted as asked for: whoever fills in sees to it first. */
static int provide(void *arg, const struct msg_request *r, const struct place_io *io,
		   struct error *err)
{
	struct micro *m = arg;

	if (there(m, r->block, r->offset, r->length) < r->length)
		return 0;
	return put(m, io, r->block, r->offset, r->length, m->page, err);
}

static void tell_trouble(void *arg)
{
	struct micro_news *news = arg;

	micro_event(news->m, MICRO_EV_TROUBLE, &news->err);
}

static void on_trouble(void *arg, enum fault_trouble what, const struct error *err)
{
	struct micro *m = arg;
	struct micro_news *news = &m->news[what];

	/* The end of the process is told by its pidfd; behind the last page nobody waits. */
	if (what == FAULT_ENDED && !proc_start(m->pid))
		return;
	if (atomic_load(&m->place.regime) == PLACE_CLOSED) {
		log_debug("micro %s: passed over: %s", m->id_text, err->msg);
		return;
	}
	*news = (struct micro_news){m, *err};
	if (loop_post(m->d->loop, tell_trouble, news))
		log_error("micro %s: out of memory: %s", m->id_text, err->msg);
}

static const struct fault_ops ops = {.provide = provide, .trouble = on_trouble};

/* --- filling --- */

static bool stopped(const struct micro *m)
{
	struct pollfd p = {.fd = m->stop_fd, .events = POLLIN};

	return poll(&p, 1, 0) > 0;
}

/* The fault thread has an event to read first. */
static int again(void *arg)
{
	const struct micro *m = arg;
	struct pollfd p = {.fd = m->stop_fd, .events = POLLIN};
	struct timespec t = {.tv_nsec = 20000};

	return ppoll(&p, 1, &t, NULL) > 0 ? -ECANCELED : 0;
}

/**
 * struct filling - the job while it runs, on its thread
 * @io, @buf:	for put()
 * @runs:	that were filled in
 * @first:	what could not be given, first of all
 */
struct filling {
	struct micro *m;
	struct place_io io;
	uint8_t *buf;
	uint64_t runs;
	struct error first;
};

static bool over(int r)
{
	return r == -ESRCH || r == -ECANCELED;
}

/* A damaged page must not keep its neighbours away: those that can be had are placed one by one. */
static int put_run(struct filling *f, unsigned int region, uint64_t offset, uint64_t length)
{
	uint64_t page = f->m->regions[region].page_size;
	struct error err = {0};
	int r = put(f->m, &f->io, region, offset, length, f->buf, &err);

	if (!r || over(r))
		return r;
	for (uint64_t at = offset; length > page && at < offset + length; at += page) {
		struct error one = {0};

		r = stopped(f->m) ? -ECANCELED : put(f->m, &f->io, region, at, page, f->buf, &one);
		if (over(r))
			return r;
	}
	if (!error_is_set(&f->first))
		f->first = err;
	return 0;
}

/* Pages that a thread waits for and that have come meanwhile. */
static int fill_asked(struct filling *f, unsigned int region)
{
	const struct place_block *b = &f->m->place.blocks[region];
	uint64_t page = 0;
	int r = 0;

	while (!r && (page = bitmap_next_set(&b->asked, page)) < b->npages) {
		uint64_t off = page << b->shift;

		if (there(f->m, region, off, b->page_size) &&
		    pages_get(b->pages, page) == PAGES_MISSING)
			r = put_run(f, region, off, b->page_size);
		page++;
	}
	return r;
}

static int fill_all_asked(struct filling *f)
{
	int r = 0;

	for (unsigned int i = 0; !r && i < f->m->n && atomic_load(&f->m->place.outstanding); i++)
		r = fill_asked(f, i);
	return r;
}

static int fill_region(struct filling *f, unsigned int region)
{
	const struct micro_region *g = &f->m->regions[region];
	const struct place_block *b = &f->m->place.blocks[region];
	uint64_t most = MAX(FILL_BYTES, b->page_size), page = 0;
	int r = 0;

	while (!r && (page = pages_next_missing(b->pages, page)) < b->npages) {
		uint64_t off = page << b->shift, next;
		uint64_t n = there(f->m, region, off, MIN(most, b->length - off));

		if (stopped(f->m))
			return -ECANCELED;
		if (n) {
			r = put_run(f, region, off, n);
			if (!r && !(++f->runs % RUNS_MAX))
				r = fill_all_asked(f);
			page += n >> b->shift;
			continue;
		}
		next = image_next_there(f->m->img, 0, g->offset + off);
		page = MAX(page + 1, next < g->offset + b->length ? (next - g->offset) >> b->shift
								  : b->npages);
	}
	return r;
}

static int fill_all(struct filling *f)
{
	int r = 0;

	for (unsigned int i = 0; !r && i < f->m->n; i++)
		r = fill_region(f, i);
	return r;
}

/* Until everything was tried that can come. Return: 0, or -errno with @err filled */
static int fill(struct filling *f, struct error *err)
{
	struct micro *m = f->m;
	uint64_t seen = 0, round_us = 0;
	int r = 0, ended = 0;

	while (!r && !ended) {
		/* Before looking: what comes meanwhile is looked at in the next turn. */
		ended = image_wait(m->img, &seen, WAIT_MS, err);
		r = stopped(m) ? -ECANCELED : fill_all_asked(f);
		if (!r && (ended || clock_us() - round_us > ROUND_US)) {
			r = fill_all(f);
			round_us = clock_us();
		}
	}
	if (!r && error_is_set(&f->first)) {
		error_clear(err);
		*err = f->first;
		return -EBADMSG;
	}
	if (r)
		error_clear(err);
	return r ? r : MIN(ended, 0);
}

static int run_fill(struct worker_job *job, struct error *err)
{
	struct micro *m = (struct micro *)((char *)job - offsetof(struct micro, fill));
	struct filling f = {.m = m, .io = {again, m}};
	uint64_t most = FILL_BYTES;
	int r;

	for (unsigned int i = 0; i < m->n; i++)
		most = MAX(most, m->regions[i].page_size);
	f.buf = malloc(most);
	if (!f.buf)
		return error_set(err, -ENOMEM, NULL, "out of memory");
	r = fill(&f, err);
	free(f.buf);
	return r;
}

static void done_fill(struct worker_job *job)
{
	struct micro *m = (struct micro *)((char *)job - offsetof(struct micro, fill));

	if (place_complete(&m->place))
		micro_event(m, MICRO_EV_COMPLETE, NULL);
	else if (job->ret && !over(job->ret))
		micro_event(m, MICRO_EV_TROUBLE, &job->err);
}

/* --- the place --- */

static int fill_block(struct micro *m, unsigned int i, bool taken_up, struct error *err)
{
	const struct micro_region *g = &m->regions[i];
	struct place_block *b = &m->place.blocks[i];
	struct pages_what what = {.page_size = g->page_size, .npages = g->size / g->page_size};
	CLEANUP_FREE char *path = NULL;
	int r;

	snprintf(b->name, sizeof(b->name), "memory.%u", i);
	b->kind = g->page_size > 4096 ? MSG_BLOCK_HUGETLB : MSG_BLOCK_ANON;
	b->page_size = g->page_size;
	b->length = g->size;
	b->shift = (unsigned int)__builtin_ctzll(g->page_size);
	b->npages = what.npages;
	b->mem.block.addr = g->addr;
	/* The monitor has registered it already, and the kernel has no zero page for huge ones. */
	b->registered = true;
	b->zeropage = g->page_size == 4096;
	uuid_parse(m->id_text, what.id);
	memcpy(what.id + UUID_LEN, &(uint32_t){i}, sizeof(uint32_t));
	if (asprintf(&path, "%s/pages.%s.%u", m->d->conf.agent.run_dir, m->id_text, i) < 0) {
		path = NULL;
		return error_set(err, -ENOMEM, NULL, "out of memory");
	}
	r = taken_up ? pages_open(&b->pages, path, &what, err)
		     : pages_create(&b->pages, path, &what, err);
	if (!r && bitmap_init(&b->asked, b->npages))
		r = error_set(err, -ENOMEM, NULL, "out of memory");
	if (!r)
		atomic_store(&b->received, pages_received(b->pages));
	return r;
}

static int fill_place(struct micro *m, bool taken_up, struct error *err)
{
	uint64_t page_max = 0;
	int r;

	for (unsigned int i = 0; i < m->n; i++)
		page_max = MAX(page_max, m->regions[i].page_size);
	m->page = malloc(page_max);
	if (!m->page || place_init(&m->place, m->n, page_max))
		return error_set(err, -ENOMEM, NULL, "out of memory");
	m->placed = true;
	for (unsigned int i = 0; i < m->n; i++) {
		r = fill_block(m, i, taken_up, err);
		if (r) {
			error_prefix(err, "region %u", i);
			return r;
		}
	}
	m->place.uffd = m->uffd;
	atomic_store(&m->place.regime, PLACE_LIVE);
	return 0;
}

/* Faults that the agent had read before it ended are not told again, unless everybody tries again. */
static int wake_all(struct micro *m, struct error *err)
{
	for (unsigned int i = 0; i < m->n; i++) {
		int r = uffd_wake(m->uffd, m->regions[i].addr, m->regions[i].size);

		if (r)
			return error_set(err, r, NULL, "region %u: waking who waits: %s", i,
					 strerror(-r));
	}
	return 0;
}

/* Before it is served, and not synced by then, as with a guest that arrives: it outlives the agent, not the host. */
static int note_owner(struct micro *m, struct error *err)
{
	json_t *more = json_pack("{s:I, s:I}", "pid", (json_int_t)m->pid, "pid_start",
				 (json_int_t)proc_start(m->pid));
	int r = more ? history_note(m->past, HISTORY_MAY_OWN, NULL, HISTORY_LATER, NULL, err)
		     : error_set(err, -ENOMEM, NULL, "out of memory");

	if (!r)
		r = history_note(m->past, HISTORY_OWNER, more, HISTORY_APART, NULL, err);
	json_decref(more);
	return r;
}

static int start(struct micro *m, bool taken_up, struct error *err)
{
	int r = fault_start(&m->place, NULL, &m->tally, &ops, m, &m->fault);

	if (!r)
		r = worker_start(m->d->loop, &m->worker);
	if (r)
		return error_set(err, r, NULL, "cannot start its threads: %s", strerror(-r));
	if (taken_up)
		r = wake_all(m, err);
	m->fill = (struct worker_job){.run = run_fill, .done = done_fill};
	worker_push(m->worker, &m->fill);
	return r;
}

int micro_serve(struct micro *m, bool taken_up, struct error *err)
{
	int r = fill_place(m, taken_up, err);

	if (!r && !taken_up)
		r = micro_note(m, err);
	FAULTPOINT(MICRO_REGIONS_NOTED);
	if (!r && !taken_up)
		r = note_owner(m, err);
	FAULTPOINT(MICRO_OWNER_MARKED);
	return r ? r : start(m, taken_up, err);
}

/* --- the end --- */

/*
 * The kernel fills holes with zeros from here on, which is what they are: zeros in the image, or given
 * back. Who waits is woken.
 */
int micro_completed(struct micro *m, struct error *err)
{
	atomic_store(&m->place.regime, PLACE_CLOSED);
	return place_unregister(&m->place, err);
}

void micro_remove_files(struct micro *m)
{
	char path[4096];

	for (int i = -1; i < (int)m->n; i++) {
		if (i < 0)
			snprintf(path, sizeof(path), "%s/pages.%s.json", m->d->conf.agent.run_dir,
				 m->id_text);
		else
			snprintf(path, sizeof(path), "%s/pages.%s.%d", m->d->conf.agent.run_dir,
				 m->id_text, i);
		if (unlink(path) && errno != ENOENT)
			log_warn("micro %s: %s: %s", m->id_text, path, strerror(errno));
	}
}
