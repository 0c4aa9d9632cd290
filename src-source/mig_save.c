/* SPDX-License-Identifier: Apache-2.0 */
/*
 * State saving: a snapshot, stage by stage: the pause, the guest's state, the protection of its
 * memory, and on it goes; the rest is the engine's (snap.c), and sending the state behind the guest's
 * back.
 *
 * Rules at stake: 8 (this agent alone holds the userfaultfd, so that its end lets the writers go; and
 * in a rollback protection goes before the guest is asked to resume) and 4 (nothing of a snapshot ever
 * hands the guest over).
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "migration_priv.h"
#include "util/cleanup.h"
#include "util/digest.h"
#include "util/clock.h"
#include "util/faultpoint.h"
#include "util/log.h"

/** CONTROL_FULL - bytes queued on the control channel from which on we wait for it to drain */
#define CONTROL_FULL (256u << 10)
/** STORED_US - for the destination to have the image on its disk */
#define STORED_US 600000000ull

static bool in_stage(const struct migration *m, enum mig_stage stage)
{
	return m->state == MIG_SAVING && m->stage == stage;
}

void mig_snap_name(struct migration *m)
{
	time_t now = time(NULL);
	char when[20];
	struct tm tm;

	gmtime_r(&now, &tm);
	strftime(when, sizeof(when), "%Y%m%dT%H%M%SZ", &tm);
	snprintf(m->snap.name, sizeof(m->snap.name), "%.40s-%s", m->guest_name, when);
}

void mig_snap_free(struct migration *m)
{
	free(steal_ptr(&m->snap.state));
	m->snap.length = m->snap.cap = m->snap.sent = 0;
}

/* --- the pause --- */

static void on_paused(void *arg, int ret, const struct error *err, int fd);

void mig_act_save(struct migration *m)
{
	mig_pause(m, MIG_STAGE_PAUSE, 0, on_paused);
}

static int on_state(void *arg, const void *p, size_t n)
{
	struct migration *m = arg;
	struct mig_snap *sn = &m->snap;

	if (!in_stage(m, MIG_STAGE_STATE))
		return -ECANCELED;
	if (n > sn->cap - sn->length) {
		size_t cap = MAX(sn->cap * 2, sn->length + n);
		uint8_t *more = realloc(sn->state, cap);

		if (!more)
			return -ENOMEM;
		sn->state = more;
		sn->cap = cap;
	}
	memcpy(sn->state + sn->length, p, n);
	sn->length += n;
	return 0;
}

static void on_saved(void *arg, int ret, const struct error *err, int fd)
{
	struct migration *m = arg;

	(void)fd;
	if (!in_stage(m, MIG_STAGE_STATE))
		return;
	if (ret < 0) {
		mig_event(m, MIG_EV_ERROR, err);
		return;
	}
	FAULTPOINT(SAVE_STATE_TAKEN);
	m->stage = MIG_STAGE_LAST_SCAN;
	scan_order(m->engine->scan, SCAN_FINAL);
}

static void on_paused(void *arg, int ret, const struct error *err, int fd)
{
	struct migration *m = arg;
	struct guest *g = mig_conn(m);
	int r;

	(void)fd;
	if (!in_stage(m, MIG_STAGE_PAUSE))
		return; /* rolled back meanwhile, which has lifted the pause */
	if (ret < 0) {
		mig_event(m, MIG_EV_ERROR, err);
		return;
	}
	m->held = true;
	FAULTPOINT(SAVE_PAUSED);
	m->stage = MIG_STAGE_STATE;
	r = g ? guest_save(g, on_state, on_saved, m) : -ESRCH;
	if (r < 0)
		mig_fail(m, "guest-state", "guest %s cannot be asked for its state: %s",
			 m->guest_name, strerror(-r));
}

/* --- the guest runs on --- */

static void send_complete(struct migration *m)
{
	if (!m->snap.pages_sent || !m->snap.state_sent)
		return;
	FAULTPOINT(SAVE_COMPLETE_DUE);
	m->snap.complete = true;
	mig_send_complete(m, STORED_US);
}

static void send_state_end(struct migration *m)
{
	struct mig_snap *sn = &m->snap;
	struct msg msg = {.type = MSG_STATE_END};

	msg.state_end.length = sn->length;
	msg.state_end.digest = digest_xxh3(sn->state ? sn->state : (uint8_t *)"", sn->length);
	mig_snap_free(m);
	FAULTPOINT(SAVE_STATE_QUEUED);
	sn->state_sent = true;
	mig_send(m, &msg);
	if (m->state == MIG_SAVING)
		send_complete(m);
}

static void send_state(struct migration *m)
{
	struct mig_snap *sn = &m->snap;

	while (m->state == MIG_SAVING && m->control && sn->sent < sn->length) {
		uint32_t len = (uint32_t)MIN(sn->length - sn->sent, (size_t)MSG_BODY_MAX);
		struct msg msg = {.type = MSG_STATE,
				  .state = {.data = sn->state + sn->sent, .len = len}};

		if (conn_queued(m->control) > CONTROL_FULL)
			return; /* mig_snap_drained() goes on */
		sn->sent += len;
		engine_settle(m->engine, BUDGET_BULK, 0, len);
		mig_send(m, &msg);
	}
	if (m->state == MIG_SAVING && m->control)
		send_state_end(m);
}

void mig_snap_drained(struct migration *m)
{
	if (m->state == MIG_SAVING && m->stage == MIG_STAGE_NONE && !m->snap.state_sent)
		send_state(m);
}

static void on_resumed(void *arg, int ret, const struct error *err, int fd)
{
	struct migration *m = arg;

	(void)fd;
	if (!in_stage(m, MIG_STAGE_RESUME))
		return;
	if (ret < 0) {
		mig_event(m, MIG_EV_ERROR, err);
		return;
	}
	m->held = false;
	m->downtime_us = clock_us() - m->pause_us;
	log_info("snapshot %s of %s: the guest runs on after %llu us", m->id, m->guest_name,
		 (unsigned long long)m->downtime_us);
	FAULTPOINT(SAVE_RESUMED);
	mig_stage(m, MIG_STAGE_NONE, 0);
	send_state(m);
}

void mig_snap_frozen(struct migration *m)
{
	if (!in_stage(m, MIG_STAGE_LAST_SCAN))
		return;
	FAULTPOINT(SAVE_PROTECTED);
	mig_let_go_on(m, MIG_STAGE_RESUME, on_resumed);
}

void mig_snap_sent(struct migration *m)
{
	m->snap.pages_sent = true;
	send_complete(m);
}
