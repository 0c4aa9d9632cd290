/* SPDX-License-Identifier: Apache-2.0 */
/* The stored images as the REST interface shows them. */
#include <dirent.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include "image.h"
#include "incoming_priv.h"
#include "util/clock.h"

static json_t *image_json(const struct image *img)
{
	const struct image_facts *f = image_facts(img);
	char uuid[UUID_TEXT_MAX], at[CLOCK_TEXT_MAX];

	return json_pack("{s:s, s:s, s:s, s:s, s:s, s:s, s:s, s:s, s:I, s:I, s:I, s:n}", "id",
			 f->name, "name", f->name, "guest", f->setup.name, "uuid",
			 uuid_text(f->setup.uuid, uuid), "driver", f->setup.driver, "launcher",
			 f->setup.launcher, "phase", "completed", "created_at",
			 clock_rfc3339(at, f->created_us), "memory_bytes", (json_int_t)f->total,
			 "state_bytes", (json_int_t)f->state_bytes, "stored_bytes",
			 (json_int_t)image_stored_bytes(img), "error");
}

/* One that cannot be used is shown, too: somebody should know. */
static json_t *damaged_json(const char *name, const struct error *err)
{
	return json_pack("{s:s, s:s, s:{s:s, s:s}}", "id", name, "name", name, "error", "code",
			 err->code, "message", err->msg);
}

static json_t *one(const char *dir, const char *file)
{
	char path[4096 + 256], name[256];
	struct error err = {0};
	struct image *img;
	json_t *o;

	snprintf(path, sizeof(path), "%s/%s", dir, file);
	snprintf(name, sizeof(name), "%.*s", (int)(strlen(file) - strlen(IMAGE_SUFFIX)), file);
	/* The page table is looked at when it is needed: it can be large. */
	if (image_open(path, false, &img, &err))
		return damaged_json(name, &err);
	o = image_json(img);
	image_close(img);
	return o;
}

json_t *store_get(const struct dest *d, const char *name)
{
	char dir[4096], file[256], path[4096 + 256];

	if (!image_name_ok(name) || store_folder(d, dir, sizeof(dir)))
		return NULL;
	snprintf(file, sizeof(file), "%s" IMAGE_SUFFIX, name);
	snprintf(path, sizeof(path), "%s/%s", dir, file);
	return access(path, F_OK) ? NULL : one(dir, file);
}

json_t *store_list(const struct dest *d)
{
	size_t tail = strlen(IMAGE_SUFFIX);
	json_t *items = json_array();
	struct dirent *de;
	char dir[4096];
	DIR *folder = store_folder(d, dir, sizeof(dir)) ? NULL : opendir(dir);

	while (folder && items && (de = readdir(folder))) {
		size_t len = strlen(de->d_name);

		if (len > tail && !strcmp(de->d_name + len - tail, IMAGE_SUFFIX))
			json_array_append_new(items, one(dir, de->d_name));
	}
	if (folder)
		closedir(folder);
	else
		json_decref(items);
	return folder ? items : NULL;
}
