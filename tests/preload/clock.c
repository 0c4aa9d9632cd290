/* SPDX-License-Identifier: Apache-2.0 */
/*
 * For LD_PRELOAD: the wall clock is off by as many seconds as the file that DECANT_TEST_CLOCK names says (a 64-bit number,
 * looked at each time), as after somebody has set it. What measures time by another clock does not notice.
 */
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static const volatile int64_t *off;

__attribute__((constructor)) static void begin(void)
{
	const char *path = getenv("DECANT_TEST_CLOCK");
	int fd = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
	void *at = fd < 0 ? MAP_FAILED : mmap(NULL, sizeof(*off), PROT_READ, MAP_SHARED, fd, 0);

	off = at == MAP_FAILED ? NULL : at;
	if (fd >= 0)
		close(fd);
}

static int64_t seconds(void)
{
	return off ? *off : 0;
}

__attribute__((visibility("default"))) int clock_gettime(clockid_t id, struct timespec *ts)
{
	int r = (int)syscall(SYS_clock_gettime, id, ts);

	if (!r && (id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE))
		ts->tv_sec += seconds();
	return r;
}

__attribute__((visibility("default"))) int gettimeofday(struct timeval *tv, void *zone)
{
	int r = (int)syscall(SYS_gettimeofday, tv, zone);

	if (!r)
		tv->tv_sec += seconds();
	return r;
}

__attribute__((visibility("default"))) time_t time(time_t *ret)
{
	struct timespec ts = {0};

	clock_gettime(CLOCK_REALTIME, &ts);
	if (ret)
		*ret = ts.tv_sec;
	return ts.tv_sec;
}
