/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Networks that fail while the guest is still at home: the guest runs on, the destination keeps what it has,
 * and the rest is sent over the next session. What fails behind the switch is in recover.c, what needs
 * namespaces in tests/faults.
 */
#include <stdlib.h>
#include <string.h>
#include "lib/lab_relay.h"
#include "lib/lab_test.h"

TestSuite(net, .timeout = 120);

#define MB 48

struct scene {
	struct lab *lab;
	struct lab_host *a, *b;
	struct lab_relay *relay;
	struct lab_guest *g;
	struct lab_move move;
	struct lab_proc *p;
};

/* Precopy of half the memory is over; a guest that writes little, so that what is sent twice shows. */
static struct scene half_kept(const char *mode, const char *channels, const char *timeout_s,
			      const char *dest_conf)
{
	struct scene s = {.move = {.mode = mode,
				   .args = {"--bandwidth", "120Mbit", "--channels", channels,
					    "--reconnect-timeout-s", timeout_s}}};

	s.lab = lab_new(lab_test_failed);
	s.a = lab_host_start(s.lab, &(struct lab_host_opts){.name = "a"});
	s.b = lab_host_start(s.lab, &(struct lab_host_opts){.name = "b", .dest_conf = dest_conf});
	s.relay = lab_relay_new(s.b);
	s.g = lab_guest_start(s.a, &(struct lab_guest_opts){.mb = MB, .threads = 1, .writes = 40});
	s.p = lab_migrate_begin(s.a, s.b, s.g, &s.move);
	lab_until(s.lab, 20000,
		  lab_job_phase_is(s.a, "precopy") &&
			  lab_job_num(s.a, "memory.sent_bytes") > MB * 0.5 * (1 << 20),
		  "half of the memory was not sent in precopy");
	return s;
}

/* The destination keeps that for 4 s without a session. */
static struct scene half_sent(const char *mode, const char *channels, const char *timeout_s)
{
	return half_kept(mode, channels, timeout_s, "{\"limits\": {\"interrupted_s\": 4}}");
}

/* What was under way on each channel when it was cut: up to its next barrier, and what the buffers hold. */
#define OPEN_MAX (5.0 * (1 << 20))
/* The same where nobody says that nothing arrives any more: the kernel's buffers on the way fill up. */
#define HOLE_MAX (16.0 * (1 << 20))

static void ends(struct scene *s, double again_max)
{
	json_t *job = lab_migrate_end(s->a, s->p, &s->move);
	double sent = lab_num(s->lab, job, "memory.sent_bytes");
	double zero = lab_num(s->lab, job, "memory.zero_pages") * 4096;
	double total = lab_num(s->lab, job, "memory.total_bytes");

	fprintf(stderr, "sent again: %.0f KiB\n", (sent + zero - total) / 1024);
	lab_check(s->lab, sent + zero <= total + again_max + (4 << 20),
		  "%.0f bytes sent and %.0f of zeros for %.0f", sent, zero, total);
	lab_check(s->lab, json_is_null(lab_at(job, "recovery")), "it still recovers");
	lab_check(s->lab, json_is_null(lab_at(job, "error")), "an error stays");
	json_decref(job);
	lab_guest_arrived(s->g, s->b);
	lab_relay_free(s->relay);
	lab_end(s->lab);
}

static void until_again(struct scene *s)
{
	uint64_t since = lab_now_ms();

	lab_until(s->lab, 15000, lab_proc_said(s->lab, s->a->source, ": goes on with "),
		  "no session was made again");
	fprintf(stderr, "goes on after %lu ms\n", lab_now_ms() - since);
}

Test(net, precopy_goes_on_after_a_reset)
{
	struct scene s = half_sent("precopy", "2", "20");

	lab_relay_cut(s.relay);
	until_again(&s);
	ends(&s, 2 * OPEN_MAX);
}

Test(net, hybrid_goes_on_after_a_black_hole)
{
	struct scene s;

	lab_test_long();
	s = half_sent("hybrid", "2", "20");
	lab_relay_swallow(s.relay);
	until_again(&s);
	ends(&s, 2 * HOLE_MAX);
}

