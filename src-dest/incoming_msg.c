/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What comes on the control channel of a session, from SETUP on: each message goes to whom it concerns, and the loss
 * of the channel becomes an event.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "channels.h"
#include "incoming_priv.h"
#include "util/cleanup.h"
#include "util/text.h"

/* --- messages --- */

static int check_block(const struct incoming *inc, const struct msg_block *b, struct error *err)
{
	if (b->index != inc->nblocks)
		return error_set(err, -EBADMSG, "bad-message",
				 "BLOCK %s has index %u where %u was due", b->name, b->index,
				 inc->nblocks);
	if (b->length > MSG_MEMORY_MAX - inc->total)
		return error_set(err, -EBADMSG, "bad-message",
				 "BLOCK %s: all blocks together are larger than 2^46 bytes",
				 b->name);
	for (unsigned int i = 0; i < inc->nblocks; i++)
		if (!strcmp(inc->blocks[i].name, b->name))
			return error_set(err, -EBADMSG, "bad-message", "BLOCK %s comes twice",
					 b->name);
	return 0;
}

/* The description is complete. */
static void described(struct incoming *inc)
{
	incoming_event(inc, inc->store ? INC_EV_STORE : INC_EV_SETUP, NULL);
}

static int on_setup(struct incoming *inc, const struct msg *m, struct error *err)
{
	if (inc->setup)
		return error_set(err, -EBADMSG, "unexpected-message", "SETUP came twice");
	inc->setup = malloc(sizeof(*inc->setup));
	inc->blocks = calloc(m->setup.blocks ? m->setup.blocks : 1, sizeof(*inc->blocks));
	if (!inc->setup || !inc->blocks)
		return error_set(err, -ENOMEM, NULL, "out of memory");
	*inc->setup = m->setup;
	if (!m->setup.blocks)
		described(inc);
	else
		conn_set_timeout(inc->control, INCOMING_SETUP_US);
	return 0;
}

static int on_block(struct incoming *inc, const struct msg *m, struct error *err)
{
	int r;

	if (!inc->setup)
		return error_set(err, -EBADMSG, "unexpected-message", "BLOCK before SETUP");
	r = check_block(inc, &m->block, err);
	if (r)
		return r;
	inc->blocks[inc->nblocks++] = m->block;
	inc->total += m->block.length;
	if (inc->nblocks == inc->setup->blocks)
		described(inc);
	else
		conn_set_timeout(inc->control, INCOMING_SETUP_US);
	return 0;
}

static int on_facts(struct incoming *inc, const struct msg *m, struct error *err)
{
	if (inc->setup || inc->facts)
		return error_set(err, -EBADMSG, "unexpected-message", "FACTS %s",
				 inc->setup ? "behind SETUP" : "came twice");
	inc->facts = json_object();
	if (!inc->facts)
		return error_set(err, -ENOMEM, NULL, "out of memory");
	for (unsigned int i = 0; i < m->facts.n; i++)
		json_object_set_new(inc->facts, m->facts.facts[i].key,
				    json_string(m->facts.facts[i].value));
	conn_set_timeout(inc->control, INCOMING_SETUP_US);
	return 0;
}

static int on_abort(struct incoming *inc, const struct msg *m, struct error *err)
{
	struct error why = {0};

	(void)err;
	error_set(&why, -ECANCELED, m->error.code, "the source gave up: %s", m->error.message);
	incoming_event(inc, INC_EV_ABORT, &why);
	return 0;
}

static int on_error(struct incoming *inc, const struct msg *m, struct error *err)
{
	struct error why = {0};

	(void)err;
	/* The channel ends behind ERROR: nothing is to be answered. */
	conn_free(steal_ptr(&inc->control));
	error_set(&why, -EREMOTEIO, m->error.code, "the source says: %s", m->error.message);
	/* It has heard nothing of us for too long: the session is lost, and no more. */
	incoming_event(
		inc, strcmp(m->error.code, "peer-lost") != 0 ? INC_EV_FAIL : resume_lost_event(inc),
		&why);
	return 0;
}

struct handler {
	enum msg_type type;
	int (*handle)(struct incoming *inc, const struct msg *m, struct error *err);
};

static const struct handler handlers[] = {
	{MSG_SETUP, on_setup},           {MSG_BLOCK, on_block},
	{MSG_INTENT, handover_intent},   {MSG_SWITCH, handover_switch},
	{MSG_DISCARD, handover_discard}, {MSG_LISTEN, handover_listen},
	{MSG_STATE, load_state},         {MSG_STATE_END, load_state_end},
	{MSG_COMMIT, handover_commit},   {MSG_COMPLETE, settle_complete},
	{MSG_ABORT, on_abort},           {MSG_STORE, store_wanted},
	{MSG_CONTINUE, resume_continue}, {MSG_FACTS, on_facts},
	{MSG_DROP, channels_drop},
};

/* What means something else while an image is stored. */
static const struct handler storing[] = {
	{MSG_STATE, store_state},
	{MSG_STATE_END, store_state_end},
	{MSG_COMPLETE, store_complete},
};

static int handle(struct incoming *inc, const struct msg *m, struct error *err)
{
	int r;

	if (m->type == MSG_ERROR)
		return on_error(inc, m, err);
	r = inc_state_check_msg(inc->state, m->type, err);
	if (r)
		return r;
	for (size_t i = 0; inc->state == INC_STORING && i < ARRAY_SIZE(storing); i++)
		if (storing[i].type == m->type)
			return storing[i].handle(inc, m, err);
	for (size_t i = 0; i < ARRAY_SIZE(handlers); i++)
		if (handlers[i].type == m->type)
			return handlers[i].handle(inc, m, err);
	return error_set(err, -EBADMSG, "unexpected-message", "%s on the control channel",
			 msg_type_name(m->type));
}

/* The source is told by ERROR, by the action that the event leads to. */
static void on_message(struct conn *c, const struct msg *m, void *arg)
{
	struct incoming *inc = incoming_ref(arg);
	struct error err = {0};

	(void)c;
	/* What was under way when this side ended the session. */
	if (inc->state != INC_END && handle(inc, m, &err))
		incoming_event(inc, INC_EV_FAIL, &err);
	incoming_unref(inc);
}

static void on_closed(struct conn *c, const struct error *why, void *arg)
{
	struct incoming *inc = incoming_ref(arg);
	struct error err = {0};

	conn_free(c);
	inc->control = NULL;
	error_set(&err, -ECONNRESET, "lost", "control channel: %s (%s)", why->msg, why->code);
	if (inc->state == INC_END)
		settle_control_closed(inc);
	else
		incoming_event(inc, resume_lost_event(inc), &err);
	incoming_unref(inc);
}

static void on_drained(struct conn *c, void *arg)
{
	(void)c;
	handover_drained(arg);
	resume_drained(arg);
}

static const struct conn_ops control_ops = {
	.message = on_message, .closed = on_closed, .drained = on_drained};

void incoming_take_control(struct incoming *inc, struct conn *conn)
{
	inc->control = conn;
	conn_set_ops(conn, &control_ops, inc);
	conn_set_channel(conn, MSG_CHANNEL_CONTROL);
	conn_keepalive(conn);
}
