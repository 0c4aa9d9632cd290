/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Write tracking on the source: which pages has the guest written since we looked last? Two kinds
 * behind one table of functions:
 *
 *   async	the kernel notes writes itself (WP_ASYNC) and PAGEMAP_SCAN reads and renews the
 *		protection in one step; writers never wait
 *   faults	every first write to a protected page is a fault that waits for the snapshot thread
 *
 * All of it belongs to the snapshot thread, but track_probe().
 */
#ifndef DECANT_TRACK_H
#define DECANT_TRACK_H

#include "engine.h"
#include "gone.h"
#include "uffd/uffd.h"

struct track;

/**
 * struct track_ops - one kind
 * @name:	as in REST: "async", "faults"
 * @features:	UFFD_F_* that its descriptor is set up with, where the kernel has them
 * @start:	protect every block; undo all of it on failure (W3)
 * @renew:	the guest is paused: protect again what was written since; what that was is forgotten
 * @collect:	add what was written to engine_block.pending, protecting it again; Return: 0 or -errno
 * @final:	the same with the guest paused, without protecting
 * @protect:	before these claimed pages are read: see to it that later writes are noted
 * @service:	answer what waits on the descriptor; Return: number of events, or -errno
 */
struct track_ops {
	const char *name;
	uint64_t features;
	int (*start)(struct track *t, struct error *err);
	int (*renew)(struct track *t, struct error *err);
	int (*collect)(struct track *t, struct error *err);
	int (*final)(struct track *t, struct error *err);
	int (*protect)(struct track *t, struct engine_block *b, uint64_t offset, uint64_t length,
		       struct error *err);
	int (*service)(struct track *t, struct error *err);
};

/**
 * struct track - tracking of one guest
 * @uffd:	its userfaultfd, owned
 * @pagemap:	/proc/PID/pagemap, owned; kind async
 * @later, @nlater, @later_cap: kind faults: addresses of faults that were read and not served yet
 * @gone:	what the guest gives back
 * @registered:	blocks [0, @registered) are registered
 * @quiet_us:	clock_us() when no write fault was waiting, as of the last look
 */
struct track {
	const struct track_ops *ops;
	struct engine *e;
	int uffd;
	int pagemap;
	uint64_t *later;
	size_t nlater;
	size_t later_cap;
	struct gone gone;
	uint32_t registered;
	uint64_t quiet_us;
};

extern const struct track_ops track_async;
extern const struct track_ops track_faults;

/**
 * track_choose() - which kind can and shall be used on this host
 * @wish:	of the migration's options
 *
 * Return: the kind; NULL with @err filled if the host cannot do what was asked for
 */
const struct track_ops *track_choose(const struct uffd_caps *caps, const struct engine *e,
				     enum mig_tracking wish, struct error *err);

/**
 * track_check() - can every block be tracked so? (W2) Nothing of the guest is changed by it
 * @uffd:	fresh descriptor of the guest's process, thrown away here: it shakes hands only once
 *
 * Return: 0; -errno with @err naming the block and why
 */
int track_check(const struct track_ops *ops, const struct engine *e, int uffd, struct error *err);

/**
 * track_start() - shake hands, register and protect every block (W3)
 * @uffd:	fresh descriptor of the guest's process; taken over, also on failure
 *
 * Return: 0; -errno with @err naming the block, everything undone
 */
int track_start(struct track *t, const struct track_ops *ops, struct engine *e, int uffd,
		struct error *err);
/** track_populate() - make protection reach empty anonymous memory on kernels where it passes over it (W4)
 * Return: 0 or -errno with @err filled */
int track_populate(const struct engine *e, struct error *err);
/** track_stop() - unregister what was registered and close (W9); safe twice and after a failed start */
void track_stop(struct track *t);

#endif
