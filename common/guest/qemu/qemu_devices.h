/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Who writes into a VM's memory? Emulated devices do by QEMU's processors, which tracking sees. What the
 * block layer reads with O_DIRECT is written by a device into pages that were pinned for it: such a VM
 * moves, but with care. What another process or a passed-through device writes at any time is seen by
 * nobody: such a VM is refused.
 *
 * Judged by what QEMU says of its devices and block nodes, and, independent of that, by what its
 * descriptors are and how they were opened. Which rule could be broken here: 3, were a writer
 * overlooked: hence what is not known to copy is taken for one that does not, and everything is looked
 * at again with each migration, and once more after each pause (a disk may have been plugged in since).
 */
#ifndef DECANT_GUEST_QEMU_QEMU_DEVICES_H
#define DECANT_GUEST_QEMU_QEMU_DEVICES_H

#include <jansson.h>
#include <stdbool.h>
#include <sys/types.h>

#include "guest/driver.h"
#include "util/error.h"

/**
 * struct qemu_devices - answers of QEMU; NULL for what it could not tell
 * @devices, @anon, @objects: qom-list of /machine/peripheral, /machine/peripheral-anon, /objects
 * @nodes:	query-named-block-nodes
 * @network:	text of `info network`
 * @migrate:	query-migrate
 */
struct qemu_devices {
	const json_t *devices;
	const json_t *anon;
	const json_t *objects;
	const json_t *nodes;
	const json_t *network;
	const json_t *migrate;
};

/**
 * struct qemu_writers - what was found
 * @cannot:	why the VM cannot be moved; empty if it can
 * @dma:	who reads into its memory with direct I/O, for people; empty if nobody does
 * @n:		how many do
 */
struct qemu_writers {
	struct error cannot;
	char dma[GUEST_DMA_MAX];
	unsigned int n;
};

/**
 * qemu_devices_judge() - who writes into the VM's memory?
 * @pid:	of QEMU
 * @no_dma:	names of devices, block nodes or files, separated by spaces or commas, for which the
 *		operator answers that they write into no memory unseen; NULL without
 */
void qemu_devices_judge(pid_t pid, const struct qemu_devices *d, const char *no_dma,
			struct qemu_writers *ret);

/**
 * qemu_devices_opened() - the part of it that needs no answer of QEMU's: its descriptors. Takes microseconds
 * for each
 */
void qemu_devices_opened(pid_t pid, const char *no_dma, struct qemu_writers *ret);

/** qemu_devices_copies() - Return: does an ordinary read from this type of file system copy out of memory? */
bool qemu_devices_copies(const char *fstype);

#endif
