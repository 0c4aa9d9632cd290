/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A disk that takes seconds for one sync. What a record announces waits for it, as long as it takes; nobody else
 * does. While one waits it can be cancelled, lose its session or its guest, or the agent can be killed.
 *
 * The agents are the real ones, with a library between them and fdatasync(2) that keeps a file's sync for as long as the
 * test wants.
 */
#include <signal.h>
#include <string.h>
#include <unistd.h>
#include "lib/lab_pace.h"
#include "lib/lab_preload.h"
#include "lib/lab_relay.h"
#include "lib/lab_test.h"

TestSuite(syncs, .timeout = 120);

/** WATCH_MS, WATCH_FULL_MS - how long others are looked at; the longer is longer than a peer bears silence */
#define WATCH_MS      1500
#define WATCH_FULL_MS 7000
/** SAME_MS - for what must not happen meanwhile */
#define SAME_MS 700
/** SOON_MS - an agent whose loop does not stand answers by then */
#define SOON_MS 1000

/**
 * struct scene - two hosts whose disks can be stopped, and a guest on its way
 * @mark:	of a, b: as long as it is there nothing is synced
 * @host:	a, b
 * @move:	of the guest, by @p
 */
struct scene {
	struct lab *lab;
	struct lab_host *host[2];
	char mark[2][LAB_PATH_MAX + 16];
	struct lab_relay *relay;
	struct lab_guest *g;
	struct lab_move move;
	struct lab_proc *p;
};

enum { A, B };

static struct scene scene_new(void)
{
	static const char *const names[] = {"a", "b"};
	struct scene s = {.lab = lab_new(lab_test_failed)};

	for (int i = 0; i < 2; i++) {
		s.host[i] = lab_host_new(s.lab, &(struct lab_host_opts){.name = names[i]});
		snprintf(s.mark[i], sizeof(s.mark[i]), "%s/busy", s.host[i]->dir);
		lab_preload(s.lab, "sync", s.mark[i]);
		lab_host_source_start(s.host[i]);
		lab_host_dest_start(s.host[i]);
		lab_preload_end();
	}
	return s;
}

/*
 * There is time to stop a disk before the switch: 24 MiB at 80 Mbit/s take 2.4 s. And behind it: a guest asks for all of
 * its pages when it has arrived, and has fewer in no time.
 */
#define PRECOPY_MB  24
#define POSTCOPY_MB 64

static void set_out(struct scene *s, const char *mode, const char *bandwidth, unsigned int mb)
{
	s->move = (struct lab_move){.mode = mode, .args = {"--bandwidth", bandwidth}};
	s->g = lab_guest_start(s->host[A],
			       &(struct lab_guest_opts){.mb = mb, .threads = 2, .writes = 200});
	s->p = lab_migrate_begin(s->host[A], s->host[B], s->g, &s->move);
}

static void reaches(struct scene *s, const char *phase)
{
	lab_until(s->lab, 20000, lab_job_phase_is(s->host[A], phase), "%s was not reached", phase);
}

/* --- the disk --- */

/* @part: of the paths of files that do not come onto it */
static void disk_stop(struct scene *s, int i, const char *part)
{
	char at[LAB_PATH_MAX + 32];

	snprintf(at, sizeof(at), "%s.at", s->mark[i]);
	unlink(at);
	lab_write_file(s->lab, s->mark[i], part);
}

static void disk_go(struct scene *s, int i)
{
	lab_check(s->lab, !unlink(s->mark[i]), "%s: %m", s->mark[i]);
}

/* Is a file being synced whose last record is this one? */
static bool syncs(struct scene *s, int i, const char *record)
{
	char at[LAB_PATH_MAX + 32], *path, *text, *rest;
	bool found = false;

	snprintf(at, sizeof(at), "%s.at", s->mark[i]);
	text = lab_read_file(at);
	rest = text;
	while (rest && !found && (path = strsep(&rest, "\n")) && *path) {
		char *journal = lab_read_file(path), *end = journal;
		char quoted[64];

		snprintf(quoted, sizeof(quoted), "\"%s\"", record);
		for (char *p = journal; p && (p = strchr(p, '\n')) && p[1];)
			end = ++p;
		found = end && strstr(end, quoted);
		free(journal);
	}
	free(text);
	return found;
}

static void disk_stands(struct scene *s, int i, const char *record)
{
	lab_until(s->lab, 20000, syncs(s, i, record), "nobody syncs %s", record);
}

/* All that the incoming's journal says. */
static bool dest_has(struct scene *s, const char *record)
{
	json_t *inc = lab_incoming_newest(s->host[B]);
	char path[LAB_PATH_MAX + 96], quoted[64], *text;
	bool has;

	lab_check(s->lab, inc, "no incoming");
	snprintf(path, sizeof(path), "%s/state/incoming/%s.journal", s->host[B]->dir,
		 lab_str(s->lab, inc, "id"));
	json_decref(inc);
	snprintf(quoted, sizeof(quoted), "\"%s\"", record);
	text = lab_read_file(path);
	has = text && strstr(text, quoted);
	free(text);
	return has;
}

