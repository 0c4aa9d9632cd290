/* SPDX-License-Identifier: Apache-2.0 */
/* Stored images: written as frames come, read back, and refused when anything in them is not as it was. */
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>
#include "image.h"
#include "util/cleanup.h"
#include "util/log.h"

#define UNITS 64u
#define BYTES (UNITS * IMAGE_UNIT)

/* What IMAGE.md says of an image with a description shorter than a unit. */
#define TABLE_AT 8192u
#define PAGES_AT (TABLE_AT + IMAGE_UNIT)

/** struct box - a folder, and the image that is being written into it */
struct box {
	char dir[64], path[128], part[128];
	struct image_facts facts;
	struct msg_block blocks[2];
	struct image_writer *w;
	struct error err;
};

static void box_begin(struct box *b)
{
	log_setup("error");
	*b = (struct box){0};
	strcpy(b->dir, "/tmp/decant-image-XXXXXX");
	cr_assert(mkdtemp(b->dir));
	snprintf(b->path, sizeof(b->path), "%s/monday.image", b->dir);
	snprintf(b->part, sizeof(b->part), "%s/monday.part", b->dir);
	strcpy(b->facts.name, "monday");
	b->facts.id[3] = 7;
	b->facts.created_us = 123456789;
	strcpy(b->facts.setup.name, "web-1");
	strcpy(b->facts.setup.driver, "native");
	strcpy(b->facts.setup.launcher, "run_it");
	b->facts.setup.bulk_channels = 1;
	b->facts.setup.blocks = 2;
	for (unsigned int i = 0; i < 2; i++) {
		b->blocks[i] =
			(struct msg_block){.index = i, .page_size = IMAGE_UNIT, .length = BYTES};
		snprintf(b->blocks[i].name, sizeof(b->blocks[i].name), "ram%u", i);
	}
	b->facts.blocks = b->blocks;
	cr_assert_eq(image_create(b->dir, &b->facts, &b->w, &b->err), 0, "%s", b->err.msg);
}

static void box_end(struct box *b)
{
	image_writer_free(b->w);
	unlink(b->path);
	cr_assert_eq(rmdir(b->dir), 0, "nothing is left in the folder");
}

static void fill(uint8_t *out, unsigned int block, unsigned int unit)
{
	for (unsigned int i = 0; i < IMAGE_UNIT; i++)
		out[i] = (uint8_t)(block * 101 + unit * 7 + i + 1);
}

static int put(struct box *b, unsigned int block, unsigned int first, unsigned int n, bool zero)
{
	CLEANUP_FREE uint8_t *data = malloc((size_t)n * IMAGE_UNIT);
	struct msg_pages m = {.block = block,
			      .kind = zero ? MSG_PAGES_ZERO : MSG_PAGES_RAW,
			      .offset = (uint64_t)first * IMAGE_UNIT,
			      .length = (uint64_t)n * IMAGE_UNIT,
			      .pass = 1};

	for (unsigned int i = 0; i < n; i++)
		fill(data + (size_t)i * IMAGE_UNIT, block, first + i);
	if (!zero)
		m.digest = XXH3_64bits(data, m.length);
	b->err = (struct error){0};
	return image_put(b->w, &m, data, &b->err);
}

/* Block 0: data but for units 8 to 15; block 1: zeros but for its last unit. */
static void write_all(struct box *b)
{
	cr_assert_eq(put(b, 0, 16, 48, false), 0);
	cr_assert_eq(put(b, 0, 8, 8, true), 0);
	cr_assert_eq(put(b, 0, 0, 8, false), 0);
	cr_assert_eq(put(b, 1, 0, UNITS - 1, true), 0);
	cr_assert_eq(put(b, 1, UNITS - 1, 1, false), 0);
	cr_assert_eq(image_put_state(b->w, "some ", 5, &b->err), 0);
	cr_assert_eq(image_put_state(b->w, "state", 5, &b->err), 0);
}

static void finished(struct box *b)
{
	box_begin(b);
	write_all(b);
	cr_assert_eq(image_finish(b->w, &b->err), 0, "%s", b->err.msg);
	image_writer_free(steal_ptr(&b->w));
	cr_assert(access(b->part, F_OK), "the temporary name is gone");
}

static void alter(struct box *b, off_t at)
{
	CLEANUP_CLOSE int fd = open(b->path, O_RDWR);
	uint8_t c;

	cr_assert_eq(pread(fd, &c, 1, at), 1);
	c ^= 0x10;
	cr_assert_eq(pwrite(fd, &c, 1, at), 1);
}

