/* SPDX-License-Identifier: Apache-2.0 */
#include "history.h"
#include <assert.h>
#include <dirent.h>
#include <errno.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "proc.h"
#include "util/cleanup.h"
#include "util/clock.h"
#include "util/fdio.h"
#include "util/log.h"

/**
 * struct history - all of them
 * @dir:	state_dir/incoming
 * @journals:	see history_open()
 * @boot:	of now
 * @newest:	list, newest first
 */
struct history {
	char *dir;
	struct journal_syncer *journals;
	char boot[UUID_TEXT_MAX];
	struct past *newest;
};

static const char *const fate_names[] = {
	[HISTORY_SETUP] = "setup",         [HISTORY_MAY_OWN] = "may-own", [HISTORY_OWNER] = "owner",
	[HISTORY_COMPLETED] = "completed", [HISTORY_ABORTED] = "aborted", [HISTORY_GONE] = "gone",
};

static char *path_of(const struct history *h, const char *id)
{
	char *path;

	return asprintf(&path, "%s/%s.journal", h->dir, id) < 0 ? NULL : path;
}

static void past_free(struct past *p)
{
	if (!p)
		return;
	journal_close(p->journal);
	json_decref(p->facts);
	free(p->view);
	json_decref(p->place);
	free(p->identity);
	free(p);
}

/* Nothing more becomes of it, once its last record is on the disk. */
static void drop_journal(struct past *p)
{
	p->dropped = history_pending(p);
	if (p->dropped)
		return;
	journal_close(p->journal);
	p->journal = NULL;
	json_decref(p->place);
	p->place = NULL;
}

bool history_ended(const struct past *p)
{
	switch (p->fate) {
	case HISTORY_COMPLETED:
		return p->registered || !p->same_boot;
	case HISTORY_ABORTED:
	case HISTORY_GONE:
		return true;
	default:
		return !p->same_boot;
	}
}

/* --- facts --- */

static const char *text_at(const json_t *o, const char *key)
{
	const char *s = json_string_value(json_object_get(o, key));

	return s ? s : "";
}

/* A past from its "setup" record. */
static struct past *past_new(const json_t *facts)
{
	struct past *p = calloc(1, sizeof(*p));

	if (!p)
		return NULL;
	snprintf(p->id, sizeof(p->id), "%s", text_at(facts, "id"));
	snprintf(p->name, sizeof(p->name), "%s", text_at(facts, "guest"));
	p->identity = strdup(text_at(facts, "identity"));
	p->generation = (uint64_t)json_integer_value(json_object_get(facts, "generation"));
	p->facts = json_deep_copy(facts);
	if (!p->identity || !p->facts || uuid_parse(text_at(facts, "uuid"), p->uuid)) {
		past_free(p);
		return NULL;
	}
	return p;
}

static int fate_of(const char *name)
{
	for (size_t i = 0; i < ARRAY_SIZE(fate_names); i++)
		if (!strcmp(name, fate_names[i]))
			return (int)i;
	return -1;
}

/* --- records --- */

static json_t *stamped(const char *name, const json_t *more)
{
	char boot[UUID_TEXT_MAX];
	json_t *rec = more ? json_deep_copy(more) : json_object();

	if (!rec)
		return NULL;
	json_object_set_new(rec, "record", json_string(name));
	json_object_set_new(rec, "boot", json_string(fdio_boot_id(boot)));
	json_object_set_new(rec, "at", json_integer((json_int_t)clock_wall_us()));
	return rec;
}

typedef int write_fn(struct journal *j, const json_t *record, struct error *err);

/* @write: journal_write() or journal_append() */
static int write_record(struct past *p, const char *name, const json_t *more, write_fn *write,
			struct error *err)
{
	json_t *rec = stamped(name, more);
	int r;

	if (!rec)
		return error_set(err, -ENOMEM, NULL, "out of memory");
	r = p->journal
		    ? write(p->journal, rec, err)
		    : error_set(err, -EBADF, "bad-journal", "the journal of %s is closed", p->id);
	json_decref(rec);
	return r;
}

