/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An import is over with the agent: nothing of its image is kept. A note beside the image, from before anybody is told of
 * the beginning until everybody was told of the end, has the next life tell the end of one that was killed in between.
 */
#include "import.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "hooks/hooks.h"
#include "image.h"
#include "incoming_priv.h"
#include "rest/rest_events.h"
#include "util/cleanup.h"
#include "util/clock.h"
#include "util/digest.h"
#include "util/fdio.h"
#include "util/jsonout.h"
#include "util/jsonx.h"
#include "util/log.h"
#include "util/zero.h"
#include "worker.h"

#define CHUNK MSG_PAGES_RAW_MAX
/* NAME and this is the note of an import. */
#define NOTE     ".import"
#define NOTE_MAX 65536

/**
 * struct import - one file on its way
 * @memory, @fd: the file
 * @size, @mtime: of it, when it was begun
 * @name:	of the image
 * @writer:	owned by the worker while it runs
 * @worker:	its thread; NULL once it has ended
 * @job:	all of it
 * @quit:	the agent ends
 * @made:	the image is complete
 * @done_bytes:	so far
 * @ended_us:	wall clock, 0 while it runs
 * @err:	why it failed
 */
struct import {
	struct dest *d;
	struct import *next;
	char *memory;
	int fd;
	uint64_t size;
	struct timespec mtime;
	char name[MSG_NAME_MAX];
	struct image_writer *writer;
	struct worker *worker;
	struct worker_job job;
	_Atomic bool quit;
	_Atomic bool made;
	_Atomic uint64_t done_bytes;
	uint64_t created_us;
	uint64_t ended_us;
	struct error err;
};

static void import_free(struct import *im)
{
	struct import **at = &im->d->imports;

	while (*at && *at != im)
		at = &(*at)->next;
	if (*at)
		*at = im->next;
	atomic_store(&im->quit, true);
	worker_stop(im->worker);
	image_writer_free(im->writer);
	if (im->fd >= 0)
		close(im->fd);
	free(im->memory);
	free(im);
}

/* --- the note --- */

static int note_path(const struct import *im, char *out, size_t cap)
{
	size_t n;
	int r = store_folder(im->d, out, cap);

	if (r)
		return r;
	n = strlen(out);
	return snprintf(out + n, cap - n, "/%s" NOTE, im->name) < (int)(cap - n) ? 0
										 : -ENAMETOOLONG;
}

/* Not synced: it has to outlive the agent, and with the host those are gone who were told. */
static int note_write(const struct import *im, struct error *err)
{
	json_t *o = json_pack("{s:s, s:I, s:I}", "memory", im->memory, "memory_bytes",
			      (json_int_t)im->size, "created", (json_int_t)im->created_us);
	char path[4096 + 128];
	int r = o ? note_path(im, path, sizeof(path)) : -EINVAL;

	if (!r && json_dump_file(o, path, JSON_COMPACT)) {
		r = -errno;
		unlink(path);
	}
	json_decref(o);
	return r < 0 ? error_set(err, r, NULL, "cannot note the import: %s", strerror(-r)) : 0;
}

static void note_remove(const struct import *im)
{
	char path[4096 + 128];

	if (!note_path(im, path, sizeof(path)) && unlink(path) && errno != ENOENT)
		log_warn("%s: %s", path, strerror(errno));
}

/* --- on the worker's thread --- */

static int put(struct import *im, uint64_t offset, uint64_t length, const uint8_t *data,
	       struct error *err)
{
	struct msg_pages m = {.kind = data ? MSG_PAGES_RAW : MSG_PAGES_ZERO,
			      .offset = offset,
			      .length = length,
			      .pass = 1,
			      .digest = data ? digest_xxh3(data, length) : 0};
	int r = image_put(im->writer, &m, data, err);

	if (!r)
		atomic_store(&im->done_bytes, offset + length);
	return r;
}

/* Runs of data and of zeros, unit by unit. */
static int put_chunk(struct import *im, uint64_t offset, const uint8_t *buf, uint64_t n,
		     struct error *err)
{
	int r = 0;

	for (uint64_t at = 0, end; !r && at < n; at = end) {
		bool zero = zero_is(buf + at, IMAGE_UNIT);

		end = at + IMAGE_UNIT;
		while (end < n && zero_is(buf + end, IMAGE_UNIT) == zero)
			end += IMAGE_UNIT;
		r = put(im, offset + at, end - at, zero ? NULL : buf + at, err);
	}
	return r;
}

