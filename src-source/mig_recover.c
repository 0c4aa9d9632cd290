/* SPDX-License-Identifier: Apache-2.0 */
/*
 * State recovering: a session for a guest that runs at the destination is made again (PROTOCOL.md
 * section 12). Control channel and RESUME, the received bitmap, the further channels, CONTINUE; then
 * post-copy goes on with what was not received.
 *
 * Which rules it could break, and why it does not:
 *
 *   3 (pages are kept)  a new engine takes hold of the same memory; nothing is released here, and what
 *			counts as received is what the destination says of its own states
 *   4 (one place)	the guest here stays paused: no way leads from here to a rollback
 *   6 (peers)		the bitmap must come block by block in order, each bit once, or the session ends
 */
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "migration_priv.h"
#include "util/cleanup.h"
#include "util/clock.h"
#include "util/faultpoint.h"
#include "util/log.h"
#include "util/trace.h"

static void lost(struct migration *m, int r, const char *code, const char *text)
{
	struct error err = {0};

	error_set(&err, r, code, "%s", text);
	mig_event(m, MIG_EV_LOST, &err);
}

/* --- control, and RESUME --- */

static void send_resume(struct migration *m)
{
	struct msg msg = {.type = MSG_RESUME};

	msg.resume.generation = m->generation + 1;
	msg.resume.bulk_channels = (uint8_t)m->options.channels;
	m->again.block = 0;
	m->again.page = 0;
	mig_stage(m, MIG_STAGE_BITMAP, mig_answer_us(m));
	mig_send(m, &msg);
	FAULTPOINT(RESUME_QUEUED);
}

static void too_old(struct migration *m)
{
	lost(m, -EPROTO, "version",
	     "the destination's agent speaks a version of the protocol in which no session can be "
	     "made again: bring it up to date");
}

static void on_control(void *arg, struct tls_chan *chan, const struct msg_hello_ack *ack,
		       const struct error *why)
{
	struct migration *m = arg;

	m->dial = NULL;
	if (!chan && m->version && m->version < MSG_VERSION_RECOVERY &&
	    !strcmp(why->code, "migration-exists")) {
		/* One that is that old does not come as far as naming its version. */
		too_old(m);
		return;
	}
	if (!chan) {
		mig_event(m, MIG_EV_ERROR, why);
		return;
	}
	if (ack->version < MSG_VERSION_RECOVERY) {
		tls_chan_free(chan);
		too_old(m);
		return;
	}
	memcpy(m->token, ack->token, sizeof(m->token));
	m->version = ack->version;
	m->capabilities = ack->capabilities;
	m->engine->mend = m->capabilities & MSG_CAP_MEND;
	m->control = conn_new(m->src->loop, chan, false, MSG_CHANNEL_CONTROL, &mig_control_ops, m);
	if (!m->control) {
		lost(m, -ENOMEM, NULL, "out of memory");
		return;
	}
	conn_keepalive(m->control);
	send_resume(m);
}

/* What was counted goes on, but for what COMPLETE says of the session. */
static void carry_over(struct migration *m)
{
	struct engine_stats *s = &m->engine->stats;

	m->engine->recovered = true;
	m->totals.wire_before = m->totals.wire_bytes;
	m->totals.total_bytes = 0;
	atomic_store(&s->sent_bytes, m->totals.sent_bytes);
	atomic_store(&s->zero_pages, m->totals.zero_pages);
	atomic_store(&s->requests, m->totals.requests);
	atomic_store(&s->passes, m->totals.passes);
	for (uint32_t i = 0; i < m->engine->nblocks; i++) {
		struct engine_block *b = &m->engine->blocks[i];

		bitmap_set_range(&b->pending, 0, b->npages);
		m->totals.total_bytes += b->mem.block.length;
	}
}

void mig_redial(struct migration *m)
{
	struct msg_hello hello;

	mig_stage(m, MIG_STAGE_CONNECT, 0); /* a dial has a bound of its own */
	explicit_bzero(m->token, sizeof(m->token));
	mig_hello(m, MSG_CHANNEL_CONTROL, 0, &hello);
	m->dial = mig_dial(m, &hello, on_control);
	if (!m->dial)
		lost(m, -ENOMEM, NULL, "cannot start a connection: out of memory or threads");
}

