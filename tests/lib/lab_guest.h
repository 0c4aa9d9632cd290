/* SPDX-License-Identifier: Apache-2.0 */
/* Native guests of the tests: tests/guests/stamp, which writes its memory and verifies it. */
#ifndef DECANT_TESTS_LAB_GUEST_H
#define DECANT_TESTS_LAB_GUEST_H

#include "lib/lab.h"

/** enum lab_kind - backing of the guest's memory */
enum lab_kind { LAB_MEMFD, LAB_ANON, LAB_HUGE, LAB_GIGANTIC };

/**
 * struct lab_guest_opts - what a guest is and does; zero means the usual
 * @name:	default "guest"
 * @mb:		MiB of memory; default 32
 * @kind:	backing
 * @blocks:	its memory is split into so many; default 1
 * @threads:	writers; default 2
 * @writes:	page writes a second of each; 0 as fast as it can
 * @zeros:	per cent of the writes that make a page all zeros; default 10
 * @empty:	has memory and never writes to it
 * @dma:	not declared free of DMA
 * @thp:	advises transparent huge pages for its memory
 * @rom:	its last block is read-only
 * @grow:	uses half of its memory until lab_guest_grow()
 * @paused:	starts paused by its own wish
 * @keep:	disposal "keep" instead of "quit"
 * @uuid:	16 times this byte; 0: made at random
 */
struct lab_guest_opts {
	const char *name;
	unsigned int mb;
	enum lab_kind kind;
	unsigned int blocks;
	unsigned int threads;
	unsigned int writes;
	unsigned int zeros;
	bool empty;
	bool dma;
	bool thp;
	bool grow;
	bool rom;
	bool paused;
	bool keep;
	uint8_t uuid;
};

/**
 * struct lab_report - what a guest last said of itself
 * @pid:	process that said it, in its PID namespace
 * @ended:	it was its last word
 * @paused:	it stands
 * @pages:	of its memory
 * @grown:	pages of the second half that it has written to
 * @arrivals:	how often it was received
 * @counter:	page writes ever, which goes on over migrations
 * @counter_at_pause, @counter_at_arrival: must agree
 * @counter_gap:	the counter less the counts of all pages, when it was loaded
 * @verifications:	of all pages, by this process
 * @bad:	bad pages found, ever
 * @stall_us:	longest time that a thread stood in an access to memory since lab_guest_calm(); of writers that
 *		keep a rate without the time that they waited for a processor
 */
struct lab_report {
	int pid;
	bool ended;
	bool paused;
	uint64_t pages;
	uint64_t grown;
	uint64_t arrivals;
	uint64_t counter;
	uint64_t counter_at_pause;
	uint64_t counter_at_arrival;
	int64_t counter_gap;
	uint64_t verifications;
	uint64_t bad;
	uint64_t stall_us;
};

/**
 * struct lab_guest - a guest, wherever it is
 * @opts:	as it was started
 * @at:		host where it is now; each host has a report of its own
 * @proc:	the process that the lab started (others are launched by agents)
 * @arrivals:	journeys that were checked so far
 */
struct lab_guest {
	struct lab *lab;
	struct lab_guest_opts opts;
	char name[LAB_NAME_MAX];
	struct lab_host *at;
	struct lab_proc *proc;
	uint64_t arrivals;
};

/** lab_guest_start() - register it, start it, wait until it has filled its memory and is attached */
struct lab_guest *lab_guest_start(struct lab_host *h, const struct lab_guest_opts *opts);
/** lab_guest_again() - its program is started anew on @h, where it is known: with fresh memory, and no history of its own */
void lab_guest_again(struct lab_guest *g, struct lab_host *h);
/** lab_guest_launchers() - Return: the launchers of decant-dest's configuration, new reference */
json_t *lab_guest_launchers(struct lab_host *h);
/** lab_guest_report() - Return: what it said last where it is */
struct lab_report lab_guest_report(struct lab_guest *g);
/**
 * lab_guest_arrived() - it runs on @h: has verified every page there, its counter goes on without a
 * gap, and its process at the source has ended (unless it is kept)
 */
void lab_guest_arrived(struct lab_guest *g, struct lab_host *h);
/** lab_guest_arrived_paused() - the same of one that stands: nothing can be verified yet */
void lab_guest_arrived_paused(struct lab_guest *g, struct lab_host *h);
/** lab_guest_verified() - from now on: one whole verification, no bad page, the counter goes on */
void lab_guest_verified(struct lab_guest *g);
/** lab_guest_unbroken() - what its processes on either host have seen so far was right */
void lab_guest_unbroken(struct lab_guest *g, struct lab_host *a, struct lab_host *b);
/** lab_guest_toggle_pause() - its own wish */
void lab_guest_toggle_pause(struct lab_guest *g);
/** lab_guest_grow() - where it is on @h: use all of its memory, and wait until it does */
void lab_guest_grow(struct lab_guest *g, struct lab_host *h);
/** lab_guest_calm() - forget the longest stall so far */
void lab_guest_calm(struct lab_guest *g);
/**
 * lab_guest_kill_agent() - SIGKILL @agent, which tracks it: its writers go on as soon as those of a
 * bystander whose tracker is killed at the same moment; see lab_kill.c
 */
void lab_guest_kill_agent(struct lab_guest *g, struct lab_proc *agent);
/** lab_guest_pid() - Return: its process on a host, as seen from here; 0 if there is none */
pid_t lab_guest_pid(struct lab_guest *g, struct lab_host *h);
/** lab_guest_tracked() - Return: whether the kernel protects its memory against writes, by userfaultfd */
bool lab_guest_tracked(struct lab_guest *g);
/** lab_guest_stands() - wait until its process on a host says that it is paused */
void lab_guest_stands(struct lab_guest *g, struct lab_host *h);
/** lab_guest_counter() - Return: the counter in its report on a host; 0 without one */
uint64_t lab_guest_counter(struct lab_guest *g, struct lab_host *h);
/** lab_guest_abandon() - kill its processes: it cannot be saved any more, as the test wants it */
void lab_guest_abandon(struct lab_guest *g);
/** lab_guest_end() - have it end where it is, if it is anywhere */
void lab_guest_end(struct lab_guest *g);

#endif
