/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A journal's sync is made of rounds: one fdatasync(2) in a thread. What is written while one runs is covered by
 * the next; who waits for a record is told behind the first round that began after it was written.
 *
 * The thread has a descriptor of its own, so that the journal can be closed meanwhile.
 */
#include "util/journal_sync.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "util/cleanup.h"
#include "util/errand.h"
#include "util/fdio.h"
#include "util/journal_priv.h"
#include "util/log.h"

/**
 * enum sync_state - of the round that comes next, or runs
 * @SYNC_IDLE:	none is wanted
 * @SYNC_QUEUED: waits for a thread
 * @SYNC_RUNS:	in a thread
 * @SYNC_OVER:	done without one, its end is to be told
 */
enum sync_state {
	SYNC_IDLE,
	SYNC_QUEUED,
	SYNC_RUNS,
	SYNC_OVER,
};

/**
 * struct journal_sync - of one journal
 * @errand:	the round that runs; first
 * @j:		NULL once it was closed
 * @fd:		the same file
 * @path:	of it
 * @folder:	its folder is not synced yet
 * @state:	see enum sync_state
 * @again:	another round is to follow the one that runs
 * @telling:	waits up to round @due are being told: it stays
 * @begun:	number of the round that began last
 * @covers:	what the journal's size was then
 * @waits:	oldest first
 * @next:	in journal_syncer.all
 * @behind:	in journal_syncer.queue
 */
struct journal_sync {
	struct errand errand;
	struct journal_syncer *s;
	struct journal *j;
	int fd;
	char *path;
	bool folder;
	enum sync_state state;
	bool again;
	bool telling;
	uint64_t begun;
	uint64_t due;
	uint64_t covers;
	struct journal_wait *waits;
	struct journal_sync *next;
	struct journal_sync *behind;
};

/**
 * struct journal_syncer - of one agent
 * @all:	journals that it syncs, and closed ones until they are synced
 * @queue:	those that wait for a thread, oldest first; @queued of them
 * @running:	threads
 */
struct journal_syncer {
	struct loop *loop;
	struct journal_sync *all;
	struct journal_sync *queue;
	unsigned int queued;
	unsigned int running;
};

static void sync_free(struct journal_sync *y)
{
	struct journal_sync **at = &y->s->all;

	while (*at != y)
		at = &(*at)->next;
	*at = y->next;
	close(y->fd);
	free(y->path);
	free(y);
}

/* --- a round --- */

static int run(struct errand *e, struct error *err)
{
	struct journal_sync *y = (struct journal_sync *)e;
	int r = y->folder ? fdio_sync_dir_of(y->path) : 0;

	if (r < 0)
		return error_set(err, r, NULL, "%s: cannot sync its folder: %s", y->path,
				 strerror(-r));
	y->folder = false;
	return fdatasync(y->fd) ? error_set(err, -errno, NULL, "%s: cannot sync: %s", y->path,
					    strerror(errno))
				: 0;
}

static void next_round(struct journal_sync *y);

/* What was not synced may be lost: the kernel has dropped it and will not say so again. */
static void broken(struct journal_sync *y)
{
	struct journal_wait *last = NULL;

	y->again = false;
	if (!y->j)
		return;
	y->j->broken = true;
	for (struct journal_wait *w = y->waits; w; w = w->next)
		if (w->from < w->to)
			last = w;
	if (last && y->j->size == last->to && !ftruncate(y->j->fd, (off_t)last->from))
		y->j->size = last->from;
}

/* Whoever is told may close the journal: the others hear of it all the same. */
static void tell(struct journal_sync *y, uint64_t round, int ret, const struct error *err)
{
	bool told = false;

	y->telling = true;
	y->due = round;
	while (y->waits && y->waits->round <= round) {
		struct journal_wait *w = y->waits;

		y->waits = w->next;
		w->at = NULL;
		w->next = NULL;
		told = true;
		w->fn(w, ret, err);
	}
	y->telling = false;
	if (ret < 0 && !told)
		log_error("%s", err->msg);
}

static void start_queued(struct journal_syncer *s);

static void round_over(struct journal_sync *y)
{
	struct error err = y->errand.err;
	int ret = y->errand.ret;
	/* Of a journal that is broken there is no next one. */
	uint64_t round = ret < 0 ? y->begun + 1 : y->begun;

	y->state = SYNC_IDLE;
	if (ret < 0)
		broken(y);
	if (y->again)
		next_round(y);
	tell(y, round, ret, &err);
	if (!y->j && y->state == SYNC_IDLE)
		sync_free(y);
}

static void done(struct errand *e)
{
	struct journal_sync *y = (struct journal_sync *)e;
	struct journal_syncer *s = y->s;

	s->running--;
	round_over(y);
	start_queued(s);
}

static void done_here(void *arg)
{
	round_over(arg);
}

/* Without a thread: this is as slow as the disk, and still tells nobody from within the call. */
static void run_here(struct journal_sync *y)
{
	error_clear(&y->errand.err);
	y->errand.ret = run(&y->errand, &y->errand.err);
	y->state = SYNC_OVER;
	if (loop_post(y->s->loop, done_here, y) < 0)
		log_error("%s: out of memory, who waits for it waits for ever", y->path);
}

