/* SPDX-License-Identifier: Apache-2.0 */
#include "migration.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "meter.h"
#include "migration_priv.h"
#include "policy.h"
#include "snap.h"
#include "util/cleanup.h"
#include "util/clock.h"
#include "util/faultpoint.h"
#include "util/fdio.h"
#include "util/log.h"

struct guest *mig_conn(const struct migration *m)
{
	return m->guest ? m->guest->conn : NULL;
}

void mig_close(struct migration *m)
{
	if (m->dial)
		dial_cancel(steal_ptr(&m->dial));
	mig_mend_stop(m);
	if (m->engine) {
		engine_stop(m->engine);
		mig_totals(m, &m->totals);
		meter_engine_end(m);
		engine_free(steal_ptr(&m->engine));
	}
	conn_free(steal_ptr(&m->control));
	mig_timer(m, 0);
}

/* --- making and finding --- */

/* "HOST", "HOST:PORT", "[V6]:PORT", "V6". */
int mig_to(struct migration *m, const char *to, struct error *err)
{
	const char *colon = strrchr(to, ':'), *end = to + strlen(to), *start = to;
	const char *port = "7400";
	char *rest;
	long n;

	if (*to == '[') {
		start = to + 1;
		end = strchr(to, ']');
		if (!end || (end[1] && end[1] != ':'))
			return error_set(err, -EINVAL, "bad-destination",
					 "destination %s: ']' is missing or misplaced", to);
		if (end[1])
			port = end + 2;
	} else if (colon && colon == strchr(to, ':')) {
		end = colon;
		port = colon + 1;
	}
	n = strtol(port, &rest, 10);
	if (*rest || n < 1 || n > 65535 || strlen(port) >= sizeof(m->port))
		return error_set(err, -EINVAL, "bad-destination",
				 "destination %s: port %s is not 1..65535", to, port);
	if (end == start || (size_t)(end - start) >= sizeof(m->host))
		return error_set(err, -EINVAL, "bad-destination", "destination %s: no host name",
				 to);
	snprintf(m->host, sizeof(m->host), "%.*s", (int)(end - start), start);
	snprintf(m->port, sizeof(m->port), "%s", port);
	snprintf(m->to, sizeof(m->to), strchr(m->host, ':') ? "[%s]:%s" : "%s:%s", m->host,
		 m->port);
	return 0;
}

/* Half a page cannot be placed, and whoever waits for a whole one of 1 GiB waits for a second and more. */
static int check_pages(const struct guest *g, const struct mig_options *o, struct error *err)
{
	for (uint16_t i = 0; policy_may_postcopy(o) && i < g->nblocks; i++)
		if (g->blocks[i].page_size > MSG_REQUEST_MAX)
			return error_set(err, -EOPNOTSUPP, "page-size",
					 "block %s has pages of %llu MiB, which cannot arrive by "
					 "post-copy (at most %u MiB): use --mode precopy, with "
					 "--no-convergence fail or stop",
					 g->blocks[i].name,
					 (unsigned long long)g->blocks[i].page_size >> 20,
					 MSG_REQUEST_MAX >> 20);
	return 0;
}

static int check(struct source *s, const struct source_guest *sg, const struct mig_options *o,
		 struct error *err)
{
	if (sg->migration && migration_busy(sg->migration))
		return error_set(
			err, -EBUSY, "guest-busy",
			"guest %s takes part in %s %s already: wait for its end, or decant "
			"cancel %s",
			sg->desc.name, sg->migration->snapshot ? "snapshot" : "migration",
			sg->migration->id, sg->migration->id);
	if (sg->sampled)
		return error_set(
			err, -EBUSY, "guest-busy",
			"the writes of guest %s are being counted for an evacuation's plan: "
			"try again in a moment",
			sg->desc.name);
	if (sg->handed_over)
		return error_set(err, -ENOENT, "guest-handed-over",
				 "guest %s has left this host: ask the agent of the host that it "
				 "went to (decant status)",
				 sg->desc.name);
	if (!sg->conn)
		return error_set(
			err, -ENOENT, "guest-absent",
			"guest %s is not attached to this agent: is it running, and does it "
			"attach at %s?",
			sg->desc.name, s->conf.agent.attach);
	if (sg->migration && migration_holds_guest(sg->migration))
		return error_set(err, -EBUSY, "guest-held",
				 "guest %s is held by migration %s, which may have handed it over: "
				 "see decant status %s",
				 sg->desc.name, sg->migration->id, sg->migration->id);
	if (error_is_set(&sg->conn->cannot))
		return error_set(err, -EOPNOTSUPP, sg->conn->cannot.code, "guest %s: %s",
				 sg->desc.name, sg->conn->cannot.msg);
	if (!sg->desc.launcher)
		return error_set(err, -EINVAL, "no-launcher",
				 "guest %s has no launcher: describe it with decant add, "
				 "\"launcher\" names what the destination starts",
				 sg->desc.name);
	if (s->uffd_error.code[0] && o->mode != MIG_MODE_POSTCOPY)
		return error_set(err, -EOPNOTSUPP, "tracking-not-supported", "%s",
				 s->uffd_error.msg);
	return 0;
}

