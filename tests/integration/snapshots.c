/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Snapshots: the stored image is the memory of one instant although the guest writes on (W12), writers
 * are never left standing, and there is no half image.
 */
#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "lib/lab_test.h"

TestSuite(snapshots, .timeout = 120);

#define PAGE     4096ul
#define CUT_MB   64u
#define CUT_SIZE ((size_t)CUT_MB << 20)

/* --- the guest that can tell --- */

static char *cut_conf(struct lab *lab)
{
	json_t *o = json_pack("{s:{s:{s:s, s:[o, s, s, o, s]}}}", "launchers", "cut", "driver",
			      "native", "argv", json_sprintf("%s/guests/cut", lab->tests), "{name}",
			      "{attach}", json_sprintf("%s/{name}.arrived", lab->root), "{var:mb}");
	char *text = json_dumps(o, 0);

	json_decref(o);
	return text;
}

static struct lab *cut_lab(struct lab_host **ret_a, struct lab_host **ret_b)
{
	struct lab *lab = lab_new(lab_test_failed);
	char *conf = cut_conf(lab);

	*ret_a = lab_host_start(lab, &(struct lab_host_opts){.name = "a"});
	*ret_b = lab_host_start(lab, &(struct lab_host_opts){.name = "b", .dest_conf = conf});
	free(conf);
	return lab;
}

static struct lab_proc *cut_start(struct lab_host *a)
{
	struct lab *lab = a->lab;
	char program[LAB_PATH_MAX + 32], report[LAB_PATH_MAX + 32], desc[LAB_PATH_MAX + 32];
	char mb[16];
	struct lab_proc *p;

	snprintf(program, sizeof(program), "%s/guests/cut", lab->tests);
	snprintf(report, sizeof(report), "%s/cut.started", lab->root);
	snprintf(desc, sizeof(desc), "%s/cut.json", lab->root);
	snprintf(mb, sizeof(mb), "%u", CUT_MB);
	lab_write_file(lab, desc,
		       "{\"name\": \"cut\", \"driver\": \"native\", \"launcher\": \"cut\", "
		       "\"vars\": {\"mb\": \"64\"}}");
	lab_check(lab, !lab_decant(a, 10000, NULL, NULL, (const char *const[]){"add", desc, NULL}),
		  "decant add");
	p = lab_spawn(lab, NULL, "cut",
		      (const char *const[]){program, "cut", a->attach, report, mb, NULL});
	lab_until(lab, 10000, !access(report, F_OK), "the guest does not start");
	lab_host_knows(a, "cut");
	return p;
}

static void cut_end(struct lab *lab, struct lab_proc *p)
{
	lab_proc_kill(lab, p);
}

/* Is this the memory of a `cut` at one instant? */
static bool is_cut(const uint8_t *mem)
{
	uint64_t pages = CUT_SIZE / PAGE, last = 0;

	for (uint64_t i = 0; i < pages; i++) {
		uint64_t n;

		memcpy(&n, mem + i * PAGE, sizeof(n));
		last = n > last ? n : last;
	}
	for (uint64_t n = last - pages + 1; n <= last; n++) {
		const uint8_t *page = mem + (n - 1) % pages * PAGE;

		if (memcmp(page, &n, sizeof(n)) != 0 ||
		    memcmp(page + PAGE - sizeof(n), &n, sizeof(n)) != 0)
			return false;
	}
	return last >= pages;
}

/* --- snapshots by the real command --- */

/* `decant snapshot … --wait --json`. Return: the ended job, new reference; NULL if refused */
static json_t *snapshot(struct lab_host *a, struct lab_host *b, const char *guest, const char *name,
			const char *bandwidth, int exit)
{
	const char *args[16] = {"snapshot", guest,    "--to",   b->to,         "--name",
				name,       "--wait", "--json", "--bandwidth", bandwidth};
	char *out = NULL, *err = NULL;
	json_t *job;
	int status;

	if (!bandwidth)
		args[8] = NULL;
	status = lab_decant(a, 60000, &out, &err, args);
	lab_check(a->lab, status == exit, "decant snapshot: %d, not %d: %s", status, exit, err);
	job = json_loads(out, 0, NULL);
	free(out);
	free(err);
	return job;
}

