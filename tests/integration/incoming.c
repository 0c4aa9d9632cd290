/* SPDX-License-Identifier: Apache-2.0 */
/*
 * decant-dest against a source that does what the test wants: every mode, every end, every moment at
 * which a session can be given up or lost, and what is said about it afterwards.
 */
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "guests/still_page.h"
#include "lib/fake_source.h"
#include "lib/lab_test.h"

TestSuite(incoming, .timeout = 240);

/** struct stage - a lab with a destination */
static struct lab_host *dest_only(void)
{
	struct lab *lab = lab_new(lab_test_failed);
	char *conf = fake_launchers(lab);
	struct lab_host *b = lab_host_start(
		lab, &(struct lab_host_opts){.name = "b", .no_source = true, .dest_conf = conf});

	free(conf);
	return b;
}

/* The guest is at home: it ends with the lab. */
static void end(struct fake_source *f)
{
	struct lab *lab = f->lab;
	pid_t pid = fake_guest_pid(f);

	fake_free(f);
	if (pid)
		kill(pid, SIGKILL);
	lab_end(lab);
}

static void completed(struct fake_source *f)
{
	struct lab *lab = f->lab;
	json_t *o;

	fake_complete(f);
	fake_expect(f, MSG_RECEIPT);
	lab_check(lab, f->m.receipt.digest_ok && f->m.receipt.n == f->nblocks, "the receipt");
	for (unsigned int i = 0; i < f->nblocks; i++)
		lab_check(lab,
			  f->m.receipt.pages[i] * (f->o.blocks[i].kind == 2 ? 512 : 1) ==
				  f->o.blocks[i].pages,
			  "the receipt counts %lu pages of block %u", f->m.receipt.pages[i], i);
	fake_close(f);
	lab_until(lab, 10000, fake_phase_is(f, "completed"), "the phase");
	o = fake_view(f);
	lab_check(lab, json_is_true(lab_at(o, "digest_ok")), "digest_ok");
	lab_check(lab, lab_num(lab, o, "memory.missing_pages") == 0, "missing pages");
	json_decref(o);
	lab_check(lab, fake_query(f, 7) == MSG_ANSWER_COMPLETED, "what a query is told");
	if (!f->o.paused)
		lab_until(lab, 20000, fake_report_is(f, "good"), "what the guest has seen");
}

/* --- modes --- */

static void precopy(enum msg_block_kind kind, unsigned int bulk)
{
	struct fake_opts o = {.blocks = {{"ram", kind, 600}, {"aux", MSG_BLOCK_MEMFD, 3}},
			      .bulk = bulk,
			      .precopy_only = true};
	struct fake_source *f = fake_new(dest_only(), &o);

	fake_prepared(f);
	fake_old(f, &f->bulk[0], 0, 0, 64);
	fake_zero(f, &f->bulk[0], 0, 64, 300);
	fake_old(f, &f->bulk[0], 1, 0, 3);
	fake_barrier(f);
	f->pass++;
	fake_all(f);
	fake_barrier(f);
	fake_intent(f);
	fake_switch(f);
	fake_listen(f, false);
	fake_state(f, 100000);
	fake_ready(f);
	fake_commit(f);
	fake_barrier(f);
	completed(f);
	lab_check(f->lab, f->m.answer.answer == MSG_ANSWER_COMPLETED, "the answer");
	end(f);
}

Test(incoming, precopy_memfd)
{
	precopy(MSG_BLOCK_MEMFD, 1);
}

Test(incoming, precopy_anon)
{
	precopy(MSG_BLOCK_ANON, 3);
}

/*
 * What was sent and written to afterwards is discarded, partly before the pause, and fetched when it
 * is touched.
 */
