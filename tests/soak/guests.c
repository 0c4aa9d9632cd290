/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The guests: tests/guests/stamp, which writes and verifies pages, and tests/guests/shift, which gives
 * memory back, punches holes and forks besides.
 */
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include "lib/lab_job.h"
#include "soak/world.h"

#define START_MS  20000
#define VERIFY_MS 60000
#define KEEP_S    10

/* --- stamp --- */

static void stamp_arrived(struct soak_world *w, struct soak_guest *g, struct lab_host *h)
{
	(void)w;
	lab_guest_arrived(g->g, h);
}

static void stamp_stayed(struct soak_world *w, struct soak_guest *g)
{
	(void)w;
	lab_guest_verified(g->g);
}

static pid_t native_pid(struct soak_world *w, struct soak_guest *g, struct lab_host *h)
{
	(void)w;
	return lab_guest_pid(g->g, h);
}

static const struct soak_kind stamp = {stamp_arrived, stamp_stayed, native_pid};

static void stamp_start(struct soak_world *w, const struct lab_guest_opts *o)
{
	struct soak_guest *g = &w->guests[w->nguests++];

	g->kind = &stamp;
	g->g = lab_guest_start(w->hosts[0], o);
	g->bytes = (uint64_t)o->mb << 20;
	g->files = o->kind == LAB_ANON ? 0 : o->blocks ? o->blocks : 1;
}

/* --- shift --- */

/* Where it says what it has seen, on each host: the lab finds its process by this word. */
static void shift_report(struct soak_guest *g, struct lab_host *h, char *out, size_t n)
{
	snprintf(out, n, "%s/%s.report", h->dir, g->g->name);
}

/* Return: a number that it said where it is; -1 if there is none */
static double shift_said(struct soak_guest *g, const char *what)
{
	char path[LAB_PATH_MAX + LAB_NAME_MAX + 16];
	double n = -1;
	json_t *o;

	shift_report(g, g->g->at, path, sizeof(path));
	o = json_load_file(path, 0, NULL);
	/* What its last process here left behind counts for nothing. */
	if (o && json_integer_value(lab_at(o, "pid")) == lab_guest_pid(g->g, g->g->at))
		n = lab_num(g->g->lab, o, what);
	json_decref(o);
	return n;
}

static void shift_stayed(struct soak_world *w, struct soak_guest *g)
{
	double rounds = shift_said(g, "rounds"), given = shift_said(g, "given");
	struct lab *lab = w->lab;

	/* One verification may have begun before. */
	lab_until(lab, VERIFY_MS, shift_said(g, "rounds") >= (rounds > 0 ? rounds : 0) + 2,
		  "%s does not verify its memory", g->g->name);
	lab_until(lab, VERIFY_MS, shift_said(g, "given") > given, "%s gives nothing back",
		  g->g->name);
	lab_check(lab, shift_said(g, "bad") == 0, "%.0f bad pages of %s", shift_said(g, "bad"),
		  g->g->name);
}

static void shift_arrived(struct soak_world *w, struct soak_guest *g, struct lab_host *h)
{
	struct lab *lab = g->g->lab;
	struct lab_host *from = g->g->at;

	g->g->at = h;
	lab_until(lab, START_MS, !lab_guest_pid(g->g, from), "%s at %s lives on", g->g->name,
		  from->name);
	g->g->proc = NULL;
	lab_until(lab, VERIFY_MS, shift_said(g, "rounds") > 0, "%s does not arrive", g->g->name);
	shift_stayed(w, g);
	/* All of it is here: from now on its file may be punched again. */
	kill(lab_guest_pid(g->g, h), SIGHUP);
}

static const struct soak_kind shift = {shift_arrived, shift_stayed, native_pid};

static void shift_describe(struct soak_world *w, const char *name, const char *kind, const char *mb)
{
	char path[LAB_PATH_MAX + LAB_NAME_MAX + 16];
	json_t *desc = json_pack("{s:s, s:s, s:s, s:{s:s, s:s}}", "name", name, "driver", "native",
				 "launcher", "shift", "vars", "kind", kind, "mb", mb);

	snprintf(path, sizeof(path), "%s/%s.json", w->lab->root, name);
	lab_check(w->lab, json_dump_file(desc, path, 0) == 0, "%s: %m", path);
	json_decref(desc);
	lab_check(w->lab,
		  lab_decant(w->hosts[0], 10000, NULL, NULL, (const char *[]){"add", path, NULL}) ==
			  0,
		  "decant add %s", path);
}

static void shift_start(struct soak_world *w, const char *name, const char *kind, const char *mb)
{
	struct soak_guest *g = &w->guests[w->nguests++];
	char program[LAB_PATH_MAX + 32], report[LAB_PATH_MAX + LAB_NAME_MAX + 16];

	g->kind = &shift;
	g->g = calloc(1, sizeof(*g->g));
	g->g->lab = w->lab;
	g->g->at = w->hosts[0];
	snprintf(g->g->name, sizeof(g->g->name), "%s", name);
	g->bytes = strtoull(mb, NULL, 10) << 20;
	g->files = strcmp(kind, "anon") != 0;
	w->lab->guests[w->lab->n_guests++] = g->g;
	shift_describe(w, name, kind, mb);
	snprintf(program, sizeof(program), "%s/guests/shift", w->lab->tests);
	shift_report(g, w->hosts[0], report, sizeof(report));
	lab_spawn(
		w->lab, NULL, name,
		(const char *const[]){program, name, w->hosts[0]->attach, report, kind, mb, NULL});
	lab_until(w->lab, START_MS, shift_said(g, "rounds") >= 1, "%s does not start", name);
	lab_host_knows(w->hosts[0], name);
}

/* --- all of them --- */

char *soak_guests_conf(struct soak_world *w, unsigned int host)
{
	json_t *all =
		json_pack("{s:{s:s, s:[o, s, s, o, s, s]}}", "shift", "driver", "native", "argv",
			  json_sprintf("%s/guests/shift", w->lab->tests), "{name}", "{attach}",
			  json_sprintf("%s/%s/{name}.report", w->lab->root, host ? "b" : "a"),
			  "{var:kind}", "{var:mb}");
	json_t *conf;
	char *text;

	if (w->vm)
		json_object_set_new(all, "vm", soak_vm_launcher(w, host));
	/* A source that gave up while nothing got through was not heard: its half is kept for so long. */
	conf = json_pack("{s:o, s:{s:i}}", "launchers", all, "limits", "interrupted_s", KEEP_S);
	text = json_dumps(conf, 0);
	json_decref(conf);
	return text;
}

/* In full runs the third one is large. */
void soak_guests_start(struct soak_world *w)
{
	if (w->vm)
		soak_vm_start(w);
	stamp_start(w, &(struct lab_guest_opts){.name = "stamp", .mb = 16, .writes = 2000});
	stamp_start(w, &(struct lab_guest_opts){.name = "private",
						.mb = 8,
						.kind = LAB_ANON,
						.threads = 3,
						.writes = 1000});
	if (!w->o->quick && !w->vm)
		stamp_start(w, &(struct lab_guest_opts){.name = "large",
							.mb = 96,
							.blocks = 4,
							.zeros = 30,
							.writes = 2000});
	shift_start(w, "shift", "memfd", "8");
	if (!w->o->quick && !w->vm)
		shift_start(w, "shift-private", "anon", "8");
}
