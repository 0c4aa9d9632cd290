/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The journal of a migration: state_dir/migrations/ID.journal. Each record is written at once, and what it
 * announces waits until it is synced, which is done by a thread (util/journal_sync.h):
 *
 *   created		what a restarted agent must know to ask the destination. The setup waits for it
 *   may-hand-over	from here on a restarted agent does not know whether COMMIT was sent. INTENT waits for it,
 *			and so do the pause and COMMIT
 *   rolled-back	the guest belongs to this host again. Nobody is told, nor the guest let go, before it is
 *   running		the destination runs it: not synced, because it is said again when it is asked
 *   held		the destination runs it, the session is lost. Announces nothing
 *   moved		the destination is to be reached under another address. Synced by the call
 *   completed		the receipt came. The end of the copy here waits for it
 *   resolved		an operator has decided whose copy lives on. Synced by the call
 *   unresolved		which came to nothing: the guest could not be let go here. Announces nothing
 *   ended		nothing more will happen; state and error for those who ask later. Announces nothing
 *   told		the destination knows of the guest that was kept here. Announces nothing
 *   left		the copy here has ended behind all that: the job holds nothing any more. Announces nothing
 *
 * "moved" and "resolved" are an operator's commands, which are answered when they are on the disk: for these two the
 * loop waits.
 *
 * While a step waits the job can go elsewhere: it is cancelled, its session is lost, its guest dies. All that leads
 * to the record "rolled-back", whose wait takes the place of the one before (mig_journal_then()).
 *
 * What a restarted agent makes of the last one that says where the guest is: doubt_restarted(). It reads records
 * that were written, also those that were not on the disk yet when its earlier life was killed: their step was not
 * announced, and each is as true without it.
 *
 * A job has a file of its own with a handful of records; it goes when the job is forgotten, which is when
 * SOURCE_JOBS_MAX newer ones have ended and it holds no guest.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "migration_priv.h"
#include "util/cleanup.h"
#include "util/clock.h"
#include "util/fdio.h"
#include "util/log.h"

static int folder(const struct source *s, char *out, size_t cap)
{
	return snprintf(out, cap, "%s/migrations", s->conf.agent.state_dir) < (int)cap
		       ? 0
		       : -ENAMETOOLONG;
}

static int journal_path(const struct migration *m, char *out, size_t cap)
{
	return snprintf(out, cap, "%s/migrations/%s.journal", m->src->conf.agent.state_dir, m->id) <
			       (int)cap
		       ? 0
		       : -ENAMETOOLONG;
}

static int cannot(const struct migration *m, int r, struct error *err)
{
	return error_set(err, r, NULL, "cannot write the journal of migration %s: %s", m->id,
			 strerror(-r));
}

/* Of a command, which is answered when it is on the disk. */
static int append_now(struct migration *m, json_t *record, struct error *err)
{
	int r = record && m->journal ? journal_append(m->journal, record, err) : -ENOMEM;

	json_decref(record);
	return r < 0 ? cannot(m, r, err) : 0;
}

/* @w: who waits, NULL: nobody */
static int append(struct migration *m, json_t *record, struct journal_wait *w, struct error *err)
{
	int r = record && m->journal ? journal_append_apart(m->journal, record, w, err) : -ENOMEM;

	json_decref(record);
	return r < 0 ? cannot(m, r, err) : 0;
}

static json_t *plain(const char *type)
{
	return json_pack("{s:s, s:I}", "type", type, "at", (json_int_t)clock_wall_us());
}

int mig_journal_note(struct migration *m, const char *type, struct error *err)
{
	return append(m, plain(type), NULL, err);
}

static void on_synced(struct journal_wait *w, int ret, const struct error *err)
{
	struct migration *m = w->arg;

	m->noted(m, ret < 0 ? err : NULL);
}

static struct journal_wait *wait_for(struct migration *m, mig_noted_fn *then)
{
	m->noted = then;
	m->synced.fn = on_synced;
	m->synced.arg = m;
	return &m->synced;
}

int mig_journal_then(struct migration *m, const char *type, mig_noted_fn *then, struct error *err)
{
	journal_wait_cancel(&m->synced);
	return append(m, plain(type), wait_for(m, then), err);
}

void mig_journal_running(struct migration *m)
{
	json_t *rec = json_pack("{s:s, s:I, s:b, s:I}", "type", "running", "downtime_us",
				(json_int_t)m->downtime_us, "at_most", m->downtime_most, "at",
				(json_int_t)clock_wall_us());
	struct error err = {0};

	if (rec && m->journal && journal_write(m->journal, rec, &err) < 0)
		log_warn("%s", err.msg);
	json_decref(rec);
}

