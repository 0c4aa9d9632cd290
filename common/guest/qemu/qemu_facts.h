/* SPDX-License-Identifier: Apache-2.0 */
/* What two QEMUs must have in common for one to go on where the other stopped. */
#ifndef DECANT_GUEST_QEMU_QEMU_FACTS_H
#define DECANT_GUEST_QEMU_QEMU_FACTS_H

#include <jansson.h>

#include "util/error.h"

/** QEMU_FACTS_MAX - most entries of guest.facts */
#define QEMU_FACTS_MAX 200

/**
 * qemu_facts_compare() - can @own go on with what @source was?
 * @source, @own: guest.facts of both: objects of strings. Keys: qemu (version), machine, accelerator,
 *		cpus, cpu.LEAF.SUBLEAF.REGISTER (features, hex), device.TYPE (how many), pci.B.S.F,
 *		disk.DRIVE (format and size), image.DRIVE (its file, which may differ)
 *
 * Return: 0, or -EINVAL with @err naming what differs
 */
int qemu_facts_compare(const json_t *source, const json_t *own, struct error *err);
/**
 * qemu_disks_compare() - qemu_facts_compare() of one disk
 * @key:	"disk.…", of either
 */
int qemu_disks_compare(const json_t *source, const json_t *own, const char *key, struct error *err);

#endif
