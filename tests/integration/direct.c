/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Direct I/O: a guest whose memory devices write to arrives with every page as it was read, in every mode,
 * by each kind of tracking, however it reads. The control is the same guest when it declares that
 * memory free of DMA, so that it is moved like any other: it must lose pages, or these tests show nothing.
 */
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "lib/lab_test.h"

TestSuite(direct, .timeout = 900);

#define DIRECT_MB "64"

/**
 * struct direct - the guest, on its way between two hosts
 * @g:		by its name only
 * @io, @kind, @dma: as in tests/guests/direct.c
 * @n:		journeys so far
 */
struct direct {
	struct lab *lab;
	struct lab_host *hosts[2];
	struct lab_guest g;
	const char *io, *kind, *dma;
	char file[LAB_PATH_MAX + 32];
	unsigned int n;
	struct lab_proc *proc;
	uint64_t passes;
};

static char *conf(struct lab *lab, const char *file, char host)
{
	json_t *o =
		json_pack("{s:{s:{s:s, s:[o, s, s, o, s, s, s, s, s]}}}", "launchers", "direct",
			  "driver", "native", "argv", json_sprintf("%s/guests/direct", lab->tests),
			  "{name}", "{attach}", json_sprintf("%s/direct.%c", lab->root, host), file,
			  "{var:kind}", DIRECT_MB, "{var:io}", "{var:dma}");
	char *text = json_dumps(o, 0);

	json_decref(o);
	return text;
}

/* Return: false where the file system has no direct I/O */
static bool can_read_directly(struct lab *lab, char *path, size_t n)
{
	int fd;

	snprintf(path, n, "%s/direct.probe", lab->tests);
	fd = open(path, O_RDWR | O_CREAT | O_DIRECT | O_CLOEXEC, 0600);
	unlink(path);
	if (fd >= 0)
		close(fd);
	snprintf(path, n, "%s/direct.records", lab->tests);
	return fd >= 0;
}

static json_t *report(struct direct *d)
{
	char path[LAB_PATH_MAX + 32];

	snprintf(path, sizeof(path), "%s/direct.%c", d->lab->root, d->n % 2 ? 'b' : 'a');
	return json_load_file(path, 0, NULL);
}

static uint64_t number(struct direct *d, const char *key)
{
	json_t *o = report(d);
	uint64_t v = o ? (uint64_t)json_integer_value(json_object_get(o, key)) : 0;

	json_decref(o);
	return v;
}

static bool verified(struct direct *d)
{
	json_t *o = report(d);
	bool is = o && json_is_true(json_object_get(o, "verified")) &&
		  (uint64_t)json_integer_value(json_object_get(o, "arrivals")) == d->n;

	json_decref(o);
	return is;
}

static void reads_on(struct direct *d)
{
	uint64_t ios = number(d, "ios");

	lab_until(d->lab, 20000, number(d, "ios") > ios + 300, "the guest does not read");
}

static void start(struct direct *d)
{
	char program[LAB_PATH_MAX + 32], path[LAB_PATH_MAX + 32], text[256];
	struct lab *lab = d->lab;

	snprintf(program, sizeof(program), "%s/guests/direct", lab->tests);
	snprintf(path, sizeof(path), "%s/direct.json", lab->root);
	snprintf(text, sizeof(text),
		 "{\"name\": \"direct\", \"driver\": \"native\", \"launcher\": \"direct\", "
		 "\"vars\": "
		 "{\"kind\": \"%s\", \"io\": \"%s\", \"dma\": \"%s\"}}",
		 d->kind, d->io, d->dma);
	lab_write_file(lab, path, text);
	lab_check(lab,
		  !lab_decant(d->hosts[0], 10000, NULL, NULL,
			      (const char *const[]){"add", path, NULL}),
		  "decant add");
	snprintf(path, sizeof(path), "%s/direct.a", lab->root);
	d->proc =
		lab_spawn(lab, NULL, "direct",
			  (const char *const[]){program, "direct", d->hosts[0]->attach, path,
						d->file, d->kind, DIRECT_MB, d->io, d->dma, NULL});
	lab_until(lab, 20000, verified(d) || !lab_proc_alive(d->proc), "the guest does not start");
	lab_check(lab, lab_proc_alive(d->proc), "the guest has ended with %d", d->proc->status);
	lab_host_knows(d->hosts[0], "direct");
}

/* Return: NULL if it cannot be tried here */
static struct direct *direct_new(const char *io, const char *kind, const char *dma)
{
	struct direct *d = calloc(1, sizeof(*d));
	struct lab *lab = lab_new(lab_test_failed);

