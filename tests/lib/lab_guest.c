/* SPDX-License-Identifier: Apache-2.0 */
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "lib/lab_guest.h"
#include "lib/lab_job.h"

/* A whole verification of a guest that other threads keep busy, for each MiB; and the least. */
#define VERIFY_MS_PER_MB 100
#define VERIFY_MS_MIN    20000

static const char *kind_name(enum lab_kind kind)
{
	static const char *const names[] = {
		[LAB_ANON] = "anon",
		[LAB_GIGANTIC] = "gigantic",
		[LAB_HUGE] = "huge",
		[LAB_MEMFD] = "memfd",
	};

	return names[kind];
}

static void report_path(struct lab_guest *g, struct lab_host *h, char *out, size_t n)
{
	snprintf(out, n, "%s/%s.report", h->dir, g->name);
}

/* --- how it is started, here and by the destination's launcher --- */

static json_t *vars(const struct lab_guest_opts *o)
{
	return json_pack("{s:o, s:s, s:o, s:o, s:o, s:o}", "mb", json_sprintf("%u", o->mb), "kind",
			 kind_name(o->kind), "blocks", json_sprintf("%u", o->blocks), "threads",
			 json_sprintf("%u", o->threads), "writes", json_sprintf("%u", o->writes),
			 "zeros", json_sprintf("%u", o->zeros));
}

static json_t *launcher(struct lab_host *h, const char *option)
{
	json_t *argv =
		json_pack("[o, s, s, s, o, s, s, s, s, s, s, s, s, s, s, s, s]",
			  json_sprintf("%s/stamp", h->lab->guests_at), "--name", "{name}",
			  "--report", json_sprintf("%s/{name}.report", h->dir), "--mb", "{var:mb}",
			  "--kind", "{var:kind}", "--blocks", "{var:blocks}", "--threads",
			  "{var:threads}", "--writes", "{var:writes}", "--zeros", "{var:zeros}");

	if (option)
		json_array_append_new(argv, json_string(option));
	return json_pack("{s:s, s:o}", "driver", "native", "argv", argv);
}

json_t *lab_guest_launchers(struct lab_host *h)
{
	return json_pack("{s:o, s:o, s:o, s:o, s:o}", "stamp", launcher(h, NULL), "stamp-dma",
			 launcher(h, "--dma"), "stamp-thp", launcher(h, "--thp"), "stamp-grow",
			 launcher(h, "--grow"), "stamp-rom", launcher(h, "--rom"));
}

static const char *launcher_of(const struct lab_guest_opts *o)
{
	return o->dma    ? "stamp-dma"
	       : o->thp  ? "stamp-thp"
	       : o->grow ? "stamp-grow"
	       : o->rom  ? "stamp-rom"
			 : "stamp";
}

static void describe(struct lab_guest *g)
{
	const struct lab_guest_opts *o = &g->opts;
	char path[LAB_PATH_MAX + LAB_NAME_MAX + 16];
	json_t *desc = json_pack("{s:s, s:s, s:s, s:o, s:s}", "name", g->name, "driver", "native",
				 "launcher", launcher_of(o), "vars", vars(o), "disposal",
				 o->keep ? "keep" : "quit");

	snprintf(path, sizeof(path), "%s/%s.json", g->lab->root, g->name);
	lab_check(g->lab, json_dump_file(desc, path, 0) == 0, "%s: %m", path);
	json_decref(desc);
	lab_check(g->lab,
		  lab_decant(g->at, 10000, NULL, NULL, (const char *[]){"add", path, NULL}) == 0,
		  "decant add %s", path);
}