static void image_path(struct lab_host *b, const char *file, char *out, size_t cap)
{
	snprintf(out, cap, "%s/state/images/%s", b->dir, file);
}

/* The pages of an image with one block, found as IMAGE.md says. */
static uint8_t *image_pages(struct lab_host *b, const char *file, size_t size)
{
	uint8_t *mem = malloc(size);
	char path[LAB_PATH_MAX + 64];
	uint64_t at = 0;
	int fd;

	image_path(b, file, path, sizeof(path));
	fd = open(path, O_RDONLY | O_CLOEXEC);
	lab_check(b->lab, fd >= 0, "%s: %m", path);
	lab_check(b->lab, pread(fd, &at, sizeof(at), 104 + 2 * 24) == sizeof(at), "no header");
	lab_check(b->lab, pread(fd, mem, size, (off_t)at) == (ssize_t)size, "no pages");
	close(fd);
	return mem;
}

static bool nothing_stored(struct lab_host *b)
{
	char path[LAB_PATH_MAX + 64], *out = NULL;
	bool none;

	image_path(b, "", path, sizeof(path));
	lab_run(b->lab, NULL, 5000, &out, NULL, (const char *const[]){"/bin/ls", "-A", path, NULL});
	none = out && !*out;
	free(out);
	return none;
}

/* --- W12 --- */

Test(snapshots, image_is_one_instant)
{
	struct lab_host *a, *b;
	struct lab *lab = cut_lab(&a, &b);
	struct lab_proc *cut = cut_start(a);
	json_t *job = snapshot(a, b, "cut", "monday", NULL, 0);
	uint8_t *mem = image_pages(b, "monday.image", CUT_SIZE);

	lab_check(lab, is_cut(mem), "the image is not that of one instant");
	lab_check(lab, !strcmp(lab_str(lab, job, "phase"), "completed"), "phase");
	lab_check(lab, !strcmp(lab_str(lab, job, "name"), "monday"), "name");
	lab_check(lab, json_is_true(lab_at(job, "digest_ok")), "digest_ok");
	lab_check(lab, !strcmp(lab_str(lab, job, "tracking.kind"), "faults"), "tracking");
	lab_check(lab, lab_num(lab, job, "tracking.stall_us.max") > 0, "no stall was measured");
	lab_check(lab, lab_num(lab, job, "memory.sent_bytes") == (double)CUT_SIZE,
		  "a page was sent twice, or not at all");
	lab_check(lab, lab_proc_alive(cut), "the guest has ended");
	free(mem);
	json_decref(job);
	cut_end(lab, cut);
	lab_end(lab);
}

/* The control: had the guest not been tracked, this is what would have been stored. */
Test(snapshots, a_plain_copy_is_not)
{
	struct lab_host *a, *b;
	struct lab *lab = cut_lab(&a, &b);
	struct lab_proc *cut = cut_start(a);
	uint8_t *mem = malloc(CUT_SIZE);
	char path[64];
	bool torn = false;
	int fd = -1;

	for (int i = 3; i < 64 && fd < 0; i++) {
		struct stat st;

		snprintf(path, sizeof(path), "/proc/%d/fd/%d", cut->pid, i);
		if (!stat(path, &st) && S_ISREG(st.st_mode) && st.st_size == (off_t)CUT_SIZE)
			fd = open(path, O_RDONLY | O_CLOEXEC);
	}
	lab_check(lab, fd >= 0, "the guest's memory is not found");
	for (int i = 0; i < 10 && !torn; i++) {
		lab_check(lab, pread(fd, mem, CUT_SIZE, 0) == (ssize_t)CUT_SIZE, "read");
		torn = !is_cut(mem);
	}
	lab_check(lab, torn, "a plain copy of a running guest is one instant: it proves nothing");
	close(fd);
	free(mem);
	cut_end(lab, cut);
	lab_end(lab);
}

