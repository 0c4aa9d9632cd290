/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Writing an image. Torn images cannot come about: the file has a temporary name, which nobody
 * opens, until everything in it is on the disk; the header is written last.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <xxhash.h>
#include "guest/driver.h"
#include "image_priv.h"
#include "util/bitmap.h"
#include "util/bytes.h"
#include "util/cleanup.h"
#include "util/digest.h"
#include "util/faultpoint.h"
#include "util/fdio.h"
#include "util/log.h"

#define UNITS_MAX (MSG_PAGES_RAW_MAX / IMAGE_UNIT)

/**
 * struct image_block - one block, while it is written
 * @table, @pages: where its parts are in the file
 * @have:	units that were stored
 */
struct image_block {
	uint64_t table;
	uint64_t pages;
	struct bitmap have;
};

/**
 * struct image_writer - see image.h
 * @facts:	@facts.blocks is owned
 * @part, @path: temporary and right name
 * @finished:	it has its right name
 * @progress:	shared with those who read it while it is written
 */
struct image_writer {
	struct image_facts facts;
	struct image_layout layout;
	struct image_block *blocks;
	XXH3_state_t *state_hash;
	int fd;
	char *part;
	char *path;
	bool finished;
	struct image_progress *progress;
};

bool image_name_ok(const char *name)
{
	return guest_name_ok(name);
}

static int no_memory(struct error *err)
{
	return error_set(err, -ENOMEM, NULL, "out of memory");
}

static int io_failed(const struct image_writer *w, int r, const char *what, struct error *err)
{
	return error_set(err, r, "storing", "image %s: %s: %s", w->facts.name, what, strerror(-r));
}

static int prepare_blocks(struct image_writer *w, struct error *err)
{
	uint64_t table = w->layout.table.offset, pages = w->layout.pages.offset;

	w->blocks = calloc(w->facts.setup.blocks + 1, sizeof(*w->blocks));
	if (!w->blocks)
		return no_memory(err);
	for (uint32_t i = 0; i < w->facts.setup.blocks; i++) {
		uint64_t units = w->facts.blocks[i].length / IMAGE_UNIT;

		w->blocks[i].table = table;
		w->blocks[i].pages = pages;
		if (bitmap_init(&w->blocks[i].have, units))
			return no_memory(err);
		table += units * sizeof(uint64_t);
		pages += w->facts.blocks[i].length;
	}
	return 0;
}