static int reopen(struct migration *m, struct error *err)
{
	char path[4096];
	int r = m->journal ? 0 : journal_path(m, path, sizeof(path));

	if (r < 0)
		return error_set(err, r, NULL, "state_dir: %s", strerror(-r));
	if (m->journal)
		return 0;
	r = journal_open(path, &m->journal, NULL, err);
	if (!r)
		r = journal_sync_by(m->journal, m->src->journals, err);
	if (r < 0)
		mig_journal_shut(m);
	return r;
}

void mig_journal_shut(struct migration *m)
{
	journal_close(steal_ptr(&m->journal));
}

int mig_journal_resolved(struct migration *m, enum mig_keep keep, struct error *err)
{
	int r = reopen(m, err);

	return r ? r
		 : append_now(m,
			      json_pack("{s:s, s:s, s:I}", "type", "resolved", "keep",
					mig_keep_name(keep), "at", (json_int_t)clock_wall_us()),
			      err);
}

int mig_journal_told(struct migration *m, enum msg_answer answer, struct error *err)
{
	int r = reopen(m, err);

	if (!r)
		r = append(m,
			   json_pack("{s:s, s:i, s:I}", "type", "told", "answer", (int)answer, "at",
				     (json_int_t)clock_wall_us()),
			   NULL, err);
	mig_journal_shut(m);
	return r;
}

void mig_journal_left(struct migration *m)
{
	struct error err = {0};

	if (m->left)
		return;
	m->left = true;
	if (reopen(m, &err) < 0 || mig_journal_note(m, "left", &err) < 0)
		log_info("%s", err.msg);
	if (mig_state_ended(m->state))
		mig_journal_shut(m);
}

int mig_journal_moved(struct migration *m, const char *host, const char *port, struct error *err)
{
	return append_now(m,
			  json_pack("{s:s, s:s, s:s, s:I}", "type", "moved", "host", host, "port",
				    port, "at", (json_int_t)clock_wall_us()),
			  err);
}

int mig_journal_open(struct migration *m, mig_noted_fn *then, struct error *err)
{
	char path[4096], uuid[UUID_TEXT_MAX], id[UUID_TEXT_MAX];
	int r = folder(m->src, path, sizeof(path));

	if (!r)
		r = fdio_mkdir_p(path, 0750);
	if (!r)
		r = journal_path(m, path, sizeof(path));
	if (r < 0)
		return error_set(err, r, NULL, "cannot make the folder of journals in %s: %s",
				 m->src->conf.agent.state_dir, strerror(-r));
	r = journal_create(path, &m->journal, err);
	if (!r)
		r = journal_sync_by(m->journal, m->src->journals, err);
	if (r < 0)
		return r;
	return append(
		m,
		json_pack("{s:s, s:s, s:s, s:s, s:I, s:s, s:s, s:I, s:s, s:s, s:I, s:b, s:o, s:s*}",
			  "type", "created", "boot", fdio_boot_id(id), "id", m->id, "key", m->key,
			  "asked", (json_int_t)m->asked, "guest", m->guest_name, "uuid",
			  uuid_text(m->uuid, uuid), "generation", (json_int_t)m->generation, "host",
			  m->host, "port", m->port, "created_at", (json_int_t)m->created_us,
			  "paused", m->arrives_paused, "options", conf_options_json(&m->options),
			  "snapshot", m->snapshot ? m->snap.name : NULL),
		wait_for(m, then), err);
}

void mig_journal_end(struct migration *m)
{
	struct error err = {0};

	if (append(m,
		   json_pack("{s:s, s:s, s:b, s:I, s:s, s:s, s:I, s:b, s:b}", "type", "ended",
			     "state", mig_state_name(m->state), "committed", m->committed, "at",
			     (json_int_t)m->ended_us, "code", m->err.code, "message", m->err.msg,
			     "downtime_us", (json_int_t)m->downtime_us, "at_most", m->downtime_most,
			     "refused", m->refused),
		   NULL, &err) < 0)
		log_warn("%s", err.msg);
}

void mig_journal_remove(const struct migration *m)
{
	char path[4096];
	int r = journal_path(m, path, sizeof(path));

	if (r < 0 || (unlink(path) < 0 && errno != ENOENT))
		log_warn("the journal of migration %s stays: %s", m->id,
			 strerror(r < 0 ? -r : errno));
}

/* --- after a restart --- */

static void take_address(struct migration *m, const char *host, const char *port)
{
	strcpy(m->host, host);
	strcpy(m->port, port);
	snprintf(m->to, sizeof(m->to), strchr(host, ':') ? "[%s]:%s" : "%s:%s", host, port);
}

static int take_moved(struct migration *m, json_t *rec)
{
	const char *host, *port;

	if (json_unpack(rec, "{s:s, s:s}", "host", &host, "port", &port) ||
	    strlen(host) >= sizeof(m->host) || strlen(port) >= sizeof(m->port))
		return -EBADMSG;
	take_address(m, host, port);
	return 0;
}

