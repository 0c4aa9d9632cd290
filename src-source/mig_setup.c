/* SPDX-License-Identifier: Apache-2.0 */
/*
 * State setup, stage by stage: the journal's first record, look at what writes into the guest's memory, connect,
 * describe the guest and have the destination prepare one, the urgent channel, the bulk channels; then write
 * tracking (mig_track.c).
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "migration_priv.h"
#include "held.h"
#include "policy.h"
#include "sender.h"
#include "urgent.h"
#include "util/cleanup.h"
#include "util/faultpoint.h"
#include "util/log.h"

void mig_hello(const struct migration *m, enum msg_channel kind, uint8_t index,
	       struct msg_hello *ret)
{
	*ret = (struct msg_hello){
		.version_min = MSG_VERSION_OLDEST,
		.version_max = MSG_VERSION,
		.capabilities = MSG_CAP_POSTCOPY | (m->snapshot ? 0 : MSG_CAP_MEND | MSG_CAP_KEEP) |
				(m->options.urgent ? MSG_CAP_URGENT : 0) |
				(m->snapshot ? MSG_CAP_SNAPSHOT : 0) |
				(kind == MSG_CHANNEL_QUERY ? MSG_CAP_RESOLVE : 0),
		.kind = (uint8_t)kind,
		.index = index,
	};
	/* What was agreed on for the session holds for all of its channels. */
	if (kind == MSG_CHANNEL_URGENT || kind == MSG_CHANNEL_BULK)
		ret->version_min = ret->version_max = m->version;
	memcpy(ret->migration, m->id_raw, sizeof(ret->migration));
	memcpy(ret->token, m->token, sizeof(ret->token));
}

struct dial *mig_dial(struct migration *m, const struct msg_hello *hello, dial_fn *fn)
{
	struct dial_to to = {
		.ctx = m->src->tls,
		.host = m->host,
		.port = m->port,
		.timeout_us = MIN(MIG_DIAL_US, mig_answer_us(m)),
	};

	return dial_start(m->src->loop, &to, hello, fn, m);
}

/* --- the guest's description --- */

static int describe(struct migration *m, struct msg *msg)
{
	const struct conf_guest *d = &m->guest->desc;
	struct msg_setup *s = &msg->setup;
	const char *key;
	json_t *value;

	memset(msg, 0, sizeof(*msg));
	msg->type = MSG_SETUP;
	snprintf(s->name, sizeof(s->name), "%s", m->guest_name);
	memcpy(s->uuid, m->uuid, sizeof(s->uuid));
	s->generation = m->generation;
	snprintf(s->driver, sizeof(s->driver), "%s", conf_guest_driver_name(d->driver));
	snprintf(s->launcher, sizeof(s->launcher), "%s", d->launcher);
	s->paused = m->arrives_paused;
	s->may_postcopy = policy_may_postcopy(&m->options);
	s->bulk_channels = (uint8_t)m->options.channels;
	s->blocks = m->engine->nblocks;
	json_object_foreach(d->vars, key, value) {
		struct msg_var *v = &s->vars[s->nvars];

		if (s->nvars >= MSG_VARS_MAX ||
		    strlen(json_string_value(value)) >= sizeof(v->value) ||
		    strlen(key) >= sizeof(v->key))
			return -E2BIG;
		snprintf(v->key, sizeof(v->key), "%s", key);
		snprintf(v->value, sizeof(v->value), "%s", json_string_value(value));
		s->nvars++;
	}
	return 0;
}

static void send_block(struct migration *m, uint32_t i, struct msg *msg)
{
	const struct guest_block *b = &m->engine->blocks[i].mem.block;

	*msg = (struct msg){.type = MSG_BLOCK};
	msg->block = (struct msg_block){
		.index = i,
		.kind = (uint8_t)b->kind,
		.flags = (b->flags & GUEST_BLOCK_NO_DMA ? MSG_BLOCK_NO_DMA : 0) |
			 (b->flags & GUEST_BLOCK_READONLY ? MSG_BLOCK_READONLY : 0),
		.page_size = (uint32_t)b->page_size,
		.length = b->length,
	};
	snprintf(msg->block.name, sizeof(msg->block.name), "%s", b->name);
	mig_send(m, msg);
}

static void send_store(struct migration *m, struct msg *msg)
{
	*msg = (struct msg){.type = MSG_STORE};
	memcpy(msg->store.name, m->snap.name, sizeof(msg->store.name));
	msg->store.start = m->snap.start;
	mig_send(m, msg);
}

/* What does not fit does not travel: then it is the load that finds it out. */
static void send_facts(struct migration *m, struct msg *msg)
{
	const struct guest *g = mig_conn(m);
	const char *key;
	json_t *value;

	if (!g || !g->facts || m->version < MSG_VERSION_FACTS)
		return;
	*msg = (struct msg){.type = MSG_FACTS};
	json_object_foreach(g->facts, key, value) {
		const char *text = json_string_value(value);
		struct msg_var *v = &msg->facts.facts[msg->facts.n];

		if (msg->facts.n >= MSG_FACTS_MAX || !text || !guest_name_ok(key) ||
		    strlen(text) >= sizeof(v->value))
			continue;
		snprintf(v->key, sizeof(v->key), "%s", key);
		snprintf(v->value, sizeof(v->value), "%s", text);
		msg->facts.n++;
	}
	mig_send(m, msg);
}

