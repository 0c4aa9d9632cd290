/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A guest that gives memory back, punches its file, forks and unmaps while it is moved: it finds zeros
 * where it gave back, its data everywhere else, and nothing hangs. In every mode, by each kind of
 * tracking, of each kind of memory; in snapshots; and ends that are none.
 */
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "lib/lab_test.h"

TestSuite(changes, .timeout = 240);

#define MB "24"

/** struct shift - the guest of tests/guests/shift, and where it may be */
struct shift {
	struct lab *lab;
	struct lab_host *a, *b;
	struct lab_proc *proc;
	const char *kind;
};

static char *conf(struct lab *lab)
{
	json_t *o = json_pack("{s:{s:{s:s, s:[o, s, s, o, s, s]}}}", "launchers", "shift", "driver",
			      "native", "argv", json_sprintf("%s/guests/shift", lab->tests),
			      "{name}", "{attach}", json_sprintf("%s/shift.arrived", lab->root),
			      "{var:kind}", "{var:mb}");
	char *text = json_dumps(o, 0);

	json_decref(o);
	return text;
}

/* What it said last; new reference, NULL if nothing yet. */
static json_t *said(struct shift *s, const char *where)
{
	char path[LAB_PATH_MAX + 32];

	snprintf(path, sizeof(path), "%s/shift.%s", s->lab->root, where);
	return json_load_file(path, 0, NULL);
}

static double number(struct shift *s, const char *where, const char *what)
{
	json_t *o = said(s, where);
	double n = o ? lab_num(s->lab, o, what) : -1;

	json_decref(o);
	return n;
}

/* From now on: two whole verifications, nothing bad. */
static void goes_on(struct shift *s, const char *where)
{
	double rounds = number(s, where, "rounds"), given = number(s, where, "given");

	lab_until(s->lab, 30000, number(s, where, "rounds") >= rounds + 2,
		  "it does not verify its memory");
	lab_until(s->lab, 30000, number(s, where, "given") > given, "it gives nothing back");
	lab_check(s->lab, number(s, where, "bad") == 0, "%.0f bad pages", number(s, where, "bad"));
}

static void shift_start(struct shift *s, const char *kind)
{
	char program[LAB_PATH_MAX + 32], report[LAB_PATH_MAX + 32], desc[LAB_PATH_MAX + 32];
	char text[256], *dest_conf;

	s->lab = lab_new(lab_test_failed);
	s->kind = kind;
	dest_conf = conf(s->lab);
	s->a = lab_host_start(s->lab, &(struct lab_host_opts){.name = "a"});
	s->b = lab_host_start(s->lab, &(struct lab_host_opts){.name = "b", .dest_conf = dest_conf});
	free(dest_conf);
	snprintf(program, sizeof(program), "%s/guests/shift", s->lab->tests);
	snprintf(report, sizeof(report), "%s/shift.started", s->lab->root);
	snprintf(desc, sizeof(desc), "%s/shift.json", s->lab->root);
	snprintf(text, sizeof(text),
		 "{\"name\": \"shift\", \"driver\": \"native\", \"launcher\": \"shift\", "
		 "\"vars\": {\"kind\": \"%s\", \"mb\": \"" MB "\"}}",
		 kind);
	lab_write_file(s->lab, desc, text);
	lab_check(s->lab,
		  !lab_decant(s->a, 10000, NULL, NULL, (const char *const[]){"add", desc, NULL}),
		  "decant add");
	s->proc = lab_spawn(
		s->lab, NULL, "shift",
		(const char *const[]){program, "shift", s->a->attach, report, kind, MB, NULL});
	lab_until(s->lab, 10000, number(s, "started", "rounds") >= 1, "the guest does not start");
	lab_host_knows(s->a, "shift");
}

static void shift_end(struct shift *s)
{
	double pid = number(s, "arrived", "pid");

	if (pid > 1)
		kill((pid_t)pid, SIGKILL);
	lab_proc_kill(s->lab, s->proc);
	lab_end(s->lab);
}

/* `decant ARGS --to B --wait --json`. Return: the ended job, new reference */
static json_t *run(struct shift *s, int exit, const char *const *words)
{
	const char *args[24];
	char *out = NULL, *err = NULL;
	size_t n = 0;
	json_t *job;
	int status;

	while ((args[n] = words[n]))
		n++;
	memcpy(args + n, (const char *[]){"--to", s->b->to, "--wait", "--json", NULL},
	       5 * sizeof(*args));
	status = lab_decant(s->a, 60000, &out, &err, args);
	lab_check(s->lab, status == exit, "decant %s: %d, not %d: %s%s", words[0], status, exit,
		  err, out);
	job = json_loads(out, 0, NULL);
	free(out);
	free(err);
	return job;
}

static void arrives(struct shift *s)
{
	lab_until(s->lab, 20000, number(s, "arrived", "rounds") >= 1, "it does not arrive");
	goes_on(s, "arrived");
}