static void on_synced(struct journal_wait *w, int ret, const struct error *err)
{
	struct past *p = w->arg;

	if (ret) {
		log_error("incoming %s: %s", p->id, err->msg);
		p->fate = p->before;
	}
	if (p->dropped)
		drop_journal(p);
}

static void sync_apart(struct past *p, struct journal_wait *w)
{
	p->synced.fn = on_synced;
	p->synced.arg = p;
	journal_sync_apart(p->journal, &p->synced);
	if (w)
		journal_sync_apart(p->journal, w);
	p->unsynced = false;
}

static int note_now(struct past *p, enum history_fate fate, struct error *err)
{
	int r;

	assert(doubt_may_follow(p->fate, fate));
	r = write_record(p, fate_names[fate], NULL, journal_append, err);
	if (!r)
		p->fate = fate;
	return r;
}

/* --- reading at the start --- */

/* Out of memory: the one before is as good as none. */
static void take_view(struct past *p, const json_t *view)
{
	if (!json_is_object(view))
		return;
	free(p->view);
	p->view = json_dumps(view, JSON_COMPACT);
}

/* What is kept of a record beside its name. */
static void take_members(struct past *p, const json_t *rec)
{
	take_view(p, json_object_get(rec, "view"));
	if (json_object_get(rec, "pid")) {
		p->pid = (pid_t)json_integer_value(json_object_get(rec, "pid"));
		p->pid_start = (uint64_t)json_integer_value(json_object_get(rec, "pid_start"));
		p->pass = (uint32_t)json_integer_value(json_object_get(rec, "pass"));
		p->listened = json_is_true(json_object_get(rec, "listened"));
	}
}

/* As large as a guest has blocks: kept only where somebody needs it. */
static void take_place(struct past *p, json_t *rec)
{
	json_t *place = json_object_get(rec, "place");

	if (!json_is_object(place))
		return;
	json_decref(p->place);
	p->place = json_incref(place);
}

static int replay(const struct history *h, struct past *p, const json_t *records)
{
	size_t i;
	json_t *rec;

	p->same_boot = true;
	json_array_foreach(records, i, rec) {
		const char *name = text_at(rec, "record");
		int fate = fate_of(name);

		if (!*h->boot || strcmp(text_at(rec, "boot"), h->boot) != 0)
			p->same_boot = false;
		if (!strcmp(name, "registered"))
			p->registered = true;
		else if (!strcmp(name, "overruled"))
			p->overruled = true;
		else if (fate < 0)
			return -EBADMSG;
		else
			p->fate = (enum history_fate)fate;
		take_members(p, rec);
		take_place(p, rec);
	}
	return 0;
}

/* The socket of a micro-VM that has not connected may have been kept: micro_adopt.c sees to it. */
static bool may_connect(const struct past *p)
{
	return !strcmp(text_at(p->facts, "driver"), "uffd") && p->fate == HISTORY_SETUP && !p->pid;
}

/* The agent ended before COMMIT was noted. */
static void abort_unfinished(struct past *p)
{
	struct error err = {0};

	if (!doubt_abort_at_start(p->fate, p->same_boot) || may_connect(p))
		return;
	p->untold = true;
	if (note_now(p, HISTORY_ABORTED, &err))
		log_error("history: %s: %s", p->id, err.msg);
	else
		log_notice("incoming %s of guest %s: aborted, the agent had ended before it was "
			   "handed over",
			   p->id, p->name);
}

static struct past *load(const struct history *h, const char *id, struct error *err)
{
	CLEANUP_FREE char *path = path_of(h, id);
	struct journal *j = NULL;
	json_t *records = NULL;
	struct past *p = NULL;

	if (!path || journal_open(path, &j, &records, err))
		return NULL;
	if (json_array_size(records))
		p = past_new(json_array_get(records, 0));
	if (!p || strcmp(p->id, id) != 0 || replay(h, p, records)) {
		error_set(err, -EBADMSG, "bad-journal", "%s: not a record of an incoming migration",
			  path);
		past_free(p);
		journal_close(j);
		p = NULL;
	} else {
		p->journal = j;
		abort_unfinished(p);
		if (history_ended(p))
			drop_journal(p);
		else if (journal_sync_by(j, h->journals, err)) {
			past_free(p);
			p = NULL;
		} else {
			/* The life before may have been killed behind the writing. */
			p->before = p->fate;
			sync_apart(p, NULL);
		}
	}
	json_decref(records);
	return p;
}

