/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An evacuation at work: who is here, where they go, starting migrations and judging how they ended.
 *
 * Which rules it could break: 4, were a guest started anew that may run elsewhere. It is not: a migration that has
 * ended with the guest handed over (mig_progress.owner_gone) settles the entry for good, whatever its error; all others
 * go through migration_new(), which refuses a guest that a job holds, and so does an agent that was started again,
 * whose migrations are taken up before its evacuation.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "evac_priv.h"
#include "policy.h"
#include "util/cleanup.h"
#include "util/clock.h"
#include "util/log.h"

/* --- who is here --- */

static bool is_item(const struct evac_item *it, const struct source_guest *sg)
{
	static const uint8_t none[UUID_LEN];

	if (strcmp(it->name, sg->desc.name) != 0)
		return false;
	if (!sg->conn || !memcmp(it->uuid, none, sizeof(none)))
		return true;
	return !memcmp(it->uuid, sg->conn->uuid, UUID_LEN);
}

/* A newer guest of the name comes behind the older. */
static struct evac_item *item_of(const struct evac *e, const struct source_guest *sg)
{
	for (size_t i = e->n; i > 0; i--)
		if (is_item(e->items[i - 1], sg))
			return e->items[i - 1];
	return NULL;
}

static void describe(struct evac_item *it, const struct source_guest *sg)
{
	it->priority = sg->desc.priority;
	it->absent_us = 0;
	if (!sg->conn)
		return;
	memcpy(it->uuid, sg->conn->uuid, sizeof(it->uuid));
	it->generation = sg->conn->generation;
	it->bytes = guest_memory_bytes(sg->conn);
}

/* Somebody has begun to move it already: that is waited for. */
static bool leaves(const struct source_guest *sg)
{
	return sg->migration && migration_busy(sg->migration) &&
	       !migration_is_snapshot(sg->migration);
}

/* A VM whose monitor does not answer may well run; where nobody listens, none does. */
static bool is_here(const struct source_guest *sg)
{
	if (sg->handed_over)
		return false;
	if (sg->conn || leaves(sg))
		return true;
	return error_is_set(&sg->problem) && strcmp(sg->problem.code, "no-monitor") != 0;
}

static void adopt(struct evac *e, struct evac_item *it, const struct source_guest *sg)
{
	snprintf(it->migration, sizeof(it->migration), "%s", migration_id(sg->migration));
	evac_outcome(e, it, EVAC_MIGRATING, NULL);
}

static void look_at(struct evac *e, const struct source_guest *sg)
{
	struct evac_item *it = item_of(e, sg);

	/* It has come back: another generation is another matter. */
	if (it && it->outcome == EVAC_MOVED && sg->conn && sg->conn->generation > it->generation)
		it = NULL;
	if (!it) {
		it = evac_add(e, sg->desc.name);
		if (!it)
			return;
	} else if (it->outcome == EVAC_GONE) {
		it->host = -1;
		evac_outcome(e, it, EVAC_WAITING, NULL);
	}
	describe(it, sg);
	if (it->outcome != EVAC_WAITING)
		return;
	if (leaves(sg))
		adopt(e, it, sg);
	else if (!sg->conn)
		evac_outcome(e, it, EVAC_UNPLACED, &sg->problem);
}

static void check_absent(struct evac *e, struct evac_item *it)
{
	const struct source_guest *sg = guests_find(e->s, it->name);
	struct error why = {0};

	if (it->outcome != EVAC_WAITING || (sg && is_here(sg) && is_item(it, sg)))
		return;
	if (!it->absent_us)
		it->absent_us = clock_us();
	if (sg && !sg->handed_over && clock_us() - it->absent_us < EVAC_ABSENT_US)
		return;
	error_set(&why, -ENOENT, "guest-absent", "it is not attached to this agent any more");
	evac_outcome(e, it, EVAC_GONE, &why);
}

/* One that is not attached just now may be in a moment: evac_discover() settles that. */
static bool plannable(const struct evac_item *it)
{
	return it->outcome == EVAC_WAITING && !it->absent_us;
}

