/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where nobody can be asked any more an operator decides with `decant resolve`, and whoever comes back later is told.
 * Always the guest runs in one place, and if two copies of it have run, both sides say so.
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "lib/doubt.h"
#include "lib/lab_silent.h"
#include "lib/lab_test.h"

TestSuite(doubt_resolved, .timeout = 120);

static void kept_here(struct doubt *s)
{
	doubt_until(s, "phase", "failed");
	lab_check(s->lab, doubt_says(s, "owner", "source"), "owner");
	lab_check(s->lab, doubt_says(s, "error.code", "resolved"), "the error");
	lab_check(s->lab, doubt_says(s, "resolution.keep", "source"), "the decision");
	doubt_runs(s, s->a);
	lab_check(s->lab, doubt_resolve(s, "source", s->id) == 3, "it is still to be decided");
	lab_check(s->lab, doubt_resolve(s, "destination", s->id) == 3, "it can be given up");
}

static void destination_says(struct doubt *s, const char *answer, bool conflict)
{
	doubt_until(s, "resolution.destination_said", answer);
	lab_check(s->lab, doubt_true(s, "resolution.conflict") == conflict, "conflict");
	lab_check(s->lab, doubt_says(s, "resolution.state", "done"), "it is still told");
}

/* With nothing decided there: it never runs. */
static void told_and_never_ran(struct doubt *s, const char *answer)
{
	destination_says(s, answer, false);
	lab_until(s->lab, 15000, lab_host_guests(s->b) == 0, "a guest stays at the destination");
	doubt_runs(s, s->a);
	lab_guest_verified(s->g);
}

