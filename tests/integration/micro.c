/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Micro-VMs out of stored images, with the real daemon and a client that follows the documented
 * handshake to the letter (tests/guests/microvm.c): imports, faults, balloons, late descriptors,
 * arrays that cannot be, images that are still being stored or damaged.
 */
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>
#include "lib/lab_test.h"

TestSuite(micro, .timeout = 120);

#define PAGE 4096ul
#define MB   (1ul << 20)

/* --- the host, its command, its files --- */

static struct lab_host *dest_only(struct lab *lab)
{
	return lab_host_start(lab, &(struct lab_host_opts){.name = "b", .no_source = true});
}

static int dest_command(struct lab_host *b, char **ret_out, char **ret_err,
			const char *const args[])
{
	char program[LAB_PATH_MAX + 32], api[LAB_PATH_MAX + 16];
	const char *argv[16] = {program, "--api", api};
	size_t n = 3;

	snprintf(program, sizeof(program), "%s/decant-dest", b->lab->build);
	snprintf(api, sizeof(api), "unix:%s", b->dest_sock);
	for (size_t i = 0; args[i]; i++)
		argv[n++] = args[i];
	return lab_run(b->lab, b->ns, 60000, ret_out, ret_err, argv);
}

/* Pages of data, some of them empty, and a hole. */
static void make_memory(struct lab_host *b, const char *file, size_t size)
{
	int fd = open(lab_host_path(b, file), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	uint8_t page[PAGE];

	lab_check(b->lab, fd >= 0 && !ftruncate(fd, (off_t)size), "%s: %m", file);
	for (size_t at = 0; at < size; at += PAGE) {
		size_t i = at / PAGE;

		if (i % 7 == 3 || (at >= size / 2 && at < size / 2 + size / 8))
			continue;
		memset(page, (int)(i * 31 + i / 251) | 1, sizeof(page));
		memcpy(page, &i, sizeof(i));
		lab_check(b->lab, pwrite(fd, page, PAGE, (off_t)at) == PAGE, "%s: %m", file);
	}
	close(fd);
}

static void import(struct lab_host *b, const char *file, const char *name)
{
	char *out = NULL, *err = NULL;
	json_t *o;

	lab_check(b->lab,
		  !dest_command(b, &out, &err,
				(const char *const[]){"import", "--memory", lab_host_path(b, file),
						      "--name", name, "--json", NULL}),
		  "import: %s", err);
	o = json_loads(out, 0, NULL);
	lab_check(b->lab, o && !strcmp(lab_str(b->lab, o, "phase"), "completed"), "%s", out);
	lab_check(b->lab, !strcmp(lab_str(b->lab, o, "driver"), "uffd"), "%s", out);
	json_decref(o);
	free(out);
	free(err);
}

/* `decant-dest uffd`. Return: id, for free(3) */
static char *uffd(struct lab_host *b, const char *name, const char *sock)
{
	char *out = NULL, *err = NULL, *id;
	json_t *o;

	lab_check(b->lab,
		  !dest_command(b, &out, &err,
				(const char *const[]){"uffd", name, "--socket",
						      lab_host_path(b, sock), "--json", NULL}),
		  "uffd: %s", err);
	o = json_loads(out, 0, NULL);
	lab_check(b->lab, o && !strcmp(lab_str(b->lab, o, "phase"), "listening"), "%s", out);
	id = strdup(lab_str(b->lab, o, "id"));
	json_decref(o);
	free(out);
	free(err);
	return id;
}

static json_t *incoming(struct lab_host *b, const char *id)
{
	char path[128];

	snprintf(path, sizeof(path), "/v1/incoming/%s", id);
	return lab_get(b->lab, b->dest_sock, path);
}

static bool phase_is(struct lab_host *b, const char *id, const char *phase)
{
	json_t *o = incoming(b, id);
	bool is = !strcmp(lab_str(b->lab, o, "phase"), phase);

	json_decref(o);
	return is;
}

static bool code_is(struct lab_host *b, const char *id, const char *code)
{
	json_t *o = incoming(b, id);
	const json_t *is = lab_at(o, "error.code");
	bool same = json_is_string(is) && !strcmp(json_string_value(is), code);

	if (!same)
		printf("%s\n", json_is_string(is) ? json_string_value(is) : "no error");
	json_decref(o);
	return same;
}

static bool message_has(struct lab_host *b, const char *id, const char *what)
{
	json_t *o = incoming(b, id);
	const json_t *is = lab_at(o, "error.message");
	bool has = json_is_string(is) && strstr(json_string_value(is), what);

	if (!has)
		printf("%s\n", json_is_string(is) ? json_string_value(is) : "no error");
	json_decref(o);
	return has;
}

static double number(struct lab_host *b, const char *id, const char *path)
{
	json_t *o = incoming(b, id);
	double n = lab_num(b->lab, o, path);

	json_decref(o);
	return n;
}

/* --- the micro-VM --- */

static struct lab_proc *vm_start(struct lab_host *b, const char *name, const char *sock,
				 const char *memory, const char *const options[])
{
	char program[LAB_PATH_MAX + 32], path[LAB_PATH_MAX + 64], mem[LAB_PATH_MAX + 64];
	const char *argv[16] = {program, path, mem};
	size_t n = 3;

	snprintf(program, sizeof(program), "%s/guests/microvm", b->lab->tests);
	snprintf(path, sizeof(path), "%s", lab_host_path(b, sock));
	snprintf(mem, sizeof(mem), "%s", lab_host_path(b, memory));
	for (size_t i = 0; options && options[i]; i++)
		argv[n++] = options[i];
	return lab_spawn(b->lab, NULL, name, argv);
}

static bool vm_said(struct lab_host *b, const struct lab_proc *p, const char *text)
{
	char *out = lab_proc_text(b->lab, p, "out");
	bool said = out && strstr(out, text);

	lab_check(b->lab, !out || !strstr(out, "wrong"), "%s", out);
	free(out);
	return said;
}

static void vm_ok(struct lab_host *b, struct lab_proc *p)
{
	lab_until(b->lab, 30000, vm_said(b, p, "ok\n"), "the micro-VM has not seen all its pages");
}

static void vm_end(struct lab_host *b, struct lab_proc *p, const char *id, const char *phase)
{
	lab_proc_kill(b->lab, p);
	lab_until(b->lab, 5000,
		  phase_is(b, id, phase) && json_is_string(lab_at(incoming(b, id), "ended_at")),
		  "its end is not noticed");
}

/* --- what is right --- */

Test(micro, touched_filled_given_back)
{
	static const char *const options[][6] = {
		{"regions=1", "threads=1", NULL},
		{"regions=5", "threads=4", "before=5", "after=3", NULL},
		{"late=300", "after=7", NULL},
		{"early=1", "regions=8", NULL},
		{"regions=64", NULL},
		{"fd=blocking", "before=2", NULL},
	};
	struct lab *lab = lab_new(lab_test_failed);
	struct lab_host *b = dest_only(lab);
	double faults = 0;

	make_memory(b, "memory", 16 * MB);
	import(b, "memory", "vm");
	for (size_t i = 0; i < LAB_COUNT(options); i++) {
		char *id = uffd(b, "vm", "vm.sock"), name[16];
		struct lab_proc *p;

		snprintf(name, sizeof(name), "vm%zu", i);
		p = vm_start(b, name, "vm.sock", "memory", options[i]);
		vm_ok(b, p);
		lab_until(lab, 10000, phase_is(b, id, "completed"), "its pages are not all there");
		lab_check(lab, number(b, id, "memory.missing_pages") == 0, "pages are missing");
		faults += number(b, id, "postcopy.faults");
		lab_check(lab, number(b, id, "pid") == p->pid, "another pid");
		vm_end(b, p, id, "completed");
		free(id);
	}
	/* One alone may have been filled before it got as far. */
	lab_check(lab, faults > 0, "nothing was touched");
	lab_end(lab);
}

/* An image serves as many as want it; each socket is for one. */
Test(micro, two_of_one_image)
{
	struct lab *lab = lab_new(lab_test_failed);
	struct lab_host *b = dest_only(lab);
	struct lab_proc *p[3];
	char *id[2];

	make_memory(b, "memory", 8 * MB);
	import(b, "memory", "vm");
	id[0] = uffd(b, "vm", "0.sock");
	id[1] = uffd(b, "vm", "1.sock");
	p[0] = vm_start(b, "vm0", "0.sock", "memory", (const char *const[]){"pause=50", NULL});
	p[1] = vm_start(b, "vm1", "1.sock", "memory", NULL);
	lab_until(lab, 5000, vm_said(b, p[0], "there"), "the first one has not connected");
	lab_until(lab, 5000, access(lab_host_path(b, "0.sock"), F_OK), "the socket stays");
	p[2] = vm_start(b, "vm2", "0.sock", "memory", NULL);
	lab_check(lab, lab_proc_wait(lab, p[2], 5000) == 1, "a second one could connect");
	vm_ok(b, p[1]);
	vm_ok(b, p[0]);
	vm_end(b, p[0], id[0], "completed");
	lab_check(lab, lab_proc_alive(p[1]), "the other one has ended");
	vm_end(b, p[1], id[1], "completed");
	free(id[0]);
	free(id[1]);
	lab_end(lab);
}

Test(micro, huge_pages)
{
	struct lab *lab = lab_new(lab_test_failed);
	struct lab_host *b = dest_only(lab);
	struct lab_proc *p;
	char *id;

	if (!lab_huge_pages(lab, 20)) {
		lab_end(lab);
		cr_skip_test("20 huge pages cannot be reserved");
	}
	make_memory(b, "memory", 32 * MB);
	import(b, "memory", "vm");
	id = uffd(b, "vm", "vm.sock");
	p = vm_start(
		b, "vm", "vm.sock", "memory",
		(const char *const[]){"page=2097152", "regions=3", "before=5", "after=4", NULL});
	vm_ok(b, p);
	lab_until(lab, 10000, phase_is(b, id, "completed"), "its pages are not all there");
	vm_end(b, p, id, "completed");
	free(id);
	lab_end(lab);
}

/* --- ends in the middle --- */

Test(micro, killed_in_the_middle)
{
	struct lab *lab = lab_new(lab_test_failed);
	struct lab_host *b = dest_only(lab);
	struct lab_proc *p;
	char *id;

	make_memory(b, "memory", 24 * MB);
	import(b, "memory", "vm");
	id = uffd(b, "vm", "vm.sock");
	p = vm_start(b, "vm", "vm.sock", "memory", NULL);
	lab_until(lab, 5000, vm_said(b, p, "there"), "it has not connected");
	lab_proc_kill(lab, p);
	lab_until(lab, 5000, !phase_is(b, id, "serving") && !phase_is(b, id, "greeting"),
		  "its end is not noticed");
	lab_check(lab,
		  phase_is(b, id, "failed") || phase_is(b, id, "completed") ||
			  phase_is(b, id, "aborted"),
		  "phase");
	free(id);
	/* The next one is served as if nothing had been. */
	id = uffd(b, "vm", "vm.sock");
	p = vm_start(b, "next", "vm.sock", "memory", NULL);
	vm_ok(b, p);
	vm_end(b, p, id, "completed");
	free(id);
	lab_end(lab);
}

/* Flip a bit of the last page of data in an image. */
static void damage(struct lab_host *b, const char *image, size_t size, size_t page)
{
	char path[LAB_PATH_MAX + 64];
	uint64_t at = 0;
	uint8_t c;
	int fd;

	snprintf(path, sizeof(path), "%s/state/images/%s.image", b->dir, image);
	fd = open(path, O_RDWR | O_CLOEXEC);
	lab_check(b->lab, pread(fd, &at, sizeof(at), 104 + 2 * 24) == sizeof(at) && page < size,
		  "no header");
	at += page + 17;
	lab_check(b->lab, pread(fd, &c, 1, (off_t)at) == 1, "no page");
	c ^= 4;
	lab_check(b->lab, pwrite(fd, &c, 1, (off_t)at) == 1, "cannot write");
	close(fd);
}

Test(micro, damaged_page_holds_it_there)
{
	struct lab *lab = lab_new(lab_test_failed);
	struct lab_host *b = dest_only(lab);
	struct lab_proc *p;
	char *id;

	make_memory(b, "memory", 4 * MB);
	import(b, "memory", "vm");
	damage(b, "vm", 4 * MB, 100 * PAGE);
	id = uffd(b, "vm", "vm.sock");
	p = vm_start(b, "vm", "vm.sock", "memory", NULL);
	lab_until(lab, 10000, phase_is(b, id, "held"), "it is not held");
	lab_check(lab, code_is(b, id, "image-damaged"), "code");
	lab_check(lab, message_has(b, id, "block memory at 0x64000"), "message");
	lab_until(lab, 10000, number(b, id, "memory.missing_pages") == 1,
		  "not all others were given");
	lab_check(lab, !vm_said(b, p, "touched"), "it has seen the damaged page");
	vm_end(b, p, id, "failed");
	free(id);
	lab_end(lab);
}

/* --- what cannot be --- */

/** struct refusal - what a micro-VM says, and what becomes of it */
struct refusal {
	const char *options[4];
	const char *phase;
	const char *code;
	const char *message;
};

#define REGION(addr, size, offset, page) \
	"{\"base_host_virt_addr\":" addr ",\"size\":" size ",\"offset\":" offset "," page "}"
#define SIZE4 "\"page_size\":4096"

Test(micro, handshakes_that_cannot_be)
{
	static const struct refusal rows[] = {
		{{"say=["}, "held", "bad-handshake", "no complete array"},
		{{"say=hello"}, "held", "bad-handshake", "not JSON"},
		{{"say=[]"}, "held", "bad-handshake", "no array of regions"},
		{{"say={\"a\":1}"}, "held", "bad-handshake", "no array of regions"},
		{{"say=[1]"}, "held", "bad-handshake", "region 0 is no object"},
		{{"say=[" REGION("@0", "4096", "0", SIZE4) "," REGION("@0", "4096", "4096",
								      SIZE4) "]"},
		 "held",
		 "bad-handshake",
		 "regions 0 and 1 overlap at address"},
		{{"say=[" REGION("@0", "8192", "0", SIZE4) "," REGION("@1", "4096", "4096",
								      SIZE4) "]"},
		 "held",
		 "bad-handshake",
		 "overlap in the image at offset 4096"},
		{{"say=[" REGION("@0", "4096", "1048576", SIZE4) "]"},
		 "held",
		 "bad-handshake",
		 "beyond the image's 1048576"},
		{{"say=[" REGION("@0", "4096", "0", "\"page_size\":1073741824") "]"},
		 "held",
		 "page-size",
		 "1073741824 bytes are not supported"},
		{{"say=[" REGION("@0", "4096", "0", "\"page_size\":2097152") "]"},
		 "held",
		 "bad-handshake",
		 "not all multiples"},
		{{"say=[" REGION("@0", "4096", "0", SIZE4) "] and more"},
		 "held",
		 "bad-handshake",
		 "bytes follow"},
		{{"fd=two"}, "held", "bad-handshake", "more than one descriptor"},
		{{"fd=file"}, "held", "bad-handshake", "no userfaultfd but /dev/null"},
		{{"fd=fresh"}, "held", "bad-handshake", "has not been set up"},
	};
	struct lab *lab = lab_new(lab_test_failed);
	struct lab_host *b = dest_only(lab);

	make_memory(b, "memory", MB);
	import(b, "memory", "vm");
	for (size_t i = 0; i < LAB_COUNT(rows); i++) {
		char *id = uffd(b, "vm", "vm.sock"), name[16];
		struct lab_proc *p;

		snprintf(name, sizeof(name), "vm%zu", i);
		p = vm_start(b, name, "vm.sock", "memory", rows[i].options);
		lab_until(lab, 5000, phase_is(b, id, rows[i].phase), "row %zu: phase", i);
		lab_check(lab, code_is(b, id, rows[i].code), "row %zu: code", i);
		lab_check(lab, message_has(b, id, rows[i].message), "row %zu: message", i);
		lab_check(lab, !vm_said(b, p, "touched"), "row %zu: it was handed zeros", i);
		vm_end(b, p, id, "aborted");
		free(id);
	}
	lab_end(lab);
}

/* Neither the array nor the descriptor come for ever. */
Test(micro, what_never_comes)
{
	struct lab *lab = lab_new(lab_test_failed);
	struct lab_host *b = dest_only(lab);
	struct lab_proc *p[2];
	char *id[2];

	lab_test_long();
	make_memory(b, "memory", MB);
	import(b, "memory", "vm");
	id[0] = uffd(b, "vm", "0.sock");
	id[1] = uffd(b, "vm", "1.sock");
	p[0] = vm_start(b, "vm0", "0.sock", "memory", (const char *const[]){"late=-1", NULL});
	p[1] = vm_start(b, "vm1", "1.sock", "memory", (const char *const[]){"fd=none", NULL});
	for (int i = 0; i < 2; i++) {
		lab_until(lab, 10000, phase_is(b, id[i], "aborted"), "%d: it is waited for still",
			  i);
		lab_check(lab, code_is(b, id[i], "no-descriptor"), "%d: code", i);
		lab_check(lab, message_has(b, id[i], "no userfaultfd has come in 5 s"), "%d", i);
		lab_proc_kill(lab, p[i]);
		free(id[i]);
	}
	lab_end(lab);
}

static void refused(struct lab_host *b, int exit, const char *why, const char *const args[])
{
	char *err = NULL;
	int r = dest_command(b, NULL, &err, args);

	lab_check(b->lab, r == exit, "%s: %d: %s", args[0], r, err);
	lab_check(b->lab, strstr(err, why) != NULL, "%s: %s", args[0], err);
	free(err);
}

Test(micro, refusals_by_name)
{
	struct lab *lab = lab_new(lab_test_failed);
	struct lab_host *b = dest_only(lab);
	char path[LAB_PATH_MAX + 64], file[LAB_PATH_MAX + 64];

	make_memory(b, "memory", MB);
	import(b, "memory", "vm");
	snprintf(path, sizeof(path), "%s", lab_host_path(b, "memory"));
	snprintf(file, sizeof(file), "%s", lab_host_path(b, "odd"));
	refused(b, 3, "there is an image named vm already",
		(const char *const[]){"import", "--memory", path, "--name", "vm", NULL});
	refused(b, 3, "is no name of an image",
		(const char *const[]){"import", "--memory", path, "--name", "../vm", NULL});
	refused(b, 3, "No such file",
		(const char *const[]){"import", "--memory", file, "--name", "odd", NULL});
	lab_write_file(lab, file, "five.");
	refused(b, 3, "has 5 bytes; memory is a multiple of 4096",
		(const char *const[]){"import", "--memory", file, "--name", "odd", NULL});
	lab_write_file(lab, file, "");
	refused(b, 3, "has 0 bytes",
		(const char *const[]){"import", "--memory", file, "--name", "odd", NULL});
	refused(b, 3, "is no regular file",
		(const char *const[]){"import", "--memory", "/dev/zero", "--name", "odd", NULL});
	refused(b, 2, "--memory FILE and --name N", (const char *const[]){"import", NULL});
	refused(b, 3, "use decant-dest uffd", (const char *const[]){"restore", "vm", NULL});
	refused(b, 3, "no image is named none",
		(const char *const[]){"uffd", "none", "--socket", "/tmp/x", NULL});
	refused(b, 3, "is not a socket",
		(const char *const[]){"uffd", "vm", "--socket", path, NULL});
	refused(b, 2, "--socket PATH", (const char *const[]){"uffd", "vm", NULL});
	refused(b, 2, "UID:GID",
		(const char *const[]){"uffd", "vm", "--socket", "/tmp/x", "--owner", "me", NULL});
	lab_end(lab);
}

/* A stale socket is replaced, one that is listened on is not; nobody comes before the agent ends. */
Test(micro, sockets)
{
	struct lab *lab = lab_new(lab_test_failed);
	struct lab_host *b = dest_only(lab);
	struct sockaddr_un sa = {.sun_family = AF_UNIX};
	int s = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	struct stat st;
	char *id;

	make_memory(b, "memory", MB);
	import(b, "memory", "vm");
	snprintf(sa.sun_path, sizeof(sa.sun_path), "%.100s", lab_host_path(b, "vm.sock"));
	lab_check(lab, !bind(s, (struct sockaddr *)&sa, sizeof(sa)) && !listen(s, 1), "%m");
	refused(b, 3, "another process listens there",
		(const char *const[]){"uffd", "vm", "--socket", sa.sun_path, NULL});
	close(s);
	id = uffd(b, "vm", "vm.sock");
	lab_check(lab, !stat(sa.sun_path, &st) && (st.st_mode & 0777) == 0600, "mode %o",
		  st.st_mode);
	free(id);
	if (!geteuid()) {
		lab_check(lab,
			  !dest_command(b, NULL, NULL,
					(const char *const[]){"uffd", "vm", "--socket",
							      lab_host_path(b, "jail.sock"),
							      "--owner", "12345:12346", NULL}),
			  "--owner");
		lab_check(lab,
			  !stat(lab_host_path(b, "jail.sock"), &st) && st.st_uid == 12345 &&
				  st.st_gid == 12346,
			  "owner");
	}
	lab_host_stop(b);
	lab_check(lab, access(sa.sun_path, F_OK), "the socket stays");
	lab_end(lab);
}

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
	return vm_start(b, "vm", "vm.sock", "size", (const char *const[]){dump, NULL});
}