void evac_discover(struct evac *e)
{
	e->looked_us = clock_us();
	for (const struct source_guest *sg = e->s->guests; sg; sg = sg->next)
		if (is_here(sg))
			look_at(e, sg);
	for (size_t i = 0; i < e->n; i++) {
		check_absent(e, e->items[i]);
		e->stale |= plannable(e->items[i]) && e->items[i]->host < 0;
	}
}

/* --- where they go --- */

static void add_huge(struct evac_guest *g, const struct guest_block *b)
{
	unsigned int i = 0;

	while (i < g->nhuge && g->huge[i].size != b->page_size)
		i++;
	if (i == EVAC_SIZES_MAX)
		return;
	g->nhuge = MAX(g->nhuge, i + 1);
	g->huge[i].size = b->page_size;
	g->huge[i].pages += b->length / b->page_size;
}

/* What no destination could change. Return: whether @why was filled */
static bool cannot(const struct source_guest *sg, struct error *why)
{
	if (!sg || !sg->conn)
		error_set(why, -ENOENT, "guest-absent",
			  "it is not attached to this agent just now");
	else if (error_is_set(&sg->conn->cannot))
		*why = sg->conn->cannot;
	else if (sg->migration && !migration_busy(sg->migration) &&
		 migration_holds_guest(sg->migration))
		error_set(
			why, -EBUSY, "guest-held",
			"it is held by migration %s, which may have handed it over (decant status)",
			migration_id(sg->migration));
	else if (!sg->desc.launcher)
		error_set(
			why, -EINVAL, "no-launcher",
			"it has no launcher: describe it with decant add, \"launcher\" names what "
			"the destination starts");
	return error_is_set(why);
}

static void guest_of(const struct evac *e, const struct evac_item *it, struct error *why,
		     struct evac_guest *ret)
{
	const struct source_guest *sg = guests_find(e->s, it->name);

	*ret = (struct evac_guest){.name = it->name,
				   .driver = "",
				   .launcher = "",
				   .priority = it->priority,
				   .dirty = it->dirty,
				   .postcopy = policy_may_postcopy(&e->wish.options),
				   .tried = it->tried};
	if (cannot(sg, why)) {
		ret->cannot = why;
		return;
	}
	ret->driver = conf_guest_driver_name(sg->desc.driver);
	ret->launcher = sg->desc.launcher;
	for (uint16_t i = 0; i < sg->conn->nblocks; i++) {
		const struct guest_block *b = &sg->conn->blocks[i];

		if (b->kind == GUEST_BLOCK_HUGETLB)
			add_huge(ret, b);
		else
			ret->bytes += b->length;
	}
}

static void take_place(struct evac *e, struct evac_item *it, const struct evac_place *p)
{
	struct error why = p->why;

	it->host = p->host;
	it->turn = p->turn;
	if (p->host >= 0)
		return;
	/* What it met there says more than that it was there. */
	if (it->attempted) {
		why = it->why;
		evac_outcome(e, it, EVAC_LEFT, &why);
	} else {
		evac_outcome(e, it, EVAC_UNPLACED, &why);
	}
}

static void take_off(struct evac_host *h, const struct evac_guest *g)
{
	h->memory -= MIN(h->memory, g->bytes);
	for (unsigned int i = 0; i < h->nhuge; i++)
		for (unsigned int j = 0; j < g->nhuge; j++)
			if (h->huge[i].size == g->huge[j].size)
				h->huge[i].pages -= MIN(h->huge[i].pages, g->huge[j].pages);
}

/* What it may not have known of when it told its room. */
static void take_off_unseen(const struct evac *e, int host, struct evac_host *h)
{
	for (size_t i = 0; i < e->n; i++) {
		const struct evac_item *it = e->items[i];
		struct evac_guest g;
		struct error why = {0};

		if (it->outcome != EVAC_MIGRATING || it->host != host || !it->early)
			continue;
		guest_of(e, it, &why, &g);
		take_off(h, &g);
	}
}

