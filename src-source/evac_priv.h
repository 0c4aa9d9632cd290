/* SPDX-License-Identifier: Apache-2.0 */
/* Between the files of an evacuation. */
#ifndef DECANT_EVAC_PRIV_H
#define DECANT_EVAC_PRIV_H

#include "conn.h"
#include "dial.h"
#include "evac.h"
#include "guests.h"
#include "home.h"
#include "mig_progress.h"
#include "migration_priv.h"
#include "util/journal_sync.h"
#include "util/uuid.h"

/** EVAC_TICK_US - how often it is looked at */
#define EVAC_TICK_US 100000ull
/** EVAC_AGAIN_US - before a destination that was full is asked again */
#define EVAC_AGAIN_US 1000000ull
/** EVAC_ABSENT_US - a guest that has gone may attach again for so long: its agent or ours was started again */
#define EVAC_ABSENT_US 15000000ull
/** EVAC_FULL_US - a destination that has been full for a guest for so long has refused it */
#define EVAC_FULL_US 600000000ull
/** EVAC_ARRIVE_US, EVAC_SEND_ON_US - guests that come in, and that decant-dest has and does not send on, are waited
 * for as long as their number changes within this */
#define EVAC_ARRIVE_US  600000000ull
#define EVAC_SEND_ON_US 60000000ull
/** EVAC_LOOK_US - how often it looks who is here: names are many */
#define EVAC_LOOK_US 500000ull
/** EVAC_ATTACH_US - a guest that was registered attaches within this */
#define EVAC_ATTACH_US 5000000ull
/** EVAC_SAMPLE_US - writes are counted for so long */
#define EVAC_SAMPLE_US 2000000ull

/** enum evac_phase - see evac_phase_name(); what is behind EVAC_COMPLETED has ended */
enum evac_phase {
	EVAC_PLANNING, /* nothing has begun to move */
	EVAC_RUNNING,
	EVAC_CANCELLING, /* what cannot be stopped any more ends */
	EVAC_COMPLETED,  /* nobody is left */
	EVAC_FAILED,     /* somebody is, explained */
	EVAC_CANCELLED,
	EVAC_PLANNED, /* a dry run */
	EVAC_PHASES_,
};

/** enum evac_outcome - what becomes of one guest; from EVAC_MOVED on it is settled */
enum evac_outcome {
	EVAC_WAITING,
	EVAC_MIGRATING,
	EVAC_MOVED,
	EVAC_GONE,     /* it has ended, or was removed */
	EVAC_UNPLACED, /* no destination takes it, or it cannot be moved */
	EVAC_LEFT,     /* "failed": it was tried, and stays, or its fate is an operator's matter */
	EVAC_STOPPED,  /* "cancelled" */
	EVAC_OUTCOMES_,
};

/**
 * struct evac_dest - a destination
 * @to:		"host:port"
 * @dial, @conn: the question under way
 * @room:	its last answer, NULL if there is none, or the evacuation has ended
 * @known, @memory, @incoming, @limit: what is shown of it
 * @answered:	it has, or cannot, since the last question
 * @attempts:	questions in a row that nobody answered
 * @refuses:	why it takes nobody; empty if it may
 * @note:	why nothing is known of it; empty if something is
 */
struct evac_dest {
	struct evac *e;
	char to[EVAC_TO_MAX];
	char host[MIG_HOST_MAX];
	char port[MIG_PORT_MAX];
	struct dial *dial;
	struct conn *conn;
	struct msg_room *room;
	bool known;
	uint64_t memory;
	uint32_t incoming, limit;
	bool answered;
	unsigned int attempts;
	struct error refuses;
	struct error note;
};

/**
 * struct evac_item - one guest
 * @uuid, @generation: which one of that name; zeros for one that never attached
 * @bytes:	of its memory
 * @priority:	as described
 * @outcome:	changed by evac_outcome() alone
 * @migration:	the last one, "" without
 * @host:	where it goes, index of a destination; -1 while that is not known
 * @turn:	in the plan
 * @tried:	bit i: not to destination i any more
 * @why:	of the outcome, or of the last attempt
 * @attempted:	a migration of it has failed
 * @dirty:	bytes a second, or EVAC_DIRTY_UNKNOWN
 * @after_us:	clock_us() before which it is not started
 * @early:	its migration was being set up when the destinations were asked
 * @full_us:	since when its destinations are full, 0 if they are not
 * @absent_us:	since when it is not attached, 0 if it is
 * @sent:	bytes that its migration has sent
 */
struct evac_item {
	char name[CONF_NAME_MAX];
	uint8_t uuid[UUID_LEN];
	uint64_t generation;
	uint64_t bytes;
	int priority;
	enum evac_outcome outcome;
	char migration[UUID_TEXT_MAX];
	int host;
	unsigned int turn;
	uint32_t tried;
	struct error why;
	bool attempted;
	uint64_t dirty;
	uint64_t after_us;
	bool early;
	uint64_t full_us;
	uint64_t absent_us;
	uint64_t sent;
};

struct evac_sample;