static void start_process(struct lab_guest *g)
{
	const struct lab_guest_opts *o = &g->opts;
	char program[LAB_PATH_MAX + 32], report[LAB_PATH_MAX + LAB_NAME_MAX + 16], numbers[6][16];
	const char *argv[] = {program,    "--name",      g->name,
			      "--attach", g->at->attach, "--report",
			      report,     "--kind",      kind_name(o->kind),
			      "--mb",     numbers[0],    "--blocks",
			      numbers[1], "--threads",   numbers[2],
			      "--writes", numbers[3],    "--zeros",
			      numbers[4], NULL,          NULL,
			      NULL,       NULL,          NULL,
			      NULL,       NULL};
	const unsigned int values[] = {o->mb, o->blocks, o->threads, o->writes, o->zeros};
	size_t n = 19;

	for (size_t i = 0; i < 5; i++)
		snprintf(numbers[i], sizeof(numbers[i]), "%u", values[i]);
	if (o->dma)
		argv[n++] = "--dma";
	if (o->thp)
		argv[n++] = "--thp";
	if (o->rom)
		argv[n++] = "--rom";
	if (o->grow)
		argv[n++] = "--grow";
	if (o->paused)
		argv[n++] = "--paused";
	if (o->uuid) {
		snprintf(numbers[5], sizeof(numbers[5]), "%u", o->uuid);
		argv[n++] = "--uuid";
		argv[n++] = numbers[5];
	}
	snprintf(program, sizeof(program), "%s/stamp", g->lab->guests_at);
	report_path(g, g->at, report, sizeof(report));
	g->proc = lab_spawn(g->lab, g->at->ns, g->name, argv);
}

static void begin(struct lab_guest *g)
{
	start_process(g);
	lab_until(g->lab, 10000 + 20 * g->opts.mb,
		  lab_guest_report(g).pages > 0 || !lab_proc_alive(g->proc), "no report of %s",
		  g->name);
	lab_check(g->lab, lab_proc_alive(g->proc), "the guest has ended with %d", g->proc->status);
	lab_host_knows(g->at, g->name);
}

void lab_guest_again(struct lab_guest *g, struct lab_host *h)
{
	g->at = h;
	g->arrivals = 0;
	begin(g);
}

struct lab_guest *lab_guest_start(struct lab_host *h, const struct lab_guest_opts *opts)
{
	struct lab *lab = h->lab;
	struct lab_guest *g = calloc(1, sizeof(*g));
	struct lab_guest_opts *o = &g->opts;

	lab_check(lab, lab->n_guests < LAB_GUESTS_MAX, "too many guests");
	lab->guests[lab->n_guests++] = g;
	g->lab = lab;
	g->at = h;
	*o = *opts;
	snprintf(g->name, sizeof(g->name), "%s", o->name ? o->name : "guest");
	o->mb = o->mb ? o->mb : 32;
	o->blocks = o->blocks ? o->blocks : 1;
	o->threads = o->empty ? 0 : o->threads ? o->threads : 2;
	/* Pages of zeros that nobody writes are never touched: holes. */
	o->zeros = o->empty ? 100 : o->zeros ? o->zeros : 10;
	describe(g);
	begin(g);
	return g;
}

/* --- what it says --- */

static struct lab_report read_report(struct lab_guest *g, struct lab_host *h)
{
	char path[LAB_PATH_MAX + LAB_NAME_MAX + 16];
	struct lab_report r = {0};
	json_t *o;

	report_path(g, h, path, sizeof(path));
	o = json_load_file(path, 0, NULL);
	if (!o)
		return r;
	r.pid = (int)json_integer_value(lab_at(o, "pid"));
	r.ended = json_is_true(lab_at(o, "ended"));
	r.paused = json_is_true(lab_at(o, "paused"));
	r.pages = (uint64_t)lab_num(g->lab, o, "pages");
	/* One of protocol version 1 does not say it. */
	r.grown = (uint64_t)json_integer_value(lab_at(o, "grown_pages"));
	r.arrivals = (uint64_t)lab_num(g->lab, o, "arrivals");
	r.counter = (uint64_t)lab_num(g->lab, o, "counter");
	r.counter_at_pause = (uint64_t)lab_num(g->lab, o, "counter_at_pause");
	r.counter_at_arrival = (uint64_t)lab_num(g->lab, o, "counter_at_arrival");
	r.counter_gap = (int64_t)lab_num(g->lab, o, "counter_gap");
	r.verifications = (uint64_t)lab_num(g->lab, o, "verifications");
	r.bad = (uint64_t)lab_num(g->lab, o, "bad_pages");
	r.stall_us = (uint64_t)lab_num(g->lab, o, "longest_stall_us");
	json_decref(o);
	return r;
}

