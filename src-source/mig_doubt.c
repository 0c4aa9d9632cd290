/* SPDX-License-Identifier: Apache-2.0 */
/*
 * In doubt, and held: ask the destination what became of the guest, until it answers. Only a clear
 * "not started" gives the guest back (rule 4); silence and "unknown" are not a no. "Running" leads to
 * the recovery of the session (mig_recover.c). In the same way it is told of a guest that an operator has
 * kept here (mig_resolve.c).
 */
#include <stdlib.h>
#include <string.h>

#include "migration_priv.h"
#include "util/cleanup.h"
#include "util/clock.h"
#include "util/faultpoint.h"
#include "util/log.h"

/** ASK_FIRST_US, ASK_MOST_US - pauses between two questions */
#define ASK_FIRST_US 100000ull
#define ASK_MOST_US  5000000ull
/** TELL_MOST_US - the same where nothing waits for the answer */
#define TELL_MOST_US  60000000ull
#define ASK_ANSWER_US 5000000ull

static bool asking(const struct migration *m)
{
	return m->state == MIG_IN_DOUBT || m->state == MIG_PAUSED || mig_telling(m);
}

static void ask(struct migration *m);

static void on_pause_over(void *arg)
{
	struct migration *m = arg;

	event_free(steal_ptr(&m->timer));
	if (asking(m))
		ask(m);
}

void mig_ask_later(struct migration *m, const struct error *why)
{
	struct mig_recover *a = &m->again;

	conn_free(steal_ptr(&m->control));
	mig_timer(m, 0);
	if (why)
		a->err = *why;
	a->delay_us = MAX(a->delay_us, ASK_FIRST_US);
	a->next_us = clock_wall_us() + a->delay_us;
	m->timer = loop_timer(m->src->loop, a->delay_us, on_pause_over, m);
	a->delay_us = MIN(a->delay_us * 2, mig_telling(m) ? TELL_MOST_US : ASK_MOST_US);
}

/*
 * It has run there for some time already. What is known is when that was learnt, and, in a later life, when
 * the pause was about to come.
 */
static void set_downtime(struct migration *m)
{
	uint64_t now = clock_wall_us();

	if (m->downtime_us)
		return;
	if (m->pause_us)
		m->downtime_us = clock_us() - m->pause_us;
	else if (m->may_us && now > m->may_us)
		m->downtime_us = now - m->may_us;
	m->downtime_most = true;
	mig_journal_running(m);
}

static void settle(struct migration *m, enum mig_event ev)
{
	struct error err = {0};

	conn_free(steal_ptr(&m->control));
	if (ev == MIG_EV_NOT_STARTED)
		error_set(&err, -ECONNRESET, "not-started",
			  "the session was lost during the hand-over, and the destination did not "
			  "start the guest");
	else
		set_downtime(m);
	mig_event(m, ev, error_is_set(&err) ? &err : NULL);
}

static void take_answer(struct migration *m, enum msg_answer answer)
{
	struct error err = {0};
	enum mig_event ev;

	FAULTPOINT(ANSWER_TAKEN);
	if (mig_telling(m) && answer != MSG_ANSWER_UNKNOWN) {
		conn_free(steal_ptr(&m->control));
		mig_timer(m, 0);
		mig_told(m, answer);
		return;
	}
	if (!mig_telling(m) && doubt_settled(m->state, answer, &ev)) {
		settle(m, ev);
		return;
	}
	if (answer == MSG_ANSWER_UNKNOWN)
		error_set(
			&err, -ENOENT, "unknown-there",
			"%s does not know this migration, or cannot know what became of it: it is "
			"another host, was started again since, or its journal is lost",
			m->to);
	else
		error_set(&err, -EPROTO, "contradiction",
			  "%s says that it did not start the guest, which it said it runs", m->to);
	log_warn("migration %s: %s", m->id, err.msg);
	mig_ask_later(m, &err);
}

static void on_message(struct conn *c, const struct msg *msg, void *arg)
{
	struct migration *m = arg;
	struct error err = {0};

	(void)c;
	if (msg->type == MSG_ANSWER) {
		take_answer(m, msg->answer.answer);
		return;
	}
	error_set(&err, -EPROTO, "no-answer", "asked %s and got %s%s%s", m->to,
		  msg_type_name(msg->type), msg->type == MSG_ERROR ? ": " : "",
		  msg->type == MSG_ERROR ? msg->error.message : "");
	log_warn("migration %s: %s", m->id, err.msg);
	mig_ask_later(m, &err);
}

static void on_closed(struct conn *c, const struct error *err, void *arg)
{
	struct migration *m = arg;

	(void)c;
	log_debug("migration %s: no answer from %s: %s", m->id, m->to, err->msg);
	mig_ask_later(m, err);
}

static const struct conn_ops query_ops = {.message = on_message, .closed = on_closed};

static void on_query(void *arg, struct tls_chan *chan, const struct msg_hello_ack *ack,
		     const struct error *why)
{
	struct migration *m = arg;
	struct msg msg = {.type = mig_telling(m) ? MSG_KEPT : MSG_QUERY,
			  .number = {.value = m->generation + 1}};
	struct error err = {0};

	m->dial = NULL;
	if (!chan) {
		log_debug("migration %s: %s", m->id, why->msg);
		mig_ask_later(m, why);
		return;
	}
	if (mig_telling(m) && !(ack->capabilities & MSG_CAP_RESOLVE)) {
		tls_chan_free(chan);
		error_set(&err, -EOPNOTSUPP, "not-supported",
			  "the agent at %s is too old to be told that the guest was kept here: see "
			  "to it by hand that it does not run there",
			  m->to);
		mig_ask_later(m, &err);
		return;
	}
	m->control = conn_new(m->src->loop, chan, false, MSG_CHANNEL_QUERY, &query_ops, m);
	if (!m->control || conn_send(m->control, &msg) < 0) {
		mig_ask_later(m, NULL);
		return;
	}
	FAULTPOINT(QUERY_QUEUED);
	conn_set_timeout(m->control, ASK_ANSWER_US);
}

static void ask(struct migration *m)
{
	struct msg_hello hello;

	m->again.attempts++;
	m->again.next_us = 0;
	mig_hello(m, MSG_CHANNEL_QUERY, 0, &hello);
	memset(hello.token, 0, sizeof(hello.token));
	m->dial = mig_dial(m, &hello, on_query);
	if (!m->dial)
		mig_ask_later(m, NULL);
}

void mig_act_ask(struct migration *m)
{
	m->stage = MIG_STAGE_NONE;
	mig_close(m);
	m->again.delay_us = ASK_FIRST_US;
	log_warn("migration %s of %s: %s; %s %s", m->id, m->guest_name, mig_state_name(m->state),
		 mig_telling(m) ? "telling" : "asking", m->to);
	ask(m);
}