/* Return: where data begins at or behind @from, in whole units; the file's end if there is none */
static uint64_t next_data(const struct import *im, uint64_t from)
{
	off_t at = lseek(im->fd, (off_t)from, SEEK_DATA);

	if (at < 0)
		return errno == ENXIO ? im->size : from;
	return MIN((uint64_t)at & ~(uint64_t)(IMAGE_UNIT - 1), im->size);
}

static int changed(const struct import *im, struct error *err)
{
	return error_set(err, -ESTALE, "memory-changed",
			 "%s has changed while it was read: import it when nobody writes to it",
			 im->memory);
}

static int copy_all(struct import *im, uint8_t *buf, struct error *err)
{
	uint64_t at = 0;
	int r = 0;

	while (!r && at < im->size) {
		uint64_t data = next_data(im, at), n = MIN(im->size - data, (uint64_t)CHUNK);

		if (atomic_load(&im->quit))
			return error_set(err, -ECANCELED, "cancelled", "decant-dest was stopped");
		if (data > at)
			r = put(im, at, data - at, NULL, err);
		if (!r && n)
			r = fdio_pread_full(im->fd, buf, n, data);
		if (r == -EIO && !error_is_set(err))
			return changed(im, err);
		if (r)
			return error_set(err, r, NULL, "%s: %s", im->memory, strerror(-r));
		r = put_chunk(im, data, buf, n, err);
		at = data + n;
	}
	return r;
}

/* A micro-VM that still runs, or a snapshot that is still being written, makes no image of one instant. */
static int check_unchanged(const struct import *im, struct error *err)
{
	struct stat st;

	if (fstat(im->fd, &st))
		return error_set(err, -errno, NULL, "%s: %s", im->memory, strerror(errno));
	return (uint64_t)st.st_size == im->size && st.st_mtim.tv_sec == im->mtime.tv_sec &&
			       st.st_mtim.tv_nsec == im->mtime.tv_nsec
		       ? 0
		       : changed(im, err);
}

static int run(struct worker_job *job, struct error *err)
{
	struct import *im = (struct import *)((char *)job - offsetof(struct import, job));
	CLEANUP_FREE uint8_t *buf = aligned_alloc(IMAGE_UNIT, CHUNK);
	int r = buf ? 0 : error_set(err, -ENOMEM, NULL, "out of memory");

	posix_fadvise(im->fd, 0, 0, POSIX_FADV_SEQUENTIAL);
	if (!r)
		r = copy_all(im, buf, err);
	if (!r)
		r = check_unchanged(im, err);
	if (!r)
		r = image_finish(im->writer, err);
	atomic_store(&im->made, !r);
	return r;
}

/* --- on the loop --- */

/* @before: NULL at the beginning */
static void tell(const struct import *im, const char *before)
{
	json_t *data = import_view(im);
	const char *phase = json_string_value(json_object_get(data, "phase"));
	char type[HOOKS_TYPE_MAX], job[HOOKS_JOB_MAX];

	if (!phase)
		return;
	snprintf(type, sizeof(type), "import.%s", phase);
	snprintf(job, sizeof(job), "snapshots/%s", im->name);
	rest_events_publish(im->d->events, "snapshot",
			    json_pack("{s:s, s:s}", "id", im->name, "phase", phase));
	json_object_set_new(data, "previous_phase", before ? json_string(before) : json_null());
	hooks_emit(im->d->hooks, type, job, data);
}

static void done(struct worker_job *job)
{
	struct import *im = (struct import *)((char *)job - offsetof(struct import, job));

	worker_stop(steal_ptr(&im->worker));
	image_writer_free(steal_ptr(&im->writer));
	close(steal_fd(&im->fd));
	im->ended_us = clock_wall_us();
	if (job->ret) {
		im->err = job->err;
		error_set(&im->err, job->ret, NULL, "%s", strerror(-job->ret));
		log_error("image %s was not made of %s: %s", im->name, im->memory, im->err.msg);
	} else {
		log_notice("image %s was made of %s, %" PRIu64 " bytes", im->name, im->memory,
			   im->size);
	}
	tell(im, "importing");
	note_remove(im);
}

