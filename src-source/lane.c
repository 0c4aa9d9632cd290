/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which rules a lost channel could break, and why it does not:
 *
 *   1 (never overwrite)	what is sent again overwrites only in precopy, where nobody runs there; from LISTEN on the
 *			destination places a page once
 *   2 (received)	pages that are not acknowledged are pending again before the channel counts as gone, so that no
 *			barrier passes without them
 *   stale frames	what the destination still has of the lost channel may come late, but within its pass: a
 *			page that was written since is dirty and comes once more in the next one; and that
 *			begins only when the destination has said DROPPED, behind which none comes
 */
#include "lane.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "util/cleanup.h"

int lane_init(struct lane *l, bool note)
{
	*l = (struct lane){.stop_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)};
	if (l->stop_fd < 0)
		return -errno;
	if (note) {
		l->open = calloc(LANE_OPEN_MAX, sizeof(*l->open));
		if (!l->open)
			return -ENOMEM;
	}
	return 0;
}

void lane_clear(struct lane *l)
{
	tls_chan_free(steal_ptr(&l->chan));
	if (l->stop_fd >= 0)
		close(l->stop_fd);
	l->stop_fd = -1;
	free(steal_ptr(&l->open));
}

void lane_take(struct lane *l, struct tls_chan *chan)
{
	eventfd_t dummy;

	eventfd_read(l->stop_fd, &dummy);
	l->chan = chan;
	l->silence = (struct tls_silence){0};
	tls_chan_watch(chan, l->open ? TLS_WATCH_US : ENGINE_IO_TIMEOUT_US);
}

void lane_begin(struct lane *l, enum budget_class class, uint64_t guess)
{
	l->class = class;
	l->guess = guess;
	l->wire = 0;
}

void lane_settle(struct lane *l, struct engine *e)
{
	if (l->guess || l->wire)
		engine_settle(e, l->class, l->guess, l->wire);
	l->guess = l->wire = 0;
}

/* Of a channel that cannot be made again nothing is asked: the kernel has the last word. */
bool lane_silent(struct lane *l)
{
	return l->chan && l->open && tls_silent(&l->silence, l->chan);
}

void lane_quit(struct lane *l)
{
	eventfd_write(l->stop_fd, 1);
}

bool lane_full(const struct lane *l)
{
	return l->n >= LANE_OPEN_MAX - 2; /* a barrier of its own and one that was asked for fit */
}

static void add(struct lane *l, uint32_t block, uint64_t first, uint64_t n)
{
	l->open[(l->head + l->n++) % LANE_OPEN_MAX] = (struct lane_open){block, first, n};
}

void lane_note(struct lane *l, uint32_t block, uint64_t first, uint64_t n, uint64_t bytes)
{
	if (!l->open)
		return;
	add(l, block, first, n);
	l->since_runs++;
	l->since_bytes += bytes;
}

bool lane_due(const struct lane *l, uint64_t now)
{
	return l->since_runs && (l->since_runs >= LANE_RUNS || l->since_bytes >= LANE_BYTES ||
				 now - l->marked_us >= LANE_US);
}

uint32_t lane_mark(struct lane *l, uint32_t number, uint64_t now)
{
	if (!l->open)
		return number;
	l->since_runs = 0;
	l->since_bytes = 0;
	l->marked_us = now;
	add(l, LANE_MARK, ++l->barrier, number);
	return l->barrier;
}

/* The oldest mark, or NULL; what stands before it is taken out if it is number @wire. */
int lane_acked(struct lane *l, uint32_t wire, uint32_t *ret_number, struct error *err)
{
	if (!l->open) {
		*ret_number = wire;
		return 0;
	}
	for (unsigned int i = 0; i < l->n; i++) {
		const struct lane_open *o = &l->open[(l->head + i) % LANE_OPEN_MAX];

		if (o->block != LANE_MARK)
			continue;
		if (o->first != wire)
			break;
		*ret_number = (uint32_t)o->n;
		l->head = (l->head + i + 1) % LANE_OPEN_MAX;
		l->n -= i + 1;
		return 0;
	}
	return error_set(err, -EBADMSG, "bad-message",
			 "BARRIER_ACK number %u, which is not the one that is due", wire);
}

void lane_give_up(struct lane *l, struct engine *e)
{
	for (unsigned int i = 0; i < l->n; i++) {
		const struct lane_open *o = &l->open[(l->head + i) % LANE_OPEN_MAX];

		if (o->block != LANE_MARK)
			bitmap_set_range(&e->blocks[o->block].pending, o->first, o->n);
	}
	l->head = l->n = 0;
	l->since_runs = 0;
	l->since_bytes = 0;
	atomic_fetch_sub(&e->stats.runs, l->runs);
	atomic_fetch_sub(&e->stats.digest_sum, l->digest_sum);
	l->runs = 0;
	l->digest_sum = 0;
	tls_chan_free(steal_ptr(&l->chan));
}