Test(micro, out_of_an_image_on_its_way)
{
	struct lab_host *a, *b;
	struct lab *lab = lab_test_pair(&a, &b);
	struct lab_guest *g =
		lab_guest_start(a, &(struct lab_guest_opts){.mb = 24, .blocks = 1, .writes = 2000});
	struct lab_proc *p = store_begin(a, b, g, "100Mbit"), *vm;
	char *id = uffd(b, "live", "vm.sock"), dump[LAB_PATH_MAX + 80], path[LAB_PATH_MAX + 80];
	size_t size = (size_t)g->opts.mb * MB;
	uint8_t *got, *want = malloc(size);
	uint64_t at = 0;
	int fd;

	empty_memory(b, size);
	vm = dump_start(b, dump, sizeof(dump));
	lab_until(lab, 5000, phase_is(b, id, "serving"), "it is not served");
	lab_check(lab, lab_proc_alive(p), "the snapshot has ended already: it proves nothing");
	vm_ok(b, vm);
	lab_check(lab, lab_proc_wait(lab, p, 30000) == 0, "decant snapshot: %d", p->status);
	lab_until(lab, 5000, phase_is(b, id, "completed"), "it has not all pages");

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
	vm_end(b, vm, id, "completed");
	free(id);
	lab_guest_verified(g);
	lab_guest_end(g);
	lab_end(lab);
}

