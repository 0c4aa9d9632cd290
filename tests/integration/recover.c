/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sessions that are lost behind COMMIT, with both agents alive: whatever becomes of the connections,
 * the guest waits for its pages, gets every one of them, and the migration completes.
 */
#include <string.h>
#include "lib/lab_pace.h"
#include "lib/lab_relay.h"
#include "lib/lab_test.h"

TestSuite(recover, .timeout = 240);

/** struct scene - a guest that is in post-copy through a relay, and faults all the time */
struct scene {
	struct lab *lab;
	struct lab_host *a, *b;
	struct lab_relay *relay;
	struct lab_guest *g;
	struct lab_move move;
	struct lab_proc *p;
};

#define MB 32
/* What is done to the connections is done when there is more than was under way: sent again, it would show. */
#define SOME (18u << 20)

static struct scene begin(unsigned int mb, const char *channels)
{
	struct scene s = {.move = {.mode = "postcopy",
				   .cut = true,
				   .args = {"--bandwidth", "80Mbit", "--channels", channels}}};

	s.lab = lab_test_pair(&s.a, &s.b);
	s.relay = lab_relay_new(s.b);
	s.g = lab_guest_start(s.a, &(struct lab_guest_opts){.mb = mb, .threads = 2, .writes = 400});
	lab_relay_later(s.relay, SOME);
	return s;
}

/* Its orders were given. */
static void go(struct scene *s)
{
	lab_relay_later(s->relay, 0);
	s->p = lab_migrate_begin(s->a, s->b, s->g, &s->move);
}

/*
 * It completes, every page is verified where the guest is now, and what was sent twice is what had been
 * under way at a cut: buffers of the kernels and of the relay, not the memory.
 */
static void ends(struct scene *s, unsigned int cuts)
{
	json_t *job = lab_migrate_end(s->a, s->p, &s->move);
	double sent = lab_num(s->lab, job, "memory.sent_bytes");
	double zero = lab_num(s->lab, job, "memory.zero_pages") * 4096;
	double total = lab_num(s->lab, job, "memory.total_bytes");

	lab_check(s->lab, sent + zero <= total + cuts * 12.0 * (1 << 20),
		  "%.0f bytes sent and %.0f of zeros for %.0f, with %u cuts", sent, zero, total,
		  cuts);
	lab_check(s->lab, json_is_null(lab_at(job, "recovery")), "it still recovers");
	json_decref(job);
	lab_guest_arrived(s->g, s->b);
	lab_relay_free(s->relay);
	lab_end(s->lab);
}

static void cut_when_sent(const char *channels)
{
	struct scene s = begin(MB, channels);

	lab_relay_cut(s.relay);
	go(&s);
	lab_until(s.lab, 20000, lab_proc_said(s.lab, s.b->dest, "there is a session again"),
		  "it was not recovered");
	ends(&s, 1);
}

Test(recover, reset)
{
	cut_when_sent("1");
}

Test(recover, reset_of_many_channels)
{
	lab_test_long();
	cut_when_sent("4");
}

/* Control is the first that was dialled, then urgent, then bulk: those are made again alone. */
static void cut_one(unsigned int which, const char *again)
{
	struct scene s = begin(MB, "2");

	lab_relay_cut_one(s.relay, which);
	go(&s);
	if (again)
		lab_until(s.lab, 20000, lab_proc_said(s.lab, s.a->source, again), "it is gone");
	else
		lab_until(s.lab, 20000, lab_proc_said(s.lab, s.b->dest, "there is a session again"),
			  "it was not recovered");
	lab_check(s.lab, !again || !lab_proc_said(s.lab, s.a->source, "paused (lost)"),
		  "the session was given up");
	lab_check(s.lab, lab_relay_accepted(s.relay) >= 5, "%u connections",
		  lab_relay_accepted(s.relay));
	ends(&s, 1);
}

Test(recover, reset_of_control)
{
	lab_test_long();
	cut_one(0, NULL);
}

Test(recover, reset_of_urgent)
{
	cut_one(1, "urgent channel 0 stands again");
}

Test(recover, reset_of_a_bulk_channel)
{
	cut_one(3, "bulk channel 1 stands again");
}

/* Neither side hears anything any more; both find out by themselves. */
Test(recover, black_hole)
{
	struct pace *pace;
	struct scene s;
	uint64_t since;

	lab_test_long();
	s = begin(MB, "1");
	lab_relay_swallow(s.relay);
	go(&s);
	lab_until(s.lab, 20000, lab_relay_waiting(s.relay) == 0, "nothing is sent");
	pace = pace_start();
	since = lab_now_ms();
	lab_until(s.lab, 10000, lab_proc_said(s.lab, s.b->dest, "there is a session again"),
		  "it was not recovered");
	lab_brisk(s.lab, pace, (lab_now_ms() - since) * 1000, 9000000, "it was found out");
	pace_end(pace);
	ends(&s, 1);
}

Test(recover, flapping)
{
	struct scene s;

	lab_test_long();
	/* So much that it is not through before it has been lost often enough. */
	s = begin(4 * MB, "2");
	lab_relay_flap(s.relay, 300);
	go(&s);
	lab_until(s.lab, 30000, lab_relay_accepted(s.relay) > 16, "nobody dials any more");
	lab_relay_flap(s.relay, 0);
	ends(&s, 10);
}

