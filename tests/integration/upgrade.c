/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Hosts are brought up to date one after the other, and with guests on them: agents of this protocol
 * version and of the one before move guests to each other, and an agent is replaced by another build in
 * the middle of a migration, as systemd does it (SIGTERM, then the other program with the same folders).
 */
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "lib/lab_pace.h"
#include "lib/lab_relay.h"
#include "lib/lab_test.h"

/* Answers of version 1 are not what deploy/openapi.yaml describes. */
static void note_nothing(void)
{
	unsetenv("DECANT_HTTP_NOTES");
}

TestSuite(upgrade, .timeout = 240, .init = note_nothing);

#define MB 48

/* --- the version before --------------------------------------------------------------------------- */

#define FROZEN "build/frozen/protocol-1/build"

/** struct ages - host a is of protocol version 1, host b of today; so are the guests, if @old_guests */
struct ages {
	struct lab *lab;
	struct lab_host *a, *b;
};

/* A guest's two processes must be of one build; today's library speaks to no agent of then. */
static struct ages ages_begin(bool old_guests)
{
	struct ages s = {.lab = lab_new(lab_test_failed)};
	char *frozen = realpath(FROZEN, NULL);

	lab_check(s.lab, frozen, FROZEN ": %m: run tests/frozen/make");
	if (old_guests)
		snprintf(s.lab->guests_at, sizeof(s.lab->guests_at), "%.200s/tests/guests", frozen);
	s.a = lab_host_start(s.lab, &(struct lab_host_opts){.name = "a", .build = frozen});
	s.b = lab_host_start(s.lab, &(struct lab_host_opts){.name = "b"});
	free(frozen);
	return s;
}

/* From version 1 to today's agents and back; each side verifies every page. */
static void there_and_back(const char *there, const char *back, enum lab_kind kind)
{
	struct ages s = ages_begin(true);
	struct lab_guest_opts opts = {.mb = MB, .kind = kind, .threads = 2, .writes = 2000};
	struct lab_guest *g = lab_guest_start(s.a, &opts);

	json_decref(lab_migrate(s.a, s.b, g, &(struct lab_move){.mode = there}));
	lab_guest_arrived(g, s.b);
	lab_host_knows(s.b, g->name);
	json_decref(lab_migrate(s.b, s.a, g, &(struct lab_move){.mode = back}));
	lab_guest_arrived(g, s.a);
	lab_end(s.lab);
}

/* An agent of then cannot be asked what it has to spare: it is tried all the same. */
Test(upgrade, evacuated_to_version_1)
{
	struct ages s = ages_begin(true);
	struct lab_guest *g = lab_guest_start(s.b, &(struct lab_guest_opts){.mb = 8});
	char *out;
	json_t *e;

	lab_check(s.lab,
		  lab_decant(s.b, 30000, &out, NULL,
			     (const char *[]){"evacuate", "--to", s.a->to, "--wait", "--json",
					      NULL}) == 0,
		  "it was not tried");
	e = json_loads(out, 0, NULL);
	lab_check(s.lab,
		  !strcmp(lab_str(s.lab, json_array_get(lab_at(e, "destinations"), 0), "state"),
			  "unknown"),
		  "%s", out);
	json_decref(e);
	free(out);
	lab_guest_arrived(g, s.a);
	lab_end(s.lab);
}

Test(upgrade, version_1_there_and_back)
{
	there_and_back("hybrid", "postcopy", LAB_MEMFD);
}

Test(upgrade, version_1_by_precopy)
{
	lab_test_long();
	there_and_back("precopy", "precopy", LAB_MEMFD);
}

Test(upgrade, version_1_anonymous_memory)
{
	lab_test_long();
	there_and_back("postcopy", "hybrid", LAB_ANON);
}

/* What version 1 has no words for is not sent and not left out, but refused. */
Test(upgrade, version_1_knows_no_read_only_blocks)
{
	struct ages s = ages_begin(false);
	struct lab_guest_opts opts = {.mb = 8, .blocks = 2, .rom = true, .writes = 100};
	struct lab_guest *g = lab_guest_start(s.b, &opts);
	struct lab_move move = {.exit = 3, .phase = "failed", .code = "version"};

	json_decref(lab_migrate(s.b, s.a, g, &move));
	lab_guest_verified(g);
	lab_end(s.lab);
}

/* A lost session cannot be made again with it: the guest waits, and it is said why. */
Test(upgrade, version_1_knows_no_recovery)
{
	struct ages s;
	struct lab_guest *g;
	struct lab_move move = {.mode = "postcopy", .args = {"--bandwidth", "40Mbit"}};
	struct lab_relay *relay;
	struct lab_proc *p;
	json_t *job;

	lab_test_long();
	s = ages_begin(true);
	relay = lab_relay_new(s.a);
	g = lab_guest_start(s.b, &(struct lab_guest_opts){.mb = MB, .threads = 1, .writes = 100});
	/* In the middle of post-copy. */
	lab_relay_later(relay, 18u << 20);
	lab_relay_cut(relay);
	lab_relay_later(relay, 0);
	p = lab_migrate_begin(s.b, s.a, g, &move);
	lab_until(s.lab, 10000, lab_proc_said(s.lab, s.b->source, "no session can be made again"),
		  "it does not say why");
	job = lab_job_newest(s.b);
	lab_check(s.lab, !strcmp(lab_str(s.lab, job, "owner"), "destination"), "owner");
	json_decref(job);
	lab_guest_unbroken(g, s.b, s.a);
	lab_proc_kill(s.lab, p);
	lab_relay_free(relay);
	lab_guest_abandon(g);
	lab_end(s.lab);
}

