/* SPDX-License-Identifier: Apache-2.0 */
/*
 * decant-source against a destination that keeps the protocol but for one thing. Before the hand-over the
 * guest goes on at the source as if nothing had happened; behind it the guest is kept there, paused, with
 * every page. The error says what was wrong, the agent spends little on it, and a guest that moves to an
 * honest host meanwhile does not notice.
 *
 * What is found out by waiting is waited for together: each such destination has a guest of its own.
 */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "lib/fake_dest.h"
#include "lib/lab_hostile.h"
#include "lib/lab_test.h"

TestSuite(hostile_dest, .timeout = 240);

/**
 * struct sin_row - a sin and what becomes of the job
 * @phase:	in which it ends or stays
 * @code, @names: of its error
 * @waits:	the agent waits out what it may: that is three seconds there, because a busy machine lets an
 *		honest answer wait for one as well, and elsewhere what it usually is
 */
struct sin_row {
	const char *what;
	enum fake_sin sin;
	const char *phase;
	const char *code;
	const char *names;
	bool waits;
};

static const struct sin_row before[] = {
	{"silent", SIN_SILENT, "failed", NULL, "handshake", true},
	{"dribbles", SIN_DRIBBLE, "failed", NULL, NULL, true},
	{"long frame", SIN_LONG_FRAME, "failed", "bad-length", NULL, false},
	{"no PREPARED", SIN_NO_PREPARED, "failed", "timeout", "setup", true},
	{"no BARRIER_ACK", SIN_NO_ACK, "failed", "no-acknowledgement", "bulk channel 0", true},
	{"no INTENT_ACK", SIN_NO_INTENT_ACK, "failed", "timeout", "switchover", true},
	{"no READY", SIN_NO_READY, "failed", "timeout", "switchover", true},
	{"READY early", SIN_READY_EARLY, "failed", "unexpected-message", "READY", false},
	{"RUNNING early", SIN_RUNNING_EARLY, "failed", "unexpected-message", "RUNNING", false},
	{"RECEIPT early", SIN_RECEIPT_EARLY, "failed", "unexpected-message", "RECEIPT", false},
	{"acknowledges too early", SIN_ACK_AHEAD, "failed", "bad-message", "BARRIER_ACK", false},
	{"acknowledges twice", SIN_ACK_TWICE, "failed", "bad-message", "BARRIER_ACK", false},
	{"refuses all", SIN_NACK_ALL, "failed", "digest-mismatch", NULL, false},
	{"refuses outside", SIN_NACK_OUTSIDE, "failed", "bad-message", "NACK", false},
	{"refuses often", SIN_NACK_FLOOD, "failed", "digest-mismatch", NULL, false},
	{"asks early", SIN_REQUEST_EARLY, "failed", "unexpected-message", "REQUEST", false},
	{"floods with PING", SIN_PING_FLOOD, "failed", NULL, NULL, true},
};

/* Behind COMMIT only the source has the pages: it keeps them and asks again and again, or says that all is over. */
static const struct sin_row behind[] = {
	{"asks outside", SIN_REQUEST_OUTSIDE, "paused", "bad-message", "REQUEST", false},
	{"asks for a block", SIN_REQUEST_BLOCK, "paused", "bad-message", "block 77", false},
	{"asks behind the end", SIN_REQUEST_ODD, "paused", "bad-message", "REQUEST", false},
	{"asks for ever", SIN_REQUEST_FLOOD, "paused", "too-many-requests", "has asked for", false},
	{"receipt of fewer", SIN_RECEIPT_FEWER, "failed", "receipt-mismatch", "kept", false},
	{"bitmap outside", SIN_RECEIVED_OUTSIDE, "paused", "bad-message", "sent pages of block 0",
	 false},
	{"bitmap in disorder", SIN_RECEIVED_ORDER, "paused", "bad-message", "pages of block 0",
	 false},
	{"no bitmap", SIN_RESUMED_EARLY, "paused", "unexpected-message", "RESUMED", false},
	{"no RECEIPT", SIN_NO_RECEIPT, "paused", "timeout", "state postcopy", true},
	{"no RUNNING", SIN_NO_RUNNING, "in-doubt", NULL, NULL, true},
};

static struct lab_proc *begin(struct lab_host *a, struct lab_guest *g, struct fake_dest *d,
			      bool waits)
{
	return lab_decant_begin(a, (const char *[]){"migrate", g->name, "--to", fake_dest_to(d),
						    waits ? "--answer-timeout-ms" : NULL, "3000",
						    "--switchover-timeout-ms", "3000", NULL});
}

