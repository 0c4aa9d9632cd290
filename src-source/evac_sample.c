/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How fast each guest writes, for the order least-dirty: all of its memory is protected asynchronously, and
 * EVAC_SAMPLE_US later the kernel tells what was written. Writers never wait. The guests' processes are asked for a
 * descriptor on the loop; protecting and counting, which takes 20 ms for each GiB, is done by a thread.
 *
 * Which rules it could break: 5, were anything missing guarded by these descriptors: nothing is, they protect against
 * writes alone. 8: the agent alone has them, so that its death takes all protection off. 7: nothing is read.
 *
 * Who cannot be sampled (the kernel, a block of another kind, a guest that does not answer in time) is not known, and
 * comes last.
 */
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "evac_priv.h"
#include "uffd/pagemap.h"
#include "uffd/uffd.h"
#include "util/cleanup.h"
#include "util/clock.h"
#include "util/log.h"

/* A guest that takes longer to make a descriptor is not known. */
#define DESCRIPTOR_US 2000000ull
#define FEATURES      (UFFD_F_WP_ASYNC | UFFD_F_WP_UNPOPULATED | UFFD_F_WP_HUGETLBFS_SHMEM)

/** struct part - one block of a guest */
struct part {
	uint64_t addr;
	uint64_t length;
};

/**
 * struct sampled - one guest
 * @name:	of its entry
 * @fd:		its descriptor, -1 before; the thread's once that runs
 * @waits:	it was asked for one and has not answered
 * @parts:	@n blocks that can change
 * @registered:	of these
 * @bytes:	written, by the thread
 * @counted:	and all of it was
 */
struct sampled {
	struct evac_sample *sample;
	char name[CONF_NAME_MAX];
	pid_t pid;
	int fd;
	int pagemap;
	bool waits;
	struct part *parts;
	unsigned int n;
	unsigned int registered;
	uint64_t bytes;
	bool counted;
};

/**
 * struct evac_sample - all of them
 * @timer:	bounds the wait for descriptors, then NULL
 * @running:	the thread does
 * @stop_fd:	eventfd: it is to end now
 * @features:	for the handshake
 */
struct evac_sample {
	struct evac *e;
	struct event *timer;
	struct sampled *guests;
	size_t n;
	pthread_t thread;
	bool running;
	int stop_fd;
	uint64_t features;
	uint64_t us;
};

/* --- the thread --- */

static void release(struct sampled *g)
{
	while (g->registered)
		g->registered--, uffd_unregister(g->fd, g->parts[g->registered].addr,
						 g->parts[g->registered].length);
	if (g->pagemap >= 0)
		close(g->pagemap);
	if (g->fd >= 0)
		close(g->fd);
	g->pagemap = g->fd = -1;
}

static void ignore(void *arg, uint64_t start, uint64_t len)
{
	(void)arg;
	(void)start;
	(void)len;
}

static void add(void *arg, uint64_t start, uint64_t len)
{
	struct sampled *g = arg;

	(void)start;
	g->bytes += len;
}

static int protect(struct sampled *g, uint64_t features)
{
	int r = uffd_api(g->fd, features, NULL, NULL);

	if (!r)
		r = g->pagemap = pagemap_open(g->pid);
	for (unsigned int i = 0; r >= 0 && i < g->n; i++) {
		r = uffd_register(g->fd, g->parts[i].addr, g->parts[i].length, UFFD_MODE_WP, NULL);
		if (r < 0)
			break;
		g->registered++;
		r = pagemap_written(g->pagemap, g->parts[i].addr,
				    g->parts[i].addr + g->parts[i].length, true, ignore, g);
	}
	return r;
}

static void count(struct sampled *g)
{
	int r = 0;

	for (unsigned int i = 0; !r && i < g->registered; i++)
		r = pagemap_written(g->pagemap, g->parts[i].addr,
				    g->parts[i].addr + g->parts[i].length, false, add, g);
	g->counted = !r && g->registered == g->n;
}

static void finished(void *arg);

static void *run(void *arg)
{
	struct evac_sample *p = arg;
	struct pollfd stop = {.fd = p->stop_fd, .events = POLLIN};
	uint64_t begun = clock_us();

	for (size_t i = 0; i < p->n; i++)
		if (p->guests[i].fd >= 0 && protect(&p->guests[i], p->features) < 0)
			release(&p->guests[i]);
	p->us = clock_us() - begun;
	if (poll(&stop, 1, (int)(EVAC_SAMPLE_US / 1000)) == 0)
		for (size_t i = 0; i < p->n; i++)
			count(&p->guests[i]);
	for (size_t i = 0; i < p->n; i++)
		release(&p->guests[i]);
	loop_post(p->e->s->loop, finished, p);
	return NULL;
}

/* --- the loop --- */

static void mark(struct evac_sample *p, bool on)
{
	for (size_t i = 0; i < p->n; i++) {
		struct source_guest *sg = guests_find(p->e->s, p->guests[i].name);

		if (sg)
			sg->sampled = on;
	}
}

