/* SPDX-License-Identifier: Apache-2.0 */
/*
 * State switchover, stage by stage: both journals, the pause, the last scan, what is to be
 * discarded, the guest's state, *ready*; then the commit.
 *
 * Rules at stake: 4 (it runs in one place: COMMIT is sent in state handover only, and the state is
 * left towards a rollback only by the answer not-started) and 3 (nothing is released here).
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "migration_priv.h"
#include "util/cleanup.h"
#include "util/clock.h"
#include "util/faultpoint.h"
#include "util/log.h"
#include "util/trace.h"

/** CONTROL_FULL - bytes queued on the control channel from which on we wait for it to drain */
#define CONTROL_FULL (256u << 10)

static void send_discards(struct migration *m);

static bool in_stage(const struct migration *m, enum mig_stage stage)
{
	return m->state == MIG_SWITCHOVER && m->stage == stage;
}

/* --- intent and pause --- */

static void send_intent(struct migration *m, const struct error *err)
{
	struct msg msg = {.type = MSG_INTENT, .number = {.value = m->generation + 1}};

	/* Cancelled, say, while the disk took its time. */
	if (!in_stage(m, MIG_STAGE_JOURNAL))
		return;
	if (err) {
		mig_event(m, MIG_EV_ERROR, err);
		return;
	}
	FAULTPOINT(HAND_OVER_JOURNALED);
	mig_stage(m, MIG_STAGE_INTENT, MIN(MIG_INTENT_US, mig_answer_us(m)));
	mig_send(m, &msg);
	FAULTPOINT(INTENT_QUEUED);
}

/*
 * Both journals are written and synced while the guest still runs, so that no sync stops it. The
 * destination answers when it has done the discards that came before.
 */
static void note_intent(struct migration *m)
{
	struct error err = {0};

	FAULTPOINT(EARLY_DISCARDS_QUEUED);
	mig_stage(m, MIG_STAGE_JOURNAL, MIG_JOURNAL_US);
	if (mig_journal_then(m, "may-hand-over", send_intent, &err) < 0)
		mig_event(m, MIG_EV_ERROR, &err);
}

/*
 * What has been written since it was sent last will have to be discarded, and most of it is known
 * now: the destination does that while the guest still runs here, and in the pause only the rest.
 */
void mig_act_switchover(struct migration *m)
{
	FAULTPOINT(CONVERGED);
	if (!scan_postcopy(m->engine->scan)) {
		note_intent(m);
		return;
	}
	mig_stage(m, MIG_STAGE_DISCARD, MIN(MIG_INTENT_US, mig_answer_us(m)));
	m->sw.discarding = true;
	send_discards(m);
}

static void on_paused(void *arg, int ret, const struct error *err, int fd)
{
	struct migration *m = arg;

	(void)fd;
	if (!in_stage(m, MIG_STAGE_PAUSE))
		return; /* rolled back meanwhile, which has lifted the pause */
	if (ret < 0) {
		mig_event(m, MIG_EV_ERROR, err);
		return;
	}
	FAULTPOINT(GUEST_PAUSED);
	trace_pause("guest", m->guest_name);
	m->held = true;
	if (m->dma == DMA_QUARANTINE &&
	    clock_us() - m->pause_us >= (uint64_t)m->options.dma_quarantine_ms * 1000) {
		mig_fail(m, "dma-quarantine",
			 "guest %s took %llu ms to end its I/O into block %s, so pages may have "
			 "been "
			 "copied before their I/O was over: raise dma_quarantine_ms (%u), or use "
			 "--mode hybrid",
			 m->guest_name, (unsigned long long)(clock_us() - m->pause_us) / 1000,
			 m->dma_block, m->options.dma_quarantine_ms);
		return;
	}
	m->stage = MIG_STAGE_LAST_SCAN;
	scan_order(m->engine->scan, SCAN_FINAL);
}

void mig_pause(struct migration *m, enum mig_stage stage, uint64_t slack_us, guest_done_fn *done)
{
	uint64_t limit = (uint64_t)m->options.switchover_timeout_ms * 1000;
	struct guest *g = mig_conn(m);
	int r;

	/* One time limit for all that the guest stands still for. */
	mig_stage(m, stage, limit + slack_us);
	m->pause_us = clock_us();
	r = g ? guest_pause(g, MIN(m->options.switchover_timeout_ms, MIG_GUEST_MS), done, m)
	      : -ESRCH;
	if (r < 0)
		mig_fail(m, "guest-gone", "guest %s cannot be paused: %s", m->guest_name,
			 strerror(-r));
}

