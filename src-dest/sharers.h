/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Further processes that map the memory of an arriving guest (P17): each with a userfaultfd of its
 * own, whose faults the guest's fault thread reads beside the guest's.
 *
 * Content is only ever placed through the guest's own userfaultfd, and once, into the file that all
 * of them map; a sharer is merely woken then. place.h notes who waits, and calls sharers_wake().
 *
 * Of the rules in DESIGN.md these could be broken here, and this is why they are not:
 *
 *   2	no page's state is set here
 *   5	a sharer that touches a hole unguarded puts a page of zeros into the file that the guest maps, too:
 *	so whatever goes wrong with a sharer, its descriptor is closed only by sharers_remove(), when
 *	its process has ended, or by sharers_settle(), when nothing is missing. One that is *dropped*
 *	is not read any more: its threads wait until then
 *   6	a sharer has a bounded number of ranges, and its turn behind the guest: one read at each step;
 *	whatever it does wrong costs itself alone
 *   7	nothing here touches memory
 *
 * Thread rules: any thread; the lock is held for bookkeeping and UFFDIO_WAKE, which waits for nothing.
 */
#ifndef DECANT_SHARERS_H
#define DECANT_SHARERS_H

#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "util/error.h"

/** SHARERS_MAX - sharers of one guest */
#define SHARERS_MAX 16
/** SHARERS_RANGES_MAX - ranges of one sharer */
#define SHARERS_RANGES_MAX 256
/** SHARERS_NAME_MAX - with the NUL */
#define SHARERS_NAME_MAX 96

struct sharer;

/**
 * struct sharer_range - a part of a block, as a sharer has it mapped
 * @block:	index in struct place
 * @page_size:	of the block; @offset, @length and @addr are multiples of it
 * @offset:	in the block, bytes
 * @length:	bytes
 * @addr:	in the sharer's address space
 */
struct sharer_range {
	unsigned int block;
	uint64_t page_size;
	uint64_t offset;
	uint64_t length;
	uint64_t addr;
};

/**
 * sharer_drop_fn - the sharer was dropped: it is not served any more
 *
 * At most once for each sharer; on the fault thread, which must not wait; not with the lock held.
 */
typedef void sharer_drop_fn(void *arg, const struct error *why);

/**
 * struct sharer_spec - a new sharer
 * @uffd:	its userfaultfd, non-blocking; taken over on success
 * @features:	UFFD_F_* for the handshake
 * @again:	it has had its handshake, and faults may have been read from it: by an earlier life of
 *		this agent, or by the guest's fork(2)
 * @name:	for the log
 * @on_drop, @arg: may be NULL
 */
struct sharer_spec {
	int uffd;
	uint64_t features;
	bool again;
	const char *name;
	sharer_drop_fn *on_drop;
	void *arg;
};

/**
 * struct sharers - of one guest
 * @lock:	protects the list and the ranges of all
 * @n:		how many there are; read without the lock by who places
 * @list:	in no order
 * @wakes:	UFFDIO_WAKEs issued
 */
struct sharers {
	pthread_mutex_t lock;
	_Atomic unsigned int n;
	struct sharer *list[SHARERS_MAX];
	_Atomic uint64_t wakes;
};

void sharers_init(struct sharers *s);
/**
 * sharers_settle() - nothing is missing any more: missing faults off everywhere, all who wait go on,
 * the sharers are gone
 */
void sharers_settle(struct sharers *s);
/** sharers_clear() - close all descriptors (rule 5: only when the guest is ended, or the sharers keep
 * copies and the agent ends); no other thread may use @s */
void sharers_clear(struct sharers *s);

/**
 * sharers_add() - a sharer without ranges yet
 *
 * The fault thread finds it when it is woken next (fault_look()).
 *
 * Return: 0, or -errno with @err filled: -EBUSY beyond SHARERS_MAX, what the handshake says, -ENOMEM
 */
int sharers_add(struct sharers *s, const struct sharer_spec *spec, struct sharer **ret,
		struct error *err);
/**
 * sharers_map() - missing faults on for a range; behind it the sharer may touch it
 *
 * Whoever checked that it is the block's file that is mapped there is the caller.
 *
 * Return: 0, or -errno with @err filled: -EEXIST if it overlaps another of its ranges, -E2BIG beyond
 * SHARERS_RANGES_MAX, what the kernel says
 */
int sharers_map(struct sharers *s, struct sharer *h, const struct sharer_range *r,
		struct error *err);
/**
 * sharers_unmap() - the sharer has unmapped what lies in this range
 *
 * It is forgotten, not un-registered: what it still maps there stays guarded.
 */
void sharers_unmap(struct sharers *s, struct sharer *h, uint64_t addr, uint64_t length);
/** sharers_remove() - its process has ended: forget it, close its descriptor */
void sharers_remove(struct sharers *s, struct sharer *h);

/**
 * sharers_wake() - a page that a sharer waits for is there; any thread
 * @offset, @length: of the page in @block
 */
void sharers_wake(struct sharers *s, unsigned int block, uint64_t offset, uint64_t length);

/* --- the fault thread's --- */

/**
 * sharers_poll() - what to poll
 * @fds, @who:	filled; each of @who is referenced until sharers_put()
 *
 * Return: how many
 */
unsigned int sharers_poll(struct sharers *s, struct pollfd fds[static SHARERS_MAX],
			  struct sharer *who[static SHARERS_MAX]);
void sharers_put(struct sharer **who, unsigned int n);
/**
 * sharer_fault_fn - a sharer waits for a page of a block
 * @offset:	of its address in the block, bytes
 *
 * Return: 1: it is there, and woken; 0: it will come; -errno with @err filled: the sharer is
 * dropped
 */
typedef int sharer_fault_fn(void *arg, unsigned int block, uint64_t offset, struct error *err);
/** sharers_serve() - poll(2) has said something about @h: read once, and have @fn answer. A sharer in
 * error is dropped here */
void sharers_serve(struct sharers *s, struct sharer *h, short revents, sharer_fault_fn *fn,
		   void *arg);

#endif
