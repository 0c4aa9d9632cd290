/* SPDX-License-Identifier: Apache-2.0 */
/* The control channel of a migration: a handler for each message. */
#include <errno.h>
#include <string.h>

#include "migration_priv.h"
#include "util/cleanup.h"
#include "util/faultpoint.h"

void mig_send(struct migration *m, const struct msg *msg)
{
	struct error err = {0};
	int r = m->control ? conn_send(m->control, msg) : -EPIPE;

	if (r == 0)
		return;
	error_set(&err, r, "channel-lost", "cannot send %s: %s", msg_type_name(msg->type),
		  strerror(-r));
	mig_event(m, MIG_EV_LOST, &err);
}

void mig_send_simple(struct migration *m, enum msg_type type)
{
	struct msg msg = {.type = type};

	mig_send(m, &msg);
}

static void unexpected(struct migration *m, const struct msg *msg)
{
	mig_fail(m, "unexpected-message", "the destination sent %s in state %s",
		 msg_type_name(msg->type), mig_state_name(m->state));
}

/* A no of the destination, and not something that went wrong there. Codes made of an errno are one word. */
static bool is_refusal(const char *code)
{
	static const char *const failures[] = {"launch-failed", "attach-timeout", "guest-gone",
					       "bad-message", "unexpected-message"};

	for (size_t i = 0; i < ARRAY_SIZE(failures); i++)
		if (!strcmp(code, failures[i]))
			return false;
	return strchr(code, '-');
}

static void on_error(struct migration *m, const struct msg *msg)
{
	struct error err = {0};

	error_set(&err, -EREMOTEIO, msg->error.code, "%s", msg->error.message);
	m->refused = m->state == MIG_SETUP && is_refusal(msg->error.code);
	mig_event(m, MIG_EV_ERROR, &err);
}

static void on_prepared(struct migration *m, const struct msg *msg)
{
	if (m->state == MIG_SETUP && m->stage == MIG_STAGE_PREPARE)
		mig_on_prepared(m);
	else
		unexpected(m, msg);
}

static void on_intent_ack(struct migration *m, const struct msg *msg)
{
	if (m->state == MIG_SWITCHOVER && m->stage == MIG_STAGE_INTENT)
		mig_on_intent_ack(m);
	else
		unexpected(m, msg);
}

static void on_ready(struct migration *m, const struct msg *msg)
{
	if (m->state == MIG_SWITCHOVER && m->stage == MIG_STAGE_READY)
		mig_event(m, MIG_EV_READY, NULL);
	else
		unexpected(m, msg);
}

static void on_running(struct migration *m, const struct msg *msg)
{
	if (m->state == MIG_HANDOVER && msg->number.value == m->generation + 1)
		mig_event(m, MIG_EV_RUNNING, NULL);
	else
		unexpected(m, msg);
}

static void on_request(struct migration *m, const struct msg *msg)
{
	struct error err = {0};

	if (!m->engine || !m->engine->scan)
		unexpected(m, msg);
	else if (!m->engine->mend && m->engine->urgent)
		mig_fail(m, "unexpected-message",
			 "REQUEST on control although there is an urgent channel");
	else if (scan_request(m->engine->scan, &msg->request, &err) < 0)
		mig_event(m, MIG_EV_ERROR, &err);
}

/*
 * The receipt lets the guest go, so what it says is held against what was sent: every page of every
 * block, and no digest that did not match.
 */
static bool receipt_fits(const struct migration *m, const struct msg_receipt *r)
{
	if (!r->digest_ok || !m->engine || r->n != m->engine->nblocks)
		return false;
	for (uint32_t i = 0; i < r->n; i++)
		if (r->pages[i] != m->engine->blocks[i].npages)
			return false;
	return true;
}

static void on_receipt(struct migration *m, const struct msg *msg)
{
	if (m->state != MIG_POSTCOPY && (m->state != MIG_SAVING || !m->snap.pages_sent)) {
		unexpected(m, msg);
		return;
	}
	FAULTPOINT(RECEIPT_RECEIVED);
	m->receipt = msg->receipt;
	m->has_receipt = true;
	if (receipt_fits(m, &msg->receipt))
		mig_event(m, MIG_EV_RECEIPT, NULL);
	else
		mig_fail(m, "receipt-mismatch",
			 "the destination's receipt does not agree with what was sent; the guest "
			 "here is kept");
}

static void on_aborted(struct migration *m, const struct msg *msg)
{
	if (m->stage == MIG_STAGE_ABORT)
		mig_on_aborted(m);
	else if (m->state != MIG_CANCELLING && m->state != MIG_FAILING)
		unexpected(m, msg);
}

static const struct {
	enum msg_type type;
	void (*fn)(struct migration *m, const struct msg *msg);
} handlers[] = {
	{MSG_ERROR, on_error},           {MSG_PREPARED, on_prepared},
	{MSG_INTENT_ACK, on_intent_ack}, {MSG_READY, on_ready},
	{MSG_RUNNING, on_running},       {MSG_REQUEST, on_request},
	{MSG_RECEIPT, on_receipt},       {MSG_ABORTED, on_aborted},
	{MSG_RECEIVED, mig_on_received}, {MSG_RESUMED, mig_on_resumed},
	{MSG_DROPPED, mig_on_dropped},
};

static void on_message(struct conn *c, const struct msg *msg, void *arg)
{
	struct migration *m = arg;
	struct error err = {0};
	int r = 0;

	(void)c;
	if (msg->type != MSG_ERROR)
		r = mig_state_check_msg(m->state, msg->type, &err);
	if (r < 0)
		mig_event(m, MIG_EV_ERROR, &err);
	if (r)
		return;
	for (size_t i = 0; i < ARRAY_SIZE(handlers); i++) {
		if (handlers[i].type == msg->type) {
			handlers[i].fn(m, msg);
			return;
		}
	}
	unexpected(m, msg);
}

static void on_closed(struct conn *c, const struct error *err, void *arg)
{
	struct migration *m = arg;

	conn_free(c);
	m->control = NULL;
	if (m->stage == MIG_STAGE_ABORT)
		mig_on_aborted(m);
	else
		mig_event(m, MIG_EV_LOST, err);
}

static void on_drained(struct conn *c, void *arg)
{
	(void)c;
	mig_on_drained(arg);
}

const struct conn_ops mig_control_ops = {
	.message = on_message,
	.closed = on_closed,
	.drained = on_drained,
};
