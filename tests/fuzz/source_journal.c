/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A source agent that finds the journal of a migration, and descriptions of guests that it has kept: a byte
 * that says which of the two the rest is. What it cannot read it must leave where it is.
 */
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include "fuzz/lib/fuzz.h"
#include "fuzz/lib/fuzz_source.h"
#include "fuzz/lib/fuzz_journal.h"

#define ID "01234567-89ab-4def-8123-456789abcdef"

static void put(const char *dir, const char *folder, const char *name, struct fuzz_in in)
{
	char path[160];
	int fd;

	snprintf(path, sizeof(path), "%s/state", dir);
	mkdir(path, 0755);
	snprintf(path, sizeof(path), "%s/state/%s", dir, folder);
	mkdir(path, 0755);
	snprintf(path, sizeof(path), "%s/state/%s/%s", dir, folder, name);
	fd = open(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
	FUZZ_CHECK(fd >= 0 && write(fd, in.p ? in.p : (const uint8_t *)"", in.n) == (ssize_t)in.n);
	close(fd);
}

static void serve(const char *dir)
{
	struct source s = {.started_us = 1};
	struct error err = {0};

	fuzz_source_new(&s, dir);
	if (source_start(&s, &err)) {
		FUZZ_CHECK(error_is_set(&err));
	} else {
		static const char get[] = "GET /v1/migrations HTTP/1.1\r\n\r\n";
		static const char one[] = "GET /v1/migrations/" ID " HTTP/1.1\r\n\r\n";
		static const char snaps[] = "GET /v1/snapshots HTTP/1.1\r\n\r\n";

		fuzz_http(s.loop, dir, (struct fuzz_in){(const uint8_t *)get, sizeof(get) - 1});
		fuzz_http(s.loop, dir, (struct fuzz_in){(const uint8_t *)one, sizeof(one) - 1});
		fuzz_http(s.loop, dir, (struct fuzz_in){(const uint8_t *)snaps, sizeof(snaps) - 1});
	}
	source_stop(&s);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct fuzz_in in = fuzz_begin(data, size);
	uint8_t how = fuzz_u8(&in), *sealed = NULL;
	char dir[FUZZ_DIR_MAX];

	fuzz_dir_new(dir);
	if (how & 1) {
		put(dir, ".", "guests.json", in);
	} else {
		in = fuzz_journal(in, &sealed);
		put(dir, "migrations", ID ".journal", in);
	}
	serve(dir);
	/* Whatever it made of it, a second life must do the same. */
	serve(dir);
	free(sealed);
	fuzz_dir_free(dir);
	return 0;
}
