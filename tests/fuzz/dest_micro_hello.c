/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a micro-VM says first: text in pieces, descriptors with any of them. An array that was taken
 * must have regions that lie in the image and nowhere twice.
 */
#include <errno.h>
#include <string.h>
#include "fuzz/lib/fuzz.h"
#include "fuzz/lib/fuzz_fd.h"
#include "micro_hello.h"

static void parse(const struct micro_hello *h, uint64_t memory)
{
	struct micro_region r[MICRO_REGIONS_MAX] = {0};
	struct error err = {0};
	unsigned int n = 0;

	if (micro_hello_parse(h->text, h->array, memory, r, &n, &err)) {
		FUZZ_CHECK(error_is_set(&err));
		return;
	}
	FUZZ_CHECK(n && n <= MICRO_REGIONS_MAX);
	for (unsigned int i = 0; i < n; i++) {
		FUZZ_CHECK(r[i].size && r[i].size <= memory && r[i].offset <= memory - r[i].size);
		FUZZ_CHECK(!((r[i].addr | r[i].size | r[i].offset) & (r[i].page_size - 1)));
		for (unsigned int j = 0; j < i; j++)
			FUZZ_CHECK(r[i].offset + r[i].size <= r[j].offset ||
				   r[j].offset + r[j].size <= r[i].offset);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct fuzz_in in = fuzz_begin(data, size);
	uint64_t memory = (uint64_t)fuzz_u16(&in) << 20;
	struct micro_hello *h = malloc(sizeof(*h));
	struct error err = {0};
	int fd[2], r = 0;

	FUZZ_CHECK(h && !socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fd));
	micro_hello_init(h);
	while (in.n && !r) {
		uint8_t how = fuzz_u8(&in);

		fuzz_send(fd[1], fuzz_piece(&in), how & 7, how & 8);
		r = micro_hello_read(h, fd[0], &err);
	}
	if (r == 1)
		parse(h, memory);
	else if (!r)
		micro_hello_late(h, 5, &err);
	FUZZ_CHECK(r >= 0 || error_is_set(&err));
	micro_hello_clear(h);
	free(h);
	close(fd[0]);
	close(fd[1]);
	return 0;
}
