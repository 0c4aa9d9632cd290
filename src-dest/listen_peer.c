/* SPDX-License-Identifier: Apache-2.0 */
/* A connection until its session has it: HELLO, and what may be asked without a session. */
#include "listen_priv.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "audit/audit.h"
#include "incoming.h"
#include "meter.h"
#include "overrule.h"
#include "room.h"
#include "util/log.h"
#include "util/text.h"

/* --- peers --- */

static void peer_unlink(struct peer *p)
{
	struct peer **at = &p->l->oldest;

	while (*at != p)
		at = &(*at)->next;
	*at = p->next;
	p->l->n_peers--;
}

/* Its connection has another owner, or none. */
static void peer_gone(struct peer *p)
{
	peer_unlink(p);
	journal_wait_cancel(&p->synced);
	free(p);
}

void listen_peer_drop(struct peer *p)
{
	conn_free(p->conn);
	peer_gone(p);
}

void listen_peer_make_way(struct peer *p)
{
	meter_refused(p->l->d, "too-many-connections");
	listen_peer_drop(p);
}

static void audit_refused(const struct peer *p, const struct error *why)
{
	const struct tls_chan *chan = conn_chan(p->conn);
	const char *identity = tls_chan_identity(chan);

	audit_note(p->l->d->audit, "peer-refused",
		   json_pack("{s:s, s:s*, s:s, s:s}", "address", tls_chan_peer(chan), "identity",
			     identity && *identity ? identity : NULL, "code", why->code, "error",
			     why->msg),
		   AUDIT_REFUSED);
}

static void peer_refuse(struct peer *p, const struct error *why)
{
	audit_refused(p, why);
	log_notice("connection from %s (%s) refused: %s", tls_chan_peer(conn_chan(p->conn)),
		   tls_chan_identity(conn_chan(p->conn)), why->msg);
	meter_refused(p->l->d, why->code);
	conn_send_error(p->conn, MSG_ERROR, why);
	dest_close(p->l->d, p->conn);
	peer_gone(p);
}

/* --- HELLO --- */

static uint64_t capabilities(const struct dest *d, uint64_t theirs)
{
	uint64_t ours = MSG_CAP_URGENT | MSG_CAP_SNAPSHOT | MSG_CAP_MEND | MSG_CAP_RESOLVE |
			MSG_CAP_ROOM | (d->conf.limit_interrupted_s ? MSG_CAP_KEEP : 0);

	if (!d->caps_ret && !uffd_caps_postcopy(&d->caps, NULL))
		ours |= MSG_CAP_POSTCOPY;
	return ours & theirs;
}

static int answer_hello(struct peer *p, uint64_t caps, struct error *err)
{
	struct msg *m = calloc(1, sizeof(*m));
	int r;

	if (!m)
		return error_set(err, -ENOMEM, NULL, "out of memory");
	m->type = MSG_HELLO_ACK;
	m->hello_ack = (struct msg_hello_ack){.version = p->version, .capabilities = caps};
	if (p->again)
		memcpy(m->hello_ack.token, p->token, MSG_TOKEN_LEN);
	r = conn_send(p->conn, m);
	explicit_bzero(m, sizeof(*m));
	free(m);
	return r ? error_set(err, r, NULL, "HELLO_ACK: %s", strerror(-r)) : 0;
}

/* The channel leaves the loop once HELLO_ACK is out: see on_drained(). */
static int hello_data(struct peer *p, struct error *err)
{
	struct incoming *inc = incoming_find(p->l->d, p->hello.migration);
	int r;

	if (!inc)
		return error_set(err, -EACCES, "bad-token",
				 "the token is not that of this migration");
	r = incoming_may_join(inc, &p->hello, tls_chan_identity(conn_chan(p->conn)), err);
	if (r)
		return r;
	if (p->version != incoming_version(inc))
		return error_set(err, -EPROTO, "version",
				 "a channel of version %u of the protocol for a session of version "
				 "%u",
				 p->version, incoming_version(inc));
	p->answered = true;
	return answer_hello(p, incoming_capabilities(inc), err);
}

/* No incoming is behind it: what does its record say? Return: 0 if there is none, or it is not theirs */
static int check_past(const struct peer *p, struct error *err)
{
	char id[UUID_TEXT_MAX];
	const struct past *past = history_find(p->l->d->history, uuid_text(p->hello.migration, id));

	if (!past || strcmp(past->identity, tls_chan_identity(conn_chan(p->conn))) != 0)
		return 0;
	switch (past->fate) {
	case HISTORY_GONE:
		return error_set(err, -ESRCH, "guest-gone", "guest %s has died here", past->name);
	case HISTORY_OWNER:
		return error_set(
			err, -EBUSY, "guest-held",
			"guest %s has not been taken over yet since this agent was started "
			"again: try again; if it stays so, the agent's log says why",
			past->name);
	default:
		return error_set(err, -EEXIST, "migration-ended",
				 "this migration of guest %s has ended here", past->name);
	}
}