	*d = (struct direct){.lab = lab, .io = io, .kind = kind, .dma = dma};
	snprintf(d->g.name, sizeof(d->g.name), "direct");
	d->g.lab = lab;
	if (!can_read_directly(lab, d->file, sizeof(d->file))) {
		lab_end(lab);
		free(d);
		cr_skip_test("the file system below build/ has no direct I/O");
	}
	for (int i = 0; i < 2; i++) {
		char name[] = {(char)('a' + i), 0}, *text = conf(lab, d->file, name[0]);

		d->hosts[i] = lab_host_start(
			lab, &(struct lab_host_opts){.name = name, .dest_conf = text});
		free(text);
	}
	start(d);
	reads_on(d);
	return d;
}

static void direct_end(struct direct *d)
{
	pid_t pid = (pid_t)number(d, "pid");

	lab_check(d->lab, pid > 0 && !kill(pid, SIGKILL), "the guest is gone");
	lab_until(d->lab, 10000, kill(pid, 0) < 0 || (d->proc && !lab_proc_alive(d->proc)),
		  "it lives on");
	lab_end(d->lab);
	free(d);
}

/* One journey to the other host. Return: the ended job, new reference */
static json_t *go(struct direct *d, const struct lab_move *move)
{
	struct lab_host *from = d->hosts[d->n % 2], *to = d->hosts[(d->n + 1) % 2];
	json_t *job;

	d->g.at = from;
	job = lab_migrate(from, to, &d->g, move);
	d->n++;
	if (d->proc) {
		lab_check(d->lab, lab_proc_wait(d->lab, d->proc, 10000) == 0, "its end");
		d->proc = NULL;
	}
	lab_until(d->lab, 30000, verified(d), "the guest has not looked at its memory");
	lab_host_knows(to, "direct");
	d->passes += (uint64_t)lab_num(d->lab, job, "memory.passes");
	return job;
}

/* Many passes, so that many scans fall among reads. */
#define QUARANTINE "--dma-quarantine-ms", "900"
#define STUBBORN   "--downtime-limit-ms", "1", "--max-passes", "10", "--no-convergence", "stop"

static const struct way {
	struct lab_move move;
	const char *way;
} ways[] = {
	{{.mode = "hybrid", .tracking = "async"}, "ever-dirty"},
	{{.mode = "hybrid", .tracking = "faults"}, "ever-dirty"},
	{{.mode = "precopy", .tracking = "async", .args = {QUARANTINE, STUBBORN}}, "quarantine"},
	{{.mode = "precopy", .tracking = "faults", .args = {QUARANTINE, STUBBORN}}, "quarantine"},
	{{.mode = "postcopy"}, "postcopy"},
};

/* A hybrid one takes little time, and so few chances. */
static const char journeys[] = "000111234";

/* @few: journeys that stand for all of them where not everything is run. */
static void nothing_lost(const char *io, const char *kind, const char *few)
{
	struct direct *d = direct_new(io, kind, "yes");
	unsigned int rounds = d->lab->full ? 15 : 1;

	for (unsigned int i = 0; i < rounds; i++) {
		for (const char *k = d->lab->full ? journeys : few; *k; k++) {
			unsigned int j = (unsigned int)(*k - '0');
			json_t *job = go(d, &ways[j].move);

			lab_check(d->lab, number(d, "bad") == 0, "%lu pages lost: %s, %s, %s",
				  number(d, "bad"), io, ways[j].way, lab_str(d->lab, job, "mode"));
			lab_check(d->lab, !strcmp(lab_str(d->lab, job, "dma.way"), ways[j].way),
				  "moved by %s", lab_str(d->lab, job, "dma.way"));
			lab_check(d->lab, !strcmp(lab_str(d->lab, job, "dma.block"), "data"),
				  "block");
			if (strcmp(ways[j].way, "postcopy") != 0)
				lab_check(d->lab, lab_num(d->lab, job, "dma.pause_us") > 0,
					  "it was not paused to be protected");
			json_decref(job);
			reads_on(d);
		}
	}
	cr_log_info("%s, %s: %u journeys, %lu passes, %lu reads, nothing lost\n", io, kind, d->n,
		    d->passes, number(d, "ios"));
	direct_end(d);
}

Test(direct, threads)
{
	nothing_lost("pread", "memfd", "024");
}

Test(direct, io_uring)
{
	nothing_lost("uring", "anon", "13");
}

Test(direct, io_uring_fixed)
{
	nothing_lost("fixed", "memfd", "01");
}

/* --- I/O that does not end --- */

static bool comes_in(struct lab_host *b)
{
	json_t *o = lab_incoming_newest(b);
	bool is = o && !strcmp(lab_str(b->lab, o, "phase"), "advise");

	json_decref(o);
	return is;
}