void mig_let_go_on(struct migration *m, enum mig_stage stage, guest_done_fn *done)
{
	struct guest *g = mig_conn(m);
	int r;

	m->stage = stage;
	r = g ? guest_resume(g, done, m) : -ESRCH;
	if (r < 0)
		mig_fail(m, "guest-gone", "guest %s cannot be resumed: %s", m->guest_name,
			 strerror(-r));
}

void mig_on_intent_ack(struct migration *m)
{
	FAULTPOINT(INTENT_ACKNOWLEDGED);
	mig_pause(m, MIG_STAGE_PAUSE, 0, on_paused);
}

/* --- the guest's state --- */

static int on_state(void *arg, const void *p, size_t n)
{
	struct migration *m = arg;
	const uint8_t *data = p;

	if (!in_stage(m, MIG_STAGE_STATE))
		return -ECANCELED;
	XXH3_64bits_update(m->sw.hash, p, n);
	engine_settle(m->engine, BUDGET_SWITCHOVER, 0, n);
	m->sw.length += n;
	while (n && m->control) {
		uint32_t len = (uint32_t)MIN(n, (size_t)MSG_BODY_MAX);
		struct msg msg = {.type = MSG_STATE, .state = {.data = data, .len = len}};

		mig_send(m, &msg);
		data += len;
		n -= len;
	}
	FAULTPOINT(STATE_PIECE_QUEUED);
	if (!in_stage(m, MIG_STAGE_STATE))
		return -ECANCELED;
	m->sw.choked = conn_queued(m->control) > CONTROL_FULL;
	return m->sw.choked;
}

static void on_saved(void *arg, int ret, const struct error *err, int fd)
{
	struct migration *m = arg;
	struct msg msg = {.type = MSG_STATE_END};

	(void)fd;
	if (!in_stage(m, MIG_STAGE_STATE))
		return;
	m->sw.saving = false;
	if (ret < 0) {
		mig_event(m, MIG_EV_ERROR, err);
		return;
	}
	msg.state_end.length = m->sw.length;
	msg.state_end.digest = XXH3_64bits_digest(m->sw.hash);
	m->stage = MIG_STAGE_READY;
	mig_send(m, &msg);
	FAULTPOINT(STATE_QUEUED);
}

static void save_state(struct migration *m)
{
	struct guest *g = mig_conn(m);
	int r;

	m->stage = MIG_STAGE_STATE;
	m->sw.saving = true;
	if (!m->sw.hash)
		m->sw.hash = XXH3_createState();
	if (m->sw.hash)
		XXH3_64bits_reset(m->sw.hash);
	r = !m->sw.hash ? -ENOMEM : g ? guest_save(g, on_state, on_saved, m) : -ESRCH;
	if (r < 0)
		mig_fail(m, "guest-state", "guest %s cannot be asked for its state: %s",
			 m->guest_name, strerror(-r));
}

/* --- what the destination has to forget --- */

/* The next range that was sent before and is to be sent again. Return: false at the end of the block */
static bool next_stale(const struct engine_block *b, uint64_t *page, struct msg_range *ret)
{
	uint64_t size = b->mem.block.page_size, p = *page, end;

	for (;;) {
		p = bitmap_next_set(&b->pending, p);
		if (p >= b->npages)
			return false;
		if (bitmap_test(&b->sent, p))
			break;
		p = bitmap_next_set(&b->sent, p);
	}
	end = MIN(bitmap_next_clear(&b->pending, p), bitmap_next_clear(&b->sent, p));
	*ret = (struct msg_range){.offset = p * size, .length = (end - p) * size};
	*page = end;
	return true;
}

/* What is discarded there counts as never sent: a second round finds only what was written since. */
static void gather(struct migration *m, struct msg *msg)
{
	struct engine_block *b = &m->engine->blocks[m->sw.block];
	uint64_t size = b->mem.block.page_size;
	struct msg_range *r;

	msg->type = MSG_DISCARD;
	msg->discard.block = m->sw.block;
	msg->discard.n = 0;
	while (msg->discard.n < MSG_DISCARD_MAX) {
		r = &msg->discard.ranges[msg->discard.n];
		if (!next_stale(b, &m->sw.page, r)) {
			m->sw.block++;
			m->sw.page = 0;
			return;
		}
		trace_discard(b->mem.block.name, r->offset, r->length);
		bitmap_clear_range(&b->sent, r->offset / size, r->length / size);
		msg->discard.n++;
	}
}

