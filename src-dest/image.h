/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A stored image of a guest: one sparse file, as IMAGE.md specifies it. It is written under a
 * temporary name by many threads at a time, and has its own name only once it is complete and on the
 * disk; what is opened is checked against digests, the tables at once, pages when they are read.
 */
#ifndef DECANT_IMAGE_H
#define DECANT_IMAGE_H

#include <stdbool.h>
#include <stddef.h>
#include <jansson.h>
#include <stdint.h>
#include "msg.h"
#include "util/error.h"

/** IMAGE_VERSION - of the format */
#define IMAGE_VERSION 1
/** IMAGE_UNIT - bytes that have a digest of their own, whatever the block's page size */
#define IMAGE_UNIT 4096u
/** IMAGE_SUFFIX - NAME and this is the file of image NAME; IMAGE_PART that of one being written */
#define IMAGE_SUFFIX ".image"
#define IMAGE_PART   ".part"

/**
 * struct image_facts - what an image says of itself
 * @name:	of the image
 * @id:		of the session that wrote it
 * @created_us:	clock_wall_us() of its beginning
 * @setup:	the guest
 * @blocks:	@setup.blocks of them, owned by the image
 * @machine:	what the source told of the guest's machine (FACTS): an object of strings, NULL if nothing or
 *		if the image is still being written; a reference of the image's
 * @total:	bytes of all blocks
 * @state_bytes: of the guest's device state
 */
struct image_facts {
	char name[MSG_NAME_MAX];
	uint8_t id[MSG_UUID_LEN];
	uint64_t created_us;
	struct msg_setup setup;
	struct msg_block *blocks;
	json_t *machine;
	uint64_t total;
	uint64_t state_bytes;
};

/* --- writing --- */

struct image_writer;

/** image_name_ok() - Return: whether an image may have this name: 1 to 63 of [A-Za-z0-9._-], not beginning with . or - */
bool image_name_ok(const char *name);
/**
 * image_create() - begin an image
 * @dir:	folder of images, which exists
 * @facts:	name, id, created_us, setup, blocks and machine are copied
 *
 * Return: 0; -EEXIST (code "snapshot-exists") if an image of the name is there or being written;
 * -EINVAL for a bad name; or -errno with @err filled
 */
int image_create(const char *dir, const struct image_facts *facts, struct image_writer **ret,
		 struct error *err);
/**
 * image_put() - store one PAGES frame; any thread
 * @data:	@m->length bytes for kind raw, not looked at for kind zero
 *
 * Return: 0; 1 if the digest is wrong: nothing was stored; -EBADMSG for a frame that cannot be: bad
 * block or range, or a page that was stored already (W15); or -errno; with @err filled
 */
int image_put(struct image_writer *w, const struct msg_pages *m, const void *data,
	      struct error *err);
/** image_put_state() - append to the device state; one thread. Return: 0 or -errno with @err filled */
int image_put_state(struct image_writer *w, const void *data, size_t n, struct error *err);
/**
 * image_finish() - complete it: tables and header, synced, renamed, synced again
 *
 * No other call may be under way. Return: 0; -ENODATA if a page is missing; or -errno with @err filled
 */
int image_finish(struct image_writer *w, struct error *err);
/** image_writer_free() - close; without image_finish() nothing is left of it. NULL is fine */
void image_writer_free(struct image_writer *w);
struct image;

/**
 * image_follow() - read an image while it is being written
 * @ret:	for image_read(), image_there() and image_close(); outlives the writer
 *
 * Return: 0 or -errno with @err filled
 */
int image_follow(struct image_writer *w, struct image **ret, struct error *err);
/** image_sweep() - remove what an earlier life was writing in @dir */
void image_sweep(const char *dir);

/* --- reading --- */

/**
 * image_open() - open and check
 * @tables:	check the digest of the page table, too; needed for image_read()
 *
 * Return: 0; -ENOENT; -EBADMSG with @err saying what is wrong (code "image-damaged"); -EOPNOTSUPP for
 * another version; or -errno
 */
int image_open(const char *path, bool tables, struct image **ret, struct error *err);
/** image_close() - NULL is fine */
void image_close(struct image *img);
/** image_facts() - Return: of the image, as long as it is open */
const struct image_facts *image_facts(const struct image *img);
/** image_stored_bytes() - Return: what the file takes on the disk */
uint64_t image_stored_bytes(const struct image *img);
/**
 * image_read() - pages, each checked against its digest; any thread
 * @offset, @length: in whole units, inside the block
 * @ret_zero:	all of it is zeros, and @buf was not written
 *
 * Return: 0; -EBADMSG (code "image-damaged", naming block and offset); or -errno with @err filled
 */
int image_read(const struct image *img, unsigned int block, uint64_t offset, uint64_t length,
	       void *buf, bool *ret_zero, struct error *err);
/**
 * image_there() - how much of a range has come; any thread
 *
 * Only an image that is still being written does not have everything.
 *
 * Return: bytes from @offset on that image_read() may be asked for, in whole units, at most @length
 */
uint64_t image_there(const struct image *img, unsigned int block, uint64_t offset, uint64_t length);
/** image_next_there() - Return: first byte offset at or behind @offset that has come, the block's
 * length if there is none */
uint64_t image_next_there(const struct image *img, unsigned int block, uint64_t offset);
/**
 * image_wait() - wait until more has come, or it is known that nothing will
 * @seen:	0 at first; what this function left there tells what the caller has seen. To be called
 *		before looking for pages, so that none is missed
 * @ms:	longest wait
 *
 * Return: 0; 1 if everything has come; -ENODATA with @err filled (code "image-incomplete") if its
 * writer gave up
 */
int image_wait(struct image *img, uint64_t *seen, unsigned int ms, struct error *err);
/**
 * image_read_state() - the device state, checked
 * @ret:	facts.state_bytes bytes for free(3); NULL if there are none
 *
 * Return: as image_read()
 */
int image_read_state(const struct image *img, uint8_t **ret, struct error *err);

#endif
