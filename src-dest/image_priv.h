/* SPDX-License-Identifier: Apache-2.0 */
/* What the image's files share: where things are in it, and its header. */
#ifndef DECANT_IMAGE_PRIV_H
#define DECANT_IMAGE_PRIV_H

#include <stdatomic.h>
#include "image.h"

/** IMAGE_HEADER - bytes of the header, the last eight of which are its digest */
#define IMAGE_HEADER 4096u
#define IMAGE_MAGIC  "DECANTIM"
/** IMAGE_DESCRIPTION_MAX - bytes of the description: FACTS, a SETUP and all BLOCKs */
#define IMAGE_DESCRIPTION_MAX (1u << 20)

/** struct image_part - a range of the file; @digest: XXH3-64 of it, where it has one */
struct image_part {
	uint64_t offset;
	uint64_t length;
	uint64_t digest;
};

/** struct image_layout - see IMAGE.md */
struct image_layout {
	struct image_part description;
	struct image_part table;
	struct image_part pages;
	struct image_part state;
};

struct image_progress;

/**
 * struct image - an open image; only read after image_open() or image_follow()
 * @stored:	bytes on the disk
 * @fd:		owned
 * @progress:	of one that is still being written; NULL for all others
 */
struct image {
	struct image_facts facts;
	struct image_layout layout;
	uint64_t stored;
	int fd;
	struct image_progress *progress;
};

/* --- image_follow.c: what has come so far, shared by a writer and those who read meanwhile --- */

/** image_progress_new() - for the writer of @f. Return: NULL when out of memory */
struct image_progress *image_progress_new(const struct image_facts *f);
/** image_progress_unref() - NULL is fine; any thread */
void image_progress_unref(struct image_progress *p);
/** image_progress_put() - these pages are in the file now, with their entries; any thread */
void image_progress_put(struct image_progress *p, const struct msg_pages *m);
/** image_progress_end() - the writer is done: @finished, or nothing more will come. NULL is fine */
void image_progress_end(struct image_progress *p, bool finished);
/** image_progress_reader() - one more who reads. Return: 0 with @ret, which owns a reference */
int image_progress_reader(struct image_progress *p, const struct image_facts *f,
			  const struct image_layout *l, int fd, struct image **ret,
			  struct error *err);
/** image_progress_leave() - image_close() of such a reader */
void image_progress_leave(struct image_progress *p);

/** image_header_encode() - Return: nothing; @out is complete with its digest */
void image_header_encode(const struct image_facts *f, const struct image_layout *l,
			 uint8_t out[static IMAGE_HEADER]);
/** image_header_decode() - Return: 0, -EBADMSG or -EOPNOTSUPP with @err filled; name, id, created_us and state_bytes of @f */
int image_header_decode(const uint8_t in[static IMAGE_HEADER], struct image_facts *f,
			struct image_layout *l, struct error *err);
/** image_describe() - FACTS, SETUP and BLOCKs as frames. Return: 0 with @ret for free(3), or -errno with @err filled */
int image_describe(const struct image_facts *f, uint8_t **ret, uint64_t *ret_len,
		   struct error *err);
/** image_description_decode() - fills setup, blocks, machine and total. Return: 0 or -EBADMSG with @err filled */
int image_description_decode(const uint8_t *p, uint64_t len, struct image_facts *f,
			     struct error *err);
/** image_lay_out() - where everything is, for a description of @len bytes */
void image_lay_out(uint64_t len, uint64_t total, struct image_layout *ret);
/** image_bad() - @err with the code of a damaged image. Return: -EBADMSG */
int image_bad(struct error *err, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/** image_entry() - Return: the table's entry for a unit that holds data */
uint64_t image_entry(const void *unit);
/** image_digest() - XXH3-64 of a range of the file. Return: 0 or -errno */
int image_digest(int fd, const struct image_part *part, uint64_t *ret);

#endif
