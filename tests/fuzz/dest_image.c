/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Image files. The first byte says which of the digests are put right before the file is opened: no
 * mutation would find those. Whatever opens is read from end to end.
 */
#include <string.h>
#include <unistd.h>
#include "fuzz/lib/fuzz.h"
#include "image_priv.h"
#include "util/bytes.h"
#include "util/digest.h"

/* Where the header has its parts: see image_header_encode(). */
#define PARTS_AT (8 + 4 + 4 + 16 + 64 + 8)
#define READ_MAX (1u << 20)

static uint64_t get(const uint8_t *p)
{
	struct bytes_reader r = {.p = p, .len = 8};

	return bytes_get_u64(&r, "");
}

static void put(uint8_t *p, uint64_t v)
{
	struct bytes_writer w = {.p = p, .cap = 8};

	bytes_put_u64(&w, v);
}

static void seal_part(uint8_t *file, size_t n, unsigned int part)
{
	uint8_t *p = file + PARTS_AT + part * 24;
	uint64_t offset = get(p), length = get(p + 8);

	if (offset <= n && length <= n - offset)
		put(p + 16, digest_xxh3(file + offset, length));
}

static void seal_entries(uint8_t *file, size_t n)
{
	uint64_t table = get(file + PARTS_AT + 24), pages = get(file + PARTS_AT + 48);
	uint64_t length = get(file + PARTS_AT + 56);

	if (table > n || pages > n || length > n - pages || length / 512 > n - table)
		return;
	for (uint64_t i = 0; i < length / IMAGE_UNIT; i++)
		if (get(file + table + i * 8))
			put(file + table + i * 8, image_entry(file + pages + i * IMAGE_UNIT));
}

static void seal(uint8_t how, uint8_t *file, size_t n)
{
	if (n < IMAGE_HEADER)
		return;
	if (how & 16)
		seal_entries(file, n);
	if (how & 1)
		seal_part(file, n, 0);
	if (how & 2)
		seal_part(file, n, 1);
	if (how & 4)
		seal_part(file, n, 3);
	if (how & 8)
		put(file + IMAGE_HEADER - 8, digest_xxh3(file, IMAGE_HEADER - 8));
}

static void read_all(const struct image *img)
{
	const struct image_facts *f = image_facts(img);
	uint8_t *state = NULL, *buf;
	struct error err = {0};
	bool zero;

	FUZZ_CHECK(image_name_ok(f->name));
	for (uint32_t i = 0; i < f->setup.blocks && f->total < READ_MAX; i++) {
		uint64_t length = f->blocks[i].length;

		buf = malloc(length);
		image_read(img, i, 0, length, buf, &zero, &err);
		image_read(img, i, length - IMAGE_UNIT, IMAGE_UNIT, buf, &zero, &err);
		FUZZ_CHECK(image_there(img, i, 0, length) == length);
		free(buf);
	}
	image_stored_bytes(img);
	if (!image_read_state(img, &state, &err))
		free(state);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct fuzz_in in = fuzz_begin(data, size);
	char name[] = "/tmp/decant-fuzz-image.XXXXXX";
	uint8_t how = fuzz_u8(&in), *file = fuzz_copy(in);
	struct image *img;
	struct error err = {0};
	int fd = mkstemp(name);

	FUZZ_CHECK(fd >= 0);
	seal(how, file, in.n);
	FUZZ_CHECK(write(fd, file, in.n) == (ssize_t)in.n);
	if (!image_open(name, how & 32, &img, &err)) {
		read_all(img);
		image_close(img);
	} else {
		FUZZ_CHECK(error_is_set(&err));
	}
	close(fd);
	unlink(name);
	free(file);
	return 0;
}
