/* SPDX-License-Identifier: Apache-2.0 */
/*
 * In doubt: the connection is lost, or agents end, around COMMIT, and whichever side comes back first, asking
 * settles it; where nobody can be asked any more an operator decides with `decant resolve`, and whoever comes back
 * later is told. Always the guest runs in one place, and if two copies of it have run, both sides say so.
 */
#include <dirent.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "lib/lab_matrix.h"
#include "lib/lab_relay.h"
#include "lib/lab_test.h"
#include "util/journal.h"

TestSuite(doubt, .timeout = 120);

#define MB 16

/** struct scene - a migration around its hand-over */
struct scene {
	struct lab *lab;
	struct lab_host *a, *b;
	struct lab_relay *relay;
	struct lab_guest *g;
	struct lab_proc *p;
	struct lab_move move;
	char id[40];
};

/**
 * struct setting - how a scene begins
 * @mode:	of the migration
 * @point, @action: what happens to the agent of that point
 * @keep:	disposal "keep"
 */
struct setting {
	const char *mode;
	enum faultpoint point;
	const char *action;
	bool keep;
};

static bool at_source(enum faultpoint p)
{
	return !strcmp(lab_faultpoint_agent(p), "source");
}

static void note_id(struct scene *s)
{
	json_t *job;

	lab_until(s->lab, 10000, lab_job_phase_is(s->a, "setup") || lab_job_newest(s->a),
		  "there is no job");
	job = lab_job_newest(s->a);
	snprintf(s->id, sizeof(s->id), "%s", lab_str(s->lab, job, "id"));
	json_decref(job);
}

static struct scene begin(const struct setting *t)
{
	char *fault = t->action ? lab_fault(t->point, t->action) : NULL;
	bool source = t->action && at_source(t->point);
	struct scene s = {.lab = lab_new(lab_test_failed),
			  .move = {.mode = t->mode, .args = {"--bandwidth", "160Mbit"}, .exit = 1}};

	lab_fault_agents(s.lab);
	s.a = lab_host_start(
		s.lab, &(struct lab_host_opts){.name = "a", .source_fault = source ? fault : NULL});
	s.b = lab_host_start(
		s.lab, &(struct lab_host_opts){.name = "b", .dest_fault = source ? NULL : fault});
	free(fault);
	s.relay = lab_relay_new(s.b);
	s.g = lab_guest_start(s.a, &(struct lab_guest_opts){
					   .mb = MB, .threads = 2, .writes = 400, .keep = t->keep});
	s.p = lab_migrate_begin(s.a, s.b, s.g, &s.move);
	return s;
}

static void end(struct scene *s)
{
	lab_proc_kill(s->lab, s->p);
	lab_relay_free(s->relay);
	lab_end(s->lab);
}

static json_t *job(struct scene *s)
{
	return lab_job_newest(s->a);
}

static bool says(struct scene *s, const char *path, const char *text)
{
	json_t *m = job(s);
	const char *is = json_string_value(lab_at(m, path));
	bool r = is && !strcmp(is, text);

	json_decref(m);
	return r;
}

static bool is_true(struct scene *s, const char *path)
{
	json_t *m = job(s);
	bool r = json_is_true(lab_at(m, path));

	json_decref(m);
	return r;
}

#define until_says(s, path, text) \
	lab_until((s)->lab, 20000, says(s, path, text), "the job's %s is not %s", path, text)

static int order(struct scene *s, const char *const args[], char **ret_err)
{
	return lab_decant(s->a, 20000, NULL, ret_err, args);
}

/* Return: the exit code; @confirm may be NULL */
static int resolve(struct scene *s, const char *keep, const char *confirm)
{
	return order(s,
		     (const char *[]){"resolve", s->id, "--keep", keep,
				      confirm ? "--confirm" : NULL, confirm, NULL},
		     NULL);
}

