/* SPDX-License-Identifier: Apache-2.0 */
#include "host/cordon.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include "util/cleanup.h"
#include "util/clock.h"
#include "util/fdio.h"

#define FILE_MAX 4096

bool cordon_holds(const char *file)
{
	return faccessat(AT_FDCWD, file, F_OK, AT_SYMLINK_NOFOLLOW) == 0 ||
	       (errno != ENOENT && errno != ENOTDIR);
}

bool cordon_read(const char *file, struct cordon *ret)
{
	CLEANUP_FREE char *text = NULL;
	struct cordon c = {0};
	const char *by;
	ssize_t n;
	json_t *o;

	if (!cordon_holds(file))
		return false;
	n = fdio_read_file(file, FILE_MAX, &text);
	if (n < 0)
		text = NULL;
	o = n > 0 ? json_loadb(text, (size_t)n, 0, NULL) : NULL;
	by = json_string_value(json_object_get(o, "by"));
	if (by && strlen(by) < sizeof(c.by))
		strcpy(c.by, by);
	if (json_integer_value(json_object_get(o, "since_us")) > 0)
		c.since_us = (uint64_t)json_integer_value(json_object_get(o, "since_us"));
	json_decref(o);
	*ret = c;
	return true;
}

static int write_file(const char *path, const char *text)
{
	CLEANUP_CLOSE int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	int r = fd < 0 ? -errno : fdio_write_full(fd, text, strlen(text));

	return !r && fsync(fd) ? -errno : r;
}

int cordon_set(const char *file, const struct cordon *c, struct error *err)
{
	CLEANUP_FREE char *temp = NULL;
	CLEANUP_FREE char *text = NULL;
	char at[CLOCK_TEXT_MAX];
	json_t *o;
	int r;

	/* One of an earlier life may not have been synced. */
	if (cordon_holds(file)) {
		r = fdio_sync_dir_of(file);
		return r < 0 ? error_set(err, r, "not-stored", "%s: %s", file, strerror(-r)) : 0;
	}
	o = json_pack("{s:s, s:s, s:I}", "by", c->by, "since", clock_rfc3339(at, c->since_us),
		      "since_us", (json_int_t)c->since_us);
	text = o ? json_dumps(o, JSON_INDENT(1)) : NULL;
	json_decref(o);
	if (!text || asprintf(&temp, "%s.new", file) < 0) {
		temp = NULL;
		return error_set(err, -ENOMEM, NULL, "out of memory");
	}
	r = write_file(temp, text);
	if (!r && rename(temp, file))
		r = -errno;
	if (!r)
		r = fdio_sync_dir_of(file);
	return r < 0 ? error_set(err, r, "not-stored", "cannot write %s: %s", file, strerror(-r))
		     : 0;
}

int cordon_lift(const char *file, struct error *err)
{
	int r = unlink(file) && errno != ENOENT ? -errno : fdio_sync_dir_of(file);

	return r < 0 ? error_set(err, r, "not-stored", "cannot remove %s: %s", file, strerror(-r))
		     : 0;
}
