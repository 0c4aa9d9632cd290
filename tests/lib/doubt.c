/* SPDX-License-Identifier: Apache-2.0 */
#include <dirent.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "lib/doubt.h"
#include "util/journal.h"

#define MB 16
/* To be met in post-copy: its guest asks for all pages at once, and has 16 MiB in half a second. */
#define POSTCOPY_MB     64
#define ANOTHER_BOOT_ID "33333333-3333-4333-8333-333333333333"

void doubt_note_id(struct doubt *s)
{
	json_t *job;

	lab_until(s->lab, 10000, lab_job_phase_is(s->a, "setup") || lab_job_newest(s->a),
		  "there is no job");
	job = lab_job_newest(s->a);
	snprintf(s->id, sizeof(s->id), "%s", lab_str(s->lab, job, "id"));
	json_decref(job);
}

struct doubt doubt_begin(struct lab *lab, const struct doubt_setting *t)
{
	char *fault = t->action ? lab_fault(t->point, t->action) : NULL;
	bool source = t->action && lab_faultpoint_at_source(t->point);
	struct doubt s = {.lab = lab,
			  .move = {.mode = t->mode, .args = {"--bandwidth", "160Mbit"}, .exit = 1}};

	lab_fault_agents(s.lab);
	s.a = lab_host_start(
		s.lab, &(struct lab_host_opts){.name = "a", .source_fault = source ? fault : NULL});
	s.b = lab_host_start(
		s.lab, &(struct lab_host_opts){.name = "b", .dest_fault = source ? NULL : fault});
	free(fault);
	s.relay = lab_relay_new(s.b);
	s.g = lab_guest_start(
		s.a, &(struct lab_guest_opts){
			     .mb = !t->action && !strcmp(t->mode, "postcopy") ? POSTCOPY_MB : MB,
			     .threads = 2,
			     .writes = 400,
			     .keep = t->keep});
	s.p = lab_migrate_begin(s.a, s.b, s.g, &s.move);
	return s;
}

void doubt_end(struct doubt *s)
{
	lab_proc_kill(s->lab, s->p);
	lab_relay_free(s->relay);
	lab_end(s->lab);
}

json_t *doubt_job(struct doubt *s)
{
	return lab_job_newest(s->a);
}

bool doubt_says(struct doubt *s, const char *path, const char *text)
{
	json_t *m = doubt_job(s);
	const char *is = json_string_value(lab_at(m, path));
	bool r = is && !strcmp(is, text);

	json_decref(m);
	return r;
}

bool doubt_true(struct doubt *s, const char *path)
{
	json_t *m = doubt_job(s);
	bool r = json_is_true(lab_at(m, path));

	json_decref(m);
	return r;
}

int doubt_order(struct doubt *s, const char *const args[], char **ret_err)
{
	return lab_decant(s->a, 20000, NULL, ret_err, args);
}

int doubt_resolve(struct doubt *s, const char *keep, const char *confirm)
{
	return doubt_order(s,
			   (const char *[]){"resolve", s->id, "--keep", keep,
					    confirm ? "--confirm" : NULL, confirm, NULL},
			   NULL);
}

void doubt_resolved(struct doubt *s, const char *keep)
{
	char *err = NULL;
	int r = doubt_order(
		s, (const char *[]){"resolve", s->id, "--keep", keep, "--confirm", s->id, NULL},
		&err);

	lab_check(s->lab, r == 0, "resolve --keep %s: %d, %s", keep, r, err);
	free(err);
}

void doubt_still(struct doubt *s, struct lab_host *h)
{
	uint64_t before = lab_guest_counter(s->g, h), until = lab_now_ms() + 500;

	for (; lab_now_ms() < until; lab_nap())
		lab_check(s->lab, lab_guest_counter(s->g, h) == before, "it runs at %s", h->name);
}

void doubt_stands(struct doubt *s, struct lab_host *h)
{
	lab_guest_stands(s->g, h);
	doubt_still(s, h);
}

static bool is_attached(struct doubt *s)
{
	char path[LAB_NAME_MAX + 16];
	json_t *g;
	bool r;

	snprintf(path, sizeof(path), "/v1/guests/%s", s->g->name);
	g = lab_get(s->lab, s->a->source_sock, path);
	r = json_is_true(lab_at(g, "attached"));
	json_decref(g);
	return r;
}

void doubt_attached(struct doubt *s)
{
	lab_until(s->lab, 10000, is_attached(s), "the guest does not attach");
}

