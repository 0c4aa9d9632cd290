/* SPDX-License-Identifier: Apache-2.0 */
/*
 * In doubt, and held: ask the destination what became of the guest, until it answers. Only a clear
 * "not started" gives the guest back (rule 4); silence and "unknown" are not a no.
 */
#include <stdlib.h>
#include <string.h>

#include "migration_priv.h"
#include "util/cleanup.h"
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

static void ask_later(struct migration *m)
{
	conn_free(steal_ptr(&m->control));
	mig_timer(m, 0);
	m->timer = loop_timer(m->src->loop, m->ask_delay_us, on_pause_over, m);
	m->ask_delay_us = MIN(m->ask_delay_us * 2, ASK_MOST_US);
}

static void take_answer(struct migration *m, enum msg_answer answer)
{
	struct error err = {0};

	switch (answer) {
	case MSG_ANSWER_NOT_STARTED:
		if (m->state != MIG_IN_DOUBT)
			break;
		conn_free(steal_ptr(&m->control));
		error_set(&err, -ECONNRESET, "not-started",
			  "the session was lost during the hand-over, and the destination did not "
			  "start the guest");
		mig_event(m, MIG_EV_NOT_STARTED, &err);
		return;
	case MSG_ANSWER_RUNNING:
		if (m->state != MIG_IN_DOUBT)
			break;
		conn_free(steal_ptr(&m->control));
		error_set(&err, -ECONNRESET, "session-lost",
			  "the guest runs at the destination; the session is lost");
		mig_event(m, MIG_EV_RUNNING, &err);
		return;
	case MSG_ANSWER_COMPLETED:
		conn_free(steal_ptr(&m->control));
		mig_event(m, MIG_EV_RECEIPT, NULL);
		return;
	case MSG_ANSWER_UNKNOWN:
		log_warn("migration %s: %s does not know what became of the guest", m->id, m->to);
		break;
	}
	ask_later(m);
}

static void on_message(struct conn *c, const struct msg *msg, void *arg)
{
	struct migration *m = arg;

	(void)c;
	if (msg->type == MSG_ANSWER) {
		take_answer(m, msg->answer.answer);
		return;
	}
	log_warn("migration %s: asked %s and got %s%s%s", m->id, m->to, msg_type_name(msg->type),
		 msg->type == MSG_ERROR ? ": " : "",
		 msg->type == MSG_ERROR ? msg->error.message : "");
	ask_later(m);
}

static void on_closed(struct conn *c, const struct error *err, void *arg)
{
	struct migration *m = arg;

	(void)c;
	log_debug("migration %s: no answer from %s: %s", m->id, m->to, err->msg);
	ask_later(m);
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
		ask_later(m);
		return;
	}
	m->control = conn_new(m->src->loop, chan, false, MSG_CHANNEL_QUERY, &query_ops, m);
	if (!m->control || conn_send(m->control, &msg) < 0) {
		ask_later(m);
		return;
	}
	conn_set_timeout(m->control, ASK_ANSWER_US);
}

static void ask(struct migration *m)
{
	struct msg_hello hello;

	mig_hello(m, MSG_CHANNEL_QUERY, 0, &hello);
	memset(hello.token, 0, sizeof(hello.token));
	m->dial = mig_dial(m, &hello, on_query);
	if (!m->dial)
		ask_later(m);
}

void mig_act_ask(struct migration *m)
{
	m->stage = MIG_STAGE_NONE;
	mig_close(m);
	m->ask_delay_us = ASK_FIRST_US;
	log_warn("migration %s of %s: %s; asking %s", m->id, m->guest_name,
		 mig_state_name(m->state), m->to);
	ask(m);
}
