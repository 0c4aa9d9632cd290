/* SPDX-License-Identifier: Apache-2.0 */
/* What one data channel has received: written by its thread, read by the loop. */
#ifndef DECANT_TALLY_H
#define DECANT_TALLY_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include "msg.h"

/**
 * struct tally - counts of one channel; zeroed at first
 * @runs:	PAGES frames that were dealt with (placed or refused for their digest)
 * @digest_sum:	sum of their digest fields, modulo 2^64
 * @bytes:	payload of them
 * @nacks:	of them refused for their digest
 */
struct tally {
	_Atomic uint64_t runs;
	_Atomic uint64_t digest_sum;
	_Atomic uint64_t bytes;
	_Atomic uint64_t nacks;
};

static inline void tally_add_(_Atomic uint64_t *v, uint64_t n)
{
	/* One writer: no locked instruction is needed. */
	atomic_store_explicit(v, atomic_load_explicit(v, memory_order_relaxed) + n,
			      memory_order_release);
}

/** tally_frame() - a PAGES frame was dealt with; the channel's own thread only */
static inline void tally_frame(struct tally *t, const struct msg_pages *m, bool nacked)
{
	tally_add_(&t->digest_sum, m->digest);
	if (m->kind == MSG_PAGES_RAW)
		tally_add_(&t->bytes, m->length);
	if (nacked)
		tally_add_(&t->nacks, 1);
	tally_add_(&t->runs, 1);
}

/** tally_restart() - a new session counts its frames from 0; bytes go on. The channel's own thread only */
static inline void tally_restart(struct tally *t)
{
	atomic_store(&t->runs, 0);
	atomic_store(&t->digest_sum, 0);
}

#endif
