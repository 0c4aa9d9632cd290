/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A source agent that finds what an earlier life has left, damaged: pieces that are files, before each a byte that
 * says which. What it cannot read it must leave where it is.
 */
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include "fuzz/lib/fuzz_client.h"
#include "fuzz/lib/fuzz_journal.h"
#include "fuzz/lib/fuzz_source.h"
#include "util/cleanup.h"

#define ID "01234567-89ab-4def-8123-456789abcdef"

/** struct left - a file; @sealed: lines with checksums */
static const struct left {
	const char *folder, *name;
	bool sealed;
} files[] = {
	{"migrations", ID ".journal", true},  {".", "guests.json", false},
	{"evacuations", ID ".journal", true}, {".", "rest-source.journal", true},
	{".", "bandwidth.json", false},       {".", "cordon", false},
};

static void put(const char *dir, const struct left *file, struct fuzz_in in)
{
	uint8_t *sealed = NULL;
	char path[160];
	int fd;

	if (file->sealed)
		in = fuzz_journal(in, &sealed);
	snprintf(path, sizeof(path), "%s/state", dir);
	mkdir(path, 0755);
	snprintf(path, sizeof(path), "%s/state/%s", dir, file->folder);
	mkdir(path, 0755);
	snprintf(path, sizeof(path), "%s/state/%s/%s", dir, file->folder, file->name);
	fd = open(path, O_CREAT | O_TRUNC | O_WRONLY | O_CLOEXEC, 0600);
	FUZZ_CHECK(fd >= 0 && write(fd, in.p ? in.p : (const uint8_t *)"", in.n) == (ssize_t)in.n);
	close(fd);
	free(sealed);
}

static void look(struct loop *loop, const char *dir)
{
	static const char *const paths[] = {
		"/v1/guests",         "/v1/migrations",  "/v1/migrations/" ID,
		"/v1/snapshots",      "/v1/evacuations", "/v1/evacuations/" ID,
		"/v1/host/bandwidth", "/v1/host",        "/metrics",
	};
	static const char repeat[] = "POST /v1/guests\n+Idempotency-Key: k\n{}";
	struct fuzz_client c;

	fuzz_client_begin(&c, loop, dir);
	for (size_t i = 0; i < ARRAY_SIZE(paths); i++)
		fuzz_client_get(&c, paths[i]);
	fuzz_client_ask(&c, (struct fuzz_in){(const uint8_t *)repeat, sizeof(repeat) - 1});
	fuzz_client_end(&c);
}

static void serve(const char *dir)
{
	struct source s = {.started_us = 1};
	struct error err = {0};

	fuzz_source_new(&s, dir);
	if (source_start(&s, &err))
		FUZZ_CHECK(error_is_set(&err));
	else
		look(s.loop, dir);
	source_stop(&s);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct fuzz_in in = fuzz_begin(data, size);
	char dir[FUZZ_DIR_MAX];

	fuzz_dir_new(dir);
	while (in.n) {
		const struct left *file = &files[fuzz_u8(&in) % ARRAY_SIZE(files)];

		put(dir, file, fuzz_piece(&in));
	}
	serve(dir);
	/* Whatever it made of it, a second life must do the same. */
	serve(dir);
	fuzz_dir_free(dir);
	return 0;
}
