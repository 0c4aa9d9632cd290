/* SPDX-License-Identifier: Apache-2.0 */
/* ZEROPAGE: where it exists and what it costs. Zero pages are not pushed for that cost. */
#include "platform.h"

#include <sys/stat.h>

#define LEN (1024 * PAGE)

static uint64_t rss_pages(void)
{
	FILE *f = fopen("/proc/self/statm", "r");
	unsigned long size = 0, rss = 0;

	must(f && fscanf(f, "%lu %lu", &size, &rss) == 2);
	fclose(f);
	return rss;
}

static uint64_t can(int fd, const void *p, size_t len)
{
	struct uffdio_register r = {.range = {addr_of(p), len},
				    .mode = UFFDIO_REGISTER_MODE_MISSING};

	must(ioctl(fd, UFFDIO_REGISTER, &r) == 0);
	return r.ioctls;
}

static void anonymous(void)
{
	uint8_t *mem = map_anon(LEN);
	int fd = uffd_new(0);
	uint64_t before;

	fact(can(fd, mem, LEN) >> _UFFDIO_ZEROPAGE & 1,
	     "anonymous memory: REGISTER offers ZEROPAGE");
	before = rss_pages();
	fact(uffd_zero(fd, mem, LEN) == 0, "anonymous memory: it works");
	fact(rss_pages() - before < 64,
	     "anonymous memory: it allocates nothing (%llu of %lu pages)",
	     (unsigned long long)(rss_pages() - before), LEN / PAGE);
	fact(mem[LEN - 1] == 0, "anonymous memory: it reads as zeros");
	close(fd);
	munmap(mem, LEN);
}

static void shared(void)
{
	int memfd = new_memfd(LEN), fd = uffd_new(0);
	uint8_t *mem = map_file(memfd, LEN);
	struct stat st;
	uint64_t t0;

	fact(can(fd, mem, LEN) >> _UFFDIO_ZEROPAGE & 1, "memfd: REGISTER offers ZEROPAGE");
	t0 = now_us();
	fact(uffd_zero(fd, mem, LEN) == 0, "memfd: it works");
	note("memfd: %lu KiB filled in %llu us", LEN / 1024, (unsigned long long)(now_us() - t0));
	must(fstat(memfd, &st) == 0);
	fact((uint64_t)st.st_blocks * 512 == LEN, "memfd: it allocates every page of the file");
	fact(!is_hole(memfd, 0), "memfd: what was filled is no hole any more");
	close(fd);
	munmap(mem, LEN);
	close(memfd);
}

int main(void)
{
	anonymous();
	shared();
	return facts_end();
}
