/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The session is lost in precopy (PROTOCOL.md section 12): the guest runs on, its writes are tracked on, and
 * the destination keeps what has arrived. Another session is made with growing pauses; the rest is sent
 * on it. Rules at stake:
 *
 *   1, stale pages	what was sent and not acknowledged is pending again (lane.c), whatever the bitmap says: the
 *			destination may have an older copy of such a page. The bitmap only adds what is missing there.
 *			Behind RESUMED no frame of the old session is placed, and the pass does not end before
 *   2, 3		nothing is released here, and nothing counts as received that was not acknowledged
 *   4 (one place)	INTENT was not sent: the destination cannot run the guest, and this job may be rolled back
 *			at any time
 *   6 (peers)		the waiting is bounded by reconnect_timeout_s, and by cancel
 *   8 (agent's end)	as in precopy: the tracking ends with the agent, and writers go on
 */
#include <errno.h>
#include <string.h>

#include "migration_priv.h"
#include "sender.h"
#include "urgent.h"
#include "util/cleanup.h"
#include "util/clock.h"
#include "util/log.h"
#include "util/trace.h"

/** RETRY_FIRST_US, RETRY_MOST_US - pauses between two attempts */
#define RETRY_FIRST_US 100000ull
#define RETRY_MOST_US  5000000ull
/** FAREWELL_FIRST_US, FAREWELL_MOST_US - the same to tell of a job that has ended */
#define FAREWELL_FIRST_US 1000000ull
#define FAREWELL_MOST_US  30000000ull
/** FAREWELL_US - so long; by then nothing is kept any more where limits.interrupted_s is a usual one */
#define FAREWELL_US 600000000ull

bool mig_keeps(const struct migration *m)
{
	return m->engine && m->engine->mend && m->capabilities & MSG_CAP_KEEP &&
	       m->options.reconnect_timeout_s;
}

/* --- lost --- */

static void retry(struct migration *m)
{
	uint64_t limit_us = m->options.reconnect_timeout_s * UINT64_C(1000000);

	if (clock_us() - m->again.lost_us >= limit_us) {
		error_clear(&m->err); /* this is what ends it */
		mig_fail(m, "reconnect-timeout",
			 "the session was lost and could not be made again within %u s "
			 "(reconnect_timeout_s); last: %s",
			 m->options.reconnect_timeout_s, m->again.err.msg);
		return;
	}
	m->again.attempts++;
	m->again.next_us = 0;
	mig_event(m, MIG_EV_RETRY, NULL);
}

static void on_pause_over(void *arg)
{
	struct migration *m = arg;

	event_free(steal_ptr(&m->timer));
	if (m->state == MIG_INTERRUPTED)
		retry(m);
}

static void retry_later(struct migration *m)
{
	struct mig_recover *a = &m->again;
	uint64_t end_us = a->lost_us + m->options.reconnect_timeout_s * UINT64_C(1000000);
	uint64_t now = clock_us(), us = a->delay_us;

	/* Not longer than the time limit, which is looked at behind the pause. */
	if (us > end_us - MIN(now, end_us))
		us = end_us - MIN(now, end_us);
	us = MAX(us, UINT64_C(1));
	a->next_us = clock_wall_us() + us;
	m->timer = loop_timer(m->src->loop, us, on_pause_over, m);
	a->delay_us = MAX(a->delay_us * 2, RETRY_FIRST_US);
	a->delay_us = MIN(a->delay_us, RETRY_MOST_US);
}

/* The data threads end; the snapshot thread goes on and waits for channels. */
static void hang_up(struct migration *m)
{
	if (m->dial)
		dial_cancel(steal_ptr(&m->dial));
	mig_mend_stop(m);
	conn_free(steal_ptr(&m->control));
	mig_stage(m, MIG_STAGE_NONE, 0);
	if (m->engine->urgent)
		urgent_give_up(m->engine->urgent);
	for (uint32_t i = 0; i < m->engine->nsenders; i++)
		sender_give_up(m->engine->senders[i]);
}

/* A session that stood is made again at once, and its time limit begins anew. */
void mig_act_interrupt(struct migration *m)
{
	struct mig_recover *a = &m->again;
	bool stood = a->since_us && clock_us() - a->since_us >= MIG_STEADY_US;

	hang_up(m);
	if (a->since_us)
		a->since_lost_us = clock_us();
	if (stood || !a->lost_us) {
		a->lost_us = clock_us();
		a->delay_us = 0;
		a->attempts = 0;
	}
	if (a->since_us) {
		trace_pause("session", m->guest_name);
		log_warn(
			"migration %s of %s: the session is lost (%s); the guest runs on here, and "
			"%s is dialled again for %u s",
			m->id, m->guest_name, m->err.msg, m->to, m->options.reconnect_timeout_s);
	}
	a->since_us = 0;
	a->err = m->err;
	retry_later(m);
}

void mig_rejoin_now(struct migration *m)
{
	mig_timer(m, 0);
	m->again.lost_us = clock_us();
	retry(m);
}

/* --- and made again --- */

void mig_act_rejoin(struct migration *m)
{
	mig_redial(m);
}

/* What was sent once and is missing there: a damaged run whose NACK was lost, or a destination that knows better. */
void mig_rejoin_received(struct migration *m, const struct msg_received *v)
{
	struct engine_block *b = &m->engine->blocks[v->block];

	for (uint32_t i = 0; i < v->n; i++) {
		uint64_t *sent = &b->sent.words[v->first / 64 + i];
		uint64_t missing = __atomic_load_n(sent, __ATOMIC_ACQUIRE) & ~v->words[i];

		for (; missing; missing &= missing - 1)
			bitmap_set(&b->pending,
				   v->first + 64ull * i + (unsigned int)__builtin_ctzll(missing));
	}
}

void mig_rejoin_resumed(struct migration *m)
{
	struct engine *e = m->engine;

	urgent_gone(e);
	for (uint32_t i = 0; i < e->nsenders; i++)
		if (atomic_load(&e->senders[i]->state) == SENDER_LOST)
			sender_gone(e->senders[i]);
	mig_dial_further(m);
}

void mig_act_go_on(struct migration *m)
{
	struct mig_recover *a = &m->again;
	uint64_t now = clock_us();

	error_clear(&m->err);
	error_clear(&a->err);
	a->since_us = now;
	atomic_fetch_add(&m->engine->interrupted_us, now - a->since_lost_us);
	trace_resume("session", m->guest_name);
	log_notice("migration %s of %s: goes on with %s after %llu ms and %u attempts, %llu bytes "
		   "are to be sent",
		   m->id, m->guest_name, m->to, (unsigned long long)(now - a->since_lost_us) / 1000,
		   a->attempts, (unsigned long long)engine_pending_bytes(m->engine));
	scan_kick(m->engine->scan);
	if (!a->converged)
		return;
	a->converged = false;
	mig_event(m, MIG_EV_CONVERGED, NULL);
}

/* --- rolled back without a session --- */

static void dial_farewell(struct migration *m);

static void on_farewell_due(void *arg)
{
	struct migration *m = arg;

	event_free(steal_ptr(&m->timer));
	dial_farewell(m);
}

/* Nobody waits for it; and where it gets nowhere the destination has a time limit of its own. */
void mig_farewell_later(struct migration *m)
{
	struct mig_recover *a = &m->again;

	if (!a->unheard_us || mig_telling(m))
		return;
	if (clock_us() >= a->unheard_us) {
		a->unheard_us = 0;
		return;
	}
	a->farewell_us = MAX(a->farewell_us * 2, FAREWELL_FIRST_US);
	a->farewell_us = MIN(a->farewell_us, FAREWELL_MOST_US);
	m->timer = loop_timer(m->src->loop, a->farewell_us, on_farewell_due, m);
}

static void farewell_over(struct migration *m)
{
	conn_free(steal_ptr(&m->control));
	mig_timer(m, 0);
	if (mig_state_ended(m->state))
		mig_farewell_later(m);
	else
		mig_on_aborted(m);
}

static void on_farewell_message(struct conn *c, const struct msg *msg, void *arg)
{
	struct migration *m = arg;

	(void)c;
	log_debug("migration %s: %s has heard that it was rolled back: %s", m->id, m->to,
		  msg_type_name(msg->type));
	m->again.unheard_us = 0;
	farewell_over(m);
}

static void on_farewell_closed(struct conn *c, const struct error *err, void *arg)
{
	struct migration *m = arg;

	(void)c;
	log_debug("migration %s: %s", m->id, err->msg);
	farewell_over(m);
}

static const struct conn_ops farewell_ops = {.message = on_farewell_message,
					     .closed = on_farewell_closed};

static void on_farewell(void *arg, struct tls_chan *chan, const struct msg_hello_ack *ack,
			const struct error *why)
{
	struct migration *m = arg;
	struct msg msg = {.type = MSG_QUERY, .number = {.value = m->generation + 1}};

	(void)ack;
	m->dial = NULL;
	if (!chan) {
		log_debug("migration %s: %s", m->id, why->msg);
		farewell_over(m);
		return;
	}
	m->control = conn_new(m->src->loop, chan, false, MSG_CHANNEL_QUERY, &farewell_ops, m);
	if (!m->control || conn_send(m->control, &msg) < 0)
		farewell_over(m);
	else
		conn_set_timeout(m->control, MIG_DIAL_US);
}

static void dial_farewell(struct migration *m)
{
	struct msg_hello hello;

	mig_hello(m, MSG_CHANNEL_QUERY, 0, &hello);
	memset(hello.token, 0, sizeof(hello.token));
	m->dial = mig_dial(m, &hello, on_farewell);
	if (!m->dial)
		farewell_over(m);
}

/* A question ends there what has not been committed; also behind a restart of this agent. */
void mig_farewell(struct migration *m)
{
	if (!(m->capabilities & MSG_CAP_KEEP)) {
		mig_on_aborted(m);
		return;
	}
	m->again.unheard_us = clock_us() + FAREWELL_US;
	dial_farewell(m);
}
