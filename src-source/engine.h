/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The page engine of one migration: what is to be sent, what was sent, and the threads that do it.
 * The snapshot thread (scan.c) feeds the bulk senders (sender.c); the urgent thread (urgent.c)
 * serves the pages that the destination asks for. They share only what stands here: atomic bitmaps
 * and counters.
 *
 * Made and freed by the loop's thread; it outlives its threads.
 */
#ifndef DECANT_ENGINE_H
#define DECANT_ENGINE_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "budget/budget.h"
#include "conf/conf_options.h"
#include "dma.h"
#include "guest/gmem.h"
#include "msg.h"
#include "tls/tls_chan.h"
#include "util/bitmap.h"
#include "util/bucket.h"
#include "util/error.h"
#include "util/hist.h"

/** ENGINE_RUN_MAX - most bytes of one run of data on the wire */
#define ENGINE_RUN_MAX MSG_PAGES_RAW_MAX
/** ENGINE_PAGE_WHOLE - largest page that is accounted for, and saved, as a whole: larger ones go part by part */
#define ENGINE_PAGE_WHOLE (2ull << 20)

/** ENGINE_NACKS_MAX - runs that the destination may refuse in a session */
#define ENGINE_NACKS_MAX 256u

struct held;

/**
 * struct engine_block - one block that is being moved
 * @mem:	the guest's memory; read only
 * @npages:	in units of @mem.block.page_size
 * @pending:	to be sent in this pass and claimed by nobody yet: clearing a bit claims the page
 * @sent:	sent at least once in this session, so the destination may hold a copy
 * @dirty:	kind `faults` only: written since it was protected last
 * @data:	snapshots only: may hold data; all else is zeros
 * @held:	what may not be copied yet (held.h); NULL: everything may be
 * @filled:	tracked only, empty otherwise: what was sent of it last was data, see gone.h
 * @theirs:	the guest's own open file of shared memory; owned, until gone.c has tried whether it tells of
 *		changes; -1 then, and without
 */
struct engine_block {
	struct gmem mem;
	uint64_t npages;
	struct bitmap pending;
	struct bitmap sent;
	struct bitmap dirty;
	struct bitmap data;
	struct held *held;
	struct bitmap filled;
	int theirs;
};

/** engine_tracked() - Return: whether it can change while it is being moved: others are skipped (W2) */
static inline bool engine_tracked(const struct engine_block *b)
{
	return !(b->mem.block.flags & GUEST_BLOCK_READONLY);
}

/**
 * struct engine_stats - read by anybody at any time
 * @sent_bytes:	guest memory sent as data, repeats included
 * @zero_pages:	pages sent as zero runs, repeats included; parts of a page count as small pages
 * @runs, @digest_sum: of all PAGES frames of the session, for COMPLETE
 * @requests:	pages that the destination asked for
 * @nacks:	runs it refused because of their digest
 * @passes:	passes of precopy done
 * @remaining:	bytes known to be unsent or dirty, as of the last look
 * @dirty_rate:	pages per second found dirty by the last scan
 * @rate:	bytes per second of guest memory in the last pass
 * @stall:	kind `faults`: how long writers waited for the snapshot thread
 * @service:	from the coming of a REQUEST until its pages were given to the network
 */
struct engine_stats {
	_Atomic uint64_t sent_bytes;
	_Atomic uint64_t zero_pages;
	_Atomic uint64_t runs;
	_Atomic uint64_t digest_sum;
	_Atomic uint64_t requests;
	_Atomic uint64_t nacks;
	_Atomic uint32_t passes;
	_Atomic uint64_t remaining;
	_Atomic uint64_t dirty_rate;
	_Atomic uint64_t rate;
	struct hist stall;
	struct hist service;
};

/**
 * enum engine_event - what the threads tell the loop
 * @ENGINE_TRACKING:	write tracking is on; precopy may begin
 * @ENGINE_PROTECTED:	and everything was protected while the guest was paused
 * @ENGINE_GATE:	policy would pause the guest: others are to be asked; precopy goes on until engine.gate is open
 * @ENGINE_CONVERGED:	policy says: pause the guest
 * @ENGINE_FINAL:	the last scan is done, what had to be sent before the switch is placed
 * @ENGINE_SENT:	post-copy: every page was sent and every barrier answered
 * @ENGINE_CHANNEL: a channel broke, and the session stands; with its reason
 * @ENGINE_LOST:	a channel broke; with its reason
 * @ENGINE_FAILED:	anything else went wrong; with its reason
 */