/**
 * struct evac - an evacuation
 * @phase:	changed by evac_phase() alone
 * @wish:	its @to point into @dests
 * @items:	@n of them, @cap allocated; in the order in which they were found
 * @journal:	NULL for a dry run and once it has ended
 * @timer:	the next look
 * @begun_us:	clock_us() of this life's first look
 * @looked_us:	clock_us() when it looked who is here
 * @changed_us:	clock_us() when the outcome of a guest changed last
 * @asking:	questions are out; @asked_us: clock_us() when they were sent
 * @fresh:	and their answers have not been used yet
 * @sample:	the counting of writes, once it has begun; @sampled: it is over
 * @stale:	the plan is to be made anew: somebody has no place, or lost his
 * @freed:	a migration has ended since the last plan: who was refused may be asked for again
 * @cancelled:	ordered
 * @home, @home_ask: of this host's decant-dest; @home_us: clock_us() of the answer, 0 before
 * @arrive_us:	clock_us() when the number of arriving guests changed last
 * @err:	why it ended as it did
 * @share:	bytes a second that each migration has been given
 */
struct evac {
	struct source *s;
	struct evac *next;
	char id[UUID_TEXT_MAX];
	char key[MIG_KEY_MAX];
	enum evac_phase phase;
	struct evac_wish wish;
	struct evac_dest dests[EVAC_HOSTS_MAX];
	struct evac_item **items;
	size_t n, cap;
	struct journal *journal;
	struct event *timer;
	uint64_t created_us, ended_us;
	uint64_t begun_us;
	uint64_t looked_us;
	uint64_t changed_us;
	bool asking;
	bool fresh;
	uint64_t asked_us;
	struct evac_sample *sample;
	bool sampled;
	bool stale;
	bool freed;
	bool cancelled;
	struct home home;
	struct home_ask *home_ask;
	uint64_t home_us;
	uint64_t arrive_us;
	struct error err;
	uint64_t share;
};

/* --- evac.c --- */
const char *evac_phase_name(enum evac_phase p);
const char *evac_outcome_name(enum evac_outcome o);
/** evac_phase() - the one setter: logs, and what has to be in the journal is written when it returns */
void evac_phase(struct evac *e, enum evac_phase phase);
/** evac_tell() - audit and hooks hear of its phase; @before: the last one, NULL if that is of an earlier life */
void evac_tell(const struct evac *e, const char *before);
/** evac_outcome() - the same of one guest; @why may be NULL */
void evac_outcome(struct evac *e, struct evac_item *it, enum evac_outcome outcome,
		  const struct error *why);
static inline bool evac_ended(const struct evac *e)
{
	return e->phase >= EVAC_COMPLETED;
}
/** evac_add() - a new entry. Return: NULL when out of memory */
struct evac_item *evac_add(struct evac *e, const char *name);
/** evac_free() - not in the list any more */
void evac_free(struct evac *e);
/** evac_address() - "HOST[:PORT]" into a destination. Return: 0 or -EINVAL with @err filled */
int evac_address(struct evac_dest *d, const char *to, struct error *err);
/** evac_tick_soon() - look at it in a moment */
void evac_tick_soon(struct evac *e, uint64_t us);

/* --- evac_ask.c --- */
/** evac_ask_all() - ask every destination; evac_asked() when all have answered or cannot */
void evac_ask_all(struct evac *e);
void evac_ask_stop(struct evac *e);
/** evac_host_of() - what the plan has to know of a destination; points into @d */
void evac_host_of(const struct evac_dest *d, struct evac_host *ret);

/* --- evac_sample.c --- */
/** evac_sample_begin() - count the writes of all that wait, for EVAC_SAMPLE_US; then evac.sampled, and evac_item.dirty */
void evac_sample_begin(struct evac *e);
/** evac_sample_end() - the evacuation ends, or the daemon does */
void evac_sample_end(struct evac *e);
/** evac_sample_busy() - Return: whether a guest may still answer to it, so that it cannot be freed */
bool evac_sample_busy(const struct evac *e);
/** evac_sample_free() - after evac_sample_end(); the loop runs no more, or it is not busy */
void evac_sample_free(struct evac *e);

/* --- evac_run.c --- */
/** evac_discover() - guests that it does not know yet, and those that are not there any more */
void evac_discover(struct evac *e);
/** evac_collect() - what has become of the migrations */
void evac_collect(struct evac *e);
/** evac_place_all() - plan; destinations have answered */
void evac_place_all(struct evac *e);
/** evac_start_some() - as many migrations as may run. Return: whether somebody waits for a place that is taken */
bool evac_start_some(struct evac *e);

/* --- evac_journal.c --- */
int evac_journal_open(struct evac *e, struct error *err);
/** evac_journal_item() - a record, not synced; evac_journal_note() - one that is, soon. A failure is only logged */
void evac_journal_item(struct evac *e, const struct evac_item *it);
void evac_journal_note(struct evac *e, const char *type);
/** evac_journal_end() - the last record; the file is closed */
void evac_journal_end(struct evac *e);
void evac_journal_remove(const struct evac *e);

#endif