static int open_file(struct image_writer *w, const char *dir, struct error *err)
{
	if (asprintf(&w->path, "%s/%s" IMAGE_SUFFIX, dir, w->facts.name) < 0) {
		w->path = NULL;
		return no_memory(err);
	}
	if (asprintf(&w->part, "%s/%s" IMAGE_PART, dir, w->facts.name) < 0) {
		w->part = NULL;
		return no_memory(err);
	}
	if (!access(w->path, F_OK))
		return error_set(err, -EEXIST, "snapshot-exists",
				 "there is an image named %s already: choose another --name",
				 w->facts.name);
	w->fd = open(w->part, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (w->fd < 0 && errno == EEXIST) {
		free(steal_ptr(&w->part)); /* not ours to remove */
		return error_set(err, -EEXIST, "snapshot-exists",
				 "an image named %s is being written", w->facts.name);
	}
	return w->fd < 0 ? io_failed(w, -errno, w->part, err) : 0;
}

/* The description now; the header stays a hole until all else is there. */
static int begin_file(struct image_writer *w, struct error *err)
{
	CLEANUP_FREE uint8_t *text = NULL;
	uint64_t len;
	int r = image_describe(&w->facts, &text, &len, err);

	if (r)
		return r;
	image_lay_out(len, w->facts.total, &w->layout);
	w->layout.description.digest = digest_xxh3(text, len);
	r = fdio_pwrite_full(w->fd, text, len, w->layout.description.offset);
	if (!r && ftruncate(w->fd, (off_t)w->layout.state.offset))
		r = -errno;
	return r ? io_failed(w, r, "cannot begin it", err) : prepare_blocks(w, err);
}

static int copy_facts(struct image_writer *w, const struct image_facts *facts, struct error *err)
{
	size_t n = facts->setup.blocks;

	w->facts = *facts;
	w->facts.total = 0;
	w->facts.state_bytes = 0;
	json_incref(w->facts.machine);
	w->facts.blocks = calloc(n ? n : 1, sizeof(*w->facts.blocks));
	w->state_hash = XXH3_createState();
	if (!w->facts.blocks || !w->state_hash)
		return no_memory(err);
	XXH3_64bits_reset(w->state_hash);
	if (n)
		memcpy(w->facts.blocks, facts->blocks, n * sizeof(*facts->blocks));
	w->progress = image_progress_new(&w->facts);
	if (!w->progress)
		return no_memory(err);
	for (size_t i = 0; i < n; i++)
		w->facts.total += facts->blocks[i].length;
	return 0;
}

int image_create(const char *dir, const struct image_facts *facts, struct image_writer **ret,
		 struct error *err)
{
	struct image_writer *w;
	int r;

	if (!image_name_ok(facts->name))
		return error_set(err, -EINVAL, "bad-name", "\"%s\" is no name of an image",
				 facts->name);
	w = calloc(1, sizeof(*w));
	if (!w)
		return no_memory(err);
	w->fd = -1;
	r = copy_facts(w, facts, err);
	if (!r)
		r = open_file(w, dir, err);
	if (!r)
		r = begin_file(w, err);
	if (r) {
		image_writer_free(w);
		return r;
	}
	*ret = w;
	return 0;
}

/* --- pages --- */

static int check(const struct image_writer *w, const struct msg_pages *m, struct error *err)
{
	const struct msg_block *b;

	if (m->block >= w->facts.setup.blocks)
		return error_set(err, -EBADMSG, "bad-message", "PAGES for block %u of %u", m->block,
				 w->facts.setup.blocks);
	b = &w->facts.blocks[m->block];
	if (!m->length || (m->offset | m->length) % IMAGE_UNIT || m->length > b->length ||
	    m->offset > b->length - m->length)
		return error_set(err, -EBADMSG, "bad-message",
				 "PAGES for block %s: %" PRIu64 " bytes at 0x%" PRIx64
				 " are not in it",
				 b->name, m->length, m->offset);
	return 0;
}

/* Pages claim their units before they are written: of two that bring the same one, one is refused. */
static int claim(struct image_writer *w, const struct msg_pages *m, struct error *err)
{
	uint64_t first = m->offset / IMAGE_UNIT, n = m->length / IMAGE_UNIT;

	if (bitmap_set_range(&w->blocks[m->block].have, first, n) == n)
		return 0;
	return error_set(err, -EBADMSG, "page-twice",
			 "PAGES for block %s: a page of the %" PRIu64 " bytes at 0x%" PRIx64
			 " has been stored already",
			 w->facts.blocks[m->block].name, m->length, m->offset);
}

static int put_data(struct image_writer *w, const struct msg_pages *m, const uint8_t *data,
		    struct error *err)
{
	const struct image_block *b = &w->blocks[m->block];
	uint8_t entries[UNITS_MAX * sizeof(uint64_t)];
	struct bytes_writer table = {.p = entries, .cap = sizeof(entries)};
	int r;

	for (uint64_t off = 0; off < m->length; off += IMAGE_UNIT)
		bytes_put_u64(&table, image_entry(data + off));
	r = fdio_pwrite_full(w->fd, data, m->length, b->pages + m->offset);
	if (!r)
		r = fdio_pwrite_full(w->fd, entries, table.len,
				     b->table + m->offset / IMAGE_UNIT * sizeof(uint64_t));
	return r ? io_failed(w, r, "cannot write pages", err) : 0;
}

int image_put(struct image_writer *w, const struct msg_pages *m, const void *data,
	      struct error *err)
{
	int r = check(w, m, err);

	if (!r && m->kind == MSG_PAGES_RAW && m->length > MSG_PAGES_RAW_MAX)
		r = error_set(err, -EBADMSG, "bad-message", "PAGES of %" PRIu64 " bytes",
			      m->length);
	if (r)
		return r;
	if (m->kind == MSG_PAGES_RAW && digest_xxh3(data, m->length) != m->digest)
		return 1;
	r = claim(w, m, err);
	/* Zeros are holes, in the pages and in the table. */
	if (!r && m->kind == MSG_PAGES_RAW)
		r = put_data(w, m, data, err);
	FAULTPOINT(IMAGE_PAGES_WRITTEN);
	if (!r)
		image_progress_put(w->progress, m);
	return r;
}

int image_follow(struct image_writer *w, struct image **ret, struct error *err)
{
	return image_progress_reader(w->progress, &w->facts, &w->layout, w->fd, ret, err);
}

int image_put_state(struct image_writer *w, const void *data, size_t n, struct error *err)
{
	int r;

	if (n > MSG_STATE_TOTAL_MAX - w->facts.state_bytes)
		return error_set(err, -EBADMSG, "bad-message",
				 "the guest's state is larger than %u bytes", MSG_STATE_TOTAL_MAX);
	r = fdio_pwrite_full(w->fd, data, n, w->layout.state.offset + w->facts.state_bytes);
	if (r)
		return io_failed(w, r, "cannot write the guest's state", err);
	XXH3_64bits_update(w->state_hash, data, n);
	w->facts.state_bytes += n;
	FAULTPOINT(IMAGE_STATE_WRITTEN);
	return 0;
}

/* Return: whether a page was not stored yet, then block and byte offset in it */
static bool is_missing(const struct image_writer *w, unsigned int *ret_block, uint64_t *ret_off)
{
	for (uint32_t i = 0; i < w->facts.setup.blocks; i++) {
		uint64_t unit = bitmap_next_clear(&w->blocks[i].have, 0);

		if (unit < w->facts.blocks[i].length / IMAGE_UNIT) {
			*ret_block = i;
			*ret_off = unit * IMAGE_UNIT;
			return true;
		}
	}
	return false;
}

/* --- the end --- */

static int finish_file(struct image_writer *w)
{
	uint8_t header[IMAGE_HEADER];
	int r = image_digest(w->fd, &w->layout.table, &w->layout.table.digest);

	if (!r && fdatasync(w->fd))
		r = -errno;
	if (r)
		return r;
	w->layout.state.length = w->facts.state_bytes;
	w->layout.state.digest = XXH3_64bits_digest(w->state_hash);
	FAULTPOINT(IMAGE_DATA_SYNCED);
	image_header_encode(&w->facts, &w->layout, header);
	r = fdio_pwrite_full(w->fd, header, sizeof(header), 0);
	if (!r && fsync(w->fd))
		r = -errno;
	FAULTPOINT(IMAGE_HEADER_SYNCED);
	return r;
}

/* link() and not rename(): whatever has got this name meanwhile is not replaced. */
static int give_name(struct image_writer *w, struct error *err)
{
	int r;

	if (link(w->part, w->path))
		return errno == EEXIST
			       ? error_set(err, -EEXIST, "snapshot-exists",
					   "there is an image named %s already", w->facts.name)
			       : io_failed(w, -errno, "cannot give it its name", err);
	FAULTPOINT(IMAGE_NAMED);
	w->finished = true;
	unlink(w->part);
	FAULTPOINT(IMAGE_PART_REMOVED);
	r = fdio_sync_dir_of(w->path);
	return r ? io_failed(w, r, "cannot sync its folder", err) : 0;
}

int image_finish(struct image_writer *w, struct error *err)
{
	unsigned int block;
	uint64_t off;
	int r;

	if (is_missing(w, &block, &off))
		return error_set(err, -ENODATA, "pages-missing",
				 "block %s has not been received at 0x%" PRIx64,
				 w->facts.blocks[block].name, off);
	r = finish_file(w);
	r = r ? io_failed(w, r, "cannot complete it", err) : give_name(w, err);
	if (!r)
		image_progress_end(w->progress, true);
	return r;
}

void image_writer_free(struct image_writer *w)
{
	if (!w)
		return;
	image_progress_end(w->progress, false);
	image_progress_unref(w->progress);
	if (w->fd >= 0) {
		close(w->fd);
		if (!w->finished)
			unlink(w->part);
	}
	for (uint32_t i = 0; w->blocks && i < w->facts.setup.blocks; i++)
		bitmap_free(&w->blocks[i].have);
	free(w->blocks);
	json_decref(w->facts.machine);
	free(w->facts.blocks);
	XXH3_freeState(w->state_hash);
	free(w->part);
	free(w->path);
	free(w);
}

void image_sweep(const char *dir)
{
	DIR *d = opendir(dir);
	struct dirent *de;

	while (d && (de = readdir(d))) {
		size_t len = strlen(de->d_name), tail = strlen(IMAGE_PART);

		if (len <= tail || strcmp(de->d_name + len - tail, IMAGE_PART) != 0)
			continue;
		log_notice("image %s was never completed: removed", de->d_name);
		if (unlinkat(dirfd(d), de->d_name, 0))
			log_warn("%s/%s: %s", dir, de->d_name, strerror(errno));
	}
	if (d)
		closedir(d);
}