/* It fails with the guest running, whichever pause it is, and so does one that is cancelled in between. */
Test(direct, reads_that_take_too_long)
{
	static const struct lab_move first = {.mode = "hybrid",
					      .args = {"--switchover-timeout-ms", "500"},
					      .exit = 1,
					      .phase = "failed",
					      .code = "etimedout"},
				     last = {.mode = "precopy",
					     .args = {QUARANTINE, STUBBORN},
					     .exit = 1,
					     .phase = "failed",
					     .code = "dma-quarantine"},
				     cancelled = {
					     .mode = "hybrid", .exit = 1, .phase = "cancelled"};
	struct direct *d = direct_new("pread", "memfd", "yes");
	struct lab_host *a = d->hosts[0], *b = d->hosts[1];
	pid_t pid = (pid_t)number(d, "pid");
	struct lab_proc *p;
	json_t *job;

	lab_check(d->lab, pid > 0 && !kill(pid, SIGUSR1), "the guest is gone");
	d->g.at = a;
	job = lab_migrate(a, b, &d->g, &first);
	lab_check(d->lab, strstr(lab_str(d->lab, job, "error.message"), "block data"), "%s",
		  lab_str(d->lab, job, "error.message"));
	json_decref(job);
	reads_on(d);
	json_decref(lab_migrate(a, b, &d->g, &last));
	reads_on(d);
	p = lab_migrate_begin(a, b, &d->g, &cancelled);
	lab_until(d->lab, 10000, lab_job_phase_is(a, "setup"), "no setup");
	lab_until(d->lab, 10000, comes_in(b), "no connections");
	/* Its pause, which takes all the rest, is not over before the test has said what it wants. */
	lab_check(d->lab, !kill(pid, SIGSTOP), "the guest is gone");
	lab_check(d->lab, lab_job_phase_is(a, "setup"), "the pause is over");
	job = lab_job_newest(a);
	lab_check(d->lab,
		  !lab_decant(a, 10000, NULL, NULL,
			      (const char *[]){"cancel", lab_str(d->lab, job, "id"), NULL}),
		  "cancel");
	kill(pid, SIGCONT);
	json_decref(job);
	json_decref(lab_migrate_end(a, p, &cancelled));
	reads_on(d);
	direct_end(d);
}

/* --- snapshots --- */

/* A copy of the guest, started from the image on the other host, looks at its memory like one that moved. */
static void snapshot(const char *io, const char *kind)
{
	struct direct *d = direct_new(io, kind, "yes");
	pid_t here = (pid_t)number(d, "pid");
	char *out = NULL;
	json_t *job;

	lab_check(d->lab,
		  !lab_decant(d->hosts[0], 60000, &out, NULL,
			      (const char *const[]){"snapshot", "direct", "--to", d->hosts[1]->to,
						    "--start", "--wait", "--json", NULL}),
		  "decant snapshot");
	job = json_loads(out, 0, NULL);
	free(out);
	lab_check(d->lab, !strcmp(lab_str(d->lab, job, "dma.way"), "saved"), "not saved");
	json_decref(job);
	reads_on(d);
	d->n++;
	lab_until(d->lab, 30000, verified(d), "the copy has not looked at its memory");
	lab_check(d->lab, number(d, "bad") == 0, "%lu pages are not those of the instant",
		  number(d, "bad"));
	lab_check(d->lab, !kill(here, SIGKILL), "the guest has not gone on");
	lab_proc_wait(d->lab, d->proc, 5000);
	d->proc = NULL;
	direct_end(d);
}

Test(direct, snapshot_threads)
{
	lab_test_long();
	snapshot("pread", "memfd");
}

Test(direct, snapshot_io_uring_fixed)
{
	snapshot("fixed", "anon");
}

/* --- the control: what happens to those who do not know --- */

static void something_lost(const char *io, const char *kind)
{
	struct direct *d = direct_new(io, kind, "no");
	unsigned int tries = d->lab->full ? 60 : 30;

	for (unsigned int i = 0; i < tries && !number(d, "bad"); i++) {
		json_decref(go(d, &ways[i % 3].move));
		reads_on(d);
	}
	cr_log_info("%s, %s: %lu pages lost in %u journeys\n", io, kind, number(d, "bad"), d->n);
	lab_check(d->lab, number(d, "bad") > 0,
		  "THE CONTROL LOST NOTHING in %u journeys: that the others lose nothing shows "
		  "nothing",
		  d->n);
	direct_end(d);
}

Test(direct, control_threads)
{
	something_lost("pread", "memfd");
}

Test(direct, control_io_uring)
{
	lab_test_long();
	something_lost("uring", "anon");
}

Test(direct, control_io_uring_fixed)
{
	something_lost("fixed", "memfd");
}
