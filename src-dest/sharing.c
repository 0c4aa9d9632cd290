/* SPDX-License-Identifier: Apache-2.0 */
#include "sharing.h"
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "guest/attach_check.h"
#include "incoming_priv.h"
#include "proc.h"
#include "uffd/uffd.h"
#include "util/cleanup.h"
#include "util/log.h"

/* Connections of sharers, whosever they are. */
#define SHARINGS_MAX 256
/* So that one process cannot keep all others out: of one guest. */
#define SHARINGS_PROCESS_MAX 4
/* Ranges of one sharer that were refused; the library gives up at the first. */
#define REFUSALS_MAX 64

/** struct want - a range that was asked for and is not answered yet */
struct want {
	uint32_t id;
	struct gwire_share r;
};

/**
 * struct sharing - a sharer
 * @share:	its connection and its process
 * @inc:	whose memory it maps; NULL when nothing of it is missing
 * @pid, @pid_start: the guest's process, where @inc is NULL
 * @h:		what the fault thread knows of it; NULL before its first range is registered
 * @over:	its connection has ended: it is served until its process ends, or all pages are here
 * @refusals:	ranges that were refused
 * @waits, @nwaits: for listening
 */
struct sharing {
	struct dest *d;
	struct share *share;
	struct incoming *inc;
	pid_t pid;
	uint64_t pid_start;
	struct sharer *h;
	bool over;
	unsigned int refusals;
	struct want *waits;
	unsigned int nwaits;
	struct sharing *next;
};

static void sharing_free(struct sharing *s)
{
	struct sharing **at = &s->d->sharings;

	while (*at && *at != s)
		at = &(*at)->next;
	if (*at)
		*at = s->next;
	share_free(s->share);
	free(s->waits);
	free(s);
}

/* Rule 5: only of a process that has ended, or of one whose descriptor came anew. */
static void forget(struct sharing *s)
{
	if (s->inc && s->h)
		sharers_remove(&s->inc->place.sharers, s->h);
	sharing_free(s);
}

void sharing_free_all(struct dest *d)
{
	while (d->sharings)
		sharing_free(d->sharings);
}

/* --- ranges --- */

static bool live(const struct incoming *inc)
{
	return atomic_load(&inc->place.regime) == PLACE_LIVE;
}

/* Nothing is missing, or never will be, in the memory that this guest has here. */
static bool complete(const struct incoming *inc)
{
	bool listened = inc->state >= INC_LISTENING && !inc->listen_wanted;

	return inc->unregistered || (listened && !inc->listen_postcopy);
}

static int find_block(const struct incoming *inc, const char *name, unsigned int *ret,
		      struct error *err)
{
	for (unsigned int i = 0; i < inc->place.n; i++) {
		const struct place_block *b = &inc->place.blocks[i];

		if (strcmp(b->name, name) != 0)
			continue;
		*ret = i;
		return b->kind != MSG_BLOCK_ANON
			       ? 0
			       : error_set(err, -EINVAL, "bad-range",
					   "block %s is private memory, which nobody can share",
					   name);
	}
	return error_set(err, -ENOENT, "bad-range", "guest %s has no block %s", inc->setup->name,
			 name);
}

static int check_range(const struct sharing *s, const struct gwire_share *r,
		       struct sharer_range *ret, struct error *err)
{
	const struct place_block *b;
	unsigned int block = 0;
	int ret_ = find_block(s->inc, r->block, &block, err);

	if (ret_)
		return ret_;
	b = &s->inc->place.blocks[block];
	if ((r->offset | r->length | r->address) & (b->page_size - 1))
		return error_set(err, -EINVAL, "bad-range",
				 "block %s: offset, length and address are to be multiples of its "
				 "page size %" PRIu64,
				 b->name, b->page_size);
	if (r->length > b->length || r->offset > b->length - r->length)
		return error_set(err, -EINVAL, "bad-range",
				 "block %s: the range is beyond its length %" PRIu64, b->name,
				 b->length);
	ret_ = attach_check_share(s->share->pid, r, b->mem.block.fd, err);
	if (ret_)
		return ret_;
	*ret = (struct sharer_range){.block = block,
				     .page_size = b->page_size,
				     .offset = r->offset,
				     .length = r->length,
				     .addr = r->address};
	return 0;
}

static int enlist(struct sharing *s, struct error *err)
{
	char name[SHARERS_NAME_MAX + 2 * GWIRE_NAME_MAX];
	struct sharer_spec spec = {
		.uffd = s->share->uffd,
		.features = (UFFD_F_MISSING_SHMEM | UFFD_F_MISSING_HUGETLBFS) & s->d->caps.features,
		.again = s->share->again,
		.name = name,
	};
	int r;

	if (s->h)
		return 0;
	snprintf(name, sizeof(name), "%s of %s (pid %d)", s->share->name, s->share->guest,
		 (int)s->share->pid);
	r = sharers_add(&s->inc->place.sharers, &spec, &s->h, err);
	if (!r)
		s->share->uffd = -1;
	return r;
}