void mig_act_recover(struct migration *m)
{
	struct error err = {0};

	if (!mig_conn(m)) {
		lost(m, -ESRCH, "guest-absent",
		     "the guest is not attached to this agent, so that its pages cannot be read");
		return;
	}
	mig_close(m);
	if (engine_new(m->src->loop, mig_conn(m), &m->options, m->src->budget, mig_on_engine, m,
		       &m->engine, &err) < 0) {
		mig_event(m, MIG_EV_LOST, &err);
		return;
	}
	carry_over(m);
	mig_redial(m);
}

/* --- the received bitmap --- */

/* Return: the words of block @b from @page on */
static uint64_t words_left(const struct engine_block *b, uint64_t page)
{
	return (b->npages - page + 63) / 64;
}

static bool fits(const struct migration *m, const struct msg_received *v)
{
	const struct engine_block *b;
	uint64_t left, tail;

	if (m->stage != MIG_STAGE_BITMAP || v->block != m->again.block ||
	    v->block >= m->engine->nblocks || v->first != m->again.page)
		return false;
	b = &m->engine->blocks[v->block];
	left = words_left(b, v->first);
	tail = b->npages % 64;
	return v->n < left || (v->n == left && (!tail || !(v->words[v->n - 1] >> tail)));
}

void mig_on_received(struct migration *m, const struct msg *msg)
{
	const struct msg_received *v = &msg->received;
	struct engine_block *b;

	if (!fits(m, v)) {
		mig_fail(m, "bad-message",
			 "the destination sent pages of block %u where block %u "
			 "was due from page %" PRIu64 " on, or more than it has",
			 v->block, m->again.block, m->again.page);
		return;
	}
	b = &m->engine->blocks[v->block];
	/* No thread has the engine yet, unless it is in precopy. */
	if (m->state == MIG_REJOINING)
		mig_rejoin_received(m, v);
	for (uint32_t i = 0; m->state == MIG_RECOVERING && i < v->n; i++)
		b->pending.words[v->first / 64 + i] &= ~v->words[i];
	m->again.page += v->n * UINT64_C(64);
	if (m->again.page >= b->npages) {
		m->again.block++;
		m->again.page = 0;
	}
	mig_timer(m, mig_answer_us(m));
}

void mig_on_resumed(struct migration *m, const struct msg *msg)
{
	if (m->stage != MIG_STAGE_BITMAP || m->again.block != m->engine->nblocks) {
		mig_fail(m, "unexpected-message",
			 "the destination sent RESUMED before all of the "
			 "received bitmap");
		return;
	}
	if (m->state == MIG_REJOINING) {
		mig_rejoin_resumed(m);
		return;
	}
	FAULTPOINT(BITMAP_RECEIVED);
	atomic_store(&m->engine->pass, msg->resumed.pass);
	atomic_store(&m->engine->postcopy, true);
	log_info("migration %s of %s: %" PRIu64 " bytes are still to be sent to %s", m->id,
		 m->guest_name, engine_pending_bytes(m->engine), m->to);
	mig_dial_further(m);
}

/* --- on with it --- */

void mig_on_channels(struct migration *m)
{
	struct error err = {0};

	mig_stage(m, MIG_STAGE_NONE, 0);
	if (m->state == MIG_RECOVERING && scan_start(m->engine, NULL, -1, &err) < 0) {
		mig_event(m, MIG_EV_LOST, &err);
		return;
	}
	mig_send_simple(m, MSG_CONTINUE);
	FAULTPOINT(CONTINUE_QUEUED);
	if (m->state == MIG_RECOVERING || m->state == MIG_REJOINING)
		mig_event(m, MIG_EV_RESUMED, NULL);
}

void mig_act_resume(struct migration *m)
{
	error_clear(&m->err);
	error_clear(&m->again.err);
	m->again.attempts = 0;
	m->again.since_us = clock_us();
	trace_resume("session", m->guest_name);
	log_notice("migration %s of %s: goes on with %s", m->id, m->guest_name, m->to);
	scan_order(m->engine->scan, SCAN_POSTCOPY);
}