/* Regions tell offsets in one memory: an image of several has none. */
Test(micro, image_of_several_blocks)
{
	struct lab_host *a, *b;
	struct lab *lab = lab_test_pair(&a, &b);
	struct lab_guest *g = lab_guest_start(a, &(struct lab_guest_opts){.mb = 12, .blocks = 3});

	lab_check(lab,
		  !lab_decant(a, 30000, NULL, NULL,
			      (const char *const[]){"snapshot", g->name, "--to", b->to, "--name",
						    "three", "--wait", NULL}),
		  "decant snapshot");
	refused(b, 3, "image three has 3 blocks: the memory of a micro-VM is one",
		(const char *const[]){"uffd", "three", "--socket", "/tmp/x", NULL});
	lab_guest_end(g);
	lab_end(lab);
}

/* Never zeros: what has not come is waited for, for ever if need be. */
Test(micro, out_of_an_image_that_fails)
{
	struct lab_host *a, *b;
	struct lab *lab = lab_test_pair(&a, &b);
	struct lab_guest *g = lab_guest_start(a, &(struct lab_guest_opts){.mb = 64, .blocks = 1});
	struct lab_proc *p = store_begin(a, b, g, "80Mbit"), *vm;
	char *id = uffd(b, "live", "vm.sock"), dump[LAB_PATH_MAX + 80];

	empty_memory(b, 64 * MB);
	vm = dump_start(b, dump, sizeof(dump));
	lab_until(lab, 5000, phase_is(b, id, "serving"), "it is not served");
	lab_proc_kill(lab, a->source);
	lab_proc_kill(lab, p);
	lab_until(lab, 15000, phase_is(b, id, "held"), "it is not held");
	lab_check(lab, code_is(b, id, "image-incomplete"), "code");
	lab_check(lab, number(b, id, "memory.missing_pages") > 0, "nothing is missing");
	lab_check(lab, !vm_said(b, vm, "touched"), "it has seen pages that never came");
	vm_end(b, vm, id, "failed");
	free(id);
	lab_host_source_start(a);
	lab_host_knows(a, g->name);
	lab_guest_end(g);
	lab_end(lab);
}