static int open_memory(struct import *im, struct error *err)
{
	struct stat st;

	if (im->memory[0] != '/')
		return error_set(err, -EINVAL, "bad-memory", "%s: not an absolute path",
				 im->memory);
	/* A pipe would keep the loop waiting. */
	im->fd = open(im->memory, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	if (im->fd < 0 || fstat(im->fd, &st))
		return error_set(err, -errno, NULL, "%s: %s", im->memory, strerror(errno));
	if (!S_ISREG(st.st_mode))
		return error_set(err, -EINVAL, "bad-memory", "%s: is no regular file", im->memory);
	if (!st.st_size || st.st_size % IMAGE_UNIT || (uint64_t)st.st_size > MSG_MEMORY_MAX)
		return error_set(err, -EINVAL, "bad-memory",
				 "%s: has %lld bytes; memory is a multiple of 4096, and not none",
				 im->memory, (long long)st.st_size);
	im->size = (uint64_t)st.st_size;
	im->mtime = st.st_mtim;
	return 0;
}

static int create(struct import *im, struct error *err)
{
	CLEANUP_FREE struct image_facts *f = calloc(1, sizeof(*f));
	struct msg_block block = {
		.name = "memory", .kind = MSG_BLOCK_ANON, .page_size = 4096, .length = im->size};
	char dir[4096], id[UUID_TEXT_MAX];
	int r = f ? store_folder(im->d, dir, sizeof(dir)) : -ENOMEM;

	if (r)
		return error_set(err, r, NULL, "%s", strerror(-r));
	uuid_parse(fdio_uuid4(id), f->id);
	uuid_parse(fdio_uuid4(id), f->setup.uuid);
	snprintf(f->name, sizeof(f->name), "%s", im->name);
	snprintf(f->setup.name, sizeof(f->setup.name), "%s", im->name);
	snprintf(f->setup.driver, sizeof(f->setup.driver), "uffd");
	f->created_us = im->created_us;
	f->setup.bulk_channels = 1;
	f->setup.blocks = 1;
	f->blocks = &block;
	return image_create(dir, f, &im->writer, err);
}

static int check_room(struct dest *d, struct error *err)
{
	struct import *oldest = NULL;
	unsigned int running = 0, ended = 0;

	for (struct import *im = d->imports; im; im = im->next) {
		running += !im->ended_us;
		ended += im->ended_us > 0;
		oldest = im->ended_us ? im : oldest;
	}
	if (d->ending)
		return error_set(err, -ESHUTDOWN, "ending", "this agent is being stopped");
	if (running >= IMPORTS_MAX)
		return error_set(err, -EBUSY, "limit-imports",
				 "%u imports are under way, which is the limit: try again later",
				 running);
	if (ended >= IMPORTS_MAX)
		import_free(oldest);
	return 0;
}

int import_begin(struct dest *d, const char *memory, const char *name, struct import **ret,
		 struct error *err)
{
	struct import *im;
	int r = check_room(d, err);

	if (r)
		return r;
	if (!image_name_ok(name))
		return error_set(err, -EINVAL, "bad-name", "\"%s\" is no name of an image", name);
	im = calloc(1, sizeof(*im));
	if (!im)
		return error_set(err, -ENOMEM, NULL, "out of memory");
	im->d = d;
	im->fd = -1;
	im->created_us = clock_wall_us();
	snprintf(im->name, sizeof(im->name), "%s", name);
	im->memory = strdup(memory);
	r = im->memory ? open_memory(im, err) : error_set(err, -ENOMEM, NULL, "out of memory");
	if (!r)
		r = create(im, err);
	if (!r) {
		r = worker_start(d->loop, &im->worker);
		if (r)
			error_set(err, r, NULL, "cannot start a thread: %s", strerror(-r));
	}
	if (!r)
		r = note_write(im, err);
	if (r) {
		import_free(im);
		return r;
	}
	im->next = d->imports;
	d->imports = im;
	im->job = (struct worker_job){.run = run, .done = done};
	worker_push(im->worker, &im->job);
	log_info("image %s is being made of %s, %" PRIu64 " bytes", im->name, im->memory, im->size);
	tell(im, NULL);
	*ret = im;
	return 0;
}

/* --- what others ask --- */

struct import *import_find(const struct dest *d, const char *name)
{
	struct import *im = d->imports;

	while (im && strcmp(im->name, name) != 0)
		im = im->next;
	return im;
}

bool import_running(const struct import *im)
{
	return !im->ended_us;
}

struct import *import_next(const struct import *im)
{
	return im->next;
}

json_t *import_view(const struct import *im)
{
	char at[CLOCK_TEXT_MAX];
	const char *phase = !im->ended_us            ? "importing"
			    : error_is_set(&im->err) ? "failed"
						     : "completed";

	return json_pack("{s:s, s:s, s:s, s:s, s:s, s:o, s:s, s:I, s:I, s:o}", "id", im->name,
			 "name", im->name, "guest", im->name, "phase", phase, "created_at",
			 clock_rfc3339(at, im->created_us), "ended_at", jsonout_time(im->ended_us),
			 "from", im->memory, "memory_bytes", (json_int_t)im->size, "done_bytes",
			 (json_int_t)atomic_load(&im->done_bytes), "error",
			 jsonout_error(&im->err));
}

/* Its thread may have come to the end all the same. */
static void cut_short(struct import *im)
{
	worker_stop(steal_ptr(&im->worker));
	im->ended_us = clock_wall_us();
	if (!atomic_load(&im->made))
		error_set(&im->err, -ECANCELED, "cancelled", "decant-dest was stopped");
	tell(im, "importing");
	note_remove(im);
}

void import_free_all(struct dest *d)
{
	for (struct import *im = d->imports; im; im = im->next)
		atomic_store(&im->quit, true);
	while (d->imports) {
		struct import *im = d->imports;

		if (!im->ended_us)
			cut_short(im);
		import_free(im);
	}
}

/* --- what an earlier life has left --- */

/* Return: whether there is an image of its name: then it had come to its end, and only the telling is missing */
static bool is_stored(const struct import *im)
{
	char path[4096 + 128];
	size_t n;

	if (store_folder(im->d, path, sizeof(path)))
		return false;
	n = strlen(path);
	snprintf(path + n, sizeof(path) - n, "/%s" IMAGE_SUFFIX, im->name);
	return !access(path, F_OK);
}

static int note_read(struct import *im)
{
	char path[4096 + 128];
	struct error err = {0};
	const char *memory;
	json_t *o = NULL;
	int r = note_path(im, path, sizeof(path));

	if (!r)
		r = jsonx_load(path, NOTE_MAX, &o, &err);
	/* The agent was killed while it wrote: nobody had been told. */
	memory = r ? NULL : json_string_value(json_object_get(o, "memory"));
	im->memory = memory ? strdup(memory) : NULL;
	im->size = (uint64_t)json_integer_value(json_object_get(o, "memory_bytes"));
	im->created_us = (uint64_t)json_integer_value(json_object_get(o, "created"));
	json_decref(o);
	return im->memory ? 0 : -EBADMSG;
}

static void adopt_one(struct dest *d, const char *name)
{
	struct import *im = calloc(1, sizeof(*im));

	if (!im)
		return;
	im->d = d;
	im->fd = -1;
	snprintf(im->name, sizeof(im->name), "%s", name);
	im->next = d->imports;
	d->imports = im;
	if (!note_read(im)) {
		im->ended_us = clock_wall_us();
		if (is_stored(im))
			atomic_store(&im->done_bytes, im->size);
		else
			error_set(
				&im->err, -ECANCELED, "agent-restarted",
				"decant-dest had ended before all of %s was read: import it again",
				im->memory);
		log_notice("image %s, which was being made of %s when the agent ended: %s", name,
			   im->memory, error_is_set(&im->err) ? "given up" : "complete");
		tell(im, "importing");
	}
	note_remove(im);
	if (!im->ended_us)
		import_free(im);
}

void import_adopt_start(struct dest *d)
{
	char dir[4096], name[MSG_NAME_MAX];
	unsigned int n = 0;
	struct dirent *e;
	DIR *folder;

	if (store_folder(d, dir, sizeof(dir)))
		return;
	folder = opendir(dir);
	/* More than there can be under way have been put there by somebody else. */
	while (folder && n < IMPORTS_MAX && (e = readdir(folder))) {
		size_t len = strlen(e->d_name), end = strlen(NOTE);

		if (len <= end || len - end >= sizeof(name) ||
		    strcmp(e->d_name + len - end, NOTE) != 0)
			continue;
		snprintf(name, sizeof(name), "%.*s", (int)(len - end), e->d_name);
		if (!image_name_ok(name))
			continue;
		adopt_one(d, name);
		n++;
	}
	if (folder)
		closedir(folder);
}
