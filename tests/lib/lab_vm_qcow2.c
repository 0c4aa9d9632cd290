/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The tables of an image in qcow2, all of whose data stands behind them. Each cluster of it is used twice, as by a
 * snapshot: the first write to it makes QEMU copy it and change tables.
 */
#include <stdlib.h>
#include "lib/lab_vm.h"

#define BITS     16
#define CLUSTER  (UINT64_C(1) << BITS)
#define COPIED   (UINT64_C(1) << 63)
#define L2_COUNT (CLUSTER / 8)
#define L2_AT    4 /* behind header, table of reference counts, one block of them, L1 table */

static void put(uint8_t *to, uint64_t v, unsigned int bytes)
{
	for (unsigned int i = 0; i < bytes; i++)
		to[i] = (uint8_t)(v >> (bytes - 1 - i) * 8);
}

static void header(uint8_t *h, uint64_t size, uint64_t l2s)
{
	put(h, 0x514649fb, 4);
	put(h + 4, 2, 4); /* version */
	put(h + 20, BITS, 4);
	put(h + 24, size, 8);
	put(h + 36, l2s, 4);
	put(h + 40, 3 * CLUSTER, 8); /* L1 table */
	put(h + 48, CLUSTER, 8);     /* reference counts */
	put(h + 56, 1, 4);
}

int lab_vm_qcow2_head(FILE *f, uint64_t size)
{
	uint64_t data = (size + CLUSTER - 1) / CLUSTER, l2s = (data + L2_COUNT - 1) / L2_COUNT;
	uint64_t first = L2_AT + l2s;
	uint8_t *all = calloc(first, CLUSTER);
	int r;

	header(all, size, l2s);
	put(all + CLUSTER, 2 * CLUSTER, 8);
	for (uint64_t i = 0; i < first + data; i++)
		put(all + 2 * CLUSTER + i * 2, i < first ? 1 : 2, 2);
	for (uint64_t i = 0; i < l2s; i++)
		put(all + 3 * CLUSTER + i * 8, (L2_AT + i) * CLUSTER | COPIED, 8);
	for (uint64_t i = 0; i < data; i++)
		put(all + L2_AT * CLUSTER + i * 8, (first + i) * CLUSTER, 8);
	r = fwrite(all, CLUSTER, first, f) == first ? 0 : -1;
	free(all);
	return r;
}
