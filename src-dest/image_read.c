/* SPDX-License-Identifier: Apache-2.0 */
/* Reading an image: nothing of it is believed before its digest was seen to be right. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "image_priv.h"
#include "util/bytes.h"
#include "util/cleanup.h"
#include "util/digest.h"
#include "util/fdio.h"

/* Units whose entries are read at a time. */
#define UNITS_AT_ONCE 64

/* Where everything is follows from the description; the header must say the same. */
static int check_layout(const struct image *img, uint64_t size, struct error *err)
{
	const struct image_layout *l = &img->layout;
	struct image_layout want;

	image_lay_out(l->description.length, img->facts.total, &want);
	if (l->table.offset != want.table.offset || l->table.length != want.table.length ||
	    l->pages.offset != want.pages.offset || l->pages.length != want.pages.length ||
	    l->state.offset != want.state.offset)
		return image_bad(err, "header and description do not agree");
	if (size != l->state.offset + l->state.length)
		return image_bad(err, "the file has %" PRIu64 " bytes and should have %" PRIu64,
				 size, l->state.offset + l->state.length);
	return 0;
}

static int read_description(struct image *img, struct error *err)
{
	const struct image_part *p = &img->layout.description;
	CLEANUP_FREE uint8_t *text = malloc(p->length ? p->length : 1);
	int r;

	if (!text)
		return error_set(err, -ENOMEM, NULL, "out of memory");
	if (p->offset != IMAGE_HEADER)
		return image_bad(err, "the description is misplaced");
	r = fdio_pread_full(img->fd, text, p->length, p->offset);
	if (r == -EIO)
		return image_bad(err, "the file is cut short");
	if (r)
		return error_set(err, r, NULL, "%s", strerror(-r));
	if (digest_xxh3(text, p->length) != p->digest)
		return image_bad(err, "the description is damaged");
	return image_description_decode(text, p->length, &img->facts, err);
}

static int check_table(const struct image *img, struct error *err)
{
	uint64_t digest = 0;
	int r = image_digest(img->fd, &img->layout.table, &digest);

	if (r)
		return error_set(err, r, NULL, "the page table: %s", strerror(-r));
	return digest == img->layout.table.digest ? 0 : image_bad(err, "the page table is damaged");
}

static int open_all(struct image *img, const char *path, bool tables, struct error *err)
{
	uint8_t header[IMAGE_HEADER];
	struct stat st;
	int r;

	img->fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	if (img->fd < 0 || fstat(img->fd, &st))
		return error_set(err, -errno, NULL, "%s", strerror(errno));
	img->stored = (uint64_t)st.st_blocks * 512;
	r = fdio_pread_full(img->fd, header, sizeof(header), 0);
	if (r == -EIO)
		return image_bad(err, "the file is cut short");
	if (r)
		return error_set(err, r, NULL, "%s", strerror(-r));
	r = image_header_decode(header, &img->facts, &img->layout, err);
	if (!r)
		r = read_description(img, err);
	if (!r)
		r = check_layout(img, (uint64_t)st.st_size, err);
	return r || !tables ? r : check_table(img, err);
}

int image_open(const char *path, bool tables, struct image **ret, struct error *err)
{
	struct image *img = calloc(1, sizeof(*img));
	int r;

	if (!img)
		return error_set(err, -ENOMEM, NULL, "out of memory");
	img->fd = -1;
	r = open_all(img, path, tables, err);
	if (r) {
		error_prefix(err, "image %s", path);
		image_close(img);
		return r;
	}
	*ret = img;
	return 0;
}

void image_close(struct image *img)
{
	if (!img)
		return;
	if (img->progress)
		image_progress_leave(img->progress);
	if (img->fd >= 0)
		close(img->fd);
	json_decref(img->facts.machine);
	free(img->facts.blocks);
	free(img);
}

const struct image_facts *image_facts(const struct image *img)
{
	return &img->facts;
}

uint64_t image_stored_bytes(const struct image *img)
{
	return img->stored;
}

/* --- pages --- */