/* --- the agent's end, and others --- */

static struct lab_proc *snapshot_begin(struct lab_host *a, struct lab_host *b, const char *guest)
{
	return lab_decant_begin(a, (const char *const[]){"snapshot", guest, "--to", b->to, "--name",
							 "half", "--bandwidth", "80Mbit", "--wait",
							 NULL});
}

static json_t *newest(struct lab_host *a)
{
	json_t *all = lab_get(a->lab, a->source_sock, "/v1/snapshots");
	json_t *job = json_incref(json_array_get(json_object_get(all, "items"), 0));

	json_decref(all);
	return job;
}

static bool phase_is(struct lab_host *a, const char *phase)
{
	json_t *job = newest(a);
	bool is = job && !strcmp(lab_str(a->lab, job, "phase"), phase);

	json_decref(job);
	return is;
}

static bool sends(struct lab_host *a)
{
	json_t *job = newest(a);
	bool is = job && lab_num(a->lab, job, "memory.sent_bytes") > 1 << 20;

	json_decref(job);
	return is;
}

Test(snapshots, source_killed_in_the_middle)
{
	struct lab_guest_opts busy = {.mb = 64, .threads = 2, .writes = 4000};
	struct lab_host *a, *b;
	struct lab *lab = lab_test_pair(&a, &b);
	struct lab_guest *g = lab_guest_start(a, &busy);
	struct lab_proc *p = snapshot_begin(a, b, g->name);

	lab_until(lab, 10000, phase_is(a, "saving") && sends(a), "nothing is saved");
	lab_guest_kill_agent(g, a->source);
	lab_proc_kill(lab, p);
	lab_until(lab, 15000, nothing_stored(b), "half an image stays");
	lab_guest_verified(g);

	/* Afterwards all goes on. */
	lab_host_source_start(a);
	lab_host_knows(a, g->name);
	lab_check(lab, phase_is(a, "failed"), "the job that was cut off is not failed");
	json_decref(snapshot(a, b, g->name, "half", NULL, 0));
	lab_guest_end(g);
	lab_end(lab);
}

Test(snapshots, destination_killed_in_the_middle)
{
	struct lab_host *a, *b;
	struct lab *lab = lab_test_pair(&a, &b);
	struct lab_guest *g = lab_guest_start(a, &(struct lab_guest_opts){.mb = 64, .threads = 2});
	struct lab_proc *p = snapshot_begin(a, b, g->name);

	lab_until(lab, 10000, phase_is(a, "saving") && sends(a), "nothing is saved");
	lab_proc_kill(lab, b->dest);
	lab_check(lab, lab_proc_wait(lab, p, 20000) == 1, "the command ended with %d", p->status);
	lab_check(lab, phase_is(a, "failed"), "the job is not failed");
	lab_until(lab, 5000, !lab_guest_tracked(g), "it is still tracked");
	lab_guest_verified(g);
	lab_host_dest_start(b);
	lab_check(lab, nothing_stored(b), "half an image stays");
	lab_guest_end(g);
	lab_end(lab);
}

static bool gone_at(struct lab_host *b)
{
	json_t *all = lab_get(b->lab, b->dest_sock, "/v1/incoming"), *o;
	bool gone = true;
	size_t i;

	json_array_foreach(json_object_get(all, "items"), i, o)
		gone = gone && !strcmp(lab_str(b->lab, o, "phase"), "aborted");
	json_decref(all);
	return gone;
}