static void conflict_is_loud(struct doubt *s)
{
	json_t *inc;
	char *out = NULL;
	pid_t pid;

	lab_until(s->lab, 20000, lab_proc_said(s->lab, s->b->dest, "CONFLICT: guest "),
		  "the destination is silent");
	lab_until(s->lab, 5000, lab_proc_said(s->lab, s->a->source, "CONFLICT: migration "),
		  "the source is silent");
	lab_check(s->lab, doubt_true(s, "resolution.conflict"), "the job is silent");
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
	lab_until(s->lab, 5000, lab_silent_state(pid) == 'T', "the copy there is not stopped");
	doubt_still(s, s->b);
	doubt_runs(s, s->a);
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

ParameterizedTestParameters(doubt_resolved, decided)
{
	static enum decided picked[DECIDED_COUNT_];
	size_t n = 0;

	for (size_t i = 0; i < DECIDED_COUNT_; i++)
		if (lab_matrix_pick(i, decisions[i].quick))
			picked[n++] = (enum decided)i;
	return cr_make_param_array(enum decided, picked, n);
}

/* Neither without the id nor with another one; what is risked is said. */
static void wants_the_id(struct doubt *s)
{
	char *err = NULL;

	lab_check(s->lab,
		  doubt_order(s, (const char *[]){"resolve", s->id, "--keep", "source", NULL},
			      &err) == 3 &&
			  strstr(err, "two copies") && strstr(err, s->id),
		  "without the id: %s", err);
	free(err);
	lab_check(s->lab,
		  doubt_order(s, (const char *[]){"resolve", s->id, "--keep", "destination", NULL},
			      &err) == 3 &&
			  strstr(err, "loss of the only copy"),
		  "without the id: %s", err);
	free(err);
	lab_check(s->lab, doubt_resolve(s, "source", "0123abcd") == 3, "with another id");
	lab_check(s->lab, doubt_says(s, "phase", "in-doubt"), "it was decided");
	doubt_stands(s, s->a);
}

static struct doubt case_gone(void)
{
	struct doubt s = doubt_begin_in(lab_new(lab_test_failed), FAULTPOINT_COMMIT_RECEIVED,
					"hybrid", false);
	pid_t pid = lab_guest_pid(s.g, s.b);

	doubt_said(&s, NULL);
	wants_the_id(&s);
	doubt_resolved(&s, "source");
	kept_here(&s);
	lab_check(s.lab, doubt_says(&s, "resolution.state", "telling"), "nobody is told");
	lab_guest_verified(s.g);
	if (pid)
		kill(pid, SIGKILL);
	/* For ever was not so long. */
	lab_host_dest_start(s.b);
	told_and_never_ran(&s, "not-started");
	return s;
}

/* @restart: the source's agent does not live to see it told */
static struct doubt case_never_ran(bool restart)
{
	struct doubt s = doubt_begin_in(lab_new(lab_test_failed), FAULTPOINT_COMMIT_RECEIVED,
					"hybrid", false);

	doubt_resolved(&s, "source");
	kept_here(&s);
	if (restart) {
		lab_proc_kill(s.lab, s.a->source);
		lab_host_source_start(s.a);
		doubt_attached(&s);
		kept_here(&s);
	}
	lab_host_dest_start(s.b);
	told_and_never_ran(&s, "not-started");
	return s;
}

/* Nobody can know: not a no, and nothing happens by itself. */
static struct doubt case_unknown(enum decided which)
{
	struct doubt s = doubt_begin_in(lab_new(lab_test_failed),
					which == ANOTHER_BOOT_OWNED ? FAULTPOINT_OWNER_MARKED
								    : FAULTPOINT_COMMIT_RECEIVED,
					"hybrid", false);

	if (which == JOURNAL_LOST)
		doubt_lose_journal(&s);
	else
		doubt_reboot(&s);
	lab_host_dest_start(s.b);
	doubt_said(&s, "unknown-there");
	doubt_resolved(&s, "source");
	kept_here(&s);
	if (which == JOURNAL_LOST)
		lab_until(s.lab, 10000,
			  doubt_says(&s, "resolution.last_error.code", "unknown-there"),
			  "as if it had been told");
	else
		told_and_never_ran(&s, "gone");
	return s;
}

/* The destination owned it all the time, and lets it go when it comes back, before it can be told. */
static struct doubt case_conflict(bool restart)
{
	struct doubt s =
		doubt_begin_in(lab_new(lab_test_failed), FAULTPOINT_OWNER_MARKED, "precopy", false);

	lab_relay_refuse(s.relay, true);
	lab_relay_cut(s.relay);
	doubt_resolved(&s, "source");
	kept_here(&s);
	lab_host_dest_start(s.b);
	doubt_runs(&s, s.b);
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

static void copy_is_gone(struct doubt *s)
{
	lab_until(s->lab, 10000, !lab_guest_pid(s->g, s->a), "the copy here lives");
	lab_check(s->lab, doubt_resolve(s, "source", s->id) == 3,
		  "a copy that is gone can be kept");
}

static struct doubt case_keep_destination(void)
{
	struct doubt s =
		doubt_begin_in(lab_new(lab_test_failed), FAULTPOINT_GUEST_LET_GO, "precopy", false);

	doubt_resolved(&s, "destination");
	doubt_until(&s, "phase", "failed");
	lab_check(s.lab, doubt_says(&s, "owner", "destination"), "owner");
	copy_is_gone(&s);
	lab_host_dest_start(s.b);
	lab_guest_arrived(s.g, s.b);
	return s;
}

/* In post-copy the pages are here, and the guest there waits: kept here, it goes on where it was paused. */
static struct doubt case_held(void)
{
	struct doubt s =
		doubt_begin(lab_new(lab_test_failed), &(struct doubt_setting){.mode = "postcopy"});

	doubt_until(&s, "phase", "postcopy");
	doubt_note_id(&s);
	lab_check(s.lab, doubt_resolve(&s, "source", s.id) == 3, "there is no doubt");
	lab_relay_refuse(s.relay, true);
	lab_relay_cut(s.relay);
	doubt_until(&s, "phase", "paused");
	lab_check(s.lab, doubt_says(&s, "owner", "destination"), "owner");
	doubt_resolved(&s, "source");
	kept_here(&s);
	lab_relay_refuse(s.relay, false);
	conflict_is_loud(&s);
	return s;
}

static struct doubt case_died(void)
{
	struct doubt s =
		doubt_begin(lab_new(lab_test_failed), &(struct doubt_setting){.mode = "postcopy"});

	doubt_until(&s, "phase", "postcopy");
	doubt_note_id(&s);
	kill(lab_guest_pid(s.g, s.b), SIGKILL);
	doubt_until(&s, "phase", "failed");
	lab_check(s.lab, doubt_says(&s, "owner", "destination"), "owner");
	lab_check(s.lab, doubt_says(&s, "error.code", "guest-gone"), "the error");
	doubt_stands(&s, s.a);
	/* Over a restart of the agent, too. */
	lab_proc_kill(s.lab, s.a->source);
	lab_host_source_start(s.a);
	doubt_attached(&s);
	doubt_stands(&s, s.a);
	doubt_resolved(&s, "source");
	doubt_until(&s, "owner", "source");
	destination_says(&s, "gone", false);
	doubt_runs(&s, s.a);
	lab_guest_verified(s.g);
	lab_check(s.lab, doubt_says(&s, "error.code", "guest-gone"), "the error is another one");
	return s;
}

static struct doubt case_kept_copy(bool let_go)
{
	struct doubt s = doubt_begin(lab_new(lab_test_failed),
				     &(struct doubt_setting){.mode = "hybrid", .keep = true});

	doubt_until(&s, "phase", "completed");
	doubt_note_id(&s);
	lab_check(s.lab, doubt_says(&s, "owner", "destination"), "owner");
	doubt_stands(&s, s.a);
	lab_guest_arrived(s.g, s.b);
	doubt_resolved(&s, let_go ? "source" : "destination");
	if (let_go) {
		doubt_until(&s, "owner", "source");
		conflict_is_loud(&s);
	} else {
		copy_is_gone(&s);
		doubt_runs(&s, s.b);
	}
	return s;
}

static struct doubt play(enum decided which)
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

ParameterizedTest(enum decided *r, doubt_resolved, decided)
{
	struct lab_row row = {.fault = decisions[*r].fault,
			      .phase = *r == DIED_THERE || *r == HELD             ? "postcopy"
				       : *r == KEPT_COPY || *r == KEPT_COPY_ENDED ? "completed"
										  : "in-doubt",
			      .mode = *r == DIED_THERE || *r == HELD ? "postcopy" : "hybrid",
			      .driver = "native"};
	struct doubt s;

	lab_matrix_begin(&row);
	s = play(*r);
	doubt_end(&s);
	lab_matrix_end(&row, "resolved");
}