static void hybrid(enum msg_block_kind kind, bool urgent)
{
	struct fake_opts o = {.blocks = {{"ram", kind, 600}, {"aux", MSG_BLOCK_ANON, 5}},
			      .bulk = 2,
			      .urgent = urgent};
	struct fake_source *f = fake_new(dest_only(), &o);
	json_t *view;

	fake_prepared(f);
	fake_pages(f, &f->bulk[0], 0, 0, 300);
	fake_old(f, &f->bulk[1], 0, 300, 60);
	fake_zero(f, &f->bulk[1], 0, 360, 10);
	fake_pages(f, &f->bulk[1], 1, 0, 2);
	fake_barrier(f);
	fake_discard(f, 0, 300, 40);
	for (uint64_t p = 100; p < 110; p += 2)
		fake_discard(f, 0, p, 1);
	fake_intent(f);
	view = fake_view(f);
	lab_check(f->lab, lab_num(f->lab, view, "memory.received_pages") == 372 - 45,
		  "INTENT is answered before the discards are done");
	json_decref(view);
	fake_switch(f);
	fake_discard(f, 0, 340, 30);
	for (uint64_t p = 110; p < 120; p += 2)
		fake_discard(f, 0, p, 1);
	fake_listen(f, true);
	fake_state(f, 2000);
	fake_ready(f);
	fake_commit(f);
	/* All of it is touched in the end, and nothing but requests brings it. */
	lab_check(f->lab, fake_serve(f, 700) > 50, "pages are not asked for");
	lab_until(f->lab, 10000, fake_report_is(f, "good"), "what the guest has seen");
	/* Late, out of date, and never to be seen. */
	fake_old(f, &f->bulk[0], 0, 0, 64);
	for (uint64_t p = 0; p < 600; p += 50)
		fake_pages(f, &f->bulk[1], 0, p, 50);
	fake_pages(f, &f->bulk[1], 1, 0, 5);
	fake_barrier(f);
	view = fake_view(f);
	lab_check(f->lab, lab_num(f->lab, view, "postcopy.requests") > 50, "requests");
	lab_check(f->lab, lab_num(f->lab, view, "postcopy.latency_us.p50") > 0, "latency");
	json_decref(view);
	completed(f);
	end(f);
}

Test(incoming, hybrid_memfd_urgent)
{
	hybrid(MSG_BLOCK_MEMFD, true);
}

Test(incoming, hybrid_anon_urgent)
{
	hybrid(MSG_BLOCK_ANON, true);
}

Test(incoming, hybrid_memfd_control)
{
	hybrid(MSG_BLOCK_MEMFD, false);
}

/* Nothing before the switch; bulk and requests at the same time. */
static void postcopy(enum msg_block_kind kind)
{
	struct fake_opts o = {.blocks = {{"ram", kind, 4096}}, .bulk = 1, .urgent = true};
	struct fake_source *f = fake_new(dest_only(), &o);

	fake_prepared(f);
	fake_intent(f);
	fake_switch(f);
	fake_listen(f, true);
	fake_state(f, 0);
	fake_ready(f);
	fake_commit(f);
	for (uint64_t p = 0; p < 4096; p += 64) {
		fake_pages(f, &f->bulk[0], 0, p, 64);
		fake_serve(f, 1);
	}
	fake_barrier(f);
	fake_serve(f, 100);
	completed(f);
	end(f);
}

Test(incoming, postcopy_memfd)
{
	postcopy(MSG_BLOCK_MEMFD);
}

Test(incoming, postcopy_anon)
{
	postcopy(MSG_BLOCK_ANON);
}

Test(incoming, a_guest_without_memory)
{
	struct fake_opts o = {.blocks = {{"ram", MSG_BLOCK_MEMFD, 1}}, .paused = true};
	struct fake_source *f = fake_new(dest_only(), &o);

	fake_prepared(f);
	fake_all(f);
	fake_barrier(f);
	fake_intent(f);
	fake_switch(f);
	fake_listen(f, false);
	fake_state(f, 0);
	fake_ready(f);
	fake_commit(f);
	completed(f);
	end(f);
}

/* 64 MiB of state go through: no more than the guest takes is held. */
Test(incoming, largest_state)
{
	struct fake_source *f = fake_new(dest_only(), &(struct fake_opts){.precopy_only = true});

	fake_prepared(f);
	fake_all(f);
	fake_barrier(f);
	fake_intent(f);
	fake_switch(f);
	fake_listen(f, false);
	fake_state(f, MSG_STATE_TOTAL_MAX - 8);
	fake_ready(f);
	fake_commit(f);
	completed(f);
	end(f);
}

/* --- damaged on the way --- */