/* Writers go on, nothing of it stays, and the next one is as good as any. */
Test(snapshots, cancelled_in_the_middle)
{
	struct lab_guest_opts busy = {.mb = 64, .threads = 2, .writes = 4000};
	struct lab_host *a, *b;
	struct lab *lab = lab_test_pair(&a, &b);
	struct lab_guest *g = lab_guest_start(a, &busy);
	struct lab_proc *p = snapshot_begin(a, b, g->name);
	char id[64], *out = NULL, *err = NULL;
	json_t *job;

	lab_until(lab, 10000, phase_is(a, "saving") && sends(a), "nothing is saved");
	job = newest(a);
	snprintf(id, sizeof(id), "%s", lab_str(lab, job, "id"));
	json_decref(job);
	lab_check(lab,
		  !lab_decant(a, 10000, &out, NULL, (const char *const[]){"status", NULL}) &&
			  strstr(out, "snapshot"),
		  "decant status: %s", out);
	lab_check(lab, !lab_decant(a, 10000, NULL, &err, (const char *const[]){"cancel", id, NULL}),
		  "decant cancel: %s", err);
	lab_check(lab, lab_proc_wait(lab, p, 20000) == 1, "the command ended with %d", p->status);
	lab_check(lab, phase_is(a, "cancelled"), "the job is not cancelled");
	lab_until(lab, 5000, !lab_guest_tracked(g), "it is still tracked");
	lab_until(lab, 5000, nothing_stored(b) && gone_at(b), "half an image stays");
	lab_guest_verified(g);
	lab_check(lab,
		  lab_decant(a, 10000, NULL, NULL, (const char *const[]){"cancel", id, NULL}) == 3,
		  "cancelled twice");
	json_decref(snapshot(a, b, g->name, "half", NULL, 0));
	lab_guest_end(g);
	free(out);
	free(err);
	lab_end(lab);
}

Test(snapshots, a_name_is_used_once)
{
	struct lab_host *a, *b;
	struct lab *lab = lab_test_pair(&a, &b);
	struct lab_guest *g = lab_guest_start(
		a, &(struct lab_guest_opts){.mb = 16, .kind = LAB_ANON, .blocks = 3});
	json_t *job = snapshot(a, b, g->name, "monday", NULL, 0);

	json_decref(job);
	job = snapshot(a, b, g->name, "monday", NULL, 3);
	lab_check(lab, !strcmp(lab_str(lab, job, "error.code"), "snapshot-exists"), "%s",
		  lab_str(lab, job, "error.code"));
	json_decref(job);
	json_decref(snapshot(a, b, g->name, "../monday", NULL, 3));
	lab_guest_verified(g);
	lab_guest_end(g);
	lab_end(lab);
}

/* --- restoring --- */

static int dest_command(struct lab_host *b, char **ret_out, const char *const args[])
{
	char program[LAB_PATH_MAX + 32], api[LAB_PATH_MAX + 16];
	const char *argv[16] = {program, "--api", api};
	size_t n = 3;

	snprintf(program, sizeof(program), "%s/decant-dest", b->lab->build);
	snprintf(api, sizeof(api), "unix:%s", b->dest_sock);
	for (size_t i = 0; args[i]; i++)
		argv[n++] = args[i];
	return lab_run(b->lab, b->ns, 60000, ret_out, NULL, argv);
}

/* Out of "monday", which must end with @exit. Return: the ended incoming, new reference; NULL if refused */
static json_t *restore(struct lab_host *b, int exit)
{
	char *out = NULL;
	int status = dest_command(
		b, &out, (const char *const[]){"restore", "monday", "--wait", "--json", NULL});
	json_t *in = json_loads(out, 0, NULL);

	lab_check(b->lab, status == exit, "decant-dest restore: %d, not %d: %s", status, exit, out);
	free(out);
	return in;
}

/* What a `cut` that arrived has found. */
static void cut_arrived(struct lab *lab, char what[static 16])
{
	char path[LAB_PATH_MAX + 32], *text;

	snprintf(path, sizeof(path), "%s/cut.arrived", lab->root);
	lab_until(lab, 20000, !access(path, F_OK), "the copy does not say what it found");
	text = lab_read_file(path);
	lab_check(lab, sscanf(text, "%15s", what) == 1, "%s", text);
	free(text);
}