/* Up to where the source's, or the destination's, record stands on its way to the disk. */
static void stands_at(struct scene *s, int i, const char *record)
{
	bool before = !strcmp(record, "may-hand-over") || !strcmp(record, "may-own");

	set_out(s, before ? "hybrid" : "postcopy", "80Mbit", before ? PRECOPY_MB : POSTCOPY_MB);
	reaches(s, before ? "precopy" : "postcopy");
	/* "owner" is synced behind RUNNING: let that be over. */
	if (!before)
		lab_until(s->lab, 5000, dest_has(s, "owner"), "no record of the owner");
	for (uint64_t end = lab_now_ms() + 100; !before && lab_now_ms() < end;)
		lab_nap();
	disk_stop(s, i, "");
	disk_stands(s, i, record);
}

/* --- others go on --- */

/* Both agents answer at once, until @p has ended, or for this time. */
static void watch(struct scene *s, struct lab_proc *p, unsigned int ms)
{
	struct pace *pace = pace_start();
	uint64_t end = lab_now_ms() + ms, longest = 0, t;

	while (lab_now_ms() < end || (p && lab_proc_alive(p))) {
		t = lab_now_ms();
		json_decref(lab_job_newest(s->host[A]));
		json_decref(lab_incoming_newest(s->host[B]));
		t = lab_now_ms() - t;
		longest = t > longest ? t : longest;
		lab_nap();
	}
	lab_soon(s->lab, pace, longest * 1000, SOON_MS * 1000, "both agents answer");
	pace_end(pace);
}

/* Another guest leaves; its pages are asked for, and come, as if nothing was. */
static void another_leaves(struct scene *s, unsigned int ms)
{
	struct lab_move move = {.mode = "postcopy", .args = {"--bandwidth", "80Mbit"}};
	struct lab_guest *g = lab_guest_start(
		s->host[A],
		&(struct lab_guest_opts){.name = "other", .mb = 32, .threads = 2, .writes = 300});
	struct pace *pace = pace_start();
	struct lab_proc *p = lab_migrate_begin(s->host[A], s->host[B], g, &move);
	json_t *job;

	watch(s, p, ms);
	job = lab_migrate_end(s->host[A], p, &move);
	lab_guest_arrived(g, s->host[B]);
	lab_soon(s->lab, pace, (uint64_t)lab_num(s->lab, job, "postcopy.latency_us.max"), 500000,
		 "a page");
	lab_soon(s->lab, pace, lab_guest_report(g).stall_us, 500000, "the guest stood");
	pace_end(pace);
	json_decref(job);
}

Test(syncs, others_go_on)
{
	struct scene s = scene_new();
	char id[64];
	json_t *job;

	stands_at(&s, A, "may-hand-over");
	job = lab_job_newest(s.host[A]);
	snprintf(id, sizeof(id), "%s", lab_str(s.lab, job, "id"));
	json_decref(job);
	disk_stop(&s, A, id);
	disk_stop(&s, B, id);
	lab_check(s.lab, !dest_has(&s, "may-own"), "INTENT was sent before the record was synced");
	another_leaves(&s, s.lab->full ? WATCH_FULL_MS : WATCH_MS);
	disk_go(&s, A);
	disk_stands(&s, B, "may-own");
	watch(&s, NULL, SAME_MS);
	lab_check(s.lab, !lab_guest_report(s.g).paused, "the guest was paused");
	disk_go(&s, B);
	json_decref(lab_migrate_end(s.host[A], s.p, &s.move));
	lab_guest_arrived(s.g, s.host[B]);
	lab_check(s.lab, !lab_proc_said(s.lab, s.host[A]->source, "session is lost"),
		  "a session was given up");
	lab_end(s.lab);
}

/* As decant-dest does for each guest that arrives: it is said to be known when that is on the disk. */
Test(syncs, a_description)
{
	struct scene s = scene_new();
	char path[LAB_PATH_MAX + 32];
	struct lab_proc *p;

	snprintf(path, sizeof(path), "%s/new.json", s.lab->root);
	lab_write_file(s.lab, path, "{\"name\": \"new\", \"driver\": \"native\"}");
	disk_stop(&s, A, "guests.json");
	p = lab_decant_begin(s.host[A], (const char *[]){"add", path, NULL});
	snprintf(path, sizeof(path), "%s.at", s.mark[A]);
	lab_until(s.lab, 10000, !access(path, F_OK), "nobody syncs it");
	watch(&s, NULL, SAME_MS);
	lab_check(s.lab, lab_proc_alive(p), "it was answered before it was on the disk");
	disk_go(&s, A);
	lab_check(s.lab, lab_proc_wait(s.lab, p, 5000) == 0, "it was refused");
	lab_end(s.lab);
}

/* --- while a step waits --- */

/* It never left, nothing of it stays there, and it still can go. */
static void stayed(struct scene *s, const char *phase, const char *code)
{
	s->move.exit = 1;
	s->move.phase = phase;
	s->move.code = code;
	json_decref(lab_migrate_end(s->host[A], s->p, &s->move));
	lab_guest_verified(s->g);
	lab_until(s->lab, 15000, lab_host_guests(s->host[B]) == 0, "the empty guest stays there");
	json_decref(lab_migrate(s->host[A], s->host[B], s->g, &(struct lab_move){0}));
	lab_guest_arrived(s->g, s->host[B]);
	lab_end(s->lab);
}