static void send_description(struct migration *m)
{
	CLEANUP_FREE struct msg *msg = malloc(sizeof(*msg));

	if (msg && m->snapshot)
		send_store(m, msg);
	if (msg && m->state == MIG_SETUP)
		send_facts(m, msg);
	if (m->state != MIG_SETUP)
		return;
	if (!msg || describe(m, msg) < 0) {
		mig_fail(m, "bad-guest", "guest %s has too many or too long launcher variables",
			 m->guest_name);
		return;
	}
	mig_stage(m, MIG_STAGE_PREPARE, mig_answer_us(m));
	mig_send(m, msg);
	for (uint32_t i = 0; m->control && m->state == MIG_SETUP && i < m->engine->nblocks; i++)
		send_block(m, i, msg);
	FAULTPOINT(DESCRIPTION_QUEUED);
}

/* --- connect --- */

static int check_capabilities(struct migration *m, const struct msg_hello_ack *ack,
			      struct error *err)
{
	m->version = ack->version;
	m->capabilities = ack->capabilities;
	m->engine->mend = m->capabilities & MSG_CAP_MEND;
	if (m->version < MSG_VERSION_FACTS)
		for (uint32_t i = 0; i < m->engine->nblocks; i++)
			if (m->engine->blocks[i].mem.block.flags & GUEST_BLOCK_READONLY)
				return error_set(
					err, -EOPNOTSUPP, "version",
					"block %s is read-only, which %s does not know: its "
					"decant-dest speaks version %u of the protocol, and "
					"version "
					"%d is needed",
					m->engine->blocks[i].mem.block.name, m->to, m->version,
					MSG_VERSION_FACTS);
	if (m->snapshot && !(m->capabilities & MSG_CAP_SNAPSHOT))
		return error_set(err, -EOPNOTSUPP, "snapshot-not-supported",
				 "%s is of a version that stores no images", m->to);
	if (policy_may_postcopy(&m->options) && !(m->capabilities & MSG_CAP_POSTCOPY))
		return error_set(err, -EOPNOTSUPP, "postcopy-not-supported",
				 "%s cannot run a guest with missing pages (see decant-dest check "
				 "there): only --mode precopy can move this guest",
				 m->to);
	return 0;
}

/* What is answered to HELLO before anything is asked for. */
static bool answered_no(const char *code)
{
	return !strcmp(code, "limit-incoming") || !strcmp(code, "ending") ||
	       !strcmp(code, "host-cordoned") || !strcmp(code, "version");
}

static void on_control(void *arg, struct tls_chan *chan, const struct msg_hello_ack *ack,
		       const struct error *why)
{
	struct migration *m = arg;
	struct error err = {0};

	m->dial = NULL;
	if (!chan) {
		m->refused = answered_no(why->code);
		mig_event(m, MIG_EV_ERROR, why);
		return;
	}
	memcpy(m->token, ack->token, sizeof(m->token));
	m->control = conn_new(m->src->loop, chan, false, MSG_CHANNEL_CONTROL, &mig_control_ops, m);
	if (!m->control) {
		mig_fail(m, NULL, "out of memory");
		return;
	}
	if (check_capabilities(m, ack, &err) < 0) {
		m->refused = true;
		mig_event(m, MIG_EV_ERROR, &err);
		return;
	}
	FAULTPOINT(CONTROL_CONNECTED);
	conn_keepalive(m->control);
	send_description(m);
}

static void connect_control(struct migration *m)
{
	struct msg_hello hello;

	mig_stage(m, MIG_STAGE_CONNECT, 0); /* a dial has a bound of its own */
	mig_hello(m, MSG_CHANNEL_CONTROL, 0, &hello);
	m->dial = mig_dial(m, &hello, on_control);
	if (!m->dial)
		mig_fail(m, NULL, "cannot start a connection: out of memory or threads");
}

/* --- the further channels --- */

static void dial_bulk(struct migration *m);

static void on_urgent(void *arg, struct tls_chan *chan, const struct msg_hello_ack *ack,
		      const struct error *why)
{
	struct migration *m = arg;
	struct error err = {0};

	(void)ack;
	m->dial = NULL;
	if (!chan) {
		log_warn("migration %s: no urgent channel, requests will go over control: %s",
			 m->id, why->msg);
	} else if (urgent_start(m->engine, chan, &err) < 0) {
		tls_chan_free(chan);
		mig_event(m, MIG_EV_ERROR, &err);
		return;
	}
	FAULTPOINT(URGENT_CONNECTED);
	dial_bulk(m);
}