static int open_box(struct box *b, struct image **ret)
{
	b->err = (struct error){0};
	return image_open(b->path, true, ret, &b->err);
}

Test(dest_image, comes_back_as_it_was)
{
	CLEANUP_FREE uint8_t *all = malloc(BYTES), *state = NULL;
	uint8_t want[IMAGE_UNIT];
	struct image *img;
	struct box b;
	bool zero;

	finished(&b);
	cr_assert_eq(open_box(&b, &img), 0, "%s", b.err.msg);
	cr_assert_str_eq(image_facts(img)->name, "monday");
	cr_assert_eq(image_facts(img)->id[3], 7);
	cr_assert_eq(image_facts(img)->created_us, 123456789);
	cr_assert_str_eq(image_facts(img)->setup.launcher, "run_it");
	cr_assert_eq(image_facts(img)->setup.blocks, 2);
	cr_assert_str_eq(image_facts(img)->blocks[1].name, "ram1");
	cr_assert_eq(image_facts(img)->total, 2 * BYTES);
	cr_assert_eq(image_facts(img)->state_bytes, 10);
	cr_assert_eq(image_read_state(img, &state, &b.err), 0);
	cr_assert_arr_eq(state, "some state", 10);
	for (unsigned int block = 0; block < 2; block++) {
		memset(all, 0xee, BYTES);
		cr_assert_eq(image_read(img, block, 0, BYTES, all, &zero, &b.err), 0);
		cr_assert_not(zero);
		for (unsigned int i = 0; i < UNITS; i++) {
			memset(want, 0, sizeof(want));
			if (block ? i == UNITS - 1 : i < 8 || i > 15)
				fill(want, block, i);
			cr_assert_arr_eq(all + i * IMAGE_UNIT, want, IMAGE_UNIT, "%u %u", block, i);
		}
	}
	cr_assert_eq(image_read(img, 1, 0, BYTES - IMAGE_UNIT, all, &zero, &b.err), 0);
	cr_assert(zero);
	cr_assert_eq(image_read(img, 1, IMAGE_UNIT, BYTES, all, &zero, &b.err), -EINVAL);
	cr_assert_eq(image_read(img, 2, 0, IMAGE_UNIT, all, &zero, &b.err), -EINVAL);
	image_close(img);
	box_end(&b);
}

/* What the source told of the machine is there for whoever restores it, and only then. */
Test(dest_image, machine_comes_back)
{
	json_t *machine = json_pack("{s:s, s:s}", "machine", "pc-i440fx-7.2", "cpus", "2");
	struct image *img;
	struct box b;

	finished(&b);
	cr_assert_eq(open_box(&b, &img), 0, "%s", b.err.msg);
	cr_assert_null(image_facts(img)->machine);
	image_close(img);
	cr_assert_eq(unlink(b.path), 0);
	b.facts.machine = machine;
	cr_assert_eq(image_create(b.dir, &b.facts, &b.w, &b.err), 0, "%s", b.err.msg);
	write_all(&b);
	cr_assert_eq(image_finish(b.w, &b.err), 0, "%s", b.err.msg);
	cr_assert_eq(open_box(&b, &img), 0, "%s", b.err.msg);
	cr_assert(json_equal(image_facts(img)->machine, machine));
	cr_assert_str_eq(image_facts(img)->setup.name, "web-1");
	image_close(img);
	json_decref(machine);
	box_end(&b);
}

/* Zeros cost nothing on the disk. */
Test(dest_image, is_sparse)
{
	struct stat st;
	struct box b;

	finished(&b);
	cr_assert_eq(stat(b.path, &st), 0);
	cr_assert_gt(st.st_size, (off_t)(2 * BYTES));
	cr_assert_lt(st.st_blocks * 512, (off_t)(BYTES + 16 * IMAGE_UNIT));
	box_end(&b);
}

