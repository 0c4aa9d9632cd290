/* SPDX-License-Identifier: Apache-2.0 */
/*
 * decant-dest against a source that does what the test wants: guests that cannot come, and what may not be said at
 * a moment.
 */
#include <signal.h>
#include <string.h>

#include "lib/fake_play.h"
#include "lib/lab_test.h"

TestSuite(incoming_refused, .timeout = 240);

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

Test(incoming_refused, guests_that_cannot_come)
{
	struct lab_host *b = fake_host(lab_test_failed);

	refused(b, (struct fake_opts){.launcher = "nobody"}, "unknown-launcher", "\"nobody\"");
	refused(b, (struct fake_opts){.launcher = "other"}, "wrong-driver", "qemu");
	refused(b, (struct fake_opts){.launcher = "failing"}, "guest-gone", "exit status 9");
	lab_check(b->lab, lab_host_guests(b) == 0, "something was left behind");
	lab_end(b->lab);
}

Test(incoming_refused, a_guest_that_never_attaches)
{
	struct lab_host *b = fake_host(lab_test_failed);

	refused(b, (struct fake_opts){.launcher = "deaf"}, "attach-timeout", "within 10 s");
	lab_end(b->lab);
}

/* The guest that is launched has other blocks than the source says. */
Test(incoming_refused, blocks_that_differ)
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
	struct lab_host *b = fake_host(lab_test_failed);

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

Test(incoming_refused, one_of_a_name)
{
	struct fake_source *f = fake_new(fake_host(lab_test_failed), &(struct fake_opts){0});
	struct fake_source *g = fake_new(f->to, &(struct fake_opts){0});

	fake_prepared(f);
	fake_hello(g);
	fake_setup(g);
	fake_expect_error(g, "guest-exists", "is arriving here already");
	fake_free(g);
	fake_end(f);
}

/* Held by an agent that is gone: its name is not free for a new one. */
Test(incoming_refused, a_held_name_is_taken)
{
	struct fake_source *f =
		fake_new(fake_host(lab_test_failed), &(struct fake_opts){.urgent = true});
	struct fake_source *g = fake_new(f->to, &(struct fake_opts){0});

	fake_play(f, FAKE_RUNNING);
	lab_proc_kill(f->lab, f->to->dest);
	lab_host_dest_start(f->to);
	fake_hello(g);
	fake_setup(g);
	/* It says "held", or "arriving" once the new agent has taken it over. */
	fake_expect_error(g, "guest-exists", "of still is ");
	fake_free(g);
	kill(fake_guest_pid(f), SIGKILL);
	lab_until(f->lab, 10000, fake_phase_is(f, "failed"), "its end is not noticed");
	fake_end(f);
}

/* What decant-source of this host has under that name runs here: it would run twice. */
Test(incoming_refused, a_guest_that_lives_here)
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
	enum fake_moment when;
	const char *code;
	const char *names;
} wrongs[] = {
	{EARLY_SWITCH, FAKE_PREPARED, "unexpected-message", "SWITCH"},
	{WRONG_INTENT, FAKE_PREPARED, "bad-generation", "INTENT"},
	{TWO_INTENTS, FAKE_INTENT, "unexpected-message", "INTENT"},
	{WRONG_COMMIT, FAKE_READY, "bad-generation", "COMMIT"},
	{EARLY_COMMIT, FAKE_LISTENING, "unexpected-message", "COMMIT"},
	{DISCARD_OUTSIDE, FAKE_SWITCHED, "bad-message", "DISCARD"},
	{DISCARD_OUTSIDE_EARLY, FAKE_PREPARED, "bad-message", "DISCARD"},
	{DISCARD_AFTER_INTENT, FAKE_INTENT, "unexpected-message", "DISCARD"},
	{STATE_DIGEST, FAKE_LISTENING, "state-differs", "digest"},
	{STATE_LENGTH, FAKE_LISTENING, "state-differs", "bytes"},
	{OLD_PASS, FAKE_READY, "old-pass", "PAGES"},
	{PAGES_IN_DISCARD, FAKE_SWITCHED, "unexpected-message", "PAGES"},
	{PAGES_OUTSIDE, FAKE_PREPARED, "bad-message", "PAGES"},
	{SECOND_SETUP, FAKE_PREPARED, "unexpected-message", "SETUP"},
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

Test(incoming_refused, out_of_order)
{
	struct lab_host *b = fake_host(lab_test_failed);

	for (size_t i = 0; i < LAB_COUNT(wrongs); i++) {
		struct fake_source *f = fake_new(b, &(struct fake_opts){.urgent = true});

		fake_play(f, wrongs[i].when);
		do_wrong(f, wrongs[i].what);
		fake_expect_error(f, wrongs[i].code, wrongs[i].names);
		lab_until(b->lab, 10000, fake_guest_pid(f) == 0, "%s: the guest is still there",
			  wrongs[i].names);
		lab_check(b->lab,
			  fake_query(f, 7) == (wrongs[i].when == FAKE_RUNNING
						       ? MSG_ANSWER_RUNNING
						       : MSG_ANSWER_NOT_STARTED),
			  "%s: the answer", wrongs[i].names);
		fake_free(f);
	}
	lab_end(b->lab);
}
