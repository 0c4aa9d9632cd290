/* SPDX-License-Identifier: Apache-2.0 */
/*
 * decant-dest against a source that does what the test wants: every moment at which a session can be given up or lost,
 * and what is said about it afterwards. Before COMMIT the guest never ran, after it it is held.
 */
#include <signal.h>
#include <string.h>
#include <unistd.h>

#include "lib/fake_play.h"
#include "lib/lab_test.h"

TestSuite(incoming_ends, .timeout = 240);

/** enum ending - how the session ends */
enum ending {
	ABORTED,
	LOST,
	ERROR_SENT,
	BULK_LOST,
	URGENT_LOST,
	GUEST_KILLED,
	AGENT_KILLED,
	ASKED
};

static const char *const endings[] = {"abort",       "lost",         "error",        "bulk lost",
				      "urgent lost", "guest killed", "agent killed", "asked"};

static void cut(struct fake_source *f, enum ending how)
{
	switch (how) {
	case ABORTED:
		f->m.error = (struct msg_error){"cancelled", "by the operator"};
		fake_send_simple(f, MSG_ABORT);
		/* A guest that attaches is told of, if it is quicker than the ABORT. */
		fake_expect_behind(f, MSG_PREPARED, MSG_ABORTED);
		break;
	case ERROR_SENT:
		f->m.error = (struct msg_error){"broken", "cannot go on"};
		fake_send_simple(f, MSG_ERROR);
		break;
	case LOST:
		fake_close(f);
		break;
	case BULK_LOST:
		tls_chan_free(f->bulk[0].chan);
		f->bulk[0].chan = NULL;
		break;
	case URGENT_LOST:
		tls_chan_free(f->urgent.chan);
		f->urgent.chan = NULL;
		break;
	case GUEST_KILLED:
		kill(fake_guest_pid(f), SIGKILL);
		break;
	case AGENT_KILLED:
		lab_proc_kill(f->lab, f->to->dest);
		lab_host_dest_start(f->to);
		break;
	case ASKED:
		fake_query(f, 7);
		break;
	}
}

/* Whatever it was, the guest is gone, nobody ran it, and who asks is told so. */
static void before_commit(struct lab_host *b, enum fake_moment when, enum ending how)
{
	struct fake_source *f = fake_new(b, &(struct fake_opts){.urgent = true});
	enum msg_answer answer;

	fake_play(f, when);
	cut(f, how);
	lab_until(b->lab, 15000, fake_guest_pid(f) == 0, "%s, %s: the guest is still there",
		  fake_moment_name(when), endings[how]);
	if (when >= FAKE_PREPARED) {
		lab_until(b->lab, 5000, fake_phase_is(f, "aborted"), "%s, %s: the phase",
			  fake_moment_name(when), endings[how]);
		answer = fake_query(f, 7);
		lab_check(b->lab, answer == MSG_ANSWER_NOT_STARTED, "%s, %s: the answer is %d",
			  fake_moment_name(when), endings[how], (int)answer);
		/* Only to its source, and only about that generation. */
		lab_check(b->lab, fake_query(f, 6) == MSG_ANSWER_UNKNOWN, "another generation");
	}
	lab_check(b->lab, !fake_report_is(f, "arrived 0") && !fake_report_is(f, "seen"),
		  "%s, %s: it ran", fake_moment_name(when), endings[how]);
	fake_free(f);
}

static void each_moment(enum ending how, enum fake_moment from, enum fake_moment to)
{
	struct lab_host *b = fake_host(lab_test_failed);

	for (enum fake_moment when = from; when <= to; when++)
		before_commit(b, when, how);
	lab_end(b->lab);
}

Test(incoming_ends, aborted)
{
	each_moment(ABORTED, FAKE_HELLO, FAKE_READY);
}

Test(incoming_ends, lost)
{
	each_moment(LOST, FAKE_HELLO, FAKE_READY);
}

Test(incoming_ends, error_from_the_source)
{
	each_moment(ERROR_SENT, FAKE_HELLO, FAKE_READY);
}

Test(incoming_ends, bulk_lost)
{
	each_moment(BULK_LOST, FAKE_PREPARED, FAKE_READY);
}

