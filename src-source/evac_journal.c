/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The journal of an evacuation: state_dir/evacuations/ID.journal. Nothing waits for a record to be synced: what it says
 * outlives this agent's death, and after the host's there is no guest to be moved. Records of guests are not synced at all,
 * the others soon.
 *
 *   created	what was asked for
 *   guest	what became of one: the last record of a guest counts
 *   cancel	nothing more is to be started
 *   ended	how
 *
 * Where a guest is is not read from here: its own migrations' journals say that (mig_journal.c), and they are taken
 * up first. An agent that was started again finds each guest here, away, or held, and goes on from there.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "evac_priv.h"
#include "util/cleanup.h"
#include "util/clock.h"
#include "util/fdio.h"
#include "util/log.h"

#define SUFFIX ".journal"

static int folder(const struct source *s, char *out, size_t cap)
{
	return snprintf(out, cap, "%s/evacuations", s->conf.agent.state_dir) < (int)cap
		       ? 0
		       : -ENAMETOOLONG;
}

static int journal_path(const struct evac *e, char *out, size_t cap)
{
	return snprintf(out, cap, "%s/evacuations/%s" SUFFIX, e->s->conf.agent.state_dir, e->id) <
			       (int)cap
		       ? 0
		       : -ENAMETOOLONG;
}

static void append(struct evac *e, json_t *record, bool sync)
{
	struct error err = {0};

	if (e->journal && (!record || journal_write(e->journal, record, &err) < 0))
		log_error("evacuation %s: the journal cannot be written: %s", e->id, err.msg);
	else if (e->journal && sync)
		journal_sync_apart(e->journal, NULL);
	json_decref(record);
}

static json_t *created(const struct evac *e)
{
	json_t *to = json_array();

	for (unsigned int i = 0; to && i < e->wish.n_to; i++)
		json_array_append_new(to, json_string(e->dests[i].to));
	return json_pack("{s:s, s:s, s:s, s:I, s:o, s:i, s:I, s:s, s:I, s:o}", "type", "created",
			 "id", e->id, "key", e->key, "asked", (json_int_t)e->wish.asked, "to", to,
			 "concurrency", (int)e->wish.concurrency, "bandwidth",
			 (json_int_t)e->wish.bandwidth, "order", evac_order_name(e->wish.order),
			 "created_at", (json_int_t)e->created_us, "options",
			 conf_options_json(&e->wish.options));
}

int evac_journal_open(struct evac *e, struct error *err)
{
	char path[4096];
	json_t *record;
	int r = folder(e->s, path, sizeof(path));

	if (!r)
		r = fdio_mkdir_p(path, 0750);
	if (!r)
		r = journal_path(e, path, sizeof(path));
	if (r < 0)
		return error_set(err, r, NULL, "cannot make the folder of journals in %s: %s",
				 e->s->conf.agent.state_dir, strerror(-r));
	r = journal_create(path, &e->journal, err);
	if (!r)
		r = journal_sync_by(e->journal, e->s->journals, err);
	if (r < 0)
		return r;
	record = created(e);
	r = record ? journal_append_apart(e->journal, record, NULL, err)
		   : error_set(err, -ENOMEM, NULL, "out of memory");
	json_decref(record);
	return r;
}

void evac_journal_item(struct evac *e, const struct evac_item *it)
{
	char uuid[UUID_TEXT_MAX];

	if (!e->journal)
		return;
	append(e,
	       json_pack("{s:s, s:s, s:s, s:I, s:I, s:i, s:s, s:s, s:i, s:I, s:b, s:I, s:s, s:s}",
			 "type", "guest", "name", it->name, "uuid", uuid_text(it->uuid, uuid),
			 "generation", (json_int_t)it->generation, "bytes", (json_int_t)it->bytes,
			 "priority", it->priority, "outcome", evac_outcome_name(it->outcome),
			 "migration", it->migration, "host", it->host, "tried",
			 (json_int_t)it->tried, "attempted", it->attempted, "sent",
			 (json_int_t)it->sent, "code", it->why.code, "message", it->why.msg),
	       false);
}