static int plan(struct evac *e, struct evac_item **items, size_t n)
{
	CLEANUP_FREE struct evac_guest *guests = calloc(n + 1, sizeof(*guests));
	CLEANUP_FREE struct error *whys = calloc(n + 1, sizeof(*whys));
	CLEANUP_FREE struct evac_place *places = calloc(n + 1, sizeof(*places));
	struct evac_host hosts[EVAC_HOSTS_MAX];
	int r;

	if (!guests || !whys || !places)
		return -ENOMEM;
	for (unsigned int i = 0; i < e->wish.n_to; i++) {
		evac_host_of(&e->dests[i], &hosts[i]);
		take_off_unseen(e, (int)i, &hosts[i]);
	}
	for (size_t i = 0; i < n; i++)
		guest_of(e, items[i], &whys[i], &guests[i]);
	r = evac_plan(guests, n, hosts, e->wish.n_to, e->wish.order, places);
	for (size_t i = 0; !r && i < n; i++)
		take_place(e, items[i], &places[i]);
	return r;
}

void evac_place_all(struct evac *e)
{
	CLEANUP_FREE struct evac_item **items = calloc(e->n + 1, sizeof(struct evac_item *));
	size_t n = 0;

	for (size_t i = 0; items && i < e->n; i++)
		if (plannable(e->items[i]))
			items[n++] = e->items[i];
	e->stale = !items || plan(e, items, n) < 0;
	e->freed = false;
}

/* --- starting --- */

/* Return: migrations under way, without those that are stuck */
static unsigned int under_way(const struct evac *e)
{
	unsigned int n = 0;

	for (size_t i = 0; i < e->n; i++) {
		struct migration *m = e->items[i]->outcome == EVAC_MIGRATING
					      ? migration_find(e->s, e->items[i]->migration)
					      : NULL;
		struct mig_progress p;

		if (!m)
			continue;
		mig_progress(m, &p);
		n += !p.stuck;
	}
	return n;
}

/** struct load - what of ours is on its way to one destination */
struct load {
	unsigned int n;
	uint64_t bytes;
};

static struct load load_of(const struct evac *e, int host)
{
	struct load l = {0};

	for (size_t i = 0; i < e->n; i++) {
		if (e->items[i]->outcome != EVAC_MIGRATING || e->items[i]->host != host)
			continue;
		l.n++;
		l.bytes += e->items[i]->bytes;
	}
	return l;
}

/* Its own limits, as far as it has told them. */
static bool has_slot(const struct evac *e, const struct evac_item *it)
{
	const struct msg_room *v = e->dests[it->host].room;
	struct load l = load_of(e, it->host);

	if (!v)
		return true;
	if (v->memory_limit && l.n && l.bytes + it->bytes > v->memory_limit)
		return false;
	return l.n < evac_slots(v->limit, v->incoming, v->yours, v->per_source);
}

/* By their turn; of those that are due, the first whose destination has room for one more. */
static struct evac_item *next_item(const struct evac *e, bool *ret_full)
{
	struct evac_item *best = NULL;
	uint64_t now = clock_us();

	for (size_t i = 0; i < e->n; i++) {
		struct evac_item *it = e->items[i];

		if (!plannable(it) || it->host < 0 || it->after_us > now ||
		    (best && best->turn < it->turn))
			continue;
		if (has_slot(e, it))
			best = it;
		else
			*ret_full = true;
	}
	return best;
}

static void options_of(const struct evac *e, unsigned int running, struct mig_options *ret)
{
	uint64_t share = evac_share(e->wish.bandwidth, running);

	*ret = e->wish.options;
	if (share && (!ret->bandwidth || share < ret->bandwidth))
		ret->bandwidth = share;
}

/* What is said before anything has begun is the guest's matter, not the destination's. */
static void start(struct evac *e, struct evac_item *it)
{
	struct source_guest *sg = guests_find(e->s, it->name);
	struct mig_options options;
	struct error err = {0};
	struct migration *m;
	int r;

	options_of(e, under_way(e) + 1, &options);
	r = sg ? migration_new(e->s, sg, e->dests[it->host].to, NULL, &options, NULL, &m, &err)
	       : -ENOENT;
	/* A snapshot of it is taken, or it is just away: another look. */
	if (r == -EBUSY || r == -ENOENT) {
		it->after_us = clock_us() + EVAC_AGAIN_US;
		it->host = -1;
		it->why = err;
		e->stale = true;
		return;
	}
	if (r < 0) {
		evac_outcome(e, it, EVAC_UNPLACED, &err);
		return;
	}
	snprintf(it->migration, sizeof(it->migration), "%s", migration_id(m));
	evac_outcome(e, it, EVAC_MIGRATING, NULL);
}

