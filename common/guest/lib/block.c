/* SPDX-License-Identifier: Apache-2.0 */
#include "guest/lib/lib.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <linux/memfd.h>

#ifndef MFD_NOEXEC_SEAL
#define MFD_NOEXEC_SEAL 8u
#endif

#define HUGE_2M (UINT64_C(2) << 20)
#define HUGE_1G (UINT64_C(1) << 30)
#define KINDS   (DECANT_BLOCK_MEMFD | DECANT_BLOCK_ANON | DECANT_BLOCK_HUGE_2M | DECANT_BLOCK_HUGE_1G)

/*
 * The open file that memfd_create(2) makes raises no inotify(7) events from kernel 6.14 on, by which an
 * agent hears that memory was given back; another of the same file does.
 */
static int opened_again(int fd)
{
	char path[64];
	int again;

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	again = open(path, O_RDWR | O_CLOEXEC);
	if (again < 0)
		return fd;
	close(fd);
	return again;
}

static int make_memfd(const char *name, unsigned int flags)
{
	int fd = memfd_create(name, flags | MFD_CLOEXEC | MFD_ALLOW_SEALING | MFD_NOEXEC_SEAL);

	if (fd < 0 && errno == EINVAL) /* before kernel 6.3 */
		fd = memfd_create(name, flags | MFD_CLOEXEC | MFD_ALLOW_SEALING);
	return fd < 0 ? -errno : opened_again(fd);
}

static int fill_memfd(struct lib_block *b)
{
	/* An agent that maps or reads it must be able to rely on its length. */
	if (ftruncate(b->fd, (off_t)b->length) ||
	    fcntl(b->fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW))
		return -errno;
	b->addr = mmap(NULL, b->length, PROT_READ | PROT_WRITE, MAP_SHARED, b->fd, 0);
	return b->addr == MAP_FAILED ? -errno : 0;
}

static unsigned int huge_flags(const struct lib_block *b)
{
	if (b->kind != 2)
		return 0;
	return MFD_HUGETLB | (b->page_size == HUGE_1G ? MFD_HUGE_1GB : MFD_HUGE_2MB);
}

static int map_block(struct lib_block *b)
{
	int ret = 0;

	b->addr = MAP_FAILED;
	b->fd = -1;
	if (b->kind == 1) {
		b->addr = mmap(NULL, b->length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
			       -1, 0);
		ret = b->addr == MAP_FAILED ? -errno : 0;
	} else {
		b->fd = make_memfd(b->name, huge_flags(b));
		ret = b->fd < 0 ? b->fd : fill_memfd(b);
	}
	if (ret) {
		if (b->fd >= 0)
			close(b->fd);
		return ret;
	}
	/* In a child writes would go unseen and missing pages read as zeros: rather none at all. */
	madvise(b->addr, b->length, MADV_DONTFORK);
	return 0;
}

static int block_kind(unsigned int flags, struct lib_block *b)
{
	b->page_size = (uint64_t)sysconf(_SC_PAGESIZE);
	switch (flags & KINDS) {
	case DECANT_BLOCK_MEMFD:
		b->kind = 0;
		return 0;
	case DECANT_BLOCK_ANON:
		b->kind = 1;
		return 0;
	case DECANT_BLOCK_HUGE_2M:
		b->kind = 2;
		b->page_size = HUGE_2M;
		return 0;
	case DECANT_BLOCK_HUGE_1G:
		b->kind = 2;
		b->page_size = HUGE_1G;
		return 0;
	}
	return -EINVAL;
}

static int block_check(struct decant_guest *g, const char *name, uint64_t length,
		       unsigned int flags, struct lib_block *b)
{
	if (g->started)
		return -EBUSY;
	if (!lib_name_ok(name) || !length || length > GWIRE_MEMORY_MAX ||
	    (flags & ~(KINDS | DECANT_BLOCK_NO_DMA | DECANT_BLOCK_READONLY)) ||
	    block_kind(flags, b))
		return -EINVAL;
	for (size_t i = 0; i < g->nblocks; i++)
		if (!strcmp(g->blocks[i].name, name))
			return -EEXIST;
	if (g->nblocks == GWIRE_BLOCKS_MAX)
		return -ENOSPC;
	strcpy(b->name, name);
	b->flags = flags & DECANT_BLOCK_NO_DMA ? GWIRE_BLOCK_NO_DMA : 0;
	if (flags & DECANT_BLOCK_READONLY)
		b->flags = GWIRE_BLOCK_NO_DMA | GWIRE_BLOCK_READONLY;
	b->length = (length + b->page_size - 1) / b->page_size * b->page_size;
	return 0;
}

DECANT_API int decant_block_create(struct decant_guest *g, const char *name, uint64_t length,
				   unsigned int flags, void **ret_addr)
{
	struct lib_block b = {.fd = -1}, *grown;
	int ret = block_check(g, name, length, flags, &b);

	if (ret)
		return ret;
	grown = realloc(g->blocks, (g->nblocks + 1u) * sizeof(*grown));
	if (!grown)
		return -ENOMEM;
	g->blocks = grown;
	ret = map_block(&b);
	if (ret)
		return ret;
	g->blocks[g->nblocks++] = b;
	*ret_addr = b.addr;
	return 0;
}

/* Missing pages are placed into it all the same. */
int lib_block_protect(const struct decant_guest *g)
{
	for (size_t i = 0; i < g->nblocks; i++)
		if ((g->blocks[i].flags & GWIRE_BLOCK_READONLY) &&
		    mprotect(g->blocks[i].addr, g->blocks[i].length, PROT_READ))
			return -errno;
	return 0;
}

static int punch_range(const struct lib_block *b, const struct gwire_range *r)
{
	int ret;

	if (b->kind == 1)
		ret = madvise((char *)b->addr + r->offset, r->length, MADV_DONTNEED);
	else
		ret = fallocate(b->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)r->offset,
				(off_t)r->length);
	return ret ? -errno : 0;
}

int lib_block_punch(struct decant_guest *g, const struct gwire_punch *p,
		    char msg[static GWIRE_MESSAGE_MAX])
{
	const struct lib_block *b;
	int ret;

	if (p->block >= g->nblocks) {
		snprintf(msg, GWIRE_MESSAGE_MAX, "there is no block %u", p->block);
		return -EINVAL;
	}
	b = &g->blocks[p->block];
	for (size_t i = 0; i < p->n; i++) {
		const struct gwire_range *r = &p->ranges[i];

		if (!r->length || r->offset % b->page_size || r->length % b->page_size ||
		    r->offset > b->length || r->length > b->length - r->offset)
			ret = -EINVAL;
		else
			ret = punch_range(b, r);
		if (ret) {
			snprintf(msg, GWIRE_MESSAGE_MAX, "block %s, %#llx+%#llx: %s", b->name,
				 (unsigned long long)r->offset, (unsigned long long)r->length,
				 strerrorname_np(-ret));
			return ret;
		}
	}
	return 0;
}

void lib_block_free(struct decant_guest *g)
{
	for (size_t i = 0; i < g->nblocks; i++) {
		munmap(g->blocks[i].addr, g->blocks[i].length);
		if (g->blocks[i].fd >= 0)
			close(g->blocks[i].fd);
	}
	free(g->blocks);
	g->blocks = NULL;
	g->nblocks = 0;
}