/* --- in flight ------------------------------------------------------------------------------------- */

/* The other build of today's: it says another version. */
#define OTHER "build/faults"

static void other_build(struct lab_host *h)
{
	char *other = realpath(strcmp(h->build, h->lab->build) != 0 ? h->lab->build : OTHER, NULL);

	lab_check(h->lab, other, OTHER ": %m: run make faulty");
	snprintf(h->build, sizeof(h->build), "%.200s", other);
	free(other);
}

/* An orderly end is one: exit code 0, and soon. */
static void end_orderly(struct lab_host *h, struct lab_proc *p)
{
	lab_check(h->lab, kill(p->pid, SIGTERM) == 0, "%s: %m", p->name);
	lab_check(h->lab, lab_proc_wait(h->lab, p, 10000) == 0, "%s has ended with %d", p->name,
		  p->status);
}

static void replace(struct lab_host *h, bool source)
{
	char *text;

	end_orderly(h, source ? h->source : h->dest);
	other_build(h);
	if (source)
		lab_host_source_start(h);
	else
		lab_host_dest_start(h);
	text = lab_proc_text(h->lab, source ? h->source : h->dest, "err");
	lab_check(h->lab, !strstr(h->build, OTHER) || strstr(text, "+faults serves"),
		  "it is not the other build: %s", text);
	free(text);
}

/** struct flight - a migration that is slow enough to replace somebody */
struct flight {
	struct lab *lab;
	struct lab_host *a, *b;
	struct lab_guest *g;
	struct lab_move move;
	struct lab_proc *p;
};

static struct flight flight_begin(const char *mode, const char *phase)
{
	struct flight f = {.move = {.mode = mode, .args = {"--bandwidth", "100Mbit"}}};
	struct lab_guest_opts opts = {.mb = MB, .threads = 2, .writes = 1000};

	f.lab = lab_test_pair(&f.a, &f.b);
	f.g = lab_guest_start(f.a, &opts);
	f.p = lab_migrate_begin(f.a, f.b, f.g, &f.move);
	lab_until(f.lab, 10000, lab_job_phase_is(f.a, phase), "%s was not reached", phase);
	return f;
}

static void ended_at_b(struct flight *f)
{
	lab_guest_arrived(f->g, f->b);
	lab_end(f->lab);
}

/*
 * Post-copy goes on with the other build, and what waits for the job over REST is told of its end by it.
 * While there is no agent the guest waits for pages and is never handed others.
 */
static void in_postcopy(bool source, bool dest)
{
	struct flight f = flight_begin("postcopy", "postcopy");

	if (source)
		replace(f.a, true);
	lab_guest_unbroken(f.g, f.a, f.b);
	if (dest)
		replace(f.b, false);
	lab_check(f.lab, lab_proc_wait(f.lab, f.p, 60000) == 0, "the command ended with %d",
		  f.p->status);
	lab_check(f.lab, lab_job_phase_is(f.a, "completed"), "it is not completed");
	ended_at_b(&f);
}

Test(upgrade, source_in_postcopy)
{
	in_postcopy(true, false);
}

Test(upgrade, dest_in_postcopy)
{
	in_postcopy(false, true);
}

Test(upgrade, both_in_postcopy)
{
	lab_test_long();
	in_postcopy(true, true);
}

/*
 * In precopy nothing is promised but that the guest runs on at the source, at once: the job is over, and
 * the next one, with the other build, moves it.
 */
static void in_precopy(bool source)
{
	struct flight f = flight_begin("precopy", "precopy");
	struct lab_move failed = {.mode = "precopy", .exit = 1, .phase = "failed"};
	struct pace *pace;

	pace = pace_start();
	lab_guest_calm(f.g);
	replace(source ? f.a : f.b, source);
	json_decref(lab_migrate_end(f.a, f.p, &failed));
	lab_guest_verified(f.g);
	lab_soon(f.lab, pace, lab_guest_report(f.g).stall_us, 1000000, "the guest stood");
	pace_end(pace);
	lab_until(f.lab, 10000, lab_host_guests(f.b) == 0, "the empty guest stays");
	lab_host_knows(f.a, f.g->name);
	json_decref(lab_migrate(f.a, f.b, f.g, &(struct lab_move){0}));
	ended_at_b(&f);
}

Test(upgrade, source_in_precopy)
{
	in_precopy(true);
}

Test(upgrade, dest_in_precopy)
{
	in_precopy(false);
}
