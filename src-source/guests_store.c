/* SPDX-License-Identifier: Apache-2.0 */
#include "guests_store.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "util/cleanup.h"
#include "util/errand.h"
#include "util/fdio.h"
#include "util/log.h"

/* A description has at most 64 variables of 1 KiB. */
#define STORE_MAX (512u << 20)

static int add_one(struct source *s, const json_t *json, size_t i, struct error *err)
{
	struct conf_guest desc;
	struct source_guest *g;
	char where[64];
	int r;

	snprintf(where, sizeof(where), "guests.json: guests[%zu]", i);
	r = conf_guest_read(json, where, &desc, err);
	if (r < 0)
		return r;
	if (!guests_find(s, desc.name)) {
		r = guests_add(s, &desc, &g, err);
		if (!r)
			g->stored = true;
	}
	conf_guest_clear(&desc);
	return r;
}

int guests_store_load(struct source *s, struct error *err)
{
	CLEANUP_FREE char *path = NULL;
	CLEANUP_FREE char *text = NULL;
	json_t *o, *guest;
	ssize_t n;
	size_t i;
	int r = 0;

	if (asprintf(&path, "%s/guests.json", s->conf.agent.state_dir) < 0)
		return error_set(err, -ENOMEM, NULL, "out of memory");
	n = fdio_read_file(path, STORE_MAX, &text);
	if (n == -ENOENT)
		return 0;
	if (n < 0)
		return error_set(err, (int)n, NULL, "%s: %s", path, strerror((int)-n));
	o = json_loadb(text, (size_t)n, JSON_REJECT_DUPLICATES, NULL);
	if (!json_is_array(json_object_get(o, "guests")))
		r = error_set(err, -EINVAL, "bad-guests", "%s: not a list of guests", path);
	json_array_foreach(json_object_get(o, "guests"), i, guest) {
		if (!r)
			r = add_one(s, guest, i, err);
	}
	json_decref(o);
	return r;
}

static char *as_text(const struct source *s)
{
	json_t *list = json_array(), *o;
	char *text;

	for (const struct source_guest *g = s->guests; g; g = g->next)
		if (g->stored)
			json_array_append_new(list, conf_guest_json(&g->desc));
	o = json_pack("{s:o}", "guests", list);
	text = o ? json_dumps(o, JSON_INDENT(1)) : NULL;
	json_decref(o);
	return text;
}

/** struct stored - who waits for a file that has what there is now */
struct stored {
	guests_stored_fn *fn;
	void *arg;
	struct stored *next;
};

/**
 * struct guests_store - the writing of the file, which one thread at a time does
 * @errand:	under way; first
 * @path, @text: what it writes, and where
 * @writing:	who waits for that
 * @due:	who came since, and waits for the next
 */
struct guests_store {
	struct errand errand;
	struct source *s;
	char *path;
	char *text;
	struct stored *writing;
	struct stored *due;
};

static int write_file(struct errand *e, struct error *err)
{
	const struct guests_store *t = (struct guests_store *)e;
	int r = fdio_replace_file(t->path, t->text, 0600);

	return r < 0 ? error_set(err, r, "not-stored", "cannot store the description in %s: %s",
				 t->path, strerror(-r))
		     : 0;
}

static void tell(struct stored *w, int ret, const struct error *err)
{
	while (w) {
		struct stored *next = w->next;

		w->fn(w->arg, ret, err);
		free(w);
		w = next;
	}
}

static void written(struct errand *e);

/* What is due is made the text to be written. Return: 0 or -ENOMEM */
static int take_due(struct guests_store *t)
{
	free(t->text);
	t->text = as_text(t->s);
	if (!t->text)
		return -ENOMEM;
	t->writing = steal_ptr(&t->due);
	return 0;
}

static void begin(struct guests_store *t)
{
	struct error err = {0};
	int r = take_due(t);

	if (!r)
		r = errand_start(&t->errand, t->s->loop, write_file, written);
	if (!r)
		return;
	error_set(&err, r, "not-stored", "the description cannot be stored: %s", strerror(-r));
	tell(t->writing ? steal_ptr(&t->writing) : steal_ptr(&t->due), r, &err);
}

static void written(struct errand *e)
{
	struct guests_store *t = (struct guests_store *)e;
	struct stored *w = steal_ptr(&t->writing);
	struct error err = e->err;
	int ret = e->ret;

	if (t->due)
		begin(t);
	tell(w, ret, &err);
}

static void begin_due(void *arg)
{
	struct guests_store *t = arg;

	if (t->due && !t->errand.under_way)
		begin(t);
}

static struct guests_store *store_of(struct source *s)
{
	struct guests_store *t = s->store ? NULL : calloc(1, sizeof(*t));

	if (!t)
		return s->store;
	t->s = s;
	if (asprintf(&t->path, "%s/guests.json", s->conf.agent.state_dir) < 0) {
		free(t);
		return NULL;
	}
	s->store = t;
	return t;
}

int guests_store_save(struct source *s, guests_stored_fn *fn, void *arg, struct error *err)
{
	struct guests_store *t = store_of(s);
	struct stored *w = t ? malloc(sizeof(*w)) : NULL, **at;

	if (!w || loop_post(s->loop, begin_due, t) < 0) {
		free(w);
		return error_set(err, -ENOMEM, NULL, "out of memory");
	}
	*w = (struct stored){.fn = fn, .arg = arg};
	for (at = &t->due; *at; at = &(*at)->next)
		;
	*at = w;
	return 0;
}

void guests_store_end(struct source *s)
{
	struct guests_store *t = s->store;
	struct error err = {0};
	int r;

	if (!t)
		return;
	if (t->errand.under_way) {
		errand_drop(&t->errand);
		tell(steal_ptr(&t->writing), t->errand.ret, &t->errand.err);
	}
	if (t->due) {
		r = take_due(t) ? error_set(&err, -ENOMEM, NULL, "out of memory")
				: write_file(&t->errand, &err);
		tell(t->writing ? steal_ptr(&t->writing) : steal_ptr(&t->due), r, &err);
	}
	s->store = NULL;
	free(t->path);
	free(t->text);
	free(t);
}
