/* SPDX-License-Identifier: Apache-2.0 */
/* The last stages of setup, write tracking, and from then on what the engine tells of. */
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "migration_priv.h"
#include "held.h"
#include "snap.h"
#include "track.h"
#include "util/clock.h"
#include "util/faultpoint.h"
#include "util/log.h"
#include "util/trace.h"

static void on_first_resumed(void *arg, int ret, const struct error *err, int fd)
{
	struct migration *m = arg;

	(void)fd;
	if (m->state != MIG_SETUP || m->stage != MIG_STAGE_FIRST_RESUME)
		return;
	if (ret < 0) {
		mig_event(m, MIG_EV_ERROR, err);
		return;
	}
	trace_resume("guest", m->guest_name);
	m->held = false;
	FAULTPOINT(FIRST_RESUMED);
	m->first_pause_us = clock_us() - m->pause_us;
	m->pause_us = 0;
	mig_stage(m, MIG_STAGE_TRACKING, 0);
	log_info("migration %s of %s: stood for %llu us to be protected first", m->id,
		 m->guest_name, (unsigned long long)m->first_pause_us);
	mig_event(m, MIG_EV_PREPARED, NULL);
}

static void on_first_paused(void *arg, int ret, const struct error *err, int fd)
{
	struct migration *m = arg;
	struct error why = {0};

	(void)fd;
	if (m->state != MIG_SETUP || m->stage != MIG_STAGE_FIRST_PAUSE)
		return; /* rolled back meanwhile, which has lifted the pause */
	if (ret < 0) {
		why = *err;
		error_prefix(&why,
			     "block %s is not declared free of DMA, so the guest is paused "
			     "before its writes are tracked (--mode postcopy does without)",
			     m->dma_block);
		mig_event(m, MIG_EV_ERROR, &why);
		return;
	}
	trace_pause("guest", m->guest_name);
	m->held = true;
	FAULTPOINT(FIRST_PAUSED);
	m->stage = MIG_STAGE_FIRST_SCAN; /* the same time limit */
	scan_order(m->engine->scan, SCAN_PROTECT);
}

/*
 * Memory that devices may write to is protected when no I/O is under way (held.h). Most of it is by then, so
 * that the guest stands shortly; what goes wrong is a rollback, which lets it go on. If this agent dies, the guest's library
 * attaches to the next one, and is let go there (migration_guest_welcomed()).
 */
static void first_pause(struct migration *m)
{
	mig_pause(m, MIG_STAGE_FIRST_PAUSE, MIG_PAUSE_SLACK_US, on_first_paused);
}

static void on_tracking(struct migration *m)
{
	FAULTPOINT(TRACKING_STARTED);
	if (m->state != MIG_SETUP)
		return;
	if (dma_holds(m->dma))
		first_pause(m);
	else
		mig_event(m, m->snapshot ? MIG_EV_SNAPSHOT : MIG_EV_PREPARED, NULL);
}

static void on_protected(struct migration *m)
{
	if (m->state != MIG_SETUP || m->stage != MIG_STAGE_FIRST_SCAN)
		return;
	FAULTPOINT(FIRST_PROTECTED);
	mig_let_go_on(m, MIG_STAGE_FIRST_RESUME, on_first_resumed);
}

void mig_on_engine(void *arg, enum engine_event ev, const struct error *err)
{
	struct migration *m = arg;

	switch (ev) {
	case ENGINE_TRACKING:
		on_tracking(m);
		return;
	case ENGINE_PROTECTED:
		on_protected(m);
		return;
	case ENGINE_GATE:
		mig_gate_ask(m);
		return;
	case ENGINE_CONVERGED:
		if (m->state == MIG_PRECOPY)
			mig_event(m, MIG_EV_CONVERGED, NULL);
		else if (m->state == MIG_INTERRUPTED || m->state == MIG_REJOINING)
			m->again.converged = true;
		return;
	case ENGINE_FINAL:
		if (m->snapshot)
			mig_snap_frozen(m);
		else
			mig_on_last_scan(m);
		return;
	case ENGINE_SENT:
		mig_on_sent(m);
		return;
	case ENGINE_CHANNEL:
		mig_channel_lost(m, err);
		return;
	case ENGINE_LOST:
		mig_event(m, MIG_EV_LOST, err);
		return;
	case ENGINE_FAILED:
		mig_event(m, MIG_EV_ERROR, err);
		return;
	}
}