/* Snapshots track by faults and read nothing twice; what they cannot do is said before anything begins. */
static int check_snapshot(const struct guest *g, const struct migration_image *image,
			  struct error *err)
{
	if (image->name && !guest_name_ok(image->name))
		return error_set(err, -EINVAL, "bad-name",
				 "\"%s\" is no name of an image: 1 to 63 of [A-Za-z0-9._-]",
				 image->name);
	if (!g->nblocks)
		return error_set(err, -EOPNOTSUPP, "not-supported",
				 "guest %s has no memory: nothing to store", g->name);
	return 0;
}

static void set_snapshot(struct migration *m, const struct migration_image *image)
{
	m->snapshot = true;
	m->snap.start = image->start;
	if (image->name)
		snprintf(m->snap.name, sizeof(m->snap.name), "%s", image->name);
	else
		mig_snap_name(m);
}

/* Named where it is chosen: what is said of it is the same in the log, in REST and on the terminal. */
void mig_set_dma(struct migration *m)
{
	const struct guest *g = m->guest->conn;
	const struct guest_block *b;
	bool dma = !guest_no_dma(g, &b);

	m->dma = dma_choose(m->options.mode, m->snapshot, dma);
	snprintf(m->dma_block, sizeof(m->dma_block), "%s", dma ? b->name : "");
	snprintf(m->dma_device, sizeof(m->dma_device), "%s", g->dma);
}

int migration_new(struct source *s, struct source_guest *sg, const char *to,
		  const struct migration_asked *asked, const struct mig_options *options,
		  const struct migration_image *image, struct migration **ret, struct error *err)
{
	struct mig_options own = *options;
	struct migration *m;
	int r;

	if (image) {
		own.mode = MIG_MODE_PRECOPY;
		own.tracking = MIG_TRACKING_FAULTS;
	}
	r = check(s, sg, &own, err);
	if (!r)
		r = image ? check_snapshot(sg->conn, image, err) : 0;
	if (!r)
		r = check_pages(sg->conn, &own, err);
	if (r < 0)
		return r;
	m = calloc(1, sizeof(*m));
	if (!m)
		return error_set(err, -ENOMEM, NULL, "out of memory");
	r = mig_to(m, to, err);
	if (r < 0) {
		free(m);
		return r;
	}
	m->src = s;
	m->guest = sg;
	snprintf(m->key, sizeof(m->key), "%s", asked ? asked->key : "");
	m->asked = asked ? asked->digest : 0;
	m->options = own;
	m->created_us = clock_wall_us();
	m->phase_us = clock_us();
	m->tracking = "none";
	m->generation = sg->conn->generation;
	m->arrives_paused = sg->conn->run_state == GUEST_PAUSED;
	m->totals.total_bytes = guest_memory_bytes(sg->conn);
	snprintf(m->guest_name, sizeof(m->guest_name), "%s", sg->desc.name);
	memcpy(m->uuid, sg->conn->uuid, sizeof(m->uuid));
	if (image)
		set_snapshot(m, image);
	mig_set_dma(m);
	fdio_uuid4(m->id);
	uuid_parse(m->id, m->id_raw);
	r = mig_journal_open(m, mig_on_begun, err);
	if (r < 0) {
		mig_journal_shut(m);
		free(m);
		return r;
	}
	m->next = s->migrations;
	s->migrations = m;
	sg->migration = m;
	meter_job_begun(m);
	mig_prune(s);
	mig_event(m, MIG_EV_START, NULL);
	*ret = m;
	return 0;
}