/* The session stands; the pages that were under way go over the other channel. */
Test(net, precopy_with_one_channel_lost)
{
	struct scene s = half_sent("precopy", "2", "20");

	lab_check(s.lab, lab_relay_open(s.relay) == 3, "%u channels", lab_relay_open(s.relay));
	lab_relay_cut_one(s.relay, 2);
	lab_until(s.lab, 10000, lab_proc_said(s.lab, s.a->source, "bulk channel 1 stands again"),
		  "it was not made again");
	lab_check(s.lab, !lab_proc_said(s.lab, s.a->source, "interrupted"), "the session was lost");
	ends(&s, OPEN_MAX);
}

Test(net, precopy_over_a_link_that_flaps)
{
	struct scene s = half_sent("hybrid", "2", "20");

	/* What is left takes 1.6 s of a whole link, so at least six sessions of three connections. */
	lab_relay_flap(s.relay, 250);
	lab_until(s.lab, 30000, lab_relay_accepted(s.relay) > 15, "nobody dials any more");
	lab_relay_flap(s.relay, 0);
	ends(&s, 24 * OPEN_MAX);
}

static void nobody_gets_through(struct scene *s)
{
	lab_relay_refuse(s->relay, true);
	lab_relay_cut(s->relay);
	lab_until(s->lab, 10000, lab_job_phase_is(s->a, "paused"), "it is not paused");
}

/* Both sides let go: the source when it is told to, the destination when its time is over. */
static void stays_here(struct scene *s)
{
	lab_guest_verified(s->g);
	lab_until(s->lab, 15000, lab_host_guests(s->b) == 0, "the destination keeps its guest");
	lab_relay_free(s->relay);
	lab_end(s->lab);
}

Test(net, cancelled_without_a_session)
{
	struct scene s = half_sent("hybrid", "1", "60");
	json_t *job;

	nobody_gets_through(&s);
	lab_until(s.lab, 10000, lab_job_num(s.a, "recovery.attempts") > 1, "nobody tries");
	job = lab_job_newest(s.a);
	lab_check(s.lab, !strcmp(lab_str(s.lab, job, "owner"), "source"), "owner");
	lab_str(s.lab, job, "error.code");
	lab_check(s.lab,
		  lab_decant(s.a, 10000, NULL, NULL,
			     (const char *[]){"cancel", lab_str(s.lab, job, "id"), NULL}) == 0,
		  "cancel was refused");
	json_decref(job);
	lab_until(s.lab, 10000, lab_job_phase_is(s.a, "cancelled"), "it is not cancelled");
	lab_proc_wait(s.lab, s.p, 10000);
	stays_here(&s);
}

Test(net, the_time_without_a_session_is_bounded)
{
	struct scene s = half_sent("precopy", "1", "3");
	json_t *job;

	nobody_gets_through(&s);
	lab_until(s.lab, 10000, lab_job_phase_is(s.a, "failed"), "it goes on for ever");
	job = lab_job_newest(s.a);
	lab_check(s.lab, !strcmp(lab_str(s.lab, job, "error.code"), "reconnect-timeout"),
		  "error %s", lab_str(s.lab, job, "error.code"));
	json_decref(job);
	lab_proc_wait(s.lab, s.p, 10000);
	stays_here(&s);
}

/* A destination that would keep what it has for long is told that it need not, as soon as that is possible. */
Test(net, a_rolled_back_job_is_told_of_later)
{
	struct scene s = half_kept("precopy", "1", "3", "{\"limits\": {\"interrupted_s\": 3600}}");

	nobody_gets_through(&s);
	lab_until(s.lab, 10000, lab_job_phase_is(s.a, "failed"), "it goes on for ever");
	lab_proc_wait(s.lab, s.p, 10000);
	lab_check(s.lab, lab_host_guests(s.b) == 1, "nothing was kept");
	lab_relay_refuse(s.relay, false);
	stays_here(&s);
}

/* Through another address, before the next attempt is due. */
Test(net, precopy_over_another_address)
{
	struct scene s = half_sent("precopy", "2", "60");
	char direct[64];
	json_t *job;

	nobody_gets_through(&s);
	job = lab_job_newest(s.a);
	snprintf(direct, sizeof(direct), "%s:%u", s.b->address, s.b->port);
	lab_check(s.lab,
		  lab_decant(s.a, 10000, NULL, NULL,
			     (const char *[]){"recover", lab_str(s.lab, job, "id"), "--to", direct,
					      NULL}) == 0,
		  "recover was refused");
	json_decref(job);
	ends(&s, 2 * OPEN_MAX);
}
