/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Blocks that devices may write to: how can such a guest be moved? Pure: options in, way out.
 *
 * A device that writes into memory that was pinned for it (O_DIRECT, io_uring, VFIO) does not go
 * through page tables: only the pinning itself is seen, as a write. What is copied between that and the
 * end of the I/O may be old, and nothing will ever say so.
 */
#ifndef DECANT_DMA_H
#define DECANT_DMA_H

#include <stdbool.h>
#include "conf/conf_options.h"

/**
 * enum dma_way - how memory that devices may write to is moved
 * @DMA_NONE:		there is none
 * @DMA_POSTCOPY:	nothing is copied before the guest has stopped here
 * @DMA_EVER_DIRTY:	protected first in a pause; a page that was ever reported written is left to post-copy
 * @DMA_QUARANTINE:	protected first in a pause; a page is copied only when its last report is older than
 *			the longest I/O
 * @DMA_SAVED:		a snapshot: no I/O is under way when it is protected, registered buffers are saved
 *			in the pause
 */
enum dma_way {
	DMA_NONE,
	DMA_POSTCOPY,
	DMA_EVER_DIRTY,
	DMA_QUARANTINE,
	DMA_SAVED,
};

/** dma_choose() - @mode: asked for; @dma: a block is not declared free of DMA; @snapshot: an image is stored, nothing moves */
enum dma_way dma_choose(enum mig_mode mode, bool snapshot, bool dma);
/** dma_holds() - Return: whether pages are held back by held.h, and the first protection takes a pause */
bool dma_holds(enum dma_way way);
/** dma_way_name() - Return: as in REST: "none", "postcopy", "ever-dirty", "quarantine", "saved" */
const char *dma_way_name(enum dma_way way);
/** dma_why() - Return: one sentence for people: why it is safe */
const char *dma_why(enum dma_way way);

#endif
