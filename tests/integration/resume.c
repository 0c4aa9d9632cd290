/* SPDX-License-Identifier: Apache-2.0 */
/*
 * decant-dest against a source that makes a session again, by the rules and against them: who may, which
 * connection counts, what is told about the pages that are here, and what is asked for afterwards.
 */
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include "lib/fake_play.h"
#include "lib/lab_test.h"

TestSuite(resume, .timeout = 120);

#define PAGES 256
/* Pages that arrive before the session is lost. */
#define EARLY 64

/* One more control channel; what the session has is left as it is. */
static struct frame_io hello(struct fake_source *f, uint8_t ret_token[static MSG_TOKEN_LEN])
{
	uint8_t before[MSG_TOKEN_LEN];
	struct error err = {0};
	struct frame_io io;

	memcpy(before, f->token, sizeof(before));
	lab_check(f->lab, !fake_channel(f, MSG_CHANNEL_CONTROL, 0, &io, &err), "HELLO: %s",
		  err.msg);
	lab_check(f->lab, memcmp(before, f->token, sizeof(before)) != 0,
		  "the token is the old one");
	memcpy(ret_token, f->token, MSG_TOKEN_LEN);
	memcpy(f->token, before, sizeof(before));
	return io;
}

/* The next control channel, of the session that is to come. */
static struct frame_io next_hello(struct fake_source *f)
{
	uint8_t token[MSG_TOKEN_LEN];
	struct frame_io io = hello(f, token);

	memcpy(f->token, token, sizeof(token));
	return io;
}

static void resume(struct fake_source *f, struct frame_io io, uint64_t generation)
{
	f->control = io;
	f->m.type = MSG_RESUME;
	f->m.resume = (struct msg_resume){.generation = generation, .bulk_channels = 1};
	fake_send(f);
}

static void refused(struct fake_source *f, struct frame_io io, uint64_t generation,
		    const char *code)
{
	struct frame_io own = f->control;

	resume(f, io, generation);
	fake_expect_error(f, code, NULL);
	tls_chan_free(f->control.chan);
	f->control = own;
}

/* Of each page it is said rightly whether it is here. Return: how many are */
static uint64_t bitmap(struct fake_source *f)
{
	uint64_t n = 0;

	fake_expect(f, MSG_RECEIVED);
	lab_check(f->lab, !f->m.received.block && !f->m.received.first && f->m.received.n == 4,
		  "block %u, first %lu, words %u", f->m.received.block, f->m.received.first,
		  f->m.received.n);
	for (unsigned int i = 0; i < 4; i++)
		n += (unsigned int)__builtin_popcountll(f->m.received.words[i]);
	lab_check(f->lab, f->m.received.words[0] == UINT64_MAX, "the first %d are here", EARLY);
	fake_expect(f, MSG_RESUMED);
	lab_check(f->lab, f->m.resumed.pass == f->pass, "pass %u", f->m.resumed.pass);
	f->runs = 0;
	f->digest_sum = 0;
	return n;
}

static void channels(struct fake_source *f)
{
	struct error err = {0};

	if (f->o.urgent)
		lab_check(f->lab, !fake_channel(f, MSG_CHANNEL_URGENT, 0, &f->urgent, &err), "%s",
			  err.msg);
	lab_check(f->lab, !fake_channel(f, MSG_CHANNEL_BULK, 0, &f->bulk[0], &err), "%s", err.msg);
	fake_send_simple(f, MSG_CONTINUE);
}

static void completes(struct fake_source *f)
{
	struct lab *lab = f->lab;
	json_t *o;

	lab_check(lab, fake_serve(f, 300) > 0, "it does not ask for what its guest waits for");
	fake_all(f);
	fake_barrier(f);
	fake_complete(f);
	fake_expect(f, MSG_RECEIPT);
	lab_check(lab, f->m.receipt.digest_ok && f->m.receipt.pages[0] == PAGES, "the receipt");
	fake_close(f);
	lab_until(lab, 10000, fake_phase_is(f, "completed"), "the phase");
	o = fake_view(f);
	lab_check(lab, json_is_null(lab_at(o, "error")), "an error stays");
	json_decref(o);
	lab_until(lab, 20000, fake_report_is(f, "good"), "what the guest has seen");
	/* It is at home: it ends with the lab. */
	kill(fake_guest_pid(f), SIGKILL);
	fake_free(f);
	lab_end(lab);
}

