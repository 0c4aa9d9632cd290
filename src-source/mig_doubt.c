/* SPDX-License-Identifier: Apache-2.0 */
/*
 * In doubt, and held: ask the destination what became of the guest, until it answers. Only a clear
 * "not started" gives the guest back (rule 4); silence and "unknown" are not a no. "Running" leads to
 * the recovery of the session (mig_recover.c).
 */
#include <stdlib.h>
#include <string.h>

#include "migration_priv.h"
#include "util/cleanup.h"
#include "util/clock.h"
#include "util/faultpoint.h"
#include "util/log.h"

/** ASK_FIRST_US, ASK_MOST_US - pauses between two questions */
#define ASK_FIRST_US  100000ull
#define ASK_MOST_US   5000000ull
#define ASK_ANSWER_US 5000000ull

static bool asking(const struct migration *m)
{
	return m->state == MIG_IN_DOUBT || m->state == MIG_PAUSED;
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
	a->delay_us = MIN(a->delay_us * 2, ASK_MOST_US);
}

static void take_answer(struct migration *m, enum msg_answer answer)
{
	struct error err = {0};

	FAULTPOINT(ANSWER_TAKEN);
	switch (answer) {
	case MSG_ANSWER_NOT_STARTED:
		if (m->state != MIG_IN_DOUBT) {
			error_set(&err, -EPROTO, "not-started",
				  "%s says that it did not start the guest, which it said it runs",
				  m->to);
			break;
		}
		conn_free(steal_ptr(&m->control));
		error_set(&err, -ECONNRESET, "not-started",
			  "the session was lost during the hand-over, and the destination did not "
			  "start the guest");
		mig_event(m, MIG_EV_NOT_STARTED, &err);
		return;
	case MSG_ANSWER_RUNNING:
		conn_free(steal_ptr(&m->control));
		mig_event(m, MIG_EV_RUNNING, NULL);
		return;
	case MSG_ANSWER_COMPLETED:
		conn_free(steal_ptr(&m->control));
		mig_event(m, MIG_EV_RECEIPT, NULL);
		return;
	case MSG_ANSWER_UNKNOWN:
		error_set(&err, -ENOENT, "unknown-there",
			  "%s does not know this migration: it is another host, or its journal is "
			  "lost",
			  m->to);
		break;
	}
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
	struct msg msg = {.type = MSG_QUERY, .number = {.value = m->generation + 1}};

	(void)ack;
	m->dial = NULL;
	if (!chan) {
		log_debug("migration %s: %s", m->id, why->msg);
		mig_ask_later(m, why);
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
	log_warn("migration %s of %s: %s; asking %s", m->id, m->guest_name,
		 mig_state_name(m->state), m->to);
	ask(m);
}