static int hello_control(struct peer *p, struct error *err)
{
	struct dest *d = p->l->d;
	struct incoming *inc = incoming_find(d, p->hello.migration);
	uint64_t caps = capabilities(d, p->hello.capabilities);
	int r;

	if (!inc) {
		r = check_past(p, err);
		if (!r)
			r = incoming_open(d, p->conn, &p->hello, caps, err);
		if (!r)
			peer_gone(p);
		return r;
	}
	r = incoming_may_resume(inc, tls_chan_identity(conn_chan(p->conn)), p->token, err);
	if (r)
		return r;
	p->again = true;
	conn_set_timeout(p->conn, MSG_HELLO_TIMEOUT_US);
	return answer_hello(p, caps, err);
}

static int on_resume(struct peer *p, const struct msg_resume *m, struct error *err)
{
	struct dest *d = p->l->d;
	struct incoming *inc = incoming_find(d, p->hello.migration);
	int r = -ENOENT;

	if (inc)
		r = incoming_resume(inc, p->conn, &p->hello, p->token, m,
				    capabilities(d, p->hello.capabilities), err);
	else
		error_set(err, r, "migration-ended", "the migration has ended here");
	if (!r)
		peer_gone(p);
	return r;
}

static int hello_query(struct peer *p, struct error *err)
{
	p->query = true;
	conn_set_channel(p->conn, MSG_CHANNEL_QUERY);
	conn_set_timeout(p->conn, MSG_HELLO_TIMEOUT_US);
	return answer_hello(p, capabilities(p->l->d, p->hello.capabilities), err);
}

static int on_hello(struct peer *p, const struct msg_hello *h, struct error *err)
{
	p->version = msg_version_common(h->version_min, h->version_max);
	if (!p->version)
		return error_set(
			err, -EPROTO, "version",
			"the source speaks versions %u to %u of the protocol, this side %d to %d: "
			"bring the older of the two agents up to date",
			h->version_min, h->version_max, MSG_VERSION_OLDEST, MSG_VERSION);
	p->hello = *h;
	switch (h->kind) {
	case MSG_CHANNEL_CONTROL:
		return hello_control(p, err);
	case MSG_CHANNEL_QUERY:
		return hello_query(p, err);
	default:
		return hello_data(p, err);
	}
}

/* --- QUERY, KEPT --- */

static enum msg_answer ask(struct dest *d, const struct msg_hello *h, const char *identity,
			   uint64_t generation)
{
	struct incoming *inc = incoming_find(d, h->migration);
	char id[UUID_TEXT_MAX];
	struct past *p;

	if (inc)
		return incoming_query(inc, identity, generation);
	p = history_find(d->history, uuid_text(h->migration, id));
	if (p)
		history_settle(d->history, p);
	return p ? history_answer(p, identity, generation) : MSG_ANSWER_UNKNOWN;
}

static void answer_query(struct peer *p);

static void on_synced(struct journal_wait *w, int ret, const struct error *err)
{
	(void)ret;
	(void)err;
	answer_query(w->arg);
}

/* What is not on the disk yet is told to nobody. Return: whether it is waited for */
static bool await_record(struct peer *p)
{
	char id[UUID_TEXT_MAX];
	struct past *past = history_find(p->l->d->history, uuid_text(p->hello.migration, id));

	if (!past || !history_pending(past))
		return false;
	p->synced.fn = on_synced;
	p->synced.arg = p;
	history_await(past, &p->synced);
	return true;
}

static enum msg_answer query(const struct peer *p)
{
	const char *identity = tls_chan_identity(conn_chan(p->conn));

	return p->kept ? overrule(p->l->d, p->hello.migration, identity, p->generation)
		       : ask(p->l->d, &p->hello, identity, p->generation);
}