static json_t *job_of(struct lab_host *a, const char *guest)
{
	json_t *list = lab_get(a->lab, a->source_sock, "/v1/migrations"), *o, *best = NULL;
	size_t i;

	json_array_foreach(lab_at(list, "items"), i, o) {
		if (strcmp(lab_str(a->lab, o, "guest"), guest) != 0)
			continue;
		if (!best || strcmp(lab_str(a->lab, o, "created_at"),
				    lab_str(a->lab, best, "created_at")) >= 0)
			best = o;
	}
	json_incref(best);
	json_decref(list);
	return best;
}

/* It passes through paused and recovering again and again: the error is that of the loss. */
static bool is_so(struct lab_host *a, const char *guest, const struct sin_row *r)
{
	json_t *job = job_of(a, guest), *e = job ? lab_at(job, "error") : NULL;
	bool so = job && !strcmp(lab_str(a->lab, job, "phase"), r->phase);

	if (so && (r->code || r->names))
		so = json_is_object(e) &&
		     (!r->code || !strcmp(lab_str(a->lab, e, "code"), r->code)) &&
		     (!r->names || strstr(lab_str(a->lab, e, "message"), r->names));
	json_decref(job);
	return so;
}

static void show(struct lab_host *a, const char *guest, const char *what)
{
	json_t *job = job_of(a, guest), *e = job ? lab_at(job, "error") : NULL;

	fprintf(stderr, "%s: %s: %s: %s\n", what, job ? lab_str(a->lab, job, "phase") : "no job",
		json_is_object(e) ? lab_str(a->lab, e, "code") : "-",
		json_is_object(e) ? lab_str(a->lab, e, "message") : "");
	json_decref(job);
}

static void become(struct lab_host *a, const char *guest, const struct sin_row *r)
{
	uint64_t end = lab_now_ms() + 25000 * a->lab->slow;
	bool so;

	/* One look: at the next it may be otherwise again. */
	while (!(so = is_so(a, guest, r)) && lab_now_ms() < end)
		usleep(30000);
	show(a, guest, r->what);
	lab_check(a->lab, so, "%s: it is not %s with %s, \"%s\"", r->what, r->phase,
		  r->code ? r->code : "any code", r->names ? r->names : "");
}

/* --- before the hand-over --- */

/**
 * struct sinner - a destination, and the guest that goes there
 * @begun:	the command that said so
 */
struct sinner {
	const struct sin_row *row;
	struct fake_dest *dest;
	struct lab_guest *guest;
	struct lab_proc *begun;
};

static struct sinner sin_begin(struct lab_host *a, const struct sin_row *r, struct lab_guest *g)
{
	struct sinner s = {.row = r, .dest = fake_dest_start(a->lab, r->sin), .guest = g};

	s.begun = begin(a, g, s.dest, r->waits);
	return s;
}

static struct lab_guest *guest_of(struct lab_host *a, const char *kind, size_t i)
{
	char name[16];

	snprintf(name, sizeof(name), "%s%zu", kind, i);
	return lab_guest_start(
		a, &(struct lab_guest_opts){.name = name, .mb = 4, .threads = 1, .writes = 2000});
}

static void sin_before_end(struct lab_host *a, const struct sinner *s)
{
	lab_proc_wait(a->lab, s->begun, 5000);
	become(a, s->guest->name, s->row);
	fake_dest_end(s->dest);
	lab_until(a->lab, 5000, !lab_guest_report(s->guest).paused, "%s: the guest stands",
		  s->row->what);
}

static void sin_before(struct lab_host *a, struct lab_guest *g, const struct sin_row *r)
{
	struct lab_watch w = lab_watch_begin(a->lab, a->source);
	struct sinner s = sin_begin(a, r, g);

	sin_before_end(a, &s);
	lab_watch_end(&w, r->what, &(struct lab_cost){.cpu_percent = 120});
}

