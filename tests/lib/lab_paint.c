/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/lab_paint.h"
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "lib/lab_job.h"

#define TEXT_(x) #x
#define TEXT(x)  TEXT_(x)
#define THREADS  TEXT(PAINT_THREADS)

static char *conf(struct lab *lab, const char *mb, const char *sleep_us)
{
	json_t *o = json_pack("{s:{s:{s:s, s:[o, s, s, o, s, s, s]}}}", "launchers", "paint",
			      "driver", "native", "argv",
			      json_sprintf("%s/guests/paint", lab->tests), "{name}", "{attach}",
			      json_sprintf("%s/{name}.arrived", lab->root), mb, THREADS, sleep_us);
	char *text = json_dumps(o, 0);

	json_decref(o);
	return text;
}

static void describe(struct paint_world *w)
{
	char path[LAB_PATH_MAX + 32];

	snprintf(path, sizeof(path), "%s/paint.json", w->lab->root);
	lab_write_file(w->lab, path,
		       "{\"name\": \"paint\", \"driver\": \"native\", \"launcher\": \"paint\"}");
	lab_check(w->lab,
		  !lab_decant(w->a, 10000, NULL, NULL, (const char *const[]){"add", path, NULL}),
		  "decant add");
}

struct paint_world paint_world(struct lab *lab, const char *mb, const char *sleep_us)
{
	struct paint_world w = {.lab = lab};
	char program[LAB_PATH_MAX + 32], report[LAB_PATH_MAX + 32];
	char *text = conf(w.lab, mb, sleep_us);

	w.a = lab_host_start(w.lab, &(struct lab_host_opts){.name = "a"});
	w.b = lab_host_start(w.lab, &(struct lab_host_opts){.name = "b", .dest_conf = text});
	free(text);
	describe(&w);
	snprintf(program, sizeof(program), "%s/guests/paint", w.lab->tests);
	snprintf(report, sizeof(report), "%s/paint.started", w.lab->root);
	w.guest = lab_spawn(w.lab, NULL, "paint",
			    (const char *const[]){program, "paint", w.a->attach, report, mb,
						  THREADS, sleep_us, NULL});
	lab_until(w.lab, 10000, !access(report, F_OK), "the guest does not start");
	lab_host_knows(w.a, "paint");
	return w;
}

struct lab_proc *paint_migrate(struct paint_world *w, const char *mode, const char *rate)
{
	return lab_decant_begin(w->a,
				(const char *[]){"migrate", "paint", "--to", w->b->to, "--mode",
						 mode, "--bandwidth", rate, "--wait", NULL});
}

json_t *paint_report(struct paint_world *w)
{
	char path[LAB_PATH_MAX + 32];

	snprintf(path, sizeof(path), "%s/paint.arrived", w->lab->root);
	return json_load_file(path, 0, NULL);
}

long paint_said(struct paint_world *w, const char *what)
{
	json_t *o = paint_report(w);
	long n = 0;

	if (o && json_is_true(lab_at(o, what)))
		n = 1;
	else if (o)
		n = (long)json_integer_value(lab_at(o, what));
	json_decref(o);
	return n;
}

bool paint_phase_is(struct paint_world *w, const char *phase)
{
	json_t *o = lab_incoming_newest(w->b);
	bool yes = o && !strcmp(lab_str(w->lab, o, "phase"), phase);

	json_decref(o);
	return yes;
}