void evac_journal_note(struct evac *e, const char *type)
{
	append(e, json_pack("{s:s, s:I}", "type", type, "at", (json_int_t)clock_wall_us()), true);
}

void evac_journal_end(struct evac *e)
{
	append(e,
	       json_pack("{s:s, s:s, s:I, s:s, s:s}", "type", "ended", "phase",
			 evac_phase_name(e->phase), "at", (json_int_t)e->ended_us, "code",
			 e->err.code, "message", e->err.msg),
	       true);
	journal_close(steal_ptr(&e->journal));
}

void evac_journal_remove(const struct evac *e)
{
	char path[4096];
	int r = e->wish.dry_run ? 0 : journal_path(e, path, sizeof(path));

	if (r < 0 || (!e->wish.dry_run && unlink(path) < 0 && errno != ENOENT))
		log_warn("the journal of evacuation %s stays: %s", e->id,
			 strerror(r < 0 ? -r : errno));
}

/* --- after a restart --- */

static int take_to(struct evac *e, const json_t *to)
{
	size_t i;
	json_t *v;

	if (!json_array_size(to) || json_array_size(to) > EVAC_HOSTS_MAX)
		return -EBADMSG;
	json_array_foreach(to, i, v) {
		struct evac_dest *d = &e->dests[i];

		if (!json_is_string(v) || evac_address(d, json_string_value(v), NULL) < 0)
			return -EBADMSG;
		d->e = e;
		e->wish.to[i] = d->to;
		e->wish.n_to++;
	}
	return 0;
}

static int take_created(struct evac *e, json_t *rec)
{
	const char *type, *id, *key, *order;
	json_t *to, *options;
	json_int_t bandwidth, at, asked = 0;
	uint8_t raw[UUID_LEN];
	int concurrency;

	if (json_unpack(rec, "{s:s, s:s, s:s, s:o, s:i, s:I, s:s, s:I, s:o, s?I}", "type", &type,
			"id", &id, "key", &key, "to", &to, "concurrency", &concurrency, "bandwidth",
			&bandwidth, "order", &order, "created_at", &at, "options", &options,
			"asked", &asked) ||
	    strcmp(type, "created") != 0 || uuid_parse(id, raw) || strlen(key) >= sizeof(e->key) ||
	    concurrency < 1 || concurrency > EVAC_CONCURRENCY_MAX || bandwidth < 0 ||
	    evac_order_parse(order, &e->wish.order, NULL))
		return -EBADMSG;
	strcpy(e->id, id);
	strcpy(e->key, key);
	e->wish.asked = (uint64_t)asked;
	e->wish.concurrency = (unsigned int)concurrency;
	e->wish.bandwidth = (uint64_t)bandwidth;
	e->created_us = (uint64_t)at;
	conf_options_defaults(&e->wish.options);
	return conf_options_read(options, "options", &e->wish.options, NULL) ? -EBADMSG
									     : take_to(e, to);
}

static int parse_name(const char *name, const char *(*name_of)(int i), int n)
{
	for (int i = 0; i < n; i++)
		if (!strcmp(name, name_of(i)))
			return i;
	return -EBADMSG;
}

static const char *nth_outcome(int i)
{
	return evac_outcome_name((enum evac_outcome)i);
}

static const char *nth_phase(int i)
{
	return evac_phase_name((enum evac_phase)i);
}

static struct evac_item *item_of(struct evac *e, const char *name, const uint8_t *uuid)
{
	for (size_t i = e->n; i > 0; i--)
		if (!strcmp(e->items[i - 1]->name, name) &&
		    !memcmp(e->items[i - 1]->uuid, uuid, UUID_LEN))
			return e->items[i - 1];
	return evac_add(e, name);
}

