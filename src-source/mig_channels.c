/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A data channel is lost and the session stands (PROTOCOL.md section 3): what was open on it goes to the
 * others, and it is made again with growing pauses. DROP goes before every attempt: behind DROPPED nothing of
 * the channel is placed, and nothing is left of the attempt before. Which rules are at stake: lane.c.
 *
 * A session whose bulk channels are all gone for good is of no use: it is given up, and the job goes on as
 * without control channel.
 */
#include <errno.h>
#include <string.h>

#include "migration_priv.h"
#include "sender.h"
#include "urgent.h"
#include "util/cleanup.h"
#include "util/clock.h"
#include "util/log.h"

/** MEND_FIRST_US, MEND_MOST_US - pauses between two attempts */
#define MEND_FIRST_US 100000ull
#define MEND_MOST_US  5000000ull
/** MEND_BARE_US - for so long a session may be without any bulk channel */
#define MEND_BARE_US 15000000ull
/** MEND_WATCH_US - so often each channel is looked at; MEND_FRESH_US - as long as control said something since then */
#define MEND_WATCH_US 500000ull
#define MEND_FRESH_US 2000000ull

static void next(struct migration *m);

static bool mends(const struct migration *m)
{
	return m->control && m->engine && m->engine->mend &&
	       (m->state == MIG_PRECOPY || m->state == MIG_SWITCHOVER || m->state == MIG_HANDOVER ||
		m->state == MIG_POSTCOPY);
}

static void send_drop(struct migration *m, enum msg_channel kind, unsigned int index)
{
	struct msg msg = {.type = MSG_DROP};

	msg.drop.kind = (uint8_t)kind;
	msg.drop.index = (uint8_t)index;
	mig_send(m, &msg);
}

static bool any_bulk(const struct engine *e)
{
	for (uint32_t i = 0; i < e->nsenders; i++)
		if (atomic_load(&e->senders[i]->state) == SENDER_UP)
			return true;
	return !e->nsenders;
}

/* --- an attempt --- */

static void on_pause_over(void *arg)
{
	struct migration *m = arg;

	event_free(steal_ptr(&m->mend.timer));
	m->mend.delay_us = 0;
	next(m);
}

static void later(struct migration *m, const struct error *why)
{
	struct mig_mend *d = &m->mend;

	d->err = *why;
	log_debug("migration %s: %s channel %u is not made again yet: %s", m->id,
		  msg_channel_name(d->kind), d->index, why->msg);
	if (d->bare_us && clock_us() - d->bare_us > MEND_BARE_US) {
		mig_event(m, MIG_EV_LOST, why);
		return;
	}
	next(m);
}

/* Grows from attempt to attempt, and begins anew behind a channel that stood. */
static void pause_longer(struct mig_mend *d)
{
	d->pause_us = MAX(d->pause_us * 2, MEND_FIRST_US);
	d->pause_us = MIN(d->pause_us, MEND_MOST_US);
	d->delay_us = d->pause_us;
}

static int take(struct migration *m, struct tls_chan *chan, struct error *err)
{
	if (m->mend.kind == MSG_CHANNEL_URGENT)
		return urgent_start(m->engine, chan, err);
	return sender_again(m->engine->senders[m->mend.index], chan, err);
}

static void on_channel(void *arg, struct tls_chan *chan, const struct msg_hello_ack *ack,
		       const struct error *why)
{
	struct migration *m = arg;
	struct mig_mend *d = &m->mend;
	struct error err = {0};

	(void)ack;
	d->dial = NULL;
	if (!chan) {
		pause_longer(d);
		later(m, why);
		return;
	}
	if (take(m, chan, &err) < 0) {
		tls_chan_free(chan);
		pause_longer(d);
		later(m, &err);
		return;
	}
	if (d->kind == MSG_CHANNEL_URGENT)
		d->urgent = false;
	d->since_us = clock_us();
	d->bare_us = any_bulk(m->engine) ? 0 : d->bare_us;
	error_clear(&d->err);
	log_notice("migration %s of %s: %s channel %u stands again", m->id, m->guest_name,
		   msg_channel_name(d->kind), d->index);
	next(m);
}

static void dial_again(struct migration *m)
{
	struct mig_mend *d = &m->mend;
	struct msg_hello hello;
	struct error err = {0};

	mig_hello(m, d->kind, (uint8_t)d->index, &hello);
	d->dial = mig_dial(m, &hello, on_channel);
	if (d->dial)
		return;
	error_set(&err, -ENOMEM, NULL, "cannot start a connection: out of memory or threads");
	pause_longer(d);
	later(m, &err);
}

static void attempt(struct migration *m, enum msg_channel kind, unsigned int index, bool *clean)
{
	struct mig_mend *d = &m->mend;

	d->kind = kind;
	d->index = index;
	if (*clean) {
		*clean = false;
		dial_again(m);
		return;
	}
	d->asked = true;
	send_drop(m, kind, index);
}

