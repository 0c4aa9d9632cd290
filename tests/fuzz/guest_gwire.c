/* SPDX-License-Identifier: Apache-2.0 */
/* The coder of the attach protocol: what decodes must encode to the bytes that came. */
#include <string.h>
#include "fuzz/lib/fuzz.h"
#include "guest/gwire.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct fuzz_in in = fuzz_begin(data, size);
	bool room = fuzz_u8(&in) & 1;
	struct gwire_range *ranges = room ? calloc(GWIRE_RANGES_MAX, sizeof(*ranges)) : NULL;
	struct gwire_msg m = {0};
	const char *what = NULL;
	uint8_t *copy = fuzz_copy(in), *out = malloc(GWIRE_PACKET_MAX);

	if (gwire_decode(copy, in.n, ranges, &m, &what)) {
		FUZZ_CHECK(what);
	} else if (gwire_known(m.type)) {
		FUZZ_CHECK(gwire_encode(&m, out, GWIRE_PACKET_MAX) == (ssize_t)in.n);
		FUZZ_CHECK(!memcmp(out, copy, in.n));
	}
	free(copy);
	free(out);
	free(ranges);
	return 0;
}