/* The guests that decant-dest has launched know where it listens. */
static void kill_launched(struct lab_host *b, pid_t pid)
{
	char want[LAB_PATH_MAX + 64], path[64];
	char *env;

	snprintf(want, sizeof(want), "DECANT_ATTACH=%s/dest.attach", b->dir);
	snprintf(path, sizeof(path), "/proc/%d/environ", pid);
	env = lab_read_file(path);
	for (char *at = env; at && *at; at += strlen(at) + 1)
		if (!strcmp(at, want))
			kill(pid, SIGKILL);
	free(env);
}

static void end_copy(struct lab_host *b)
{
	DIR *d = opendir("/proc");
	struct dirent *e;

	while ((e = readdir(d)))
		if (atoi(e->d_name) > 0)
			kill_launched(b, atoi(e->d_name));
	closedir(d);
	lab_until(b->lab, 10000, lab_host_guests(b) == 0, "the copy does not end");
}

Test(snapshots, restored_guest_finds_one_instant)
{
	struct lab_host *a, *b;
	struct lab *lab = cut_lab(&a, &b);
	struct lab_proc *cut = cut_start(a);
	char what[16] = "", *out = NULL;
	json_t *in;

	json_decref(snapshot(a, b, "cut", "monday", NULL, 0));
	lab_check(lab,
		  dest_command(b, &out, (const char *const[]){"snapshots", NULL}) == 0 &&
			  strstr(out, "monday"),
		  "%s", out);
	in = restore(b, 0);
	lab_check(lab, !strcmp(lab_str(lab, in, "phase"), "completed"), "phase");
	lab_check(lab, !strcmp(lab_str(lab, in, "snapshot"), "monday"), "snapshot");
	lab_check(lab, lab_num(lab, in, "postcopy.faults") > 0, "nothing was served lazily");
	lab_check(lab, lab_num(lab, in, "memory.missing_pages") == 0, "pages are missing");
	cut_arrived(lab, what);
	lab_check(lab, !strcmp(what, "exact"), "the restored guest found its memory %s", what);
	lab_host_knows(b, "cut");
	lab_check(lab, lab_proc_alive(cut), "the guest at the source has ended");
	json_decref(in);
	json_decref(restore(b, 3)); /* it runs here */
	end_copy(b);
	free(out);
	cut_end(lab, cut);
	lab_end(lab);
}

/* The same by the guest that verifies every page by counts that travel with its state. */
static void restore_stamp(enum lab_kind kind)
{
	struct lab_guest_opts opts = {.mb = 32, .kind = kind, .blocks = 2, .threads = 3};
	struct lab_host *a, *b;
	struct lab *lab = lab_test_pair(&a, &b);
	struct lab_guest *g;

	if (kind == LAB_HUGE && !lab_huge_pages(lab, 32)) {
		lab_end(lab);
		cr_skip_test("32 huge pages cannot be reserved");
	}
	g = lab_guest_start(a, &opts);
	json_decref(snapshot(a, b, g->name, "monday", NULL, 0));
	lab_guest_verified(g);
	kill(g->proc->pid, SIGTERM);
	lab_proc_wait(lab, g->proc, 5000);
	json_decref(restore(b, 0));
	lab_guest_arrived(g, b);
	lab_end(lab);
}

