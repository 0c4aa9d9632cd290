/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The images of micro-VMs: those that are still being stored when a micro-VM comes, and imports that
 * end before their time.
 */
#include <fcntl.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>
#include "lib/lab_micro.h"
#include "lib/lab_test.h"

TestSuite(micro_images, .timeout = 120);

#define MB (1ul << 20)

/* --- of an image that is still being stored --- */

static void empty_memory(struct lab_host *b, size_t size)
{
	int fd = open(lab_host_path(b, "size"), O_RDWR | O_CREAT | O_CLOEXEC, 0600);

	lab_check(b->lab, fd >= 0 && !ftruncate(fd, (off_t)size), "%m");
	close(fd);
}

static bool storing(struct lab_host *b)
{
	json_t *in = lab_incoming_newest(b);
	bool is = in && !strcmp(lab_str(b->lab, in, "phase"), "storing") &&
		  lab_num(b->lab, in, "memory.received_bytes") > 1 << 20;

	json_decref(in);
	return is;
}

static struct lab_proc *store_begin(struct lab_host *a, struct lab_host *b, struct lab_guest *g,
				    const char *bandwidth)
{
	struct lab_proc *p = lab_decant_begin(
		a, (const char *const[]){"snapshot", g->name, "--to", b->to, "--name", "live",
					 "--bandwidth", bandwidth, "--wait", NULL});

	lab_until(a->lab, 10000, storing(b), "nothing is stored");
	return p;
}

static struct lab_proc *dump_start(struct lab_host *b, char *dump, size_t cap)
{
	snprintf(dump, cap, "dump=%s", lab_host_path(b, "dump"));
	return micro_start(b, "vm", "vm.sock", "size", (const char *const[]){dump, NULL});
}

Test(micro_images, out_of_an_image_on_its_way)
{
	struct lab_host *a, *b;
	struct lab *lab = lab_test_pair(&a, &b);
	struct lab_guest *g =
		lab_guest_start(a, &(struct lab_guest_opts){.mb = 24, .blocks = 1, .writes = 2000});
	struct lab_proc *p = store_begin(a, b, g, "60Mbit"), *vm;
	char *id = micro_uffd(b, "live", "vm.sock"), dump[LAB_PATH_MAX + 80],
	     path[LAB_PATH_MAX + 80];
	size_t size = (size_t)g->opts.mb * MB;
	uint8_t *got, *want = malloc(size);
	uint64_t at = 0;
	int fd;

	empty_memory(b, size);
	vm = dump_start(b, dump, sizeof(dump));
	lab_until(lab, 5000, micro_phase_is(b, id, "serving"), "it is not served");
	lab_check(lab, lab_proc_alive(p), "the snapshot has ended already: it proves nothing");
	micro_ok(b, vm);
	lab_check(lab, lab_proc_wait(lab, p, 30000) == 0, "decant snapshot: %d", p->status);
	lab_until(lab, 5000, micro_phase_is(b, id, "completed"), "it has not all pages");

	snprintf(path, sizeof(path), "%s/state/images/live.image", b->dir);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	lab_check(lab,
		  pread(fd, &at, sizeof(at), 104 + 2 * 24) == sizeof(at) &&
			  pread(fd, want, size, (off_t)at) == (ssize_t)size,
		  "the image cannot be read");
	close(fd);
	got = (uint8_t *)lab_read_file(lab_host_path(b, "dump"));
	lab_check(lab, got && !memcmp(got, want, size), "its memory is not the image's");
	free(got);
	free(want);
	micro_end(b, vm, id, "completed");
	free(id);
	lab_guest_verified(g);
	lab_guest_end(g);
	lab_end(lab);
}

/* Regions tell offsets in one memory: an image of several has none. */
Test(micro_images, image_of_several_blocks)
{
	struct lab_host *a, *b;
	struct lab *lab = lab_test_pair(&a, &b);
	struct lab_guest *g = lab_guest_start(a, &(struct lab_guest_opts){.mb = 12, .blocks = 3});

	lab_check(lab,
		  !lab_decant(a, 30000, NULL, NULL,
			      (const char *const[]){"snapshot", g->name, "--to", b->to, "--name",
						    "three", "--wait", NULL}),
		  "decant snapshot");
	micro_refused(b, 3, "image three has 3 blocks: the memory of a micro-VM is one",
		      (const char *const[]){"uffd", "three", "--socket", "/tmp/x", NULL});
	lab_guest_end(g);
	lab_end(lab);
}

/* Never zeros: what has not come is waited for, for ever if need be. */
Test(micro_images, out_of_an_image_that_fails)
{
	struct lab_host *a, *b;
	struct lab *lab = lab_test_pair(&a, &b);
	struct lab_guest *g = lab_guest_start(a, &(struct lab_guest_opts){.mb = 64, .blocks = 1});
	struct lab_proc *p = store_begin(a, b, g, "80Mbit"), *vm;
	char *id = micro_uffd(b, "live", "vm.sock"), dump[LAB_PATH_MAX + 80];

	empty_memory(b, 64 * MB);
	vm = dump_start(b, dump, sizeof(dump));
	lab_until(lab, 5000, micro_phase_is(b, id, "serving"), "it is not served");
	lab_proc_kill(lab, a->source);
	lab_proc_kill(lab, p);
	lab_until(lab, 15000, micro_phase_is(b, id, "held"), "it is not held");
	lab_check(lab, micro_code_is(b, id, "image-incomplete"), "code");
	lab_check(lab, micro_number(b, id, "memory.missing_pages") > 0, "nothing is missing");
	lab_check(lab, !micro_said(b, vm, "touched"), "it has seen pages that never came");
	micro_end(b, vm, id, "failed");
	free(id);
	lab_host_source_start(a);
	lab_host_knows(a, g->name);
	lab_guest_end(g);
	lab_end(lab);
}