/* While nobody gets through it is said why, and when it is tried again; and nothing can be undone. */
Test(recover, paused_until_there_is_a_way)
{
	struct scene s = begin(MB, "1");
	json_t *job;

	lab_relay_refuse(s.relay, true);
	lab_relay_cut(s.relay);
	go(&s);
	lab_until(s.lab, 20000, lab_job_phase_is(s.a, "paused"), "it is not paused");
	lab_until(s.lab, 10000, lab_job_num(s.a, "recovery.attempts") > 3, "nobody tries");
	job = lab_job_newest(s.a);
	lab_str(s.lab, job, "error.code");
	lab_str(s.lab, job, "recovery.last_error.code");
	lab_check(s.lab, lab_at(job, "recovery.next_attempt_at"), "next attempt");
	lab_check(s.lab, !strcmp(lab_str(s.lab, job, "owner"), "destination"), "owner");
	lab_check(s.lab,
		  lab_decant(s.a, 10000, NULL, NULL,
			     (const char *[]){"cancel", lab_str(s.lab, job, "id"), NULL}) == 3,
		  "cancelled after the hand-over");
	lab_relay_refuse(s.relay, false);
	/* Not to wait for the next attempt. */
	lab_check(s.lab,
		  lab_decant(s.a, 10000, NULL, NULL,
			     (const char *[]){"recover", lab_str(s.lab, job, "id"), NULL}) == 0,
		  "recover was refused");
	json_decref(job);
	ends(&s, 1);
}

/* A session is lost again while it is being made, after more and more bytes. */
Test(recover, cut_while_recovering)
{
	struct scene s;

	lab_test_long();
	s = begin(MB, "2");
	lab_relay_cut(s.relay);
	go(&s);
	lab_until(s.lab, 20000, lab_relay_waiting(s.relay) == 0, "nothing is sent");
	for (unsigned int bytes = 1500; bytes < 17000; bytes += 5000) {
		unsigned int before = lab_relay_accepted(s.relay);

		lab_relay_cut_after(s.relay, bytes);
		lab_relay_cut(s.relay);
		lab_until(s.lab, 10000, lab_relay_accepted(s.relay) > before + 1, "nobody dials");
	}
	ends(&s, 10);
}

/* What the destination says on control: the handshake, HELLO_ACK, PREPARED, INTENT_ACK, READY, RUNNING. */
#define SAYS_RUNNING 6

/*
 * The source has sent COMMIT and never hears what came of it: it is in doubt, asks, and goes on. A PING in
 * between moves the moment to before COMMIT, where the guest stays: then it is tried again.
 */
Test(recover, in_doubt)
{
	struct scene s = {
		.move = {.mode = "postcopy", .cut = true, .args = {"--bandwidth", "80Mbit"}}};
	json_t *job;

	s.lab = lab_test_pair(&s.a, &s.b);
	s.relay = lab_relay_new(s.b);
	s.g = lab_guest_start(s.a, &(struct lab_guest_opts){.mb = MB, .threads = 2, .writes = 400});
	do {
		lab_relay_cut_before(s.relay, SAYS_RUNNING);
		s.p = lab_migrate_begin(s.a, s.b, s.g, &s.move);
		lab_until(s.lab, 20000,
			  lab_job_phase_is(s.a, "failed") ||
				  lab_proc_said(s.lab, s.b->dest, "there is a session again"),
			  "neither lost before COMMIT nor recovered");
		if (lab_job_phase_is(s.a, "failed"))
			lab_proc_wait(s.lab, s.p, 10000);
	} while (lab_job_phase_is(s.a, "failed"));
	lab_check(s.lab, lab_proc_said(s.lab, s.a->source, "in-doubt (lost)"), "it never doubted");
	lab_check(s.lab, lab_proc_wait(s.lab, s.p, 60000) == 0, "it did not complete");
	job = lab_job_newest(s.a);
	lab_check(s.lab, json_is_true(lab_at(job, "digest_ok")), "digest_ok");
	json_decref(job);
	lab_guest_arrived(s.g, s.b);
	lab_relay_free(s.relay);
	lab_end(s.lab);
}

/* Over another address of the same host; a host that does not know the migration is no help. */
Test(recover, over_another_address)
{
	struct scene s = begin(MB, "1");
	struct lab_host *c = lab_host_start(
		s.lab,
		&(struct lab_host_opts){.name = "c", .identity = "host-b", .no_source = true});
	char direct[64];
	json_t *job;

	lab_relay_refuse(s.relay, true);
	lab_relay_cut(s.relay);
	go(&s);
	lab_until(s.lab, 20000, lab_job_phase_is(s.a, "paused"), "it is not paused");
	job = lab_job_newest(s.a);
	lab_check(s.lab,
		  lab_decant(s.a, 10000, NULL, NULL,
			     (const char *[]){"recover", lab_str(s.lab, job, "id"), "--to", c->to,
					      NULL}) == 0,
		  "recover was refused");
	lab_until(s.lab, 10000, lab_proc_said(s.lab, s.a->source, "does not know this migration"),
		  "nothing is said of the wrong host");
	/* It may be trying just now. */
	lab_until(s.lab, 5000, lab_job_phase_is(s.a, "paused"), "it is not paused any more");
	snprintf(direct, sizeof(direct), "%s:%u", s.b->address, s.b->port);
	lab_check(s.lab,
		  lab_decant(s.a, 10000, NULL, NULL,
			     (const char *[]){"recover", lab_str(s.lab, job, "id"), "--to", direct,
					      NULL}) == 0,
		  "recover was refused");
	json_decref(job);
	ends(&s, 1);
}
