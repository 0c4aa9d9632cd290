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

static void put_what_is_plugged(json_t *facts, json_t *const got[QEMU_Q_COUNT])
{
	qemu_disks_facts(facts, got[QEMU_Q_BLOCK]);
	put_devices(facts, got[QEMU_Q_DEVICES]);
	put_devices(facts, got[QEMU_Q_ANON_DEVICES]);
	put_pci(facts, got[QEMU_Q_PCI]);
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
	put_what_is_plugged(facts, got);
	return facts;
}

void qemu_facts_again(json_t *facts, json_t *const got[QEMU_Q_COUNT])
{
	static const char *const plugged[] = {"disk.", "image.", "device.", "pci."};
	const char *key;
	json_t *value;
	void *next;

	json_object_foreach_safe(facts, next, key, value) {
		for (size_t i = 0; i < ARRAY_SIZE(plugged); i++)
			if (!strncmp(key, plugged[i], strlen(plugged[i]))) {
				json_object_del(facts, key);
				break;
			}
	}
	put_what_is_plugged(facts, got);
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
		if (!r && !strncmp(key, "disk.", 5))
			r = qemu_disks_compare(source, own, key, err);
		else if (!r && json_is_string(value) && strncmp(key, "image.", 6) != 0)
			r = compare_one(key, json_string_value(value), text_of(own, key), err);
	}
	json_object_foreach((json_t *)own, key, value) {
		if (!r && !strncmp(key, "disk.", 5))
			r = qemu_disks_compare(source, own, key, err);
		if (!r && (!strncmp(key, "device.", 7) || !strncmp(key, "pci.", 4)) &&
		    !json_object_get(source, key))
			r = error_set(err, -EINVAL, "machine-differs",
				      "%s is here and not at the source: the launcher has to start "
				      "the same machine",
				      key);
	}
	return r;
}