static int take_guest(struct evac *e, json_t *rec)
{
	const char *name, *uuid, *outcome, *migration, *code, *message;
	json_int_t generation, bytes, tried, sent;
	int priority, host, attempted, o;
	uint8_t raw[UUID_LEN];
	struct evac_item *it;

	if (json_unpack(rec, "{s:s, s:s, s:I, s:I, s:i, s:s, s:s, s:i, s:I, s:b, s:I, s:s, s:s}",
			"name", &name, "uuid", &uuid, "generation", &generation, "bytes", &bytes,
			"priority", &priority, "outcome", &outcome, "migration", &migration, "host",
			&host, "tried", &tried, "attempted", &attempted, "sent", &sent, "code",
			&code, "message", &message) ||
	    strlen(name) >= CONF_NAME_MAX || uuid_parse(uuid, raw) ||
	    strlen(migration) >= UUID_TEXT_MAX || host < -1 || host >= (int)e->wish.n_to)
		return -EBADMSG;
	o = parse_name(outcome, nth_outcome, EVAC_OUTCOMES_);
	it = o < 0 ? NULL : item_of(e, name, raw);
	if (!it)
		return o < 0 ? o : -ENOMEM;
	memcpy(it->uuid, raw, sizeof(it->uuid));
	it->generation = (uint64_t)generation;
	it->bytes = (uint64_t)bytes;
	it->priority = priority;
	it->outcome = (enum evac_outcome)o;
	strcpy(it->migration, migration);
	it->host = host;
	it->tried = (uint32_t)tried;
	it->attempted = attempted;
	it->sent = (uint64_t)sent;
	error_clear(&it->why);
	if (*code)
		error_set(&it->why, -EIO, code, "%s", message);
	return 0;
}

static int take_ended(struct evac *e, json_t *rec)
{
	const char *phase, *code, *message;
	json_int_t at;
	int p;

	if (json_unpack(rec, "{s:s, s:I, s:s, s:s}", "phase", &phase, "at", &at, "code", &code,
			"message", &message))
		return -EBADMSG;
	p = parse_name(phase, nth_phase, EVAC_PHASES_);
	if (p < EVAC_COMPLETED)
		return -EBADMSG;
	e->phase = (enum evac_phase)p;
	e->ended_us = (uint64_t)at;
	if (*code)
		error_set(&e->err, -EIO, code, "%s", message);
	return 0;
}

static int replay(struct evac *e, json_t *records)
{
	size_t i;
	json_t *rec;
	int r = take_created(e, json_array_get(records, 0));

	json_array_foreach(records, i, rec) {
		const char *type = json_string_value(json_object_get(rec, "type"));

		if (r || !type)
			return r ? r : -EBADMSG;
		if (!strcmp(type, "guest"))
			r = take_guest(e, rec);
		else if (!strcmp(type, "cancel"))
			e->cancelled = true;
		else if (!strcmp(type, "ended"))
			r = take_ended(e, rec);
	}
	return r;
}

static void go_on(struct evac *e)
{
	if (evac_ended(e)) {
		journal_close(steal_ptr(&e->journal));
		return;
	}
	e->phase = e->cancelled ? EVAC_CANCELLING : EVAC_RUNNING;
	e->stale = true;
	log_info("evacuation %s goes on: %s", e->id, evac_phase_name(e->phase));
	evac_tell(e, NULL);
	evac_tick_soon(e, 0);
}

static void load_one(void *arg, const char *path)
{
	struct source *s = arg;
	struct evac *e = calloc(1, sizeof(*e)), **p = &s->evacs;
	json_t *records = NULL;
	struct error err = {0};
	int r = e ? journal_open(path, &e->journal, &records, &err) : -ENOMEM;

	if (!r) {
		e->s = s;
		e->begun_us = clock_us();
		r = replay(e, records);
	}
	if (!r)
		r = journal_sync_by(e->journal, s->journals, &err);
	json_decref(records);
	if (r < 0) {
		/* The guests are none the worse for it: their own journals say where they are. */
		log_error("journal %s cannot be used: %s", path,
			  err.msg[0] ? err.msg : strerror(-r));
		if (e)
			evac_free(e);
		return;
	}
	while (*p && (*p)->created_us > e->created_us)
		p = &(*p)->next;
	e->next = *p;
	*p = e;
	go_on(e);
}

int evac_load_all(struct source *s, struct error *err)
{
	char dir[4096];
	int r = folder(s, dir, sizeof(dir));

	if (r < 0)
		return error_set(err, r, NULL, "state_dir: %s", strerror(-r));
	return journal_each(dir, load_one, s, err);
}
