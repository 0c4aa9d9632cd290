/* SPDX-License-Identifier: Apache-2.0 */
#include "guest/state_pipe.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#define PIPE_SIZE (1 << 20)

int state_pipe(int keep_end, int *ret_keep, int *ret_give)
{
	int p[2];

	if (pipe2(p, O_CLOEXEC))
		return -errno;
	/* Only our end: the flag belongs to each end alone. */
	if (fcntl(p[keep_end], F_SETFL, O_NONBLOCK)) {
		int r = -errno;

		close(p[0]);
		close(p[1]);
		return r;
	}
	fcntl(p[0], F_SETPIPE_SZ, PIPE_SIZE); /* fewer turns of the loop; as it is if refused */
	*ret_keep = p[keep_end];
	*ret_give = p[!keep_end];
	return 0;
}
