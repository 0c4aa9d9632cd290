/* SPDX-License-Identifier: Apache-2.0 */
/* Who writes into a VM's memory: judged by answers like QEMU's and by the descriptors of a process, this one. */
#include <criterion/criterion.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "guest/qemu/qemu_devices.h"

static struct qemu_writers judge(const char *key, const char *json, const char *no_dma)
{
	json_t *answer = json_loads(json, JSON_DECODE_ANY, NULL);
	struct qemu_devices d = {0};
	struct qemu_writers w;

	cr_assert(answer, "%s", json);
	if (!strcmp(key, "devices"))
		d.devices = answer;
	else if (!strcmp(key, "objects"))
		d.objects = answer;
	else if (!strcmp(key, "nodes"))
		d.nodes = answer;
	else if (!strcmp(key, "network"))
		d.network = answer;
	else
		d.migrate = answer;
	qemu_devices_judge(getpid(), &d, no_dma, &w);
	json_decref(answer);
	return w;
}

static const struct refused {
	const char *key, *json, *name;
} refused[] = {
	{"devices", "[{\"name\": \"nic\", \"type\": \"child<vfio-pci>\"}]", "nic"},
	{"devices", "[{\"name\": \"fs\", \"type\": \"child<vhost-user-fs-pci>\"}]", "fs"},
	{"devices", "[{\"name\": \"shm\", \"type\": \"child<ivshmem-doorbell>\"}]", "shm"},
	{"devices", "[{\"name\": \"far\", \"type\": \"child<x-pci-proxy-dev>\"}]", "far"},
	{"objects", "[{\"name\": \"c0\", \"type\": \"child<cryptodev-vhost-user>\"}]", "c0"},
	{"network", "\"net0: index=0,type=vhost-user,chardev=c\"", "vhost-user"},
	{"nodes", "[{\"node-name\": \"d0\", \"drv\": \"nvme\", \"file\": \"\"}]", "d0"},
};

Test(qemu_devices, writers_that_nobody_sees_are_refused_by_name)
{
	for (size_t i = 0; i < sizeof(refused) / sizeof(*refused); i++) {
		const struct refused *t = &refused[i];
		struct qemu_writers w = judge(t->key, t->json, NULL);

		cr_assert_str_eq(w.cannot.code, "device-not-supported", "%s", t->json);
		cr_assert(strstr(w.cannot.msg, t->name), "%s", w.cannot.msg);
		cr_assert(strstr(w.cannot.msg, "no_dma"), "%s", w.cannot.msg);
		w = judge(t->key, t->json, t->name);
		cr_assert(!error_is_set(&w.cannot), "%s", w.cannot.msg);
	}
}

Test(qemu_devices, what_qemu_itself_blocks_nobody_answers_for)
{
	struct qemu_writers w = judge("migrate", "{\"blocked-reasons\": [\"because\"]}", "because");

	cr_assert_str_eq(w.cannot.code, "migration-blocked");
}

#define NODE(name, direct)                                                                  \
	"{\"node-name\": \"" name "\", \"drv\": \"raw\", \"file\": \"/srv/" name ".img\", " \
	"\"cache\": {\"direct\": " direct ", \"writeback\": true}}"

Test(qemu_devices, direct_reads_are_named_and_counted)
{
	struct qemu_writers w = judge("nodes", "[" NODE("a", "false") "]", NULL);

	cr_assert_eq(w.n, 0, "%s", w.dma);
	cr_assert_str_empty(w.dma);
	/* A file has several nodes and counts once. */
	w = judge("nodes",
		  "[" NODE("a", "true") ", " NODE("a", "true") ", " NODE("b", "false") ", " NODE(
			  "c", "true") "]",
		  NULL);
	cr_assert_eq(w.n, 2);
	cr_assert(strstr(w.dma, "/srv/a.img") && strstr(w.dma, "and 1 more"), "%s", w.dma);
	cr_assert(!error_is_set(&w.cannot));
}

Test(qemu_devices, the_operator_answers_for_what_is_named_and_no_more)
{
	static const char nodes[] = "[" NODE("a", "true") ", " NODE("b", "true") "]";

	cr_assert_eq(judge("nodes", nodes, "/srv/a.img").n, 1);
	cr_assert_eq(judge("nodes", nodes, "/srv/a.im").n, 2);
	cr_assert_eq(judge("nodes", nodes, "/srv/a.img2, b").n, 1);
	cr_assert_eq(judge("nodes", nodes, "b, /srv/a.img").n, 0);
	cr_assert_eq(judge("nodes", nodes, "").n, 2);
}

Test(qemu_devices, passed_through_scsi_reads_directly)
{
	cr_assert_eq(
		judge("devices", "[{\"name\": \"d\", \"type\": \"child<scsi-block>\"}]", NULL).n,
		1);
	cr_assert_eq(
		judge("devices", "[{\"name\": \"d\", \"type\": \"child<scsi-generic>\"}]", NULL).n,
		1);
	cr_assert_eq(judge("devices", "[{\"name\": \"d\", \"type\": \"child<scsi-hd>\"}]", NULL).n,
		     0);
}

Test(qemu_devices, descriptors_tell_how_they_were_opened)
{
	char path[] = "/var/tmp/decant-direct.XXXXXX";
	struct qemu_writers w;
	int fd = mkstemp(path);

	cr_assert(fd >= 0);
	qemu_devices_opened(getpid(), NULL, &w);
	cr_assert_eq(w.n, 0, "%s", w.dma);
	if (fcntl(fd, F_SETFL, O_DIRECT)) {
		unlink(path);
		cr_skip_test("the file system of /var/tmp has no direct I/O");
	}
	qemu_devices_opened(getpid(), NULL, &w);
	unlink(path);
	cr_assert_eq(w.n, 1);
	cr_assert(strstr(w.dma, path), "%s", w.dma);
	qemu_devices_opened(getpid(), path, &w);
	cr_assert_eq(w.n, 1, "its name is another now that it is deleted");
}

Test(qemu_devices, a_process_that_cannot_be_looked_at_is_refused)
{
	struct qemu_writers w;

	qemu_devices_opened(0x7ffffffe, NULL, &w);
	cr_assert_str_eq(w.cannot.code, "guest-unknown");
}

Test(qemu_devices, unknown_file_systems_are_not_trusted)
{
	cr_assert(qemu_devices_copies("ext4") && qemu_devices_copies("nfs4"));
	cr_assert(!qemu_devices_copies("fuse") && !qemu_devices_copies("cifs"));
	cr_assert(!qemu_devices_copies("ext") && !qemu_devices_copies(""));
}
