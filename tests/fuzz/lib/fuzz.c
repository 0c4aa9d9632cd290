/* SPDX-License-Identifier: Apache-2.0 */
#include "fuzz/lib/fuzz.h"

#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <syslog.h>
#include <unistd.h>
#include "util/cleanup.h"
#include "util/clock.h"
#include "util/log.h"

struct fuzz_in fuzz_begin(const uint8_t *data, size_t size)
{
	if (!getenv("DECANT_LOG") || log_setup(NULL))
		setlogmask(LOG_MASK(LOG_EMERG));
	signal(SIGPIPE, SIG_IGN);
	return (struct fuzz_in){data, size};
}

struct fuzz_in fuzz_take(struct fuzz_in *in, size_t n)
{
	struct fuzz_in piece = {in->p, MIN(n, in->n)};

	if (piece.n) {
		in->p += piece.n;
		in->n -= piece.n;
	}
	return piece;
}

uint8_t fuzz_u8(struct fuzz_in *in)
{
	struct fuzz_in b = fuzz_take(in, 1);

	return b.n ? b.p[0] : 0;
}

uint16_t fuzz_u16(struct fuzz_in *in)
{
	uint16_t low = fuzz_u8(in);

	return (uint16_t)(low | fuzz_u8(in) << 8);
}

struct fuzz_in fuzz_piece(struct fuzz_in *in)
{
	uint16_t n = fuzz_u16(in);

	return fuzz_take(in, n);
}

uint8_t *fuzz_copy(struct fuzz_in in)
{
	uint8_t *p = malloc(in.n ? in.n : 1);

	FUZZ_CHECK(p);
	if (in.n)
		memcpy(p, in.p, in.n);
	return p;
}

char *fuzz_text(struct fuzz_in in)
{
	char *p = malloc(in.n + 1);

	FUZZ_CHECK(p);
	if (in.n)
		memcpy(p, in.p, in.n);
	p[in.n] = '\0';
	return p;
}

int fuzz_file(struct fuzz_in in, char path[static FUZZ_PATH])
{
	int fd = memfd_create("fuzz", MFD_CLOEXEC);

	FUZZ_CHECK(fd >= 0);
	FUZZ_CHECK(write(fd, in.p ? in.p : (const uint8_t *)"", in.n) == (ssize_t)in.n);
	snprintf(path, FUZZ_PATH, "/proc/self/fd/%d", fd);
	return fd;
}

void fuzz_turns(struct loop *l, unsigned int n)
{
	while (n--)
		event_base_loop(loop_base(l), EVLOOP_NONBLOCK);
}

void fuzz_settle(struct loop *l, uint64_t us)
{
	uint64_t until = clock_us() + us;

	do {
		fuzz_turns(l, 1);
	} while (event_base_get_num_events(loop_base(l), EVENT_BASE_COUNT_ACTIVE) &&
		 clock_us() < until);
}