/* A snapshot saves a page when it is written to: its writers have to wait for that. */
static const struct track_ops *choose(const struct migration *m, struct error *err)
{
	const struct track_ops *ops =
		track_choose(&m->src->caps, m->engine,
			     m->snapshot ? MIG_TRACKING_FAULTS : m->options.tracking, err);

	return ops && m->snapshot ? &track_snapshot : ops;
}

/* A descriptor that came too late, or none, is done with here. */
static bool uffd_made(struct migration *m, int ret, const struct error *err, int fd)
{
	if (m->state != MIG_SETUP || m->stage != MIG_STAGE_TRACKING) {
		if (fd >= 0)
			close(fd);
		return false;
	}
	if (ret < 0)
		mig_event(m, MIG_EV_ERROR, err);
	return ret >= 0;
}

static void on_uffd(void *arg, int ret, const struct error *err, int fd)
{
	struct migration *m = arg;
	const struct track_ops *ops;
	struct error why = {0};

	if (!uffd_made(m, ret, err, fd))
		return;
	FAULTPOINT(TRACKING_UFFD_MADE);
	ops = choose(m, &why);
	if (!ops)
		close(fd);
	if (!ops || scan_start(m->engine, ops, fd, &why) < 0)
		mig_event(m, MIG_EV_ERROR, &why);
}

static void ask_uffd(struct migration *m)
{
	struct guest *g = mig_conn(m);
	int r = g ? guest_uffd(g, false, 0, on_uffd, m) : -ESRCH;

	if (r < 0)
		mig_fail(m, "tracking-refused", "guest %s cannot be asked for a userfaultfd: %s",
			 m->guest_name, strerror(-r));
}

/* Rule 8: the agent alone has the descriptor, so that its death lets everybody go who waits for it. */
static void on_trial(void *arg, int ret, const struct error *err, int fd)
{
	struct migration *m = arg;
	const struct track_ops *ops;
	struct error why = {0};

	if (!uffd_made(m, ret, err, fd))
		return;
	FAULTPOINT(TRIAL_UFFD_MADE);
	ops = track_choose(&m->src->caps, m->engine, m->options.tracking, &why);
	if (!ops)
		close(fd);
	if (!ops || track_check(ops, m->engine, fd, &why) < 0) {
		mig_event(m, MIG_EV_ERROR, &why);
		return;
	}
	ask_uffd(m);
}

/* A descriptor shakes hands once: what the guest's blocks allow is tried on one to throw away. */
void mig_track(struct migration *m)
{
	const struct track_ops *ops = NULL;
	struct error err = {0};
	int r;

	mig_stage(m, MIG_STAGE_TRACKING, MIG_PREPARE_US);
	if (m->options.mode == MIG_MODE_POSTCOPY || !m->engine->nblocks) {
		if (scan_start(m->engine, NULL, -1, &err) < 0)
			mig_event(m, MIG_EV_ERROR, &err);
		return;
	}
	ops = choose(m, &err);
	if (!ops) {
		mig_event(m, MIG_EV_ERROR, &err);
		return;
	}
	m->tracking = ops->name;
	m->engine->features = m->src->caps.features;
	r = guest_uffd(mig_conn(m), false, 0, on_trial, m);
	if (r < 0)
		mig_fail(m, "tracking-refused", "guest %s cannot be asked for a userfaultfd: %s",
			 m->guest_name, strerror(-r));
}
