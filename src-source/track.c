/* SPDX-License-Identifier: Apache-2.0 */
#include "track.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "util/cleanup.h"
#include "util/fdio.h"
#include "util/trace.h"

static bool has_anonymous(const struct engine *e)
{
	for (uint32_t i = 0; i < e->nblocks; i++)
		if (e->blocks[i].mem.block.kind == GUEST_BLOCK_ANON)
			return true;
	return false;
}

const struct track_ops *track_choose(const struct uffd_caps *caps, const struct engine *e,
				     enum mig_tracking wish, struct error *err)
{
	unsigned int can = caps->tracking;

	if (has_anonymous(e))
		can &= caps->tracking_anon;
	if (wish != MIG_TRACKING_FAULTS && (can & UFFD_TRACK_ASYNC))
		return &track_async;
	if (wish != MIG_TRACKING_ASYNC && (can & UFFD_TRACK_FAULTS))
		return &track_faults;
	error_set(err, -EOPNOTSUPP, "tracking-not-supported",
		  "this host cannot track writes by %s: see decant check; a migration with --mode "
		  "postcopy needs no tracking",
		  wish == MIG_TRACKING_ASYNC    ? "async (kernel 6.7 or later)"
		  : wish == MIG_TRACKING_FAULTS ? "faults"
						: "any means");
	return NULL;
}

static int handshake(const struct track_ops *ops, const struct engine *e, int uffd,
		     struct error *err)
{
	int r = uffd_api(uffd, ops->features & e->features, NULL, NULL);

	if (r < 0)
		error_set(err, r, "tracking-refused",
			  "the guest's userfaultfd refuses the features of kind %s: %s", ops->name,
			  strerror(-r));
	return r;
}

/* Return: 1 if it is registered and of no use, 0 if it is registered, -errno if not; @err in both */
static int register_block(int uffd, const struct guest_block *b, struct error *err)
{
	uint64_t can = 0;
	int r = uffd_register(uffd, b->addr, b->length, UFFD_MODE_WP, &can);

	if (r < 0)
		return error_set(err, r, "tracking-refused",
				 "block %s cannot be registered for write protection: %s%s",
				 b->name, strerror(-r),
				 r == -EBUSY ? " (another userfaultfd has it)" : "");
	if (can & UFFD_CAN_WRITEPROTECT)
		return 0;
	error_set(err, -EOPNOTSUPP, "tracking-refused",
		  "the kernel cannot write-protect block %s (%s memory)", b->name,
		  guest_block_kind_name(b->kind));
	return 1;
}

int track_check(const struct track_ops *ops, const struct engine *e, int uffd, struct error *err)
{
	CLEANUP_CLOSE int fd = uffd;
	int r = handshake(ops, e, fd, err);

	for (uint32_t i = 0; !r && i < e->nblocks; i++) {
		const struct guest_block *b = &e->blocks[i].mem.block;

		if (!engine_tracked(&e->blocks[i]))
			continue;
		r = register_block(fd, b, err);
		if (r >= 0)
			uffd_unregister(fd, b->addr, b->length);
	}
	return r > 0 ? -EOPNOTSUPP : r;
}

int track_start(struct track *t, const struct track_ops *ops, struct engine *e, int uffd,
		struct error *err)
{
	int r;

	/* Writers wait for it to be closed, should this agent be killed. */
	uffd = fdio_high(uffd);
	*t = (struct track){.ops = ops, .e = e, .uffd = uffd, .pagemap = -1};
	r = handshake(ops, e, uffd, err);
	for (uint32_t i = 0; !r && i < e->nblocks; i++) {
		if (engine_tracked(&e->blocks[i]))
			r = register_block(uffd, &e->blocks[i].mem.block, err);
		if (r >= 0)
			t->registered++;
		r = r > 0 ? -EOPNOTSUPP : r;
	}
	if (!r)
		r = ops->start(t, err);
	for (uint32_t i = 0; !r && i < e->nblocks; i++) {
		const struct guest_block *b = &e->blocks[i].mem.block;

		if (engine_tracked(&e->blocks[i]))
			trace_block_start(b->name, b->page_size, b->addr, b->length);
	}
	if (r < 0)
		track_stop(t);
	return r;
}

void track_stop(struct track *t)
{
	for (uint32_t i = 0; i < t->registered; i++) {
		const struct guest_block *b = &t->e->blocks[i].mem.block;
		int r;

		if (!engine_tracked(&t->e->blocks[i]))
			continue;
		r = uffd_unregister(t->uffd, b->addr, b->length);
		/* One block that fails (its process may be gone) must not keep the others protected. */
		trace_block_stop(b->name, b->page_size, b->addr, b->length, r);
	}
	t->registered = 0;
	gone_stop(&t->gone);
	free(t->later);
	t->later = NULL;
	t->nlater = t->later_cap = 0;
	if (t->uffd >= 0)
		close(steal_fd(&t->uffd));
	if (t->pagemap >= 0)
		close(steal_fd(&t->pagemap));
}