static json_int_t created(const struct past *p)
{
	return json_integer_value(json_object_get(p->facts, "created"));
}

static void insert(struct history *h, struct past *p)
{
	struct past **at = &h->newest;

	while (*at && created(*at) > created(p))
		at = &(*at)->next;
	p->next = *at;
	*at = p;
}

static int load_all(struct history *h, struct error *err)
{
	DIR *d = opendir(h->dir);
	struct dirent *e;

	if (!d)
		return error_set(err, -errno, NULL, "%s: %s", h->dir, strerror(errno));
	while ((e = readdir(d))) {
		struct error why = {0};
		char id[UUID_TEXT_MAX];
		uint8_t raw[UUID_LEN];
		struct past *p;

		snprintf(id, sizeof(id), "%.36s", e->d_name);
		if (uuid_parse(id, raw) || strcmp(e->d_name + strlen(id), ".journal") != 0)
			continue;
		p = load(h, id, &why);
		if (p)
			insert(h, p);
		else
			log_error("history: %s", error_is_set(&why) ? why.msg : "out of memory");
	}
	closedir(d);
	return 0;
}

/* Keep the newest; what may still be asked for or is held stays whatever its age. */
static void prune(struct history *h)
{
	struct past **at = &h->newest;
	unsigned int n = 0;

	while (*at) {
		struct past *p = *at;
		CLEANUP_FREE char *path = NULL;

		if (p->live || !history_ended(p) || ++n <= HISTORY_MAX) {
			at = &p->next;
			continue;
		}
		*at = p->next;
		path = path_of(h, p->id);
		if (path)
			unlink(path);
		past_free(p);
	}
}

int history_open(const char *state_dir, struct journal_syncer *journals, struct history **ret,
		 struct error *err)
{
	struct history *h = calloc(1, sizeof(*h));
	int r;

	if (!h || asprintf(&h->dir, "%s/incoming", state_dir) < 0) {
		free(h);
		return error_set(err, -ENOMEM, NULL, "out of memory");
	}
	h->journals = journals;
	fdio_boot_id(h->boot);
	r = fdio_mkdir_p(h->dir, 0700);
	if (r)
		error_set(err, r, NULL, "%s: %s", h->dir, strerror(-r));
	else
		r = load_all(h, err);
	if (r) {
		history_close(h);
		return r;
	}
	prune(h);
	*ret = h;
	return 0;
}

void history_close(struct history *h)
{
	if (!h)
		return;
	while (h->newest) {
		struct past *p = h->newest;

		h->newest = p->next;
		past_free(p);
	}
	free(h->dir);
	free(h);
}

/* --- writing --- */

int history_begin(struct history *h, const json_t *facts, struct journal_wait *w, struct past **ret,
		  struct error *err)
{
	CLEANUP_FREE char *path = NULL;
	struct past *p = past_new(facts);
	int r;

	if (!p)
		return error_set(err, -ENOMEM, NULL, "out of memory");
	path = path_of(h, p->id);
	if (!path || history_find(h, p->id) || !access(path, F_OK)) {
		r = error_set(err, -EEXIST, "migration-exists",
			      "migration %s was here before: begin a new one", p->id);
	} else {
		p->same_boot = true;
		p->live = true;
		r = journal_create(path, &p->journal, err);
		if (!r) {
			r = journal_sync_by(p->journal, h->journals, err);
			if (!r)
				r = write_record(p, fate_names[HISTORY_SETUP], facts, journal_write,
						 err);
			if (r)
				unlink(path);
		}
	}
	if (r) {
		past_free(p);
		return r;
	}
	p->fate = p->before = HISTORY_SETUP;
	sync_apart(p, w);
	insert(h, p);
	*ret = p;
	return 0;
}

int history_launched(struct past *p, pid_t pid, struct error *err)
{
	json_t *more = json_pack("{s:I, s:I}", "pid", (json_int_t)pid, "pid_start",
				 (json_int_t)proc_start(pid));
	int r = more ? write_record(p, fate_names[HISTORY_SETUP], more, journal_write, err)
		     : error_set(err, -ENOMEM, NULL, "out of memory");

	if (!r)
		take_members(p, more);
	json_decref(more);
	return r;
}