static void resolved(struct scene *s, const char *keep)
{
	char *err = NULL;
	int r = order(s,
		      (const char *[]){"resolve", s->id, "--keep", keep, "--confirm", s->id, NULL},
		      &err);

	lab_check(s->lab, r == 0, "resolve --keep %s: %d, %s", keep, r, err);
	free(err);
}

/* Nothing runs there for as long as one would see it. */
static void still(struct scene *s, struct lab_host *h)
{
	uint64_t before = lab_guest_counter(s->g, h), until = lab_now_ms() + 500;

	for (; lab_now_ms() < until; lab_nap())
		lab_check(s->lab, lab_guest_counter(s->g, h) == before, "it runs at %s", h->name);
}

static void stands(struct scene *s, struct lab_host *h)
{
	lab_guest_stands(s->g, h);
	still(s, h);
}

static bool is_attached(struct scene *s)
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

/* To an agent that has been started again. */
static void attached(struct scene *s)
{
	lab_until(s->lab, 10000, is_attached(s), "the guest does not attach");
}

static void runs(struct scene *s, struct lab_host *h)
{
	uint64_t before = lab_guest_counter(s->g, h);

	lab_until(s->lab, 20000, lab_guest_counter(s->g, h) > before, "it does not run at %s",
		  h->name);
}

/* --- settled by asking --- */

/**
 * struct lost_row - the connection is lost at a point, and what comes of it
 * @restart:	the source's agent is killed, too, and started again
 */
struct lost_row {
	enum faultpoint point;
	unsigned int mode;
	bool restart;
	bool moves;
	bool quick;
};

static const char *const modes[] = {"precopy", "hybrid", "postcopy"};