/* --- imports that end before their time --- */

static void make_solid(struct lab_host *b, const char *file, size_t size)
{
	int fd = open(lab_host_path(b, file), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	uint8_t *chunk = malloc(MB);

	memset(chunk, 0x5a, MB);
	for (size_t at = 0; at < size; at += MB)
		lab_check(b->lab, pwrite(fd, chunk, MB, (off_t)at) == (ssize_t)MB, "%m");
	free(chunk);
	close(fd);
}

static void nothing_stored(struct lab_host *b)
{
	char path[LAB_PATH_MAX + 64], *out = NULL;

	snprintf(path, sizeof(path), "%s/state/images", b->dir);
	lab_run(b->lab, NULL, 5000, &out, NULL, (const char *const[]){"/bin/ls", "-A", path, NULL});
	lab_check(b->lab, out && !*out, "half an image stays: %s", out);
	free(out);
}

static void import_begin(struct lab_host *b)
{
	char body[LAB_PATH_MAX + 64];

	snprintf(body, sizeof(body), "{\"memory\": \"%s\", \"name\": \"vm\"}",
		 lab_host_path(b, "memory"));
	lab_check(b->lab, lab_http(b->dest_sock, "POST", "/v1/snapshots", body, NULL) == 202,
		  "it is not begun");
}

static const char *import_phase(struct lab_host *b, char out[32])
{
	json_t *o = lab_get(b->lab, b->dest_sock, "/v1/snapshots/vm");

	snprintf(out, 32, "%s", lab_str(b->lab, o, "phase"));
	json_decref(o);
	return out;
}

Test(micro_images, import_and_the_end_of_the_agent)
{
	struct lab *lab = lab_new(lab_test_failed);
	struct lab_host *b = micro_host(lab);
	char phase[32];

	make_solid(b, "memory", 256 * MB);
	import_begin(b);
	lab_check(lab, !strcmp(import_phase(b, phase), "importing"), "%s", phase);
	/* A name is taken from the beginning on. */
	micro_refused(b, 3, "an image named vm is being written",
		      (const char *const[]){"import", "--memory", lab_host_path(b, "memory"),
					    "--name", "vm", NULL});
	lab_host_stop(b);
	nothing_stored(b);
	lab_end(lab);
}

/* A file that is written to meanwhile is not one instant of anything. */
Test(micro_images, import_of_a_file_that_changes)
{
	struct lab *lab = lab_new(lab_test_failed);
	struct lab_host *b = micro_host(lab);
	char phase[32], path[LAB_PATH_MAX + 64];
	struct lab_proc *writer;
	json_t *o;
	int fd;

	make_solid(b, "memory", 64 * MB);
	snprintf(path, sizeof(path), "%s", lab_host_path(b, "memory"));
	fd = open(path, O_WRONLY | O_CLOEXEC);
	/* All the time: a single write of ours could come when all has been read. */
	writer = lab_spawn(lab, NULL, "writer",
			   (const char *const[]){"/bin/sh", "-c",
						 "while :; do printf x 1<>\"$0\"; done", path,
						 NULL});
	import_begin(b);
	lab_check(lab, pwrite(fd, "x", 1, 0) == 1 && !ftruncate(fd, 32 * MB), "%m");
	lab_until(lab, 10000, !strcmp(import_phase(b, phase), "failed"), "%s", phase);
	o = lab_get(lab, b->dest_sock, "/v1/snapshots/vm");
	lab_check(lab, !strcmp(lab_str(lab, o, "error.code"), "memory-changed"), "%s",
		  lab_str(lab, o, "error.message"));
	json_decref(o);
	close(fd);
	lab_proc_kill(lab, writer);
	nothing_stored(b);
	lab_end(lab);
}

Test(micro_images, import_onto_a_full_disk)
{
	struct lab *lab = lab_new(lab_test_failed);
	struct lab_host *b =
		lab_host_new(lab, &(struct lab_host_opts){.name = "b", .no_source = true});
	char state[LAB_PATH_MAX + 64], path[LAB_PATH_MAX + 64];

	snprintf(state, sizeof(state), "%s", lab_host_path(b, "state"));
	snprintf(path, sizeof(path), "%s", lab_host_path(b, "memory"));
	mkdir(state, 0700);
	/* A mount of this process and its children only, whatever becomes of the test. */
	if (unshare(CLONE_NEWNS) || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) ||
	    mount("small", state, "tmpfs", 0, "size=4m")) {
		lab_end(lab);
		cr_skip_test("no small file system can be mounted");
	}
	lab_host_dest_start(b);
	make_solid(b, "memory", 16 * MB);
	micro_refused(b, 1, "No space left on device",
		      (const char *const[]){"import", "--memory", path, "--name", "vm", NULL});
	nothing_stored(b);
	lab_host_stop(b);
	lab_check(lab, !umount2(state, MNT_DETACH), "%m");
	lab_end(lab);
}