static void begin(struct journal_sync *y)
{
	y->begun++;
	y->again = false;
	if (y->j)
		y->covers = y->j->size;
}

static void start(struct journal_sync *y)
{
	begin(y);
	y->state = SYNC_RUNS;
	y->s->running++;
	if (!errand_start(&y->errand, y->s->loop, run, done))
		return;
	y->s->running--;
	run_here(y);
}

static void start_queued(struct journal_syncer *s)
{
	while (s->queue && s->running < JOURNAL_SYNC_THREADS) {
		struct journal_sync *y = s->queue;

		s->queue = y->behind;
		y->behind = NULL;
		s->queued--;
		start(y);
	}
}

static void next_round(struct journal_sync *y)
{
	struct journal_sync **at = &y->s->queue;

	if (y->s->queued >= JOURNAL_SYNC_QUEUE) {
		begin(y);
		run_here(y);
		return;
	}
	y->state = SYNC_QUEUED;
	while (*at)
		at = &(*at)->behind;
	*at = y;
	y->s->queued++;
	start_queued(y->s);
}

/* --- of a journal --- */

int journal_sync_by(struct journal *j, struct journal_syncer *s, struct error *err)
{
	struct journal_sync *y = calloc(1, sizeof(*y));
	int r = -ENOMEM;

	if (y) {
		y->s = s;
		y->j = j;
		y->folder = !j->size;
		y->path = strdup(j->path);
		y->fd = fcntl(j->fd, F_DUPFD_CLOEXEC, 0);
		r = y->fd < 0 ? -errno : y->path ? 0 : -ENOMEM;
	}
	if (r < 0) {
		if (y && y->fd >= 0)
			close(y->fd);
		free(y ? y->path : NULL);
		free(y);
		return error_set(err, r, NULL, "%s: %s", j->path, strerror(-r));
	}
	y->next = s->all;
	s->all = y;
	j->sync = y;
	return 0;
}

void journal_wait_cancel(struct journal_wait *w)
{
	struct journal_wait **at;

	if (!w->at)
		return;
	for (at = &w->at->waits; *at != w; at = &(*at)->next)
		;
	*at = w->next;
	w->at = NULL;
	w->next = NULL;
}

/* Has all that was written been so before the round that runs began? One that is queued has not begun. */
static bool covered(const struct journal_sync *y)
{
	return (y->state == SYNC_RUNS || y->state == SYNC_OVER) && y->covers == y->j->size;
}

static void await(struct journal_sync *y, struct journal_wait *w, uint64_t from)
{
	struct journal_wait **at = &y->waits;

	journal_wait_cancel(w);
	w->round = covered(y) ? y->begun : y->begun + 1;
	w->from = from;
	w->to = y->j->size;
	w->at = y;
	while (*at)
		at = &(*at)->next;
	*at = w;
}

static void sync_from(struct journal *j, struct journal_wait *w, uint64_t from)
{
	struct journal_sync *y = j->sync;

	if (w)
		await(y, w, from);
	if (y->state == SYNC_IDLE)
		next_round(y);
	else if (y->state != SYNC_QUEUED && !covered(y))
		y->again = true;
}

void journal_sync_apart(struct journal *j, struct journal_wait *w)
{
	sync_from(j, w, j->size);
}

int journal_append_apart(struct journal *j, const json_t *record, struct journal_wait *w,
			 struct error *err)
{
	uint64_t from = j->size;
	int r = journal_write(j, record, err);

	if (!r)
		sync_from(j, w, from);
	return r;
}

void journal_sync_closed(struct journal *j)
{
	struct journal_sync *y = j->sync;
	struct journal_wait **at = &y->waits;

	while (y->telling && *at && (*at)->round <= y->due)
		at = &(*at)->next;
	while (*at)
		journal_wait_cancel(*at);
	y->j = NULL;
	if (y->state == SYNC_IDLE && !y->telling)
		sync_free(y);
}

/* --- all of them --- */

struct journal_syncer *journal_syncer_new(struct loop *loop)
{
	struct journal_syncer *s = calloc(1, sizeof(*s));

	if (s)
		s->loop = loop;
	return s;
}

void journal_syncer_drain(struct journal_syncer *s)
{
	for (struct journal_sync *y = s->all; y; y = y->next) {
		struct error err = {0};
		bool due = y->state == SYNC_QUEUED || y->again;

		errand_drop(&y->errand);
		if (y->state == SYNC_RUNS && y->errand.ret < 0)
			log_error("%s", y->errand.err.msg);
		if (due && run(&y->errand, &err) < 0)
			log_error("%s", err.msg);
		y->again = false;
		y->behind = NULL;
		y->state = SYNC_IDLE;
	}
	s->queue = NULL;
	s->queued = s->running = 0;
}

void journal_syncer_free(struct journal_syncer *s)
{
	if (!s)
		return;
	journal_syncer_drain(s);
	while (s->all) {
		if (s->all->j)
			s->all->j->sync = NULL;
		sync_free(s->all);
	}
	free(s);
}
