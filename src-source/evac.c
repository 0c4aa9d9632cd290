/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The life of an evacuation: what it is told, its looks at itself, its end.
 *
 * It looks ten times a second as long as it runs: at the migrations that it has started, at guests that come and
 * go, and at what is to be done next. That costs nothing that would be noticed, and needs no word from any of them.
 */
#include "evac.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "audit/audit.h"
#include "evac_priv.h"
#include "hooks/hooks.h"
#include "host/cordon.h"
#include "rest/rest_events.h"
#include "util/cleanup.h"
#include "util/clock.h"
#include "util/fdio.h"
#include "util/log.h"

/* --- names and the setters --- */

const char *evac_phase_name(enum evac_phase p)
{
	static const char *const names[] = {
		[EVAC_PLANNING] = "planning",     [EVAC_RUNNING] = "running",
		[EVAC_CANCELLING] = "cancelling", [EVAC_COMPLETED] = "completed",
		[EVAC_FAILED] = "failed",         [EVAC_CANCELLED] = "cancelled",
		[EVAC_PLANNED] = "planned",
	};
	_Static_assert(ARRAY_SIZE(names) == EVAC_PHASES_, "a name for each");

	return names[p];
}

const char *evac_outcome_name(enum evac_outcome o)
{
	static const char *const names[] = {
		[EVAC_WAITING] = "waiting",   [EVAC_MIGRATING] = "migrating",
		[EVAC_MOVED] = "moved",       [EVAC_GONE] = "gone",
		[EVAC_UNPLACED] = "unplaced", [EVAC_LEFT] = "failed",
		[EVAC_STOPPED] = "cancelled",
	};
	_Static_assert(ARRAY_SIZE(names) == EVAC_OUTCOMES_, "a name for each");

	return names[o];
}

static void audit_phase(const struct evac *e)
{
	bool failed = error_is_set(&e->err);

	audit_note(e->s->audit, evac_ended(e) ? "evacuation-ended" : "evacuation",
		   json_pack("{s:s, s:s, s:s, s:I, s:s*, s:s*}", "job", e->id, "kind", "evacuation",
			     "phase", evac_phase_name(e->phase), "guests", (json_int_t)e->n, "code",
			     failed ? e->err.code : NULL, "error", failed ? e->err.msg : NULL),
		   AUDIT_PLAIN);
}

void evac_tell(const struct evac *e, const char *before)
{
	char type[HOOKS_TYPE_MAX], job[HOOKS_JOB_MAX];
	json_t *data;

	audit_phase(e);
	snprintf(type, sizeof(type), "evacuation.%s", evac_phase_name(e->phase));
	if (e->wish.dry_run || !hooks_wanted(e->s->hooks, type))
		return;
	snprintf(job, sizeof(job), "evacuations/%s", e->id);
	data = evac_json(e);
	if (data)
		json_object_set_new(data, "previous_phase",
				    before ? json_string(before) : json_null());
	hooks_emit(e->s->hooks, type, job, data);
}

void evac_phase(struct evac *e, enum evac_phase phase)
{
	enum evac_phase was = e->phase;

	if (was == phase)
		return;
	log_info("evacuation %s: %s -> %s%s%s", e->id, evac_phase_name(e->phase),
		 evac_phase_name(phase), error_is_set(&e->err) ? ": " : "", e->err.msg);
	e->phase = phase;
	if (evac_ended(e)) {
		e->ended_us = clock_wall_us();
		evac_journal_end(e);
	}
	evac_tell(e, evac_phase_name(was));
	rest_events_publish(e->s->events, "evacuation",
			    json_pack("{s:s, s:s}", "id", e->id, "phase", evac_phase_name(phase)));
}

void evac_outcome(struct evac *e, struct evac_item *it, enum evac_outcome outcome,
		  const struct error *why)
{
	enum evac_outcome was = it->outcome;

	error_clear(&it->why);
	if (why)
		it->why = *why;
	it->outcome = outcome;
	e->changed_us = clock_us();
	if (was != outcome)
		log_info("evacuation %s: %s: %s%s%s%s%s", e->id, it->name,
			 evac_outcome_name(outcome), it->host >= 0 ? ", " : "",
			 it->host >= 0 ? e->dests[it->host].to : "", why ? ": " : "",
			 why ? why->msg : "");
	evac_journal_item(e, it);
}