struct lab_report lab_guest_report(struct lab_guest *g)
{
	return read_report(g, g->at);
}

uint64_t lab_guest_counter(struct lab_guest *g, struct lab_host *h)
{
	return read_report(g, h).counter;
}

static void check_report(struct lab_guest *g, const struct lab_report *r)
{
	lab_check(g->lab, r->bad == 0, "%lu bad pages", r->bad);
	lab_check(g->lab, r->counter_gap == 0, "the counter is %ld off its pages' counts",
		  r->counter_gap);
}

/* One that has not been paused again since it came. */
static void check_journey(struct lab_guest *g, const struct lab_report *r)
{
	check_report(g, r);
	if (r->arrivals)
		lab_check(g->lab, r->counter_at_arrival == r->counter_at_pause,
			  "paused at %lu, arrived at %lu", r->counter_at_pause,
			  r->counter_at_arrival);
}

void lab_guest_unbroken(struct lab_guest *g, struct lab_host *a, struct lab_host *b)
{
	struct lab_report r = read_report(g, a);

	check_journey(g, &r);
	r = read_report(g, b);
	check_journey(g, &r);
}

static void signal_guest(struct lab_guest *g, int sig)
{
	pid_t pid = lab_guest_pid(g, g->at);

	/* 0 would mean all of us. */
	lab_check(g->lab, pid > 0 && kill(pid, sig) == 0, "the guest is gone");
}

static unsigned int verify_ms(const struct lab_guest *g)
{
	return VERIFY_MS_MIN + VERIFY_MS_PER_MB * g->opts.mb;
}

/* As seen by what it says from now on. */
static void goes_on(struct lab_guest *g)
{
	struct lab_report r = lab_guest_report(g);

	if (g->opts.threads)
		lab_until(g->lab, 10000, lab_guest_report(g).counter > r.counter,
			  "the guest does not write any more");
}

void lab_guest_verified(struct lab_guest *g)
{
	struct lab_report r = lab_guest_report(g);
	/* One that is under way began before now. */
	uint64_t want = r.verifications + 2;

	for (uint64_t i = 0; i < 2; i++) {
		signal_guest(g, SIGUSR1);
		lab_until(g->lab, verify_ms(g),
			  lab_guest_report(g).verifications >= want - 1 + i ||
				  lab_guest_report(g).bad,
			  "the guest has not verified its memory");
	}
	goes_on(g);
	r = lab_guest_report(g);
	check_report(g, &r);
}

static void journey(struct lab_guest *g, struct lab_host *h)
{
	struct lab_host *from = g->at;

	g->at = h;
	g->arrivals++;
	lab_until(g->lab, 10000, lab_guest_report(g).arrivals == g->arrivals, "%lu arrivals of %lu",
		  lab_guest_report(g).arrivals, g->arrivals);
	if (!g->opts.keep)
		lab_until(g->lab, 10000, !lab_guest_pid(g, from), "its process at %s lives on",
			  from->name);
	if (g->proc && !lab_proc_alive(g->proc)) {
		lab_check(g->lab, g->proc->status == 0, "it ended with %d at the source",
			  g->proc->status);
		g->proc = NULL;
	}
}

void lab_guest_arrived(struct lab_guest *g, struct lab_host *h)
{
	struct lab_report r;

	journey(g, h);
	lab_until(g->lab, verify_ms(g),
		  lab_guest_report(g).verifications > 0 || lab_guest_report(g).bad,
		  "the guest has not verified its memory");
	goes_on(g);
	r = lab_guest_report(g);
	lab_check(g->lab, !r.paused, "it is paused");
	check_journey(g, &r);
}

void lab_guest_arrived_paused(struct lab_guest *g, struct lab_host *h)
{
	struct lab_report r;

	journey(g, h);
	r = lab_guest_report(g);
	lab_check(g->lab, r.paused, "it runs");
	check_journey(g, &r);
}

