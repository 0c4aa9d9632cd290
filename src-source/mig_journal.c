/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The journal of a migration: state_dir/migrations/ID.journal. Each record is synced before the step
 * that it announces:
 *
 *   created		what a restarted agent must know to ask the destination
 *   may-hand-over	from here on a restarted agent does not know whether COMMIT was sent
 *   rolled-back	the guest belongs to this host again
 *   held		the destination runs it, the session is lost
 *   moved		the destination is to be reached under another address
 *   completed		the receipt came
 *   ended		nothing more will happen; state and error for those who ask later
 */
#include <dirent.h>
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
	return snprintf(out, cap, "%s/migrations", s->conf.state_dir) < (int)cap ? 0
										 : -ENAMETOOLONG;
}

static int journal_path(const struct migration *m, char *out, size_t cap)
{
	return snprintf(out, cap, "%s/migrations/%s.journal", m->src->conf.state_dir, m->id) <
			       (int)cap
		       ? 0
		       : -ENAMETOOLONG;
}

static int append(struct migration *m, json_t *record, struct error *err)
{
	int r = record && m->journal ? journal_append(m->journal, record, err) : -ENOMEM;

	json_decref(record);
	return r < 0 ? error_set(err, r, NULL, "cannot write the journal of migration %s: %s",
				 m->id, strerror(-r))
		     : 0;
}

int mig_journal_note(struct migration *m, const char *type, struct error *err)
{
	return append(m, json_pack("{s:s, s:I}", "type", type, "at", (json_int_t)clock_wall_us()),
		      err);
}

int mig_journal_moved(struct migration *m, const char *host, const char *port, struct error *err)
{
	return append(m,
		      json_pack("{s:s, s:s, s:s, s:I}", "type", "moved", "host", host, "port", port,
				"at", (json_int_t)clock_wall_us()),
		      err);
}

int mig_journal_open(struct migration *m, struct error *err)
{
	char path[4096], uuid[UUID_TEXT_MAX];
	int r = folder(m->src, path, sizeof(path));

	if (!r)
		r = fdio_mkdir_p(path, 0750);
	if (!r)
		r = journal_path(m, path, sizeof(path));
	if (r < 0)
		return error_set(err, r, NULL, "cannot make the folder of journals in %s: %s",
				 m->src->conf.state_dir, strerror(-r));
	r = journal_open(path, &m->journal, NULL, err);
	if (r < 0)
		return r;
	return append(m,
		      json_pack("{s:s, s:s, s:s, s:s, s:s, s:I, s:s, s:s, s:I, s:b, s:o, s:s*}",
				"type", "created", "id", m->id, "key", m->key, "guest",
				m->guest_name, "uuid", uuid_text(m->uuid, uuid), "generation",
				(json_int_t)m->generation, "host", m->host, "port", m->port,
				"created_at", (json_int_t)m->created_us, "paused",
				m->arrives_paused, "options", conf_options_json(&m->options),
				"snapshot", m->snapshot ? m->snap.name : NULL),
		      err);
}

void mig_journal_end(struct migration *m)
{
	struct error err = {0};

	if (append(m,
		   json_pack("{s:s, s:s, s:b, s:I, s:s, s:s}", "type", "ended", "state",
			     mig_state_name(m->state), "committed", m->committed, "at",
			     (json_int_t)m->ended_us, "code", m->err.code, "message", m->err.msg),
		   &err) < 0)
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
	const char *id, *key, *guest, *uuid, *host, *port, *image = NULL;
	json_int_t generation, created;
	struct error err = {0};
	json_t *options;
	int paused;

	if (json_unpack(rec, "{s:s, s:s, s:s, s:s, s:I, s:s, s:s, s:I, s:b, s:o, s?s}", "id", &id,
			"key", &key, "guest", &guest, "uuid", &uuid, "generation", &generation,
			"host", &host, "port", &port, "created_at", &created, "paused", &paused,
			"options", &options, "snapshot", &image) ||
	    (image && strlen(image) >= sizeof(m->snap.name)) || uuid_parse(id, m->id_raw) ||
	    uuid_parse(uuid, m->uuid) || strlen(guest) >= sizeof(m->guest_name) ||
	    strlen(host) >= sizeof(m->host) || strlen(port) >= sizeof(m->port) ||
	    strlen(key) >= sizeof(m->key))
		return -EBADMSG;
	strcpy(m->id, id);
	m->snapshot = image;
	strcpy(m->snap.name, image ? image : "");
	strcpy(m->key, key);
	strcpy(m->guest_name, guest);
	take_address(m, host, port);
	m->generation = (uint64_t)generation;
	m->created_us = (uint64_t)created;
	m->arrives_paused = paused;
	conf_options_defaults(&m->options);
	return conf_options_read(options, "options", &m->options, &err);
}

