/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The whole source agent over its REST interface: pieces that are requests, the first line method and
 * path, the rest a body; a native guest may attach. Nobody can be dialled.
 */
#include <string.h>
#include "fuzz/lib/fuzz.h"
#include "fuzz/lib/fuzz_dir.h"
#include "fuzz/lib/fuzz_fd.h"
#include "fuzz/lib/plain_chan.h"
#include "source.h"

static void start(struct source *s, const char *dir)
{
	struct error err = {0};
	char text[1024];
	json_t *json;

	snprintf(text, sizeof(text),
		 "{\"api\":{\"listen\":[\"unix:%s/api.sock\"]},\"tls\":{\"ca\":\"/c\",\"cert\":\"/"
		 "d\","
		 "\"key\":\"/e\"},\"attach\":\"%s/attach\",\"run_dir\":\"%s/run\",\"state_dir\":"
		 "\"%s/state\",\"guests\":[{\"name\":\"vm\",\"driver\":\"native\"}]}",
		 dir, dir, dir, dir);
	json = json_loads(text, 0, NULL);
	FUZZ_CHECK(!conf_source_read(json, &s->conf, &err));
	json_decref(json);
	s->loop = loop_new();
	FUZZ_CHECK(!source_start(s, &err));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct fuzz_in in = fuzz_begin(data, size);
	struct source s = {.started_us = 1};
	char dir[FUZZ_DIR_MAX];
	int guest;

	fuzz_memory();
	fuzz_dir_new(dir);
	start(&s, dir);
	guest = fuzz_connect(dir, "attach", SOCK_SEQPACKET);
	fuzz_turns(s.loop, 1);
	while (in.n) {
		uint8_t op = fuzz_u8(&in);

		if (op < 16) {
			fuzz_send(guest, fuzz_piece(&in), op & 7, false);
			fuzz_turns(s.loop, 1);
		} else {
			fuzz_post(s.loop, dir, fuzz_piece(&in));
		}
	}
	close(guest);
	fuzz_turns(s.loop, 3);
	source_stop(&s);
	fuzz_dir_free(dir);
	return 0;
}
