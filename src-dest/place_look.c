/* SPDX-License-Identifier: Apache-2.0 */
/* What is where, and what is missing: looked up, nothing changed. */
#include "place_priv.h"

bool place_complete(const struct place *p)
{
	for (unsigned int i = 0; i < p->n; i++)
		if (atomic_load(&p->blocks[i].received) != p->blocks[i].npages)
			return false;
	return true;
}

bool place_first_missing(const struct place *p, unsigned int *ret_block, uint64_t *ret_off)
{
	for (unsigned int i = 0; i < p->n; i++) {
		const struct place_block *b = &p->blocks[i];
		uint64_t page = pages_next_missing(b->pages, 0);

		if (page < b->npages) {
			*ret_block = i;
			*ret_off = page << b->shift;
			return true;
		}
	}
	return false;
}

bool place_find(const struct place *p, uint64_t addr, unsigned int *ret_block, uint64_t *ret_page)
{
	for (unsigned int i = 0; i < p->n; i++) {
		const struct place_block *b = &p->blocks[i];

		if (addr >= b->mem.block.addr && addr - b->mem.block.addr < b->length) {
			*ret_block = i;
			*ret_page = (addr - b->mem.block.addr) >> b->shift;
			return true;
		}
	}
	return false;
}