struct evac_item *evac_add(struct evac *e, const char *name)
{
	struct evac_item *it;

	if (e->n == e->cap) {
		size_t cap = e->cap ? e->cap * 2 : 16;
		struct evac_item **more = realloc(e->items, cap * sizeof(struct evac_item *));

		if (!more)
			return NULL;
		e->items = more;
		e->cap = cap;
	}
	it = calloc(1, sizeof(*it));
	if (!it)
		return NULL;
	snprintf(it->name, sizeof(it->name), "%s", name);
	it->host = -1;
	it->dirty = EVAC_DIRTY_UNKNOWN;
	e->items[e->n++] = it;
	return it;
}

/* --- its end --- */

static size_t count(const struct evac *e, enum evac_outcome outcome)
{
	size_t n = 0;

	for (size_t i = 0; i < e->n; i++)
		n += e->items[i]->outcome == outcome;
	return n;
}

static void let_go(struct evac *e)
{
	if (e->timer)
		event_free(steal_ptr(&e->timer));
	evac_ask_stop(e);
	evac_sample_end(e);
	home_cancel(steal_ptr(&e->home_ask));
	for (unsigned int i = 0; i < e->wish.n_to; i++)
		free(steal_ptr(&e->dests[i].room));
}

/* Those that no migration of ours could move. */
static unsigned int others(const struct evac *e)
{
	return e->home.arriving + e->home.held + e->home.resident + e->home.micro;
}

static void end(struct evac *e)
{
	size_t left = count(e, EVAC_UNPLACED) + count(e, EVAC_LEFT) + count(e, EVAC_STOPPED);

	if (left || others(e))
		error_set(&e->err, -EBUSY, "partial", "%zu of %zu guests are still here%s%s", left,
			  e->n,
			  others(e) ? ", and decant-dest has others: see decant-dest incoming" : "",
			  e->cancelled ? ": cancelled" : "");
	evac_phase(e, !error_is_set(&e->err) ? EVAC_COMPLETED
		      : e->cancelled         ? EVAC_CANCELLED
					     : EVAC_FAILED);
	let_go(e);
}

/* --- guests that only decant-dest has --- */

static void on_home(void *arg, const struct home *h)
{
	struct evac *e = arg;
	bool first = !e->home_us;

	e->home_ask = NULL;
	if (h->arriving + h->resident != e->home.arriving + e->home.resident)
		e->arrive_us = clock_us();
	e->home = *h;
	e->home_us = clock_us();
	if (first && (h->state == HOME_UNSEEN || h->state == HOME_AWAY))
		log_warn("evacuation %s: %s", e->id, h->why.msg);
	if (first && h->arriving)
		log_info("evacuation %s: %u guests are coming in; they will leave as well", e->id,
			 h->arriving);
	evac_tick_soon(e, 0);
}

/* Return: whether its newest word is of after @since_us; otherwise it is asked */
static bool home_told(struct evac *e, uint64_t since_us)
{
	if (e->home_us > since_us)
		return true;
	if (!e->home_ask)
		e->home_ask = home_ask(e->s, on_home, e);
	return false;
}

/* From decant-dest to us: it has told us of the guest, which is to attach in a moment. */
static bool on_its_way(const struct source *s)
{
	for (const struct source_guest *sg = s->guests; sg; sg = sg->next)
		if (!sg->conn && !sg->handed_over && sg->added_us &&
		    clock_us() - sg->added_us < EVAC_ATTACH_US)
			return true;
	return false;
}

/* As long as their number changes, guests that come in are on their way to us. */
static bool arriving(const struct evac *e)
{
	uint64_t us = clock_us() - MAX(e->arrive_us, e->begun_us);

	return on_its_way(e->s) || (e->home.arriving && us < EVAC_ARRIVE_US) ||
	       (e->home.resident && us < EVAC_SEND_ON_US);
}

/* --- looks --- */

static bool unsettled(const struct evac *e)
{
	return count(e, EVAC_WAITING) || count(e, EVAC_MIGRATING);
}

