/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Disks: decant copies none. What was written to them is at the destination because both hosts have the
 * same storage; whether that is so cannot be seen from one host. What can be seen is that the
 * destination's QEMU has opened as many images, for the same drives, of the same format and size.
 */
#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "guest/qemu/qemu_facts.h"
#include "guest/qemu/qemu_impl.h"

#define KEY_MAX   64
#define VALUE_MAX 256
/* Of a path, in a message. */
#define SHOWN 100

static const char *text_of(const json_t *o, const char *key)
{
	return json_string_value(json_object_get(o, key));
}

/* Where the name of the front end begins: what virtio puts behind it is left out. */
static size_t front_end(const char *qdev, const char **ret_name)
{
	static const char behind[] = "/virtio-backend";
	size_t n = strlen(qdev), tail = sizeof(behind) - 1;

	if (n > tail && !strcmp(qdev + n - tail, behind))
		n -= tail;
	for (*ret_name = qdev + n; *ret_name > qdev && (*ret_name)[-1] != '/';)
		(*ret_name)--;
	return (size_t)(qdev + n - *ret_name);
}

/*
 * A drive's name, else that of the device that has it ("device[1]" is device.1). Facts have names
 * like guests: what cannot be in one becomes '_'.
 */
static void name_of(const json_t *dev, char ret_name[static KEY_MAX - 8])
{
	const char *name = text_of(dev, "device"), *qdev = text_of(dev, "qdev");
	size_t n = name ? strlen(name) : 0, used = 0;

	if (!n && qdev)
		n = front_end(qdev, &name);
	for (size_t i = 0; i < n && used < KEY_MAX - 9; i++) {
		bool fits = isalnum((unsigned char)name[i]) || strchr("._-", name[i]);

		if (name[i] != ']')
			ret_name[used++] = fits ? name[i] : name[i] == '[' ? '.' : '_';
	}
	ret_name[used] = 0;
}

static void describe(const json_t *inserted, char ret_text[static VALUE_MAX])
{
	const json_t *image = json_object_get(inserted, "image");

	if (!inserted)
		snprintf(ret_text, VALUE_MAX, "empty");
	else
		snprintf(ret_text, VALUE_MAX, "%.32s of %" JSON_INTEGER_FORMAT " bytes%s",
			 text_of(image, "format") ?: text_of(inserted, "drv") ?: "?",
			 json_integer_value(json_object_get(image, "virtual-size")),
			 json_is_true(json_object_get(inserted, "ro")) ? ", read-only" : "");
}

void qemu_disks_facts(json_t *facts, const json_t *list)
{
	const json_t *dev;
	size_t i;

	json_array_foreach(list, i, dev) {
		const json_t *inserted = json_object_get(dev, "inserted");
		const char *file = text_of(inserted, "file");
		char name[KEY_MAX - 8], key[KEY_MAX], value[VALUE_MAX];

		if (json_object_size(facts) + 2 > QEMU_FACTS_MAX)
			return;
		name_of(dev, name);
		describe(inserted, value);
		snprintf(key, sizeof(key), "disk.%s", name);
		json_object_set_new(facts, key, json_string(value));
		/* Only for people, who know a disk by its file. One too long does not travel. */
		if (!file || *file != '/' || strlen(file) >= VALUE_MAX)
			continue;
		snprintf(key, sizeof(key), "image.%s", name);
		json_object_set_new(facts, key, json_string(file));
	}
}

static const char *image_of(const json_t *facts, const char *disk)
{
	char key[KEY_MAX + 8];

	snprintf(key, sizeof(key), "image.%s", disk);
	return text_of(facts, key) ?: "no file of a known path";
}

int qemu_disks_compare(const json_t *source, const json_t *own, const char *key, struct error *err)
{
	static const char ask[] =
		"the launcher has to give QEMU the same disks, of storage that both hosts share";
	const char *there = text_of(source, key), *here = text_of(own, key);
	const char *disk = key + strlen("disk.");

	if (there && here && !strcmp(there, here))
		return 0;
	if (!here)
		return error_set(err, -EINVAL, "disk-differs",
				 "disk %.48s (%.*s) of the source is missing here: %s", disk, SHOWN,
				 image_of(source, disk), ask);
	if (!there)
		return error_set(err, -EINVAL, "disk-differs",
				 "disk %.48s (%.*s) is here and not at the source: %s", disk, SHOWN,
				 image_of(own, disk), ask);
	return error_set(err, -EINVAL, "disk-differs",
			 "disk %.48s is %.64s at the source (%.*s), and %.64s here (%.*s): %s",
			 disk, there, SHOWN / 2, image_of(source, disk), here, SHOWN / 2,
			 image_of(own, disk), ask);
}
