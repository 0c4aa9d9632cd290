/* SPDX-License-Identifier: Apache-2.0 */
#include "guest/driver.h"

#include <errno.h>
#include <string.h>

bool guest_name_ok(const char *name)
{
	static const char allowed[] =
		"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-";
	size_t n = strlen(name);

	return n && n < GUEST_NAME_MAX && *name != '.' && *name != '-' &&
	       strspn(name, allowed) == n;
}

void guest_watch(struct guest *g, guest_gone_fn *on_gone, guest_state_fn *on_state, void *arg)
{
	g->on_gone = on_gone;
	g->on_state = on_state;
	/* They would be told with the @arg of somebody else. */
	g->on_vcpu = NULL;
	g->on_stop = NULL;
	g->arg = arg;
}

void guest_watch_vcpus(struct guest *g, guest_vcpu_fn *on_vcpu)
{
	g->on_vcpu = on_vcpu;
}

void guest_watch_stops(struct guest *g, guest_stop_fn *on_stop)
{
	g->on_stop = on_stop;
}

int guest_look(struct guest *g, guest_done_fn *done, void *arg)
{
	return g->ops->look ? g->ops->look(g, done, arg) : -EOPNOTSUPP;
}

int guest_pause(struct guest *g, uint32_t bound_ms, guest_done_fn *done, void *arg)
{
	if (!bound_ms || bound_ms > GWIRE_BOUND_MAX_MS)
		return -EINVAL;
	return g->ops->pause ? g->ops->pause(g, bound_ms, done, arg) : -EOPNOTSUPP;
}

int guest_resume(struct guest *g, guest_done_fn *done, void *arg)
{
	return g->ops->resume ? g->ops->resume(g, done, arg) : -EOPNOTSUPP;
}

int guest_save(struct guest *g, guest_chunk_fn *chunk, guest_done_fn *done, void *arg)
{
	return g->ops->save ? g->ops->save(g, chunk, done, arg) : -EOPNOTSUPP;
}

void guest_save_more(struct guest *g)
{
	if (g->ops->save_more)
		g->ops->save_more(g);
}

int guest_load(struct guest *g, bool paused, guest_room_fn *room, guest_done_fn *done, void *arg)
{
	return g->ops->load ? g->ops->load(g, paused, room, done, arg) : -EOPNOTSUPP;
}

int guest_load_feed(struct guest *g, const void *p, size_t n)
{
	return g->ops->load_feed ? g->ops->load_feed(g, p, n) : -EOPNOTSUPP;
}

int guest_load_end(struct guest *g)
{
	return g->ops->load_end ? g->ops->load_end(g) : -EOPNOTSUPP;
}

int guest_uffd(struct guest *g, bool keep, uint32_t tag, guest_done_fn *done, void *arg)
{
	if (keep ? !tag : tag != 0)
		return -EINVAL;
	return g->ops->uffd ? g->ops->uffd(g, keep, tag, done, arg) : -EOPNOTSUPP;
}

int guest_uffd_again(struct guest *g, guest_done_fn *done, void *arg)
{
	return g->ops->uffd_again ? g->ops->uffd_again(g, done, arg) : -EOPNOTSUPP;
}

int guest_uffd_close(struct guest *g, guest_done_fn *done, void *arg)
{
	return g->ops->uffd_close ? g->ops->uffd_close(g, done, arg) : -EOPNOTSUPP;
}

int guest_punch(struct guest *g, uint16_t block, const struct guest_range *ranges, size_t n,
		guest_done_fn *done, void *arg)
{
	if (block >= g->nblocks || !n || n > GUEST_RANGES_MAX)
		return -EINVAL;
	return g->ops->punch ? g->ops->punch(g, block, ranges, n, done, arg) : -EOPNOTSUPP;
}

int guest_prepare(struct guest *g, guest_done_fn *done, void *arg)
{
	return g->ops->prepare ? g->ops->prepare(g, done, arg) : -EOPNOTSUPP;
}

int guest_finish(struct guest *g, guest_done_fn *done, void *arg)
{
	return g->ops->finish ? g->ops->finish(g, done, arg) : -EOPNOTSUPP;
}

int guest_set_identity(struct guest *g, const uint8_t uuid[GUEST_UUID_LEN], uint64_t generation,
		       guest_done_fn *done, void *arg)
{
	return g->ops->set_identity ? g->ops->set_identity(g, uuid, generation, done, arg)
				    : -EOPNOTSUPP;
}

int guest_move(struct guest *g, const char *path, guest_done_fn *done, void *arg)
{
	if (path[0] != '/' || strlen(path) >= GWIRE_PATH_MAX)
		return -EINVAL;
	return g->ops->move ? g->ops->move(g, path, done, arg) : -EOPNOTSUPP;
}

int guest_quit(struct guest *g, guest_done_fn *done, void *arg)
{
	return g->ops->quit ? g->ops->quit(g, done, arg) : -EOPNOTSUPP;
}

void guest_free(struct guest *g)
{
	if (g)
		g->ops->free(g);
}

const char *guest_run_state_name(enum guest_run_state s)
{
	switch (s) {
	case GUEST_RUNNING:
		return "running";
	case GUEST_PAUSED:
		return "paused";
	case GUEST_PAUSED_MIGRATION:
		return "paused-for-migration";
	case GUEST_INCOMING:
		return "incoming";
	}
	return "unknown";
}

const char *guest_block_kind_name(enum guest_block_kind k)
{
	switch (k) {
	case GUEST_BLOCK_MEMFD:
		return "memfd";
	case GUEST_BLOCK_ANON:
		return "anonymous";
	case GUEST_BLOCK_HUGETLB:
		return "hugetlb";
	}
	return "unknown";
}

uint64_t guest_memory_bytes(const struct guest *g)
{
	uint64_t sum = 0;

	for (size_t i = 0; i < g->nblocks; i++)
		sum += g->blocks[i].length;
	return sum;
}

bool guest_no_dma(const struct guest *g, const struct guest_block **ret_block)
{
	for (size_t i = 0; i < g->nblocks; i++) {
		if (g->blocks[i].flags & GUEST_BLOCK_NO_DMA)
			continue;
		if (ret_block)
			*ret_block = &g->blocks[i];
		return false;
	}
	return true;
}