/* Where a block's parts begin. */
static void find_block(const struct image *img, unsigned int block, uint64_t *ret_table,
		       uint64_t *ret_pages)
{
	*ret_table = img->layout.table.offset;
	*ret_pages = img->layout.pages.offset;
	for (unsigned int i = 0; i < block; i++) {
		*ret_table += img->facts.blocks[i].length / IMAGE_UNIT * sizeof(uint64_t);
		*ret_pages += img->facts.blocks[i].length;
	}
}

/* A whole page can be read of which only a part holds data: its zeros need no digest. */
static int check_units(const struct image *img, unsigned int block, uint64_t offset,
		       const uint64_t *entries, size_t n, uint8_t *buf, struct error *err)
{
	for (size_t i = 0; i < n; i++) {
		uint8_t *unit = buf + i * IMAGE_UNIT;

		if (!entries[i])
			memset(unit, 0, IMAGE_UNIT);
		else if (image_entry(unit) != entries[i])
			return image_bad(err, "image %s is damaged: block %s at 0x%" PRIx64,
					 img->facts.name, img->facts.blocks[block].name,
					 offset + i * IMAGE_UNIT);
	}
	return 0;
}

/* At most UNITS_AT_ONCE. Return: 1 if they are all zeros (then @buf is not written), 0, or -errno */
static int read_units(const struct image *img, unsigned int block, uint64_t offset, size_t n,
		      uint8_t *buf, struct error *err)
{
	uint8_t raw[UNITS_AT_ONCE * sizeof(uint64_t)];
	struct bytes_reader in = {.p = raw, .len = n * sizeof(uint64_t)};
	uint64_t entries[UNITS_AT_ONCE], table, pages, any = 0;
	int r;

	find_block(img, block, &table, &pages);
	r = fdio_pread_full(img->fd, raw, in.len, table + offset / IMAGE_UNIT * sizeof(uint64_t));
	for (size_t i = 0; !r && i < n; i++)
		any |= entries[i] = bytes_get_u64(&in, "entry");
	if (!r && !any)
		return 1;
	if (!r)
		r = fdio_pread_full(img->fd, buf, n * IMAGE_UNIT, pages + offset);
	if (r)
		return error_set(err, r, "image-damaged", "image %s cannot be read: %s",
				 img->facts.name, strerror(-r));
	return check_units(img, block, offset, entries, n, buf, err);
}

int image_read(const struct image *img, unsigned int block, uint64_t offset, uint64_t length,
	       void *buf, bool *ret_zero, struct error *err)
{
	uint8_t *out = buf;
	bool zero = true;

	if (block >= img->facts.setup.blocks || (offset | length) % IMAGE_UNIT ||
	    length > img->facts.blocks[block].length ||
	    offset > img->facts.blocks[block].length - length)
		return error_set(err, -EINVAL, NULL, "no such pages in image %s", img->facts.name);
	for (uint64_t off = 0; off < length;) {
		size_t n = (size_t)MIN((length - off) / IMAGE_UNIT, (uint64_t)UNITS_AT_ONCE);
		int r = read_units(img, block, offset + off, n, out + off, err);

		if (r < 0)
			return r;
		/* Zeros among data have to be there; before the first data they are written late. */
		if (r == 0 && zero && off)
			memset(out, 0, off);
		if (r == 1 && !zero)
			memset(out + off, 0, n * IMAGE_UNIT);
		zero &= r == 1;
		off += n * IMAGE_UNIT;
	}
	*ret_zero = zero;
	return 0;
}

int image_read_state(const struct image *img, uint8_t **ret, struct error *err)
{
	const struct image_part *p = &img->layout.state;
	CLEANUP_FREE uint8_t *state = p->length ? malloc(p->length) : NULL;
	int r = p->length && !state ? -ENOMEM : 0;

	if (!r && state)
		r = fdio_pread_full(img->fd, state, p->length, p->offset);
	if (r)
		return error_set(err, r, NULL, "the state in image %s: %s", img->facts.name,
				 strerror(-r));
	if (digest_xxh3(state ? state : (uint8_t *)"", p->length) != p->digest)
		return image_bad(err, "image %s is damaged: the guest's state", img->facts.name);
	*ret = steal_ptr(&state);
	return 0;
}