/* --- the agent's end --- */

/* In the middle: its next life finds the micro-VM again. */
static void agent_ends(int sig)
{
	struct lab *lab = lab_new(lab_test_failed);
	struct lab_host *b = dest_only(lab);
	struct lab_proc *p;
	char *id;

	make_memory(b, "memory", 48 * MB);
	import(b, "memory", "vm");
	id = uffd(b, "vm", "vm.sock");
	p = vm_start(b, "vm", "vm.sock", "memory", (const char *const[]){"after=50", NULL});
	lab_until(lab, 5000, lab_proc_said(lab, b->dest, "serving (greeted)"), "it is not served");
	kill(b->dest->pid, sig);
	lab_proc_wait(lab, b->dest, 10000);
	lab_check(lab, !lab_proc_said(lab, b->dest, "serving -> completed"),
		  "it had all pages already: that proves nothing");
	lab_host_dest_start(b);
	vm_ok(b, p);
	lab_until(lab, 10000, phase_is(b, id, "completed"), "it has not all pages");
	vm_end(b, p, id, "completed");
	free(id);
	lab_end(lab);
}

Test(micro, agent_killed)
{
	agent_ends(SIGKILL);
}

Test(micro, agent_stopped)
{
	lab_test_long();
	agent_ends(SIGTERM);
}

