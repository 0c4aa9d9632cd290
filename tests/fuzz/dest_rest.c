/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The whole destination agent over its REST interface, beginning with the record of an incoming
 * migration that an earlier life has left: a piece that is this record, then pieces that are requests
 * (fuzz_client.h). "$/memory" is a file that an image can be made of.
 */
#include <fcntl.h>
#include <sys/stat.h>
#include "fuzz/lib/fuzz_client.h"
#include "fuzz/lib/fuzz_dest.h"
#include "fuzz/lib/fuzz_journal.h"
#include "history.h"

#define ID "01234567-89ab-4def-8123-456789abcdef"

static void put_record(const char *dir, struct fuzz_in in)
{
	static const char *const folders[] = {"state", "state/incoming"};
	uint8_t *sealed;
	char path[160], *text;
	int fd;

	for (size_t i = 0; i < 2; i++) {
		snprintf(path, sizeof(path), "%s/%s", dir, folders[i]);
		mkdir(path, 0755);
	}
	in = fuzz_journal(fuzz_journal_here(in, 0, &text), &sealed);
	snprintf(path, sizeof(path), "%s/state/incoming/" ID ".journal", dir);
	fd = open(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
	FUZZ_CHECK(fd >= 0 && write(fd, in.p, in.n) == (ssize_t)in.n);
	close(fd);
	free(text);
	free(sealed);
}

static void put_memory(const char *dir)
{
	char path[160];
	int fd;

	snprintf(path, sizeof(path), "%s/memory", dir);
	fd = open(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
	FUZZ_CHECK(fd >= 0 && write(fd, "data", 4) == 4 && !ftruncate(fd, 16384));
	close(fd);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct fuzz_in in = fuzz_begin(data, size), record = fuzz_piece(&in);
	char dir[FUZZ_DIR_MAX];
	struct fuzz_client c;
	struct dest d;

	fuzz_dir_new(dir);
	put_memory(dir);
	if (record.n)
		put_record(dir, record);
	if (fuzz_dest_new(&d, dir)) {
		fuzz_turns(d.loop, 2);
		fuzz_client_begin(&c, d.loop, dir);
		while (in.n)
			fuzz_client_ask(&c, fuzz_piece(&in));
		fuzz_client_end(&c);
	}
	fuzz_dest_free(&d);
	fuzz_dir_free(dir);
	return 0;
}