struct migration *migration_find(struct source *s, const char *id)
{
	for (struct migration *m = s->migrations; m; m = m->next)
		if (!strcmp(m->id, id))
			return m;
	return NULL;
}

struct migration *migration_find_key(struct source *s, const char *key)
{
	for (struct migration *m = s->migrations; m; m = m->next)
		if (*key && !strcmp(m->key, key))
			return m;
	return NULL;
}

/* Of a job whose record is silent about it nothing can be said. */
bool migration_asked_so(const struct migration *m, uint64_t digest)
{
	return !m->asked || m->asked == digest;
}

bool migration_is_snapshot(const struct migration *m)
{
	return m->snapshot;
}

const char *migration_id(const struct migration *m)
{
	return m->id;
}

const char *migration_phase(const struct migration *m)
{
	return mig_state_phase(m->state);
}

bool migration_busy(const struct migration *m)
{
	return !mig_state_ended(m->state);
}

unsigned int migrations_busy(const struct source *s)
{
	unsigned int n = 0;

	for (const struct migration *m = s->migrations; m; m = m->next)
		n += migration_busy(m);
	return n;
}

bool migration_is_of(const struct migration *m, const uint8_t uuid[static GUEST_UUID_LEN])
{
	return !memcmp(m->uuid, uuid, sizeof(m->uuid));
}

bool migration_holds_guest(const struct migration *m)
{
	return m->committed;
}

int migration_cancel(struct migration *m, struct error *err)
{
	if (mig_state_ended(m->state))
		return error_set(err, -EALREADY, "already-ended", "%s %s is %s already",
				 m->snapshot ? "snapshot" : "migration", m->id, migration_phase(m));
	if (m->state == MIG_CANCELLING)
		return 0;
	/* The image may have its name by now, and a copy of the guest may run. */
	if (m->snap.complete)
		return error_set(
			err, -EBUSY, "past-no-return",
			"snapshot %s cannot be cancelled any more: all of it was sent, and "
			"%s is putting it on its disk",
			m->id, m->to);
	if (!mig_step_find(m->state, MIG_EV_CANCEL))
		return error_set(err, -EBUSY, "past-no-return",
				 "migration %s cannot be cancelled any more: it is in %s", m->id,
				 mig_state_name(m->state));
	mig_event(m, MIG_EV_CANCEL, NULL);
	return 0;
}

int migration_switchover(struct migration *m, struct error *err)
{
	if (m->state != MIG_PRECOPY)
		return error_set(err, -EBUSY, "not-in-precopy",
				 "migration %s is in %s: only in precopy can it be told to change "
				 "hosts now",
				 m->id, migration_phase(m));
	scan_switch_now(m->engine->scan);
	return 0;
}

int migration_recover(struct migration *m, const char *to, struct error *err)
{
	struct migration at = {0};
	struct error why = {0};
	int r;

	if (m->resolve.acting)
		return error_set(err, -EBUSY, "resolving", "migration %s is being resolved", m->id);
	if (m->state != MIG_PAUSED && m->state != MIG_IN_DOUBT && m->state != MIG_RECOVERING &&
	    m->state != MIG_INTERRUPTED && m->state != MIG_REJOINING)
		return error_set(err, mig_state_ended(m->state) ? -EALREADY : -EBUSY, "not-paused",
				 "migration %s is in %s: there is nothing to recover", m->id,
				 migration_phase(m));
	r = to ? mig_to(&at, to, err) : 0;
	if (!r && to)
		r = mig_journal_moved(m, at.host, at.port, err);
	if (r < 0)
		return r;
	if (to) {
		memcpy(m->host, at.host, sizeof(m->host));
		memcpy(m->port, at.port, sizeof(m->port));
		memcpy(m->to, at.to, sizeof(m->to));
	}
	error_set(&why, -ECANCELED, "recover", "another attempt was ordered");
	if (m->state == MIG_RECOVERING || m->state == MIG_REJOINING)
		mig_event(m, MIG_EV_LOST, &why);
	if (m->state == MIG_INTERRUPTED)
		mig_rejoin_now(m);
	if (m->state == MIG_PAUSED || m->state == MIG_IN_DOUBT)
		mig_act_ask(m);
	return 0;
}