static int take_created(struct migration *m, json_t *rec)
{
	const char *id, *key, *guest, *uuid, *host, *port, *image = NULL, *at = NULL;
	char now[UUID_TEXT_MAX];
	json_int_t generation, created, asked = 0;
	struct error err = {0};
	json_t *options;
	int paused;

	if (json_unpack(rec, "{s:s, s:s, s:s, s:s, s:I, s:s, s:s, s:I, s:b, s:o, s?s, s?s, s?I}",
			"id", &id, "key", &key, "guest", &guest, "uuid", &uuid, "generation",
			&generation, "host", &host, "port", &port, "created_at", &created, "paused",
			&paused, "options", &options, "snapshot", &image, "boot", &at, "asked",
			&asked) ||
	    (image && strlen(image) >= sizeof(m->snap.name)) || uuid_parse(id, m->id_raw) ||
	    uuid_parse(uuid, m->uuid) || strlen(guest) >= sizeof(m->guest_name) ||
	    strlen(host) >= sizeof(m->host) || strlen(port) >= sizeof(m->port) ||
	    strlen(key) >= sizeof(m->key))
		return -EBADMSG;
	strcpy(m->id, id);
	m->snapshot = image;
	strcpy(m->snap.name, image ? image : "");
	strcpy(m->key, key);
	m->asked = (uint64_t)asked;
	strcpy(m->guest_name, guest);
	take_address(m, host, port);
	m->generation = (uint64_t)generation;
	m->created_us = (uint64_t)created;
	m->arrives_paused = paused;
	/* Its process has ended with the host. */
	m->left = at && *at && *fdio_boot_id(now) && strcmp(at, now) != 0;
	conf_options_defaults(&m->options);
	return conf_options_read(options, "options", &m->options, &err);
}

static void take_downtime(struct migration *m, json_t *rec)
{
	m->downtime_us = (uint64_t)json_integer_value(json_object_get(rec, "downtime_us"));
	m->downtime_most = json_is_true(json_object_get(rec, "at_most"));
}

static void take_resolved(struct migration *m, json_t *rec)
{
	m->resolve.at_us = (uint64_t)json_integer_value(json_object_get(rec, "at"));
	if (mig_keep_parse(json_string_value(json_object_get(rec, "keep")), &m->resolve.keep))
		m->resolve.keep = MIG_KEEP_DESTINATION; /* the guest here stays where it is */
}

static void take_told(struct migration *m, json_t *rec)
{
	json_int_t answer = json_integer_value(json_object_get(rec, "answer"));

	m->resolve.told = true;
	m->resolve.answer = answer >= 0 && answer <= MSG_ANSWER_GONE ? (enum msg_answer)answer
								     : MSG_ANSWER_UNKNOWN;
}

static void take_ended(struct migration *m, json_t *rec)
{
	const char *state, *code, *message;
	int committed, refused = 0;
	json_int_t at;

	if (json_unpack(rec, "{s:s, s:b, s:I, s:s, s:s, s?b}", "state", &state, "committed",
			&committed, "at", &at, "code", &code, "message", &message, "refused",
			&refused))
		return;
	m->refused = refused;
	take_downtime(m, rec);
	m->state = !strcmp(state, "completed")   ? MIG_COMPLETED
		   : !strcmp(state, "cancelled") ? MIG_CANCELLED
						 : MIG_FAILED;
	m->committed = committed;
	m->ended_us = (uint64_t)at;
	if (*code)
		error_set(&m->err, -EIO, code, "%s", message);
}

/* What says where the guest is, of records without an operator's part. */
static const struct {
	const char *type;
	enum mig_record record;
} placing[] = {
	{"created", MIG_REC_CREATED},         {"may-hand-over", MIG_REC_MAY_HAND_OVER},
	{"running", MIG_REC_RUNNING},         {"held", MIG_REC_HELD},
	{"rolled-back", MIG_REC_ROLLED_BACK}, {"completed", MIG_REC_COMPLETED},
};

static enum mig_record placing_record(const char *type, enum mig_record before)
{
	for (size_t i = 0; i < ARRAY_SIZE(placing); i++)
		if (!strcmp(type, placing[i].type))
			return placing[i].record;
	return before;
}

/* What a record says besides. Return: 0 or -EBADMSG */
static int take_record(struct migration *m, const char *type, json_t *rec)
{
	if (!strcmp(type, "moved"))
		return take_moved(m, rec);
	if (!strcmp(type, "may-hand-over"))
		m->may_us = (uint64_t)json_integer_value(json_object_get(rec, "at"));
	else if (!strcmp(type, "running"))
		take_downtime(m, rec);
	else if (!strcmp(type, "held"))
		m->again.noted = true;
	else if (!strcmp(type, "ended"))
		take_ended(m, rec);
	else if (!strcmp(type, "resolved"))
		take_resolved(m, rec);
	else if (!strcmp(type, "unresolved"))
		m->resolve = (struct mig_resolve){0};
	else if (!strcmp(type, "told"))
		take_told(m, rec);
	else if (!strcmp(type, "left"))
		m->left = true;
	return 0;
}