enum engine_event {
	ENGINE_TRACKING,
	ENGINE_PROTECTED,
	ENGINE_GATE,
	ENGINE_CONVERGED,
	ENGINE_FINAL,
	ENGINE_SENT,
	ENGINE_CHANNEL,
	ENGINE_LOST,
	ENGINE_FAILED,
};

/**
 * enum engine_gate - whether others have a say in when the guest is paused
 * @ENGINE_GATE_NONE:	they have not
 * @ENGINE_GATE_SHUT:	they will be asked
 * @ENGINE_GATE_ASKED:	they are being asked: set by the snapshot thread
 * @ENGINE_GATE_OPEN:	they have allowed it: set by the loop
 */
enum engine_gate {
	ENGINE_GATE_NONE,
	ENGINE_GATE_SHUT,
	ENGINE_GATE_ASKED,
	ENGINE_GATE_OPEN,
};

/** engine_event_fn - called on the loop's thread, never after engine_free() */
typedef void engine_event_fn(void *arg, enum engine_event ev, const struct error *err);

struct lane;
struct scan;
struct sender;
struct urgent;
struct engine_post;

/**
 * struct engine - see above
 * @loop, @on_event, @arg: where events go
 * @options:	of the migration
 * @blocks, @nblocks: fixed
 * @features:	UFFD_F_* that this host's kernel has; set before tracking begins
 * @stop_fd:	eventfd, readable once the threads have to end
 * @stats:	counters
 * @pass:	number in PAGES frames
 * @postcopy:	the destination listens: pages that it asks for are served
 * @urgent_busy: a request is being served: what it claimed may not be counted in @stats yet
 * @dma:	how memory that devices may write to is moved; set before the threads start
 * @gate:	see enum engine_gate; set before precopy begins
 * @recovered:	a session behind COMMIT that was made again: @pending is what the destination has not received
 * @snapshot:	pages are those of one instant: none can be read again
 * @mend:	a lost channel is made again within the session; set before there is one
 * @losses:	channels that were given up: what was open on them is pending again
 * @urgent_lost: the urgent channel is, and may still have frames under way
 * @interrupted_us: for so long there was no session, in precopy
 * @wire_gone:	bytes sent on channels that are no more; the loop's
 * @saved_bytes: snapshots: copies that are not sent yet, see snap.h
 * @asked:	pages that the destination asked for in this session; each is missing there once
 * @waiting_urgent: the snapshot thread wants to know when it is not
 * @hint:	(block << 48 | page) + 1 of the last page asked for, 0 if none; the scan goes on there
 * @bucket_lock, @bucket: bandwidth limit of the bulk channels together
 * @budget, @flow: the host's limit, below which that one is, and this guest's share; NULL: none
 * @scan, @senders, @nsenders, @urgent: the threads
 * @done:	the receipt has come: what ends now is not lost
 * @failed:	the first failure was posted; later ones are its echoes
 * @post_lock, @posts: events under way to the loop
 */
struct engine {
	struct loop *loop;
	engine_event_fn *on_event;
	void *arg;
	struct mig_options options;
	struct engine_block *blocks;
	uint32_t nblocks;
	uint64_t features;
	int stop_fd;
	struct engine_stats stats;
	_Atomic uint32_t pass;
	_Atomic bool postcopy;
	_Atomic bool urgent_busy;
	_Atomic uint64_t asked;
	_Atomic bool waiting_urgent;
	enum dma_way dma;
	_Atomic int gate;
	bool recovered;
	bool snapshot;
	bool mend;
	_Atomic uint32_t losses;
	_Atomic bool urgent_lost;
	_Atomic uint64_t interrupted_us;
	uint64_t wire_gone;
	_Atomic uint64_t saved_bytes;
	_Atomic uint64_t hint;
	pthread_mutex_t bucket_lock;
	struct bucket bucket;
	struct budget *budget;
	struct budget_flow flow;
	struct scan *scan;
	struct sender *senders[MSG_CHANNELS_MAX];
	uint32_t nsenders;
	struct urgent *urgent;
	_Atomic bool done;
	_Atomic bool failed;
	pthread_mutex_t post_lock;
	struct engine_post *posts;
};