int history_note(struct past *p, enum history_fate fate, const json_t *more, enum history_sync sync,
		 struct journal_wait *w, struct error *err)
{
	int r;

	assert(doubt_may_follow(p->fate, fate));
	r = write_record(p, fate_names[fate], more, journal_write, err);
	if (r)
		return r;
	/* The one before is not known to be on the disk either. */
	if (!history_pending(p))
		p->before = p->fate;
	p->fate = fate;
	p->unsynced = true;
	take_members(p, more);
	if (sync == HISTORY_APART)
		sync_apart(p, w);
	return 0;
}

void history_sync(struct past *p)
{
	if (p->unsynced && p->journal)
		journal_sync_apart(p->journal, NULL);
	p->unsynced = false;
}

void history_await(struct past *p, struct journal_wait *w)
{
	journal_sync_apart(p->journal, w);
}

int history_registered(struct past *p, struct error *err)
{
	int r = write_record(p, "registered", NULL, journal_write, err);

	if (!r) {
		p->registered = true;
		journal_sync_apart(p->journal, NULL);
		drop_journal(p);
	}
	return r;
}

/* A journal is closed once nothing more is expected of it. */
static int reopen(const struct history *h, struct past *p, struct error *err)
{
	CLEANUP_FREE char *path = path_of(h, p->id);
	int r;

	if (p->journal)
		return 0;
	if (!path)
		return error_set(err, -ENOMEM, NULL, "out of memory");
	r = journal_open(path, &p->journal, NULL, err);
	if (!r && journal_sync_by(p->journal, h->journals, err)) {
		r = -ENOMEM;
		journal_close(steal_ptr(&p->journal));
	}
	return r;
}

int history_overruled(struct history *h, struct past *p, struct error *err)
{
	int r = p->overruled ? 0 : reopen(h, p, err);

	if (!r && !p->overruled)
		r = write_record(p, "overruled", NULL, journal_append, err);
	p->overruled |= !r;
	if (!p->live && history_ended(p))
		drop_journal(p);
	return r;
}

int history_conclude(struct history *h, struct past *p, enum history_fate fate, struct error *err)
{
	int r = reopen(h, p, err);

	if (!r)
		r = note_now(p, fate, err);
	if (!p->live)
		drop_journal(p);
	return r;
}

void history_settle(struct history *h, struct past *p)
{
	struct error err = {0};

	/* In this life it ended without COMMIT, or none was noted in the life before: it is as at the start. */
	if (p->live || !doubt_abort_at_start(p->fate, p->same_boot))
		return;
	if (reopen(h, p, &err) || history_note(p, HISTORY_ABORTED, NULL, HISTORY_APART, NULL, &err))
		log_error("history: %s: %s", p->id, err.msg);
	else
		log_notice(
			"incoming %s of guest %s: that it was not handed over can be written now",
			p->id, p->name);
	drop_journal(p);
}

void history_end(struct history *h, struct past *p, const json_t *view)
{
	p->live = false;
	take_view(p, view);
	if (history_ended(p))
		drop_journal(p);
	prune(h);
}

/* --- asking --- */

struct past *history_first(const struct history *h)
{
	return h->newest;
}

struct past *history_find(const struct history *h, const char *id)
{
	struct past *p = h->newest;

	while (p && strcmp(p->id, id) != 0)
		p = p->next;
	return p;
}

struct past *history_find_guest(const struct history *h, const uint8_t uuid[static MSG_UUID_LEN],
				uint64_t generation)
{
	for (struct past *p = h->newest; p; p = p->next) {
		if (p->generation == generation &&
		    doubt_mine(p->fate, p->same_boot, p->overruled) &&
		    !memcmp(p->uuid, uuid, MSG_UUID_LEN))
			return p;
	}
	return NULL;
}

enum msg_answer history_answer(const struct past *p, const char *identity, uint64_t generation)
{
	if (strcmp(p->identity, identity) != 0 || p->generation != generation || history_pending(p))
		return MSG_ANSWER_UNKNOWN;
	return doubt_answer(p->fate, p->same_boot);
}