/* Somebody found no place, and since then a guest has ended its journey: there may be one now. */
static bool give_another_chance(struct evac *e)
{
	bool given = false;

	if (!e->freed || e->cancelled)
		return false;
	e->freed = false;
	for (size_t i = 0; i < e->n; i++) {
		if (e->items[i]->outcome != EVAC_UNPLACED)
			continue;
		evac_outcome(e, e->items[i], EVAC_WAITING, NULL);
		given = e->stale = true;
	}
	return given;
}

static void maybe_end(struct evac *e)
{
	uint64_t now = clock_us();

	if (give_another_chance(e) || !home_told(e, MAX(e->changed_us, now - EVAC_AGAIN_US)))
		return;
	evac_discover(e);
	if (!unsettled(e) && (e->cancelled || !arriving(e)))
		end(e);
}

static void stop_waiting(struct evac *e)
{
	struct error why = {0};

	error_set(&why, -ECANCELED, "cancelled", "the evacuation was cancelled");
	for (size_t i = 0; i < e->n; i++)
		if (e->items[i]->outcome == EVAC_WAITING)
			evac_outcome(e, e->items[i], EVAC_STOPPED, &why);
}

/* Return: whether there is nothing to do before answers have come */
static bool gathering(struct evac *e)
{
	if (e->asking)
		return true;
	if (!e->fresh || e->wish.order != EVAC_LEAST_DIRTY)
		return false;
	if (!e->sample && !e->sampled)
		evac_sample_begin(e);
	return !e->sampled;
}

static void place(struct evac *e)
{
	e->fresh = false;
	evac_place_all(e);
	if (e->wish.dry_run) {
		evac_phase(e, EVAC_PLANNED);
		let_go(e);
	} else if (e->phase == EVAC_PLANNING) {
		evac_phase(e, EVAC_RUNNING);
	}
}

static bool ask_due(const struct evac *e)
{
	return !e->asked_us || clock_us() - e->asked_us >= EVAC_AGAIN_US;
}

static void look(struct evac *e)
{
	bool full;

	evac_collect(e);
	if (clock_us() - e->looked_us >= EVAC_LOOK_US)
		evac_discover(e);
	if (e->cancelled)
		stop_waiting(e);
	else if (gathering(e))
		return;
	else if (e->fresh)
		place(e);
	if (evac_ended(e))
		return;
	full = !e->cancelled && evac_start_some(e);
	if (!e->cancelled && (e->stale || full || !e->asked_us) && ask_due(e))
		evac_ask_all(e);
	else if (!unsettled(e))
		maybe_end(e);
}

static void on_tick(void *arg)
{
	struct evac *e = arg;

	event_free(steal_ptr(&e->timer));
	look(e);
	if (!evac_ended(e) && !e->timer)
		evac_tick_soon(e, EVAC_TICK_US);
}

void evac_tick_soon(struct evac *e, uint64_t us)
{
	if (e->timer)
		event_free(steal_ptr(&e->timer));
	if (!evac_ended(e))
		e->timer = loop_timer(e->s->loop, us, on_tick, e);
}

/* --- making and finding --- */

int evac_address(struct evac_dest *d, const char *to, struct error *err)
{
	CLEANUP_FREE struct migration *at = calloc(1, sizeof(*at));
	int r = at ? mig_to(at, to, err) : error_set(err, -ENOMEM, NULL, "out of memory");

	if (r < 0)
		return r;
	memcpy(d->to, at->to, sizeof(d->to));
	memcpy(d->host, at->host, sizeof(d->host));
	memcpy(d->port, at->port, sizeof(d->port));
	return 0;
}

static int take_addresses(struct evac *e, const struct evac_wish *w, struct error *err)
{
	for (unsigned int i = 0; i < w->n_to; i++) {
		struct evac_dest *d = &e->dests[i];
		int r = evac_address(d, w->to[i], err);

		if (r < 0)
			return r;
		for (unsigned int j = 0; j < i; j++)
			if (!strcmp(d->to, e->dests[j].to))
				return error_set(err, -EINVAL, "bad-destination",
						 "destination %s is there twice", d->to);
		d->e = e;
		e->wish.to[i] = d->to;
	}
	return 0;
}

void evac_free(struct evac *e)
{
	let_go(e);
	evac_sample_free(e);
	journal_close(e->journal);
	for (size_t i = 0; i < e->n; i++)
		free(e->items[i]);
	free(e->items);
	free(e);
}