static void take_ended(struct migration *m, json_t *rec)
{
	const char *state, *code, *message;
	json_int_t at;
	int committed;

	if (json_unpack(rec, "{s:s, s:b, s:I, s:s, s:s}", "state", &state, "committed", &committed,
			"at", &at, "code", &code, "message", &message))
		return;
	m->state = !strcmp(state, "completed")   ? MIG_COMPLETED
		   : !strcmp(state, "cancelled") ? MIG_CANCELLED
						 : MIG_FAILED;
	m->committed = committed;
	m->ended_us = (uint64_t)at;
	if (*code)
		error_set(&m->err, -EIO, code, "%s", message);
}

/* The records in their order; what they leave open is the state to go on in. */
static int replay(struct migration *m, json_t *records)
{
	size_t i;
	json_t *rec;

	if (json_array_size(records) == 0 || take_created(m, json_array_get(records, 0)) < 0)
		return -EBADMSG;
	m->state = MIG_QUEUED;
	json_array_foreach(records, i, rec) {
		const char *type = json_string_value(json_object_get(rec, "type"));

		if (!type)
			return -EBADMSG;
		if (!strcmp(type, "may-hand-over"))
			m->state = MIG_IN_DOUBT;
		else if (!strcmp(type, "held"))
			m->state = MIG_PAUSED;
		else if (!strcmp(type, "moved") && take_moved(m, rec) < 0)
			return -EBADMSG;
		else if (!strcmp(type, "rolled-back"))
			m->state = MIG_QUEUED;
		else if (!strcmp(type, "completed"))
			m->state = MIG_COMPLETED;
		else if (!strcmp(type, "ended"))
			take_ended(m, rec);
	}
	return 0;
}

static void settle(struct migration *m)
{
	bool cut_off = m->state == MIG_QUEUED;
	struct source_guest *sg;

	if (m->ended_us) {
		journal_close(steal_ptr(&m->journal));
		return;
	}
	if (cut_off) {
		m->state = MIG_FAILED;
		error_set(&m->err, -ECANCELED, "agent-restarted",
			  "the source agent was restarted before the %s",
			  m->snapshot ? "image was complete" : "hand-over");
	}
	m->committed = m->state != MIG_FAILED;
	sg = guests_find(m->src, m->guest_name);
	if (sg && m->committed) {
		m->guest = sg;
		sg->migration = m;
		sg->handed_over = m->state == MIG_COMPLETED && sg->desc.driver != GUEST_DRIVER_QEMU;
	}
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

static void load_one(struct source *s, const char *path)
{
	struct migration *m = calloc(1, sizeof(*m)), **p = &s->migrations;
	json_t *records = NULL;
	struct error err = {0};
	int r = m ? journal_open(path, &m->journal, &records, &err) : -ENOMEM;

	if (!r) {
		m->src = s;
		m->tracking = "none";
		r = replay(m, records);
	}
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
	if (m->ended_us || m->state == MIG_QUEUED || guests_reserve(s, m->guest_name))
		return 0;
	return error_set(err, -ENOMEM, NULL, "out of memory");
}

int migration_load_all(struct source *s, struct error *err)
{
	char dir[4096], path[4096 + 256];
	struct dirent *de;
	DIR *d;
	int r = folder(s, dir, sizeof(dir));

	if (r < 0)
		return error_set(err, r, NULL, "state_dir: %s", strerror(-r));
	d = opendir(dir);
	if (!d)
		return errno == ENOENT ? 0
				       : error_set(err, -errno, NULL, "cannot read %s: %s", dir,
						   strerror(errno));
	while ((de = readdir(d))) {
		size_t len = strlen(de->d_name);

		if (len < 8 || strcmp(de->d_name + len - 8, ".journal") != 0)
			continue;
		snprintf(path, sizeof(path), "%s/%s", dir, de->d_name);
		load_one(s, path);
	}
	closedir(d);
	for (struct migration *m = s->migrations; m && !r; m = m->next)
		r = describe_held(s, m, err);
	for (struct migration *m = s->migrations; m && !r; m = m->next)
		settle(m);
	mig_prune(s);
	return r;
}
