/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DMA into pages that were pinned before they were protected is not seen by asynchronous tracking. Here
 * the pin is a registered buffer of io_uring, and the device an O_DIRECT read of a file. For this
 * decant asks a block to be declared free of DMA, or goes a way that does not depend on tracking.
 */
#include "platform.h"

#include <linux/io_uring.h>
#include <pthread.h>

#define LEN (16 * PAGE)

struct ring {
	int fd;
	uint8_t *sq, *cq;
	struct io_uring_sqe *sqe;
	struct io_uring_params p;
};

static bool ring_open(struct ring *r)
{
	memset(r, 0, sizeof(*r));
	r->fd = (int)syscall(SYS_io_uring_setup, 4, &r->p);
	if (r->fd < 0)
		return false;
	r->sq = mmap(NULL, 4096 * 4, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, r->fd,
		     IORING_OFF_SQ_RING);
	r->cq = r->p.features & IORING_FEAT_SINGLE_MMAP
			? r->sq
			: mmap(NULL, 4096 * 4, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE,
			       r->fd, IORING_OFF_CQ_RING);
	r->sqe = mmap(NULL, r->p.sq_entries * sizeof(*r->sqe), PROT_READ | PROT_WRITE,
		      MAP_SHARED | MAP_POPULATE, r->fd, IORING_OFF_SQES);
	return r->sq != MAP_FAILED && r->cq != MAP_FAILED && (void *)r->sqe != MAP_FAILED;
}

/* Read one page of @file into the registered buffer at @dst. Return: bytes or -errno */
static int ring_read(struct ring *r, int file, void *dst)
{
	_Atomic uint32_t *tail = (void *)(r->sq + r->p.sq_off.tail);
	_Atomic uint32_t *done = (void *)(r->cq + r->p.cq_off.head);
	uint32_t mask = *(uint32_t *)(void *)(r->sq + r->p.sq_off.ring_mask), at = *tail & mask;
	uint32_t *array = (void *)(r->sq + r->p.sq_off.array), cq_mask;
	struct io_uring_cqe *cqe;
	int res;

	r->sqe[at] = (struct io_uring_sqe){
		.opcode = IORING_OP_READ_FIXED, .fd = file, .addr = addr_of(dst), .len = PAGE};
	array[at] = at;
	atomic_fetch_add(tail, 1);
	if (syscall(SYS_io_uring_enter, r->fd, 1, 1, IORING_ENTER_GETEVENTS, NULL, 0) != 1)
		return -errno;
	cq_mask = *(uint32_t *)(void *)(r->cq + r->p.cq_off.ring_mask);
	cqe = (struct io_uring_cqe *)(void *)(r->cq + r->p.cq_off.cqes) + (*done & cq_mask);
	res = cqe->res;
	atomic_fetch_add(done, 1);
	return res;
}

/* A file whose page cache O_DIRECT passes by, full of 0x77. */
static int direct_file(void)
{
	char name[] = "/var/tmp/decant-proof-XXXXXX";
	uint8_t page[PAGE];
	int fd = mkstemp(name), direct;

	must(fd >= 0);
	memset(page, 0x77, sizeof(page));
	must(write(fd, page, PAGE) == (ssize_t)PAGE && fsync(fd) == 0);
	direct = open(name, O_RDONLY | O_DIRECT | O_CLOEXEC);
	unlink(name);
	close(fd);
	return direct;
}

static void proof(struct ring *r, int file)
{
	uint8_t *mem = map_anon(LEN);
	struct iovec iov = {mem, LEN};
	struct scan_run runs[16];
	int fd = uffd_new(UFFD_FEATURE_PAGEFAULT_FLAG_WP | WP_UNPOP | WP_ASYNC);
	int map = map_of(getpid()), n;

	memset(mem, 1, LEN);
	must(uffd_reg(fd, mem, LEN, UFFDIO_REGISTER_MODE_WP) == 0);
	if (syscall(SYS_io_uring_register, r->fd, IORING_REGISTER_BUFFERS, &iov, 1) < 0) {
		untried("registered buffers: %s", strerror(errno));
		return;
	}
	must(uffd_wp(fd, mem, LEN, true) == 0);
	n = ring_read(r, file, mem + 3 * PAGE);
	if (n != (int)PAGE) {
		untried("O_DIRECT read into a registered buffer: %s", strerrorname_np(-n));
		return;
	}
	fact(mem[3 * PAGE] == 0x77, "an O_DIRECT read writes a pinned page that is protected");
	n = scan(map, mem, LEN, true, SCAN_WRITTEN, 0, runs, 16);
	note("asynchronous tracking: that page is %s", n == 0 ? "NOT seen" : "seen");
	mem[4 * PAGE] = 2;
	n = scan(map, mem, LEN, true, SCAN_WRITTEN, 0, runs, 16);
	fact(n >= 1, "a store beside it is seen");
	must(uffd_wp(fd, mem, LEN, true) == 0);
	must(pread(file, mem + 5 * PAGE, PAGE, 0) == (ssize_t)PAGE);
	n = scan(map, mem, LEN, true, SCAN_WRITTEN, 0, runs, 16);
	fact(n == 1 && runs[0].start == addr_of(mem + 5 * PAGE),
	     "an O_DIRECT read that begins after the protection is seen: pinning is a write");
	close(map);
	close(fd);
	munmap(mem, LEN);
}

