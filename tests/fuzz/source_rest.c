/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The whole source agent over its REST interface: pieces that are requests (fuzz_client.h), and packets of a
 * native guest's. Nobody can be dialled.
 */
#include <string.h>
#include "fuzz/lib/fuzz.h"
#include "fuzz/lib/fuzz_client.h"
#include "fuzz/lib/fuzz_fd.h"
#include "fuzz/lib/fuzz_source.h"
#include "fuzz/lib/plain_chan.h"

static void start(struct source *s, const char *dir)
{
	struct error err = {0};

	fuzz_source_new(s, dir);
	FUZZ_CHECK(!source_start(s, &err));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct fuzz_in in = fuzz_begin(data, size);
	struct source s = {.started_us = 1};
	char dir[FUZZ_DIR_MAX];
	struct fuzz_client c;
	int guest;

	fuzz_memory();
	fuzz_dir_new(dir);
	start(&s, dir);
	guest = fuzz_connect(dir, "attach", SOCK_SEQPACKET);
	fuzz_client_begin(&c, s.loop, dir);
	fuzz_turns(s.loop, 1);
	while (in.n) {
		uint8_t op = fuzz_u8(&in);

		if (op < 16) {
			fuzz_send(guest, fuzz_piece(&in), op & 7, false);
			fuzz_turns(s.loop, 1);
		} else {
			fuzz_client_ask(&c, fuzz_piece(&in));
		}
	}
	close(guest);
	fuzz_client_end(&c);
	fuzz_turns(s.loop, 3);
	source_stop(&s);
	fuzz_dir_free(dir);
	return 0;
}
