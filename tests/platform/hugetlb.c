/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Huge pages of 2 MiB: whole pages by COPY, no ZEROPAGE. Two are reserved for the time of the proof if
 * none are free and we may.
 */
#include "platform.h"

#define HUGE   (2ul << 20)
#define POOL   "/sys/kernel/mm/hugepages/hugepages-2048kB/"
#define MODE   UFFDIO_REGISTER_MODE_MISSING
#define NEEDED 2

static long pool(const char *name, long set)
{
	char path[128];
	FILE *f;
	long v = -1;

	snprintf(path, sizeof(path), POOL "%s", name);
	f = fopen(path, set >= 0 ? "w" : "r");
	if (!f)
		return -1;
	if (set >= 0)
		fprintf(f, "%ld", set);
	else if (fscanf(f, "%ld", &v) != 1)
		v = -1;
	fclose(f);
	return v;
}

static void proofs(void)
{
	/* 21 << 26 is MFD_HUGE_2MB, which glibc leaves to the kernel's header. */
	int memfd = memfd_create("huge", MFD_CLOEXEC | MFD_HUGETLB | 21u << 26), fd = uffd_new(0);
	uint8_t *src = map_anon(HUGE), *mem;
	struct uffdio_register r = {.range = {0, NEEDED * HUGE}, .mode = MODE};
	int64_t placed = 0;
	int e;

	must(memfd >= 0 && ftruncate(memfd, NEEDED * HUGE) == 0);
	mem = map_file(memfd, NEEDED * HUGE);
	r.range.start = addr_of(mem);
	must(ioctl(fd, UFFDIO_REGISTER, &r) == 0);
	fact(!(r.ioctls >> _UFFDIO_ZEROPAGE & 1), "REGISTER does not offer ZEROPAGE");
	fact(r.ioctls >> _UFFDIO_COPY & 1, "it offers COPY");
	e = uffd_zero(fd, mem, HUGE);
	fact(e == -EINVAL, "ZEROPAGE is EINVAL (%s)", strerrorname_np(-e));
	memset(src, 0x33, HUGE);
	e = uffd_copy(fd, mem, src, PAGE, NULL);
	fact(e == -EINVAL, "COPY of a small page is EINVAL (%s)", strerrorname_np(-e));
	fact(uffd_copy(fd, mem, src, HUGE, &placed) == 0 && placed == (int64_t)HUGE,
	     "COPY of a whole huge page places it");
	fact(mem[HUGE - 1] == 0x33, "with its content");
	fact(uffd_copy(fd, mem, src, HUGE, NULL) == -EEXIST, "a second time it is EEXIST");
	e = (int)lseek(memfd, HUGE, SEEK_HOLE);
	note("hugetlbfs: the file's second page is a hole, and SEEK_HOLE from there says %d of "
	     "%lu: %s",
	     e, NEEDED * HUGE, e == (int)HUGE ? "it knows holes" : "it knows none");
	must(punch(memfd, 0, HUGE) == 0);
	fact(uffd_copy(fd, mem, src, HUGE, NULL) == 0,
	     "a page that was punched out can be placed again");
	munmap(mem, NEEDED * HUGE);
	munmap(src, HUGE);
	close(fd);
	close(memfd);
}

int main(void)
{
	long had = pool("nr_hugepages", -1), available = pool("free_hugepages", -1);

	if (had < 0) {
		untried("this kernel has no huge pages of 2 MiB");
		return 77;
	}
	if (!(uffd_known() & UFFD_FEATURE_MISSING_HUGETLBFS)) {
		untried("this kernel has no missing faults of huge pages");
		return 77;
	}
	if (available < NEEDED)
		pool("nr_hugepages", had + NEEDED);
	if (pool("free_hugepages", -1) < NEEDED) {
		untried("no free huge pages and none can be reserved (needs root and memory)");
		pool("nr_hugepages", had);
		return 77;
	}
	proofs();
	if (available < NEEDED)
		pool("nr_hugepages", had);
	return facts_end();
}
