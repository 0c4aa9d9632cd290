/* SPDX-License-Identifier: Apache-2.0 */
#include "dma.h"

static const struct {
	const char *name;
	const char *why;
} ways[] = {
	[DMA_NONE] = {"none", "every block is declared free of DMA"},
	[DMA_POSTCOPY] = {"postcopy", "nothing is copied before the guest has stopped"},
	[DMA_EVER_DIRTY] =
		{"ever-dirty",
		 "protected in a pause without I/O; pages that were ever written since are "
		 "left to post-copy"},
	[DMA_QUARANTINE] =
		{"quarantine",
		 "protected in a pause without I/O; pages that were written since are copied "
		 "when that is dma_quarantine_ms ago, or in the last pause"},
	[DMA_SAVED] =
		{"saved",
		 "protected in a pause without I/O; buffers registered for I/O are saved in it"},
};

enum dma_way dma_choose(enum mig_mode mode, bool snapshot, bool dma)
{
	if (!dma)
		return DMA_NONE;
	if (snapshot)
		return DMA_SAVED;
	switch (mode) {
	case MIG_MODE_PRECOPY:
		return DMA_QUARANTINE;
	case MIG_MODE_HYBRID:
		return DMA_EVER_DIRTY;
	case MIG_MODE_POSTCOPY:
		break;
	}
	return DMA_POSTCOPY;
}

bool dma_holds(enum dma_way way)
{
	return way == DMA_EVER_DIRTY || way == DMA_QUARANTINE;
}

const char *dma_way_name(enum dma_way way)
{
	return ways[way].name;
}

const char *dma_why(enum dma_way way)
{
	return ways[way].why;
}
