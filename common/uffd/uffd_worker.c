/* SPDX-License-Identifier: Apache-2.0 */
#include "uffd/uffd_worker.h"

#include <errno.h>
#include <linux/io_uring.h>
#include <poll.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "uffd/pagemap.h"
#include "uffd/uffd.h"
#include "util/cleanup.h"

#define ENTRIES 2u
#define WAIT_MS 200
#define PAGES   2u /* one that is there, and one that is not */
#define MARK    0x5a

/**
 * struct ring - an io_uring whose requests are carried out by a thread of the kernel's
 * @fd, @source: of the ring, and of a file of MARKs; -1 without
 * @rings, @size: both queues, mapped
 * @sqes:	requests
 */
struct ring {
	int fd, source;
	struct io_uring_params p;
	uint8_t *rings;
	size_t size;
	struct io_uring_sqe *sqes;
};

static void *map_ring(const struct ring *r, size_t len, uint64_t what)
{
	void *at = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, r->fd,
			(off_t)what);

	return at == MAP_FAILED ? NULL : at;
}

static void ring_close(struct ring *r)
{
	if (r->sqes)
		munmap(r->sqes, ENTRIES * sizeof(*r->sqes));
	if (r->rings)
		munmap(r->rings, r->size);
	if (r->fd >= 0)
		close(r->fd);
	if (r->source >= 0)
		close(r->source);
}

static int ring_open(struct ring *r)
{
	char marks[PAGES];

	*r = (struct ring){.fd = -1, .source = -1};
	r->p.flags = IORING_SETUP_SQPOLL;
	r->p.sq_thread_idle = WAIT_MS;
	r->fd = (int)syscall(SYS_io_uring_setup, ENTRIES, &r->p);
	if (r->fd < 0 || !(r->p.features & IORING_FEAT_SINGLE_MMAP))
		return -ENODATA;
	r->size = MAX(r->p.sq_off.array + r->p.sq_entries * sizeof(uint32_t),
		      r->p.cq_off.cqes + r->p.cq_entries * sizeof(struct io_uring_cqe));
	r->rings = map_ring(r, r->size, IORING_OFF_SQ_RING);
	r->sqes = map_ring(r, ENTRIES * sizeof(*r->sqes), IORING_OFF_SQES);
	r->source = memfd_create("decant-probe", MFD_CLOEXEC);
	memset(marks, MARK, sizeof(marks));
	return r->rings && r->sqes && r->source >= 0 &&
			       write(r->source, marks, sizeof(marks)) == sizeof(marks)
		       ? 0
		       : -ENODATA;
}

static _Atomic uint32_t *word(const struct ring *r, uint32_t off)
{
	return (_Atomic uint32_t *)(void *)(r->rings + off);
}

/* Have its thread write one byte to @to. Return: 0 or -ENODATA */
static int ring_write(struct ring *r, void *to)
{
	uint32_t tail = atomic_load(word(r, r->p.sq_off.tail));
	uint32_t i = tail & (r->p.sq_entries - 1);

	r->sqes[i] = (struct io_uring_sqe){.opcode = IORING_OP_READ,
					   .fd = r->source,
					   .addr = (uint64_t)(uintptr_t)to,
					   .len = 1};
	atomic_store(word(r, r->p.sq_off.array) + i, i);
	atomic_store(word(r, r->p.sq_off.tail), tail + 1);
	return syscall(SYS_io_uring_enter, r->fd, 1, 0, IORING_ENTER_SQ_WAKEUP, NULL, 0) < 0
		       ? -ENODATA
		       : 0;
}

/* Return: 0 when it has written, -ENODATA if it has not, or not yet */
static int ring_wait(struct ring *r)
{
	struct pollfd p = {.fd = r->fd, .events = POLLIN};
	uint32_t head = atomic_load(word(r, r->p.cq_off.head));
	const struct io_uring_cqe *c;

	if (poll(&p, 1, WAIT_MS) <= 0 || head == atomic_load(word(r, r->p.cq_off.tail)))
		return -ENODATA;
	c = (const struct io_uring_cqe *)(const void *)(r->rings + r->p.cq_off.cqes);
	c += head & (r->p.cq_entries - 1);
	atomic_store(word(r, r->p.cq_off.head), head + 1);
	return c->res == 1 ? 0 : -ENODATA;
}

/* --- the kinds of tracking ----------------------------------------------------------------------- */

static void count(void *arg, uint64_t start, uint64_t len)
{
	(void)start;
	*(uint64_t *)arg += len;
}

