/* SPDX-License-Identifier: Apache-2.0 */
/*
 * decant resolve: an operator decides where a guest lives of which the destination cannot, or need not, be
 * asked any more. The decision is in the journal, synced, before anything is done, and a restarted agent
 * goes on with it (mig_journal.c).
 *
 * Which rules it could break, and why it does not:
 *
 *   3 (pages are kept)  the copy here is given up behind the record "resolved" with "destination" alone
 *   4 (one place)	this is the one way past it, so it takes a person who names the job in full and has been told
 *			what may come of it. The destination hears of a guest that was kept here for as long as
 *			it takes (KEPT): it then never starts its own, or stops it, and both sides say so
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "migration_priv.h"
#include "util/cleanup.h"
#include "util/clock.h"
#include "util/log.h"

static bool kept_here(const struct migration *m)
{
	return m->guest && m->guest->conn && m->guest->desc.disposal == GUEST_DISPOSAL_KEEP;
}

static bool may_resolve(const struct migration *m)
{
	return !m->snapshot && !m->resolve.acting &&
	       doubt_may_resolve((struct doubt_place){m->state, m->committed}, kept_here(m));
}

/* A job that has ended is about nothing but the copy here. */
static bool may_keep(const struct migration *m, enum mig_keep keep)
{
	return may_resolve(m) &&
	       (mig_conn(m) || (keep == MIG_KEEP_DESTINATION && !mig_state_ended(m->state)));
}

const char *mig_keep_name(enum mig_keep keep)
{
	return keep == MIG_KEEP_SOURCE ? "source" : "destination";
}

int mig_keep_parse(const char *text, enum mig_keep *ret)
{
	for (int k = MIG_KEEP_SOURCE; text && k <= MIG_KEEP_DESTINATION; k++)
		if (!strcmp(text, mig_keep_name((enum mig_keep)k))) {
			*ret = (enum mig_keep)k;
			return 0;
		}
	return -EINVAL;
}

int mig_resolve_risk(const struct migration *m, enum mig_keep keep, char *buf, size_t cap)
{
	if (!may_keep(m, keep))
		return -EBUSY;
	if (keep == MIG_KEEP_SOURCE)
		snprintf(buf, cap,
			 "guest %s goes on here, as it was when it was paused; what it has done at "
			 "%s "
			 "since is lost. If it still runs there, two copies of it run, with the "
			 "same "
			 "disks and addresses, until that agent can be told and stops its own",
			 m->guest_name, m->to);
	else
		snprintf(buf, cap,
			 "the copy of guest %s here is given up. If %s does not run it, or still "
			 "waits "
			 "for pages of it, this is the loss of the only copy",
			 m->guest_name, m->to);
	return 0;
}

static int refuse(const struct migration *m, enum mig_keep keep, struct error *err)
{
	if (m->resolve.acting)
		return error_set(err, -EBUSY, "resolving",
				 "migration %s is being resolved just now: see decant status",
				 m->id);
	if (may_resolve(m))
		return error_set(err, -EBUSY, "guest-absent",
				 "guest %s is not attached to this agent, so there is no copy here "
				 "that could %s",
				 m->guest_name, keep == MIG_KEEP_SOURCE ? "go on" : "be given up");
	if (m->state == MIG_HANDOVER)
		return error_set(err, -EBUSY, "no-doubt",
				 "migration %s is in the hand-over, and %s is still expected to "
				 "answer: try again in a few seconds",
				 m->id, m->to);
	return error_set(
		err, -EBUSY, "no-doubt",
		"migration %s is %s: where its guest is (%s) is in no doubt, and no copy of "
		"it is held back here",
		m->id, mig_state_phase(m->state), mig_owner_name(m->state, m->committed));
}

/* --- telling the destination --- */

bool mig_telling(const struct migration *m)
{
	return m->resolve.keep == MIG_KEEP_SOURCE && !m->resolve.told &&
	       mig_state_ended(m->state) && !m->committed;
}

void mig_told(struct migration *m, enum msg_answer answer)
{
	struct mig_resolve *v = &m->resolve;
	struct error err = {0};

	v->told = true;
	v->answer = answer;
	mig_tell_told(m);
	if (mig_journal_told(m, answer, &err) < 0)
		log_error("%s", err.msg);
	if (answer == MSG_ANSWER_NOT_STARTED)
		log_notice("migration %s of %s: %s has been told that the guest was kept here; it "
			   "never ran there",
			   m->id, m->guest_name, m->to);
	else if (answer == MSG_ANSWER_GONE)
		log_notice("migration %s of %s: %s has been told that the guest was kept here; "
			   "what ran there, if it did, has ended",
			   m->id, m->guest_name, m->to);
	else
		log_error(
			"CONFLICT: migration %s: guest %s was kept here, and ran at %s, too: two "
			"copies of it have run. The one there is stopped: see decant-dest incoming "
			"%s there",
			m->id, m->guest_name, m->to, m->id);
}

