/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Migrations around their hand-over, for the tests of what happens when one side cannot know what the other has done:
 * over a relay, with agents that have fault points, and what `decant status` and `resolve` say. Functions fail as the lab's do.
 */
#ifndef DECANT_TESTS_DOUBT_H
#define DECANT_TESTS_DOUBT_H

#include "lib/lab.h"
#include "lib/lab_guest.h"
#include "lib/lab_job.h"
#include "lib/lab_matrix.h"
#include "lib/lab_relay.h"

/**
 * struct doubt - a migration around its hand-over
 * @a, @b:	source and destination; @relay between them
 * @g, @p:	the guest; the command that moves it, as @move says
 * @id:		of the job, once doubt_note_id() was called
 */
struct doubt {
	struct lab *lab;
	struct lab_host *a, *b;
	struct lab_relay *relay;
	struct lab_guest *g;
	struct lab_proc *p;
	struct lab_move move;
	char id[40];
};

/**
 * struct doubt_setting - how a scene begins
 * @mode:	of the migration
 * @point, @action: what happens to the agent of that point
 * @keep:	disposal "keep"
 */
struct doubt_setting {
	const char *mode;
	enum faultpoint point;
	const char *action;
	bool keep;
};

/** doubt_begin() - in an empty lab: hosts, guest, and the migration has begun; for doubt_end() */
struct doubt doubt_begin(struct lab *lab, const struct doubt_setting *t);
/** doubt_begin_in() - the same until the destination's agent has ended at @point, and the source is in doubt */
struct doubt doubt_begin_in(struct lab *lab, enum faultpoint point, const char *mode, bool keep);
void doubt_end(struct doubt *s);
/** doubt_note_id() - wait for the job, and remember its id */
void doubt_note_id(struct doubt *s);

/** doubt_job() - Return: the job, new reference */
json_t *doubt_job(struct doubt *s);
/** doubt_says() - Return: whether the job has this string at a dotted path; doubt_true(): or true */
bool doubt_says(struct doubt *s, const char *path, const char *text);
bool doubt_true(struct doubt *s, const char *path);
/** doubt_until() - wait for it */
#define doubt_until(s, path, text) \
	lab_until((s)->lab, 20000, doubt_says(s, path, text), "the job's %s is not %s", path, text)
/**
 * doubt_said() - it is in doubt: it is said why, when it is asked next, what can be done; and nothing can be undone
 * @why:	code of the last attempt, or NULL
 */
void doubt_said(struct doubt *s, const char *why);

/** doubt_order() - `decant ARGS` at the source. Return: the exit code; @ret_err for free(3), may be NULL */
int doubt_order(struct doubt *s, const char *const args[], char **ret_err);
/** doubt_resolve() - `decant resolve`; @confirm may be NULL. Return: the exit code */
int doubt_resolve(struct doubt *s, const char *keep, const char *confirm);
/** doubt_resolved() - the same with all that it needs; it must be taken */
void doubt_resolved(struct doubt *s, const char *keep);

/** doubt_still() - nothing runs there for as long as one would see it; doubt_stands(): and it says that it is paused */
void doubt_still(struct doubt *s, struct lab_host *h);
void doubt_stands(struct doubt *s, struct lab_host *h);
/** doubt_runs() - wait until it does there */
void doubt_runs(struct doubt *s, struct lab_host *h);
/** doubt_attached() - wait until it is, to a source's agent that has been started again */
void doubt_attached(struct doubt *s);

/** doubt_reboot() - what the destination knows is of another boot: so are its guests, and what was in its run directory */
void doubt_reboot(struct doubt *s);
/** doubt_other_boot() - as if what is in the journals of a folder had been written before the host was started anew */
void doubt_other_boot(struct lab *lab, const char *dir);
/** doubt_lose_journal() - of the destination */
void doubt_lose_journal(struct doubt *s);

#endif