/* Asked for again on the channel on which it came; nothing of it was placed. */
static void damaged(bool live)
{
	struct fake_opts o = {.precopy_only = !live};
	struct fake_source *f = fake_new(dest_only(), &o);
	uint64_t page = 0;

	fake_prepared(f);
	while (still_is_zero(f->seed, 0, page))
		page++;
	if (!live) {
		fake_all(f);
	} else {
		fake_intent(f);
		fake_switch(f);
		fake_listen(f, true);
		fake_state(f, 0);
		fake_ready(f);
		fake_commit(f);
	}
	fake_damaged(f, &f->bulk[0], 0, page, 1);
	fake_bulk_expect(f, 0, MSG_NACK);
	lab_check(f->lab,
		  f->m.nack.block == 0 && f->m.nack.offset == page * STILL_PAGE &&
			  f->m.nack.length == STILL_PAGE && f->m.nack.pass == f->pass,
		  "the NACK is of something else");
	fake_barrier(f);
	if (live) {
		fake_all(f);
		fake_barrier(f);
		fake_serve(f, 100);
		completed(f);
		end(f);
		return;
	}
	/* The older copy does not stand in for it. */
	fake_intent(f);
	fake_switch(f);
	fake_listen(f, false);
	fake_expect_error(f, "pages-missing", "block ram");
	lab_until(f->lab, 10000, fake_phase_is(f, "aborted"), "the phase");
	end(f);
}

Test(incoming, damaged_in_precopy)
{
	damaged(false);
}

Test(incoming, damaged_in_postcopy)
{
	damaged(true);
}

/* --- given up, lost, killed: before COMMIT it never ran, after it it is held --- */

/** enum moment - how far the session is */
enum moment { HELLO, ATTACHING, PREPARED, INTENT, SWITCHED, LISTENING, READY, RUNNING };

static const char *const moments[] = {"hello",    "attaching", "prepared", "intent",
				      "switched", "listening", "ready",    "running"};

static void play(struct fake_source *f, enum moment until)
{
	fake_hello(f);
	if (until >= ATTACHING)
		fake_setup(f);
	if (until < PREPARED)
		return;
	fake_expect(f, MSG_PREPARED);
	fake_channel(f, MSG_CHANNEL_URGENT, 0, &f->urgent, &(struct error){0});
	fake_channel(f, MSG_CHANNEL_BULK, 0, &f->bulk[0], &(struct error){0});
	fake_pages(f, &f->bulk[0], 0, 0, 100);
	fake_barrier(f);
	if (until >= INTENT)
		fake_intent(f);
	if (until >= SWITCHED)
		fake_switch(f);
	if (until >= SWITCHED)
		fake_discard(f, 0, 10, 20);
	if (until >= LISTENING)
		fake_listen(f, true);
	if (until >= READY) {
		fake_state(f, 0);
		fake_ready(f);
	}
	if (until >= RUNNING)
		fake_commit(f);
}

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
		fake_expect(f, MSG_ABORTED);
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
static void before_commit(struct lab_host *b, enum moment when, enum ending how)
{
	struct fake_source *f = fake_new(b, &(struct fake_opts){.urgent = true});
	enum msg_answer answer;

	play(f, when);
	cut(f, how);
	lab_until(b->lab, 15000, fake_guest_pid(f) == 0, "%s, %s: the guest is still there",
		  moments[when], endings[how]);
	if (when >= PREPARED) {
		lab_until(b->lab, 5000, fake_phase_is(f, "aborted"), "%s, %s: the phase",
			  moments[when], endings[how]);
		answer = fake_query(f, 7);
		lab_check(b->lab, answer == MSG_ANSWER_NOT_STARTED, "%s, %s: the answer is %d",
			  moments[when], endings[how], (int)answer);
		/* Only to its source, and only about that generation. */
		lab_check(b->lab, fake_query(f, 6) == MSG_ANSWER_UNKNOWN, "another generation");
	}
	lab_check(b->lab, !fake_report_is(f, "arrived 0") && !fake_report_is(f, "seen"),
		  "%s, %s: it ran", moments[when], endings[how]);
	fake_free(f);
}

static void each_moment(enum ending how, enum moment from, enum moment to)
{
	struct lab_host *b = dest_only();

	for (enum moment when = from; when <= to; when++)
		before_commit(b, when, how);
	lab_end(b->lab);
}