/* Its generation has left this host once, and was told to end: it is another copy, and stays. */
Test(snapshots, restored_where_it_has_left)
{
	struct lab_guest_opts opts = {.mb = 8, .threads = 2, .writes = 200};
	struct lab_host *a, *b;
	struct lab *lab = lab_test_pair(&a, &b);
	struct lab_guest *g = lab_guest_start(a, &opts);

	json_decref(snapshot(a, b, g->name, "monday", NULL, 0));
	json_decref(lab_migrate(a, b, g, &(struct lab_move){0}));
	lab_guest_arrived(g, b);
	lab_host_knows(b, g->name);
	json_decref(lab_migrate(b, a, g, &(struct lab_move){0}));
	lab_guest_arrived(g, a);
	kill(lab_guest_pid(g, a), SIGTERM);
	lab_until(lab, 5000, !lab_guest_pid(g, a), "it does not end");

	json_decref(restore(b, 0));
	g->arrivals = 0; /* those of the image */
	lab_guest_arrived(g, b);
	lab_host_knows(b, g->name);
	lab_guest_verified(g);
	json_decref(lab_migrate(b, a, g, &(struct lab_move){0}));
	lab_guest_arrived(g, a);
	lab_end(lab);
}

Test(snapshots, restored_memfd)
{
	restore_stamp(LAB_MEMFD);
}

Test(snapshots, restored_anonymous)
{
	restore_stamp(LAB_ANON);
}

Test(snapshots, restored_huge_pages)
{
	restore_stamp(LAB_HUGE);
}

static void alter(struct lab_host *b, uint64_t field, uint64_t more)
{
	char path[LAB_PATH_MAX + 64];
	uint64_t at = 0;
	uint8_t c = 0;
	int fd;

	image_path(b, "monday.image", path, sizeof(path));
	fd = open(path, O_RDWR | O_CLOEXEC);
	lab_check(b->lab, fd >= 0 && pread(fd, &at, 8, (off_t)field) == 8, "%s: %m", path);
	at += more;
	lab_check(b->lab, pread(fd, &c, 1, (off_t)at) == 1, "read");
	c ^= 1;
	lab_check(b->lab, pwrite(fd, &c, 1, (off_t)at) == 1, "write");
	close(fd);
}

/* A table that is not as it was: refused. A page: the guest stops there and is never handed it. */
Test(snapshots, altered_image)
{
	struct lab_host *a, *b;
	struct lab *lab = cut_lab(&a, &b);
	struct lab_proc *cut = cut_start(a);
	char path[LAB_PATH_MAX + 32];
	json_t *in;

	json_decref(snapshot(a, b, "cut", "monday", NULL, 0));
	alter(b, 104 + 24, 80);
	json_decref(restore(b, 3));
	alter(b, 104 + 24, 80);
	alter(b, 104 + 2 * 24, 100 * PAGE + 2000);
	in = restore(b, 1);
	lab_check(lab, !strcmp(lab_str(lab, in, "phase"), "held"), "%s", lab_str(lab, in, "phase"));
	lab_check(lab, !strcmp(lab_str(lab, in, "error.code"), "image-damaged"), "%s",
		  lab_str(lab, in, "error.code"));
	snprintf(path, sizeof(path), "%s/cut.arrived", lab->root);
	lab_check(lab, access(path, F_OK), "the guest was handed a page that is not its own");
	json_decref(in);
	end_copy(b);
	cut_end(lab, cut);
	lab_end(lab);
}

/* A clone: the copy runs at the destination, the guest at the source runs on. */
Test(snapshots, clone)
{
	struct lab_host *a, *b;
	struct lab *lab = cut_lab(&a, &b);
	struct lab_proc *cut = cut_start(a);
	char what[16] = "", *err = NULL;

	lab_check(lab,
		  !lab_decant(a, 60000, NULL, &err,
			      (const char *const[]){"snapshot", "cut", "--to", b->to, "--name",
						    "monday", "--start", "--wait", NULL}),
		  "decant snapshot --start: %s", err);
	cut_arrived(lab, what);
	lab_check(lab, !strcmp(what, "exact"), "the clone found its memory %s", what);
	lab_host_knows(b, "cut");
	lab_check(lab, lab_proc_alive(cut), "the guest at the source has ended");
	end_copy(b);
	free(err);
	cut_end(lab, cut);
	lab_end(lab);
}
