/* SPDX-License-Identifier: Apache-2.0 */
/* What two QEMUs must have in common: each difference is named, and what may differ may. */
#include <criterion/criterion.h>
#include <errno.h>
#include <string.h>

#include "guest/qemu/qemu_facts.h"

#define BASE                                                                                      \
	"{'qemu': '7.2.22', 'machine': 'pc-q35-7.2-machine', 'accelerator': 'tcg', 'cpus': '2', " \
	"'cpu.1.0.EDX': '78bfbfd', 'device.virtio-blk-pci': '2', 'pci.0.3.0': '1af4.1001'"

static json_t *facts(const char *more)
{
	char text[1024];
	json_error_t je;
	json_t *o;

	snprintf(text, sizeof(text), "%s%s}", BASE, more);
	for (char *c = text; *c; c++)
		*c = *c == '\'' ? '"' : *c;
	/* A key that comes again replaces the first. */
	o = json_loads(text, 0, &je);
	cr_assert(o != NULL, "%s: %s", je.text, text);
	return o;
}

/* @source and @own come behind what both have. */
static int compare(const char *source, const char *own, struct error *err)
{
	json_t *a = facts(source), *b = facts(own);
	int r;

	*err = (struct error){0};
	r = qemu_facts_compare(a, b, err);
	json_decref(a);
	json_decref(b);
	return r;
}

Test(qemu_facts, what_may_differ)
{
	static const char *const good[][2] = {
		{"", ""},
		{"", ", 'qemu': '7.2.1'"},
		{"", ", 'qemu': '8.0.0'"},
		{"", ", 'qemu': '10.1.0'"},
		{"", ", 'cpu.1.0.EDX': 'fffffff'"},
		{"", ", 'cpu.7.0.EBX': '1'"},
		{"", ", 'something.of.a.later.version': '1'"},
		{", 'cpu.7.0.EBX': '0'", ""},
		{", 'disk.d': 'raw of 8 bytes', 'image.d': '/a'",
		 ", 'disk.d': 'raw of 8 bytes', 'image.d': '/b'"},
		{", 'image.d': '/a'", ""},
	};
	struct error err;

	for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++)
		cr_expect_eq(compare(good[i][0], good[i][1], &err), 0, "%s %s: %s", good[i][0],
			     good[i][1], err.msg);
}

Test(qemu_facts, what_may_not_is_named)
{
	static const char *const bad[][4] = {
		{"", ", 'qemu': '7.1.9'", "machine-differs", "version 7.2.22"},
		{"", ", 'qemu': '6.9.0'", "machine-differs", "6.9.0 here"},
		{"", ", 'machine': 'pc-q35-7.1-machine'", "machine-differs",
		 "pc-q35-7.1-machine here"},
		{"", ", 'accelerator': 'kvm'", "machine-differs", "accelerator is tcg"},
		{"", ", 'cpus': '4'", "machine-differs", "cpus is 2"},
		{"", ", 'cpu.1.0.EDX': '78bfbfc'", "cpu-differs", "cpu.1.0.EDX lacks 0x1"},
		{", 'cpu.7.0.EBX': '10'", "", "cpu-differs", "cpu.7.0.EBX lacks 0x10"},
		{"", ", 'device.virtio-blk-pci': '1'", "machine-differs", "virtio-blk-pci is 2"},
		{", 'device.virtio-rng-pci': '1'", "", "machine-differs",
		 "1 at the source and missing"},
		{"", ", 'device.virtio-rng-pci': '1'", "machine-differs", "is here and not"},
		{"", ", 'pci.0.3.0': '1af4.1000'", "machine-differs", "pci.0.3.0 is 1af4.1001"},
		{"", ", 'pci.0.4.0': '1af4.1000'", "machine-differs", "pci.0.4.0 is here and not"},
		{", 'disk.d': 'raw of 8 bytes', 'image.d': '/a'",
		 ", 'disk.d': 'raw of 9 bytes', 'image.d': '/b'", "disk-differs",
		 "raw of 8 bytes at the source (/a), and raw of 9 bytes here (/b)"},
		{", 'disk.d': 'empty'", ", 'disk.d': 'raw of 9 bytes'", "disk-differs",
		 "empty at the source (no file"},
		{", 'disk.d': 'empty'", ", 'disk.e': 'empty'", "disk-differs",
		 "disk d (no file of a known path) of the source is missing"},
		{"", ", 'disk.d': 'empty', 'image.d': '/b'", "disk-differs",
		 "disk d (/b) is here and not at the source"},
		{", 'what.a.later.version.says': '1'", "", "machine-differs", "what.a.later"},
	};
	struct error err;

	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		cr_expect_eq(compare(bad[i][0], bad[i][1], &err), -EINVAL, "%s %s", bad[i][0],
			     bad[i][1]);
		cr_expect_str_eq(err.code, bad[i][2], "%s", err.msg);
		cr_expect(strstr(err.msg, bad[i][3]), "%s", err.msg);
	}
}

/* A peer says what it likes. */
Test(qemu_facts, rubbish_does_no_harm)
{
	struct error err = {0};
	json_t *own = facts(""),
	       *strange = json_pack("{s:s, s:i, s:i, s:s, s:s}", "qemu", "", "cpus", 7, "disk.", 3,
				    "cpu.", "zz", "machine", "");

	cr_expect_eq(qemu_facts_compare(strange, own, &err), -EINVAL);
	cr_expect_eq(qemu_facts_compare(json_null(), own, &err), -EINVAL, "devices are here only");
	json_decref(strange);
	json_decref(own);
}
