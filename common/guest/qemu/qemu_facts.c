/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "guest/qemu/qemu_facts.h"
#include "guest/qemu/qemu_impl.h"
#include "guest/qemu/qemu_proc.h"
#include "util/cleanup.h"

/* --- gathering ----------------------------------------------------------------------------------- */

static void put(json_t *facts, const char *key, const char *value)
{
	if (value && json_object_size(facts) < QEMU_FACTS_MAX)
		json_object_set_new(facts, key, json_string(value));
}

static const char *text_of(const json_t *o, const char *key)
{
	return json_string_value(json_object_get(o, key));
}

static json_int_t number_of(const json_t *o, const char *key)
{
	return json_integer_value(json_object_get(o, key));
}

/* How many there are of each type: their names are the launcher's matter. */
static void put_devices(json_t *facts, const json_t *list)
{
	const json_t *child;
	size_t i;

	json_array_foreach(list, i, child) {
		const char *type = text_of(child, "type");
		char key[64], count[24];

		if (!type || strncmp(type, "child<", 6) != 0)
			continue;
		snprintf(key, sizeof(key), "device.%.*s", (int)MIN(strcspn(type + 6, ">"), 48u),
			 type + 6);
		snprintf(count, sizeof(count), "%ld",
			 strtol(text_of(facts, key) ?: "0", NULL, 10) + 1);
		put(facts, key, count);
	}
}

static void put_pci(json_t *facts, const json_t *buses)
{
	const json_t *bus, *dev;
	size_t i, j;

	json_array_foreach(buses, i, bus) {
		json_array_foreach(json_object_get(bus, "devices"), j, dev) {
			const json_t *id = json_object_get(dev, "id");
			const json_t *bridge = json_object_get(dev, "pci_bridge");
			char key[64], value[32];

			snprintf(key, sizeof(key), "pci.%d.%d.%d", (int)number_of(dev, "bus"),
				 (int)number_of(dev, "slot"), (int)number_of(dev, "function"));
			snprintf(value, sizeof(value), "%04x.%04x",
				 (unsigned int)number_of(id, "vendor"),
				 (unsigned int)number_of(id, "device"));
			put(facts, key, value);
			if (json_object_get(bridge, "devices")) {
				json_t *inner = json_pack("[O]", bridge);

				put_pci(facts, inner);
				json_decref(inner);
			}
		}
	}
}

static void put_features(json_t *facts, const json_t *words)
{
	const json_t *w;
	size_t i;

	json_array_foreach(words, i, w) {
		char key[64], value[16];

		if (!number_of(w, "features"))
			continue;
		snprintf(key, sizeof(key), "cpu.%llx.%llx.%.8s",
			 (unsigned long long)number_of(w, "cpuid-input-eax"),
			 (unsigned long long)number_of(w, "cpuid-input-ecx"),
			 text_of(w, "cpuid-register") ?: "");
		snprintf(value, sizeof(value), "%llx",
			 (unsigned long long)number_of(w, "features"));
		put(facts, key, value);
	}
}

json_t *qemu_facts(const struct qemu *v, json_t *const got[QEMU_Q_COUNT])
{
	json_t *facts = json_object();
	char cpus[16];

	if (!facts)
		return NULL;
	snprintf(cpus, sizeof(cpus), "%zu", json_array_size(got[QEMU_Q_CPUS]));
	put(facts, "qemu", qmp_version(v->qmp));
	put(facts, "machine", json_string_value(got[QEMU_Q_MACHINE]));
	put(facts, "accelerator",
	    json_is_true(json_object_get(got[QEMU_Q_KVM], "enabled")) ? "kvm" : "tcg");
	put(facts, "cpus", cpus);
	put_features(facts, got[QEMU_Q_FEATURES]);
	put_devices(facts, got[QEMU_Q_DEVICES]);
	put_devices(facts, got[QEMU_Q_ANON_DEVICES]);
	put_pci(facts, got[QEMU_Q_PCI]);
	return facts;
}

/* --- comparing ----------------------------------------------------------------------------------- */

static int differs(const char *what, const char *there, const char *here, struct error *err)
{
	return error_set(
		err, -EINVAL, "machine-differs",
		"%s is %.64s at the source and %.64s here: the launcher has to start the same "
		"machine",
		what, there, here ? here : "missing");
}

/* A machine type means the same in every QEMU that knows it, but state only moves forward for sure. */
static int compare_version(const char *there, const char *here, struct error *err)
{
	int ma = 0, mi = 0, our_ma = 0, our_mi = 0;

	sscanf(there, "%d.%d", &ma, &mi);
	if (here)
		sscanf(here, "%d.%d", &our_ma, &our_mi);
	if (our_ma > ma || (our_ma == ma && our_mi >= mi))
		return 0;
	return error_set(
		err, -EINVAL, "machine-differs",
		"QEMU is of version %.32s at the source and %.32s here: install the same or a "
		"later one here",
		there, here ? here : "unknown");
}

