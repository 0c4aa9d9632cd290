/* SPDX-License-Identifier: Apache-2.0 */
/* Small images, written as decant-dest writes them. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "fuzz/seeds/seeds.h"
#include "image.h"
#include "util/cleanup.h"
#include "util/digest.h"
#include "util/fdio.h"

static void check(int r, const struct error *err)
{
	if (!r)
		return;
	fprintf(stderr, "seeds: %s\n", err->msg);
	exit(1);
}

static void fill(struct image_writer *w, unsigned int block, bool zero)
{
	uint8_t page[IMAGE_UNIT];
	struct error err = {0};
	struct msg_pages m = {.block = block,
			      .kind = zero ? MSG_PAGES_ZERO : MSG_PAGES_RAW,
			      .length = IMAGE_UNIT,
			      .pass = 1};

	memset(page, 'a' + (int)block, sizeof(page));
	m.digest = zero ? 0 : digest_xxh3(page, sizeof(page));
	check(image_put(w, &m, page, &err), &err);
	m = (struct msg_pages){
		.block = block, .offset = IMAGE_UNIT, .length = IMAGE_UNIT, .pass = 1};
	check(image_put(w, &m, page, &err), &err);
}

static void image(struct seed *s, unsigned int blocks, bool machine)
{
	char dir[] = "/tmp/decant-seeds.XXXXXX", path[64], name[32];
	struct msg_block b[2] = {{.name = "ram", .page_size = 4096, .length = 8192},
				 {.index = 1, .name = "rom", .page_size = 4096, .length = 8192}};
	struct image_facts f = {.name = "monday",
				.created_us = 1,
				.setup = {.name = "vm", .driver = "qemu", .bulk_channels = 1},
				.blocks = b};
	struct image_writer *w = NULL;
	CLEANUP_FREE char *text = NULL;
	struct error err = {0};
	ssize_t n;

	f.setup.blocks = blocks;
	f.machine = machine ? json_pack("{s:s, s:s}", "qemu", "7.2.0", "cpus", "2") : NULL;
	if (!mkdtemp(dir))
		abort();
	check(image_create(dir, &f, &w, &err), &err);
	for (unsigned int i = 0; i < blocks; i++)
		fill(w, i, i);
	if (machine)
		check(image_put_state(w, "state", 5, &err), &err);
	check(image_finish(w, &err), &err);
	image_writer_free(w);
	snprintf(path, sizeof(path), "%s/monday" IMAGE_SUFFIX, dir);
	n = fdio_read_file(path, SEED_MAX, &text);
	unlink(path);
	rmdir(dir);
	seed_u8(s, 63);
	seed_raw(s, text, (size_t)n);
	snprintf(name, sizeof(name), "%u-%d", blocks, machine);
	seed_write(s, "dest_image", name);
	json_decref(f.machine);
}

void seeds_image(struct seed *s)
{
	image(s, 0, false);
	image(s, 1, true);
	image(s, 2, false);
}