static void runs_on(struct scene *s)
{
	uint64_t counter = lab_guest_counter(s->g, s->host[A]);

	for (uint64_t end = lab_now_ms() + SAME_MS; lab_now_ms() < end; lab_nap())
		lab_check(s->lab, !lab_guest_report(s->g).paused, "the guest was paused");
	lab_until(s->lab, 5000, lab_guest_counter(s->g, s->host[A]) > counter, "it does not run");
}

Test(syncs, cancelled)
{
	struct scene s = scene_new();
	struct pace *pace;
	uint64_t t;
	json_t *job;

	stands_at(&s, A, "may-hand-over");
	job = lab_job_newest(s.host[A]);
	pace = pace_start();
	t = lab_now_ms();
	lab_check(s.lab,
		  lab_decant(s.host[A], 10000, NULL, NULL,
			     (const char *[]){"cancel", lab_str(s.lab, job, "id"), NULL}) == 0,
		  "cannot be cancelled");
	t = lab_now_ms() - t;
	json_decref(job);
	lab_brisk(s.lab, pace, t * 1000, 2 * SOON_MS * 1000, "it is cancelled");
	pace_end(pace);
	runs_on(&s);
	lab_check(s.lab, lab_job_phase_is(s.host[A], "cancelling"), "ended before the record");
	lab_check(s.lab, !dest_has(&s, "may-own"), "INTENT was sent");
	disk_go(&s, A);
	stayed(&s, "cancelled", NULL);
}

static void session_lost(int i, const char *record)
{
	struct scene s = scene_new();

	s.relay = lab_relay_new(s.host[B]);
	stands_at(&s, i, record);
	lab_relay_cut(s.relay);
	runs_on(&s);
	if (i == B) {
		lab_until(s.lab, 5000, lab_job_phase_is(s.host[A], "failed"), "not given up");
		lab_check(s.lab, lab_host_guests(s.host[B]) == 1, "ended before the record");
	}
	disk_go(&s, i);
	stayed(&s, "failed", "tls-closed");
}

Test(syncs, session_lost_at_the_source)
{
	session_lost(A, "may-hand-over");
}

Test(syncs, session_lost_at_the_destination)
{
	session_lost(B, "may-own");
}

Test(syncs, guest_dies)
{
	struct scene s = scene_new();

	stands_at(&s, B, "may-own");
	kill(lab_guest_pid(s.g, s.host[B]), SIGKILL);
	runs_on(&s);
	disk_go(&s, B);
	stayed(&s, "failed", "guest-gone");
}

/* --- killed while a step waits: it was not announced, and a new agent goes on as if it had been on the disk --- */

static void killed(struct scene *s, int i)
{
	struct lab_host *h = s->host[i];

	lab_proc_kill(s->lab, i == A ? h->source : h->dest);
	if (i == A)
		lab_proc_kill(s->lab, s->p);
	disk_go(s, i);
	if (i == A)
		lab_host_source_start(h);
	else
		lab_host_dest_start(h);
}

Test(syncs, source_killed_before_intent)
{
	struct scene s = scene_new();

	stands_at(&s, A, "may-hand-over");
	runs_on(&s);
	lab_check(s.lab, !dest_has(&s, "may-own"), "INTENT was sent before the record was synced");
	killed(&s, A);
	reaches(&s, "failed");
	lab_guest_verified(s.g);
	lab_until(s.lab, 15000, lab_host_guests(s.host[B]) == 0, "the empty guest stays there");
	lab_end(s.lab);
}

Test(syncs, dest_killed_before_intent_ack)
{
	struct scene s = scene_new();

	stands_at(&s, B, "may-own");
	runs_on(&s);
	killed(&s, B);
	stayed(&s, "failed", "tls-closed");
}

Test(syncs, dest_killed_before_the_receipt)
{
	struct scene s = scene_new();

	stands_at(&s, B, "completed");
	for (uint64_t end = lab_now_ms() + SAME_MS; lab_now_ms() < end; lab_nap())
		lab_check(s.lab, lab_job_phase_is(s.host[A], "postcopy"),
			  "the receipt was sent before the record was synced");
	killed(&s, B);
	/* By its answer, which has no figures. */
	reaches(&s, "completed");
	lab_proc_kill(s.lab, s.p);
	lab_guest_arrived(s.g, s.host[B]);
	lab_end(s.lab);
}

Test(syncs, source_killed_before_the_copy_ends)
{
	struct scene s = scene_new();
	pid_t pid;

	stands_at(&s, A, "ended");
	pid = lab_guest_pid(s.g, s.host[A]);
	for (uint64_t end = lab_now_ms() + SAME_MS; lab_now_ms() < end; lab_nap())
		lab_check(s.lab, pid && !kill(pid, 0), "it ended before the record was synced");
	killed(&s, A);
	lab_guest_arrived(s.g, s.host[B]);
	lab_end(s.lab);
}