static void again(bool urgent)
{
	struct fake_source *f = fake_early(fake_host(lab_test_failed), urgent, EARLY);
	struct frame_io io;

	fake_close(f);
	lab_until(f->lab, 10000, fake_phase_is(f, "held"), "it is not held");
	io = next_hello(f);
	resume(f, io, 7);
	bitmap(f);
	channels(f);
	completes(f);
}

Test(resume, with_an_urgent_channel)
{
	again(true);
}

Test(resume, without_an_urgent_channel)
{
	again(false);
}

/* The loss was noticed at the other end only: what stands gives way, and not before RESUME is right. */
Test(resume, half_open)
{
	struct fake_source *f = fake_early(fake_host(lab_test_failed), true, EARLY);
	uint8_t first[MSG_TOKEN_LEN], next[MSG_TOKEN_LEN];
	struct frame_io old[3], late = hello(f, first), io = hello(f, next);
	struct error err = {0};
	struct msg_header h;

	/* Of two that say HELLO the later one counts; a HELLO alone changes nothing. */
	refused(f, late, 7, "stale-resume");
	refused(f, io, 8, "bad-generation");
	lab_check(f->lab, fake_phase_is(f, "running"), "the session was ended");
	fake_raw(f, &f->bulk[0], 0, EARLY, 1);
	fake_barrier(f);

	old[0] = f->control;
	old[1] = f->urgent;
	old[2] = f->bulk[0];
	io = hello(f, next);
	resume(f, io, 7);
	lab_check(f->lab, bitmap(f) >= EARLY + 1, "what came before the end is not told");
	/* Until it is noticed: the old channels are closed, and who comes with the old token stays out. */
	old[2].timeout_us = 5000000;
	lab_check(f->lab, frame_read_header(&old[2], &h, &err) < 0, "the old bulk channel stands");
	error_clear(&err);
	lab_check(f->lab,
		  fake_channel(f, MSG_CHANNEL_BULK, 0, &f->bulk[0], &err) &&
			  !strcmp(err.code, "bad-token"),
		  "the old token: %s", err.msg);
	for (int i = 0; i < 3; i++)
		tls_chan_free(old[i].chan);
	memcpy(f->token, next, sizeof(next));
	channels(f);
	completes(f);
}

/* Nobody but the source itself, and no second CONTINUE. */
Test(resume, against_the_rules)
{
	struct fake_source *f = fake_early(fake_host(lab_test_failed), true, EARLY), *other;
	struct error err = {0};
	struct frame_io io;

	other = fake_new(f->to, &(struct fake_opts){.identity = "host-b"});
	memcpy(other->id, f->id, sizeof(f->id));
	lab_check(f->lab,
		  fake_channel(other, MSG_CHANNEL_CONTROL, 0, &io, &err) &&
			  !strcmp(err.code, "migration-exists"),
		  "another's migration: %s", err.msg);
	fake_free(other);
	fake_close(f);
	lab_until(f->lab, 10000, fake_phase_is(f, "held"), "it is not held");

	/* COMPLETE before CONTINUE ends the session, and not the migration. */
	io = next_hello(f);
	resume(f, io, 7);
	bitmap(f);
	fake_complete(f);
	fake_expect_error(f, "unexpected-message", "CONTINUE");
	fake_close(f);
	io = next_hello(f);
	resume(f, io, 7);
	bitmap(f);
	channels(f);
	fake_send_simple(f, MSG_CONTINUE);
	fake_expect_error(f, "unexpected-message", "CONTINUE");
	fake_close(f);
	lab_until(f->lab, 10000, fake_phase_is(f, "held"), "it is not held");
	io = next_hello(f);
	resume(f, io, 7);
	bitmap(f);
	channels(f);
	completes(f);
}