void doubt_runs(struct doubt *s, struct lab_host *h)
{
	uint64_t before = lab_guest_counter(s->g, h);

	lab_until(s->lab, 20000, lab_guest_counter(s->g, h) > before, "it does not run at %s",
		  h->name);
}

void doubt_said(struct doubt *s, const char *why)
{
	char *out = NULL, *err = NULL;
	json_t *m;

	doubt_until(s, "phase", "in-doubt");
	if (why)
		lab_until(s->lab, 10000, doubt_says(s, "recovery.last_error.code", why),
			  "not said: %s", why);
	m = doubt_job(s);
	lab_check(s->lab, !strcmp(lab_str(s->lab, m, "owner"), "in-doubt"), "owner");
	lab_str(s->lab, m, "recovery.why.message");
	lab_check(s->lab, lab_at(m, "recovery.next_attempt_at"), "next attempt");
	lab_str(s->lab, m, "resolve.source");
	lab_str(s->lab, m, "resolve.destination");
	json_decref(m);
	lab_check(s->lab,
		  lab_decant(s->a, 10000, &out, NULL, (const char *[]){"status", NULL}) == 0,
		  "status");
	lab_check(s->lab,
		  strstr(out, "is in-doubt: ") && strstr(out, " is asked ") &&
			  strstr(out, "decant resolve "),
		  "status says: %s", out);
	lab_check(s->lab,
		  doubt_order(s, (const char *[]){"cancel", s->id, NULL}, &err) == 3 &&
			  strstr(err, "cannot be cancelled any more"),
		  "cancel: %s", err);
	free(out);
	free(err);
	doubt_stands(s, s->a);
}

void doubt_other_boot(struct lab *lab, const char *dir)
{
	char path[LAB_PATH_MAX + 300], other[LAB_PATH_MAX + 320];
	struct error err = {0};
	struct dirent *e;
	DIR *d = opendir(dir);

	lab_check(lab, d, "%s: %m", dir);
	while ((e = readdir(d))) {
		struct journal *from, *to;
		json_t *records, *rec;
		size_t i;

		if (e->d_name[0] == '.' || strstr(e->d_name, ".new"))
			continue;
		snprintf(path, sizeof(path), "%s/%s", dir, e->d_name);
		snprintf(other, sizeof(other), "%s.new", path);
		lab_check(lab, !journal_open(path, &from, &records, &err), "%s", err.msg);
		lab_check(lab, !journal_open(other, &to, NULL, &err), "%s", err.msg);
		json_array_foreach(records, i, rec) {
			if (json_object_get(rec, "boot"))
				json_object_set_new(rec, "boot", json_string(ANOTHER_BOOT_ID));
			lab_check(lab, !journal_append(to, rec, &err), "%s", err.msg);
		}
		json_decref(records);
		journal_close(from);
		journal_close(to);
		lab_check(lab, !rename(other, path), "%m");
	}
	closedir(d);
}

void doubt_reboot(struct doubt *s)
{
	char dir[LAB_PATH_MAX + 32], cmd[LAB_PATH_MAX + 300];
	pid_t pid = lab_guest_pid(s->g, s->b);

	if (pid)
		kill(pid, SIGKILL);
	lab_until(s->lab, 5000, !lab_guest_pid(s->g, s->b), "it lives");
	snprintf(dir, sizeof(dir), "%s/state/incoming", s->b->dir);
	doubt_other_boot(s->lab, dir);
	snprintf(cmd, sizeof(cmd), "rm -f %s/run/pages.*", s->b->dir);
	lab_check(s->lab, system(cmd) == 0, "%s", cmd);
}

void doubt_lose_journal(struct doubt *s)
{
	char cmd[LAB_PATH_MAX + 64];
	pid_t pid = lab_guest_pid(s->g, s->b);

	snprintf(cmd, sizeof(cmd), "rm -r %s/state/incoming", s->b->dir);
	lab_check(s->lab, system(cmd) == 0, "%s", cmd);
	/* Nobody knows this one any more, so nobody would end it. */
	if (pid)
		kill(pid, SIGKILL);
}

struct doubt doubt_begin_in(struct lab *lab, enum faultpoint point, const char *mode, bool keep)
{
	struct doubt s = doubt_begin(
		lab, &(struct doubt_setting){
			     .mode = mode, .point = point, .action = "kill", .keep = keep});

	lab_fault_killed(s.lab, s.b->dest, 20000);
	doubt_note_id(&s);
	doubt_until(&s, "phase", "in-doubt");
	return s;
}
