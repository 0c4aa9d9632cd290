/* SPDX-License-Identifier: Apache-2.0 */
/*
 * decant-dest against a source that does what the test wants: every mode, up to the end and what is said of it.
 * Sessions that end before are in incoming_ends.c, what is refused in incoming_refused.c.
 */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "guests/still_page.h"
#include "lib/fake_play.h"
#include "lib/lab_test.h"

TestSuite(incoming, .timeout = 240);

/* --- modes --- */

static void precopy(enum msg_block_kind kind, unsigned int bulk)
{
	struct fake_opts o = {.blocks = {{"ram", kind, 600}, {"aux", MSG_BLOCK_MEMFD, 3}},
			      .bulk = bulk,
			      .precopy_only = true};
	struct fake_source *f = fake_new(fake_host(lab_test_failed), &o);

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
	fake_completed(f);
	lab_check(f->lab, f->m.answer.answer == MSG_ANSWER_COMPLETED, "the answer");
	fake_end(f);
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
	struct fake_source *f = fake_new(fake_host(lab_test_failed), &o);
	unsigned int asked = 0;
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
	lab_until(f->lab, 10000, (asked += fake_serve(f, 100), fake_report_is(f, "good")),
		  "what the guest has seen");
	lab_check(f->lab, asked > 50, "pages are not asked for");
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
	fake_completed(f);
	fake_end(f);
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
	struct fake_source *f = fake_new(fake_host(lab_test_failed), &o);

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
	fake_completed(f);
	fake_end(f);
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
	struct fake_source *f = fake_new(fake_host(lab_test_failed), &o);

	fake_prepared(f);
	fake_all(f);
	fake_barrier(f);
	fake_intent(f);
	fake_switch(f);
	fake_listen(f, false);
	fake_state(f, 0);
	fake_ready(f);
	fake_commit(f);
	fake_completed(f);
	fake_end(f);
}

/* 64 MiB of state go through: no more than the guest takes is held. */
Test(incoming, largest_state)
{
	struct fake_source *f =
		fake_new(fake_host(lab_test_failed), &(struct fake_opts){.precopy_only = true});

	fake_prepared(f);
	fake_all(f);
	fake_barrier(f);
	fake_intent(f);
	fake_switch(f);
	fake_listen(f, false);
	fake_state(f, MSG_STATE_TOTAL_MAX - 8);
	fake_ready(f);
	fake_commit(f);
	fake_completed(f);
	fake_end(f);
}

/* --- damaged on the way --- */

/* Asked for again on the channel on which it came; nothing of it was placed. */
static void damaged(bool live)
{
	struct fake_opts o = {.precopy_only = !live};
	struct fake_source *f = fake_new(fake_host(lab_test_failed), &o);
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
		fake_completed(f);
		fake_end(f);
		return;
	}
	/* The older copy does not stand in for it. */
	fake_intent(f);
	fake_switch(f);
	fake_listen(f, false);
	fake_expect_error(f, "pages-missing", "block ram");
	lab_until(f->lab, 10000, fake_phase_is(f, "aborted"), "the phase");
	fake_end(f);
}

Test(incoming, damaged_in_precopy)
{
	damaged(false);
}

Test(incoming, damaged_in_postcopy)
{
	damaged(true);
}

/* --- channels --- */

Test(incoming, channels)
{
	struct fake_source *f =
		fake_new(fake_host(lab_test_failed), &(struct fake_opts){.bulk = 2});
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
	fake_completed(f);
	fake_end(f);
}

/* Counts that do not agree are no receipt; the guest has all its pages and runs. */
Test(incoming, counts_that_differ)
{
	struct fake_source *f = fake_new(fake_host(lab_test_failed), &(struct fake_opts){0});

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
	for (int i = 0; i < 10; i++) {
		usleep(100000);
		lab_check(f->lab, fake_phase_is(f, "running"), "it is settled on wrong counts");
	}
	f->digest_sum--;
	fake_complete(f);
	fake_expect(f, MSG_RECEIPT);
	fake_end(f);
}

Test(incoming, pages_missing_at_the_end)
{
	struct fake_source *f = fake_new(fake_host(lab_test_failed), &(struct fake_opts){0});
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
	lab_until(lab, 5000, fake_phase_is(f, "held"), "the phase");
	fake_end(f);
}