Test(incoming, aborted)
{
	each_moment(ABORTED, HELLO, READY);
}

Test(incoming, lost)
{
	each_moment(LOST, HELLO, READY);
}

Test(incoming, error_from_the_source)
{
	each_moment(ERROR_SENT, HELLO, READY);
}

Test(incoming, bulk_lost)
{
	each_moment(BULK_LOST, PREPARED, READY);
}

Test(incoming, urgent_lost)
{
	each_moment(URGENT_LOST, SWITCHED, READY);
}

Test(incoming, guest_killed)
{
	each_moment(GUEST_KILLED, PREPARED, READY);
}

Test(incoming, agent_killed)
{
	each_moment(AGENT_KILLED, ATTACHING, READY);
}

/* A source that asks has lost its session, whether this side knows or not. */
Test(incoming, asked)
{
	each_moment(ASKED, INTENT, READY);
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
	struct fake_source *f = fake_new(dest_only(), &(struct fake_opts){.urgent = true});
	struct lab *lab = f->lab;
	pid_t pid;

	play(f, RUNNING);
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
	end(f);
}

Test(incoming, held_when_lost)
{
	held(LOST);
}

Test(incoming, held_when_bulk_is_lost)
{
	held(BULK_LOST);
}

Test(incoming, held_when_urgent_is_lost)
{
	held(URGENT_LOST);
}

Test(incoming, held_over_a_new_agent)
{
	held(AGENT_KILLED);
}

Test(incoming, asking_does_not_hurt_who_runs)
{
	held(ASKED);
}

/* Killed in the one moment in between: owned, and not yet let go. The new agent lets it go. */
Test(incoming, all_there_when_lost)
{
	struct fake_source *f = fake_new(dest_only(), &(struct fake_opts){.urgent = true});

	play(f, RUNNING);
	fake_all(f);
	fake_barrier(f);
	fake_serve(f, 50);
	fake_close(f);
	lab_until(f->lab, 10000, fake_phase_is(f, "completed"), "the phase");
	lab_check(f->lab, fake_query(f, 7) == MSG_ANSWER_COMPLETED, "the answer");
	lab_until(f->lab, 10000, fake_report_is(f, "good"), "what the guest has seen");
	end(f);
}

Test(incoming, guest_dies_after_commit)
{
	struct fake_source *f = fake_new(dest_only(), &(struct fake_opts){.urgent = true});

	play(f, RUNNING);
	kill(fake_guest_pid(f), SIGKILL);
	do
		fake_expect(f, f->m.type == MSG_REQUEST ? MSG_REQUEST : MSG_ERROR);
	while (f->m.type == MSG_REQUEST);
	lab_check(f->lab, !strcmp(f->m.error.code, "guest-gone"), "%s", f->m.error.message);
	lab_until(f->lab, 10000, fake_phase_is(f, "failed"), "the phase");
	lab_check(f->lab, fake_query(f, 7) == MSG_ANSWER_RUNNING, "the answer");
	end(f);
}

/* --- what cannot be --- */

static void refused(struct lab_host *b, struct fake_opts o, const char *code, const char *names)
{
	struct fake_source *f = fake_new(b, &o);

	fake_hello(f);
	f->control.timeout_us *= 2;
	fake_setup(f);
	fake_expect_error(f, code, names);
	lab_until(b->lab, 10000, fake_guest_pid(f) == 0, "%s: something is left", code);
	fake_free(f);
}

Test(incoming, guests_that_cannot_come)
{
	struct lab_host *b = dest_only();

	refused(b, (struct fake_opts){.launcher = "nobody"}, "unknown-launcher", "\"nobody\"");
	refused(b, (struct fake_opts){.launcher = "other"}, "wrong-driver", "qemu");
	refused(b, (struct fake_opts){.launcher = "failing"}, "guest-gone", "exit status 9");
	lab_check(b->lab, lab_host_guests(b) == 0, "something was left behind");
	lab_end(b->lab);
}

Test(incoming, a_guest_that_never_attaches)
{
	struct lab_host *b = dest_only();

	refused(b, (struct fake_opts){.launcher = "deaf"}, "attach-timeout", "within 10 s");
	lab_end(b->lab);
}

