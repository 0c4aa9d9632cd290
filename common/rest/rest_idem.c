/* SPDX-License-Identifier: Apache-2.0 */
#include "rest/rest_idem.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>
#include <unistd.h>
#include "util/cleanup.h"
#include "util/clock.h"
#include "util/journal.h"
#include "util/log.h"

/* Records that a file may have before it is written anew. */
#define FILE_RECORDS_MAX (4 * REST_IDEM_MAX)
/* Of requests under way nothing may be forgotten, so they are bounded apart. */
#define BUSY_MAX 256

/**
 * struct answer - one key
 * @status:	0 while its request is under way
 * @at_us:	clock_wall_us() of the answer
 */
struct answer {
	TAILQ_ENTRY(answer) link;
	char key[REST_IDEM_KEY_MAX + 1];
	uint64_t request;
	int status;
	char *location;
	char *body;
	uint64_t at_us;
};

/**
 * struct rest_idem - see rest_idem.h
 * @answers:	oldest first
 * @bytes:	of the texts
 * @journal:	NULL without a file
 * @path:	of the file
 * @records:	in it
 */
struct rest_idem {
	unsigned int refs;
	TAILQ_HEAD(, answer) answers;
	size_t n;
	size_t n_busy;
	size_t bytes;
	struct journal *journal;
	char *path;
	size_t records;
};

struct rest_idem *rest_idem_new(void)
{
	struct rest_idem *s = calloc(1, sizeof(*s));

	if (!s)
		return NULL;
	s->refs = 1;
	TAILQ_INIT(&s->answers);
	return s;
}

struct rest_idem *rest_idem_ref(struct rest_idem *s)
{
	s->refs++;
	return s;
}

static size_t text_bytes(const struct answer *a)
{
	return sizeof(*a) + (a->location ? strlen(a->location) : 0) +
	       (a->body ? strlen(a->body) : 0);
}

static void drop(struct rest_idem *s, struct answer *a)
{
	TAILQ_REMOVE(&s->answers, a, link);
	s->n--;
	if (a->status)
		s->bytes -= text_bytes(a);
	else
		s->n_busy--;
	free(a->location);
	free(a->body);
	free(a);
}

void rest_idem_unref(struct rest_idem *s)
{
	struct answer *a;

	if (!s || --s->refs)
		return;
	while ((a = TAILQ_FIRST(&s->answers)))
		drop(s, a);
	journal_close(s->journal);
	free(s->path);
	free(s);
}

static struct answer *find(struct rest_idem *s, const char *key)
{
	struct answer *a;

	TAILQ_FOREACH(a, &s->answers, link)
	if (!strcmp(a->key, key))
		return a;
	return NULL;
}

static bool too_old(const struct answer *a, uint64_t now)
{
	return a->status && now > a->at_us + REST_IDEM_AGE_S * UINT64_C(1000000);
}

/* The oldest answers make room; what is under way stays. */
static void prune(struct rest_idem *s)
{
	uint64_t now = clock_wall_us();
	struct answer *a, *next;

	for (a = TAILQ_FIRST(&s->answers); a; a = next) {
		next = TAILQ_NEXT(a, link);
		if (a->status && (s->n - s->n_busy > REST_IDEM_MAX ||
				  s->bytes > REST_IDEM_BYTES_MAX || too_old(a, now)))
			drop(s, a);
	}
}

static struct answer *add(struct rest_idem *s, const char *key, uint64_t request)
{
	struct answer *a = calloc(1, sizeof(*a));

	if (!a)
		return NULL;
	snprintf(a->key, sizeof(a->key), "%s", key);
	a->request = request;
	TAILQ_INSERT_TAIL(&s->answers, a, link);
	s->n++;
	s->n_busy++;
	return a;
}

static int fill(struct rest_idem *s, struct answer *a, const struct rest_idem_answer *from,
		uint64_t at_us)
{
	a->location = from->location ? strdup(from->location) : NULL;
	a->body = strdup(from->body);
	if (!a->body || !a->location != !from->location)
		return -ENOMEM;
	a->status = from->status;
	a->at_us = at_us;
	s->n_busy--;
	s->bytes += text_bytes(a);
	return 0;
}

enum rest_idem_verdict rest_idem_begin(struct rest_idem *s, const char *key, uint64_t request,
				       struct rest_idem_answer *ret)
{
	struct answer *a;