#define LOST(point, moves, quick)                             \
	{FAULTPOINT_##point, 0, false, moves, false},         \
		{FAULTPOINT_##point, 1, false, moves, quick}, \
	{                                                     \
		FAULTPOINT_##point, 2, true, moves, false     \
	}

static struct lost_row lost_rows[] = {
	LOST(COMMIT_QUEUED, false, true),   LOST(COMMIT_SENT, true, false),
	LOST(COMMIT_RECEIVED, true, false), LOST(OWNER_MARKED, true, false),
	LOST(GUEST_LET_GO, true, false),    LOST(RUNNING_SENT, true, false),
};

ParameterizedTestParameters(doubt, lost)
{
	static struct lost_row picked[LAB_COUNT(lost_rows)];
	size_t n = 0;

	for (size_t i = 0; i < LAB_COUNT(lost_rows); i++)
		if (lab_matrix_pick(i, lost_rows[i].quick))
			picked[n++] = lost_rows[i];
	return cr_make_param_array(struct lost_row, picked, n);
}

/* As if nothing had happened: it can be moved again. */
static void goes_on_here(struct scene *s)
{
	lab_host_knows(s->a, s->g->name);
	runs(s, s->a);
	lab_guest_verified(s->g);
	lab_until(s->lab, 15000, lab_host_guests(s->b) == 0,
		  "a guest that never ran stays at the destination");
}

static void moved(struct scene *s)
{
	json_t *m = job(s);

	lab_check(s->lab, lab_num(s->lab, m, "downtime_us") > 0, "no downtime");
	lab_check(s->lab, !strcmp(lab_str(s->lab, m, "owner"), "destination"), "owner");
	json_decref(m);
	lab_guest_arrived(s->g, s->b);
}

ParameterizedTest(struct lost_row *r, doubt, lost)
{
	char fault[96];
	struct lab_row row = {
		.fault = fault, .phase = "switchover", .mode = modes[r->mode], .driver = "native"};
	bool source = at_source(r->point);
	struct lab_proc *agent;
	struct scene s;

	snprintf(fault, sizeof(fault), "connection lost at %s%s", lab_faultpoint_name(r->point),
		 r->restart ? ", source killed" : "");
	lab_matrix_begin(&row);
	s = begin(&(struct setting){.mode = modes[r->mode], .point = r->point, .action = "stop"});
	agent = source ? s.a->source : s.b->dest;
	lab_fault_stopped(s.lab, agent, 20000);
	lab_relay_cut(s.relay);
	if (r->restart) {
		lab_proc_kill(s.lab, s.a->source);
		lab_host_source_start(s.a);
	}
	if (!r->restart || !source)
		kill(agent->pid, SIGCONT);
	lab_until(s.lab, 30000,
		  lab_job_phase_is(s.a, "failed") || lab_job_phase_is(s.a, "completed"),
		  "it does not come to an end");
	lab_check(s.lab, lab_job_phase_is(s.a, "completed") == r->moves, "where it is");
	if (r->moves)
		moved(&s);
	else
		goes_on_here(&s);
	end(&s);
	lab_matrix_end(&row, r->moves ? "moved" : "stayed");
}

/** struct back_row - both agents have ended, and one comes back long before the other */
struct back_row {
	enum faultpoint point;
	bool source_first;
	bool moves;
	bool quick;
};

static struct back_row back_rows[] = {
	{FAULTPOINT_COMMIT_RECEIVED, true, false, false},
	{FAULTPOINT_COMMIT_RECEIVED, false, false, false},
	{FAULTPOINT_OWNER_MARKED, true, true, true},
	{FAULTPOINT_OWNER_MARKED, false, true, false},
	{FAULTPOINT_GUEST_LET_GO, true, true, false},
	{FAULTPOINT_GUEST_LET_GO, false, true, false},
};

ParameterizedTestParameters(doubt, back)
{
	static struct back_row picked[LAB_COUNT(back_rows)];
	size_t n = 0;

	for (size_t i = 0; i < LAB_COUNT(back_rows); i++)
		if (lab_matrix_pick(i, back_rows[i].quick))
			picked[n++] = back_rows[i];
	return cr_make_param_array(struct back_row, picked, n);
}

/* It is said why, when it is asked next, what can be done; and nothing can be undone. @why: code, or NULL */
static void doubts(struct scene *s, const char *why)
{
	char *out = NULL, *err = NULL;
	json_t *m;

	until_says(s, "phase", "in-doubt");
	if (why)
		lab_until(s->lab, 10000, says(s, "recovery.last_error.code", why), "not said: %s",
			  why);
	m = job(s);
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
		  order(s, (const char *[]){"cancel", s->id, NULL}, &err) == 3 &&
			  strstr(err, "cannot be cancelled any more"),
		  "cancel: %s", err);
	free(out);
	free(err);
	stands(s, s->a);
}

ParameterizedTest(struct back_row *r, doubt, back)
{
	char fault[96];
	struct lab_row row = {
		.fault = fault, .phase = "switchover", .mode = "hybrid", .driver = "native"};
	struct scene s;

	snprintf(fault, sizeof(fault), "both killed at %s, %s back first",
		 lab_faultpoint_name(r->point), r->source_first ? "source" : "dest");
	lab_matrix_begin(&row);
	s = begin(&(struct setting){.mode = "hybrid", .point = r->point, .action = "kill"});
	lab_fault_killed(s.lab, s.b->dest, 20000);
	note_id(&s);
	lab_proc_kill(s.lab, s.a->source);
	if (r->source_first) {
		lab_host_source_start(s.a);
		attached(&s);
		doubts(&s, NULL);
		lab_host_dest_start(s.b);
	} else {
		lab_host_dest_start(s.b);
		if (r->moves)
			lab_until(s.lab, 10000, lab_guest_counter(s.g, s.b), "it says nothing");
		lab_host_source_start(s.a);
	}
	lab_until(s.lab, 30000,
		  lab_job_phase_is(s.a, "failed") || lab_job_phase_is(s.a, "completed"),
		  "it does not come to an end");
	lab_check(s.lab, lab_job_phase_is(s.a, "completed") == r->moves, "where it is");
	if (r->moves) {
		lab_check(s.lab, is_true(&s, "downtime_at_most"), "as if it had been measured");
		moved(&s);
	} else {
		goes_on_here(&s);
	}
	end(&s);
	lab_matrix_end(&row, r->moves ? "moved" : "stayed");
}

/* --- decided by an operator --- */

/* What the destination knows is of another boot: so are its guests, and what was in its run directory. */
static void as_after_a_reboot(struct scene *s)
{
	char dir[LAB_PATH_MAX + 32], path[LAB_PATH_MAX + 300], other[LAB_PATH_MAX + 320];
	pid_t pid = lab_guest_pid(s->g, s->b);
	struct error err = {0};
	struct dirent *e;
	DIR *d;

	if (pid)
		kill(pid, SIGKILL);
	lab_until(s->lab, 5000, !lab_guest_pid(s->g, s->b), "it lives");
	snprintf(dir, sizeof(dir), "%s/state/incoming", s->b->dir);
	d = opendir(dir);
	lab_check(s->lab, d, "%s: %m", dir);
	while ((e = readdir(d))) {
		struct journal *from, *to;
		json_t *records, *rec;
		size_t i;

		if (e->d_name[0] == '.' || strstr(e->d_name, ".new"))
			continue;
		snprintf(path, sizeof(path), "%s/%s", dir, e->d_name);
		snprintf(other, sizeof(other), "%s.new", path);
		lab_check(s->lab, !journal_open(path, &from, &records, &err), "%s", err.msg);
		lab_check(s->lab, !journal_open(other, &to, NULL, &err), "%s", err.msg);
		json_array_foreach(records, i, rec) {
			json_object_set_new(rec, "boot",
					    json_string("33333333-3333-4333-8333-333333333333"));
			lab_check(s->lab, !journal_append(to, rec, &err), "%s", err.msg);
		}
		json_decref(records);
		journal_close(from);
		journal_close(to);
		lab_check(s->lab, !rename(other, path), "%m");
	}
	closedir(d);
	snprintf(path, sizeof(path), "rm -f %s/run/pages.*", s->b->dir);
	lab_check(s->lab, system(path) == 0, "%s", path);
}

static void lose_journal(struct scene *s)
{
	char cmd[LAB_PATH_MAX + 64];
	pid_t pid = lab_guest_pid(s->g, s->b);

	snprintf(cmd, sizeof(cmd), "rm -r %s/state/incoming", s->b->dir);
	lab_check(s->lab, system(cmd) == 0, "%s", cmd);
	/* Nobody knows this one any more, so nobody would end it. */
	if (pid)
		kill(pid, SIGKILL);
}

/* The destination's agent has ended at @point, and the source is in doubt. */
static struct scene in_doubt(enum faultpoint point, const char *mode, bool keep)
{
	struct scene s = begin(
		&(struct setting){.mode = mode, .point = point, .action = "kill", .keep = keep});

	lab_fault_killed(s.lab, s.b->dest, 20000);
	note_id(&s);
	until_says(&s, "phase", "in-doubt");
	return s;
}

static void kept_here(struct scene *s)
{
	until_says(s, "phase", "failed");
	lab_check(s->lab, says(s, "owner", "source"), "owner");
	lab_check(s->lab, says(s, "error.code", "resolved"), "the error");
	lab_check(s->lab, says(s, "resolution.keep", "source"), "the decision");
	runs(s, s->a);
	lab_check(s->lab, resolve(s, "source", s->id) == 3, "it is still to be decided");
	lab_check(s->lab, resolve(s, "destination", s->id) == 3, "it can be given up");
}

static void destination_says(struct scene *s, const char *answer, bool conflict)
{
	until_says(s, "resolution.destination_said", answer);
	lab_check(s->lab, is_true(s, "resolution.conflict") == conflict, "conflict");
	lab_check(s->lab, says(s, "resolution.state", "done"), "it is still told");
}

/* With nothing decided there: it never runs. */
static void told_and_never_ran(struct scene *s, const char *answer)
{
	destination_says(s, answer, false);
	lab_until(s->lab, 15000, lab_host_guests(s->b) == 0, "a guest stays at the destination");
	runs(s, s->a);
	lab_guest_verified(s->g);
}

static void conflict_is_loud(struct scene *s)
{
	json_t *inc;
	char *out = NULL;
	pid_t pid;

	lab_until(s->lab, 20000, lab_proc_said(s->lab, s->b->dest, "CONFLICT: guest "),
		  "the destination is silent");
	lab_until(s->lab, 5000, lab_proc_said(s->lab, s->a->source, "CONFLICT: migration "),
		  "the source is silent");
	lab_check(s->lab, is_true(s, "resolution.conflict"), "the job is silent");
	lab_check(s->lab,
		  lab_decant(s->a, 10000, &out, NULL, (const char *[]){"status", NULL}) == 0,
		  "status");
	lab_check(s->lab, strstr(out, "CONFLICT: "), "status says: %s", out);
	free(out);
	inc = lab_incoming_newest(s->b);
	lab_check(s->lab, !strcmp(lab_str(s->lab, inc, "error.code"), "conflict"), "incoming");
	json_decref(inc);
	/* The one there is stopped, and is for an operator to end. */
	pid = lab_guest_pid(s->g, s->b);
	lab_check(s->lab, pid, "the copy at the destination was ended");
	still(s, s->b);
	runs(s, s->a);
	kill(pid, SIGKILL);
	lab_until(s->lab, 5000, !lab_guest_pid(s->g, s->b), "it lives");
}

/** enum decided - a case of an operator's decision */
enum decided {
	GONE_FOR_GOOD,
	NEVER_RAN,
	SOURCE_RESTARTED,
	ANOTHER_BOOT,
	ANOTHER_BOOT_OWNED,
	JOURNAL_LOST,
	CONFLICT,
	CONFLICT_RESTARTED,
	KEEP_DESTINATION,
	HELD,
	DIED_THERE,
	KEPT_COPY,
	KEPT_COPY_ENDED,
	DECIDED_COUNT_
};

static const struct {
	const char *fault;
	bool quick;
} decisions[] = {
	[GONE_FOR_GOOD] = {"destination gone for good", false},
	[NEVER_RAN] = {"destination back, had not run it", true},
	[SOURCE_RESTARTED] = {"source killed behind the decision", false},
	[ANOTHER_BOOT] = {"destination rebooted", true},
	[ANOTHER_BOOT_OWNED] = {"destination rebooted, had owned it", false},
	[JOURNAL_LOST] = {"destination's journal lost", false},
	[CONFLICT] = {"destination back, runs it", true},
	[CONFLICT_RESTARTED] = {"destination back, runs it, killed again", false},
	[KEEP_DESTINATION] = {"given up here", false},
	[HELD] = {"no way to the destination in post-copy", false},
	[DIED_THERE] = {"guest died at the destination", true},
	[KEPT_COPY] = {"copy kept here let go", false},
	[KEPT_COPY_ENDED] = {"copy kept here given up", false},
};

ParameterizedTestParameters(doubt, resolved)
{
	static enum decided picked[DECIDED_COUNT_];
	size_t n = 0;

	for (size_t i = 0; i < DECIDED_COUNT_; i++)
		if (lab_matrix_pick(i, decisions[i].quick))
			picked[n++] = (enum decided)i;
	return cr_make_param_array(enum decided, picked, n);
}

/* Neither without the id nor with another one; what is risked is said. */
static void wants_the_id(struct scene *s)
{
	char *err = NULL;

	lab_check(s->lab,
		  order(s, (const char *[]){"resolve", s->id, "--keep", "source", NULL}, &err) ==
				  3 &&
			  strstr(err, "two copies") && strstr(err, s->id),
		  "without the id: %s", err);
	free(err);
	lab_check(s->lab,
		  order(s, (const char *[]){"resolve", s->id, "--keep", "destination", NULL},
			&err) == 3 &&
			  strstr(err, "loss of the only copy"),
		  "without the id: %s", err);
	free(err);
	lab_check(s->lab, resolve(s, "source", "0123abcd") == 3, "with another id");
	lab_check(s->lab, says(s, "phase", "in-doubt"), "it was decided");
	stands(s, s->a);
}

static struct scene case_gone(void)
{
	struct scene s = in_doubt(FAULTPOINT_COMMIT_RECEIVED, "hybrid", false);
	pid_t pid = lab_guest_pid(s.g, s.b);

	doubts(&s, NULL);
	wants_the_id(&s);
	resolved(&s, "source");
	kept_here(&s);
	lab_check(s.lab, says(&s, "resolution.state", "telling"), "nobody is told");
	lab_guest_verified(s.g);
	if (pid)
		kill(pid, SIGKILL);
	/* For ever was not so long. */
	lab_host_dest_start(s.b);
	told_and_never_ran(&s, "not-started");
	return s;
}

/* @restart: the source's agent does not live to see it told */
static struct scene case_never_ran(bool restart)
{
	struct scene s = in_doubt(FAULTPOINT_COMMIT_RECEIVED, "hybrid", false);

	resolved(&s, "source");
	kept_here(&s);
	if (restart) {
		lab_proc_kill(s.lab, s.a->source);
		lab_host_source_start(s.a);
		attached(&s);
		kept_here(&s);
	}
	lab_host_dest_start(s.b);
	told_and_never_ran(&s, "not-started");
	return s;
}

/* Nobody can know: not a no, and nothing happens by itself. */
static struct scene case_unknown(enum decided which)
{
	struct scene s = in_doubt(which == ANOTHER_BOOT_OWNED ? FAULTPOINT_OWNER_MARKED
							      : FAULTPOINT_COMMIT_RECEIVED,
				  "hybrid", false);

	if (which == JOURNAL_LOST)
		lose_journal(&s);
	else
		as_after_a_reboot(&s);
	lab_host_dest_start(s.b);
	doubts(&s, "unknown-there");
	resolved(&s, "source");
	kept_here(&s);
	if (which == JOURNAL_LOST)
		lab_until(s.lab, 10000, says(&s, "resolution.last_error.code", "unknown-there"),
			  "as if it had been told");
	else
		told_and_never_ran(&s, "gone");
	return s;
}

/* The destination owned it all the time, and lets it go when it comes back, before it can be told. */
static struct scene case_conflict(bool restart)
{
	struct scene s = in_doubt(FAULTPOINT_OWNER_MARKED, "precopy", false);

	lab_relay_refuse(s.relay, true);
	lab_relay_cut(s.relay);
	resolved(&s, "source");
	kept_here(&s);
	lab_host_dest_start(s.b);
	runs(&s, s.b);
	lab_relay_refuse(s.relay, false);
	if (restart) {
		lab_until(s.lab, 20000, lab_proc_said(s.lab, s.b->dest, "CONFLICT: guest "),
			  "the destination is silent");
		lab_proc_kill(s.lab, s.b->dest);
		kill(lab_guest_pid(s.g, s.b), SIGCONT);
		lab_host_dest_start(s.b);
	}
	conflict_is_loud(&s);
	return s;
}

static void copy_is_gone(struct scene *s)
{
	lab_until(s->lab, 10000, !lab_guest_pid(s->g, s->a), "the copy here lives");
	lab_check(s->lab, resolve(s, "source", s->id) == 3, "a copy that is gone can be kept");
}

static struct scene case_keep_destination(void)
{
	struct scene s = in_doubt(FAULTPOINT_GUEST_LET_GO, "precopy", false);

	resolved(&s, "destination");
	until_says(&s, "phase", "failed");
	lab_check(s.lab, says(&s, "owner", "destination"), "owner");
	copy_is_gone(&s);
	lab_host_dest_start(s.b);
	lab_guest_arrived(s.g, s.b);
	return s;
}

/* In post-copy the pages are here, and the guest there waits: kept here, it goes on where it was paused. */
static struct scene case_held(void)
{
	struct scene s = begin(&(struct setting){.mode = "postcopy"});

	until_says(&s, "phase", "postcopy");
	note_id(&s);
	lab_check(s.lab, resolve(&s, "source", s.id) == 3, "there is no doubt");
	lab_relay_refuse(s.relay, true);
	lab_relay_cut(s.relay);
	until_says(&s, "phase", "paused");
	lab_check(s.lab, says(&s, "owner", "destination"), "owner");
	resolved(&s, "source");
	kept_here(&s);
	lab_relay_refuse(s.relay, false);
	conflict_is_loud(&s);
	return s;
}

static struct scene case_died(void)
{
	struct scene s = begin(&(struct setting){.mode = "postcopy"});

	until_says(&s, "phase", "postcopy");
	note_id(&s);
	kill(lab_guest_pid(s.g, s.b), SIGKILL);
	until_says(&s, "phase", "failed");
	lab_check(s.lab, says(&s, "owner", "destination"), "owner");
	lab_check(s.lab, says(&s, "error.code", "guest-gone"), "the error");
	stands(&s, s.a);
	/* Over a restart of the agent, too. */
	lab_proc_kill(s.lab, s.a->source);
	lab_host_source_start(s.a);
	attached(&s);
	stands(&s, s.a);
	resolved(&s, "source");
	until_says(&s, "owner", "source");
	destination_says(&s, "gone", false);
	runs(&s, s.a);
	lab_guest_verified(s.g);
	lab_check(s.lab, says(&s, "error.code", "guest-gone"), "the error is another one");
	return s;
}

static struct scene case_kept_copy(bool let_go)
{
	struct scene s = begin(&(struct setting){.mode = "hybrid", .keep = true});

	until_says(&s, "phase", "completed");
	note_id(&s);
	lab_check(s.lab, says(&s, "owner", "destination"), "owner");
	stands(&s, s.a);
	lab_guest_arrived(s.g, s.b);
	resolved(&s, let_go ? "source" : "destination");
	if (let_go) {
		until_says(&s, "owner", "source");
		conflict_is_loud(&s);
	} else {
		copy_is_gone(&s);
		runs(&s, s.b);
	}
	return s;
}

static struct scene play(enum decided which)
{
	switch (which) {
	case GONE_FOR_GOOD:
		return case_gone();
	case NEVER_RAN:
	case SOURCE_RESTARTED:
		return case_never_ran(which == SOURCE_RESTARTED);
	case CONFLICT:
	case CONFLICT_RESTARTED:
		return case_conflict(which == CONFLICT_RESTARTED);
	case KEEP_DESTINATION:
		return case_keep_destination();
	case HELD:
		return case_held();
	case DIED_THERE:
		return case_died();
	case KEPT_COPY:
	case KEPT_COPY_ENDED:
		return case_kept_copy(which == KEPT_COPY);
	default:
		return case_unknown(which);
	}
}

ParameterizedTest(enum decided *r, doubt, resolved)
{
	struct lab_row row = {.fault = decisions[*r].fault,
			      .phase = *r == DIED_THERE || *r == HELD             ? "postcopy"
				       : *r == KEPT_COPY || *r == KEPT_COPY_ENDED ? "completed"
										  : "in-doubt",
			      .mode = *r == DIED_THERE || *r == HELD ? "postcopy" : "hybrid",
			      .driver = "native"};
	struct scene s;

	lab_matrix_begin(&row);
	s = play(*r);
	end(&s);
	lab_matrix_end(&row, "resolved");
}
