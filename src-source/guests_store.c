/* SPDX-License-Identifier: Apache-2.0 */
#include "guests_store.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "util/cleanup.h"
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

	if (asprintf(&path, "%s/guests.json", s->conf.state_dir) < 0)
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

int guests_store_save(const struct source *s, struct error *err)
{
	CLEANUP_FREE char *path = NULL;
	CLEANUP_FREE char *text = as_text(s);
	int r;

	if (!text || asprintf(&path, "%s/guests.json", s->conf.state_dir) < 0)
		return error_set(err, -ENOMEM, NULL, "out of memory");
	r = fdio_replace_file(path, text, 0600);
	return r < 0 ? error_set(err, r, "not-stored", "cannot store the description in %s: %s",
				 path, strerror(-r))
		     : 0;
}