static void moves(const char *mode, const char *tracking, const char *kind)
{
	struct shift s = {0};
	json_t *job;

	shift_start(&s, kind);
	job = run(&s, 0,
		  (const char *const[]){"migrate", "shift", "--mode", mode, "--tracking", tracking,
					"--bandwidth", "800Mbit", "--max-passes", "4",
					"--no-convergence", "stop", NULL});
	lab_check(s.lab, json_is_true(lab_at(job, "digest_ok")), "digest_ok");
	lab_check(s.lab, !strcmp(lab_str(s.lab, job, "phase"), "completed"), "phase");
	json_decref(job);
	arrives(&s);
	shift_end(&s);
}

Test(changes, hybrid_async_memfd)
{
	moves("hybrid", "async", "memfd");
}

Test(changes, precopy_faults_anon)
{
	moves("precopy", "faults", "anon");
}

Test(changes, precopy_async_memfd)
{
	moves("precopy", "async", "memfd");
}

Test(changes, postcopy_anon)
{
	moves("postcopy", "auto", "anon");
}

static const char *const others[][3] = {
	{"hybrid", "async", "anon"},  {"hybrid", "faults", "memfd"},  {"hybrid", "faults", "anon"},
	{"precopy", "async", "anon"}, {"precopy", "faults", "memfd"}, {"postcopy", "auto", "memfd"},
};

Test(changes, every_other_combination, .timeout = 600)
{
	lab_test_long();
	for (int round = 0; round < 3; round++)
		for (size_t i = 0; i < LAB_COUNT(others); i++)
			moves(others[i][0], others[i][1], others[i][2]);
}

/* What is not mapped any more is zeros (private) or still in its file (shared), and all else is exact. */
static void unmaps(const char *tracking, const char *kind)
{
	struct shift s = {0};
	struct lab_proc *p;

	shift_start(&s, kind);
	p = lab_decant_begin(s.a,
			     (const char *const[]){"migrate", "shift", "--to", s.b->to, "--mode",
						   "precopy", "--tracking", tracking, "--bandwidth",
						   "200Mbit", "--max-passes", "3",
						   "--no-convergence", "stop", "--wait", NULL});
	lab_until(s.lab, 10000, lab_job_phase_is(s.a, "precopy"), "precopy was not reached");
	kill(s.proc->pid, SIGUSR1);
	lab_check(s.lab, lab_proc_wait(s.lab, p, 60000) == 0, "it ended with %d", p->status);
	arrives(&s);
	shift_end(&s);
}

Test(changes, unmapped_async_anon)
{
	unmaps("async", "anon");
}

Test(changes, unmapped_faults_memfd)
{
	lab_test_long();
	unmaps("faults", "memfd");
}

/* A part of the block is moved away: the migration ends, the guest runs on, and can be moved afterwards. */
Test(changes, moved_memory_ends_the_migration)
{
	struct shift s = {0};
	struct lab_proc *p;
	json_t *job;

	shift_start(&s, "memfd");
	p = lab_decant_begin(s.a, (const char *const[]){"migrate", "shift", "--to", s.b->to,
							"--mode", "precopy", "--bandwidth",
							"100Mbit", "--wait", NULL});
	lab_until(s.lab, 10000, lab_job_phase_is(s.a, "precopy"), "precopy was not reached");
	kill(s.proc->pid, SIGUSR2);
	lab_check(s.lab, lab_proc_wait(s.lab, p, 60000) == 1, "it ended with %d", p->status);
	job = lab_job_newest(s.a);
	lab_check(s.lab, !strcmp(lab_str(s.lab, job, "error.code"), "guest-remapped"), "%s",
		  lab_str(s.lab, job, "error.code"));
	lab_check(s.lab, strstr(lab_str(s.lab, job, "error.message"), "block ram"), "%s",
		  lab_str(s.lab, job, "error.message"));
	lab_check(s.lab, !strcmp(lab_str(s.lab, job, "owner"), "source"), "owner");
	json_decref(job);
	goes_on(&s, "started");
	kill(s.proc->pid, SIGUSR2);
	goes_on(&s, "started");
	json_decref(run(&s, 0, (const char *const[]){"migrate", "shift", NULL}));
	arrives(&s);
	shift_end(&s);
}

/* Its image has zeros or what was there; who it is started from finds neither dead nor future data. */
static void snapshot(const char *kind)
{
	struct shift s = {0};
	json_t *job;

	shift_start(&s, kind);
	job = run(&s, 0,
		  (const char *const[]){"snapshot", "shift", "--name", "monday", "--bandwidth",
					"400Mbit", NULL});
	lab_check(s.lab, !strcmp(lab_str(s.lab, job, "phase"), "completed"), "phase");
	json_decref(job);
	goes_on(&s, "started");
	shift_end(&s);
}

Test(changes, snapshot_memfd)
{
	snapshot("memfd");
}

Test(changes, snapshot_anon)
{
	snapshot("anon");
}