void mig_dial_further(struct migration *m)
{
	struct msg_hello hello;

	m->again.index = 0;
	if (!policy_may_postcopy(&m->options) || !(m->capabilities & MSG_CAP_URGENT)) {
		dial_bulk(m);
		return;
	}
	mig_stage(m, MIG_STAGE_URGENT, 0);
	mig_hello(m, MSG_CHANNEL_URGENT, 0, &hello);
	m->dial = mig_dial(m, &hello, on_urgent);
	if (!m->dial)
		mig_fail(m, NULL, "cannot start a connection: out of memory or threads");
}

static int take_bulk(struct migration *m, struct tls_chan *chan, struct error *err)
{
	uint32_t i = m->again.index;

	return i < m->engine->nsenders ? sender_again(m->engine->senders[i], chan, err)
				       : sender_start(m->engine, i, chan, err);
}

/*
 * Bulk channels are made one after the other: a session has few of them, and the order of the
 * senders is that of their indexes.
 */
static void on_bulk(void *arg, struct tls_chan *chan, const struct msg_hello_ack *ack,
		    const struct error *why)
{
	struct migration *m = arg;
	struct error err = {0};

	(void)ack;
	m->dial = NULL;
	if (!chan) {
		mig_event(m, MIG_EV_ERROR, why);
		return;
	}
	if (take_bulk(m, chan, &err) < 0) {
		tls_chan_free(chan);
		mig_event(m, MIG_EV_ERROR, &err);
		return;
	}
	FAULTPOINT(BULK_CONNECTED);
	if (++m->again.index == m->options.channels)
		mig_mend_watch(m);
	if (m->again.index < m->options.channels)
		dial_bulk(m);
	else if (m->state == MIG_RECOVERING || m->state == MIG_REJOINING)
		mig_on_channels(m);
	else
		mig_track(m);
}

static void dial_bulk(struct migration *m)
{
	struct msg_hello hello;

	mig_stage(m, MIG_STAGE_BULK, 0);
	mig_hello(m, MSG_CHANNEL_BULK, (uint8_t)m->again.index, &hello);
	m->dial = mig_dial(m, &hello, on_bulk);
	if (!m->dial)
		mig_fail(m, NULL, "cannot start a connection: out of memory or threads");
}

void mig_on_prepared(struct migration *m)
{
	FAULTPOINT(PREPARED_RECEIVED);
	mig_dial_further(m);
}

static void begin_session(struct migration *m)
{
	struct error err = {0};

	if (engine_new(m->src->loop, mig_conn(m), &m->options, m->src->budget, mig_on_engine, m,
		       &m->engine, &err) < 0) {
		mig_event(m, MIG_EV_ERROR, &err);
		return;
	}
	m->engine->snapshot = m->snapshot;
	m->engine->dma = m->dma;
	if (held_new(m->engine) < 0) {
		mig_fail(m, NULL, "out of memory");
		return;
	}
	FAULTPOINT(SESSION_BEGUN);
	connect_control(m);
}

/* --- what writes into its memory --- */

static void tell_dma(const struct migration *m)
{
	if (m->dma == DMA_NONE)
		return;
	log_info("migration %s of %s: block %s is not free of DMA%s%s: %s: %s", m->id,
		 m->guest_name, m->dma_block, *m->dma_device ? ": " : "", m->dma_device,
		 dma_way_name(m->dma), dma_why(m->dma));
}

static void on_looked(void *arg, int ret, const struct error *err, int fd)
{
	struct migration *m = arg;

	(void)fd;
	if (m->state != MIG_SETUP || m->stage != MIG_STAGE_LOOK)
		return;
	if (ret < 0) {
		mig_event(m, MIG_EV_ERROR, err);
		return;
	}
	mig_set_dma(m);
	tell_dma(m);
	begin_session(m);
}

/* A device can have come since the guest was attached. */
static void look(struct migration *m)
{
	struct guest *g = mig_conn(m);
	int r;

	mig_stage(m, MIG_STAGE_LOOK, MIG_PREPARE_US);
	r = g ? guest_look(g, on_looked, m) : -ESRCH;
	if (r == -EOPNOTSUPP) {
		tell_dma(m);
		begin_session(m);
	} else if (r < 0) {
		mig_fail(m, "guest-gone", "guest %s cannot be asked for its devices: %s",
			 m->guest_name, strerror(-r));
	}
}

/* --- the first record --- */

void mig_on_begun(struct migration *m, const struct error *err)
{
	if (m->state != MIG_SETUP || m->stage != MIG_STAGE_JOURNAL)
		return;
	if (err) {
		mig_event(m, MIG_EV_ERROR, err);
		return;
	}
	FAULTPOINT(JOB_JOURNALED);
	look(m);
}

/* Nobody hears of the job before a restarted agent would know of it. */
void mig_act_setup(struct migration *m)
{
	mig_stage(m, MIG_STAGE_JOURNAL, MIG_JOURNAL_US);
}