/* The guest that is launched has other blocks than the source says. */
Test(incoming, blocks_that_differ)
{
	static const struct {
		const char *vars;
		const char *names;
		uint32_t flags;
	} bad[] = {
		{"rom:memfd:256", "block ram is not in the guest", 0},
		{"ram:memfd:255", "1048576 bytes at the source and 1044480 here", 0},
		{"ram:anon:256", "memfd at the source and anonymous here", 0},
		{"ram:memfd:256,more:memfd:1", "2 blocks, the source's has 1", 0},
		{"ram:memfd:256", "read-only at the source and writable here", MSG_BLOCK_READONLY},
	};
	struct lab_host *b = dest_only();

	for (size_t i = 0; i < LAB_COUNT(bad); i++) {
		struct fake_source *f = fake_new(b, &(struct fake_opts){0});
		struct msg_setup *s = &f->m.setup;

		fake_hello(f);
		memset(&f->m, 0, sizeof(f->m));
		f->m.type = MSG_SETUP;
		strcpy(s->name, "still");
		strcpy(s->launcher, "still");
		strcpy(s->driver, "native");
		s->uuid[0] = 1;
		s->bulk_channels = 1;
		s->blocks = 1;
		s->nvars = 1;
		strcpy(s->vars[0].key, "blocks");
		snprintf(s->vars[0].value, sizeof(s->vars[0].value), "%s", bad[i].vars);
		fake_send(f);
		f->m.type = MSG_BLOCK;
		f->m.block = (struct msg_block){.name = "ram",
						.kind = MSG_BLOCK_MEMFD,
						.flags = bad[i].flags,
						.page_size = 4096,
						.length = 256 * 4096};
		fake_send(f);
		fake_expect_error(f, "block-differs", bad[i].names);
		fake_free(f);
	}
	lab_until(b->lab, 10000, lab_host_guests(b) == 0, "something is left");
	lab_end(b->lab);
}

Test(incoming, one_of_a_name)
{
	struct fake_source *f = fake_new(dest_only(), &(struct fake_opts){0});
	struct fake_source *g = fake_new(f->to, &(struct fake_opts){0});

	fake_prepared(f);
	fake_hello(g);
	fake_setup(g);
	fake_expect_error(g, "guest-exists", "is arriving here already");
	fake_free(g);
	end(f);
}

/* Held by an agent that is gone: its name is not free for a new one. */
Test(incoming, a_held_name_is_taken)
{
	struct fake_source *f = fake_new(dest_only(), &(struct fake_opts){.urgent = true});
	struct fake_source *g = fake_new(f->to, &(struct fake_opts){0});

	play(f, RUNNING);
	cut(f, AGENT_KILLED);
	fake_hello(g);
	fake_setup(g);
	fake_expect_error(g, "guest-exists", "held");
	fake_free(g);
	kill(fake_guest_pid(f), SIGKILL);
	lab_until(f->lab, 10000, fake_phase_is(f, "failed"), "its end is not noticed");
	end(f);
}

/* What decant-source of this host has under that name runs here: it would run twice. */
Test(incoming, a_guest_that_lives_here)
{
	struct lab *lab = lab_new(lab_test_failed);
	struct lab_host *b = lab_host_start(lab, &(struct lab_host_opts){.name = "b"});
	struct lab_guest *g = lab_guest_start(b, &(struct lab_guest_opts){.mb = 1});

	refused(b, (struct fake_opts){.guest = "guest", .launcher = "stamp"}, "guest-exists",
		"lives here already, it is running");
	lab_guest_verified(g);
	lab_end(lab);
}

/** enum wrong - something that may not be said at a moment */
enum wrong {
	EARLY_SWITCH,
	WRONG_INTENT,
	TWO_INTENTS,
	WRONG_COMMIT,
	EARLY_COMMIT,
	DISCARD_OUTSIDE,
	DISCARD_OUTSIDE_EARLY,
	DISCARD_AFTER_INTENT,
	STATE_DIGEST,
	STATE_LENGTH,
	OLD_PASS,
	PAGES_IN_DISCARD,
	PAGES_OUTSIDE,
	SECOND_SETUP,
};

