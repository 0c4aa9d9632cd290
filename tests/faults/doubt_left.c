/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The guest has died at both hosts, and its program is started anew where it came from, as who it was. If the source
 * knows that its own copy has ended, from its record "left" or because the host was started again since, the new one is
 * any guest; if it cannot know, it may be the copy that was left here, and the job says so.
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "lib/doubt.h"
#include "lib/fake_guest.h"
#include "lib/lab_test.h"

TestSuite(doubt_left, .timeout = 120);

/** enum left - how the source's copy has ended */
enum left { SEEN, UNSEEN, REBOOTED, LEFT_COUNT_ };

static const struct {
	const char *fault;
	bool quick;
} cases[] = {
	[SEEN] = {"died at both hosts, started anew", true},
	[UNSEEN] = {"died at both hosts while source was dead, started anew", false},
	[REBOOTED] = {"died there, source rebooted, started anew", false},
};

ParameterizedTestParameters(doubt_left, anew)
{
	static enum left picked[LEFT_COUNT_];
	size_t n = 0;

	for (size_t i = 0; i < LEFT_COUNT_; i++)
		if (lab_matrix_pick(i, cases[i].quick))
			picked[n++] = (enum left)i;
	return cr_make_param_array(enum left, picked, n);
}

static void kill_at(struct doubt *s, struct lab_host *h)
{
	pid_t pid = lab_guest_pid(s->g, h);

	lab_check(s->lab, pid > 0 && !kill(pid, SIGKILL), "it is gone");
	lab_until(s->lab, 5000, !lab_guest_pid(s->g, h), "it lives");
}

/* Return: whether the journal of the job has this record */
static bool recorded(struct doubt *s, const char *type)
{
	char path[LAB_PATH_MAX + 80], want[32], *text;
	bool r;

	snprintf(path, sizeof(path), "%s/state/migrations/%s.journal", s->a->dir, s->id);
	snprintf(want, sizeof(want), "\"%s\"", type);
	text = lab_read_file(path);
	r = text && strstr(text, want);
	free(text);
	return r;
}

static void copy_ends(struct doubt *s, enum left how)
{
	char dir[LAB_PATH_MAX + 32];

	if (how == SEEN) {
		kill_at(s, s->a);
		lab_until(s->lab, 5000, recorded(s, "left"), "no record of its end");
		lab_proc_kill(s->lab, s->a->source);
	} else {
		lab_proc_kill(s->lab, s->a->source);
		kill_at(s, s->a);
		lab_check(s->lab, !recorded(s, "left"), "nobody can know");
	}
	snprintf(dir, sizeof(dir), "%s/state/migrations", s->a->dir);
	if (how == REBOOTED)
		doubt_other_boot(s->lab, dir);
	lab_host_source_start(s->a);
}

/*
 * To give up the copy that was left here would end the new one, if it were taken for it: so where it is known that
 * there is none there is nothing to decide, and else the operator is asked which it is.
 */
static void decided(struct doubt *s, enum left how)
{
	if (how == UNSEEN) {
		lab_check(s->lab, !doubt_says(s, "owner", "source"), "as if it were known");
		doubt_resolved(s, "source");
		doubt_until(s, "owner", "source");
		return;
	}
	lab_check(s->lab, doubt_resolve(s, "destination", s->id) == 3, "it can be given up");
	lab_check(s->lab, lab_guest_pid(s->g, s->a), "and it was");
}

static struct doubt begin(void)
{
	struct doubt s = {.lab = lab_new(lab_test_failed), .move = {.mode = "postcopy", .exit = 1}};

	s.a = lab_host_start(s.lab, &(struct lab_host_opts){.name = "a"});
	s.b = lab_host_start(s.lab, &(struct lab_host_opts){.name = "b"});
	/* There is time to find it in post-copy. */
	s.g = lab_guest_start(
		s.a, &(struct lab_guest_opts){.mb = 64, .threads = 2, .writes = 400, .uuid = 77});
	s.move.args[0] = "--bandwidth";
	s.move.args[1] = "40Mbit";
	return s;
}

ParameterizedTest(enum left *how, doubt_left, anew)
{
	struct lab_row row = {.fault = cases[*how].fault,
			      .phase = "postcopy",
			      .mode = "postcopy",
			      .driver = "native"};
	struct doubt s;

	lab_matrix_begin(&row);
	s = begin();
	s.p = lab_migrate_begin(s.a, s.b, s.g, &s.move);
	doubt_until(&s, "phase", "postcopy");
	doubt_note_id(&s);
	kill_at(&s, s.b);
	doubt_until(&s, "phase", "failed");
	lab_proc_wait(s.lab, s.p, 10000);
	copy_ends(&s, *how);
	lab_guest_again(s.g, s.a);
	decided(&s, *how);
	lab_guest_verified(s.g);
	json_decref(lab_migrate(s.a, s.b, s.g, &(struct lab_move){0}));
	lab_guest_arrived(s.g, s.b);
	lab_end(s.lab);
	lab_matrix_end(&row, "moved");
}

static bool said(struct doubt *s, struct lab_proc *p, const char *text)
{
	char *out = lab_proc_text(s->lab, p, "out");
	bool r = out && strstr(out, text);

	free(out);
	return r;
}

/* The job is unsettled, and all that the restarted agent knows of the guest's name is the job. */
Test(doubt_left, another_of_its_name)
{
	struct doubt s;
	struct lab_proc *p;

	lab_test_long();
	s = begin();
	s.p = lab_migrate_begin(s.a, s.b, s.g, &s.move);
	doubt_until(&s, "phase", "postcopy");
	doubt_note_id(&s);
	lab_proc_kill(s.lab, s.b->dest);
	copy_ends(&s, UNSEEN);
	p = fake_guest_start(s.a, s.g->name, GUEST_GOOD);
	lab_until(s.lab, 10000, said(&s, p, "refused: guest-held"), "it is taken for the guest");
	doubt_until(&s, "phase", "paused");
	lab_proc_kill(s.lab, p);
	kill_at(&s, s.b);
	lab_host_dest_start(s.b);
	lab_end(s.lab);
}
