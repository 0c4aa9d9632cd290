/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Admission: each destination is asked what it has to spare, by PROBE on a channel of its own (PROTOCOL.md,
 * section 14). All at the same time, each within ASK_DIAL_US and ASK_ANSWER_US. Who is too old to be asked is
 * not known; who cannot be reached takes nobody.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "evac_priv.h"
#include "util/cleanup.h"
#include "util/clock.h"
#include "util/fdio.h"
#include "util/log.h"

#define ASK_DIAL_US   5000000ull
#define ASK_ANSWER_US 3000000ull
/* What nobody answers is asked so often: an agent may be being started again. */
#define ASK_ATTEMPTS 2

static void ask(struct evac_dest *d);

static void answered(struct evac_dest *d)
{
	struct evac *e = d->e;

	d->answered = true;
	for (unsigned int i = 0; i < e->wish.n_to; i++)
		if (!e->dests[i].answered)
			return;
	e->asking = false;
	e->fresh = true;
	evac_tick_soon(e, 0);
}

static void not_answered(struct evac_dest *d, const struct error *why)
{
	conn_free(steal_ptr(&d->conn));
	if (++d->attempts < ASK_ATTEMPTS) {
		ask(d);
		return;
	}
	error_clear(&d->refuses);
	error_set(&d->refuses, -EHOSTUNREACH, "unreachable", "cannot be asked: %s", why->msg);
	answered(d);
}

static void not_known(struct evac_dest *d, const char *why)
{
	error_clear(&d->refuses);
	error_clear(&d->note);
	free(steal_ptr(&d->room));
	d->known = false;
	error_set(&d->note, -EOPNOTSUPP, "not-supported", "%s", why);
	answered(d);
}

/* --- the answer --- */

static void take_refusal(struct evac_dest *d)
{
	error_clear(&d->refuses);
	if (d->room->flags & MSG_ROOM_CORDONED)
		error_set(&d->refuses, -EBUSY, "host-cordoned",
			  "is cordoned and accepts no guests");
	else if (d->room->flags & MSG_ROOM_ENDING)
		error_set(&d->refuses, -ESHUTDOWN, "ending", "is being stopped");
}

static void take_room(struct evac_dest *d, const struct msg_room *room)
{
	if (!d->room)
		d->room = malloc(sizeof(*d->room));
	if (!d->room) {
		not_known(d, "out of memory");
		return;
	}
	*d->room = *room;
	d->known = true;
	d->memory = room->memory;
	d->incoming = room->incoming;
	d->limit = room->limit;
	error_clear(&d->note);
	d->attempts = 0;
	take_refusal(d);
	conn_free(steal_ptr(&d->conn));
	answered(d);
}

static void on_message(struct conn *c, const struct msg *msg, void *arg)
{
	struct evac_dest *d = arg;
	struct error err = {0};

	(void)c;
	if (msg->type == MSG_ROOM) {
		take_room(d, &msg->room);
		return;
	}
	error_set(&err, -EPROTO, "no-answer", "asked %s and got %s%s%s", d->to,
		  msg_type_name(msg->type), msg->type == MSG_ERROR ? ": " : "",
		  msg->type == MSG_ERROR ? msg->error.message : "");
	not_answered(d, &err);
}

static void on_closed(struct conn *c, const struct error *err, void *arg)
{
	(void)c;
	not_answered(arg, err);
}

static const struct conn_ops probe_ops = {.message = on_message, .closed = on_closed};

/* --- the question --- */

static void on_dialled(void *arg, struct tls_chan *chan, const struct msg_hello_ack *ack,
		       const struct error *why)
{
	struct evac_dest *d = arg;
	struct error err = {0};

	d->dial = NULL;
	if (!chan) {
		not_answered(d, why);
		return;
	}
	if (!(ack->capabilities & MSG_CAP_ROOM)) {
		tls_chan_free(chan);
		not_known(d, "its agent is too old to be asked what it has to spare");
		return;
	}
	d->conn = conn_new(d->e->s->loop, chan, false, MSG_CHANNEL_QUERY, &probe_ops, d);
	if (!d->conn || conn_send_simple(d->conn, MSG_PROBE) < 0) {
		error_set(&err, -ENOMEM, NULL, "out of memory");
		not_answered(d, &err);
		return;
	}
	conn_set_timeout(d->conn, ASK_ANSWER_US);
}

static void ask(struct evac_dest *d)
{
	char id[UUID_TEXT_MAX];
	struct dial_to to = {
		.ctx = d->e->s->tls, .host = d->host, .port = d->port, .timeout_us = ASK_DIAL_US};
	struct msg_hello hello = {.version_min = MSG_VERSION_OLDEST,
				  .version_max = MSG_VERSION,
				  .capabilities = MSG_CAP_ROOM,
				  .kind = MSG_CHANNEL_QUERY};

	/* It is about no migration. */
	uuid_parse(fdio_uuid4(id), hello.migration);
	d->dial = dial_start(d->e->s->loop, &to, &hello, on_dialled, d);
	if (!d->dial)
		not_known(d, "out of memory or threads");
}

static void note_early(struct evac *e)
{
	for (size_t i = 0; i < e->n; i++) {
		struct evac_item *it = e->items[i];
		struct migration *m =
			it->outcome == EVAC_MIGRATING ? migration_find(e->s, it->migration) : NULL;

		it->early = m && (m->state == MIG_QUEUED || m->state == MIG_SETUP);
	}
}

void evac_ask_all(struct evac *e)
{
	note_early(e);
	e->asking = true;
	e->asked_us = clock_us();
	for (unsigned int i = 0; i < e->wish.n_to; i++) {
		e->dests[i].answered = false;
		e->dests[i].attempts = 0;
	}
	for (unsigned int i = 0; i < e->wish.n_to; i++)
		ask(&e->dests[i]);
}

void evac_ask_stop(struct evac *e)
{
	e->asking = false;
	for (unsigned int i = 0; i < e->wish.n_to; i++) {
		struct evac_dest *d = &e->dests[i];

		if (d->dial)
			dial_cancel(steal_ptr(&d->dial));
		conn_free(steal_ptr(&d->conn));
	}
}

void evac_host_of(const struct evac_dest *d, struct evac_host *ret)
{
	const struct msg_room *v = d->room;

	*ret = (struct evac_host){.name = d->to,
				  .known = v != NULL,
				  .refuses = error_is_set(&d->refuses) ? &d->refuses : NULL};
	if (!v)
		return;
	ret->memory = v->memory;
	ret->guest_max = v->memory_limit;
	for (unsigned int i = 0; i < v->npools; i++)
		ret->huge[ret->nhuge++] = (struct evac_pool){v->pools[i].size, v->pools[i].unused};
	ret->postcopy = v->flags & MSG_ROOM_POSTCOPY;
	ret->launchers = v->launchers;
	ret->nlaunchers = v->nlaunchers;
}
