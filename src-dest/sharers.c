/* SPDX-License-Identifier: Apache-2.0 */
#include "sharers.h"
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "uffd/uffd.h"
#include "util/cleanup.h"
#include "util/log.h"

/*
 * Faults on pages that are there. Each thread takes one at most for each page that was there before
 * it was mapped, so a sharer that needs very many more makes holes to fall into.
 */
#define ANSWERS_SLACK    4096
#define ANSWERS_PER_PAGE 64

/**
 * struct sharer - one
 * @refs:	the list's, and the fault thread's while it polls
 * @uffd:	closed with the last reference
 * @again, @name, @on_drop, @arg: see struct sharer_spec
 * @dropped:	not polled any more; set by the fault thread, under the lock
 * @answers:	faults that were answered at once; fault thread
 * @answers_max: how many are believed; under the lock
 * @ranges, @nranges: under the lock
 */
struct sharer {
	_Atomic unsigned int refs;
	int uffd;
	bool again;
	bool dropped;
	char name[SHARERS_NAME_MAX];
	sharer_drop_fn *on_drop;
	void *arg;
	uint64_t answers;
	uint64_t answers_max;
	struct sharer_range *ranges;
	unsigned int nranges;
};

static void unref(struct sharer *h)
{
	if (atomic_fetch_sub(&h->refs, 1) != 1)
		return;
	close(h->uffd);
	free(h->ranges);
	free(h);
}

void sharers_init(struct sharers *s)
{
	memset(s, 0, sizeof(*s));
	pthread_mutex_init(&s->lock, NULL);
}

void sharers_clear(struct sharers *s)
{
	for (unsigned int i = 0; i < s->n; i++)
		unref(s->list[i]);
	s->n = 0;
	pthread_mutex_destroy(&s->lock);
}

/* --- coming and going --- */

static int shake_hands(const struct sharer_spec *spec, struct error *err)
{
	int r = spec->again ? 0 : uffd_api(spec->uffd, spec->features, NULL, NULL);

	if (r)
		return error_set(err, r, "userfaultfd",
				 "sharer %s: its userfaultfd does not shake hands: %s", spec->name,
				 strerror(-r));
	return 0;
}

int sharers_add(struct sharers *s, const struct sharer_spec *spec, struct sharer **ret,
		struct error *err)
{
	CLEANUP_FREE struct sharer *h = calloc(1, sizeof(*h));
	int r = h ? shake_hands(spec, err) : error_set(err, -ENOMEM, NULL, "out of memory");

	if (r)
		return r;
	LOCK_SCOPE(&s->lock);
	if (s->n == SHARERS_MAX)
		return error_set(err, -EBUSY, "limit-sharers",
				 "sharer %s: the guest has %d sharers, which is the limit",
				 spec->name, SHARERS_MAX);
	h->refs = 1;
	h->uffd = spec->uffd;
	h->again = spec->again;
	h->on_drop = spec->on_drop;
	h->arg = spec->arg;
	h->answers_max = ANSWERS_SLACK;
	snprintf(h->name, sizeof(h->name), "%s", spec->name);
	s->list[s->n] = h;
	atomic_store(&s->n, s->n + 1);
	*ret = steal_ptr(&h);
	return 0;
}

void sharers_remove(struct sharers *s, struct sharer *h)
{
	LOCK_SCOPE(&s->lock);
	for (unsigned int i = 0; i < s->n; i++) {
		if (s->list[i] != h)
			continue;
		s->list[i] = s->list[s->n - 1];
		atomic_store(&s->n, s->n - 1);
		unref(h);
		return;
	}
}

static int check_range(const struct sharer *h, const struct sharer_range *r, struct error *err)
{
	if (h->nranges == SHARERS_RANGES_MAX)
		return error_set(err, -E2BIG, "limit-ranges",
				 "sharer %s: it has %d ranges, which is the limit", h->name,
				 SHARERS_RANGES_MAX);
	for (unsigned int i = 0; i < h->nranges; i++) {
		const struct sharer_range *o = &h->ranges[i];

		if (r->addr < o->addr + o->length && o->addr < r->addr + r->length)
			return error_set(err, -EEXIST, "bad-range",
					 "sharer %s: 0x%" PRIx64 " lies in another of its ranges",
					 h->name, r->addr);
	}
	return 0;
}