/* Whatever byte of it is altered is found: at once, or when it is read. */
Test(dest_image, altered_is_refused)
{
	CLEANUP_FREE uint8_t *all = malloc(BYTES), *state = NULL;
	static const off_t at_once[] = {0, 8, 20, 110, 4000, 4090, 4096 + 20, TABLE_AT + 3};
	struct image *img;
	struct box b;
	bool zero;

	finished(&b);
	for (size_t i = 0; i < ARRAY_SIZE(at_once); i++) {
		alter(&b, at_once[i]);
		cr_assert_lt(open_box(&b, &img), 0, "%d", (int)at_once[i]);
		cr_assert(strstr(b.err.code, "image-"), "%s", b.err.code);
		alter(&b, at_once[i]);
	}
	alter(&b, PAGES_AT + 5 * IMAGE_UNIT + 9);
	alter(&b, PAGES_AT + 2 * BYTES + 4);
	cr_assert_eq(open_box(&b, &img), 0, "%s", b.err.msg);
	cr_assert_eq(image_read(img, 0, 0, 5 * IMAGE_UNIT, all, &zero, &b.err), 0);
	cr_assert_eq(image_read(img, 0, 0, BYTES, all, &zero, &b.err), -EBADMSG);
	cr_assert(strstr(b.err.msg, "ram0 at 0x5000"), "%s", b.err.msg);
	cr_assert_str_eq(b.err.code, "image-damaged");
	cr_assert_eq(image_read_state(img, &state, &b.err), -EBADMSG);
	image_close(img);
	box_end(&b);
}

Test(dest_image, torn_is_refused)
{
	struct image *img;
	struct stat st;
	struct box b;

	finished(&b);
	cr_assert_eq(stat(b.path, &st), 0);
	for (off_t size = st.st_size - 1; size > 0; size /= 3) {
		cr_assert_eq(truncate(b.path, size), 0);
		cr_assert_eq(open_box(&b, &img), -EBADMSG, "%d bytes", (int)size);
	}
	box_end(&b);
}

Test(dest_image, half_of_it_is_none)
{
	struct image *img;
	struct box b;

	box_begin(&b);
	cr_assert_eq(put(&b, 0, 0, UNITS, false), 0);
	cr_assert_eq(image_finish(b.w, &b.err), -ENODATA);
	cr_assert(strstr(b.err.msg, "ram1"), "%s", b.err.msg);
	cr_assert_lt(open_box(&b, &img), 0);
	cr_assert_eq(access(b.part, F_OK), 0);
	image_writer_free(steal_ptr(&b.w));
	cr_assert(access(b.part, F_OK));
	box_end(&b);
}

Test(dest_image, what_an_earlier_life_left_is_removed)
{
	struct box b;
	int fd;

	finished(&b);
	fd = open(b.part, O_CREAT | O_WRONLY, 0600);
	cr_assert_geq(fd, 0);
	close(fd);
	image_sweep(b.dir);
	cr_assert(access(b.part, F_OK));
	cr_assert_eq(access(b.path, F_OK), 0);
	box_end(&b);
}

Test(dest_image, frames_that_cannot_be)
{
	uint8_t page[IMAGE_UNIT] = {1};
	struct msg_pages m = {.kind = MSG_PAGES_RAW, .length = IMAGE_UNIT};
	struct box b;

	box_begin(&b);
	m.digest = XXH3_64bits(page, sizeof(page)) + 1;
	cr_assert_eq(image_put(b.w, &m, page, &b.err), 1);
	m.digest--;
	m.block = 2;
	cr_assert_eq(image_put(b.w, &m, page, &b.err), -EBADMSG);
	m.block = 1;
	m.offset = BYTES;
	cr_assert_eq(image_put(b.w, &m, page, &b.err), -EBADMSG);
	m.offset = 100;
	cr_assert_eq(image_put(b.w, &m, page, &b.err), -EBADMSG);
	m.offset = 0;
	cr_assert_eq(image_put(b.w, &m, page, &b.err), 0,
		     "what was refused for its digest can come again");
	cr_assert_eq(put(&b, 1, 0, 2, false), -EBADMSG);
	cr_assert_str_eq(b.err.code, "page-twice");
	image_writer_free(steal_ptr(&b.w));
	box_end(&b);
}

Test(dest_image, names)
{
	struct image_writer *other;
	struct box b;

	finished(&b);
	cr_assert_eq(image_create(b.dir, &b.facts, &other, &b.err), -EEXIST);
	strcpy(b.facts.name, "../x");
	cr_assert_eq(image_create(b.dir, &b.facts, &other, &b.err), -EINVAL);
	strcpy(b.facts.name, ".x");
	cr_assert_eq(image_create(b.dir, &b.facts, &other, &b.err), -EINVAL);
	box_end(&b);
}

Test(dest_image, one_writer_for_a_name)
{
	struct image_writer *other;
	struct box b;

	box_begin(&b);
	cr_assert_eq(image_create(b.dir, &b.facts, &other, &b.err), -EEXIST);
	cr_assert_eq(access(b.part, F_OK), 0, "the first one's file stays");
	image_writer_free(steal_ptr(&b.w));
	box_end(&b);
}
