/* SPDX-License-Identifier: Apache-2.0 */
#include "guest/gmem.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include "uffd/pagemap.h"
#include "util/cleanup.h"
#include "util/fdio.h"

/* One process_vm_*() call; the kernel pins pages in between, so it is not made too large. */
#define VM_STEP (UINT64_C(1) << 30)

static bool is_shared(const struct gmem *m)
{
	return m->block.kind != GUEST_BLOCK_ANON;
}

/* hugetlbfs knows neither write(2) nor holes. */
static bool is_plain_file(const struct gmem *m)
{
	return m->block.kind == GUEST_BLOCK_MEMFD;
}

static bool inside(const struct gmem *m, uint64_t off, uint64_t len)
{
	return off <= m->block.length && len <= m->block.length - off;
}

/*
 * A description of our own, because the search for data moves its position, and because flags that
 * the guest sets on its own must not reach us.
 */
static int reopen(int fd)
{
	char path[64];
	int own;

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	own = open(path, O_RDWR | O_CLOEXEC);
	if (own < 0)
		own = fcntl(fd, F_DUPFD_CLOEXEC, 0);
	return own < 0 ? -errno : own;
}

int gmem_open(struct gmem *m, const struct guest *g, uint16_t index, struct error *err)
{
	const struct guest_block *b = &g->blocks[index];
	int ret = 0;

	*m = (struct gmem){.block = *b, .pid = g->pid, .pidfd = -1, .pagemap = -1};
	m->block.fd = -1;
	m->pidfd = fcntl(g->pidfd, F_DUPFD_CLOEXEC, 0);
	if (m->pidfd < 0)
		ret = -errno;
	if (!ret && is_shared(m)) {
		m->block.fd = reopen(b->fd);
		ret = MIN(m->block.fd, 0);
	}
	if (!ret && !is_plain_file(m)) {
		m->pagemap = pagemap_open(g->pid);
		ret = MIN(m->pagemap, 0);
	}
	if (!ret)
		return 0;
	gmem_close(m);
	return error_set(err, ret, NULL, "guest %s: block %s: cannot reach its memory: %s", g->name,
			 b->name, strerror(-ret));
}

static void close_one(int *fd)
{
	if (*fd >= 0)
		close(*fd);
	*fd = -1;
}

void gmem_close(struct gmem *m)
{
	fdio_close_apart(m->block.fd);
	m->block.fd = -1;
	close_one(&m->pidfd);
	close_one(&m->pagemap);
}

/* Asked afterwards: while the process is not reaped its pid cannot be another's. */
static int check_alive(const struct gmem *m)
{
	struct pollfd p = {.fd = m->pidfd, .events = POLLIN};

	return poll(&p, 1, 0) == 0 ? 0 : -ESRCH;
}

static int transfer(const struct gmem *m, uint64_t off, void *buf, size_t len, bool write)
{
	while (len) {
		struct iovec local = {.iov_base = buf, .iov_len = MIN(len, VM_STEP)};
		struct iovec remote = {.iov_base = (void *)(uintptr_t)(m->block.addr + off),
				       .iov_len = local.iov_len};
		ssize_t n = write ? process_vm_writev(m->pid, &local, 1, &remote, 1, 0)
				  : process_vm_readv(m->pid, &local, 1, &remote, 1, 0);

		if (n <= 0)
			return check_alive(m) ?: (n < 0 ? -errno : -EFAULT);
		buf = (char *)buf + n;
		off += (uint64_t)n;
		len -= (size_t)n;
	}
	return check_alive(m);
}

int gmem_read(const struct gmem *m, uint64_t off, void *buf, size_t len)
{
	if (!inside(m, off, len))
		return -EINVAL;
	if (is_shared(m))
		return fdio_pread_full(m->block.fd, buf, len, off);
	return transfer(m, off, buf, len, false);
}

int gmem_write(const struct gmem *m, uint64_t off, const void *buf, size_t len)
{
	if (!inside(m, off, len))
		return -EINVAL;
	if (is_plain_file(m))
		return fdio_pwrite_full(m->block.fd, buf, len, off);
	return transfer(m, off, (void *)buf, len, true);
}

int gmem_punch(const struct gmem *m, uint64_t off, uint64_t len)
{
	if (!inside(m, off, len) || !len || off % m->block.page_size || len % m->block.page_size)
		return -EINVAL;
	if (!is_shared(m))
		return -EOPNOTSUPP;
	if (fallocate(m->block.fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)off,
		      (off_t)len))
		return -errno;
	return 0;
}