Test(incoming_ends, urgent_lost)
{
	each_moment(URGENT_LOST, FAKE_SWITCHED, FAKE_READY);
}

Test(incoming_ends, guest_killed)
{
	each_moment(GUEST_KILLED, FAKE_PREPARED, FAKE_READY);
}

Test(incoming_ends, agent_killed)
{
	each_moment(AGENT_KILLED, FAKE_ATTACHING, FAKE_READY);
}

/* A source that asks has lost its session, whether this side knows or not. */
Test(incoming_ends, asked)
{
	each_moment(ASKED, FAKE_INTENT, FAKE_READY);
}

static void lost_because(struct fake_source *f, const char *what)
{
	json_t *o = fake_view(f);
	const char *why = lab_str(f->lab, o, "error.message");

	lab_check(f->lab, strstr(why, what) != NULL, "\"%s\" does not name the %s", why, what);
	json_decref(o);
}

/* The guest has it: it runs as far as its pages go, and waits; nobody gives it zeros. */
static void held(enum ending how)
{
	struct fake_source *f =
		fake_new(fake_host(lab_test_failed), &(struct fake_opts){.urgent = true});
	struct lab *lab = f->lab;
	pid_t pid;

	fake_play(f, FAKE_RUNNING);
	pid = fake_guest_pid(f);
	cut(f, how);
	if (how != ASKED)
		lab_until(lab, 10000, fake_phase_is(f, "held"), "%s: the phase", endings[how]);
	/* Not by the silence of the session, which tells in the end as well. */
	if (how == URGENT_LOST)
		lost_because(f, "urgent channel");
	for (int i = 0; i < 20; i++) {
		lab_check(lab, !fake_report_is(f, "seen"), "%s: it was given what is missing",
			  endings[how]);
		usleep(20000);
	}
	lab_check(lab, kill(pid, 0) == 0, "%s: the guest is gone", endings[how]);
	lab_check(lab, fake_query(f, 7) == MSG_ANSWER_RUNNING, "%s: the answer", endings[how]);
	kill(pid, SIGKILL);
	lab_until(lab, 10000, fake_phase_is(f, "failed"), "its end is not noticed");
	fake_end(f);
}

Test(incoming_ends, held_when_lost)
{
	held(LOST);
}

Test(incoming_ends, held_when_bulk_is_lost)
{
	held(BULK_LOST);
}

Test(incoming_ends, held_when_urgent_is_lost)
{
	held(URGENT_LOST);
}

Test(incoming_ends, held_over_a_new_agent)
{
	held(AGENT_KILLED);
}

Test(incoming_ends, asking_does_not_hurt_who_runs)
{
	held(ASKED);
}

/* Killed in the one moment in between: owned, and not yet let go. The new agent lets it go. */
Test(incoming_ends, all_there_when_lost)
{
	struct fake_source *f =
		fake_new(fake_host(lab_test_failed), &(struct fake_opts){.urgent = true});

	fake_play(f, FAKE_RUNNING);
	fake_all(f);
	fake_barrier(f);
	fake_serve(f, 50);
	fake_close(f);
	lab_until(f->lab, 10000, fake_phase_is(f, "completed"), "the phase");
	lab_check(f->lab, fake_query(f, 7) == MSG_ANSWER_COMPLETED, "the answer");
	lab_until(f->lab, 10000, fake_report_is(f, "good"), "what the guest has seen");
	fake_end(f);
}

Test(incoming_ends, guest_dies_after_commit)
{
	struct fake_source *f =
		fake_new(fake_host(lab_test_failed), &(struct fake_opts){.urgent = true});

	fake_play(f, FAKE_RUNNING);
	kill(fake_guest_pid(f), SIGKILL);
	fake_expect_behind(f, MSG_REQUEST, MSG_ERROR);
	lab_check(f->lab, !strcmp(f->m.error.code, "guest-gone"), "%s", f->m.error.message);
	lab_until(f->lab, 10000, fake_phase_is(f, "failed"), "the phase");
	lab_check(f->lab, fake_query(f, 7) == MSG_ANSWER_RUNNING, "the answer");
	fake_end(f);
}