static void send_listen(struct migration *m)
{
	struct msg msg = {.type = MSG_LISTEN,
			  .listen = {.postcopy = scan_postcopy(m->engine->scan)}};

	FAULTPOINT(DISCARDS_QUEUED);
	mig_send(m, &msg);
	FAULTPOINT(LISTEN_QUEUED);
	if (in_stage(m, MIG_STAGE_LAST_SCAN))
		save_state(m);
}

/* In stage discard and once more in stage last scan. */
static void send_discards(struct migration *m)
{
	CLEANUP_FREE struct msg *msg = malloc(sizeof(*msg));
	enum mig_stage stage = m->stage;

	if (!msg) {
		mig_fail(m, NULL, "out of memory");
		return;
	}
	while (m->control && scan_postcopy(m->engine->scan) && m->sw.block < m->engine->nblocks) {
		if (conn_queued(m->control) > CONTROL_FULL)
			return; /* on_drained goes on */
		gather(m, msg);
		if (msg->discard.n)
			mig_send(m, msg);
		if (!in_stage(m, stage))
			return;
	}
	m->sw.discarding = false;
	m->sw.block = 0;
	m->sw.page = 0;
	if (stage == MIG_STAGE_DISCARD)
		note_intent(m);
	else
		send_listen(m);
}

void mig_on_last_scan(struct migration *m)
{
	struct msg msg = {.type = MSG_SWITCH};

	if (!in_stage(m, MIG_STAGE_LAST_SCAN))
		return;
	FAULTPOINT(LAST_SCAN_DONE);
	msg.switch_.pass = atomic_load(&m->engine->pass);
	m->sw.discarding = true;
	mig_send(m, &msg);
	FAULTPOINT(SWITCH_QUEUED);
	if (in_stage(m, MIG_STAGE_LAST_SCAN))
		send_discards(m);
}

void mig_on_drained(struct migration *m)
{
	if ((in_stage(m, MIG_STAGE_DISCARD) || in_stage(m, MIG_STAGE_LAST_SCAN)) &&
	    m->sw.discarding)
		send_discards(m);
	else if (m->state == MIG_HANDOVER)
		FAULTPOINT(COMMIT_SENT);
	else if (m->snapshot)
		mig_snap_drained(m);
	else if (in_stage(m, MIG_STAGE_STATE) && m->sw.choked && mig_conn(m)) {
		m->sw.choked = false;
		guest_save_more(mig_conn(m));
	}
}

/* --- the point of no return, and behind it --- */

void mig_act_commit(struct migration *m)
{
	struct msg msg = {.type = MSG_COMMIT, .number = {.value = m->generation + 1}};

	FAULTPOINT(READY_RECEIVED);
	m->committed = true;
	mig_stage(m, MIG_STAGE_NONE, MIN(MIG_RUNNING_US, mig_answer_us(m)));
	mig_send(m, &msg);
	FAULTPOINT(COMMIT_QUEUED);
}

void mig_act_postcopy(struct migration *m)
{
	FAULTPOINT(RUNNING_RECEIVED);
	m->downtime_us = clock_us() - m->pause_us;
	mig_journal_running(m);
	m->again.since_us = clock_us();
	mig_timer(m, 0);
	log_info("migration %s of %s: runs at %s after %llu us", m->id, m->guest_name, m->to,
		 (unsigned long long)m->downtime_us);
	scan_order(m->engine->scan, SCAN_POSTCOPY);
}

void mig_send_complete(struct migration *m, uint64_t timeout_us)
{
	CLEANUP_FREE struct msg *msg = calloc(1, sizeof(*msg));

	if (!msg) {
		mig_fail(m, NULL, "out of memory");
		return;
	}
	msg->type = MSG_COMPLETE;
	msg->complete.runs = atomic_load(&m->engine->stats.runs);
	msg->complete.digest_sum = atomic_load(&m->engine->stats.digest_sum);
	msg->complete.n = m->engine->nblocks;
	for (uint32_t i = 0; i < m->engine->nblocks; i++)
		msg->complete.pages[i] = m->engine->blocks[i].npages;
	mig_timer(m, timeout_us);
	mig_send(m, msg);
	FAULTPOINT(COMPLETE_QUEUED);
}

void mig_on_sent(struct migration *m)
{
	FAULTPOINT(ALL_SENT);
	if (m->state == MIG_POSTCOPY)
		mig_send_complete(m, mig_answer_us(m));
	else if (m->state == MIG_SAVING)
		mig_snap_sent(m);
}