static void expel(struct sharing *s)
{
	struct error err = {0};

	error_set(&err, -EPERM, "limit-refusals",
		  "%d ranges of sharer %s were refused, which is the limit", REFUSALS_MAX,
		  s->share->name);
	log_error("sharer %s of guest %s (pid %d): %s", s->share->name, s->share->guest,
		  (int)s->share->pid, err.msg);
	share_expel(s->share, &err);
}

static void answer(struct sharing *s, uint32_t id, int ret, bool missing, const struct error *err)
{
	if (ret)
		log_warn("sharer %s of guest %s (pid %d): %s", s->share->name, s->share->guest,
			 (int)s->share->pid, err->msg);
	share_done(s->share, id, ret, missing, ret ? err->msg : "");
	if (ret && ++s->refusals == REFUSALS_MAX)
		expel(s);
}

static void register_range(struct sharing *s, uint32_t id, const struct gwire_share *want)
{
	struct sharer_range range;
	struct error err = {0};
	/* Looked at again: it may have been unmapped while it waited. */
	int r = check_range(s, want, &range, &err);

	if (!r)
		r = enlist(s, &err);
	if (!r)
		r = sharers_map(&s->inc->place.sharers, s->h, &range, &err);
	if (!r && s->inc->fault)
		fault_look(s->inc->fault);
	answer(s, id, r, true, &err);
}

static void wait_for_listening(struct sharing *s, uint32_t id, const struct gwire_share *r)
{
	struct sharer_range range;
	struct error err = {0};
	struct want *grown = NULL;
	int ret = check_range(s, r, &range, &err);

	if (!ret && s->nwaits == SHARE_MAPS_MAX)
		ret = error_set(&err, -E2BIG, "limit-ranges",
				"it has %d ranges, which is the limit", SHARE_MAPS_MAX);
	if (!ret)
		grown = reallocarray(s->waits, s->nwaits + 1, sizeof(*grown));
	if (!ret && !grown)
		ret = error_set(&err, -ENOMEM, NULL, "out of memory");
	if (ret) {
		answer(s, id, ret, true, &err);
		return;
	}
	s->waits = grown;
	s->waits[s->nwaits++] = (struct want){id, *r};
}

/* A guest that is here: does its process map the very file? */
static void check_settled(struct sharing *s, uint32_t id, const struct gwire_share *r)
{
	struct error err = {0};

	if (!proc_lives(s->pid, s->pid_start) || !attach_same_memory(s->share->pid, r, s->pid)) {
		error_set(&err, -EAGAIN, "unknown-guest",
			  "what is mapped at 0x%" PRIx64 " is not of the guest %s that is here",
			  r->address, s->share->guest);
		share_expel(s->share, &err);
		return;
	}
	/* An earlier life of the agent guarded it, and did not come to tell of the end. */
	if (s->share->again && s->share->uffd >= 0 &&
	    !uffd_unregister(s->share->uffd, r->address, r->length))
		uffd_wake(s->share->uffd, r->address, r->length);
	answer(s, id, 0, false, &err);
}

static void on_map(void *arg, uint32_t id, const struct gwire_share *r)
{
	struct sharing *s = arg;

	if (!s->inc)
		check_settled(s, id, r);
	else if (complete(s->inc))
		answer(s, id, 0, false, NULL);
	else if (live(s->inc))
		register_range(s, id, r);
	else
		wait_for_listening(s, id, r);
}

static void on_unmap(void *arg, uint64_t address, uint64_t length)
{
	struct sharing *s = arg;

	for (unsigned int i = 0; i < s->nwaits;) {
		const struct gwire_share *r = &s->waits[i].r;

		if (r->address >= address && r->address + r->length <= address + length)
			s->waits[i] = s->waits[--s->nwaits];
		else
			i++;
	}
	if (s->inc && s->h)
		sharers_unmap(&s->inc->place.sharers, s->h, address, length);
}

static void on_gone(void *arg, bool dead)
{
	struct sharing *s = arg;

	if (!dead && s->inc && s->h) {
		log_info("sharer %s of guest %s (pid %d) is disconnected: it is served on",
			 s->share->name, s->share->guest, (int)s->share->pid);
		s->over = true;
		return;
	}
	if (dead)
		log_info("sharer %s of guest %s (pid %d) has ended", s->share->name,
			 s->share->guest, (int)s->share->pid);
	forget(s);
}

static const struct share_ops ops = {.map = on_map, .unmap = on_unmap, .gone = on_gone};