/* The next channel that is to be made again, if no attempt is under way and none has to wait. */
static void next(struct migration *m)
{
	struct mig_mend *d = &m->mend;

	if (!mends(m) || d->dial || d->timer || d->asked)
		return;
	if (d->delay_us) {
		d->timer = loop_timer(m->src->loop, d->delay_us, on_pause_over, m);
		return;
	}
	if (d->urgent && !atomic_load(&m->engine->urgent_lost)) {
		attempt(m, MSG_CHANNEL_URGENT, 0, &d->urgent_clean);
		return;
	}
	for (uint32_t i = 0; i < m->engine->nsenders; i++) {
		if (atomic_load(&m->engine->senders[i]->state) == SENDER_DOWN) {
			attempt(m, MSG_CHANNEL_BULK, i, &d->clean[i]);
			return;
		}
	}
}

/* --- lost, and gone --- */

static void tell(const struct migration *m, const char *kind, unsigned int index,
		 const struct error *why)
{
	log_warn("migration %s of %s: %s channel %u is lost (%s); what was under way goes another "
		 "way, and it is made again",
		 m->id, m->guest_name, kind, index, why->msg);
}

static void give_up(struct migration *m)
{
	struct engine *e = m->engine;

	if (e->urgent && !urgent_open(e->urgent)) {
		tell(m, "urgent", 0, urgent_why(e->urgent));
		urgent_give_up(e->urgent);
		m->mend.urgent = true;
		send_drop(m, MSG_CHANNEL_URGENT, 0);
	}
	for (uint32_t i = 0; mends(m) && i < e->nsenders; i++) {
		struct sender *s = e->senders[i];

		if (atomic_load(&s->state) != SENDER_LOST || s->given_up)
			continue;
		sender_give_up(s);
		tell(m, "bulk", i, &s->why);
		send_drop(m, MSG_CHANNEL_BULK, i);
	}
}

/* Else it is an echo of a loss that was dealt with. */
static bool any_lost(const struct engine *e)
{
	if (e->urgent && !urgent_open(e->urgent))
		return true;
	for (uint32_t i = 0; i < e->nsenders; i++)
		if (atomic_load(&e->senders[i]->state) == SENDER_LOST && !e->senders[i]->given_up)
			return true;
	return false;
}

void mig_channel_lost(struct migration *m, const struct error *why)
{
	struct mig_mend *d = &m->mend;

	if (!any_lost(m->engine))
		return;
	if (!mends(m)) {
		mig_event(m, MIG_EV_LOST, why);
		return;
	}
	if (d->since_us && clock_us() - d->since_us < MIG_STEADY_US)
		pause_longer(d);
	else
		d->pause_us = 0;
	give_up(m);
	if (mends(m) && !any_bulk(m->engine) && !d->bare_us)
		d->bare_us = clock_us();
}

/* --- silent --- */

static void nobody_there(struct error *ret, const char *kind, unsigned int index)
{
	error_set(ret, -ETIMEDOUT, "channel-lost",
		  "%s channel %u: nothing was acknowledged for %llu ms, and the control channel "
		  "is answered",
		  kind, index, TLS_SILENT_US / 1000);
}

static void break_silent(struct migration *m)
{
	struct engine *e = m->engine;
	struct error err = {0};

	if (urgent_silent(e->urgent)) {
		nobody_there(&err, "urgent", 0);
		urgent_break(e->urgent, &err);
	}
	for (uint32_t i = 0; i < e->nsenders; i++) {
		if (!sender_silent(e->senders[i]))
			continue;
		error_clear(&err);
		nobody_there(&err, "bulk", i);
		sender_break(e->senders[i], &err);
	}
	if (error_is_set(&err))
		mig_channel_lost(m, &err);
}

static void on_watch(void *arg)
{
	struct migration *m = arg;

	event_free(steal_ptr(&m->mend.watch));
	mig_mend_watch(m);
	/* When all is silent it is the session that is lost, and that is noticed on control. */
	if (mends(m) && conn_silent_us(m->control) < MEND_FRESH_US)
		break_silent(m);
}

void mig_mend_watch(struct migration *m)
{
	if (m->engine && m->engine->mend && !m->mend.watch)
		m->mend.watch = loop_timer(m->src->loop, MEND_WATCH_US, on_watch, m);
}

void mig_on_dropped(struct migration *m, const struct msg *msg)
{
	const struct msg_drop *v = &msg->drop;
	struct mig_mend *d = &m->mend;
	bool bulk = v->kind == MSG_CHANNEL_BULK;

	if (!m->engine || !m->engine->mend || (bulk && v->index >= m->engine->nsenders)) {
		mig_fail(m, "unexpected-message", "DROPPED of %s channel %u, which there is not",
			 msg_channel_name(v->kind), v->index);
		return;
	}
	if (d->asked && d->kind == v->kind && d->index == v->index)
		d->asked = false;
	if (!bulk) {
		urgent_gone(m->engine);
		d->urgent_clean = true;
	} else if (m->engine->senders[v->index]->given_up) {
		if (atomic_load(&m->engine->senders[v->index]->state) == SENDER_LOST)
			sender_gone(m->engine->senders[v->index]);
		d->clean[v->index] = true;
	}
	next(m);
}

void mig_mend_stop(struct migration *m)
{
	struct mig_mend *d = &m->mend;

	if (d->dial)
		dial_cancel(steal_ptr(&d->dial));
	if (d->timer)
		event_free(steal_ptr(&d->timer));
	if (d->watch)
		event_free(steal_ptr(&d->watch));
	*d = (struct mig_mend){0};
}