/* Return: 1 if each write was reported, and reported once; 0; -ENODATA */
static int try_async(struct ring *r, int uffd, uint8_t *mem, size_t page)
{
	uint64_t start = (uint64_t)(uintptr_t)mem, seen = 0;
	CLEANUP_CLOSE int map = pagemap_open(0);

	(void)uffd;
	for (unsigned int i = 0; i < PAGES * 2; i++) {
		uint8_t *to = mem + i % PAGES * page;

		if (map < 0 || ring_write(r, to) || ring_wait(r))
			return -ENODATA;
		seen = 0;
		if (*(volatile uint8_t *)to != MARK ||
		    pagemap_written(map, start, start + PAGES * page, true, count, &seen))
			return -ENODATA;
		if (seen != page)
			return 0;
	}
	return 1;
}

/* The write waits until it was let through, and is done then. Return: as above */
static int try_faults(struct ring *r, int uffd, uint8_t *mem, size_t page)
{
	for (unsigned int i = 0; i < PAGES; i++) {
		struct pollfd p = {.fd = uffd, .events = POLLIN};
		uint64_t at = (uint64_t)(uintptr_t)(mem + i * page);
		struct uffd_event ev;

		if (ring_write(r, mem + i * page))
			return -ENODATA;
		if (poll(&p, 1, WAIT_MS) <= 0 || uffd_read(uffd, &ev, 1) != 1)
			return 0;
		if (ev.kind != UFFD_EV_FAULT || !ev.wp || ev.addr != at)
			return 0;
		if (uffd_writeprotect(uffd, at, page, false) || ring_wait(r) ||
		    *(volatile uint8_t *)(mem + i * page) != MARK)
			return -ENODATA;
	}
	return 1;
}

static int try_on(struct ring *r, const struct uffd_caps *caps, bool async, uint8_t *mem)
{
	size_t page = (size_t)sysconf(_SC_PAGESIZE), len = PAGES * page;
	CLEANUP_CLOSE int fd = uffd_open(false, NULL);
	uint64_t start = (uint64_t)(uintptr_t)mem, want = UFFD_F_PAGEFAULT_FLAG_WP;
	int ret;

	want |= caps->features & (UFFD_F_WP_HUGETLBFS_SHMEM | UFFD_F_WP_UNPOPULATED);
	want |= async ? UFFD_F_WP_ASYNC : 0;
	mem[0] = 1;
	if (!(caps->features & UFFD_F_WP_UNPOPULATED))
		mem[page] = 1;
	if (fd < 0 || uffd_api(fd, want, NULL, NULL) ||
	    uffd_register(fd, start, len, UFFD_MODE_WP, NULL))
		return -ENODATA;
	if (uffd_writeprotect(fd, start, len, true))
		ret = -ENODATA;
	else
		ret = async ? try_async(r, fd, mem, page) : try_faults(r, fd, mem, page);
	uffd_unregister(fd, start, len); /* lets go whoever waits */
	return ret;
}

static int try_one(const struct uffd_caps *caps, bool async, bool shared)
{
	size_t len = PAGES * (size_t)sysconf(_SC_PAGESIZE);
	uint8_t *mem = mmap(NULL, len, PROT_READ | PROT_WRITE,
			    MAP_ANONYMOUS | (shared ? MAP_SHARED : MAP_PRIVATE), -1, 0);
	struct ring r;
	int ret;

	if (mem == MAP_FAILED)
		return -ENODATA;
	ret = ring_open(&r);
	if (!ret)
		ret = try_on(&r, caps, async, mem);
	ring_close(&r);
	munmap(mem, len);
	return ret;
}

/* --- all of it ----------------------------------------------------------------------------------- */

static bool kernel_is(int major, int minor)
{
	struct utsname u;
	int ma = 0, mi = 0;

	return !uname(&u) && sscanf(u.release, "%d.%d", &ma, &mi) == 2 &&
	       (ma > major || (ma == major && mi >= minor));
}

int uffd_worker_seen(struct error *err)
{
	struct uffd_caps caps;

	if (!kernel_is(6, 4))
		return error_set(err, -ENODATA, NULL,
				 "this kernel's threads cannot be tried (6.4 or later is needed)");
	if (uffd_probe(&caps, err))
		return -ENODATA;
	for (int i = 0; i < 4; i++) {
		bool async = i & 1, shared = i & 2;
		unsigned int kinds = shared ? caps.tracking : caps.tracking_anon;
		int r;

		if (!(kinds & (async ? UFFD_TRACK_ASYNC : UFFD_TRACK_FAULTS)))
			continue;
		r = try_one(&caps, async, shared);
		if (r == 0)
			return error_set(err, -EOPNOTSUPP, NULL,
					 "tracking of kind %s does not see it in %s memory",
					 async ? "async" : "faults", shared ? "shared" : "private");
		if (r < 0)
			return error_set(err, -ENODATA, NULL,
					 "whether it is seen cannot be tried here: io_uring with a "
					 "thread of the kernel's is not to be had");
	}
	return caps.tracking ? 0 : error_set(err, -ENODATA, NULL, "this host tracks no writes");
}