static const struct {
	enum wrong what;
	enum moment when;
	const char *code;
	const char *names;
} wrongs[] = {
	{EARLY_SWITCH, PREPARED, "unexpected-message", "SWITCH"},
	{WRONG_INTENT, PREPARED, "bad-generation", "INTENT"},
	{TWO_INTENTS, INTENT, "unexpected-message", "INTENT"},
	{WRONG_COMMIT, READY, "bad-generation", "COMMIT"},
	{EARLY_COMMIT, LISTENING, "unexpected-message", "COMMIT"},
	{DISCARD_OUTSIDE, SWITCHED, "bad-message", "DISCARD"},
	{DISCARD_OUTSIDE_EARLY, PREPARED, "bad-message", "DISCARD"},
	{DISCARD_AFTER_INTENT, INTENT, "unexpected-message", "DISCARD"},
	{STATE_DIGEST, LISTENING, "state-differs", "digest"},
	{STATE_LENGTH, LISTENING, "state-differs", "bytes"},
	{OLD_PASS, READY, "old-pass", "PAGES"},
	{PAGES_IN_DISCARD, SWITCHED, "unexpected-message", "PAGES"},
	{PAGES_OUTSIDE, PREPARED, "bad-message", "PAGES"},
	{SECOND_SETUP, PREPARED, "unexpected-message", "SETUP"},
};

static void do_wrong(struct fake_source *f, enum wrong what)
{
	switch (what) {
	case EARLY_SWITCH:
		fake_switch(f);
		break;
	case WRONG_INTENT:
		fake_send_number(f, MSG_INTENT, 8);
		break;
	case TWO_INTENTS:
		fake_send_number(f, MSG_INTENT, 7);
		break;
	case WRONG_COMMIT:
		fake_send_number(f, MSG_COMMIT, 8);
		break;
	case EARLY_COMMIT:
		fake_send_number(f, MSG_COMMIT, 7);
		break;
	case DISCARD_OUTSIDE:
	case DISCARD_OUTSIDE_EARLY:
		fake_discard(f, 0, 250, 7);
		break;
	case DISCARD_AFTER_INTENT:
		fake_discard(f, 0, 10, 1);
		break;
	case STATE_DIGEST:
		f->m.state_end = (struct msg_state_end){0, 1};
		fake_send_simple(f, MSG_STATE_END);
		break;
	case STATE_LENGTH:
		f->m.state_end = (struct msg_state_end){8, 0x2d06800538d394c2ull};
		fake_send_simple(f, MSG_STATE_END);
		break;
	case OLD_PASS:
		f->pass--;
		fake_raw(f, &f->bulk[0], 0, 0, 1);
		break;
	case PAGES_IN_DISCARD:
		/* Channels are not ordered among each other: let SWITCH be through. */
		lab_until(f->lab, 5000, fake_phase_is(f, "discard"), "SWITCH is not obeyed");
		fake_raw(f, &f->bulk[0], 0, 0, 1);
		break;
	case PAGES_OUTSIDE:
		fake_raw(f, &f->bulk[0], 0, 250, 7);
		break;
	case SECOND_SETUP:
		fake_setup(f);
		break;
	}
}

Test(incoming, out_of_order)
{
	struct lab_host *b = dest_only();

	for (size_t i = 0; i < LAB_COUNT(wrongs); i++) {
		struct fake_source *f = fake_new(b, &(struct fake_opts){.urgent = true});

		play(f, wrongs[i].when);
		do_wrong(f, wrongs[i].what);
		fake_expect_error(f, wrongs[i].code, wrongs[i].names);
		lab_until(b->lab, 10000, fake_guest_pid(f) == 0, "%s: the guest is still there",
			  wrongs[i].names);
		lab_check(b->lab,
			  fake_query(f, 7) == (wrongs[i].when == RUNNING ? MSG_ANSWER_RUNNING
									 : MSG_ANSWER_NOT_STARTED),
			  "%s: the answer", wrongs[i].names);
		fake_free(f);
	}
	lab_end(b->lab);
}

/* --- channels --- */