	prune(s);
	a = find(s, key);
	if (!a) {
		if (s->n_busy >= BUSY_MAX || !add(s, key, request))
			return REST_IDEM_FULL;
		return REST_IDEM_NEW;
	}
	if (a->request != request)
		return REST_IDEM_OTHER;
	if (!a->status)
		return REST_IDEM_BUSY;
	*ret = (struct rest_idem_answer){a->status, a->location, a->body};
	return REST_IDEM_REPEAT;
}

/* --- the file --- */

static json_t *record_of(const struct answer *a)
{
	char request[20];

	snprintf(request, sizeof(request), "%016" PRIx64, a->request);
	return json_pack("{s:s, s:s, s:i, s:s*, s:s, s:I}", "key", a->key, "request", request,
			 "status", a->status, "location", a->location, "body", a->body, "at_us",
			 (json_int_t)a->at_us);
}

static void take_record(struct rest_idem *s, const json_t *rec)
{
	const char *key, *request, *location = NULL, *body;
	struct rest_idem_answer from;
	struct answer *a;
	json_int_t at;
	int status;

	if (json_unpack((json_t *)rec, "{s:s, s:s, s:i, s?s, s:s, s:I}", "key", &key, "request",
			&request, "status", &status, "location", &location, "body", &body, "at_us",
			&at) < 0 ||
	    strlen(key) > REST_IDEM_KEY_MAX || status < 200 || status > 299 || at < 0)
		return;
	a = find(s, key);
	if (a)
		drop(s, a);
	a = add(s, key, strtoull(request, NULL, 16));
	from = (struct rest_idem_answer){status, location, body};
	if (a && fill(s, a, &from, (uint64_t)at) < 0)
		drop(s, a);
	prune(s);
}

static int open_journal(struct rest_idem *s, json_t **ret_records, struct error *err)
{
	int r = journal_open(s->path, &s->journal, ret_records, err);

	if (r != -EBADMSG && r != -EINVAL)
		return r;
	log_warn("%s: begun anew, repeats of earlier requests are not known: %s", s->path,
		 err->msg);
	error_clear(err);
	unlink(s->path);
	return journal_open(s->path, &s->journal, ret_records, err);
}

static void append(struct rest_idem *s, const struct answer *a)
{
	json_t *rec = record_of(a);
	struct error err = {0};

	if (!rec || journal_write(s->journal, rec, &err) < 0) {
		log_warn("%s: %s; answers are kept in memory only", s->path,
			 rec ? err.msg : "out of memory");
		journal_close(steal_ptr(&s->journal));
	}
	s->records++;
	json_decref(rec);
}

/* What is outdated goes. If the agent dies here, some repeats are not known: as if they were old. */
static void rewrite(struct rest_idem *s)
{
	struct error err = {0};
	struct answer *a;

	journal_close(steal_ptr(&s->journal));
	unlink(s->path);
	s->records = 0;
	if (journal_create(s->path, &s->journal, &err) < 0) {
		log_warn("%s; answers are kept in memory only", err.msg);
		return;
	}
	TAILQ_FOREACH(a, &s->answers, link)
	if (a->status && s->journal)
		append(s, a);
}

int rest_idem_keep(struct rest_idem *s, const char *path, struct error *err)
{
	json_t *records = NULL, *rec;
	size_t i;
	int r;

	s->path = strdup(path);
	if (!s->path)
		return error_set(err, -ENOMEM, NULL, "out of memory");
	r = open_journal(s, &records, err);
	if (r < 0)
		return r;
	json_array_foreach(records, i, rec)
		take_record(s, rec);
	s->records = json_array_size(records);
	json_decref(records);
	if (s->records > FILE_RECORDS_MAX)
		rewrite(s);
	return 0;
}

void rest_idem_end(struct rest_idem *s, const char *key, const struct rest_idem_answer *from)
{
	struct answer *a = find(s, key);

	if (!a || a->status)
		return;
	if (!from || fill(s, a, from, clock_wall_us()) < 0) {
		drop(s, a);
		return;
	}
	/* The oldest answer is the first, and this one is the newest. */
	TAILQ_REMOVE(&s->answers, a, link);
	TAILQ_INSERT_TAIL(&s->answers, a, link);
	if (s->journal)
		append(s, a);
	if (s->journal && s->records > FILE_RECORDS_MAX)
		rewrite(s);
	prune(s);
}