/* One budget for all of them, whoever comes and goes. */
static void share_out(struct evac *e)
{
	struct mig_options options;

	if (!e->wish.bandwidth)
		return;
	options_of(e, under_way(e), &options);
	if (options.bandwidth == e->share)
		return;
	e->share = options.bandwidth;
	for (size_t i = 0; i < e->n; i++) {
		struct migration *m = e->items[i]->outcome == EVAC_MIGRATING
					      ? migration_find(e->s, e->items[i]->migration)
					      : NULL;

		if (m && migration_busy(m))
			mig_set_bandwidth(m, e->share);
	}
}

bool evac_start_some(struct evac *e)
{
	struct evac_item *it;
	bool full = false;

	while (under_way(e) < e->wish.concurrency && (it = next_item(e, &full)))
		start(e, it);
	share_out(e);
	return full;
}

/* --- how they ended --- */

static void not_there(struct evac *e, struct evac_item *it, const struct error *why)
{
	if (it->host >= 0)
		it->tried |= 1u << it->host;
	it->attempted = true;
	it->host = -1;
	it->full_us = 0;
	evac_outcome(e, it, EVAC_WAITING, why);
	e->stale = true;
}

static void later(struct evac *e, struct evac_item *it, const struct error *why)
{
	uint64_t now = clock_us();

	it->full_us = it->full_us ? it->full_us : now;
	if (now - it->full_us > EVAC_FULL_US) {
		not_there(e, it, why);
		return;
	}
	it->after_us = now + EVAC_AGAIN_US;
	it->host = -1;
	evac_outcome(e, it, EVAC_WAITING, why);
	e->stale = true;
}

static bool is_attached(struct source *s, const struct evac_item *it)
{
	const struct source_guest *sg = guests_find(s, it->name);

	return sg && sg->conn && !sg->handed_over;
}

static void judge_failed(struct evac *e, struct evac_item *it, const struct mig_progress *p)
{
	if (p->owner_gone) {
		evac_outcome(e, it, EVAC_LEFT, &p->err);
		return;
	}
	/* A copy that has died there is not the guest, which is here. */
	if (!strcmp(p->err.code, "guest-gone") && is_attached(e->s, it)) {
		not_there(e, it, &p->err);
		return;
	}
	switch (evac_next(p->err.code)) {
	case EVAC_LATER:
		later(e, it, &p->err);
		return;
	case EVAC_ELSEWHERE:
		not_there(e, it, &p->err);
		return;
	case EVAC_GIVE_UP:
		evac_outcome(e, it, strcmp(p->err.code, "guest-gone") != 0 ? EVAC_LEFT : EVAC_GONE,
			     &p->err);
		return;
	}
}

static void judge(struct evac *e, struct evac_item *it, const struct migration *m)
{
	struct mig_progress p;
	struct error why = {0};

	mig_progress(m, &p);
	it->sent = p.sent;
	if (!mig_state_ended(p.state))
		return;
	e->freed = true;
	if (p.state == MIG_COMPLETED) {
		evac_outcome(e, it, EVAC_MOVED, NULL);
	} else if (p.state == MIG_CANCELLED) {
		error_set(&why, -ECANCELED, "cancelled", "its migration was cancelled");
		evac_outcome(e, it, EVAC_STOPPED, &why);
	} else if (e->cancelled && !p.owner_gone) {
		evac_outcome(e, it, EVAC_STOPPED, &p.err);
	} else {
		judge_failed(e, it, &p);
	}
}

/* A job that was forgotten has ended long ago: the guest itself says how. */
static void judge_by_guest(struct evac *e, struct evac_item *it)
{
	e->freed = true;
	if (is_attached(e->s, it))
		evac_outcome(e, it, EVAC_WAITING, NULL);
	else
		evac_outcome(e, it, EVAC_MOVED, NULL);
	e->stale = true;
}

void evac_collect(struct evac *e)
{
	for (size_t i = 0; i < e->n; i++) {
		struct evac_item *it = e->items[i];
		const struct migration *m;

		if (it->outcome != EVAC_MIGRATING)
			continue;
		m = migration_find(e->s, it->migration);
		if (m)
			judge(e, it, m);
		else
			judge_by_guest(e, it);
	}
}