static struct evac_item *item_named(const struct evac *e, const char *name)
{
	for (size_t i = e->n; i > 0; i--)
		if (!strcmp(e->items[i - 1]->name, name))
			return e->items[i - 1];
	return NULL;
}

static void over(struct evac_sample *p)
{
	mark(p, false);
	p->e->sampled = true;
	for (size_t i = 0; i < p->n; i++) {
		const struct sampled *g = &p->guests[i];
		struct evac_item *it = item_named(p->e, g->name);

		if (it && g->counted)
			it->dirty = g->bytes * 1000000 / EVAC_SAMPLE_US;
	}
	evac_tick_soon(p->e, 0);
}

static void join(struct evac_sample *p)
{
	if (!p->running)
		return;
	eventfd_write(p->stop_fd, 1);
	pthread_join(p->thread, NULL);
	p->running = false;
}

/* Also where evac_sample_end() has waited for it: then nothing is left to be done. */
static void finished(void *arg)
{
	struct evac_sample *p = arg;

	if (!p->running)
		return;
	pthread_join(p->thread, NULL);
	p->running = false;
	over(p);
}

static void begin_counting(struct evac_sample *p)
{
	size_t have = 0;

	if (p->timer)
		event_free(steal_ptr(&p->timer));
	for (size_t i = 0; i < p->n; i++)
		have += p->guests[i].fd >= 0;
	if (have && !pthread_create(&p->thread, NULL, run, p))
		p->running = true;
	else
		over(p);
}

static void on_timeout(void *arg)
{
	begin_counting(arg);
}

static void on_uffd(void *arg, int ret, const struct error *err, int fd)
{
	struct sampled *g = arg;
	struct evac_sample *p = g->sample;

	g->waits = false;
	if (ret < 0)
		log_info("evacuation %s: %s: %s", p->e->id, g->name, err->msg);
	/* Too late, or nobody wants to know any more. */
	if (!p->timer) {
		if (fd >= 0)
			close(fd);
		return;
	}
	g->fd = fd;
	for (size_t i = 0; i < p->n; i++)
		if (p->guests[i].waits)
			return;
	begin_counting(p);
}

static void take_parts(struct sampled *g, const struct guest *conn)
{
	g->parts = calloc(conn->nblocks + 1u, sizeof(*g->parts));
	for (uint16_t i = 0; g->parts && i < conn->nblocks; i++)
		if (!(conn->blocks[i].flags & GUEST_BLOCK_READONLY))
			g->parts[g->n++] =
				(struct part){conn->blocks[i].addr, conn->blocks[i].length};
}

static void begin_one(struct evac_sample *p, const struct evac_item *it)
{
	const struct source_guest *sg = guests_find(p->e->s, it->name);
	struct sampled *g = &p->guests[p->n];

	if (it->outcome != EVAC_WAITING || !sg || !sg->conn || error_is_set(&sg->conn->cannot) ||
	    (sg->migration &&
	     (migration_busy(sg->migration) || migration_holds_guest(sg->migration))))
		return;
	*g = (struct sampled){.sample = p, .pid = sg->conn->pid, .fd = -1, .pagemap = -1};
	snprintf(g->name, sizeof(g->name), "%s", it->name);
	take_parts(g, sg->conn);
	g->waits = true;
	if (!g->parts || guest_uffd(sg->conn, false, 0, on_uffd, g) < 0) {
		free(g->parts);
		return;
	}
	p->n++;
}

static bool can(const struct source *s)
{
	return !error_is_set(&s->uffd_error) && s->caps.tracking & UFFD_TRACK_ASYNC;
}

void evac_sample_begin(struct evac *e)
{
	struct evac_sample *p = can(e->s) ? calloc(1, sizeof(*p)) : NULL;

	e->sampled = !p;
	if (!p)
		return;
	e->sample = p;
	p->e = e;
	p->features = FEATURES & e->s->caps.features;
	p->stop_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	p->guests = calloc(e->n + 1, sizeof(*p->guests));
	/* Answers come later: begin_one() calls nobody back. */
	for (size_t i = 0; p->guests && p->stop_fd >= 0 && i < e->n; i++)
		begin_one(p, e->items[i]);
	mark(p, true);
	p->timer = loop_timer(e->s->loop, p->n ? DESCRIPTOR_US : 0, on_timeout, p);
}

void evac_sample_end(struct evac *e)
{
	struct evac_sample *p = e->sample;

	if (!p)
		return;
	if (p->timer)
		event_free(steal_ptr(&p->timer));
	join(p);
	mark(p, false);
	for (size_t i = 0; i < p->n; i++)
		release(&p->guests[i]);
}

bool evac_sample_busy(const struct evac *e)
{
	bool busy = false;

	for (size_t i = 0; e->sample && i < e->sample->n; i++)
		busy |= e->sample->guests[i].waits;
	return busy;
}

void evac_sample_free(struct evac *e)
{
	struct evac_sample *p = e->sample;

	if (!p)
		return;
	for (size_t i = 0; i < p->n; i++)
		free(p->guests[i].parts);
	free(p->guests);
	if (p->stop_fd >= 0)
		close(p->stop_fd);
	free(p);
	e->sample = NULL;
}
