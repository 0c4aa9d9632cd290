/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The plan of an evacuation: which guest goes where, and in which order. Pure functions of what is known of
 * guests and destinations; asking, starting and trying again is evac.c's.
 *
 * What holds whatever goes in (tests/unit/evac_plan.c): no destination is given more than it has said that it
 * has; every guest has a destination or a reason; the same input gives the same plan.
 */
#ifndef DECANT_EVAC_PLAN_H
#define DECANT_EVAC_PLAN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "msg.h"
#include "util/error.h"

/** EVAC_HOSTS_MAX - destinations of one evacuation: bits of struct evac_guest.tried */
#define EVAC_HOSTS_MAX 16
/** EVAC_SIZES_MAX - sizes of huge pages that are told apart */
#define EVAC_SIZES_MAX 8
/** EVAC_DIRTY_UNKNOWN - nobody could tell how fast it writes */
#define EVAC_DIRTY_UNKNOWN UINT64_MAX

/** enum evac_order - who leaves first; equal ones by size, largest first, then by name */
enum evac_order { EVAC_PRIORITY, EVAC_LARGEST, EVAC_SMALLEST, EVAC_LEAST_DIRTY };

/** evac_order_name() - Return: "priority", "largest", "smallest", "least-dirty" */
const char *evac_order_name(enum evac_order order);
/** evac_order_parse() - Return: 0, or -EINVAL with @err naming the words that there are */
int evac_order_parse(const char *s, enum evac_order *ret, struct error *err);

/** struct evac_pool - @pages huge pages of @size bytes, free or needed */
struct evac_pool {
	uint64_t size;
	uint64_t pages;
};

/**
 * struct evac_guest - one guest
 * @name:	unique
 * @driver, @launcher: what the destination has to start it with
 * @bytes:	memory in pages of the usual size
 * @huge:	and in others, @nhuge of them
 * @priority:	higher leaves earlier, and gets its place first
 * @dirty:	bytes written a second, or EVAC_DIRTY_UNKNOWN
 * @postcopy:	it may run at the destination before its memory has arrived
 * @tried:	bit i: host i has refused it, or it failed there
 * @cannot:	why it cannot be moved at all; NULL if it can
 */
struct evac_guest {
	const char *name;
	const char *driver;
	const char *launcher;
	uint64_t bytes;
	struct evac_pool huge[EVAC_SIZES_MAX];
	unsigned int nhuge;
	int priority;
	uint64_t dirty;
	bool postcopy;
	uint32_t tried;
	const struct error *cannot;
};

/**
 * struct evac_host - one destination
 * @name:	as messages call it
 * @known:	it has said all that follows; otherwise it is only tried where no other takes the guest
 * @refuses:	why it takes nobody; NULL if it may
 * @memory:	bytes that it has to spare
 * @guest_max:	the largest guest that it takes, 0 for any
 * @huge:	@nhuge pools of huge pages
 * @postcopy:	its kernel can run guests with missing pages
 * @launchers:	@nlaunchers of them
 */
struct evac_host {
	const char *name;
	bool known;
	const struct error *refuses;
	uint64_t memory;
	uint64_t guest_max;
	struct evac_pool huge[EVAC_SIZES_MAX];
	unsigned int nhuge;
	bool postcopy;
	const struct msg_launcher *launchers;
	unsigned int nlaunchers;
};

/**
 * struct evac_place - what becomes of one guest
 * @host:	where to, -1: nowhere
 * @turn:	0 is the first to leave; unplaced ones have turns, too
 * @why:	filled if @host is -1
 */
struct evac_place {
	int host;
	unsigned int turn;
	struct error why;
};

/**
 * evac_plan() - place the guests, the most important and largest first
 * @ret:	@n entries, in the order of @guests
 *
 * Two ways are tried, the emptiest host and the fullest that will do, and the one is taken that places more of
 * those who come first. Return: 0 or -ENOMEM
 */
int evac_plan(const struct evac_guest *guests, size_t n, const struct evac_host *hosts,
	      unsigned int nhosts, enum evac_order order, struct evac_place *ret);

/** enum evac_next - what to do with a guest whose migration has ended at home */
enum evac_next {
	EVAC_ELSEWHERE, /* the destination is the reason, or may be */
	EVAC_LATER,     /* the same destination, a moment later */
	EVAC_GIVE_UP, /* the guest itself is, or somebody's word: the next one would say the same */
};

/** evac_next() - by the error's code */
enum evac_next evac_next(const char *code);

/**
 * evac_slots() - how many of ours may come to a destination at a time
 * @limit:	of its incoming migrations; 0: not known
 * @incoming:	that it has now, @ours of them from this host
 * @per_source:	limit for one source, 0 for none
 */
unsigned int evac_slots(unsigned int limit, unsigned int incoming, unsigned int ours,
			unsigned int per_source);

/** evac_share() - Return: of @bandwidth (bytes a second, 0: no limit) what each of @running gets */
uint64_t evac_share(uint64_t bandwidth, unsigned int running);

#endif