/* All together cost hardly more than each of them may. */
static void sins_that_wait(struct lab_host *a)
{
	struct sinner s[LAB_COUNT(before)];
	struct lab_watch w;
	size_t n = 0;

	for (size_t i = 0; i < LAB_COUNT(before); i++)
		if (before[i].waits)
			s[n++] = (struct sinner){.row = &before[i],
						 .guest = guest_of(a, "waits", i)};
	w = lab_watch_begin(a->lab, a->source);
	for (size_t i = 0; i < n; i++)
		s[i] = sin_begin(a, s[i].row, s[i].guest);
	for (size_t i = 0; i < n; i++)
		sin_before_end(a, &s[i]);
	lab_watch_end(&w, "those that let it wait",
		      &(struct lab_cost){.cpu_percent = 120, .peak_mb = 32});
	for (size_t i = 0; i < n; i++) {
		lab_guest_verified(s[i].guest);
		lab_guest_end(s[i].guest);
	}
}

Test(hostile_dest, before_the_hand_over)
{
	struct lab_host *a, *b;
	struct lab *lab = lab_test_pair(&a, &b);
	struct lab_guest *g =
		lab_guest_start(a, &(struct lab_guest_opts){.mb = 8, .threads = 1, .writes = 2000});
	struct lab_beside beside = lab_beside_begin(a, b, 8000);

	sins_that_wait(a);
	for (size_t i = 0; i < LAB_COUNT(before); i++)
		if (!before[i].waits)
			sin_before(a, g, &before[i]);
	lab_guest_verified(g);
	lab_beside_end(&beside);
	/* It is none the worse for it. */
	json_decref(lab_migrate(a, b, g, &(struct lab_move){0}));
	lab_guest_arrived(g, b);
	lab_end(lab);
}

/* --- behind it --- */

/*
 * Its job is lost and recovered again and again, each time with the reason of that: the log has them all. What it asks for
 * can overtake RUNNING, which comes on another channel: then the job is in doubt first.
 */
static bool was_lost(struct lab_host *a, const char *guest, const struct sin_row *r)
{
	char *log = lab_proc_text(a->lab, a->source, "err"), *end, of[96];
	bool was = false;

	snprintf(of, sizeof(of), " of %s: ", guest);
	for (char *at = log; at && !was && (at = strstr(at, of)); at = end) {
		at += strlen(of);
		end = at + strcspn(at, "\n");
		was = (!strncmp(at, "paused (", 8) || !strncmp(at, "in-doubt (", 10)) &&
		      memmem(at, (size_t)(end - at), r->names, strlen(r->names));
	}
	free(log);
	return was;
}

static void become_behind(struct lab_host *a, const char *guest, const struct sin_row *r)
{
	if (strcmp(r->phase, "paused") != 0) {
		become(a, guest, r);
		return;
	}
	lab_until(a->lab, 15000, was_lost(a, guest, r), "%s: not lost with \"%s\"", r->what,
		  r->names);
	show(a, guest, r->what);
}

/* The pages are kept, and the guest does not run, however often the liar is asked. */
static void sin_behind_end(struct lab_host *a, const struct sinner *s)
{
	const char *what = s->row->what;

	lab_check(a->lab, fake_dest_sessions(s->dest) < 12, "%s: %u sessions", what,
		  fake_dest_sessions(s->dest));
	lab_check(a->lab, lab_guest_report(s->guest).paused, "%s: the guest runs on", what);
	lab_guest_abandon(s->guest);
	fake_dest_end(s->dest);
}

Test(hostile_dest, behind_the_hand_over)
{
	struct lab_host *a, *b;
	struct lab *lab = lab_test_pair(&a, &b);
	struct lab_beside beside = lab_beside_begin(a, b, 8000);
	struct sinner s[LAB_COUNT(behind)];
	struct lab_watch w;

	for (size_t i = 0; i < LAB_COUNT(behind); i++)
		s[i].guest = guest_of(a, "guest", i);
	w = lab_watch_begin(lab, a->source);
	for (size_t i = 0; i < LAB_COUNT(behind); i++)
		s[i] = sin_begin(a, &behind[i], s[i].guest);
	for (size_t i = 0; i < LAB_COUNT(behind); i++) {
		lab_proc_wait(lab, s[i].begun, 5000);
		become_behind(a, s[i].guest->name, &behind[i]);
	}
	/* Asked again and again, and never so often that it costs much. */
	usleep(700000);
	lab_watch_end(&w, "all of them",
		      &(struct lab_cost){
			      .cpu_percent = 120, .peak_mb = 32, .fds = 40 * LAB_COUNT(behind)});
	for (size_t i = 0; i < LAB_COUNT(behind); i++)
		sin_behind_end(a, &s[i]);
	lab_beside_end(&beside);
	lab_end(lab);
}