static int compare_features(const char *key, const char *there, const char *here, struct error *err)
{
	unsigned long long want = strtoull(there, NULL, 16);
	unsigned long long have = here ? strtoull(here, NULL, 16) : 0;

	if (!(want & ~have))
		return 0;
	return error_set(
		err, -EINVAL, "cpu-differs",
		"the guest's processor has features that this host's QEMU does not give it: "
		"%s lacks 0x%llx; start it at both with the same -cpu, one that both hosts "
		"have",
		key, want & ~have);
}

static int compare_one(const char *key, const char *there, const char *here, struct error *err)
{
	if (!strcmp(key, "qemu"))
		return compare_version(there, here, err);
	if (!strncmp(key, "cpu.", 4))
		return compare_features(key, there, here, err);
	if (here && !strcmp(there, here))
		return 0;
	return differs(key, there, here, err);
}

int qemu_facts_compare(const json_t *source, const json_t *own, struct error *err)
{
	const char *key;
	json_t *value;
	int r = 0;

	json_object_foreach((json_t *)source, key, value) {
		if (!r && json_is_string(value))
			r = compare_one(key, json_string_value(value), text_of(own, key), err);
	}
	json_object_foreach((json_t *)own, key, value) {
		if (!r && (!strncmp(key, "device.", 7) || !strncmp(key, "pci.", 4)) &&
		    !json_object_get(source, key))
			r = error_set(err, -EINVAL, "machine-differs",
				      "%s is here and not at the source: the launcher has to start "
				      "the same machine",
				      key);
	}
	return r;
}

/* --- what keeps it here -------------------------------------------------------------------------- */

/* Writers that no page table of QEMU's process tells of. */
static bool take_foreign_writer(void *arg, int fd, const char *link)
{
	static const char *const devices[] = {"/dev/vfio/", "/dev/vhost-", "/dev/infiniband/",
					      "/dev/iommu"};
	struct guest *g = arg;

	(void)fd;
	for (size_t i = 0; i < ARRAY_SIZE(devices); i++)
		if (!strncmp(link, devices[i], strlen(devices[i])))
			error_set(
				&g->cannot, -EOPNOTSUPP, "device-not-supported",
				"QEMU has %s open: what that device writes into the guest's memory "
				"is not seen; use an emulated device (for a network card "
				"vhost=off)",
				link);
	return true;
}

static void check_devices(struct guest *g, const json_t *list)
{
	static const char *const types[] = {"vfio-", "vhost-", "vhost-user-", "ivshmem"};
	const json_t *child;
	size_t i;

	json_array_foreach(list, i, child) {
		const char *type = text_of(child, "type");

		for (size_t k = 0; type && k < ARRAY_SIZE(types); k++)
			if (!strncmp(type, "child<", 6) &&
			    !strncmp(type + 6, types[k], strlen(types[k])))
				error_set(
					&g->cannot, -EOPNOTSUPP, "device-not-supported",
					"device %s (%s) writes into the guest's memory unseen: it "
					"cannot be moved",
					text_of(child, "name") ?: "", type);
	}
}

static void check_network(struct guest *g, const json_t *text)
{
	static const char *const types[] = {"type=vhost-user", "type=vhost-vdpa"};
	const char *s = json_string_value(text);

	for (size_t k = 0; s && k < ARRAY_SIZE(types); k++)
		if (strstr(s, types[k]))
			error_set(&g->cannot, -EOPNOTSUPP, "device-not-supported",
				  "a network card is of %s: what its back end writes into the "
				  "guest's "
				  "memory is not seen",
				  types[k]);
}

static void check_blockers(struct guest *g, const json_t *migrate)
{
	const json_t *reasons = json_object_get(migrate, "blocked-reasons");
	const char *why = json_string_value(json_array_get(reasons, 0));

	if (why)
		error_set(&g->cannot, -EOPNOTSUPP, "migration-blocked",
			  "QEMU says that it cannot be migrated: %s", why);
}

/* Reads with O_DIRECT go into pages that were pinned before: tracking by page tables misses them. */
static void check_disks(struct guest *g, const json_t *nodes)
{
	const json_t *node;
	size_t i;

	json_array_foreach(nodes, i, node) {
		if (!json_is_true(json_object_get(json_object_get(node, "cache"), "direct")))
			continue;
		if (!g->dma[0])
			snprintf(g->dma, sizeof(g->dma),
				 "block device %.32s reads with direct I/O (cache.direct=on)",
				 text_of(node, "node-name") ?: "");
	}
}

void qemu_facts_obstacles(struct qemu *v, json_t *const got[QEMU_Q_COUNT])
{
	struct guest *g = &v->g;

	check_devices(g, got[QEMU_Q_DEVICES]);
	check_devices(g, got[QEMU_Q_ANON_DEVICES]);
	check_network(g, got[QEMU_Q_NETWORK]);
	qemu_proc_fds(g->pid, take_foreign_writer, g);
	check_blockers(g, got[QEMU_Q_MIGRATE]);
	check_disks(g, got[QEMU_Q_NODES]);
	for (uint16_t i = 0; i < g->nblocks; i++)
		if (!g->dma[0])
			g->blocks[i].flags |= GUEST_BLOCK_NO_DMA;
}