/* Dry runs are remembered for a while, and never on disk. */
static void prune(struct source *s)
{
	struct evac **p = &s->evacs;
	unsigned int ended = 0;

	while (*p) {
		struct evac *e = *p;

		if (!evac_ended(e) || ++ended <= SOURCE_JOBS_MAX || evac_sample_busy(e)) {
			p = &e->next;
			continue;
		}
		*p = e->next;
		evac_journal_remove(e);
		evac_free(e);
	}
}

/* The cordon comes first: were the job known without it, guests could come behind its back. */
static int begin(struct evac *e, struct error *err)
{
	struct cordon c = {.since_us = e->created_us};
	int r;

	if (e->wish.dry_run)
		return 0;
	snprintf(c.by, sizeof(c.by), "evacuation %.36s", e->id);
	r = cordon_set(e->s->conf.agent.cordon_file, &c, err);
	return r ? r : evac_journal_open(e, err);
}

static struct evac *make(struct source *s, const struct evac_wish *w)
{
	struct evac *e = calloc(1, sizeof(*e));

	if (!e)
		return NULL;
	e->s = s;
	e->wish = *w;
	e->wish.key = NULL;
	e->created_us = clock_wall_us();
	e->begun_us = clock_us();
	e->stale = true;
	snprintf(e->key, sizeof(e->key), "%s", w->key ? w->key : "");
	fdio_uuid4(e->id);
	return e;
}

int evac_new(struct source *s, const struct evac_wish *w, struct evac **ret, struct error *err)
{
	struct evac *e = evac_active(s);
	int r;

	if (e && !w->dry_run)
		return error_set(
			err, -EBUSY, "evacuation-running",
			"evacuation %s is %s already: wait for its end, or decant cancel %s", e->id,
			evac_phase_name(e->phase), e->id);
	e = make(s, w);
	if (!e)
		return error_set(err, -ENOMEM, NULL, "out of memory");
	r = take_addresses(e, w, err);
	if (!r)
		r = begin(e, err);
	if (r < 0) {
		evac_free(e);
		return r;
	}
	log_info("evacuation %s: to %u destinations, %u guests at once, %s first", e->id, w->n_to,
		 w->concurrency, evac_order_name(w->order));
	e->next = s->evacs;
	s->evacs = e;
	prune(s);
	evac_tell(e, NULL);
	evac_tick_soon(e, 0);
	*ret = e;
	return 0;
}

struct evac *evac_find(struct source *s, const char *id)
{
	for (struct evac *e = s->evacs; e; e = e->next)
		if (!strcmp(e->id, id))
			return e;
	return NULL;
}

struct evac *evac_find_key(struct source *s, const char *key)
{
	for (struct evac *e = s->evacs; e; e = e->next)
		if (*key && !strcmp(e->key, key))
			return e;
	return NULL;
}

bool evac_asked_so(const struct evac *e, uint64_t digest)
{
	return !e->wish.asked || e->wish.asked == digest;
}

struct evac *evac_active(const struct source *s)
{
	for (struct evac *e = s->evacs; e; e = e->next)
		if (!evac_ended(e) && !e->wish.dry_run)
			return e;
	return NULL;
}

const char *evac_id(const struct evac *e)
{
	return e->id;
}

static void cancel_migration(struct evac *e, const struct evac_item *it)
{
	struct migration *m = migration_find(e->s, it->migration);
	struct error err = {0};

	/* One that has committed goes on to its end. */
	if (m && migration_cancel(m, &err) < 0)
		log_info("evacuation %s: %s: %s", e->id, it->name, err.msg);
}

int evac_cancel(struct evac *e, struct error *err)
{
	if (evac_ended(e))
		return error_set(err, -EALREADY, "already-ended", "evacuation %s is %s already",
				 e->id, evac_phase_name(e->phase));
	if (e->cancelled)
		return 0;
	e->cancelled = true;
	evac_journal_note(e, "cancel");
	evac_phase(e, EVAC_CANCELLING);
	evac_ask_stop(e);
	for (size_t i = 0; i < e->n; i++)
		if (e->items[i]->outcome == EVAC_MIGRATING)
			cancel_migration(e, e->items[i]);
	evac_tick_soon(e, 0);
	return 0;
}

void evac_end_all(struct source *s)
{
	struct evac *e;

	while ((e = s->evacs)) {
		s->evacs = e->next;
		evac_free(e);
	}
}
