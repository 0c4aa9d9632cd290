/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A journal whatever its bytes are. One that opens must open again with the same records, take
 * another record, and have that, too.
 */
#include <string.h>
#include <unistd.h>
#include <xxhash.h>
#include "fuzz/lib/fuzz.h"
#include "fuzz/lib/fuzz_journal.h"
#include "util/journal.h"

static json_t *records_of(const char *path, struct journal **ret)
{
	struct error err = {0};
	json_t *records = NULL;
	int r = journal_open(path, ret, &records, &err);

	FUZZ_CHECK(!r || error_is_set(&err));
	return r ? NULL : records;
}

static void append(struct journal *j)
{
	json_t *rec = json_pack("{s:s}", "record", "last");
	struct error err = {0};

	FUZZ_CHECK(!journal_append(j, rec, &err));
	json_decref(rec);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct fuzz_in in = fuzz_begin(data, size);
	uint8_t *sealed = NULL;
	char path[FUZZ_PATH];
	struct journal *j;
	json_t *first, *again;
	int fd;

	if (fuzz_u8(&in) & 1)
		in = fuzz_journal(in, &sealed);
	fd = fuzz_file(in, path);
	first = records_of(path, &j);
	if (first) {
		append(j);
		journal_close(j);
		again = records_of(path, &j);
		FUZZ_CHECK(again && json_array_size(again) == json_array_size(first) + 1);
		json_array_remove(again, json_array_size(first));
		FUZZ_CHECK(json_equal(first, again));
		json_decref(again);
		json_decref(first);
		journal_close(j);
	}
	close(fd);
	free(sealed);
	return 0;
}