/* --- what is there ------------------------------------------------------------------------------ */

/** struct walk - hands runs on until the callee wants no more */
struct walk {
	gmem_range_fn *fn;
	void *arg;
	uint64_t base;
	uint64_t page_size;
	uint64_t found;
	int ret;
};

static void walk_run(void *arg, uint64_t start, uint64_t len)
{
	struct walk *w = arg;
	uint64_t off = start - w->base;
	/* tmpfs tells in small pages, and so does the page map of huge ones; ours are whole. */
	uint64_t end = (off + len + w->page_size - 1) / w->page_size * w->page_size;

	off = off / w->page_size * w->page_size;
	w->found += end - off;
	if (!w->ret)
		w->ret = w->fn(w->arg, off, end - off);
}

/* Before kernel 6.7: one word for each small page, bit 63 present, bit 62 swapped. */
static int walk_words(const struct gmem *m, uint64_t start, uint64_t end, struct walk *w)
{
	uint64_t size = (uint64_t)sysconf(_SC_PAGESIZE), words[512];
	uint64_t at = start, run = 0;

	while (at < end && !w->ret) {
		size_t n = MIN((end - at) / size, ARRAY_SIZE(words));
		int ret = fdio_pread_full(m->pagemap, words, n * 8, at / size * 8);

		if (ret)
			return ret;
		for (size_t i = 0; i < n; i++, at += size) {
			if (words[i] >> 62) {
				run += size;
			} else if (run) {
				walk_run(w, at - run, run);
				run = 0;
			}
		}
	}
	if (run)
		walk_run(w, at - run, run);
	return 0;
}

static int walk_present(const struct gmem *m, uint64_t off, uint64_t len, struct walk *w)
{
	uint64_t start = m->block.addr + off;
	int ret = pagemap_present(m->pagemap, start, start + len, walk_run, w);

	if (ret == -ENOTTY)
		ret = walk_words(m, start, start + len, w);
	return ret ?: check_alive(m);
}

static int count_only(void *arg, uint64_t off, uint64_t len)
{
	(void)arg;
	(void)off;
	(void)len;
	return 0;
}

/* Pages of a huge-page file that this process does not have mapped show in the file's size only. */
static int huge_all_mapped(const struct gmem *m)
{
	struct walk w = {.fn = count_only, .base = m->block.addr, .page_size = m->block.page_size};
	struct stat st;
	int ret = walk_present(m, 0, m->block.length, &w);

	if (ret)
		return ret;
	if (fstat(m->block.fd, &st))
		return -errno;
	return (uint64_t)st.st_blocks * 512 <= w.found;
}

int gmem_data_ranges(const struct gmem *m, gmem_range_fn *fn, void *arg)
{
	struct walk w = {.fn = fn, .arg = arg, .page_size = m->block.page_size};
	int ret;

	if (is_plain_file(m)) {
		ret = pagemap_file_data(m->block.fd, m->block.length, walk_run, &w);
		return ret ?: w.ret;
	}
	if (is_shared(m)) {
		ret = huge_all_mapped(m);
		if (ret < 0)
			return ret;
		if (!ret)
			return fn(arg, 0, m->block.length);
	}
	w.base = m->block.addr;
	ret = walk_present(m, 0, m->block.length, &w);
	return ret ?: w.ret;
}

static int take_first(void *arg, uint64_t off, uint64_t len)
{
	(void)len;
	*(uint64_t *)arg = off;
	return 1;
}

int gmem_check_hole(const struct gmem *m, uint64_t off, uint64_t len, uint64_t *ret_off)
{
	struct walk w = {.fn = take_first, .base = m->block.addr, .page_size = m->block.page_size};
	uint64_t first = UINT64_MAX;
	int ret;

	if (!inside(m, off, len) || off % w.page_size || len % w.page_size)
		return -EINVAL;
	if (is_plain_file(m)) {
		off_t data = lseek(m->block.fd, (off_t)off, SEEK_DATA);

		if (data < 0 && errno != ENXIO)
			return -errno;
		if (data >= 0 && (uint64_t)data < off + len)
			first = (uint64_t)data / w.page_size * w.page_size;
	} else {
		w.arg = &first;
		ret = walk_present(m, off, len, &w);
		if (ret)
			return ret;
	}
	if (first == UINT64_MAX)
		return 1;
	if (ret_off)
		*ret_off = first;
	return 0;
}