/* --- the guest comes and goes --- */

void migration_guest_stopped(struct migration *m, uint64_t us)
{
	m->injection.stops++;
	m->injection.max_us = MAX(m->injection.max_us, us);
}

void migration_guest_gone(struct migration *m, enum guest_gone how)
{
	struct error err = {0};

	m->held = false; /* whoever attaches again says what it is */
	if (m->committed && how == GUEST_GONE_DEAD)
		mig_journal_left(m);
	if (mig_state_ended(m->state))
		return;
	/* Its memory is read through descriptors of our own: only its death matters past the commit. */
	if (how != GUEST_GONE_DEAD && m->committed)
		return;
	error_set(&err, -ESRCH, "guest-gone", "guest %s %s", m->guest_name,
		  how == GUEST_GONE_DEAD ? "has ended" : "has lost its connection to the agent");
	mig_event(m, MIG_EV_GONE, &err);
}

static void resumed(void *arg, int ret, const struct error *err, int fd)
{
	(void)arg;
	(void)fd;
	if (ret < 0)
		log_error("a guest that nothing holds could not be resumed: %s", err->msg);
}

static void closed_leftover(void *arg, int ret, const struct error *err, int fd)
{
	(void)arg;
	(void)fd;
	if (ret < 0)
		log_warn("an old userfaultfd stays in a guest: %s", err->msg);
}

/*
 * A guest that came back is a generation on; so one that stands still for a migration, a generation or more behind
 * what has left, is left over. One that does not stand still was not handed over: it was restored from an older image.
 */
static bool handed_over(const struct migration *m, const struct guest *g)
{
	if (!m->committed || m->generation < g->generation ||
	    memcmp(m->uuid, g->uuid, sizeof(m->uuid)) != 0)
		return false;
	if (m->state == MIG_COMPLETED)
		return g->run_state == GUEST_PAUSED_MIGRATION;
	return m->generation == g->generation;
}

/* The job that has, or may have, handed over just this guest. */
static struct migration *holder(const struct source *s, const struct guest *g)
{
	for (struct migration *m = s->migrations; m; m = m->next)
		if (!m->left && handed_over(m, g))
			return m;
	return NULL;
}

/*
 * Rule 4 the other way round: a guest that stands still for a migration may only go on here if no
 * job can have handed it over. An unsettled job says so until its destination has answered.
 */
void migration_guest_attached(struct source_guest *sg)
{
	struct guest *g = sg->conn;
	struct migration *m = holder(sg->src, g);

	if (m) {
		if (sg->migration != m)
			migration_forget_guest(sg);
		sg->migration = m;
		sg->handed_over =
			m->state == MIG_COMPLETED || m->resolve.keep == MIG_KEEP_DESTINATION;
		m->guest = sg;
		m->held = g->run_state == GUEST_PAUSED_MIGRATION;
		return;
	}
	if (sg->migration && !migration_busy(sg->migration))
		migration_forget_guest(sg);
	sg->handed_over = false;
}

void migration_guest_welcomed(struct source_guest *sg)
{
	struct guest *g = sg->conn;

	/* An agent that ended between the receipt and its disposal had no time to tell it. */
	if (sg->migration && sg->migration->state == MIG_COMPLETED && sg->migration->committed) {
		sg->handed_over = true;
		if (!mig_releasing(sg->migration))
			mig_dispose(sg->migration);
		return;
	}
	if (sg->migration)
		return;
	if (g->kept_uffd)
		guest_uffd_close(g, closed_leftover, NULL);
	if (g->run_state == GUEST_PAUSED_MIGRATION)
		guest_resume(g, resumed, NULL);
}

void migration_forget_guest(struct source_guest *sg)
{
	if (!sg->migration)
		return;
	sg->migration->guest = NULL;
	sg->migration = NULL;
}

void migration_end_all(struct source *s)
{
	struct migration *m;

	while ((m = s->migrations)) {
		s->migrations = m->next;
		/* A guest that was not handed over is let go; the destination sees the session end. */
		if (m->held && !m->committed && mig_conn(m))
			guest_resume(mig_conn(m), resumed, NULL);
		mig_destroy(m);
	}
}