/* --- its processes --- */

/* The report's path stands in the arguments of its process, on each host another. */
static bool is_it(pid_t pid, const char *report)
{
	char path[64], *args;
	bool is = false;

	snprintf(path, sizeof(path), "/proc/%d/cmdline", pid);
	args = lab_read_file(path);
	for (char *at = args; at && *at && !is; at += strlen(at) + 1)
		is = !strcmp(at, report);
	free(args);
	return is;
}

pid_t lab_guest_pid(struct lab_guest *g, struct lab_host *h)
{
	char report[LAB_PATH_MAX + LAB_NAME_MAX + 16];
	DIR *d = opendir("/proc");
	struct dirent *e;
	pid_t pid = 0;

	report_path(g, h, report, sizeof(report));
	while (!pid && (e = readdir(d)))
		if (isdigit((unsigned char)e->d_name[0]) && is_it(atoi(e->d_name), report))
			pid = atoi(e->d_name);
	closedir(d);
	return pid;
}

void lab_guest_toggle_pause(struct lab_guest *g)
{
	bool was = lab_guest_report(g).paused;

	signal_guest(g, SIGUSR2);
	lab_until(g->lab, 5000, lab_guest_report(g).paused != was, "it does not heed its own wish");
}

void lab_guest_grow(struct lab_guest *g, struct lab_host *h)
{
	pid_t pid = lab_guest_pid(g, h);

	lab_check(g->lab, read_report(g, h).grown == 0, "it uses all of its memory already");
	lab_check(g->lab, pid > 0 && kill(pid, SIGWINCH) == 0, "the guest is gone");
	lab_until(g->lab, 5000, read_report(g, h).grown > 0, "it does not use more memory");
}

/* Wait for a report that was written later than now. */
static void next_report(struct lab_guest *g)
{
	uint64_t was = lab_guest_report(g).counter;

	lab_until(g->lab, 5000, lab_guest_report(g).counter != was, "no new report");
}

void lab_guest_calm(struct lab_guest *g)
{
	signal_guest(g, SIGHUP);
	next_report(g); /* which may have been under way */
	next_report(g);
}

bool lab_guest_tracked(struct lab_guest *g)
{
	char path[64], *text;
	bool tracked;

	snprintf(path, sizeof(path), "/proc/%d/smaps", lab_guest_pid(g, g->at));
	text = lab_read_file(path);
	/* VmFlags: "uw" is write protection by userfaultfd. */
	tracked = text && strstr(text, " uw ");
	free(text);
	return tracked;
}

/* Its threads may be halting still when it says paused. */
static bool stands(struct lab_guest *g, struct lab_host *h)
{
	struct lab_report r = read_report(g, h);

	return r.paused && r.counter == r.counter_at_pause;
}

void lab_guest_stands(struct lab_guest *g, struct lab_host *h)
{
	lab_until(g->lab, 5000, stands(g, h), "it is not paused on %s", h->name);
}

void lab_guest_abandon(struct lab_guest *g)
{
	for (size_t i = 0; i < g->lab->n_hosts; i++) {
		pid_t pid = lab_guest_pid(g, g->lab->hosts[i]);

		if (pid)
			kill(pid, SIGKILL);
		lab_until(g->lab, 10000, !lab_guest_pid(g, g->lab->hosts[i]), "it lives on");
	}
}

void lab_guest_end(struct lab_guest *g)
{
	for (size_t i = 0; i < g->lab->n_hosts; i++) {
		pid_t pid = lab_guest_pid(g, g->lab->hosts[i]);

		if (pid)
			kill(pid, SIGTERM);
		lab_until(g->lab, 10000, !lab_guest_pid(g, g->lab->hosts[i]), "it does not end");
	}
	if (g->proc)
		lab_check(g->lab,
			  lab_proc_wait(g->lab, g->proc, 5000) == 0 ||
				  g->proc->status == 128 + SIGKILL,
			  "the guest ended with %d", g->proc->status);
}