static void answer_query(struct peer *p)
{
	static const char *const words[] = {"unknown", "not-started", "running", "completed",
					    "gone"};
	const char *identity = tls_chan_identity(conn_chan(p->conn));
	enum msg_answer answer;
	char id[UUID_TEXT_MAX];
	struct msg *m;

	if (await_record(p))
		return;
	answer = query(p);
	/* The question itself may have ended it. */
	if (answer == MSG_ANSWER_UNKNOWN && await_record(p))
		return;
	m = calloc(1, sizeof(*m));
	if (m) {
		m->type = MSG_ANSWER;
		m->answer.answer = (uint8_t)answer;
		log_notice("%s %s migration %s, generation %llu: %s", identity,
			   p->kept ? "has kept the guest of" : "asks about",
			   uuid_text(p->hello.migration, id), (unsigned long long)p->generation,
			   words[answer]);
		conn_send(p->conn, m);
		free(m);
	}
	dest_close(p->l->d, p->conn);
	peer_gone(p);
}

static void on_query(struct peer *p, bool kept, uint64_t generation)
{
	p->asked = true;
	p->kept = kept;
	p->generation = generation;
	answer_query(p);
}

/* --- PROBE --- */

static void on_probe(struct peer *p)
{
	const char *identity = tls_chan_identity(conn_chan(p->conn));
	struct msg *m = calloc(1, sizeof(*m));

	if (m) {
		m->type = MSG_ROOM;
		room_fill(p->l->d, identity, &m->room);
		conn_send(p->conn, m);
		free(m);
	}
	dest_close(p->l->d, p->conn);
	peer_gone(p);
}

/* --- callbacks of the connection --- */

static void on_established(struct conn *c, void *arg)
{
	struct peer *p = arg;
	const struct conf_dest *conf = &p->l->d->conf;
	struct error err = {0};

	if (tls_allow_check((const char *const *)conf->allow, conf->n_allow, conn_chan(c), &err))
		peer_refuse(p, &err);
}

static void on_message(struct conn *c, const struct msg *m, void *arg)
{
	struct peer *p = arg;
	struct error err = {0};

	(void)c;
	if (p->query && !p->asked && (m->type == MSG_QUERY || m->type == MSG_KEPT)) {
		on_query(p, m->type == MSG_KEPT, m->number.value);
		return;
	}
	if (p->query && !p->asked && m->type == MSG_PROBE) {
		on_probe(p);
		return;
	}
	if (p->again && m->type == MSG_RESUME) {
		if (!on_resume(p, &m->resume, &err))
			return;
	} else if (p->query || p->again || p->answered || m->type != MSG_HELLO)
		error_set(&err, -EBADMSG, "unexpected-message", "%s where %s was due",
			  msg_type_name(m->type),
			  p->query   ? "QUERY"
			  : p->again ? "RESUME"
				     : "HELLO");
	else if (!on_hello(p, &m->hello, &err))
		return;
	peer_refuse(p, &err);
}

static void on_closed(struct conn *c, const struct error *why, void *arg)
{
	log_notice("connection from %s refused: %s (%s)", tls_chan_peer(conn_chan(c)), why->msg,
		   why->code);
	audit_refused(arg, why);
	listen_peer_drop(arg);
}

/* Looked up again: the session may have ended meanwhile, or the place been taken. */
static int join(struct peer *p, struct tls_chan *chan, struct error *err)
{
	struct incoming *inc = incoming_find(p->l->d, p->hello.migration);
	int r = -EACCES;

	if (!inc)
		error_set(err, r, "bad-token", "the migration has ended");
	else
		r = incoming_may_join(inc, &p->hello, tls_chan_identity(chan), err);
	if (r) {
		tls_chan_free(chan);
		return r;
	}
	return incoming_join(inc, p->hello.kind, p->hello.index, chan, err);
}

static void on_drained(struct conn *c, void *arg)
{
	struct peer *p = arg;
	struct error err = {0};
	struct tls_chan *chan;

	if (!p->answered)
		return;
	chan = conn_release(c);
	if (!chan)
		return;
	if (join(p, chan, &err))
		log_notice("a %s channel was not taken: %s", msg_channel_name(p->hello.kind),
			   err.msg);
	peer_gone(p);
}

static const struct conn_ops peer_ops = {.established = on_established,
					 .message = on_message,
					 .closed = on_closed,
					 .drained = on_drained};

struct peer *listen_peer_new(struct listener *l, int fd)
{
	struct peer *p = calloc(1, sizeof(*p));
	struct tls_chan *chan;

	if (!p || tls_chan_accept(l->d->tls, fd, &chan)) {
		close(fd);
		free(p);
		return NULL;
	}
	p->l = l;
	p->conn = conn_new(l->d->loop, chan, true, MSG_CHANNEL_CONTROL, &peer_ops, p);
	if (!p->conn) {
		free(p);
		return NULL;
	}
	return p;
}