/**
 * engine_new() - take hold of the guest's memory
 * @g:		only looked at now
 * @budget:	of the host; NULL for no limit but that of the options
 *
 * Return: 0, or -errno with @err filled
 */
int engine_new(struct loop *loop, const struct guest *g, const struct mig_options *options,
	       struct budget *budget, engine_event_fn *on_event, void *arg, struct engine **ret,
	       struct error *err);
/** engine_stop() - end the threads and wait for them; no event comes after it, tracking is off. Counters can still be read. Safe to call twice */
void engine_stop(struct engine *e);
/** engine_free() - engine_stop() and release everything; NULL is fine */
void engine_free(struct engine *e);

/** engine_set_bandwidth() - bytes per second of all bulk channels, 0 for no limit; any thread */
void engine_set_bandwidth(struct engine *e, uint64_t rate);
/** engine_account() - @bytes are about to be sent on bulk channels; any thread */
void engine_account(struct engine *e, uint64_t bytes);
/**
 * engine_turn() - may a run be sent now, by the migration's limit and by the host's?
 * @ask:	the calling thread's place in the queue
 *
 * Return: 0: ENGINE_RUN_MAX bytes of the host's budget are taken, for engine_settle(); else ask again after
 * so many microseconds, or budget_leave()
 */
uint64_t engine_turn(struct engine *e, struct budget_ask *ask, enum budget_class class);
/** engine_await_turn() - until a run may be sent; a lane's thread. Return: 0, or -ECANCELED if that is to end */
int engine_await_turn(struct engine *e, struct lane *lane);
/** engine_unturn() - the thread wants no turn any more */
void engine_unturn(struct engine *e, struct budget_ask *ask);
/** engine_guess() - of @guess bytes of a turn only so many will be sent, later. Return: @better */
uint64_t engine_guess(struct engine *e, enum budget_class class, uint64_t guess, uint64_t better);
/** engine_settle() - of @guess bytes of a turn @sent were sent; what had no turn was guessed to be nothing */
void engine_settle(struct engine *e, enum budget_class class, uint64_t guess, uint64_t sent);

/** engine_post() - any thread: have the loop call on_event */
void engine_post(struct engine *e, enum engine_event ev, const struct error *err);
/** engine_fail() - post ENGINE_LOST or ENGINE_FAILED, the first time only, and not once stopping */
void engine_fail(struct engine *e, enum engine_event ev, const struct error *err);
/** engine_stopping() - Return: whether threads have been told to end */
bool engine_stopping(const struct engine *e);

/** engine_pending_bytes() - Return: bytes of all pages not claimed yet */
uint64_t engine_pending_bytes(const struct engine *e);
/** engine_nack() - the destination refused a run: send it again. Return: 0 or -EBADMSG with @err filled */
int engine_nack(struct engine *e, const struct msg_nack *n, struct error *err);

/**
 * engine_send_run() - read guest pages and write them to a channel as PAGES frames
 * @lane:	the calling thread's
 * @buf:	MSG_PAGES_FIXED + ENGINE_RUN_MAX bytes of the calling thread
 * @length:	at most ENGINE_RUN_MAX
 *
 * Zero pages go as zero runs. The pages must be claimed by the caller. Return: 0; -errno with @err filled
 */
int engine_send_run(struct engine *e, struct lane *lane, uint8_t *buf, uint32_t pass,
		    uint32_t block, uint64_t offset, uint64_t length, struct error *err);
/**
 * engine_send_saved() - the same of bytes that were read before
 * @frame:	MSG_PAGES_FIXED bytes of room, then @length bytes; the room and bytes already sent are
 *		written over
 */
int engine_send_saved(struct engine *e, struct lane *lane, uint8_t *frame, uint32_t pass,
		      uint32_t block, uint64_t offset, uint64_t length, struct error *err);
/** engine_send_hole() - one zero run of any length. Return: as engine_send_run() */
int engine_send_hole(struct engine *e, struct lane *lane, uint32_t pass, uint32_t block,
		     uint64_t offset, uint64_t length, struct error *err);

/** ENGINE_IO_TIMEOUT_US - a peer that takes nothing for so long is lost */
#define ENGINE_IO_TIMEOUT_US 30000000ull

#endif
