/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The destination's disk is full when it matters most: under an image that a running guest is stored in, and under the
 * record that says that a guest was not taken over, without which nobody may be told so. Or it takes its time for that.
 */
#include <dirent.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "lib/doubt.h"
#include "lib/lab_pace.h"
#include "lib/lab_preload.h"
#include "lib/lab_test.h"

TestSuite(disk, .timeout = 120);

/* --- images --- */

struct image_row {
	bool start;
};

ParameterizedTestParameters(disk, image)
{
	static struct image_row rows[2];
	size_t n = 0;

	for (size_t i = 0; i < 2; i++)
		if (lab_matrix_pick(i, i == 0))
			rows[n++] = (struct image_row){i};
	return cr_make_param_array(struct image_row, rows, n);
}

static unsigned int images(struct lab_host *h)
{
	char path[LAB_PATH_MAX + 16];
	unsigned int n = 0;
	struct dirent *e;
	DIR *d;

	snprintf(path, sizeof(path), "%s/state/images", h->dir);
	d = opendir(path);
	while (d && (e = readdir(d)))
		n += e->d_name[0] != '.';
	if (d)
		closedir(d);
	return n;
}

static int snapshot(struct lab_host *a, struct lab_host *b, const char *name, bool start,
		    char **ret_err)
{
	return lab_decant(a, 30000, NULL, ret_err,
			  (const char *[]){"snapshot", "guest", "--to", b->to, "--name", name,
					   "--wait", start ? "--start" : NULL, NULL});
}

/* 4 MiB of room for a guest of 16: it is said why, nothing stays, and the guest never noticed. */
ParameterizedTest(struct image_row *r, disk, image)
{
	struct lab_row row = {.fault = "disk of dest full under an image",
			      .phase = "saving",
			      .mode = r->start ? "clone" : "snapshot",
			      .driver = "native"};
	struct lab *lab = lab_new(lab_test_failed);
	struct lab_host *a, *b;
	struct lab_guest *g;
	struct pace *pace;
	char *err = NULL;

	lab_matrix_begin(&row);
	a = lab_host_start(lab, &(struct lab_host_opts){.name = "a"});
	b = lab_host_new(lab, &(struct lab_host_opts){.name = "b"});
	if (!lab_small_state(b, 4096)) {
		lab_end(lab);
		cr_skip_test("no small file system can be mounted here");
	}
	lab_host_source_start(b);
	lab_host_dest_start(b);
	g = lab_guest_start(a, &(struct lab_guest_opts){.mb = 16, .threads = 2, .writes = 300});
	pace = pace_start();
	lab_guest_calm(g);
	lab_check(lab, snapshot(a, b, "large", r->start, &err) == 1, "it was stored");
	lab_check(lab, strstr(err, "No space left"), "it does not say why: %s", err);
	free(err);
	lab_soon(lab, pace, lab_guest_report(g).stall_us, 1000000, "the guest stood");
	pace_end(pace);
	lab_guest_verified(g);
	lab_until(lab, 5000, !images(b), "something of the image stays");
	lab_until(lab, 5000, lab_host_guests(b) == 0, "the copy stays");
	lab_check(lab, lab_proc_alive(b->dest), "the agent has ended");
	/* And it can leave: it needs no room there. */
	json_decref(lab_migrate(a, b, g, &(struct lab_move){0}));
	lab_guest_arrived(g, b);
	lab_end(lab);
	lab_matrix_end(&row, "refused by name, moved");
}

/* --- "aborted" --- */

/** struct aborted_row - @busy: the disk takes what is written, and does not come to an end with it */
struct aborted_row {
	bool busy, restart;
};

ParameterizedTestParameters(disk, aborted)
{
	static struct aborted_row rows[4];
	size_t n = 0;

	for (size_t i = 0; i < 4; i++)
		if (lab_matrix_pick(i, i % 2 == 0))
			rows[n++] = (struct aborted_row){.busy = i / 2, .restart = i % 2};
	return cr_make_param_array(struct aborted_row, rows, n);
}

static const char *fault_of(const struct aborted_row *r)
{
	static const char *const names[2][2] = {
		{"disk of dest full under \"aborted\"",
		 "disk of dest full under \"aborted\", dest killed"},
		{"disk of dest busy under \"aborted\"",
		 "disk of dest busy under \"aborted\", dest killed"}};

	return names[r->busy][r->restart];
}

static void mark(struct lab *lab, const char *file, bool full)
{
	if (full)
		lab_write_file(lab, file, "");
	else
		lab_check(lab, !unlink(file), "%s: %m", file);
}

/*
 * COMMIT is queued at the source and never leaves it. The destination ends its half, but cannot write that down: it must not
 * say that it has not started the guest, because another life of it would not know. When there is room again it says so.
 */
ParameterizedTest(struct aborted_row *r, disk, aborted)
{
	struct lab_row row = {
		.fault = fault_of(r), .phase = "switchover", .mode = "hybrid", .driver = "native"};
	char file[LAB_PATH_MAX + 32], *fault = lab_fault(FAULTPOINT_COMMIT_QUEUED, "stop");
	struct doubt s = {.lab = lab_new(lab_test_failed), .move = {.mode = "hybrid", .exit = 1}};

	lab_matrix_begin(&row);
	lab_fault_agents(s.lab);
	s.a = lab_host_start(s.lab, &(struct lab_host_opts){.name = "a", .source_fault = fault});
	free(fault);
	s.b = lab_host_new(s.lab, &(struct lab_host_opts){.name = "b"});
	snprintf(file, sizeof(file), "%s/state/mark", s.b->dir);
	lab_preload(s.lab, r->busy ? "sync" : "full", file);
	lab_host_source_start(s.b);
	lab_host_dest_start(s.b);
	lab_preload_end();
	s.relay = lab_relay_new(s.b);
	s.g = lab_guest_start(s.a, &(struct lab_guest_opts){.mb = 16, .threads = 2, .writes = 400});
	s.p = lab_migrate_begin(s.a, s.b, s.g, &s.move);
	lab_fault_stopped(s.lab, s.a->source, 20000);
	mark(s.lab, file, true);
	lab_relay_cut(s.relay);
	kill(s.a->source->pid, SIGCONT);
	doubt_until(&s, "phase", "in-doubt");
	if (!r->busy)
		lab_until(s.lab, 10000, lab_proc_said(s.lab, s.b->dest, "No space left"),
			  "the destination does not say why");
	for (uint64_t end = lab_now_ms() + 2000; lab_now_ms() < end; lab_nap())
		lab_check(s.lab, doubt_says(&s, "phase", "in-doubt"), "it was told");
	doubt_stands(&s, s.a);
	lab_check(s.lab, lab_proc_alive(s.b->dest), "the agent has ended");
	if (r->restart)
		lab_proc_kill(s.lab, s.b->dest);
	mark(s.lab, file, false);
	if (r->restart)
		lab_host_dest_start(s.b);
	doubt_until(&s, "phase", "failed");
	lab_check(s.lab, doubt_says(&s, "owner", "source"), "owner");
	doubt_runs(&s, s.a);
	lab_guest_verified(s.g);
	lab_until(s.lab, 15000, lab_host_guests(s.b) == 0, "a guest stays there");
	doubt_end(&s);
	lab_matrix_end(&row, "waits, then stayed");
}