/* The records in their order; what they leave open is the state to go on in. */
static int replay(struct migration *m, json_t *records)
{
	enum mig_record last = MIG_REC_CREATED;
	struct doubt_place place;
	size_t i;
	json_t *rec;

	if (json_array_size(records) == 0 || take_created(m, json_array_get(records, 0)) < 0)
		return -EBADMSG;
	json_array_foreach(records, i, rec) {
		const char *type = json_string_value(json_object_get(rec, "type"));

		if (!type || take_record(m, type, rec) < 0)
			return -EBADMSG;
		last = placing_record(type, last);
	}
	if (m->resolve.keep)
		last = m->resolve.keep == MIG_KEEP_SOURCE ? MIG_REC_KEPT_SOURCE
							  : MIG_REC_KEPT_DESTINATION;
	place = doubt_restarted(last);
	if (!m->ended_us)
		m->state = place.state;
	if (!m->ended_us || m->resolve.keep)
		m->committed = place.committed;
	return 0;
}

static void settle(struct migration *m)
{
	bool cut_off = m->state == MIG_FAILED && !m->resolve.keep;
	struct source_guest *sg;

	if (m->ended_us) {
		if (mig_telling(m))
			mig_act_ask(m);
		return;
	}
	if (m->resolve.keep)
		mig_resolve_error(m, &m->err);
	else if (m->state == MIG_FAILED)
		error_set(&m->err, -ECANCELED, "agent-restarted",
			  "the source agent was restarted before the %s",
			  m->snapshot ? "image was complete" : "hand-over");
	else if (m->state == MIG_IN_DOUBT)
		error_set(&m->again.why, -ECANCELED, "agent-restarted",
			  "the source agent was restarted in the hand-over: only %s knows whether "
			  "the guest was taken over",
			  m->to);
	else
		error_set(&m->again.why, -ECANCELED, "agent-restarted",
			  "the source agent was restarted while the guest ran at %s", m->to);
	sg = guests_find(m->src, m->guest_name);
	if (sg && m->committed) {
		m->guest = sg;
		sg->migration = m;
		sg->handed_over = mig_state_ended(m->state) && sg->desc.driver != GUEST_DRIVER_QEMU;
	}
	mig_tell_restarted(m);
	if (mig_state_ended(m->state))
		mig_act_finish(m);
	else
		mig_act_ask(m);
	if (!cut_off || m->snapshot)
		return;
	/* What was agreed on is not in the journal: it may be kept there. */
	m->capabilities = MSG_CAP_KEEP;
	mig_farewell(m);
}

static void load_one(void *arg, const char *path)
{
	struct source *s = arg;
	struct migration *m = calloc(1, sizeof(*m)), **p = &s->migrations;
	json_t *records = NULL;
	struct error err = {0};
	int r = m ? journal_open(path, &m->journal, &records, &err) : -ENOMEM;

	if (!r) {
		m->src = s;
		m->tracking = "none";
		r = replay(m, records);
	}
	/* Of those that have ended there are many; no descriptor is held for one of them. */
	if (!r && m->ended_us)
		mig_journal_shut(m);
	else if (!r)
		r = journal_sync_by(m->journal, s->journals, &err);
	json_decref(records);
	if (r < 0) {
		/* Not deleted: it may be the only trace of where a guest is. */
		log_error("journal %s cannot be used: %s", path,
			  err.msg[0] ? err.msg : strerror(-r));
		if (m)
			journal_close(m->journal);
		free(m);
		return;
	}
	while (*p && (*p)->created_us > m->created_us)
		p = &(*p)->next;
	m->next = *p;
	*p = m;
}

/* The guests that jobs hold must be known before they attach, described or not. */
static int describe_held(struct source *s, struct migration *m, struct error *err)
{
	if (m->ended_us || !m->committed || guests_reserve(s, m->guest_name))
		return 0;
	return error_set(err, -ENOMEM, NULL, "out of memory");
}

int migration_load_all(struct source *s, struct error *err)
{
	char dir[4096];
	int r = folder(s, dir, sizeof(dir));

	if (r < 0)
		return error_set(err, r, NULL, "state_dir: %s", strerror(-r));
	r = journal_each(dir, load_one, s, err);
	for (struct migration *m = s->migrations; m && !r; m = m->next)
		r = describe_held(s, m, err);
	for (struct migration *m = s->migrations; m && !r; m = m->next)
		settle(m);
	mig_prune(s);
	return r;
}