/* Known before it is registered: its first fault may be read before this returns. */
static int note_range(struct sharer *h, const struct sharer_range *r, struct error *err)
{
	struct sharer_range *grown;
	int ret = check_range(h, r, err);

	if (ret)
		return ret;
	grown = reallocarray(h->ranges, h->nranges + 1, sizeof(*grown));
	if (!grown)
		return error_set(err, -ENOMEM, NULL, "out of memory");
	h->ranges = grown;
	h->ranges[h->nranges++] = *r;
	h->answers_max += r->length / r->page_size * ANSWERS_PER_PAGE;
	return 0;
}

int sharers_map(struct sharers *s, struct sharer *h, const struct sharer_range *r,
		struct error *err)
{
	uint64_t can = 0;
	int ret;

	pthread_mutex_lock(&s->lock);
	ret = note_range(h, r, err);
	pthread_mutex_unlock(&s->lock);
	if (ret)
		return ret;
	ret = uffd_register(h->uffd, r->addr, r->length, UFFD_MODE_MISSING, &can);
	if (!ret && !(can & UFFD_CAN_WAKE))
		ret = -EOPNOTSUPP;
	/* What an earlier life has read is never seen again, unless it is tried again. */
	if (!ret && h->again)
		ret = uffd_wake(h->uffd, r->addr, r->length);
	if (!ret)
		return 0;
	sharers_unmap(s, h, r->addr, r->length);
	return error_set(err, ret, "cannot-register",
			 "sharer %s: 0x%" PRIx64 " cannot be registered for missing faults: %s",
			 h->name, r->addr, strerror(-ret));
}

void sharers_unmap(struct sharers *s, struct sharer *h, uint64_t addr, uint64_t length)
{
	LOCK_SCOPE(&s->lock);
	for (unsigned int i = 0; i < h->nranges;) {
		const struct sharer_range *r = &h->ranges[i];

		if (r->addr >= addr && r->addr + r->length <= addr + length)
			h->ranges[i] = h->ranges[--h->nranges];
		else
			i++;
	}
}

void sharers_settle(struct sharers *s)
{
	LOCK_SCOPE(&s->lock);
	if (s->n)
		log_debug("%u sharers, woken %" PRIu64 " times: all pages are here", s->n,
			  atomic_load(&s->wakes));
	while (s->n) {
		struct sharer *h = s->list[s->n - 1];

		/* Its copy of the descriptor may live on: that must not hold anybody. */
		for (unsigned int i = 0; i < h->nranges; i++) {
			int r = uffd_unregister(h->uffd, h->ranges[i].addr, h->ranges[i].length);

			if (r)
				log_debug("sharer %s: 0x%" PRIx64 ": %s", h->name,
					  h->ranges[i].addr, strerror(-r));
		}
		atomic_store(&s->n, s->n - 1);
		unref(h);
	}
}

/* --- waking --- */

/* Where in @r the page lies; a range that begins inside of a page has it not. */
static bool page_address(const struct sharer_range *r, unsigned int block, uint64_t offset,
			 uint64_t length, uint64_t *ret)
{
	if (r->block != block || offset < r->offset || offset + length > r->offset + r->length)
		return false;
	*ret = r->addr + (offset - r->offset);
	return true;
}

static void wake_one(struct sharers *s, const struct sharer *h, uint64_t addr, uint64_t length)
{
	int r = uffd_wake(h->uffd, addr, length);

	atomic_fetch_add_explicit(&s->wakes, 1, memory_order_relaxed);
	if (r)
		log_debug("sharer %s: waking 0x%" PRIx64 ": %s", h->name, addr, strerror(-r));
}

/* A block may be mapped more than once: each of its ranges is looked at. */
static void wake_ranges(struct sharers *s, const struct sharer *h, unsigned int block,
			uint64_t offset, uint64_t length)
{
	uint64_t addr;

	for (unsigned int i = 0; i < h->nranges; i++)
		if (page_address(&h->ranges[i], block, offset, length, &addr))
			wake_one(s, h, addr, length);
}