/* --- the decision --- */

static void take_back(struct migration *m, const struct error *why)
{
	struct error err = {0};

	log_error("migration %s: guest %s could not be let go here: %s", m->id, m->guest_name,
		  why->msg);
	if (mig_journal_note(m, "unresolved", &err) < 0)
		log_error("%s", err.msg);
	m->resolve = (struct mig_resolve){.err = *why};
	if (mig_state_ended(m->state))
		mig_journal_shut(m);
	else if (m->state == MIG_RECOVERING)
		mig_event(m, MIG_EV_LOST, why);
	else
		mig_act_ask(m);
}

static void let_go(void *arg, int ret, const struct error *err, int fd)
{
	struct migration *m = arg;
	struct error why = {0};

	(void)fd;
	m->resolve.acting = false;
	if (ret < 0) {
		take_back(m, err);
		return;
	}
	log_notice("migration %s: guest %s runs here, as an operator has decided", m->id,
		   m->guest_name);
	m->held = false;
	m->pause_us = 0;
	if (mig_state_ended(m->state)) {
		m->committed = false;
		mig_tell_kept(m);
		mig_journal_shut(m);
		if (m->guest)
			m->guest->handed_over = false;
		if (m->guest)
			migration_forget_guest(m->guest);
		mig_act_ask(m);
	} else {
		mig_resolve_error(m, &why);
		m->err = why;
		mig_event(m, MIG_EV_KEEP_SOURCE, &why);
	}
}

static void keep_source(struct migration *m)
{
	struct error err = {0};
	int r;

	m->resolve.acting = true;
	r = guest_resume(mig_conn(m), let_go, m);
	if (r < 0) {
		error_set(&err, r, NULL, "guest %s cannot be resumed: %s", m->guest_name,
			  strerror(-r));
		let_go(m, r, &err, -1);
	}
}

static void on_quit(void *arg, int ret, const struct error *err, int fd)
{
	const struct source_guest *sg = arg;

	(void)fd;
	if (ret < 0)
		log_warn("guest %s was not told to end: %s", sg->desc.name, err->msg);
}

/* As for a migration that has completed; a copy that was kept after one is given up by this alone. */
static void keep_destination(struct migration *m)
{
	bool ended = mig_state_ended(m->state);
	struct source_guest *sg = m->guest;
	struct error why = {0};

	if (!ended) {
		mig_resolve_error(m, &why);
		m->err = why;
		mig_event(m, MIG_EV_KEEP_DESTINATION, &why);
	} else {
		mig_journal_shut(m);
	}
	if (!sg)
		return;
	sg->handed_over = true;
	if (sg->conn && ended)
		guest_quit(sg->conn, on_quit, sg);
	else if (sg->conn)
		mig_dispose(m);
}

void mig_resolve_error(const struct migration *m, struct error *ret)
{
	error_set(ret, -ECANCELED, "resolved", "an operator has decided that the guest %s %s",
		  m->resolve.keep == MIG_KEEP_SOURCE ? "goes on here, and not at" : "belongs to",
		  m->to);
}

int migration_resolve(struct migration *m, enum mig_keep keep, const char *confirm,
		      struct error *err)
{
	char risk[sizeof(err->msg)];
	int r;

	if (mig_resolve_risk(m, keep, risk, sizeof(risk)) < 0)
		return refuse(m, keep, err);
	if (!confirm || strcmp(confirm, m->id) != 0)
		return error_set(err, -EINVAL, "not-confirmed",
				 "%s. If that is what you want, confirm it with the id of the "
				 "migration, %s",
				 risk, m->id);
	r = mig_journal_resolved(m, keep, err);
	if (r < 0)
		return r;
	log_notice("migration %s of %s: an operator keeps the guest at the %s", m->id,
		   m->guest_name, mig_keep_name(keep));
	mig_tell_resolved(m, keep);
	m->resolve = (struct mig_resolve){.keep = keep, .at_us = clock_wall_us()};
	m->stage = MIG_STAGE_NONE;
	mig_close(m);
	if (keep == MIG_KEEP_SOURCE)
		keep_source(m);
	else
		keep_destination(m);
	return 0;
}