/* With every page there nobody is needed: a balloon finds zeros although nobody listens. */
Test(micro, needs_nobody_in_the_end)
{
	struct lab *lab = lab_new(lab_test_failed);
	struct lab_host *b = dest_only(lab);
	char go[LAB_PATH_MAX + 64];
	struct lab_proc *p;
	char *id;
	FILE *f;

	make_memory(b, "memory", 8 * MB);
	import(b, "memory", "vm");
	snprintf(go, sizeof(go), "%s", lab_host_path(b, "vm.sock.go"));
	lab_check(lab, !mkfifo(go, 0600), "%s: %m", go);
	id = uffd(b, "vm", "vm.sock");
	p = vm_start(b, "vm", "vm.sock", "memory",
		     (const char *const[]){"again=1", "after=3", NULL});
	lab_until(lab, 10000, phase_is(b, id, "completed") && vm_said(b, p, "touched"),
		  "its pages are not all there");
	lab_proc_kill(lab, b->dest);
	f = fopen(go, "w");
	lab_check(lab, f && fputs("go\n", f) >= 0 && !fclose(f), "%s: %m", go);
	vm_ok(b, p);
	lab_proc_kill(lab, p);
	lab_host_dest_start(b);
	lab_check(lab, phase_is(b, id, "completed"), "its record says something else");
	free(id);
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

Test(micro, import_and_the_end_of_the_agent)
{
	struct lab *lab = lab_new(lab_test_failed);
	struct lab_host *b = dest_only(lab);
	char phase[32];

	make_solid(b, "memory", 256 * MB);
	import_begin(b);
	lab_check(lab, !strcmp(import_phase(b, phase), "importing"), "%s", phase);
	/* A name is taken from the beginning on. */
	refused(b, 3, "an image named vm is being written",
		(const char *const[]){"import", "--memory", lab_host_path(b, "memory"), "--name",
				      "vm", NULL});
	lab_host_stop(b);
	nothing_stored(b);
	lab_end(lab);
}

/* A file that is written to meanwhile is not one instant of anything. */
Test(micro, import_of_a_file_that_changes)
{
	struct lab *lab = lab_new(lab_test_failed);
	struct lab_host *b = dest_only(lab);
	char phase[32];
	json_t *o;
	int fd;

	make_solid(b, "memory", 64 * MB);
	fd = open(lab_host_path(b, "memory"), O_WRONLY | O_CLOEXEC);
	import_begin(b);
	lab_check(lab, pwrite(fd, "x", 1, 0) == 1 && !ftruncate(fd, 32 * MB), "%m");
	lab_until(lab, 10000, !strcmp(import_phase(b, phase), "failed"), "%s", phase);
	o = lab_get(lab, b->dest_sock, "/v1/snapshots/vm");
	lab_check(lab, !strcmp(lab_str(lab, o, "error.code"), "memory-changed"), "%s",
		  lab_str(lab, o, "error.message"));
	json_decref(o);
	close(fd);
	nothing_stored(b);
	lab_end(lab);
}

Test(micro, import_onto_a_full_disk)
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
	refused(b, 1, "No space left on device",
		(const char *const[]){"import", "--memory", path, "--name", "vm", NULL});
	nothing_stored(b);
	lab_host_stop(b);
	lab_check(lab, !umount2(state, MNT_DETACH), "%m");
	lab_end(lab);
}