/* --- whose it is --- */

static void belongs(struct sharing *s, const struct past *p)
{
	s->pid = p->pid;
	s->pid_start = p->pid_start;
}

static struct incoming *find_incoming(const struct dest *d, const char *guest)
{
	struct incoming *inc = d->incomings;

	while (inc && (!inc->setup || strcmp(inc->setup->name, guest) != 0 || !inc->placed ||
		       inc->store || inc->ending || inc->state == INC_END))
		inc = incoming_next(inc);
	return inc;
}

static const struct past *find_here(const struct dest *d, const char *guest)
{
	const struct past *p = history_first(d->history);

	while (p && (!p->same_boot || p->fate != HISTORY_COMPLETED || !p->pid ||
		     strcmp(p->name, guest) != 0))
		p = p->next;
	return p;
}

static int check_room(const struct dest *d, const struct incoming *inc, const struct share *share,
		      struct error *err)
{
	unsigned int n = 0, mine = 0, process = 0;

	for (const struct sharing *s = d->sharings; s; s = s->next) {
		n++;
		mine += inc && s->inc == inc;
		process += s->share->pid == share->pid && !strcmp(s->share->guest, share->guest);
	}
	if (process >= SHARINGS_PROCESS_MAX)
		return error_set(err, -EBUSY, "limit-sharers",
				 "process %d has %d sharers of guest %s, which is the limit",
				 (int)share->pid, SHARINGS_PROCESS_MAX, share->guest);
	if (mine >= SHARERS_MAX)
		return error_set(err, -EBUSY, "limit-sharers",
				 "guest %s has %d sharers, which is the limit", share->guest,
				 SHARERS_MAX);
	return n < SHARINGS_MAX
		       ? 0
		       : error_set(err, -EBUSY, "limit-sharers",
				   "%d sharers are attached, which is the limit", SHARINGS_MAX);
}

/* Its connection was lost and it has come again: what is known of it comes anew, too. */
static void supersede(const struct dest *d, const struct share *share)
{
	struct sharing *s = d->sharings;

	/* Not the one of another guest, which may be called the same: it is needed there. */
	while (s && (!s->over || s->share->pid != share->pid ||
		     strcmp(s->share->name, share->name) != 0 ||
		     strcmp(s->share->guest, share->guest) != 0))
		s = s->next;
	if (s)
		forget(s);
}

int sharing_attach(void *arg, struct share *share, struct error *err)
{
	struct dest *d = arg;
	struct incoming *inc = find_incoming(d, share->guest);
	const struct past *past = inc ? NULL : find_here(d, share->guest);
	struct sharing *s;
	int r;

	if (!inc && !past)
		return error_set(err, -ENOENT, "unknown-guest",
				 "sharer %s: guest %s is not here and not on its way", share->name,
				 share->guest);
	supersede(d, share);
	r = check_room(d, inc, share, err);
	if (r)
		return r;
	s = calloc(1, sizeof(*s));
	if (!s)
		return error_set(err, -ENOMEM, NULL, "out of memory");
	*s = (struct sharing){.d = d, .share = share, .inc = inc, .next = d->sharings};
	if (past)
		belongs(s, past);
	d->sharings = s;
	log_info("sharer %s of guest %s (pid %d) is attached", share->name, share->guest,
		 (int)share->pid);
	share_welcome(share, &ops, s);
	return 0;
}

/* --- what the incoming tells --- */

int sharing_listen(struct incoming *inc, struct error *err)
{
	(void)err;
	for (struct sharing *s = inc->d->sharings; s; s = s->next) {
		if (s->inc != inc)
			continue;
		for (unsigned int i = 0; i < s->nwaits; i++) {
			if (inc->listen_postcopy)
				register_range(s, s->waits[i].id, &s->waits[i].r);
			else
				answer(s, s->waits[i].id, 0, false, NULL);
		}
		s->nwaits = 0;
	}
	return 0;
}

void sharing_settled(struct incoming *inc)
{
	struct sharing *next;

	for (struct sharing *s = inc->d->sharings; s; s = next) {
		next = s->next;
		if (s->inc != inc)
			continue;
		if (s->over) {
			sharing_free(s);
			continue;
		}
		s->inc = NULL;
		s->h = NULL;
		belongs(s, inc->past);
		share_settled(s->share);
	}
}

void sharing_over(struct incoming *inc)
{
	struct error err = {0};
	struct sharing *next;

	error_set(&err, -ESRCH, "guest-gone", "guest %s is gone, or was not taken over",
		  inc->setup ? inc->setup->name : "-");
	for (struct sharing *s = inc->d->sharings; s; s = next) {
		next = s->next;
		if (s->inc != inc)
			continue;
		share_refuse(s->share, &err);
		sharing_free(s);
	}
}