Test(incoming, channels)
{
	struct fake_source *f = fake_new(dest_only(), &(struct fake_opts){.bulk = 2});
	struct lab *lab = f->lab;
	struct frame_io io = {0};
	struct error err = {0};

	fake_hello(f);
	lab_check(lab, fake_channel(f, MSG_CHANNEL_BULK, 0, &io, &err) == -EREMOTEIO, "too early");
	lab_check(lab, !strcmp(err.code, "unexpected-message"), "%s", err.msg);
	fake_setup(f);
	fake_expect(f, MSG_PREPARED);
	error_clear(&err);
	lab_check(lab, fake_channel(f, MSG_CHANNEL_BULK, 2, &io, &err) == -EREMOTEIO, "2 of 2");
	lab_check(lab, !fake_channel(f, MSG_CHANNEL_BULK, 1, &f->bulk[1], &err), "%s", err.msg);
	error_clear(&err);
	lab_check(lab, fake_channel(f, MSG_CHANNEL_BULK, 1, &io, &err) == -EREMOTEIO, "twice");
	lab_check(lab, !strcmp(err.code, "channel-exists"), "%s", err.msg);
	f->token[5] ^= 1;
	error_clear(&err);
	lab_check(lab, fake_channel(f, MSG_CHANNEL_BULK, 0, &io, &err) == -EREMOTEIO,
		  "wrong token");
	lab_check(lab, !strcmp(err.code, "bad-token"), "%s", err.msg);
	f->token[5] ^= 1;
	error_clear(&err);
	lab_check(lab, !fake_channel(f, MSG_CHANNEL_BULK, 0, &f->bulk[0], &err), "%s", err.msg);
	/* All that did not hurt. */
	fake_all(f);
	fake_barrier(f);
	fake_intent(f);
	fake_switch(f);
	error_clear(&err);
	lab_check(lab, fake_channel(f, MSG_CHANNEL_URGENT, 0, &io, &err) == -EREMOTEIO, "too late");
	fake_listen(f, false);
	fake_state(f, 0);
	fake_ready(f);
	fake_commit(f);
	completed(f);
	end(f);
}

/* Counts that do not agree are no receipt; the guest has all its pages and runs. */
Test(incoming, counts_that_differ)
{
	struct fake_source *f = fake_new(dest_only(), &(struct fake_opts){0});

	fake_prepared(f);
	fake_all(f);
	fake_barrier(f);
	fake_intent(f);
	fake_switch(f);
	fake_listen(f, false);
	fake_state(f, 0);
	fake_ready(f);
	fake_commit(f);
	f->digest_sum++;
	fake_complete(f);
	for (int i = 0; i < 30; i++) {
		usleep(100000);
		lab_check(f->lab, fake_phase_is(f, "running"), "it is settled on wrong counts");
	}
	f->digest_sum--;
	fake_complete(f);
	fake_expect(f, MSG_RECEIPT);
	end(f);
}

Test(incoming, pages_missing_at_the_end)
{
	struct fake_source *f = fake_new(dest_only(), &(struct fake_opts){0});
	struct lab *lab = f->lab;

	fake_prepared(f);
	fake_pages(f, &f->bulk[0], 0, 1, 255);
	fake_barrier(f);
	fake_intent(f);
	fake_switch(f);
	fake_listen(f, true);
	fake_state(f, 0);
	fake_ready(f);
	fake_commit(f);
	fake_complete(f);
	f->control.timeout_us *= 2;
	do {
		struct msg_header h;
		struct error err = {0};

		lab_check(lab, !frame_read_header(&f->control, &h, &err), "%s", err.msg);
		lab_check(lab, !frame_read_body(&f->control, &h, f->body, &f->m, &err), "%s",
			  err.msg);
		if (f->m.type == MSG_PING)
			fake_send_number(f, MSG_PONG, f->m.number.value);
	} while (f->m.type == MSG_PING || f->m.type == MSG_PONG || f->m.type == MSG_REQUEST);
	lab_check(lab,
		  f->m.type == MSG_ERROR && !strcmp(f->m.error.code, "pages-missing") &&
			  strstr(f->m.error.message, "block ram has not been received at 0x0"),
		  "%s: %s", msg_type_name(f->m.type), f->m.error.message);
	lab_check(lab, fake_phase_is(f, "held"), "the phase");
	end(f);
}