/* What is registered is listed, line by line; and registering is a write, which tracking sees. */
static void listed(struct ring *r)
{
	uint8_t *mem = map_anon(LEN);
	struct iovec iov[2] = {{mem + PAGE, 2 * PAGE}, {mem + 8 * PAGE + 1, 5}};
	int fd = uffd_new(UFFD_FEATURE_PAGEFAULT_FLAG_WP | WP_UNPOP | WP_ASYNC);
	int map = map_of(getpid()), n;
	char path[64], text[4096], want[256];
	struct scan_run runs[16];
	FILE *f;

	memset(mem, 1, LEN);
	must(uffd_reg(fd, mem, LEN, UFFDIO_REGISTER_MODE_WP) == 0);
	must(uffd_wp(fd, mem, LEN, true) == 0);
	syscall(SYS_io_uring_register, r->fd, IORING_UNREGISTER_BUFFERS, NULL, 0);
	if (syscall(SYS_io_uring_register, r->fd, IORING_REGISTER_BUFFERS, iov, 2) < 0) {
		untried("registered buffers: %s", strerror(errno));
		return;
	}
	n = scan(map, mem, LEN, true, SCAN_WRITTEN, 0, runs, 16);
	fact(n == 2 && scan_pages(runs, n) == 3,
	     "registering a buffer is seen as a write to its pages");
	snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", r->fd);
	f = fopen(path, "re");
	must(f);
	text[fread(text, 1, sizeof(text) - 1, f)] = 0;
	fclose(f);
	snprintf(want, sizeof(want), "\nUserBufs:\t2\n    0: 0x%lx/%lu\n    1: 0x%lx/5\n",
		 addr_of(mem + PAGE), 2 * PAGE, addr_of(mem + 8 * PAGE + 1));
	fact(strstr(text, want), "fdinfo of an io_uring lists address and length of each buffer");
	close(map);
	close(fd);
	munmap(mem, LEN);
}

/** struct late - a thread that reads a page of a file straight into memory */
struct late {
	int file;
	uint8_t *dst;
	_Atomic int got;
};

static void *late_main(void *arg)
{
	struct late *l = arg;

	atomic_store(&l->got, pread(l->file, l->dst, PAGE, 0) == (ssize_t)PAGE ? 1 : -1);
	return NULL;
}

/* Tracking by faults: an O_DIRECT read stops before its page is pinned. */
static void waits(int file)
{
	int can = (int)syscall(SYS_userfaultfd, O_CLOEXEC);
	uint8_t *mem = map_anon(LEN);
	int fd = uffd_new(UFFD_FEATURE_PAGEFAULT_FLAG_WP);
	struct late l = {.file = file, .dst = mem + PAGE};
	struct uffd_msg m;
	pthread_t t;

	if (can < 0) {
		untried("faults of system calls: %s", strerror(errno));
		return;
	}
	close(can);
	memset(mem, 1, LEN);
	must(uffd_reg(fd, mem, LEN, UFFDIO_REGISTER_MODE_WP) == 0);
	must(uffd_wp(fd, mem, LEN, true) == 0);
	must(pthread_create(&t, NULL, late_main, &l) == 0);
	fact(uffd_next(fd, &m, 5000) == UFFD_EVENT_PAGEFAULT &&
		     (m.arg.pagefault.flags & UFFD_PAGEFAULT_FLAG_WP) &&
		     (m.arg.pagefault.address & ~(PAGE - 1)) == addr_of(mem + PAGE),
	     "an O_DIRECT read into a protected page is a write fault");
	sleep_us(50000);
	fact(mem[PAGE] == 1 && atomic_load(&l.got) == 0, "and waits: nothing was read yet");
	must(uffd_wp(fd, mem + PAGE, PAGE, false) == 0);
	pthread_join(t, NULL);
	fact(l.got == 1 && mem[PAGE] == 0x77, "until the protection is gone");
	close(fd);
	munmap(mem, LEN);
}

int main(void)
{
	struct ring r;
	int file = direct_file();

	if ((uffd_known() & (WP_ASYNC | WP_UNPOP)) != (WP_ASYNC | WP_UNPOP))
		untried("WP_ASYNC: this kernel has none");
	else if (file < 0)
		untried("O_DIRECT in /var/tmp: %s", strerror(errno));
	else if (!ring_open(&r))
		untried("io_uring: %s", strerror(errno));
	else {
		proof(&r, file);
		listed(&r);
		waits(file);
	}
	return facts_end();
}