void sharers_wake(struct sharers *s, unsigned int block, uint64_t offset, uint64_t length)
{
	if (!atomic_load(&s->n))
		return;
	LOCK_SCOPE(&s->lock);
	for (unsigned int i = 0; i < s->n; i++)
		wake_ranges(s, s->list[i], block, offset, length);
}

/* --- the fault thread's --- */

unsigned int sharers_poll(struct sharers *s, struct pollfd fds[static SHARERS_MAX],
			  struct sharer *who[static SHARERS_MAX])
{
	unsigned int n = 0;

	if (!atomic_load_explicit(&s->n, memory_order_relaxed))
		return 0;
	LOCK_SCOPE(&s->lock);
	for (unsigned int i = 0; i < s->n; i++) {
		struct sharer *h = s->list[i];

		if (h->dropped)
			continue;
		atomic_fetch_add(&h->refs, 1);
		who[n] = h;
		fds[n++] = (struct pollfd){.fd = h->uffd, .events = POLLIN};
	}
	return n;
}

void sharers_put(struct sharer **who, unsigned int n)
{
	for (unsigned int i = 0; i < n; i++)
		unref(who[i]);
}

static void drop(struct sharers *s, struct sharer *h, const struct error *why)
{
	pthread_mutex_lock(&s->lock);
	h->dropped = true;
	pthread_mutex_unlock(&s->lock);
	log_error("sharer %s is dropped, its faults wait until all pages are here: %s", h->name,
		  why->msg);
	if (h->on_drop)
		h->on_drop(h->arg, why);
}

static int find(struct sharers *s, const struct sharer *h, uint64_t addr, struct sharer_range *ret,
		uint64_t *ret_max)
{
	LOCK_SCOPE(&s->lock);
	*ret_max = h->answers_max;
	for (unsigned int i = 0; i < h->nranges; i++) {
		const struct sharer_range *r = &h->ranges[i];

		if (addr < r->addr || addr - r->addr >= r->length)
			continue;
		*ret = *r;
		return 0;
	}
	return -EFAULT;
}

static int on_fault(struct sharers *s, struct sharer *h, uint64_t addr, sharer_fault_fn *fn,
		    void *arg, struct error *err)
{
	struct sharer_range r = {0};
	uint64_t offset, max;
	int ret;

	if (find(s, h, addr, &r, &max))
		return error_set(err, -EFAULT, "fault-outside",
				 "it faults at 0x%" PRIx64 ", which is in none of its ranges",
				 addr);
	offset = (r.offset + (addr - r.addr)) & ~(r.page_size - 1);
	ret = fn(arg, r.block, offset, err);
	if (ret > 0 && ++h->answers > max)
		return error_set(err, -EOVERFLOW, "flood",
				 "it has faulted %" PRIu64 " times on pages that are there",
				 h->answers);
	return MIN(ret, 0);
}

static int read_events(struct sharers *s, struct sharer *h, sharer_fault_fn *fn, void *arg,
		       struct error *err)
{
	struct uffd_event ev[UFFD_READ_MAX];
	int n = uffd_read(h->uffd, ev, UFFD_READ_MAX), r = 0;

	if (n < 0)
		return error_set(err, n, "userfaultfd", "its userfaultfd: %s", strerror(-n));
	for (int i = 0; i < n; i++) {
		int one = 0;

		/* Events that were not asked for: that a descriptor came with its handshake done. */
		if (ev[i].kind == UFFD_EV_FORK)
			close(ev[i].fd);
		else if (ev[i].kind == UFFD_EV_FAULT)
			one = on_fault(s, h, ev[i].addr, fn, arg, err);
		r = r ? r : one;
	}
	return r;
}

void sharers_serve(struct sharers *s, struct sharer *h, short revents, sharer_fault_fn *fn,
		   void *arg)
{
	struct error err = {0};
	int r = 0;

	if (revents & (POLLERR | POLLNVAL))
		r = error_set(&err, -EBADF, "userfaultfd",
			      "its userfaultfd cannot be waited for: is it O_NONBLOCK?");
	else if (revents)
		r = read_events(s, h, fn, arg, &err);
	if (r < 0)
		drop(s, h, &err);
}
