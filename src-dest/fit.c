/* SPDX-License-Identifier: Apache-2.0 */
#include "fit.h"
#include <errno.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include "util/cleanup.h"

static bool group_is_less(const struct fit_host *h)
{
	return *h->group.path && h->group.unused < h->available;
}

uint64_t fit_memory(const struct fit_host *h)
{
	uint64_t kept = h->margin > 0 ? (uint64_t)h->margin : 0;
	uint64_t lent = h->margin < 0 ? 0 - (uint64_t)h->margin : 0;
	uint64_t unused = group_is_less(h) ? h->group.unused : h->available;
	uint64_t have = unused < UINT64_MAX - lent ? unused + lent : UINT64_MAX;

	if (unused == UINT64_MAX)
		return UINT64_MAX;
	have -= MIN(have, kept);
	return have - MIN(have, h->promised);
}

uint64_t fit_pages(const struct fit_pool *p)
{
	uint64_t gone = MAX(p->reserved, p->promised);

	return p->unused - MIN(p->unused, gone);
}

static bool is_huge(const struct msg_block *b)
{
	return b->kind == MSG_BLOCK_HUGETLB;
}

static int check_memory(const struct fit_host *h, uint64_t needs, struct error *err)
{
	const struct cgroup_room *g = &h->group;
	char kept[96] = "", where[CGROUP_PATH_MAX + 192] = "";

	if (needs <= fit_memory(h))
		return 0;
	if (h->margin)
		snprintf(kept, sizeof(kept), ", %" PRId64 " kept back (limits.margin_bytes)",
			 h->margin);
	if (group_is_less(h))
		snprintf(where, sizeof(where),
			 ": of the %" PRIu64 " of control group %s; raise its %s "
			 "(systemd: MemoryMax=)",
			 g->limit, g->path, g->file);
	return error_set(err, -ENOMEM, "no-room",
			 "no room: needs %" PRIu64 " bytes, %" PRIu64 " free, %" PRIu64
			 " promised to guests that are arriving%s%s",
			 needs, *where ? g->unused : h->available, h->promised, kept, where);
}

static int check_pool(const struct fit_host *h, uint64_t size, uint64_t needs, struct error *err)
{
	static const struct fit_pool none;
	const struct fit_pool *p = &none;

	for (unsigned int i = 0; i < h->npools; i++)
		if (h->pools[i].size == size)
			p = &h->pools[i];
	if (needs <= fit_pages(p))
		return 0;
	return error_set(err, -ENOMEM, "no-room",
			 "no room: needs %" PRIu64 " huge pages of %" PRIu64 " KiB, %" PRIu64
			 " free, %" PRIu64 " of them reserved, %" PRIu64
			 " promised to guests that are arriving",
			 needs, size >> 10, p->unused, p->reserved, p->promised);
}

/* Of one size, in all blocks that have it. */
static uint64_t pages_of(const struct msg_block *blocks, unsigned int n, uint64_t size)
{
	uint64_t sum = 0;

	for (unsigned int i = 0; i < n; i++)
		if (is_huge(&blocks[i]) && blocks[i].page_size == size)
			sum += blocks[i].length / size;
	return sum;
}

int fit_check(const struct fit_host *h, const struct msg_block *blocks, unsigned int n,
	      struct error *err)
{
	uint64_t bytes = 0;
	int r = 0;

	for (unsigned int i = 0; i < n; i++)
		bytes += is_huge(&blocks[i]) ? 0 : blocks[i].length;
	r = bytes ? check_memory(h, bytes, err) : 0;
	for (unsigned int i = 0; !r && i < n; i++)
		if (is_huge(&blocks[i]))
			r = check_pool(h, blocks[i].page_size,
				       pages_of(blocks, n, blocks[i].page_size), err);
	return r;
}

int fit_check_files(const struct fit_files *f, struct error *err)
{
	uint64_t have = f->unused < UINT64_MAX - f->lent ? f->unused + f->lent : UINT64_MAX;

	have -= MIN(have, f->promised);
	if (f->needs <= have)
		return 0;
	return error_set(err, -ENOMEM, "no-room",
			 "no room: its memory is in files on %s and needs %" PRIu64
			 " bytes more there, %" PRIu64 " free, %" PRIu64
			 " promised to guests that are arriving: make that file system larger (a "
			 "tmpfs: mount -o remount,size=), or have the launcher put the memory "
			 "elsewhere",
			 f->path, f->needs, f->unused, f->promised);
}
